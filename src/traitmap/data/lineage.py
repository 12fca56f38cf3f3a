"""All sources of a study, those included that are made from other ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, nan
from typing import Any

import numpy as np

from traitmap.data import variations
from traitmap.data.records import Example
from traitmap.data.render import RenderChat, SourceProblem
from traitmap.data.sources import LoadedSource, Variation, counts_of, digest_of, examine_source, told
from traitmap.data.variations import NoSuchPartError
from traitmap.errors import DataError
from traitmap.study.paths import digest
from traitmap.study.rules import CONTROLS, changes_of, parents
from traitmap.study.settings import Source, Study, settings_of

CountTokens = Callable[[Sequence[str]], Sequence[float]]
_LABELLED = "write the label once in the completion, such as completion: ' {{ label }}'"


def load_sources(
    study: Study, render_chat: RenderChat | None = None, count_tokens: CountTokens | None = None
) -> tuple[LoadedSource, ...]:
    """All sources of a study that are trained or used as they are, in its order.

    render_chat: ``Engine.render_chat``, needed where rows are conversations. count_tokens:
    ``Engine.token_counts``, needed where tokens are matched.
    One DataError holds the problems of all sources.
    """
    shelf = Shelf(study, render_chat, count_tokens)
    faults = [line for source in study.sources for line in told(source, shelf.problems(source))]
    loaded = [one for source in study.sources if source.train and (one := shelf.take(source.name))]
    faults += [f"source {name!r}, {one.key}: {one.message}" for name, one in repeated(loaded)]
    if faults:
        raise DataError("\n".join(faults))
    return tuple(loaded)


def repeated(sources: Iterable[LoadedSource]) -> Iterator[tuple[str, SourceProblem]]:
    """Variations that would give the very adapter that another source gives."""
    first: dict[str, LoadedSource] = {}
    for source in sorted(sources, key=lambda one: one.variation is not None):
        settings = [source.training.model_dump(mode="json"), source.lora.model_dump(mode="json")]
        other = first.setdefault(digest([source.draws_as, source.digest, *settings]), source)
        if other is not source and source.variation is not None:
            same = (
                "it changes nothing in" if other.name in source.variation.parents else "it gives the same as"
            )
            key = next(iter(source.variation.changes), "from")
            yield (
                source.name,
                SourceProblem(key, f"{same} {other.name!r}; change more, or remove this source"),
            )


@dataclass
class Shelf:
    """Sources of a study, each loaded once, when it is first asked for."""

    study: Study
    render_chat: RenderChat | None = None
    count_tokens: CountTokens | None = None
    found: dict[str, LoadedSource | list[SourceProblem]] = field(default_factory=dict)

    def problems(self, source: Source) -> list[SourceProblem]:
        """What is wrong with a source itself; nothing where what it is made from is at fault already."""
        if source.name not in self.found:
            self.found[source.name] = []  # a source in a circle finds itself here
            self.found[source.name] = self._examine(source)
        found = self.found[source.name]
        return [] if isinstance(found, LoadedSource) else found

    def take(self, name: str) -> LoadedSource | None:
        """The source of this name, or None where it, or what it is made from, is at fault."""
        source = self.study.source(name)
        if source is None or self.problems(source):
            return None
        found = self.found[name]
        return found if isinstance(found, LoadedSource) else None

    def _examine(self, source: Source) -> LoadedSource | list[SourceProblem]:
        names = parents(source.model_dump())
        if not names:
            return examine_source(self.study, source, self.render_chat)
        taken = [self.take(name) for name in names]
        made_from = [one for one in taken if one is not None]
        if len(made_from) < len(taken):
            return []
        try:
            return self._mixed(source, made_from) if source.concat else self._varied(source, made_from[0])
        except _VariationError as fault:
            return [] if fault.problem is None else [fault.problem]

    def _mixed(self, source: Source, made_from: Sequence[LoadedSource]) -> LoadedSource:
        weights = list((source.concat or {}).values())
        generators = [_generator(self.study, one.name, "concat") for one in made_from]
        parts = [(one.examples, weight) for one, weight in zip(made_from, weights, strict=True)]
        rows = variations.concat(parts, generators)
        if not all(rows):
            raise _VariationError(
                SourceProblem("concat", "a source gets no row at these weights; change them")
            )
        examples = [one.examples[row] for one, kept in zip(made_from, rows, strict=True) for row in kept]
        before = [example for one in made_from for example in one.examples]
        order = [word for one in made_from for word in one.label_counts]
        training, lora = settings_of(self.study, source)
        variation = Variation(
            family=source.name,
            parents=tuple(one.name for one in made_from),
            kind="concat",
            changes={"concat": dict(source.concat or {})},
            dose=nan,
            parent_dose=nan,
            meaning="",
            examples_before=len(before),
            counts_before=counts_of(before, order),
            rows_changed=0,
        )
        return LoadedSource(
            name=source.name,
            examples=tuple(examples),
            adapter=None,
            training=training,
            lora=lora,
            tags=source.tags,
            digest=digest_of(examples),
            label_counts=counts_of(examples, order),
            available=len(before),
            variation=variation,
        )

    def _varied(self, source: Source, parent: LoadedSource) -> LoadedSource:
        changes = changes_of(source.model_dump())
        family = parent.draws_as
        rows, examples = list(range(len(parent.examples))), list(parent.examples)
        for kind in changes:
            generator = _generator(self.study, family, kind)
            rows, examples = _applied(source, kind, rows, examples, generator)
        training, lora = settings_of(self.study, source)
        training = training.model_copy(update=self._budget(source, changes))
        old = [parent.examples[row] for row in rows]
        changed = [
            place for place, (one, other) in enumerate(zip(old, examples, strict=True)) if one != other
        ]
        loaded = LoadedSource(
            name=source.name,
            examples=tuple(examples),
            adapter=None,
            training=training,
            lora=lora,
            tags=source.tags or parent.tags,
            digest=digest_of(examples),
            label_counts=counts_of(examples, parent.label_counts),
            available=len(parent.examples),
        )
        kind = kind_of(changes)
        dose, parent_dose, meaning = _doses(kind, changes, loaded, parent, self)
        variation = Variation(
            family=family,
            parents=(parent.name,),
            kind=kind,
            changes=changes,
            dose=dose,
            parent_dose=parent_dose,
            meaning=meaning,
            examples_before=len(parent.examples),
            counts_before=parent.label_counts,
            rows_changed=len(changed),
            before=old[changed[0]] if changed else None,
            after=examples[changed[0]] if changed else None,
        )
        return replace(loaded, variation=variation)

    def _budget(self, source: Source, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Training settings that the changes replace."""
        update: dict[str, Any] = {}
        if changes.get("loss_on") is not None:
            update["loss_on"] = changes["loss_on"] if changes["loss_on"] == "all" else "completion"
        for key, amount in (("match_tokens", self.tokens_of), ("match_steps", self.steps_of)):
            if key in changes:
                asked = changes[key]
                number = asked if isinstance(asked, int) else amount(self._other(asked), key)
                update |= dict.fromkeys(("num_train_epochs", "max_steps", "max_tokens"))
                update[key.replace("match", "max")] = max(1, round(number))
        return update

    def _other(self, name: str) -> LoadedSource:
        other = self.take(name)
        if other is None:
            raise _VariationError(None)
        return other

    def steps_of(self, other: LoadedSource, key: str) -> float:
        """Optimizer steps that training on a source takes; about, where its length is told in tokens."""
        training, per_epoch = other.training, _steps_per_epoch(other)
        if training.max_steps is not None:
            return training.max_steps
        if training.max_tokens is not None:
            return training.max_tokens * per_epoch / self._tokens_per_epoch(other, key)
        return ceil((training.num_train_epochs or 1.0) * per_epoch)

    def tokens_of(self, other: LoadedSource, key: str) -> float:
        """Tokens of data that training on a source sees, end tokens included, to about one batch."""
        training = other.training
        if training.max_tokens is not None:
            return training.max_tokens
        return self._tokens_per_epoch(other, key) * self.steps_of(other, key) / _steps_per_epoch(other)

    def _tokens_per_epoch(self, other: LoadedSource, key: str) -> float:
        if self.count_tokens is None:
            raise _VariationError(
                SourceProblem(key, "it needs the tokenizer of the base; none is at hand here")
            )
        lengths = self.count_tokens([example.text for example in other.examples])
        return float(sum(min(length + 1, other.training.max_length) for length in lengths))


