"""Rules of a study file that no single setting can state, over plain mappings.

They are kept apart from the settings' own types so that they can be told together with wrong
types: a rule looks only at what it needs, whatever else is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitmap.study.paths import is_local_data

LENGTHS = ("num_train_epochs", "max_steps", "max_tokens")
ORIGINS = ("path", "task", "adapter", "from", "concat")
_OF_ROWS = ("prompt", "completion", "label", "labels")
_OF_HUB = ("subset", "split", "revision")
_WITHOUT_EFFECT = {
    "task": (*_OF_HUB, *_OF_ROWS),
    "adapter": ("subset", "split", *_OF_ROWS, "limit", "training", "lora"),
    "from": (*_OF_HUB, *_OF_ROWS, "limit"),
    "concat": (*_OF_HUB, *_OF_ROWS, "limit"),
}
_INSTEAD = {
    ("from", "limit"): "subsample",
    ("concat", "limit"): "subsample in a source that is made from this one",
}


@dataclass(frozen=True)
class Conflict:
    """Settings that do not go together; ``key`` is the one to mend."""

    key: str
    message: str


def training_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """At most one way to say how long to train."""
    lengths = [key for key in LENGTHS if given.get(key) is not None]
    if len(lengths) > 1:
        yield Conflict(
            lengths[-1],
            f"{' and '.join(lengths)} are given together; keep one of them (without any: one epoch)",
        )


def source_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """One origin, and no setting that would silently do nothing."""
    origins = [key for key in ORIGINS if given.get(key) is not None]
    if not origins:
        yield Conflict(
            "",
            "no data: give one of path (a file or a hub dataset), task (an lm-eval task's training split), "
            "adapter (a PEFT directory), from (another source, with something changed) or concat (several)",
        )
    elif len(origins) > 1:
        yield Conflict(origins[-1], f"{' and '.join(origins)} are given together; keep one of them")
    else:
        yield from _without_effect(given, origins[0])
    if origins in ([], ["path"]):
        yield from _template_conflicts(given)


def _template_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    if given.get("labels") is not None and given.get("label") is None:
        yield Conflict("labels", "labels are given without label; add label: the column that holds the class")
    if given.get("prompt") is not None and given.get("completion") is None:
        yield Conflict("prompt", "prompt is given without completion; add completion: the text to be learnt")


def _without_effect(given: Mapping[str, Any], origin: str) -> Iterator[Conflict]:
    for key in _WITHOUT_EFFECT.get(origin, ()):
        if _is_set(given, key):
            instead = _INSTEAD.get((origin, key))
            mend = f"give {instead}" if instead else "remove it"
            yield Conflict(key, f"{key} has no effect on a source with {origin}; {mend}")
    if origin == "adapter" and given.get("train") is False:
        yield Conflict("train", "an adapter is not trained and no source can be made from it; remove train")
    path = given.get("path")
    if origin == "path" and isinstance(path, str) and is_local_data(path):
        for key in _OF_HUB:
            if _is_set(given, key):
                yield Conflict(key, f"{key} has no effect on a local file; remove it")


def _is_set(given: Mapping[str, Any], key: str) -> bool:
    """Whether a key says more than its absence would."""
    value = given.get(key)
    return value is not None and value != {} and (key, value) != ("split", "train")


def duplicate_names(names: Sequence[Any], list_name: str) -> Iterator[tuple[int, str]]:
    """Position and message of each name that stands already earlier in its list.

    Names that differ only in case count as the same: some file systems cannot tell them apart.
    """
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if not isinstance(name, str):
            continue
        earlier = first.setdefault(name.casefold(), position)
        if earlier != position:
            other = names[earlier]
            same = "" if other == name else f" (as {other!r}; upper and lower case do not tell names apart)"
            yield (
                position,
                f"{name!r} is the name of {list_name}[{earlier}] already{same}; choose another name",
            )
