"""What a run in progress shows to whoever watches it: stage, time left, losses, and which cells are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.runs.ledger import Ledger
    from traitmap.runs.progress_file import RunProgress, StageProgress
    from traitmap.runs.store import RunStore

CellState = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class FollowedCell:
    """A cell as it stands: its seeds together.

    state: ``done`` when every seed is, ``failed`` when one failed. done, seeds: how many of its seeds are
    there, and in all. value: mean score over the seeds that are there, NaN where none is. difference: that
    less the base's, in points of an improvement (turned where lower is better), NaN where either is unknown;
    a colour for the eye, without interval or test: those come with the matrix.
    """

    state: CellState
    done: int
    seeds: int
    value: float
    difference: float


@dataclass(frozen=True)
class Following:
    """A run at one moment, for a page that asks again and again.

    state: ``running``; ``done`` (complete), ``stopped`` (nobody runs it and something is missing or failed).
    rows: the base first, then every source. cells: a row of cells for each of ``rows``, one for each target.
    stages, losses: as ``runs.progress_file`` keeps them; empty where nothing runs.
    """

    name: str
    state: Literal["running", "done", "stopped"]
    rows: tuple[str, ...]
    targets: tuple[str, ...]
    cells: tuple[tuple[FollowedCell, ...], ...]
    adapters: Mapping[str, int]
    failures: tuple[str, ...]
    stages: tuple[StageProgress, ...]
    losses: tuple[tuple[float, float], ...]
    elapsed: float

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        stages = [{**asdict(one), "seconds_left": _known(one.seconds_left)} for one in self.stages]
        cells = [
            [{name: _known(value) for name, value in asdict(one).items()} for one in row]
            for row in self.cells
        ]
        return {
            "name": self.name,
            "state": self.state,
            "rows": list(self.rows),
            "targets": list(self.targets),
            "cells": cells,
            "adapters": dict(self.adapters),
            "failures": list(self.failures),
            "stages": stages,
            "losses": [list(one) for one in self.losses],
            "elapsed": _known(self.elapsed),
        }


class Follower:
    """Reads a run folder again and again; scores of a finished cell are read once, for they do not change."""

    def __init__(self, folder: str | Path) -> None:
        from traitmap.runs.store import open_store

        self.store: RunStore = open_store(folder)
        self._means: dict[str, float] = {}

    def look(self) -> Following:
        """The run as it is now. RunError where its ledger cannot be read."""
        from traitmap.runs.ledger import read_ledger
        from traitmap.runs.progress_file import read_progress
        from traitmap.runs.store import running_pid

        ledger = read_ledger(self.store)
        running = running_pid(self.store) is not None
        progress = read_progress(self.store.folder) if running else None
        adapters = [one.status for one in ledger.adapters]
        complete = {*adapters, *(one.status for one in ledger.cells)} <= {"done"}
        return Following(
            name=ledger.name,
            state="running" if running else ("done" if complete else "stopped"),
            rows=(BASELINE, *(str(one["name"]) for one in _rows(ledger))),
            targets=tuple(str(one["name"]) for one in ledger.targets),
            cells=self._cells(ledger),
            adapters={status: adapters.count(status) for status in ("done", "failed", "missing")},
            failures=_failures(ledger),
            stages=progress.stages if progress else (),
            losses=progress.losses if progress else (),
            elapsed=_elapsed(progress),
        )

    def _cells(self, ledger: Ledger) -> tuple[tuple[FollowedCell, ...], ...]:
        states: dict[tuple[str, str], list[str]] = {}
        values: dict[tuple[str, str], list[float]] = {}
        for one in ledger.cells:
            states.setdefault((one.source, one.target), []).append(one.status)
            if one.status == "done" and one.key is not None:
                values.setdefault((one.source, one.target), []).append(self._mean(one.key))
        names = [BASELINE, *(str(one["name"]) for one in _rows(ledger))]
        return tuple(
            tuple(_cell(states, values, name, target) for target in ledger.targets) for name in names
        )

    def _mean(self, key: str) -> float:
        """Mean score over a cell's items; NaN where the file cannot be read, which the run will find out."""
        from traitmap.errors import RunError
        from traitmap.runs.cells import read_scores

        if key not in self._means:
            try:
                scores = read_scores(self.store.cell(key)).scores
            except RunError:
                return nan
            known = [float(score) for score in scores if isfinite(score)]
            self._means[key] = sum(known) / len(known) if known else nan
        return self._means[key]


def _rows(ledger: Ledger) -> list[Mapping[str, Any]]:
    """Sources that have cells: one that only serves others as material has none."""
    asked = {one.source for one in ledger.cells}
    return [one for one in ledger.sources if one["name"] in asked]


def _cell(
    states: Mapping[tuple[str, str], list[str]],
    values: Mapping[tuple[str, str], list[float]],
    name: str,
    target: Mapping[str, Any],
) -> FollowedCell:
    place = name, str(target["name"])
    asked = states.get(place, [])
    failed, done = asked.count("failed"), asked.count("done")
    state: CellState = "failed" if failed else "done" if asked and done == len(asked) else "missing"
    value, base = _mean_of(values.get(place)), _mean_of(values.get((BASELINE, place[1])))
    turn = 1.0 if target.get("higher_is_better", True) else -1.0
    difference = nan if name == BASELINE else 100 * turn * (value - base)
    return FollowedCell(state, done, len(asked), value, difference)


def _mean_of(values: list[float] | None) -> float:
    return sum(values) / len(values) if values else nan


def _failures(ledger: Ledger) -> tuple[str, ...]:
    """Why units failed, each reason of an adapter once."""
    broken = {(one.source, one.seed) for one in ledger.adapters if one.status == "failed"}
    found = [f"{one.source}, training: {one.reason}" for one in ledger.adapters if one.status == "failed"]
    return (
        *found,
        *(
            f"{one.source} on {one.target}: {one.reason}"
            for one in ledger.cells
            if one.status == "failed" and (one.source, one.seed) not in broken
        ),
    )


def _elapsed(progress: RunProgress | None) -> float:
    if progress is None or not progress.stages:
        return nan
    return progress.stages[-1].heard - progress.started


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value
