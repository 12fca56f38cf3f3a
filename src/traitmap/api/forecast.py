"""A forecast of every pair before anything is trained, and what it is worth on a run that is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from traitmap import analysis
from traitmap.api.preparation import load_engine, loaded_data, study_in_order
from traitmap.api.subject import read_matrix
from traitmap.data.texts import questions_of_targets, texts_of_sources
from traitmap.errors import DataError, ModelError
from traitmap.progress import Listener, silent
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine
    from traitmap.study.settings import Study

SAMPLE = 128


@shows_progress
def forecast(
    study: Study | str | Path,
    *,
    data: str | Path | None = None,
    run: MatrixLike | None = None,
    earlier: analysis.Forecast | str | Path | None = None,
    engine: Engine | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    listener: Listener | None = None,
) -> analysis.Forecast:
    """What a training step on each source would do to each target's loss, from gradients of the base alone.

    Nothing is trained. study: the record, or its file. data: a folder with copies of hub datasets and of the
        base. run: a finished run, or a table of its scores, on which the forecast is judged: sources and
        targets are matched by name. earlier: a forecast made before, or the JSON file of one, to be judged;
        then nothing is computed and no base is loaded. engine: a base on this machine that is loaded already.
    sample: texts of every source and items of every target that are looked at, drawn by ``seed``. Items bring
        their gold answers.
    listener: see ``Progress``; None shows progress on a terminal or notebook.

    Adapters that exist already have no texts and are left out, as are targets that are refused.
    Raises StudyError and MatrixError as ``run`` and ``read_matrix`` do, ModelError where the base is on a
    server, DataError where fewer than one source and one target have enough texts.
    """
    measured = None if run is None else read_matrix(run)
    opened = study_in_order(study, data)
    if opened.model.endpoint is not None:
        raise ModelError(
            "model.endpoint: a server gives no gradients; forecast with a base on this machine (model.path)."
        )
    base = engine or load_engine(opened) if earlier is None else engine
    sources, targets = loaded_data(opened, None if base is None else lambda: base)
    targets = [target for target in targets if not target.refused]
    trained = [source for source in sources if source.examples]
    if earlier is None:
        result = _computed(opened, base, trained, targets, sample, seed, listener or silent)
    elif isinstance(earlier, analysis.Forecast):
        result = earlier
    else:
        result = analysis.forecast_from_json(_json_in(Path(earlier)))
    if measured is None:
        return result
    features = analysis.pair_features(texts_of_sources(trained), questions_of_targets(targets), seed=seed)
    return analysis.judged(result, measured, features, measured_on=_name(run), seed=seed)


def _computed(
    study: Study,
    base: Engine | None,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    sample: int,
    seed: int,
    listener: Listener,
) -> analysis.Forecast:
    """The forecast of all pairs, which loads torch."""
    from traitmap.engine.gradients import PARTS, first_directions
    from traitmap.engine.local import LocalEngine

    if not isinstance(base, LocalEngine):
        raise ModelError(f"{type(base).__name__} gives no gradients; forecast with a base on this machine.")
    found = first_directions(
        base,
        {source.name: (source.examples, source.training) for source in sources},
        {target.name: (target.requests, target.texts()) for target in targets},
        study.lora,
        sample=sample,
        seed=seed,
        listener=listener,
    )
    if not found.steps or not found.gradients:
        raise DataError(
            f"no forecast: it needs a source and a target with at least {PARTS} texts that have an answer; "
            f"{len(found.steps)} sources and {len(found.gradients)} targets have as many."
        )
    conditions: Mapping[str, Any] = {
        "base": study.model.path,
        "base_digest": base.base_digest,
        "dtype": base.conditions["dtype"],
        "lora": study.lora.model_dump(),
        "sample": sample,
        "parts": PARTS,
        "seed": seed,
    }
    return analysis.forecast_of(found.steps, found.gradients, MappingProxyType(conditions))


def _json_in(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a forecast in JSON: {error}") from None


def _name(run: MatrixLike | None) -> str:
    """What a sentence calls the run or the table: the last part of its path."""
    folder = getattr(run, "folder", run)
    return Path(folder).name if isinstance(folder, str | Path) else "the table"
