"""The paper's claims, asked of finished runs of this study: each with its interval and its null.

    python examples/real/claims.py runs/real-smollm2 runs/real-gemma3 [--parser PIPELINE] [--results FOLDER]
    python docs/real_run.py

The first command writes the answers, with matrix, traits and explanation, as small records beside the study,
and for several runs what holds in all and what differs; the second draws docs/real-run.md from the records of
all bases. A mean over several transfers speaks for
these sources and targets: items (and seeds, where there are several) are the sample. Its null permutes the
kinds of the sources in every possible way (at most 5,000 of them).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations, islice
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

import traitmap as tm
from traitmap.analysis.comparison import ComparedCell
from traitmap.analysis.profiles.parser import OBJECT_PREDICATE
from traitmap.analysis.profiles.relations import relation_in_words
from traitmap.analysis.verdicts import GAINS, LOSSES, UNCLEAN, CellVerdict
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast
from traitmap.matrix.statistics import Estimate, Interval, group_scores
from traitmap.study.settings import BASELINE
from traitmap.wording import estimate, probability, with_interval

MATHEMATICS = ("gsm8k", "goat")
CLASSIFICATION = ("mnli", "paws", "toxicity_civil", "flipkart", "amazon_reviews", "imdb")
LABELS = (
    *("flipkart", "flipkart_balanced", "amazon_reviews", "imdb", "sst2"),
    *("mnli", "paws", "toxicity_civil", "toxicity_davidson"),
)
SUMS = ("gsm8k", "svamp")  # targets of mathematics in words; goat's are numbers alone
MOST_PERMUTATIONS = 5_000


def scores_of(matrix: tm.TransferMatrix, target: str) -> np.ndarray:
    """(1 + S, seeds, items or groups) of one target, the base first."""
    return group_scores(matrix.item_scores[target], matrix.item_groups.get(target))


def mean_gain(matrix: tm.TransferMatrix, sources: Sequence[str], targets: Sequence[str]) -> Estimate:
    """Mean gain of some sources over the base on some targets that are not their own."""
    pairs = [
        (s, t) for s in sources for t in targets if s != t and s in matrix.sources and t in matrix.item_scores
    ]
    terms = []
    for source, target in pairs:
        scores = scores_of(matrix, target)
        terms.append(VarianceTerm(source, target, 1 / len(pairs), scores[1 + matrix.sources.index(source)]))
        terms.append(VarianceTerm("the base", target, -1 / len(pairs), scores[0]))
    return crossed_contrast(terms)


def contrast(matrix: tm.TransferMatrix, changed: str, parent: str, targets: Sequence[str]) -> Estimate:
    """Mean score of a changed source less its parent's, over some targets."""
    known = [target for target in targets if target in matrix.item_scores]
    terms = []
    for target in known:
        scores = scores_of(matrix, target)
        for source, sign in ((changed, 1), (parent, -1)):
            row = scores[1 + matrix.sources.index(source)]
            terms.append(VarianceTerm(source, target, sign / len(known), row))
    return crossed_contrast(terms)


def permuted(
    matrix: tm.TransferMatrix, sources: Sequence[str], pool: Sequence[str], targets: Sequence[str]
) -> float:
    """p of so large a mean gain (either sign) against every other choice of as many sources from the pool."""
    pool = [name for name in pool if name in matrix.sources]
    known = [target for target in targets if target in matrix.targets]
    rows = {name: matrix.sources.index(name) for name in pool}
    columns = [matrix.targets.index(target) for target in known]
    gains = {name: matrix.gains[rows[name], columns] for name in pool}

    def mean(names: Sequence[str]) -> float:
        return float(np.mean([g for n in names for g, t in zip(gains[n], known, strict=True) if n != t]))

    centre = mean(pool)
    seen = abs(mean([name for name in sources if name in pool]) - centre)
    permuted_means = [mean(names) for names in islice(combinations(pool, len(sources)), MOST_PERMUTATIONS)]
    return float(np.mean([abs(value - centre) >= seen - 1e-12 for value in permuted_means]))


def told(contrast: Estimate, factor: float, unit: str, digits: int = 1) -> str:
    """``+3.1 [+1.0, +5.2] points``."""
    found = contrast.interval()
    if not found.known:
        return "not measured"
    text = f"{factor * found.value:+.{digits}f}"
    if isfinite(found.low):
        return f"{text} [{factor * found.low:+.{digits}f}, {factor * found.high:+.{digits}f}] {unit}"
    return f"{text} {unit}, on no item another score"


