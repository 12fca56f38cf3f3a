"""The site of the docs builds strictly, holds every command and public name, and asks no network."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import traitmap
from traitmap.cli import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs mkdocs-material, which traitmap[dev] brings")
    pytest.importorskip("mkdocstrings", reason="the site needs mkdocstrings, which traitmap[dev] brings")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_page_of_the_docs_is_on_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"commands"}
    assert pages <= {path.stem for path in site.glob("*.html")}
    nav = text_of(site / "index.html")
    assert all(f'href="{page}.html"' in nav for page in pages - {"index"})


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_every_command_is_on_its_page(site: Path, command: str) -> None:
    page = text_of(site / "commands.html")
    assert f'id="traitmap-{command}"' in page


@pytest.mark.parametrize("name", sorted(traitmap.__all__))
def test_every_public_name_is_documented(site: Path, name: str) -> None:
    home = getattr(traitmap, name)
    module = f"{home.__module__}.{home.__name__}"
    assert f'id="{module}"' in text_of(site / "python.html")


def test_the_site_asks_nothing_of_the_network(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*(?:src|href)="(https?:[^"]*)"', text_of(page))
        assert loaded == [], page.name


def test_the_search_works_from_disk(site: Path) -> None:
    """In a browser, from file://: what is typed is found and opens; nothing is asked of a network."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with traitmap[dev]")
    program = runpy.run_path(str(ROOT / "docs" / "screenshot.py"))["find_chromium"]()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page, asked = browser.new_page(), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator(".md-search__input").click()
        page.keyboard.type("quarantine")
        page.wait_for_selector(".md-search-result__link", timeout=30_000)
        links = [link.get_attribute("href") or "" for link in page.locator(".md-search-result__link").all()]
        assert any("reliability.html" in link for link in links)
        page.locator(".md-search-result__link").first.click()
        page.wait_for_url("**/reliability.html*")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_docstrings_become_lists() -> None:
    as_markdown = runpy.run_path(str(ROOT / "docs" / "docstring_lists.py"))["as_markdown"]
    said = "What it is.\n\nvalues, other: (S, T) ``NaN``\n    where missing.\nkind: a word.\nRaises nothing."
    assert as_markdown(said) == (
        "What it is.\n\n- `values`, `other`: (S, T) `NaN` where missing.\n- `kind`: a word.\nRaises nothing."
    )
