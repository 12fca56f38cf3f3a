"""Outcomes of one target as arrays: who answered what on which item, in which class, how long.

Everything that is said of cells starts here; cell_classes reads the classes, cell_lengths the lengths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitmap.data.outcomes import OutcomeColumns
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import NO_CHANGE_KNOWN, Change, Groups, paired_changes
from traitmap.study.settings import BASELINE

MOST_CLASSES = 20
LEAST_PER_CLASS = 5  # items per gold answer before free answers are read as classes
UNPARSED, OTHER = "[unparsed]", "[other]"

Key = tuple[str, int | None]


@dataclass(frozen=True)
class TargetItems:
    """Everything that A adapters (the base among them) answered on the n items of one target.

    adapters: (source, seed) of each row; the base is ``(__baseline__, None)``.
    labels: the K classes, empty where the target has none. gold: (n,) index of the class.
    predicted: (A, n) index of the class; K where no answer could be parsed, K + 1 where the answer is
        none of the classes.
    parsed: (A, n). tokens: (A, n) of the output or the chosen answer. characters: (A, n) of the output
        without surrounding blanks, NaN where nothing was generated. stopped: (A, n) 1 or 0, NaN where
        unknown. gold_characters: (n,). generated: whether answers are free text.
    item_groups: (n,) of items that repeat or belong together, see ``matrix.statistics``.
    """

    target: str
    adapters: tuple[Key, ...]
    labels: tuple[str, ...]
    gold: NDArray[np.int64]
    predicted: NDArray[np.int64]
    parsed: NDArray[np.bool_]
    tokens: Array
    characters: Array
    stopped: Array
    gold_characters: Array
    generated: bool
    item_groups: Groups | None = None

    @property
    def n(self) -> int:
        return self.parsed.shape[1]

    @property
    def sample(self) -> int:
        """How many items are a sample: those of one group count once."""
        return self.n if self.item_groups is None else int(self.item_groups.max()) + 1

    @property
    def base(self) -> int | None:
        """Row of the base, or None where it was not measured."""
        return next((row for row, (source, _) in enumerate(self.adapters) if source == BASELINE), None)

    @property
    def groups(self) -> tuple[tuple[str, int | None, tuple[int, ...]], ...]:
        """(source, seed, rows): sources pooled over their seeds (seed None), then each of several seeds.

        rows: places among ``adapters``. The base is in no group; a source with one seed is only
        pooled.
        """
        rows: dict[str, list[int]] = {}
        for row, (source, _) in enumerate(self.adapters):
            if source != BASELINE:
                rows.setdefault(source, []).append(row)
        pooled = [(source, None, tuple(seed_rows)) for source, seed_rows in rows.items()]
        alone = [
            (source, seed, (row,))
            for row, (source, seed) in enumerate(self.adapters)
            if source != BASELINE and len(rows[source]) > 1
        ]
        return (*pooled, *alone)

    def changes(self, values: Array, *, binary: bool = True) -> list[Change]:
        """Adapter minus base of values (A, n) for every group, tested on the same items.

        binary: values are 0 or 1. Unknown where the base was not measured or a value is NaN.
        """
        if self.base is None:
            return [NO_CHANGE_KNOWN] * len(self.groups)
        zero = values[self.base]
        differences = [values[list(rows)] - zero for _, _, rows in self.groups]
        return paired_changes(differences, binary=binary, groups=self.item_groups)

    @property
    def single_seeds(self) -> dict[str, int]:
        """The seed of each source that has only one: its pooled cell is that seed's cell."""
        rows = [(source, seed) for source, seed in self.adapters if source != BASELINE]
        count = Counter(source for source, _ in rows)
        return {source: seed for source, seed in rows if count[source] == 1 and seed is not None}


