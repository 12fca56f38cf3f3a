"""What a tracker's local store holds after an export is the matrix, number by number."""

from __future__ import annotations

import subprocess
import sys
from math import isfinite
from pathlib import Path

import pytest

from small_study import sources, study, targets
from traitmap.engine.fake import FakeEngine
from traitmap.errors import MatrixError
from traitmap.exports.tracking import log_mlflow, logged
from traitmap.matrix.build import build_matrix
from traitmap.runs.execute import execute
from traitmap.runs.store import RunStore


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    asked = study(tmp_path_factory.mktemp("runs"), seeds=(0,))
    return execute(asked, FakeEngine(), sources(asked), targets())


def test_nothing_unknown_is_logged(finished: RunStore) -> None:
    matrix = build_matrix(finished)
    runs = list(logged(matrix))
    assert [name for name, _, _ in runs] == ["__baseline__", *matrix.sources]
    assert all(isfinite(value) for _, _, metrics in runs for value in metrics.values())


def test_mlflow_holds_every_number(finished: RunStore, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    matrix = build_matrix(finished)
    ids = log_mlflow(matrix, experiment="small", store=tmp_path)
    client = mlflow.MlflowClient(tracking_uri=tmp_path.resolve().as_uri())
    stored = {run.info.run_name: run.data for run in map(client.get_run, ids)}
    for name, parameters, metrics in logged(matrix):
        assert stored[name].metrics == pytest.approx(metrics)
        assert stored[name].params == parameters
    assert len(log_mlflow(matrix, experiment="small", store=tmp_path)) == len(
        ids
    )  # the same experiment again


def test_trackio_holds_every_number(finished: RunStore, tmp_path: Path) -> None:
    """In a process of its own, since trackio reads the place of its store when it is imported."""
    pytest.importorskip("trackio")
    code = (
        "import sys\n"
        "from traitmap.exports.tracking import log_trackio, logged\n"
        "from traitmap.matrix.build import build_matrix\n"
        "matrix = build_matrix(sys.argv[1])\n"
        "log_trackio(matrix, project='small', folder=sys.argv[2])\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "for name, _, metrics in logged(matrix):\n"
        "    (row,) = SQLiteStorage.get_logs('small', name)\n"
        "    found = {key: row[key] for key in metrics}\n"
        "    assert found == metrics, (name, found, metrics)\n"
        "print('same')\n"
    )
    command = [sys.executable, "-c", code, str(finished.folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "same" in done.stdout.splitlines()


def test_a_store_that_cannot_be_written_is_told(finished: RunStore, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "plain").write_text("")
    with pytest.raises((MatrixError, OSError), match="plain"):
        log_mlflow(build_matrix(finished), experiment="small", store=tmp_path / "plain" / "store")
