"""What do the targets that load on a component have in common? Names by over-representation of their tags."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from traitmap.analysis.traits.records import NameEvidence, Traits
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array

NOTHING_STANDS_OUT = "no common property"
UNSTABLE = "not stable enough to name"


def name_component(
    loadings: Array,
    targets: Sequence[str],
    tags: Mapping[str, tuple[str, ...]],
    *,
    level: float = 0.05,
    shuffles: int = 2000,
    seed: int = 0,
) -> NameEvidence:
    """Describe one component (T,) by the tag that its loadings favour most, if any does so beyond chance.

    For each tag and each pole, the share of squared loading on targets with the tag is compared with
    what the tag would have if loadings were shuffled over targets, as a z-score; the largest z over all
    tags and poles is tested against its own shuffles, which pays for looking at many tags
    (Westfall & Young 1993). Tags on fewer than two targets, or on all, say nothing in common.
    """
    known = np.isfinite(loadings)
    member = {
        tag: np.array([tag in tags.get(t, ()) for t in targets]) & known
        for tag in sorted({tag for t in targets for tag in tags.get(t, ())})
    }
    member = {tag: mask for tag, mask in member.items() if 2 <= mask.sum() < known.sum()}
    if not member:
        return NameEvidence(NOTHING_STANDS_OUT, "none", reason="no tag is on two or more but not all targets")
    names = list(member)
    masks = np.stack([member[name] for name in names])[:, known].astype(float)
    weights = loadings[known]
    squares = weights**2 / max(float((weights**2).sum()), 1e-300)  # as shares of all
    poles = np.stack([np.where(weights > 0, squares, 0.0), np.where(weights < 0, squares, 0.0)], axis=-1)
    scores, lifts = _tag_scores(poles, masks)
    generator = np.random.default_rng([seed, 4])
    order = np.argsort(generator.random((shuffles, len(poles))), axis=1)
    reached = _tag_scores(poles[order], masks)[0].max(axis=(1, 2))
    best = scores.argmax(axis=0)
    p = np.array([(1 + (reached >= scores[best[k], k] - 1e-12).sum()) / (1 + shuffles) for k in (0, 1)])
    winner = int(np.argmin(p))
    tag, lift = names[best[winner]], float(lifts[best[winner], winner])
    facts = (tag, "+-"[winner], lift, float(p[winner]))
    if p[winner] > level:
        reason = (
            f"the best tag, {tag!r} on the {'+-'[winner]} side, has lift {lift:.1f} and p {p[winner]:.2f}"
        )
        return NameEvidence(NOTHING_STANDS_OUT, "none", *facts, reason=reason)
    positive = names[best[0]] if p[0] <= level else ""
    negative = f"against {names[best[1]]}" if p[1] <= level else ""
    return NameEvidence(" ".join(part for part in (positive, negative) if part), "tags", *facts)


def _tag_scores(poles: Array, masks: Array) -> tuple[Array, Array]:
    """z-scores and lifts (..., tags, 2) of the poles' weight (..., T, 2) on tagged targets (tags, T).

    Under shuffling, the sum over n of T weights has mean n times their mean and variance
    n (T - n) / (T - 1) times their variance (sampling without replacement).
    """
    count = masks.sum(axis=1)[:, None]
    size = masks.shape[1]
    total = masks @ poles
    mean, variance = poles.mean(axis=-2)[..., None, :], poles.var(axis=-2)[..., None, :]
    spread = np.sqrt(np.maximum(count * (size - count) / (size - 1) * variance, 1e-300))
    expected = count * mean
    lift = np.where(expected > 0, total / np.where(expected > 0, expected, 1.0), 0.0)
    return np.where(variance > 1e-15, (total - expected) / spread, 0.0), lift


def name_components(
    loadings: Array,
    targets: Sequence[str],
    tags: Mapping[str, tuple[str, ...]],
    names: Sequence[str],
    *,
    supported: int,
    stable: Collection[int],
    seed: int,
) -> tuple[NameEvidence, ...]:
    """Names of all C components with loadings (T, C), each with its evidence.

    names: the user's, for the first components. stable: which of the supported ones are stable enough to be
    named, by ``name_component``.
    MatrixError where there are more names than components.
    """
    count = loadings.shape[1]
    _check_count(names, count)
    evidence = []
    for c in range(count):
        if c < len(names):
            evidence.append(NameEvidence(names[c], "user"))
        elif c < supported and c not in stable:
            reason = "it changes with the choice of sources, or cannot be told from another one"
            evidence.append(NameEvidence(UNSTABLE, "none", reason=reason))
        elif c < supported:
            evidence.append(name_component(loadings[:, c], targets, tags, seed=seed + c))
        else:
            evidence.append(NameEvidence(NOTHING_STANDS_OUT, "none", reason="the data do not support it"))
    return tuple(evidence)


def rename(traits: Traits, names: Sequence[str], *, origin: str = "user") -> Traits:
    """The same traits, the first components renamed.

    origin: ``user`` or ``endpoint``, kept with each name. MatrixError where there are more names than
    components.
    """
    _check_count(names, len(traits.names))
    renamed = tuple(NameEvidence(name, origin) for name in names)
    naming = renamed + traits.naming[len(renamed) :]
    return replace(traits, naming=naming, names=tuple(evidence.name for evidence in naming))


def _check_count(names: Sequence[str], count: int) -> None:
    if len(names) > count:
        raise MatrixError(f"{len(names)} names were given for {count} components; give at most {count}")
