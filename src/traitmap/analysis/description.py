"""What the traits say and what they cannot tell, in plain words with their numbers."""

from __future__ import annotations

import numpy as np

from traitmap.analysis.findings import exact_rank, listed, read_count, used_share
from traitmap.analysis.records import Traits

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
