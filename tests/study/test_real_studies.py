"""The two files of the real study: one study on two bases, each at the rates that its sweep chose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traitmap.study.load import load_study
from traitmap.study.settings import Study

REAL = Path(__file__).parents[2] / "examples" / "real"
FILES = ("study.yaml", "gemma.yaml")


def without_base_and_rates(study: Study) -> Study:
    """The study with whatever may differ between the bases made alike."""
    sources = [
        source.model_copy(update={"training": {**source.training, "learning_rate": None}})
        for source in study.sources
    ]
    same = {"name": "real", "path": None, "sources": tuple(sources)}
    return study.model_copy(update={**same, "model": study.model.model_copy(update={"path": "base"})})


def test_both_files_are_one_study_but_for_name_base_and_rates() -> None:
    first, second = (load_study(REAL / name) for name in FILES)
    assert first.model.path != second.model.path
    assert without_base_and_rates(first) == without_base_and_rates(second)


@pytest.mark.parametrize("name", FILES)
def test_the_rates_are_those_that_the_sweep_chose(name: str) -> None:
    study = load_study(REAL / name)
    sweep = json.loads((REAL / "results" / f"sweep-{study.name}.json").read_text(encoding="utf-8"))
    own = [source for source in study.sources if source.path or source.task]
    rates = {
        source.name: source.training.get("learning_rate", study.training.learning_rate) for source in own
    }
    assert rates == {source: float(found["chosen"]) for source, found in sweep.items()}
