"""How far do the components move when the data are resampled?

A bootstrap over adapters, resampled items and seeds, every source and every target left out in turn. Every
resampled table passes through the same completion, scaling and rotation as the whole one; its
components are matched to the whole table's by Hungarian assignment on Tucker's congruence. The same is
done to permuted tables, because components of pure noise also agree with their own bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from traitmap.analysis.traits.components import (
    PLANE,
    Biplot,
    Centring,
    Mask,
    Rotation,
    biplot_of,
    complete_tables,
    congruence,
    gram_eigen,
    rotate_loadings,
    standardise,
)
from traitmap.analysis.traits.copies import Clusters
from traitmap.analysis.traits.dimension import CHUNK, permute_columns
from traitmap.analysis.traits.records import Resampling, Stability
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import ROUNDED_Z

SIMILAR = 0.85  # congruence from which two components are called alike (Lorenzo-Seva, ten Berge 2006)
BATCH = 1_000_000  # numbers of resampled tables at a time: a dozen arrays of them are held at once
OMITTED = 60  # of more sources or targets than this, only the heaviest are left out in turn


@dataclass(frozen=True)
class ResampledTable:
    """The table under examination, and how it becomes components.

    table, filled, observed: (S, T). loadings: (T, M) its own, of the components examined.
    rank: of the completion. metric: how columns are centred and scaled. rotation: of the first ``used``.
    blocks: (T,) of targets that say the same, which permuted tables keep together.
    """

    table: Array
    filled: Array
    observed: Mask
    loadings: Array
    rank: int
    metric: Centring
    rotation: Rotation
    used: int
    blocks: Clusters | None = None

    @property
    def examined(self) -> int:
        """M, how many leading components are matched."""
        return self.loadings.shape[1]


Index = NDArray[np.int64]
Batch = tuple[Array, Mask, Array]  # tables, observed, where to start the completion: each (B, S', T')


def leading(tables: Array, subject: ResampledTable) -> tuple[Array, Array]:
    """Loadings (B, T, M') and explained variance ratios (B, M') of complete tables (B, S, T), M' = M + 2.

    Scaled and rotated as the subject is. M is the number of components examined; two more are kept so that a
    component that fell back can still be matched.
    """
    z = standardise(tables, subject.metric)[0]
    _, rows, columns = z.shape
    count = min(subject.examined + 2, rows - 1, columns)
    eigenvalues, vectors, tall = gram_eigen(z)
    vectors = vectors[:, :, :count]
    if not tall:
        vectors = np.swapaxes(z, 1, 2) @ vectors
        size = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(size > 0, size, 1.0)
    ratios = eigenvalues[:, :count] / np.maximum(eigenvalues.sum(axis=1, keepdims=True), 1e-300)
    used = min(subject.used, vectors.shape[2])
    if subject.rotation == "none" or used < 2:
        return vectors, ratios
    rotated = vectors.copy()  # the first ones, brought back to unit norm
    for i, (vector, value) in enumerate(zip(vectors, eigenvalues, strict=True)):
        pattern = rotate_loadings(vector[:, :used] * np.sqrt(value[:used]), subject.rotation)[0]
        size = np.linalg.norm(pattern, axis=0)
        rotated[i, :, :used] = pattern / np.where(size > 0, size, 1.0)
    return rotated, ratios


def match(reference: Array, vectors: Array) -> tuple[Array, Array]:
    """Match vectors (B, T, M') to reference (T, M) or (B, T, M): congruence (B, M), aligned (B, T, M).

    Hungarian assignment on |Tucker's congruence|; aligned vectors have the order and the sign of the
    reference. Congruence is from 0 to 1.
    """
    signed = congruence(reference, vectors)
    draws, count = len(vectors), reference.shape[-1]
    phi = np.zeros((draws, count))
    aligned = np.full((draws, vectors.shape[1], count), np.nan)
    for b in range(draws):
        rows, columns = linear_sum_assignment(-np.abs(signed[b]))
        values = signed[b, rows, columns]
        phi[b, rows] = np.abs(values)
        aligned[b][:, rows] = vectors[b][:, columns] * np.where(values < 0, -1.0, 1.0)
    return phi, aligned


def examine(
    reference: Array, batches: Iterator[Batch], subject: ResampledTable
) -> tuple[Array, Array, Array, Array]:
    """Complete and decompose every batch of resampled tables, and match their components to the whole's.

    reference: (T, M) loadings of the whole table. Returns, over all B tables: congruence (B, M); aligned
    (B, T, M) unit-norm loadings in the order and sign of the reference; vectors (B, T, M') as they came;
    ratios (B, M') explained variance in falling order.
    """
    parts = []
    for tables, observed, start in batches:
        vectors, ratios = leading(_complete(tables, observed, start, subject), subject)
        parts.append((*match(reference, vectors), vectors, ratios))
    phi, aligned, vectors, ratios = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return phi, aligned, vectors, ratios


def resampled_sources(
    subject: ResampledTable, draws: int, generator: np.random.Generator, deviations: Array | None = None
) -> Iterator[Batch]:
    """Bootstrap over adapters: rows drawn with replacement, at least three of them different.

    deviations: (draws, S, T) measurement deviations added before the rows are drawn, if known.
    """
    rows = len(subject.table)
    step = max(1, BATCH // subject.table.size)
    for first in range(0, draws, step):
        count = min(step, draws - first)
        index = _varied_rows(rows, count, generator)
        table, filled = subject.table[index], subject.filled[index]
        if deviations is not None:
            moved = np.take_along_axis(deviations[first : first + count], index[:, :, None], axis=1)
            table, filled = table + moved, filled + moved
        yield table, subject.observed[index], filled


def _varied_rows(rows: int, draws: int, generator: np.random.Generator) -> Index:
    """(draws, rows) row indices drawn with replacement, redrawn until three differ."""
    index = generator.integers(0, rows, size=(draws, rows))
    for b in range(draws):
        while len(np.unique(index[b])) < 3:
            index[b] = generator.integers(0, rows, size=rows)
    return index


def remeasured(subject: ResampledTable, deviations: Array) -> Iterator[Batch]:
    """The same adapters with measurement deviations (draws, S, T).

    In batches of (tables, observed, start of the completion). deviations: in units of the table.
    """
    step = max(1, BATCH // subject.table.size)
    for first in range(0, len(deviations), step):
        moved = deviations[first : first + step]
        observed = np.broadcast_to(subject.observed, moved.shape)
        yield subject.table + moved, observed, subject.filled + moved


def without_source(subject: ResampledTable, omitted: list[int]) -> Iterator[Batch]:
    """The table without each of the given rows in turn.

    In batches as ``remeasured``. omitted: indices of rows.
    """
    rows = len(subject.table)
    keep = np.array([[i for i in range(rows) if i != out] for out in omitted])
    step = max(1, BATCH // subject.table.size)
    for first in range(0, len(keep), step):
        index = keep[first : first + step]
        yield subject.table[index], subject.observed[index], subject.filled[index]


def without_target(subject: ResampledTable, omitted: list[int]) -> Array:
    """(len(omitted), M) congruence over the remaining targets when each given target is left out in turn.

    omitted: indices of columns. Congruence is taken over the loadings of the targets that are left.
    """
    result = np.zeros((len(omitted), subject.loadings.shape[1]))
    for i, out in enumerate(omitted):
        keep = [j for j in range(subject.table.shape[1]) if j != out]
        batch = (
            subject.table[None][:, :, keep],
            subject.observed[None][:, :, keep],
            subject.filled[None][:, :, keep],
        )
        result[i] = examine(subject.loadings[keep], iter([batch]), subject)[0][0]
    return result


def largest_angle(reference: Array, vectors: Array) -> Array:
    """(B,) largest principal angle in degrees between span(reference) (T, g) and span of each (B, T, g).

    As ``scipy.linalg.subspace_angles``, for a batch.
    """
    basis, _ = np.linalg.qr(reference)
    others, _ = np.linalg.qr(vectors)
    cosines = np.linalg.svd(basis.T @ others, compute_uv=False)
    return np.degrees(np.arccos(np.clip(cosines[:, -1], 0.0, 1.0)))


def overlapping_groups(eigenvalues: Array, rows: int) -> list[tuple[int, ...]]:
    """Runs of neighbouring components whose eigenvalues cannot be told apart from ``rows`` sources.

    The logarithm of a sample eigenvalue has variance 2 / (n - 1) (Anderson 1963; North et al. 1982), so
    neighbours are apart when their ratio exceeds exp(1.96 sqrt(4 / (n - 1))). Bootstrap intervals of
    sorted eigenvalues will not do: the larger one is the larger in every draw.
    """
    groups: list[list[int]] = [[0]] if len(eigenvalues) else []
    margin = np.exp(ROUNDED_Z * np.sqrt(4.0 / max(rows - 1, 1)))
    for c in range(1, len(eigenvalues)):
        if eigenvalues[c] > 0 and eigenvalues[c - 1] < margin * eigenvalues[c]:
            groups[-1].append(c)
        else:
            groups.append([c])
    return [tuple(group) for group in groups if len(group) > 1]


def nameable(stability: Stability, used: int) -> tuple[int, ...]:
    """Which of the used components come back when sources are drawn again, and can be told from the others.

    Congruence is at least ``SIMILAR`` at the 5th percentile, above its noise level on average, and the
    component's eigenvalue overlaps with no neighbour's. None where nothing was resampled.
    """
    rows = stability.resamplings.get("adapters")
    if rows is None:
        return ()
    mixed = {c for components, _, _ in stability.overlaps for c in components}
    return tuple(
        c
        for c in range(min(used, stability.examined))
        if rows.congruence_p05[c] >= SIMILAR
        and not rows.congruence_mean[c] <= rows.noise_p95[c]
        and c not in mixed
    )


def noise_congruence(
    subject: ResampledTable, tables: int, generator: np.random.Generator
) -> Mapping[str, Array]:
    """kind -> (tables, M) congruence that each kind of resampling reaches on permuted tables, once each.

    Kinds are ``adapters``, ``leave_one_source_out`` and ``leave_one_target_out``. Components of pure
    noise also agree with their own resamplings: a congruence says something only above this level.
    """
    z = standardise(subject.filled[None], subject.metric)[0][0]
    rows, columns = subject.table.shape
    step = max(1, CHUNK // subject.table.size)
    parts: dict[str, list[Array]] = {}
    for first in range(0, tables, step):
        count = min(step, tables - first)
        permuted = permute_columns(z, subject.observed, count, generator, subject.blocks)
        mask = np.broadcast_to(subject.observed, permuted.shape)
        filled = _complete(permuted, mask, None, subject)
        reference = leading(filled, subject)[0][:, :, : subject.examined]
        index = _varied_rows(rows, len(permuted), generator)
        selections = {"adapters": (index, 1)}
        selections["leave_one_source_out"] = (_all_but_one(rows, len(permuted), generator), 1)
        if columns > 2:
            selections["leave_one_target_out"] = (_all_but_one(columns, len(permuted), generator), 2)
        for kind, (index, axis) in selections.items():
            table, observed, start = (_take(part, index, axis) for part in (permuted, mask, filled))
            vectors, _ = leading(_complete(table, observed, start, subject), subject)
            target = reference if axis == 1 else _take(reference, index, 1)
            parts.setdefault(kind, []).append(match(target, vectors)[0])
    return {kind: np.concatenate(arrays) for kind, arrays in parts.items()}


def _complete(tables: Array, observed: Mask, start: Array | None, subject: ResampledTable) -> Array:
    """Completion at the accuracy that resampling needs."""
    rank = min(subject.rank, tables.shape[1] - 2, tables.shape[2] - 1)
    return complete_tables(tables, observed, rank, subject.metric, start=start, tolerance=1e-3, limit=50)


def _take(part: NDArray[Any], index: Index, axis: int) -> NDArray[Any]:
    """Of each table of part (B, S, T), the given rows (axis 1) or columns (axis 2); index is (B, n)."""
    return np.take_along_axis(part, index[:, :, None] if axis == 1 else index[:, None, :], axis=axis)


def _all_but_one(size: int, draws: int, generator: np.random.Generator) -> Index:
    """(draws, size - 1) all indices but one, drawn at random for each draw."""
    out = generator.integers(0, size, size=draws)
    return np.stack([np.delete(np.arange(size), place) for place in out])


def measurement_noise_congruence(subject: ResampledTable, deviations: Array) -> Array:
    """(draws / 2, M) congruence between tables that hold one and two layers of measurement noise only.

    deviations: (draws, S, T) in units of the table, of one kind of measurement. The level that resampling
    items or seeds reaches where the table holds nothing else.
    """
    half = len(deviations) // 2
    first, second = deviations[:half], deviations[half : 2 * half]
    mask = np.broadcast_to(subject.observed, first.shape)
    fits = [
        leading(complete_tables(part, mask, 0, subject.metric), subject)[0][:, :, : subject.examined]
        for part in (first, first + second)
    ]
    return np.concatenate([match(a, b[None])[0] for a, b in zip(fits[0], fits[1], strict=True)])


def summarise(kind: str, phi: Array, noise: Array | None, names: tuple[str, ...] = ()) -> Resampling:
    """Mean, 5th percentile and noise level of congruences (draws, M); names: what each draw left out.

    kind: name of the resampling. noise: (tables, M) congruences of permuted tables, of which 20 or more
    are needed; else its level is NaN.
    """
    unknown = np.full(phi.shape[1], np.nan)
    return Resampling(
        kind=kind,
        draws=len(phi),
        congruence_mean=phi.mean(axis=0),
        congruence_p05=np.percentile(phi, 5, axis=0),
        noise_p95=np.percentile(noise, 95, axis=0) if noise is not None and len(noise) >= 20 else unknown,
        worst=tuple(names[i] for i in np.argmin(phi, axis=0)) if names else (),
    )


def assess(
    subject: ResampledTable,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    *,
    draws: int,
    noise_tables: int,
    deviations: Mapping[str, Array],
    seed: int,
) -> tuple[Stability, Array, Array, Biplot | None]:
    """Every kind of resampling that the data allow.

    deviations: kind (``items``, ``seeds``, ``measurement``) -> (draws, S, T) in the table's units;
    ``measurement`` (all of it together) is also added to the adapters' bootstrap.

    Returns stability, the lower and upper end of each examined loading's 95 % interval (T, M), and the plane
    of the first two components, None where only one is examined.
    """
    generator = np.random.default_rng([seed, 3])
    noise = noise_congruence(subject, noise_tables, generator) if noise_tables else {}
    together = deviations.get("measurement")
    bootstrap = resampled_sources(subject, draws, generator, together)
    phi, aligned, vectors, ratios = examine(subject.loadings, bootstrap, subject)
    resamplings = {"adapters": summarise("adapters", phi, noise.get("adapters"))}
    for kind in ("items", "seeds"):
        if kind in deviations:
            moved = examine(subject.loadings, remeasured(subject, deviations[kind]), subject)[0]
            level = measurement_noise_congruence(subject, deviations[kind][:400])
            resamplings[kind] = summarise(kind, moved, level)
    resamplings.update(_leave_one_out(subject, sources, targets, noise))
    low, high = np.percentile(ratios[:, : subject.examined], [2.5, 97.5], axis=0)
    edges = np.percentile(aligned, [2.5, 97.5], axis=0)
    stability = Stability(
        examined=subject.examined,
        resamplings=MappingProxyType(resamplings),
        overlaps=_overlaps(subject, vectors),
        eigenvalue_low=low,
        eigenvalue_high=high,
    )
    plane = None
    if aligned.shape[2] >= PLANE:
        plane = biplot_of(subject.filled, subject.metric, subject.loadings, aligned, together)
    return stability, edges[0], edges[1], plane


def _leave_one_out(
    subject: ResampledTable,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    noise: Mapping[str, Array],
) -> dict[str, Resampling]:
    """Leave each source, then each target out; of more than ``OMITTED``, those that weigh most."""
    resamplings: dict[str, Resampling] = {}
    rows, columns = subject.table.shape
    z = standardise(subject.filled[None], subject.metric)[0][0]
    if rows > 3:
        omitted = _heaviest(((z @ subject.loadings) ** 2).max(axis=1))
        phi = examine(subject.loadings, without_source(subject, omitted), subject)[0]
        names = tuple(sources[i] for i in omitted)
        resamplings["leave_one_source_out"] = summarise(
            "leave_one_source_out", phi, noise.get("leave_one_source_out"), names
        )
    if columns > 2:
        omitted = _heaviest((subject.loadings**2).max(axis=1))
        phi = without_target(subject, omitted)
        names = tuple(targets[j] for j in omitted)
        resamplings["leave_one_target_out"] = summarise(
            "leave_one_target_out", phi, noise.get("leave_one_target_out"), names
        )
    return resamplings


def _heaviest(weight: Array) -> list[int]:
    """Indices of at most ``OMITTED`` largest weights, in their own order."""
    order = np.argsort(-weight, kind="stable")[:OMITTED]
    return sorted(int(i) for i in order)


def _overlaps(subject: ResampledTable, vectors: Array) -> tuple[tuple[tuple[int, ...], float, float], ...]:
    """Groups of neighbouring components that cannot be told apart, and how far their subspace turns.

    vectors: (B, T, M') components of resampled tables.
    Rotated components are one block, which matters only where it overlaps with a component outside.
    """
    ratios = leading(subject.filled[None], subject)[1][0][: subject.examined]
    groups = overlapping_groups(ratios, len(subject.table))
    if subject.rotation != "none" and subject.used > 1:
        groups = [
            group if group[0] >= subject.used else tuple(range(group[-1] + 1))
            for group in groups
            if group[-1] >= subject.used
        ]
    result = []
    for group in groups:
        angles = largest_angle(subject.loadings[:, group], vectors[:, :, list(group)])
        result.append((group, float(angles.mean()), float(np.percentile(angles, 95))))
    return tuple(result)
