"""Small bases and adapters from reports of the field, each with the right value beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traitmap.data.records import Request
from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Model

pytestmark = pytest.mark.shared


def case(shared: Path, number: int) -> Path:
    (folder,) = (shared / "cases" / "models").glob(f"{number:02d}_*")
    return folder


@pytest.mark.parametrize("number", [4, 6])
def test_texts_are_right(shared: Path, number: int) -> None:
    folder = case(shared, number)
    right = json.loads((folder / "expected.json").read_text())
    generation = {"until": right["until"], "max_gen_toks": right["max_gen_toks"]}
    engine = LocalEngine.open(Model(path=str(folder / "base"), device="cpu", dtype="float32"))
    found = engine.answer(
        [Request("generate_until", text, generation=generation) for text in right["contexts"]]
    )
    assert [answer.text for answer in found] == right["texts"]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9])
def test_log_likelihoods_are_right(shared: Path, number: int) -> None:
    folder = case(shared, number)
    right = json.loads((folder / "expected.json").read_text())
    requests = [Request("loglikelihood", context, answer) for context, answer in right["requests"]]
    adapter = folder / "adapter"
    engine = LocalEngine.open(Model(path=str(folder / "base"), device="cpu", dtype="float32"))
    found = engine.answer(requests, adapter if adapter.is_dir() else None)
    assert [answer.logprob for answer in found] == pytest.approx(right["logprobs"], abs=2e-4)


def test_a_base_with_a_vision_tower_is_read_through_its_text_part(shared: Path) -> None:
    engine = LocalEngine.open(Model(path=str(case(shared, 10) / "base"), device="cpu", dtype="float32"))
    (answer,) = engine.answer([Request("loglikelihood", "Question: what is 12 + 30? Answer:", " positive")])
    assert answer.logprob == pytest.approx(-11.9427, abs=2e-4)
    assert engine.base.max_length == 256
