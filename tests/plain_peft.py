"""What the engine is held to: transformers, PEFT and lm-evaluation-harness, one row a pass.

A pass over one row has no padding, no neighbours and no cache, so it is right for every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from traitmap.data.records import Request
from traitmap.engine.local import LocalEngine
from traitmap.engine.train import AdapterTrainingState, learning_rate


def weights_of(state: AdapterTrainingState) -> dict[str, torch.Tensor]:
    """A copy of an adapter's weights by the names that PEFT saves them under."""
    return {
        f"base_model.model.{name}.lora_{part}.weight": matrix.detach().clone()
        for part, matrices in (("A", state.adapter.a), ("B", state.adapter.b))
        for name, matrix in matrices.items()
    }


def peft_modules(folder: Path) -> set[str] | None:
    """The modules that PEFT's all-linear adapts on a base, of parameters their own; None where it refuses."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    try:
        adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    except ValueError:  # Mamba
        return None
    parameters = getattr(adapted.base_model, "targeted_parameter_names", [])
    return {*adapted.base_model.targeted_module_names, *(name.rpartition(".")[0] for name in parameters)}


def train_alone(
    folder: Path, state: AdapterTrainingState, start: dict[str, torch.Tensor]
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of every step and weights at the end of PEFT's adapter in torch's AdamW, from the same start.

    state: what the engine trained, of which the data, their order and the settings are taken.
    """
    training, lora = state.job.training, state.job.lora
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.lora_alpha, target_modules=sorted(state.adapter.a), task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config).eval()
    parameters = {
        name.replace(".default", ""): value for name, value in model.named_parameters() if value.requires_grad
    }
    assert parameters.keys() == start.keys()
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(start[name])
    optimizer = torch.optim.AdamW(
        parameters.values(), weight_decay=training.weight_decay, eps=training.adam_epsilon
    )
    losses = []
    for step, batch in enumerate(state.schedule):
        rows = [state.examples[index] for index in batch]
        learnt, losses = sum(int(row.learn[1:].sum()) for row in rows), [*losses, 0.0]
        for row in rows:
            logits = model(input_ids=torch.from_numpy(row.ids)[None], use_cache=False).logits[0, :-1]
            labels = torch.from_numpy(np.where(row.learn, row.ids, -100)[1:])
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / learnt
            loss.backward()
            losses[-1] += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters.values(), training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(state.schedule), training)
        optimizer.step()
        optimizer.zero_grad()
    return losses, parameters


def logprob_alone(model: Any, engine: LocalEngine, request: Request) -> float:
    """The log-likelihood of a request by a pass over its own row."""
    context, choice = engine.encoder.continuation(request)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([(context + choice)[:-1]]), use_cache=False).logits[0]
    scores = logits.log_softmax(-1)[len(context) - 1 :]
    return sum(scores[place, token].item() for place, token in enumerate(choice))


def text_alone(model: Any, engine: LocalEngine, context: str, tokens: int) -> str:
    """Greedy decoding without a cache."""
    prompt = engine.encoder.encode(context)
    ids, tokenizer = list(prompt), engine.base.tokenizer
    while len(ids) < len(prompt) + tokens and ids[-1] != tokenizer.eos_token_id:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        ids.append(int(logits.argmax()))
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def hflm_logprobs(model: Any, engine: LocalEngine, requests: Sequence[Request]) -> list[float]:
    """Log-likelihoods by lm-eval's HFLM at batch size 1."""
    instances = [
        Instance("loglikelihood", {}, (request.context, request.continuation), 0) for request in requests
    ]
    return [logprob for logprob, _ in _hflm(model, engine).loglikelihood(instances, disable_tqdm=True)]


def hflm_texts(model: Any, engine: LocalEngine, contexts: Sequence[str], tokens: int) -> list[str]:
    """Greedy texts by lm-eval's HFLM at batch size 1."""
    settings = {"until": ["~~~~"], "max_gen_toks": tokens, "do_sample": False}
    instances = [Instance("generate_until", {}, (context, dict(settings)), 0) for context in contexts]
    return list(_hflm(model, engine).generate_until(instances, disable_tqdm=True))


def _hflm(model: Any, engine: LocalEngine) -> HFLM:
    tokenizer = engine.base.tokenizer
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=engine.base.max_length)


def with_adapter(folder: Path, adapter: Path) -> PeftModel:
    """A base with an adapter as PEFT loads it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).eval()
