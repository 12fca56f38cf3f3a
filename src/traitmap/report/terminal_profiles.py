"""Profiles in the terminal: a row for each dataset, their relations, and how gains depend on relations.

Then what the answers of a run show beyond their scores, as tables of sources by targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.console import Group, RenderableType

from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import UNKNOWN, counted, interval, plain, probability, sentence, share, signed

if TYPE_CHECKING:
    from traitmap.analysis.profiles.cell_classes import CellClasses
    from traitmap.analysis.profiles.cell_lengths import CellLengths
    from traitmap.analysis.profiles.cells import CellProfiles
    from traitmap.analysis.profiles.parser import Relations
    from traitmap.analysis.profiles.record import DatasetRow, Profile
    from traitmap.analysis.profiles.relations import RelationEffects
    from traitmap.matrix.record import TransferMatrix
    from traitmap.matrix.statistics import Interval

    CellRecord = TypeVar("CellRecord", CellClasses, CellLengths)

SIGNIFICANT = 0.05
SHOWN_FINDINGS = 12  # relation findings that are printed; --json has all
_NAME_MOST = 20  # characters of a neighbour's name within a table


def profile_view(profile: Profile) -> RenderableType:
    """Everything in a profile that fits a terminal; parts that were not computed are left out.

    Datasets, syntactic relations, what the answers of the run show, and how gains depend on relations.
    """
    parts: list[RenderableType] = [_datasets(profile.rows(), profile.all_notes())]
    if profile.relations:
        parts.append(to_terminal(_relations_table(profile.relations)))
    if profile.cells is not None and profile.matrix is not None:
        parts += cells_views(profile.cells, profile.matrix)
    if profile.effects is not None:
        parts.append(_relation_effects(profile.effects))
    return Group(*(Group(words(""), part) if number else part for number, part in enumerate(parts)))


def _datasets(rows: Sequence[DatasetRow], warnings: Sequence[str]) -> RenderableType:
    """Size, lengths, classes, form, difficulty and neighbours of every dataset."""
    unit = rows[0].unit if rows else "words"
    columns: dict[str, Callable[[DatasetRow], str]] = {
        "texts": lambda row: plain(row.size, 0),
        f"input {unit}": lambda row: plain(row.input, 0),
        f"output {unit}": lambda row: plain(row.output, 0),
        "output 5-95 %": lambda row: (
            f"{plain(row.output_low, 0)}-{plain(row.output_high, 0)}" if isfinite(row.output) else UNKNOWN
        ),
        "classes": lambda row: plain(row.classes, 0),
        "entropy bits": lambda row: plain(row.entropy, 2),
        "majority": lambda row: share(row.majority),
        "answers": lambda row: f"{row.answer} {share(row.answer_share)}",
        "marks in half": lambda row: (
            ", ".join(mark.replace("_", " ") for mark in row.marks[:2])
            + ("..." if len(row.marks) > 2 else "")
        ),
        "different words": lambda row: str(row.vocabulary),
        "type-token": lambda row: plain(row.richness, 2),
    }
    notes = ["lengths: medians; answers: the commonest form; marks: what half of the outputs bear"]
    if any(isfinite(row.perplexity) for row in rows):
        columns["perplexity"] = lambda row: plain(row.perplexity)
    if any(row.style for row in rows):
        columns["nearest in style"] = lambda row: _neighbour(row.style, row.style_cosine)
    if any(row.meaning for row in rows):
        columns["nearest in meaning"] = lambda row: _neighbour(row.meaning, row.meaning_cosine)
    if any(row.style or row.meaning for row in rows):
        notes.append("nearest: with its cosine (of style, without an encoder, about the mean of all)")
    if any(row.role == "target" for row in rows):
        notes.append("italic: targets, and nearest is among other tasks")
    if "perplexity" in columns:
        notes.append("perplexity: of the base, per token of input and output")
    table = Table(
        "Profiles of the datasets.",
        ("dataset", *columns),
        [
            (
                Entry(row.dataset, style="italic" if row.role == "target" else ""),
                *(text(row) or UNKNOWN for text in columns.values()),
            )
            for row in rows
        ],
        ("; ".join(notes) + ".",),
    )
    return Group(to_terminal(table), *(words(f"! {sentence(warning)}", "yellow") for warning in warnings))


def _neighbour(name: str, cosine: float) -> str:
    return f"{_short(name)} {signed(cosine, 2)}" if name else ""


def _short(name: str) -> str:
    return name if len(name) <= _NAME_MOST else f"{name[: _NAME_MOST - 1]}…"


def _relations_table(relations: Mapping[str, Relations], most: int = 12) -> Table:
    """Share of texts with the commonest relations (but for those of all texts), and with derived ones."""
    totals: dict[str, int] = {}
    for parsed in relations.values():
        for label, count in zip(parsed.labels, parsed.present.sum(axis=0), strict=True):
            totals[label] = totals.get(label, 0) + int(count)
    labels = sorted(totals, key=lambda label: (-totals[label], label))
    shares = np.array([parsed.shares(labels) for parsed in relations.values()])
    common = [label for label, column in zip(labels, shares.T, strict=True) if not np.all(column > 0.98)]
    first = next(iter(relations.values()))
    derived = (label for label in first.derived if label in totals and label not in common[:most])
    columns = [*common[:most], *derived]
    parsed_texts = sorted({f"{len(parsed.texts)} of {parsed.available}" for parsed in relations.values()})
    note = f"share of parsed texts with each relation ({first.scheme}, {first.parser}); parsed: "
    return Table(
        "Share of parsed texts with each relation.",
        ("relations in", *columns),
        [
            (name, *(Entry(share(float(value)), value=float(value)) for value in parsed.shares(columns)))
            for name, parsed in relations.items()
        ],
        (f"{note}{', '.join(parsed_texts[:3])}.",),
    )


def _relation_effects(effects: RelationEffects) -> RenderableType:
    """What was found of relations on gains, and what could not be."""
    tested, total = effects.tested, len(effects.effects)
    result = f"{len(effects.findings)} found in {counted(len(tested), 'test')}"
    title = f"Gains that depend on syntactic relations: {result if tested else 'nothing could be tested'}"
    rows: list[Row] = []
    for effect in effects.findings[:SHOWN_FINDINGS]:
        ratio, gap = effect.odds_ratio, effect.difference
        size = f"{signed(gap.value, 2)} {interval(gap.low, gap.high, 2)}"
        if ratio.known:
            size = f"x {ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}]"
        names = (effect.source, _short(effect.target), _short(effect.relation))
        rows.append((*names, str(effect.n_with), size, probability(effect.q)))
    columns = ("source", "target", "relation", "items", "won : lost, or difference", "q")
    notes = [
        f"{total - len(tested)} of {counted(total, 'relation in a cell', 'relations in cells')} not tested: "
        "too few items have it, or too few of them changed"
    ]
    if suspects := [effect for effect in tested if effect.q < SIGNIFICANT and not effect.significant]:
        notes.append(f"{len(suspects)} more differ, but not among items of one length and class")
    if ratios := sorted(effect.detectable for effect in tested if effect.odds_ratio.known):
        middle = ratios[len(ratios) // 2]
        notes.append(f"half of the tests on right or wrong could see no odds ratio below {middle:.1f}")
    table = [to_terminal(Table(title, columns, rows))] if rows else []
    return Group(words(title, "bold"), *table, words("; ".join(notes) + ".", "dim"))


# What the answers of a run show beyond their scores: tables of sources by targets.


def cells_views(cells: CellProfiles, matrix: TransferMatrix) -> tuple[RenderableType, ...]:
    """Collapse, balanced accuracy, lengths, parsing and stopping: a view each, sources by targets.

    A view is left out where no target has its number; a last one holds the trends in words.
    """
    classes = {(cell.source, cell.target): cell for cell in cells.classes if cell.seed is None}
    lengths = {(cell.source, cell.target): cell for cell in cells.lengths if cell.seed is None}
    starred = "* interval leaves out 0."
    changed = "* interval of the change leaves out 0."
    tables = (
        _square(
            matrix,
            "Share of the commonest answer, %",
            "* collapsed: beyond noise, nine in ten answers and more are one and the same.",
            classes,
            _commonest,
        ),
        _square(
            matrix,
            "Balanced accuracy over the base, points",
            starred,
            classes,
            lambda cell: _change(cell.gains["balanced_accuracy"]),
        ),
        _square(
            matrix,
            "Length of outputs on the way from the base's (0) to the source's (1)",
            f"{starred} A dash: base and source cannot be told apart, or one is not known.",
            lengths,
            _interpolation,
        ),
        _square(
            matrix,
            "Answers that cannot be parsed, % (the base's)",
            f"{changed} They count as wrong.",
            lengths,
            lambda cell: _fault(cell.unparsed, cell.base_unparsed, cell.unparsed_change.difference),
        ),
        _square(
            matrix,
            "Outputs that never stop, % (the base's)",
            f"{changed} They are cut where the task cuts them.",
            lengths,
            lambda cell: _fault(cell.endless, cell.base_endless, cell.endless_change.difference),
        ),
    )
    views: list[RenderableType] = [
        Group(words(table.caption, "bold"), to_terminal(table)) for table in tables if table is not None
    ]
    if cells.trends:
        views.append(Group(*(words(trend.words) for trend in cells.trends)))
    return tuple(views)


def _square(
    matrix: TransferMatrix,
    title: str,
    note: str,
    records: Mapping[tuple[str, str], CellRecord],
    entry: Callable[[CellRecord], Entry | None],
) -> Table | None:
    """Sources by those targets that have the number in any cell; None where none has."""
    entries: dict[tuple[str, str], Entry] = {}
    for cell, record in records.items():
        if (shown := entry(record)) is not None:
            entries[cell] = shown
    targets: list[str] = [
        t for t in matrix.targets if any((source, t) in entries for source in matrix.sources)
    ]
    if not targets:
        return None
    rows: list[Row] = []
    for source in matrix.sources:
        row: list[Entry | str] = [entries.get((source, target), UNKNOWN) for target in targets]
        rows.append([source, *row])
    return Table(title, ("source", *targets), rows, (note,))


def _commonest(cell: CellClasses) -> Entry:
    answers = cell.adapter
    return Entry(
        plain(100 * answers.commonest_share.value, 0),
        mark="*" if answers.collapsed else " ",
        style="worse" if answers.collapsed else "",
    )


def _interpolation(cell: CellLengths) -> Entry | None:
    way = cell.best.interpolation
    if cell.written == "chosen" or not way.known:
        return None
    return Entry(signed(way.value, 2), mark="*" if _excludes_zero(way) else " ")


def _fault(adapter: Interval, base: Interval, change: Interval) -> Entry | None:
    """A share that should be small, the base's in brackets; nothing where neither has any."""
    if not adapter.known or (adapter.value == 0 and not base.value > 0):
        return None
    style = ""
    if change.known and _excludes_zero(change):
        style = "worse" if change.value > 0 else "better"
    text = f"{plain(100 * adapter.value, 0)} ({plain(100 * base.value, 0)})"
    return Entry(text, mark="*" if style else " ", style=style)


def _change(difference: Interval) -> Entry | None:
    """A difference in points, starred where it is beyond noise."""
    if not difference.known:
        return None
    style = ""
    if _excludes_zero(difference):
        style = "better" if difference.value > 0 else "worse"
    return Entry(signed(100 * difference.value), mark="*" if style else " ", style=style)


def _excludes_zero(value: Interval) -> bool:
    return value.low > 0 or value.high < 0
