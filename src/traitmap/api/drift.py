"""Drift of a run: measured where the study asks for it, told adapter by adapter, and given to who learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.data.records import WholeModel
from traitmap.data.sources import draw
from traitmap.data.texts import neutral_texts, texts_of_sources
from traitmap.engine.rows import RowsEngine
from traitmap.errors import RunError, TraitmapError
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.drift import AdapterDrift, read_drift, write_drift
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import RunStore, locked_store
from traitmap.study.paths import digest

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.engine.contract import Engine
    from traitmap.engine.drift import BaseReading
    from traitmap.engine.local import LocalEngine
    from traitmap.engine.perplexity import TextDrift
    from traitmap.runs.ledger import AdapterEntry
    from traitmap.study.settings import Study

Missing = tuple["AdapterEntry", "Path | WholeModel", tuple[str, ...], str]  # its place, prompts, key

PROMPTS = 32  # of an adapter's own source
_METHOD = 1  # raise it where the numbers themselves change, so that runs measure anew


def keep_drift(
    study: Study,
    folder: str | Path,
    engine: Engine,
    sources: Sequence[LoadedSource],
    listener: Listener = silent,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Measure the drift of every adapter of a run that has none yet, and keep it in ``drift.json``.

    Each is kept as soon as it is measured. What a server holds has no distributions here and is left out, as
    is what cannot be put on the base, of which ``tell`` gets a line.
    Reports the stage ``drift`` in adapters. RunError where another process writes the run.
    """
    if engine.conditions.get("engine") != "local":
        if tell is not None:
            tell("drift was not measured: it needs a base on this machine (model.path, executor local).")
        return
    neutral = neutral_texts(study)
    by_name = {source.name: source for source in sources}
    with locked_store(folder) as store:
        try:
            known = {row.key: row for row in read_drift(store)}
        except RunError:
            known = {}
        rows, missing = list[AdapterDrift](), list[Missing]()
        for entry in read_ledger(store).adapters:
            source = by_name.get(entry.source)
            place = source.adapter if source and entry.key is None else entry.key and store.adapter(entry.key)
            served = isinstance(place, WholeModel) and place.settings.endpoint is not None
            if entry.status != "done" or not isinstance(place, Path | WholeModel) or served:
                continue
            assert source is not None
            prompts = _prompts(source)
            key = digest([_METHOD, engine.base_digest, entry.digest, neutral, prompts])
            if key in known:
                rows.append(replace(known[key], source=entry.source, seed=entry.seed))
            else:
                missing.append((entry, place, prompts, key))
        if missing:
            _measure(store, engine, neutral, rows, missing, listener, tell)
        write_drift(store, rows)


def _measure(
    store: RunStore,
    engine: Engine,
    neutral: Sequence[str],
    rows: list[AdapterDrift],
    missing: Sequence[Missing],
    listener: Listener,
    tell: Callable[[str], None] | None,
) -> None:
    """Measure what is missing and add it to the rows, which are written after each."""
    from traitmap.engine.drift import base_reading, drift  # torch: only here
    from traitmap.engine.local import LocalEngine

    def base() -> LocalEngine:
        """The engine over the base, loaded again where a whole model has taken its place."""
        local = engine.base if isinstance(engine, RowsEngine) else engine
        assert isinstance(local, LocalEngine)
        return local

    def of(reading: BaseReading, place: Path | WholeModel) -> TextDrift:
        if isinstance(place, Path):
            return drift(base(), reading, place)
        assert isinstance(engine, RowsEngine)
        other = engine.engine_of(place)
        assert isinstance(other, LocalEngine)
        return drift(other, reading)

    with base_reading(base(), neutral) as reading:
        for done, (entry, place, prompts, key) in enumerate(missing, start=1):
            try:
                apart, own = of(reading, place), None
                if prompts:
                    with base_reading(base(), prompts, prompts=True) as of_source:
                        own = of(of_source, place)
            except TraitmapError as error:
                if tell is not None:
                    tell(f"drift of {entry.source} was not measured: {error}")
            else:
                rows.append(AdapterDrift(entry.source, entry.seed, key, apart, own))
                write_drift(store, rows)
            listener(Progress("drift", done, len(missing), entry.source))


def _prompts(source: LoadedSource) -> tuple[str, ...]:
    """At most ``PROMPTS`` different prompts of a source's own training texts, a fixed draw."""
    if not source.examples:
        return ()
    texts = texts_of_sources([source])[source.name]
    drawn = (texts[at].input for at in draw(len(texts), PROMPTS, 0, source.name))
    return tuple(dict.fromkeys(prompt for prompt in drawn if prompt.strip()))
