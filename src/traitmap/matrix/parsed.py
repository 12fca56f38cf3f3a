"""A table whose cells are read as numbers: what long and wide tables share, from base row to cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

from traitmap.errors import MatrixError
from traitmap.matrix.numbers import CellNumber, has_decimal_commas, parsed_number
from traitmap.matrix.record import Cell
from traitmap.matrix.tables import CellTable
from traitmap.matrix.targets import plain_name
from traitmap.study.settings import BASELINE
from traitmap.wording import listed

NUMBERS = ("stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed")
_BASES = frozenset(
    {"base", "baseline", "base model", "the base", "the base model", "untuned", "not fine tuned"}
)


@dataclass
class ParsedTable:
    """A table, its columns as numbers (None for text), and notes of all that was taken for something."""

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    conditions: Mapping[str, Any]
    columns: Mapping[str, Sequence[CellNumber | None]]
    notes: list[str] = field(default_factory=list)

    def words(self, column: str) -> list[str]:
        """A column as text, without space around it."""
        at = self.header.index(column)
        return ["" if row[at] is None else str(row[at]).strip() for row in self.rows]

    def is_text(self, column: str) -> bool:
        """Whether a column holds words and no number."""
        numbers = self.columns[column]
        return any(number is None for number in numbers) and not any(
            number is not None and isfinite(number.value) for number in numbers
        )

    def refuse_text(self, column: str, row_names: Sequence[str]) -> None:
        """MatrixError, with its place, where a cell of a column of numbers holds something else."""
        at = self.header.index(column)
        for name, row, number in zip(row_names, self.rows, self.columns[column], strict=True):
            if number is None:
                raise MatrixError(
                    f"{self.path}: row {name!r}, column {column!r} holds {row[at]!r}, which is not a finite "
                    "number; leave the cell empty if it is unknown, or leave the column out (drop)"
                )

    def numbers(self, column: str) -> tuple[list[float], list[float]]:
        """A column's values and standard errors, NaN where unknown or text.

        Where percent signs and shares of 1 meet, all become shares; other percent stay as they are written.
        """
        cells = [number or CellNumber(nan) for number in self.columns[column]]
        plain = [abs(cell.value) for cell in cells if not cell.percent and isfinite(cell.value)]
        percent = [cell for cell in cells if cell.percent]
        if not (plain and percent and max(plain) <= 1):
            return [cell.value for cell in cells], [cell.stderr for cell in cells]
        note = f"{column}: percent brought to shares of 1"
        if note not in self.notes:
            self.notes.append(note)
        scaled = [CellNumber(cell.value / 100, cell.stderr / 100) if cell.percent else cell for cell in cells]
        return [cell.value for cell in scaled], [cell.stderr for cell in scaled]


def parsed_table(table: CellTable) -> ParsedTable:
    """The table with every cell read as a number, where it is one."""
    commas = has_decimal_commas(
        (cell for row in table.rows for cell in row), likely=table.decimal_comma_likely
    )
    columns = {
        name: [parsed_number(row[at], decimal_comma=commas) for row in table.rows]
        for at, name in enumerate(table.header)
    }
    notes = [*table.notes, *(["decimal commas"] if commas else [])]
    return ParsedTable(table.path, table.header, table.rows, table.conditions, columns, notes)


def refuse_unknown(table: ParsedTable, names: Sequence[str], known: Sequence[str], what: str) -> None:
    """MatrixError where a name that an option gives is not in the table."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MatrixError(
            f"{table.path}: no {what} named {', '.join(map(repr, unknown))}; "
            f"its {what}s are {', '.join(known)}"
        )


def with_base(table: ParsedTable, sources: Sequence[str], base: str | None) -> tuple[str, ...]:
    """The sources, of which the base is called ``__baseline__``."""
    name = _base_name(table, sources, base)
    table.notes.append("no base row" if name is None else f"base row {name!r}")
    return tuple(BASELINE if source == name else source for source in sources)


def _base_name(table: ParsedTable, sources: Sequence[str], base: str | None) -> str | None:
    """Which source is the base model: the one that is given, ``__baseline__``, or one that is called so."""
    stored = str(table.conditions.get("base") or "")  # its name, in a table that a run has written
    if base is not None and base not in sources and base in (stored, stored.rstrip("/").rsplit("/", 1)[-1]):
        base = None
    if base is not None:
        refuse_unknown(table, [base], list(dict.fromkeys(sources)), "source")
        if base != BASELINE and BASELINE in sources:
            raise MatrixError(f"{table.path}: {BASELINE} is there beside {base!r}; keep one base model")
        return base
    if BASELINE in sources:
        return BASELINE
    called = [name for name in dict.fromkeys(sources) if plain_name(name) in _BASES]
    if len(called) > 1:
        raise MatrixError(
            f"{table.path}: {listed(list(map(repr, called)))} may each be the base model; "
            "say which with --base"
        )
    return called[0] if called else None


def given_cell(source: str, target: str, seed: int | None, known: Mapping[str, Any]) -> Cell:
    """A given cell; what is not known is NaN, an unknown value makes it missing."""
    value = float(known.get("value", nan))
    status = known.get("status") or ("given" if isfinite(value) else "missing")
    reason = known.get("reason") or ("" if isfinite(value) else "empty in the table")
    numbers = {name: float(known.get(name, nan)) for name in NUMBERS}
    return Cell(
        source=source,
        target=target,
        seed=seed,
        metric=str(known.get("metric") or ""),
        value=value,
        n=int(known.get("n", 0)),
        status=str(status),
        reason=str(reason),
        **numbers,
    )
