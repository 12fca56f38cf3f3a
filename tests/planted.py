"""Tables of known truth: planted traits, noise, items, all as TransferMatrix."""

from collections.abc import Sequence

import numpy as np

from traitmap.matrix.record import Array, Cell, TransferMatrix

COUNTS_ONLY = {"n_bootstrap": 0, "n_permutations": 0}  # when only the number of components matters


def matrix_of(
    values: Array,
    sources: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    baseline: Array | None = None,
    **further,
) -> TransferMatrix:
    rows, columns = values.shape
    return TransferMatrix(
        sources=tuple(sources or [f"source{i:03d}" for i in range(rows)]),
        targets=tuple(targets or [f"target{j:03d}" for j in range(columns)]),
        values=np.asarray(values, dtype=float),
        baseline=np.zeros(columns) if baseline is None else np.asarray(baseline, dtype=float),
        **further,
    )


def noise(rows: int, columns: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def planted(rows: int, columns: int, traits: int, communality: float, seed: int) -> tuple[Array, Array]:
    """(values (S, T), true loadings (T, k)): every target has the given share of variance from the traits."""
    generator = np.random.default_rng(seed)
    loadings = generator.normal(size=(columns, traits))
    loadings *= np.sqrt(communality) / np.linalg.norm(loadings, axis=1, keepdims=True)
    scores = generator.normal(size=(rows, traits))
    return scores @ loadings.T + np.sqrt(1 - communality) * generator.normal(size=(rows, columns)), loadings


def subspace_overlap(first: Array, second: Array) -> float:
    """Mean squared cosine of the principal angles between two column spaces, 1 when they are the same."""
    basis = [np.linalg.qr(part)[0] for part in (first, second)]
    return float((np.linalg.svd(basis[0].T @ basis[1], compute_uv=False) ** 2).mean())


def answered(
    shares: Array,
    base: Array,
    *,
    items: int,
    seeds: int = 1,
    shared_difficulty: float = 1.0,
    seed_spread: float = 0.0,
    seed: int = 0,
) -> TransferMatrix:
    """A matrix with items: adapters of true shares (S, T) and the base (T,) answer the same items.

    An item's difficulty moves all of them (on the logit scale), a training seed moves one adapter on all
    targets. The base has the same answers for all seeds. Shares are what the answers' mean tends to.
    """
    generator = np.random.default_rng(seed)
    rows, columns = shares.shape
    odds = np.log(np.vstack([base, shares])) - np.log1p(-np.vstack([base, shares]))
    odds = odds * np.sqrt(1 + shared_difficulty**2 / 2.9)  # so that averaging over difficulty keeps the mean
    moved = seed_spread * generator.normal(size=(1 + rows, seeds))
    moved[0] = 0
    scores = {}
    for t in range(columns):
        difficulty = shared_difficulty * generator.normal(size=items)
        chance = 1 / (1 + np.exp(-(odds[:, t, None, None] + moved[:, :, None] + difficulty)))
        outcome = (generator.random(chance.shape) < chance).astype(float)
        outcome[0] = outcome[0, 0]
        scores[f"target{t:03d}"] = outcome
    means = np.stack([part.mean(axis=2) for part in scores.values()], axis=2)
    pooled = means.mean(axis=1)
    names = [f"source{i:03d}" for i in range(rows)]
    nan = float("nan")
    cells = tuple(
        Cell(name, target, s, "acc", means[i + 1, s, t], items, nan, nan, nan, nan, nan, nan, 0.0, "measured")
        for i, name in enumerate(names)
        for t, target in enumerate(scores)
        for s in range(seeds)
    )
    return matrix_of(pooled[1:], baseline=pooled[0], item_scores=scores, cells=cells)
