"""A recommendation as records: sources in order, why, what they may cost, and what is not known.

Gains are in the unit that the recommendation names, higher is better. What was not measured, or cannot be
known, is an ``Interval`` with a reason, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from traitmap.analysis.profiles.pairs import Reason
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["clear", "tie", "inconclusive"]
VERDICTS: Mapping[Verdict, str] = MappingProxyType(  # for people
    {"clear": "one stands out", "tie": "two are level", "inconclusive": "cannot tell"}
)


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
    verdict: ``clear`` where one source stands out, ``tie`` where two cannot be separated, ``inconclusive``
        where the best three are within noise.
    headline: the first sentence to read: whether anything told the sources apart better than popularity, or
        than chance, did; else what the verdict says (``words``).
    smallest: the difference between two sources that could have been seen. popular: sources by their mean
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
    headline: str
    words: str
    smallest: float
    popular: tuple[str, ...]
    random: float
    measured: Mapping[str, float]
    next_probes: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    conditions: Mapping[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """Ranked sources as a table, best first. Sources that were set aside are not in it.

        Columns: source, predicted gain in ``unit`` with its 90 % interval low, high, then popularity, harm
        and best as in ``Advice``, measured (NaN where it was not), probed, and reasons in words.
        """
        import pandas as pd

        columns = ("popularity", "harm", "best")
        rows = [
            {"source": advice.source, "gain": advice.gain.value, "low": advice.gain.low}
            | {"high": advice.gain.high}
            | {column: getattr(advice, column) for column in columns}
            | {"measured": advice.measured.value, "probed": advice.probed}
            | {"reasons": "; ".join(reason.words for reason in advice.reasons)}
            for advice in self.ranked
        ]
        names = ["source", "gain", "low", "high", *columns, "measured", "probed", "reasons"]
        return pd.DataFrame(rows, columns=names)

    __repr__ = outline

    @property
    def verdict_words(self) -> str:
        """The verdict as people read it."""
        return VERDICTS[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        return {name: jsonable(getattr(self, name)) for name in self.__dataclass_fields__}

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        from traitmap.analysis.tables import recommendation_html

        return recommendation_html(self)

    def __str__(self) -> str:
        lines = [f"Sources for {self.target} ({self.unit}): {self.headline}"]
        for place, advice in enumerate(self.ranked, start=1):
            gain, low, high = (
                f"{value:+.1f}" if isfinite(value) else "?"
                for value in (advice.gain.value, advice.gain.low, advice.gain.high)
            )
            reasons = "".join(f"; {reason.words}" for reason in advice.reasons)
            lines.append(f"{place}. {advice.source} {gain} [{low}, {high}]{reasons}")
        lines += [f"not ranked: {aside.source}, {aside.words}" for aside in self.set_aside]
        return "\n".join([*lines, *self.notes])
