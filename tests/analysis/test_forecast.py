"""Forecasts: products of directions, and what a ranking is worth on measured gains."""

import json
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

from traitmap.analysis.forecast import (
    Forecast,
    correlations,
    forecast_from_json,
    forecast_of,
    forecast_table,
    judged,
    popularity,
    standings_table,
)
from traitmap.api import read_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.table import to_csv

SOURCES = tuple(f"s{n}" for n in range(10))
TARGETS = tuple(f"t{n}" for n in range(8))
RESULTS = Path(__file__).parents[2] / "examples" / "real" / "results"


def measured(gains: np.ndarray, lower: tuple[str, ...] = ()) -> TransferMatrix:
    better = {target: target not in lower for target in TARGETS}
    signs = np.array([1 if better[target] else -1 for target in TARGETS])
    return TransferMatrix(
        SOURCES,
        TARGETS,
        50 + gains * signs,
        np.full(len(TARGETS), 50.0),
        conditions={"higher_is_better": better},
    )


def planted(noise: float, seed: int = 0) -> tuple[Forecast, np.ndarray]:
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=(10, 8))
    gains = signal + noise * generator.normal(size=signal.shape)
    return Forecast(SOURCES, TARGETS, signal, np.full_like(signal, 0.1)), gains


def test_products_of_directions_and_their_errors():
    steps = {"s": np.array([[1.0, 0.0], [3.0, 0.0]])}
    gradients = {"t": np.array([[2.0, 5.0], [2.0, 1.0]]), "u": np.array([[0.0, 1.0], [1.0, 1.0]])}
    found = forecast_of(steps, gradients, {})
    assert found.gain.tolist() == [[4.0, 1.0]]  # means of 2, 2, 6, 6 and of 0, 1, 0, 3
    # t: the two parts of s give 2 and 6, those of t alike; u: 0.5 and 1.5, and 0 and 2
    assert found.stderr == pytest.approx(np.sqrt([[8 / 2, 0.5 / 2 + 2 / 2]]))


def test_rank_correlation_within_a_target_over_what_both_know():
    gains = np.array([[1.0, 5], [2, 5], [3, 5], [9, 5], [nan, 5]])
    ranking = np.array([[10.0, 1], [20, 2], [40, 3], [30, 4], [0, 5]])
    found = correlations(ranking, gains)
    assert found[0] == pytest.approx(0.8)  # Spearman's of 1 2 3 4 and 1 2 4 3
    assert isnan(found[1])  # a column without any difference ranks nobody


def test_popularity_leaves_the_target_itself_out():
    gains = np.array([[1.0, 1.0, 9.0], [-1.0, -1.0, -9.0], [0.0, 0.0, 0.0]])
    gains[:, 2] *= -1
    found = popularity(gains)
    assert found[0, 2] > 0 > found[0, 0] + found[0, 1] - found[0, 2]
    assert found[0, 0] == pytest.approx(0.0)  # +1 and -1 in the other two, both standardised
    assert isnan(popularity(gains[:, :1])[0, 0])


def test_a_forecast_that_says_the_gains_is_found_and_one_that_does_not_is_told():
    good, gains = planted(noise=1.0)
    found = judged(good, measured(gains, lower=("t3",)), measured_on="a run")
    by_name = {standing.name: standing for standing in found.standings}
    assert by_name["forecast"].correlation.low > 0.3
    assert by_name["forecast"].p < 0.01
    assert by_name["forecast - popularity"].correlation.low > 0
    assert found.worth.startswith("On a run it goes with measured gains by a rank correlation of +0.")
    _, others = planted(noise=1.0, seed=7)
    idle = judged(good, measured(others), measured_on="a run")
    assert idle.worth.startswith("That this forecast is worth anything cannot be told here. On a run")
    assert good.worth.startswith("Nobody has measured")


def test_the_test_of_a_worthless_forecast_keeps_its_level_where_columns_go_together():
    """Columns that share a factor are no independent evidence: the permuted sources must keep them."""
    generator, hits, draws = np.random.default_rng(3), 0, 200
    for _ in range(draws):
        common, noise = generator.normal(size=(2, 10, 1)), generator.normal(size=(2, 10, 8))
        signal, gains = 2 * common + noise
        record = judged(Forecast(SOURCES, TARGETS, signal, np.ones_like(signal)), measured(gains))
        hits += next(one for one in record.standings if one.name == "forecast").p < 0.05
    assert 0.01 <= hits / draws <= 0.09


def test_own_targets_take_no_part():
    good, gains = planted(noise=0.5)
    renamed = Forecast(TARGETS + SOURCES[8:], TARGETS, good.gain, good.stderr)
    spoilt = gains.copy()
    spoilt[range(8), range(8)] = 1000.0
    table = TransferMatrix(renamed.sources, TARGETS, 50 + spoilt, np.full(8, 50.0))
    clean = TransferMatrix(renamed.sources, TARGETS, 50 + gains, np.full(8, 50.0))
    assert judged(renamed, table).standings[0] == judged(renamed, clean).standings[0]
    # and the target of the source that one is a variation of
    spoilt[8, 0] = 1000.0
    made = {"sources": {renamed.sources[8]: {"variation": {"parents": ["t0"]}}}}
    with_variation = replace(table, values=50 + spoilt, conditions=made)
    without = replace(clean, conditions=made)
    assert judged(renamed, with_variation).standings[0] == judged(renamed, without).standings[0]


def test_tables_and_json_say_the_worth_first():
    good, gains = planted(noise=1.0)
    found = judged(good, measured(gains), measured_on="a run")
    assert next(iter(json.loads(json.dumps(found.to_json())))) == "worth"
    assert "forecast - popularity" in to_csv(standings_table(found))
    best = SOURCES[int(good.gain[:, 0].argmax())]
    first = to_csv(forecast_table(found)).splitlines()[1]
    assert first.startswith(f't0,"{best},')
    frame = found.to_frame()
    assert frame[(frame.target == "t0") & (frame["rank"] == 1)].source.item() == best


def test_too_little_to_judge_is_not_judged():
    good, gains = planted(noise=1.0)
    few = measured(np.where(np.arange(10)[:, None] < 3, gains, nan))
    assert judged(good, few).standings == ()
    assert judged(good, few).worth.startswith("Nobody has measured")


@pytest.mark.parametrize("run", sorted(path.stem for path in RESULTS.glob("forecast-*.json")))
def test_the_figures_of_the_docs_are_those_of_the_files(run):
    forecast = forecast_from_json(json.loads((RESULTS / f"{run}.json").read_text()))
    found = judged(forecast, read_matrix(RESULTS / f"{run.removeprefix('forecast-')}-matrix.json"))
    page = (RESULTS.parents[2] / "docs" / "forecast.md").read_text()
    by_name = {standing.name: standing for standing in found.standings}
    for name in ("forecast", "popularity", "popularity + forecast", "forecast - popularity"):
        value = by_name[name].correlation
        assert f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]" in page, name
    assert f"{by_name['forecast'].targets} targets" in page
