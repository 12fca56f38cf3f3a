"""Which test items say the same, or belong together: they are no sample of their own.

Items are one group where their texts are the same (up to case and spacing; what is read, and the choices in
any order), where they are near copies of each other as in ``contamination`` (eight words and more beyond the
task's template), or where the study names a column of the task that holds the same for both (a document, a
template). Targets that have items in common are named too. ``matrix.statistics`` takes groups for the sample.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from traitmap.analysis.contamination import HALF, SHORT, item_holds, item_wordings
from traitmap.analysis.overlap import ItemIndex

if TYPE_CHECKING:
    from traitmap.data.texts import TaskText

SHARED = 0.05  # of the smaller target's items from which two targets are named as having them in common
TEXT = "text"  # what makes a group where the study names no column


def repeated_items(targets: Mapping[str, Sequence[TaskText]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Groups of the items of every target, and pairs of targets with items in common, as plain JSON data.

    targets: items as they are asked, without the examples that may be shown before them. columns: target ->
    the column of its task that ``TaskText.group`` holds, where the study names one.

    ``targets``: name -> by (``text``, or the column's name), codes (the group of each item; empty where no
    two items are one). ``shared``: first, second, items (how many, repeats counted once), share (of the
    smaller one's).
    """
    keys = {name: [_key(text) for text in texts] for name, texts in targets.items()}
    groups = {}
    for name, texts in targets.items():
        codes = item_groups(texts)
        repeats = len(set(codes)) < len(codes)
        groups[name] = {"by": columns.get(name, TEXT), "codes": list(codes) if repeats else []}
    return {"targets": groups, "shared": _shared({name: set(found) for name, found in keys.items()})}


def item_groups(texts: Sequence[TaskText]) -> tuple[int, ...]:
    """(n,) the group of each item of one target, numbered in the order of their first items.

    texts: of its items; those whose ``group`` is the same are one group, whatever they say.
    """
    first = list(range(len(texts)))  # of each item one that it is grouped with; an item by itself, itself

    def group_of(item: int) -> int:
        while first[item] != item:
            first[item] = first[first[item]]
            item = first[item]
        return item

    def join(items: Iterable[int]) -> None:
        roots = sorted({group_of(item) for item in items})
        for root in roots[1:]:
            first[root] = roots[0]

    by_key, by_group = defaultdict(list), defaultdict(list)
    for item, text in enumerate(texts):
        by_key[_key(text)].append(item)
        if text.group is not None:
            by_group[text.group].append(item)
    for items in (*by_key.values(), *by_group.values()):
        join(items)
    for pair in _near_copies(texts, [items[0] for items in by_key.values()]):
        join(pair)
    roots = [group_of(item) for item in range(len(texts))]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return tuple(numbers[root] for root in roots)


def _key(text: TaskText) -> str:
    """What two items that are the same have in common; an item that shows nothing is known by its answer."""
    parts = [text.input, *sorted(text.choices)] if text.input.strip() or text.choices else [text.output]
    return "\n".join(" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in parts)


def _near_copies(texts: Sequence[TaskText], distinct: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs among distinct items of which each holds the other, but for few words.

    An item that stands whole in a much longer one is another item: it does not hold that one.
    """
    wordings = item_wordings(texts)
    items = [wordings[item] for item in distinct]
    index = ItemIndex([items], smallest=SHORT)
    pairs = []
    for number, likely in index.candidates([item.words for item in items], least=HALF):
        for other in likely.tolist():
            if other > number and all(
                item_holds(items[a], items[b].words, items[b]) for a, b in ((number, other), (other, number))
            ):
                pairs.append((distinct[number], distinct[other]))
    return pairs


def _shared(keys: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    """Pairs of targets, in their order, that have at least a share ``SHARED`` of items in common, and two."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, found in keys.items():
        for key in found:
            owners[key].append(name)
    counts = Counter(pair for names in owners.values() for pair in combinations(names, 2))
    order = {pair: place for place, pair in enumerate(combinations(keys, 2))}
    return [
        {"first": first, "second": second, "items": counts[first, second], "share": share}
        for first, second in sorted(counts, key=order.__getitem__)
        if (share := counts[first, second] / min(len(keys[first]), len(keys[second]))) >= SHARED
        and counts[first, second] > 1
    ]
