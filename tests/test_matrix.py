import json
from collections.abc import Sequence
from dataclasses import fields, replace
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from small_study import SmallTarget, loaded_source, sources, study, targets
from traitmap.data.records import Outcome, Response
from traitmap.data.scoring import Scored
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.matrix.build import build_matrix
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.runs.cells import read_outcomes
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import RunStore, open_store

NUMBERS = ("value", "stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Two seeds and, beside the four sources, one adapter that existed before."""
    folder = tmp_path_factory.mktemp("run")
    asked = study(folder)
    first = execute(asked, FakeEngine(), sources(asked), targets())
    key = read_ledger(first).adapters[1].key
    bought = loaded_source("bought", [], asked.training, adapter=first.adapter(str(key)))
    return execute(asked, FakeEngine(), [*sources(asked), bought], targets())


@pytest.fixture(scope="module")
def matrix(run: RunStore) -> TransferMatrix:
    return build_matrix(run)


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> TransferMatrix:
    asked = study(tmp_path_factory.mktemp("one"), seeds=(3,))
    return build_matrix(execute(asked, FakeEngine(), sources(asked), targets()))


def cell(matrix: TransferMatrix, source: str, target: str, seed: int | None = None) -> Cell:
    (found,) = [one for one in matrix.cells if (one.source, one.target, one.seed) == (source, target, seed)]
    return found


def same(one: Cell, other: Cell, *names: str) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in names)


def test_axes_and_completeness(matrix: TransferMatrix) -> None:
    assert matrix.sources == ("reviews", "flipped", "topics", "sums", "bought")
    assert matrix.targets == ("reviews", "topics", "sums", "nearness")
    assert matrix.values.shape == (5, 4)
    assert len(matrix.cells) == 5 * 4 * 3
    assert [one.target for one in matrix.base_cells] == list(matrix.targets)
    assert {one.status for one in (*matrix.cells, *matrix.base_cells)} == {"measured"}


def test_gain_is_value_minus_base(matrix: TransferMatrix) -> None:
    base = dict(zip(matrix.targets, matrix.baseline, strict=True))
    for one in matrix.cells:
        assert one.gain == one.value - base[one.target]
        assert one.gain_low <= one.gain <= one.gain_high or "the same on every item" in one.reason
    for s, source in enumerate(matrix.sources):
        for t, target in enumerate(matrix.targets):
            assert cell(matrix, source, target).gain == matrix.gains[s, t]


def test_right_answers_are_whole_numbers(matrix: TransferMatrix) -> None:
    for one in (*matrix.cells, *matrix.base_cells):
        if one.target != "nearness" and (one.seed is not None or one.source == "__baseline__"):
            assert one.value * one.n == pytest.approx(round(one.value * one.n), abs=1e-9)


def test_pooled_is_the_mean_over_seeds(matrix: TransferMatrix) -> None:
    for source in matrix.sources:
        for target in matrix.targets:
            seeds = [cell(matrix, source, target, seed) for seed in (0, 1)]
            pooled = cell(matrix, source, target)
            assert pooled.value == pytest.approx(np.mean([one.value for one in seeds]))
            assert pooled.unparsed == pytest.approx(np.mean([one.unparsed for one in seeds]))
            assert pooled.n == seeds[0].n == 40


def test_a_cell_is_what_its_outcomes_say(run: RunStore, matrix: TransferMatrix) -> None:
    """Another route to the numbers of a 0/1 cell: by hand from the stored outcomes."""
    ledger = read_ledger(run)
    keys = {(one.source, one.seed, one.target): str(one.key) for one in ledger.cells}
    base = read_outcomes(run.cell(keys["__baseline__", None, "topics"]))
    adapter = read_outcomes(run.cell(keys["topics", 1, "topics"]))
    wins = sum(a.score > b.score for a, b in zip(adapter, base, strict=True))
    losses = sum(a.score < b.score for a, b in zip(adapter, base, strict=True))
    found = cell(matrix, "topics", "topics", 1)
    assert found.value == np.mean([one.score for one in adapter])
    assert found.stderr == pytest.approx(stats.sem([one.score for one in adapter]))
    assert found.p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert found.p < 1e-3
    assert found.gain_low > 0


def test_unparsed_answers_are_counted_apart(matrix: TransferMatrix) -> None:
    assert cell(matrix, "reviews", "sums").unparsed == 1.0
    assert cell(matrix, "sums", "sums").unparsed == 0.0
    assert cell(matrix, "sums", "reviews").unparsed == 0.0


def test_item_scores_are_the_cells(matrix: TransferMatrix) -> None:
    for t, target in enumerate(matrix.targets):
        scores = matrix.item_scores[target]
        assert scores.shape == (6, 2, 40)
        np.testing.assert_allclose(scores.mean(axis=(1, 2))[1:], matrix.values[:, t])
        np.testing.assert_array_equal(scores[0, 0], scores[0, 1])
        assert scores[0, 0].mean() == matrix.baseline[t]


