"""Any file of a table -> cells of text, and a cell of text -> a number.

Delimiters, encodings, title lines and index columns are recognised; Excel, Markdown and LaTeX tables are read
too. A cell may hold percent signs, ``45.1 ± 1.2``, thousands, decimal commas or a word for what is missing.
Whether a comma is a decimal mark or parts thousands is a matter of the whole table: ``has_decimal_commas``.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, isinf, nan
from pathlib import Path
from typing import Any, NamedTuple

from traitmap.errors import MatrixError

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "--", "—", "–", "<na>"})
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_GROUPS_OF_DOTS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?")
_GROUPS_OF_COMMAS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_SPACES = re.compile(r"(?<=\d)[\s\u00a0\u202f\u2009'’](?=\d{3}(?:\D|$))")
_PLUS_MINUS = re.compile(r"\s*(?:±|\+/-|\+-|\\pm)\s*")


class CellNumber(NamedTuple):
    """A cell's number (NaN where it is missing), its standard error (NaN where unknown), and whether it has a
    percent sign."""

    value: float
    stderr: float = nan
    percent: bool = False


_UNKNOWN = CellNumber(nan)


def parsed_number(cell: Any, *, decimal_comma: bool = False) -> CellNumber | None:
    """A cell as a number; None for text, infinity and truth values.

    decimal_comma: read ``45,1`` as 45.1 and ``1.234,5`` as 1234.5.
    """
    if cell is None or type(cell).__name__ == "NAType":
        return _UNKNOWN
    if isinstance(cell, bool):
        return None
    if not (decimal_comma and isinstance(cell, str) and "." in cell):
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            return None if isinf(number) else CellNumber(number)
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    if text.lower() in MISSING:
        return _UNKNOWN
    if not text[-1:].isdigit() and text[-1] not in "%.":
        return None
    percent = "%" in text
    if percent:
        text = re.sub(r"\s*%", "", text)
    pieces = _PLUS_MINUS.split(text)
    if len(pieces) > 2:
        return None
    numbers = [_plain_number(piece.strip(), decimal_comma) for piece in pieces]
    if any(number is None or not isfinite(number) for number in numbers):
        return None
    known = [number for number in numbers if number is not None]
    return CellNumber(known[0], known[1] if len(known) == 2 else nan, percent)


def _plain_number(text: str, decimal_comma: bool) -> float | None:
    """Digits with their marks; None for anything else."""
    text = _SPACES.sub("", text.replace("−", "-"))
    if decimal_comma:
        if _GROUPS_OF_DOTS.fullmatch(text):
            text = text.replace(".", "")
        text = text.replace(",", ".") if text.count(",") == 1 else text
    elif _GROUPS_OF_COMMAS.fullmatch(text):
        text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        return None


def has_decimal_commas(cells: Iterable[Any], *, likely: bool) -> bool:
    """Whether commas in the numbers of a table are decimal marks.

    One ``45,1`` or ``0,451`` shows that they are, one ``45.1`` that they are not. Where all that have a comma
    could be thousands, they are taken for decimals if ``likely`` (where commas do not part the columns).
    """
    thousands = points = False
    for cell in cells:
        if not isinstance(cell, str) or not cell:
            continue
        if "," in cell:
            for piece in _PLUS_MINUS.split(cell.replace("%", "").replace("−", "-").strip()):
                piece = _SPACES.sub("", piece.strip())
                if _GROUPS_OF_DOTS.fullmatch(piece) and "," in piece:
                    return True
                if _THOUSANDS.fullmatch(piece):
                    thousands = True
                elif _DECIMAL_COMMA.fullmatch(piece):
                    return True
                elif _GROUPS_OF_COMMAS.fullmatch(piece):
                    points = True
        elif not points and "." in cell and parsed_number(cell) is not None:
            points = True
    return thousands and not points and likely


SUFFIXES = (".csv", ".tsv", ".parquet", ".xlsx", ".md", ".tex", ".txt")
_LFS = "version https://git-lfs.github.com/spec/"
_NO_NAME = re.compile(r"__index_level_\d+__")  # of an index that pandas wrote and nobody named
_LARGEST = 1 << 28  # bytes of an unpacked table; a thousand models on a thousand tasks are 20 MB
_DELIMITERS = {",": ",", ";": ";", "\t": "tab", "|": "|"}
_SAMPLE = 60  # lines that are looked at to find the delimiter
_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_LATEX_RULES = re.compile(
    r"\\(toprule|midrule|bottomrule|hline)(\[[^]]*\])?|\\(cmidrule|cline)(\([^)]*\))?\{[^}]*\}(\([^)]*\))?"
)
_LATEX_FONT = re.compile(
    r"\\(?:textbf|textit|underline|emph|mathbf|textsc|texttt|text|mathrm)\s*\{([^{}]*)\}"
)


@dataclass(frozen=True)
class CellTable:
    """A table as it lies in the file: header, rows of strings or numbers.

    conditions: stored with the table by ``to_parquet``. notes: what was found out of the file's form.
    decimal_comma_likely: whether ``1,234`` in it is rather 1.234 than one thousand.
    """

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    decimal_comma_likely: bool = False

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]


def load_table(path: Path) -> CellTable:
    """The file's header and rows, by its suffix; columns of one name are told apart.

    Raises MatrixError, with what to do, for whatever cannot be read.
    """
    if not path.exists():
        raise MatrixError(f"{path}: no such file; give a CSV, TSV or Parquet file")
    if path.is_dir():
        raise MatrixError(f"{path} is a folder; give a CSV, TSV or Parquet file, or open a run with open_run")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in SUFFIXES:
        raise MatrixError(
            f"{path}: files ending in {', '.join(SUFFIXES)} can be read; convert it to one of them"
        )
    if suffix == ".parquet":
        table = _load_parquet(path)
    elif suffix == ".xlsx":
        table = _load_excel(path)
    else:
        text, encoding = text_of(path)
        form: tuple[str, ...]
        if suffix != ".csv" and re.search(r"\\begin\s*\{(tabular|longtable|array)|&.*\\\\", text):
            rows, form = _latex_rows(text), ("LaTeX",)
        elif suffix not in (".csv", ".tsv") and any(
            "|" in line and _RULE.fullmatch(line) for line in text.splitlines()
        ):
            rows, form = _markdown_rows(text), ("Markdown",)
        else:
            rows, form = _delimited_rows(path, text, tab=suffix == ".tsv")
        parted = any(note.startswith("delimiter") for note in form)  # by something else than commas
        table = replace(_with_header(path, rows, (*form, *encoding)), decimal_comma_likely=parted)
    _refuse_results(table)
    return replace(table, header=told_apart(table.header))


OPENCOMPASS = ("dataset", "version", "metric", "mode")  # the first columns of its summaries


def is_printed_table(header: Sequence[str]) -> bool:
    """Whether a header is that of the table that lm-eval and lighteval print: results of one model."""
    heads = [head.strip().lower() for head in header]
    named = bool(heads) and heads[0] in ("tasks", "task", "groups", "group")
    return named and {"version", "metric", "value", "stderr"} <= set(heads)


def _refuse_results(table: CellTable) -> None:
    """MatrixError where a table is the output of a harness, which `traitmap import` reads."""
    if is_printed_table(table.header) or tuple(table.header[:4]) == OPENCOMPASS:
        raise MatrixError(
            f"{table.path}: holds results as a harness prints them, not a table of sources and targets; bring "
            "the files of all models together with `traitmap import FILE... -o scores.csv`"
        )


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names, of which a second ``x`` becomes ``x (2)``: real tables name two models alike."""
    taken = set(names)
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        other, count = name, seen[name]
        while count > 1 and other in taken:
            other = f"{name} ({count})"
            count += 1
        taken.add(other)
        result.append(other)
    return tuple(result)


