"""A finished run of the embedded study's kind, in seconds: its tasks on the fake engine, a few items each."""

from __future__ import annotations

from pathlib import Path

import traitmap
from traitmap import api
from traitmap.engine.fake import FakeEngine
from traitmap.study.load import load_study
from traitmap.study.settings import Study

SOURCES = ("arithmetic", "inference", "toxicity", "reviews", "reviews_balanced", "stars")
TARGETS = ("arithmetic", "inference", "toxicity", "reviews", "stars")


def prepared_study(
    output: Path,
    *,
    sources: tuple[str, ...] = SOURCES,
    targets: tuple[str, ...] = TARGETS,
    seeds: tuple[int, ...] = (0, 1),
) -> Study:
    """Sources and targets of the study ``mini``, forty rows and thirty items of each."""
    mini = load_study(Path(traitmap.__file__).parent / "mini" / "study.yaml")
    return mini.model_copy(
        update={
            "sources": tuple(
                one.model_copy(update={"limit": 40}) for one in mini.sources if one.name in sources
            ),
            "targets": tuple(one for one in mini.targets if one.name in targets),
            "training": mini.training.model_copy(update={"max_steps": 5}),
            "seeds": seeds,
            "limit": 30,
            "output": str(output),
            "path": None,  # else the whole file would be checked once more
        }
    )


def prepare_run(output: Path) -> Path:
    """The folder ``output/mini``, complete."""
    return api.run(prepared_study(output), engine=FakeEngine()).folder
