"""Forty million outcomes: written through the run's own writer, read into a matrix, reported.

    python benchmarks/store_size.py FOLDER             200 adapters x 100 targets x 2,000 items
    python benchmarks/store_size.py FOLDER --adapters 199 --targets 100 --items 20    20,000 cells
    python benchmarks/store_size.py FOLDER --adapters 10 --targets 2 --items 200000   200,000 items a target

FOLDER gets a run folder; remove it afterwards. Outcomes are made up, column by column: four targets of five
are answered right or wrong, one has scores between 0 and 1; items differ in difficulty, adapters in skill.
``made`` is the time for making them up, which is not part of ``written``: every cell then goes through
``write_cells``, which ``write_cell`` and so every run uses, with checksums and all forced to the disk.
Each stage runs in a process of its own; memory is the peak of that process, CPU what it used of all cores:
on a machine that is busy with other things, seconds say little. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from traitmap.data.outcomes import SCHEMA
from traitmap.runs.cells import BATCH, CellResult, NewCell, write_cells
from traitmap.runs.ledger import AdapterEntry, CellEntry, Ledger, write_ledger
from traitmap.runs.store import RunStore, locked_store
from traitmap.study.paths import digest
from traitmap.study.settings import BASELINE

STAGES = ("write", "status", "matrix", "fast report", "report", "query")
QUERY = (
    "select source, target, avg(score) as mean, count(*) as n from outcomes group by all order by mean desc"
)


def main() -> None:
    asked = _arguments()
    if asked.stage:
        print(json.dumps(_measured(lambda: _stage(asked))))
        return
    found = {}
    for stage in asked.stages.split(","):
        command = [sys.executable, __file__, str(asked.folder), "--stage", stage]
        command += ["--adapters", str(asked.adapters), "--targets", str(asked.targets)]
        done = subprocess.run([*command, "--items", str(asked.items)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found[stage] = json.loads(done.stdout.splitlines()[-1])
        _print_row(stage, found[stage])
    if asked.output is not None:
        from record import conditions, save  # torch: only here

        shape = {"adapters": asked.adapters, "targets": asked.targets, "items": asked.items}
        save(asked.output, {**conditions(), **shape, "stages": found})


def _print_row(stage: str, told: dict[str, float]) -> None:
    if stage == "write":
        print(f"{told['cells']:,.0f} cells, {told['rows']:,.0f} outcomes, {told['bytes'] / 1e6:,.0f} MB\n")
        print("| stage | seconds | CPU seconds | peak memory (GB) | |\n|---|---|---|---|---|")
    seconds = told.get("writing", told["seconds"])
    note = ""
    if stage == "write":
        note = f"{told['rows'] / seconds:,.0f} rows a second; made up in {told['making']:.0f} s besides"
    elif "note" in told:
        note = str(told["note"])
    print(f"| {stage} | {seconds:.1f} | {told['cpu']:.1f} | {told['memory']:.2f} | {note} |", flush=True)


def _stage(asked: argparse.Namespace) -> dict[str, object]:
    stages = (_write, _status, _matrix, _fast_report, _report, _query)
    return dict(zip(STAGES, stages, strict=True))[asked.stage](asked)


def _measured(stage: Callable[[], dict[str, object]]) -> dict[str, object]:
    started = time.perf_counter()
    told = stage()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time(), "memory": memory, **told}


def _write(asked: argparse.Namespace) -> dict[str, object]:
    spent = {"making": 0.0, "writing": 0.0, "cpu": 0.0}
    folder = asked.folder / "size"
    with locked_store(folder) as store:
        batch: list[NewCell] = []
        started = time.perf_counter()
        for cell in _cells(store, asked):
            batch.append(cell)
            if len(batch) == BATCH * 4:
                started = _flush(batch, spent, started)
        _flush(batch, spent, started)
        write_ledger(store, _ledger(asked))
    count = (1 + asked.adapters) * asked.targets
    size = sum(path.stat().st_size for path in (folder / "cells").iterdir())
    return {**spent, "cells": count, "rows": count * asked.items, "bytes": size}


def _flush(batch: list[NewCell], spent: dict[str, float], started: float) -> float:
    made, used = time.perf_counter(), time.process_time()
    write_cells(batch)
    batch.clear()
    written = time.perf_counter()
    spent["making"] += made - started
    spent["writing"] += written - made
    spent["cpu"] += time.process_time() - used
    return written


def _cells(store: RunStore, asked: argparse.Namespace) -> Iterator[NewCell]:
    """Cell by cell, adapter by adapter, as a run makes them."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=(asked.targets, asked.items))
    sides = (
        generator.normal(scale=0.3, size=(1 + asked.adapters, 3)),
        generator.normal(size=(3, asked.targets)),
    )
    skill = sides[0] @ sides[1]
    labels = [_labels(target, asked.items) for target in range(asked.targets)]
    for row in range(1 + asked.adapters):
        for target in range(asked.targets):
            drive = skill[row, target] - difficulty[target]
            drive = drive + generator.logistic(scale=0.5, size=asked.items)
            aggregates = {"acc,none": float("nan")} if target % 5 == 4 else {}
            yield (
                store.cell(_key(row, target)),
                CellResult(_outcomes(drive, labels[target], graded=target % 5 == 4), aggregates),
                {"base": "made up", "target": f"target{target}"},
            )