def test_an_existing_adapter_has_no_seed_of_its_own(matrix: TransferMatrix) -> None:
    for target in matrix.targets:
        pooled = cell(matrix, "bought", target)
        for seed in (0, 1):
            assert same(cell(matrix, "bought", target, seed), pooled, *(set(NUMBERS) - {"q"}))
        np.testing.assert_array_equal(*matrix.item_scores[target][5])


def test_q_is_benjamini_hochberg_among_its_own(matrix: TransferMatrix) -> None:
    for seed in (None, 0, 1):
        family = [one for one in matrix.cells if one.seed == seed]
        expected = stats.false_discovery_control([one.p for one in family])
        np.testing.assert_allclose([one.q for one in family], expected)


def test_one_seed_pooled_is_that_seed(one_seed: TransferMatrix) -> None:
    for source in one_seed.sources:
        for target in one_seed.targets:
            assert same(cell(one_seed, source, target), cell(one_seed, source, target, 3), *NUMBERS)


def test_chance_majority_tags_and_conditions(matrix: TransferMatrix) -> None:
    assert matrix.chance is not None
    assert matrix.majority is not None
    np.testing.assert_allclose(matrix.chance, [1 / 2, 1 / 3, nan, nan])
    assert 0.5 <= matrix.majority[0] < 1
    assert matrix.target_tags["reviews"] == ("small",)
    assert matrix.higher_is_better == dict.fromkeys(matrix.targets, True)
    assert matrix.conditions["seeds"] == [0, 1]
    assert matrix.conditions["study"]["training"]["batch_size"] == 8
    assert matrix.conditions["targets"]["sums"]["metric"] == "exact_match"


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("order")


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(4)))
def test_permuting_sources_permutes_rows_only(own_folder: Path, order: list[int]) -> None:
    asked = study(own_folder, seeds=(0,))
    rows, columns = sources(asked, count=20), targets(count=12)
    plain = build_matrix(execute(asked, FakeEngine(), rows, columns, group_size=1))
    shuffled = build_matrix(execute(asked, FakeEngine(), [rows[i] for i in order], columns, group_size=1))
    np.testing.assert_array_equal(shuffled.values, plain.values[order])
    for one in plain.cells:
        other = cell(shuffled, one.source, one.target, one.seed)
        for name in NUMBERS:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)


def test_failed_and_missing_are_not_zero(tmp_path: Path) -> None:
    asked = study(tmp_path)
    wild, *tame = sources(asked)
    wild = replace(wild, training=wild.training.model_copy(update={"learning_rate": 9.0}))
    store = execute(asked, FakeEngine(), [wild, *tame], targets())
    gone = next(one for one in read_ledger(store).cells if (one.source, one.target) == ("sums", "topics"))
    store.cell(str(gone.key)).unlink()
    matrix = build_matrix(store)
    assert np.isnan(matrix.values[0]).all()
    failed = cell(matrix, "reviews", "topics")
    assert failed.status == "failed"
    assert "diverged" in failed.reason
    assert np.isnan([getattr(failed, name) for name in NUMBERS]).all()
    half = cell(matrix, "sums", "topics")
    assert half.status == "measured"
    assert "1 of 2 seeds" in half.reason
    assert cell(matrix, "sums", "topics", 0).status == "missing"
    assert same(half, cell(matrix, "sums", "topics", 1), "value", "gain", "gain_low", "p")
    assert np.isnan(matrix.item_scores["topics"][4, 0]).all()
    told = matrix.to_json()
    assert {"source": "reviews", "target": "topics", "seed": 0} in [
        {key: one[key] for key in ("source", "target", "seed")} for one in told["reasons"]
    ]


def test_without_the_base_there_are_values_and_no_gains(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = execute(asked, FakeEngine(), sources(asked), targets())
    base = read_ledger(store).cells[0]
    store.cell(str(base.key)).write_bytes(b"damaged")
    matrix = build_matrix(store)
    assert np.isnan(matrix.baseline[0])
    found = cell(matrix, "reviews", "reviews")
    assert found.value > 0.5
    assert np.isnan([found.gain, found.gain_low, found.p, found.q]).all()
    assert "the base is missing" in found.reason
    assert "damaged" in matrix.base_cells[0].reason


class Whole(SmallTarget):
    """A target whose metric is no mean of item scores."""

    def score(self, answers: Sequence[Response]) -> Scored:
        scored = super().score(answers)
        right = [outcome.score for outcome in scored.outcomes]
        outcomes = tuple(replace(outcome, score=nan, correct=None) for outcome in scored.outcomes)
        return Scored(outcomes, {"acc,none": float(np.sqrt(np.mean(right)))})


def test_a_metric_that_is_no_mean_has_a_value_and_no_interval(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0, 1))
    first, *rest = targets()
    store = execute(asked, FakeEngine(), sources(asked), [Whole(**vars(first)), *rest])
    matrix = build_matrix(store)
    found = cell(matrix, "reviews", "reviews")
    assert 0.7 < found.value < 1.0
    assert found.gain == found.value - matrix.baseline[0]
    assert found.n == 40
    assert np.isnan([found.stderr, found.gain_low, found.p, found.q]).all()
    assert "not the mean" in found.reason
    assert "reviews" not in matrix.item_scores


