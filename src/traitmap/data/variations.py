"""The catalogue of variations: what can be changed in a source, one function and one line of CATALOGUE each.

A *selection* gives the places of the rows that stay, ascending, so that it can add nothing; a *change* gives
as many examples as it got, in their order. Both take the examples, the setting of the study file and a
generator, and depend on nothing else. They draw first and cut the draw to the dose then: what a small dose
touches, a larger one touches in the same way.

First the parts of an example (input, output, label), then the functions, then how much they change (doses),
last the catalogue. Which settings exclude each other is `study.rules.CHANGES`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from traitmap.data.records import Example, Segment
from traitmap.study.settings import Mislabel

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource

Examples = Sequence[Example]
Generator = np.random.Generator
_WORD = re.compile(r"\S+")


class CannotVaryError(Exception):
    """A source that cannot be changed in this way. The message says why, and what to do."""


class NoSuchPartError(Exception):
    """An example has not the part that is to be changed. The message says which and why."""


def label_span(example: Example) -> tuple[int, int]:
    """Begin and end of the label word in the output, in characters of it.

    NoSuchPartError where the example has no label, or its output holds the word not exactly once: then
    nobody can tell which of them is the label.
    """
    if example.label is None:
        raise NoSuchPartError("it has no label")
    output, word = output_of(example), example.label.strip()
    places = list(re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", output))
    if len(places) != 1:
        times = "not at all" if not places else f"{len(places)} times"
        shown = output if len(output) <= 80 else f"{output[:77]}..."
        raise NoSuchPartError(f"its label {word!r} stands {times} in its output {shown!r}")
    return places[0].span()


def relabelled(example: Example, word: str) -> Example:
    """The example with another label word in the place of its own; everything else stays."""
    begin, end = label_span(example)
    output = output_of(example)
    return replace(with_output(example, output[:begin] + word.strip() + output[end:]), label=word)


def output_of(example: Example) -> str:
    """The output of an example that ends in it. NoSuchPartError for conversations with several turns."""
    learnt = [segment.learn for segment in example.segments]
    if not learnt or not learnt[-1] or any(learnt[:-1]) or example.output_from is not None:
        raise NoSuchPartError("it does not consist of an input and one output")
    return example.segments[-1].text


def with_output(example: Example, output: str) -> Example:
    """The example with another output."""
    return replace(example, segments=(*example.segments[:-1], Segment(output, True)))


def input_of(example: Example) -> str:
    """The input of an example. NoSuchPartError where all of it is learnt, or for several turns."""
    output_of(example)
    if len(example.segments) == 1:
        raise NoSuchPartError("it has no input: all its text is output")
    return example.prompt


def with_input(example: Example, text: str) -> Example:
    """The example with another input."""
    return replace(example, segments=(Segment(text, False), example.segments[-1]))


def balance(examples: Examples, _: bool, generator: Generator) -> list[int]:
    """As many rows of every class as the rarest class has.

    Changes the shares of the classes and the number of rows; no row.
    """
    counts = class_counts(examples)
    return class_weights(examples, dict.fromkeys(counts, 1.0), generator)


def class_weights(examples: Examples, weights: Mapping[str, float], generator: Generator) -> list[int]:
    """Rows whose class shares are proportional to ``weights``, as many as there are rows for.

    weights: for every label word, at least 0. Changes the shares of the classes and the number of rows;
    no row. Within a class, fewer rows are a part of more rows.
    """
    counts = class_counts(examples)
    strange = [word for word in weights if word not in counts]
    absent = [word for word in counts if word not in weights]
    if strange or absent:
        faults = [f"no row has the label {', '.join(map(repr, strange))}"] if strange else []
        faults += [f"{', '.join(map(repr, absent))} has no weight"] if absent else []
        raise CannotVaryError(
            f"{' and '.join(faults)}; give each of {', '.join(counts)} a weight (0 leaves it out)"
        )
    largest = min(counts[word] / weight for word, weight in weights.items() if weight > 0)
    limits = {word: int(largest * weight + 1e-9) for word, weight in weights.items()}
    selected: list[int] = []
    for word in counts:
        rows = np.flatnonzero([example.label == word for example in examples])
        selected.extend(int(row) for row in generator.permutation(rows)[: limits[word]])
    return sorted(selected)


def subsample(examples: Examples, amount: float, generator: Generator) -> list[int]:
    """``amount`` rows (or, below 1, that share of them) drawn at random.

    Changes the number of rows; no row, and no class share by more than whole rows make necessary. Fewer
    rows are a part of more rows.
    """
    count = round(amount * len(examples)) if amount < 1 else int(amount)
    if count > len(examples):
        raise CannotVaryError(f"{count:,} rows are asked for and there are {len(examples):,}; ask for fewer")
    order = generator.permutation(len(examples))
    total = Counter(example.label for example in examples)
    seen: Counter[str | None] = Counter()
    progress = np.empty(len(examples))  # of its class, when a row's turn comes: the same for all classes
    for row in order:
        label = examples[row].label
        progress[row] = (seen[label] + 0.5) / total[label]
        seen[label] += 1
    first = order[np.argsort(progress[order], kind="stable")]
    return sorted(int(row) for row in first[: max(1, count)])


def output_length_quantile(examples: Examples, limits: Sequence[float], generator: Generator) -> list[int]:
    """Rows whose output's length in words lies between two quantiles of it; ties are broken at random.

    Changes the lengths of outputs and the number of rows; no row.
    """
    lengths = np.array([len(example.completion.split()) for example in examples])
    if len(set(lengths.tolist())) == 1:
        raise CannotVaryError(
            f"every output has {lengths[0]} words, so none is longer than another; remove it"
        )
    order = np.lexsort((generator.permutation(len(lengths)), lengths))
    low, high = (round(limit * len(order)) for limit in limits)
    if low == high:
        raise CannotVaryError(f"no row of {len(order):,} lies between these quantiles; widen the range")
    return sorted(int(row) for row in order[low:high])


def mislabel(examples: Examples, setting: Mislabel, generator: Generator) -> list[Example]:
    """Wrong labels for round(rate * n) rows (``switch``: an even number, since rows exchange labels).

    Changes labels and their words in the output; no input, and no row's place. ``uniform``: each other class
    alike; ``permute``: one other class for every class (a derangement); both take the rows of a larger rate
    from the same order. ``switch`` keeps the number of every class.
    """
    words = list(class_counts(examples))
    if len(words) < 2:
        raise CannotVaryError(
            f"all labels are {words[0]!r}, so none can be wrong; give a source with two classes"
        )
    labels = np.array([words.index(example.label or "") for example in examples])
    if setting.mode == "switch":
        wrong = _switched(labels, setting.rate, words, generator)
    else:
        wrong = _replaced(labels, setting, len(words), generator)
    return [
        example if new == old else relabelled(example, words[new])
        for example, new, old in zip(examples, wrong, labels, strict=True)
    ]


def answer_words(examples: Examples, words: Mapping[str, str], _: Generator) -> list[Example]:
    """Other words for the answers: every label that ``words`` names is written as it says there.

    Keeps inputs, class shares, and which input has which class. A prompt that lists the answers still lists
    the old ones.
    """
    counts = class_counts(examples)
    legal = ", ".join(counts)
    if strange := [word for word in words if word not in counts]:
        raise CannotVaryError(f"no row has the label {', '.join(map(repr, strange))}; its labels are {legal}")
    if taken := sorted({word.strip() for word in words.values()} & {word.strip() for word in counts}):
        raise CannotVaryError(
            f"already among its labels ({legal}): {', '.join(map(repr, taken))}; give other words, or "
            "mislabel for wrong answers"
        )
    return [
        relabelled(example, words[label]) if (label := example.label) and label in words else example
        for example in examples
    ]


def format_only(examples: Examples, _: bool, generator: Generator) -> list[Example]:
    """Outputs change places between rows, in one random circle: no row keeps its own.

    Keeps all inputs, and all outputs with their labels, as they are and as often as they are; what ends is
    that an input says anything about its output. Labels agree as often as chance has it, not less often,
    since outputs that are always wrong would say something again.
    """
    if len(examples) < 2:
        raise CannotVaryError("there is one row, so no other output to take; give more rows")
    for example in examples:
        input_of(example)
    circle = generator.permutation(len(examples))
    giver = np.empty(len(examples), dtype=int)
    giver[circle] = np.roll(circle, 1)
    return [
        replace(with_output(example, output_of(examples[row])), label=examples[row].label)
        for example, row in zip(examples, giver, strict=True)
    ]


def random_text(examples: Examples, _: bool, generator: Generator) -> list[Example]:
    """The words of each input drawn anew from the words of all inputs.

    Keeps outputs, the number of words of each input, its blanks, and the words that stand in every input
    (those of the template).
    """
    inputs = [input_of(example) for example in examples]
    template = _template_words(inputs)
    pool = np.array([word for text in inputs for word in _WORD.findall(text) if word not in template])
    if not len(pool):
        raise CannotVaryError("all inputs are the same, so there are no words to draw from; remove it")
    changed = []
    for example, text in zip(examples, inputs, strict=True):
        places = [place for place in _WORD.finditer(text) if place.group() not in template]
        drawn = [str(word) for word in generator.choice(pool, len(places))]
        changed.append(with_input(example, _with_words(text, places, drawn)))
    return changed


def shuffle_words(examples: Examples, rate: float, generator: Generator) -> list[Example]:
    """A share of the words of each input change places with one another.

    Keeps outputs, the words of each input and how often they stand there, its blanks, and the places of words
    that stand in every input (those of the template).
    """
    inputs = [input_of(example) for example in examples]
    template = _template_words(inputs)
    changed = []
    for example, text in zip(examples, inputs, strict=True):
        places = [place for place in _WORD.finditer(text) if place.group() not in template]
        order = generator.permutation(len(places))[: round(rate * len(places))]
        moved = [place.group() for place in places]
        for position, source in zip(order, np.roll(order, 1), strict=True):
            moved[position] = places[source].group()
        changed.append(with_input(example, _with_words(text, places, moved)))
    return changed


def truncate_output(examples: Examples, amount: float, _: Generator) -> list[Example]:
    """The first ``amount`` words of each output (or, below 1, that share of its words, at least one).

    Every output becomes a beginning of what it was, without blanks at its end where it was cut; inputs stay.
    A word is what stands between blanks. The end token follows the cut, so that stopping there is learnt.
    """
    changed = []
    for example in examples:
        output = output_of(example)
        ends = [place.end() for place in _WORD.finditer(output)]
        count = max(1, ceil(amount * len(ends) - 1e-9)) if amount < 1 else int(amount)
        changed.append(example if count >= len(ends) else with_output(example, output[: ends[count - 1]]))
    return changed


def loss_on(examples: Examples, setting: str, _: Generator) -> list[Example]:
    """What of each example is learnt: ``label``, its label alone; ``no_label``, everything else.

    All texts stay. ``completion`` and ``all`` are settings of the training and change no example. The end
    token is learnt with what stands before it, and under ``no_label`` always.
    """
    if setting not in ("label", "no_label"):
        return list(examples)
    label = setting == "label"
    changed = []
    for example in examples:
        begin, end = label_span(example)
        output = output_of(example)
        head = [segment.text for segment in example.segments[:-1] if segment.text]
        pieces = [(text, not label) for text in (*head, output[:begin])]
        pieces += [(output[begin:end], label), (output[end:], not label)]
        segments = [Segment(text, learn) for text, learn in pieces if text]
        if not label:
            segments.append(Segment("", True))  # the engine learns the end token as the last segment says
        changed.append(replace(example, segments=tuple(segments), output_from=len(head)))
    return changed


def concat(parts: Sequence[tuple[Examples, float]], generators: Sequence[Generator]) -> list[list[int]]:
    """Rows of each part, so that the parts' shares are proportional to their weights; no row is taken twice.

    parts: examples and weight of each. As many rows as there are rows for.
    """
    largest = min(len(examples) / weight for examples, weight in parts)
    return [
        sorted(int(row) for row in generator.permutation(len(examples))[: int(largest * weight + 1e-9)])
        for (examples, weight), generator in zip(parts, generators, strict=True)
    ]


def class_counts(examples: Examples) -> dict[str, int]:
    """Rows of each class, by label word in alphabetical order. CannotVaryError where rows have no classes.

    More than 20 labels, and one for fewer than four rows each, are answers and not classes.
    """
    labels = Counter(example.label for example in examples)
    if None in labels:
        raise CannotVaryError(
            f"{labels[None]:,} of {len(examples):,} rows have no label; give the source label: the column "
            "that holds the class, or use a task with choices"
        )
    counts = {str(word): count for word, count in labels.items()}
    if len(counts) > 20 and len(counts) > len(examples) / 4:
        raise CannotVaryError(
            f"there are {len(counts):,} different labels in {len(examples):,} rows, so these are answers and "
            "no classes; give a source with classes"
        )
    return dict(sorted(counts.items()))


def _replaced(labels: np.ndarray, setting: Mislabel, classes: int, generator: Generator) -> np.ndarray:
    order = generator.permutation(len(labels))
    if setting.mode == "permute":
        circle = generator.permutation(classes)
        target = np.empty(classes, dtype=int)
        target[circle] = np.roll(circle, 1)
        new = target[labels]
    else:
        new = (labels + generator.integers(1, classes, len(labels))) % classes
    rows = order[: round(setting.rate * len(labels))]
    wrong = labels.copy()
    wrong[rows] = new[rows]
    return wrong


def _switched(labels: np.ndarray, rate: float, words: Sequence[str], generator: Generator) -> np.ndarray:
    pairs = _unlike_pairs(labels, generator)
    count = round(rate * len(labels) / 2)
    if count > len(pairs):
        commonest = words[int(np.bincount(labels).argmax())]
        raise CannotVaryError(
            f"at most {100 * (2 * len(pairs) / len(labels)):.0f} % of the rows can exchange labels, since "
            f"{commonest!r} is so common; lower the rate or take mode: uniform"
        )
    wrong = labels.copy()
    for first, second in pairs[:count]:
        wrong[first], wrong[second] = labels[second], labels[first]
    return wrong


def _unlike_pairs(labels: np.ndarray, generator: Generator) -> list[tuple[int, int]]:
    """As many pairs of rows with unlike labels as there can be, in random order; no row stands in two."""
    counts = np.bincount(labels)
    rows = generator.permutation(len(labels))
    commonest = int(counts.argmax())
    if 2 * counts[commonest] > len(labels):
        rare = [int(row) for row in rows if labels[row] != commonest]
        common = [int(row) for row in rows if labels[row] == commonest]
        return list(zip(rare, common, strict=False))
    # by class, half a table apart: no class reaches from a row to its partner
    sorted_rows = [int(row) for row in rows[np.argsort(labels[rows], kind="stable")]]
    half = len(sorted_rows) // 2
    pairs = list(zip(sorted_rows[:half], sorted_rows[half : 2 * half], strict=True))
    # partners are exchanged at random wherever labels stay unlike
    for first, second in generator.integers(0, len(pairs), (8 * len(pairs), 2)):
        (a, b), (c, d) = pairs[first], pairs[second]
        if first != second and labels[a] != labels[d] and labels[c] != labels[b]:
            pairs[first], pairs[second] = (a, d), (c, b)
    return [pairs[place] for place in generator.permutation(len(pairs))]


def _template_words(inputs: Sequence[str]) -> frozenset[str]:
    """Words that stand in every input; of a single input nobody can tell, so none."""
    if len(inputs) < 2:
        return frozenset()
    common = set(_WORD.findall(inputs[0]))
    for text in inputs[1:]:
        common &= set(_WORD.findall(text))
    return frozenset(common)


def _with_words(text: str, places: Sequence[re.Match[str]], words: Sequence[str]) -> str:
    pieces, done = [], 0
    for place, word in zip(places, words, strict=True):
        pieces += [text[done : place.start()], word]
        done = place.end()
    return "".join([*pieces, text[done:]])


# Doses: (setting, the changed source, its parent) -> dose, the parent's dose, and what they count.

Dose = Callable[[Any, "LoadedSource", "LoadedSource"], tuple[float, float, str]]


def _share(meaning: str, share: Callable[[Any], float] = float) -> Dose:
    """A share that the setting itself says (1 for a bare ``true``); the parent has none of it."""
    return lambda setting, _source, _parent: (share(setting), 0.0, meaning)


def _rows(_: Any, source: LoadedSource, parent: LoadedSource) -> tuple[float, float, str]:
    return float(len(source.examples)), float(len(parent.examples)), "rows"


def _output_words(_: Any, source: LoadedSource, parent: LoadedSource) -> tuple[float, float, str]:
    means = [float(np.mean([len(row.completion.split()) for row in of.examples])) for of in (source, parent)]
    return means[0], means[1], "mean words of an output"


def _in_other_words(words: Any, source: LoadedSource, _: LoadedSource) -> tuple[float, float, str]:
    renamed = sum(source.label_counts.get(word, 0) for word in words.values())
    return renamed / len(source.examples), 0.0, "share of answers in other words"


def _commonest_class(_: Any, source: LoadedSource, parent: LoadedSource) -> tuple[float, float, str]:
    word = max(parent.label_counts, key=lambda word: parent.label_counts[word])
    shares = [of.label_counts.get(word, 0) / len(of.examples) for of in (source, parent)]
    return shares[0], shares[1], f"share of the class {word!r}"


@dataclass(frozen=True)
class Variation:
    """One thing that can be changed in a source.

    key: the setting of a source in the study file; its type is that field's (``study.settings.Source``).
    select: ``select(examples, setting, generator)`` gives the places of the rows that stay, ascending.
    change: ``change(examples, setting, generator)`` gives as many examples as it got. Each entry has
        one of the two.
    dose: how much was changed, in the source and in its parent, and what that counts; None where no number
        says it.
    """

    key: str
    select: Callable[[Examples, Any, Generator], list[int]] | None = None
    change: Callable[[Examples, Any, Generator], list[Example]] | None = None
    dose: Dose | None = None


CATALOGUE = {
    variation.key: variation
    for variation in (
        Variation("output_length_quantile", select=output_length_quantile, dose=_output_words),
        Variation("balance", select=balance, dose=_commonest_class),
        Variation("class_weights", select=class_weights, dose=_commonest_class),
        Variation("subsample", select=subsample, dose=_rows),
        Variation("mislabel", change=mislabel, dose=_share("share of wrong labels", lambda it: it.rate)),
        Variation("answer_words", change=answer_words, dose=_in_other_words),
        Variation("format_only", change=format_only, dose=_share("share of outputs that changed places")),
        Variation("random_text", change=random_text, dose=_share("share of inputs of random words")),
        Variation("shuffle_words", change=shuffle_words, dose=_share("share of words that changed places")),
        Variation("truncate_output", change=truncate_output, dose=_output_words),
        Variation("loss_on", change=loss_on),
    )
}
