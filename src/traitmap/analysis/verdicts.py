"""One verdict for every cell: is its gain what it seems, and if not, what is it?

A gain or loss beyond noise is held against everything that could make it without the adapter having learnt
(or unlearnt) the task. Each such *control* takes one thing away, and asks what is left on the same items:

class shares  The adapter only moves the shares of its answers. The base is given one weight for each class,
              such that it answers with the adapter's shares, and the adapter must beat that: weights of its
              choices' probabilities where there are any, else of the columns of its confusion table, whose
              odds ratios stay (the biased choice model of R. D. Luce, Individual Choice Behavior, 1959).
              A gain must also beat answers with the adapter's shares that do not look at the items.
format        Items on which only one of the two gave an answer that could be parsed are taken away; and where
              the run has the source's ``format_only`` variation, the adapter must beat that.
overlap       Items that occur in the training data are taken away.

What is left *stands* where it is beyond noise in the direction of the gain (q < .05). It is *gone* where it
is not, and where more than half of the gain is gone beyond noise (q < .05). Else it *cannot be told*. What
stands by a confusion table alone cannot be told either where most of the gain is gone, or where the base
hardly gives an answer that the adapter gives. q is Benjamini-Hochberg over all controls of the matrix, for
each of the two questions.

A cell gets the first of these that holds:

unknown       not measured, predicted, no base, or no interval: the reason says which
in-domain     source and target are of one name, or the source is made from that one
within noise  q >= .05; without q, an interval that holds 0
collapse      one answer for nearly all items (its share is beyond .9, and beyond what is true of it), and no
              class control stands with half of the gain
format, class shares, overlap
              the control is gone
unknown       a control cannot be told, and says so
clean gain, clean loss
              every control that applies stands; ``unchecked`` names those that could not be applied
unchecked gain, unchecked loss
              beyond its interval, and there are no answers to look at (imported scores)

Losses have no overlap, and need not beat blind answers. ``tests/analysis/test_verdicts.py`` tries each rule
on simulated answers, ``benchmarks/verdicts.py`` measures how often they are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot, isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from traitmap.analysis.controls import FEWEST, Evidence, Left, Rule
from traitmap.analysis.explanation.families import origins_of
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.reading import SIGNIFICANT, Reading, TargetView, read
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.statistics import Interval, benjamini_hochberg, unknown, z_value
from traitmap.wording import clean, estimate, share

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal[
    "clean gain",
    "clean loss",
    "unchecked gain",
    "unchecked loss",
    "within noise",
    "collapse",
    "class shares",
    "format",
    "overlap",
    "in-domain",
    "unknown",
]
GLYPHS: Mapping[Kind, str] = MappingProxyType(
    {
        "clean gain": "▲",
        "clean loss": "▼",
        "unchecked gain": "△",
        "unchecked loss": "▽",
        "within noise": "·",
        "collapse": "■",
        "class shares": "◐",
        "format": "≡",
        "overlap": "◆",
        "in-domain": "○",
        "unknown": "?",
    }
)
UNCLEAN: tuple[Kind, ...] = ("collapse", "format", "class shares", "overlap")
GAINS: tuple[Kind, ...] = ("clean gain", "unchecked gain")
LOSSES: tuple[Kind, ...] = ("clean loss", "unchecked loss")

RULES: Mapping[Rule, Kind] = MappingProxyType(  # in the order in which they name a cell
    {
        "parsing": "format",
        "format control": "format",
        "prior": "class shares",
        "blind": "class shares",
        "overlap": "overlap",
    }
)
CLASS_RULES: tuple[Rule, ...] = ("prior", "blind")


@dataclass(frozen=True)
class Control:
    """One control of a cell: ``answer`` is ``stands``, ``gone`` or ``cannot tell``.

    left: what is left of the gain, in the verdict's unit, 95 %. q_left: of nothing left. q_most: of half the
    gain being left. words: in a few words, with the numbers.
    """

    rule: Rule
    answer: Literal["stands", "gone", "cannot tell"]
    left: Interval
    q_left: float
    q_most: float
    words: str


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on one cell. ``kind`` is one of ``Kind``; the module says by which rule.

    gain: adapter less base, 95 %, in ``unit`` (points for shares). improvement: the same, positive where the
    adapter is better. q: as in the matrix, NaN where there is no test. n: items. words: why, in a sentence.
    controls: what is left under each control that applies. unchecked: what could not be looked at, and why.
    """

    source: str
    target: str
    kind: Kind
    gain: Interval
    improvement: float
    unit: str
    q: float
    n: int
    words: str
    controls: tuple[Control, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def glyph(self) -> str:
        """One sign for the kind."""
        return GLYPHS[self.kind]

    @property
    def beyond_noise(self) -> bool:
        """Whether something happened, clean or not. In-domain cells and unknown ones have their own words."""
        return self.kind in (*GAINS, *LOSSES, *UNCLEAN)

    @property
    def label(self) -> str:
        """Glyph and word: ``▲ clean gain``."""
        return f"{self.glyph} {self.kind}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``glyph`` beside the fields; unknown numbers are null."""
        return {**jsonable(vars(self)), "glyph": self.glyph}


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of a matrix, a cell for each (source, target) in its order.

    variations: sources that are made from another one, which count as no further source.
    """

    cells: tuple[CellVerdict, ...]
    variations: tuple[str, ...] = ()

    def of(self, source: str, target: str) -> CellVerdict:
        """The verdict on one cell. KeyError where the matrix has no such cell."""
        return self._by_place[source, target]

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], CellVerdict]:
        return {(cell.source, cell.target): cell for cell in self.cells}

    @property
    def transfers(self) -> tuple[CellVerdict, ...]:
        """Cells off the diagonal, of sources with data of their own."""
        return tuple(
            cell for cell in self.cells if cell.kind != "in-domain" and cell.source not in self.variations
        )

    def counts(self, improvement: int = 0) -> dict[Kind, int]:
        """How many transfers of each kind there are; of gains alone (1), of losses alone (-1).

        Kinds that do not occur are left out; the order is that of ``GLYPHS``.
        """
        kinds = Counter(
            cell.kind for cell in self.transfers if not improvement or cell.improvement * improvement > 0
        )
        return {kind: kinds[kind] for kind in GLYPHS if kinds[kind]}

    def to_frame(self) -> pd.DataFrame:
        """A row for each cell: source, target, kind, gain, low, high, improvement, unit, q, n, words."""
        import pandas as pd

        columns = ("improvement", "unit", "q", "n", "words")
        rows = [
            {"source": cell.source, "target": cell.target, "kind": cell.kind, "gain": cell.gain.value}
            | {"low": cell.gain.low, "high": cell.gain.high}
            | {column: getattr(cell, column) for column in columns}
            for cell in self.cells
        ]
        return pd.DataFrame(rows, columns=["source", "target", "kind", "gain", "low", "high", *columns])

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON data; unknown numbers are null."""
        return {"cells": jsonable(self.cells), "variations": list(self.variations)}


# From evidence to verdicts.


def cells_to_look_at(matrix: TransferMatrix) -> dict[str, list[str]]:
    """Target -> sources whose gain or loss is beyond noise: those of which evidence is worth having."""
    reading = read(matrix)
    wanted: dict[str, list[str]] = {}
    for s, source in enumerate(reading.sources):
        for t, target in enumerate(reading.targets):
            if _beyond_noise(reading.cells[s][t], reading.base[t]) and not reading.is_predicted(s, t):
                wanted.setdefault(target.name, []).append(source)
    return wanted


def cell_verdicts(
    matrix: TransferMatrix, evidence: Mapping[tuple[str, str], Evidence] = MappingProxyType({})
) -> Verdicts:
    """A verdict for every pooled cell of a matrix (S, T).

    evidence: (source, target) -> what the answers show; cells without it are called by their interval alone.
    """
    reading = read(matrix)
    questions = [
        (place, control) for place, cell in evidence.items() for control in cell.controls
    ]  # of every control of the matrix: is anything left, and is half of it?
    q_left = benjamini_hochberg(np.array([control.left.p for _, control in questions], dtype=float))
    q_most = benjamini_hochberg(np.array([control.most.p for _, control in questions], dtype=float))
    answered: dict[tuple[str, str], list[tuple[Left, float, float]]] = {}
    for (place, control), left, most in zip(questions, q_left.tolist(), q_most.tolist(), strict=True):
        answered.setdefault(place, []).append((control, left, most))
    parents = origins_of(matrix)
    cells = []
    for s, source in enumerate(reading.sources):
        for t, target in enumerate(reading.targets):
            place = (source, target.name)
            own = reading.in_domain(s, t) or target.name in parents.get(source, ())
            cells.append(_verdict(reading, s, t, own, evidence.get(place), answered.get(place, ())))
    return Verdicts(tuple(cells), tuple(parents))


def _verdict(
    reading: Reading,
    s: int,
    t: int,
    own: bool,
    evidence: Evidence | None,
    answered: Sequence[tuple[Left, float, float]],
) -> CellVerdict:
    """The rules, in their order."""
    cell, view = reading.cells[s][t], reading.targets[t]
    gain = _interval(cell, reading.base[t], view)
    controls = tuple(_control(left, q_left, q_most, cell.gain, view) for left, q_left, q_most in answered)
    record = CellVerdict(
        source=cell.source,
        target=view.name,
        kind="unknown",
        gain=gain,
        improvement=gain.value * view.better,
        unit=view.unit,
        q=cell.q,
        n=cell.n,
        words="",
        controls=controls,
        unchecked=evidence.unchecked if evidence else (),
    )
    if reason := _unknown(cell, gain, reading.is_predicted(s, t)):
        return replace(record, words=reason)
    if own:
        words = (
            "trained on the target's own data" if reading.in_domain(s, t) else "made from the target's data"
        )
        return replace(record, kind="in-domain", words=_joined(words, _sentences(controls)))
    if not _beyond_noise(cell, reading.base[t]):
        if not gain.clear and not isfinite(gain.low):
            return replace(record, words="no interval: means alone, without items or standard errors")
        return replace(record, kind="within noise", words="its interval or its test cannot tell it from 0")
    better = record.improvement > 0
    if evidence is None:
        words = "beyond its interval; there are no answers to look at, so nothing else could be checked"
        return replace(record, kind="unchecked gain" if better else "unchecked loss", words=words)
    kind, words = _looked_at(evidence, controls, better, gain.value)
    return replace(record, kind=kind, words=words)


def _looked_at(
    evidence: Evidence, controls: Sequence[Control], better: bool, gain: float
) -> tuple[Kind, str]:
    """The kind of a cell that is beyond noise, by what its answers show, and why."""
    asked = [control for control in controls if better or control.rule not in ("blind", "overlap")]
    of_classes = [control for control in asked if control.rule in CLASS_RULES]
    skilled = bool(of_classes) and all(
        control.answer == "stands" and control.left.value / gain >= 0.5 for control in of_classes
    )
    if evidence.collapsed and not skilled:
        return "collapse", (
            f"answers '{clean(evidence.commonest)}' to {share(evidence.commonest_share)} of the items "
            f"(base {share(evidence.base_share)}, true of {share(evidence.gold_share)})"
        )
    for rule, kind in RULES.items():
        if gone := [control for control in asked if control.rule == rule and control.answer == "gone"]:
            return kind, gone[0].words
    if open_ := [control for control in asked if control.answer == "cannot tell"]:
        kinds = tuple(dict.fromkeys(str(RULES[control.rule]) for control in open_))
        return "unknown", f"may be {' or '.join(kinds)}: {_sentences(open_)}"
    return "clean gain" if better else "clean loss", _sentences(asked) or "no control applies to it"


def _unknown(cell: Cell, gain: Interval, predicted: bool) -> str:
    """Why a cell has no verdict before anything is looked at; empty where it may have one."""
    if predicted:
        return "predicted from other cells, not measured"
    if not isfinite(cell.value):
        return f"{cell.status}{': ' + cell.reason if cell.reason else ''}"
    return "" if gain.known else "no gain: the base is not known here"


def _interval(cell: Cell, base: Cell, view: TargetView) -> Interval:
    """The gain in shown units; of two means with standard errors alone, their unpaired 95 % interval."""
    value, low, high = (number * view.factor for number in (cell.gain, cell.gain_low, cell.gain_high))
    if not isfinite(value):
        return unknown(cell.reason or "not known")
    if isfinite(low) and isfinite(high):
        return Interval(value, low, high)
    half = z_value() * hypot(cell.stderr, base.stderr) * view.factor
    if isfinite(half) and cell.status == "given":
        return Interval(value, value - half, value + half)
    return Interval(value, reason="no interval")


def _beyond_noise(cell: Cell, base: Cell) -> bool:
    """By q where there is one, else by the interval, paired or of two standard errors."""
    if isfinite(cell.q):
        return cell.q < SIGNIFICANT
    if isfinite(cell.gain_low) and isfinite(cell.gain_high):
        return cell.gain_low > 0 or cell.gain_high < 0
    half = z_value() * hypot(cell.stderr, base.stderr)
    return bool(cell.status == "given" and isfinite(half) and abs(cell.gain) > half)


def _control(control: Left, q_left: float, q_most: float, gain: float, view: TargetView) -> Control:
    """A control with its answer and its words. gain: of the cell, in the matrix's unit."""
    sign = 1.0 if gain > 0 else -1.0
    stands = sign * control.left.value > 0 and q_left < SIGNIFICANT
    most_gone = sign * control.most.value < 0 and q_most < SIGNIFICANT
    answer: Literal["stands", "gone", "cannot tell"] = "cannot tell"
    if stands and not (control.blank or (control.modelled and most_gone)):
        answer = "stands"
    elif most_gone and not stands:
        answer = "gone"
    plain = control.left.interval()
    left = Interval(
        plain.value * view.factor, plain.low * view.factor, plain.high * view.factor, plain.reason
    )
    words = f"{estimate(left, view.digits)} {_WORDS[control.rule]}"
    if not left.known:
        words = f"fewer than {FEWEST} items are left {_WORDS[control.rule]}"
    return Control(control.rule, answer, left, q_left, q_most, words)


_WORDS: Mapping[Rule, str] = {  # behind the number that is left
    "prior": "beyond the base with the same shares of answers",
    "blind": "beyond blind answers with the same shares",
    "parsing": "where it does not matter whether an answer could be parsed",
    "format control": "beyond its format-only variation",
    "overlap": "on the items that its training data do not hold",
}


def _sentences(controls: Sequence[Control]) -> str:
    return "; ".join(control.words for control in controls)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
