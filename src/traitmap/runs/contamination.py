"""Which items of a run's targets stand in its training texts, kept in the run folder beside the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.errors import RunError
from traitmap.runs.sealed_json import read_sealed_json, write_sealed_json
from traitmap.runs.store import RunStore
from traitmap.study.digest import digest

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget

_METHOD = 1  # raise it where the comparison itself changes, so that runs compare anew


def contamination_key(sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]) -> str:
    """Digest of all texts that are compared: where it has not changed, nothing is compared again."""
    return digest(
        [_METHOD, [[one.name, one.digest] for one in sources], [[one.name, one.digest] for one in targets]]
    )


def write_contamination(store: RunStore, found: Mapping[str, Any], key: str) -> None:
    """Keep what was found (plain JSON data, see ``analysis.contamination``). Needs the lock."""
    write_sealed_json(_place(store), {"key": key, **found})


def read_contamination(store: RunStore) -> dict[str, Any] | None:
    """What was found, with its ``key``; None where nothing was compared. RunError where it is damaged."""
    place = _place(store)
    try:
        found = read_sealed_json(place)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{place}: damaged ({error}); `traitmap run` compares again.") from None
    if not isinstance(found.get("overlaps"), list):
        raise RunError(f"{place}: holds no overlaps; remove it, and `traitmap run` compares again.")
    return found


def overlaps_told(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The touched pairs in numbers, as a matrix carries them: without the touched items and the examples."""
    kept = ("source", "target", "items", "exact", "contained", "near", "short", "share", "material")
    return [{name: one.get(name) for name in kept} for one in found["overlaps"]]


def _place(store: RunStore) -> Path:
    return store.folder / "contamination.json"
