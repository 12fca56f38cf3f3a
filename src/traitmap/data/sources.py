"""Training examples of a source, from wherever it has them, or the adapter that takes their place."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from traitmap.data.adapters import CONFIG, WEIGHTS, adapter_problem, adapter_warnings, locate_adapter
from traitmap.data.conversation import RenderChat
from traitmap.data.records import AdapterPlace, Example, ServedAdapter
from traitmap.data.render import render_rows, rows_in_words
from traitmap.data.rows import SourceError, SourceProblem, SourceTable, read_table
from traitmap.data.shapes import learnable_rows
from traitmap.data.whole_models import whole_model
from traitmap.errors import DataError, ModelError
from traitmap.study.paths import digest, is_local_data, resolve
from traitmap.study.settings import (
    RULES_APART,
    Lora,
    Source,
    Study,
    Target,
    Training,
    settings_of,
    target_of,
)
from traitmap.wording import listed

HELD_OUT_SHARE = 0.2  # of the rows that sources and a target would share

_TOKEN_RULES = 2  # of how rows become tokens (engine.tokens)
_SPECIAL_END = re.compile(r"(<[^<>\s]{1,60}>|\[[^\[\]\s]{1,60}\])\s*\Z")


@dataclass(frozen=True)
class Lineage:
    """How a source came from another one.

    family: the source at the root, which has data of its own. parents: those it was made from directly.
    kind: what was changed, a key of the study file; several that matter are joined by ``+``; ``concat`` for
        a mixture, ``merge`` for a merge, ``checkpoint`` for a training that is not at its end, and
        ``training`` where only training or LoRA settings differ.
    changes: every change with its setting, in the order of application.
    dose: how much, in the unit that ``meaning`` tells; parent_dose: the same of the parent. NaN where no one
        number says it.
    examples_before, counts_before: rows, and rows of each label word, of the parent (of all parents).
    rows_changed: rows kept whose text, label or learnt part differs from the parent's.
    before, after: the first such row.
    """

    family: str
    parents: tuple[str, ...]
    kind: str
    changes: Mapping[str, Any]
    dose: float
    parent_dose: float
    meaning: str
    examples_before: int
    counts_before: Mapping[str, int]
    rows_changed: int
    before: Example | None = None
    after: Example | None = None


@dataclass(frozen=True)
class Merge:
    """Adapters to be merged into one, and how (PEFT's ``add_weighted_adapter``).

    parents: rows of the study, a source or a checkpoint of it. weights: one for each, never 0; equal: whether
    nobody gave them. method: a key of ``study.derived.MERGE_METHODS``. density, majority_sign_method: None
    where the method knows none. seeded: whether merges of two seeds differ, since a parent is trained or
    numbers are drawn.
    """

    parents: tuple[str, ...]
    weights: tuple[float, ...]
    method: str
    density: float | None
    majority_sign_method: str | None
    seeded: bool
    equal: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """How the parents are merged, without their names, as JSON data: what an adapter's key depends on."""
        return {
            "weights": list(self.weights),
            "method": self.method,
            "density": self.density,
            "majority_sign_method": self.majority_sign_method,
        }

    def __str__(self) -> str:
        """``merge of a (0.6) and b (0.4), method ties, density 0.5``."""
        names = [f"{name} ({weight:g})" for name, weight in zip(self.parents, self.weights, strict=True)]
        more = "" if self.density is None else f", density {self.density:g}"
        more += f", signs by {self.majority_sign_method}" if self.majority_sign_method else ""
        how = ", equal weights since none are given" if self.equal and len(names) > 1 else ""
        return f"merge of {listed(names)}, method {self.method}{more}{how}"


@dataclass(frozen=True)
class LoadedSource:
    """A source ready to be trained on, or the adapter that takes its place.

    examples: rendered, in the order of the data; empty for an adapter and for a merge.
    adapter: the PEFT directory, the adapter that a server holds, a whole model in its place, or None.
    training, lora: the study's settings with this source's own over them.
    digest: of the texts and what of them is learnt (of an adapter: of its two files, or of its name
        where a server holds it); names, tags
        and label words beside the text do not enter, since training does not see them.
    label_counts: examples of each label word, in the order of ``labels`` where they are given.
    available: rows before ``limit`` was applied, or before a variation left rows out.
    variation: what was changed in which source, where this one is made from another.
    warnings: what a user should know of an adapter that can be used all the same, or of rows that are left
        out and columns that are not used.
    read_as: the format that was recognised, and its rows; empty where templates say what a row is.
    drawn_as: the name that its training draws under, where that is not ``draws_as``'s usual one.
    merge: the adapters that it is merged from; then nothing is trained.
    step: of a checkpoint, the optimizer step of its source's training (``variation.parents``) at which it is
        kept.
    """

    name: str
    examples: tuple[Example, ...]
    adapter: AdapterPlace | None
    training: Training
    lora: Lora
    tags: tuple[str, ...]
    digest: str
    label_counts: Mapping[str, int]
    available: int
    variation: Lineage | None = None
    warnings: tuple[str, ...] = ()
    read_as: str = ""
    drawn_as: str = ""
    merge: Merge | None = None
    step: int | None = None

    @property
    def trained(self) -> bool:
        """Whether its adapter comes out of a training on its examples, its own or its source's."""
        return self.adapter is None and self.merge is None

    @property
    def seeded(self) -> bool:
        """Whether it has an adapter for each seed of the study; else it has one, the same for all."""
        return self.merge.seeded if self.merge else self.adapter is None

    @property
    def draws_as(self) -> str:
        """Whose first weights and order of rows its training draws.

        All variations of a source draw as that source does, so that their differences are not the draw's.
        """
        return self.drawn_as or (self.variation.family if self.variation else self.name)


def examine_source(
    study: Study, source: Source, render_chat: RenderChat | None = None
) -> LoadedSource | list[SourceProblem]:
    """A source that has data of its own, or everything that is wrong with it.

    render_chat: ``Engine.render_chat``, needed where rows are conversations.
    `data.lineage.load_sources` loads all sources of a study, those included that are made from others.
    """
    if source.served_as is not None:
        served = ServedAdapter(source.served_as, source.revision)
        known = digest({"served_as": served.name, "revision": served.revision})
        return loaded_source(study, source, (), 0, (), adapter=served, content=known)
    if source.adapter is not None:
        return _adapter(study, source)
    if source.model is not None:
        copies = resolve(study.data, study.folder) if study.data else None
        try:
            model = whole_model(source.model, study.folder, copies)
        except ModelError as error:
            return [SourceProblem("model", str(error))]
        return loaded_source(study, source, (), 0, (), adapter=model, content=model.digest)
    if source.task is not None:
        return _task(study, source)
    try:
        table = read_table(study, source)
        rows, notes = learnable_rows(source, table)
        held_out = held_out_rows(study, source, table, render_chat)
        if held_out:
            rows = _learnt(source, rows, held_out)
    except SourceError as error:
        return [error.problem]
    drawn = draw(len(rows), source.limit, study.sample_seed, source.draws_as or source.name)
    indices = drawn if len(rows) == len(table.rows) else [rows[at] for at in drawn]
    rendered = render_rows(source, table, indices, render_chat)
    if rendered.problems:
        return list(rendered.problems)
    loaded = loaded_source(
        study,
        source,
        rendered.examples,
        len(table.rows) - len(held_out.rows if held_out else ()),
        (source.labels or {}).values(),
        warnings=(*notes, *rendered.warnings),
    )
    if held_out is None:
        return replace(loaded, read_as=rendered.read_as)
    read_as = rendered.read_as or f"templates: {rows_in_words(len(table.rows))}"
    return replace(
        loaded, read_as=f"{read_as}, {len(held_out.rows):,} of them held out for {held_out.target!r}"
    )


def _learnt(source: Source, rows: Sequence[int], held_out: HeldOutRows) -> list[int]:
    left = [row for row in rows if row not in held_out.rows]
    if not left:
        message = f"all its rows are held out for the target {held_out.target!r}; give that a file of its own"
        raise SourceError("path", message)
    return left


@dataclass(frozen=True)
class HeldOutRows:
    """Rows of one file that a target asks, so that nothing learns them.

    rows: their indices. target: the target by whose prompts the file is split. share: of the texts that was
    to be held out.
    """

    rows: frozenset[int]
    target: str
    share: float


def held_out_rows(
    study: Study, reader: Source | Target, table: SourceTable, render_chat: RenderChat | None
) -> HeldOutRows | None:
    """Rows that a target asks of a file that sources learn from, too; None where nobody shares the file.

    reader: whoever reads ``table``. The first target of the study over the same file decides: a row is held
    out where a hash of its text as that target asks it, with ``sample_seed``, falls below ``held_out``. So
    equal texts fall on one side (upper and lower case, and blanks, tell none apart), and further rows change
    the side of no other. None, too, where rows cannot be rendered, which is a fault of that target.
    """
    place = data_place(study, reader)
    asking = [target for target in all_targets(study) if place and data_place(study, target) == place]
    learning = [source for source in study.sources if data_place(study, source) == place]
    if not asking or not (learning or asking[0].held_out):
        return None
    share = asking[0].held_out or HELD_OUT_SHARE
    rendered = render_rows(rows_of(asking[0]), table, range(len(table.rows)), render_chat)
    if rendered.problems:
        return None
    rows = frozenset(
        index
        for index, example in zip(rendered.indices, rendered.examples, strict=True)
        if _position(study.sample_seed, example.prompt or example.text) < share
    )
    return HeldOutRows(rows, asking[0].name, share)


def _position(seed: int, text: str) -> float:
    """Where a text stands between 0 and 1, evenly over texts."""
    return int(digest([seed, " ".join(text.split()).casefold()], 12), 16) / 16.0**12


def all_targets(study: Study) -> tuple[Target, ...]:
    """Targets of a study in its order, then those that its sources bring."""
    own = (target_of(source) for source in study.sources)
    return (*study.targets, *(target for target in own if target is not None))


def data_place(study: Study, reader: Source | Target) -> tuple[str, ...]:
    """What tells one file, or one split of a hub dataset, from all others; empty without a ``path``."""
    if reader.path is None:
        return ()
    file = resolve(reader.path, study.folder)
    if is_local_data(reader.path) or os.path.isfile(file):
        return (os.path.realpath(file),)
    return (reader.path, reader.subset or "", reader.split, reader.revision or "")


def rows_of(target: Target) -> Source:
    """The rows of a target over plain data as a source would read and write them.

    The completion of a class is its word after a space, where the prompt does not end in a blank; where an
    ``answer`` is asked it is left empty here.
    """
    completion = target.completion
    if completion is None and target.prompt is not None:
        gap = "" if target.prompt[-1:].isspace() else " "
        completion = f"{gap}{{{{ label }}}}" if target.label is not None else "{{ '' }}"
    keys = ("name", "path", "subset", "split", "revision", "prompt", "label", "labels", "train_on")
    given = {**{key: getattr(target, key) for key in keys}, "completion": completion}
    return Source.model_validate(given, context=RULES_APART)


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


def _task(study: Study, source: Source) -> LoadedSource | list[SourceProblem]:
    # lm-eval takes seconds to import
    from traitmap.data.harness import open_study_task, training_examples, training_rows

    try:
        task = open_study_task(study, source.task or "")
        available = training_rows(task)
        indices = draw(available, source.limit, study.sample_seed, source.draws_as or source.name)
        examples = training_examples(task, indices)
    except DataError as error:
        return [SourceProblem("task", str(error))]
    if not examples:
        return [SourceProblem("task", f"the training split of {source.task!r} has no rows; use another task")]
    return loaded_source(study, source, examples, available, ())


def loaded_source(
    study: Study,
    source: Source,
    examples: Sequence[Example],
    available: int,
    words: Iterable[str],
    *,
    adapter: AdapterPlace | None = None,
    content: str = "",
    warnings: tuple[str, ...] = (),
) -> LoadedSource:
    """The record of a source with the settings that hold for it.

    words: label words in the order in which they are to be counted; others follow by the alphabet.
    content: digest of what training on it gives; without it that of the examples.
    """
    training, lora = settings_of(study, source)
    return LoadedSource(
        name=source.name,
        examples=tuple(examples),
        adapter=adapter,
        training=training,
        lora=lora,
        tags=source.tags,
        digest=content or _digest_of(examples),
        label_counts=count_labels(examples, words),
        available=available,
        warnings=warnings,
        drawn_as=source.draws_as or "",
    )


def _digest_of(examples: Sequence[Example]) -> str:
    """Digest of the texts and of what is learnt of them, with the rules of their tokens where these changed.

    Rows that bring an end token once got a second one, and a tokenizer could join an answer with its prompt:
    sources that have such rows are trained anew, the keys of all others stay.
    """
    rows = [[[segment.text, segment.learn] for segment in example.segments] for example in examples]
    return digest([_TOKEN_RULES, rows] if any(_depends_on_rules(example) for example in examples) else rows)


def _depends_on_rules(example: Example) -> bool:
    """Whether a text ends in what looks like a special token, or an answer follows without a blank."""
    texts = [segment.text for segment in example.segments if segment.text]
    if texts and _SPECIAL_END.search(texts[-1]):
        return True
    return any(
        not (before[-1].isspace() or behind[0].isspace()) and not _SPECIAL_END.search(before)
        for before, behind in pairwise(texts)
    )


def count_labels(examples: Sequence[Example], words: Iterable[str]) -> dict[str, int]:
    """Examples of each label word: those of ``words`` first, then others by the alphabet; none with 0."""
    counts = Counter(example.label for example in examples if example.label is not None)
    return {word: counts[word] for word in dict.fromkeys([*words, *sorted(counts)]) if counts[word]}


def _adapter(study: Study, source: Source) -> LoadedSource | list[SourceProblem]:
    folder = locate_adapter(source.adapter or "", study.folder, source.revision)
    problem = folder if isinstance(folder, str) else adapter_problem(folder)
    if isinstance(folder, str) or problem:
        return [SourceProblem("adapter", str(problem))]
    files = {}
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as stream:
            files[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    warnings = adapter_warnings(folder, study.model.path, study.folder, study.model.revision)
    return loaded_source(study, source, (), 0, (), adapter=folder, content=digest(files), warnings=warnings)
