"""Tiny models of three architectures, at random initialisation, with a real tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)
from transformers.models.auto import AutoModelForCausalLM

from tiny_architectures import make_tokenizer


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
