"""How often is a cell called what it is? Simulated answers of known truth, 2,000 cells and more of each kind.

    python benchmarks/verdicts.py            about five minutes on one core
    python benchmarks/verdicts.py 50         50 studies of each world in place of 300

Prints, for each world, what became of the cells of each truth; then the shares over all clear worlds. Studies
come from tests/planted_cells.py: 250 items, and effects of about 15 points and more. Hard worlds are counted
apart: a base that avoids a class, beside adapters that learn the task, or of which only labels are known; a
base of which four in ten answers cannot be parsed; and three seeds that differ.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from planted_cells import LEGAL, TRUTHS, Form, planted

STUDIES = 300
THIRDS, HALVES, UNEVEN = (1 / 3, 1 / 3, 1 / 3), (0.5, 0.5), (0.12, 0.08, 0.8)
RIGHT, WRONG, FORMAT = "shares put right", "shares put wrong", "format learnt"
LEARNING = ("nothing", "more skill", "less skill")
LEANS = ("a base that leans", {"lean": 2.5})
UNPARSED = ("unparsed answers", {"unparsed": 0.4})

World = tuple[str, bool, Form, tuple[str, ...], dict[str, Any]]


def worlds() -> list[World]:
    """(name, whether it counts, form, truths, settings of ``planted``)."""
    found: list[World] = []
    forms: tuple[Form, ...] = ("choices", "labels", "numbers")
    for form in forms:
        for name, shares in (("thirds", THIRDS), ("halves", HALVES), ("uneven", UNEVEN)):
            if form == "numbers" and shares != THIRDS:  # without classes, their shares are nothing
                continue

            def world(
                counts: bool, truths: tuple[str, ...], extra: tuple[str, dict[str, Any]], **further: Any
            ) -> World:
                settings = {"shares": shares, "memorised": 0.6, **extra[1], **further}  # noqa: B023
                where = ", ".join(filter(None, (form, name, extra[0])))  # noqa: B023
                return where, counts, form, truths, settings  # noqa: B023

            plain = tuple(truth for truth in LEGAL[form] if truth not in (RIGHT, WRONG, FORMAT))
            found.append(world(True, plain, ("", {}), skill=0.6))
            if form != "numbers":
                shift = 2.5 if shares == HALVES else 5.0
                found.append(world(True, (WRONG,), ("a skilled base", {}), skill=2.0, shift=shift))
                # written labels alone do not tell what a base knows that avoids one of them
                found.append(world(form == "choices", (RIGHT,), LEANS, skill=1.6))
                found.append(world(False, LEARNING, LEANS))
            if form != "choices":
                found.append(world(True, (FORMAT,), UNPARSED))
                found.append(world(False, LEARNING, UNPARSED))
    three = {"shares": THIRDS, "seeds": 3, "skill": 2.0}
    found.append(("choices, thirds, three seeds", False, "choices", (*LEARNING, WRONG), three))
    return found


def main(studies: int) -> None:
    clear: dict[str, Counter[str]] = {}
    effects: dict[str, list[float]] = {}
    for name, counts, form, truths, settings in worlds():
        began = time.process_time()
        kinds: dict[str, Counter[str]] = {truth: Counter() for truth in truths}
        repeated = truths * (4 if len(truths) == 1 else 2)
        for seed in range(studies):
            study = planted(repeated, form=form, seed=seed, **settings)
            verdicts = study.verdicts()
            for source, truth in study.truth.items():
                cell = verdicts.of(source, "task")
                kinds[truth][cell.kind] += 1
                if counts:
                    effects.setdefault(truth, []).append(abs(cell.improvement))
        print(f"{name}{'' if counts else ' (hard)'}, {time.process_time() - began:.0f} CPU s")
        for truth, found in kinds.items():
            print(f"  {truth:22} {_shares(found)}")
            if counts:
                clear.setdefault(truth, Counter()).update(found)
    print("\nAll worlds that count")
    for truth, found in clear.items():
        right = 100 * found[TRUTHS[truth]] / found.total()
        size = f"{np.mean(effects[truth]):.0f} points"
        print(f"  {truth:22} {found.total():6,} cells of {size:9}: right {right:5.1f} %  ({_shares(found)})")
    gains = clear["more skill"]
    unclean = sum(gains[kind] for kind in ("collapse", "class shares", "format", "overlap"))
    print(f"\ntrue clean gains that are called unclean: {100 * unclean / gains.total():.2f} %")


def _shares(found: Counter[str]) -> str:
    return ", ".join(f"{kind} {100 * count / found.total():.1f} %" for kind, count in found.most_common())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES)
