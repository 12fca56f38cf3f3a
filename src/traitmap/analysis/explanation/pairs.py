"""Single pairs: tasks that help each other unequally, and pairs that surface similarity does not predict.

``asymmetry`` compares the two directions of tasks that are both source and target, T - T'. ``odd_cells``
asks of every pair how far its gain departs from source effect + target effect + surface similarity, each
predicted without itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import hypot, isfinite, nan

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.design import (
    Design,
    Moves,
    effect_basis,
    residual,
    two_way_residual,
    with_features,
)
from traitmap.analysis.explanation.permutation import slope_of
from traitmap.analysis.explanation.records import AsymmetricPair, Asymmetry, OddCell, OddCells
from traitmap.analysis.features import Reason
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, benjamini_hochberg, unknown, z_value

NO_NOISE = "the noise of the gains is unknown: the table holds no items and no standard errors"
FURTHER_THAN_MOST = 2.0  # studentised: further out than about 19 in 20 pairs
_DETERMINED = 1e-6  # 1 - leverage below which a pair has no prediction without itself

Reasons = Mapping[tuple[str, str], Sequence[Reason]]


def asymmetry(design: Design, moves: Moves) -> Asymmetry:
    """Every pair of tasks that are source and target, the largest difference first.

    The two gains of a pair are measured on different items with different adapters, so their errors add
    in squares. Differences compare gains on two targets: with unlike units they mean nothing. moves: (B, n)
    permutations of tasks, for the correlation of a pair's two gains.
    """
    rows, columns = design.shared[:, 0], design.shared[:, 1]
    pairs = []
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            if design.used[rows[a], columns[b]] and design.used[rows[b], columns[a]]:
                pairs.append(_pair(design, a, b))
    if not pairs:
        return Asymmetry((), unknown("no two tasks are both sources and targets"), nan, nan)
    q = benjamini_hochberg(np.array([pair.p for pair in pairs]))
    pairs = [replace(pair, q=float(value)) for pair, value in zip(pairs, q, strict=True)]
    pairs.sort(key=lambda pair: (-abs(pair.difference.value), pair.first, pair.second))
    # the gain in the other direction as a feature of the pair, by the same permutation of tasks
    mirrored = np.full(design.used.shape, np.nan)
    forward = np.where(design.used, design.gains, np.nan)
    mirrored[np.ix_(rows, columns)] = forward[np.ix_(rows, columns)].T
    feature = two_way_residual(mirrored, np.isfinite(mirrored))
    nothing = np.zeros((*feature.shape, 0))
    slope = slope_of(design.y, feature, nothing, design.used, effect_basis(design.used), moves)
    reciprocity = (
        Interval(slope.effect, slope.low, slope.high)
        if isfinite(slope.effect)
        else unknown("too few pairs are known in both directions")
    )
    reason = "" if any(isfinite(pair.p) for pair in pairs) else NO_NOISE
    return Asymmetry(tuple(pairs), reciprocity, slope.p, slope.detectable, reason)


def _pair(design: Design, a: int, b: int) -> AsymmetricPair:
    """Shared tasks a and b, written so that the larger gain is forward; q is still unknown."""
    (row_a, column_a), (row_b, column_b) = design.shared[a], design.shared[b]
    if design.gains[row_a, column_b] < design.gains[row_b, column_a]:
        return _pair(design, b, a)
    forward, backward = float(design.gains[row_a, column_b]), float(design.gains[row_b, column_a])
    error = hypot(design.noise[row_a, column_b], design.noise[row_b, column_a])
    difference = forward - backward
    if isfinite(error) and error > 0:
        half = z_value() * error
        interval = Interval(difference, difference - half, difference + half)
        p = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        interval, p = Interval(difference, reason=NO_NOISE), nan
    return AsymmetricPair(design.sources[row_a], design.sources[row_b], forward, backward, interval, p, nan)


def odd_cells(design: Design, surface: Array, reasons: Reasons) -> OddCells:
    """Leave-one-out departures of every pair from source effect + target effect + surface similarity.

    surface: (S, T, k) features free of effects, 0 where unknown. Two scales are told apart: the cells' own
    measurement noise, carried through the fit, and the scatter of all other pairs around it (externally
    studentised; D. Belsley, E. Kuh, R. Welsch, Regression Diagnostics, 1980). A pair can be far beyond its
    noise and yet no odder than the rest, where similarity predicts little. reasons: by pair, added as given.
    """
    effects = effect_basis(design.used)
    basis = with_features(effects, surface[design.used])
    y = design.y
    outside = residual(y, basis)
    left = 1 - (basis**2).sum(axis=1)
    sound = left > _DETERMINED
    departure = np.where(sound, outside / np.where(sound, left, 1.0), np.nan)
    studentised, p_scatter = _scatter(outside, left, sound, basis.shape[1])
    errors = _noise_errors(design.noise[design.used], basis, left, sound)
    p_noise = 2 * stats.norm.sf(np.abs(departure) / errors)
    q_noise, q_scatter = benjamini_hochberg(p_noise), benjamini_hochberg(p_scatter)
    scatter = np.abs(departure / np.where(studentised == 0, np.nan, studentised))
    half = np.where(np.isfinite(errors), errors, scatter) * z_value()
    rows, columns = design.cells
    cells = []
    for i in np.flatnonzero(sound):
        pair = (design.sources[rows[i]], design.targets[columns[i]])
        cells.append(
            OddCell(
                source=pair[0],
                target=pair[1],
                gain=float(y[i]),
                predicted=float(y[i] - departure[i]),
                departure=Interval(
                    float(departure[i]), float(departure[i] - half[i]), float(departure[i] + half[i])
                ),
                p_noise=float(p_noise[i]),
                q_noise=float(q_noise[i]),
                studentised=float(studentised[i]),
                q_scatter=float(q_scatter[i]),
                reasons=ranked(reasons.get(pair, ())),
            )
        )
    cells.sort(key=lambda cell: (-abs(cell.studentised), cell.source, cell.target))
    known = bool(np.isfinite(errors).any())

    def is_odd(cell: OddCell) -> bool:
        """Where noise is unknown, only the scatter of the other pairs can tell."""
        if not known:
            return cell.q_scatter < 0.05
        return cell.q_noise < 0.05 and abs(cell.studentised) > FURTHER_THAN_MOST

    within = residual(y, effects)
    return OddCells(
        odd=tuple(filter(is_odd, cells)),
        cells=tuple(cells),
        tested=len(cells),
        beyond_noise=int((q_noise[sound] < 0.05).sum()) if known else None,
        r_squared=float(1 - (outside @ outside) / (within @ within)) if within @ within > 0 else float("nan"),
        reason="" if known else NO_NOISE,
    )


def ranked(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """Significant reasons before untested ones before the others, each the strongest first.

    Of equal strength, by the name of their kind.
    """
    order = {True: 0, None: 1, False: 2}
    return tuple(
        sorted(reasons, key=lambda reason: (order[reason.significant], -abs(reason.strength), reason.kind))
    )


def with_reasons(odd: OddCells, reasons: Reasons) -> OddCells:
    """The same cells with further reasons, ranked together with those that are there.

    reasons: by (source, target); cells that it does not name stay as they are.
    """

    def added(cell: OddCell) -> OddCell:
        return replace(cell, reasons=ranked((*cell.reasons, *reasons.get((cell.source, cell.target), ()))))

    return replace(odd, odd=tuple(map(added, odd.odd)), cells=tuple(map(added, odd.cells)))


def _scatter(outside: Array, left: Array, sound: np.ndarray, parameters: int) -> tuple[Array, Array]:
    """(n,) externally studentised residuals and their p-values."""
    freedom = len(outside) - parameters - 1
    safe = np.where(sound, left, 1.0)
    if freedom < 2:
        return np.full(len(outside), np.nan), np.full(len(outside), np.nan)
    others = np.maximum((outside @ outside - outside**2 / safe) / freedom, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        studentised = np.where(sound & (others > 0), outside / np.sqrt(others * safe), np.nan)
    return studentised, 2 * stats.t.sf(np.abs(studentised), freedom)


def _noise_errors(noise: Array, basis: Array, left: Array, sound: np.ndarray) -> Array:
    """(n,) standard error of each departure from measurement noise alone, its own and its prediction's.

    The departure is linear in the gains, so their variances go through the square of its weights. Unknown
    noise of single cells is taken to be the mean of the known.
    """
    known = np.isfinite(noise) & (noise > 0)
    if not known.any():
        return np.full(len(noise), np.nan)
    variance = np.where(known, noise**2, (noise[known] ** 2).mean())
    hat = basis @ basis.T
    carried = (hat**2) @ variance - np.diag(hat) ** 2 * variance
    safe = np.where(sound, left, 1.0)
    errors = np.sqrt(variance + carried / safe**2)
    return np.where(sound & np.array([isfinite(e) for e in errors]), errors, np.nan)
