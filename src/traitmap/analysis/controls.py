"""What is left of a gain once a thing that could make it by itself is taken away: the controls of one cell.

Out of the answers of base and adapter on the same items come arrays of what is left, item by item, so that
its spread is that of the same items (and seeds). ``verdicts`` says what follows from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import inf, nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.families import FORMAT, variations_of
from traitmap.analysis.profiles.cell_items import Key, TargetItems, target_items
from traitmap.analysis.profiles.classes import COLLAPSED
from traitmap.data.outcomes import OutcomeColumns
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.matrix.crossed import crossed_mean, share_interval
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Estimate, Groups, grouped
from traitmap.study.settings import BASELINE

Rule = Literal["prior", "blind", "parsing", "format control", "overlap"]
_AGREES = 0.99  # share of items on which the likeliest choice must be the answer, before choices are shifted
FEWEST = 10  # items that must be left
_SWEEPS = 200


@dataclass(frozen=True)
class Left:
    """What is left of one cell's gain under one control, in the matrix's unit, adapter less base.

    left: what is left. most: that less half of the gain: below 0 in the gain's direction, most is gone.
    modelled: whether what was taken away rests on a model of the base's answers, not on its probabilities.
    blank: whether that model had to guess, since the base hardly gives an answer that the adapter gives.
    """

    rule: Rule
    left: Estimate
    most: Estimate
    modelled: bool = False
    blank: bool = False


@dataclass(frozen=True)
class Evidence:
    """What the answers of one cell show.

    controls: those that apply. collapsed: whether nearly all answers are ``commonest``, more than is true of
    it; commonest_share, base_share, gold_share: how much of the answers, of the base's and of the true ones.
    unchecked: controls that could not be applied, and why.
    """

    controls: tuple[Left, ...] = ()
    collapsed: bool = False
    commonest: str = ""
    commonest_share: float = nan
    base_share: float = nan
    gold_share: float = nan
    unchecked: tuple[str, ...] = ()


def format_controls(matrix: TransferMatrix) -> dict[str, str]:
    """Source -> its variation that keeps the format alone, where the matrix has one."""
    return {
        variation["parents"][0]: name
        for name, variation in variations_of(matrix).items()
        if FORMAT in variation["changes"] and len(variation["parents"]) == 1
    }


def cell_evidence(
    target: str,
    outcomes: Mapping[Key, Sequence[Outcome]],
    sources: Collection[str],
    *,
    texts: Sequence[TaskText] = (),
    touched: Mapping[str, Collection[int]] | None = None,
    controls: Mapping[str, str] | None = None,
    item_groups: Groups | None = None,
) -> dict[str, Evidence]:
    """What the answers of some sources on one target show, by source.

    outcomes: by (source, seed) on the same items, the base under ``("__baseline__", None)``. texts: of the
        items, whose choices name the classes. touched: source -> places of the items that its training data
        hold; sources without such data are not in it, and None says that nothing was compared.
    controls: source -> its format-only variation; its outcomes are among ``outcomes``. item_groups: (n,) of
        items that repeat or belong together, which count once (``matrix.statistics.grouped``).
    Empty where base or adapters have items without a score. MatrixError where they answered other items.
    """
    base = outcomes.get((BASELINE, None))
    if not base:
        return {}
    used = {key: OutcomeColumns.of(rows) for key, rows in outcomes.items() if len(rows) == len(base)}
    items = target_items(target, used, texts)
    keys = list(used)
    scores = np.stack([rows.numbers("score") for rows in used.values()])
    choices = None if items is None or not items.labels else _choice_shifts(used, items)
    evidence = {}
    for source in sources:
        rows = [place for place, key in enumerate(keys) if key[0] == source]
        if not rows or not np.isfinite(scores[[keys.index((BASELINE, None)), *rows]]).all():
            continue
        groups = item_groups if item_groups is not None and len(item_groups) == scores.shape[1] else None
        cell = _CellScores(items, scores, keys.index((BASELINE, None)), rows, choices, groups)
        left = [*_parsing(cell), *_classes(cell)]
        unchecked = []
        if (control := (controls or {}).get(source)) is not None:
            left += _beyond_control(cell, [place for place, key in enumerate(keys) if key[0] == control])
        if touched is None or source not in touched:
            unchecked.append("overlap: its training data were not compared with the items")
        elif touched[source]:
            left += _untouched(cell, touched[source])
        evidence[source] = replace(
            _commonest(cell, [used[keys[row]] for row in rows], used[BASELINE, None]),
            controls=tuple(left),
            unchecked=tuple(unchecked),
        )
    return evidence


@dataclass(frozen=True)
class _CellScores:
    """The rows of one cell among all of its target.

    scores: (A, n) of every adapter. base, rows: places of the base and of the cell's adapters (one for each
    seed). choices: (logits (n, K), gold (n,), chosen (A, n)) of the base's choices, or None. groups: (n,) of
    items that are no sample of their own, or None.
    """

    items: TargetItems | None
    scores: Array
    base: int
    rows: list[int]
    choices: tuple[Array, NDArray[np.int64], NDArray[np.int64]] | None
    groups: Groups | None = None

    @property
    def change(self) -> Array:
        """(S, n) adapter less base."""
        return np.asarray(self.scores[self.rows] - self.scores[self.base])

    @property
    def binary(self) -> bool:
        """Whether all scores are 0 or 1."""
        return bool(np.isin(self.scores[[self.base, *self.rows]], (0.0, 1.0)).all())

    def left(self, rule: Rule, values: Array) -> Left:
        """A control by its values (S, n), whose mean is what is left."""
        reach = 1.0 if self.binary else 0.0
        left, most = (grouped(part, self.groups) for part in (values, values - self.change / 2))
        return Left(rule, crossed_mean(left, reach=reach), crossed_mean(most, reach=reach))

    def mean_over(self, rule: Rule, weights: Array, groups: NDArray[np.int64]) -> Left:
        """What is left as a weighted mean of groups' mean changes.

        groups: (n,) of each item, from 0; below 0 in none. weights: (G,), which sum to 1. The item's part is
        the group's mean and its own departure from it, so that the spread is that of the weighted mean.
        """
        change, n = self.change, self.change.shape[1]
        values = np.zeros_like(change)
        total = np.zeros(len(change))
        for group, weight in enumerate(weights):
            inside = groups == group
            mean = change[:, inside].mean(axis=1, keepdims=True)
            values[:, inside] = weight * n / inside.sum() * (change[:, inside] - mean)
            total += weight * mean[:, 0]
        return self.left(rule, values + total[:, None])


def _parsing(cell: _CellScores) -> Iterator[Left]:
    """Items on which base and adapter both gave an answer that counts as one, or both did not."""
    if cell.items is None:
        return
    legal = cell.items.parsed.copy()
    if cell.items.labels:
        legal &= cell.items.predicted < len(cell.items.labels)
    same = legal[cell.rows] == legal[cell.base]
    if not same.all():
        yield cell.left("parsing", cell.change * same)


def _classes(cell: _CellScores) -> Iterator[Left]:
    """The base with the adapter's shares of answers, and blind answers with them, where scores are 0 or 1."""
    items = cell.items
    if items is None or not items.labels or not cell.binary:
        return
    if cell.choices is not None:
        logits, gold, chosen = cell.choices
        width = logits.shape[1]
        shifted = [
            answers_with_shares(logits, np.bincount(chosen[row], minlength=width)) for row in cell.rows
        ]
        by_base = np.stack([(answers == gold).astype(float) for answers in shifted])
    else:
        by_base = np.stack([_table_with_shares(items, cell.base, row) for row in cell.rows])
    yield replace(
        cell.left("prior", cell.scores[cell.rows] - by_base),
        modelled=cell.choices is None,
        blank=cell.choices is None and any(_is_blank(items, cell.base, row) for row in cell.rows),
    )
    width = len(items.labels) + 2
    shares = np.stack([np.bincount(items.predicted[row], minlength=width) for row in cell.rows])
    yield cell.left("blind", cell.scores[cell.rows] - (shares / items.n)[:, items.gold])