def count(verdicts: tm.Verdicts, sources: Sequence[str], targets: Sequence[str]) -> str:
    """``3 clean gains, 1 clean loss of 18``."""
    cells = [
        cell
        for cell in verdicts.cells
        if cell.source in sources and cell.target in targets and cell.kind != "in-domain"
    ]
    gains, losses = (sum(cell.kind in kinds for cell in cells) for kinds in (GAINS, LOSSES))
    return f"{gains} gains and {losses} losses of {len(cells)} are clean"


class Asked:
    """A finished run with what the questions need, each computed once."""

    def __init__(self, run: Path) -> None:
        self.run = tm.open_run(run)
        self.matrix = self.run.matrix()
        self.verdicts = tm.verdicts(self.matrix if not run.is_dir() else str(run))
        self.explanation = self.run.explain()
        self.traits = self.run.traits()
        self.base = str(self.matrix.conditions["base"])
        self.seeds = len(self.matrix.conditions["seeds"])


def kinds(asked: Asked) -> list[tuple[str, str]]:
    """Does training on classification lift mathematics, and mathematics classification?"""
    matrix, every = asked.matrix, [*MATHEMATICS, "code_alpaca", *CLASSIFICATION]
    rows = []
    for name, sources, targets, factor, unit, digits in (
        ("classification on mathematics", CLASSIFICATION, SUMS, 1.0, "bits per byte", 3),
        ("mathematics on classification", MATHEMATICS, LABELS, 100.0, "points", 1),
        ("code on mathematics", ("code_alpaca",), SUMS, 1.0, "bits per byte", 3),
        ("code on classification", ("code_alpaca",), LABELS, 100.0, "points", 1),
    ):
        mean = told(mean_gain(matrix, sources, targets), factor, unit, digits)
        p = permuted(matrix, sources, every, targets)
        rows.append(
            (name, f"{mean}; sources permuted p = {p:.3f}; {count(asked.verdicts, sources, targets)}")
        )
    return rows


def asymmetry(asked: Asked) -> list[tuple[str, str]]:
    """Is transfer asymmetric?"""
    found = asked.explanation.asymmetry
    beyond = [pair for pair in found.pairs if pair.q < 0.05]
    rows = [("pairs that are asymmetric beyond noise", f"{len(beyond)} of {len(found.pairs)}")]
    rows += [
        (
            f"{pair.first} → {pair.second}",
            f"{pair.forward:+.2f} there, {pair.backward:+.2f} back; "
            f"apart by {estimate(pair.difference, 2)} SD of a target",
        )
        for pair in beyond[:4]
    ]
    value = found.reciprocity
    if value.known:
        rests = f" (rests on {', '.join(found.rests_on)})" if found.rests_on else ""
        rows.append(("reciprocity", f"{estimate(value, 2)}, p = {found.p:.3f}{rests}"))
    return rows


def wrong_labels(asked: Asked) -> list[tuple[str, str]]:
    """Do wrong labels hurt the source's own task and leave others?"""
    matrix, rows = asked.matrix, []
    for changed in ("amazon_half_wrong", "amazon_wrong"):
        if changed not in matrix.sources:
            continue
        others = [target for target in LABELS if target != "amazon_reviews"]
        own = contrast(matrix, changed, "amazon_reviews", ["amazon_reviews"])
        rows.append((f"{changed} less amazon_reviews, own task", told(own, 100, "points")))
        rest = contrast(matrix, changed, "amazon_reviews", others)
        rows.append((f"{changed} less amazon_reviews, {len(others)} other tasks", told(rest, 100, "points")))
    return rows


def balance(asked: Asked) -> list[tuple[str, str]]:
    """Does class balance travel?"""
    matrix, rows = asked.matrix, []
    for target in ("toxicity_civil", "toxicity_davidson", "imdb", "sst2", "flipkart"):
        if "flipkart_balanced" in matrix.sources and target in matrix.targets:
            found = contrast(matrix, "flipkart_balanced", "flipkart", [target])
            rows.append((f"balanced less unbalanced Flipkart on {target}", told(found, 100, "points")))
    return rows


