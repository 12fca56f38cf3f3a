"""From a study to what it names: the engine, the sources and the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.collector import passing_over, paused
from traitmap.study.paths import model_location, resolve
from traitmap.study.settings import Model, Study

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine


def load_engine(study: Study) -> Engine:
    """The engine over the base that a study names, or over its copy in the study's ``data``.

    With ``model.endpoint`` a server answers in place of this machine.
    """
    if study.model.endpoint is not None:
        from traitmap.engine.endpoint import EndpointEngine

        return EndpointEngine.open(study.model, study.folder)
    from traitmap.engine import open_engine

    return open_engine(base_of(study), study.folder)


def base_of(study: Study) -> Model:
    """The base's settings, with the folder of its copy where the study has one."""
    from traitmap.data.local_copies import model_copy

    copies = resolve(study.data, study.folder) if study.data else None
    copy = model_copy(study.model.path, copies)
    return (
        study.model if copy is None else study.model.model_copy(update={"path": str(copy), "revision": None})
    )


def engine_to_look_with(study: Study, *, download: bool) -> tuple[Engine | None, str]:
    """The engine, or None and why: a base of the hub that is not here, or that cannot be had.

    download: whether a base of the hub may be downloaded. ModelError where a local base cannot be used.
    """
    from traitmap.data.local_copies import offline_where_unreachable
    from traitmap.errors import ModelError

    model = base_of(study)
    if model.endpoint is not None:
        return load_engine(study), ""
    location = model_location(model.path, study.folder)
    if isinstance(location, Path) or model.endpoint is not None:
        return load_engine(study), ""
    if not download and not _is_cached(location, model.revision):
        return None, f"the base {model.path!r} is not on this machine and was not downloaded"
    try:
        with offline_where_unreachable():
            return load_engine(study), ""
    except ModelError as error:
        return None, f"the base cannot be had here: {error}"


def _is_cached(name: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    weights = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in weights)


def load_data(
    study: Study, open_engine: Callable[[], Engine] | None
) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets of a study, rendered; DataError holds all that is wrong with them.

    open_engine: called only where a text cannot be rendered or counted without the base, which takes
        long to load; None where no base is at hand: conversations get a stand-in's form, tokens are guessed.
    """
    with paused():
        from traitmap.data.lineage import load_sources
        from traitmap.data.render import plain_chat
        from traitmap.data.targets import load_targets
        from traitmap.runs.cost import rough_token_counts

    if open_engine is None:
        with passing_over():
            return load_sources(study, plain_chat, rough_token_counts), load_targets(study, plain_chat)

    def render_chat(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        return open_engine().render_chat(messages, add_generation_prompt)

    def token_counts(texts: Sequence[str]) -> list[int]:
        return open_engine().token_counts(texts)

    with passing_over():
        return load_sources(study, render_chat, token_counts), load_targets(study, render_chat)
