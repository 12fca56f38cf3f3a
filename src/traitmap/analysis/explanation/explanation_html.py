"""An explanation as small print for notebooks: its verdicts, and the effects behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from traitmap.notebook import Entry, Rows, between, number, page

if TYPE_CHECKING:
    from traitmap.analysis.explanation.records import Explanation


def explanation_html(found: Explanation) -> str:
    """Every verdict in words, and the effects of the composites beside each other."""
    rows = []
    for one in found.joint:
        slope = one.effect
        effect = f"{number(slope.value, 2, sign=True)} {between(slope.low, slope.high, 2)}".strip()
        verdict = Entry(one.verdict, strong=one.verdict == "yes")
        rows.append((one.name, [Entry(str(one.group)), Entry(effect), Entry(number(one.q, 3)), verdict]))
    title = f"Why: {found.pairs} pairs of {len(found.sources)} sources and {len(found.targets)} targets"
    table = [Rows("composite", ["group", "effect, 95 %", "q", "verdict"], rows)] if rows else []
    return page(title, *found.words, *table, notes=[f"! {one.message}" for one in found.warnings])
