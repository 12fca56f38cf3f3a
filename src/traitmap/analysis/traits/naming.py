"""What do the targets that load on a component have in common? Over-representation of their tags.

What the traits say and what they cannot tell, in plain words with their numbers.

The record of traits as plain JSON values; unknown numbers become null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from traitmap.analysis.traits.findings import exact_rank, listed, read_count, used_share
from traitmap.analysis.traits.records import NameEvidence, Resampling, Traits
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array

NOTHING_STANDS_OUT = "no common property"


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
    weights = np.where(known, loadings, 0.0)
    member = {
        tag: np.array([tag in tags.get(t, ()) for t in targets]) & known
        for tag in sorted({tag for t in targets for tag in tags.get(t, ())})
    }
    member = {tag: mask for tag, mask in member.items() if 2 <= mask.sum() < known.sum()}
    if not member:
        return NameEvidence(NOTHING_STANDS_OUT, "none", reason="no tag is on two or more but not all targets")
    names = list(member)
    masks = np.stack([member[name] for name in names])[:, known].astype(float)
    poles = _poles(weights[known])
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


def _poles(loadings: Array) -> Array:
    """(T, 2) squared loadings of the positive and the negative pole, as shares of all."""
    squares = loadings**2 / max(float((loadings**2).sum()), 1e-300)
    return np.stack([np.where(loadings > 0, squares, 0.0), np.where(loadings < 0, squares, 0.0)], axis=-1)


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
    given: Sequence[str],
    *,
    supported: int,
    seed: int,
) -> tuple[NameEvidence, ...]:
    """Names of all components (T, C): the user's for the first ones, then by tags for the supported ones."""
    count = loadings.shape[1]
    if len(given) > count:
        raise MatrixError(f"{len(given)} names were given for {count} components; give at most {count}")
    evidence = []
    for c in range(count):
        if c < len(given):
            evidence.append(NameEvidence(given[c], "user"))
        elif c < supported:
            evidence.append(name_component(loadings[:, c], targets, tags, seed=seed + c))
        else:
            evidence.append(NameEvidence(NOTHING_STANDS_OUT, "none", reason="the data do not support it"))
    return tuple(evidence)


def rename(traits: Traits, names: Sequence[str], *, origin: str = "user") -> Traits:
    """The same traits, the first components renamed."""
    if len(names) > len(traits.names):
        count = len(traits.names)
        raise MatrixError(f"{len(names)} names were given for {count} components; give at most {count}")
    given = tuple(NameEvidence(name, origin) for name in names)
    naming = given + traits.naming[len(given) :]
    return replace(traits, naming=naming, names=tuple(evidence.name for evidence in naming))


MOST_NAMED = 4  # targets or sources named for one component


def describe(traits: Traits) -> list[str]:
    """One sentence or two per line: what is supported, each used component, what cannot be told."""
    used = traits.n_components["used"]
    lines = [_support(traits), _against_null(traits)]
    lines += [_component(traits, c) for c in range(min(used, len(traits.names)))]
    lines += [line for line in (_stability(traits), _noise(traits), _smallest_visible(traits)) if line]
    return lines


def _support(traits: Traits) -> str:
    """How many components, and by which criterion."""
    counts, shape = traits.n_components, f"{traits.conditions['rows']} x {traits.conditions['columns']}"
    errors = traits.cross_validation.errors
    if counts["cv"] == 0:
        found = f"No trait is supported: in this {shape} table a target's mean predicts held-out cells best"
    else:
        gain = 1 - errors[counts["cv"]] / errors[0] if errors[0] > 0 else float("nan")
        subject, pronoun = ("1 trait is", "it predicts") if counts["cv"] == 1 else (
            f"{counts['cv']} traits are", "they predict"
        )  # fmt: skip
        found = (
            f"{subject} supported in this {shape} table: {pronoun} held-out cells {gain:.0%} better than "
            "the target's mean"
        )
    others = f"parallel analysis says {counts['parallel']}, the permutation null {counts['permutation']}"
    chosen = f"; {counts['used']} used, as asked" if counts["used"] != counts["cv"] else ""
    return f"{found} ({others}{chosen})."


