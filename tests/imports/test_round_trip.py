"""What we export and import again is the same matrix, with its intervals and tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from results import write

from small_study import sources, study, targets
from traitmap.api.exchange import import_results
from traitmap.api.runs import keep_item_groups
from traitmap.api.subject import read_matrix
from traitmap.engine.fake import FakeEngine
from traitmap.exports.every_eval_ever import export_every_eval_ever
from traitmap.exports.lm_eval import export_lm_eval
from traitmap.imports.discovery import find_evaluations
from traitmap.matrix.build import build_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.runs.execute import execute
from traitmap.runs.store import RunStore

COMPARED = ("value", "n", "stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed")


@pytest.fixture(scope="module", params=[(0,), (0, 1)], ids=["one seed", "two seeds"])
def finished(request, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    asked = study(tmp_path_factory.mktemp("runs"), seeds=request.param)
    store = execute(asked, FakeEngine(), sources(asked), targets())
    keep_item_groups(store.folder, targets())
    return store


@pytest.mark.parametrize("export", [export_lm_eval, export_every_eval_ever])
def test_samples_make_the_same_matrix(
    finished: RunStore, export: Callable[..., object], tmp_path: Path
) -> None:
    export(finished, tmp_path / "out")
    report = import_results([tmp_path / "out"], tmp_path / "run")
    ours, theirs = build_matrix(finished), read_matrix(tmp_path / "run")
    assert report.given == ()
    assert set(theirs.sources) == set(ours.sources)
    assert set(theirs.targets) == set(ours.targets)
    cells = {(cell.source, cell.target, cell.seed): cell for cell in theirs.cells}
    assert cells.keys() == {(cell.source, cell.target, cell.seed) for cell in ours.cells}
    for cell in ours.cells:
        found = cells[cell.source, cell.target, cell.seed]
        for field in COMPARED:
            np.testing.assert_allclose(getattr(found, field), getattr(cell, field), atol=1e-12, err_msg=field)
    assert dict(theirs.higher_is_better) == dict(ours.higher_is_better)


@pytest.mark.parametrize(
    ("write", "name"), [(TransferMatrix.to_csv, "m.csv"), (TransferMatrix.to_parquet, "m.parquet")]
)
def test_tables_make_the_same_values(finished: RunStore, write, name: str, tmp_path: Path) -> None:
    ours = build_matrix(finished)
    write(ours, tmp_path / name)
    import_results([tmp_path / name], tmp_path / "run")
    theirs = read_matrix(tmp_path / "run")
    order = [theirs.sources.index(source) for source in ours.sources]
    columns = [theirs.targets.index(target) for target in ours.targets]
    np.testing.assert_allclose(theirs.values[np.ix_(order, columns)], ours.values)
    np.testing.assert_allclose(theirs.baseline[columns], ours.baseline)


def test_lm_eval_itself_reads_what_we_write(finished: RunStore, tmp_path: Path) -> None:
    """Its own loader of results folders finds our files under the names that it expects."""
    from lm_eval.utils import get_results_filenames, get_sample_results_filenames

    written = export_lm_eval(finished, tmp_path)
    for file in written:
        names = [str(path) for path in file.parent.iterdir()]
        assert get_results_filenames(names) == [str(file)]
        assert len(get_sample_results_filenames(names)) == len(targets())


def test_what_we_write_carries_the_date_of_its_cells(finished: RunStore, tmp_path: Path) -> None:
    started = datetime.now(UTC) - timedelta(days=1)  # the run of this module is younger
    for file in export_lm_eval(finished, tmp_path):
        date = datetime.fromtimestamp(json.loads(file.read_text())["date"], UTC)
        assert started < date <= datetime.now(UTC)
        (row, *_) = find_evaluations([file]).evaluations
        assert row.date == date.isoformat()


def test_the_printed_table_of_an_export_is_the_same_matrix(finished: RunStore, tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    for file in export_lm_eval(finished, tmp_path / "out"):
        content = json.loads(file.read_text())
        line = f"hf ({content['config']['model_args']}), gen_kwargs: (None), limit: None, num_fewshot: None, "
        write(tmp_path / "printed" / f"{file.parent.name}.log", f"{line}\n{make_table(content)}")
    report = import_results([tmp_path / "printed"], tmp_path / "run", allow=["limit"])
    ours, theirs = build_matrix(finished), read_matrix(tmp_path / "run")
    assert set(report.given) == set(ours.targets)
    base = [theirs.targets.index(target) for target in ours.targets]
    np.testing.assert_allclose(theirs.baseline[base], ours.baseline, atol=5e-5)
    if len(finished_seeds(ours)) == 1:
        rows = [theirs.sources.index(source) for source in ours.sources]
        np.testing.assert_allclose(theirs.values[np.ix_(rows, base)], ours.values, atol=5e-5)


def finished_seeds(matrix: TransferMatrix) -> tuple[int, ...]:
    """The seeds of a run's matrix; a printed table calls each seed a model of its own."""
    return tuple(matrix.conditions["seeds"])
