"""A run's transfer matrix as a Markdown table with intervals.

python docs/matrix_table.py runs/real
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import isnan

import traitmap as tm
from traitmap.matrix.record import Cell, TransferMatrix


def lines(matrix: TransferMatrix) -> Iterator[str]:
    """Targets as rows, so that many fit a page: base, then every source's gain [interval], * at q < .05."""
    pooled = {(cell.source, cell.target): cell for cell in matrix.cells if cell.seed is None}
    yield "| target | base | " + " | ".join(matrix.sources) + " |"
    yield "|---" * (len(matrix.sources) + 2) + "|"
    for t, target in enumerate(matrix.targets):
        column = [pooled[source, target] for source in matrix.sources]
        proportion = all(0 <= value <= 1 for value in (*matrix.values[:, t], matrix.baseline[t]))
        factor = 100 if proportion else 1
        cells = " | ".join(gain(cell, factor) for cell in column)
        yield f"| {target} | {factor * matrix.baseline[t]:.1f} | {cells} |"


def tally(matrix: TransferMatrix) -> str:
    """How many transfers of sources that are no variations of others are significant, and which way."""
    described = matrix.conditions["sources"]
    off = [
        cell
        for cell in matrix.cells
        if cell.seed is None and cell.source != cell.target and not described[cell.source].get("variation")
    ]
    sure = [cell for cell in off if cell.q < 0.05]
    gains = sum(cell.gain > 0 for cell in sure)
    ways = f"{gains} gains and {len(sure) - gains} losses"
    return f"{len(off)} cells off the diagonal; {len(sure)} significant, {ways}"


def gain(cell: Cell, factor: int) -> str:
    """``+2.5 [0.1, 4.9]*``; a dash where it is not known."""
    if isnan(cell.gain):
        return "–"
    said = f"{factor * cell.gain:+.1f}"
    if not isnan(cell.gain_low):
        said += f" [{factor * cell.gain_low:.1f}, {factor * cell.gain_high:.1f}]"
    return said + ("*" if cell.q < 0.05 else "")


if __name__ == "__main__":
    found = tm.open_run(sys.argv[1]).matrix()
    print("\n".join(lines(found)), tally(found), sep="\n\n")
