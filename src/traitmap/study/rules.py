"""Rules of a study file that no single setting can state, over plain mappings.

They are kept apart from the settings' own types so that they can be told together with wrong
types: a rule looks only at what it needs, whatever else is wrong.

Settings of variations: what may be changed in a source, in which order, and what does not go together.

Order of application, whatever the order in the file:

1. which rows: ``output_length_quantile``, ``balance`` or ``class_weights``, ``subsample``
2. their labels: ``mislabel``
3. their texts: ``format_only``, or ``random_text`` or ``shuffle_words``; ``truncate_output``
4. the training: ``loss_on``, ``match_tokens`` or ``match_steps``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from traitmap.study.paths import is_local_data

LENGTHS = ("num_train_epochs", "max_steps", "max_tokens")
ORIGINS = ("path", "task", "adapter", "served_as", "from", "concat")
READY_MADE = ("adapter", "served_as")
_OF_ROWS = ("prompt", "completion", "label", "labels")
_OF_HUB = ("subset", "split", "revision")
_WITHOUT_EFFECT = {
    "task": (*_OF_HUB, *_OF_ROWS),
    "adapter": ("subset", "split", *_OF_ROWS, "limit", "training", "lora"),
    "served_as": ("subset", "split", *_OF_ROWS, "limit", "training", "lora"),
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


def url_fault(text: str) -> str | None:
    """What is wrong with a server's address, or None. A key in the address would be written down with it."""
    try:
        parts = urlsplit(text)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        legal = False
    if not legal:
        return "it is no http or https address; give one such as http://localhost:8000/v1"
    if parts.username or parts.password or parts.query or parts.fragment:
        return (
            "an address with a user, a password, ? or # is not kept; give the address alone, and the key in "
            "the environment variable that api_key_env names"
        )
    return None


def model_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """Settings of this machine, which a server does not heed."""
    if given.get("endpoint") is None:
        return
    usual_values = {"dtype": "auto", "device": "auto", "trust_remote_code": False, "load_in_4bit": False}
    for key, usual in usual_values.items():
        if given.get(key, usual) != usual:
            yield Conflict(key, f"{key} has no effect on a model with endpoint; remove it")


def endpoint_conflicts(endpoint: Any, sources: Sequence[Any]) -> Iterator[tuple[int, str, str]]:
    """Position, key and message of sources that ask of a server what it cannot do, or of none.

    endpoint: its settings as a mapping, its address alone, or None where there is no server.
    """
    server = endpoint.get("server", "openai") if isinstance(endpoint, Mapping) else "openai"
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping):
            continue
        origins = [key for key in ORIGINS if source.get(key) is not None]
        if endpoint is not None and origins == ["adapter"] and server == "openai":
            yield (
                at,
                "adapter",
                "it takes a server that loads adapters from files; give model.endpoint.server: vllm, sglang "
                "or lorax, or give served_as: its model name there",
            )
        if endpoint is not None and origins and origins[0] not in READY_MADE:
            yield (
                at,
                origins[0],
                "a server cannot train an adapter; give served_as (its model name there) or adapter (a PEFT "
                "directory), or remove model.endpoint to train on this machine",
            )
        if endpoint is None and "served_as" in origins:
            yield at, "served_as", "no server is named; add model.endpoint, or give adapter: a PEFT directory"


def source_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """One origin, and no setting that would silently do nothing."""
    origins = [key for key in ORIGINS if given.get(key) is not None]
    if not origins:
        yield Conflict(
            "",
            "no data: give one of path (a file or a hub dataset), task (an lm-eval task's training split), "
            "adapter (a PEFT directory), served_as (an adapter on a server), from (another source, with "
            "something changed) or concat (several)",
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
    if origin in READY_MADE and given.get("train") is False:
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


@dataclass(frozen=True)
class Change:
    """One thing that a source made from another one may change.

    key: the setting of the source. excludes: changes that cannot stand beside it; the fault stands at them.
    controls: beside another change it only holds an amount of training equal, and is not what is studied.
    """

    key: str
    excludes: tuple[str, ...] = ()
    controls: bool = False


# In the order of application, whatever the order in the file: rows, their labels, their texts, the training.
CHANGES = (
    Change("output_length_quantile"),
    Change("balance", excludes=("class_weights",)),
    Change("class_weights"),
    Change("subsample", controls=True),
    Change("mislabel"),
    Change("format_only", excludes=("random_text", "shuffle_words", "mislabel")),
    Change("random_text", excludes=("shuffle_words",)),
    Change("shuffle_words"),
    Change("truncate_output"),
    Change("loss_on"),
    Change("match_tokens", excludes=("match_steps",), controls=True),
    Change("match_steps", controls=True),
)
KINDS = tuple(change.key for change in CHANGES)
CONTROLS = tuple(change.key for change in CHANGES if change.controls)


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
    training: Any = given.get("training") if isinstance(given.get("training"), dict) else {}
    if not (changes or training or given.get("lora")):
        legal = ", ".join(KINDS)
        yield Conflict("from", f"nothing is changed; give one of {legal}, or training or lora")
    for change in CHANGES:
        for key in change.excludes:
            if change.key in changes and key in changes:
                yield Conflict(key, f"{change.key} and {key} are given together; keep one of them")
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
