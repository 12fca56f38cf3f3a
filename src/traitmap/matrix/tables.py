"""Any file of a table -> its header and its cells.

Delimiters, encodings, lines above and below the table, headers of two lines and index columns are recognised;
Excel, Markdown, LaTeX and printed tables are read too.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from traitmap.errors import MatrixError
from traitmap.matrix.numbers import is_missing, parsed_number
from traitmap.metrics import direction

SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".xlsx", ".md", ".tex", ".txt")
_LFS = "version https://git-lfs.github.com/spec/"
_NO_NAME = re.compile(r"__index_level_\d+__")  # of an index that pandas wrote and nobody named
_LARGEST = 1 << 28  # bytes of an unpacked table; a thousand models on a thousand tasks are 20 MB
_MOST_COLUMNS, _MOST_CELLS = 20_000, 20_000_000
_MOST_NESTED = 20  # fonts of LaTeX inside one another
_REMARK = re.compile(r"(notes?|sources?|remarks?|legend|caption)\b|[*†‡§(\[]|\d+\)|https?:", re.IGNORECASE)
_DELIMITERS = {",": ",", ";": ";", "\t": "tab", "|": "|"}
_SAMPLE = 60  # lines that are looked at to find the delimiter
_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_CONTROLS = frozenset(range(32)) - {9, 10, 11, 12, 13, 27}  # bytes that no text has
_CORNERS = frozenset("+┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╠╣╦╩╬╞╡╪")
_FRAME = _CORNERS | frozenset("-=|:─━═│┃║ \t")
_BARS = str.maketrans("│┃║", "|||")
_LATEX_RULES = re.compile(
    r"\\(toprule|midrule|bottomrule|hline)(\[[^]]*\])?|\\(cmidrule|cline)(\([^)]*\))?\{[^}]*\}(\([^)]*\))?"
)
_LATEX_FONT = re.compile(
    r"\\(?:textbf|textit|underline|emph|mathbf|textsc|texttt|text|mathrm)\s*\{([^{}]*)\}"
)


@dataclass(frozen=True)
class CellTable:
    """A table as it lies in the file: header, rows of strings or numbers.

    conditions: stored with the table by ``to_parquet`` and ``to_json``. notes: what the file's form was.
    decimal_comma_likely: whether ``1,234`` in it is rather 1.234 than one thousand.
    lower: columns of which a second line of the header says that lower is better.
    """

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    decimal_comma_likely: bool = False
    lower: tuple[str, ...] = ()

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
    elif suffix == ".json":
        table = _load_json(path)
    elif suffix == ".xlsx":
        table = _load_excel(path)
    else:
        text, encoding = text_of(path)
        _refuse_cells(path, sum(map(text.count, "\n\r")) + max(map(text.count, ",;\t|&")))
        rows, form = _rows_of_text(path, text, suffix)
        _refuse_width(path, max(map(len, rows), default=0))
        parted = any(note.startswith("delimiter") for note in form)  # by something else than commas
        table = replace(_with_header(path, rows, (*form, *encoding)), decimal_comma_likely=parted)
    _refuse_results(table)
    return replace(table, header=told_apart(table.header))


def _refuse_width(path: Path, columns: int) -> None:
    if columns > _MOST_COLUMNS:
        raise MatrixError(
            f"{path} has {columns:,} columns, a table of scores at most {_MOST_COLUMNS:,}; keep those that "
            "are asked about, or give a long table, with a row for each source and target"
        )


def _refuse_cells(path: Path, cells: int) -> None:
    """Few bytes may hold many cells, packed ones above all, and each is an object once it is read."""
    if cells > _MOST_CELLS:
        raise MatrixError(
            f"{path} holds about {cells:,} cells, so hardly a matrix (most: {_MOST_CELLS:,}); check the path"
        )


def _rows_of_text(path: Path, text: str, suffix: str) -> tuple[list[list[str]], tuple[str, ...]]:
    """The rows of a table in text, and the form that it has where that is not plain CSV."""
    if suffix != ".csv" and re.search(r"\\begin\s*\{(tabular|longtable|array)|&.*\\\\", text):
        rows = _latex_rows(text)
        _refuse_cells(path, sum(map(len, rows)))
        return rows, ("LaTeX",)
    if suffix not in (".csv", ".tsv") and any(
        "|" in line and _RULE.fullmatch(line) for line in text.splitlines()
    ):
        return _markdown_rows(text), ("Markdown",)
    return _delimited_rows(path, _without_boxes(text), tab=suffix == ".tsv")


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
            f"{table.path}: holds results as a harness prints them, not a table of sources and targets; "
            "bring the files of all models together with `traitmap import FILE... -o scores.csv`"
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
        if not encoding.startswith("utf-16") and not _CONTROLS & set(raw):
            try:
                return raw.decode("cp1252"), ("Windows-1252",)
            except UnicodeDecodeError:
                pass
        raise MatrixError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def _without_boxes(text: str) -> str:
    """Text of a table in a frame of ``+--+`` or line-drawing signs, without the frame."""
    lines = text.splitlines()
    rules = [set(line) <= _FRAME and len(set(line) & _CORNERS) > 0 and len(line) > 3 for line in lines]
    if not any(rules):
        return text
    inner = [line.strip().translate(_BARS) for line, is_rule in zip(lines, rules, strict=True) if not is_rule]
    return "\n".join(line.removeprefix("|").removesuffix("|") for line in inner)


def _delimited_rows(path: Path, text: str, *, tab: bool) -> tuple[list[list[str]], tuple[str, ...]]:
    """Rows of delimited text, and the delimiter unless it is the one that the suffix promises."""
    usual = "\t" if tab else ","
    stated = re.match(r"\s*\"?sep=([,;|\t])\"?[\t,;|]*\r?\n", text)  # what Excel writes and reads
    delimiter = stated.group(1) if stated else _delimiter(text, usual)
    if delimiter is None:
        return _spaced_rows(text), ("delimiter spaces",)
    try:
        body = text[stated.end() :] if stated else text
        rows = list(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise MatrixError(f"{path} cannot be read as a table: {error}; check its quotes") from None
    return rows, () if delimiter == usual == "," else (f"delimiter {_DELIMITERS[delimiter]}",)


def _spaced_rows(text: str) -> list[list[str]]:
    """Rows whose cells are parted by two spaces or more, as pandas prints them: its index has no name."""
    rows = [re.split(r"\s{2,}|\t", line.strip()) for line in text.splitlines() if line.strip()]
    if len(rows) > 1 and len(rows[0]) + 1 == len(rows[1]):
        rows[0] = ["", *rows[0]]
    return rows


def _delimiter(text: str, usual: str) -> str | None:
    """The delimiter by which most lines have one and the same number of cells; ``usual`` where two are level.

    Lines that are as wide as the widest common line count; of two that are level there the one counts that
    leaves more numbers. None where nothing parts the lines but spaces.
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
    spaced = _spaced_rows("\n".join(lines)) if best_score == (0.0, 0.0) else []
    return None if spaced and len(spaced[0]) > 1 and len({len(row) for row in spaced}) == 1 else best


