"""read_matrix: what is in the file comes back; what cannot be read is named."""

import gzip
import json
import time
from contextlib import suppress
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traitmap.errors import MatrixError
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import Cell, TransferMatrix

WIDE = "source,gsm8k,imdb\nflipkart,14.5,\namazon,15.8,48.6\n__baseline__,9.8,50.5\n"


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_wide_table_with_a_base_and_an_empty_cell(tmp_path):
    matrix = read_matrix(written(tmp_path, WIDE))
    assert matrix.sources == ("flipkart", "amazon")
    assert matrix.targets == ("gsm8k", "imdb")
    np.testing.assert_array_equal(matrix.values, [[14.5, nan], [15.8, 48.6]])
    np.testing.assert_array_equal(matrix.baseline, [9.8, 50.5])
    assert [cell.status for cell in matrix.cells] == ["given", "missing", "given", "given"]
    assert matrix.cells[0].gain == pytest.approx(4.7)
    assert matrix.cells[1].reason == "empty in the table"


@pytest.mark.parametrize("missing", ["", "NA", "nan", "None", "-", " n/a "])
def test_all_spellings_of_missing(tmp_path, missing):
    matrix = read_matrix(written(tmp_path, f"source,a,b\nx,1,{missing}\ny,2,3\n"))
    assert isnan(matrix.values[0, 1])


def test_without_a_base_the_baseline_is_unknown(tmp_path):
    matrix = read_matrix(written(tmp_path, "model,a,b\nx,1,2\ny,2,3\n"))
    assert np.isnan(matrix.baseline).all()
    assert matrix.base_cells == ()
    assert isnan(matrix.cells[0].gain)


def test_columns_as_sources_is_the_transpose(tmp_path):
    by_rows = read_matrix(written(tmp_path, WIDE))
    flipped = pd.read_csv(tmp_path / "table.csv").set_index("source").T.rename_axis("task").reset_index()
    flipped.to_csv(tmp_path / "flipped.csv", index=False)
    by_columns = read_matrix(tmp_path / "flipped.csv", orientation="columns")
    assert by_columns.sources == by_rows.sources
    assert by_columns.targets == by_rows.targets
    np.testing.assert_array_equal(by_columns.values, by_rows.values)
    np.testing.assert_array_equal(by_columns.baseline, by_rows.baseline)


def test_text_columns_are_ignored_and_dropped_columns_left_out(tmp_path):
    text = "Family,Model,Size,a,b\nF,x,7,1,2\nF,y,13,3,4\n"
    matrix = read_matrix(written(tmp_path, text), row_name="Model", drop=("Size",))
    assert matrix.sources == ("x", "y")
    assert matrix.targets == ("a", "b")
    assert matrix.conditions["ignored_columns"] == ["Family"]


def test_rows_and_columns_named_alike_are_told_apart(tmp_path):
    matrix = read_matrix(written(tmp_path, "model,a,a,a (2)\nx,1,2,3\nx,3,4,5\nx (2),5,6,7\nx,7,8,9\n"))
    assert matrix.sources == ("x", "x (3)", "x (2)", "x (4)")
    assert matrix.targets == ("a", "a (3)", "a (2)")
    assert matrix.conditions["renamed"] == ["x (3)", "x (4)"]


def test_separators_byte_order_mark_and_gzip(tmp_path):
    plain = read_matrix(written(tmp_path, WIDE))
    semicolon = read_matrix(written(tmp_path, "﻿" + WIDE.replace(",", ";"), "semicolon.csv"))
    tab = read_matrix(written(tmp_path, WIDE.replace(",", "\t"), "tab.tsv"))
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(WIDE.encode()))
    for other in (semicolon, tab, read_matrix(packed)):
        assert other.sources == plain.sources
        np.testing.assert_array_equal(other.values, plain.values)


