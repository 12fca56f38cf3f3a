"""Settings of variations: what may be changed in a source, in which order, and what does not go together.

Order of application, whatever the order in the file:

1. which rows: ``output_length_quantile``, ``balance`` or ``class_weights``, ``subsample``
2. their labels: ``mislabel``
3. their texts: ``format_only``, or ``random_text`` or ``shuffle_words``; ``truncate_output``
4. the training: ``loss_on``, ``match_tokens`` or ``match_steps``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from traitmap.study.rules import LENGTHS, ORIGINS, READY_MADE, Conflict, source_conflicts

KINDS = (
    "output_length_quantile",
    "balance",
    "class_weights",
    "subsample",
    "mislabel",
    "format_only",
    "random_text",
    "shuffle_words",
    "truncate_output",
    "loss_on",
    "match_tokens",
    "match_steps",
)
CONTROLS = ("subsample", "match_tokens", "match_steps")  # beside another change they only hold amounts equal
_NOT_TOGETHER = (
    ("balance", "class_weights"),
    ("random_text", "shuffle_words"),
    ("format_only", "random_text"),
    ("format_only", "shuffle_words"),
    ("format_only", "mislabel"),
    ("match_tokens", "match_steps"),
)


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The variation keys that a source sets, in the order of application."""
    return {key: given[key] for key in KINDS if given.get(key) not in (None, False)}


def all_source_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """Settings of one source that do not go together, variations included."""
    yield from source_conflicts(given)
    origins = [key for key in ORIGINS if given.get(key) is not None]
    if len(origins) == 1:
        yield from variation_conflicts(given, origins[0])


def variation_conflicts(given: Mapping[str, Any], origin: str) -> Iterator[Conflict]:
    """What keeps the variation keys of one source from being applied. origin: its one kind of origin."""
    changes = changes_of(given)
    if origin != "from":
        for key in changes:
            yield Conflict(
                key, f"{key} changes another source; give a source of its own with from: and that source"
            )
        return
    training = given.get("training") if isinstance(given.get("training"), dict) else {}
    if not (changes or training or given.get("lora")):
        legal = ", ".join(KINDS)
        yield Conflict("from", f"nothing is changed; give one of {legal}, or training or lora")
    for one, other in _NOT_TOGETHER:
        if one in changes and other in changes:
            yield Conflict(other, f"{one} and {other} are given together; keep one of them")
    yield from _training_conflicts(changes, training or {})


def _training_conflicts(changes: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[Conflict]:
    if "loss_on" in changes and training.get("loss_on") is not None:
        yield Conflict("loss_on", "loss_on stands here and under training; keep one of them")
    lengths = [key for key in LENGTHS if training.get(key) is not None]
    for key in ("match_tokens", "match_steps"):
        if key in changes and lengths:
            yield Conflict(key, f"{key} and training.{lengths[0]} are given together; keep one of them")


def lineage_conflicts(sources: Sequence[Any]) -> Iterator[tuple[int, str, str]]:
    """Position, key and message of each name that leads nowhere or in a circle, and of material unused.

    sources: as plain mappings; whatever is no mapping, or has no name, is passed over.
    """
    named = {
        one["name"]: one for one in sources if isinstance(one, Mapping) and isinstance(one.get("name"), str)
    }
    used: set[str] = set()
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping):
            continue
        for key, name in _references(source):
            used.add(name)
            if message := _reference_fault(source, key, name, named):
                yield at, key, message
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping) or source.get("train") is not False:
            continue
        own = source.get("name")
        if not isinstance(own, str) or own not in used:
            yield at, "train", "it is neither trained nor used by another source; remove train or the source"
    if named and all(one.get("train") is False for one in named.values()):
        yield len(sources) - 1, "train", "no source is trained; leave train out of at least one"


def parents(source: Mapping[str, Any]) -> list[str]:
    """Names of the sources that a source takes its rows from."""
    return [name for key, name in _references(source) if key in ("from", "concat")]


def _references(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(source.get("from"), str):
        yield "from", source["from"]
    if isinstance(source.get("concat"), Mapping):
        yield from (("concat", name) for name in source["concat"] if isinstance(name, str))
    for key in ("match_tokens", "match_steps"):
        value = source.get(key)
        if isinstance(value, str) and not value.replace("_", "").isdigit():
            yield key, value


def _reference_fault(
    source: Mapping[str, Any], key: str, name: str, named: Mapping[str, Mapping[str, Any]]
) -> str | None:
    if name not in named:
        near = get_close_matches(name, [one for one in named if one != source.get("name")], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        return f"there is no source {name!r}; {guess}legal here: {', '.join(named)}"
    if name == source.get("name"):
        return f"{name!r} is this source itself; give another one"
    if any(named[name].get(key) is not None for key in READY_MADE):
        return f"{name!r} is an adapter, which has no rows; give a source with data"
    circle = _circle(str(source.get("name")), name, named)
    return f"the sources go in a circle: {' -> '.join(circle)}; give one of them data" if circle else None


def _circle(start: str, name: str, named: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The way from a source back to itself, or nothing."""
    ways, seen = [[start, name]], {name}
    while ways:
        way = ways.pop()
        for _, further in _references(named.get(way[-1], {})):
            if further == start:
                return [*way, start]
            if further not in seen:
                seen.add(further)
                ways.append([*way, further])
    return []
