"""What the answers of a run show beyond their scores, as tables of sources by targets in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from traitmap.report.blocks import Blocks, words
from traitmap.report.tables import BETTER, WORSE
from traitmap.report.wording import UNKNOWN, plain, signed

if TYPE_CHECKING:
    from traitmap.analysis.interval import Interval
    from traitmap.analysis.profiles.cell_classes import CellClasses
    from traitmap.analysis.profiles.cell_lengths import CellLengths
    from traitmap.analysis.profiles.cell_profiles import CellProfiles
    from traitmap.matrix_record import TransferMatrix

    Record = TypeVar("Record", CellClasses, CellLengths)

_POINTS = 100.0
_STARRED = "* interval leaves out 0."
_CHANGED = "* interval of the change leaves out 0."


def cells_tables(cells: CellProfiles, matrix: TransferMatrix) -> tuple[RenderableType, ...]:
    """Collapse, balanced accuracy, lengths, parsing and stopping, where the targets have such a thing."""
    classes = {(one.source, one.target): one for one in cells.classes if one.seed is None}
    lengths = {(one.source, one.target): one for one in cells.lengths if one.seed is None}
    sources, targets = matrix.sources, matrix.targets
    tables: tuple[tuple[str, str, Blocks | None], ...] = (
        (
            "Share of the commonest answer, %",
            "* collapsed: beyond noise, nine in ten answers and more are one and the same.",
            _square(sources, targets, classes, _commonest),
        ),
        (
            "Balanced accuracy over the base, points",
            _STARRED,
            _square(sources, targets, classes, _balanced),
        ),
        (
            "Length of outputs on the way from the base's (0) to the source's (1)",
            f"{_STARRED} A dash: base and source cannot be told apart, or one is not known.",
            _square(sources, targets, lengths, _interpolation),
        ),
        (
            "Answers that cannot be parsed, % (the base's)",
            f"{_CHANGED} They count as wrong.",
            _square(sources, targets, lengths, _unparsed),
        ),
        (
            "Outputs that never stop, % (the base's)",
            f"{_CHANGED} They are cut where the task cuts them.",
            _square(sources, targets, lengths, _endless),
        ),
    )
    found: list[RenderableType] = [
        Group(words(title, "bold"), table, words(note, "dim"))
        for title, note, table in tables
        if table is not None
    ]
    if cells.trends:
        found.append(Group(*(words(trend.words) for trend in cells.trends)))
    return tuple(found)


def _square(
    sources: Sequence[str],
    targets: Sequence[str],
    records: Mapping[tuple[str, str], Record],
    entry: Callable[[Record], Text | None],
) -> Blocks | None:
    """Sources by those targets that have the number in any cell; None where none has."""
    found = {cell: entry(record) for cell, record in records.items()}
    shown = [target for target in targets if any(found.get((source, target)) for source in sources)]
    if not shown:
        return None
    rows = tuple(
        (words(source), tuple(found.get((source, target)) or words(UNKNOWN) for target in shown))
        for source in sources
    )
    return Blocks("source", tuple(shown), rows)


def _commonest(cell: CellClasses) -> Text:
    own = cell.adapter
    mark = "*" if own.collapsed else " "
    return words(plain(_POINTS * own.commonest_share.value, 0) + mark, WORSE if own.collapsed else "")


def _balanced(cell: CellClasses) -> Text | None:
    return _change(cell.gains["balanced_accuracy"])


def _unparsed(cell: CellLengths) -> Text | None:
    return _share(cell.unparsed, cell.base_unparsed, cell.unparsed_change.difference)


def _interpolation(cell: CellLengths) -> Text | None:
    way = cell.best.interpolation
    if cell.written == "chosen" or not way.known:
        return None
    return words(signed(way.value, 2) + ("*" if _sure(way) else " "))


def _endless(cell: CellLengths) -> Text | None:
    return _share(cell.endless, cell.base_endless, cell.endless_change.difference)


def _share(own: Interval, base: Interval, change: Interval) -> Text | None:
    """A share that should be small, the base's in brackets; nothing where neither has any."""
    if not own.known or (own.value == 0 and not base.value > 0):
        return None
    style = ""
    if change.known and _sure(change):
        style = WORSE if change.value > 0 else BETTER
    return words(
        f"{plain(_POINTS * own.value, 0)} ({plain(_POINTS * base.value, 0)})" + ("*" if style else " "), style
    )


def _change(interval: Interval) -> Text | None:
    """A difference in points, starred where it is beyond noise."""
    if not interval.known:
        return None
    style = ""
    if _sure(interval):
        style = BETTER if interval.value > 0 else WORSE
    return words(signed(_POINTS * interval.value) + ("*" if style else " "), style)


def _sure(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0
