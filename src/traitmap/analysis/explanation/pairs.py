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

from traitmap.analysis.explanation.design import Design, Mask, effect_basis, residual, with_features
from traitmap.analysis.explanation.permutation import LEVEL, POWER
from traitmap.analysis.explanation.records import AsymmetricPair, Asymmetry, OddCell, OddCells
from traitmap.analysis.explanation.scatter import drawn_scatter
from traitmap.analysis.profiles.pairs import Reason
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, benjamini_hochberg, unknown, z_value
from traitmap.wording import listed

NO_NOISE = "the noise of the gains is unknown: the table holds no items and no standard errors"
FURTHER_THAN_MOST = 2.0  # studentised: further out than about 19 in 20 pairs
USUAL_SCATTER = (
    1.5  # pairs of usual scatter by which the scatter of a source or target is drawn to the common
)
_EQUAL = 9  # decimals to which equal ones are equal, whatever the unit that they were measured in
_DETERMINED = 1e-6  # 1 - leverage below which a pair has no prediction without itself

VARIATION = "variation"  # kind of reason that stands before all others: the source was made from another one

Reasons = Mapping[tuple[str, str], Sequence[Reason]]


def asymmetry(design: Design, *, draws: int, seed: int) -> Asymmetry:
    """Every pair of tasks that are source and target, the largest difference first.

    The two gains of a pair are measured on different items with different adapters, so their errors add
    in squares. Differences compare gains on two targets: with unlike units they mean little, and a target
    without a level (``Design.no_level``) has none. draws, seed: of the test of reciprocity.
    """
    couples = _couples(design)
    if not couples:
        return Asymmetry((), unknown("no two tasks are both sources and targets"), nan, nan)
    levelled = design.levelled
    pairs = [_pair(design, a, b) for a, b in couples if levelled[design.shared[[a, b], 1]].all()]
    q = benjamini_hochberg(np.array([pair.p for pair in pairs]))
    pairs = [replace(pair, q=float(value)) for pair, value in zip(pairs, q, strict=True)]
    pairs.sort(key=lambda pair: (-round(abs(pair.difference.value), _EQUAL), pair.first, pair.second))
    reciprocity, p, smallest = reciprocity_of(design, draws, seed)
    reason = "" if any(isfinite(pair.p) for pair in pairs) else NO_NOISE
    if not pairs:
        reason = listed(sorted(set(design.no_level.values())))
    return Asymmetry(tuple(pairs), reciprocity, p, smallest, reason)


def _couples(design: Design) -> list[tuple[int, int]]:
    """Couples of shared tasks, by their numbers, whose gains both ways are known."""
    rows, columns = design.shared.T
    first, second = np.triu_indices(len(rows), 1)
    known = design.used[rows[first], columns[second]] & design.used[rows[second], columns[first]]
    return list(zip(first[known].tolist(), second[known].tolist(), strict=True))


def reciprocity_of(design: Design, draws: int, seed: int) -> tuple[Interval, float, float]:
    """Correlation of a pair's two gains after effects, its p, and the smallest found with 80 % power.

    The null are drawn tables in which one direction says nothing of the other (``drawn_scatter``), with the
    same effects taken out. (To permute the tasks of one direction is no null: a permuted table is not its own
    mirror image, so that each pair would count twice in the correlation and once in its null.) The interval
    is as wide as that null in Fisher's units.
    """
    basis = effect_basis(design.used)
    rows = design.cells[0]
    place = np.full(design.used.shape, -1)
    place[design.used] = np.arange(len(rows))
    square = place[np.ix_(design.shared[:, 0], design.shared[:, 1])]
    first, second = np.triu_indices(len(square), 1)
    forward, backward = square[first, second], square[second, first]
    known = (forward >= 0) & (backward >= 0)
    forward, backward = forward[known], backward[known]
    within = residual(design.y, basis)

    def correlation(values: Array) -> Array:
        """(...,) of values (..., n) of the used pairs."""
        there, back = values[..., forward], values[..., backward]
        size = (there**2 + back**2).sum(axis=-1) / 2
        return np.clip((there * back).sum(axis=-1) / np.maximum(size, 1e-300), -1 + 1e-9, 1 - 1e-9)

    if len(forward) < 3 or not (within[forward] ** 2 + within[backward] ** 2).sum() > 0:
        return unknown("too few pairs are known in both directions"), nan, nan
    noise = drawn_scatter(within, basis, design.used, draws, np.random.default_rng([seed, 7]))
    null = np.arctanh(correlation(noise - (noise @ basis) @ basis.T))
    r = float(correlation(within))
    own = float(null.mean())  # effects that are taken out leave a correlation of their own
    null, z = null - own, float(np.arctanh(r)) - own
    p = float((1 + (np.abs(null) >= abs(z) - 1e-9).sum()) / (1 + draws))
    critical = float(np.quantile(np.abs(null), 1 - LEVEL))
    smallest = float(np.tanh(np.quantile(critical - null, POWER)))
    low, high = np.tanh(z + critical * np.array([-1.0, 1.0]))
    return Interval(r, min(float(low), r), max(float(high), r)), p, smallest


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
    studentised = _scatter(outside, left, sound, basis.shape[1])
    q_scatter = _outlier_p(outside, left, sound, basis, design.used)
    errors = _noise_errors(design.noise[design.used], basis, left, sound)
    p_noise = 2 * stats.norm.sf(np.abs(departure) / errors)
    q_noise = benjamini_hochberg(p_noise)
    scatter = np.abs(departure / np.where(studentised == 0, np.nan, studentised))
    half = np.where(np.isfinite(errors), errors, scatter) * z_value()
    rows, columns = design.cells
    cells = []
    for i in np.flatnonzero(sound):
        source, target = design.sources[rows[i]], design.targets[columns[i]]
        value, margin = float(departure[i]), float(half[i])
        cells.append(
            OddCell(
                source=source,
                target=target,
                gain=float(y[i]),
                predicted=float(y[i] - value),
                departure=Interval(value, value - margin, value + margin),
                p_noise=float(p_noise[i]),
                q_noise=float(q_noise[i]),
                studentised=float(studentised[i]),
                q_scatter=float(q_scatter[i]),
                reasons=ranked(reasons.get((source, target), ())),
            )
        )
    cells.sort(key=lambda cell: (-round(abs(cell.studentised), _EQUAL), cell.source, cell.target))
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
    """How a source was made comes first, then significant reasons, untested ones, and the others.

    Each the strongest first; of equal strength, by the name of their kind.
    """
    order = {True: 1, None: 2, False: 3}

    def place(reason: Reason) -> tuple[int, float, str]:
        first = 0 if reason.kind == VARIATION else order[reason.significant]
        return first, -abs(reason.strength), reason.kind

    return tuple(sorted(reasons, key=place))


