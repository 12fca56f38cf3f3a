"""kill -9 of the driver at random moments: what is computed twice, and whether the matrix is the same.

    python benchmarks/chaos.py FOLDER                            50 kills, bundled base, real engine
    python benchmarks/chaos.py FOLDER --kills 3 --engine fake    a small one, for the tests

One run is never disturbed. Then, for every kill: a new run is killed at a moment drawn uniformly over the
time that the undisturbed one took, and started again to its end. A unit is a training pass (of two
adapters) or a cell; units that were begun in both lives, less those of the undisturbed run, were computed
twice. Cells, adapters and matrix are compared byte by byte. A child that ends before its moment is drawn
anew. Imports, base and data are loaded once, before the driver forks off, so that moments fall into work.

Prints Markdown; ends with 1 where a kill cost more than one unit or changed a byte. FOLDER is removed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from traitmap.api.preparation import load_data, load_engine
from traitmap.engine.fake import FakeEngine
from traitmap.matrix.build import build_matrix
from traitmap.runs.execute import execute
from traitmap.runs.status import run_status
from traitmap.study.load import load_study
from traitmap.study.settings import Study

STUDY = """
name: chaos
model: {path: builtin:mini, dtype: float32, device: cpu}
lora: {r: 4, lora_alpha: 8}
training: {learning_rate: 0.002, warmup_steps: 2, batch_size: 8, max_steps: 10}
seeds: [0, 1]
limit: 24
sources:
  - {name: stars, task: mini_stars, limit: 80}
  - {name: programs, task: mini_programs, limit: 80}
  - {name: sums, task: mini_arithmetic, limit: 80}
targets: [mini_stars, mini_reviews, mini_arithmetic]
"""
GROUP = 2  # adapters of a training pass, so that there are several
FAKE_DELAY = 0.02


@dataclass(frozen=True)
class Killed:
    """One run that was killed.

    moment: seconds after its start. stage: what was being done. begun: units begun before the kill.
    twice: units begun in both lives beyond those there are. same: all bytes as of the undisturbed run.
    """

    moment: float
    stage: str
    begun: int
    twice: int
    same: bool


class Logged:
    """An engine that writes a line when it is asked for a unit, and another when the unit is handed over."""

    def __init__(self, engine: Any, log: Path) -> None:
        self._engine, self._log = engine, log

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("train", "answer"):
            return found

        def logged(*given: Any, **named: Any) -> Any:
            self._write(name)
            answer = found(*given, **named)
            self._write("done")
            return answer

        return logged

    def _write(self, word: str) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(word + "\n")


def main() -> int:
    asked = _arguments()
    started = time.perf_counter()
    kills = chaos_of_drivers(asked.folder, asked.kills, asked.seed, engine=asked.engine)
    return _conclude(kills, time.perf_counter() - started)


def chaos_of_drivers(folder: Path, kills: int, seed: int, *, engine: str = "local") -> list[Killed]:
    """So many kills of a run's driver, each printed as a row. folder: a new one, which is removed."""
    torch.set_num_threads(1)  # a thread would not survive the fork
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    study = load_study(folder / "study.yaml")
    opened = FakeEngine(delay=FAKE_DELAY) if engine == "fake" else load_engine(study)
    data = load_data(study, opened)
    gc.freeze()

    def drive(output: Path, log: Path) -> Callable[[], None]:
        own = study.model_copy(update={"output": str(output)})
        return lambda: _execute(own, Logged(opened, log), data)

    try:
        return _chaos(folder, kills, seed, drive)
    finally:
        shutil.rmtree(folder)


def _execute(study: Study, engine: Any, data: tuple[Any, Any]) -> None:
    execute(study, engine, *data, group_size=GROUP)


def _chaos(
    folder: Path, count: int, seed: int, drive: Callable[[Path, Path], Callable[[], None]]
) -> list[Killed]:
    whole, log = folder / "whole", folder / "whole.log"
    started = time.perf_counter()
    _wait(_fork(drive(whole, log)))
    took = time.perf_counter() - started
    units, expected = len(_begun(log)), _digests(whole / "chaos")
    print(f"undisturbed: {units} units in {took:.1f} s, {len(expected)} files; seed {seed}\n")
    print(
        "| kill | after (s) | while | units begun | computed twice | same bytes |\n|---|---|---|---|---|---|"
    )
    draws, kills = np.random.default_rng(seed), []
    while len(kills) < count:
        one = _killed(folder, drive, float(draws.uniform(0, took)), units, expected)
        if one is None:
            continue
        kills.append(one)
        words = f"{one.moment:.2f} | {one.stage} | {one.begun} | {one.twice} | {'yes' if one.same else 'NO'}"
        print(f"| {len(kills)} | {words} |", flush=True)
    return kills


def _killed(
    folder: Path,
    drive: Callable[[Path, Path], Callable[[], None]],
    moment: float,
    units: int,
    expected: dict[str, str],
) -> Killed | None:
    """One run killed and finished; None where it ended before the moment came."""
    output, logs = folder / "killed", [folder / "first.log", folder / "second.log"]
    for place in (output, *logs):
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    child = _fork(drive(output, logs[0]))
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    if os.WIFEXITED(os.waitpid(child, 0)[1]):
        return None
    begun = _begun(logs[0])
    stage = _stage(logs[0])
    _wait(_fork(drive(output, logs[1])))
    twice = len(begun) + len(_begun(logs[1])) - units
    same = run_status(output / "chaos").complete and _digests(output / "chaos") == expected
    return Killed(moment, stage, len(begun), twice, same)


def _fork(work: Callable[[], None]) -> int:
    """A process that does the work and ends; the parent gets its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def _wait(child: int) -> None:
    status = os.waitpid(child, 0)[1]
    if status:
        sys.exit(f"a run that nobody killed ended with status {status}")


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def _begun(log: Path) -> list[str]:
    return [word for word in _lines(log) if word != "done"]


def _stage(log: Path) -> str:
    lines = _lines(log)
    if not lines:
        return "opening"
    return {"train": "training", "answer": "answering", "done": "scoring or writing"}[lines[-1]]


def _digests(run: Path) -> dict[str, str]:
    """Digest of every result of a run: adapters, cells, and the matrix without where it was made."""
    places = [*run.glob("cells/*.parquet"), *run.glob("adapters/*/*")]
    found = {str(place.relative_to(run)): sha256(place.read_bytes()).hexdigest() for place in places}
    cells = json.dumps(build_matrix(run).to_json()["cells"], sort_keys=True)
    return found | {"matrix": sha256(cells.encode()).hexdigest()}


def _conclude(kills: Sequence[Killed], seconds: float) -> int:
    most, same = max(one.twice for one in kills), all(one.same for one in kills)
    stages = {one.stage: sum(other.stage == one.stage for other in kills) for one in kills}
    told = ", ".join(f"{count} while {stage}" for stage, count in sorted(stages.items()))
    twice = sum(one.twice for one in kills)
    print(
        f"\n{len(kills)} kills ({told}): at most {most} unit computed twice a kill, {twice} in all; "
        f"every byte the same: {'yes' if same else 'NO'}; {seconds:.0f} s."
    )
    return int(most > 1 or not same)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder for the runs; removed at the end")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engine", choices=("local", "fake"), default="local")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