def test_long_table_averages_seeds_and_keeps_each(tmp_path):
    base, others = "__baseline__,a,0.5,100,", "x,a,0.6,100,0\nx,a,0.8,100,1\ny,a,0.4,100,0\nx,b,1,50,0"
    text = f"Source,Target,Value,n,seed\n{base}\n{others}\n"
    matrix = read_matrix(written(tmp_path, text))
    assert matrix.sources == ("x", "y")
    np.testing.assert_allclose(matrix.values, [[0.7, 1.0], [0.4, nan]])
    np.testing.assert_array_equal(matrix.baseline, [0.5, nan])
    pooled = {(c.source, c.target): c for c in matrix.cells if c.seed is None}
    assert pooled["x", "a"].n == 100
    assert pooled["x", "a"].gain == pytest.approx(0.2)
    assert isnan(pooled["x", "a"].stderr)
    assert pooled["y", "b"].status == "missing"
    assert sorted(c.value for c in matrix.cells if c.seed is not None) == [0.4, 0.6, 0.8, 1.0]


def test_a_row_without_seed_is_the_pooled_value(tmp_path):
    text = "source,target,value,seed\nx,a,0.61,\nx,a,0.6,0\nx,a,0.8,1\ny,a,0.4,\n"
    assert read_matrix(written(tmp_path, text)).values[0, 0] == 0.61


def measured_matrix() -> TransferMatrix:
    """Two sources, two targets, two seeds, with all that a run knows but items."""

    def cell(source: str, target: str, seed: int | None, value: float) -> Cell:
        return Cell(
            source, target, seed, "acc", value, 40, 0.05, value - 0.5, -0.1, 0.3, 0.04, 0.08, 0.25, "measured"
        )

    values = np.array([[0.55, 0.7], [0.6, 0.4]])
    cells = tuple(
        cell(s, t, seed, float(values[i, j]))
        for i, s in enumerate(("x", "y"))
        for j, t in enumerate(("a", "b"))
        for seed in (None, 0, 1)
    )
    base = tuple(cell("__baseline__", t, None, 0.5) for t in ("a", "b"))
    return TransferMatrix(
        ("x", "y"), ("a", "b"), values, np.full(2, 0.5), cells, base, conditions={"seeds": [0, 1]}
    )


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_parquet_and_json_give_back_every_cell(tmp_path: Path, suffix: str) -> None:
    matrix, file = measured_matrix(), tmp_path / f"matrix{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(matrix.to_json()), encoding="utf-8")
    else:
        matrix.to_parquet(file)
    again = read_matrix(file)
    assert sorted(again.cells, key=repr) == sorted(matrix.cells, key=repr)
    assert again.base_cells == matrix.base_cells
    np.testing.assert_array_equal(again.values, matrix.values)
    assert again.conditions["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"results": {"sst2": {"acc": 0.5}}}', "`traitmap import` reads results of a harness"),
        ('{"cells": [[1]]}', "no list of `cells`"),
        (
            '{"cells": [{"source": "a", "target": "b", "value": [1]}]}',
            r"value of a cell is \[1\]; give one number",
        ),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(MatrixError, match=words):
        read_matrix(tmp_path / "m.json")


def test_wide_csv_gives_back_the_values(tmp_path):
    matrix = measured_matrix()
    matrix.to_csv(tmp_path / "matrix.csv")
    again = read_matrix(tmp_path / "matrix.csv")
    np.testing.assert_array_equal(again.values, matrix.values)
    np.testing.assert_array_equal(again.baseline, matrix.baseline)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("source,a\nx,1\ny,twelve\n", {}, ["'y'", "'a'", "'twelve'", "leave the cell empty"]),
        ("source,a\nx,inf\ny,2\n", {}, ["'x'", "'inf'", "finite"]),
        ("source,a\n__baseline__,1\n__baseline__,2\n", {}, ["2 rows", "__baseline__"]),
        ("source,a\nx,1\n,2\n", {}, ["row 3", "no name"]),
        ("source,a\nx,1\n", {"row_name": "model"}, ["'model'", "source, a"]),
        ("source,a\nx,1\n", {"drop": ("size",)}, ["'size'", "source, a"]),
        ("source,a\nx,1\n", {"orientation": "up"}, ["'up'", "'rows'", "'columns'"]),
        ("source,a\nx,one\ny,two\n", {}, ["no column holds numbers", "source, target, value"]),
        ("source,a\n", {}, ["no rows"]),
        ("source,a\nx,1,2\n", {}, ["row 2", "3 cells", "header has 2"]),
        ("source,target,value\nx,a,1\nx,a,2\n", {}, ["'x'", "'a'", "twice"]),
        ("source,target,value\nx,a,good\n", {}, ["'good'", "'value'"]),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, options, words):
    with pytest.raises(MatrixError) as caught:
        read_matrix(written(tmp_path, text), **options)
    for word in words:
        assert word in str(caught.value)


