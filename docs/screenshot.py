"""Pictures of a report, made by headless Chromium.

    python docs/screenshot.py runs/mini/report.html docs/report.png --select "#transfer"

Speaks the DevTools protocol over a pipe (standard library only), so that width, theme, hover and console can
be set and read exactly. The tests of the report drive it too.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


class Page:
    """One tab. ``events`` holds what the browser reported: console, exceptions, network."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._left = b""
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(60.0)
            if answer is None:
                raise TimeoutError(f"Chromium did not answer {method} within 60 s")
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, path: Path, *, width: int, height: int = 900, theme: str = "light") -> None:
        """Open a file at a width and in a theme, and wait until it is loaded and painted."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + 60
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} did not load within 60 s")
            self._read(1.0)
        self._settle()

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression (a promise is awaited)."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def hover(self, selector: str, index: int = 0) -> None:
        """Move the mouse to the middle of an element, scrolled into view."""
        x, y = self._middle(selector, index)
        self._settle()
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str, index: int = 0) -> None:
        """Click in the middle of an element."""
        x, y = self._middle(selector, index)
        self._settle()
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a named key, e.g. ``ArrowRight``."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def shoot(self, path: Path, *, selector: str = "", margin: int = 0, whole: bool = False) -> None:
        """Write a PNG of the window, of one element with a margin in px around it, or of the whole page."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole or bool(selector)}
        if selector:
            box = self.evaluate(
                f"(r => [r.x + scrollX - {margin}, r.y + scrollY - {margin},"
                f" r.width + {2 * margin}, r.height + {2 * margin}])"
                f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
            )
            options["clip"] = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        elif whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def problems(self) -> list[str]:
        """What went wrong since the page was opened: exceptions, console errors, entries in the log."""
        found = []
        for event in self.events:
            method, told = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(told["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(told["args"]))
            elif method == "Log.entryAdded":
                found.append(told["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened, the page's own included."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _settle(self) -> None:
        """Wait until what was changed is painted, and scrolling has been told to the page."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def _middle(self, selector: str, index: int) -> tuple[float, float]:
        x, y = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            f" const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})"
            f"(document.querySelectorAll({json.dumps(selector)})[{index}])"
        )
        return x, y

    def _read(self, patience: float) -> dict[str, Any] | None:
        """The next message within ``patience`` seconds, or None; events are kept."""
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._out], [], [], patience)
            if not ready:
                return None
            piece = os.read(self._out, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium closed the pipe")
            self._left += piece
        line, self._left = self._left.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def chromium(program: str | None = None) -> Iterator[Page]:
    """A page of a fresh browser with a profile of its own, ended afterwards."""
    program = program or find_chromium()
    if program is None:
        raise FileNotFoundError("no Chromium found; on Debian: apt-get install chromium")
    to_browser, into = os.pipe()
    out, from_browser = os.pipe()
    # The browser reads from descriptor 3 and writes to 4; move ours out of the way first.
    reads, writes = (fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (to_browser, from_browser))

    def place() -> None:
        os.dup2(reads, 3)
        os.dup2(writes, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=place,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (to_browser, from_browser, reads, writes):
            os.close(one)
        try:
            yield Page(into, out)
        finally:
            process.terminate()
            process.wait(timeout=20)
            os.close(into)
            os.close(out)


def main() -> None:
    """Parse, open, shoot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="the HTML file")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument(
        "--select", default="", help="CSS selector of the one element to show, e.g. '#transfer'"
    )
    parser.add_argument("--margin", type=int, default=24, help="px around the element of --select")
    parser.add_argument("--hover", default="", help="CSS selector of an element to point at first")
    parser.add_argument("--index", type=int, default=0, help="which of the elements that --hover matches")
    parser.add_argument("--whole", action="store_true", help="the whole page, not the window")
    asked = parser.parse_args()
    with chromium() as page:
        page.open(asked.report, width=asked.width, height=asked.height, theme=asked.theme)
        if asked.hover:
            page.hover(asked.hover, asked.index)
        page.shoot(asked.picture, selector=asked.select, margin=asked.margin, whole=asked.whole)
        problems = page.problems()
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
