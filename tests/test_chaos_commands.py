"""The chaos of commands itself, on two that are quick; twenty kills of each are told in the docs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "chaos_commands.py"


def test_kills_leave_before_or_after(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, tmp_path / "runs", "--kills", "4", "--only", "gc", "atlas", "import"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=SCRIPT.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 kills of 4 commands; 0 left anything else" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_whatever_a_command_writes_is_killed_or_has_its_reason() -> None:
    """A new command, option or format that writes has to be added, or to say why not."""
    code = (
        "import chaos_commands as chaos\n"
        "known = chaos.commands(None, None)\n"
        "print(chaos.not_killed(known))\n"
        "some = [one for one in known if one.words[0] != 'figure' and '--csv' not in one.words]\n"
        "print(chaos.not_killed(some))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPT.parent)
    assert done.returncode == 0, done.stderr
    missing, of_some = map(ast.literal_eval, done.stdout.splitlines())
    assert missing == []
    without = {"figure", "compare", "forecast", "profile"}  # commands that nothing else is typed of
    options = {f"{name} --csv" for name in ("matrix", "compare", "forecast", "profile")}
    assert set(of_some) == {*without, *options, "compare --html", "figure --output"}


def test_the_docs_show_the_results_file() -> None:
    """The table of docs/reliability.md is what ``--table`` prints of the committed results."""
    page = (SCRIPT.parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
    begin, _, rest = page.partition("<!-- chaos-commands: ")[2].partition(" -->\n")
    words = begin.removeprefix("python benchmarks/").split()
    done = subprocess.run(
        [sys.executable, words[0], words[1], SCRIPT.parents[1] / words[2]],
        capture_output=True, text=True, cwd=SCRIPT.parent,
    )  # fmt: skip
    assert done.stdout.strip() == rest.partition("<!-- end of chaos-commands -->")[0].strip()
