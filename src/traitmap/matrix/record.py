"""The transfer matrix as records: what each adapter does to each target, with its uncertainty.

Below the records: the matrix as a data frame, as files, and as JSON data. How its numbers are shown is the
subject of ``matrix.reading``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from traitmap.jsonable import jsonable, outline
from traitmap.metrics import direction
from traitmap.runs.files import write_output
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    import pandas as pd


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One (source, target) of the matrix, for one seed or pooled over seeds (seed None).

    value, stderr: mean score of the adapter on the items of the target, and its standard error. n: items,
    those that repeat or belong together counted once. asked, asked_of: items asked and items of the target,
    where only some were asked and this number is an estimate from a part; else 0. gain: adapter minus base on
    the same items, with a 95 % interval; p against no gain (paired); q after Benjamini-Hochberg over the
    pooled cells. unparsed: share of answers that the task could not parse. Unknown numbers are NaN; status
    says why: ``measured``, ``missing`` (not there yet), ``failed`` (reason tells), ``given`` (read from a
    table without items), ``predicted`` (from other cells: the interval then is of the level that the
    conditions tell, and there is no test). Where cells may end early the intervals and p hold at every look
    (``matrix.sequential``).
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
    asked: int = 0
    asked_of: int = 0

    @property
    def asked_words(self) -> str:
        """``60 of 250``, the items that were asked of all; empty where all were."""
        return f"{self.asked:,} of {self.asked_of:,}" if self.asked_of else ""


@dataclass(frozen=True)
class TransferMatrix:
    """Base and adapters on targets. Axis order is always (sources, targets).

    values: (S, T) pooled over seeds, NaN where missing. baseline: (T,) the base model, NaN if unknown.
    cells: every pooled cell (seed None) and every seed's cell.
    base_cells: the base's own cells (source ``__baseline__``), one per target.
    item_scores: target -> (1 + S, seeds, items); row 0 is the base (the same for all seeds);
        NaN where not measured. Empty for tables without items. An adapter that existed before has no
        seed: its scores stand in every seed's place.
    item_groups: target -> (items,) number of the group that each item is in, where some repeat or belong
        together (a document); such items are no sample of their own, and ``n`` counts groups.
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
    item_groups: Mapping[str, NDArray[np.int64]] = field(default_factory=lambda: MappingProxyType({}))

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

    @cached_property
    def higher_is_better(self) -> Mapping[str, bool]:
        """Direction of each target's metric where it is known; higher is better where it is not.

        What the conditions state counts first, then the catalogue by the metric of the target's cells, then
        the catalogue by the last word of the target's own name (``wikitext_ppl``), where that is a cost.
        """
        known: dict[str, bool] = dict(self.conditions.get("higher_is_better") or {})
        metrics: dict[str, str] = {}
        for cell in (*self.base_cells, *self.cells):
            if cell.metric:
                metrics.setdefault(cell.target, cell.metric)
        for target in self.targets:
            higher, origin = direction(metrics.get(target) or re.split(r"[\W_]+", target.strip())[-1])
            if origin == "known" and (target in metrics or not higher):
                known.setdefault(target, higher)
        return known

    def part(
        self, sources: Sequence[str] | None = None, targets: Sequence[str] | None = None
    ) -> TransferMatrix:
        """The matrix of some of its sources and targets, in the order in which they are named; None: all.

        The very same record where nothing is left out. ValueError for a name that it does not have.
        """
        sources = self.sources if sources is None else tuple(sources)
        targets = self.targets if targets is None else tuple(targets)
        if (sources, targets) == (self.sources, self.targets):
            return self
        rows = [self.sources.index(name) for name in sources]
        columns = [self.targets.index(name) for name in targets]
        return replace(
            self,
            sources=sources,
            targets=targets,
            values=self.values[np.ix_(rows, columns)],
            baseline=self.baseline[columns],
            cells=tuple(cell for cell in self.cells if cell.source in sources and cell.target in targets),
            base_cells=tuple(cell for cell in self.base_cells if cell.target in targets),
            item_scores={  # the base is the first row
                name: scores[[0, *(1 + row for row in rows)]]
                for name, scores in self.item_scores.items()
                if name in targets
            },
            chance=None if self.chance is None else self.chance[columns],
            majority=None if self.majority is None else self.majority[columns],
        )

    def to_frame(self) -> pd.DataFrame:
        """Long table: one row per cell, the fields of ``Cell`` as columns.

        First the base's cells (source ``__baseline__``), then pooled cells and each seed's; ``seed`` is
        missing where pooled. A table without cells gives one row per value, with status ``given``.
        """
        import pandas as pd

        cells = (*self.base_cells, *self.cells) or _given_cells(self)
        frame = pd.DataFrame(
            [asdict(cell) for cell in cells], columns=[column.name for column in fields(Cell)]
        )
        frame["seed"] = frame["seed"].astype("Int64")
        return frame

    def to_csv(self, path: str | Path, *, intervals: bool = False) -> None:
        """Wide table of values, a column per target: the row ``__baseline__``, then a row per source.

        Where no target has a base the row ``__baseline__`` is left out. The first column is ``source``;
        unknown values are empty, and so are predicted ones: a wide table has no place to mark them.
        ``to_frame`` has, by ``status``. intervals: write ``to_frame``, a row per cell with gain, interval
        and tests, in place of the wide table, which has no place for them either.
        """
        import pandas as pd

        if intervals:
            write_output(path, self.to_frame().to_csv(index=False, lineterminator="\n"))
            return
        measured = np.where(self.predicted, np.nan, self.values)
        base = self.baseline[None, :][: int(np.isfinite(self.baseline).any())]
        frame = pd.DataFrame(np.vstack([base, measured]), columns=list(self.targets))
        frame.insert(0, "source", [*[BASELINE] * len(base), *self.sources], allow_duplicates=True)
        write_output(path, frame.to_csv(index=False, lineterminator="\n"))

    def to_parquet(self, path: str | Path) -> None:
        """``to_frame`` as Parquet, with the conditions as JSON in the schema's metadata.

        They stand there under ``traitmap``, and ``read_matrix`` reads them again.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.to_frame(), preserve_index=False)
        told = json.dumps(jsonable(self.conditions), sort_keys=True).encode()
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata({**(table.schema.metadata or {}), b"traitmap": told}), sink
        )
        write_output(path, sink.getvalue().to_pybytes())

    def to_json(self) -> dict[str, Any]:
        """The matrix as JSON data; unknown numbers are null.

        sources, targets; baseline, chance, majority: {target: number}; cells: pooled (seed null) and each
        seed's, without ``reason``; baseline_cells: the base's own; reasons: why cells are not measured, or
        what to know about them; conditions.
        """
        columns = [column.name for column in fields(Cell) if column.name != "reason"]
        unknown = np.full(len(self.targets), np.nan)

        def by_target(numbers: Array | None) -> dict[str, Any]:
            return dict(zip(self.targets, jsonable(unknown if numbers is None else numbers), strict=True))

        cells = self.cells or tuple(cell for cell in _given_cells(self) if cell.source != BASELINE)
        return {
            "sources": list(self.sources),
            "targets": list(self.targets),
            "baseline": by_target(self.baseline),
            "chance": by_target(self.chance),
            "majority": by_target(self.majority),
            "cells": [{name: jsonable(getattr(cell, name)) for name in columns} for cell in cells],
            "baseline_cells": [
                {name: jsonable(getattr(cell, name)) for name in columns} for cell in self.base_cells
            ],
            "reasons": [
                {"source": cell.source, "target": cell.target, "seed": cell.seed, "reason": cell.reason}
                for cell in (*self.base_cells, *cells)
                if cell.reason
            ],
            "conditions": jsonable(self.conditions),
        }

    __repr__ = outline

    def _repr_html_(self) -> str:
        """A small heat map, for notebooks."""
        from traitmap.matrix.reading import matrix_html

        return matrix_html(self)


def _given_cells(matrix: TransferMatrix) -> tuple[Cell, ...]:
    """Cells of a table that holds values only."""
    nan = float("nan")
    found = []
    for name, row in zip((BASELINE, *matrix.sources), (matrix.baseline, *matrix.values), strict=True):
        for target, base, value in zip(matrix.targets, matrix.baseline, row, strict=True):
            gain = nan if name == BASELINE else float(value - base)
            status = "given" if isfinite(value) else "missing"
            numbers = (float(value), 0, nan, gain, nan, nan, nan, nan, nan)
            found.append(Cell(name, target, None, "", *numbers, status))
    return tuple(found)
