"""A small base model from any text files: a recipe in, a folder in Hugging Face layout and its record out."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from traitmap.engine.device import device_of
from traitmap.errors import DataError, ModelError
from traitmap.progress import Listener, Progress, silent

START, END, PAD = "<s>", "</s>", "<pad>"
BYTES = 256
HELD_OUT = 0.01  # share of the documents kept for the validation loss
_ENCODED_TOGETHER = 1000  # documents; an encoding holds much more than its ids
TOKENIZER_CHARACTERS = 20_000_000  # the tokenizer is trained on at most this much of the text


@dataclass(frozen=True)
class PretrainRecipe:
    """All that determines a base besides its text.

    vocab_size: tokens of the byte-level BPE, special tokens included; digits are always single tokens.
    context: positions that the model has; sequence_length: tokens of one training row.
    batch_size: rows of one optimizer step. warmup_steps: linear, then cosine to a tenth of learning_rate.
    arithmetic: of the passes; weights and optimizer stay in float32 until they are stored as bfloat16.
        ``auto`` is float32 on a CPU and bfloat16 on a GPU.
    threads: of the CPU, None for torch's own choice. Same recipe, text, threads and machine: same weights.
    """

    hidden_size: int = 192
    num_layers: int = 4
    num_attention_heads: int = 6
    intermediate_size: int = 512
    vocab_size: int = 1536
    context: int = 512
    sequence_length: int = 256
    batch_size: int = 16
    steps: int = 1000
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    seed: int = 0
    device: str = "auto"
    arithmetic: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class PretrainReport:
    """What was found: losses in nats per token of each step, the validation loss of the stored weights.

    parameters: of the model, tied embeddings counted once. tokens: seen in training.
    tokens_of_text: in the text; above 1, tokens / tokens_of_text is the number of passes over it.
    """

    losses: tuple[float, ...]
    validation_loss: float
    parameters: int
    tokens: int
    tokens_of_text: int


def pretrain(
    texts: Sequence[Path],
    folder: Path,
    recipe: PretrainRecipe,
    listener: Listener = silent,
) -> PretrainReport:
    """Train tokenizer and model on text files (documents separated by blank lines) and write ``folder``.

    Writes ``model.safetensors`` (bfloat16), ``config.json``, ``generation_config.json``, the tokenizer's
    files, ``loss_curve.csv`` and ``recipe.json``. DataError for texts that are missing or too short,
    ModelError for sizes that do not fit each other.
    """
    check_recipe(recipe)
    device = device_of(recipe.device, "device")
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    documents = read_documents(texts)
    tokenizer = train_tokenizer(documents, recipe.vocab_size)
    held_out = max(1, round(HELD_OUT * len(documents)))
    training = _rows(documents[:-held_out], tokenizer, recipe.sequence_length, "training")
    validation = _rows(documents[-held_out:], tokenizer, recipe.sequence_length, "validation")
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(_config(recipe))
    model.to(device)  # type: ignore[arg-type]
    losses = _train(model, training, recipe, listener)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    report = PretrainReport(
        losses=tuple(losses),
        validation_loss=_mean_loss(model, validation, recipe.batch_size),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=recipe.steps * recipe.batch_size * recipe.sequence_length,
        tokens_of_text=training.numel(),
    )
    _write(folder, model, tokenizer, recipe, report, texts)
    return report


def check_recipe(recipe: PretrainRecipe) -> None:
    """ModelError that names every size of the recipe that is out of range."""
    faults = [
        f"{name} {value}: must be at least 1"
        for name, value in asdict(recipe).items()
        if isinstance(value, int) and name not in ("seed", "warmup_steps") and value < 1
    ]
    if recipe.num_attention_heads > 0 and recipe.hidden_size % (2 * recipe.num_attention_heads):
        faults.append(
            f"hidden_size {recipe.hidden_size}: must be a multiple of twice num_attention_heads "
            f"({recipe.num_attention_heads}), since rotary embeddings need an even head size"
        )
    if recipe.vocab_size < BYTES + 3:
        faults.append(
            f"vocab_size {recipe.vocab_size}: must be at least {BYTES + 3} (bytes, start, end, pad)"
        )
    if recipe.sequence_length > recipe.context:
        faults.append(f"sequence_length {recipe.sequence_length}: must not be above context {recipe.context}")
    if not recipe.learning_rate > 0:
        faults.append(f"learning_rate {recipe.learning_rate}: must be above 0")
    if faults:
        raise ModelError("the recipe of the base cannot be followed: " + "; ".join(faults))


def read_documents(texts: Sequence[Path]) -> list[str]:
    """The documents of all files in order; a blank line ends a document."""
    documents: list[str] = []
    for path in texts:
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from error
        documents += [part.strip("\n") for part in content.split("\n\n") if part.strip()]
    if len(documents) < 2:
        raise DataError(
            f"{', '.join(map(str, texts))}: {len(documents)} document(s); at least 2 are needed, "
            "separated by blank lines."
        )
    return documents


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits; adds no special token to a text by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[START, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sizes = np.cumsum([0, *map(len, documents)])[:-1]  # characters before each document
    first = documents[: int((sizes < TOKENIZER_CHARACTERS).sum())]
    tokenizer.train_from_iterator(iter(first), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _rows(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int, use: str
) -> torch.Tensor:
    """Documents between start and end tokens, one after another, cut into rows of ``length`` + 1."""
    stream = array("q")
    for start in range(0, len(documents), _ENCODED_TOGETHER):
        part = list(documents[start : start + _ENCODED_TOGETHER])
        for encoding in tokenizer.backend_tokenizer.encode_batch(part, add_special_tokens=False):
            stream.extend((tokenizer.bos_token_id, *encoding.ids, tokenizer.eos_token_id))
    rows = len(stream) // (length + 1)
    if rows == 0:
        raise DataError(
            f"the text is too short: {len(stream)} tokens for {use}, at least {length + 1} are needed; "
            "give more text or a smaller sequence_length."
        )
    return torch.from_numpy(np.asarray(stream[: rows * (length + 1)])).view(rows, length + 1)


def _config(recipe: PretrainRecipe) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_attention_heads,
        intermediate_size=recipe.intermediate_size,
        vocab_size=recipe.vocab_size,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def _train(
    model: LlamaForCausalLM, rows: torch.Tensor, recipe: PretrainRecipe, listener: Listener
) -> list[float]:
    """Loss of every step. Weight decay is for matrices only, as usual."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )

    def factor(step: int) -> float:
        """Share of the learning rate: linear warm-up, then cosine from 1 to 0.1."""
        if step < recipe.warmup_steps:
            return (step + 1) / recipe.warmup_steps
        done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    device = next(model.parameters()).device
    precise = recipe.arithmetic == "float32" or (recipe.arithmetic == "auto" and device.type == "cpu")
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(_batches(rows, recipe)):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=not precise):
            loss = _loss(model, batch.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        listener(Progress("pretrain", step + 1, recipe.steps, f"loss {losses[-1]:.3f}"))
    return losses


def _batches(rows: torch.Tensor, recipe: PretrainRecipe) -> Iterator[torch.Tensor]:
    """``steps`` batches: pass after pass over the rows, each in an order of its own."""
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(recipe.steps):
        while len(order) < recipe.batch_size:
            order = torch.cat([order, torch.randperm(len(rows), generator=generator)])
        yield rows[order[: recipe.batch_size]]
        order = order[recipe.batch_size :]


def _loss(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of tokens 2 ... L of each row, nats."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def _mean_loss(model: LlamaForCausalLM, rows: torch.Tensor, batch_size: int) -> float:
    model.eval()
    device = next(model.parameters()).device
    total = sum(float(_loss(model, part.to(device))) * len(part) for part in rows.split(batch_size))
    return total / len(rows)


def _write(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: PretrainRecipe,
    report: PretrainReport,
    texts: Sequence[Path],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    tokenizer.model_max_length = recipe.context
    tokenizer.save_pretrained(folder)
    with (folder / "loss_curve.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["step", "tokens", "loss"])
        for step, loss in enumerate(report.losses, start=1):
            table.writerow([step, step * recipe.batch_size * recipe.sequence_length, f"{loss:.4f}"])
    record: dict[str, Any] = {
        "recipe": asdict(recipe),
        "texts": [
            {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in texts
        ],
        "found": {name: value for name, value in asdict(report).items() if name != "losses"},
        "versions": {package: version(package) for package in ("torch", "transformers", "tokenizers")},
    }
    (folder / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
