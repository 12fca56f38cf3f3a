"""The bundled base: small enough to ship, made by the committed recipe, and readable by anybody."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from traitmap.engine.open import open_engine
from traitmap.study.paths import MINI, model_location
from traitmap.study.settings import Model

FOLDER = Path(str(model_location(MINI, Path())))
RECIPE = json.loads((FOLDER / "recipe.json").read_text(encoding="utf-8"))
MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000


def test_the_make_target_asks_for_the_recipe_that_made_it() -> None:
    command = re.search(r"traitmap pretrain (.*?)\n\n", MAKEFILE.read_text(encoding="utf-8"), re.DOTALL)
    assert command
    asked = dict(re.findall(r"--([a-z-]+) (\w+)", command.group(1)))
    asked.pop("output", None)
    assert asked
    assert {name: str(RECIPE["recipe"][name.replace("-", "_")]) for name in asked} == asked


def test_its_loss_curve_is_the_recipes_and_falls() -> None:
    with (FOLDER / "loss_curve.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    assert len(losses) == RECIPE["recipe"]["steps"]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_it_loads_and_has_the_parameters_that_the_record_says() -> None:
    engine = open_engine(Model(path=MINI, device="cpu", dtype="float32"))
    assert engine.conditions["parameters"] == RECIPE["found"]["parameters"]
    assert engine.base.layout == "stream"
    # digits stand alone, so that sums can be learnt
    (count,) = engine.token_counts(["1234"])
    assert count >= 4


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"]
)
def test_it_is_in_hugging_face_layout(name: str) -> None:
    assert (FOLDER / name).is_file()
