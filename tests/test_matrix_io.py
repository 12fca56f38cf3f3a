"""read_matrix: what is in the file comes back; what cannot be read is named."""

import gzip
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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


def test_parquet_gives_back_every_cell(tmp_path):
    matrix = measured_matrix()
    matrix.to_parquet(tmp_path / "matrix.parquet")
    again = read_matrix(tmp_path / "matrix.parquet")
    assert sorted(again.cells, key=repr) == sorted(matrix.cells, key=repr)
    assert again.base_cells == matrix.base_cells
    np.testing.assert_array_equal(again.values, matrix.values)
    assert again.conditions["seeds"] == [0, 1]


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
        read_matrix(written(tmp_path, WIDE, "table.xlsx"))
    with pytest.raises(MatrixError, match="Parquet"):
        read_matrix(written(tmp_path, WIDE, "table.parquet"))
    latin = tmp_path / "latin.csv"
    latin.write_bytes("source,a\nfü,1\n".encode("latin-1"))
    with pytest.raises(MatrixError, match="UTF-8"):
        read_matrix(latin)


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