class _VariationError(Exception):
    """A variation cannot be made; problem: why, or None where that is told elsewhere."""

    def __init__(self, problem: SourceProblem | None) -> None:
        super().__init__()
        self.problem = problem


def kind_of(changes: Mapping[str, Any]) -> str:
    """What a variation is about: its changes, without those that only hold amounts equal beside others."""
    leading = [key for key in changes if key not in CONTROLS] or list(changes)
    return "+".join(leading) or "training"


def _generator(study: Study, family: str, kind: str) -> np.random.Generator:
    """The same draw for every dose of a kind, so that small doses are parts of large ones."""
    return np.random.default_rng([study.sample_seed, int(digest([family, kind], 16), 16)])


def _applied(
    source: Source, kind: str, rows: list[int], examples: list[Example], generator: np.random.Generator
) -> tuple[list[int], list[Example]]:
    """Rows of the parent that are left, and what has become of them."""
    if kind in ("match_tokens", "match_steps"):
        return rows, examples
    try:
        kept = _selected(source, kind, examples, generator)
        if kept is not None:
            return [rows[place] for place in kept], [examples[place] for place in kept]
        return rows, _changed(source, kind, examples, generator)
    except variations.CannotVaryError as error:
        raise _VariationError(SourceProblem(kind, str(error))) from None
    except NoSuchPartError as error:
        advice = f"; {_LABELLED}" if "label" in str(error) else "; give the source a prompt and a completion"
        raise _VariationError(SourceProblem(kind, f"an example cannot be changed: {error}{advice}")) from None


