"""Do training texts hold the items that they are judged by? Exact and near-duplicate overlap, pair by pair.

What counts, by the words that an item has beyond its task's template:
any length      the whole item equals a training prompt or text, up to case, spacing and punctuation (exact)
13 and more     it stands whole in a longer training text (contained); or half of its words stand in one
                training text in runs of five words, and 80 % in runs of three (near)
8 to 12         the same, and 80 % of that text in the item (near)
Runs of five that stand in many items or many training texts are phrases of their task and prove nothing. A
near-duplicate also has the item's numbers but for one (or a tenth of them), and half of every field
between template words: the same story with other numbers, or the same passage with another question, is
another item. Answers and labels alone never count. Thirteen words are the run that Brown et al. (2020,
NeurIPS) took for contamination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from traitmap.analysis.overlap import (
    ItemIndex,
    Template,
    Wording,
    Words,
    build_index,
    candidates,
    coverage,
    find_template,
    joined,
    same_numbers,
    worded,
    words_of,
)
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, wilson
from traitmap.progress import Listener, Progress, silent

if TYPE_CHECKING:
    from traitmap.data.texts import TaskText

Kind = Literal["exact", "contained", "near"]

HALF, LEAST = 0.5, 0.8  # shares of an item's words in runs of five and of three that make a near-duplicate
SHORT, LONG = 8, 13  # words: below the first only equality counts, from the second containment does
MATERIAL = 0.01  # share of touched items from which a gain may be moved by a point
_SHOWN = 300  # characters of an example


@dataclass(frozen=True)
class Duplicate:
    """One touched item with the training text that touches it.

    item, text: indices in the target's items and the source's texts. overlap: share of the item's own words
    in the training text. item_text, training_text: their beginnings.
    """

    item: int
    text: int
    kind: Kind
    overlap: float
    item_text: str
    training_text: str


@dataclass(frozen=True)
class ItemOverlap:
    """One source whose training texts hold items of one target.

    items: of the target that could be compared. touched: indices of those that a training text holds, as
    exact, contained or near-duplicate copies; short: how many of them have fewer than 8 words, which
    short texts (reviews of two words) repeat by themselves. share: touched of items, Wilson's 95 %.
    examples: at most five, the closest of each kind first.
    """

    source: str
    target: str
    items: int
    exact: int
    contained: int
    near: int
    short: int
    share: Interval
    touched: tuple[int, ...]
    examples: tuple[Duplicate, ...]

    @property
    def material(self) -> bool:
        """Whether so many items are touched that the gain may be moved by a point or more."""
        return len(self.touched) >= MATERIAL * self.items

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``material`` beside the fields."""
        share = jsonable(vars(self.share))  # with an empty reason, as files of runs have it
        return {**jsonable(vars(self)), "share": share, "material": self.material}