def test_files_that_are_not_tables(tmp_path):
    with pytest.raises(MatrixError, match="no such file"):
        read_matrix(tmp_path / "absent.csv")
    with pytest.raises(MatrixError, match="is a folder"):
        read_matrix(tmp_path)
    with pytest.raises(MatrixError, match="files ending in"):
        read_matrix(written(tmp_path, WIDE, "table.ods"))
    with pytest.raises(MatrixError, match="Parquet"):
        read_matrix(written(tmp_path, WIDE, "table.parquet"))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"source,a\nf\x00\xfc,1\n")
    with pytest.raises(MatrixError, match="UTF-8"):
        read_matrix(binary)


@pytest.mark.shared
def test_reference_tables_can_be_read(shared):
    folder = shared / "matrices"
    size = ("Model Family", "Model Size (B)", "Pretraining Data Size (T)", "FLOPs (1E21)")
    observed = read_matrix(folder / "obsscaling_base_77x8.csv", drop=size)
    assert observed.values.shape == (77, 8)
    assert np.isnan(observed.values).sum() == 6
    assert read_matrix(folder / "helm_burnell_29x27.csv").values.shape == (29, 27)
    swallow = read_matrix(folder / "massive_sft_1k_lora_OLMo-7B-hf.csv")
    assert swallow.values.shape == (10, 30)
    assert np.isfinite(swallow.baseline).any()


# What people have: each table below is read as it is meant, or refused with the option that decides.

VALUES = {("cat", "sums"): 45.1, ("cat", "tales"): 60.2, ("dog", "sums"): 41.0, ("dog", "tales"): 58.7}
BASE = {"sums": 38.5, "tales": 55.0}


def as_mapping(matrix: TransferMatrix) -> dict[tuple[str, str], float]:
    """(source, target) -> value."""
    return {
        (source, target): float(matrix.values[i, j])
        for i, source in enumerate(matrix.sources)
        for j, target in enumerate(matrix.targets)
    }


PERCENT = "model,sums,tales\nbase,38.5%,55.0 %\ncat,45.1%,60.2%\ndog,41.0%,58.7%\n"
EUROPEAN = "model;sums;tales\nbase;38,5;55,0\ncat;45,1;60,2\ndog;41,0;58,7\n"
TABBED = "model\tsums\ttales\nbase\t38.5\t55.0\ncat\t45.1\t60.2\ndog\t41.0\t58.7\n"
ERRORS = "model,sums,tales\nbase,38.5 ± 1.0,55.0\ncat,45.1 ± 1.2,60.2 +/- 0.9\ndog,41.0,58.7\n"
TITLED = (
    "Table 2: scores after fine-tuning,,\n,,\nmodel,sums,tales\nbase,38.5,55\ncat,45.1,60.2\ndog,41,58.7\n"
)
INDEXED = ",model,sums,tales\n0,base,38.5,55.0\n1,cat,45.1,60.2\n2,dog,41.0,58.7\n"
NAMED_BASE = "model,sums,tales\ncat,45.1,60.2\nBase model,38.5,55.0\ndog,41.0,58.7\n"
MARKDOWN = (
    "Our scores:\n\n| model | sums | tales |\n|:--|--:|--:|\n| base | 38.5 | 55.0 |\n"
    "| **cat** | **45.1** | 60.2 |\n"
    "| [dog](https://x/dog) | 41.0 | 58.7 |\n\nMean of three runs.\n"
)
LATEX = (
    "\\begin{tabular}{l|cc}\n\\toprule\nmodel & sums & tales \\\\ \\midrule\nbase & 38.5 & 55.0 \\\\\n"
    "cat & \\textbf{45.1} & $60.2$ \\\\\ndog & 41.0 & 58.7 \\\\ \\bottomrule\n\\end{tabular}\n"
)
LONG_TABLE = (
    "dst,src,macro_f1,n\nsums,base,38.5,9\ntales,base,55.0,9\nsums,cat,45.1,9\ntales,cat,60.2,9\n"
    "sums,dog,41.0,9\ntales,dog,58.7,9\n"
)
COLUMNS = "task,base,cat,dog\nsums,38.5,45.1,41.0\ntales,55.0,60.2,58.7\n"