def _with_header(path: Path, rows: Sequence[Sequence[Any]], notes: tuple[str, ...]) -> CellTable:
    """The table between what stands above and below it.

    Rows must be as long as the header, but for empty cells at the end.
    """
    filled = [any(not _is_empty(cell) for cell in row) for row in rows]
    lines = [row for row, is_filled in zip(rows, filled, strict=True) if is_filled]
    apart = [i > 0 and not filled[i - 1] for i, is_filled in enumerate(filled) if is_filled]
    titles = 0
    while len(lines) - titles > 2 and _is_title(lines[titles], lines[titles + 1], lines[titles + 2]):
        titles += 1
    width = _width(lines[titles:])
    below = 0
    while len(lines) - below - titles > 2 and _is_remark(lines[-1 - below], width, apart[-1 - below]):
        below += 1
    lines = lines[titles : len(lines) - below]
    if len(lines) < 2:
        raise MatrixError(f"{path} has no rows; a table needs a header and at least one row")
    header = ["" if cell is None else str(cell).strip() for cell in lines[0][:width]]
    lower: tuple[str, ...] = ()
    doubled = len(lines) > 2 and _has_second_header(lines)
    if doubled:
        header, lower = _joined_header(header, lines[1][:width])
    _refuse_no_header(path, header)
    body = []
    for number, row in enumerate(lines[1 + doubled :], start=titles + 2 + doubled):
        if len(row) > width and all(map(_is_empty, row[width:])):
            row = row[:width]
        if len(row) != width:
            raise MatrixError(
                f"{path}: row {number} has {len(row)} cells, but the header has {width}; "
                "quote names that hold the separator"
            )
        if [str(cell).strip() for cell in row] != header:  # the header once more, where files were joined
            body.append(tuple(row))
    said = [
        *([f"{titles} title {'line' if titles == 1 else 'lines'} above the header"] if titles else []),
        *(["2 header lines"] if doubled else []),
        *([f"{below} {'line' if below == 1 else 'lines'} below the table left out"] if below else []),
    ]
    return CellTable(str(path), tuple(header), tuple(body), {}, (*notes, *said), lower=lower)


