"""A finished run of the embedded study's kind, in seconds: its tasks on the fake engine, a few items each."""

from __future__ import annotations

from pathlib import Path

import traitmap
from traitmap import api
from traitmap.engine.fake import FakeEngine
from traitmap.study.load import load_study
from traitmap.study.settings import Source, Study, Target

SOURCES = ("arithmetic", "inference", "toxicity", "reviews", "reviews_balanced", "stars")
TARGETS = ("arithmetic", "inference", "toxicity", "reviews", "stars")

TAGS = {
    "arithmetic": ("reasoning", "generated"),
    "inference": ("language",),
    "toxicity": ("language",),
    "reviews": ("sentiment",),
    "reviews_balanced": ("sentiment",),
    "stars": ("sentiment",),
}


def prepared_study(
    output: Path,
    *,
    sources: tuple[str, ...] = SOURCES,
    targets: tuple[str, ...] = TARGETS,
    seeds: tuple[int, ...] = (0, 1),
) -> Study:
    """Tasks of the study ``mini`` with its training, forty rows and thirty items of each."""
    mini = load_study(Path(traitmap.__file__).parent / "mini" / "study.yaml")
    return mini.model_copy(
        update={
            "sources": tuple(
                Source(name=name, task=f"mini_{name}", limit=40, tags=TAGS[name]) for name in sources
            ),
            "targets": tuple(Target(name=name, task=f"mini_{name}", tags=TAGS[name]) for name in targets),
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
