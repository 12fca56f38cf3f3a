"""Compare a study's training texts with its targets' items, and keep what was found beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.contamination import Contamination
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


def contamination_of(
    sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], listener: Listener = silent
) -> Contamination:
    """Overlap of all training examples with all items, as they are loaded."""
    from traitmap.analysis.contamination import find_contamination
    from traitmap.data.texts import questions_of_targets, texts_of_sources

    return find_contamination(texts_of_sources(sources), questions_of_targets(targets), listener)


def keep_contamination(
    folder: str | Path,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener = silent,
) -> None:
    """Write ``contamination.json`` into a run folder, unless it is there for these very texts."""
    from traitmap.errors import RunError
    from traitmap.runs.contamination import contamination_key, read_contamination, write_contamination
    from traitmap.runs.store import locked_store

    key = contamination_key(sources, targets)
    with locked_store(folder) as store:
        try:
            before = read_contamination(store)
        except RunError:
            before = None
        if before is None or before.get("key") != key:
            write_contamination(store, contamination_of(sources, targets, listener).to_json(), key)


def contamination_in(folder: str | Path) -> Contamination | None:
    """What a run's training texts hold of its targets; None where nothing was compared."""
    from traitmap.analysis.contamination import contamination_from_json
    from traitmap.errors import RunError
    from traitmap.runs.contamination import read_contamination
    from traitmap.runs.store import open_store

    found = read_contamination(open_store(folder))
    try:
        return None if found is None else contamination_from_json(found)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder}: contamination.json is damaged ({error!r}); remove it, and `traitmap run` "
            "compares again."
        ) from None
