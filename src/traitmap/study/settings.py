"""The study file as plain frozen settings; defaults are the paper's where it has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Frozen, and no key that we do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Settings):
    """The base model.

    path: a hub id (``org/name``), a local folder in Hugging Face layout, or ``builtin:mini``.
    dtype: arithmetic of the frozen base; ``auto`` is float32 on a CPU and bfloat16 on a GPU.
        Adapters are always trained in float32 (float64 with a float64 base).
    """

    path: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    device: str = "auto"
    trust_remote_code: bool = False


class Lora(Settings):
    """LoRA settings under PEFT's names (``peft.LoraConfig``)."""

    r: Annotated[int, Field(ge=1)] = 64
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    use_rslora: bool = False


class Training(Settings):
    """Training settings under the names of ``transformers.TrainingArguments``.

    batch_size: examples of one adapter per optimizer step.
    num_train_epochs, max_steps, max_tokens: how long; give at most one (default: one epoch).
        max_tokens counts tokens of data (prompt and completion), a budget that makes sources comparable.
    loss_on: ``completion`` (default) or ``all``, the whole sequence as the paper did.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=2)] = 2048
    batch_size: Annotated[int, Field(ge=1)] = 32
    num_train_epochs: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    loss_on: Literal["completion", "all"] = "completion"


class Source(Settings):
    """A training set, or an adapter that exists already.

    Exactly one of ``path``, ``task``, ``adapter``:
    path: a hub dataset id, or a local ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file.
    task: an lm-evaluation-harness task whose training split is used, rendered as the task renders it.
    adapter: a PEFT adapter directory, used as it is.

    prompt, completion: sandboxed Jinja templates over a row's columns. Without them the row must
        have one of the shapes that TRL accepts: ``text``; ``prompt`` and ``completion``; ``messages``.
    label: the column that holds the class; ``labels`` gives each value its word, seen by the
        templates as ``{{ label }}``.
    limit: use at most this many examples, drawn at random with the study's ``sample_seed``.
    training, lora: settings that differ from the study's for this source only.
    """

    name: str
    path: str | None = None
    task: str | None = None
    adapter: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    prompt: str | None = None
    completion: str | None = None
    label: str | None = None
    labels: dict[str, str] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    lora: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()


class Target(Settings):
    """An evaluation task of lm-evaluation-harness: an installed or bundled name, or a YAML file.

    metric, filter: which of the task's own metrics stands in the matrix (default: its first).
    """

    name: str
    task: str
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    metric: str | None = None
    filter: str | None = None
    apply_chat_template: bool = False
    tags: tuple[str, ...] = ()


class Study(Settings):
    """One study: a base, sources, targets, and how.

    limit: evaluate at most this many items of each target (its first ones, as lm-eval does).
    output: folder that holds runs; the run lies in ``output/name``.
    include_path: folders with further lm-eval task files.
    path: the file that the study was read from; relative paths in it are relative to that file.
    """

    name: str
    model: Model
    lora: Lora = Lora()
    training: Training = Training()
    seeds: tuple[int, ...] = (0,)
    sources: tuple[Source, ...]
    targets: tuple[Target, ...]
    limit: Annotated[int, Field(ge=1)] | None = None
    sample_seed: int = 0
    include_path: tuple[str, ...] = ()
    output: str = "runs"
    trait_names: tuple[str, ...] = ()
    path: Path | None = Field(default=None, exclude=True)
