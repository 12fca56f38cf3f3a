"""``traitmap explain`` in the terminal: the verdicts in words, then the tables that they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from traitmap.analysis.explanation.records import Explanation, FeatureEffect, OddCell, Strength
from traitmap.analysis.interval import Interval
from traitmap.report.blocks import Blocks, words
from traitmap.report.wording import UNKNOWN, probability, sentence, share, signed

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
            words(one.name),
            tuple(
                words(entry)
                for entry in (
                    _interval(one.effect, 2),
                    probability(one.q),
                    *((_number(one.detectable),) if detectable else ()),
                    probability(one.mantel.p),
                    probability(one.mantel.naive_p),
                    one.verdict,
                )
            ),
        )
        for one in effects
    ]
    heads = ("effect", "q", *(("seen",) if detectable else ()), "Mantel", "naive", "verdict")
    return Blocks("", heads, tuple(rows))


def _shares(found: Explanation) -> RenderableType:
    rows = [
        (
            words(one.group),
            tuple(
                words(entry)
                for entry in (
                    share(one.share),
                    share(one.null_mean),
                    share(one.null_p95),
                    _shared(one.beyond),
                    probability(one.p),
                    one.verdict,
                )
            ),
        )
        for one in found.dominance.groups
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
            words(f"{one.first} -> {one.second}"),
            (
                words(signed(one.forward)),
                words(signed(one.backward)),
                words(_interval(one.difference, 1)),
                words(probability(one.q)),
            ),
        )
        for one in found.asymmetry.pairs[:SHOWN_PAIRS]
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
