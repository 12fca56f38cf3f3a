"""Rules of sources that are made from others: variations, mixtures, merges, and checkpoints of a training.

What may be changed stands in one list (`CHANGES`), how adapters may be merged in another (`MERGE_METHODS`);
below them the conflicts within one such source, and last those between the sources of a study, whose names
must lead somewhere and not in a circle. All over plain mappings, as `study.rules` is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, TypeGuard

from traitmap.study.document import Place

Conflict = tuple[Place, str]  # settings that do not go together: the place to mend, and the message

LENGTHS = ("num_train_epochs", "max_steps", "max_tokens")
READY_MADE = ("adapter", "served_as", "model")


@dataclass(frozen=True)
class SettingChange:
    """One thing that a source made from another one may change.

    key: the setting of the source. excludes: changes that cannot stand beside it; the fault stands at them.
    controls: beside another change it only holds an amount of training equal, and is not what is studied.
    """

    key: str
    excludes: tuple[str, ...] = ()
    controls: bool = False


# In the order of application, whatever the order in the file: rows, their labels, their texts, the training.
CHANGES = (
    SettingChange("output_length_quantile"),
    SettingChange("balance", excludes=("class_weights",)),
    SettingChange("class_weights"),
    SettingChange("subsample", controls=True),
    SettingChange("mislabel"),
    SettingChange("answer_words"),
    SettingChange("format_only", excludes=("random_text", "shuffle_words", "mislabel")),
    SettingChange("random_text", excludes=("shuffle_words",)),
    SettingChange("shuffle_words"),
    SettingChange("truncate_output"),
    SettingChange("loss_on"),
    SettingChange("match_tokens", excludes=("match_steps",), controls=True),
    SettingChange("match_steps", controls=True),
)
KINDS = tuple(change.key for change in CHANGES)
CONTROLS = tuple(change.key for change in CHANGES if change.controls)


@dataclass(frozen=True)
class MergeMethod:
    """One way in which PEFT's ``add_weighted_adapter`` makes one adapter of several.

    key: its name there (``combination_type``). same_rank: it adds matrices entry by entry, so that ranks must
    agree. prunes: it keeps a share of the numbers, ``density``. elects: it keeps the sign of the majority.
    draws: which numbers it keeps is drawn at random.
    """

    key: str
    same_rank: bool = False
    prunes: bool = False
    elects: bool = False
    draws: bool = False


MERGE_METHODS = {
    method.key: method
    for method in (
        MergeMethod("cat"),
        MergeMethod("svd"),
        MergeMethod("linear", same_rank=True),
        MergeMethod("ties", same_rank=True, prunes=True, elects=True),
        MergeMethod("ties_svd", prunes=True, elects=True),
        MergeMethod("dare_linear", same_rank=True, prunes=True, draws=True),
        MergeMethod("dare_linear_svd", prunes=True, draws=True),
        MergeMethod("dare_ties", same_rank=True, prunes=True, elects=True, draws=True),
        MergeMethod("dare_ties_svd", prunes=True, elects=True, draws=True),
        MergeMethod("magnitude_prune", same_rank=True, prunes=True),
        MergeMethod("magnitude_prune_svd", prunes=True),
    )
}
USUAL_METHOD, USUAL_DENSITY = "cat", 0.5
_OF_MERGE = ("weights", "method", "density", "majority_sign_method")
CHECKPOINT = "@"  # between a source's name and a step, in the name of a row


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The variation keys that a source sets, in the order of application.

    given: a source as a mapping; null and false say nothing. Key -> setting as given.
    """
    return {key: given[key] for key in KINDS if given.get(key) not in (None, False)}


