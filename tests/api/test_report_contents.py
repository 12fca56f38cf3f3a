"""All that a run's report shows: computed as far as the run allows, with progress, the same every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prepared_run as prepared
from traitmap import api
from traitmap.api.report import report_contents
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.progress import Progress
from traitmap.report.figure_files import figure_names
from traitmap.report.records import ReportContents


@pytest.fixture(scope="module")
def told(prepared_run: Path) -> tuple[ReportContents, list[Progress]]:
    heard: list[Progress] = []
    return report_contents(prepared_run, cells=True, listener=heard.append), heard


def test_a_run_has_all_parts_and_shows_how_far_it_is(told: tuple[ReportContents, list[Progress]]) -> None:
    found, heard = told
    assert not found.missing
    assert found.explanation is not None
    assert found.profile is not None
    assert found.evaluation is not None
    assert [one.target for one in found.evaluation.recommendations] == list(found.matrix.targets)
    assert found.cells is not None
    stages = {one.stage for one in heard}
    assert {"traits", "profile", "features", "why", "recommend", "cells"} <= stages
    assert all(any(one.done == one.total for one in heard if one.stage == stage) for stage in stages)
    assert {"effects", "shares", "output-lengths", "recommendation-1"} <= set(figure_names(found))


def test_what_explain_says_alone_is_what_the_report_says(
    prepared_run: Path, told: tuple[ReportContents, list[Progress]]
) -> None:
    found = told[0]
    alone = api.explain(prepared_run, n_permutations=2000)
    assert found.explanation is not None
    assert [one.effect for one in found.explanation.joint] == [one.effect for one in alone.joint]
    assert [one.q for one in found.explanation.alone] == [one.q for one in alone.alone]


def test_a_recommendation_in_the_report_is_what_recommend_says(
    prepared_run: Path, told: tuple[ReportContents, list[Progress]]
) -> None:
    found = told[0].evaluation
    assert found is not None
    target = found.recommendations[0].target
    alone = api.recommend(prepared_run, target=target)
    assert [one.source for one in found.recommendations[0].ranked] == [one.source for one in alone.ranked]
    ours = np.array([one.gain.value for one in found.recommendations[0].ranked])
    np.testing.assert_allclose(ours, [one.gain.value for one in alone.ranked], rtol=1e-6, atol=1e-9)


def test_a_fast_report_leaves_out_what_takes_long(prepared_run: Path, tmp_path: Path) -> None:
    page = api.open_run(prepared_run).report(tmp_path / "fast.html", fast=True).read_text(encoding="utf-8")
    assert 'id="traits"' in page
    assert 'id="which"' not in page


def test_a_run_that_is_too_small_says_why(tmp_path: Path) -> None:
    study = prepared.prepared_study(
        tmp_path, sources=("arithmetic", "stars"), targets=("arithmetic", "stars"), seeds=(0,)
    )
    folder = api.run(study, engine=FakeEngine()).folder
    found = report_contents(folder)
    assert found.explanation is None
    assert found.evaluation is None
    assert "3" in found.missing["why"]
    assert "3" in found.missing["which"]
    page = api.open_run(folder).report(tmp_path / "small.html").read_text(encoding="utf-8")
    assert page.count('<p class="missing">') == 2


def test_a_matrix_of_very_many_pairs_has_its_report_without_what_takes_hours(tmp_path: Path) -> None:
    """More sources than any run has here: made up by the store's benchmark, of two items each."""
    script = Path(__file__).parents[2] / "benchmarks" / "store_size.py"
    size = ["--adapters", "201", "--targets", "20", "--items", "2", "--stages", "write"]
    subprocess.run([sys.executable, script, tmp_path, *size], check=True, capture_output=True)
    found = report_contents(tmp_path / "size", cells=True)
    assert (found.explanation, found.evaluation) == (None, None)
    assert "4,020 pairs" in found.missing["why"]
    assert found.missing["which"] == found.missing["why"]
    assert found.cells is not None


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        report_contents(tmp_path / "absent")
