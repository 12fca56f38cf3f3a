"""Figures at every width of a window, on paper, and as many words as somebody reads."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from traitmap import api

pytest.importorskip("playwright", reason="playwright is not installed")
PAGE = Path(__file__).parents[2] / "benchmarks" / "page.py"


def loaded(path: Path) -> Any:
    sys.path.insert(0, str(path.parents[1] / "docs"))
    spec = importlib.util.spec_from_file_location("page_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = loaded(PAGE)


@pytest.fixture(scope="module")
def report(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small finished run, with every section that a run has."""
    return api.open_run(prepared_run).report(tmp_path_factory.mktemp("whole") / "report.html")


@pytest.mark.parametrize("width", [390, 640, 768, 1024, 1440])
def test_no_figure_is_clipped_or_too_small_to_read(browser: Any, report: Path, width: int) -> None:
    assert benchmark.clipped(browser, report, width) == []


def test_a_page_is_short_before_it_is_opened(browser: Any, report: Path) -> None:
    assert 300 < benchmark.words(browser, report) <= 2500
    assert benchmark.pages(browser, report) <= 12


def test_what_is_saved_from_the_page_has_title_key_and_caption(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(report.as_uri())
    with page.expect_download() as waiting:
        page.locator("#figure-scree .save-list button", has_text="SVG").click()
    waiting.value.save_as(tmp_path / "scree.svg")
    page.close()
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)", (tmp_path / "scree.svg").read_text(encoding="utf-8")))
    assert "How many traits" in words
    assert "noise of this shape" in words  # the key
    assert "held" in words or "support" in words  # the caption
