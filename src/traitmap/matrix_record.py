"""The transfer matrix as records: what each adapter does to each target, with its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One (source, target) of the matrix, for one seed or pooled over seeds (seed None).

    value, stderr: mean score of the adapter on the items of the target, and its standard error.
    n: items. gain: adapter minus base on the same items, with a 95 % interval; p against no gain
    (paired); q after Benjamini-Hochberg over the matrix (pooled cells).
    unparsed: share of answers that the task could not parse.
    Unknown numbers are NaN; status says why: ``measured``, ``missing`` (not there yet),
    ``failed`` (reason tells), ``given`` (read from a table without items), ``predicted``
    (from other cells: the interval then is of the level that the conditions tell, and there is no test).
    """

    source: str
    target: str
    seed: int | None
    metric: str
    value: float
    n: int
    stderr: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    q: float
    unparsed: float
    status: str
    reason: str = ""


@dataclass(frozen=True)
class TransferMatrix:
    """Base and adapters on targets. Axis order is always (sources, targets).

    values: (S, T) pooled over seeds, NaN where missing. baseline: (T,) the base model, NaN if unknown.
    cells: every pooled cell (seed None) and every seed's cell.
    base_cells: the base's own cells (source ``__baseline__``), one per target.
    item_scores: target -> (1 + S, seeds, items); row 0 is the base (the same for all seeds);
        NaN where not measured. Empty for tables without items. An adapter that existed before has no
        seed: its scores stand in every seed's place.
    chance, majority: (T,) accuracy of guessing uniformly and of the commonest gold answer, NaN if unknown.
    source_tags, target_tags: name -> tags (task family, output form ...).
    conditions: how the numbers came about. ``higher_is_better`` in it is {target: bool}; a gain is
        always adapter minus base, whichever is better. ``seeds`` names the seeds of ``item_scores``.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    values: Array
    baseline: Array
    cells: tuple[Cell, ...] = ()
    base_cells: tuple[Cell, ...] = ()
    item_scores: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))
    chance: Array | None = None
    majority: Array | None = None
    source_tags: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    target_tags: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def gains(self) -> Array:
        """(S, T) adapter minus base; NaN where either is unknown."""
        return self.values - self.baseline[None, :]

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(S, T) True where a cell was predicted, not measured: such a value is no data."""
        places = {(cell.source, cell.target) for cell in self.cells if cell.status == "predicted"}
        return np.array(
            [[(source, target) in places for target in self.targets] for source in self.sources], dtype=bool
        ).reshape(len(self.sources), len(self.targets))

    @property
    def higher_is_better(self) -> Mapping[str, bool]:
        """Direction of each target's metric where it is known; higher is better where it is not."""
        known: Mapping[str, bool] = self.conditions.get("higher_is_better") or {}
        return known

    def _repr_html_(self) -> str:
        """A small heat map, for notebooks."""
        from traitmap.matrix_html import matrix_html

        return matrix_html(self)
