"""The engine on a CUDA device: right in float32, within its rounding in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_continuous import GREEDY, SAMPLED, alone, asked
from test_forward_paths import few_shot, logprobs, plain
from test_score import choice_requests
from test_train import jobs

from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Model

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def engine_on(device: str, dtype: str, folder: Path) -> LocalEngine:
    return LocalEngine.open(Model(path=str(folder), device=device, dtype=dtype))


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("bfloat16", 0.2)])
def test_training_and_scoring_on_cuda_follow_the_cpu(
    checkpoints, tmp_path: Path, architecture: str, dtype: str, bound: float
) -> None:
    losses, scores = {}, {}
    for device, precision in (("cpu", "float32"), ("cuda", dtype)):
        engine = engine_on(device, precision, checkpoints[architecture])
        assert engine.base.layout == "stream"
        folders = [tmp_path / f"{device}{number}" for number in range(3)]
        for folder in folders:
            folder.mkdir()
        reports = engine.train(jobs(), folders)
        assert [report.failure for report in reports] == [None] * 3
        losses[device] = np.concatenate([report.losses[:5] for report in reports])
        answers = engine.answer(choice_requests(), folders[0])
        scores[device] = np.array([answer.logprob for answer in answers])
    assert np.abs(losses["cpu"] - losses["cuda"]).max() < bound
    assert np.abs(scores["cpu"] - scores["cuda"]).max() < 30 * bound


def test_the_automatic_dtype_is_bfloat16_and_generation_runs(checkpoints) -> None:
    from traitmap.data.records import Request

    engine = engine_on("auto", "auto", checkpoints["llama"])
    assert engine.conditions["dtype"] == "bfloat16"
    (answer,) = engine.answer(
        [Request("generate_until", "a b c", generation={"until": [], "max_gen_toks": 8})]
    )
    assert answer.tokens == 8 or answer.stopped


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "mistral"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-3), ("bfloat16", 0.6)])
def test_shared_prefixes_change_no_score_on_cuda(checkpoints, architecture, dtype, bound) -> None:
    engine, requests = engine_on("cuda", dtype, checkpoints[architecture]), few_shot()
    found = logprobs(engine, requests)
    assert engine.paths is not None
    assert engine.paths.cached
    assert np.abs(found - logprobs(plain(engine), requests)).max() < bound


@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_continuous_decoding_on_cuda_writes_what_each_text_is_alone(checkpoints, generation) -> None:
    engine, requests = engine_on("cuda", "float64", checkpoints["llama"]), asked(generation)
    found = engine.answer(requests)
    assert found == alone(engine, requests)
    low = engine_on("cuda", "bfloat16", checkpoints["llama"])
    same = [a.text == b.text for a, b in zip(low.answer(requests), alone(low, requests), strict=True)]
    assert np.mean(same) > 0.5  # roundings of bfloat16 decide near ties