def _width(lines: Sequence[Sequence[Any]]) -> int:
    """Columns of a table: those of its header but for empty ones at the end."""
    width = len(lines[0]) if lines else 0
    while (
        width
        and _is_empty(lines[0][width - 1])
        and all(len(row) < width or _is_empty(row[width - 1]) for row in lines)
    ):
        width -= 1
    return width


def _is_remark(row: Sequence[Any], width: int, apart: bool) -> bool:
    """Whether a line at the end is no row: text in its first cell alone. apart: below an empty line."""
    filled = [cell for cell in row if not _is_empty(cell)]
    if len(filled) != 1 or _is_empty(row[0]) or width < 2 or parsed_number(row[0]) is not None:
        return False
    words = str(row[0]).strip()
    return apart or len(row) < width or len(words.split()) > 4 or bool(_REMARK.match(words))


def _has_second_header(lines: Sequence[Sequence[Any]]) -> bool:
    """Whether the second line belongs to the header: words where rows below have numbers.

    The first cells of both are empty or part of one name, or a name of the first runs over several columns.
    """
    first, second, rows = lines[0], lines[1], lines[2:]
    if not (_is_empty(first[0]) or _is_empty(second[0]) or any(map(_is_empty, first[1:]))):
        return False
    words = [at for at, cell in enumerate(second[1:], start=1) if not is_missing(cell)]
    if not words or any(map(_is_number, (*first[1:], *second[1:]))):
        return False
    numbers = [any(_is_number(row[at]) for row in rows if len(row) > at) for at in words]
    return all(numbers) and len(words) * 2 > len(first) - 1


def _is_number(cell: Any) -> bool:
    return not is_missing(cell) and any(
        parsed_number(cell, decimal_comma=commas) is not None for commas in (False, True)
    )


def _joined_header(first: Sequence[str], second: Sequence[Any]) -> tuple[list[str], tuple[str, ...]]:
    """Names out of two lines, and those of which the second says that lower is better.

    The first line's where it names every column, else the second's where these differ, else both. An empty
    cell of the first is part of the cell to its left, as in a merged one.
    """
    tops: list[str] = []
    for top in first:
        tops.append(top or (tops[-1] if len(tops) > 1 else ""))
    below = ["" if cell is None else str(cell).strip() for cell in second]
    below += [""] * (len(first) - len(below))
    label = first[0] or below[0]
    if all(first[1:]) and len(set(first[1:])) == len(first) - 1:
        names = list(first[1:])
    elif all(below[1:]) and len(set(below[1:])) == len(below) - 1:
        names = below[1:]
    else:
        names = [f"{top} {sub}".strip() for top, sub in zip(tops[1:], below[1:], strict=True)]
    lower = [
        name
        for name, sub in zip(names, below[1:], strict=True)
        if "↓" in sub or direction(sub.lower()) == (False, "known")
    ]
    return [label, *names], tuple(lower)


