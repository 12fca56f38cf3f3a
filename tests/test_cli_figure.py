"""The command figure: names listed, files written, faults told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from told import Told, traitmap
from traitmap import api
from traitmap.cli.app import figures_of_run, run_folders, targets_of_run


@pytest.fixture(scope="module")
def table(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared run's matrix as a table: its figures need no explanation and come at once."""

    path = tmp_path_factory.mktemp("table") / "scores.csv"
    api.open_run(prepared_run).matrix().to_csv(path)
    return path


def test_names_are_listed_and_each_can_be_drawn(table: Path, tmp_path: Path) -> None:
    listed = traitmap("figure", table, "--list")
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert names[:2] == ["matrix", "scree"]
    titles = json.loads(traitmap("figure", table, "--list", "--json").out)
    assert list(titles) == names
    assert titles["profile-1"] == "Effects of arithmetic"
    for name in (*names[:3], names[-1]):
        done = traitmap("figure", table, name, "-o", tmp_path / f"{name}.svg")
        assert done == Told(0, f"{tmp_path / name}.svg\n", done.err)
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")


def test_a_run_gives_pdf_and_png(prepared_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("typst", reason="figures need the extra traitmap[figures]")
    assert (
        traitmap("figure", prepared_run, "matrix", "-o", tmp_path / "deep/m.pdf", "--width", "85").code == 0
    )
    assert (tmp_path / "deep/m.pdf").read_bytes().startswith(b"%PDF")
    told = traitmap("figure", prepared_run, "scree", "-o", tmp_path / "s.PNG", "--dpi", "60", "--json").out
    assert json.loads(told) == {"figure": "scree", "path": str(tmp_path / "s.PNG")}
    assert (tmp_path / "s.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("absent-figure",), "there are matrix, scree"),
        ((), "--list"),
        (("matrix", "--list"), "--list"),
        (("matrix", "-o", "m.jpg"), ".svg, .png, .pdf"),
        (("matrix", "-o", "m"), ".svg, .png, .pdf"),
        (("matrix", "-o", "/proc/nowhere/m.svg"), "cannot be written"),
        (("matrix", "--width", "-3", "-o", "m.svg"), "--width -3"),
    ],
)
def test_what_the_user_must_mend(table: Path, words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = traitmap("figure", table, *words, cwd=tmp_path)
    assert done.code == 2
    assert told in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


class Typed:
    """What the shell has of the command line so far."""

    def __init__(self, **params: object) -> None:
        self.params = params


def test_the_shell_completes_runs_targets_and_figures(prepared_run: Path, tmp_path: Path) -> None:
    folder = prepared_run.parent
    assert run_folders(Typed(), f"{folder}/") == [str(prepared_run)]
    assert run_folders(Typed(), f"{folder}/mi") == [str(prepared_run)]
    assert run_folders(Typed(), f"{folder}/x") == []
    assert run_folders(Typed(), str(folder)) == [f"{folder}/"]
    here = Path.cwd()
    try:
        os.chdir(folder.parent)
        assert run_folders(Typed(), "") == ["runs/mini"]
    finally:
        os.chdir(here)
    assert targets_of_run(Typed(run=prepared_run), "re") == ["reviews"]
    assert targets_of_run(Typed(run=tmp_path), "") == []
    assert targets_of_run(Typed(), "") == []
    words = f"traitmap recommend {prepared_run} --target re"
    code = "import sys; sys.argv[0] = 'traitmap'; from traitmap.cli import main; main()"
    asked = {"_TRAITMAP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["reviews"]
    assert figures_of_run(Typed(run=tmp_path), "") == ["matrix"]
    api.open_run(prepared_run).report(tmp_path / "report.html", fast=True)
    assert {"matrix", "scree"} <= set(figures_of_run(Typed(run=tmp_path), ""))
    assert figures_of_run(Typed(run=tmp_path), "scr") == ["scree"]
