"""Two real pretrained bases train, score and write as PEFT and lm-eval have it, on real rows.

    .venv/bin/python ../shared/model/get_bases.py build/bases

lays them out; without them the tests are skipped. A few minutes of one core each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from plain_peft import hflm_logprobs, hflm_texts, train_alone, weights_of
from traitmap.data.records import Example, Request, Segment
from traitmap.engine.attention import layout_attention
from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.train import new_training_state, train_group
from traitmap.progress import silent
from traitmap.study.settings import Lora, Model, Training

pytestmark = pytest.mark.shared
BASES = Path(__file__).parents[2] / "build" / "bases"
ROWS = 20
LORA = Lora(r=8, lora_alpha=16)


@pytest.fixture(scope="module", params=["HuggingFaceTB__SmolLM2-135M-Instruct", "google__gemma-3-270m"])
def real(request: pytest.FixtureRequest, shared: Path) -> tuple[LocalEngine, Any]:
    """An engine on a real base, and the same base by transformers."""
    folder = BASES / request.param
    if not folder.is_dir():
        pytest.skip(f"no {folder}; python ../shared/model/get_bases.py build/bases lays it out")
    engine = LocalEngine.open(Model(path=str(folder), device="cpu", dtype="float32"))
    return engine, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def gsm8k(shared: Path) -> list[tuple[str, str, str]]:
    """(question, worked answer, final number) of the test rows with the shortest answers."""
    lines = (shared / "data" / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    shortest = sorted(rows, key=lambda row: len(row["question"]) + len(row["answer"]))[:ROWS]
    return [(row["question"], row["answer"], row["final"]) for row in shortest]


def prompts_of(engine: LocalEngine, questions: Sequence[str], chat: bool) -> list[str]:
    if not chat:
        return [f"Question: {question}\nAnswer:" for question in questions]
    if not engine.base.tokenizer.chat_template:
        pytest.skip("a base without a chat template")
    return [engine.render_chat([{"role": "user", "content": question}], True) for question in questions]


@pytest.mark.parametrize("chat", [False, True])
def test_answers_are_lm_evals(real: tuple[LocalEngine, Any], shared: Path, chat: bool) -> None:
    engine, model = real
    rows = gsm8k(shared)
    prompts = prompts_of(engine, [question for question, _, _ in rows], chat)
    space = "" if chat else " "
    requests = [
        Request("loglikelihood", prompt, space + choice)
        for prompt, (_, answer, final) in zip(prompts, rows, strict=True)
        for choice in (final, answer)
    ]
    found = [answer.logprob for answer in engine.answer(requests)]
    assert found == pytest.approx(hflm_logprobs(model, engine, requests), abs=1e-3)
    writing = [
        Request("generate_until", prompt, generation={"until": [], "max_gen_toks": 32})
        for prompt in prompts[:6]
    ]
    texts = [answer.text for answer in engine.answer(writing)]
    assert texts == hflm_texts(model, engine, prompts[:6], 32)


@pytest.mark.parametrize("chat", [False, True])
def test_losses_are_those_of_pefts_loop(real: tuple[LocalEngine, Any], shared: Path, chat: bool) -> None:
    """Every row is learnt once, four at a time; two adapters share the passes."""
    engine, _ = real
    rows = gsm8k(shared)
    prompts = prompts_of(engine, [question for question, _, _ in rows], chat)
    space = "" if chat else " "
    examples = tuple(
        Example((Segment(prompt, False), Segment(space + answer, True)))
        for prompt, (_, answer, _) in zip(prompts, rows, strict=True)
    )
    training = Training(learning_rate=1e-3, batch_size=4, num_train_epochs=1, warmup_steps=1)
    jobs = [TrainingJob(f"source{seed}", seed, examples[seed::2], LORA, training) for seed in range(2)]
    starts = [weights_of(new_training_state(engine.base, engine.encoder, job)) for job in jobs]
    with layout_attention(engine.base.model, engine.base.layout):
        states = train_group(engine.base, engine.encoder, jobs, budget=1024, listener=silent)
    assert sum(len(batch) for state in states for batch in state.schedule) == ROWS
    for state, start in zip(states, starts, strict=True):
        losses, _ = train_alone(Path(engine.base.path), state, start)
        assert np.abs(np.subtract(losses, state.losses)).max() < 1e-4
