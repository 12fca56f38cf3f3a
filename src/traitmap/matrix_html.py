"""A transfer matrix as a small heat map for notebooks."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from traitmap.notebook import Entry, Rows, between, number, page

if TYPE_CHECKING:
    from traitmap.matrix_record import Cell, TransferMatrix


def matrix_html(matrix: TransferMatrix) -> str:
    """Base row of absolute values, gains beneath it with their intervals on pointing, ``*`` at q < .05.

    Shares are shown in points; a colour is deepest at the largest gain of its unit.
    """
    factors = [_factor(matrix, t) for t in range(len(matrix.targets))]
    cells = {(cell.source, cell.target): cell for cell in matrix.cells if cell.seed is None}
    base = [
        Entry(number(float(value) * factor)) for value, factor in zip(matrix.baseline, factors, strict=True)
    ]
    rows: list[tuple[str, list[Entry]]] = [("base", base)]
    for s, source in enumerate(matrix.sources):
        entries = []
        for t, target in enumerate(matrix.targets):
            gain = float(matrix.gains[s, t]) * factors[t]
            entries.append(_entry(matrix, cells.get((source, target)), gain, target, factors[t]))
        rows.append((source, entries))
    heads = [
        target if matrix.higher_is_better.get(target, True) else f"{target} ↓" for target in matrix.targets
    ]
    own = [target for target, factor in zip(matrix.targets, factors, strict=True) if factor == 1]
    notes = [
        "Base: absolute; below it gains over the base"
        + (" in points" if len(own) < len(matrix.targets) else "")
        + (f" ({', '.join(own)}: in their own unit)" if own else "")
        + "."
    ]
    tested = any(isfinite(cell.q) for cell in cells.values())
    notes[0] += " * q < .05 over the matrix; point at a cell for its interval." if tested else " No test."
    if matrix.predicted.any():
        notes.append("~ predicted from other cells, not measured.")
    title = f"Transfer matrix: {len(matrix.sources)} sources × {len(matrix.targets)} targets"
    return page(title, Rows("source", heads, rows), notes=notes)


def _factor(matrix: TransferMatrix, t: int) -> float:
    """100 for a target whose values are all shares, else 1."""
    known = [float(one) for one in (*matrix.values[:, t], matrix.baseline[t]) if isfinite(one)]
    return 100.0 if known and all(0 <= one <= 1 for one in known) else 1.0


def _entry(matrix: TransferMatrix, cell: Cell | None, gain: float, target: str, factor: float) -> Entry:
    if not isfinite(gain):
        return Entry(cell.status if cell is not None and cell.status != "measured" else "–")
    better = 1.0 if matrix.higher_is_better.get(target, True) else -1.0
    shade = better * gain / _deepest(matrix, factor)
    if cell is None:
        return Entry(number(gain, sign=True), shade)
    predicted, told = cell.status == "predicted", isfinite(cell.q) and cell.q < 0.05
    mark = "~" if predicted else "*" if told else ""
    title = " ".join(
        part
        for part in (
            f"{cell.source} → {target}: {number(gain, 2, sign=True)}",
            between(cell.gain_low * factor, cell.gain_high * factor, 2),
            f"q = {cell.q:.3f}" if isfinite(cell.q) else "",
            f"n = {cell.n}" if cell.n else "",
        )
        if part
    )
    return Entry(number(gain, sign=True) + mark, shade, told, title)


def _deepest(matrix: TransferMatrix, factor: float) -> float:
    """The largest gain among targets that are shown in the same way."""
    alike = [t for t in range(len(matrix.targets)) if _factor(matrix, t) == factor]
    gains = [abs(float(one)) * factor for one in matrix.gains[:, alike].ravel() if isfinite(one)]
    return max([*gains, 1e-9])
