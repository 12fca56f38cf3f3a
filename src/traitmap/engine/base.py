"""The base model: where it lies, what it is made of, and which way through it is right."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from traitmap.engine import attention
from traitmap.engine.passes import Row, read_logits
from traitmap.errors import ModelError
from traitmap.study.paths import model_location
from traitmap.study.settings import Model

_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")
_NOT_THE_MODEL = ("recipe.json", "loss_curve.csv")


@dataclass(frozen=True)
class Base:
    """A frozen base model, ready for passes.

    layout: ``stream`` where the model's logits over an unpadded stream were found equal to its own,
    else ``padded``. digest: of weights, configuration, tokenizer and dtype.
    cached: whether a pass may go on from a key-value cache.
    """

    model: Any
    tokenizer: Any
    path: str
    revision: str | None
    layout: str
    digest: str
    max_length: int
    cached: bool = True


def load_base(settings: Model, study_folder: Path) -> Base:
    """Load model and tokenizer. ModelError says what is wrong with them."""
    folder = locate(settings, study_folder)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    trust = settings.trust_remote_code
    quantised = _four_bits(device, dtype) if settings.load_in_4bit else {}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, trust_remote_code=trust, use_safetensors=True, **quantised
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model.path {settings.path!r}: cannot be loaded as a causal language model: {reason}"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if not quantised:
        model.to(device)
    model.eval().requires_grad_(False)
    return Base(
        model=model,
        tokenizer=tokenizer,
        path=str(folder)
        if Path(str(model_location(settings.path, study_folder))).is_dir()
        else settings.path,
        revision=settings.revision,
        layout=choose_layout(model),
        digest=_digest(folder, f"{dtype} nf4" if quantised else str(dtype)),
        max_length=_max_length(model.config, tokenizer),
    )


def locate(settings: Model, folder: Path) -> Path:
    """The local folder of a base model; hub ids are downloaded (safetensors and tokenizer only).

    folder: where relative paths start from, the study file's.
    """
    location = model_location(settings.path, folder)
    if isinstance(location, Path):
        if not location.is_dir():
            raise ModelError(f"model.path {settings.path!r}: there is no folder {location}.")
        return location
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = snapshot_download(settings.path, revision=settings.revision, allow_patterns=list(_FILES))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"model.path {settings.path!r}: neither a local folder nor to be had from the hub "
            f"({type(error).__name__}). Check the name, the network, and `hf auth login` for gated models."
        ) from error
    return Path(found)


def choose_layout(model: Any) -> str:
    """``stream`` where a stream of two rows gives each row the logits that it has alone, else ``padded``.

    The check runs on the model itself, so an architecture that mixes tokens outside its attention
    (state space layers), changes the arithmetic of attention, or ignores the interface is found out.
    """
    generator = np.random.default_rng(0)
    rows = [
        Row(ids=generator.integers(0, model.config.vocab_size, size), reads=np.arange(size))
        for size in (7, 12)
    ]
    own = model.config._attn_implementation
    with torch.no_grad():
        expected = torch.cat([read_logits(model, "padded", [row]) for row in rows]).float()
        try:
            model.set_attn_implementation(attention.NAME)
            found = read_logits(model, "stream", rows).float()
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError):
            found = torch.full_like(expected, torch.nan)
        finally:
            model.set_attn_implementation(own)
    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 5e-2
    error = (found - expected).abs().max() / expected.abs().max()
    return "stream" if bool(error <= tolerance) else "padded"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"model.device {name!r}: unknown; legal: auto, cpu, cuda, cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"model.device {name!r}: torch sees no CUDA device here; use auto or cpu.")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _four_bits(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What from_pretrained needs for NormalFloat4 weights, quantised twice (Dettmers et al., 2023)."""
    if device.type != "cuda":
        raise ModelError(
            f"model.load_in_4bit: weights in 4 bits are computed on CUDA only, the device is {device.type}; "
            "set it to false, or use dtype: bfloat16 to save memory."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.load_in_4bit: needs the package bitsandbytes: pip install bitsandbytes, or use false."
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _max_length(config: Any, tokenizer: Any) -> int:
    for attribute in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(config, attribute, None):
            return int(getattr(config, attribute))
    length = int(tokenizer.model_max_length)
    return length if length < 10**9 else 2048


def _digest(folder: Path, arithmetic: str) -> str:
    """SHA-256 over names and bytes of all files that make the model, and the arithmetic it runs in."""
    total = hashlib.sha256(arithmetic.encode())
    files = sorted(
        {path for pattern in _FILES for path in folder.glob(pattern)} - {folder / n for n in _NOT_THE_MODEL}
    )
    for path in files:
        with path.open("rb") as stream:
            total.update(json.dumps([path.name, hashlib.file_digest(stream, "sha256").hexdigest()]).encode())
    return total.hexdigest()[:32]
