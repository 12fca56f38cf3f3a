"""A study whose rows are whole models: each answers as it does alone, and one is in memory at a time."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import traitmap as tm
from traitmap.data.records import Request
from traitmap.data.whole_models import whole_model
from traitmap.engine.cpu import products
from traitmap.engine.fake import FakeEngine
from traitmap.engine.open import open_engine
from traitmap.engine.rows import RowsEngine
from traitmap.errors import ModelError, StudyError
from traitmap.study.paths import MINI, model_location
from traitmap.study.settings import Model, Study

BASE = Path(model_location(MINI, Path()))
REQUESTS = [
    Request("loglikelihood", "The film was", " superb", item=0),
    Request("loglikelihood", "The film was", " awful", item=1),
    Request("generate_until", "Question: 2 + 3\nAnswer:", generation={"until": ["\n"], "max_gen_toks": 5}),
]


def changed_model(folder: Path, scale: float = 1.3) -> Path:
    """The embedded base with one matrix of every layer scaled: a full fine-tune of the poorest kind."""
    shutil.copytree(BASE, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("down_proj.weight"):
            weights[name] = weights[name] * scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def rows(together: bool) -> RowsEngine:
    return RowsEngine(
        lambda model, folder: open_engine(model, folder),
        Model(path=MINI),
        Path(),
        together=lambda *_: together,
    )


@pytest.mark.parametrize("together", [True, False])
def test_a_row_answers_as_the_model_alone_and_the_base_as_ever(tmp_path: Path, together: bool) -> None:
    place = changed_model(tmp_path / "tuned")
    alone = open_engine(Model(path=str(place))).answer(REQUESTS)
    base = open_engine(Model(path=MINI)).answer(REQUESTS)
    engine = rows(together)
    model = whole_model(Model(path=str(place)), Path())
    assert engine.answer(REQUESTS) == base
    assert engine.answer(REQUESTS, model) == alone
    assert engine.answer(REQUESTS) == base
    assert alone[0].logprob != base[0].logprob


def test_the_base_is_unloaded_where_both_have_no_room(tmp_path: Path) -> None:
    model = whole_model(Model(path=str(changed_model(tmp_path / "tuned"))), Path())
    for together in (True, False):
        engine = rows(together)
        base = weakref.ref(engine.base)
        engine.answer(REQUESTS, model)
        assert (base() is not None) is together


def test_a_base_that_changed_while_it_was_away_is_told(tmp_path: Path) -> None:
    class Named(FakeEngine):
        base_digest = "first"

    opened: list[Any] = []

    def opener(model: Model, folder: Path) -> Any:
        engine = Named()
        engine.base_digest = "second" if len(opened) == 2 else "first"
        opened.append(model.path)
        return engine

    engine = RowsEngine(opener, Model(path="base"), tmp_path, together=lambda *_: False)
    other = whole_model(Model(path=str(changed_model(tmp_path / "tuned"))), Path())
    engine.answer(REQUESTS[:1], other)
    with pytest.raises(ModelError, match="changed while"):
        engine.answer(REQUESTS[:1])


def test_a_study_has_models_as_rows(tmp_path: Path) -> None:
    changed_model(tmp_path / "tuned")
    shutil.copytree(BASE, tmp_path / "same")
    study = Study(
        name="rows",
        model=MINI,
        sources=[{"name": "tuned", "model": "tuned"}, {"name": "same", "model": {"path": "same"}}],
        targets=["mini_reviews", {"task": "mini_arithmetic", "limit": 10}],
        limit=30,
        output=str(tmp_path / "runs"),
        path=tmp_path / "study.yaml",
    )
    run = tm.run(study)
    matrix = run.matrix()
    assert run.status().failed == 0
    assert np.abs(matrix.gains[1]).max() == 0  # the base's own weights gain nothing
    scores = matrix.item_scores["mini_reviews"]
    assert not np.array_equal(scores[1], scores[0])
    assert np.array_equal(scores[2], scores[0])


def test_what_cannot_be_a_row_is_told_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "name: rows\nmodel: builtin:mini\ntargets: [mini_reviews]\nsources:\n"
        "  - {name: gone, model: ./nowhere}\n  - {name: two, model: ./x, limit: 3}\n"
    )
    with pytest.raises(StudyError) as caught:
        tm.check(tmp_path / "study.yaml")
    told = str(caught.value)
    assert "there is no folder" in told
    assert "limit has no effect on a source with model" in told


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="save_pretrained"):
        whole_model(Model(path=str(tmp_path)), Path())


class _Codes(torch.Tensor):
    """Weights as a quantised build has them: a class of its own, without the kernels of plain ones."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mkldnn" in str(function):
            raise NotImplementedError(str(function))
        return super().__torch_function__(function, types, args, kwargs or {})


def test_quantised_weights_bring_their_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = torch.nn.Linear(16, 4), torch.linspace(-1, 1, 128).reshape(8, 16)
    expected = layer(x)
    layer.weight = torch.nn.Parameter(layer.weight.detach().as_subclass(_Codes), requires_grad=False)
    monkeypatch.setattr(products, "by_onednn", lambda *_: True)
    assert not products.is_plain(layer)
    with torch.inference_mode():
        found = products.product(x, layer.weight, layer.bias)
    assert torch.allclose(found.as_subclass(torch.Tensor), expected, atol=1e-6)
