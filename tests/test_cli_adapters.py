"""A study over adapters that exist already, from the command line: the same logits as PEFT's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from traitmap.data.records import Outcome, Request
from traitmap.data.targets import load_target
from traitmap.engine.tokens import Encoder
from traitmap.runs.cells import read_outcomes
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import RunStore
from traitmap.study.load import load_study
from traitmap.study.paths import MINI, model_location

BASE = Path(model_location(MINI, Path()))
ITEMS = 6
KINDS = {"lora": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}}


def trained(folder: Path, settings: dict[str, Any]) -> Path:
    """A few steps of PEFT's own training, and what it saves."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj", "down_proj"],
        task_type="CAUSAL_LM",
        **settings,
    )
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), config)
    ids = torch.tensor([tokenizer.encode("Review: it is fine.\nSentiment: positive")])
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-2)
    for _ in range(5):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def by_peft(adapter: Path | None, requests: Sequence[Request]) -> list[float]:
    """Log-likelihoods of the continuations, by transformers and PEFT alone, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter)
    model.eval()
    encoder = Encoder(AutoTokenizer.from_pretrained(BASE))
    found = []
    for request in requests:
        context, answer = encoder.continuation(request)
        ids = torch.tensor([context + answer])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].log_softmax(-1)
        found.append(sum(logits[len(context) + i - 1, token].item() for i, token in enumerate(answer)))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters by PEFT, and a study over them that the command line has run."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, settings in KINDS.items():
        trained(folder / name, settings)
    study = {
        "name": "mine",
        "model": {"path": MINI, "dtype": "float32", "device": "cpu"},
        "sources": [{"name": name, "adapter": f"./{name}"} for name in KINDS],
        "targets": [{"task": "mini_reviews", "limit": ITEMS}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    done = subprocess.run(
        [sys.executable, "-m", "traitmap.cli", "run", "study.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def outcomes(folder: Path, source: str) -> list[Outcome]:
    store = RunStore(folder / "runs" / "mine")
    (entry,) = [cell for cell in read_ledger(store).cells if cell.source == source]
    assert entry.key is not None
    return list(read_outcomes(store.cell(entry.key)))


@pytest.mark.parametrize("source", ["__baseline__", *KINDS])
def test_the_choices_log_probabilities_are_peft_s_own(finished: Path, source: str) -> None:
    study = load_study(finished / "study.yaml")
    requests = load_target(study, study.targets[0]).requests
    expected = by_peft(None if source == "__baseline__" else finished / source, requests)
    found = [value for one in outcomes(finished, source) for value in one.choice_logprobs]
    assert len(found) == 3 * ITEMS
    np.testing.assert_allclose(found, expected, atol=2e-4)
    if source != "__baseline__":
        base = [value for one in outcomes(finished, "__baseline__") for value in one.choice_logprobs]
        assert max(abs(one - other) for one, other in zip(found, base, strict=True)) > 0.1
