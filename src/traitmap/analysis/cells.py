"""What can be shown of a cell, and of two side by side: who answered what, how long, items won and lost.

``chosen_cells`` says which cells of a large matrix get answers; ``target_details`` makes those of a target
and of its cells; ``side_by_side`` holds every two adapters against each other. The records hold what a page
needs and no more: counts, histograms, scores of items, shortened texts of as many as there is room for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from types import MappingProxyType
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.records import OddCell
from traitmap.analysis.profiles.cell_items import Key, TargetItems, target_items
from traitmap.analysis.profiles.classes import confusion_counts
from traitmap.analysis.profiles.pairs import Reason
from traitmap.data.outcomes import OutcomeColumns
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.jsonable import outline
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import paired_gain
from traitmap.study.settings import BASELINE

BINS = 24
ROOM = 1_500_000  # characters of items' texts and answers in one page
FEWEST_ITEMS = 20  # that a target shows, however long its texts are
INPUT_LENGTH, ANSWER_LENGTH = 420, 180  # characters of a text that are kept
MOST_SCORES = 2_000_000  # of single items, for all adapters on all targets together
MOST_COMPARED = 3_000  # pairs of adapters, over all targets, that are compared item by item
SAME = 1e-9  # scores closer than this are one

# Counts (B,) of lengths between common edges (B + 1,), where the last bin holds all that is longer, and the
# mean of the lengths themselves.
Histogram = tuple[tuple[int, ...], float]


@dataclass(frozen=True)
class CellDetail:
    """One cell, all seeds of the source together.

    counts: (K, C) answers by gold class (rows) and answered column, summed over seeds; None without
        classes. lengths: of the adapter's answers, None where the target has none.
    won, lost: items on which the mean score over seeds is above, or below, the base's. items: of all.
    answers: to the items that ``TargetDetail.items`` names; where seeds differ, each with how many gave it.
    """

    source: str
    target: str
    seeds: int
    items: int
    won: int
    lost: int
    counts: NDArray[np.int64] | None
    lengths: Histogram | None
    answers: tuple[str, ...]


@dataclass(frozen=True)
class TargetDetail:
    """What all cells of a target have in common.

    labels: its K classes; columns: what was answered, the labels and then what is no class. base_counts as
    ``CellDetail.counts``, of the base. unit, edges: of all lengths. gold_lengths: of the true answers.
    items: those that are shown, in their order: all, or a random draw of ``total`` where texts are long.
    texts: (input, gold answer) of each, shortened in the middle; base_answers: the base's.
    """

    target: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    base_counts: NDArray[np.int64] | None
    unit: str
    edges: tuple[float, ...]
    base_lengths: Histogram | None
    gold_lengths: Histogram | None
    total: int
    items: tuple[int, ...]
    texts: tuple[tuple[str, str], ...]
    base_answers: tuple[str, ...]


@dataclass(frozen=True)
class SideBySide:
    """The base (place 0) and every source on one target, each against each, on the same items.

    scores: (1 + S, n) of each item, mean over seeds, NaN where not measured. gain, low, high: (1 + S, 1 + S)
    the row less the column with its 95 % interval, in the unit of the score; NaN where it is not known.
    """

    scores: Array
    gain: Array
    low: Array
    high: Array


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
    the study's. spent: what the run took: name -> amount, seconds where the name says so. pairs: target ->
    every two adapters on it beside each other.
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
    pairs: Mapping[str, SideBySide] = field(default_factory=lambda: MappingProxyType({}))

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
    room: int = ROOM,
    seed: int = 0,
) -> tuple[TargetDetail, tuple[CellDetail, ...]] | None:
    """Details of a target and of its cells with some sources; None where the base was not measured.

    outcomes: by (source, seed), the base under ``("__baseline__", None)``, each on all items in their
    order. texts: of the items, or none. room: characters that all texts and answers may take; a random draw
    of at least ``FEWEST_ITEMS`` items where they take more. seed: of the draw.
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
    known = {key: OutcomeColumns.of(row) for key, row in outcomes.items() if len(row)}
    rows = {source: {key: row for key, row in known.items() if key[0] == source} for source in sources}
    golds = known[BASELINE, None].words("gold")
    written = {key: _written(row) for key, row in known.items()}
    of_base = [written[BASELINE, None]]
    answers = {source: [written[key] for key in own] for source, own in rows.items() if own}

    def texts_of(item: int) -> tuple[str, str]:
        asked = texts[item].input.strip() if item < len(texts) else ""
        return shortened(asked, INPUT_LENGTH), shortened(golds[item].strip(), ANSWER_LENGTH)

    def size(item: int) -> int:
        told = (_answer(own, item) for own in (of_base, *answers.values()))
        return sum(map(len, (*texts_of(item), *told)))

    shown = _that_fit(len(base), size, room, np.random.default_rng((seed, crc32(target.encode()))))
    cells = [
        _cell(
            source, target, known[BASELINE, None], rows[source], items, columns, edges,
            [_answer(own, item) for item in shown],
        )
        for source, own in answers.items()
    ]  # fmt: skip
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
        total=len(base),
        items=tuple(shown),
        texts=tuple(texts_of(item) for item in shown),
        base_answers=tuple(_answer(of_base, item) for item in shown),
    )
    return detail, tuple(cells)


