"""The command line translates: data on stdout, messages on stderr, exit codes as promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from traitmap.cli import app

TRAITMAP = (sys.executable, "-m", "traitmap.cli")


def traitmap(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAITMAP, *words], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a new user has run the local-data template."""
    folder = tmp_path_factory.mktemp("user")
    assert traitmap("init", "my-study", cwd=folder).returncode == 0
    done = traitmap("run", "my-study/study.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return folder


def run_of(folder: Path) -> str:
    (place,) = (folder / "runs").iterdir()
    return f"runs/{place.name}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, traitmap.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'datasets', 'pydantic', 'lm_eval'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = traitmap(command, "--help")
    assert done.returncode == 0
    assert f"Example: traitmap {command}" in done.stdout


def test_check_shows_the_study_before_it_costs_anything(finished: Path) -> None:
    done = traitmap("check", "my-study/study.yaml", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "tokens" in done.stdout
    told = json.loads(traitmap("check", "my-study/study.yaml", "--json", cwd=finished).stdout)
    assert {"sources", "targets", "estimate"} <= told.keys()
    assert told["estimate"]["measured"] is True


def test_matrix_in_every_form_is_the_same_matrix(finished: Path) -> None:
    run = run_of(finished)
    told = json.loads(traitmap("matrix", run, "--json", cwd=finished).stdout)
    keys = "source target seed metric value n stderr gain gain_low gain_high p q unparsed status"
    assert {"sources", "targets", "baseline", "cells"} <= told.keys()
    assert all(set(keys.split()) <= cell.keys() for cell in told["cells"])
    pooled = {(c["source"], c["target"]): c["value"] for c in told["cells"] if c["seed"] is None}
    assert len(pooled) == len(told["sources"]) * len(told["targets"])
    assert traitmap("matrix", run, "--csv", "m.csv", cwd=finished).returncode == 0
    header, *lines = (finished / "m.csv").read_text().splitlines()
    assert header.split(",") == ["source", *told["targets"]]
    rows = {line.split(",")[0]: [float(value) for value in line.split(",")[1:]] for line in lines}
    assert rows.keys() == {"__baseline__", *told["sources"]}
    for (source, target), value in pooled.items():
        assert rows[source][told["targets"].index(target)] == pytest.approx(value)
    table = traitmap("matrix", run, cwd=finished).stdout
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "\x1b[" not in table


def test_status_traits_and_report_answer(finished: Path) -> None:
    run = run_of(finished)
    assert json.loads(traitmap("status", run, "--json", cwd=finished).stdout)["complete"] is True
    traits = traitmap("traits", run, "--json", cwd=finished)
    if traits.returncode == 0:
        assert {"n_components", "explained_variance_ratio"} <= json.loads(traits.stdout).keys()
    else:  # a table too small for traits is the user's to mend, not a traceback
        assert traits.returncode == 2
        assert "Traceback" not in traits.stderr
    done = traitmap("report", run, cwd=finished)
    assert done.stdout.strip() == f"{run}/report.html"
    assert (finished / run / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "absent.yaml"), "absent.yaml"),
        (("matrix", "absent"), "absent"),
        (("status", "."), "run.json"),
        (("init", "x", "--template", "unknown"), "local-data"),
    ],
)
def test_what_the_user_must_mend_is_one_message_and_exit_code_two(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = traitmap(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
