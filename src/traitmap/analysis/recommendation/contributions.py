"""What a predicted gain is made of, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from traitmap.analysis.reason import Reason
from traitmap.analysis.recommendation.models import Parts
from traitmap.matrix_record import Array

MOST = 4
_LEAST = 0.1  # of the strongest reason
_REMARK = re.compile(r" \([^)]*\)$")
# Features that say nearly the same share a contribution at random between them; only their sum means much.
_GROUPS = (
    ("lengths", "lengths of outputs and inputs", r"(source|target)_(out|in)put_|(out|in)put_length"),
    ("classes", "classes and labels", r"((source|target)_)?(class|majority|choices|label_|prior_)"),
    (
        "form",
        "form of questions and answers",
        r"((source|target)_)?(answer_form|question_form|format|closed|polar|copied|pairing|containment|segments)",
    ),
    ("surface", "meaning, style and words", r"style_|semantic_|mmd|vocabulary_"),
    ("size", "size and richness", r"(source|target)_(size|tokens|richness|perplexity)"),
    ("embeddings", "embeddings", r"embedding_"),
    ("alike_targets", "it helps targets like this one", r"alike targets"),
    ("alike_sources", "sources like it help other targets", r"popularity of alike sources"),
    ("popularity", "it helps other targets", r"popularity$"),
    ("traits", "its traits suit the target", r"traits$"),
)
_PATTERNS = tuple((kind, words, re.compile(pattern)) for kind, words, pattern in _GROUPS)


def reasons_of(
    parts: Sequence[Parts],
    place: int,
    words: Mapping[str, str],
    features: Mapping[str, Array],
    unit: float,
) -> tuple[Reason, ...]:
    """The strongest contributions to one source's predicted gain, relative to the mean of all sources.

    parts: of every source, standardised; place: of the source. Contributions of features that say nearly
    the same are added up, and the strongest of them is named. features: (S,) values of the features of
    pairs, by name, to tell where a source stands among all. unit: gain of one standard deviation.
    """
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in parts[place].items():
        usual = float(np.mean([one.get(name, 0.0) for one in parts]))
        groups.setdefault(_group(name, words), {})[name] = (value - usual) * unit
    found = [
        Reason(kind, _said(said, total, members, words, features, place), total)
        for (kind, said), members in groups.items()
        if (total := sum(members.values()))
    ]
    found.sort(key=lambda one: (-abs(one.strength), one.kind))
    least = max(0.05, _LEAST * abs(found[0].strength)) if found else 0.0
    return tuple(one for one in found if abs(one.strength) >= least)[:MOST]


def _group(name: str, words: Mapping[str, str]) -> tuple[str, str]:
    for kind, said, pattern in _PATTERNS:
        if pattern.match(name):
            return kind, said
    return name, _REMARK.sub("", words.get(name, name))


def _said(
    said: str,
    total: float,
    members: Mapping[str, float],
    words: Mapping[str, str],
    features: Mapping[str, Array],
    place: int,
) -> str:
    """A group with its points, and its member that speaks loudest in the same sense."""
    text = f"{said} {total:+.1f}"
    told = [name for name in members if name in features and members[name] * total > 0]
    if not told:
        return text
    loudest = max(told, key=lambda name: abs(members[name]))
    plain = _REMARK.sub("", words.get(loudest, loudest))
    return f"{text} ({plain}: {_rank(loudest, features[loudest], place)})"


def _rank(name: str, values: Array, place: int) -> str:
    """Where a source stands: first is nearest to the target, of distances, else highest."""
    if not np.isfinite(values[place]):
        return "unknown"
    known = values[np.isfinite(values)]
    apart = name.endswith(("_distance", "_difference")) or name == "mmd"
    before = int((known < values[place]).sum() if apart else (known > values[place]).sum())
    return f"{_ordinal(before + 1)} of {len(known)}"


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