def variation_conflicts(given: Mapping[str, Any], origin: str) -> Iterator[Conflict]:
    """What keeps the variation keys of one source from being applied. origin: its one kind of origin."""
    changes = changes_of(given)
    if origin != "from":
        for key in changes:
            message = f"{key} changes another source; give a source of its own with from: and that source"
            yield (key,), message
        return
    training: Any = given.get("training") if isinstance(given.get("training"), dict) else {}
    if not (changes or training or given.get("lora")):
        yield ("from",), f"nothing is changed; give one of {', '.join(KINDS)}, or training or lora"
    for change in CHANGES:
        for key in change.excludes:
            if change.key in changes and key in changes:
                yield (key,), f"{change.key} and {key} are given together; keep one of them"
    if "loss_on" in changes and training.get("loss_on") is not None:
        yield ("loss_on",), "loss_on stands here and under training; keep one of them"
    lengths = [key for key in LENGTHS if training.get(key) is not None]
    for key in ("match_tokens", "match_steps"):
        if key in changes and lengths:
            yield (key,), f"{key} and training.{lengths[0]} are given together; keep one of them"


def source_mapping(source: Any) -> Any:
    """A source whose mixture or merge is written in one form; anything else as it is.

    ``concat: [a, b]`` with ``weights`` is a mapping of weights, ``merge: {a: 1, b: 2}`` a list with weights.
    Weights that do not fit are left for the rules to tell.
    """
    if not isinstance(source, Mapping):
        return source
    parts, merge, weights = (source.get(key) for key in ("concat", "merge", "weights"))
    if _is_list(parts) and all(isinstance(name, str) for name in parts) and len({*parts}) == len(parts):
        if _is_list(weights) and len(weights) == len(parts):
            return {**source, "concat": dict(zip(parts, weights, strict=True)), "weights": None}
        return {**source, "concat": dict.fromkeys(parts, 1.0)}
    if isinstance(merge, Mapping) and weights is None:
        return {**source, "merge": list(merge), "weights": list(merge.values())}
    return source


def _is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def merge_conflicts(given: Mapping[str, Any], origin: str) -> Iterator[Conflict]:
    """What of a merge does not go together, and what of one stands where nothing is merged."""
    if origin == "concat" and given.get("weights") is not None:
        parts, weights = given["concat"], given["weights"]
        if _is_list(weights) and len(weights) != len(parts):
            message = f"{len(weights)} weights for {len(parts)} sources; give one for each, in their order"
            yield ("weights",), message
        else:
            yield ("weights",), "the weights stand in concat already; remove weights"
    if origin != "merge":
        for key in _OF_MERGE[origin == "concat" :]:
            if given.get(key) is not None:
                yield (key,), f"{key} has no effect without merge; remove it"
        return
    names, weights = given["merge"], given.get("weights")
    if _is_list(names):
        if repeated := sorted({str(name) for name in names if list(names).count(name) > 1}):
            message = f"{', '.join(repeated)} stands more than once; give it once, with a larger weight"
            yield ("merge",), message
        if _is_list(weights) and len(weights) != len(names):
            message = f"{len(weights)} weights for {len(names)} adapters; give one for each, in their order"
            yield ("weights",), message
    if _is_list(weights) and any(weight in (0, 0.0, "0") for weight in weights):
        yield ("weights",), "an adapter with the weight 0 is not in the merge; remove both"
    method = MERGE_METHODS.get(given.get("method") or USUAL_METHOD)
    if method is None:
        return
    for key, use in (("density", "prunes"), ("majority_sign_method", "elects")):
        if given.get(key) is not None and not getattr(method, use):
            legal = ", ".join(other.key for other in MERGE_METHODS.values() if getattr(other, use))
            yield (key,), f"{key} has no effect with method {method.key}; remove it, or give one of {legal}"


def checkpoint_conflicts(given: Mapping[str, Any], origin: str) -> Iterator[Conflict]:
    """What keeps checkpoints of one source from being kept. origin: its one kind of origin."""
    steps = given.get("checkpoints")
    if steps is None:
        return
    if origin in (*READY_MADE, "merge"):
        yield ("checkpoints",), "nothing is trained here, so there is no step to keep; remove checkpoints"
    if given.get("train") is False:
        yield ("checkpoints",), "checkpoints are kept of a training; remove train: false, or checkpoints"
    if _is_list(steps) and all(type(step) is int for step in steps):
        for before, step in pairwise(steps):
            if step <= before:
                why = "stands twice" if step == before else f"stands behind {before}"
                yield ("checkpoints",), f"step {step} {why}; give steps that rise, such as [30, 60, 120]"
                return


