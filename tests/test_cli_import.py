"""``traitmap import`` and ``export`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import traitmap as tm
from test_cli import TRAITMAP, traitmap

sys.path.insert(0, str(Path(__file__).parent / "imports"))
import results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("given")
    results.lm_eval_folder(place / "results", {None: [True, False] * 4, "ours": [True] * 8})
    return place


def test_import_then_matrix_then_export_then_import(folder: Path) -> None:
    done = traitmap("import", "results", "-o", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "1 source, 1 target, base org/base; 1 with items" in done.stderr
    shown = traitmap("matrix", "run", "--json", cwd=folder)
    (cell,) = [one for one in json.loads(shown.stdout)["cells"] if one["seed"] is None]
    assert cell["gain"] == pytest.approx(0.5)
    out = traitmap("export", "run", "--format", "lm-eval", "-o", "out", cwd=folder)
    assert out.returncode == 0, out.stderr
    assert len(out.stdout.splitlines()) == 2
    again = traitmap("import", "out", "-o", "again.csv", "--json", cwd=folder)
    assert json.loads(again.stdout)["paired"] == ["senti"]
    assert "metric acc,none: senti" in again.stderr  # told beside JSON too
    assert (folder / "again.csv").read_text().splitlines()[1:] == ["__baseline__,0.5", "ours,1.0"]


def test_faults_end_with_exit_code_two_and_no_traceback(folder: Path) -> None:
    results.write(folder / "mixed" / "five.json", results.lm_eval("b", **{"n-shot": {"senti": 5}}))
    results.write(folder / "mixed" / "zero.json", results.lm_eval())
    (folder / "broken.json").write_text("{")
    for words in (
        ("import", "mixed", "-o", "x"),
        ("import", "broken.json", "-o", "x"),
        ("import", "results", "-o", "x", "--metric", "senti"),
        ("export", "nowhere", "-o", "x"),
        ("export", "nowhere", "-o", "x", "--format", "pdf"),
    ):
        done = subprocess.run([*TRAITMAP, *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 2, (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
    assert not (folder / "x").exists()


def test_a_model_card(folder: Path) -> None:
    traitmap("import", "results", "-o", "run2", cwd=folder)
    done = traitmap("export", "run2", "--format", "model-card", "-o", "cards", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "## Side effects" in (folder / "cards" / "ours" / "README.md").read_text()


def test_the_base_is_a_row_of_a_table_and_a_column_of_opencompass(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("model;sums;tales\nowl;38,5;55,0\ncat;45,1;60,2\n", encoding="utf-8")
    done = tm.import_results([table], tmp_path / "run", base="owl")
    assert done.sources == ("cat",)
    assert any("read as: 1 source x 2 targets, delimiter ;, decimal commas" in note for note in done.notes)
    assert tm.read_matrix(tmp_path / "run").baseline.tolist() == [38.5, 55.0]
    summary = tmp_path / "s.csv"
    summary.write_text("dataset,version,metric,mode,a,b\nx,1,accuracy,gen,50,60\n", encoding="utf-8")
    assert tm.import_results([summary], tmp_path / "other", base="a").sources == ("b",)
