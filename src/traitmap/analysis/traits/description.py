"""What the traits say and what they cannot tell, in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from traitmap.analysis.traits.records import Traits

ROUNDING = 1e-3  # of the largest singular value; smaller ones come from rounded numbers
MOST_NAMED = 4  # targets or sources named for one component


def read_count(traits: Traits) -> int:
    """How many components people will read: the used ones, or the first four where none is used."""
    return traits.n_components["used"] or min(4, len(traits.explained_variance_ratio))


def exact_rank(traits: Traits) -> int | None:
    """The rank (up to rounding) of a complete table, if it is at most half of what its shape allows.

    None where cells are missing or masked: completion would make the rank. Such a table is a
    reconstruction of something larger.
    """
    if traits.conditions["missing_cells"] or traits.conditions["masked_cells"]:
        return None
    singular = traits.singular_values
    rank = int((singular > ROUNDING * singular[0]).sum())
    return rank if rank <= len(singular) / 2 else None


def used_share(traits: Traits, count: int) -> tuple[float, tuple[float, float, float]]:
    """Explained variance ratio of the first ``count`` components, and (mean, p05, p95) of its null.

    count: at least 1. Shares are from 0 to 1; the null's are NaN where none was drawn.
    """
    share = float(traits.explained_variance_ratio[:count].sum())
    at = count - 1
    band = (traits.null_cumulative_mean[at], traits.null_cumulative_p05[at], traits.null_cumulative_p95[at])
    return share, (float(band[0]), float(band[1]), float(band[2]))


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in words: a, b and c; long lists are cut with a count."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def describe(traits: Traits) -> list[str]:
    """One sentence or two per line, each with its numbers.

    How many components fit, count and can be named; their share of variance and its null; each used one with
    what loads on it and which sources it moves; stability; measurement noise; what cannot be told.
    """
    used = traits.n_components["used"]
    lines = [_support(traits), _against_null(traits)]
    lines += [_component(traits, c) for c in range(min(used, len(traits.names)))]
    lines += [_stability(traits), _noise(traits)]
    if np.isfinite(traits.null_p95[0]):
        lines.append(
            "What cannot be told: a trait that holds less than about "
            f"{100 * traits.null_p95[0]:.0f} % of the "
            "variance does not stand out by its variance alone in a table of this size."
        )
    return [line for line in lines if line]


def _support(traits: Traits) -> str:
    """How many components fit, how many of them count as traits, and whether any is stable enough to name."""
    counts, shape = traits.n_components, f"{traits.conditions['rows']} x {traits.conditions['columns']}"
    errors, fit = traits.cross_validation.errors, counts["cv"]
    others = f"parallel analysis says {counts['parallel']}, the permutation null {counts['permutation']}"
    if fit == 0:
        by_hand = f"; {counts['used']} used, as asked" if counts["used"] else ""
        return (
            f"No component fits: in this {shape} table a target's mean predicts held-out cells best "
            f"({others}{by_hand})."
        )
    gain = 1 - errors[fit] / errors[0] if errors[0] > 0 else float("nan")
    subject, pronoun = ("1 component fits", "it predicts") if fit == 1 else (
        f"{fit} components fit", "they predict"
    )  # fmt: skip
    head = (
        f"{subject} this {shape} table: {pronoun} held-out cells {100 * gain:.0f} % better "
        "than the target's mean"
    )
    return f"{head} ({others}); {_counting(traits)}{_naming(traits)}."


def _counting(traits: Traits) -> str:
    """How many of the components that fit count as traits."""
    fit, used = traits.n_components["cv"], traits.n_components["used"]
    least = traits.conditions.get("least_share", 0.0)
    if traits.conditions.get("components", "auto") != "auto":
        return f"{used} used, as asked"
    if used == fit:
        return "it counts as a trait" if fit == 1 else f"{'both' if fit == 2 else 'all'} count as traits"
    share, noise = (float(part[used]) for part in (traits.explained_variance_ratio, traits.null_p95))
    why = f"less than {100 * least:.0f} %"
    if share >= least:
        why = f"where tables without structure reach {100 * noise:.1f} %"
    rest = f"takes away {100 * share:.1f} % of the variance, {why}"
    if used == 0:
        return f"none counts as a trait: the first {rest}"
    return f"{used} of them {'counts as a trait' if used == 1 else 'count as traits'}: the next {rest}"


def _naming(traits: Traits) -> str:
    """Whether traits are stable enough to be named; nothing where nothing was resampled, or none counts."""
    used, stable = traits.n_components["used"], traits.n_components.get("stable", 0)
    if not used or "adapters" not in traits.stability.resamplings:
        return ""
    if stable == used:
        return ", stable enough to name" if used == 1 else "; each is stable enough to name"
    if stable:
        return f"; {stable} of them {'is' if stable == 1 else 'are'} stable enough to name"
    none = {1: "it is not", 2: "neither is"}.get(used, "none is")
    return f"; {none} stable enough to name"


def _against_null(traits: Traits) -> str:
    """The explained variance beside what tables without structure give."""
    count = read_count(traits)
    share, (mean, low, high) = used_share(traits, count)
    subject = "The first component explains" if count == 1 else f"The first {count} components explain"
    if not np.isfinite(mean):
        return (
            f"{subject} {100 * share:.1f} % of the variance; no null was computed, so this says nothing yet."
        )
    noise = (
        f"tables without structure give {100 * mean:.1f} % (5-95 %: {100 * low:.1f} % to {100 * high:.1f} %)"
    )
    claimed = traits.conditions.get("claimed_share")
    if claimed is not None:
        verdict = "exceeds" if claimed > high else "does not exceed"
        shape = f"{traits.conditions['rows']} x {traits.conditions['columns']}"
        return (
            f"The claimed {100 * claimed:.0f} % of the variance {verdict} chance at {shape}, where {noise}."
        )
    if (rank := exact_rank(traits)) is not None:
        return f"The table has rank {rank}: its first {rank} components explain all of it by construction."
    verdict = "is above its null" if share > high else "is not above its null"
    return f"{subject} {100 * share:.1f} % of the variance, where {noise}: the explained variance {verdict}."


def _component(traits: Traits, c: int) -> str:
    """One used component: its name, what loads on it, which sources stand at its ends."""

    def loading(t: int) -> str:
        low, high = traits.loadings_low[t, c], traits.loadings_high[t, c]
        interval = f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else ""
        return f"{traits.targets[t]} {loadings[t]:+.2f}{interval}"

    def effect(s: int) -> str:
        low, high = traits.effects_low[s, c], traits.effects_high[s, c]
        interval = f"[{low:.1f}, {high:.1f}]" if np.isfinite(low) else "[interval unknown]"
        return f"{traits.sources[s]} {effects[s]:+.1f} points {interval}"

    loadings, effects = np.nan_to_num(traits.loadings[:, c]), traits.effects[:, c]
    order = np.argsort(-np.abs(loadings), kind="stable")[:MOST_NAMED]
    strongest = listed([loading(t) for t in order])
    known = np.flatnonzero(np.isfinite(effects))
    ends = known[np.argsort(-np.abs(effects[known]), kind="stable")][:2]
    moved = listed([effect(s) for s in ends])
    against = "the base" if traits.conditions["effects_against"] == "base" else "the mean of the sources"
    name = f"PC{c}" + (f" ({traits.names[c]})" if traits.names[c] else "")
    return f"{name} loads most on {strongest}. Against {against}, it moves most: {moved}."


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
    return f"Congruence over {rows.draws:,} draws of the sources: {listed(parts)}{single}."


def _noise(traits: Traits) -> str:
    """How much of the table is measurement noise."""
    noise = traits.noise
    if noise.origin == "unknown" or not np.isfinite(noise.total_share):
        return f"How much of the table is measurement noise cannot be told: {noise.reason}."
    count = max(traits.n_components["used"], 1)
    corrected = noise.signal_ratio[:count].sum()
    share = traits.explained_variance_ratio[:count].sum()
    subject = "component" if count == 1 else f"{count} components"
    corrected_share = (
        f"; without it the first {subject} would hold {100 * corrected:.1f} % rather than {100 * share:.1f} %"
        if np.isfinite(corrected)
        else f"; {noise.reason}"
    )
    return (
        f"Measurement noise is expected to be {100 * noise.total_share:.1f} % of the "
        f"variance{corrected_share}."
    )
