"""What the answers of a run show beyond their scores, as tables of sources by targets in the terminal.

Profiles of datasets in the terminal: a row each, their relations, and how gains depend on relations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from traitmap.report.terminal import BETTER, WORSE, Blocks, words
from traitmap.wording import UNKNOWN, counted, interval, plain, probability, sentence, share, signed

if TYPE_CHECKING:
    from traitmap.analysis.profiles.cell_classes import CellClasses
    from traitmap.analysis.profiles.cell_lengths import CellLengths
    from traitmap.analysis.profiles.cells import CellProfiles
    from traitmap.analysis.profiles.parser import Relations
    from traitmap.analysis.profiles.record import DatasetRow, Profile
    from traitmap.analysis.profiles.relations import RelationEffect, RelationEffects
    from traitmap.matrix.record import TransferMatrix
    from traitmap.matrix.statistics import Interval

    Record = TypeVar("Record", CellClasses, CellLengths)

_POINTS = 100.0
_STARRED = "* interval leaves out 0."
_CHANGED = "* interval of the change leaves out 0."


def cells_tables(cells: CellProfiles, matrix: TransferMatrix) -> tuple[RenderableType, ...]:
    """Collapse, balanced accuracy, lengths, parsing and stopping, where the targets have such a thing."""
    classes = {(class_.source, class_.target): class_ for class_ in cells.classes if class_.seed is None}
    lengths = {(length.source, length.target): length for length in cells.lengths if length.seed is None}
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


LEVEL = 0.05
_LONGEST = 20  # characters of a neighbour's name within a table
_FINDINGS = 12  # relation findings that are printed; --json has all


def profile_tables(found: Profile) -> RenderableType:
    """Everything in a profile that fits a terminal."""
    parts: list[RenderableType] = [datasets_table(found.rows(), found.all_notes())]
    if found.relations:
        parts.append(relations_table(found.relations))
    if found.cells is not None and found.matrix is not None:
        parts += cells_tables(found.cells, found.matrix)
    if found.effects is not None:
        parts.append(effects_table(found.effects))
    return Group(*(Group(Text(""), part) if number else part for number, part in enumerate(parts)))


def datasets_table(rows: Sequence[DatasetRow], notes: Sequence[str] = ()) -> RenderableType:
    """Size, lengths, classes, form, difficulty and neighbours of every dataset."""
    unit = rows[0].unit if rows else "words"
    heads: tuple[str, ...] = (
        "texts",
        f"input {unit}",
        f"output {unit}",
        "output 5-95 %",
        "classes",
        "entropy bits",
        "majority",
        "answers",
        "marks in half",
        "different words",
        "type-token",
    )
    shown = {
        "perplexity": any(isfinite(row.perplexity) for row in rows),
        "nearest in style": any(row.style for row in rows),
        "nearest in meaning": any(row.meaning for row in rows),
    }
    heads += tuple(head for head, known in shown.items() if known)
    table = Blocks("dataset", heads, tuple((_name(row), _entries(row, heads)) for row in rows))
    parts: list[RenderableType] = [table, words(_datasets_note(rows), "dim")]
    parts += [words(f"! {sentence(note)}", "yellow") for note in notes]
    return Group(*parts)


def _name(row: DatasetRow) -> Text:
    return words(row.dataset, "italic" if row.role == "target" else "")


def _entries(row: DatasetRow, heads: Sequence[str]) -> tuple[Text, ...]:
    """One entry a head; the last ones are shown where any dataset has them."""
    spread = f"{plain(row.output_low, 0)}-{plain(row.output_high, 0)}" if isfinite(row.output) else UNKNOWN
    told = [
        f"{row.size:.0f}" if isfinite(row.size) else UNKNOWN,
        plain(row.input, 0),
        plain(row.output, 0),
        spread,
        plain(row.classes, 0),
        plain(row.entropy, 2),
        share(row.majority),
        f"{row.answer} {share(row.answer_share)}",
        ", ".join(mark.replace("_", " ") for mark in row.marks[:2]) + ("..." if len(row.marks) > 2 else ""),
        str(row.vocabulary),
        plain(row.richness, 2),
    ]
    some = {
        "perplexity": plain(row.perplexity),
        "nearest in style": _near(row.style, row.style_cosine),
        "nearest in meaning": _near(row.meaning, row.meaning_cosine),
    }
    told += [entry for head, entry in some.items() if head in heads]
    return tuple(words(entry or UNKNOWN) for entry in told)


def _near(name: str, cosine: float) -> str:
    return f"{_short(name)} {signed(cosine, 2)}" if name else ""


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _datasets_note(rows: Sequence[DatasetRow]) -> str:
    said = ["lengths: medians; answers: the commonest form; marks: what half of the outputs bear"]
    if any(row.style or row.meaning for row in rows):
        said.append("nearest: with its cosine (of style, without an encoder, about the mean of all)")
    if any(row.role == "target" for row in rows):
        said.append("italic: targets, and nearest is among other tasks")
    if any(isfinite(row.perplexity) for row in rows):
        said.append("perplexity: of the base, per token of input and output")
    return "; ".join(said) + "."


def relations_table(relations: Mapping[str, Relations], most: int = 12) -> RenderableType:
    """Share of texts that have the commonest relations, and those that are made here."""
    totals: dict[str, int] = {}
    for relation in relations.values():
        for label, count in zip(relation.labels, relation.present.sum(axis=0), strict=True):
            totals[label] = totals.get(label, 0) + int(count)
    everywhere = {
        label
        for label in totals
        if all(_profile_tables_share(one, label) > 0.98 for one in relations.values())
    }
    telling = sorted(totals.keys() - everywhere, key=lambda label: (-totals[label], label))
    made = [label for one in list(relations.values())[:1] for label in one.derived if label in totals]
    shown = [*telling[:most], *(label for label in made if label not in telling[:most])]
    rows = tuple(
        (words(name), tuple(words(share(_profile_tables_share(one, label))) for label in shown))
        for name, one in relations.items()
    )
    first = next(iter(relations.values()))
    note = f"share of parsed texts with each relation ({first.scheme}, {first.parser}); parsed: "
    note += ", ".join(sorted({f"{len(one.texts)} of {one.available}" for one in relations.values()})[:3])
    return Group(Blocks("relations in", tuple(shown), rows), words(f"{note}.", "dim"))


def _profile_tables_share(relations: Relations, label: str) -> float:
    if label not in relations.labels or not len(relations.texts):
        return 0.0 if len(relations.texts) else float("nan")
    return float(relations.present[:, relations.labels.index(label)].mean())


def effects_table(effects: RelationEffects) -> RenderableType:
    """What was found of relations on gains, and what could not be."""
    tested, asked = effects.tested, len(effects.effects)
    found = f"{len(effects.findings)} found in {counted(len(tested), 'test')}"
    told = found if tested else "nothing could be tested"
    head = f"Gains that depend on syntactic relations: {told}"
    parts: list[RenderableType] = [words(head, "bold")]
    if effects.findings:
        parts.append(_findings(effects))
    said = [
        f"{asked - len(tested)} of {counted(asked, 'relation in a cell', 'relations in cells')} not tested: "
        "too few items have it, or too few of them changed"
    ]
    if suspects := [one for one in tested if one.q < LEVEL and not one.significant]:
        said.append(f"{len(suspects)} more differ, but not among items of one length and class")
    if ratios := sorted(one.detectable for one in tested if one.odds_ratio.known):
        middle = ratios[len(ratios) // 2]
        said.append(f"half of the tests on right or wrong could see no odds ratio below {middle:.1f}")
    parts.append(words("; ".join(said) + ".", "dim"))
    return Group(*parts)


def _findings(effects: RelationEffects) -> Blocks:
    heads = ("target", "relation", "items", "won : lost, or difference", "q")
    shown = effects.findings[:_FINDINGS]
    return Blocks("source", heads, tuple((words(one.source), _finding(one)) for one in shown))


def _finding(one: RelationEffect) -> tuple[Text, ...]:
    ratio, gap = one.odds_ratio, one.difference
    size = f"{signed(gap.value, 2)} {interval(gap.low, gap.high, 2)}"
    if ratio.known:
        size = f"x {ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}]"
    entries = (_short(one.target), _short(one.relation), str(one.n_with), size, probability(one.q))
    return tuple(words(entry) for entry in entries)