def _table_with_shares(items: TargetItems, base: int, adapter: int) -> Array:
    """(n,) probability that the base is right where its confusion table is weighted to the adapter's shares.

    Weights of columns and rows are found by iterative proportional fitting, so that odds ratios stay; half an
    item is added to each entry. Within a true class, answers move by the least that gives the new shares.
    """
    classes = len(items.labels)
    legal = items.predicted[base] < classes
    gold, answer = items.gold[legal], items.predicted[base][legal]
    wanted = np.bincount(items.predicted[adapter], minlength=classes)[:classes].astype(float)
    right = np.zeros(items.n)
    if not legal.any() or not wanted.sum():
        return right
    before = np.full((classes, classes), 0.5)
    np.add.at(before, (gold, answer), 1)
    rows = before.sum(axis=1, keepdims=True)
    columns = (wanted + 0.5) / (wanted + 0.5).sum() * before.sum()
    after = before.copy()
    for _ in range(_SWEEPS):
        after *= columns / after.sum(axis=0)
        after *= rows / after.sum(axis=1, keepdims=True)
    before, after = before / rows, after / rows
    less, more = np.maximum(before - after, 0), np.maximum(after - before, 0)
    moved = less / before  # of each answer, the share that becomes another one
    to_gold = np.diagonal(more) / np.maximum(more.sum(axis=1), 1e-12)
    at = np.where(gold == answer, 1 - moved[gold, answer], moved[gold, answer] * to_gold[gold])
    right[legal] = at
    return right


def _is_blank(items: TargetItems, base: int, adapter: int) -> bool:
    """Whether the adapter gives some class at least twice as often as a base that gives it too seldom."""
    classes = len(items.labels)
    before, after = (
        np.bincount(items.predicted[row], minlength=classes)[:classes] for row in (base, adapter)
    )
    return bool(((before < max(FEWEST, 0.05 * items.n)) & (after >= 2 * before + FEWEST)).any())


