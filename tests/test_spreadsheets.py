"""Tables as people's spreadsheets, papers and scripts leave them, each with the one matrix that it means.

Every form holds the same numbers, so a reading that loses, shifts or adds anything shows. Where a table may
mean two things it is refused, and the message names what decides.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traitmap.errors import MatrixError
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix

HEADER = ["model", "sums", "tales", "riddles"]
BODY = [
    ["base", 38.5, 55.0, 12.25],
    ["cat", 45.1, 60.2, 14.5],
    ["dog", 41.0, 58.7, nan],
    ["emu", 39.2, 41.3, 13.0],
]


def expected() -> dict[tuple[str, str], float]:
    return {(row[0], name): row[j] for row in BODY for j, name in enumerate(HEADER) if j}


def as_mapping(matrix: TransferMatrix) -> dict[tuple[str, str], float]:
    """(row, target) -> value; the base under its own name."""
    rows = [("base", matrix.baseline), *zip(matrix.sources, matrix.values, strict=True)]
    return {(name, target): float(row[j]) for name, row in rows for j, target in enumerate(matrix.targets)}


def check(matrix: TransferMatrix, factor: float = 1.0) -> None:
    found, right = as_mapping(matrix), expected()
    assert set(found) == set(right)
    for place, value in right.items():
        assert found[place] == pytest.approx(value * factor, nan_ok=True), place


def lines(delimiter: str = ",", mark: str = ".", missing: str = "", suffix: str = "") -> str:
    def cell(value: Any) -> str:
        if isinstance(value, str):
            return value
        return missing if isnan(value) else f"{value}".replace(".", mark) + suffix

    return "\n".join(delimiter.join(map(cell, row)) for row in [HEADER, *BODY]) + "\n"


PLAIN = lines()


def read(folder: Path, content: str | bytes, name: str = "t.csv", **options: Any) -> TransferMatrix:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_matrix(path, **options)


def with_column(name: str, value: Callable[[int], Any], first: bool = False) -> str:
    """The table with one column more, last or first; value: of each row, from 1."""
    cells = [name, *(str(value(i)) for i in range(1, len(BODY) + 1))]
    pairs = zip(PLAIN.splitlines(), cells, strict=True)
    return "\n".join(f"{cell},{row}" if first else f"{row},{cell}" for row, cell in pairs)


def joined(before: str, between: str, after: str) -> str:
    """The rows in another dress."""
    return "".join(before + between.join(row.split(",")) + after for row in PLAIN.splitlines())


def with_spread(text: str) -> str:
    return text.replace("45.1", "45.1 ± 1.2").replace("38.5", "38.5 ±0.9")


SWAPPED = "\n".join(
    ",".join([b, a, *others]) for a, b, *others in (row.split(",") for row in PLAIN.splitlines())
)
FRAME = "+-------+------+-------+---------+\n"
MARKDOWN = joined("| ", " | ", " |\n").replace("\n", "\n|---|---|---|---|\n", 1)
LATEX = joined("", " & ", " \\\\\n")
ALIGNED = ["".join(cell.ljust(10) for cell in row.split(",")) for row in lines(missing="NaN").splitlines()]
# name, content, what the line says
FORMS: list[tuple[str, str | bytes, str]] = [
    # the nine that every office has; models in columns have a test of their own
    ("t.csv", lines(suffix="%"), "percent"),
    ("t.csv", lines(";", ","), "delimiter ;, decimal commas"),
    ("t.csv", SWAPPED.encode("utf-8-sig"), "base row 'base'"),  # its mark would belong to a target
    ("t.csv", lines("\t"), "delimiter tab"),
    ("t.csv", with_spread(PLAIN), "± as standard errors"),
    ("t.csv", "Results of May,,,\n,,,\n" + PLAIN, "1 title line above the header"),
    ("t.csv", with_column("", lambda i: i - 1, first=True), "an index column"),
    ("t.csv", PLAIN.replace("base", "Base model"), "base row 'Base model'"),
    # how the file is written
    ("t.csv", "sep=;\n" + lines(";", ","), "delimiter ;, decimal commas"),
    ("t.csv", lines("|"), "delimiter |"),
    ("t.csv", PLAIN.encode("utf-16"), "UTF-16"),
    ("t.csv", PLAIN.replace("model", "modèle").encode("cp1252"), "Windows-1252"),
    ("t.csv", PLAIN.replace("\n", "\r"), "base row"),
    ("t.txt", FRAME + joined("| ", " | ", " |\n") + FRAME, "delimiter |"),
    ("t.txt", "\n".join(ALIGNED), "delimiter spaces"),
    ("t.md", MARKDOWN, "Markdown"),
    ("t.tex", "\\begin{tabular}{lccc}\n" + LATEX + "\\end{tabular}", "LaTeX"),
    # what is missing, and what stands behind numbers
    ("t.csv", lines(missing="n.a."), "base row"),
    ("t.csv", lines(missing="#DIV/0!"), "base row"),
    ("t.csv", lines(missing="n.d."), "base row"),
    ("t.csv", lines(missing="(–)"), "base row"),
    ("t.csv", lines(missing="OOM"), "read as missing: OOM"),
    ("t.csv", PLAIN.replace("45.1", "45.1*").replace("60.2", "60.2 †"), "marks behind numbers"),
    ("t.csv", PLAIN.replace("45.1", "45.1 (1.2)").replace("60.2", "60.2 (0.9)"), "brackets behind numbers"),
    ("t.csv", PLAIN.replace("45.1", '"45.1 [44.0, 46.2]"'), "brackets behind numbers"),
    ("t.csv", PLAIN.replace("45.1", "45.1 (± 1.2)"), "± as standard errors"),
    (
        "t.tex",
        "\\begin{tabular}{lccc}\n" + LATEX.replace("45.1", "45.1$_{\\pm 1.2}$") + "\\end{tabular}",
        "± as standard errors",
    ),
    # lines above, below and between
    ("t.csv", "# exported by a script\n" + PLAIN, "1 title line"),
    ("t.csv", PLAIN + "Note: means of three runs\n", "1 line below the table"),
    ("t.csv", PLAIN + ",,,\nSource: our paper,,,\n* trained twice,,,\n", "2 lines below the table"),
    ("t.csv", PLAIN + "Average,40.95,53.8,13.25\n", "Average (a summary of rows)"),
    ("t.csv", PLAIN + "Std.,2.5,7.5,0.9\nmax,45.1,60.2,14.5\n", "max (a summary of rows)"),
    ("t.csv", PLAIN.replace("cat,", "Tuned models,,,\ncat,"), "Tuned models (no numbers)"),
    ("t.csv", PLAIN.replace("dog,", ",".join(HEADER) + "\ndog,"), "base row"),
    ("t.csv", ",Maths,Reading,\n" + PLAIN, "2 header lines"),
    ("t.csv", PLAIN.replace("riddles\n", "riddles\n,acc,acc,acc\n"), "2 header lines"),
    (
        "t.tex",
        "\\begin{tabular}{lccc}\n & \\multicolumn{2}{c}{Maths} & Reading \\\\\n" + LATEX + "\\end{tabular}",
        "2 header lines",
    ),
    # columns that are no targets
    ("t.csv", with_column("", lambda i: i, first=True), "an index column"),
    ("t.csv", with_column("id", lambda i: i, first=True), "id (a count)"),
    ("t.csv", with_column("", lambda i: i * 37 % 11 + 0.5), "no name"),
    ("t.csv", with_column("Params", lambda i: f"{i}B"), "Params (text)"),
    ("t.csv", with_column("params_b", lambda i: i + 0.5), "params_b (a size)"),
    ("t.csv", with_column("came out", lambda i: 2020 + i), "came out (a year)"),
    ("t.csv", with_column("CO2 cost (kg)", lambda i: i * 0.7), "(a cost)"),
    ("t.csv", with_column("learning rate", lambda i: i * 1e-5), "(a setting)"),
    ("t.csv", with_column("date", lambda i: f"2024-05-0{i}"), "date (text)"),
    ("t.csv", with_column("sums_stderr", lambda i: 0.8 + i / 10), "sums_stderr as standard errors of sums"),
    ("t.csv", with_column("sums std", lambda i: 0.8 + i / 10), "sums std (a spread of sums)"),
    ("t.csv", with_column("n tales", lambda i: 500), "n tales (a count of tales)"),
]


@pytest.mark.parametrize(
    ("name", "content", "told"), FORMS, ids=[f"{i}-{f[2][:30]}" for i, f in enumerate(FORMS)]
)
def test_every_form_is_the_same_matrix(tmp_path, name, content, told):
    matrix = read(tmp_path, content, name)
    check(matrix)
    assert told in matrix.conditions["read_as"]
    if "±" in str(content) or "pm" in str(content):
        assert next(c for c in matrix.cells if (c.source, c.target) == ("cat", "sums")).stderr == 1.2
    if "sums_stderr" in str(content):
        assert next(
            c for c in matrix.cells if (c.source, c.target) == ("cat", "sums")
        ).stderr == pytest.approx(1.0)


def test_quoted_line_ends_belong_to_names(tmp_path):
    text = PLAIN.replace("dog", '"dog\nlarge"').replace("model", '"model\n(ours)"')
    matrix = read(tmp_path, text.replace("sums", '"sums,\nhard"'))
    assert matrix.sources == ("cat", "dog\nlarge", "emu")
    assert matrix.targets == ("sums,\nhard", "tales", "riddles")
    assert matrix.values[1].tolist()[:2] == [41.0, 58.7]


def test_a_model_that_is_called_average_is_a_model(tmp_path):
    matrix = read(tmp_path, PLAIN + "average,48.0,61.0,15.5\n")
    assert "average" in matrix.sources


def test_models_in_columns_are_the_same_matrix(tmp_path):
    turned = [list(row) for row in zip(*[HEADER, *BODY], strict=True)]
    text = "\n".join(",".join("" if value != value else str(value) for value in row) for row in turned)
    check(read(tmp_path, text, orientation="columns"))
    named = text.replace("sums", "gsm8k").replace("tales", "boolq").replace("riddles", "piqa")
    with pytest.raises(MatrixError, match="--orientation columns"):
        read(tmp_path, named)


def test_thousands_in_every_spelling(tmp_path):
    for text in ('"1,234.5","12,000"', "1 234.5,12 000", "1'234.5,12'000", "1\u202f234.5,12\u00a0000"):
        matrix = read(tmp_path, f"model,a,b\nx,{text}\ny,900.5,13\n")
        np.testing.assert_array_equal(matrix.values, [[1234.5, 12000], [900.5, 13]])
    matrix = read(tmp_path, "model;a;b\nx;1.234,5;12.000,0\ny;900,5;13,0\n")
    np.testing.assert_array_equal(matrix.values, [[1234.5, 12000], [900.5, 13]])


def workbook(edit: Any = None, rows: list[list[Any]] | None = None, start: int = 1) -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for at, row in enumerate(rows or [HEADER, *BODY], start=start):
        for column, value in enumerate(row, start=1):
            if value == value and value is not None:
                sheet.cell(at, column, value)
    if edit is not None:
        edit(sheet)
    stored = io.BytesIO()
    book.save(stored)
    return stored.getvalue()


def test_excel_with_merged_cells_above_the_header(tmp_path):
    def merged(sheet: Any) -> None:
        sheet["A1"] = "Fine-tuning results"
        sheet.merge_cells("A1:D1")
        sheet["B2"], sheet["D2"] = "Maths", "Reading"
        sheet.merge_cells("B2:C2")

    matrix = read(tmp_path, workbook(merged, start=3), "t.xlsx")
    check(matrix)
    assert "1 title line" in matrix.conditions["read_as"]
    assert "2 header lines" in matrix.conditions["read_as"]


def test_excel_with_an_error_column_under_each_merged_name(tmp_path):
    rows = [[None, "sums", None, "tales", None], ["model", "acc", "stderr", "acc", "stderr"]]
    rows += [["base", 38.5, 0.5, 55.0, 0.6], ["cat", 45.1, 0.7, 60.2, 0.8], ["dog", 41.0, 0.9, 58.7, 1.1]]
    matrix = read(tmp_path, workbook(rows=rows), "t.xlsx")
    assert matrix.targets == ("sums acc", "tales acc")
    assert matrix.values.tolist() == [[45.1, 60.2], [41.0, 58.7]]
    assert [cell.stderr for cell in matrix.cells] == [0.7, 0.8, 0.9, 1.1]


def test_excel_percentages_are_what_the_sheet_shows(tmp_path):
    def formats(sheet: Any) -> None:
        for row in sheet.iter_rows(min_row=2, min_col=2):
            for cell in row:
                if cell.value is not None:
                    cell.value, cell.number_format = cell.value / 100, "0.0%"

    check(read(tmp_path, workbook(formats), "t.xlsx"))


def test_excel_dates_and_second_sheets_are_told(tmp_path):
    def more(sheet: Any) -> None:
        sheet["E1"] = "Uploaded"
        for row in range(2, 6):
            sheet.cell(row, 5, datetime.date(2024, 5, row))
        sheet.parent.create_sheet("Costs")["A1"] = "x"

    matrix = read(tmp_path, workbook(more), "t.xlsx")
    check(matrix)
    assert "not 'Costs'" in matrix.conditions["read_as"]
    assert "Uploaded (text)" in matrix.conditions["read_as"]


def test_formulas_that_no_program_has_computed_are_refused(tmp_path):
    def formula(sheet: Any) -> None:
        sheet["B3"] = "=AVERAGE(B2,B4)"

    with pytest.raises(MatrixError, match=r"B3.*formula.*save"):
        read(tmp_path, workbook(formula), "t.xlsx")


def test_rows_of_one_model_with_a_seed_are_seeds(tmp_path):
    text = "model,seed,a,b\nbase,,1,2\nx,0,3,4\nx,1,5,8\ny,0,6,7\ny,1,8,9\n"
    matrix = read(tmp_path, text)
    assert matrix.sources == ("x", "y")
    assert matrix.values.tolist() == [[4, 6], [7, 8]]
    assert matrix.baseline.tolist() == [1, 2]
    assert {(c.source, c.target, c.seed): c.value for c in matrix.cells if c.seed == 1} == {
        ("x", "a", 1): 5,
        ("x", "b", 1): 8,
        ("y", "a", 1): 8,
        ("y", "b", 1): 9,
    }
    assert "means over 2 seeds" in matrix.conditions["read_as"]


def test_arrows_in_names_tell_which_way_is_better(tmp_path):
    matrix = read(tmp_path, "model,acc ↑,toxicity ↓,WER (↓)\nx,1,2,3\ny,3,4,5\n")
    assert matrix.higher_is_better == {"acc ↑": True, "toxicity ↓": False, "WER (↓)": False}
    assert "lower is better: toxicity ↓ and WER (↓)" in matrix.conditions["read_as"]
    turned = read(tmp_path, "task,x,y\nacc ↑,1,2\ntoxicity ↓,3,4\n", orientation="columns")
    assert turned.higher_is_better["toxicity ↓"] is False


def test_a_row_of_chance_is_no_source(tmp_path):
    matrix = read(tmp_path, PLAIN + "Random,25,50,10\n")
    check(matrix)
    assert matrix.chance.tolist() == [25, 50, 10]
    assert "chance in row 'Random'" in matrix.conditions["read_as"]


def test_columns_that_say_the_same_stand_once(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[f"m{i}", *rng.uniform(20, 80, 3).round(1)] for i in range(8)]
    text = "model,a,b,c,a again\n" + "\n".join(",".join(map(str, [*row, row[1]])) for row in rows)
    matrix = read(tmp_path, text)
    assert matrix.targets == ("a", "b", "c")
    assert matrix.conditions["left_out"] == {"a again": "the same as a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x,1.5,2.5\ny,3.5,4.5\nz,5.5,6.5\n", ["no header", "1.5"]),
        ("model,a,b\nx,1,2\ny,3,4,5\n", ["row 3", "4 cells"]),
        ("model,a,b\nx,1,2\n\nmodel,c,d\nx,3,4\n", ["'c'"]),
        (b"model,a\nf\x81,1\ny,2\n", ["UTF-8"]),
        ("model,a,b\nx,3/4,1\ny,2,2\n", ["'3/4'", "leave the column out"]),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path, content, words):
    with pytest.raises(MatrixError) as caught:
        read(tmp_path, content)
    for word in words:
        assert word in str(caught.value)
