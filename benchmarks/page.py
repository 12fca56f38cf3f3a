"""How long a report is, and whether its figures fit: words before anything is opened, A4 pages, widths.

    python benchmarks/page.py runs/mini/report.html

prints the words that are in sight when the page is opened, the A4 pages that it prints on, and every figure
that is clipped, or has text under eight px, in windows of 390 to 1,440 px. Chromium lays the page out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

import screenshot

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (390, 640, 768, 1024, 1440)
# The matrix has a frame of its own, in which it is moved while its names stay.
FAULTS = """(() => {
  const faults = [];
  for (const svg of document.querySelectorAll('main .drawing svg.figure')) {
    if (!svg.checkVisibility()) continue;
    const box = svg.getBoundingClientRect();
    if (box.right > innerWidth + 1 || box.left < -1) faults.push(`${svg.id} is wider than the window`);
    for (const text of svg.querySelectorAll('text')) {
      const place = text.getBoundingClientRect();
      const size = parseFloat(getComputedStyle(text).fontSize) * box.width / svg.viewBox.baseVal.width;
      if (size < 8) faults.push(`${svg.id}: too small: ${text.textContent}`);
      const beside = place.left < box.left - 2 || place.right > box.right + 2;
      const beyond = place.top < box.top - 2 || place.bottom > box.bottom + 2;
      if (place.width && (beside || beyond)) faults.push(`${svg.id}: clipped: ${text.textContent}`);
    }
  }
  return faults;
})()"""


def laid_out(browser: Browser, report: Path, width: int) -> Page:
    """The page in a window of a width, with what is far from the window laid out too."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report.resolve().as_uri())
    page.add_style_tag(content="* { content-visibility: visible !important; }")
    return page


def clipped(browser: Browser, report: Path, width: int) -> list[str]:
    """What is wrong with figures in a window of a width, those in folded parts too."""
    page = laid_out(browser, report, width)
    page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true; })")
    faults: list[str] = page.evaluate(FAULTS)
    page.close()
    return faults


def words(browser: Browser, report: Path) -> int:
    """Words in sight before anything is opened, those in figures and tables too."""
    page = laid_out(browser, report, 1440)
    count = len(page.evaluate("document.body.innerText").split())
    page.close()
    return count


def pages(browser: Browser, report: Path) -> int:
    """A4 pages that the report prints on."""
    page = browser.new_page()
    page.goto(report.resolve().as_uri())
    count = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
    page.close()
    return count


def main() -> None:
    """Measure one report."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = Path(sys.argv[1])
    with screenshot.chromium() as browser:
        print(f"{words(browser, report):,} words before anything is opened")
        print(f"{pages(browser, report)} A4 pages")
        for width in WIDTHS:
            faults = clipped(browser, report, width)
            print(f"{width:,} px: {len(faults)} faults" + "".join(f"\n  {fault}" for fault in faults))


if __name__ == "__main__":
    main()
