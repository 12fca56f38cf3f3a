"""What holds along a whole row or column: strengths of sources and targets, and what goes with them.

Donor strength is how much a source gives on average beyond the others, recipient strength how much a target
gains. Source and target effects absorb whatever is the same along a row or a column, so a property of
sources (or targets) alone can only be held against these strengths, and there the number of observations is
the number of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import atanh, nan, sqrt, tanh
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from traitmap.analysis.explanation.design import Design, Mask, ascending, effect_basis, residual
from traitmap.analysis.explanation.permutation import LEVEL
from traitmap.analysis.explanation.records import LevelEffect, Strength, Verdict
from traitmap.analysis.explanation.scatter import drawn_scatter
from traitmap.analysis.profiles.pairs import Feature
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, benjamini_hochberg, detectable, unknown, z_value

LEAST_TASKS = 5
LEAST_LEVELLED = 3  # targets with a level that recipients are told from
RATIO_DRAWS = 1_999
MOST_LEFT_OUT = 4  # what is left out in turn of a yes: that which carries most of it
NEGLIGIBLE = 0.2  # |effect| in standard deviations: 4 % of the variance


def level_effects(
    features: tuple[Feature, ...],
    side: Literal["source", "target"],
    strengths: tuple[Strength, ...],
    *,
    draws: int,
    seed: int,
) -> tuple[LevelEffect, ...]:
    """Correlation of each feature of that side with the strengths, tasks permuted.

    features: values (S, T) in the order of the strengths along their own axis. draws: permutations.
    The q-values are Benjamini-Hochberg's over the features of that side.
    """
    on_side = [feature for feature in features if feature.scope == side]
    y = np.array([strength.effect.value for strength in strengths])
    tested = [_tested(y, _of_tasks(feature), draws, seed) for feature in on_side]
    p = np.array([test[1] for test in tested], dtype=float)
    q = benjamini_hochberg(p)
    level = LEVEL / max(1, int(np.isfinite(p).sum()))
    return tuple(
        LevelEffect(
            name=feature.name,
            group=feature.group,
            words=feature.words,
            side=side,
            r=r,
            p=float(p[i]),
            q=float(q[i]),
            detectable=detectable_correlation(n, level),
            n=n,
            verdict=verdict(float(q[i]), r),
        )
        for i, (feature, (r, _, n)) in enumerate(zip(on_side, tested, strict=True))
    )


def levels_resting(
    levels: Sequence[LevelEffect],
    features: Sequence[Feature],
    donors: Sequence[Strength],
    recipients: Sequence[Strength],
    *,
    draws: int,
    seed: int,
) -> tuple[LevelEffect, ...]:
    """The same, in which a *yes* names the tasks without any one of which it is one no more.

    Left out are those whose loss weakens the correlation most, until one makes no difference.
    """
    p = np.array([level.p for level in levels], dtype=float)
    result = []
    for i, level in enumerate(levels):
        strengths = donors if level.side == "source" else recipients
        rests: list[str] = []
        if level.verdict == "yes":
            x = _of_tasks(next(f for f in features if (f.name, f.scope) == (level.name, level.side)))
            y = np.array([strength.effect.value for strength in strengths])
            without = [np.where(np.arange(len(y)) == task, np.nan, y) for task in range(len(y))]
            r = [_tested(values, x, 0, seed)[0].value * np.sign(level.r.value) for values in without]
            for task in ascending(np.array(r))[:MOST_LEFT_OUT]:
                changed = p.copy()
                changed[i] = _tested(without[task], x, draws, seed)[1]
                if benjamini_hochberg(changed)[i] < LEVEL and r[task] > 0:
                    break
                rests.append(strengths[task].name)
        result.append(replace(level, rests_on=tuple(rests)))
    return tuple(result)


def _of_tasks(feature: Feature) -> Array:
    """The one value of each task of a feature of sources or of targets; NaN where no pair has it."""
    axis = 1 if feature.scope == "source" else 0
    known = np.isfinite(feature.values)
    count = known.sum(axis=axis)
    total = np.where(known, feature.values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def corrected_together(levels: Sequence[LevelEffect]) -> tuple[LevelEffect, ...]:
    """The same with q-values and verdicts corrected over properties of sources and of targets together."""
    q = benjamini_hochberg(np.array([level.p for level in levels], dtype=float))
    return tuple(
        replace(level, q=float(value), verdict=verdict(float(value), level.r))
        for level, value in zip(levels, q, strict=True)
    )


def detectable_correlation(n: int, level: float) -> float:
    """Smallest correlation of n tasks found with 80 % power, by Fisher's transformation.

    level: of the test. NaN where there are too few tasks to test.
    """
    if n < LEAST_TASKS:
        return float("nan")
    return tanh(detectable(1.0, confidence=1 - level) / sqrt(n - 3))


def verdict(q: float, effect: Interval) -> Verdict:
    """``yes`` below q = .05, ``no`` where the whole interval is negligible, else ``cannot tell``.

    effect: in standard deviations, or a correlation.
    """
    if q < LEVEL:
        return "yes"
    inside = effect.low > -NEGLIGIBLE and effect.high < NEGLIGIBLE
    return "no" if effect.known and inside else "cannot tell"


def _tested(y: Array, x: Array, draws: int, seed: int) -> tuple[Interval, float, int]:
    """Correlation of x with y over the tasks where both are known, its p by permutation, and their number."""
    known = np.isfinite(x) & np.isfinite(y)
    n = int(known.sum())
    if n < LEAST_TASKS:
        return unknown(f"known for {n} tasks only; {LEAST_TASKS} are needed"), float("nan"), n
    y, x = y[known] - y[known].mean(), x[known] - x[known].mean()
    size = sqrt(float(y @ y) * float(x @ x))
    if size <= 1e-12 * n:
        return unknown("the same for all tasks"), float("nan"), n
    generator = np.random.default_rng([seed, 5])
    moved = generator.permuted(np.tile(x, (draws, 1)), axis=1)
    p = (1 + (np.abs(moved @ y) >= abs(float(x @ y)) - 1e-9 * size).sum()) / (1 + draws)
    r = float(np.clip(x @ y / size, -1 + 1e-9, 1 - 1e-9))
    half = z_value() / sqrt(n - 3)
    return Interval(r, tanh(atanh(r) - half), tanh(atanh(r) + half)), float(p), n


def row_strengths(
    names: tuple[str, ...],
    gains: Array,
    used: Mask,
    *,
    draws: int,
    seed: int,
    standardised: Literal["rows", "columns"] | None = None,
) -> tuple[Strength, ...]:
    """Row effects of the additive fit of gains (R, C), summing to 0: sources as they are, targets transposed.

    standardised: whether each row, or each column, was divided by its own standard deviation; drawn tables
    are then too, since such gains have short tails.

    Interval, p and q: effect over its jackknife error over columns (J. Tukey 1958), what other columns of the
    same kind would give, held against the same ratio in drawn tables where no row is better and rows and
    columns scatter as unlike as here (``drawn_scatter``); Student's t calls too seldom where columns do. Null
    band: gains permuted among the rows of each column, so that no row is better than another.
    """
    operator = _effect_operator(used)
    effects = operator @ gains[used]
    ratio_of = _jackknife_ratios(used, operator)
    errors = ratio_of(gains[used][None])[1][0]
    generator = np.random.default_rng([seed, 3])
    permuted = np.zeros((draws, *used.shape))
    for column in range(used.shape[1]):
        rows = np.flatnonzero(used[:, column])
        values = np.tile(gains[rows, column], (draws, 1))
        permuted[:, rows, column] = generator.permuted(values, axis=1)
    null = permuted[:, used] @ operator.T
    counts = used.sum(axis=1)
    floor = 1e-12 * max(float(np.abs(gains[used]).max()), 1e-300)
    testable = (counts >= 3) & np.isfinite(errors)
    ratio = np.abs(effects) / np.maximum(np.where(testable, errors, 1.0), floor)
    basis = effect_basis(used)
    noise = drawn_scatter(residual(gains[used], basis), basis, used, RATIO_DRAWS, generator, exact=False)
    if standardised is not None:
        at = np.nonzero(used)[0 if standardised == "rows" else 1]
        noise = noise / _spread_along(noise, at)[:, at]
    drawn = np.abs(ratio_of(noise)[0])
    p = np.where(testable, (1 + (drawn >= ratio).sum(axis=0)) / (1 + RATIO_DRAWS), np.nan)
    critical = np.quantile(drawn, 1 - LEVEL, axis=0)
    q = benjamini_hochberg(p)
    bands = np.quantile(null, [0.025, 0.975], axis=0)
    intervals = []
    for effect, half, count, tested in zip(
        effects.tolist(), (critical * errors).tolist(), counts.tolist(), testable.tolist(), strict=True
    ):
        if not tested:
            intervals.append(unknown(f"only {count} pairs"))
        else:
            intervals.append(Interval(effect, effect - half, effect + half))
    return tuple(
        Strength(
            name=name,
            effect=intervals[i],
            null_low=float(bands[0, i]),
            null_high=float(bands[1, i]),
            p=float(p[i]),
            q=float(q[i]),
        )
        for i, name in enumerate(names)
    )


def both_strengths(
    design: Design, *, draws: int, seed: int
) -> tuple[tuple[Strength, ...], tuple[Strength, ...]]:
    """Strengths of the sources (donors), and of the targets (recipients); see ``row_strengths``.

    Recipients are held against each other, so targets without a level (``Design.no_level``) have no strength.
    """
    standard = design.units == "standard"
    donors = row_strengths(
        design.sources,
        design.gains,
        design.used,
        draws=draws,
        seed=seed,
        standardised="columns" if standard else None,
    )
    levelled = np.flatnonzero(design.levelled)
    names = tuple(design.targets[at] for at in levelled)
    gains, used = recipient_table(design)
    known: dict[str, Strength] = {}
    if len(names) >= LEAST_LEVELLED:
        strengths = row_strengths(
            names, gains, used, draws=draws, seed=seed, standardised="rows" if standard else None
        )
        known = {strength.name: strength for strength in strengths}
    few = f"fewer than {LEAST_LEVELLED} targets have a gain that can be held against others'"
    nothing = {name: unknown(design.no_level.get(name, few)) for name in design.targets}
    return donors, tuple(
        known.get(name, Strength(name, reason, nan, nan, nan, nan)) for name, reason in nothing.items()
    )


def recipient_table(design: Design) -> tuple[Array, Mask]:
    """Gains of the targets that have a level (rows) from the sources (columns), and which pairs are used."""
    used = design.used[:, design.levelled]
    helping = used.any(axis=1)
    return design.gains[helping][:, design.levelled].T, used[helping].T


def plain_ratios(gains: Array, used: Mask) -> tuple[Array, Array]:
    """(R,) row effects of gains (R, C) over the errors of their own residuals, and log one-sided t tails.

    Without any drawn table: for what changes where a pair or a row is left out.
    """
    left = residual(gains[used], effect_basis(used))
    rows, count = np.nonzero(used)[0], np.maximum(used.sum(axis=1), 2)
    squares = np.bincount(rows, left**2, len(used))
    errors = np.sqrt(squares / (count - 1) / count)
    ratios = (_effect_operator(used) @ gains[used]) / np.maximum(errors, 1e-300)
    return ratios, stats.t.logsf(np.abs(ratios), count - 1)


def _spread_along(values: Array, at: NDArray[np.intp]) -> Array:
    """(B, m) standard deviation of the values (B, n) of each of m rows or columns, at: (n,) theirs."""
    member = (at[:, None] == np.arange(at.max() + 1)).astype(float)
    count = np.maximum(member.sum(axis=0), 2)
    mean = values @ member / count
    return np.asarray(np.sqrt(np.maximum((values**2) @ member - count * mean**2, 1e-300) / (count - 1)))


def _jackknife_ratios(used: Mask, operator: Array) -> Callable[[Array], tuple[Array, Array]]:
    """From values (B, n) of the used pairs to row effects over their errors, and the errors, each (B, R).

    Errors are jackknifed over columns. operator: (R, n) of the effects.
    """
    place = np.full(used.shape, -1)
    place[used] = np.arange(int(used.sum()))
    without = []
    for column in range(used.shape[1]):
        others = used.copy()
        others[:, column] = False
        part = np.zeros_like(operator)
        part[:, place[others]] = _effect_operator(others)
        without.append(part)
    apart = np.stack(without) - np.mean(without, axis=0)
    scale = (used.shape[1] - 1) / used.shape[1]

    def ratios(values: Array) -> tuple[Array, Array]:
        squares = sum((values @ part.T) ** 2 for part in apart)
        errors = np.sqrt(scale * squares)
        return values @ operator.T / np.maximum(errors, 1e-300), np.asarray(errors)

    return ratios


def _effect_operator(used: Mask) -> Array:
    """(R, n) what turns the values of the used pairs into row effects of the additive fit."""
    rows, columns = np.nonzero(used)
    n_rows, n_columns = used.shape
    dummies = np.zeros((len(rows), n_rows + n_columns))
    dummies[np.arange(len(rows)), rows] = 1.0
    dummies[np.arange(len(rows)), n_rows + columns] = 1.0
    gram = np.linalg.pinv(dummies.T @ dummies, hermitian=True)
    fitted = (gram @ dummies.T)[:n_rows]
    return np.asarray(fitted - fitted.mean(axis=0))
