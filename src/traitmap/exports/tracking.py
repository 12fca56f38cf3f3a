"""A matrix logged to MLflow or trackio. Nothing is logged unless one of these functions is called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from math import isfinite
from pathlib import Path

from traitmap.errors import MatrixError, whole_reason
from traitmap.matrix.record import TransferMatrix
from traitmap.study.settings import BASELINE

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-./ ]")


def log_mlflow(matrix: TransferMatrix, *, experiment: str, store: str | Path) -> tuple[str, ...]:
    """One MLflow run for the base and one per source, with value, gain, interval and q of every target.

    store: tracking URI, or a local folder. Returns the ids of the runs. MatrixError without the extra.
    """
    try:
        import mlflow
    except ImportError:
        raise _missing("mlflow-skinny") from None
    # a folder is all that a user without a server has; MLflow asks for a sign that it is wanted
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = str(store) if "://" in str(store) else Path(store).resolve().as_uri()
    ids = []
    with _writing(store):
        client = mlflow.MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else client.create_experiment(experiment)
        for name, parameters, metrics in logged(matrix):
            run = client.create_run(number, run_name=name)
            for key, text in parameters.items():
                client.log_param(run.info.run_id, key, text)
            for key, value in metrics.items():
                client.log_metric(run.info.run_id, key, value)
            client.set_terminated(run.info.run_id)
            ids.append(run.info.run_id)
    return tuple(ids)


def log_trackio(matrix: TransferMatrix, *, project: str, folder: str | Path | None = None) -> tuple[str, ...]:
    """One trackio run for the base and one per source, into trackio's local store; returns their names.

    folder: of the store, instead of trackio's own (``TRACKIO_DIR``), which it reads when it is imported.
    """
    if folder is not None:
        os.environ["TRACKIO_DIR"] = str(Path(folder).resolve())
    try:
        import trackio
    except ImportError:
        raise _missing("trackio") from None
    names = []
    with redirect_stdout(sys.stderr), _writing(folder or project):  # it talks; stdout is for data
        for name, parameters, metrics in logged(matrix):
            run = trackio.init(project=project, name=name, config=dict(parameters), embed=False)
            run.log(dict(metrics))
            run.finish()
            names.append(name)
    return tuple(names)


@contextmanager
def _writing(store: str | Path) -> Iterator[None]:
    """MatrixError for what a tracker's store refuses: each tracker and its database has errors of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise MatrixError(
            f"{store}: the tracker's store cannot be written ({whole_reason(error, most=2)}); check room and "
            "rights, or name another place"
        ) from error


def logged(matrix: TransferMatrix) -> Iterator[tuple[str, dict[str, str], dict[str, float]]]:
    """(name, parameters, metrics) of every run that is logged; numbers that are unknown are left out."""
    about = {"base": str(matrix.conditions.get("base")), "study": str(matrix.conditions.get("name"))}
    base = {
        f"{_safe(target)}/value": float(value)
        for target, value in zip(matrix.targets, matrix.baseline, strict=True)
        if isfinite(value)
    }
    if base:
        yield BASELINE, {**about, "source": BASELINE}, base
    for source in matrix.sources:
        metrics = {}
        for cell in matrix.cells:
            if cell.source == source and cell.seed is None and cell.status != "predicted":
                for field in ("value", "gain", "gain_low", "gain_high", "q", "unparsed"):
                    number = float(getattr(cell, field))
                    if isfinite(number):
                        metrics[f"{_safe(cell.target)}/{field}"] = number
        yield source, {**about, "source": source}, metrics


def _safe(name: str) -> str:
    """Metric names of MLflow hold letters, digits and a few signs."""
    return _NOT_IN_NAMES.sub("_", name)


def _missing(package: str) -> MatrixError:
    return MatrixError(f"{package} is not installed; install it with: pip install 'traitmap[tracking]'")
