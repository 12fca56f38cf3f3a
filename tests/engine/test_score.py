"""Our answers are those of lm-evaluation-harness's own Hugging Face model class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from traitmap.data.records import Request
from traitmap.engine.attention import layout_attention
from traitmap.engine.local import LocalEngine
from traitmap.engine.passes import Row, read_logits
from traitmap.errors import ModelError
from traitmap.study.settings import Model

ARCHITECTURES = ("llama", "qwen2", "gpt_neox", "mistral")
CONTEXTS = [
    "Question: what is 12 + 30? Answer:",
    "Review: great phone, bad battery. Sentiment: ",
    "",
    "the quick brown fox jumps over the lazy dog and says hello " * 12,
]
CHOICES = [" positive", " negative", " neutral or not", " 42", " x"]


def engine_for(folder: Path, **settings: str) -> LocalEngine:
    return LocalEngine.open(Model(path=str(folder), device="cpu", **settings))


def harness_for(folder: Path) -> HFLM:
    return HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(folder).eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        batch_size=3,
    )


def instances(requests: list[Request]) -> list[Instance]:
    return [
        Instance(
            request_type=request.kind,
            doc={},
            arguments={
                "loglikelihood": (request.context, request.continuation),
                "loglikelihood_rolling": (request.context,),
                "generate_until": (request.context, dict(request.generation)),
            }[request.kind],
            idx=0,
            metadata=("test", request.item, 1),
        )
        for request in requests
    ]


def choice_requests() -> list[Request]:
    return [
        Request("loglikelihood", context, choice, item=item)
        for item, context in enumerate(CONTEXTS)
        for choice in CHOICES
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", ["stream", "padded"])
def test_loglikelihoods_equal_lm_evals(checkpoints, architecture: str, layout: str) -> None:
    engine = engine_for(checkpoints[architecture])
    assert engine.base.layout == "stream"
    object.__setattr__(engine.base, "layout", layout)
    requests = choice_requests()
    expected = harness_for(checkpoints[architecture]).loglikelihood(instances(requests), disable_tqdm=True)
    found = engine.answer(requests)
    assert np.allclose([answer.logprob for answer in found], [e[0] for e in expected], atol=1e-4)
    assert [answer.is_greedy for answer in found] == [e[1] for e in expected]


def test_rolling_loglikelihoods_equal_lm_evals(checkpoints) -> None:
    requests = [Request("loglikelihood_rolling", text) for text in (CONTEXTS[0], CONTEXTS[3] * 3)]
    expected = harness_for(checkpoints["llama"]).loglikelihood_rolling(instances(requests), disable_tqdm=True)
    found = engine_for(checkpoints["llama"]).answer(requests)
    assert np.allclose([answer.logprob for answer in found], expected, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "mistral"])
def test_greedy_generation_equals_lm_evals(checkpoints, architecture: str) -> None:
    engine, harness = engine_for(checkpoints[architecture]), harness_for(checkpoints[architecture])
    free = {"until": [], "max_gen_toks": 24, "do_sample": False}
    contexts = [context for context in CONTEXTS if context] + ["a b c", "0 1 2 3 4"]
    requests = [Request("generate_until", context, generation=free) for context in contexts]
    texts = [answer.text for answer in engine.answer(requests)]
    assert texts == harness.generate_until(instances(requests), disable_tqdm=True)
    # a stop string that occurs in the middle of what is generated, over token boundaries
    stop = texts[0][5:8]
    stopped = [Request("generate_until", c, generation={**free, "until": [stop]}) for c in contexts]
    answers = engine.answer(stopped)
    assert [a.text for a in answers] == harness.generate_until(instances(stopped), disable_tqdm=True)
    assert answers[0].stopped
    assert stop not in answers[0].text
    assert answers[0].tokens < 24
    assert any(not answer.stopped and answer.tokens == 24 for answer in answers)


def test_sampling_depends_on_the_requests_own_seed_only(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"])
    sampled = {
        "until": [],
        "max_gen_toks": 12,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
    }
    requests = [Request("generate_until", c, generation=sampled, seed=i) for i, c in enumerate(CONTEXTS)]
    together = engine.answer(requests)
    alone = [engine.answer([request])[0] for request in requests]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    other = engine.answer([Request("generate_until", CONTEXTS[0], generation=sampled, seed=99)])
    assert other[0].text != together[0].text


def test_mixed_kinds_come_back_in_order(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"])
    generation = {"until": ["."], "max_gen_toks": 5}
    requests = [
        Request("generate_until", CONTEXTS[0], generation=generation),
        Request("loglikelihood", CONTEXTS[0], " 42"),
        Request("generate_until", CONTEXTS[1], generation=generation),
    ]
    answers = engine.answer(requests)
    assert [answer.text is None for answer in answers] == [False, True, False]
    assert np.isnan([answer.logprob for answer in answers]).tolist() == [True, False, True]


def test_branches_see_the_trunk_and_themselves_only(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"], dtype="float64")
    trunk, one, two = np.arange(2, 9), np.arange(20, 24), np.arange(40, 45)
    packed = Row(
        ids=np.concatenate([trunk, one, two]),
        reads=np.arange(16),
        branches=np.repeat([0, 1, 2], [7, 4, 5]),
    )
    with torch.no_grad(), layout_attention(engine.base.model, "stream"):
        together = read_logits(engine.base.model, "stream", [packed])
        alone = [
            read_logits(engine.base.model, "stream", [Row(ids=ids, reads=np.arange(7, len(ids)))])
            for ids in (np.concatenate([trunk, one]), np.concatenate([trunk, two]))
        ]
    assert (together[7:] - torch.cat(alone)).abs().max() < 1e-6


def test_bfloat16_scores_agree_within_its_rounding(checkpoints) -> None:
    requests = choice_requests()
    exact = [answer.logprob for answer in engine_for(checkpoints["llama"]).answer(requests)]
    rounded = [
        answer.logprob for answer in engine_for(checkpoints["llama"], dtype="bfloat16").answer(requests)
    ]
    assert np.allclose(exact, rounded, rtol=0.03, atol=0.5)
    assert exact != rounded


def test_what_cannot_be_done_is_said(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"])
    with pytest.raises(ModelError, match="'num_beams' is not supported; legal"):
        engine.answer([Request("generate_until", "a", generation={"until": [], "num_beams": 2})])
    with pytest.raises(ModelError, match="leaves no room"):
        engine.answer([Request("generate_until", "a", generation={"until": [], "max_gen_toks": 256})])
    with pytest.raises(ModelError, match="has no chat template"):
        engine.render_chat([{"role": "user", "content": "hello"}], add_generation_prompt=True)
    with pytest.raises(ModelError, match="there is no folder"):
        LocalEngine.open(Model(path="./absent"))
