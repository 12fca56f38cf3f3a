"""From a study to what it names: the engine, the sources and the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine


def load_engine(study: Study) -> Engine:
    """The engine over the base that a study names, or the server of its ``model.endpoint``."""
    if study.model.endpoint is not None:
        from traitmap.engine.endpoint import EndpointEngine

        return EndpointEngine.open(study.model, study.folder)
    from traitmap.engine import open_engine

    return open_engine(study.model, study.folder)


def load_data(study: Study, engine: Engine) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets of a study, rendered; DataError holds all that is wrong with them."""
    from traitmap.data.lineage import load_sources
    from traitmap.data.targets import load_targets

    sources = load_sources(study, engine.render_chat, engine.token_counts)
    return sources, load_targets(study, engine.render_chat)
