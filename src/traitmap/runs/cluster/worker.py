"""One worker: a base that stays in memory, and a folder for the adapters that it is sent."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.portable import FileModule, install
from traitmap.data.records import Answer, Request, ServedAdapter
from traitmap.engine.contract import Engine, TrainingJob
from traitmap.errors import ModelError
from traitmap.runs.keys import CONFIG, WEIGHTS, adapter_digest
from traitmap.runs.store import TrainedAdapter
from traitmap.runs.units import CellResult, Failure, answer_and_score, failure_of, train

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget
    from traitmap.study.settings import Lora, Training

KEPT_ADAPTERS = 8
KEPT_TARGETS = 4
_FOLDER = "traitmap-worker-"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class About:
    """What a worker is. node: Ray's name of its machine."""

    base: str
    conditions: Mapping[str, Any]
    version: str
    node: str
    host: str
    pid: int


@dataclass(frozen=True)
class SentJob:
    """A training job whose examples lie in the object store."""

    job: TrainingJob
    examples: Any

    def whole(self) -> TrainingJob:
        return replace(self.job, examples=fetch(self.examples))


@dataclass(frozen=True)
class SentAdapter:
    """A PEFT directory whose files lie in the object store."""

    digest: str
    files: Any


@dataclass(frozen=True)
class SentTarget:
    """A target that lies in the object store. modules: that it needs, and that are not installed."""

    digest: str
    target: Any
    modules: tuple[FileModule, ...] = ()


def fetch(reference: Any) -> Any:
    """What a reference stands for."""
    import ray

    return ray.get(reference)


def read_files(folder: Path) -> dict[str, bytes]:
    """The two files of a PEFT directory."""
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}


def write_files(folder: Path, files: Files, digest: str) -> None:
    """Lay out a PEFT directory, checked. ModelError where it is not what was sent."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if adapter_digest(folder) != digest:
        raise ModelError(f"{folder}: an adapter has changed on its way; its digest was {digest[:12]}.")


class Worker:
    """The actor. Errors come back as records, since what raised them may not be known elsewhere."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self.opener = opener
        self.engine: Engine
        self.folder = _own_folder()
        self.adapters: OrderedDict[str, Path] = OrderedDict()
        self.targets: OrderedDict[str, LoadedTarget] = OrderedDict()

    def open(self) -> About | Failure:
        """Load the base, once."""
        try:
            self.engine = self.opener()
            import ray

            return About(
                base=self.engine.base_digest,
                conditions=dict(self.engine.conditions),
                version=version("traitmap"),
                node=ray.get_runtime_context().get_node_id(),
                host=socket.gethostname(),
                pid=os.getpid(),
            )
        except Exception as error:
            return failure_of(error)

    def train(
        self, keys: Sequence[str], jobs: Sequence[SentJob]
    ) -> list[tuple[TrainedAdapter, Files] | Failure] | Failure:
        """One training pass: each adapter with its files, or why there is none."""
        folders = [self.folder / f"training-{key}" for key in keys]
        try:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            found = train(self.engine, keys, [job.whole() for job in jobs], folders)
            return [
                one if isinstance(one, Failure) else (one, read_files(folder))
                for one, folder in zip(found, folders, strict=True)
            ]
        except Exception as error:
            return failure_of(error)
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def score(self, target: SentTarget, adapter: SentAdapter | ServedAdapter | None) -> CellResult | Failure:
        """One cell."""
        try:
            return answer_and_score(self.engine, self._target(target), self._place(adapter))
        except Exception as error:
            return failure_of(error)

    def answer(
        self, requests: Sequence[Request], adapter: SentAdapter | ServedAdapter | None
    ) -> list[Answer] | Failure:
        """Answers to requests that belong to no cell."""
        try:
            return self.engine.answer(requests, self._place(adapter))
        except Exception as error:
            return failure_of(error)

    def close(self) -> None:
        """Remove what it has been sent."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return list(self.engine.token_counts(texts))

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> str | Failure:
        try:
            return self.engine.render_chat(messages, add_generation_prompt)
        except Exception as error:
            return failure_of(error)

    def largest_group(self, lora: Lora, training: Training) -> int:
        return int(self.engine.largest_group(lora, training))

    def _target(self, sent: SentTarget) -> LoadedTarget:
        if sent.digest not in self.targets:
            install(sent.modules)
            self.targets[sent.digest] = fetch(sent.target)
            if len(self.targets) > KEPT_TARGETS:
                self.targets.popitem(last=False)
        self.targets.move_to_end(sent.digest)
        return self.targets[sent.digest]

    def _place(self, adapter: SentAdapter | ServedAdapter | None) -> Path | ServedAdapter | None:
        if not isinstance(adapter, SentAdapter):
            return adapter
        if adapter.digest not in self.adapters:
            folder = self.folder / adapter.digest
            write_files(folder, fetch(adapter.files), adapter.digest)
            self.adapters[adapter.digest] = folder
            if len(self.adapters) > KEPT_ADAPTERS:
                shutil.rmtree(self.adapters.popitem(last=False)[1], ignore_errors=True)
        self.adapters.move_to_end(adapter.digest)
        return self.adapters[adapter.digest]


def _own_folder() -> Path:
    """An empty folder of this process; those of processes that were killed are removed."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(_FOLDER + "*"):
        pid = left.name.removeprefix(_FOLDER)
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = place / f"{_FOLDER}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
