"""What can be shown of a single cell: who answered what, how long, and which items were won and lost.

``chosen_cells`` says which cells of a large matrix get such details; ``target_details`` makes those of a
target and of its cells. The records hold what a page needs and no more: counts, histograms, a few shortened
texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.records import OddCell
from traitmap.analysis.profiles.cell_items import Key, TargetItems, target_items
from traitmap.analysis.profiles.classes import confusion_counts
from traitmap.analysis.profiles.pairs import Reason
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.jsonable import outline
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.study.settings import BASELINE

BINS = 24
EXAMPLES = 5  # won items, and lost items, that a cell shows
INPUT_LENGTH, ANSWER_LENGTH = 420, 180  # characters of a text that are kept
SAME = 1e-9  # scores closer than this are one

# Counts (B,) of lengths between common edges (B + 1,), where the last bin holds all that is longer, and the
# mean of the lengths themselves.
Histogram = tuple[tuple[int, ...], float]


@dataclass(frozen=True)
class ItemExample:
    """One item that was won or lost. base, adapter: the answers, empty where nothing was answered.

    item: its place among the target's items. seed: of the adapter that answered so.
    base_score, adapter_score: the metric on this item.
    """

    item: int
    seed: int | None
    base: str
    adapter: str
    base_score: float
    adapter_score: float


@dataclass(frozen=True)
class CellDetail:
    """One cell, all seeds of the source together.

    counts: (K, C) answers by gold class (rows) and answered column, summed over seeds; None without
        classes. lengths: of the adapter's answers, None where the target has none.
    won, lost: items on which the mean score over seeds is above, or below, the base's. items: of all.
    won_examples, lost_examples: a fixed random draw of them, the same for every source where it can be.
    """

    source: str
    target: str
    seeds: int
    items: int
    won: int
    lost: int
    counts: NDArray[np.int64] | None
    lengths: Histogram | None
    won_examples: tuple[ItemExample, ...]
    lost_examples: tuple[ItemExample, ...]


@dataclass(frozen=True)
class TargetDetail:
    """What all cells of a target have in common.

    labels: its K classes; columns: what was answered, the labels and then what is no class. base_counts as
    ``CellDetail.counts``, of the base. unit, edges: of all lengths. gold_lengths: of the true answers.
    texts: item -> (input, gold answer), shortened in the middle, of the items that some cell shows.
    """

    target: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    base_counts: NDArray[np.int64] | None
    unit: str
    edges: tuple[float, ...]
    base_lengths: Histogram | None
    gold_lengths: Histogram | None
    texts: Mapping[int, tuple[str, str]]


@dataclass(frozen=True)
class MetricTable:
    """The matrix in another metric than the study's own: (S, T) values and gains, NaN where unknown.

    baseline: (T,). low, high: (S, T) 95 % interval of the gain, NaN where there is none.
    """

    name: str
    values: Array
    baseline: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class RunDetails:
    """What a report tells beyond the matrix.

    cells: of those that have details; measured: how many cells could have had some. chosen: in words which
    these are, empty where it is all. reasons: (source, target) -> what the outcomes show, strongest first.
    odd: cells that depart from what the texts' surface predicts, in ``odd_unit``. metrics: other ones than
    the study's. spent: what the run took: name -> amount, seconds where the name says so.
    """

    cells: Mapping[tuple[str, str], CellDetail]
    targets: Mapping[str, TargetDetail]
    measured: int = 0
    chosen: str = ""
    reasons: Mapping[tuple[str, str], tuple[Reason, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    odd: Mapping[tuple[str, str], OddCell] = field(default_factory=lambda: MappingProxyType({}))
    odd_unit: str = ""
    metrics: tuple[MetricTable, ...] = ()
    spent: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    __repr__ = outline


def chosen_cells(
    matrix: TransferMatrix, odd: Sequence[tuple[str, str]] = (), *, most: int
) -> tuple[tuple[str, str], ...]:
    """The measured cells that matter most: odd ones, then by q, then by p; all where they are few enough.

    odd: (source, target) that come first. most: how many are chosen. They come back in the order of the
    matrix.
    """
    pooled = [cell for cell in matrix.cells if cell.seed is None and cell.status == "measured"]
    if len(pooled) <= most:
        return tuple((cell.source, cell.target) for cell in pooled)
    strange = set(odd)

    def importance(number: int) -> tuple[bool, float, float, int]:
        cell = pooled[number]
        q, p = (value if np.isfinite(value) else 1.0 for value in (cell.q, cell.p))
        return ((cell.source, cell.target) not in strange, q, p, number)

    selected = sorted(sorted(range(len(pooled)), key=importance)[:most])
    return tuple((pooled[number].source, pooled[number].target) for number in selected)


def target_details(
    target: str,
    outcomes: Mapping[Key, Sequence[Outcome]],
    texts: Sequence[TaskText],
    sources: Sequence[str],
    *,
    examples: int = EXAMPLES,
    seed: int = 0,
) -> tuple[TargetDetail, tuple[CellDetail, ...]] | None:
    """Details of a target and of its cells with some sources; None where the base was not measured.

    outcomes: by (source, seed), the base under ``("__baseline__", None)``, each on all items in their
    order. texts: of the items, or none. examples: most won, and most lost, items of a cell.
    MatrixError where adapters did not answer the same items.
    """
    base = outcomes.get((BASELINE, None))
    if not base:
        return None
    items = target_items(target, outcomes, texts)
    columns: list[int] = []  # every class, and what is no class only where somebody answered so
    if items is not None and items.labels:
        classes = len(items.labels)
        extra = [column for column in (classes, classes + 1) if (items.predicted == column).any()]
        columns = [*range(classes), *extra]
    edges = _edges(items)
    order = np.random.default_rng((seed, crc32(target.encode()))).permutation(len(base))
    cells = []
    for source in sources:
        rows = {key: outcomes[key] for key in outcomes if key[0] == source and len(outcomes[key])}
        if rows:
            cells.append(_cell(source, target, base, rows, items, columns, edges, order, examples))
    shown = sorted({example.item for cell in cells for example in (*cell.won_examples, *cell.lost_examples)})
    inputs = [text.input.strip() for text in texts]
    inputs += [""] * (len(base) - len(inputs))
    names = (*items.labels, "not parsed", "no class") if items else ()
    detail = TargetDetail(
        target=target,
        labels=items.labels if items else (),
        columns=tuple(names[column] for column in columns),
        base_counts=_counts(items, [(BASELINE, None)], columns),
        unit=_unit(items),
        edges=edges,
        base_lengths=_lengths(items, [(BASELINE, None)], edges),
        gold_lengths=_histogram(items.gold_characters, edges)
        if items and _unit(items) == "characters"
        else None,
        texts={
            item: (shortened(inputs[item], INPUT_LENGTH), shortened(base[item].gold.strip(), ANSWER_LENGTH))
            for item in shown
        },
    )
    return detail, tuple(cells)


def _cell(
    source: str,
    target: str,
    base: Sequence[Outcome],
    rows: Mapping[Key, Sequence[Outcome]],
    items: TargetItems | None,
    columns: Sequence[int],
    edges: tuple[float, ...],
    order: NDArray[np.int64],
    examples: int,
) -> CellDetail:
    """Details of one cell. rows: its outcomes by seed. order: (n,) in which items are drawn as examples."""
    zero = np.array([outcome.score for outcome in base], dtype=float)
    scores = np.array([[outcome.score for outcome in row] for row in rows.values()], dtype=float)
    change = scores.mean(axis=0) - zero
    won, lost = change > SAME, change < -SAME

    def answer(outcome: Outcome) -> str:
        text = outcome.prediction if outcome.text is None else outcome.text
        return shortened(text.strip(), ANSWER_LENGTH)

    def example(item: int) -> ItemExample:
        """The first seed whose answer goes the way that the mean over seeds does."""
        sign, before = int(np.sign(change[item])), base[item]
        seed, after = next(
            (seed, row[item])
            for (_, seed), row in rows.items()
            if sign * (row[item].score - before.score) > 0
        )
        return ItemExample(
            item=item,
            seed=seed,
            base=answer(before),
            adapter=answer(after),
            base_score=float(before.score),
            adapter_score=float(after.score),
        )

    return CellDetail(
        source=source,
        target=target,
        seeds=len(rows),
        items=len(base),
        won=int(won.sum()),
        lost=int(lost.sum()),
        counts=_counts(items, list(rows), columns),
        lengths=_lengths(items, list(rows), edges),
        won_examples=tuple(example(int(item)) for item in order[won[order]][:examples]),
        lost_examples=tuple(example(int(item)) for item in order[lost[order]][:examples]),
    )


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and its end around an ellipsis: what is asked stands at either."""
    if len(text) <= most:
        return text
    head = (2 * most) // 3
    return f"{text[:head]} […] {text[-(most - head) :]}"


