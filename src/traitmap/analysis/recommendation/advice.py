"""A recommendation as records: sources in order, why, what they may cost, and what cannot be told.

A recommendation as a small table for notebooks.

What a predicted gain is made of, in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np

from traitmap.analysis.features import Reason
from traitmap.analysis.recommendation.models import Parts
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval
from traitmap.notebook import Entry, Rows, between, number, page

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


def advice_html(advice: Recommendation) -> str:
    """Sources in order with predicted gain, popularity, risk of harm and, where known, the measured gain."""
    deepest = max([*(abs(one.gain.value) for one in advice.ranked if one.gain.known), 1e-9])
    measured = any(one.measured.known for one in advice.ranked)
    heads = [
        "predicted gain",
        "90 %",
        "popularity",
        "harm",
        "best",
        *(["measured, 95 %"] if measured else []),
    ]
    rows = []
    for place, one in enumerate(advice.ranked, start=1):
        reasons = "; ".join(reason.words for reason in one.reasons)
        entries = [
            Entry(
                number(one.gain.value, sign=True),
                one.gain.value / deepest if one.gain.known else 0,
                title=reasons,
            ),
            Entry(between(one.gain.low, one.gain.high)),
            Entry(number(one.popularity, sign=True)),
            Entry(_percent(one.harm)),
            Entry(_percent(one.best)),
        ]
        if measured:
            told = number(one.measured.value, sign=True)
            entries.append(Entry(f"{told} {between(one.measured.low, one.measured.high)}".strip()))
        rows.append((f"{place}. {one.source}", entries))
    apart = [f"Not ranked: {one.source}, {one.words}" for one in advice.set_aside]
    title = f"Sources for {advice.target} ({advice.unit}): {advice.verdict}"
    return page(title, advice.words, Rows("source", heads, rows), notes=[*apart, *advice.notes])


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if isfinite(value) else "–"


MOST = 4
_LEAST = 0.1  # of the strongest reason
_REMARK = re.compile(r" \([^)]*\)$")
# Features that say nearly the same share a contribution at random between them; only their sum means much.
_GROUPS = (
    ("lengths", "lengths of outputs and inputs", r"(source|target)_(out|in)put_|(out|in)put_length"),
    ("classes", "classes and labels", r"((source|target)_)?(class|majority|choices|label_|prior_)"),
    (
        "form",
        "form of questions and answers",
        r"((source|target)_)?(answer_form|question_form|format|closed|polar|copied|pairing|containment|segments)",
    ),
    ("surface", "meaning, style and words", r"style_|semantic_|mmd|vocabulary_"),
    ("size", "size and richness", r"(source|target)_(size|tokens|richness|perplexity)"),
    ("embeddings", "embeddings", r"embedding_"),
    ("alike_targets", "it helps targets like this one", r"alike targets"),
    ("alike_sources", "sources like it help other targets", r"popularity of alike sources"),
    ("popularity", "it helps other targets", r"popularity$"),
    ("traits", "its traits suit the target", r"traits$"),
)
_PATTERNS = tuple((kind, words, re.compile(pattern)) for kind, words, pattern in _GROUPS)


def reasons_of(
    parts: Sequence[Parts],
    place: int,
    words: Mapping[str, str],
    features: Mapping[str, Array],
    unit: float,
) -> tuple[Reason, ...]:
    """The strongest contributions to one source's predicted gain, relative to the mean of all sources.

    parts: of every source, standardised; place: of the source. Contributions of features that say nearly
    the same are added up, and the strongest of them is named. features: (S,) values of the features of
    pairs, by name, to tell where a source stands among all. unit: gain of one standard deviation.
    """
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in parts[place].items():
        usual = float(np.mean([part.get(name, 0.0) for part in parts]))
        groups.setdefault(_group(name, words), {})[name] = (value - usual) * unit
    found = [
        Reason(kind, _said(said, total, members, words, features, place), total)
        for (kind, said), members in groups.items()
        if (total := sum(members.values()))
    ]
    found.sort(key=lambda one: (-abs(one.strength), one.kind))
    least = max(0.05, _LEAST * abs(found[0].strength)) if found else 0.0
    return tuple(one for one in found if abs(one.strength) >= least)[:MOST]


def _group(name: str, words: Mapping[str, str]) -> tuple[str, str]:
    for kind, said, pattern in _PATTERNS:
        if pattern.match(name):
            return kind, said
    return name, _REMARK.sub("", words.get(name, name))


def _said(
    said: str,
    total: float,
    members: Mapping[str, float],
    words: Mapping[str, str],
    features: Mapping[str, Array],
    place: int,
) -> str:
    """A group with its points, and its member that speaks loudest in the same sense."""
    text = f"{said} {total:+.1f}"
    told = [name for name in members if name in features and members[name] * total > 0]
    if not told:
        return text
    loudest = max(told, key=lambda name: abs(members[name]))
    plain = _REMARK.sub("", words.get(loudest, loudest))
    return f"{text} ({plain}: {_rank(loudest, features[loudest], place)})"


def _rank(name: str, values: Array, place: int) -> str:
    """Where a source stands: first is nearest to the target, of distances, else highest."""
    if not np.isfinite(values[place]):
        return "unknown"
    known = values[np.isfinite(values)]
    apart = name.endswith(("_distance", "_difference")) or name == "mmd"
    before = int((known < values[place]).sum() if apart else (known > values[place]).sum())
    return f"{_ordinal(before + 1)} of {len(known)}"


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
