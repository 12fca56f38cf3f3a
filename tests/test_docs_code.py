"""Commands and code in the README and the docs run as they stand, or say why not and are checked as words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from doc_blocks import Block, blocks_of
from told import traitmap
from traitmap.cli import app
from workspace import clear_output, quick

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL = ("bash", "console", "sh")
# The README's and the older pages' untagged blocks hold commands too; they are checked as words.
COMMANDS = [one for one in BLOCKS if one.commands]
RUN = [one for one in BLOCKS if one.kind in SHELL and not one.reason]
PYTHON = [one for one in BLOCKS if one.kind == "python" and "README" not in one.place]


def place(block: Block) -> str:
    return block.place


@pytest.fixture(scope="module")
def done() -> set[tuple[str, ...]]:
    """Commands that have been run already: pages repeat each other, tests need not."""
    return set()


@pytest.mark.parametrize("block", RUN, ids=place)
def test_commands_run(block: Block, workspace: Path, done: set[tuple[str, ...]]) -> None:
    lines = [line for line in block.body.splitlines() if line.strip() and not line.startswith("#")]
    others = [line for line in lines if not line.startswith(("traitmap ", " "))]
    assert not others, f"{block.place}: only traitmap is run here; write `<!-- not run: why -->` above it"
    for words in block.commands:
        if tuple(words) not in done and not _is_there(words, workspace):
            clear_output(words, workspace)
            told = traitmap(*(words if "--plan" in words else quick(words)), cwd=workspace)
            assert told.code == 0, f"{block.place}: traitmap {' '.join(words)}\n{told.err}"
        done.add(tuple(words))


def _is_there(words: list[str], workspace: Path) -> bool:
    """``init`` of a study that is there already, and the run of it, which would train for real."""
    if words[0] == "init":
        return (workspace / words[1] / "study.yaml").is_file()
    return words[0] == "run" and "--budget" not in words and (workspace / "runs" / "my-study").is_dir()


@pytest.mark.parametrize("block", PYTHON, ids=place)
def test_python_runs(block: Block, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = compile(block.body, block.place, "exec")
    if block.reason:
        return
    here = Path.cwd()
    try:
        os.chdir(workspace)
        exec(code, {"__name__": "docs"})
    finally:
        os.chdir(here)
    assert ("print(" not in block.body) or capsys.readouterr().out


@pytest.mark.parametrize("block", COMMANDS, ids=place)
def test_every_command_and_option_exists(block: Block) -> None:
    commands = get_command(app).commands
    for words in block.commands:
        assert words[0] in commands, f"{block.place}: there is no command {words[0]}"
        arguments = [word for word in words[1:] if word not in ("-h", "--help")]
        commands[words[0]].make_context(words[0], arguments)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.kind in ("yaml", "yml")], ids=place)
def test_yaml_can_be_read(block: Block) -> None:
    class Loader(yaml.SafeLoader):
        """Task files name functions under a tag of lm-eval."""

    Loader.add_constructor("!function", lambda loader, node: node.value)
    assert yaml.load(block.body, Loader)


def test_every_figure_of_the_report_is_told_with_when_to_distrust_it() -> None:
    told = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "src" / "traitmap" / "report").glob("*.py")
    )
    names = {"matrix", "profile-1", *re.findall(r'\bname="([a-z]+(?:-[a-z]+)*)",\n\s+title=', sources)}
    names |= {f"{one}-1" for one in re.findall(r'\bname=f"([a-z]+)-\{', sources)}
    assert {"scree", "effects", "loadings-1", "recommendation-1"} <= names
    missing = {name for name in names if f"`{name}`" not in told}
    assert not missing, f"docs/report.md: say what these show and when to distrust them: {missing}"


def test_what_is_not_run_says_why() -> None:
    for block in BLOCKS:
        if block.reason:
            assert len(block.reason.split()) >= 4, block.place
            assert block.kind in (*SHELL, "python"), block.place
    assert len(RUN) >= 10
    assert len(PYTHON) >= 6