def target_items(
    target: str,
    outcomes: Mapping[Key, Sequence[Outcome]],
    texts: Sequence[TaskText] = (),
    item_groups: Groups | None = None,
) -> TargetItems | None:
    """Arrays of one target; None where there is neither a class nor a length to speak of.

    outcomes: by (source, seed). texts: the target's items, whose choices then name the classes. item_groups:
    (n,) of items that repeat; without effect where they are of another number of items.
    MatrixError where adapters did not answer the same items.
    """
    columns = {key: OutcomeColumns.of(rows) for key, rows in outcomes.items() if len(rows)}
    if not columns:
        return None
    first, *others = columns
    digests = columns[first].words("item_digest")
    for source, seed in others:
        if columns[source, seed].words("item_digest") != digests:
            raise MatrixError(
                f"target {target!r}: {source} (seed {seed}) and {first[0]} (seed {first[1]}) answered "
                "different items; cells can only be compared on the same ones. Run the study again."
            )
    rows = list(columns.values())
    generated = bool(rows[0].known("text").all())
    if not generated and not rows[0].known("choice_logprobs").all():
        return None
    golds = rows[0].words("gold")
    labels = _labels(rows, golds, texts, generated)
    place = {label: code for code, label in enumerate(labels)}
    tokens = np.stack([row.numbers("output_tokens") for row in rows])
    tokens[tokens == 0] = np.nan  # every answer has a token at least: none counted means that nobody counted
    return TargetItems(
        target=target,
        adapters=tuple(columns),
        labels=labels,
        gold=np.array([place.get(gold, -1) for gold in golds], dtype=np.int64),
        predicted=np.stack([_predicted(row, labels) for row in rows]),
        parsed=np.stack([row.numbers("parsed") == 1 for row in rows]),
        tokens=tokens,
        characters=np.stack([_characters(row) for row in rows]),
        stopped=np.stack([row.numbers("stopped") for row in rows]),
        gold_characters=np.array([len(gold.strip()) for gold in golds], dtype=float),
        generated=generated,
        item_groups=item_groups if item_groups is not None and len(item_groups) == len(digests) else None,
    )


def same_word(word: str) -> str:
    """A label as it is compared: without case and surrounding blanks."""
    return word.strip().casefold()


def _characters(row: OutcomeColumns) -> Array:
    """(n,) lengths of the written texts without surrounding blanks, NaN where nothing was written."""
    if not row.known("text").any():
        return np.full(len(row), np.nan)
    return np.array([np.nan if text is None else len(text.strip()) for text in row.words("text")])


def _labels(
    rows: Sequence[OutcomeColumns], true: Sequence[str], texts: Sequence[TaskText], generated: bool
) -> tuple[str, ...]:
    """The classes of a target, or nothing where every item has its own answers. true: (n,) right answers."""
    golds = Counter(true)
    offered = {tuple(text.choices) for text in texts}
    if len(offered) == 1 and (choices := next(iter(offered))):
        words = choices
    elif generated:
        few = len(golds) * LEAST_PER_CLASS <= len(rows[0])
        words = tuple(sorted(golds)) if few else ()
    else:
        answers = set(golds).union(*(row.words("prediction") for row in rows))
        most = int(rows[0].widths.max())
        words = tuple(sorted(answers)) if len(answers) <= most else ()
    legal = 2 <= len(words) <= MOST_CLASSES and set(golds) <= set(words)
    return words if legal else ()


def _predicted(row: OutcomeColumns, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Codes of the answers. What the metric took for right is the gold class, however it was written."""
    place = {label: code for code, label in enumerate(labels)}
    alike = {same_word(label): code for code, label in reversed(list(enumerate(labels)))}
    unparsed, unknown_class = len(labels), len(labels) + 1
    answers, golds = row.words("prediction"), row.words("gold")
    codes = {word: place.get(word, alike.get(same_word(word), unknown_class)) for word in set(answers)}
    predicted = np.array([codes[word] for word in answers], dtype=np.int64)
    gold = np.array([place.get(word, -1) for word in golds], dtype=np.int64)
    predicted = np.where((row.numbers("correct") == 1) & (gold >= 0), gold, predicted)
    return np.where(row.numbers("parsed") == 1, predicted, unparsed)
