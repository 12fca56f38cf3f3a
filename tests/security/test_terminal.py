"""Foreign text on the terminal: shown as it is, steering nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from traitmap.api.preparation import code_that_runs
from traitmap.cli import main
from traitmap.cli.app import print_json
from traitmap.study.settings import Study
from traitmap.terminal import Printable, printable

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202edrow \u2066x\x00\x08\r"


def test_escape_sequences_and_turned_writing_do_not_reach_the_terminal() -> None:
    table = Table(title=Text(HOSTILE))
    table.add_column("a")
    table.add_row(Text(HOSTILE, style="bold"))
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system="truecolor", width=80).print(Printable(table))
    told = file.getvalue()
    assert "\x1b[1m" in told  # Rich's own style is there
    for foreign in ("\x1b[31m", "\x1b]0;", "\x9b", "\u202e", "\u2066", "\x07", "\x00", "\x08", "\r"):
        assert foreign not in told
    assert "red" in told


def test_plain_text_stays_what_it_is() -> None:
    text = "naïve 日本語 \U0001f600 [red]x[/red]\n\tעברית"
    assert printable(text) == text


def test_json_is_the_same_data_without_anything_that_steers(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": HOSTILE, "b": "日本語"})
    told = capsys.readouterr().out
    assert json.loads(told) == {"a": HOSTILE, "b": "日本語"}
    assert printable(told) == told


def test_errors_do_not_steer_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["matrix", str(tmp_path / "a\x1b[31mred\u202e.csv")])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "no such file" in told
    assert printable(told) == told


def test_check_tells_whose_code_runs() -> None:
    study = Study(
        name="s",
        model={"path": "org/own", "trust_remote_code": True},
        sources=({"name": "s", "path": "s.csv"},),
        targets=({"task": "t"},),
        allow_code=True,
    )
    told = " ".join(code_that_runs(study))
    assert "trust_remote_code" in told
    assert "org/own" in told
    assert "allow_code" in told
    plain = study.model_copy(
        update={"allow_code": False, "model": study.model.model_copy(update={"trust_remote_code": False})}
    )
    assert code_that_runs(plain) == ()
