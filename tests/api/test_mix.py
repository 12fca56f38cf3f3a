"""Mixtures and merges of a run on the fake engine: proposed, probed, shown, as data, and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prepared_run import prepared_study
from traitmap import api
from traitmap.analysis.mixing import named
from traitmap.api.mix import entry_of, mix
from traitmap.cli import main
from traitmap.data.fingerprints import sign_conflicts
from traitmap.engine.fake import FakeEngine
from traitmap.errors import MatrixError, RunError
from traitmap.report.combine import mix_view
from traitmap.report.page import render_report
from traitmap.study.settings import Source, Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished run with four mixtures and four merges of its sources."""
    plain = prepared_study(tmp_path_factory.mktemp("mix"), seeds=(0,))
    names = [one.name for one in plain.sources]
    made = [
        entry_of(named((names[at], names[at + 1]), (0.5, 0.5), method))
        for method in ("concat", "cat")
        for at in range(4)
    ]
    whole = plain.model_copy(update={"sources": (*plain.sources, *map(Source.model_validate, made))})
    api.run(whole, engine=FakeEngine())
    return whole


def test_measured_combinations_are_known_and_predicted_ones_are_not_data(study: Study) -> None:
    result = mix(study, targets=["reviews", "stars"], keep=["toxicity"])
    assert {cell.combination.way for cell in result.cells} == {"concat", "cat"}
    assert len(result.cells) == 8 * 5
    run = api.read_matrix(study)
    named_rows = {one.combination.name for one in result.proposals if one.status == "predicted"}
    assert not named_rows & set(run.sources)
    assert not run.predicted.any()
    assert {one.status for one in result.proposals} <= {"predicted", "measured"}
    assert result.single is not None
    assert result.single.source in run.sources
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert told["lines"]["rests on"] == dict(result.lines)["rests on"]
    assert told["proposals"][0]["status"] in ("predicted", "measured")


def test_combinations_take_no_part_in_traits_and_are_no_parents_of_candidates(study: Study) -> None:
    result = mix(study, targets=["stars"], top=400)
    made = {one.name for one in study.sources if one.concat or one.merge}
    assert not made & {name for one in result.proposals for name in one.combination.parents}
    aside = api.traits(study, n_bootstrap=0).aside  # and one of two sources whose rows are alike
    assert made == {name for name, reason in aside.items() if reason.startswith("made from")}


def test_probes_are_run_and_then_measured(tmp_path: Path) -> None:
    plain = prepared_study(tmp_path, sources=("arithmetic", "inference", "reviews"), seeds=(0,))
    api.run(plain, engine=FakeEngine())
    before = mix(plain, targets=["reviews"])
    assert not before.cells
    assert "no combination is measured" in dict(before.lines)["rests on"]
    folder = tmp_path / "mini"
    after = mix(folder, targets=["reviews"], method="concat", most=2, probe=3, engine=FakeEngine())
    assert len(after.added) == 3
    assert {one["name"] for one in after.added} <= set(api.read_matrix(folder).sources)
    assert len({cell.combination.name for cell in after.cells}) == 3
    assert "held-out errors of 3 by concat" in after.rests_on
    with pytest.raises(MatrixError, match="no combination is left"):
        mix(folder, targets=["reviews"], method="concat", most=2, probe=1, engine=FakeEngine())


def test_probes_of_a_study_with_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the study file, or from its folder; elsewhere a run cannot know where the files lie."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    for name in "abc":
        rows = [
            {"text": f"{name} is number {at}", "label": ("good", "bad")[(at + len(name)) % 2]}
            for at in range(30)
        ]
        (home / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    rows_of = {"prompt": "{{ text }} is", "label": "label"}
    asked = {
        "name": "beside",
        "model": "builtin:mini",
        "training": {"max_steps": 2, "batch_size": 4},
        "lora": {"r": 2},
        "output": str(tmp_path / "runs"),
        "sources": [
            {"name": name, "path": f"{name}.jsonl", "completion": " {{ label }}", **rows_of} for name in "abc"
        ],
        "targets": [{"name": name, "path": f"{name}.jsonl", **rows_of} for name in "ab"],
    }
    study_file, folder = home / "study.yaml", tmp_path / "runs" / "beside"
    study_file.write_text(json.dumps(asked))
    api.run(study_file, engine=FakeEngine())
    monkeypatch.chdir(elsewhere)
    probed: dict[str, Any] = {"targets": ["a"], "method": "concat", "most": 2, "engine": FakeEngine()}
    with pytest.raises(RunError, match=r"a\.jsonl is not in this one; give the study file"):
        mix(folder, probe=1, **probed)
    assert len(mix(study_file, probe=1, **probed).added) == 1
    monkeypatch.chdir(home)
    assert len(mix(folder, probe=1, **probed).added) == 1
    assert len(api.read_matrix(folder).sources) == 3 + 2


def test_a_table_has_no_study_to_add_to(study: Study) -> None:
    matrix = api.read_matrix(study)
    with pytest.raises(RunError, match="no study to add combinations to"):
        mix(matrix, targets=["stars"], probe=1)


def test_terminal_page_and_command_show_the_same(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    result = mix(study, targets=["reviews", "stars"], keep=["toxicity"])
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(mix_view(result))
    shown = console.export_text()
    for one in result.proposals:
        assert one.combination.parents[0] in shown
    errors = [f"{one.rmse.value:.2f} [{one.rmse.low:.2f}, {one.rmse.high:.2f}]" for one in result.scores]
    assert len(errors) >= 8
    assert all(error in shown for error in errors)
    told = result.to_json()["scores"][0]["rmse"]
    assert told["low"] < told["value"] < told["high"]
    contents = api.report_contents(Path(study.output) / study.name, why=False, which=False)
    assert contents.mix is not None
    page = render_report(contents)
    assert 'id="combine"' in page
    assert "Combinations, predicted and measured" in page
    of_all = [
        f"{one.rmse.value:.2f} [{one.rmse.low:.2f}, {one.rmse.high:.2f}]" for one in contents.mix.scores
    ]
    assert all(error in page for error in of_all)
    with pytest.raises(SystemExit) as end:
        main(["mix", str(Path(study.output) / study.name), "--targets", "reviews", "--json"])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["targets"] == ["reviews"]


def test_a_report_of_a_run_without_combinations_has_no_such_section(tmp_path: Path) -> None:
    plain = prepared_study(tmp_path, sources=("arithmetic", "reviews", "stars"), seeds=(0,))
    folder = api.run(plain, engine=FakeEngine()).folder
    assert 'id="combine"' not in render_report(api.report_contents(folder, why=False, which=False))


def test_an_unknown_method_is_told_with_the_legal_ones(study: Study) -> None:
    with pytest.raises(MatrixError, match=r"method 'average'; legal: concat, merge, cat"):
        mix(study, method="average")


def test_signs_of_updates_are_compared_entry_by_entry() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 30)), rng.standard_normal((50, 4))
    other = {"m": (rng.standard_normal((4, 30)), rng.standard_normal((50, 4)))}
    same, opposite = {"m": (a, 2 * b)}, {"m": (a, -b)}
    found = sign_conflicts({"one": {"m": (a, b)}, "same": same, "opposite": opposite, "other": other})
    assert found[0, 1] == pytest.approx(0)
    assert found[0, 2] == pytest.approx(1)
    x, y = b @ a, other["m"][1] @ other["m"][0]
    weight = np.abs(x * y)
    assert found[0, 3] == pytest.approx(weight[x * y < 0].sum() / weight.sum())
    assert 0.3 < found[0, 3] < 0.7
