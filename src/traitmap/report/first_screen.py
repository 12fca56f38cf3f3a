"""The first screen: the answer of a matrix on a terminal and at the top of the page, and lines like its own.

Everything that is said stands in the record (``analysis.answer``); here it is laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table as Grid

from traitmap.analysis.answer_words import NAMED, trait_count, traits_in_words, why
from traitmap.analysis.tables import component_name, sources_table, targets_table, unclean_table
from traitmap.analysis.verdicts import GLYPHS, UNCLEAN, Verdicts
from traitmap.matrix.reading import MARK, PREDICTED, SIGNIFICANT, Reading, matrix_table
from traitmap.report.chart import diverging_class, value_class
from traitmap.report.heatmap import absolute_view, gain_view
from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import clean, counted, listed, plain, share, signed, typeset

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer
    from traitmap.analysis.explanation.records import Explanation, GroupShare
    from traitmap.analysis.recommendation.protocol import RecommenderEvaluation
    from traitmap.analysis.recommendation.records import Recommendation
    from traitmap.analysis.traits.records import Traits

SMALL_NAMED = 16  # rows or columns up to which the small matrix has names and signs
MOST_UNCLEAN = 40  # rows of the page's list of gains and losses that are something else


def lines_view(lines: Sequence[tuple[str, str]]) -> RenderableType:
    """Lines with their headings in a column of their own; long ones go on beneath themselves."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for heading, text in lines:
        grid.add_row(words(heading, "bold"), words(text))
    return grid


def first_screen_view(answer: Answer) -> RenderableType:
    """What was compared, the five lines, and the table of the targets."""
    return Group(
        words(answer.title, "bold"),
        lines_view(answer.lines),
        words(""),
        to_terminal(targets_table(answer)),
    )


def page_answer(answer: Answer, reading: Reading) -> dict[str, Any]:
    """What the top of the page shows: the lines, the tables, a small matrix, and what is something else."""
    return {
        "lines": [
            *(
                (heading.capitalize(), typeset(clean(f"{text}.")).replace(" -> ", " → "))
                for heading, text in answer.lines
            ),
            *(("Missing", clean(sentence)) for sentence in reading.absent),
        ],
        "table": targets_table(answer),
        "sources": sources_table(answer),
        "matrix": small_matrix(reading, answer.verdicts),
        "unclean": len(answer.unclean),
        "unclean_table": unclean_table(answer, MOST_UNCLEAN),
        "doubts": answer.doubts,
    }


