"""Pictures of a report, made by headless Chromium through Playwright.

    python docs/screenshot.py runs/mini/report.html
    python docs/screenshot.py runs/mini/report.html --out docs/images --name matrix cell

writes one PNG of each section, light and dark, and of the page on a telephone, into docs/images/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

THEMES = ("light", "dark")
WIDTH, HEIGHT = 1280, 860
NARROW = (390, 844)
LARGEST = 150_000  # bytes of a picture: with fewer colours where it would be more
COLOURS = (256, 128, 64, 32)


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own, closed afterwards. RuntimeError where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise RuntimeError("pictures need playwright: pip install playwright") from None
    program = find_chromium()
    if program is None:
        raise RuntimeError("no Chromium is installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Browser, report: Path, *, theme: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Page:
    """The report in a window of a size, in a theme, without what sticks to the window's top."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce"
    )
    page.goto(report.resolve().as_uri())
    # Nothing sticks to the window's top, and what is far from the window is painted too.
    page.add_style_tag(
        content=".bar { position: static !important; } main > section { border: 0 !important; }"
        "* { content-visibility: visible !important; }"
    )
    return page


def sections(page: Page) -> list[str]:
    """Ids of the sections that the report has."""
    found: list[str] = page.evaluate("[...document.querySelectorAll('main > section')].map(one => one.id)")
    return found


def open_cell(page: Page) -> None:
    """Open the first marked cell, else the first."""
    for selector in (".cell.sig", ".cell:not(.base)"):
        found = page.locator(selector)
        if found.count():
            found.first.click()
            page.locator("#cell").wait_for(state="visible")
            return


def shoot(browser: Browser, report: Path, out: Path, wanted: list[str] | None = None) -> list[Path]:
    """Write the pictures of the sections (or only those named), the cell's page and the narrow page."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for theme in THEMES:
        page = opened(browser, report, theme=theme)
        for name in sections(page):
            if not wanted or name in wanted:
                written.append(_of_section(page, name, out / f"{name}-{theme}.png"))
        if not wanted or "cell" in wanted:
            open_cell(page)
            written.append(_save(page.screenshot(), out / f"cell-{theme}.png"))
        page.close()
        if not wanted or "narrow" in wanted:
            page = opened(browser, report, theme=theme, size=NARROW)
            written.append(_save(page.screenshot(), out / f"narrow-{theme}.png"))
            page.close()
    return written


def _of_section(page: Page, name: str, path: Path) -> Path:
    """A section with some of the page around it, at most three windows high."""
    page.evaluate("window.scrollTo(0, 0)")
    box = page.locator(f"#{name}").bounding_box()
    if box is None:
        raise RuntimeError(f"the section {name} is not shown")
    margin = 28
    clip = {
        "x": max(0.0, box["x"] - margin),
        "y": max(0.0, box["y"]),
        "width": min(float(WIDTH), box["width"] + 2 * margin),
        "height": min(box["height"] + margin, 3.0 * HEIGHT),
    }
    return _save(page.screenshot(full_page=True, clip=clip), path)


def _save(picture: bytes, path: Path) -> Path:
    """The picture with as many colours as keep it small; as it is where Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        path.write_bytes(picture)
        return path
    image = Image.open(BytesIO(picture)).convert("RGB")
    for colours in COLOURS:
        sink = BytesIO()
        reduced = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(sink, "PNG", optimize=True)
        if sink.tell() < LARGEST:
            break
    path.write_bytes(sink.getvalue())
    return path


def main() -> None:
    """Parse, open, shoot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="the HTML file")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "images", help="folder of the pictures"
    )
    parser.add_argument("--name", nargs="*", help="only these: ids of sections, cell, narrow")
    asked = parser.parse_args()
    try:
        with chromium() as browser:
            for path in shoot(browser, asked.report, asked.out, asked.name):
                print(f"{path}  {path.stat().st_size:,} bytes")
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