def refuse_pointer(beginning: str, path: Path) -> None:
    """MatrixError where a file is what Git LFS leaves in the place of the real one."""
    if beginning.startswith(_LFS):
        raise MatrixError(f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` there")


def _bytes_of(path: Path) -> bytes:
    """The file's content, unpacked where it is gzipped, as long as it can be a table's."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        with path.open("rb") as stream:
            refuse_pointer(stream.read(200).decode("utf-8", "replace"), path)
        raise MatrixError(f"{path} cannot be read: {error}; copy it again") from None
    refuse_pointer(content[:200].decode("utf-8", "replace"), path)
    if len(content) > _LARGEST:
        raise MatrixError(f"{path} holds more than {_LARGEST:,} bytes, so hardly a matrix; check the path")
    return content


def text_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """The file's text, and its encoding where that is not UTF-8."""
    raw = _bytes_of(path)
    encoding = "utf-8-sig"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif raw[:400].count(0) * 3 > len(raw[:400]):  # Latin letters in UTF-16 without its mark
        encoding = "utf-16-le" if raw[1:400:2].count(0) > raw[0:400:2].count(0) else "utf-16-be"
    try:
        return raw.decode(encoding), ("UTF-16",) if encoding.startswith("utf-16") else ()
    except UnicodeDecodeError as error:
        raise MatrixError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def _delimited_rows(path: Path, text: str, *, tab: bool) -> tuple[list[list[str]], tuple[str, ...]]:
    """Rows of delimited text, and the delimiter unless it is the one that the suffix promises."""
    usual = "\t" if tab else ","
    delimiter = _delimiter(text, usual)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise MatrixError(f"{path} cannot be read as a table: {error}; check its quotes") from None
    return rows, () if delimiter == usual == "," else (f"delimiter {_DELIMITERS[delimiter]}",)


def _delimiter(text: str, usual: str) -> str:
    """The delimiter by which most lines have one and the same number of cells; ``usual`` where two are level.

    Lines that are as wide as the widest common line count; of two that are level there the one counts that
    leaves more numbers.
    """
    lines = [line for line in text[: 1 << 20].splitlines() if line.strip()][:_SAMPLE]
    best, best_score = usual, (0.0, 0.0)
    for delimiter in (usual, *(other for other in _DELIMITERS if other != usual)):
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows if len(row) > 1)
        if not widths:
            continue
        width, count = max(widths.items(), key=lambda entry: (entry[1], entry[0]))
        if delimiter != usual and rows[-1][:1] and len(rows[-1]) != width:
            continue
        cells = [cell for row in rows if len(row) == width for cell in row]
        numbers = sum(parsed_number(cell, decimal_comma=True) is not None for cell in cells)
        score = (count / len(rows), numbers / len(cells))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _with_header(path: Path, rows: Sequence[Sequence[Any]], notes: tuple[str, ...]) -> CellTable:
    """The table below its title lines. Rows must be as long as the header, but for empty cells at the end."""
    lines = [row for row in rows if any(not _is_empty(cell) for cell in row)]
    titles = 0
    while len(lines) - titles > 2 and _is_title(lines[titles], lines[titles + 1], lines[titles + 2]):
        titles += 1
    if len(lines) - titles < 2:
        raise MatrixError(f"{path} has no rows; a table needs a header and at least one row")
    width = len(lines[titles])
    trailing = [row for row in lines[titles:] if len(row) > width and all(map(_is_empty, row[width:]))]
    while (
        width
        and _is_empty(lines[titles][width - 1])
        and all(len(row) < width or _is_empty(row[width - 1]) for row in lines[titles:])
    ):
        width -= 1
    header = tuple("" if cell is None else str(cell).strip() for cell in lines[titles][:width])
    body = []
    for number, row in enumerate(lines[titles + 1 :], start=titles + 2):
        if len(row) > width and (row in trailing or all(map(_is_empty, row[width:]))):
            row = row[:width]
        if len(row) != width:
            raise MatrixError(
                f"{path}: row {number} has {len(row)} cells, but the header has {width}; "
                "quote names that hold the separator"
            )
        body.append(tuple(row))
    if titles:
        notes = (*notes, f"{titles} title {'line' if titles == 1 else 'lines'} above the header")
    return CellTable(str(path), header, tuple(body), {}, notes)


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _is_title(line: Sequence[Any], header: Sequence[Any], row: Sequence[Any]) -> bool:
    """Whether a line is a title: text in its first cell alone, or narrower than a header and a row below."""
    filled = [cell for cell in line if not _is_empty(cell)]
    below = [cell for cell in header if not _is_empty(cell)]
    if any(parsed_number(cell) is not None for cell in below[1:]):
        return False
    if len(filled) == 1 and not _is_empty(line[0]):
        return len(below) > 1
    return len(line) < len(header) == len(row)


def _markdown_rows(text: str) -> list[list[str]]:
    """The cells of the first table, without marks of stress, code and links."""
    lines = text.splitlines()
    rule = next(at for at, line in enumerate(lines) if "|" in line and _RULE.fullmatch(line))
    end = next((at for at in range(rule, len(lines)) if "|" not in lines[at]), len(lines))
    rows = []
    for line in (lines[max(rule - 1, 0)], *lines[rule + 1 : end]):
        line = re.sub(r"!?\[([^]]*)\]\([^)]*\)|<[^<>]*>", r"\1", line.strip())
        line = re.sub(r"(\*\*|__)(.+?)\1", r"\2", line).replace("`", "")
        line = line.removeprefix("|")
        cells = re.split(r"(?<!\\)\|", line[:-1] if line.endswith("|") else line)
        rows.append([re.sub(r"^\*(.*)\*$", r"\1", cell.strip()).replace("\\|", "|") for cell in cells])
    return rows


def _latex_rows(text: str) -> list[list[str]]:
    """The cells of the first tabular, without rules, fonts and mathematics."""
    found = re.search(
        r"\\begin\s*\{(tabular\*?x?|longtable|array)\}(.*?)\\end\s*\{\1\}", text, flags=re.DOTALL
    )
    body = re.sub(r"(?<!\\)%.*", "", found.group(2) if found else text)
    if found:  # the columns: one or two groups in braces, which may hold others
        body = re.sub(r"^\s*(\[[^]]*\])?(\s*\{(?:[^{}]|\{[^{}]*\})*\})+", "", body)
    rows = []
    for line in re.split(r"\\\\(?:\[[^]]*\])?|\\tabularnewline", _LATEX_RULES.sub("", body)):
        cells = []
        for cell in re.split(r"(?<!\\)&", line):
            span = re.search(r"\\multicolumn\s*\{(\d{1,3})\}\s*\{[^{}]*\}", cell)
            cell = re.sub(r"\\multi(column|row)\s*\{[^{}]*\}\s*\{[^{}]*\}", "", cell)
            while (plain := _LATEX_FONT.sub(r"\1", cell)) != cell:
                cell = plain
            cell = re.sub(r"\\pm\b", "±", cell).replace("~", " ").replace("$", "")
            cell = re.sub(r"\\([%&_#{}])", r"\1", cell).replace("--", "-")
            cells += [cell.strip().removeprefix("{").removesuffix("}").strip()]
            cells += [""] * (int(span.group(1)) - 1 if span else 0)
        rows.append(cells)
    return rows


def _load_excel(path: Path) -> CellTable:
    """The first sheet that holds cells; percent formats become percent signs, dates text."""
    try:
        import openpyxl
    except ImportError:
        raise MatrixError(
            f"{path}: Excel files need openpyxl; pip install 'traitmap[xlsx]', or save the sheet as CSV"
        ) from None
    content = _bytes_of(path)
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = {
            sheet.title: [[_excel_cell(cell) for cell in row] for row in sheet.iter_rows()]
            for sheet in book.worksheets
        }
    except MatrixError:
        raise
    except Exception as error:  # whatever a broken archive makes of a reader of XML
        raise MatrixError(f"{path} cannot be read as Excel: {error}; save it again, or as CSV") from None
    filled = {name: rows for name, rows in sheets.items() if any(not _is_empty(c) for r in rows for c in r)}
    if not filled:
        raise MatrixError(f"{path} has no rows; a table needs a header and at least one row")
    name, rows = next(iter(filled.items()))
    others = [other for other in filled if other != name]
    notes = (f"sheet {name!r}" + (f" (not {', '.join(map(repr, others))})" if others else ""),)
    width = max(len(row) for row in rows)
    return _with_header(path, [row + [None] * (width - len(row)) for row in rows], notes)


def _excel_cell(cell: Any) -> Any:
    """The value of a cell: a number, or text."""
    value = cell.value
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        percent = "%" in (cell.number_format or "")
        return f"{round(value * 100, 10)!r}%" if percent else value
    return str(value)


def _load_parquet(path: Path) -> CellTable:
    """A Parquet file; a named pandas index becomes a column, conditions come from the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            refuse_pointer(stream.read(200).decode("utf-8", "replace"), path)
        # the file alone: a folder of that name would be read as a dataset
        file = pq.ParquetFile(path)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        cells = file.metadata.num_rows * file.metadata.num_columns
        if max(size, cells) > _LARGEST:
            raise MatrixError(f"{path} holds {cells:,} cells, so hardly a matrix; check the path")
        stored = file.read()
        # pandas' own metadata may name an index; anything may stand in it, so it is read, not obeyed
        places = _places(stored.schema.metadata or {}, stored.column_names)
        frame = stored.replace_schema_metadata(None).select(places).to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise MatrixError(f"{path} cannot be read as Parquet: {error}") from None
    if frame.empty:
        raise MatrixError(f"{path} has no rows")
    rows = tuple(tuple(row) for row in frame.astype(object).itertuples(index=False, name=None))
    stored_conditions = (stored.schema.metadata or {}).get(b"traitmap")
    try:
        conditions = {} if stored_conditions is None else json.loads(stored_conditions)
    except (ValueError, RecursionError) as error:
        raise MatrixError(f"{path}: its conditions are no JSON ({error}); write the table again") from None
    return CellTable(str(path), tuple(str(name) for name in frame.columns), rows, conditions)


def _places(metadata: Mapping[bytes, bytes], columns: Sequence[str]) -> list[int]:
    """Columns in the order to take: first what pandas wrote as its index, left out where it has no name."""
    try:
        index_names = json.loads(metadata.get(b"pandas", b"{}"))["index_columns"]
    except (ValueError, KeyError, TypeError, RecursionError):
        index_names = ()
    index = [at for at, name in enumerate(columns) if isinstance(index_names, list) and name in index_names]
    named = [at for at in index if not _NO_NAME.fullmatch(columns[at])]
    return [*named, *(at for at in range(len(columns)) if at not in index)]


def without_index(table: CellTable) -> CellTable:
    """The table without the column in which pandas numbered the rows, where another one can name them."""
    if table.header[0] not in ("", "Unnamed: 0", "index") or len(table.header) < 3:
        return table
    numbers = [str(value).strip() for value in table.column(table.header[0])]
    texts = [
        name
        for name in table.header[1:]
        if all(parsed_number(value) is None and value not in MISSING for value in table.column(name))
    ]
    if not texts or numbers != [str(i) for i in range(len(numbers))]:
        return table
    return replace(
        table,
        header=table.header[1:],
        rows=tuple(row[1:] for row in table.rows),
        notes=(*table.notes, "an index column"),
    )