@pytest.mark.parametrize(
    ("name", "content", "options", "told"),
    [
        ("t.csv", PERCENT.encode(), {}, "percent"),
        ("t.csv", EUROPEAN.encode(), {}, "delimiter ;, decimal commas"),
        ("t.csv", PERCENT.replace("%", "").encode("utf-8-sig"), {}, "base row 'base'"),
        ("t.csv", TABBED.encode("utf-16"), {}, "delimiter tab, UTF-16"),
        ("t.tsv", TABBED.encode(), {}, "base row 'base'"),
        ("t.csv", ERRORS.encode(), {}, "± as standard errors"),
        ("t.csv", TITLED.encode(), {}, "1 title line above the header"),
        ("t.csv", INDEXED.encode(), {}, "an index column"),
        ("t.csv", NAMED_BASE.encode(), {}, "base row 'Base model'"),
        ("t.csv", NAMED_BASE.replace("Base model", "owl").encode(), {"base": "owl"}, "base row 'owl'"),
        ("t.md", MARKDOWN.encode(), {}, "Markdown"),
        ("t.tex", LATEX.encode(), {}, "LaTeX"),
        ("t.csv", LONG_TABLE.encode(), {}, "long (source in 'src', target in 'dst', value in 'macro_f1')"),
        ("t.csv", COLUMNS.encode(), {"orientation": "columns"}, "sources in columns"),
        ("t.csv", COLUMNS.replace("sums", "gsm8k").encode(), {"orientation": "columns"}, "3 targets"),
    ],
)
def test_tables_as_spreadsheets_and_papers_have_them(tmp_path, name, content, options, told):
    (tmp_path / name).write_bytes(content)
    matrix = read_matrix(tmp_path / name, **options)
    values, base = VALUES, BASE
    if "3 targets" in told:
        told, values = "2 targets", {(s, t.replace("sums", "gsm8k")): v for (s, t), v in VALUES.items()}
        base = {t.replace("sums", "gsm8k"): v for t, v in BASE.items()}
    assert as_mapping(matrix) == values
    assert dict(zip(matrix.targets, matrix.baseline, strict=True)) == base
    assert told in matrix.conditions["read_as"]
    if "±" in told:
        cell = next(c for c in matrix.cells if (c.source, c.target) == ("cat", "sums"))
        assert cell.stderr == 1.2
        assert matrix.base_cells[0].stderr == 1.0


