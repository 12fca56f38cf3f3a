"""Other people's matrices as a prior: what other bases, adapters or runs gained, matched to this one.

Rows and columns are matched by name, else by their texts, else by group (``align``). What a matched cell did
elsewhere then enters as a hierarchical regression: its weight beside this matrix's own popularity is learnt
by holding targets out in the priors themselves, each played as if it were the matrix in question, and drawn
from there to what this matrix's own cells say. Where priors are noise the weight is nothing, and
``evidence_for`` says so, so that they are not used.

Axis order is always (sources, targets); B priors.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.recommendation.problem import effects_of, merits
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.wording import counted

WIDTH = 1024  # of a profile of texts
PROFILE_TEXTS = 200  # of a dataset, evenly spread over it
SAME_TEXTS = 0.9  # cosine of two profiles from which on two datasets of different names may be the same
PULL = 1.0  # cells at zero that a mean over priors is drawn by
Profile = Mapping[str, Array]


@dataclass(frozen=True)
class PriorMatrix:
    """What was measured elsewhere. matrix: (S', T') scores or gains. name: of it, in words.

    profile: task -> (WIDTH,) profile of its texts (``text_profile``), where they are known.
    groups: target -> group; where none are given, targets match by name and text alone.
    """

    name: str
    matrix: TransferMatrix
    profile: Profile = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchedPriors:
    """Priors laid over a matrix of S sources and T targets.

    merit: (B, S, T) merits of matched cells, NaN where there is none. elsewhere: (B, S) sums and counts
    (B, S) of the merits on targets that match none here. words: what was matched, a sentence for each prior.
    """

    merit: Array
    elsewhere: Array
    counts: Array
    words: tuple[str, ...]


def text_profile(texts: Texts) -> dict[str, Array]:
    """(WIDTH,) profile of unit length of every task's texts: which words they use, hashed.

    Root of the share of each word and pair of words among the texts, at a place that follows from its letters
    alone, so that profiles made on different machines can be compared. No text can be read off it.
    """
    profiles = {}
    for name, items in texts.items():
        step = max(len(items) // PROFILE_TEXTS, 1)
        counts: Counter[int] = Counter()
        for item in items[::step][:PROFILE_TEXTS]:
            tokens = re.findall(r"\w+", f"{item.input} {item.output}".lower())
            words = {*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))}
            counts.update(zlib.crc32(word.encode()) % WIDTH for word in words)
        vector = np.sqrt(np.array([counts.get(place, 0) for place in range(WIDTH)], dtype=float))
        length = float(np.linalg.norm(vector))
        if length:
            profiles[name] = vector / length
    return profiles


def align(
    priors: Sequence[PriorMatrix],
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    profile: Profile | None = None,
    groups: Mapping[str, str] | None = None,
) -> MatchedPriors:
    """Lay priors over the sources and targets of a matrix.

    profile: of the texts of both, where they are known; groups: target -> group, where given. MatrixError
    where a prior cannot be used, or shares no source with the matrix.
    """
    merit = np.full((len(priors), len(sources), len(targets)), np.nan)
    elsewhere, counts = np.zeros((2, len(priors), len(sources)))
    words = []
    for b, prior in enumerate(priors):
        try:
            effects = effects_of(prior.matrix)
        except MatrixError as error:
            raise MatrixError(f"the prior {prior.name} cannot be used: {error}") from error
        known = merits(effects.effect)
        rows, how_rows = _matched(sources, effects.sources, profile or {}, prior.profile, {}, {})
        columns, how = _matched(
            targets, effects.targets, profile or {}, prior.profile, groups or {}, prior.groups
        )
        if not any(rows):
            raise MatrixError(
                f"the prior {prior.name} has no source of the matrix, by name or by texts; it has "
                f"{', '.join(effects.sources[:8])}, the matrix {', '.join(list(sources)[:8])}"
            )
        used: set[int] = set()
        for s, at_rows in enumerate(rows):
            for t, at_columns in enumerate(columns):
                cells = known[np.ix_(at_rows, at_columns)]
                if np.isfinite(cells).any():
                    merit[b, s, t] = float(np.nanmean(cells))
                used |= set(at_columns)
            rest = known[np.ix_(at_rows, [t for t in range(known.shape[1]) if t not in used])]
            elsewhere[b, s], counts[b, s] = np.nansum(rest), np.isfinite(rest).sum()
        words.append(
            f"Prior {prior.name}: {_in_words(how_rows, len(sources), 'source')}, "
            f"{_in_words(how, len(targets), 'target')}."
        )
    return MatchedPriors(merit, elsewhere, counts, tuple(words))


def _matched(
    names: Sequence[str],
    others: Sequence[str],
    profile: Profile,
    other_profile: Profile,
    groups: Mapping[str, str],
    other_groups: Mapping[str, str],
) -> tuple[list[list[int]], Counter[str]]:
    """For every name the places of those that it matches among the others, and how many by what."""
    plain = {_plain(name): place for place, name in reversed(list(enumerate(others)))}
    found = [[plain[_plain(name)]] if _plain(name) in plain else [] for name in names]
    how = Counter(name=sum(map(bool, found)))
    taken = {place for places in found for place in places}
    free = [place for place in range(len(others)) if place not in taken and others[place] in other_profile]
    open_names = [place for place, at in enumerate(found) if not at and names[place] in profile]
    if free and open_names:
        alike = np.array([[profile[names[i]] @ other_profile[others[j]] for j in free] for i in open_names])
        for row, place in enumerate(open_names):
            best = int(np.argmax(alike[row]))
            if alike[row, best] >= SAME_TEXTS and int(np.argmax(alike[:, best])) == row:
                found[place] = [free[best]]
                how["texts"] += 1
    for place, name in enumerate(names):
        if not found[place] and name in groups:
            members = [j for j, other in enumerate(others) if other_groups.get(other) == groups[name]]
            found[place] = members
            how["group"] += bool(members)
    return found, how


def _plain(name: str) -> str:
    """A name without case, blanks and signs: ``GSM8K (5-shot)`` is ``gsm8k_5shot``."""
    return re.sub(r"[\W_]+", "", name.lower()) or name


def _in_words(how: Mapping[str, int], count: int, what: str) -> str:
    ways = ", ".join(f"{number} by {way}" for way, number in how.items() if number)
    return f"{sum(how.values())} of {counted(count, what)} matched" + (f" ({ways})" if ways else "")


COLUMNS = ("popularity", "elsewhere_gain", "elsewhere_popularity")


def columns_of(
    prior: MatchedPriors, own: Array | None, blocks: NDArray[np.int64], left_out: int | None = None
) -> Array:
    """(S, T, 3) what stands beside every cell: popularity, what priors say of it, and their popularity.

    own: (S, T) merits of the matrix in question; None gives those of the prior ``left_out``, which then is
    no prior. blocks: (T,) numbers of the targets that are held out together: what is said of a target's
    popularity is without its block. Columns are centred over sources.
    """
    others = [b for b in range(len(prior.merit)) if b != left_out]
    table = prior.merit[left_out] if own is None and left_out is not None else own
    assert table is not None
    merit = prior.merit[others]
    cell = np.nansum(merit, axis=0) / (np.isfinite(merit).sum(axis=0) + PULL)
    columns = np.zeros((*table.shape, 3))
    columns[..., 1] = cell
    outside = blocks[:, None] != blocks[None, :]  # (T, T)
    known = np.isfinite(table)
    columns[..., 0] = (np.where(known, table, 0.0) @ outside) / (known @ outside + PULL)
    total = np.where(np.isfinite(merit), merit, 0.0) @ outside + prior.elsewhere[others][..., None]
    count = np.isfinite(merit) @ outside.astype(float) + prior.counts[others][..., None]
    mean = total / (count + PULL)
    seen = count > 0
    columns[..., 2] = np.where(seen, mean, 0.0).sum(axis=0) / (seen.sum(axis=0) + PULL)
    return np.asarray(columns - columns.mean(axis=0, keepdims=True))


def pooled_weights(
    prior: MatchedPriors, blocks: NDArray[np.int64], ridge: float, without: int | None = None
) -> Array:
    """(3,) weights of ``columns_of`` that predict each prior from the others best, with a ridge penalty.

    without: a prior that is left out altogether. Zeros where fewer than two priors are left.
    """
    kept = [b for b in range(len(prior.merit)) if b != without]
    inner = MatchedPriors(prior.merit[kept], prior.elsewhere[kept], prior.counts[kept], prior.words)
    gram, along = ridge * np.eye(3), np.zeros(3)
    if len(kept) < 2:
        return along
    for b in range(len(kept)):
        x, y = columns_of(inner, None, blocks, b), inner.merit[b]
        known = np.isfinite(y)
        gram += x[known].T @ x[known]
        along += x[known].T @ y[known]
    return np.asarray(np.linalg.solve(gram, along))


def played(prior: MatchedPriors, blocks: NDArray[np.int64], ridge: float) -> list[tuple[Array, Array, Array]]:
    """Every prior as if it were the matrix in question: its merits, and two predictions of them, all (S, T).

    The first by weights learnt on the other priors alone, the second popularity within the prior. Priors are
    left out that fewer than two others can be held against.
    """
    if len(prior.merit) < 3:
        return []
    tables = []
    for b in range(len(prior.merit)):
        x = columns_of(prior, None, blocks, b)
        tables.append((prior.merit[b], x @ pooled_weights(prior, blocks, ridge, b), x[..., 0]))
    return tables
