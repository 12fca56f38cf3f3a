"""What we export and import again is the same matrix, with its intervals and tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from small_study import sources, study, targets
from traitmap.api.exchange import import_results
from traitmap.api.subject import read_matrix
from traitmap.engine.fake import FakeEngine
from traitmap.exports.every_eval_ever import export_every_eval_ever
from traitmap.exports.lm_eval import export_lm_eval
from traitmap.matrix.build import build_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.runs.execute import execute
from traitmap.runs.store import RunStore

COMPARED = ("value", "n", "stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed")


@pytest.fixture(scope="module", params=[(0,), (0, 1)], ids=["one seed", "two seeds"])
def finished(request, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    asked = study(tmp_path_factory.mktemp("runs"), seeds=request.param)
    return execute(asked, FakeEngine(), sources(asked), targets())


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