def _written(row: OutcomeColumns) -> list[str]:
    """(n,) what was written, or chosen where nothing was written."""
    chosen = row.words("prediction")
    if not row.known("text").any():
        return chosen
    return [answer if text is None else text for answer, text in zip(chosen, row.words("text"), strict=True)]


def _answer(seeds: Sequence[Sequence[str]], item: int) -> str:
    """The answer to an item; of several seeds that differ, each with the number of seeds that gave it."""
    counts = Counter(shortened(written[item].strip(), ANSWER_LENGTH) for written in seeds)
    several = len(counts) > 1
    return " · ".join(f"{text} ×{n}" if several else text for text, n in counts.items())


def _that_fit(n: int, size: Callable[[int], int], room: int, rng: np.random.Generator) -> list[int]:
    """Places of all items, or of a random draw that takes no more than ``room``, in their order.

    Sizes are asked for as long as there is room, and of no item more: most of a large target is not shown.
    """

    def count_that_fit(places: Sequence[int]) -> int:
        taken = accumulate(map(size, places))
        return sum(1 for _ in takewhile(lambda total: total <= room, taken))

    if count_that_fit(range(n)) == n:
        return list(range(n))
    order = rng.permutation(n).tolist()
    return sorted(order[: max(count_that_fit(order), FEWEST_ITEMS)])


def _cell(
    source: str,
    target: str,
    base: OutcomeColumns,
    rows: Mapping[Key, OutcomeColumns],
    items: TargetItems | None,
    columns: Sequence[int],
    edges: tuple[float, ...],
    answers: Sequence[str],
) -> CellDetail:
    """Details of one cell. rows: its outcomes by seed. answers: to the items that are shown."""
    scores = np.stack([row.numbers("score") for row in rows.values()])
    change = scores.mean(axis=0) - base.numbers("score")
    return CellDetail(
        source=source,
        target=target,
        seeds=len(rows),
        items=len(base),
        won=int((change > SAME).sum()),
        lost=int((change < -SAME).sum()),
        counts=_counts(items, list(rows), columns),
        lengths=_lengths(items, list(rows), edges),
        answers=tuple(answers),
    )


def side_by_side(
    matrix: TransferMatrix, *, most_scores: int = MOST_SCORES, most_pairs: int = MOST_COMPARED
) -> dict[str, SideBySide]:
    """Every two adapters, and every adapter and the base, on the targets whose items have scores.

    most_scores: of items, over all targets; beyond it there is nothing, since a page cannot hold it.
    most_pairs: of adapters, over all targets, that have an interval; beyond it only those with the base have.
    Intervals are those of ``paired_gain``, each by itself.
    """
    if sum(scores[:, 0].size for scores in matrix.item_scores.values()) > most_scores:
        return {}
    count = 1 + len(matrix.sources)
    first, second = np.triu_indices(count, k=1)
    if len(first) * len(matrix.item_scores) > most_pairs:
        first, second = first[: count - 1], second[: count - 1]
    sides = {}
    for target, scores in matrix.item_scores.items():
        gain, low, high = (np.full((count, count), np.nan) for _ in range(3))
        known = np.asarray(np.isfinite(scores).all(axis=(1, 2)))
        binary = bool(np.isin(scores[known], (0.0, 1.0)).all())
        a, b = (side[known[first] & known[second]] for side in (second, first))
        # an adapter without seeds of its own has the same scores for each: one seed says all that it can
        seeds = np.ptp(scores[known], axis=1).max(initial=0.0) > 0
        differences = (scores[a] - scores[b])[:, : None if seeds else 1]
        if len(a):
            found = paired_gain(differences, binary=binary, groups=matrix.item_groups.get(target))
            gain[a, b], low[a, b], high[a, b] = found[:3]
            gain[b, a], low[b, a], high[b, a] = -found[0], -found[2], -found[1]
        sides[target] = SideBySide(scores.mean(axis=1), gain, low, high)
    return sides


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
