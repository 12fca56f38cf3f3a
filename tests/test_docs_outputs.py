"""Pages of commands open with what the command prints, put there by ``docs/outputs.py`` and by no hand."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from traitmap.cli import app

DOCS = Path(__file__).parents[1] / "docs"
OUTPUTS = runpy.run_path(str(DOCS / "outputs.py"))


@pytest.mark.parametrize("opening", OUTPUTS["OPENINGS"], ids=lambda opening: opening.page)
def test_the_page_opens_with_the_output_of_its_command_as_it_was_written(opening) -> None:  # type: ignore[no-untyped-def]
    text = (DOCS / opening.page).read_text(encoding="utf-8")
    (found,) = OUTPUTS["BLOCK"].finditer(text)
    assert text[: found.start()].count("\n") == 2, "it stands beneath the heading"
    assert found["command"] == opening.command
    assert found["digest"] == OUTPUTS["digest"](found["body"]), "changed by hand: python docs/outputs.py RUN"
    assert found["body"].startswith(f"```text\n$ {opening.command}\n")
    assert max(map(len, found["body"].splitlines())) <= OUTPUTS["WIDTH"]
    assert shlex.split(opening.command)[1] in get_command(app).commands  # type: ignore[attr-defined]


def test_an_output_is_replaced_and_the_page_stays() -> None:
    opening = OUTPUTS["Opening"]("x.md", "traitmap traits runs/mini", 2)
    page = "# Head\n\nText.\n\n## More\n"
    once = OUTPUTS["with_output"](page, OUTPUTS["block"](opening, "a\nb\nc"))
    assert "$ traitmap traits runs/mini\na\nb\n... 1 more lines\n```" in once
    again = OUTPUTS["with_output"](once, OUTPUTS["block"](opening, "d"))
    assert again.count("<!-- output") == 1
    assert "\na\n" not in again
    assert OUTPUTS["BLOCK"].sub("", again) == page


SCRIPTS = [*(DOCS.parent / "examples").glob("*/*.py"), *(DOCS.parent / "benchmarks").glob("*.py")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_that_documents_name_find_what_they_import(script: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(script.parent))
    if script.stem != "fuzz":  # its fuzzer is installed by hand
        runpy.run_path(str(script))


def test_the_real_study_shows_its_records() -> None:
    drawn = runpy.run_path(str(DOCS / "real_run.py"))
    for path in drawn["PAGES"]:
        text = path.read_text(encoding="utf-8")
        assert drawn["with_tables"](text) == text, "run: python docs/real_run.py"
    page = (DOCS / "real-run.md").read_text(encoding="utf-8")
    assert page.count("### ") == len(drawn["blocks"]()["answers"].split("### ")) - 1 > 8
    assert drawn["with_tables"](page.replace("+0.18", "+0.81")) == page
