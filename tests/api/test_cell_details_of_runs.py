"""Details of a run's cells: they agree with its matrix, and cost no more than was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from traitmap import api
from traitmap.analysis.cells import RunDetails
from traitmap.errors import RunError
from traitmap.matrix.record import TransferMatrix
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts


@pytest.fixture(scope="module")
def matrix(prepared_run: Path) -> TransferMatrix:
    return api.open_run(prepared_run).matrix()


@pytest.fixture(scope="module")
def found(prepared_run: Path) -> RunDetails:
    return api.cell_details(prepared_run)


def test_every_cell_has_details_that_agree_with_the_matrix(found: RunDetails, matrix: TransferMatrix) -> None:
    pooled = {(one.source, one.target): one for one in matrix.cells if one.seed is None}
    assert set(found.cells) == set(pooled)
    assert (found.measured, found.chosen) == (30, "")
    classed = 0
    for place, cell in found.cells.items():
        assert (cell.seeds, cell.items) == (2, matrix.item_scores[cell.target].shape[-1])
        assert pooled[place].n <= cell.items  # items that repeat count once
        scores = matrix.item_scores[cell.target]
        change = scores[1 + matrix.sources.index(cell.source)].mean(axis=0) - scores[0, 0]
        assert (cell.won, cell.lost) == ((change > 0).sum(), (change < 0).sum())
        if cell.counts is not None and pooled[place].metric == "acc":
            classed += 1
            right = np.trace(cell.counts) / cell.counts.sum()
            assert right == pytest.approx(pooled[place].value)
            assert cell.counts.sum() == 2 * cell.items
    assert classed >= 12


def test_items_are_shown_as_the_run_kept_them(found: RunDetails, prepared_run: Path) -> None:
    texts = read_run_texts(open_store(prepared_run)).targets
    shown = 0
    for name, target in found.targets.items():
        for item, (asked, gold) in zip(target.items, target.texts, strict=True):
            shown += 1
            assert texts[name][item].input.strip().startswith(asked[:50])
            assert texts[name][item].output.strip() == gold
    assert shown > 20


def test_metrics_of_classes_come_with_the_profile_and_no_others_are_made_up(
    found: RunDetails, matrix: TransferMatrix, prepared_run: Path
) -> None:
    assert found.metrics == ()  # the tasks of this run report one metric each
    profile = api.profile(prepared_run)
    more = api.cell_details(prepared_run, matrix=matrix, profile=profile, most=1)
    tables = {table.name: table for table in more.metrics}
    assert set(tables) == {"balanced_accuracy", "macro_f1", "kappa", "matthews"}
    balanced = tables["balanced_accuracy"]
    for s, source in enumerate(matrix.sources):
        for t, target in enumerate(matrix.targets):
            cell = profile.cells.classes_of(source, target)
            if cell is None:
                assert np.isnan(balanced.values[s, t])
                continue
            assert balanced.values[s, t] == cell.adapter.balanced_accuracy.value
            assert balanced.baseline[t] == cell.base.balanced_accuracy.value
            gain = cell.gains["balanced_accuracy"]
            limits = (balanced.low[s, t], balanced.high[s, t])
            assert np.array_equal(limits, (gain.low, gain.high), equal_nan=True)
    assert more.reasons == profile.cells.reasons


def test_what_the_run_took_is_counted(found: RunDetails) -> None:
    spent = found.spent
    assert (spent["adapters trained"], spent["cells evaluated"]) == (12, 65)
    assert 1 <= spent["training passes"] <= 12


def test_no_more_cells_than_asked_and_the_surest_ones(prepared_run: Path, matrix: TransferMatrix) -> None:
    few = api.cell_details(prepared_run, matrix=matrix, most=3)
    assert len(few.cells) == 3
    assert few.chosen
    q = sorted(one.q for one in matrix.cells if one.seed is None)
    kept = [one.q for one in matrix.cells if one.seed is None and (one.source, one.target) in few.cells]
    assert sorted(kept) == q[:3]


def test_a_folder_without_a_run_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run"):
        api.cell_details(tmp_path)
