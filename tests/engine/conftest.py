"""Tiny models of three architectures, at random initialisation, with a real tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCuda, put_on_cuda
from transformers import (
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)
from transformers.models.auto import AutoModelForCausalLM

from tiny_architectures import make_tokenizer
from traitmap.engine.base import load_base
from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Model


def make_config(architecture: str, vocabulary: int):
    shared = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.2,
    }
    grouped = {**shared, "num_key_value_heads": 2}
    return {
        "llama": lambda: LlamaConfig(**grouped),
        "qwen2": lambda: Qwen2Config(**grouped),
        "gpt_neox": lambda: GPTNeoXConfig(**shared),
        "mistral": lambda: MistralConfig(**grouped, sliding_window=8),
    }[architecture]()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint folder of each architecture in Hugging Face layout."""
    folders = {}
    tokenizer = make_tokenizer()
    for architecture in ("llama", "qwen2", "gpt_neox", "mistral"):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(make_config(architecture, len(tokenizer)))
        folder = tmp_path_factory.mktemp(architecture)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[architecture] = folder
    return folders


@pytest.fixture(scope="session")
def folders(checkpoints, tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of a Llama, and of a Gemma 3 with a sliding and a full layer, a scaled embedding, and norms
    of queries and keys."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["llama"])
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    folder = tmp_path_factory.mktemp("gemma3")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"llama": checkpoints["llama"], "gemma3": folder}


@pytest.fixture
def on(folders) -> Callable[..., LocalEngine]:
    """Opens an engine in bfloat16 on the device of a ``FakeCuda``."""

    def opened(cuda: FakeCuda, architecture: str = "llama", layout: str = "stream") -> LocalEngine:
        base = load_base(Model(path=str(folders[architecture]), device="cpu", dtype="bfloat16"), Path())
        model = put_on_cuda(cuda, base.model)
        return LocalEngine(replace(base, model=model, layout=layout, memory=80 * 2**30))

    return opened
