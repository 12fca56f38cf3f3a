"""Rules of a study file that no single setting can state, over plain mappings.

They are kept apart from the settings' own types so that they can be told together with wrong types: a rule
looks only at what it needs, whatever else is wrong. Each rule gives conflicts, a place and what to do there;
`part_conflicts` and `study_conflicts` together are all of them for a whole file, `study.settings` runs those
of a part where settings are built in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from traitmap.study.derived import (
    LENGTHS,
    READY_MADE,
    Conflict,
    checkpoint_conflicts,
    lineage_conflicts,
    merge_conflicts,
    source_mapping,
    variation_conflicts,
)
from traitmap.study.document import Place
from traitmap.study.paths import data_stem, is_local_data, task_stem

ORIGINS = ("path", "task", "adapter", "served_as", "model", "from", "concat", "merge")
_OF_ROWS = ("prompt", "completion", "label", "labels", "train_on")
_OF_HUB = ("subset", "split", "revision")
_OF_DATA: tuple[str, ...] = (  # what a target over plain data has, and one with a task has not
    *(*_OF_HUB, *_OF_ROWS, "answer", "choices"),
    *("extract", "until", "max_gen_toks", "held_out"),
)
_OF_PACK = ("num_fewshot", "metric", "higher_is_better", "filter", "groups")
ENDING = ("precision", "decide", "ask")  # rules that end a cell before all items are asked
_WRITTEN = ("extract", "until", "max_gen_toks")  # what only an answer has that the model writes
_WITHOUT_EFFECT = {
    "task": (*_OF_HUB, *_OF_ROWS),
    "adapter": ("subset", "split", *_OF_ROWS, "limit", "training", "lora"),
    "served_as": ("subset", "split", *_OF_ROWS, "limit", "training", "lora"),
    "model": (*_OF_HUB, *_OF_ROWS, "limit", "training", "lora"),
    "from": (*_OF_HUB, *_OF_ROWS, "limit"),
    "concat": (*_OF_HUB, *_OF_ROWS, "limit"),
    "merge": (*_OF_HUB, *_OF_ROWS, "limit", "training", "lora"),
}
_INSTEAD = {
    ("from", "limit"): "subsample",
    ("concat", "limit"): "subsample in a source that is made from this one",
}


def training_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """At most one way to say how long to train."""
    lengths = [key for key in LENGTHS if given.get(key) is not None]
    if len(lengths) > 1:
        message = f"{' and '.join(lengths)} are given together; keep one of them (without any: one epoch)"
        yield (lengths[-1],), message


def url_fault(text: str) -> str | None:
    """What is wrong with a server's address, or None. A key in the address would be written down with it.

    Legal are http and https addresses with a host, without user, password, query or fragment.
    """
    try:
        parts = urlsplit(text)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        legal = False
    if not legal:
        return "it is not an http or https address; give one such as http://localhost:8000/v1"
    if parts.username or parts.password or parts.query or parts.fragment:
        return (
            "an address with a user, a password, ? or # is not kept; give the address alone, and the key in "
            "the environment variable that api_key_env names"
        )
    return None


def model_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """Settings of this machine, which a server does not heed.

    Nothing without ``endpoint``. Only values other than the default are conflicts.
    """
    if given.get("endpoint") is None:
        return
    usual_values = {"dtype": "auto", "device": "auto", "trust_remote_code": False, "load_in_4bit": False}
    for key, usual in usual_values.items():
        if given.get(key, usual) != usual:
            yield (key,), f"{key} has no effect on a model with endpoint; remove it"


def endpoint_conflicts(endpoint: Any, sources: Sequence[Any]) -> Iterator[Conflict]:
    """Sources that ask of a server what it cannot do, or of none.

    endpoint: its settings as a mapping, its address alone, or None where there is no server.
    """
    server = endpoint.get("server", "openai") if isinstance(endpoint, Mapping) else "openai"
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping):
            continue
        origins = [key for key in ORIGINS if source.get(key) is not None]
        if endpoint is None:
            if "served_as" in origins:
                message = "no server is named; add model.endpoint, or give adapter: a PEFT directory"
                yield ("sources", at, "served_as"), message
            continue
        if origins == ["adapter"] and server == "openai":
            message = (
                "it takes a server that loads adapters from files; give model.endpoint.server: vllm, sglang "
                "or lorax, or give served_as: its model name there"
            )
            yield ("sources", at, "adapter"), message
        if origins and origins[0] not in READY_MADE:
            cannot = "merge adapters" if origins[0] == "merge" else "train an adapter"
            message = (
                f"a server cannot {cannot}; give served_as (its model name there) or adapter (a PEFT "
                "directory), or remove model.endpoint to train on this machine"
            )
            yield ("sources", at, origins[0]), message


def source_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """One origin, no setting of a source that would silently do nothing, and changes that go together."""
    origins = [key for key in ORIGINS if given.get(key) is not None]
    if not origins:
        message = (
            "no data: give one of path (a file or a hub dataset), task (an lm-eval task's training split), "
            "adapter (a PEFT directory), served_as (an adapter on a server), model (a whole model), from "
            "(another source, with something changed), concat (several) or merge (adapters of several)"
        )
        yield (), message
    elif len(origins) > 1:
        yield (origins[-1],), f"{' and '.join(origins)} are given together; keep one of them"
    else:
        yield from _without_effect(given, origins[0])
    if origins in ([], ["path"]):
        if given.get("labels") is not None and given.get("label") is None:
            message = "labels are given without label; add label: the column that holds the class"
            yield ("labels",), message
        if given.get("prompt") is not None and given.get("completion") is None:
            message = "prompt is given without completion; add completion: the text to be learnt"
            yield ("prompt",), message
        if given.get("train_on") is not None and given.get("completion") is not None:
            yield (
                ("train_on",),
                "train_on has no effect where templates say what is learnt; remove one of them",
            )
    if len(origins) == 1:
        yield from variation_conflicts(given, origins[0])
        yield from merge_conflicts(given, origins[0])
        yield from checkpoint_conflicts(given, origins[0])
    yield from _own_target_of(given)


def _without_effect(given: Mapping[str, Any], origin: str) -> Iterator[Conflict]:
    for key in _WITHOUT_EFFECT.get(origin, ()):
        if _is_set(given, key):
            instead = _INSTEAD.get((origin, key))
            mend = f"give {instead}" if instead else "remove it"
            yield (key,), f"{key} has no effect on a source with {origin}; {mend}"
    if origin in (*READY_MADE, "merge") and given.get("train") is False:
        yield ("train",), "an adapter is not trained and no source can be made from it; remove train"
    path = given.get("path")
    if origin == "path" and isinstance(path, str) and is_local_data(path):
        for key in _OF_HUB:
            if _is_set(given, key):
                yield (key,), f"{key} has no effect on a local file; remove it"


def _is_set(given: Mapping[str, Any], key: str, split: str = "train") -> bool:
    """Whether a key says more than its absence would. split: the usual one."""
    value = given.get(key)
    return value is not None and value != {} and (key, value) != ("split", split)


def target_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """One origin of a target, one way to say what is right, and no setting that would silently do nothing."""
    origins = [key for key in ("task", "path", "pack") if given.get(key) is not None]
    if not origins:
        message = (
            "nothing is asked: give task (an lm-eval task or group), path (a file or a hub dataset) or pack "
            "(a list of tasks)"
        )
        yield (), message
        return
    if len(origins) > 1:
        yield (origins[1],), f"{origins[0]} and {origins[1]} are given together; keep one of them"
        return
    if origins == ["pack"]:
        for key in (*_OF_DATA, *_OF_PACK):
            if _is_set(given, key, "test"):
                yield (key,), f"{key} has no effect on a target with pack, which says it itself; remove it"
        return
    if origins == ["task"]:
        for key in _OF_DATA:
            if _is_set(given, key, "test"):
                yield (key,), f"{key} has no effect on a target with task, which says it itself; remove it"
        return
    if given.get("filter") is not None:
        yield ("filter",), "filter has no effect on rows of data; give extract: a regular expression"
    path = given["path"]
    if isinstance(path, str) and is_local_data(path):
        for key in _OF_HUB:
            if _is_set(given, key, "test"):
                yield (key,), f"{key} has no effect on a local file; remove it"
    yield from _answer_conflicts(given)


def _answer_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """What of a target over plain data does not go together in saying which answer is right."""
    has = {key: given.get(key) is not None for key in _OF_DATA}
    if has["label"] and (has["answer"] or has["choices"]):
        key = "answer" if has["answer"] else "choices"
        message = f"label and {key} are given together; keep label where all rows share their choices"
        yield (key,), message
    if has["labels"] and not has["label"]:
        yield ("labels",), "labels are given without label; add label: the column that holds the class"
    if has["choices"] and not has["answer"]:
        yield ("choices",), "choices are given without answer; add answer: the column with the right one"
    if has["choices"] and has["completion"]:
        yield ("completion",), "completion has no effect on choices, which are asked as they are; remove it"
    if has["completion"] and not has["prompt"]:
        yield ("completion",), "completion is given without prompt; add prompt: what the model is given"
    judged = [key for key in ("label", "answer", "completion") if has[key]]
    if has["prompt"] and not judged:
        yield ("prompt",), "nothing says what is right; add label or answer: the column that holds it"
    if (has["label"] or has["answer"]) and not has["prompt"]:
        yield (judged[0],), f"{judged[0]} is given without prompt; add prompt: what the model is given"
    for key in _WRITTEN:
        if has[key] and (has["label"] or has["choices"]):
            yield (key,), f"{key} has no effect where the model chooses; remove it"


def own_target_mapping(target: Any) -> Any:
    """The target of a source as a mapping: ``true`` is one without keys, a text is its path."""
    if target is True or (isinstance(target, str) and target.lower() == "true"):
        return {}
    return {"path": target} if isinstance(target, str) else target


def own_target_conflicts(given: Mapping[str, Any]) -> Iterator[Conflict]:
    """Settings of a source's own target that do nothing where other rows are asked than the source's."""
    if given.get("held_out") is not None and (given.get("path") or given.get("split")) is not None:
        yield ("held_out",), "held_out has no effect where other rows are asked; remove it, or path and split"


def _own_target_of(source: Mapping[str, Any]) -> Iterator[Conflict]:
    """Faults of ``target`` in one source as a mapping."""
    target = own_target_mapping(source.get("target"))
    if not isinstance(target, Mapping):
        return
    yield from _placed(("target",), own_target_conflicts(target))
    if source.get("path") is None:
        message = "target asks rows of data, so it is for a source with path; write a target under targets"
        yield ("target",), message
    for key in ("answer", *_WRITTEN):
        if target.get(key) is not None and source.get("label") is not None:
            yield ("target", key), f"{key} has no effect beside the source's label; remove it"
    hub = isinstance(source.get("path"), str) and not is_local_data(source["path"])
    if target.get("split") is not None and target.get("path") is None and not hub:
        yield ("target", "split"), "split has no effect on a local file; give path: the file to be asked"


def duplicate_names(names: Sequence[Any], part: str) -> Iterator[Conflict]:
    """Each name that stands already earlier in its list (``part``: sources or targets).

    Names that differ only in case count as the same: some file systems cannot tell them apart.
    """
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        if not isinstance(name, str):
            continue
        earlier = first.setdefault(name.casefold(), at)
        if earlier != at:
            twin = names[earlier]
            same = "" if twin == name else f" (as {twin!r}; upper and lower case do not tell names apart)"
            message = f"{name!r} is the name of {part}[{earlier}] already{same}; choose another name"
            yield (part, at, "name"), message


def part_conflicts(study: Mapping[str, Any]) -> Iterator[Conflict]:
    """Conflicts inside one source, the model or the training, with their places in the study file."""
    for at, source in enumerate(_sources(study)):
        if isinstance(source, Mapping):
            yield from _placed(("sources", at), source_conflicts(source))
            model = source.get("model")
            if isinstance(model, Mapping):
                yield from _placed(("sources", at, "model"), model_conflicts(model))
            if isinstance(source.get("training"), Mapping):
                yield from _placed(("sources", at, "training"), training_conflicts(source["training"]))
    for at, target in enumerate(map(target_mapping, _listed(study, "targets"))):
        if isinstance(target, Mapping):
            yield from _placed(("targets", at), target_conflicts(target))
    for key, conflicts in (("model", model_conflicts), ("training", training_conflicts)):
        part = study.get(key)
        if isinstance(part, Mapping):
            yield from _placed((key,), conflicts(part))


def study_conflicts(study: Mapping[str, Any]) -> Iterator[Conflict]:
    """Conflicts between the parts of a study: origins of sources, the server, names that stand twice."""
    sources, model = _sources(study), study.get("model")
    asked = study.get("targets")
    own = [source for source in sources if isinstance(source, Mapping) and source.get("target") is not None]
    if not own and (asked is None or asked == [] or asked == ()):
        message = (
            "no target: write targets: a list of lm-eval tasks (such as - gsm8k) or of data files, or "
            "target: under a source"
        )
        yield ("targets",), message
    places = [study, *filter(lambda target: isinstance(target, Mapping), _listed(study, "targets"))]
    if study.get("anchors") is not None and not any(place.get(key) for place in places for key in ENDING):
        message = (
            "anchors estimate what is not asked, and everything is asked here; give ask (such as 0.2), "
            "precision (such as 3) or decide too"
        )
        yield ("anchors",), message
    yield from _own_target_names(study)
    yield from lineage_conflicts(sources)
    yield from endpoint_conflicts(model.get("endpoint") if isinstance(model, Mapping) else None, sources)
    for part in ("sources", "targets"):
        items = map(target_mapping, _listed(study, part))
        names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
        yield from duplicate_names(names, part)


def _own_target_names(study: Mapping[str, Any]) -> Iterator[Conflict]:
    """Each target of a source whose name another target has already."""
    listed = map(target_mapping, _listed(study, "targets"))
    first = {
        target["name"].casefold(): f"targets[{at}]"
        for at, target in enumerate(listed)
        if isinstance(target, Mapping) and isinstance(target.get("name"), str)
    }
    for at, source in enumerate(_listed(study, "sources")):
        target = own_target_mapping(source.get("target")) if isinstance(source, Mapping) else None
        name = (target.get("name") or source.get("name")) if isinstance(target, Mapping) else None
        if not isinstance(name, str):
            continue
        earlier = first.setdefault(name.casefold(), f"sources[{at}].target")
        if earlier != f"sources[{at}].target":
            message = f"{name!r} is the name of {earlier} already; give target a name: of its own"
            yield ("sources", at, "target"), message


def target_mapping(target: Any) -> Any:
    """A target as a mapping with a name where its task or file gives one; anything else as it is."""
    if isinstance(target, str):
        target = {"task": target}
    if not isinstance(target, Mapping) or target.get("name") is not None:
        return target
    if isinstance(target.get("task"), str):
        return {**target, "name": task_stem(target["task"])}
    if isinstance(target.get("path"), str):
        return {**target, "name": data_stem(target["path"])}
    if isinstance(target.get("pack"), str):
        return {**target, "name": task_stem(target["pack"])}
    return target


def _sources(study: Mapping[str, Any]) -> list[Any]:
    return [source_mapping(source) for source in _listed(study, "sources")]


def _listed(study: Mapping[str, Any], key: str) -> Sequence[Any]:
    items = study.get(key)
    return items if isinstance(items, list | tuple) else ()


def _placed(place: Place, conflicts: Iterator[Conflict]) -> Iterator[Conflict]:
    return (((*place, *inner), message) for inner, message in conflicts)
