"""Recommendations for hidden targets, judged: known losses, and the same answers as single questions give."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from traitmap.analysis.recommendation.held_out import judged, recommend_each
from traitmap.analysis.recommendation.recommend import recommend_sources
from traitmap.analysis.recommendation.records import Advice, Recommendation
from traitmap.errors import MatrixError
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Interval, unknown
from traitmap.progress import Progress


def advice(source: str, predicted: float, measured: float) -> Advice:
    truth = Interval(measured) if measured == measured else unknown("not measured")
    return Advice(source, Interval(predicted, predicted - 2, predicted + 2), 0.0, nan, nan, (), (), truth)


def told(predicted: list[float], measured: list[float], popular: int, unit: str = "points") -> Recommendation:
    names = [f"s{at}" for at in range(len(predicted))]
    ranked = [advice(*one) for one in zip(names, predicted, measured, strict=True)]
    ranked.sort(key=lambda one: -one.gain.value)
    first = ranked[0].measured.value
    picks = {"first": first, "first_of_popularity": measured[popular]}
    picks |= {"random": float(np.mean(measured)), "best": max(measured)}
    return Recommendation(
        "t",
        False,
        unit,
        tuple(ranked),
        (),
        "inconclusive",
        "",
        "",
        1.0,
        (names[popular],),
        0.0,
        picks,
        (),
        (),
        {},
    )


@pytest.fixture
def matrix(tmp_path) -> TransferMatrix:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    table = 0.5 + 0.1 * rng.normal(size=(6, 1)) + 0.03 * rng.normal(size=(6, 5))
    lines = ["source,a,b,c,d,e", "__baseline__,0.5,0.5,0.5,0.5,0.5"]
    lines += [f"s{at}," + ",".join(f"{v:.4f}" for v in row) for at, row in enumerate(table)]
    place = tmp_path / "matrix.csv"
    place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_matrix(place)


def test_losses_are_against_the_best_there_was() -> None:
    found = judged(
        [
            told([3, 2, 1], [5, 9, 1], 1),
            told([3, 2, 1], [4, 0, 2], 2),
            told([1, 2, 3], [0.1, 0.2, 0.3], 0, "bits"),
        ]
    )
    assert found.targets == 2  # bits are not points
    assert found.lost["model"].value == pytest.approx((4 + 0) / 2)
    assert found.lost["popularity"].value == pytest.approx((0 + 2) / 2)
    assert found.lost["random"].value == pytest.approx((9 - 5 + 4 - 2) / 2)
    assert found.saved.value == pytest.approx(found.lost["popularity"].value - found.lost["model"].value)
    assert found.rank.value == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert found.covered.value == pytest.approx(100 * np.mean([2 / 3, 1, 2 / 3]), abs=20)
    assert found.lost["model"].low <= 2 <= found.lost["model"].high


def test_one_target_has_no_interval_and_none_has_no_number() -> None:
    alone = judged([told([3, 2, 1], [5, 9, 1], 1)])
    assert alone.lost["model"].value == 4
    assert np.isnan(alone.lost["model"].low)
    assert not judged([]).lost["model"].known


def test_each_target_is_told_as_a_single_question_would_be(matrix: TransferMatrix) -> None:
    heard: list[Progress] = []
    found = recommend_each(matrix, listener=heard.append)
    assert [one.target for one in found.recommendations] == list(matrix.targets)
    single = recommend_sources(matrix, "c")
    again = found.of("c")
    assert again is not None
    assert [one.source for one in again.ranked] == [one.source for one in single.ranked]
    assert [one.gain for one in again.ranked] == [one.gain for one in single.ranked]
    assert found.of("absent") is None
    assert heard[-1].done == heard[-1].total == 5


def test_too_few_targets_are_said_to_be_too_few(matrix: TransferMatrix) -> None:
    small = replace(
        matrix,
        targets=matrix.targets[:3],
        values=matrix.values[:, :3],
        baseline=matrix.baseline[:3],
        cells=tuple(one for one in matrix.cells if one.target in matrix.targets[:3]),
        base_cells=tuple(one for one in matrix.base_cells if one.target in matrix.targets[:3]),
    )
    with pytest.raises(MatrixError, match="at least 3"):
        recommend_each(small)