def test_excel_sheets_are_read_with_their_percent_formats(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Scores of May"])
    for row in (["model", "sums", "tales"], ["base", 0.385, 55], ["cat", 0.451, 60.2], ["dog", 0.41, 58.7]):
        sheet.append(row)
    for cell in sheet["B"][2:]:
        cell.number_format = "0.0%"
    book.save(tmp_path / "t.xlsx")
    matrix = read_matrix(tmp_path / "t.xlsx")
    assert as_mapping(matrix) == VALUES
    assert "sheet 'Sheet'" in matrix.conditions["read_as"]


def test_missing_values_thousands_and_minus_signs(tmp_path):
    text = 'model,a,b\nx,"1,234.5",N/A\ny,−2,—\nz,"12,000",3\n'
    matrix = read_matrix(written(tmp_path, text))
    np.testing.assert_array_equal(matrix.values, [[1234.5, nan], [-2, nan], [12000, 3]])


def leaderboard(rng: np.random.Generator, rows: int = 30) -> pd.DataFrame:
    """Four benchmarks beside everything that a leaderboard holds beyond them."""
    scores = np.round(rng.uniform(20, 70, (rows, 4)), 1)
    frame = pd.DataFrame(scores, columns=["ARC", "HellaSwag", "MMLU", "TruthfulQA"])
    frame.insert(0, "Model", [f"plum/m{i}" for i in range(rows)])
    frame["Average ⬆️"] = np.round(scores.mean(axis=1), 1)
    frame["everything"] = np.round(scores.mean(axis=1), 2)
    frame["MMLU as share"] = np.round(scores[:, 2] / 100, 3)
    frame["#Params (B)"] = rng.choice([1, 7, 13], rows)
    frame["Hub ❤️ likes"] = rng.integers(0, 900, rows)
    frame["Upload To Hub Date"] = ["2024-05-01"] * rows
    frame["link"] = [f"https://x/m{i}" for i in range(rows)]
    return frame


def test_what_is_no_target_is_found_named_and_left_out(tmp_path):
    frame = leaderboard(np.random.default_rng(0))
    frame.drop(columns="everything").to_csv(tmp_path / "t.csv", index=False)
    matrix = read_matrix(tmp_path / "t.csv")
    assert len(matrix.targets) == 4
    reasons = matrix.conditions["left_out"]
    assert set(reasons) == {"Average ⬆️", "#Params (B)", "MMLU", "Hub ❤️ likes"}
    assert reasons["MMLU"] == "MMLU as share in percent"
    assert "likes" in matrix.conditions["read_as"]
    assert "Upload To Hub Date (text), link (text)" in matrix.conditions["read_as"]
    kept = read_matrix(tmp_path / "t.csv", only=("ARC", "Average ⬆️"))
    assert kept.targets == ("ARC", "Average ⬆️")


def test_a_mean_and_a_combination_are_found_without_their_names(tmp_path):
    frame = leaderboard(np.random.default_rng(1))[["Model", "ARC", "HellaSwag", "MMLU", "TruthfulQA"]]
    frame["helm"] = np.round(frame[["ARC", "HellaSwag", "MMLU", "TruthfulQA"]].mean(axis=1), 2)
    frame.to_csv(tmp_path / "mean.csv", index=False)
    assert read_matrix(tmp_path / "mean.csv").conditions["left_out"] == {"helm": "mean of the four"}
    frame["helm"] = frame["ARC"] - 0.5 * frame["MMLU"]
    frame.to_csv(tmp_path / "combination.csv", index=False)
    (name,) = read_matrix(tmp_path / "combination.csv").conditions["left_out"]
    assert name in ("helm", "ARC")
    rng = np.random.default_rng(2)
    low_rank = pd.DataFrame(rng.normal(size=(40, 2)) @ rng.normal(size=(2, 6)), columns=list("abcdef"))
    low_rank.insert(0, "model", [f"m{i}" for i in range(40)])
    low_rank.to_csv(tmp_path / "low.csv", index=False)
    assert read_matrix(tmp_path / "low.csv").targets == tuple("abcdef")


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (COLUMNS.replace("sums", "gsm8k").replace("tales", "boolq"), {}, ["gsm8k", "--orientation columns"]),
        ("a,b,x\nq,s,1\nq,t,2\nr,s,3\nr,t,4\n", {}, ["long table", "--source-column", "--row-name"]),
        (
            "source,target,coverage,detection\nA,x,60,1\nA,y,61,2\nB,x,60,3\nB,y,62,4\n",
            {},
            ["coverage, detection", "--value-column"],
        ),
        ("model,a,b\nbase,1,2\nbaseline,2,3\nx,3,4\n", {}, ["'base' and 'baseline'", "--base"]),
        ("model,a,b\nx,1,2\ny,2,3\n", {"base": "z"}, ["'z'", "x, y"]),
        ("model,a,b\nx,1,2\ny,2,3\n", {"only": ("c",)}, ["'c'", "a, b"]),
        ("model,a,b\nowl,0.41,0.52\nx,45.1,60\ny,50,61\nz,44,50\n", {}, ["'a'", "owl: 0.41", "--only"]),
        ("model,Average,Parameters\nx,1,2\ny,2,3\n", {"drop": ("Average",)}, ["no column is left", "a size"]),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", {}, ["git lfs pull"]),
    ],
)
def test_where_two_readings_are_likely_the_option_is_named(tmp_path, text, options, words):
    with pytest.raises(MatrixError) as caught:
        read_matrix(written(tmp_path, text), **options)
    for word in words:
        assert word in str(caught.value)


