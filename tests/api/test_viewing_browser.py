"""The page that follows a run, in a real browser: quiet, within its width, and at the end the report."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prepared_run import prepared_study
from traitmap import api
from traitmap.api.viewing import view
from traitmap.engine.fake import FakeEngine

FEW: dict[str, tuple[Any, ...]] = {
    "sources": ("inference", "reviews"),
    "targets": ("inference", "reviews"),
    "seeds": (0,),
}
CHROMIUM = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "screenshot.py"))["find_chromium"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with traitmap[dev]")
    program = CHROMIUM()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser: Any, address: str, width: int, theme: str) -> tuple[Any, list[str]]:
    """A page, and what went wrong on it."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    return page, wrong


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_a_run_that_stopped_shows_what_is_there_and_why(
    browser: Any, tmp_path: Path, width: int, theme: str
) -> None:
    folder = api.run(prepared_study(tmp_path, **FEW), engine=FakeEngine(longest=10)).folder
    with view(folder) as served:
        page, wrong = opened(browser, served.address, width, theme)
        page.wait_for_selector("#matrix tbody tr")
        assert page.inner_text("#state").startswith("Not running: 2 of 2 adapters")
        assert page.locator("#matrix tbody tr").count() == 3
        assert page.locator("#matrix td.failed").count() >= 1
        assert "memory does not hold" in page.inner_text("#failures")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert wrong == []
        page.close()


def test_a_finished_run_goes_on_to_its_report(browser: Any, prepared_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(prepared_run, folder)
    (folder / "report.html").write_text("<!doctype html><title>there</title><link rel=icon href=data:,>")
    with view(folder) as served:
        page, wrong = opened(browser, served.address, 800, "light")
        page.wait_for_url("**/report.html")
        assert page.title() == "there"
        assert wrong == []
        page.close()