def with_reasons(odd: OddCells, reasons: Reasons) -> OddCells:
    """The same cells with further reasons, ranked together with those that are there.

    reasons: by (source, target); cells that it does not name stay as they are.
    """

    def added(cell: OddCell) -> OddCell:
        return replace(cell, reasons=ranked((*cell.reasons, *reasons.get((cell.source, cell.target), ()))))

    return replace(odd, odd=tuple(map(added, odd.odd)), cells=tuple(map(added, odd.cells)))


def _scatter(outside: Array, left: Array, sound: np.ndarray, parameters: int) -> Array:
    """(n,) externally studentised residuals: each in standard errors of the scatter of all other pairs."""
    freedom = len(outside) - parameters - 1
    safe = np.where(sound, left, 1.0)
    if freedom < 2:
        return np.full(len(outside), np.nan)
    others = np.maximum((outside @ outside - outside**2 / safe) / freedom, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sound & (others > 0), outside / np.sqrt(others * safe), np.nan)


def _outlier_p(outside: Array, left: Array, sound: np.ndarray, basis: Array, used: Mask) -> Array:
    """(n,) p of a residual so large as the largest of all, where sources and targets may scatter unlike.

    The scatter of a pair is the product of its source's and its target's, each found without the pair and
    drawn to the common one by ``USUAL_SCATTER`` pairs. How large such a ratio is by chance is drawn
    (``drawn_scatter``): the same effects taken out, the same ratios, the largest of them. Student's t for one
    common scatter calls some pair in most studies of which one source scatters twice as much as another.
    """
    n = len(outside)
    spread = float(np.sqrt((outside**2).mean()))
    if n - basis.shape[1] < 3 or spread <= 0:
        return np.full(n, np.nan)
    safe = np.where(sound, left, 1.0)
    of_source, of_target = used.sum(axis=1, keepdims=True), used.sum(axis=0, keepdims=True)

    def ratios(residuals: Array) -> Array:
        """(B, n) residuals over the scatter that other pairs of source and target lead to expect."""
        squares = np.zeros((len(residuals), *used.shape))
        squares[:, used] = residuals**2 / safe
        squares /= squares.sum(axis=(1, 2), keepdims=True) / n
        row, column = np.ones((len(squares), used.shape[0], 1)), np.ones((len(squares), 1, used.shape[1]))
        for _ in range(5):
            by_source, by_target = squares / column, squares / row
            row = (by_source.sum(axis=2, keepdims=True) + USUAL_SCATTER) / (of_source + USUAL_SCATTER)
            column = (by_target.sum(axis=1, keepdims=True) + USUAL_SCATTER) / (of_target + USUAL_SCATTER)
        by_source, by_target = squares / column, squares / row
        other_row = by_source.sum(axis=2, keepdims=True) - by_source + USUAL_SCATTER
        other_column = by_target.sum(axis=1, keepdims=True) - by_target + USUAL_SCATTER
        expected = other_row / (of_source - 1 + USUAL_SCATTER) * other_column
        expected /= of_target - 1 + USUAL_SCATTER
        level = squares / (row * column)
        expected *= np.maximum(level.sum(axis=(1, 2), keepdims=True) - level, 1e-12) / max(n - 1, 1)
        return np.asarray(np.sqrt(squares / expected)[:, used])

    draws = int(np.clip(4_000_000 // n, 50, 400))
    noise = drawn_scatter(outside, basis, used, draws, np.random.default_rng(11))
    largest = np.sort(ratios(noise - (noise @ basis) @ basis.T)[:, sound].max(axis=1))
    above = draws - np.searchsorted(largest, ratios(outside[None] / spread)[0] * (1 - 1e-9))
    return np.where(sound, (1 + above) / (1 + draws), np.nan)


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