def test_options_decide_what_is_refused(tmp_path):
    several = written(tmp_path, "source,target,f1,acc\nA,x,60,1\nA,y,61,2\nB,x,60,3\nB,y,62,4\n")
    assert read_matrix(several, value_column="acc").values.tolist() == [[1, 2], [3, 4]]
    unnamed = written(tmp_path, "a,b,x\nq,s,1\nq,t,2\nr,s,3\nr,t,4\n", "unnamed.csv")
    matrix = read_matrix(unnamed, source_column="b", target_column="a")
    assert as_mapping(matrix) == {("s", "q"): 1, ("t", "q"): 2, ("s", "r"): 3, ("t", "r"): 4}
    gains = written(tmp_path, "model,a,b\nx,1,-2\ny,2,3\n", "gains.csv")
    np.testing.assert_array_equal(read_matrix(gains, values="gains").gains, [[1, -2], [2, 3]])


def test_percent_signs_tell_the_scale(tmp_path):
    matrix = read_matrix(written(tmp_path, "model,a\nbase,0.41\nx,45.5%\ny,0.5\n"))
    np.testing.assert_allclose(matrix.values, [[0.455], [0.5]])
    assert "a: percent brought to shares of 1" in matrix.conditions["read_as"]


def test_the_catalogue_tells_which_way_is_better(tmp_path):
    text = "source,target,value,metric\nx,wiki,12,perplexity\nx,sums,0.5,acc\nx,odd,3,zest\n"
    matrix = read_matrix(written(tmp_path, text))
    assert matrix.higher_is_better == {"wiki": False, "sums": True}
    assert "lower is better: wiki" in matrix.conditions["read_as"]
    assert "higher is better assumed of zest" in matrix.conditions["read_as"]
    wide = read_matrix(written(tmp_path, "model,wikitext_ppl,sums\nx,12,1\ny,13,2\n", "wide.csv"))
    assert wide.higher_is_better == {"wikitext_ppl": False}


@pytest.mark.shared
def test_reported_cases(shared):
    files = shared / "cases" / "files"
    long = read_matrix(files / "10_long_table_other_names" / "table.csv")
    assert (len(long.sources), len(long.targets)) == (4, 3)
    cell = next(c for c in long.cells if (c.source, c.target) == ("owl", "sums"))
    assert (cell.value, cell.n, cell.metric) == (0.3, 500, "macro_f1")
    with pytest.raises(MatrixError, match=r"coverage, detection.*--value-column"):
        read_matrix(files / "11_long_table_several_values" / "table.csv")
    board = read_matrix(files / "12_table_with_average_and_metadata" / "leaderboard.csv")
    assert len(board.targets) == 4
    assert board.conditions["left_out"] == {"Average": "mean of the four", "Parameters": "a size"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    scores=st.lists(st.lists(st.integers(0, 99999), min_size=3, max_size=3), min_size=5, max_size=8),
    form=st.sampled_from([",", ";", "\t", "|"]),
    mark=st.sampled_from([".", ","]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
    percent=st.booleans(),
)
def test_no_form_of_the_file_changes_the_matrix(tmp_path, data, scores, form, mark, encoding, percent):
    names = ["base", *(f"tune{i}" for i in range(len(scores) - 1))]
    columns = {
        "model": names,
        "sums": [f"{row[0] / 1000:.3f}" for row in scores],
        "über": [f"{row[1] / 1000:.2f}" for row in scores],
        "tales": [f"{row[2] / 1000:.1f}" for row in scores],
        "Parameters": [f"{i}.5" for i in range(len(scores))],
    }
    plain = tmp_path / "plain.csv"
    pd.DataFrame(columns).to_csv(plain, index=False)
    try:
        expected = read_matrix(plain)
    except MatrixError:  # scales that meet, in any form
        expected = None
    order = data.draw(st.permutations(list(columns)))
    rows = data.draw(st.permutations(list(zip(*(columns[name] for name in order), strict=True))))
    table = [order, *rows]
    lines = []
    for number, row in enumerate(table):
        cells = []
        for name, cell in zip(order, row, strict=True):
            text = cell.replace(".", mark) if number and name != "model" else cell
            text += "%" if percent and number and name not in ("model", "Parameters") else ""
            cells.append(f'"{text}"' if form in text else text)
        lines.append(form.join(cells))
    changed = tmp_path / "changed.csv"
    changed.write_bytes("\r\n".join(lines).encode(encoding))
    if expected is None:
        if not percent:
            with pytest.raises(MatrixError, match="shares of 1"):
                read_matrix(changed)
        return
    matrix = read_matrix(changed)
    assert as_mapping(matrix) == as_mapping(expected)
    assert dict(zip(matrix.targets, matrix.baseline, strict=True)) == dict(
        zip(expected.targets, expected.baseline, strict=True)
    )


@pytest.mark.parametrize(("rows", "columns"), [(7000, 6), (200, 200)])
def test_large_tables_are_read_in_a_second(tmp_path, rows, columns):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(20, 80, (rows, columns)), columns=[f"t{i}" for i in range(columns)])
    frame.insert(0, "model", [f"m{i}" for i in range(rows)])
    frame.round(3).to_csv(tmp_path / "t.csv", index=False)
    start = time.process_time()
    assert read_matrix(tmp_path / "t.csv").values.shape == (rows, columns)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".md", ".csv.gz", ".parquet"])