def lineage_conflicts(sources: Sequence[Any]) -> Iterator[Conflict]:
    """Each name that leads nowhere or in a circle, and material that is not used.

    sources: as plain mappings; whatever is not a mapping, or has no name, is passed over.
    """
    named = {
        source["name"]: source
        for source in sources
        if isinstance(source, Mapping) and isinstance(source.get("name"), str)
    }
    used: set[str] = set()
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping):
            continue
        for key, name in _references(source):
            if key != "merge":
                used.add(name)
            if message := _reference_fault(source, key, name, named):
                yield ("sources", at, key), message
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping) or source.get("train") is not False:
            continue
        if not isinstance(source.get("name"), str) or source["name"] not in used:
            message = "it is neither trained nor used by another source; remove train or the source"
            yield ("sources", at, "train"), message
    if named and all(source.get("train") is False for source in named.values()):
        message = "no source is trained; leave train out of at least one"
        yield ("sources", len(sources) - 1, "train"), message


def parents(source: Mapping[str, Any]) -> list[str]:
    """Names of the sources that a source takes its rows from.

    One for ``from``, several for ``concat``, none for a source that has data of its own.
    """
    return [name for key, name in _references(source) if key in ("from", "concat")]


def _references(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(source.get("from"), str):
        yield "from", source["from"]
    for key in ("concat", "merge"):
        names = source.get(key)
        if isinstance(names, Mapping | list | tuple):
            yield from ((key, name) for name in names if isinstance(name, str))
    for key in ("match_tokens", "match_steps"):
        value = source.get(key)
        if isinstance(value, str) and not value.replace("_", "").isdigit():
            yield key, value


def source_of_row(name: str) -> tuple[str, int | None]:
    """The source that a row belongs to, and the step where it is a checkpoint of it: ``a@30``."""
    source, _, step = name.partition(CHECKPOINT)
    return source, int(step) if step.isdecimal() else None


def _reference_fault(
    source: Mapping[str, Any], key: str, name: str, named: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """What is wrong with a name of another source, under one key of a source; None where it is in order."""
    start = str(source.get("name"))
    origin, step = source_of_row(name)
    if step is not None and origin in named:
        if key != "merge":
            return f"{name!r} is a checkpoint, which has no rows of its own; give {origin!r}"
        steps = named[origin].get("checkpoints")
        kept = [str(kept) for kept in steps] if _is_list(steps) else []
        if str(step) not in kept:
            legal = ", ".join(f"{origin}{CHECKPOINT}{one}" for one in kept)
            return f"{origin!r} keeps no checkpoint at step {step}; " + (
                f"legal here: {legal}" if kept else f"give it checkpoints: [{step}]"
            )
    elif origin not in named or (step is None and origin != name):
        near = get_close_matches(name, [known for known in named if known != source.get("name")], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        return f"there is no source {name!r}; {guess}legal here: {', '.join(named)}"
    if origin == source.get("name"):
        return f"{origin!r} is this source itself; give another one"
    if message := _wrong_kind(key, name, named[origin]):
        return message
    ways, seen = [[start, origin]], {origin}
    while ways:
        way = ways.pop()
        for _, reference in _references(named.get(way[-1], {})):
            further = source_of_row(reference)[0]
            if further == start:
                circle = " -> ".join([*way, start])
                return f"the sources go in a circle: {circle}; give one of them data"
            if further not in seen:
                seen.add(further)
                ways.append([*way, further])
    return None


def _wrong_kind(key: str, name: str, other: Mapping[str, Any]) -> str | None:
    """Why another source cannot stand under a key; a merge takes adapters, everything else takes rows."""
    made = next((kind for kind in (*READY_MADE, "merge") if other.get(kind) is not None), None)
    if key != "merge":
        what = "a merge of adapters" if made == "merge" else "an adapter"
        return f"{name!r} is {what}, which has no rows; give a source with data" if made else None
    if made in ("served_as", "model"):
        what = "an adapter on a server" if made == "served_as" else "a whole model"
        return f"{name!r} is {what}, which has no files to merge; give a source that is trained, or adapter"
    if other.get("train") is False:
        return f"{name!r} is not trained (train: false), so it has no adapter; remove that, or this name"
    return None
