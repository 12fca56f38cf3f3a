"""A study's engine on many workers, by Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from traitmap.api.loading import load_engine
from traitmap.errors import RunError
from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.engine.contract import Engine

EXECUTORS = ("local", "ray")


def check_executor(
    executor: str, address: str | None, workers: int | None, threads: int | None, *, engine: bool = False
) -> None:
    """RunError for an executor that there is not, and for settings that only a cluster has."""
    if executor not in EXECUTORS:
        raise RunError(f"executor {executor!r}: unknown; legal: {', '.join(EXECUTORS)}.")
    settings = {"address": address, "workers": workers, "threads": threads}
    given = [name for name, value in settings.items() if value is not None]
    if executor == "local" and given:
        raise RunError(f"{', '.join(given)}: only the ray executor has workers; add --executor ray.")
    if executor == "ray" and engine:
        raise RunError("an engine and executor='ray': its workers load engines of their own; leave one out.")


@contextmanager
def cluster_engine(
    study: Study, *, address: str | None = None, workers: int | None = None, threads: int | None = None
) -> Iterator[Engine]:
    """Workers with the study's base, until the block ends; settings as for ``traitmap.run``.

    Where ``threads`` is None, workers take as many as an earlier run of this study took on a CPU.
    RunError where the study's base is a server, which does the work itself.
    """
    from traitmap.runs.cluster.engine import open_cluster

    if study.model.endpoint is not None:
        raise RunError(
            "model.endpoint: a server answers for this study, so there is nothing for Ray to spread."
        )
    placed = study if study.path is None else study.model_copy(update={"path": study.path.absolute()})
    with open_cluster(
        partial(load_engine, placed),
        address=address,
        workers=workers,
        threads=threads or _recorded_threads(study),
        gpus=study.model.device != "cpu",
    ) as engine:
        yield engine


def _recorded_threads(study: Study) -> int | None:
    """Threads of the run that the folder holds, so that its digits go on; None where none says it."""
    from traitmap.runs.ledger import read_ledger
    from traitmap.runs.store import RunStore, run_folder

    try:
        conditions = read_ledger(RunStore(run_folder(study))).conditions
    except RunError:
        return None
    found = conditions.get("threads")
    return found if isinstance(found, int) and str(conditions.get("device", "")).startswith("cpu") else None
