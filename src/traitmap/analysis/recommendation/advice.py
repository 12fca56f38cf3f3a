"""A recommendation as records: sources in order, why, what they may cost, and what cannot be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from traitmap.analysis.interval import Interval
from traitmap.analysis.reason import Reason

Verdict = Literal["one stands out", "two are level", "cannot tell"]


@dataclass(frozen=True)
class SideEffect:
    """What a source does to something else that the user cares about: measured, in points, 95 % interval.

    kind: ``target`` or ``trait``.
    """

    name: str
    kind: Literal["target", "trait"]
    effect: Interval


@dataclass(frozen=True)
class Advice:
    """One source (or adapter) for the target.

    gain: predicted, with a 90 % interval. popularity: the gain that its mean effect on other targets alone
    would predict. harm: probability that it does worse than the base, NaN where no base is known.
    best: probability that it is the best of all that were ranked. reasons: strongest first; contributions
    relative to the average source. measured: its measured gain, 95 %, which the prediction has not seen;
    unknown where it was not measured. probed: whether a probe of it was used. touched: how many of the
    target's items stand in its training texts, in words, where they are too few to matter.
    """

    source: str
    gain: Interval
    popularity: float
    harm: float
    best: float
    reasons: tuple[Reason, ...]
    side_effects: tuple[SideEffect, ...]
    measured: Interval
    probed: bool = False
    touched: str = ""


@dataclass(frozen=True)
class SetAside:
    """A source that is not ranked. kind: ``contaminated`` or ``own`` (the target's own training set)."""

    source: str
    kind: Literal["contaminated", "own"]
    words: str
    measured: Interval


@dataclass(frozen=True)
class Suggestion:
    """A source to measure next. change: probability that another source stands first afterwards; worth:
    expected points that the first one then gains."""

    source: str
    change: float
    worth: float
    words: str


@dataclass(frozen=True)
class Recommendation:
    """Sources for one target, best first. Numbers are in ``unit``.

    new: the target is no column of the matrix; else its column was hidden from the prediction.
    verdict: whether one source stands out, two cannot be told apart, or the best three are within noise.
    smallest: the difference between two sources that could have been told. popular: sources by their mean
    effect on other targets. random: expected gain of a source drawn at random. notes: what else to know,
    in sentences. measured: what the picks of the model, of popularity and of chance turned out to give,
    and the best that there was; unknown where the target was not measured.
    """

    target: str
    new: bool
    unit: str
    ranked: tuple[Advice, ...]
    set_aside: tuple[SetAside, ...]
    verdict: Verdict
    words: str
    smallest: float
    popular: tuple[str, ...]
    random: float
    measured: Mapping[str, float]
    next_probes: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    conditions: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        listed = {key: [_plain_advice(one) for one in getattr(self, key)] for key in ("ranked", "set_aside")}
        found: dict[str, Any] = _plain({**asdict(self), **listed})
        return found

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        from traitmap.analysis.recommendation.advice_html import advice_html

        return advice_html(self)

    def __str__(self) -> str:
        lines = [f"Sources for {self.target} ({self.unit}): {self.words}"]
        for place, one in enumerate(self.ranked, start=1):
            told = f"{place}. {one.source} {_number(one.gain.value)} "
            told += f"[{_number(one.gain.low)}, {_number(one.gain.high)}]"
            lines.append(told + "".join(f"; {reason.words}" for reason in one.reasons))
        lines += [f"not ranked: {one.source}, {one.words}" for one in self.set_aside]
        return "\n".join([*lines, *self.notes])


def _plain_advice(one: Advice | SetAside) -> dict[str, Any]:
    found = asdict(one)
    found["measured"] = one.measured.to_json()
    if isinstance(one, Advice):
        found["gain"] = one.gain.to_json()
        found["side_effects"] = [
            asdict(effect) | {"effect": effect.effect.to_json()} for effect in one.side_effects
        ]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def _number(value: float) -> str:
    return f"{value:+.1f}" if isfinite(value) else "?"
