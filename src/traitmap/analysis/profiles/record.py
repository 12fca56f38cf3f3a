"""The record of a profile, of some datasets or of a run, and its flat rows for tables and CSV files.

Rows are one a dataset, a cell or a relation; every interval becomes three columns: name, name_low, name_high.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.profiles.cells import CellProfiles
from traitmap.analysis.profiles.classes import METRICS
from traitmap.analysis.profiles.datasets import DatasetComparison
from traitmap.analysis.profiles.parser import Relations
from traitmap.analysis.profiles.relations import RelationEffects
from traitmap.engine.perplexity import BasePerplexity
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

MARKED = 0.5  # share of texts from which a mark of format is the dataset's


@dataclass(frozen=True)
class DatasetRow:
    """One dataset in short. Lengths are in ``unit``; unknown numbers are NaN, unknown names empty.

    role: ``source``, ``target`` or ``dataset``. texts: profiled; size: that there are.
    input, output: median length; output_low, output_high: 5th and 95th percentile.
    classes: how many there are; entropy: bits; majority: share of the commonest.
    answer: commonest form of the answers and its share. marks: marks of format that half of the outputs
        (of the inputs, where there are no outputs) bear.
    perplexity: of the base on input and output. style, meaning: nearest other dataset with its cosine; a
        task's own other half (its training examples, its items) is left out.
    """

    dataset: str
    role: str
    texts: int
    size: float
    unit: str
    input: float
    output: float
    output_low: float
    output_high: float
    classes: float
    entropy: float
    majority: float
    answer: str
    answer_share: float
    marks: tuple[str, ...]
    vocabulary: int
    richness: float
    perplexity: float
    style: str = ""
    style_cosine: float = nan
    meaning: str = ""
    meaning_cosine: float = nan


def dataset_rows(
    comparison: DatasetComparison, roles: Mapping[str, str], tasks: Mapping[str, str]
) -> tuple[DatasetRow, ...]:
    """A row of each dataset, in their order.

    roles: dataset -> ``source``, ``target`` or ``dataset``. tasks: dataset -> task; datasets of one task are
    not each other's neighbours.
    """
    names = comparison.names
    same_task = np.array([[tasks.get(a, a) == tasks.get(b, b) for b in names] for a in names])
    style = comparison.style_cosine
    if comparison.encoded_style_cosine is not None:
        style = comparison.encoded_style_cosine
    neighbours = zip(
        _nearest(names, style, same_task),
        _nearest(names, comparison.semantic_cosine, same_task),
        strict=True,
    )
    rows = []
    for profile, (by_style, by_meaning) in zip(comparison.profiles.values(), neighbours, strict=True):
        output, classes = profile.lengths.output, profile.classes
        answer, answer_share = max(profile.forms.answers.items(), key=lambda form: form[1], default=("", nan))
        marks = profile.forms.output_markers if output.n else profile.forms.input_markers
        rows.append(
            DatasetRow(
                dataset=profile.name,
                role=roles.get(profile.name, "dataset"),
                texts=profile.texts,
                size=profile.size,
                unit=profile.lengths.unit,
                input=profile.lengths.input.median,
                output=output.median,
                output_low=float(output.percentiles[5]),
                output_high=float(output.percentiles[95]),
                classes=classes.number,
                entropy=classes.entropy,
                majority=classes.majority,
                answer=answer,
                answer_share=answer_share,
                marks=tuple(mark for mark, share in marks.items() if share >= MARKED),
                vocabulary=len(profile.words),
                richness=profile.richness,
                perplexity=profile.perplexity,
                style=by_style[0],
                style_cosine=by_style[1],
                meaning=by_meaning[0],
                meaning_cosine=by_meaning[1],
            )
        )
    return tuple(rows)


def _nearest(
    names: Sequence[str], cosine: Array, same_task: NDArray[np.bool_]
) -> Iterator[tuple[str, float]]:
    """The nearest dataset of another task to each, and its cosine; ("", NaN) where there is none."""
    for row in np.where(same_task, -np.inf, np.where(np.isfinite(cosine), cosine, -np.inf)):
        best = int(row.argmax())
        yield (names[best], float(row[best])) if np.isfinite(row[best]) else ("", nan)


def cell_rows(cells: CellProfiles) -> list[dict[str, Any]]:
    """A row of each cell, pooled and by seed: classes, then lengths. Shares are from 0 to 1.

    Intervals are three columns each (name, name_low, name_high); unknown numbers are NaN, unknown words
    empty.
    """
    lengths = {(cell.source, cell.target, cell.seed): cell for cell in cells.lengths}
    classes = {(cell.source, cell.target, cell.seed): cell for cell in cells.classes}
    rows = []
    for key in dict.fromkeys([*classes, *lengths]):
        source, target, seed = key
        sorted_in, written = classes.get(key), lengths.get(key)
        metrics = sorted_in.adapter if sorted_in else None
        best = written.best if written else None
        row: dict[str, Any] = {
            "source": source,
            "target": target,
            "seed": "" if seed is None else seed,
            "commonest": metrics.commonest if metrics else "",
            "collapsed": metrics.collapsed if metrics else "",
            **_spread("commonest_share", metrics.commonest_share if metrics else None),
        }
        for name in METRICS:
            row |= _spread(name, getattr(metrics, name) if metrics else None)
            row |= _spread(f"{name}_gain", sorted_in.gains[name] if sorted_in else None)
        row |= {
            "length_unit": best.unit if best else "",
            "length_base": best.base.mean if best else nan,
            "length_gold": best.gold.mean if best else nan,
            "length_source": best.source.mean if best else nan,
            **_spread("length", best.mean if best else None),
            **_spread("interpolation", best.interpolation if best else None),
            **_spread("endless", written.endless if written else None),
            **_spread("endless_change", written.endless_change.difference if written else None),
            **_spread("unparsed", written.unparsed if written else None),
            **_spread("unparsed_change", written.unparsed_change.difference if written else None),
        }
        rows.append(row)
    return rows


def relation_rows(effects: RelationEffects) -> list[dict[str, Any]]:
    """A row of each relation in each cell, the untestable ones with their reason.

    The fields of ``RelationEffect``, intervals as three columns each, and whether it is significant.
    """
    rows = []
    for effect in effects.effects:
        row: dict[str, Any] = {}
        for name, value in vars(effect).items():
            row |= _spread(name, value) if isinstance(value, Interval) else {name: value}
        rows.append({**row, "significant": effect.significant})
    return rows


def _spread(name: str, interval: Interval | None) -> dict[str, float]:
    """An interval as three numbers."""
    ends = (interval.value, interval.low, interval.high) if interval else (nan, nan, nan)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


@dataclass(frozen=True)
class Profile:
    """What the texts of some datasets say, and of a run also what its answers say.

    kind: ``texts``, ``study`` or ``run``. roles: dataset -> ``source``, ``target`` or ``dataset``.
    tasks: dataset -> its name in the study, which a source and a target may have in common.
    comparison: profiles of the datasets, and how alike they are.
    relations: dataset -> dependency relations, where there was a parser. perplexity: dataset -> that of
        the base, where it was loaded.
    matrix, cells: of a run, and what its outcomes show beyond their scores. effects: how gains depend on
        relations, of a run with a parser.
    notes: what a reader must know beyond the comparison's own notes.
    """

    kind: str
    roles: Mapping[str, str]
    tasks: Mapping[str, str]
    comparison: DatasetComparison
    relations: Mapping[str, Relations] = field(default_factory=lambda: MappingProxyType({}))
    perplexity: Mapping[str, BasePerplexity] = field(default_factory=lambda: MappingProxyType({}))
    matrix: TransferMatrix | None = None
    cells: CellProfiles | None = None
    effects: RelationEffects | None = None
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row a dataset, the fields of ``DatasetRow`` as columns; unknown numbers are NaN.

        The same numbers as in the file that ``write_profile`` writes.
        """
        import pandas as pd

        return pd.DataFrame([vars(row) for row in self.rows()])

    __repr__ = outline

    def rows(self) -> tuple[DatasetRow, ...]:
        """One flat row a dataset."""
        return dataset_rows(self.comparison, self.roles, self.tasks)

    def all_notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        return (*self.comparison.notes, *self.notes)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        optional = {
            "syntax": self.relations or None,
            "perplexity": self.perplexity or None,
            "cells": self.cells,
            "relation_effects": self.effects,
        }
        return {
            "kind": self.kind,
            "roles": dict(self.roles),
            **self.comparison.to_json(),
            "notes": list(self.all_notes()),
            **{name: jsonable(part) for name, part in optional.items() if part is not None},
        }
