"""``traitmap explain`` in the terminal: the verdicts in words, then the tables that they rest on.

A recommendation in the terminal: the sources in order, why, what they may cost, what cannot be told.

How far recommendations can be trusted, as a table for the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitmap.analysis.explanation.records import Explanation, FeatureEffect, OddCell, Strength
from traitmap.matrix.reading import MARK
from traitmap.matrix.statistics import Interval
from traitmap.report.terminal import Blocks, words
from traitmap.wording import UNKNOWN, interval, probability, sentence, share, signed

if TYPE_CHECKING:
    from traitmap.analysis.recommendation.protocol import RecommenderEvaluation
    from traitmap.analysis.recommendation.records import Advice, Recommendation, SideEffect


SHOWN_CELLS = 8
SHOWN_PAIRS = 8


def explanation_table(found: Explanation) -> RenderableType:
    """Everything that a person reads of an explanation; the rest is in the record and its JSON."""
    parts: list[RenderableType] = [Padding(words(f"- {said}"), (0, 0, 0, 0)) for said in found.words]
    if not found.pairs:
        return Group(*parts)
    parts += _section("Composites beside each other (effects in SD)", _effects(found.joint, detectable=True))
    parts += _section("Each feature by itself", _effects(found.alone, detectable=False))
    parts += _section("Shares of the variance between pairs", _shares(found))
    parts += _section("Odd pairs: gain against what surface similarity predicts", *_odd(found))
    if found.asymmetry.pairs:
        parts += _section("Largest asymmetries", _asymmetries(found))
    parts += _section("Donors", _strengths("source", found.donors))
    parts += _section("Recipients", _strengths("target", found.recipients))
    for warning in found.warnings:
        parts += [Text(""), words(f"! {sentence(warning.message)}", "yellow")]
        parts.append(Padding(words(sentence(warning.action)), (0, 0, 0, 2), expand=False))
    return Group(*parts)


def _section(title: str, *body: RenderableType) -> list[RenderableType]:
    return [Text(""), words(title, "bold"), *body]


def _effects(effects: Sequence[FeatureEffect], *, detectable: bool) -> RenderableType:
    if not effects:
        return words("no feature of pairs is left after source and target effects")
    rows = [
        (
            words(effect.name),
            tuple(
                words(entry)
                for entry in (
                    _interval(effect.effect, 2),
                    probability(effect.q),
                    *((_number(effect.detectable),) if detectable else ()),
                    probability(effect.mantel.p),
                    probability(effect.mantel.naive_p),
                    effect.verdict,
                )
            ),
        )
        for effect in effects
    ]
    heads = ("effect", "q", *(("seen",) if detectable else ()), "Mantel", "naive", "verdict")
    return Blocks("", heads, tuple(rows))


def _shares(found: Explanation) -> RenderableType:
    rows = [
        (
            words(group.group),
            tuple(
                words(entry)
                for entry in (
                    share(group.share),
                    share(group.null_mean),
                    share(group.null_p95),
                    _shared(group.beyond),
                    probability(group.p),
                    group.verdict,
                )
            ),
        )
        for group in found.dominance.groups
    ]
    unexplained = (
        share(found.dominance.unexplained),
        "",
        "",
        _shared(found.dominance.unexplained_beyond),
        "",
        "",
    )
    rows.append((words("unexplained"), tuple(words(entry) for entry in unexplained)))
    heads = ("share", "chance", "chance 95 %", "beyond chance", "p", "verdict")
    return Blocks("", heads, tuple(rows))


def _odd(found: Explanation) -> list[RenderableType]:
    if not found.odd.odd:
        return [words("none")]
    parts: list[RenderableType] = []
    for cell in found.odd.odd[:SHOWN_CELLS]:
        parts.append(words(_odd_line(cell)))
        for reason in cell.reasons[:3]:
            parts.append(Padding(words(sentence(reason.words)), (0, 0, 0, 4), expand=False))
        if not cell.reasons:
            parts.append(Padding(words("No reason found."), (0, 0, 0, 4), expand=False))
    more = len(found.odd.odd) - SHOWN_CELLS
    if more > 0:
        parts.append(words(f"and {more} more (--json shows all)"))
    return parts


def _odd_line(cell: OddCell) -> str:
    tested = (
        f"q {probability(cell.q_noise)}" if isfinite(cell.q_noise) else f"q {probability(cell.q_scatter)}"
    )
    return (
        f"{cell.source} -> {cell.target}: {signed(cell.gain)}, predicted {signed(cell.predicted)}; "
        f"departs by {_interval(cell.departure, 1)}, {tested}"
    )


def _asymmetries(found: Explanation) -> RenderableType:
    rows = [
        (
            words(f"{pair.first} -> {pair.second}"),
            (
                words(signed(pair.forward)),
                words(signed(pair.backward)),
                words(_interval(pair.difference, 1)),
                words(probability(pair.q)),
            ),
        )
        for pair in found.asymmetry.pairs[:SHOWN_PAIRS]
    ]
    return Blocks("pair", ("gain", "back", "difference", "q"), tuple(rows))


def _strengths(head: str, strengths: Sequence[Strength]) -> RenderableType:
    ordered = sorted(strengths, key=lambda one: -one.effect.value if one.effect.known else 0.0)
    rows = [
        (
            words(one.name),
            (
                words(_interval(one.effect, 1)),
                words(f"{signed(one.null_low)} to {signed(one.null_high)}"),
                words(probability(one.q)),
            ),
        )
        for one in ordered
    ]
    return Blocks(head, ("strength", "chance 95 %", "q"), tuple(rows))


def _interval(value: Interval, digits: int) -> str:
    if not value.known:
        return UNKNOWN
    if not (isfinite(value.low) and isfinite(value.high)):
        return signed(value.value, digits)
    return f"{signed(value.value, digits)} [{signed(value.low, digits)}, {signed(value.high, digits)}]"


def _shared(value: Interval) -> str:
    if not value.known:
        return UNKNOWN
    return f"{100 * value.value:.0f} % [{100 * value.low:.0f}, {100 * value.high:.0f}]"


def _number(value: float) -> str:
    return f"{value:.2f}" if isfinite(value) else UNKNOWN


def recommendation_table(found: Recommendation) -> RenderableType:
    """Verdict, table of the ranked sources, reasons of each, what was set aside, and what to measure next."""
    parts: list[RenderableType] = [words(f"Sources for {found.target}", "bold"), words(found.words)]
    parts += [Text(""), _ranking(found)]
    for place, one in enumerate(found.ranked, start=1):
        parts += [Text(""), words(f"{place}. {one.source}", "bold")]
        parts += [_line(text) for text in _told(one)]
    if found.set_aside:
        parts += [Text(""), words("Not ranked", "bold")]
    for aside in found.set_aside:
        measured = f"; measured {_gain(aside.measured)}" if aside.measured.known else ""
        mark = f"{MARK} " if aside.kind == "contaminated" else ""
        parts.append(_line(f"{mark}{aside.source}: {aside.words}{measured}"))
    if found.next_probes:
        parts += [Text(""), words("To know more, measure on a few items", "bold")]
        parts += [_line(f"{probe.source}: {probe.words}") for probe in found.next_probes]
    parts += [Text(""), words(_beside(found)), *(words(note, "dim") for note in found.notes)]
    parts.append(words(_conditions(found), "dim"))
    return Group(*parts)


def _ranking(found: Recommendation) -> Blocks:
    measured = any(one.measured.known for one in found.ranked)
    heads = ("gain", "90 %", "by popularity", "harm", "is best", *(("measured",) if measured else ()))
    rows = []
    for place, one in enumerate(found.ranked, start=1):
        entries = [
            signed(one.gain.value) + ("*" if one.probed else ""),
            interval(one.gain.low, one.gain.high),
            signed(one.popularity),
            share(one.harm),
            share(one.best),
            *((signed(one.measured.value),) if measured else ()),
        ]
        rows.append((words(f"{place}. {one.source}"), tuple(words(entry) for entry in entries)))
    return Blocks("source", heads, tuple(rows))


def _told(one: Advice) -> list[str]:
    said = [reason.words for reason in one.reasons] or ["nothing speaks for or against it in particular"]
    said += [_cost(effect) for effect in one.side_effects]
    if one.touched:
        said.append(f"{MARK} {one.touched}, too few to move the gain by a point")
    return said


def _cost(effect: SideEffect) -> str:
    what = f"trait {effect.name}" if effect.kind == "trait" else effect.name
    if not effect.effect.known:
        return f"on {what}: unknown ({effect.effect.reason})"
    return f"on {what}: {_gain(effect.effect)}, measured"


def _gain(one: Interval) -> str:
    between = interval(one.low, one.high)
    return signed(one.value) + ("" if between == UNKNOWN else f" {between}")


def _beside(found: Recommendation) -> str:
    said = (
        f"Beside it: popularity (mean effect on other targets) would pick {found.popular[0]}; a source drawn "
        f"at random is expected to give {signed(found.random)}."
    )
    if found.measured:
        told = found.measured
        said += (
            f" Measured on {found.target}, unseen by the prediction: first {signed(told['first'])}, first of "
            f"popularity {signed(told['first_of_popularity'])}, at random {signed(told['random'])}, best "
            f"{signed(told['best'])}."
        )
    return said


def _conditions(found: Recommendation) -> str:
    how = found.conditions
    said = f"In {found.unit}. Predicted by {how['model']}" + (
        f" ({how['setting']})" if how["setting"] else ""
    )
    said += f", chosen by holding out targets among {how['other_targets']} others."
    if any(one.probed for one in found.ranked):
        said += " * measured in a probe."
    return said + " Reasons: points against the average source."


def _line(text: str) -> Padding:
    return Padding(words(text), (0, 0, 0, 3), expand=False)


SHOWN = {
    "ndcg": "NDCG",
    "ndcg@3": "NDCG@3",
    "regret@1": "Regret@1",
    "regret@3": "Regret@3",
    "mean_regret@5": "mean of 5",
    "spearman": "rank r",
    "coverage": "covered",
}


def evaluation_table(found: RecommenderEvaluation) -> Group:
    """Every model with its metrics, how far the chosen one is from popularity, and what was asked."""
    asked = found.conditions
    table = Table(
        title=f"{asked['n_sources']} sources, {asked['n_targets']} targets, held out: {asked['holdout']}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("model", no_wrap=True)
    for heading in SHOWN.values():
        table.add_column(heading, justify="right")
    for name, of in found.models.items():
        style = "bold" if name == found.chosen else ""
        table.add_row(name, *(_recommender_tables_told(of[metric], metric) for metric in SHOWN), style=style)
    return Group(table, _chosen(found), Text(_note(found), style="dim"))


def _recommender_tables_told(one: Interval, metric: str) -> str:
    if not one.known:
        return "-"
    return f"{one.value:.2f}" if metric == "spearman" else f"{one.value:.1f}"


def _chosen(found: RecommenderEvaluation) -> Table:
    """The chosen model with intervals, and its difference from popularity, target by target."""
    table = Table(title="What would be used", title_justify="left", title_style="bold")
    for heading in ("", found.chosen, "95 % interval", "less popularity", "95 % interval"):
        table.add_column(heading, justify="left" if not heading else "right")
    for metric, heading in SHOWN.items():
        one, apart = found.models[found.chosen][metric], found.differences[found.chosen][metric]
        table.add_row(
            heading,
            _recommender_tables_told(one, metric),
            _range(one, metric),
            _recommender_tables_told(apart, metric),
            _range(apart, metric),
        )
    return table


def _range(one: Interval, metric: str) -> str:
    if not (isfinite(one.low) and isfinite(one.high)):
        return "-"
    digits = 2 if metric == "spearman" else 1
    return f"{one.low:.{digits}f} to {one.high:.{digits}f}"


def _note(found: RecommenderEvaluation) -> str:
    picked = [name for name, _ in found.picks.values()]
    counted = ", ".join(
        f"{name} {picked.count(name)} of {len(picked)}"
        for name in sorted(set(picked), key=lambda name: (-picked.count(name), name))
    )
    return (
        f"{found.chosen} is what inner folds picked in each outer fold: {counted}. NDCG, regrets and "
        "coverage (of 90 % intervals) in percent; intervals are bootstrapped over "
        f"{found.conditions['averaged_over']}. --json has every metric with its interval."
    )