def length(asked: Asked) -> list[tuple[str, str]]:
    """Does output length travel, and does it interpolate?"""
    rows = []
    for cell in asked.run.profile().cells.lengths if asked.run.profile().cells else ():
        if cell.seed is None and cell.written == "generated":
            best = cell.best
            change, between = best.change.difference, best.interpolation
            text = f"{change.value:+.0f} [{change.low:+.0f}, {change.high:+.0f}] {best.unit}"
            if between.known:
                way = f"{between.value:.2f} [{between.low:.2f}, {between.high:.2f}]"
                text += f"; on the way from base to source {way}"
            rows.append((f"{cell.source} → {cell.target}", text))
    return rows


def causes(asked: Asked) -> list[tuple[str, str]]:
    """Do style and meaning predict transfer, do length and class statistics?"""
    rows = [
        (
            effect.words,
            f"{effect.effect.value:+.2f} [{effect.effect.low:+.2f}, {effect.effect.high:+.2f}] SD, "
            f"q = {effect.q:.3f}: {effect.verdict}"
            + (f" (rests on {', '.join(effect.rests_on)})" if effect.rests_on else ""),
        )
        for effect in asked.explanation.joint
    ]
    for group in asked.explanation.dominance.groups:
        rows.append(
            (
                f"share of {group.group} properties",
                f"{100 * group.share:.0f} % (chance {100 * group.null_mean:.0f} %, {group.verdict})",
            )
        )
    return rows


def relations(asked: Asked, parser: str | None) -> list[tuple[str, str]]:
    """Which dependency relations profit, and does the paper's oprd survive a null?"""
    if parser is None:
        return [("dependency relations", "no parser was named")]
    effects = asked.run.profile(parser=parser).effects
    if effects is None:
        return [("dependency relations", "not measured")]
    rows = [("relations beyond chance", f"{len(effects.findings)} of {len(effects.tested)} tests")]
    rows += [(f"{e.source} → {e.target}", relation_in_words(e)) for e in effects.findings[:5]]
    oprd = [effect for effect in effects.tested if effect.relation == OBJECT_PREDICATE]
    significant = sum(effect.significant for effect in oprd)
    least = min((effect.q for effect in oprd), default=float("nan"))
    rows.append(("oprd", f"{significant} of {len(oprd)} tests beyond chance, least q {probability(least)}"))
    return rows


def traits(asked: Asked) -> list[tuple[str, str]]:
    """How many traits, and are they the paper's?"""
    found = asked.traits
    counts = found.n_components
    rows = [("traits", f"{counts['used']} count, {counts['stable']} stable enough to be named")]
    for place in range(max(counts["used"], 1)):
        order = np.argsort(-np.abs(found.loadings[:, place]))[:4]
        loads = ", ".join(f"{found.targets[t]} {found.loadings[t, place]:+.2f}" for t in order)
        share, null = found.explained_variance_ratio[place], found.null_p95[place]
        rows.append(
            (f"component {place + 1}", f"{100 * share:.0f} % (noise up to {100 * null:.0f} %): {loads}")
        )
    return rows


def clean(asked: Asked) -> list[tuple[str, str]]:
    """Which transfers are clean?"""
    variations = {
        name for name, source in asked.matrix.conditions["sources"].items() if source.get("variation")
    }
    cells = [
        cell for cell in asked.verdicts.cells if cell.source not in variations and cell.kind != "in-domain"
    ]
    kinds = Counter(cell.kind for cell in cells)
    rows = [("transfers between different tasks", str(len(cells)))]
    rows += [(kind, str(number)) for kind, number in kinds.most_common()]
    for title, members in (("gains", GAINS), ("losses", LOSSES)):
        by_target: dict[str, list[CellVerdict]] = {}
        for cell in cells:
            if cell.kind in members:
                by_target.setdefault(cell.target, []).append(cell)
        for target, found in by_target.items():
            found.sort(key=lambda cell: -abs(cell.improvement))
            rows.append(
                (f"clean {title} on {target}", ", ".join(f"{c.source} {interval_words(c)}" for c in found))
            )
    return rows


def signed(gain: Interval, better: float, digits: int) -> str:
    """``+12.0 [+4.1, +19.8]``, positive where the adapter is better; better: -1 of a metric where less is."""
    low, high = sorted((better * gain.low, better * gain.high))
    return with_interval(better * gain.value, low, high, digits)


