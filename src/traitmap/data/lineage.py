"""All sources of a study, those included that are made from other ones.

`SourceLoader` loads each source once, when it is first asked for, and its parents before it: the order in the
study file changes nothing. What can be changed stands in `data.variations.CATALOGUE`; here it is applied, and
what came of it is written down (`data.sources.Lineage`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, nan
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.data.adapters import lora_ranks
from traitmap.data.conversation import RenderChat
from traitmap.data.records import Example
from traitmap.data.rows import SourceError, SourceProblem
from traitmap.data.sources import Lineage, LoadedSource, Merge, count_labels, examine_source, loaded_source
from traitmap.data.variations import CATALOGUE, CannotVaryError, NoSuchPartError, concat
from traitmap.errors import DataError
from traitmap.study.derived import (
    CHECKPOINT,
    CONTROLS,
    MERGE_METHODS,
    USUAL_DENSITY,
    USUAL_METHOD,
    MergeMethod,
    changes_of,
    parents,
    source_of_row,
)
from traitmap.study.paths import digest
from traitmap.study.settings import Source, Study

CountTokens = Callable[[Sequence[str]], Sequence[float]]


def load_sources(
    study: Study, render_chat: RenderChat | None = None, count_tokens: CountTokens | None = None
) -> tuple[LoadedSource, ...]:
    """All sources of a study that have an adapter, in its order, checkpoints before what they end in.

    render_chat: ``Engine.render_chat``, needed where rows are conversations. count_tokens:
    ``Engine.token_counts``, needed where tokens are matched.
    One DataError holds the problems of all sources: what, which row and column, what to do.
    """
    loader = SourceLoader(study, render_chat, count_tokens)
    problems = [(source.name, problem) for source in study.sources for problem in loader.problems(source)]
    sources = [
        row
        for source in study.sources
        if source.train and (loaded := loader.take(source.name))
        for row in (*loader.checkpoints(source, loaded), loaded)
    ]
    problems += repeated(sources)
    if problems:
        raise DataError(
            "\n".join(f"source {name!r}, {problem.key}: {problem.message}" for name, problem in problems)
        )
    return tuple(sources)


def repeated(sources: Iterable[LoadedSource]) -> Iterator[tuple[str, SourceProblem]]:
    """Name and problem of each source that would give the very adapter that another source gives.

    Those with data of their own draw apart, unless ``draws_as`` says otherwise.
    """
    first: dict[str, LoadedSource] = {}
    of_data = [source for source in sources if source.trained and source.step is None]
    for source in sorted(of_data, key=lambda source: source.variation is not None):
        settings = [source.training.model_dump(mode="json"), source.lora.model_dump(mode="json")]
        twin = first.setdefault(digest([source.draws_as, source.digest, *settings]), source)
        if twin is not source and (source.variation is not None or source.drawn_as or twin.drawn_as):
            unchanged = source.variation is not None and twin.name in source.variation.parents
            same = "it changes nothing in" if unchanged else "it gives the same as"
            key = next(iter(source.variation.changes), "from") if source.variation else "draws_as"
            message = f"{same} {twin.name!r}; change more, or remove this source"
            yield source.name, SourceProblem(key, message)


class _FaultyParentError(Exception):
    """A source cannot be made since another one is at fault, where that is said already."""


@dataclass
class SourceLoader:
    """Sources of a study, each loaded once, when it is first asked for.

    results: by name, the source or what is wrong with it; no problem where only its parent is at fault.
    """

    study: Study
    render_chat: RenderChat | None = None
    count_tokens: CountTokens | None = None
    results: dict[str, LoadedSource | list[SourceProblem]] = field(default_factory=dict)

    def problems(self, source: Source) -> list[SourceProblem]:
        """What is wrong with a source itself; nothing where what it is made from is at fault already.

        Loads the source, and what it is made from, if that has not been done.
        """
        if source.name not in self.results:
            self.results[source.name] = []  # a source in a circle finds itself here
            self.results[source.name] = self._examined(source)
        result = self.results[source.name]
        return [] if isinstance(result, LoadedSource) else result

    def take(self, name: str) -> LoadedSource | None:
        """The source of this name, or None where it, or what it is made from, is at fault."""
        source = self.study.source(name)
        if source is None or self.problems(source):
            return None
        result = self.results[name]
        return result if isinstance(result, LoadedSource) else None

    def checkpoints(self, source: Source, loaded: LoadedSource) -> list[LoadedSource]:
        """A row for each step at which a source's adapter is kept; its last step is the source itself."""
        total = self._steps_of(loaded) if source.checkpoints else nan
        return [self._checkpoint(loaded, step, total) for step in source.checkpoints or () if step != total]

    def _checkpoint(self, source: LoadedSource, step: int, total: float) -> LoadedSource:
        lineage = Lineage(
            family=source.variation.family if source.variation else source.name,
            parents=(source.name,),
            kind="checkpoint",
            changes={"checkpoint": step},
            dose=float(step),
            parent_dose=float(total),
            meaning="optimizer steps",
            examples_before=len(source.examples),
            counts_before=source.label_counts,
            rows_changed=0,
        )
        return replace(source, name=f"{source.name}{CHECKPOINT}{step}", variation=lineage, step=step)

    def _examined(self, source: Source) -> LoadedSource | list[SourceProblem]:
        result = self._examine(source)
        if source.checkpoints and isinstance(result, LoadedSource):
            try:
                total = self._steps_of(result)
            except SourceError as error:
                return [error.problem]
            late = [step for step in source.checkpoints if step > total]
            if late:
                message = f"the training ends at step {total:,.0f}, before {late[0]:,}; "
                return [SourceProblem("checkpoints", message + "give earlier steps, or train for longer")]
        return result

    def _examine(self, source: Source) -> LoadedSource | list[SourceProblem]:
        if source.merge:
            return self._merged(source, source.merge)
        names = parents(source.model_dump())
        if not names:
            return examine_source(self.study, source, self.render_chat)
        sources = [loaded for name in names if (loaded := self.take(name))]
        if len(sources) < len(names):
            return []
        try:
            return self._mixed(source, sources) if source.concat else self._varied(source, sources[0])
        except _FaultyParentError:
            return []
        except SourceError as error:
            return [error.problem]

    def _mixed(self, source: Source, sources: Sequence[LoadedSource]) -> LoadedSource:
        weights = source.concat or {}
        parts = [(part.examples, weight) for part, weight in zip(sources, weights.values(), strict=True)]
        rows = concat(parts, [self._generator(self._draw_name(part.name), "concat") for part in sources])
        if not all(rows):
            raise SourceError("concat", "a source gets no row at these weights; change them")
        examples = [part.examples[row] for part, places in zip(sources, rows, strict=True) for row in places]
        words = [word for part in sources for word in part.label_counts]
        before = [example for part in sources for example in part.examples]
        lineage = Lineage(
            family=source.name,
            parents=tuple(part.name for part in sources),
            kind="concat",
            changes={"concat": dict(weights)},
            dose=nan,
            parent_dose=nan,
            meaning="",
            examples_before=len(before),
            counts_before=count_labels(before, words),
            rows_changed=0,
        )
        return replace(loaded_source(self.study, source, examples, len(before), words), variation=lineage)

    def _merged(self, source: Source, names: Sequence[str]) -> LoadedSource | list[SourceProblem]:
        loaded = [self.take(source_of_row(name)[0]) for name in names]
        sources = [parent for parent in loaded if parent is not None]
        if len(sources) < len(names):
            return []
        method = MERGE_METHODS[source.method or USUAL_METHOD]
        if problem := _unlike_ranks(names, sources, method):
            return [problem]
        merge = Merge(
            parents=self._rows(names, sources),
            weights=source.weights or (1 / len(names),) * len(names),
            method=method.key,
            density=(source.density or USUAL_DENSITY) if method.prunes else None,
            majority_sign_method=(source.majority_sign_method or "total") if method.elects else None,
            seeded=method.draws or any(parent.seeded for parent in sources),
            equal=source.weights is None,
        )
        how = {key: value for key, value in merge.settings.items() if key != "weights" and value is not None}
        lineage = Lineage(
            family=source.name,
            parents=merge.parents,
            kind="merge",
            changes={"merge": dict(zip(merge.parents, merge.weights, strict=True)), **how},
            dose=nan,
            parent_dose=nan,
            meaning="",
            examples_before=0,
            counts_before={},
            rows_changed=0,
        )
        content = digest([merge.settings, [[parent.digest, parent.draws_as] for parent in sources]])
        made = loaded_source(self.study, source, (), 0, (), content=content)
        return replace(made, merge=merge, variation=lineage)

    def _rows(self, names: Sequence[str], sources: Sequence[LoadedSource]) -> tuple[str, ...]:
        """Rows that names stand for: a checkpoint at the last step of a training is the source itself."""
        rows = []
        for name, source in zip(names, sources, strict=True):
            step = source_of_row(name)[1]
            rows.append(source.name if step is None or step == self._steps_of(source) else name)
        return tuple(rows)

    def _varied(self, source: Source, parent: LoadedSource) -> LoadedSource:
        changes = changes_of(source.model_dump())
        family = parent.variation.family if parent.variation else parent.name
        rows, examples = list(range(len(parent.examples))), list(parent.examples)
        for key in changes:
            if key in CATALOGUE:
                rows, examples = self._applied(key, getattr(source, key), rows, examples, parent.draws_as)
        loaded = loaded_source(self.study, source, examples, len(parent.examples), parent.label_counts)
        loaded = replace(
            loaded,
            training=loaded.training.model_copy(update=self._training(source, changes)),
            tags=source.tags or parent.tags,
            drawn_as=parent.drawn_as,
        )
        before = [parent.examples[row] for row in rows]
        changed = [
            place for place, pair in enumerate(zip(before, examples, strict=True)) if pair[0] != pair[1]
        ]
        # what a variation is about: its changes, without those that only hold amounts equal beside others
        kind = "+".join([key for key in changes if key not in CONTROLS] or changes) or "training"
        dose, parent_dose, meaning = self._doses(kind, source, loaded, parent)
        lineage = Lineage(
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
            before=before[changed[0]] if changed else None,
            after=examples[changed[0]] if changed else None,
        )
        return replace(loaded, variation=lineage)

    def _applied(
        self, key: str, setting: Any, rows: list[int], examples: list[Example], family: str
    ) -> tuple[list[int], list[Example]]:
        """Rows of the parent that are left after one change, and what has become of them."""
        variation, generator = CATALOGUE[key], self._generator(family, key)
        try:
            if variation.select is not None:
                places = variation.select(examples, setting, generator)
                return [rows[place] for place in places], [examples[place] for place in places]
            return rows, variation.change(examples, setting, generator) if variation.change else examples
        except CannotVaryError as error:
            raise SourceError(key, str(error)) from None
        except NoSuchPartError as error:
            if "label" in str(error):
                advice = "write the label once in the completion, such as completion: ' {{ label }}'"
            else:
                advice = "give the source a prompt and a completion"
            raise SourceError(key, f"an example cannot be changed: {error}; {advice}") from None

    def _draw_name(self, name: str) -> str:
        source = self.study.source(name)
        return (source.draws_as if source else None) or name

    def _generator(self, family: str, kind: str) -> np.random.Generator:
        """The same draw for every dose of a kind, so that small doses are parts of large ones."""
        return np.random.default_rng([self.study.sample_seed, int(digest([family, kind], 16), 16)])

    def _doses(
        self, kind: str, source: Source, loaded: LoadedSource, parent: LoadedSource
    ) -> tuple[float, float, str]:
        """Dose of a variation and of its parent, and what it counts; NaN where no one number says it."""
        if kind == "match_steps":
            return self._steps_of(loaded), self._steps_of(parent), "optimizer steps"
        if kind == "match_tokens":
            return self._tokens_of(loaded), self._tokens_of(parent), "tokens of data"
        variation = CATALOGUE.get(kind)
        if variation is None or variation.dose is None:
            return nan, nan, ""
        return variation.dose(getattr(source, kind), loaded, parent)

    def _training(self, source: Source, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Training settings that the changes replace."""
        update: dict[str, Any] = {}
        if source.loss_on is not None:
            update["loss_on"] = "all" if source.loss_on == "all" else "completion"
        for key, amount in (("match_tokens", self._tokens_of), ("match_steps", self._steps_of)):
            if key in changes:
                number = changes[key]
                if not isinstance(number, int):
                    model = self.take(number)
                    if model is None:
                        raise _FaultyParentError
                    number = amount(model)
                update |= dict.fromkeys(("num_train_epochs", "max_steps", "max_tokens"))
                update[key.replace("match", "max")] = max(1, round(number))
        return update

    def _steps_of(self, source: LoadedSource) -> float:
        """Optimizer steps that training on a source takes; about, where its length is given in tokens."""
        training, per_epoch = source.training, _steps_per_epoch(source)
        if training.max_steps is not None:
            return training.max_steps
        if training.max_tokens is not None:
            return training.max_tokens * per_epoch / self._tokens_per_epoch(source, "match_steps")
        return ceil((training.num_train_epochs or 1.0) * per_epoch)

    def _tokens_of(self, source: LoadedSource) -> float:
        """Tokens of data that training on a source sees, end tokens included, to about one batch."""
        if source.training.max_tokens is not None:
            return source.training.max_tokens
        per_epoch = self._tokens_per_epoch(source, "match_tokens")
        return per_epoch * self._steps_of(source) / _steps_per_epoch(source)

    def _tokens_per_epoch(self, source: LoadedSource, key: str) -> float:
        if self.count_tokens is None:
            raise SourceError(key, "it needs the tokenizer of the base; none is at hand here")
        lengths = self.count_tokens([example.text for example in source.examples])
        return float(sum(min(length + 1, source.training.max_length) for length in lengths))


def _unlike_ranks(
    names: Sequence[str], sources: Sequence[LoadedSource], method: MergeMethod
) -> SourceProblem | None:
    """Why PEFT would not merge these adapters: it wants plain LoRA, and with some methods one rank."""
    ranks = dict[str, tuple[int, ...]]()
    for name, source in zip(names, sources, strict=True):
        if isinstance(source.adapter, Path):
            found = lora_ranks(source.adapter)
            if isinstance(found, str):
                return SourceProblem("merge", f"{name!r}: {found}")
            ranks[name] = found
        elif source.trained:
            ranks[name] = (source.lora.r,)
    several = {rank for of_source in ranks.values() for rank in of_source}
    if method.same_rank and len(several) > 1:
        told = ", ".join(f"{'/'.join(map(str, of_source))} ({name})" for name, of_source in ranks.items())
        legal = ", ".join(other.key for other in MERGE_METHODS.values() if not other.same_rank)
        message = f"method {method.key} takes adapters of one rank, these have {told}; give one of {legal}"
        return SourceProblem("method", message)
    return None


def _steps_per_epoch(source: LoadedSource) -> int:
    return ceil(len(source.examples) / source.training.batch_size)