def _selected(
    source: Source, kind: str, examples: list[Example], generator: np.random.Generator
) -> list[int] | None:
    """Places of the rows that stay, or None where this kind leaves out none."""
    if kind == "output_length_quantile":
        return variations.output_length_quantile(examples, source.output_length_quantile or (), generator)
    if kind == "balance":
        return variations.balance(examples, generator)
    if kind == "class_weights":
        return variations.class_weights(examples, source.class_weights or {}, generator)
    if kind == "subsample":
        return variations.subsample(examples, source.subsample or 1, generator)
    return None


def _changed(
    source: Source, kind: str, examples: list[Example], generator: np.random.Generator
) -> list[Example]:
    if kind == "mislabel" and source.mislabel is not None:
        return variations.mislabel(examples, source.mislabel, generator)
    if kind == "format_only":
        return variations.format_only(examples, generator)
    if kind == "random_text":
        return variations.random_text(examples, generator)
    if kind == "shuffle_words":
        return variations.shuffle_words(examples, source.shuffle_words or 0, generator)
    if kind == "truncate_output":
        return variations.truncate_output(examples, source.truncate_output or 1)
    if source.loss_on in ("label", "no_label"):
        return variations.loss_on_label(examples, source.loss_on == "label")
    return examples


def _steps_per_epoch(source: LoadedSource) -> int:
    return ceil(len(source.examples) / source.training.batch_size)


def _doses(
    kind: str, changes: Mapping[str, Any], loaded: LoadedSource, parent: LoadedSource, shelf: Shelf
) -> tuple[float, float, str]:
    """Dose of a variation and of its parent, and what it counts."""
    if kind == "mislabel":
        return float(changes[kind]["rate"]), 0.0, "share of wrong labels"
    if kind == "shuffle_words":
        return float(changes[kind]), 0.0, "share of words that changed places"
    if kind == "format_only":
        return 1.0, 0.0, "share of outputs that changed places"
    if kind == "random_text":
        return 1.0, 0.0, "share of inputs of random words"
    if kind in ("balance", "class_weights"):
        commonest = max(parent.label_counts, key=lambda word: parent.label_counts[word])
        return _share(loaded, commonest), _share(parent, commonest), f"share of the class {commonest!r}"
    if kind in ("truncate_output", "output_length_quantile"):
        return _mean_words(loaded), _mean_words(parent), "mean words of an output"
    if kind == "subsample":
        return float(len(loaded.examples)), float(len(parent.examples)), "rows"
    if kind == "match_steps":
        return shelf.steps_of(loaded, kind), shelf.steps_of(parent, kind), "optimizer steps"
    if kind == "match_tokens":
        return shelf.tokens_of(loaded, kind), shelf.tokens_of(parent, kind), "tokens of data"
    return nan, nan, ""


def _share(source: LoadedSource, word: str) -> float:
    return source.label_counts.get(word, 0) / len(source.examples)


def _mean_words(source: LoadedSource) -> float:
    return float(np.mean([variations.output_words(example) for example in source.examples]))
