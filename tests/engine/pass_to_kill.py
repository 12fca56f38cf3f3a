"""Trains three adapters together and kills itself after a step: BASE FOLDER STEP (0: to the end).

Writes ``FOLDER/told.txt``, a line for each thing that the pass told.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from test_train import engine_for, jobs

from traitmap.engine.contract import PassCheckpoint, TrainingJob
from traitmap.progress import Progress
from traitmap.study.settings import Lora


def checkpoint(folder: Path, told: list[str], *, room: bool = True) -> PassCheckpoint:
    """A state after every step, put in place as a run does it."""

    def write(write_file: Callable[[Path], None]) -> bool:
        write_file(folder / "new")
        os.replace(folder / "new", folder / "state")
        return room

    return PassCheckpoint(folder / "state", 0.0, write, told.append)


def three_jobs(*, lr: float | None = None) -> list[TrainingJob]:
    """With dropout; the third diverges at once where ``lr`` is absurd."""
    asked = jobs(Lora(r=4, lora_alpha=8, lora_dropout=0.1))
    if lr is None:
        return asked
    return [
        *asked[:2],
        replace(asked[2], training=asked[2].training.model_copy(update={"learning_rate": lr})),
    ]


def train(base: Path, folder: Path, step: int, *, room: bool = True) -> list[str]:
    folders, told, heard = [folder / str(number) for number in range(3)], list[str](), list[Progress]()

    def hear(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    engine_for(base).train(three_jobs(), folders, hear, checkpoint(folder, told, room=room))
    return told


if __name__ == "__main__":
    told = train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    (Path(sys.argv[2]) / "told.txt").write_text("\n".join(told), encoding="utf-8")
