"""Drift: forgetting and divergence are those of transformers and PEFT, text by text, and 0 at the base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import traitmap.engine.drift as chapter
from tiny_architectures import make_tokenizer, save_tiny
from traitmap.engine.drift import base_reading, drift
from traitmap.engine.local import LocalEngine
from traitmap.errors import ModelError
from traitmap.progress import Progress
from traitmap.study.settings import Model

TEXTS = (
    "the quick brown fox jumps over the lazy dog, and then it sleeps for a long time in the warm grass",
    "Ra",
    "A baker weighs flour at four in the morning.",
    "Review: great phone. Sentiment: positive. Review: bad phone. Sentiment:",
)
LINEAR = ["q_proj", "v_proj", "down_proj"]
LORA = peft.LoraConfig(r=4, target_modules=LINEAR, task_type="CAUSAL_LM")
DORA = peft.LoraConfig(r=4, target_modules=LINEAR, use_dora=True, task_type="CAUSAL_LM")
HEAD = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")


@pytest.fixture(scope="module", params=["llama", "gemma3", "gemma2"])
def base(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama; Gemma 3 with windows that the longest text passes; Gemma 2, whose logits are capped."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def engine(base: Path) -> LocalEngine:
    return LocalEngine.open(Model(path=str(base), dtype="float32", device="cpu"))


def made(config: peft.PeftConfig, base: Path, folder: Path, *, size: float = 0.2) -> Path:
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * size)
    model.save_pretrained(folder)
    return folder


def plainly(base: Path, adapter: Path, rows: list[list[int]], places: int) -> tuple[np.ndarray, ...]:
    """(before, after, kl) of rows of tokens by transformers and PEFT in float64, one row a pass."""
    models = [AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval() for _ in range(2)]
    models[1] = peft.PeftModel.from_pretrained(models[1], adapter).eval().double()
    numbers = np.zeros((3, len(rows)))
    for number, row in enumerate(rows):
        ids = torch.tensor([row])
        with torch.no_grad():
            before, after = (
                model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1) for model in models
            )
        for at, logprobs in enumerate((before, after)):
            numbers[at, number] = -sum(logprobs[i, row[i + 1]].item() for i in range(len(row) - 1))
        divergence = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=after), torch.distributions.Categorical(logits=before)
        )
        if len(row) > places:
            divergence = divergence[[len(row) - 1 - len(row) * k // places for k in range(places)]]
        numbers[2, number] = divergence.mean()
    return tuple(numbers)


@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.parametrize("config", [LORA, DORA, HEAD], ids=["lora", "dora", "head"])
def test_it_is_what_a_plain_loop_over_peft_gives(config, prompts, base, engine, tmp_path) -> None:
    adapter = made(config, base, tmp_path / "adapter")
    with base_reading(engine, TEXTS, prompts=prompts, places=5) as reading:
        found = drift(engine, reading, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [tokenizer(text, add_special_tokens=prompts)["input_ids"] for text in TEXTS]
    rows = rows if prompts else [[tokenizer.bos_token_id, *row] for row in rows]
    assert {len(row) <= 5 for row in rows} == {True, False}
    assert prompts or max(map(len, rows)) > 32  # beyond the windows
    before, after, kl = plainly(base, adapter, rows, 5)
    assert found.tokens.tolist() == [len(row) - 1 for row in rows]
    np.testing.assert_allclose(found.before, before, rtol=1e-5)
    np.testing.assert_allclose(found.after, after, rtol=1e-5)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-4)
    assert found.kl.min() > 1e-3
    total = (after - before).sum() / sum(len(row) - 1 for row in rows)
    value, low, high = found.forgetting
    assert value == pytest.approx(total, rel=1e-4)
    assert low < value < high
    assert found.divergence[0] == pytest.approx(kl.mean(), rel=1e-4)


def test_a_base_has_not_moved_and_an_update_of_nothing_neither(base, engine, tmp_path) -> None:
    nothing = made(LORA, base, tmp_path / "nothing", size=0.0)
    with base_reading(engine, TEXTS) as reading:
        for adapter in (None, nothing):
            found = drift(engine, reading, adapter)
            assert np.array_equal(found.before, found.after)
            assert np.abs(found.kl).max() < 1e-6


def test_a_merged_model_has_moved_as_its_adapter_has(base, engine, tmp_path) -> None:
    adapter = made(LORA, base, tmp_path / "adapter")
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    make_tokenizer().save_pretrained(tmp_path / "merged")
    merged = LocalEngine.open(Model(path=str(tmp_path / "merged"), dtype="float32", device="cpu"))
    with base_reading(engine, TEXTS) as reading:
        as_adapter, as_model = drift(engine, reading, adapter), drift(merged, reading)
    np.testing.assert_allclose(as_model.after, as_adapter.after, rtol=1e-5)
    np.testing.assert_allclose(as_model.kl, as_adapter.kl, rtol=1e-4)


def test_numbers_do_not_depend_on_passes_and_tiles(base, engine, tmp_path, monkeypatch) -> None:
    adapter = made(LORA, base, tmp_path / "adapter")
    with base_reading(engine, TEXTS) as reading:
        usual = drift(engine, reading, adapter)
    monkeypatch.setattr(chapter, "_PASS_NUMBERS", 384 * 20)
    monkeypatch.setattr(chapter, "_TILE_NUMBERS", 384 * 3)
    heard = list[Progress]()
    with base_reading(engine, TEXTS, listener=heard.append) as reading:
        narrow = drift(engine, reading, adapter)
    np.testing.assert_allclose(narrow.after, usual.after, rtol=1e-5)
    np.testing.assert_allclose(narrow.kl, usual.kl, rtol=1e-4)
    assert [report.stage for report in heard] == ["drift"] * len(heard)
    assert (len(heard) > 2, heard[-1].done, heard[-1].total) == (True, len(TEXTS), len(TEXTS))


def test_only_the_ends_of_long_prompts_and_the_beginnings_of_long_texts_count(engine) -> None:
    with base_reading(engine, TEXTS[:1], longest=9) as start:
        whole = engine.encoder.pair("", TEXTS[0])
        assert start.ids[0].tolist() == [*whole[0], *whole[1]][:9]
    with base_reading(engine, TEXTS[:1], prompts=True, longest=9) as end:
        assert end.ids[0].tolist() == engine.encoder.encode(TEXTS[0])[-9:]
    with base_reading(engine, TEXTS, places=4) as reading:
        assert [places[-1] for places in reading.places] == [len(row) - 1 for row in reading.ids]
        assert all(
            len(set(places)) == min(4, len(row))
            for places, row in zip(reading.places, reading.ids, strict=True)
        )
        assert all((np.diff(places) > 0).all() and places[0] >= 0 for places in reading.places)


def test_where_the_vocabulary_has_grown_the_cost_is_known_and_the_divergence_is_not(
    base, engine, tmp_path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(390)
    model.save_pretrained(tmp_path / "grown")
    make_tokenizer().save_pretrained(tmp_path / "grown")
    grown = LocalEngine.open(Model(path=str(tmp_path / "grown"), dtype="float32", device="cpu"))
    with base_reading(engine, TEXTS) as reading:
        found = drift(grown, reading)
    assert np.isnan(found.kl).all()
    assert found.unknown == "the model has 390 tokens, its base 384"
    assert np.isnan(found.divergence).all()
    assert np.isfinite(found.forgetting).all()


def test_another_tokenizer_is_refused(base, engine, tmp_path) -> None:
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "other")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["fox"])
    tokenizer.save_pretrained(tmp_path / "other")
    other = LocalEngine.open(Model(path=str(tmp_path / "other"), dtype="float32", device="cpu"))
    with (
        base_reading(engine, TEXTS) as reading,
        pytest.raises(ModelError, match="tokenizer splits the texts"),
    ):
        drift(other, reading)


def test_intervals_cover_and_need_two_texts(engine) -> None:
    with base_reading(engine, ["Rain."]) as reading:
        found = drift(engine, reading)
    value, low, high = found.forgetting
    assert value == 0.0
    assert np.isnan([low, high]).all()
    with base_reading(engine, []) as reading:
        assert np.isnan(drift(engine, reading).forgetting).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_unknown_with_the_reason(base, engine, tmp_path, value) -> None:
    """One weight of one token's embedding: the text that holds the token is unknown, and so is the mean."""
    adapter = made(HEAD, base, tmp_path / "good")
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(tensor for name, tensor in tensors.items() if "lm_head.lora_B" in name)[0] = value
    save_file(tensors, adapter / "adapter_model.safetensors")
    with base_reading(engine, TEXTS) as reading:
        found = drift(engine, reading, adapter)
    lost = ~np.isfinite(found.after)
    assert lost.any()
    assert np.isnan(found.after[lost]).all()
    assert np.isnan(found.kl[lost]).all()
    assert np.isfinite(found.kl[~lost]).all()
    assert f"{lost.sum()} of {len(TEXTS)} texts have no finite log-probability" in found.unknown
    assert not np.isfinite(found.forgetting[0])
    assert not np.isfinite(found.divergence[0])