def _against_null(traits: Traits) -> str:
    """The explained variance beside what tables without structure give."""
    count = read_count(traits)
    share, (mean, low, high) = used_share(traits, count)
    subject = "The first component explains" if count == 1 else f"The first {count} components explain"
    if not np.isfinite(mean):
        return f"{subject} {share:.1%} of the variance; no null was computed, so this says nothing yet."
    noise = f"tables without structure give {mean:.1%} (5-95 %: {low:.1%} to {high:.1%})"
    claimed = traits.conditions.get("claimed_share")
    if claimed is not None:
        verdict = "exceeds" if claimed > high else "does not exceed"
        shape = f"{traits.conditions['rows']} x {traits.conditions['columns']}"
        return f"The claimed {claimed:.0%} of the variance {verdict} chance at {shape}, where {noise}."
    if (rank := exact_rank(traits)) is not None:
        return f"The table has rank {rank}: its first {rank} components explain all of it by construction."
    verdict = "is above its null" if share > high else "is not above its null"
    return f"{subject} {share:.1%} of the variance, where {noise}: the explained variance {verdict}."


def _component(traits: Traits, c: int) -> str:
    """One used component: its name, what loads on it, which sources stand at its ends."""
    loading = np.nan_to_num(traits.loadings[:, c])
    order = np.argsort(-np.abs(loading), kind="stable")[:MOST_NAMED]
    strongest = listed([f"{traits.targets[t]} {loading[t]:+.2f}{_interval(traits, t, c)}" for t in order])
    effect = traits.effects[:, c]
    known = np.flatnonzero(np.isfinite(effect))
    ends = known[np.argsort(-np.abs(effect[known]), kind="stable")][:2]
    moved = listed([f"{traits.sources[s]} {_effect(traits, s, c)}" for s in ends])
    against = "the base" if traits.conditions["effects_against"] == "base" else "the mean of the sources"
    name = f"PC{c} ({traits.names[c]})"
    return f"{name} loads most on {strongest}. Against {against}, it moves most: {moved}."


def _interval(traits: Traits, target: int, c: int) -> str:
    """The loading's interval in brackets, if there is one."""
    low, high = traits.loadings_low[target, c], traits.loadings_high[target, c]
    return f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else ""


def _effect(traits: Traits, source: int, c: int) -> str:
    """An effect in points with its interval, or the words that it has none."""
    low, high = traits.effects_low[source, c], traits.effects_high[source, c]
    interval = f"[{low:.1f}, {high:.1f}]" if np.isfinite(low) else "[interval unknown]"
    return f"{traits.effects[source, c]:+.1f} points {interval}"


def _stability(traits: Traits) -> str:
    """Which used components come back when the sources are drawn again."""
    rows = traits.stability.resamplings.get("adapters")
    used = min(traits.n_components["used"], traits.stability.examined)
    if rows is None or used == 0:
        return ""
    parts = []
    for c in range(used):
        noise = rows.noise_p95[c]
        level = f", noise reaches {noise:.2f}" if np.isfinite(noise) else ""
        parts.append(
            f"PC{c} {rows.congruence_mean[c]:.2f} (5th percentile {rows.congruence_p05[c]:.2f}{level})"
        )
    worst = traits.stability.resamplings.get("leave_one_source_out")
    single = ""
    if worst is not None:
        single = "; the single source whose omission turns it most: " + listed(
            [f"PC{c} {worst.worst[c]}" for c in range(used)]
        )
    return f"Congruence over {rows.draws} draws of the sources: {listed(parts)}{single}."


def _noise(traits: Traits) -> str:
    """How much of the table is measurement noise."""
    noise = traits.noise
    if noise.origin == "unknown" or not np.isfinite(noise.total_share):
        return f"How much of the table is measurement noise cannot be told: {noise.reason}."
    count = max(traits.n_components["used"], 1)
    corrected = noise.signal_ratio[:count].sum()
    share = traits.explained_variance_ratio[:count].sum()
    subject = "component" if count == 1 else f"{count} components"
    rest = (
        f"; without it the first {subject} would hold {corrected:.1%} rather than {share:.1%}"
        if np.isfinite(corrected)
        else f"; {noise.reason}"
    )
    return f"Measurement noise is expected to be {noise.total_share:.1%} of the variance{rest}."


