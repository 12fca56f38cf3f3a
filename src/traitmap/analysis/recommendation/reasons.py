"""Why a source stands where it does: what its prediction is made of, in a few sentences with numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from traitmap.analysis.profiles.pairs import Reason
from traitmap.analysis.recommendation.models import Parts
from traitmap.matrix.record import Array

_MOST_REASONS = 4
_LEAST_REASON = 0.1  # of the strongest
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
    ("surface", "content, style and words", r"style_|semantic_|mmd|vocabulary_"),
    (
        "size",
        "size and richness",
        r"(source|target)_(size|tokens|richness|perplexity|forgetting|(own_)?divergence)",
    ),
    ("embeddings", "embeddings", r"embedding_"),
    ("alike_targets", "it helps targets like this one", r"alike targets"),
    ("alike_sources", "sources like it help other targets", r"popularity of alike sources"),
    ("popularity", "it helps other targets", r"popularity$"),
    ("prior", "what it did elsewhere", r"elsewhere_"),
    ("similarity", "similarity given", r"similarity_"),
    ("weights", "weights of the adapters", r"weights_"),
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
        usual = float(np.mean([part.get(name, 0.0) for part in parts]))
        group = next(
            ((kind, title) for kind, title, pattern in _PATTERNS if pattern.match(name)),
            (name, _plain_words(name, words)),
        )
        groups.setdefault(group, {})[name] = (value - usual) * unit
    reasons = []
    for (kind, title), members in groups.items():
        total = sum(members.values())
        if not total:
            continue
        text = f"{title} {total:+.1f}"
        # the member that speaks loudest in the same sense, with the source's place among all
        agreeing = [name for name in members if name in features and members[name] * total > 0]
        if agreeing:
            loudest = max(agreeing, key=lambda name: abs(members[name]))
            text += f" ({_plain_words(loudest, words)}: {_rank(loudest, features[loudest], place)})"
        reasons.append(Reason(kind, text, total))
    reasons.sort(key=lambda reason: (-abs(reason.strength), reason.kind))
    least = max(0.05, _LEAST_REASON * abs(reasons[0].strength)) if reasons else 0.0
    return tuple(reason for reason in reasons if abs(reason.strength) >= least)[:_MOST_REASONS]


def _plain_words(name: str, words: Mapping[str, str]) -> str:
    """What a feature says, without the remark in brackets."""
    return _REMARK.sub("", words.get(name, name))


def _rank(name: str, values: Array, place: int) -> str:
    """Where a source stands: first is nearest to the target, of distances, else highest."""
    if not np.isfinite(values[place]):
        return "unknown"
    known = values[np.isfinite(values)]
    apart = name.endswith(("_distance", "_difference")) or name == "mmd"
    before = int((known < values[place]).sum() if apart else (known > values[place]).sum())
    ordinal = before + 1
    suffix = "th" if ordinal % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(ordinal % 10, "th")
    return f"{ordinal}{suffix} of {len(known)}"
