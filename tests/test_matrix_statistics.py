"""Known numbers, laws, and the level that intervals and tests hold on data whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from traitmap.matrix.statistics import (
    SIGN_FLIP_DRAWS,
    benjamini_hochberg,
    bootstrap_interval,
    mcnemar,
    paired_interval,
    pooled_error,
    pooled_test,
    sign_flip,
    standard_error,
)

COUNTS = st.integers(0, 60)


def numbers(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@given(wins=COUNTS, losses=COUNTS)
def test_mcnemar_is_the_binomial_test(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    assert mcnemar(numbers(wins), numbers(losses))[0] == pytest.approx(expected, rel=1e-9)


def test_mcnemar_known_values() -> None:
    p = mcnemar(numbers(10, 0, 0, 5, 1), numbers(2, 0, 8, 5, 0))
    np.testing.assert_allclose(p, [158 / 4096, 1.0, 2 / 256, 1.0, 1.0], rtol=1e-12)


@pytest.mark.parametrize("n", [1, 5, 30, 1000])
def test_interval_without_a_discordant_item(n: int) -> None:
    low, high = paired_interval(numbers(0), numbers(0), n)
    z = stats.norm.ppf(0.975)
    assert high[0] == pytest.approx(z**2 / (n + z**2), abs=1e-9)
    assert low[0] == pytest.approx(-high[0], abs=1e-12)


@pytest.mark.parametrize(("wins", "losses", "n"), [(8, 3, 40), (1, 0, 12), (0, 9, 25), (20, 20, 100)])
def test_interval_is_where_the_likelihood_says(wins: int, losses: int, n: int) -> None:
    """The other route: the nuisance parameter by a search of the likelihood, not by its formula."""
    z = stats.norm.ppf(0.975)
    for limit in np.concatenate(paired_interval(numbers(wins), numbers(losses), n)):
        grid = np.linspace(max(0, -limit), (1 - abs(limit)) / 2 + max(0, -limit), 200_001)[1:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = stats.multinomial.logpmf(
                np.array([wins, losses, n - wins - losses]),
                n,
                np.stack([grid + limit, grid, 1 - 2 * grid - limit], axis=1),
            )
        only_base = grid[int(np.nanargmax(likelihood))]
        variance = n * (2 * only_base + limit * (1 - limit))
        assert abs(wins - losses - n * limit) / np.sqrt(variance) == pytest.approx(z, abs=2e-3)


@given(wins=st.integers(0, 15), losses=st.integers(0, 15), rest=st.integers(0, 15))
def test_interval_holds_the_estimate_and_mirrors(wins: int, losses: int, rest: int) -> None:
    n = max(1, wins + losses + rest)
    low, high = paired_interval(numbers(wins), numbers(losses), n)
    assert -1 <= low[0] <= (wins - losses) / n <= high[0] <= 1
    mirrored = paired_interval(numbers(losses), numbers(wins), n)
    assert -mirrored[1][0] == pytest.approx(low[0], abs=1e-12)


@pytest.mark.parametrize("n", [10, 30, 80])
@pytest.mark.parametrize(("won", "lost"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.02), (0.3, 0.1), (0.45, 0.45)])
def test_paired_interval_covers(n: int, won: float, lost: float) -> None:
    """Exact coverage: every table that can occur, weighed with its probability."""
    wins, losses = (table.ravel() for table in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    possible = wins + losses <= n
    wins, losses = wins[possible], losses[possible]
    tables = np.stack([wins, losses, n - wins - losses], axis=1)
    weight = stats.multinomial.pmf(tables, n, [won, lost, 1 - won - lost])
    low, high = paired_interval(wins.astype(float), losses.astype(float), n)
    covered = weight[(low <= won - lost) & (won - lost <= high)].sum()
    assert covered >= 0.93
    rejected = weight[mcnemar(wins.astype(float), losses.astype(float)) <= 0.05].sum()
    assert won != lost or rejected <= 0.05


@pytest.mark.parametrize("n", [12, 40, 200])
def test_bootstrap_covers_skewed_differences(n: int) -> None:
    differences = np.random.default_rng(1).exponential(size=(3000, n)) - 0.7
    low, high = bootstrap_interval(differences)
    assert 0.9 < np.mean((low <= 0.3) & (high >= 0.3)) < 0.97


def test_bootstrap_covers_normal_differences_at_small_n() -> None:
    differences = np.random.default_rng(2).normal(size=(3000, 10))
    low, high = bootstrap_interval(differences)
    assert 0.935 < np.mean((low <= 0) & (high >= 0)) < 0.965


def test_bootstrap_says_nothing_where_nothing_varies() -> None:
    for limit in bootstrap_interval(np.array([[0.5] * 8, [0.0] * 8])):
        assert np.isnan(limit).all()
    assert np.isnan(bootstrap_interval(np.array([[0.5]]))[0]).all()


@pytest.mark.parametrize("shape", ["normal", "heavy", "mostly nothing"])
def test_sign_flip_holds_its_level(shape: str) -> None:
    generator = np.random.default_rng(3)
    differences = {
        "normal": generator.normal(size=(4000, 30)),
        "heavy": generator.standard_t(2, size=(4000, 30)),
        "mostly nothing": generator.normal(size=(4000, 30)) * (generator.random((4000, 30)) < 0.2),
    }[shape]
    p = sign_flip(differences, draws=999)
    for level in (0.01, 0.05, 0.2):
        noise = 4 * np.sqrt(level / 4000)
        assert np.mean(p <= level) <= level + noise
        # with few items that differ, few p-values are possible, and the test is conservative
        assert np.mean(p <= level) >= level - noise or shape == "mostly nothing"


def test_sign_flip_finds_what_is_there_and_is_never_zero() -> None:
    p = sign_flip(np.random.default_rng(4).normal(1.0, 1.0, size=(5, 100)))
    np.testing.assert_allclose(p, 1 / (1 + SIGN_FLIP_DRAWS))
    assert sign_flip(np.zeros((1, 20)))[0] == 1.0


def test_sign_flip_of_wins_and_losses_is_mcnemar() -> None:
    differences = np.array([[1.0] * 9 + [-1.0] * 2 + [0.0] * 19])
    expected = mcnemar(numbers(9), numbers(2))[0]
    assert sign_flip(differences)[0] == pytest.approx(expected, abs=0.01)


def crossed(generator: np.random.Generator, seeds: int, items: int, spread: float) -> np.ndarray:
    """(1500, seeds, items) of -1, 0, 1: right or wrong against a base; ``spread`` of the seeds' effects."""
    skill = generator.normal(size=(1500, 1, items))
    base = skill < 0
    own = 0.8 * skill + 0.6 * generator.normal(size=(1500, seeds, items))
    right = own < spread * generator.normal(size=(1500, seeds, 1))
    return right.astype(float) - base