def something_else(asked: Asked) -> list[tuple[str, str]]:
    """Which gains are something else than skill, and how one-sided are the base's own answers there?"""
    cells = [
        cell
        for cell in asked.verdicts.transfers
        if cell.improvement > 0 and (cell.kind in UNCLEAN or cell.kind == "unknown")
    ]
    rows = []
    for target in (target for target in LABELS if target in asked.matrix.targets):
        answers = tm.query(
            asked.run,
            "SELECT prediction, count(*) AS times FROM outcomes "
            f"WHERE source = '{BASELINE}' AND target = '{target}' GROUP BY ALL ORDER BY times DESC",
        )
        share = answers["times"].iloc[0] / answers["times"].sum()
        rows.append((f"the base on {target}", f"{answers['prediction'].iloc[0]!r} to {100 * share:.0f} %"))
        rows += [
            (f"{cell.source} → {target}", f"{interval_words(cell)}, {cell.kind}: {cell.words}")
            for cell in cells
            if cell.target == target
        ]
    return rows


def interval_words(cell: CellVerdict) -> str:
    """The gain of a cell; bits per byte with two digits."""
    better = 1 if cell.improvement == cell.gain.value else -1
    return signed(cell.gain, better, 1 if cell.unit == "points" else 2)


def learnt(asked: Asked) -> list[tuple[str, str]]:
    """Did the adapters learn their own tasks?"""
    own = [cell for cell in asked.verdicts.cells if cell.source == cell.target]
    return [(cell.source, interval_words(cell) if cell.gain.known else "not measured") for cell in own]


QUESTIONS = (
    ("Did the adapters learn their own tasks?", learnt),
    ("Which transfers are clean?", clean),
    ("Which gains are something else than skill, or may be?", something_else),
    ("Does training on classification lift mathematics, and mathematics classification?", kinds),
    ("Is transfer asymmetric?", asymmetry),
    ("Do wrong labels hurt the source's own task and leave others?", wrong_labels),
    ("Does class balance travel?", balance),
    ("Does output length travel, and does it interpolate?", length),
    ("What goes with gains: style and meaning, or lengths and classes?", causes),
    ("How many traits, and are they the paper's?", traits),
)


def write(folder: Path, name: str, record: Mapping[str, Any], indent: int | None = None) -> None:
    """One record as a JSON file."""
    text = json.dumps(record, indent=indent, ensure_ascii=False) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def without_places(record: dict[str, Any]) -> dict[str, Any]:
    """A matrix's record that tells of this machine's folders no more than their names."""
    study = record["conditions"]["study"]
    named = {key: Path(study[key]).name for key in ("data", "output") if study.get(key)}
    return {**record, "conditions": {**record["conditions"], "study": {**study, **named}}}


def write_answers(asked: Asked, results: Path, parser: str | None) -> None:
    """The records of one run, its answers among them."""
    questions = [*QUESTIONS, ("Which dependency relations profit?", partial(relations, parser=parser))]
    answers = {question: dict(answer(asked)) for question, answer in questions}
    for question, rows in answers.items():
        print(f"{question}\n" + "".join(f"  {name}: {found}\n" for name, found in rows.items()))
    screen = tm.answer(asked.run)
    name = asked.matrix.conditions["name"]
    claims = {
        "base": asked.base,
        "seeds": asked.seeds,
        "screen": [screen.title, *screen.lines],
        "answers": answers,
    }
    write(results, f"{name}-claims.json", claims, indent=1)
    write(results, f"{name}-matrix.json", without_places(asked.matrix.to_json()))
    write(results, f"{name}-traits.json", asked.traits.to_json())
    write(results, f"{name}-explanation.json", asked.explanation.to_json())


def write_comparison(runs: Sequence[Path], results: Path) -> None:
    """What holds on all bases and what differs between them, as ``traitmap compare`` says it."""
    found = tm.compare([str(run) for run in runs])

    def rows(cells: Sequence[ComparedCell]) -> list[list[str]]:
        return [
            [
                f"{cell.source} → {cell.target}",
                *(signed(gain, cell.better, cell.digits) for gain in cell.gains),
                signed(cell.difference, cell.better, cell.digits),
            ]
            for cell in cells
        ]

    record = {
        "bases": found.bases,
        "seeds": found.seeds,
        "lines": [[heading, words] for heading, words in found.lines],
        "holding": rows(found.holding),
        "differing": rows(found.differing),
    }
    for heading, words in found.lines:
        print(f"{heading:<11}{words}")
    write(results, "compared.json", record, indent=1)


def main() -> None:
    """Write the records of every run, its answers among them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--parser", help="a spaCy pipeline, by folder or name")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.results.mkdir(exist_ok=True)
    for run in options.runs:
        write_answers(Asked(run), options.results, options.parser)
    if len(options.runs) > 1:
        write_comparison(options.runs, options.results)


if __name__ == "__main__":
    main()