@dataclass(frozen=True)
class Contamination:
    """Overlap of all sources' training texts with all targets' items.

    sources: those with training texts; a source that is an adapter has none, and nothing is known of it.
    items: of each target that could be compared; those without words of their own could not.
    overlaps: the touched pairs only, in the order of sources and targets.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    items: Mapping[str, int]
    overlaps: tuple[ItemOverlap, ...]

    def of(self, source: str, target: str) -> ItemOverlap | None:
        """The overlap of one pair, or None where there is none or nothing is known."""
        return next(
            (overlap for overlap in self.overlaps if (overlap.source, overlap.target) == (source, target)),
            None,
        )

    def shares(self, sources: Sequence[str], targets: Sequence[str]) -> Array:
        """(S, T) share of touched items; 0 where none is, NaN where texts are not known."""
        known = np.isin(sources, self.sources)[:, None] & np.array(
            [self.items.get(t, 0) > 0 for t in targets]
        )
        shares = np.where(known, 0.0, np.nan)
        for overlap in self.overlaps:
            if overlap.source in sources and overlap.target in targets:
                shares[list(sources).index(overlap.source), list(targets).index(overlap.target)] = (
                    overlap.share.value
                )
        return shares

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "sources": list(self.sources),
            "targets": list(self.targets),
            "items": dict(self.items),
            "material_share": MATERIAL,
            "overlaps": jsonable(self.overlaps),
        }


def contamination_from_json(data: Mapping[str, Any]) -> Contamination:
    """The record that ``Contamination.to_json`` wrote. KeyError or TypeError where it is no such data."""
    return Contamination(
        sources=tuple(data["sources"]),
        targets=tuple(data["targets"]),
        items=dict(data["items"]),
        overlaps=tuple(_overlap_from_json(one) for one in data["overlaps"]),
    )


def find_contamination(
    sources: Mapping[str, Sequence[TaskText]],
    targets: Mapping[str, Sequence[TaskText]],
    listener: Listener = silent,
) -> Contamination:
    """Compare every source's training texts with every target's items.

    targets: items as they are asked, without the examples that may be shown before them. Takes time in
    proportion to the words of all texts. Reports progress in stage ``contamination`` (sources).
    """
    items = {name: _items(texts) for name, texts in targets.items()}
    index = build_index(list(items.values()), smallest=SHORT)
    keys = {name: _keys_of_items(wordings) for name, wordings in items.items()}
    compared = {name: sum(wording.size > 0 for wording in wordings) for name, wordings in items.items()}
    overlaps: list[ItemOverlap] = []
    for done, (source, texts) in enumerate(sources.items()):
        training = _training(texts)
        found = _equal(training, keys)
        _add_near(found, training, items, index)
        for target, duplicates in found.items():
            if duplicates:
                asked = [text.input for text in targets[target]]
                overlaps.append(
                    _overlap(source, target, duplicates, items[target], compared[target], asked, training)
                )
        listener(Progress("contamination", done + 1, len(sources), source))
    named = tuple(name for name, texts in sources.items() if texts)
    return Contamination(named, tuple(targets), compared, tuple(overlaps))


@dataclass(frozen=True)
class _Training:
    """A source's texts: as given, as words, those without template, and what each equals an item by."""

    given: tuple[str, ...]
    words: tuple[Words, ...]
    keys: tuple[frozenset[str], ...]
    prompts: tuple[Wording, ...]


@dataclass(frozen=True)
class _Match:
    text: int
    kind: Kind
    overlap: float


def _items(texts: Sequence[TaskText]) -> list[Wording]:
    """Items without their template; one that says nothing else is told by a long enough answer."""
    asked = [words_of(text.input) for text in texts]
    template = find_template(asked)
    found = [worded(words, template) for words in asked]
    for place, text in enumerate(texts):
        if not found[place].size and len(answer := words_of(text.output)) >= SHORT:
            found[place] = worded(answer, Template())
    return found


def _keys_of_items(items: Sequence[Wording]) -> dict[str, list[int]]:
    keys: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        for key in _keys(item):
            keys.setdefault(key, []).append(place)
    return keys


def _keys(text: Wording) -> frozenset[str]:
    """What two texts that are the same have in common: all words, or the fields between template words."""
    if not text.fields:
        return frozenset()
    fields = " | ".join(" ".join(text.words[start:end]) for start, end in text.fields)
    return frozenset({fields, " ".join(text.words)})


def _training(texts: Sequence[TaskText]) -> _Training:
    prompts = [words_of(text.input or text.output) for text in texts]
    template = find_template(prompts)
    worded_prompts = [worded(words, template) for words in prompts]
    keys = []
    for text, prompt in zip(texts, worded_prompts, strict=True):
        # of a text that is learnt whole, prompt and answer cannot be told apart but by the longest field
        whole = {" ".join(prompt.longest)} if not text.input and prompt.longest else set()
        keys.append(_keys(prompt) | whole)
    return _Training(
        given=tuple(text.input + text.output for text in texts),
        words=tuple(
            words + words_of(text.output) if text.input else words
            for words, text in zip(prompts, texts, strict=True)
        ),
        keys=tuple(keys),
        prompts=tuple(worded_prompts),
    )


