"""The one door to an engine: settings of a base model in, an engine that answers for it out.

Whoever needs a base (a run, a check, a profile, a worker of a cluster) opens it here, so that local copies
of hub models, servers, dtype and device count alike everywhere. Imports no torch by itself: that comes with
a base that is loaded on this machine, and takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import psutil

from traitmap.data.copies import model_copy, offline_where_unreachable
from traitmap.engine.contract import Engine
from traitmap.engine.cpu.memory import paused
from traitmap.engine.rows import RowsEngine
from traitmap.errors import ModelError
from traitmap.study.paths import model_location
from traitmap.study.settings import Lora, Model, Study
from traitmap.wording import counted

THREADS_SET_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # environment variables that stand as they are
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def open_engine(model: Model, folder: Path | None = None, *, copies: Path | None = None) -> Engine:
    """An engine for a base model: a ``LocalEngine``, or with ``model.endpoint`` an ``EndpointEngine``.

    folder: where relative paths start from, the study file's (default: the current one).
    copies: a folder with local copies of hub models (a study's ``data``); one of them is loaded in the
        hub's place, whatever the revision; with an endpoint its tokenizer is.
    ModelError where the base cannot be loaded, or the server cannot be reached.
    """
    if model.endpoint is not None:
        from traitmap.engine.endpoint.engine import EndpointEngine

        return EndpointEngine.open(model, folder, copies=copies)
    # oneDNN keeps a compiled kernel for each shape of a product, 1,024 by default, a quarter of a megabyte
    # each. Products come in few shapes (``cpu.products``): with 256 nearly all are found again.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    with paused():
        from traitmap.engine.local import LocalEngine

    return LocalEngine.open(with_local_copy(model, copies), folder)


def idle_cores(seconds: float = 0.3) -> float:
    """How many of the cores that this process may use are idle, measured while it sleeps."""
    busy = psutil.cpu_percent(interval=seconds, percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(busy))
    return sum(1 - busy[core] / 100 for core in allowed if core < len(busy))


def fit_threads(model: Model, most: int | None = None, idle: Callable[[], float] = idle_cores) -> str:
    """As many threads of torch as other processes leave cores idle, where a base computes on the CPU.

    Threads wait for each other by spinning. Where others use the cores too, two of them take many times as
    long as one alone. A number that the user has set stands: by ``THREADS_SET_BY``, and as a bound by
    ``torch.set_num_threads``. To be called before the base is loaded.

    most: a bound, such as the threads of an earlier run, whose digits go on. idle: how many cores are idle.
    Returns a sentence where others have kept some away, else an empty text.
    """
    if model.endpoint is not None or any(os.environ.get(name) for name in THREADS_SET_BY):
        return ""
    with paused():
        import torch
    if model.device.startswith("cuda") or (model.device == "auto" and torch.cuda.is_available()):
        return ""
    wanted = _bounded.get(torch.get_num_threads(), torch.get_num_threads())
    wanted = wanted if most is None else min(wanted, most)
    threads = max(1, min(wanted, round(idle()))) if wanted > 1 else wanted
    if threads != torch.get_num_threads():
        _bounded.clear()
        _bounded[threads] = wanted
        torch.set_num_threads(threads)
    if threads == wanted:
        return ""
    return (
        f"{counted(threads, 'thread')} instead of {wanted}: the machine is busy with other work "
        f"(OMP_NUM_THREADS={wanted} insists)."
    )


_bounded: dict[int, int] = {}  # threads as ``fit_threads`` has set them last, and what they would have been


def open_rows(study: Study, copies: Path | None = None) -> Engine:
    """The engine of a study: that of its base, and where sources are whole models, one that opens these too.

    copies: a folder with local copies of hub models. ModelError as for ``open_engine``.
    """

    def opened(model: Model, folder: Path) -> Engine:
        return open_engine(model, folder, copies=copies)

    if all(source.model is None for source in study.sources):
        return opened(study.model, study.folder)
    return cast(Engine, RowsEngine(opened, study.model, study.folder))


def open_engine_if_present(
    model: Model, folder: Path, *, copies: Path | None = None, download: bool = False
) -> tuple[Engine | None, str]:
    """(engine, ""), or (None, the reason) where the base is on the hub and cannot be had now.

    download: whether a base of the hub that is not in the cache may be downloaded.
    ModelError where a local base or a server cannot be used: that is the user's to mend.
    """
    used = with_local_copy(model, copies)
    location = model_location(used.path, folder)
    if isinstance(location, Path) or model.endpoint is not None:
        return open_engine(used, folder, copies=copies), ""
    if not download:
        from huggingface_hub import try_to_load_from_cache

        cached = (try_to_load_from_cache(location, file, revision=used.revision) for file in _WEIGHTS)
        if not any(isinstance(path, str) for path in cached):
            return None, f"the base {used.path!r} is not on this machine and was not downloaded"
    try:
        with offline_where_unreachable():
            return open_engine(used, folder), ""
    except ModelError as error:
        return None, f"the base cannot be had here: {error}"


def notes_of(engine: Engine | None, lora: Lora) -> tuple[str, ...]:
    """Sentences on how a base on this machine is computed and adapted; none for a server."""
    if engine is None or engine.conditions.get("engine") != "local":
        return ()
    from traitmap.engine.local import LocalEngine

    engine = engine.base if isinstance(engine, RowsEngine) else engine
    return engine.notes(lora) if isinstance(engine, LocalEngine) else ()


def with_local_copy(model: Model, copies: Path | None) -> Model:
    """The settings as they are loaded: with the path of the base's local copy where ``copies`` holds one.

    A copy has no revision. A base behind an endpoint is a name on a server, which no copy stands in for.
    """
    copy = None if model.endpoint is not None else model_copy(model.path, copies)
    return model if copy is None else model.model_copy(update={"path": str(copy), "revision": None})
