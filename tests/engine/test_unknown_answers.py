"""What is no answer is never scored: NaN and infinite log-probabilities and logits, empty texts of errors."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from small_study import sources, study, targets
from traitmap.data.records import Request, Response, require_answers
from traitmap.engine.adapted_modules import linear_modules
from traitmap.engine.adapters import save_adapter
from traitmap.engine.fake import FakeEngine
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import new_adapter
from traitmap.errors import ModelError
from traitmap.matrix.build import build_matrix
from traitmap.runs.execute import execute
from traitmap.runs.status import run_status
from traitmap.study.settings import Lora, Model

CHOICES = tuple(Request("loglikelihood", "A fox is", f" {word}", item=n) for n, word in enumerate("abc"))
WHOLE = Request("loglikelihood_rolling", "The lazy dog sleeps.", item=3)
GREEDY = Request("generate_until", "A fox is", generation={"until": ["."], "max_gen_toks": 6}, item=4)
DRAWN = Request(
    "generate_until",
    "A fox is",
    generation={"until": ["."], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0},
    item=5,
)


def adapter(engine: LocalEngine, folder: Path, value: float | None) -> Path:
    """A LoRA directory of the engine's base, with one weight replaced where a value is given."""
    lora = Lora(r=2, lora_alpha=4)
    made = new_adapter(
        linear_modules(engine.base.model, "all-linear"), lora, torch.Generator().manual_seed(0)
    )
    save_adapter(folder, made, "base")
    if value is not None:
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        name = max(name for name in tensors if "lora_B" in name)
        tensors[name] = np.full_like(tensors[name], value)
        save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("value", [nan, inf])
def test_an_adapter_without_values_gives_no_answers(checkpoints, tmp_path: Path, architecture, value) -> None:
    """Cached and padded decoding, greedy and drawn; the same requests are answered by a whole adapter."""
    engine = LocalEngine.open(Model(path=str(checkpoints[architecture])))
    requests = (*CHOICES, WHOLE, GREEDY, DRAWN)
    require_answers(requests, engine.answer(requests, adapter(engine, tmp_path / "whole", None)))
    answers = engine.answer(requests, adapter(engine, tmp_path / "broken", value))
    faults = [answer.fault(request) for answer, request in zip(answers, requests, strict=True)]
    assert all("finite log-probability" in fault for fault in faults[:4]), faults
    assert all("no finite logits" in fault for fault in faults[4:]), faults
    assert [answer.text for answer in answers[4:]] == [None, None]
    with pytest.raises(ModelError, match="6 of 6 answers are none; of item 0: it has no finite"):
        require_answers(requests, answers)
    require_answers(requests, engine.answer(requests))  # the base again


@pytest.mark.parametrize(
    ("request_", "answer", "told"),
    [
        (WHOLE, Response(logprob=-inf), "no finite log-probability (-inf)"),
        (CHOICES[0], Response(), "no finite log-probability (nan)"),
        (CHOICES[0], Response(logprob=5.0, tokens=3), "log-probability is 5, and none is above 0"),
        (GREEDY, Response(logprob=-1.0), "it has no text"),
        (GREEDY, Response(text="", unknown="the server fell over"), "the server fell over"),
        (GREEDY, Response(text=""), ""),
        (CHOICES[0], Response(logprob=0.001, tokens=1), ""),
        (CHOICES[0], Response(logprob=-1e30, tokens=1), ""),
    ],
)
def test_one_place_decides_what_an_answer_is(request_: Request, answer: Response, told: str) -> None:
    assert (told in answer.fault(request_)) if told else not answer.fault(request_)


class Overflowing(FakeEngine):
    """An engine whose adapter ``flipped`` gives no number for one request of each target."""

    def answer(self, requests, adapter=None, listener=None):
        answers = super().answer(requests, adapter)
        if adapter is not None and b"flipped" in (adapter / "of.txt").read_bytes():
            kind = requests[-1].kind
            answers[-1] = Response(text=None, tokens=3) if kind == "generate_until" else Response(logprob=nan)
        return answers

    def train(self, jobs, folders, *rest, **options):
        reports = super().train(jobs, folders, *rest, **options)
        for job, folder in zip(jobs, folders, strict=True):
            (folder / "of.txt").write_text(job.name)
        return reports


def test_a_cell_with_one_unknown_answer_is_missing_with_its_reason(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = execute(asked, Overflowing(), sources(asked), targets(count=12))
    matrix = build_matrix(store)
    for cell in matrix.cells:
        if cell.source == "flipped":
            assert cell.status == "failed"
            assert np.isnan([cell.value, cell.gain]).all()
            assert "1 of" in cell.reason
        else:
            assert cell.status == "measured"
    assert len(run_status(store).failures) == 4


class Diverging(FakeEngine):
    """An engine whose last step spoils the weights after every loss was finite."""

    def train(self, jobs, folders, *rest, **options):
        reports = super().train(jobs, folders, *rest, **options)
        file = folders[0] / "adapter_model.safetensors"
        tensors = load_file(file)
        tensors["prior"] = np.full_like(tensors["prior"], nan)
        save_file(tensors, file)
        return reports


def test_an_adapter_that_diverged_in_its_last_step_is_not_kept(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = execute(asked, Diverging(), sources(asked), targets(count=12), group_size=1)
    failures = run_status(store).failures
    assert {failure.target for failure in failures} == {None}
    assert all("diverged: 4096 of its weights are NaN or infinite" in failure.reason for failure in failures)
    assert not list(store.adapters.iterdir())