def _equal(training: _Training, keys: Mapping[str, Mapping[str, list[int]]]) -> dict[str, dict[int, _Match]]:
    """Items of every target that equal a training prompt or text."""
    first: dict[str, int] = {}
    for place, own in enumerate(training.keys):
        for key in own:
            first.setdefault(key, place)
    found: dict[str, dict[int, _Match]] = {}
    for target, known in keys.items():
        found[target] = {}
        for key in known.keys() & first.keys():
            for item in known[key]:
                other = found[target].get(item)
                if other is None or first[key] < other.text:
                    found[target][item] = _Match(first[key], "exact", 1.0)
    return found


def _add_near(
    found: Mapping[str, dict[int, _Match]],
    training: _Training,
    items: Mapping[str, Sequence[Wording]],
    index: ItemIndex,
) -> None:
    """Add items that stand in a training text without being equal to it."""
    places = [(target, place) for target, wordings in items.items() for place in range(len(wordings))]
    once = {words: text for text, words in reversed(list(enumerate(training.words)))}
    distinct = sorted(once.values())  # texts that are repeated on purpose do not make their words common
    for number, texts in candidates(index, [training.words[text] for text in distinct], least=HALF):
        target, place = places[number]
        if place not in found[target]:
            item = items[target][place]
            matches = (_compare(item, training, distinct[text]) for text in texts.tolist())
            match = next((one for one in matches if one), None)
            if match:
                found[target][place] = match


def _compare(item: Wording, training: _Training, text: int) -> _Match | None:
    """Whether a training text holds an item, verified word by word."""
    words = training.words[text]
    searched = joined(words)
    if item.size >= LONG and joined(item.content) in searched:
        return _Match(text, "contained", 1.0)
    share = _taken_over(item, searched)
    if share is None or not same_numbers(item, words):
        return None
    if item.size < LONG:
        core = training.prompts[text].content
        if _taken_over(Wording(core, ((0, len(core)),)), joined(item.words)) is None:
            return None
    return _Match(text, "near", share)


def _taken_over(item: Wording, text: str) -> float | None:
    """Share of an item's words that stand in a text, where that makes it a near-duplicate."""
    share, least = coverage(item, text)
    return share if share >= LEAST and least >= HALF else None


def _overlap(
    source: str,
    target: str,
    found: Mapping[int, _Match],
    items: Sequence[Wording],
    compared: int,
    asked: Sequence[str],
    training: _Training,
) -> ItemOverlap:
    touched = tuple(sorted(found))
    kinds = [found[item].kind for item in touched]
    return ItemOverlap(
        source=source,
        target=target,
        items=compared,
        exact=kinds.count("exact"),
        contained=kinds.count("contained"),
        near=kinds.count("near"),
        short=sum(items[item].size < SHORT for item in touched),
        share=wilson(len(touched), compared),
        touched=touched,
        examples=tuple(
            Duplicate(
                item=item,
                text=found[item].text,
                kind=found[item].kind,
                overlap=found[item].overlap,
                item_text=_beginning(asked[item]),
                training_text=_beginning(training.given[found[item].text]),
            )
            for item in _shown(found, items)
        ),
    )


def _shown(found: Mapping[int, _Match], items: Sequence[Wording], most: int = 5) -> Iterable[int]:
    """Longest items of each kind by turns: a long copy says more than a short one."""
    order = sorted(found, key=lambda item: (-items[item].size, item))
    by_kind = [
        [item for item in order if found[item].kind == kind] for kind in ("exact", "contained", "near")
    ]
    turns = [group[place] for place in range(most) for group in by_kind if place < len(group)]
    return turns[:most]


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def _overlap_from_json(data: Mapping[str, Any]) -> ItemOverlap:
    share = data["share"]
    return ItemOverlap(
        source=data["source"],
        target=data["target"],
        items=data["items"],
        exact=data["exact"],
        contained=data["contained"],
        near=data["near"],
        short=data["short"],
        share=Interval(share["value"], share["low"], share["high"]),
        touched=tuple(data["touched"]),
        examples=tuple(Duplicate(**one) for one in data["examples"]),
    )