@dataclass(frozen=True)
class SmallMatrix:
    """The matrix in small, in the order of the study: colours and signs of verdicts, no numbers.

    rows: (name, its cells), a cell being (class of its colour, sign, place of source and target). named:
    whether rows and columns have room for names. alt: what it shows.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]
    named: bool
    alt: str


def small_matrix(reading: Reading, verdicts: Verdicts) -> SmallMatrix:
    """Gains with the signs of their verdicts, or scores where no base is known, for beside a table."""
    view, colour = (gain_view, diverging_class) if reading.has_base else (absolute_view, value_class)
    named = len(reading.sources) <= SMALL_NAMED and len(reading.targets) <= SMALL_NAMED
    rows = []
    for s, source in enumerate(reading.sources):
        cells = []
        for t, target in enumerate(reading.targets):
            step, _ = view(reading, s, t)
            verdict = verdicts.of(source, target.name)
            sign = verdict.glyph if verdict.beyond_noise and named else ""
            own = " own" if reading.in_domain(s, t) else ""
            cells.append((f"{'none' if step is None else colour(step)}{own}", sign, f"{s} {t}"))
        rows.append((clean(source), tuple(cells)))
    what = "gains over the base, blue better and orange worse" if reading.has_base else "scores"
    return SmallMatrix(
        columns=tuple(clean(target.name) for target in reading.targets),
        rows=tuple(rows),
        named=named,
        alt=f"The matrix in small: {what}; its numbers stand in the section below.",
    )


def verdict_table(reading: Reading, verdicts: Verdicts, *, intervals: bool = False) -> Table:
    """The matrix with the sign of its verdict behind each gain, in place of marks of tests and overlaps.

    intervals: as in ``matrix_table``.
    """
    table = matrix_table(reading, intervals=intervals)
    if not reading.has_base:
        return table
    rows: list[Row] = [table.rows[0]]
    used = set()
    for source, row in zip(reading.sources, table.rows[1:], strict=True):
        entries: list[Entry | str] = [row[0]]
        for target, entry in zip(reading.targets, row[1:], strict=True):
            assert isinstance(entry, Entry)
            kind = verdicts.of(source, target.name).kind
            nothing = kind == "within noise" or (kind == "unknown" and not entry.mark.startswith("*"))
            if entry.mark and not entry.mark.startswith(PREDICTED):
                used |= set() if nothing else {kind}
                part = entry.mark[1:2] if reading.in_part else ""
                entry = replace(entry, mark=(" " if nothing else GLYPHS[kind]) + part)
            entries.append(entry)
        rows.append(entries)
    key = ", ".join(f"{glyph} {kind}" for kind, glyph in GLYPHS.items() if kind in used)
    note = "; ".join(
        part for part in table.notes[0].rstrip(".").split("; ") if not part.startswith(("* q", "! test"))
    )
    first = f"{note}; {key}." if key else f"{note}."
    return replace(table, rows=rows, notes=(first, *table.notes[1:]))


def page_matrix(reading: Reading, verdicts: Verdicts) -> Table:
    """The table beneath the heat map: signs of verdicts behind the gains, and a caption that says so."""
    table = verdict_table(reading, verdicts)
    used = [kind for kind in GLYPHS if any(cell.kind == kind for cell in verdicts.cells)]
    key = ", ".join(f"{GLYPHS[kind]} {kind}" for kind in used if kind != "within noise")
    caption = table.caption.replace(", * where q < .05", f"; {key}" if key else "")
    caption = caption.replace(f" {MARK} test items occur in the training data.", "")  # the verdict says so
    return replace(table, caption=caption)


# How other views open: at most five lines, details below.


def explanation_lines(explanation: Explanation, verdicts: Verdicts | None) -> list[tuple[str, str]]:
    """What goes with gains, how much of them, the oddest and the most asymmetric clean pairs, what is unseen.

    verdicts: pairs whose gain is something else than skill are counted apart; None where nobody looked.
    """
    lines = [("WHY", why(explanation))]
    groups = explanation.dominance.groups
    if groups:
        shares = [f"{group.group} properties {share(group.share)} ({_by_chance(group)})" for group in groups]
        unexplained = f"{share(explanation.dominance.unexplained)} is unexplained"
        lines.append(("SHARES", f"of the variance between pairs: {', '.join(shares)}; {unexplained}"))
    lines.append(("ODD", _odd_line(explanation, verdicts)))
    if explanation.asymmetry.pairs:
        lines.append(("ASYMMETRY", _asymmetry_line(explanation, verdicts)))
    seen = [effect.detectable for effect in explanation.joint if isfinite(effect.detectable)]
    unseen = f"effects under {plain(median(seen), 2)} SD mostly go unseen" if seen else ""
    tasks = counted(len({*explanation.sources, *explanation.targets}), "task")
    parts = (unseen, f"all of it rests on {tasks}")
    return [*lines, ("UNCERTAIN", "; ".join(filter(None, parts)))]


def _by_chance(group: GroupShare) -> str:
    return f"chance {share(group.null_mean)}, {group.verdict_words}"


def is_clean(verdicts: Verdicts | None, *places: tuple[str, str]) -> bool:
    """Whether no one of some cells is something else than skill, as far as it is known."""
    if verdicts is None:
        return True
    known = {(cell.source, cell.target): cell.kind for cell in verdicts.cells}
    return not any(known.get(place) in UNCLEAN for place in places)


def _odd_line(explanation: Explanation, verdicts: Verdicts | None) -> str:
    odd = explanation.odd
    clear = [cell for cell in odd.odd if is_clean(verdicts, (cell.source, cell.target))]
    text = f"{len(odd.odd)} of {counted(odd.tested, 'pair')} depart from what surface similarity predicts"
    if len(clear) < len(odd.odd):
        text += f", {len(odd.odd) - len(clear)} of them by something else than skill"
    if clear:
        first = clear[0]
        text += f"; most of all {first.source} -> {first.target} ({signed(first.gain)}, "
        text += f"predicted {signed(first.predicted)})"
    return text


def _asymmetry_line(explanation: Explanation, verdicts: Verdicts | None) -> str:
    pairs = explanation.asymmetry.pairs
    if explanation.asymmetry.reason:
        return f"which of {counted(len(pairs), 'pair')} are asymmetric cannot be told"
    beyond = [pair for pair in pairs if pair.q < SIGNIFICANT]
    clear = [
        pair for pair in beyond if is_clean(verdicts, (pair.first, pair.second), (pair.second, pair.first))
    ]
    text = f"{len(beyond)} of {counted(len(pairs), 'pair')} of tasks are asymmetric beyond noise"
    if len(clear) < len(beyond):
        text += f", {len(beyond) - len(clear)} of them by something else than skill"
    if clear:
        first = clear[0]
        text += f"; most of all {first.first} -> {first.second} "
        text += f"({signed(first.forward)}, back {signed(first.backward)})"
    return text


def traits_lines(traits: Traits) -> list[tuple[str, str]]:
    """How many traits, what the first one is, whether they stay, and what to be warned of."""
    used = traits.n_components.get("used") or 0
    verdict, evidence = traits_in_words(traits)
    lines = [("TRAITS", f"{verdict}: {evidence[:1].lower()}{evidence[1:]}".rstrip(".: "))]
    if used:
        order = sorted(range(len(traits.targets)), key=lambda t: -abs(_known(traits.loadings[t, 0])))
        loaded = [f"{traits.targets[t]} {signed(float(traits.loadings[t, 0]), 2)}" for t in order[:NAMED]]
        lines.append(("FIRST", f"{component_name(traits, 0)}: loads on {', '.join(loaded)}"))
        moved = sorted(range(len(traits.sources)), key=lambda s: -abs(_known(traits.effects[s, 0])))
        named = [f"{traits.sources[s]} {signed(float(traits.effects[s, 0]))}" for s in moved[:NAMED]]
        lines.append(("MOVED BY", f"{', '.join(named)} points"))
        lines.append(("TRUST", trait_count(traits)))
    if traits.warnings:
        first = traits.warnings[0].message.rstrip(".")
        lines.append(("UNCERTAIN", f"{counted(len(traits.warnings), 'warning')} below, first: {first}"))
    return lines


def recommendation_lines(result: Recommendation, answer: Answer | None) -> list[tuple[str, str]]:
    """Which source, what was measured of it, what was left out, why, and what cannot be told.

    answer: for the same target, where it is in the matrix: what its measured column says, which the
    prediction has not seen.
    """
    lines = [("PICK", result.headline.removesuffix("."))]
    if answer is not None and answer.has_base:
        lines.append(("MEASURED", answer.pick))
    aside = [f"{one.source} ({one.words})" for one in result.set_aside]
    if aside:
        lines.append(("LEFT OUT", listed(aside, NAMED)))
    if result.ranked and result.ranked[0].reasons:
        first = result.ranked[0]
        lines.append(("WHY", f"{first.source}: {'; '.join(reason.words for reason in first.reasons[:2])}"))
    doubts = []
    if isfinite(result.smallest):
        doubts.append(f"differences under {plain(result.smallest)} {result.unit} cannot be told")
    if result.next_probes:
        doubts.append(f"measure {result.next_probes[0].source} on a few items next")
    return [*lines, ("UNCERTAIN", "; ".join(doubts))] if doubts else lines


def evaluation_lines(result: RecommenderEvaluation) -> list[tuple[str, str]]:
    """Whether anything beats popularity here, what a first pick loses, and how far intervals hold."""
    lines = [("TRUST", result.headline.removesuffix("."))]
    lost = [
        f"{name} {plain(result.models[name]['regret@1'].value)} %"
        for name in dict.fromkeys((result.chosen, "popularity", "random"))
        if result.models[name]["regret@1"].known
    ]
    if lost:
        lines.append(("FIRST PICK", f"loses against the best source there was: {', '.join(lost)}"))
    covered = result.models[result.chosen].get("coverage")
    if covered is not None and covered.known:
        lines.append(("INTERVALS", f"90 % intervals hold {plain(covered.value)} % of what was measured"))
    targets = counted(int(result.conditions["n_targets"]), "target")
    return [*lines, ("UNCERTAIN", f"judged over {targets}; a target of another kind may differ")]


def _known(value: float) -> float:
    return float(value) if isfinite(value) else 0.0