def _counts(
    items: TargetItems | None, keys: Sequence[Key], columns: Sequence[int]
) -> NDArray[np.int64] | None:
    if items is None or not items.labels:
        return None
    rows = [items.adapters.index(key) for key in keys]
    tables = [confusion_counts(items.gold, items.predicted[row], len(items.labels)) for row in rows]
    counts: NDArray[np.int64] = np.sum(tables, axis=0)[:, list(columns)].round().astype(np.int64)
    return counts


def _unit(items: TargetItems | None) -> str:
    if items is None:
        return ""
    return "characters" if items.generated else "tokens"


def _all_lengths(items: TargetItems) -> Array:
    return items.characters if items.generated else items.tokens


def _edges(items: TargetItems | None) -> tuple[float, ...]:
    """Bins of whole lengths up to the 99th percentile of all answers; none where all are of one length."""
    if items is None:
        return ()
    lengths = _all_lengths(items)
    known = lengths[np.isfinite(lengths)]
    if items.generated:
        known = np.append(known, items.gold_characters)
    if not known.size or known.min() == known.max():
        return ()
    most = max(float(np.percentile(known, 99)), float(known.min()) + 1)
    width = max(1.0, float(np.ceil((most + 1 - known.min()) / BINS)))
    count = int(np.ceil((most + 1 - known.min()) / width))
    return tuple(float(known.min() + width * place) for place in range(count + 1))


def _lengths(items: TargetItems | None, keys: Sequence[Key], edges: tuple[float, ...]) -> Histogram | None:
    if items is None or not edges:
        return None
    return _histogram(_all_lengths(items)[[items.adapters.index(key) for key in keys]], edges)


def _histogram(lengths: Array, edges: tuple[float, ...]) -> Histogram | None:
    known = lengths[np.isfinite(lengths)]
    if not known.size or not edges:
        return None
    counts, _ = np.histogram(np.minimum(known, edges[-1] - 0.5), bins=edges)
    return tuple(int(count) for count in counts), float(known.mean())