def test_a_table_of_very_many_columns_is_refused_before_it_is_understood(tmp_path: Path, suffix: str) -> None:
    names, file = [f"t{at}" for at in range(20_001)], tmp_path / f"wide{suffix}"
    rows = [["source", *names], ["a", *["1"] * len(names)]]
    if suffix == ".parquet":
        pd.DataFrame([[1.0] * len(names)], columns=names, index=["a"]).to_parquet(file)
    else:
        between = {".tsv": "\t", ".md": " | "}.get(suffix, ",")
        lines = [between.join(row) for row in rows]
        if suffix == ".md":
            lines = [f"| {line} |" for line in (lines[0], " | ".join(["---"] * len(rows[0])), lines[1])]
        content = "\n".join(lines).encode()
        file.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    with pytest.raises(MatrixError, match=r"has 20,00\d columns, a table of scores at most 20,000"):
        read_matrix(file)


def test_few_packed_bytes_that_hold_very_many_cells_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.csv.gz"
    file.write_bytes(gzip.compress(b"a,b\n" + b"\n" * 25_000_000, 1))
    with pytest.raises(MatrixError, match=r"about 25,000,002 cells, so hardly a matrix"):
        read_matrix(file)


def test_few_bytes_of_parquet_that_hold_very_many_cells_are_refused_unread(tmp_path: Path) -> None:
    """Run-length encoding holds 30 million cells in 200 kB; understood they take gigabytes."""
    file = tmp_path / "bomb.parquet"
    zeros = pa.array(np.zeros(15_000_000, dtype=np.int8))
    pq.write_table(pa.table({"source": zeros, "a": zeros}), file, compression="zstd")
    assert file.stat().st_size < 1_000_000
    with pytest.raises(MatrixError, match=r"about 30,000,000 cells, so hardly a matrix"):
        read_matrix(file)


def test_latex_that_spans_or_nests_without_end_is_refused_or_read_in_bounded_time(tmp_path: Path) -> None:
    spans = tmp_path / "spans.tex"
    spans.write_text("\\begin{tabular}{l}\n" + "a & \\multicolumn{999}{c}{b} & " * 3000 + "\n\\end{tabular}")
    with pytest.raises(MatrixError, match="a table of scores at most 20,000"):
        read_matrix(spans)
    nested = tmp_path / "nested.tex"
    deep = "\\textbf{" * 30_000 + "1" + "}" * 30_000
    nested.write_text(f"\\begin{{tabular}}{{ll}}\ns & t \\\\\na & {deep} \\\\\n\\end{{tabular}}")
    with suppress(MatrixError):
        read_matrix(nested)
