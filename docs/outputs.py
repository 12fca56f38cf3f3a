"""What commands print on the embedded study, at the head of the pages that tell of them.

python docs/outputs.py RUN          # writes what commands print on a finished run of mini into the pages
python docs/outputs.py RUN --check  # names the pages that show something else, and fails for any

Each output stands between two comments; the first names the command and holds a digest of what it printed, so
that a test can tell an output that was changed by hand.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
WIDTH = 100


@dataclass(frozen=True)
class Opening:
    """The output at the head of a page. command: as a reader types it, on ``runs/mini``. lines: of its output
    that are shown, the first ones; the page says so where there are more."""

    page: str
    command: str
    lines: int


OPENINGS = (
    Opening("report.md", "traitmap answer runs/mini", 15),
    Opening("scores.md", "traitmap matrix runs/mini --intervals", 24),
    Opening("traits.md", "traitmap traits runs/mini", 14),
    Opening("explanation.md", "traitmap explain runs/mini", 12),
    Opening("recommend.md", "traitmap recommend runs/mini --target stars", 14),
    Opening("dataset-profiles.md", "traitmap profile runs/mini", 14),
    Opening("reliability.md", "traitmap status runs/mini", 8),
)
BLOCK = re.compile(
    r"<!-- output: (?P<command>[^|]+) \| (?P<digest>\w+) \| python docs/outputs\.py RUN -->\n"
    r"(?P<body>.*?)<!-- end of output -->\n\n",
    re.DOTALL,
)


def printed(command: str, run: Path) -> str:
    """What a command prints on a run that lies at ``runs/mini`` of an empty folder."""
    with TemporaryDirectory(prefix="traitmap-docs-") as place:
        folder = Path(place)
        (folder / "runs").mkdir()
        (folder / "runs" / "mini").symlink_to(run.resolve(), target_is_directory=True)
        words = [sys.executable, "-m", "traitmap.cli", *shlex.split(command)[1:]]
        environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1"}
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def block(opening: Opening, output: str) -> str:
    """The output as it stands in the page, between its comments."""
    lines = output.splitlines()
    shown = lines[: opening.lines]
    while shown and not shown[-1]:
        shown.pop()
    more = f"... {len(lines) - len(shown)} more lines" if len(lines) > len(shown) else ""
    body = "\n".join(["```text", f"$ {opening.command}", *shown, *([more] if more else []), "```", ""])
    mark = f"<!-- output: {opening.command} | {digest(body)} | python docs/outputs.py RUN -->"
    return f"{mark}\n{body}<!-- end of output -->\n\n"


def digest(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:12]


def with_output(text: str, new: str) -> str:
    """A page with its output, in the place of the one before, else beneath its heading."""
    text = BLOCK.sub("", text, count=1)
    heading, _, rest = text.partition("\n\n")
    return f"{heading}\n\n{new}{rest}"


def main(run: Path, check: bool) -> int:
    other = []
    for opening in OPENINGS:
        new = block(opening, printed(opening.command, run))
        page = HERE / opening.page
        before = page.read_text(encoding="utf-8")
        after = with_output(before, new)
        if after != before:
            other.append(opening.page)
            if not check:
                page.write_text(after, encoding="utf-8")
    print("\n".join(other) or "every page shows what its command prints")
    return int(check and bool(other))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv))
