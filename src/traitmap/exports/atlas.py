"""An atlas: a folder of matrices that others can use as a prior, one JSON file for each.

A file holds a matrix, its conditions, a profile of its texts (no text can be read off it) and a digest of all
of that. Nothing in it is code, and what does not fit its digest is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from traitmap.analysis.recommendation.prior import WIDTH, Profile
from traitmap.errors import MatrixError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.runs.files import own_file, write_output
from traitmap.study.paths import digest

SUFFIX = ".atlas.json"
FORMAT = "traitmap atlas 1"
_DIGITS = 4  # of a profile
_NAME = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class AtlasEntry:
    """A matrix that stands in an atlas. profile: task -> profile of its texts, of tasks that have some.

    conditions: how its numbers came about: base model, training, metrics, as far as it was known.
    """

    name: str
    matrix: TransferMatrix
    profile: Profile
    conditions: Mapping[str, Any]
    digest: str
    path: Path

    __repr__ = outline


@dataclass(frozen=True)
class AtlasReport:
    """What is in an atlas. entries: its matrices, by name. faults: what stands against files of it."""

    folder: Path
    entries: tuple[AtlasEntry, ...]
    faults: tuple[str, ...]

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: what is known of every matrix beside its numbers."""
        entries = [
            {
                "name": entry.name,
                "file": entry.path.name,
                "sources": list(entry.matrix.sources),
                "targets": list(entry.matrix.targets),
                "texts": sorted(entry.profile),
                "conditions": jsonable(entry.conditions),
                "digest": entry.digest,
            }
            for entry in self.entries
        ]
        return {"entries": entries, "faults": list(self.faults)}


def write_atlas_entry(
    matrix: TransferMatrix, place: str | Path, *, name: str, profile: Profile | None = None
) -> Path:
    """Write a matrix (S x T) as one file of an atlas; returns its path.

    place: a file ``NAME.atlas.json``, or a folder that gets ``NAME.atlas.json``. The same content again is
    left as it is; MatrixError where another one has that name, or predicted cells are among the values,
    RunError where a link out of the folder has it.
    """
    place = Path(place)
    if not place.name.endswith(SUFFIX):
        place = own_file(place, f"{_NAME.sub('-', name).strip('-.') or 'matrix'}{SUFFIX}")
    if matrix.predicted.any():
        raise MatrixError(f"{name} holds predicted cells; an atlas holds what was measured")
    content = {
        "format": FORMAT,
        "name": name,
        "sources": list(matrix.sources),
        "targets": list(matrix.targets),
        "values": jsonable(matrix.values),
        "base": jsonable(matrix.baseline),
        "higher_is_better": {t: bool(matrix.higher_is_better.get(t, True)) for t in matrix.targets},
        "metrics": {cell.target: cell.metric for cell in matrix.cells if cell.metric},
        "errors": jsonable(_errors(matrix)),
        "conditions": _conditions(matrix),
        "texts": {
            task: {str(at): round(float(vector[at]), _DIGITS) for at in np.flatnonzero(vector)}
            for task, vector in (profile or {}).items()
        },
    }
    content["digest"] = digest(content)
    if place.exists() and read_atlas_entry(place).digest != content["digest"]:
        raise MatrixError(
            f"{place}: another matrix has this name; give it another (--name), or remove the file"
        )
    write_output(place, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return place


def read_atlas_entry(path: str | Path) -> AtlasEntry:
    """One file of an atlas. MatrixError where it is none, is damaged, or was changed after it was written."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MatrixError(f"{path} cannot be read as a file of an atlas: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MatrixError(
            f"{path} is no file of an atlas ({FORMAT!r} is missing); write one with traitmap atlas add"
        )
    told = content.pop("digest", None)
    try:
        found = digest(content)
    except (TypeError, ValueError) as error:
        raise MatrixError(f"{path} is damaged: {error}; export the matrix again") from error
    if told != found:
        raise MatrixError(
            f"{path} does not fit its digest: it was changed or damaged; export the matrix again"
        )
    try:
        return _entry(content, path, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MatrixError(
            f"{path} lacks a part of an atlas file or has one of the wrong shape: {error}"
        ) from error


def atlas_files(folder: str | Path) -> tuple[Path, ...]:
    """The files of an atlas, by name."""
    return tuple(sorted(Path(folder).glob(f"*{SUFFIX}")))


def read_atlas(folder: str | Path) -> AtlasReport:
    """Every file of an atlas; what is damaged, or stands there twice, is a fault.

    MatrixError where the folder is none, or holds no file of an atlas.
    """
    files = atlas_files(folder)
    if not files:
        raise MatrixError(f"{folder} holds no {SUFFIX} file; add a matrix with traitmap atlas add")
    entries: list[AtlasEntry] = []
    faults = []
    for file in files:
        try:
            entry = read_atlas_entry(file)
        except MatrixError as error:
            faults.append(str(error))
            continue
        twin = next((other for other in entries if other.digest == entry.digest), None)
        if twin is not None:
            faults.append(f"{file} holds the same as {twin.path.name}; as a prior it would count twice")
        else:
            entries.append(entry)
    return AtlasReport(Path(folder), tuple(entries), tuple(faults))


def _entry(content: Mapping[str, Any], path: Path, found: str) -> AtlasEntry:
    sources, targets = tuple(map(str, content["sources"])), tuple(map(str, content["targets"]))
    values = np.array(content["values"], dtype=float).reshape(len(sources), len(targets))
    profile = {}
    for task, places in content["texts"].items():
        vector = np.zeros(WIDTH)
        for at, value in places.items():
            if not 0 <= int(at) < WIDTH:
                raise ValueError(f"place {at} of a profile of {WIDTH}")
            vector[int(at)] = float(value)
        profile[str(task)] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    matrix = TransferMatrix(
        sources,
        targets,
        values,
        np.array(content["base"], dtype=float).reshape(len(targets)),
        conditions=MappingProxyType(
            {**content["conditions"], "higher_is_better": dict(content["higher_is_better"])}
        ),
    )
    return AtlasEntry(str(content["name"]), matrix, profile, content["conditions"], found, path)


def _errors(matrix: TransferMatrix) -> Array:
    """(S, T) standard errors of the pooled cells' values, NaN where unknown."""
    errors = np.full(matrix.values.shape, np.nan)
    rows, columns = ({name: at for at, name in enumerate(axis)} for axis in (matrix.sources, matrix.targets))
    for cell in matrix.cells:
        if cell.seed is None and cell.source in rows and cell.target in columns:
            errors[rows[cell.source], columns[cell.target]] = cell.stderr
    return errors


def _conditions(matrix: TransferMatrix) -> dict[str, Any]:
    """What is known of how the numbers came about, without places of a machine."""
    study = matrix.conditions.get("study")
    study = study if isinstance(study, Mapping) else {}
    model = study.get("model")
    kept: dict[str, Any] = (
        {"base_model": str(model.get("path", "")).rstrip("/").split("/")[-1]} if model else {}
    )
    for name in ("training", "lora"):
        if study.get(name):
            kept[name] = jsonable(study[name])
    for name in ("read_as", "seeds"):
        if matrix.conditions.get(name):
            kept[name] = jsonable(matrix.conditions[name])
    return kept
