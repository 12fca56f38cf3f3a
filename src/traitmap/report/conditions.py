"""Run conditions as a tree of text: whatever was recorded is shown, whatever its shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from math import isnan
from typing import Any

import yaml

from traitmap import __version__
from traitmap.report.svg import clean
from traitmap.report.tables import in_time


@dataclass(frozen=True)
class Node:
    """A name with either a text or further nodes. block: the text has lines of its own."""

    name: str
    text: str = ""
    block: bool = False
    children: tuple[Node, ...] = ()


def tree(conditions: Mapping[str, Any]) -> tuple[Node, ...]:
    """One node for each key, in the order given."""
    return tuple(_node(str(name), value) for name, value in conditions.items())


def _node(name: str, value: Any) -> Node:
    name = clean(name)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return Node(name, children=tree(value)) if value else Node(name, "none")
    if isinstance(value, AbstractSet):
        value = sorted(value, key=str)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _sequence(name, value)
    text = scalar(value)
    return Node(name, text, block="\n" in text)


def _sequence(name: str, values: Sequence[Any]) -> Node:
    """Scalars side by side; anything deeper as nodes, called by their own ``name`` or number."""
    if all(not isinstance(value, Mapping | list | tuple) for value in values):
        return Node(name, ", ".join(scalar(value) for value in values) or "none")
    children = []
    for number, value in enumerate(values, start=1):
        own = value.get("name") if isinstance(value, Mapping) else None
        children.append(_node(str(own or number), value))
    return Node(name, children=tuple(children))


def scalar(value: Any) -> str:
    """A single value as text; unknown says so."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "unknown" if isnan(value) else f"{value:.10g}"
    return clean(value)


def study_file(conditions: Mapping[str, Any]) -> str:
    """The study as it was run, as YAML that runs again, or an empty string where none was recorded."""
    study = conditions.get("study")
    if not isinstance(study, Mapping):
        return ""
    plain = json.loads(json.dumps(study, default=str))
    return yaml.safe_dump(_without_unset(plain), sort_keys=False, allow_unicode=True, width=100)


def _without_unset(value: Any) -> Any:
    """Without what was left at nothing, which is the default everywhere."""
    if isinstance(value, dict):
        kept = {key: _without_unset(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None and one not in ({}, [])}
    return [_without_unset(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Group:
    """A few facts of one kind, name and value."""

    name: str
    facts: tuple[tuple[str, str], ...]


def summary(conditions: Mapping[str, Any], spent: Mapping[str, float]) -> tuple[Group, ...]:
    """What a reader looks up first: seeds, digests, versions, what the run took. No empty groups."""
    engine = conditions.get("engine")
    engine = engine if isinstance(engine, Mapping) else {}
    versions = engine.get("versions") or conditions.get("versions")
    digests = conditions.get("digests")
    identity = {
        "Seeds": ", ".join(map(str, conditions.get("seeds") or ())),
        "Base": find(conditions, "base", "model.path", "study.model.path"),
        "Digest of the base": _short(find(conditions, "base_digest", "digests.base")),
        "Digest of the study": _short(find(conditions, "study_digest", "digests.study")),
    }
    made = {
        "traitmap": find(conditions, "traitmap", "versions.traitmap") or __version__,
        **{
            str(name): scalar(one)
            for name, one in (versions if isinstance(versions, Mapping) else {}).items()
        },
        "Device": scalar(engine["device"]) if engine.get("device") else "",
        "Numbers": scalar(engine["dtype"]) if engine.get("dtype") else "",
        "Parameters": f"{engine['parameters']:,}" if isinstance(engine.get("parameters"), int) else "",
    }
    more = digests if isinstance(digests, Mapping) else {}
    identity |= {
        f"Digest: {name}": scalar(one) for name, one in more.items() if name not in ("base", "study")
    }
    took = {
        name[:1].upper() + name[1:].removesuffix(" seconds"): in_time(value)
        if name.endswith(" seconds")
        else f"{value:,.0f}"
        for name, value in spent.items()
    }
    groups = (("Identity", identity), ("Made with", made), ("What it took", took))
    return tuple(
        Group(name, tuple((key, value) for key, value in facts.items() if value))
        for name, facts in groups
        if any(facts.values())
    )


def _short(digest: str) -> str:
    """Enough of a digest to tell it apart; the whole stands among all that was recorded."""
    return digest if len(digest) <= 16 else f"{digest[:12]}…"


def citation() -> str:
    """BibTeX of the paper and of this program."""
    return f"""@misc{{krishna2025latent,
  title         = {{Latent Traits and Cross-Task Transfer: Deconstructing Dataset Interactions in LLM
                   Fine-tuning}},
  author        = {{Krishna, Shambhavi and Naik, Atharva and Agarwal, Chaitali and Govindan, Sudharshan and
                   Lee, Taesung and Chang, Haw-Shiuan}},
  year          = {{2025}},
  eprint        = {{2509.13624}},
  archivePrefix = {{arXiv}}
}}

@software{{traitmap,
  title   = {{traitmap: transfer matrices, latent traits and their uncertainty}},
  version = {{{__version__}}},
  year    = {{2026}}
}}"""


def find(conditions: Mapping[str, Any], *paths: str) -> str:
    """The first of some dotted paths that holds a plain value, as text, or an empty string."""
    for path in paths:
        value: Any = conditions
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping | list | tuple):
            return scalar(value)
    return ""
