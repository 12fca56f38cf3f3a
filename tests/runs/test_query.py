"""SQL over a run: the numbers of its files, and nothing but them within reach."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from small_study import sources, study, targets
from traitmap import api
from traitmap.engine.fake import FakeEngine
from traitmap.errors import UserError
from traitmap.matrix.build import build_matrix
from traitmap.runs.cells import read_outcomes
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_ledger
from traitmap.runs.query import TABLES
from traitmap.runs.store import open_store

TRAITMAP = (sys.executable, "-m", "traitmap.cli", "query")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = study(tmp_path_factory.mktemp("query"))
    return execute(asked, FakeEngine(), sources(asked), targets(count=12)).folder


def test_outcomes_are_those_of_the_cells(run: Path) -> None:
    entry = next(one for one in read_ledger(open_store(run)).cells if one.source == "sums" and one.seed == 1)
    told = read_outcomes(open_store(run).cell(str(entry.key)))
    place = f"source = 'sums' and seed = 1 and target = '{entry.target}'"
    found = api.query(run, f"select * from outcomes where {place} order by item")
    assert list(found["prediction"]) == [one.prediction for one in told]
    assert list(found["score"]) == [one.score for one in told]
    assert [tuple(one) for one in found["choice_logprobs"]] == [one.choice_logprobs for one in told]
    assert set(found["source"]) == {"sums"}


def test_means_are_those_of_the_matrix(run: Path) -> None:
    matrix = build_matrix(run)
    found = api.query(run, "select source, target, avg(score) as mean from outcomes group by all")
    table = found.pivot_table(index="source", columns="target", values="mean")
    np.testing.assert_allclose(table.loc[list(matrix.sources), list(matrix.targets)], matrix.values)
    np.testing.assert_allclose(table.loc["__baseline__", list(matrix.targets)], matrix.baseline)


def test_the_base_has_no_seed_and_every_cell_its_place(run: Path) -> None:
    found = api.query(run, "select source, seed, target, count(*) as n from outcomes group by all")
    assert set(found["n"]) == {12}
    assert len(found) == 4 * (1 + 4 * 2)
    assert found[found["seed"].isna()]["source"].unique().tolist() == ["__baseline__"]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_rows(run: Path, table: str) -> None:
    counts = {
        "outcomes": 12 * 4 * 9,
        "cells": 4 * 9,
        "adapters": 8,
        "sources": 4,
        "targets": 4,
        "texts": 4 * 60 + 4 * 12,
        "drift": 0,  # the study does not ask for it
    }
    assert api.query(run, f"select count(*) as n from {table}")["n"].item() == counts[table]


def test_texts_join_outcomes(run: Path) -> None:
    sql = (
        "select count(*) as n, sum((t.output = o.gold)::int) as same from outcomes o join texts t "
        "on t.role = 'target' and t.name = o.target and t.item = o.item"
    )
    found = api.query(run, sql)
    assert found["n"].item() == found["same"].item() == 12 * 4 * 9


def test_a_damaged_cell_is_left_out_and_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    entry = read_ledger(open_store(folder)).cells[-1]
    place = open_store(folder).cell(str(entry.key))
    raw = place.read_bytes()
    place.write_bytes(raw[:50] + bytes([raw[50] ^ 4]) + raw[51:])
    with pytest.warns(UserWarning, match=f"{entry.key}.*left out"):
        found = api.query(folder, "select count(*) as n from outcomes")
    assert found["n"].item() == 12 * (4 * 9 - 1)
    assert api.query(folder, "select count(*) as n from cells")["n"].item() == 4 * 9


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('/etc/passwd')",
        "select * from read_blob('/etc/passwd')",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from '{run}/run.json'",
        "select * from read_json('{run}/run.json')",
        "select * from read_parquet('{run}/cells/*.parquet')",
        "select * from glob('/etc/*')",
        "select * from sniff_csv('/etc/passwd')",
        "from query('select * from read_text(''/etc/passwd'')')",
        "select * from read_csv('https://example.com/a.csv')",
        "select getenv('HOME')",
        "copy (select 1) to '{run}/out.csv'",
        "copy outcomes to '{run}/out.parquet'",
        "export database '{run}/out'",
        "import database '{run}'",
        "install httpfs",
        "load httpfs",
        "attach '{run}/out.db'",
        "pragma database_list",
        "set enable_external_access = true",
        "reset lock_configuration",
        "create table out as select 1",
        "create macro f() as table select * from read_text('/etc/passwd')",
        "delete from cells",
        "insert into cells select * from cells",
        "update cells set status = 'done'",
        "drop view outcomes",
        "call pragma_version()",
        "prepare v as select 1",
        "select 1; select 2",
        "select 1; copy (select 1) to '{run}/out.csv'",
        "",
        "selec 1",
        "select nothing from outcomes",
        "select * from nowhere",
        "select * from open_store",
        "select 'a'::int",
    ],
)
def test_nothing_else_is_read_or_written_and_every_fault_is_told(run: Path, sql: str) -> None:
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match="The query"):
        api.query(run, sql.format(run=run))
    assert sorted(run.rglob("*")) == before


def test_a_large_answer_comes_piece_by_piece(run: Path) -> None:
    sql = "select a.item from outcomes a cross join outcomes b limit 150000"
    with api.streamed_query(run, sql) as found:
        sizes = [batch.num_rows for batch in found.rows]
    assert sum(sizes) == 150_000
    assert len(sizes) > 1


def query(run: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAITMAP, str(run), *words], capture_output=True, text=True)


def test_the_command_prints_tables_csv_and_json_and_writes_parquet(run: Path, tmp_path: Path) -> None:
    sql = "select name, chance, items, tags, digest from targets order by name"
    names = sorted(target.name for target in targets())
    shown = query(run, sql)
    assert shown.returncode == 0, shown.stderr
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert all(name in shown.stdout for name in names)
    rows = list(csv.DictReader(io.StringIO(query(run, sql, "--csv").stdout)))
    assert [row["name"] for row in rows] == names
    records = json.loads(query(run, sql, "--json").stdout)
    assert [record["name"] for record in records] == names
    assert {record["items"] for record in records} == {12}
    assert None in [record["chance"] for record in records]  # unknown, and NaN is no JSON
    assert query(run, sql, "--parquet", str(tmp_path / "a.parquet")).returncode == 0
    assert pq.read_table(tmp_path / "a.parquet")["name"].to_pylist() == names
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_an_answer_of_one_column_is_printed_whole(run: Path) -> None:
    names = query(run, "select name from targets order by name").stdout.split()
    assert names == ["name", *sorted(target.name for target in targets()), "4", "rows."]
    assert query(run, "select count(*) as n from targets").stdout.split() == ["n", "4", "1", "row."]
    texts = query(run, "select repeat('word ', 50) as t").stdout
    assert texts.split().count("word") == 50
    assert "…" not in texts
    cut = query(run, "select 1 as n, repeat('word ', 50) as t").stdout
    assert "…" in cut


def test_the_command_tells_bad_sql_and_long_answers(run: Path) -> None:
    bad = query(run, "select nonsense from cells")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert 'column "nonsense" not found' in bad.stderr.lower()
    assert "Traceback" not in bad.stderr
    long = query(run, "select item from outcomes")
    assert "The first 100 rows." in long.stdout


def test_whole_numbers_and_sums_stay_numbers(run: Path) -> None:
    found = query(run, "select sum(output_tokens) as n, 1.5::decimal(4,2) as d from outcomes", "--json")
    (record,) = json.loads(found.stdout)
    assert isinstance(record["n"], int)
    assert record["d"] == 1.5
    assert isinstance(api.query(run, "select 1 as a"), pd.DataFrame)
