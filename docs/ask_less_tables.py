"""The tables of docs/ask-less.md, drawn from what benchmarks/ask_less.py and ask_less_run.py kept.

python docs/ask_less_tables.py          # writes them into the page
python docs/ask_less_tables.py --check  # fails where the page shows something else

A study's figures are means over its seeds, each a matrix of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from page_blocks import table, with_blocks, write_pages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "ask-less.md"
RESULTS = ROOT / "benchmarks" / "results"
STUDIES = {"mini": "embedded study", "real-smollm2": "SmolLM2-135M", "real-gemma3": "Gemma 3 270M"}
FILES = ("2026-12-01-ask-less-embedded.json", "2026-12-01-ask-less-real.json")
RUN = "2026-12-01-ask-less-run.json"
ESTIMATES = {
    "random items": "random items",
    "with the base": "with the base (`anchors: 0`)",
    "with the base and 1 source": "with the base and 1 source",
    "with the base and 3 sources": "with the base and 3 sources",
    "items by spread, model-assisted": "items by their spread, with 3",
    "clusters of items (tinyBenchmarks)": "clusters (tinyBenchmarks), with 3",
}
RULES = {
    "precision 3": "`precision: 3`",
    "precision 5": "`precision: 5`",
    "sign": "`decide: sign`",
    "best": "`decide: best`",
    "sign or precision 5": "`decide: sign`, `precision: 5`",
    "best or precision 5": "`decide: best`, `precision: 5`",
}
DECISIONS = ("calls", "best", "first three")
SHARES = ("10%", "20%", "30%", "50%", "75%")
Seeds = Sequence[Mapping[str, Any]]


def studies() -> dict[str, Seeds]:
    """Name of each study -> what was replayed of each of its seeds."""
    runs: dict[str, Any] = {}
    for name in FILES:
        runs |= json.loads((RESULTS / name).read_text(encoding="utf-8"))["runs"]
    return {
        title: [run for name, run in runs.items() if name.startswith(f"{study},")]
        for study, title in STUDIES.items()
    }


def percent(seeds: Seeds, value: Callable[[Mapping[str, Any]], Any]) -> str:
    """``82 %``, the mean over seeds; a dash where none has it."""
    known = [found for seed in seeds if (found := value(seed)) is not None]
    return f"{100 * mean(known):.0f} %" if known else "–"


def coverage(found: Mapping[str, Seeds]) -> Iterator[str]:
    """How often intervals hold: least and most over looks and seeds, and all looks together."""
    looks = ("at each look", "at all looks together")
    kinds: dict[str, tuple[Callable[[Mapping[str, Any]], Any], str, str]] = {
        "repeated intervals": (lambda seed: seed["coverage"], *looks),
        "plain 95 % intervals": (lambda seed: seed["coverage"], *(f"plain 95 %, {look}" for look in looks)),
        "`anchors: 1`, to all items": (lambda seed: seed["coverage_with_anchors"]["all items"], *looks),
        "`anchors: 1`, at large": (lambda seed: seed["coverage_with_anchors"]["at large"], *looks),
    }
    rows = [
        [label, *(_held([part(seed) for seed in seeds], each, together) for seeds in found.values())]
        for label, (part, each, together) in kinds.items()
    ]
    stops = [percent(seeds, lambda seed: seed["coverage"]["where `sign` stops"]) for seeds in found.values()]
    rows.append(["where `decide: sign` stops", *stops])
    yield from table(("at each look; at all looks together", *found), rows)


def _held(seeds: Seeds, each: str, together: str) -> str:
    looks = [look for seed in seeds for look in seed[each]]
    least, most = 100 * min(looks), 100 * max(looks)
    return f"{least:.0f} to {most:.0f} %; {percent(seeds, lambda seed: seed[together])}"


def spending(found: Mapping[str, Seeds]) -> Iterator[str]:
    """Share of the items until a gain is known to five points; until its sign is clear."""
    rows = []
    for name in next(iter(found.values()))[0]["spending"]:
        cells = [name]
        for seeds in found.values():
            known, clear = (
                percent(seeds, lambda seed, name=name, until=until: seed["spending"][name][until])
                for until in ("precision 5", "sign")
            )
            cells.append(f"{known}; {clear}")
        rows.append(cells)
    yield from table(("known to 5 points; sign clear", *found), rows)


def estimates(found: Mapping[str, Seeds]) -> Iterator[str]:
    """Error in points of the gain on all items, and how often a 95 % interval holds it."""
    for name, seeds in found.items():
        shares = list(seeds[0]["anchors"]["methods"]["random items"])
        rows = []
        for method, label in ESTIMATES.items():
            by_share = [[seed["anchors"]["methods"][method][share] for seed in seeds] for share in shares]
            rows.append(
                [label]
                + [
                    f"{mean(one['error'] for one in cells):.1f} "
                    f"({100 * mean(one['coverage'] for one in cells):.0f} %)"
                    for cells in by_share
                ]
            )
        yield from table((name, f"{shares[0]} of the items".replace("%", " %"), *_spaced(shares[1:])), rows)
        yield ""


def _spaced(shares: Sequence[str]) -> list[str]:
    return [share.replace("%", " %") for share in shares]


def rules(found: Mapping[str, Seeds]) -> Iterator[str]:
    """Share of the items that each rule asks; how often the best source is that of all items."""
    rows = []
    for rule, label in RULES.items():
        cells = [label]
        for seeds in found.values():
            for form in (rule, f"{rule}, 1 anchor"):
                asked = percent(seeds, lambda seed, form=form: seed["saving"][form]["share of the items"])
                same = percent(seeds, lambda seed, form=form: seed["saving"][form]["best source the same"])
                cells.append(f"{asked}, {same}")
        rows.append(cells)
    yield from table(
        ("items asked, best source the same", *(f"{n}{a}" for n in found for a in ("", ", `anchors: 1`"))),
        rows,
    )


def decisions(found: Mapping[str, Seeds]) -> Iterator[str]:
    """What a share of all items decides as the whole does, at random and with the base asked all."""
    rows = []
    for name, seeds in found.items():
        for share in SHARES:
            rows.append([f"{name}, {share}".replace("%", " %"), *_decided(seeds, share)])
        redraw = [
            percent(seeds, lambda seed, kind=kind: _kept(seed, "again, all items", kind))
            for kind in DECISIONS
        ]
        rows.append([f"{name}, all, drawn again", *redraw])
    yield from table(
        (
            "items in all; with the base asked all",
            "gains and losses (q < .05) called alike",
            "same best source",
            "same first three in order",
        ),
        rows,
    )


def _decided(seeds: Seeds, share: str) -> list[str]:
    cells = []
    for kind in DECISIONS:
        random, based = (
            percent(seeds, lambda seed, way=way, kind=kind: _kept(seed, f"{share}, {way}", kind))
            for way in ("random items", "the base asked all")
        )
        cells.append(random if based == "–" else f"{random.removesuffix(' %')}; {based}")
    return cells


def _kept(seed: Mapping[str, Any], way: str, kind: str) -> float | None:
    found = seed["decisions"]["by share"].get(way)
    return None if found is None else float(found[kind]["mean"])


def run() -> Iterator[str]:
    """What a real run with a precision asked, and what the remaining items said of its estimates."""
    kept = json.loads((RESULTS / RUN).read_text(encoding="utf-8"))
    asked, then = kept["asked"], kept["then"]
    same = sum(part == whole for part, whole in then["best source of the part, of all items"].values())
    rows = [
        *(
            (f"{name} asked", f"{some:,.0f} of {all_:,.0f} ({100 * some / all_:.0f} %)")
            for name, (some, all_) in ((name, asked[name]) for name in ("items", "tokens"))
        ),
        ("cells that ended early", f"{then['ended early']} of {then['cells']}"),
        (
            "gains on all items within 3 points of the estimate",
            f"{then['within the precision']} of {then['ended early']}",
        ),
        (
            "root mean square of their distance, the largest",
            f"{then['root mean square']:.1f}, {then['farthest']:.1f} points",
        ),
        (
            "targets whose best source stays",
            f"{same} of {len(then['best source of the part, of all items'])}",
        ),
    ]
    yield from table(("", ""), rows)


def blocks() -> dict[str, str]:
    """Name -> the lines of every block of the page."""
    found = studies()
    drawn = {part.__name__: part(found) for part in (coverage, spending, estimates, rules, decisions)}
    return {name: "\n".join(lines) for name, lines in {**drawn, "run": run()}.items()}


def with_tables(page: str) -> str:
    """The page with all blocks as the records have them."""
    return with_blocks(page, "ask_less_tables", blocks())


if __name__ == "__main__":
    write_pages([PAGE], "ask_less_tables", blocks())