def _choice_shifts(
    outcomes: Mapping[Key, OutcomeColumns], items: TargetItems
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]] | None:
    """Log-probabilities (n, K) of the base's choices, the true choice (n,), and what everybody chose (A, n).

    None where choices have none, or the likeliest one is not what counts as the answer.
    """
    base = items.base
    assert base is not None
    likeliest, width = [], 0
    for place, row in enumerate(outcomes.values()):
        logprobs = row.choice_logprobs
        if logprobs is None or not np.isfinite(logprobs).all() or width not in (0, logprobs.shape[1]):
            return None
        width = logprobs.shape[1]
        likeliest.append(logprobs.argmax(axis=1))
        if place == base:
            logits = logprobs
    chosen = np.stack(likeliest)
    classes = len(items.labels)
    answered = items.predicted < classes
    together = np.zeros((width, classes))
    np.add.at(together, (chosen[answered], items.predicted[answered]), 1)
    of_choice = together.argmax(axis=1)  # the class that each choice is
    of_choice[together.sum(axis=1) == 0] = -1
    if not answered.all() or (of_choice[chosen] == items.predicted).mean() < _AGREES:
        return None
    choice_of = {int(label): choice for choice, label in enumerate(of_choice) if label >= 0}
    gold = np.array([choice_of.get(int(label), -1) for label in items.gold], dtype=np.int64)
    return logits, gold, chosen.astype(np.int64)


def answers_with_shares(logits: Array, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the answers of a model whose classes get one offset each, such that it gives ``counts`` of them.

    logits: (n, K) log-probabilities of its choices. counts: (K,) wanted answers, which sum to n. One class
    after the other gets the offset at which it wins exactly its count against the others, until all do.
    """
    n, width = logits.shape
    offsets = np.where(counts > 0, 0.0, -inf)
    wanted = np.flatnonzero(counts > 0)
    for _ in range(_SWEEPS):
        for label in wanted:
            others = np.delete(logits + offsets, label, axis=1)
            rival = others.max(axis=1) if width > 1 else np.full(n, -inf)
            margins = np.sort(logits[:, label] - np.where(np.isfinite(rival), rival, -1e9))[::-1]
            count = int(counts[label])
            after = margins[count] if count < n else margins[-1] - 2.0
            offsets[label] = -(margins[count - 1] + after) / 2
        answers = (logits + offsets).argmax(axis=1)
        if (np.bincount(answers, minlength=width) == counts).all():
            break
    return np.asarray(answers, dtype=np.int64)


def _beyond_control(cell: _CellScores, rows: Sequence[int]) -> Iterator[Left]:
    """The adapter less its format-only variation, seed by seed as far as both have them."""
    if rows and np.isfinite(cell.scores[list(rows)]).all():
        pairs = min(len(rows), len(cell.rows))
        part = replace(cell, rows=cell.rows[:pairs])
        yield part.left("format control", cell.scores[cell.rows[:pairs]] - cell.scores[list(rows[:pairs])])


def _untouched(cell: _CellScores, touched: Collection[int]) -> Iterator[Left]:
    """The items that the training data do not hold."""
    outside = np.ones(cell.scores.shape[1], dtype=bool)
    outside[[place for place in touched if 0 <= place < len(outside)]] = False
    if outside.sum() >= FEWEST:
        yield cell.mean_over("overlap", np.ones(1), np.where(outside, 0, -1))
    else:
        none = Estimate(nan, nan, nan)
        yield Left("overlap", none, none)


def _commonest(cell: _CellScores, rows: Sequence[OutcomeColumns], base: OutcomeColumns) -> Evidence:
    """Whether nearly all answers that could be parsed are alike, by class where there are classes."""
    items = cell.items
    if items is None:
        return Evidence()
    if items.labels:
        names = [*items.labels, "", ""]
        answers = [names[code] for row in cell.rows for code in items.predicted[row]]
        of_base = [names[code] for code in items.predicted[cell.base]]
        gold = [names[code] for code in items.gold]
    else:
        answers = [answer for row in rows for answer in _parsed_answers(row)]
        of_base = _parsed_answers(base)
        gold = base.words("gold")
    answers, of_base = list(filter(None, answers)), list(filter(None, of_base))
    if len(answers) < FEWEST:
        return Evidence()
    top, _ = Counter(answers).most_common(1)[0]
    hits = share_interval([answer == top for answer in answers])
    of_gold = gold.count(top) / len(gold)
    return Evidence(
        collapsed=bool(hits.low > max(COLLAPSED, of_gold)),
        commonest=top,
        commonest_share=hits.value,
        base_share=of_base.count(top) / len(of_base) if of_base else nan,
        gold_share=of_gold,
    )


def _parsed_answers(row: OutcomeColumns) -> list[str]:
    return list(compress(row.words("prediction"), row.numbers("parsed") == 1))
