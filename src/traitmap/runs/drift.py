"""Drift of a run's adapters, text by text, kept beside the results in ``drift.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from traitmap.engine.perplexity import TextDrift
from traitmap.jsonable import jsonable
from traitmap.runs.files import read_record, write_sealed_json
from traitmap.runs.store import RunStore

FILE = "drift.json"


@dataclass(frozen=True)
class AdapterDrift:
    """How far one row of a run has moved from the base.

    key: digest of base, adapter, texts and settings; the same key, the same numbers. neutral: on texts that
    have nothing to do with the study. own: on prompts of its own source; None for one without texts.
    """

    source: str
    seed: int | None
    key: str
    neutral: TextDrift
    own: TextDrift | None = None


def write_drift(store: RunStore, rows: Sequence[AdapterDrift]) -> None:
    """Keep what was measured. Needs the lock."""
    write_sealed_json(store.folder / FILE, {"rows": [jsonable(row) for row in rows]})


def read_drift(store: RunStore) -> tuple[AdapterDrift, ...]:
    """What was measured, in the order of the run; empty where nothing was. RunError where it is damaged."""

    def text_drift(raw: Mapping[str, Any]) -> TextDrift:
        numbers = {name: np.array(raw[name], dtype=float) for name in ("before", "after", "kl")}
        tokens = np.array(raw["tokens"], dtype=np.int64)
        if {values.shape for values in (tokens, *numbers.values())} != {(len(tokens),)}:
            raise ValueError("numbers of texts that do not fit each other")
        return TextDrift(tokens=tokens, **numbers, unknown=str(raw["unknown"]))

    def parse(record: dict[str, Any]) -> tuple[AdapterDrift, ...]:
        return tuple(
            AdapterDrift(
                source=str(row["source"]),
                seed=None if row["seed"] is None else int(row["seed"]),
                key=str(row["key"]),
                neutral=text_drift(row["neutral"]),
                own=None if row["own"] is None else text_drift(row["own"]),
            )
            for row in record["rows"]
        )

    try:
        return read_record(store.folder / FILE, parse, advice="remove it, and `traitmap run` measures again")
    except FileNotFoundError:
        return ()
