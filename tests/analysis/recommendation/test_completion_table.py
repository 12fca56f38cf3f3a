"""complete and its posterior: measured cells stay, more cells tell more, intervals hold."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from planted import matrix_of
from traitmap.analysis.profiles.pairs import Feature, PairFeatures
from traitmap.analysis.recommendation.completion import (
    Price,
    before_anything,
    choose_cells,
    choose_item_share,
    complete,
    importance,
    measured_once,
    reduction,
)
from traitmap.analysis.recommendation.gaussian import (
    Observed,
    all_places,
    cell_folds,
    condition,
    covariance,
    density_of,
    infer,
    left_out_errors,
    make_prior,
    start,
)
from traitmap.analysis.traits.decompose import decompose
from traitmap.errors import MatrixError
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix


def table(rows: int, columns: int, seed: int, noise: float = 0.3) -> np.ndarray:
    """Gains with effects of sources and targets, and a part of each cell's own."""
    draw = np.random.default_rng(seed)
    return (
        draw.normal(size=(rows, 1))
        + draw.normal(size=(1, columns))
        + noise * draw.normal(size=(rows, columns))
    )


def hidden(values: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The table with a share of its cells missing."""
    shown = values.copy()
    shown[np.random.default_rng(seed).random(values.shape) < share] = np.nan
    return shown


def given(values: np.ndarray) -> TransferMatrix:
    """A table of gains: the base stands at nought."""
    return replace(matrix_of(values), baseline=np.zeros(values.shape[1]))


def posterior_of(values: np.ndarray, seed: int = 0, rank: int = 0):
    names = [f"s{i}" for i in range(values.shape[0])], [f"t{j}" for j in range(values.shape[1])]
    known = np.isfinite(values)
    places = np.argwhere(known)
    observed = Observed(places, values[known], np.zeros(len(places)))
    return infer(make_prior(*names, rank=rank), observed, np.zeros(values.shape[1], dtype=int), seed=seed)


def test_a_cell_measured_without_noise_is_itself() -> None:
    values = hidden(table(8, 6, 0), 0.6, 0)
    found = posterior_of(values)
    known = np.isfinite(values)
    assert np.allclose(found.mean[known], values[known], atol=1e-4)
    assert found.deviation[known].max() < 1e-2 * found.deviation[~known].min()


def test_measuring_more_makes_nothing_less_certain() -> None:
    found = posterior_of(hidden(table(8, 6, 1), 0.7, 1))
    variance = np.diag(found.covariance)
    for cell in np.flatnonzero(variance > 1e-6)[::5]:
        after = measured_once(found.covariance, int(cell), 0.01)
        assert (np.diag(after) <= variance + 1e-12).all()
        assert np.diag(after)[cell] < variance[cell]


def test_reduction_is_what_measuring_really_takes_away() -> None:
    found = posterior_of(hidden(table(7, 5, 2), 0.6, 2))
    weight = np.random.default_rng(0).random(35)
    told = reduction(found.covariance, weight, np.full(35, 0.02))
    for cell in range(0, 35, 4):
        after = measured_once(found.covariance, cell, 0.02)
        assert told[cell] == pytest.approx(weight @ (np.diag(found.covariance) - np.diag(after)), abs=1e-9)


def test_measuring_one_by_one_is_conditioning_on_all() -> None:
    prior = make_prior("abcd", "xyz")
    begun = before_anything(prior)
    cells = [(0, 0), (0, 2), (3, 1)]
    observed = Observed(np.array(cells), np.zeros(3), np.full(3, 0.05))
    own = covariance(prior, begun.fit, observed.places, observed.places) + 0.05 * np.eye(3)
    cross = covariance(prior, begun.fit, all_places((4, 3)), observed.places)
    measured = whole = covariance(prior, begun.fit, all_places((4, 3)), all_places((4, 3)))
    for source, target in cells:
        measured = measured_once(measured, source * 3 + target, 0.05)
    assert np.allclose(measured, whole - cross @ np.linalg.solve(own, cross.T))


def test_an_additive_table_is_completed_exactly_in_the_limit() -> None:
    values = table(14, 12, 3, noise=0.0)
    shown = hidden(values, 0.4, 3)
    shown[0], shown[:, 0] = values[0], values[:, 0]
    filled = complete(given(shown)).values
    missing = ~np.isfinite(shown)
    assert np.abs(filled - values)[missing].max() < 0.02 * values.std()


def test_one_component_is_found_where_there_is_one() -> None:
    draw = np.random.default_rng(4)
    values = np.outer(draw.normal(size=24), draw.normal(size=12)) + 0.05 * draw.normal(size=(24, 12))
    shown = hidden(values, 0.3, 4)
    missing = ~np.isfinite(shown)
    errors = [np.abs(posterior_of(shown, rank=rank).mean - values)[missing] for rank in (0, 1)]
    assert np.sqrt(np.mean(errors[1] ** 2)) < 0.5 * np.sqrt(np.mean(errors[0] ** 2))


def test_permuting_rows_and_columns_permutes_the_result() -> None:
    matrix = given(hidden(table(8, 6, 5), 0.5, 5))
    rows, columns = np.random.default_rng(0).permutation(8), np.random.default_rng(1).permutation(6)
    other = replace(
        matrix,
        sources=tuple(matrix.sources[i] for i in rows),
        targets=tuple(matrix.targets[j] for j in columns),
        values=matrix.values[np.ix_(rows, columns)],
    )
    assert np.array_equal(complete(other).values, complete(matrix).values[np.ix_(rows, columns)])


def test_scores_in_per_cent_give_a_hundred_times_the_same() -> None:
    shown = hidden(table(8, 6, 6), 0.5, 6)
    one, hundred = complete(given(shown)).values, complete(given(100 * shown)).values
    assert np.allclose(100 * one, hundred, rtol=1e-3, atol=1e-3)


def test_intervals_hold_on_low_rank_tables() -> None:
    inside = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        values = table(14, 10, seed) + np.outer(draw.normal(size=14), draw.normal(size=10))
        values *= draw.lognormal(sigma=0.7, size=10)
        shown = hidden(values, 0.6, seed)
        filled = complete(given(shown), seed=seed)
        low, high = (
            np.array([getattr(cell, name) for cell in filled.cells]).reshape(14, 10)
            for name in ("gain_low", "gain_high")
        )
        inside.append(((low <= values) & (values <= high))[~np.isfinite(shown)])
    assert 0.85 <= np.concatenate(inside).mean() <= 0.95


def test_the_stretch_holds_the_errors_that_it_was_made_of() -> None:
    values = hidden(table(12, 9, 15) * np.random.default_rng(1).lognormal(size=9), 0.5, 15)
    found = posterior_of(values)
    errors = left_out_errors(found.prior, found.fit, found.observed, cell_folds(found.observed, 0))
    inside = errors[0] <= 1.6449 * found.stretch[0, 0]
    assert inside.mean() >= 0.9
    assert inside.mean() <= 0.9 + 2 / len(inside)


def test_features_tell_of_sources_that_nobody_measured() -> None:
    draw = np.random.default_rng(7)
    kind = draw.normal(size=(16, 8))
    values = 2 * kind + 0.2 * draw.normal(size=(16, 8))
    shown = values.copy()
    shown[8:] = np.nan
    matrix = given(shown)
    features = PairFeatures(matrix.sources, matrix.targets, (Feature("kind", "hidden", "", kind),))
    blind, told = complete(matrix).values[8:], complete(matrix, features).values[8:]
    assert np.corrcoef(told.ravel(), values[8:].ravel())[0, 1] > 0.9
    assert np.abs(told - values[8:]).mean() < 0.5 * np.abs(blind - values[8:]).mean()


def test_the_slope_of_the_likelihood_is_right() -> None:
    values = hidden(table(6, 5, 8), 0.3, 8)
    known = np.isfinite(values)
    observed = Observed(np.argwhere(known), values[known], np.full(known.sum(), 0.01))
    prior = make_prior("abcdef", "vwxyz", rank=1)
    density = density_of(prior, observed, start(prior, observed, np.zeros(5, dtype=int)))
    at = start(prior, observed, np.zeros(5, dtype=int)).pack() + 0.1
    off = check_grad(lambda x: density(x)[0], lambda x: density(x)[1], at)
    assert off < 1e-4 * np.linalg.norm(density(at)[1])


def test_what_is_predicted_is_marked_and_has_no_test() -> None:
    matrix = given(hidden(table(6, 5, 9), 0.4, 9))
    filled = complete(matrix)
    missing = ~np.isfinite(matrix.values)
    assert np.array_equal(filled.predicted, missing)
    assert np.array_equal(filled.values[~missing], matrix.values[~missing])
    for cell in filled.cells:
        if cell.status == "predicted":
            assert cell.gain_low < cell.gain < cell.gain_high
            assert np.isnan(cell.p)
            assert np.isnan(cell.q)
            assert cell.n == 0
            assert cell.reason
    assert filled.conditions["completion"]["predicted_cells"] == missing.sum()


def test_completing_twice_learns_nothing_from_predictions() -> None:
    filled = complete(given(hidden(table(6, 5, 10), 0.4, 10)))
    again = complete(filled)
    assert np.allclose(again.values, filled.values)
    assert np.array_equal(again.predicted, filled.predicted)


def test_traits_take_predicted_cells_for_missing() -> None:
    matrix = given(hidden(table(10, 6, 11), 0.2, 11))
    settings = {"n_bootstrap": 0, "n_permutations": 20}
    measured, filled = decompose(matrix, **settings), decompose(complete(matrix), **settings)
    assert np.array_equal(measured.loadings, filled.loadings)
    assert filled.conditions["missing_cells"] == (~np.isfinite(matrix.values)).sum()


def test_exports_tell_predicted_from_measured(tmp_path) -> None:
    filled = complete(given(hidden(table(6, 5, 12), 0.4, 12)))
    count = int(filled.predicted.sum())
    assert (filled.to_frame()["status"] == "predicted").sum() == count
    assert sum(cell["status"] == "predicted" for cell in filled.to_json()["cells"]) == count
    filled.to_csv(tmp_path / "wide.csv")
    assert np.isnan(read_matrix(tmp_path / "wide.csv").values).sum() == count


def test_shares_of_right_answers_stay_shares() -> None:
    values = np.clip(0.9 + 0.2 * table(8, 6, 13), 0, 1)
    matrix = given(hidden(values, 0.5, 13))
    cells = tuple(
        replace(cell, metric="acc", value=float(value))
        for cell, value in zip(complete(matrix).cells, matrix.values.ravel(), strict=True)
    )
    filled = complete(replace(matrix, cells=cells))
    assert filled.values.min() >= 0
    assert filled.values.max() <= 1


def test_too_little_is_an_error() -> None:
    values = np.full((4, 3), np.nan)
    values[0, 0] = 1.0
    with pytest.raises(MatrixError, match="at least 3"):
        complete(given(values))
    with pytest.raises(MatrixError, match="probability"):
        complete(given(table(4, 3, 0)), level=90)


def test_the_choice_keeps_to_its_budget_and_takes_the_cheap_of_equals() -> None:
    posterior = before_anything(make_prior("abcd", "xyz"))
    cost = np.ones((4, 3))
    cost[2] = 0.5
    price = Price(cost, np.full((4, 3), 0.1))
    weight = importance(posterior, "all", np.zeros(3, dtype=int), np.ones(3))
    chosen = choose_cells(posterior, price, np.ones((4, 3), dtype=bool), weight, 2.0)
    assert chosen[0][0] == 2
    assert sum(cost[cell] for cell in chosen) <= 2.0
    assert len(set(chosen)) == len(chosen)


def test_a_poor_budget_asks_fewer_items_than_a_rich_one() -> None:
    posterior = before_anything(make_prior("abcdef", "xyz"))
    told = {
        "rows": range(6),
        "evaluation": np.ones(3),
        "available": [400, 400, 400],
        "weight": np.ones((6, 3)),
    }
    poor = choose_item_share(posterior, budget=2.0, **told)
    rich = choose_item_share(posterior, budget=21.0, **told)
    assert 0 < poor < rich == 1.0
    assert choose_item_share(posterior, budget=0.01, **told) == 0.0


def test_conditioning_does_not_depend_on_the_order_of_cells() -> None:
    values = hidden(table(6, 5, 14), 0.5, 14)
    known = np.isfinite(values)
    places = np.argwhere(known)
    order = np.random.default_rng(0).permutation(len(places))
    prior = make_prior("abcdef", "vwxyz")
    one = Observed(places, values[known], np.full(len(places), 0.01))
    other = Observed(places[order], values[known][order], one.noise)
    begin = start(prior, one, np.zeros(5, dtype=int))
    first, second = (condition(prior, begin, seen, all_places((6, 5))) for seen in (one, other))
    assert np.allclose(first[0], second[0])
    assert np.allclose(first[1], second[1])
