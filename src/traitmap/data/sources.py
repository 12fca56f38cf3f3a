"""Training examples of a source, from wherever it has them, or the adapter that takes their place."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traitmap.data.records import Example
from traitmap.data.render import RenderChat, render_rows
from traitmap.data.tables import Problem, read_table
from traitmap.errors import DataError
from traitmap.study.digest import digest
from traitmap.study.paths import resolve
from traitmap.study.settings import Lora, Source, Study, Training, settings_of

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class LoadedSource:
    """A source ready to be trained on, or the adapter that takes its place.

    examples: rendered, in the order of the data; empty for an adapter.
    adapter: the PEFT directory, or None.
    training, lora: the study's settings with this source's own over them.
    digest: of the texts and what of them is learnt (of an adapter: of its two files); names, tags
        and label words beside the text do not enter, since training does not see them.
    label_counts: examples of each label word, in the order of ``labels`` where they are given.
    available: rows before ``limit`` was applied.
    """

    name: str
    examples: tuple[Example, ...]
    adapter: Path | None
    training: Training
    lora: Lora
    tags: tuple[str, ...]
    digest: str
    label_counts: Mapping[str, int]
    available: int


def load_sources(study: Study, render_chat: RenderChat | None = None) -> tuple[LoadedSource, ...]:
    """All sources of a study in its order. One DataError holds the problems of all of them."""
    loaded, faults = [], []
    for source in study.sources:
        try:
            loaded.append(load_source(study, source, render_chat))
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return tuple(loaded)


def load_source(study: Study, source: Source, render_chat: RenderChat | None = None) -> LoadedSource:
    """One source of a study.

    render_chat: ``Engine.render_chat``, needed where rows are conversations.
    Raises DataError with every problem of the source: what, which row and column, what to do.
    """
    found = examine_source(study, source, render_chat)
    if isinstance(found, LoadedSource):
        return found
    raise DataError("\n".join(f"source {source.name!r}, {one.key}: {one.message}" for one in found))


def examine_source(
    study: Study, source: Source, render_chat: RenderChat | None = None
) -> LoadedSource | list[Problem]:
    """The source, or all that is wrong with it."""
    if source.adapter is not None:
        return _adapter(study, source)
    if source.task is not None:
        return _task(study, source)
    table = read_table(study, source)
    if isinstance(table, Problem):
        return [table]
    indices = draw(len(table.rows), source.limit, study.sample_seed, source.name)
    examples, problems = render_rows(source, table, indices, render_chat)
    return problems or _loaded(study, source, examples, len(table.rows))


def draw(count: int, limit: int | None, sample_seed: int, name: str) -> Sequence[int]:
    """Indices of at most ``limit`` of ``count`` rows, ascending, drawn at random.

    The draw depends on the seed and the source's name alone; a smaller limit takes a subset of what
    a larger one takes.
    """
    if limit is None or limit >= count:
        return range(count)
    entropy = [sample_seed, int(digest(name, 16), 16)]
    order = np.random.default_rng(entropy).permutation(count)
    return sorted(int(index) for index in order[:limit])


def _task(study: Study, source: Source) -> LoadedSource | list[Problem]:
    # lm-eval takes seconds to import
    from traitmap.data.harness import open_study_task, training_examples, training_rows

    try:
        task = open_study_task(study, source.task or "")
        available = training_rows(task)
        indices = draw(available, source.limit, study.sample_seed, source.name)
        examples = training_examples(task, indices)
    except DataError as error:
        return [Problem("task", str(error))]
    if not examples:
        return [Problem("task", f"the training split of {source.task!r} has no rows; use another task")]
    return _loaded(study, source, examples, available)


def _loaded(study: Study, source: Source, examples: Sequence[Example], available: int) -> LoadedSource:
    training, lora = settings_of(study, source)
    texts = [[[segment.text, segment.learn] for segment in example.segments] for example in examples]
    counts = Counter(example.label for example in examples if example.label is not None)
    order = dict.fromkeys([*(source.labels or {}).values(), *sorted(counts)])
    return LoadedSource(
        name=source.name,
        examples=tuple(examples),
        adapter=None,
        training=training,
        lora=lora,
        tags=source.tags,
        digest=digest(texts),
        label_counts={word: counts[word] for word in order if counts[word]},
        available=available,
    )


def _adapter(study: Study, source: Source) -> LoadedSource | list[Problem]:
    folder = resolve(source.adapter or "", study.folder)
    problem = _adapter_problem(folder)
    if problem:
        return [Problem("adapter", problem)]
    training, lora = settings_of(study, source)
    files = {name: _file_digest(folder / name) for name in (_CONFIG, _WEIGHTS)}
    return LoadedSource(
        name=source.name,
        examples=(),
        adapter=folder,
        training=training,
        lora=lora,
        tags=source.tags,
        digest=digest(files),
        label_counts={},
        available=0,
    )


def _adapter_problem(folder: Path) -> str | None:
    if not os.path.isdir(folder):
        return f"{folder} is no folder; give a PEFT adapter directory"
    for name in (_CONFIG, _WEIGHTS):
        if not os.path.isfile(folder / name):
            old = (folder / "adapter_model.bin").exists() and name == _WEIGHTS
            advice = (
                "save it again with safe_serialization=True"
                if old
                else "save it with model.save_pretrained()"
            )
            return f"{folder} has no {name}, so it is no PEFT adapter that can be used; {advice}"
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
    except ValueError as error:
        return f"{folder / _CONFIG} is not valid JSON ({error}); save the adapter again"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return f'{folder / _CONFIG} does not say "peft_type": "LORA"; only LoRA adapters can be used'
    return None


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
