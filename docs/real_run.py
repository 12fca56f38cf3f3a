"""The tables of docs/real-run.md and the first screen in the README, from the records of the real study.

python docs/real_run.py          # writes them into the pages
python docs/real_run.py --check  # fails where a page shows something else

The records in examples/real/results are written by examples/real/sweep.py and examples/real/claims.py.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from page_blocks import table, with_blocks, write_pages

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "real-run.md", ROOT / "README.md")
RESULTS = ROOT / "examples" / "real" / "results"

WIDTH = 84  # of the first screen
FIRST = "SmolLM2"  # the base of the first column and of the first screen


def rates(sweeps: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What each learning rate gave on the validation rows of each source's own task."""
    for base, sources in sweeps.items():
        tried = list(next(iter(sources.values()))["rates"])
        rows = []
        for name, found in sorted(sources.items()):
            scores = [score(found["rates"][rate], rate == f"{found['chosen']}") for rate in tried]
            of_classes = any(rate["one_answer"] is not None for rate in found["rates"].values())
            majority = f"{found['majority']:.2f}" if of_classes else "–"
            rows.append((name, f"{found['base']:.2f}", majority, *scores))
        yield f"{base}:\n"
        yield from table(("source", "base", "commonest answer", *(f"{float(r):g}" for r in tried)), rows)
        yield ""


def score(found: Mapping[str, Any], chosen: bool) -> str:
    """``**0.54** (39 %)``: the score, bold where chosen, and the share of the commonest answer."""
    text = f"**{found['score']:.2f}**" if chosen else f"{found['score']:.2f}"
    share = found["one_answer"]
    return text if share is None else f"{text} ({100 * share:.0f} %)"


def answers(claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A section for each question, a column for each base."""
    heads = [heading(claim["base"], claim["seeds"]) for claim in claims]
    for question in claims[0]["answers"]:
        found = [claim["answers"].get(question, {}) for claim in claims]
        names = list(dict.fromkeys(name for column in found for name in column))
        yield f"### {question}\n"
        rows = [(name, *(column.get(name, "–") for column in found)) for name in names]
        yield from table(("", *heads), rows) if rows else iter(["Nothing of it was measured."])
        yield ""


def bases(compared: Mapping[str, Any]) -> Iterator[str]:
    """What ``traitmap compare`` says of the bases, and every clean transfer that holds in all or differs."""
    heads = [heading(*base) for base in zip(compared["bases"], compared["seeds"], strict=True)]
    yield from table(("", " and ".join(heads)), compared["lines"])
    for title, rows in (("Holds on both", compared["holding"]), ("Differs", compared["differing"])):
        yield f"\n{title}, {len(rows)} transfers, without those known to be something else than skill:\n"
        yield from table(("transfer", *heads, "second less first"), rows)


def heading(base: str, seeds: int) -> str:
    """Of a column: the base and how many seeds were run on it."""
    return f"{base}, {seeds} seed" if seeds == 1 else f"{base}, {seeds} seeds"


def screen(claim: Mapping[str, Any]) -> Iterator[str]:
    """What ``traitmap answer`` says first of a run."""
    title, *lines = claim["screen"]
    yield "```text"
    yield from textwrap.wrap(title, WIDTH)
    for heading, words in lines:
        yield from textwrap.wrap(
            f"{heading:<11}{words}", WIDTH, subsequent_indent=11 * " ", break_on_hyphens=False
        )
    yield "```"


def blocks() -> dict[str, str]:
    """Name -> the lines of every block of the pages."""

    def records(pattern: str) -> list[Any]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(pattern))]

    names = [path.stem.removeprefix("sweep-") for path in sorted(RESULTS.glob("sweep-*.json"))]
    sweeps = dict(zip(names, records("sweep-*.json"), strict=True))
    claims = sorted(records("*-claims.json"), key=lambda claim: FIRST not in claim["base"])
    return {
        "rates": "\n".join(rates(sweeps)),
        "answers": "\n".join(answers(claims)),
        "bases": "\n".join(bases(json.loads((RESULTS / "compared.json").read_text(encoding="utf-8")))),
        "screen": "\n".join(screen(claims[0])),
    }


def with_tables(page: str) -> str:
    """The page with all blocks as the records have them."""
    return with_blocks(page, "real_run", blocks())


if __name__ == "__main__":
    write_pages(PAGES, "real_run", blocks())
