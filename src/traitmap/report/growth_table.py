"""A matrix on paper as a table for the terminal."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from traitmap.runs.growth import Growth


def growth_table(found: Growth) -> Group:
    """What it would take, then what that rests on."""
    title = f"{found.adapters} adapters x {found.targets} targets, {found.workers} workers"
    # No box: rules of a box are noise in a pipe.
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("how much", justify="right")
    rows = (
        ("items of each target", f"{found.items:,.0f}"),
        ("cells, the base's among them", f"{(found.adapters + 1) * found.targets:,}"),
        ("outcomes", f"{(found.adapters + 1) * found.targets * found.items:,.0f}"),
        ("adapters trained together", f"{found.group_size}"),
        ("worker hours (GPU hours)", f"{found.worker_hours:,.3g}"),
        ("hours from start to end", f"{found.hours:,.3g}"),
        ("the same, unlucky", f"{found.unlucky_hours:,.3g}"),
        ("workers are busy", f"{found.busy:.0%}"),
        ("disk", _bytes(found.disk)),
        ("object store, at most", _bytes(found.object_store)),
        ("moved between machines", _bytes(found.moved)),
    )
    for row in rows:
        table.add_row(*row)
    notes = [*found.said, "unlucky: 5 % of units fail once, 10 % take three times as long (simulated)."]
    if found.group_size > 1:
        notes.append(f"run it with --group-size {found.group_size}.")
    return Group(table, *[Text(note, style="dim") for note in notes])


def _bytes(value: float) -> str:
    if isnan(value):
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"
