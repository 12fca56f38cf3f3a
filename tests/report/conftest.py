"""What the tests of the page share: a browser, a report of a run, and what axe-core says of a page."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from traitmap import api

SCREENSHOT = Path(__file__).parents[2] / "docs" / "screenshot.py"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def screenshot() -> ModuleType:
    """``docs/screenshot.py``, which finds and drives the browser."""
    return load(SCREENSHOT)


class Opened:
    """A page, what it said on the console, and what it asked for beyond the file itself."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def quiet(self, report: Path) -> bool:
        """Whether nothing was said, and nothing asked for but the file and what the page made itself."""
        others = [
            url for url in self.asked if url != report.as_uri() and not url.startswith(("data:", "blob:"))
        ]
        assert (self.said, others) == ([], [])
        return True


@pytest.fixture(scope="module")  # a process may have one at a time, and other folders' tests open their own
def browser(screenshot: ModuleType) -> Iterator[Any]:
    pytest.importorskip("playwright", reason="playwright is not installed")
    if screenshot.find_chromium() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with screenshot.chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def run_report(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small finished run, with every section that a run has."""
    return api.open_run(prepared_run).report(tmp_path_factory.mktemp("whole") / "report.html")


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a report; every page is closed afterwards."""
    pages = []

    def go(path: Path, *, width: int = 1440, theme: str = "light", hash: str = "") -> Opened:
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        page.set_default_timeout(60_000)  # the machine may be busy
        pages.append(page)
        found = Opened(page)
        page.goto(path.as_uri() + hash)
        return found

    yield go
    for page in pages:
        page.close()


@pytest.fixture(scope="session")
def faults() -> Any:
    """What axe-core calls serious or critical on a page, or within an element: rules and elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

    def find(page: Any, within: str = "body") -> list[str]:
        violations = axe.Axe().run(page, within).response["violations"]
        grave = [one for one in violations if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['html'][:200]}" for one in grave for node in one["nodes"]]

    return find
