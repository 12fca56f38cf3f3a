"""Models and texts of the benchmarks: random weights, and lengths as real data have them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from traitmap.data.records import Example, Segment

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
# Prompt and completion lengths in tokens of ten public datasets at QUANTILES, under an 8k byte-level BPE.
LENGTHS = {
    "gsm8k": ((32, 50, 58, 72, 89, 110, 208), (30, 54, 70, 94, 126, 165, 292)),
    "goat": ((8, 14, 17, 21, 27, 33, 42), (11, 20, 29, 39, 53, 193, 456)),
    "code": ((12, 21, 26, 36, 49, 66, 187), (3, 21, 41, 72, 111, 155, 454)),
    "mnli": ((13, 26, 35, 50, 68, 86, 235), (5, 5, 5, 5, 5, 5, 5)),
    "paws": ((21, 49, 61, 76, 94, 106, 149), (3, 3, 3, 3, 3, 3, 3)),
    "toxicity": ((10, 18, 28, 46, 80, 110, 196), (5, 5, 5, 5, 6, 6, 6)),
    "flipkart": ((7, 10, 13, 17, 33, 59, 122), (3, 3, 3, 3, 3, 3, 3)),
    "amazon": ((9, 36, 53, 95, 109, 118, 224), (4, 4, 4, 4, 4, 4, 4)),
    "imdb": ((41, 95, 102, 108, 114, 120, 157), (3, 3, 3, 3, 3, 3, 3)),
    "svamp": ((30, 41, 46, 52, 62, 72, 103), (12, 12, 14, 15, 18, 21, 33)),
}
SHAPES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4},
    "plain": {"hidden_size": 320, "intermediate_size": 896, "num_hidden_layers": 6, "num_attention_heads": 5},
    "smollm2": {  # of SmolLM2-135M
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
    },
    "gemma3": {  # of Gemma 3 270M
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "vocab_size": 262_144,
    },
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def checkpoint(shape: str, folder: Path) -> Path:
    """A random model of a named shape with the bundled tokenizer, in Hugging Face layout."""
    from transformers import AutoTokenizer

    from traitmap.study.paths import MINI, model_location

    tokenizer = AutoTokenizer.from_pretrained(model_location(MINI, folder))
    torch.manual_seed(0)
    settings = {
        "model_type": "llama",
        "vocab_size": 8192,
        "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
        **SHAPES[shape],
    }
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def draw_lengths(name: str, count: int, seed: int) -> list[tuple[int, int]]:
    """(prompt, completion) lengths drawn from a dataset's quantiles, linear in between."""
    generator = np.random.default_rng([seed, sorted(LENGTHS).index(name)])
    columns = [np.interp(generator.random(count), QUANTILES, column) for column in LENGTHS[name]]
    return [(round(prompt), max(1, round(completion))) for prompt, completion in zip(*columns, strict=True)]


def examples(name: str, count: int, seed: int = 0) -> tuple[Example, ...]:
    """Examples whose token counts are about those of a dataset: one random letter is one token."""
    generator = np.random.default_rng([seed, 99, sorted(LENGTHS).index(name)])

    def letters(length: int) -> str:
        return "".join(" " + LETTERS[i] for i in generator.integers(0, 26, max(1, length)))

    return tuple(
        Example((Segment(letters(prompt)[1:], False), Segment(letters(completion), True)))
        for prompt, completion in draw_lengths(name, count, seed)
    )


def temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="traitmap-bench-"))
