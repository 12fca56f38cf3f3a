"""Families of variations in a run: which sources differ in one thing alone, and by how much."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

_AMOUNTS = ("match_tokens", "match_steps")  # hold the amount of training equal to what the parent has


@dataclass(frozen=True)
class Family:
    """Sources made from one parent by the same kind of change, in different doses.

    parent: the source that they are made from; it need not have been trained.
    kind: what was changed, a key of the study file. setting: how, beside the dose (``mode`` of mislabel).
    sources, doses: by rising dose, sources of unknown dose (NaN) last. The parent stands among them where it
        was trained and nothing else was changed in the others.
    meaning: what the dose counts; empty where it is unknown.
    """

    parent: str
    kind: str
    setting: str
    sources: tuple[str, ...]
    doses: tuple[float, ...]
    meaning: str

    @property
    def variations(self) -> tuple[str, ...]:
        """The sources without the parent."""
        return tuple(name for name in self.sources if name != self.parent)


def families(sources: Mapping[str, Mapping[str, Any]]) -> tuple[Family, ...]:
    """Families among the sources of a run, in the order of the study; one of a single variation counts too.

    sources: what the run says of each, by name, with the key ``variation``: ``matrix.conditions["sources"]``.
    Mixtures (``concat``) make no family.
    """
    grouped: dict[tuple[str, str, str], dict[str, float]] = {}
    meanings: dict[tuple[str, str, str], str] = {}
    for name, source in sources.items():
        variation = source.get("variation")
        if not variation or variation["kind"] == "concat":
            continue
        parent, kind = variation["parents"][0], variation["kind"]
        key = parent, kind, _setting(kind, variation["changes"])
        members = grouped.setdefault(key, {})
        beside = set(variation["changes"]) - set(kind.split("+")) - set(_AMOUNTS)
        if parent in sources and not beside:
            members.setdefault(parent, _number(variation["parent_dose"]))
        members[name] = _number(variation["dose"])
        meanings[key] = variation["meaning"]
    return tuple(_family(key, members, meanings[key]) for key, members in grouped.items())


def _family(key: tuple[str, str, str], members: Mapping[str, float], meaning: str) -> Family:
    order = sorted(members, key=lambda name: (members[name] != members[name], members[name]))
    return Family(*key, tuple(order), tuple(members[name] for name in order), meaning)


def _setting(kind: str, changes: Mapping[str, Any]) -> str:
    """All that the members of a family share: every setting but the dose itself."""
    shared = {name: value for name, value in changes.items() if name != kind}
    if kind == "mislabel":
        shared = {"mode": changes[kind]["mode"], **shared}
    return json.dumps(shared, sort_keys=True) if shared else ""


def _number(value: float | None) -> float:
    return nan if value is None else float(value)
