"""The report in a real browser: opens from disk, says nothing on the console, asks nothing of the network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import simulated

from traitmap.report.html import write_report

REPOSITORY = Path(__file__).parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


screenshot = load(REPOSITORY / "docs" / "screenshot.py")


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    if screenshot.find_chromium() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with screenshot.chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nasty = "<script>document.title = 'owned'</script>"
    sources = (*simulated.NAMES, nasty)
    whole = simulated.failed(simulated.matrix(sources, simulated.NAMES, items=60), "stars", "toxicity")
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(path, whole, simulated.traits(whole), {"name": nasty, **{"seeds": [0, 1]}})


def texts(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.cell:not(.base) text')].map(t => t.textContent)")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_opens_quietly_and_fits(page: Any, report: Path, width: int, theme: str) -> None:
    page.open(report, width=width, theme=theme)
    assert page.problems() == []
    assert page.requests() == [report.resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "owned" not in page.evaluate("document.title").split("·")[-1]
    assert page.evaluate("document.querySelector('h1').textContent").startswith("<script>")
    hidden = page.evaluate(
        "[...document.querySelectorAll('main > section')].filter(s => !s.offsetHeight).length"
    )
    assert hidden == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 22, 26)") == (theme == "dark")


def test_pointing_at_a_cell_tells_its_details(page: Any, report: Path) -> None:
    page.open(report, width=1440)
    assert page.evaluate("document.getElementById('details').hidden")
    page.hover(".cell:not(.base)", 3)
    told = page.evaluate("document.getElementById('details').innerText")
    assert told.startswith("word_problems → inference")
    assert texts(page)[3].replace(" •", "") in told
    assert "Items\n60" in told
    page.hover("h1")
    assert page.evaluate("document.getElementById('details').hidden")
    failed = page.evaluate(
        "[...document.querySelectorAll('.cell:not(.base)')].findIndex(c => c.textContent === 'failed')"
    )
    page.click(".cell:not(.base)", failed)
    told = page.evaluate("document.getElementById('details').innerText")
    assert "stars → toxicity" in told
    assert "loss became NaN" in told


def test_keyboard_walks_the_matrix(page: Any, report: Path) -> None:
    page.open(report, width=1440)
    page.evaluate("document.getElementById('matrix-frame').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.press(key)
    assert page.evaluate("document.getElementById('spoken').textContent").startswith(
        "big_arithmetic on big_arithmetic: gain "
    )
    page.press("ArrowUp")
    page.press("ArrowUp")
    assert page.evaluate("document.getElementById('spoken').textContent").startswith("base on big_arithmetic")
    page.press("Escape")
    assert page.evaluate("document.getElementById('details').hidden")


def test_switch_shows_gain_absolute_and_z(page: Any, report: Path) -> None:
    page.open(report, width=1440)
    gains = texts(page)
    page.click("input[name=view]", 1)
    absolute = texts(page)
    page.click("input[name=view]", 2)
    z = texts(page)
    assert len({gains[0], absolute[0], z[0]}) == 3
    base = page.evaluate("[...document.querySelectorAll('.cell.base text')].map(t => t.textContent)")
    for column in range(10):
        gain = float(gains[column].replace("−", "-").replace("•", ""))
        assert float(absolute[column]) - float(base[column]) == pytest.approx(gain, abs=0.15)
    shown = page.evaluate("[...document.querySelectorAll('.legend')].map(l => l.hidden)")
    assert shown == [True, True, False]
    page.click("input[name=view]", 0)
    assert texts(page) == gains
    assert page.problems() == []


def test_theme_button_overrides_the_system(page: Any, report: Path) -> None:
    page.open(report, width=1440, theme="dark")
    seen = []
    for _ in range(4):
        seen.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
    dark, light = "rgb(20, 22, 26)", "rgb(251, 250, 247)"
    assert seen == [dark, light, dark, dark]
    assert page.problems() == []
    page.evaluate("localStorage.clear()")


def test_picture_of_a_section(page: Any, report: Path, tmp_path: Path) -> None:
    page.open(report, width=1440)
    page.shoot(tmp_path / "matrix.png", selector="#transfer")
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")
