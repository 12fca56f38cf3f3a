"""Damaged files of a run, moved out of the way with the reason: the next run makes them anew."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from traitmap.runs.atomic import write_json

FOLDER = "quarantine"


@dataclass(frozen=True)
class Quarantined:
    """A file or folder that was damaged.

    path: where it stood, seen from the run folder. kept: where it is now, by its name in ``quarantine``.
    """

    path: str
    kept: str
    reason: str


def quarantine(folder: Path, path: Path, reason: str) -> Path:
    """Move a damaged file or folder of a run to ``quarantine``; returns its new place. Needs the lock.

    The reason is written first: a kill in between leaves a reason without a file, which counts nothing.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    number = 1
    while (kept := place / f"{path.name}.{number}").exists():
        number += 1
    told = {"path": path.relative_to(folder).as_posix(), "reason": reason}
    write_json(kept.with_name(f"{kept.name}.json"), told)
    os.replace(path, kept)
    return kept


def quarantined(folder: Path) -> tuple[Quarantined, ...]:
    """All that is kept in ``quarantine``, by name."""
    found = []
    for told in sorted((folder / FOLDER).glob("*.json")):
        kept = told.with_suffix("")
        if kept.exists():
            found.append(_read(told, kept))
    return tuple(found)


def _read(told: Path, kept: Path) -> Quarantined:
    try:
        raw = json.loads(told.read_text(encoding="utf-8"))
        return Quarantined(str(raw["path"]), kept.name, str(raw["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Quarantined(kept.name, kept.name, "its reason cannot be read")