def _refuse_no_header(path: Path, header: Sequence[str]) -> None:
    """MatrixError where the first line holds numbers with decimals, which no column is called by."""
    numbers = [parsed_number(name, decimal_comma=True) for name in header[1:] if name]
    decimals = [name for name in header[1:] if re.fullmatch(r"[-+]?\d*[.,]\d+\s*%?", name)]
    if decimals and all(number is not None for number in numbers):
        raise MatrixError(
            f"{path} has no header: its first line holds numbers ({', '.join(decimals[:3])}); write the "
            "names of the columns above it"
        )


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
            for _ in range(_MOST_NESTED):
                cell = _LATEX_FONT.sub(r"\1", cell)
            cell = re.sub(r"\\pm\b", "±", cell).replace("~", " ").replace("$", "")
            cell = re.sub(r"[_^]\s*\{\s*(±[^{}]*)\}", r" \1", cell)
            cell = re.sub(r"(?<=\d)\s*_\s*\{([^{}]*)\}", r" (\1)", cell)
            cell = re.sub(r"\\([%&_#{}])", r"\1", cell).replace("--", "-")
            cells += [cell.strip().removeprefix("{").removesuffix("}").strip()]
            cells += [""] * (int(span.group(1)) - 1 if span else 0)
            if len(cells) > _MOST_COLUMNS:
                return [cells]  # which is refused
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
    _refuse_formulas(path, content, name, rows)
    others = [other for other in filled if other != name]
    notes = (f"sheet {name!r}" + (f" (not {', '.join(map(repr, others))})" if others else ""),)
    width = max(len(row) for row in rows)
    return _with_header(path, [row + [None] * (width - len(row)) for row in rows], notes)


def _refuse_formulas(path: Path, content: bytes, sheet: str, rows: Sequence[Sequence[Any]]) -> None:
    """MatrixError where a cell holds a formula of which no program has saved the result."""
    import openpyxl

    if all(cell is not None for row in rows for cell in row):
        return
    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=False)
    pending = [
        cell.coordinate
        for cells, row in zip(book[sheet].iter_rows(), rows, strict=False)
        for cell, value in zip(cells, row, strict=False)
        if value is None and isinstance(cell.value, str) and cell.value.startswith("=")
    ]
    if pending:
        shown = ", ".join(pending[:5]) + (f" and {len(pending) - 5} more" if len(pending) > 5 else "")
        hold = "holds a formula" if len(pending) == 1 else "hold formulas"
        raise MatrixError(
            f"{path}: {shown} {hold} without a result; "
            "open the file in a spreadsheet program and save it, or save the sheet as CSV"
        )


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
        _refuse_width(path, file.metadata.num_columns)
        _refuse_cells(path, file.metadata.num_rows * file.metadata.num_columns)
        if size > _LARGEST:
            raise MatrixError(f"{path} unpacks to {size:,} bytes, so hardly a matrix; check the path")
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


def _load_json(path: Path) -> CellTable:
    """A matrix as ``to_json`` gives it and ``traitmap matrix --json`` prints it: its cells and conditions."""
    text, encoding = text_of(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MatrixError(f"{path} is no JSON: {error}; write the matrix again") from None
    parts = [data.get(key) for key in ("baseline_cells", "cells")] if isinstance(data, dict) else []
    cells = [cell for part in parts if isinstance(part, list) for cell in part]
    if not cells or not all(isinstance(cell, dict) for cell in cells):
        what = "the JSON that `traitmap matrix --json` prints (no list of `cells`)"
        raise MatrixError(f"{path} is not {what}; `traitmap import` reads results of a harness")
    header = list(dict.fromkeys(name for cell in cells for name in cell))
    _refuse_width(path, len(header))
    _refuse_cells(path, len(cells) * len(header))
    for cell in cells:
        for name, value in cell.items():
            if not isinstance(value, str | int | float | None):
                raise MatrixError(
                    f"{path}: {name} of a cell is {json.dumps(value)[:60]}; give one number or text"
                )
    rows = tuple(tuple(cell.get(name) for name in header) for cell in cells)
    conditions = data["conditions"] if isinstance(data.get("conditions"), dict) else {}
    return CellTable(str(path), tuple(header), rows, conditions, encoding)


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
    """The table without the column that numbers the rows from 0 or 1, where another one can name them."""
    if table.header[0] not in ("", "Unnamed: 0", "index") or len(table.header) < 3:
        return table
    numbers = [str(value).strip().removesuffix(".0") for value in table.column(table.header[0])]
    texts = [
        name
        for name in table.header[1:]
        if all(parsed_number(value) is None and not is_missing(value) for value in table.column(name))
    ]
    counted = [[str(i + start) for i in range(len(numbers))] for start in (0, 1)]
    if not texts or numbers not in counted:
        return table
    return replace(
        table,
        header=table.header[1:],
        rows=tuple(row[1:] for row in table.rows),
        notes=(*table.notes, "an index column"),
    )