@pytest.mark.parametrize(
    ("seeds", "items", "spread"), [(2, 40, 0.0), (2, 100, 0.1), (3, 100, 0.1), (4, 60, 0.3)]
)
def test_pooled_interval_covers_and_its_test_holds_its_level(seeds: int, items: int, spread: float) -> None:
    low, high, p = pooled_test(crossed(np.random.default_rng(5), seeds, items, spread), binary=True)
    assert np.mean((low <= 0) & (high >= 0)) > 0.92
    assert np.mean(p <= 0.05) < 0.08
    low, high, p = pooled_test(crossed(np.random.default_rng(6), seeds, items, spread) * 0.37, binary=False)
    assert np.mean((low <= 0) & (high >= 0)) > 0.92


def test_items_alone_would_not_hold_the_level_over_seeds() -> None:
    """Why seeds count: where adapters differ by seed, a test over items alone rejects far too often."""
    differences = crossed(np.random.default_rng(7), 3, 200, 0.3)
    as_items = stats.ttest_1samp(differences.mean(axis=1), 0, axis=1).pvalue
    p = pooled_test(differences, binary=True)[2]
    assert np.mean(as_items <= 0.05) > 0.2
    assert np.mean(p <= 0.05) < 0.08


def test_pooled_test_and_interval_agree() -> None:
    differences = crossed(np.random.default_rng(8), 3, 50, 0.2)
    low, high, p = pooled_test(differences, binary=True)
    assert np.array_equal(p < 0.05, (low > 0) | (high < 0))


def test_pooled_without_a_difference_is_unsure_not_certain() -> None:
    low, high, p = pooled_test(np.zeros((1, 3, 30)), binary=True)
    assert p[0] == 1.0
    assert low[0] == -high[0] < -0.03
    low, high, p = pooled_test(np.ones((1, 3, 30)), binary=True)
    assert 0.7 < low[0] < 1.0
    assert high[0] == 1.0
    low, high, p = pooled_test(np.full((1, 3, 30), 0.1), binary=False)
    assert np.isnan([low, high, p]).all()


def test_pooled_knows_the_textbook_mean_squares() -> None:
    """Two routes: mean squares of a two-way layout by sums over the whole table."""
    table = np.random.default_rng(9).normal(size=(3, 7))
    seeds = 7 * np.var(table.mean(axis=1), ddof=1)
    items = 3 * np.var(table.mean(axis=0), ddof=1)
    assert pooled_error(table[None])[0] == pytest.approx(np.sqrt((seeds + items) / 21))
    f = 21 * table.mean() ** 2 / (seeds + items)
    freedom = (seeds + items) ** 2 / (seeds**2 / 2 + items**2 / 6)
    assert pooled_test(table[None], binary=False)[2][0] == pytest.approx(stats.f.sf(f, 1, freedom))


def test_standard_error_of_one_item_is_unknown() -> None:
    assert np.isnan(standard_error(np.array([[1.0]])))[0]
    scores = np.random.default_rng(0).normal(size=(3, 20))
    np.testing.assert_allclose(standard_error(scores), stats.sem(scores, axis=1))


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_scipys_over_what_was_tested(given_p: list[float | None]) -> None:
    p = np.array([np.nan if one is None else one for one in given_p])
    q = benjamini_hochberg(p)
    known = np.isfinite(p)
    assert np.array_equal(np.isnan(q), ~known)
    if known.any():
        np.testing.assert_allclose(q[known], stats.false_discovery_control(p[known]))
        assert (q[known] >= p[known] - 1e-15).all()
