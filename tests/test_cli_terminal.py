"""Every command in a pipe: 80 columns, no colour, data apart from words, JSON that parses, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.main import get_command

from told import Told, traitmap
from traitmap.cli import app
from traitmap.engine.fake import FakeEngine
from workspace import clear_output, quick

COMMANDS = get_command(app).commands
# Examples of the help that are not run here, and why.
NOT_RUN = {
    "traitmap init my-study": "the folder is there; test_cli.py runs it",
    "traitmap view runs/mini --open": "a server that waits; tests/api/test_viewing.py drives it",
    "traitmap view scores.csv": "the same",
    "traitmap audit my-adapter/": "adapters of one's own; test_cli_audit.py trains some",
    "traitmap audit runs/ft1 runs/ft2 --pack general,safety --fail-on loss:3": "the same",
    "traitmap audit merged-model/ --base org/base --limit 100": "the same",
    "traitmap checkpoints runs/mini --targets reviews,stars --keep toxicity": (
        "a run with checkpoints; tests/runs/test_merges_and_checkpoints.py makes one"
    ),
    "traitmap checkpoints runs/mini --predict reviews@45,stars@20": "the same",
    "traitmap mix runs/mini --method merge --probe 6": "it merges and evaluates; tests/api/test_mix.py does",
    "traitmap pretrain corpus.txt -o my-base --steps 2000": "it trains for minutes",
    "traitmap profile texts.jsonl --parser en_core_web_sm --csv profiles.csv": "a parser to be downloaded",
    "traitmap recommend runs/mini --target stars --prior other/runs/mini --prior atlas": (
        "other runs; test_cli_recommend.py has priors"
    ),
    "traitmap recommend --evaluate matrix.csv --texts texts.jsonl": "the docs run it",
    "traitmap run my-study/study.yaml --budget 0.25": "it trains; tests/api/test_budget.py runs budgets",
}


def examples(name: str) -> list[str]:
    return re.findall(r"Example: (.+)", COMMANDS[name].help or "")


ALL = [(name, line) for name in sorted(COMMANDS) for line in examples(name)]
RUN = [line for _, line in ALL if line not in NOT_RUN]
WITH_JSON = [
    line
    for name, line in ALL
    if line not in NOT_RUN and any("--json" in one.opts for one in COMMANDS[name].params)
]


def words_of(line: str) -> list[str]:
    return shlex.split(line)[1:]


def fits(told: Told) -> None:
    """Nothing on standard output is wider than 80 columns, and nothing at all has a control sequence."""
    assert "\x1b" not in told.out + told.err
    assert "Traceback" not in told.err
    assert not set("┏┃┡│└─━") & set(told.out), "rules of a table belong to a terminal"
    wide = [line for line in told.out.splitlines() if cell_len(line) > 80]
    assert not wide, wide


def test_every_command_has_an_example_that_can_be_parsed() -> None:
    assert {name for name, _ in ALL} == set(COMMANDS)
    for name, line in ALL:
        assert line.startswith(f"traitmap {name} ")
        COMMANDS[name].make_context(name, words_of(line)[1:])
    assert NOT_RUN.keys() <= {line for _, line in ALL}, "an example has changed"


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_fits(name: str) -> None:
    told = traitmap(*([name] if name else []), "--help")
    assert told.code == 0
    fits(told)


@pytest.mark.parametrize("line", RUN)
def test_examples_run_and_fit(line: str, workspace: Path) -> None:
    clear_output(words_of(line), workspace)
    told = traitmap(*quick(words_of(line)), cwd=workspace)
    assert told.code == 0, told.err
    fits(told)


@pytest.mark.parametrize("line", WITH_JSON)
def test_json_is_all_that_stands_on_standard_output(line: str, workspace: Path) -> None:
    words = quick(words_of(line))
    clear_output(words, workspace)
    if words[0] == "query":
        words[2] += " limit 3"
    told = traitmap(*words, "--json", cwd=workspace)
    assert told.code == 0, told.err
    assert json.loads(told.out) is not None
    assert "\x1b" not in told.out + told.err


@pytest.mark.parametrize("place", ["runs/mini", "scores.csv"])
def test_the_matrix_fits(place: str, workspace: Path) -> None:
    told = traitmap("matrix", place, cwd=workspace)
    assert told.code == 0
    fits(told)
    assert told.out.strip()
    assert not any(line.endswith(" ") and not line.strip() for line in told.out.splitlines())


def test_a_plan_on_paper_fits_and_is_plain() -> None:
    told = traitmap("check", "--plan", "200x100", "--model-shape", "llama-3b", "--gpus", "8")
    assert told.code == 0
    fits(told)
    assert "outcomes" in told.out


def test_every_command_that_prints_data_takes_json() -> None:
    without = {
        name for name, one in COMMANDS.items() if not any("--json" in each.opts for each in one.params)
    }
    assert without <= {"init", "pretrain"}  # they make files, and tell so on standard error


@pytest.mark.parametrize("words", [("--nonsense",), ("nonsense",), ("matrix",), ("matrix", "a", "b", "c")])
def test_a_slip_of_the_hand_is_exit_code_two(words: tuple[str, ...]) -> None:
    told = traitmap(*words)
    assert told.code == 2
    assert told.out == ""
    assert "Usage" in told.err
    fits(told)


def test_failed_cells_are_exit_code_three(tmp_path: Path) -> None:
    from prepared_run import prepared_study
    from traitmap import api
    from traitmap.cli.studies import tell_end

    few = {"sources": ("inference",), "targets": ("inference",), "seeds": (0,)}
    done = api.run(prepared_study(tmp_path, **few), engine=FakeEngine(longest=5))
    with pytest.raises(Exception) as end:
        tell_end(done.status())
    assert getattr(end.value, "exit_code", None) == 3


def test_ctrl_c_ends_with_130_and_a_sentence(workspace: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "traitmap.cli", "view", "runs/mini"],
        cwd=workspace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in said
    assert "Traceback" not in said


def test_a_closed_pipe_is_no_error(workspace: Path) -> None:
    line = f"{sys.executable} -m traitmap.cli query runs/mini 'select * from outcomes' --csv | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=workspace, capture_output=True, text=True
    )
    assert done.stdout.startswith("source,")
    assert "Traceback" not in done.stderr


def on_a_terminal(folder: Path, **environment: str) -> str:
    """What ``traitmap traits`` writes on a pseudo-terminal of 80 columns."""
    ours, theirs = pty.openpty()
    known = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "traitmap.cli", "traits", "scores.csv"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**known, **environment, "TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(theirs)
    pieces = []
    with contextlib.suppress(OSError):  # the end of a terminal is an error of its reader
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return b"".join(pieces).decode()


def test_no_color_holds_on_a_terminal(workspace: Path) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7]|38;[25])[0-9;]*m")
    assert colour.search(on_a_terminal(workspace))
    plain = on_a_terminal(workspace, NO_COLOR="1")
    assert not colour.search(plain)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", plain)
    assert all(cell_len(line) <= 80 for line in text.replace("\r", "").splitlines())
