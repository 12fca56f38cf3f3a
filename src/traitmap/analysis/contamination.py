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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from traitmap.analysis.overlap import (
    NO_TEMPLATE,
    ItemIndex,
    Wording,
    Words,
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
Match = tuple[int, Kind, float]  # training text, how it holds an item, share of the item's words in it

HALF, LEAST = 0.5, 0.8  # shares of an item's words in runs of five and of three that make a near-duplicate
SHORT, LONG = 8, 13  # words: below the first only equality counts, from the second containment does
MATERIAL = 0.01  # share of touched items from which a gain may be moved by a point
_EXAMPLES, _SHOWN = 5, 300  # examples of a pair, characters of each text


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

    sources: those whose training texts are known, their own or those of all that they are merged from; a
    source that is an adapter has none, and nothing is known of it.
    items: of each target that could be compared; those without words of their own could not.
    overlaps: the touched pairs only, in the order of sources and targets. A merge whose parents' texts are
    known in part is not among the sources, and has at least these.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    items: Mapping[str, int]
    overlaps: tuple[ItemOverlap, ...]

    def of(self, source: str, target: str) -> ItemOverlap | None:
        """The overlap of one pair, or None where there is none or nothing is known.

        source, target: names. Nothing is known of a source without training texts.
        """
        pair = (source, target)
        return next((overlap for overlap in self.overlaps if (overlap.source, overlap.target) == pair), None)

    def shares(self, sources: Sequence[str], targets: Sequence[str]) -> Array:
        """(S, T) share of touched items, from 0 to 1; 0 where none is, NaN where texts are not known.

        sources, targets: the names of rows and columns, known or not.
        """
        with_items = np.array([self.items.get(target, 0) > 0 for target in targets])
        shares = np.where(np.isin(sources, self.sources)[:, None] & with_items, 0.0, np.nan)
        rows, columns = list(sources), list(targets)
        for overlap in self.overlaps:
            if overlap.source in rows and overlap.target in columns:
                place = rows.index(overlap.source), columns.index(overlap.target)
                shares[place] = overlap.share.value
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
    overlaps = []
    for pair in data["overlaps"]:
        values = {field.name: pair[field.name] for field in fields(ItemOverlap)}
        share = Interval(*(pair["share"][name] for name in ("value", "low", "high")))
        examples = tuple(Duplicate(**example) for example in pair["examples"])
        overlaps.append(
            ItemOverlap(**values | {"share": share, "touched": tuple(pair["touched"]), "examples": examples})
        )
    return Contamination(
        sources=tuple(data["sources"]),
        targets=tuple(data["targets"]),
        items=dict(data["items"]),
        overlaps=tuple(overlaps),
    )


def find_contamination(
    sources: Mapping[str, Sequence[TaskText]],
    targets: Mapping[str, Sequence[TaskText]],
    listener: Listener = silent,
    *,
    parents: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Contamination:
    """Compare every source's training texts with every target's items.

    sources: training texts by name; none where a source is an adapter, of which nothing is known. targets:
    items as they are asked, without the examples that may be shown before them. parents: rows without texts
    of their own, with the sources (or further such rows) whose texts they were made of: merges and
    checkpoints. They hold what these hold. Takes time in proportion to the words of all texts. Reports
    progress in stage ``contamination`` (sources).
    """
    items = {name: item_wordings(texts) for name, texts in targets.items()}
    index = ItemIndex(list(items.values()), smallest=SHORT)
    item_keys: dict[str, dict[str, list[int]]] = {name: {} for name in items}
    for name, wordings in items.items():
        for place, item in enumerate(wordings):
            for key in _keys(item):
                item_keys[name].setdefault(key, []).append(place)
    compared = {name: sum(wording.size > 0 for wording in wordings) for name, wordings in items.items()}
    found: dict[str, dict[str, dict[int, Match]]] = {}
    for done, (source, texts) in enumerate(sources.items()):
        words, prompts, keys = _training(texts)
        found[source] = _equal(keys, item_keys)
        _add_near(found[source], words, prompts, items, index)
        listener(Progress("contamination", done + 1, len(sources), source))
    overlaps: list[ItemOverlap] = []
    with_texts: list[str] = []
    for name in dict.fromkeys((*sources, *parents)):
        made_of = _texts_behind(name, parents)
        if all(sources.get(source) for source in made_of):
            with_texts.append(name)
        known = [source for source in made_of if source in sources]
        training = [text for source in known for text in sources[source]]
        starts = np.cumsum([0, *(len(sources[source]) for source in known)]).tolist()
        for target in items:
            parts = zip((found[source][target] for source in known), starts, strict=False)
            if matched := _together(list(parts)):
                overlaps.append(
                    _overlap(
                        name, target, matched, items[target], compared[target], targets[target], training
                    )
                )
    return Contamination(tuple(with_texts), tuple(targets), compared, tuple(overlaps))


def _texts_behind(name: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """The sources whose texts a row was made of, each once; of a row that has texts, itself."""
    if name not in parents:
        return [name]
    return list(dict.fromkeys(s for parent in parents[name] for s in _texts_behind(parent, parents)))


def _together(parts: Sequence[tuple[Mapping[int, Match], int]]) -> dict[int, Match]:
    """Items that any of several sources hold, the closest copy of each. parts: with the place at which the
    source's texts begin among those of all."""
    order = get_args(Kind)
    matched: dict[int, Match] = {}
    for matches, start in parts:
        for item, (text, kind, share) in matches.items():
            if item not in matched or order.index(kind) < order.index(matched[item][1]):
                matched[item] = (start + text, kind, share)
    return matched


def item_wordings(texts: Sequence[TaskText]) -> list[Wording]:
    """Items without their template; one that says nothing else is known by a long enough answer."""
    inputs = [words_of(text.input) for text in texts]
    template = find_template(inputs)
    wordings = [worded(words, template) for words in inputs]
    for place, text in enumerate(texts):
        if not wordings[place].size and len(answer := words_of(text.output)) >= SHORT:
            wordings[place] = worded(answer, NO_TEMPLATE)
    return wordings


def _keys(text: Wording) -> frozenset[str]:
    """What two texts that are the same have in common: all words, or the fields between template words."""
    if not text.fields:
        return frozenset()
    joined_fields = " | ".join(" ".join(text.words[start:end]) for start, end in text.fields)
    return frozenset({joined_fields, " ".join(text.words)})


def _training(texts: Sequence[TaskText]) -> tuple[list[Words], list[Wording], list[frozenset[str]]]:
    """Of each training text its words, its prompt without template, and what it equals an item by."""
    prompt_words = [words_of(text.input or text.output) for text in texts]
    template = find_template(prompt_words)
    prompts = [worded(words, template) for words in prompt_words]
    keys, whole_words = [], []
    for text, words, prompt in zip(texts, prompt_words, prompts, strict=True):
        # of a text that is learnt whole, prompt and answer cannot be told apart but by the longest field
        whole = {" ".join(prompt.longest)} if not text.input and prompt.longest else set()
        keys.append(_keys(prompt) | whole)
        whole_words.append(words + words_of(text.output) if text.input else words)
    return whole_words, prompts, keys


def _equal(
    training_keys: Sequence[frozenset[str]], item_keys: Mapping[str, Mapping[str, list[int]]]
) -> dict[str, dict[int, Match]]:
    """Items of every target that equal a training prompt or text; of several texts the first."""
    first: dict[str, int] = {}
    for text, keys in enumerate(training_keys):
        for key in keys:
            first.setdefault(key, text)
    matches: dict[str, dict[int, Match]] = {}
    for target, places in item_keys.items():
        matches[target] = {}
        for key in places.keys() & first.keys():
            for item in places[key]:
                if item not in matches[target] or first[key] < matches[target][item][0]:
                    matches[target][item] = (first[key], "exact", 1.0)
    return matches


def item_holds(item: Wording, words: Words, prompt: Wording) -> Kind | None:
    """How another text holds an item (``contained`` or ``near``), or None where it does not.

    words: of the other text; prompt: of it without its task's template.
    """
    return _compare(item, words, prompt)[0]


def _add_near(
    matches: Mapping[str, dict[int, Match]],
    words: Sequence[Words],
    prompts: Sequence[Wording],
    items: Mapping[str, Sequence[Wording]],
    index: ItemIndex,
) -> None:
    """Add items that stand in a training text without being equal to it."""
    places = [(target, place) for target, wordings in items.items() for place in range(len(wordings))]
    once = {text_words: text for text, text_words in reversed(list(enumerate(words)))}
    distinct = sorted(once.values())  # texts that are repeated on purpose do not make their words common
    for number, likely in index.candidates([words[text] for text in distinct], least=HALF):
        target, place = places[number]
        if place in matches[target]:
            continue
        item = items[target][place]
        for text in (distinct[candidate] for candidate in likely.tolist()):
            kind, share = _compare(item, words[text], prompts[text])
            if kind:
                matches[target][place] = (text, kind, share)
                break


def _compare(item: Wording, words: Words, prompt: Wording) -> tuple[Kind | None, float]:
    """How a training text holds an item, verified word by word, and the share of the item's words in it."""
    searched = joined(words)
    if item.size >= LONG and joined(item.content) in searched:
        return "contained", 1.0
    share = _taken_over(item, searched)
    if share is None or not same_numbers(item, words):
        return None, 0.0
    if item.size < LONG:
        core = prompt.content
        if _taken_over(Wording(core, ((0, len(core)),)), joined(item.words)) is None:
            return None, 0.0
    return "near", share


def _taken_over(item: Wording, text: str) -> float | None:
    """Share of an item's words that stand in a text, where that makes it a near-duplicate."""
    share, least = coverage(item, text)
    return share if share >= LEAST and least >= HALF else None


def _overlap(
    source: str,
    target: str,
    matches: Mapping[int, Match],
    items: Sequence[Wording],
    compared: int,
    item_texts: Sequence[TaskText],
    training_texts: Sequence[TaskText],
) -> ItemOverlap:
    """The record of a touched pair; examples by turns of each kind, long copies first, which say the most."""
    touched = tuple(sorted(matches))
    order = sorted(matches, key=lambda item: (-items[item].size, item))
    by_kind = {kind: [item for item in order if matches[item][1] == kind] for kind in get_args(Kind)}
    turns = [group[turn] for turn in range(_EXAMPLES) for group in by_kind.values() if turn < len(group)]
    examples = []
    for item in turns[:_EXAMPLES]:
        text, kind, share = matches[item]
        training_text = training_texts[text].input + training_texts[text].output
        beginnings = (_beginning(item_texts[item].input), _beginning(training_text))
        examples.append(Duplicate(item, text, kind, share, *beginnings))
    return ItemOverlap(
        source=source,
        target=target,
        items=compared,
        exact=len(by_kind["exact"]),
        contained=len(by_kind["contained"]),
        near=len(by_kind["near"]),
        short=sum(items[item].size < SHORT for item in touched),
        share=wilson(len(touched), compared),
        touched=touched,
        examples=tuple(examples),
    )


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