def _smallest_visible(traits: Traits) -> str:
    """What a table of this size cannot show."""
    if not np.isfinite(traits.null_p95[0]):
        return ""
    return (
        f"What cannot be told: a trait that holds less than about {traits.null_p95[0]:.0%} of the variance "
        "does not stand out by its variance alone in a table of this size."
    )


def plain(value: Any) -> Any:
    """Arrays to lists, tuples to lists, numpy scalars to Python's, NaN and infinities to None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def to_json(traits: Traits) -> dict[str, Any]:
    """Everything in the record, keyed by source and target names."""
    by_source, by_target = _keyed(traits.sources), _keyed(traits.targets)
    return {
        "n_components": dict(traits.n_components),
        "explained_variance_ratio": plain(traits.explained_variance_ratio),
        "null_explained_variance_ratio": {
            "mean": plain(traits.null_mean),
            "p05": plain(traits.null_p05),
            "p95": plain(traits.null_p95),
        },
        "null_cumulative": {
            "mean": plain(traits.null_cumulative_mean),
            "p05": plain(traits.null_cumulative_p05),
            "p95": plain(traits.null_cumulative_p95),
        },
        "singular_values": plain(traits.singular_values),
        "loadings": by_target(traits.loadings),
        "loadings_low": by_target(traits.loadings_low),
        "loadings_high": by_target(traits.loadings_high),
        "scores": by_source(traits.scores),
        "scores_u": by_source(traits.scores_u),
        "base_scores": plain(traits.base_scores),
        "effects": by_source(traits.effects),
        "effects_low": by_source(traits.effects_low),
        "effects_high": by_source(traits.effects_high),
        "leverage": by_source(traits.leverage),
        "biplot": _biplot(traits),
        "cross_validation": plain(asdict(traits.cross_validation)),
        "stability": _traits_json_stability(traits),
        "noise": {
            "origin": traits.noise.origin,
            "variance": by_target(traits.noise.variance),
            "share": by_target(traits.noise.share),
            "reliability": by_target(traits.noise.reliability),
            "signal_ratio": plain(traits.noise.signal_ratio),
            "total_share": plain(traits.noise.total_share),
            "reason": traits.noise.reason,
        },
        "rotation": plain(traits.rotation),
        "factor_correlation": plain(traits.factor_correlation),
        "rotated_variance_ratio": plain(traits.rotated_variance_ratio),
        "names": list(traits.names),
        "naming": [plain(asdict(evidence)) for evidence in traits.naming],
        "words": describe(traits),
        "warnings": [plain(asdict(warning)) for warning in traits.warnings],
        "conditions": plain(traits.conditions),
    }


def _keyed(names: Sequence[str]) -> Any:
    """A function from an array whose first axis runs over ``names`` to a mapping by name."""

    def keyed(array: Array) -> dict[str, Any]:
        return {name: plain(row) for name, row in zip(names, array, strict=True)}

    return keyed


def _biplot(traits: Traits) -> dict[str, Any] | None:
    """The first two components as a plane, with the covariance of each point."""
    plane = traits.biplot
    if plane is None:
        return None
    by_source, by_target = _keyed(traits.sources), _keyed(traits.targets)
    return {
        "scores": by_source(plane.scores),
        "loadings": by_target(plane.loadings),
        "scores_covariance": by_source(plane.scores_covariance),
        "loadings_covariance": by_target(plane.loadings_covariance),
        "draws": plane.draws,
    }


def _traits_json_stability(traits: Traits) -> dict[str, Any]:
    """Resamplings by kind, overlapping components, intervals of the shares of variance."""
    stability = traits.stability
    return {
        "examined": stability.examined,
        "resamplings": {kind: _resampling(found) for kind, found in stability.resamplings.items()},
        "overlaps": [plain(asdict(overlap)) for overlap in stability.overlaps],
        "explained_variance_ratio_low": plain(stability.eigenvalue_low),
        "explained_variance_ratio_high": plain(stability.eigenvalue_high),
    }


def _resampling(found: Resampling) -> dict[str, Any]:
    """One kind of resampling."""
    return {
        "draws": found.draws,
        "congruence_mean": plain(found.congruence_mean),
        "congruence_p05": plain(found.congruence_p05),
        "noise_p95": plain(found.noise_p95),
        "worst": list(found.worst),
    }
