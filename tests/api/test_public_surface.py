"""``import traitmap as tm``: every command's twin, typed and described, and records that fit a screen."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

import traitmap as tm
from traitmap import analysis, exports, imports, matrix, report
from traitmap.cli import app

# `matrix` and `report` are packages too, whose names a function must not take
TWINS = {
    **{"init": "write_template", "matrix": "read_matrix"},
    **{"report": "write_report", "import": "import_results", "atlas": "atlas_add"},
}
# options that say how an answer is shown or written, or that have another word from Python
SHOWN = {"as_json", "as_csv", "csv", "html", "intervals", "parquet", "list_", "open_"}
OTHERWISE = {
    "init": {"from_"},  # write_study_of_folder
    "audit": {"pack", "plan", "junit", "markdown", "card"},  # packs, plan_audit; what is written
    "check": {"plan", "model_shape", "gpus", "items", "group_size"},  # plan_growth
    "matrix": {"measured_only"},  # predicted
    "explain": {"permutations"},  # n_permutations
    "recommend": {"evaluate", "holdout"},  # evaluate_recommenders
    "report": {"output"},  # path
    "compare": {"verbose"},  # how much is shown
    "import": {"metric"},  # metrics
    "export": {"format_", "source"},  # format, sources
    "query": {"memory"},  # megabytes
    "pretrain": {"output"},  # folder
}
RECORDS = {
    *("Answer", "Audit", "CellVerdict", "Checkpoints", "ComparedCell", "Comparison", "Forecast", "Verdicts"),
    *("Cell", "Check", "Composite", "Engine", "Explanation", "Fault", "Growth", "ImportReport", "Interval"),
    "Mix",
    *("PairFeatures", "Probe", "Profile", "Progress", "Recommendation", "RecommenderEvaluation", "Run"),
    *("RunStatus", "Study", "TaskText", "Traits", "TransferMatrix", "Viewing", "Waste"),
}
ERRORS = {
    *("DataError", "EngineError", "MatrixError", "ModelError", "RunError", "StudyError", "TraitmapError"),
    "UserError",
}
BESIDES = {
    *("ask_names", "complete", "decompose", "evaluate_recommenders", "figure_names", "load_study"),
    *("open_run", "plan_audit", "plan_growth", "rename", "streamed_query", "verdicts", "write_profile"),
    *("atlas_report", "write_study_of_folder"),
    *("auc", "mean_regret", "ndcg", "pearson", "regret", "spearman"),
}
FUNCTIONS = sorted(name for name in tm.__all__ if inspect.isfunction(getattr(tm, name)))


def commands() -> list[str]:
    return sorted(get_command(app).commands)


def test_the_public_names_are_these() -> None:
    assert set(tm.__all__) == {TWINS.get(name, name) for name in commands()} | RECORDS | ERRORS | BESIDES


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_twin_with_its_settings(command: str) -> None:
    settings = inspect.signature(getattr(tm, TWINS.get(command, command))).parameters
    parameters = get_command(app).commands[command].params
    options = {option.name for option in parameters if option.param_type_name == "option"}
    # how a table is read are the settings of read_matrix, which gives the matrix that the twin takes
    reading = set(inspect.signature(tm.read_matrix).parameters) if "row_name" in options else set()
    assert options - SHOWN - settings.keys() - reading == OTHERWISE.get(command, set())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_setting_is_spelt_out_with_its_type_and_described(name: str) -> None:
    function = getattr(tm, name)
    check_signature(function)
    parameters = inspect.signature(function).parameters
    described = inspect.getdoc(function) or ""
    assert len(described.splitlines()) > 1
    assert "listener" not in parameters or "listener:" in described


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_so_are_the_methods_of_the_records(name: str) -> None:
    record = getattr(tm, name)
    assert len((inspect.getdoc(record) or "").splitlines()) > 1
    if name in ("Study", "Engine"):  # pydantic's own, and a protocol
        return
    for method, value in vars(record).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            check_signature(value)


@pytest.mark.parametrize("name", ["explain", "profile", "recommend", "status", "traits", "write_report"])
def test_a_run_answers_with_the_settings_of_the_function(name: str) -> None:
    method = getattr(tm.Run, {"write_report": "report"}.get(name, name))
    settings, same = (
        {parameter.name: parameter.default for parameter in list(signature.parameters.values())[1:]}
        for signature in (inspect.signature(method), inspect.signature(getattr(tm, name)))
    )
    assert settings == same


def check_signature(function: Any) -> None:
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), parameter.name
        if parameter.name != "self":
            assert parameter.annotation not in (parameter.empty, "Any"), parameter.name
    assert signature.return_annotation is not signature.empty
    assert inspect.getdoc(function), function


@pytest.mark.parametrize("package", [tm, tm.api, analysis, matrix, report, exports, imports])
def test_every_lazy_name_is_where_the_stub_says(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None, name


def test_importing_costs_nothing() -> None:
    code = "import sys, traitmap as tm; tm.Progress; print({'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_stubs_and_the_types_are_in_the_package() -> None:
    package = Path(tm.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "__init__.pyi").is_file()


@pytest.fixture(scope="module")
def results(prepared_run: Path) -> dict[str, Any]:
    run = tm.open_run(prepared_run)
    return {
        "run": run,
        "status": tm.status(run),
        "matrix": run.matrix(),
        "traits": run.traits(n_bootstrap=20, n_permutations=20),
        "profile": run.profile(),
        "explanation": run.explain(n_permutations=99),
        "recommendation": run.recommend(target="reviews"),
        "evaluation": tm.evaluate_recommenders(run.matrix()),
        "cells": tm.api.cell_details(run),
    }


RESULTS = (
    *("run", "status", "matrix", "traits", "profile", "explanation", "recommendation"),
    *("evaluation", "cells"),
)


@pytest.mark.parametrize("name", RESULTS)
def test_a_repr_fits_a_screen(results: dict[str, Any], name: str) -> None:
    assert is_dataclass(results[name])
    text = repr(results[name])
    assert text.startswith(type(results[name]).__name__)
    assert text.count("\n") < 25
    assert len(text) <= 4000


def test_a_large_matrix_fits_as_well() -> None:
    names = tuple(f"a model with a long name, number {number}" for number in range(500))
    values = np.random.default_rng(0).random((500, 500))
    large = tm.TransferMatrix(names, names, values, values[0])
    assert "array(500, 500)" in repr(large)
    assert "500 in all" in repr(large)
    assert len(repr(large)) <= 4000


def test_frames_hold_the_numbers_of_the_records(results: dict[str, Any]) -> None:
    matrix, traits = results["matrix"], results["traits"]
    pooled = matrix.to_frame().query("seed.isna() and source != '__baseline__'")
    assert np.array_equal(pooled.pivot(index="source", columns="target", values="value").loc[
        list(matrix.sources), list(matrix.targets)].to_numpy(), matrix.values)  # fmt: skip
    loadings = traits.to_frame().pivot(index="target", columns="component", values="loading")
    assert np.array_equal(loadings.loc[list(traits.targets)].to_numpy(), traits.loadings, equal_nan=True)
    effects = results["explanation"].to_frame()
    assert list(effects["name"]) == [
        effect.name for effect in (*results["explanation"].joint, *results["explanation"].alone)
    ]
    ranked = results["recommendation"].to_frame()
    assert list(ranked["gain"]) == [advice.gain.value for advice in results["recommendation"].ranked]
    profile = results["profile"]
    assert list(profile.to_frame()["dataset"]) == [row.dataset for row in profile.rows()]


def test_a_frame_is_as_good_as_a_file(results: dict[str, Any], tmp_path: Path) -> None:

    results["matrix"].to_csv(tmp_path / "m.csv")
    frame = pd.read_csv(tmp_path / "m.csv")
    read = tm.read_matrix(tmp_path / "m.csv")
    for table in (frame, frame.set_index("source"), frame.set_index("source").rename_axis(None)):
        again = tm.read_matrix(table)
        assert again.sources == read.sources
        assert np.array_equal(again.values, read.values)
    long = tm.read_matrix(results["matrix"].to_frame())
    assert np.array_equal(long.values, results["matrix"].values)
    rows = [{"task": "a", "input": "one"}, {"task": "a", "input": "two", "output": "2"}]
    assert tm.profile(pd.DataFrame(rows)).roles == {"a": "dataset"}
    gains = pd.DataFrame({"source": ["arithmetic"], "gain": [0.25], "stderr": [0.05]})
    gains.to_csv(tmp_path / "probe.csv", index=False)
    probed = [tm.recommend(read, target="reviews", probe=probe) for probe in (gains, tmp_path / "probe.csv")]
    assert probed[0].to_json() == probed[1].to_json()


def test_a_run_its_folder_and_its_matrix_are_the_same_subject(results: dict[str, Any]) -> None:
    from prepared_run import prepared_study

    run = results["run"]
    study = prepared_study(run.folder.parent)
    for subject in (run, run.folder, str(run.folder), study, results["matrix"]):
        assert np.array_equal(tm.read_matrix(subject).values, results["matrix"].values)
    assert tm.traits(run, n_bootstrap=20, n_permutations=20).to_json() == results["traits"].to_json()


def test_progress_is_shown_where_somebody_looks(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = results["matrix"]
    tm.evaluate_recommenders(matrix)
    assert capsys.readouterr().err == ""  # a pipe
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tm.evaluate_recommenders(matrix)
    assert "hold out" in capsys.readouterr().err
    tm.evaluate_recommenders(matrix, listener=lambda report: None)
    assert capsys.readouterr().err == ""
