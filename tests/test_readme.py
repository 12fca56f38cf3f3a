"""The six lines of the README run as they stand."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import traitmap
from traitmap.study.init import write_template

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path: Path, capsys) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(block.strip().splitlines()) <= 8
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        write_template(Path("my-study"), "local-data")
        exec(compile(block, "README.md", "exec"), {})
        reports = list(tmp_path.glob("runs/*/report.html"))
    finally:
        os.chdir(here)
    assert len(reports) == 1
    assert capsys.readouterr().out


def test_every_public_name_is_there() -> None:
    for name in traitmap.__all__:
        assert getattr(traitmap, name) is not None


def test_the_architecture_lists_every_file_with_its_own_line() -> None:
    namespace = runpy.run_path(str(README.parent / "docs" / "files.py"))
    page = namespace["PAGE"].read_text(encoding="utf-8")
    assert namespace["with_listing"](page) == page, "run: python docs/files.py"
    lines = namespace["listing"]().splitlines()
    assert all(len(line.split("` ", 1)) == 2 for line in lines), "a file without a docstring"


def test_the_readme_can_be_read_in_ten_minutes_and_leads_to_every_page_for_newcomers() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme.count("\n") <= 180
    for page in ("start", "datasets", "adapters", "scores", "python", "recipes", "limits"):
        assert f"(docs/{page}.md)" in readme, page
    for path in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (README.parent / path).exists(), path


def test_the_public_functions_stay_functions_whatever_is_imported() -> None:
    """A subpackage of the same name would take the function's place once something imports it."""
    package = Path(traitmap.__file__).parent
    modules = {path.stem for path in package.iterdir()}
    assert not modules & set(traitmap.__all__)
