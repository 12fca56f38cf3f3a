"""What share of its relations each one makes up in a dataset, and how far two datasets are apart."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon

from traitmap.analysis.pair_features import Feature
from traitmap.analysis.profiles.syntax_parser import Relations


def relation_shares(relations: Relations) -> dict[str, float]:
    """Share of all relations that each one makes up; derived ones are left out, being counted."""
    totals = relations.counts.sum(axis=0)
    own = [number for number, label in enumerate(relations.labels) if label not in relations.derived]
    whole = int(totals[own].sum())
    return {relations.labels[number]: float(totals[number] / whole) for number in own} if whole else {}


def relations_json(relations: Relations) -> dict[str, Any]:
    """Plain JSON data: how many texts were parsed, by what, and how common each relation is in them."""
    parsed = len(relations.texts)
    return {
        "parser": relations.parser,
        "scheme": relations.scheme,
        "derived": dict(relations.derived),
        "parsed": parsed,
        "available": relations.available,
        "cut": relations.cut,
        "words": int(relations.words.sum()),
        "relations": {
            label: {"count": int(relations.counts[:, r].sum()), "texts": int(relations.present[:, r].sum())}
            for r, label in enumerate(relations.labels)
        },
    }


def syntax_feature(sources: Mapping[str, Relations], targets: Mapping[str, Relations]) -> Feature:
    """(S, T) distance of the relations that make up the texts: Jensen-Shannon, 0 the same to 1 disjoint."""
    shares = [relation_shares(one) for one in (*sources.values(), *targets.values())]
    labels = sorted({label for one in shares for label in one})
    table = np.array([[one.get(label, 0.0) for label in labels] for one in shares]).reshape(
        len(shares), len(labels)
    )
    values = np.full((len(sources), len(targets)), nan)
    for s in range(len(sources)):
        for t in range(len(targets)):
            one, other = table[s], table[len(sources) + t]
            if one.sum() and other.sum():
                values[s, t] = jensenshannon(one, other, base=2)
    return Feature(
        "syntax_distance", "hidden", "dependency relations in other proportions than the target's", values
    )