def _labels(target: int, items: int) -> tuple[pa.Array, pa.Array]:
    """Digests of the items, and their right answers."""
    digests = pa.array([digest([target, item], 16) for item in range(items)])
    return digests, pa.array([("yes", "no")[item % 2] for item in range(items)])


def _outcomes(drive: np.ndarray, labels: tuple[pa.Array, pa.Array], *, graded: bool) -> pa.Table:
    n, (digests, gold) = len(drive), labels
    right = drive > 0
    score = np.round(1 / (1 + np.exp(-drive)), 4) if graded else right.astype(np.float64)
    other = pa.array(["no" if word == "yes" else "yes" for word in ("yes", "no")]).take(
        pa.array(np.arange(n) % 2)
    )
    prediction = pa.compute.if_else(pa.array(right), gold, other)
    logprobs = np.column_stack([-np.log1p(np.exp(-drive)), -np.log1p(np.exp(drive))]).ravel()
    return pa.table(
        {
            "item": pa.array(np.arange(n, dtype=np.int32)),
            "item_digest": digests,
            "score": pa.array(score),
            "correct": pa.nulls(n, pa.bool_()) if graded else pa.array(right),
            "prediction": prediction,
            "gold": gold,
            "choice_logprobs": pa.ListArray.from_arrays(np.arange(0, 2 * n + 1, 2, dtype=np.int32), logprobs),
            "text": pa.nulls(n, pa.string()),
            "parsed": pa.array(np.ones(n, bool)),
            "output_tokens": pa.array(np.ones(n, np.int32)),
            "stopped": pa.nulls(n, pa.bool_()),
        },
        schema=SCHEMA,
    )


def _key(row: int, target: int) -> str:
    return digest(["made up", row, target])


def _ledger(asked: argparse.Namespace) -> Ledger:
    rows = [(BASELINE, None), *((f"source{row}", 0) for row in range(asked.adapters))]
    return Ledger(
        name="size",
        study=digest("size"),
        base=digest("base"),
        model={"path": "made up"},
        conditions={"engine": "made up"},
        seeds=(0,),
        sources=tuple(_source(row) for row in range(asked.adapters)),
        targets=tuple(_target(target, asked.items) for target in range(asked.targets)),
        adapters=tuple(
            AdapterEntry(source, seed, digest(source), 0, status="done", digest=digest(source))
            for source, seed in rows[1:]
        ),
        cells=tuple(
            CellEntry(source, seed, f"target{target}", _key(row, target), status="done")
            for row, (source, seed) in enumerate(rows)
            for target in range(asked.targets)
        ),
    )


def _source(row: int) -> dict[str, object]:
    told = {"name": f"source{row}", "digest": digest(row), "examples": 1000, "available": 1000}
    return {**told, "label_counts": {}, "adapter": None, "lora": {}, "training": {}, "tags": []}


def _target(target: int, items: int) -> dict[str, object]:
    return {
        "name": f"target{target}",
        "task": "made up",
        "version": "1",
        "kind": "multiple_choice",
        "metric": "closeness" if target % 5 == 4 else "acc",
        "filter": "none",
        "higher_is_better": True,
        "items": items,
        "requests": 2 * items,
        "digest": digest(target),
        "chance": 0.5,
        "majority": 0.5,
        "tags": [],
        "conditions": {},
    }


def _matrix(asked: argparse.Namespace) -> dict[str, object]:
    from traitmap.api.subject import read_matrix

    matrix = read_matrix(asked.folder / "size")
    measured = sum(cell.status == "measured" for cell in matrix.cells)
    return {"note": f"{measured:,} cells measured, {sum(c.q < 0.05 for c in matrix.cells):,} with q < .05"}


def _status(asked: argparse.Namespace) -> dict[str, object]:
    from traitmap.api.runs import status

    return {"note": f"{status(asked.folder / 'size').cells.done:,} cells done"}


def _fast_report(asked: argparse.Namespace) -> dict[str, object]:
    return _report(asked, fast=True)


def _report(asked: argparse.Namespace, fast: bool = False) -> dict[str, object]:
    from traitmap.api.runs import open_run

    path = open_run(asked.folder / "size").report(fast=fast)
    return {"note": f"matrix included; {path.stat().st_size / 1e6:.1f} MB of HTML"}


def _query(asked: argparse.Namespace) -> dict[str, object]:
    from traitmap.api.runs import query

    return {"note": f"{len(query(asked.folder / 'size', QUERY)):,} rows: `{QUERY}`"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapters", type=int, default=200)
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--output", type=Path, help="a results file (JSON)")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    return parser.parse_args()


if __name__ == "__main__":
    main()
