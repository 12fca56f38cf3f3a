"""Runs on Ray and plans of any size from the command line: what is asked wrongly ends in one message."""

import json
import sys
from pathlib import Path

import pytest

import traitmap as tm
from traitmap.cli import app, main
from traitmap.errors import RunError
from traitmap.runs.cluster.engine import import_ray


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["traitmap", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def mini(tmp_path: Path) -> str:
    assert app(["init", str(tmp_path / "mini"), "--template", "mini"], standalone_mode=False) in (0, None)
    return str(tmp_path / "mini" / "study.yaml")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--executor", "dask"), "legal: local, ray"),
        (("--workers", "2"), "add --executor ray"),
        (("--executor", "ray", "--workers", "0"), "workers 0"),
        (("--executor", "ray", "--address", "127.0.0.1:1"), "cannot be used"),
    ],
)
def test_what_cannot_be_run_is_told_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mini: str,
    tmp_path: Path,
    words: tuple[str, ...],
    told: str,
) -> None:
    assert command(monkeypatch, "run", mini, "--output", str(tmp_path / "runs"), *words) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_without_ray_its_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install 'traitmap\[ray\]'"):
        import_ray()


def test_a_plan_needs_no_study(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("check", "--plan", "20x10", "--model-shape", "llama-8b", "--gpus", "4")
    command(monkeypatch, *words, "--json")
    told = json.loads(capsys.readouterr().out)
    expected = tm.api.plan_growth("20x10", workers=4, model_shape="llama-8b").to_json()
    assert told == json.loads(json.dumps(expected))
    assert (told["adapters"], told["targets"], told["workers"]) == (20, 10, 4)
    assert told["worker_hours"] / 4 <= told["hours"] * 1.001
    assert not told["measured"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--plan", "20"), "as in 200x100"),
        (("--plan", "0x4", "--model-shape", "llama-8b"), "as in 200x100"),
        (("--plan", "20x10"), "give either --model-shape"),
        (("--plan", "20x10", "--model-shape", "gpt"), "legal: llama-1b"),
        (("--plan", "20x10", "--model-shape", "llama-8b", "--gpus", "0"), "gpus 0"),
        (("--plan", "20x10", "--model-shape", "llama-70b"), "do not fit one 80 GB GPU"),
    ],
)
def test_a_plan_that_cannot_be_read_is_told_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    assert command(monkeypatch, "check", *words) == 2
    assert told in capsys.readouterr().err


def test_a_study_that_has_not_been_run_has_no_measured_costs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mini: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "check", mini, "--plan", "20x10", "--gpus", "2") == 2
    assert "no such run folder" in capsys.readouterr().err