class Partial(SmallTarget):
    """A target on which every third item has no score."""

    def _outcome(self, item: int, answers: Sequence[Response]) -> Outcome:
        outcome = super()._outcome(item, answers)
        return replace(outcome, score=nan, correct=None) if item % 3 == 0 else outcome

    def score(self, answers: Sequence[Response]) -> Scored:
        outcomes = tuple(self._outcome(item, answers) for item in range(self.n_items))
        return Scored(outcomes, {"acc,none": float(np.nanmean([one.score for one in outcomes]))})


def test_items_without_a_score_are_left_out_of_the_pairs(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    first, *rest = targets()
    store = execute(asked, FakeEngine(), sources(asked), [Partial(**vars(first)), *rest])
    matrix = build_matrix(store)
    found = cell(matrix, "reviews", "reviews")
    assert found.n == 26
    assert found.value * 26 == pytest.approx(round(found.value * 26))
    assert found.p < 0.1
    assert found.gain_low <= found.gain <= found.gain_high
    assert np.isnan(matrix.item_scores["reviews"][1, 0, ::3]).all()


def test_a_target_of_one_item_has_no_standard_error(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    matrix = build_matrix(execute(asked, FakeEngine(), sources(asked), targets(count=1)))
    assert all(np.isnan(one.stderr) for one in (*matrix.cells, *matrix.base_cells))
    assert cell(matrix, "reviews", "reviews").p == 1.0


def test_json_holds_what_was_promised(matrix: TransferMatrix) -> None:
    told = json.loads(json.dumps(matrix.to_json(), allow_nan=False))
    assert told["sources"] == list(matrix.sources)
    assert told["baseline"] == dict(zip(matrix.targets, matrix.baseline, strict=True))
    assert told["chance"]["sums"] is None
    assert len(told["cells"]) == len(matrix.cells)
    expected = [one.name for one in fields(Cell) if one.name != "reason"]
    assert expected[:6] == ["source", "target", "seed", "metric", "value", "n"]
    assert all(list(one) == expected for one in told["cells"])
    pooled = [one for one in told["cells"] if one["seed"] is None]
    assert len(pooled) == 20
    assert told["conditions"]["name"] == "small"


def test_wide_csv_has_the_base_first(matrix: TransferMatrix, tmp_path: Path) -> None:
    path = tmp_path / "new" / "matrix.csv"
    matrix.to_csv(path)
    table = pd.read_csv(path)
    assert list(table.columns) == ["source", *matrix.targets]
    assert list(table["source"]) == ["__baseline__", *matrix.sources]
    np.testing.assert_array_equal(table.iloc[0, 1:].to_numpy(float), matrix.baseline)
    np.testing.assert_array_equal(table.iloc[1:, 1:].to_numpy(float), matrix.values)


def test_long_parquet_holds_every_cell(matrix: TransferMatrix, tmp_path: Path) -> None:
    path = tmp_path / "matrix.parquet"
    matrix.to_parquet(path)
    table = pd.read_parquet(path)
    assert list(table.columns) == [one.name for one in fields(Cell)]
    assert len(table) == len(matrix.cells) + len(matrix.base_cells)
    assert table["seed"].isna().sum() == 20 + 4
    assert json.loads(pq.read_schema(path).metadata[b"traitmap"])["name"] == "small"


def test_a_table_without_items_exports_too(tmp_path: Path) -> None:
    bare = TransferMatrix(("a", "b"), ("t",), np.array([[0.5], [nan]]), np.array([0.25]))
    told = bare.to_json()
    assert [one["status"] for one in told["cells"]] == ["given", "missing"]
    assert [one["gain"] for one in told["cells"]] == [0.25, None]
    assert list(bare.to_frame()["source"]) == ["__baseline__", "a", "b"]
    bare.to_csv(tmp_path / "bare.csv")
    assert (tmp_path / "bare.csv").read_text() == "source,t\n__baseline__,0.25\na,0.5\nb,\n"


def test_building_twice_gives_the_same_to_the_last_bit(run: RunStore, matrix: TransferMatrix) -> None:
    again = build_matrix(str(run.folder))
    assert repr(again.cells) == repr(matrix.cells)
    assert again.values.tobytes() == matrix.values.tobytes()


def test_no_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        build_matrix(tmp_path / "nowhere")
    with pytest.raises(RunError):
        open_store(tmp_path)
