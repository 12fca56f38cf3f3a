"""A recommendation in the terminal: the sources in order, why, what they may cost, what cannot be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from traitmap.report.blocks import Blocks, words
from traitmap.report.overlaps import MARK
from traitmap.report.wording import UNKNOWN, interval, share, signed

if TYPE_CHECKING:
    from traitmap.analysis.interval import Interval
    from traitmap.analysis.recommendation.advice import Advice, Recommendation, SideEffect


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
        parts += [_line(f"{one.source}: {one.words}") for one in found.next_probes]
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
