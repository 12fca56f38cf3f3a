"""How far two tables of gains agree over the sources and targets that they share, each against its null.

The null is always the same: the sources of the second table are permuted (for traits its targets), so that
whatever every source does to a target alike stays, and only which source does what is lost. Intervals leave
one source out at a time. Cells of a source on its own target, and sources made from others, take no part;
picks are made among gains that are what they seem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt

import numpy as np

from traitmap.analysis.explanation.design import two_way_residual
from traitmap.analysis.recommendation.protocol import pearson
from traitmap.analysis.traits.stability import match
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, bootstrap_interval, t_value, unknown

FEWEST = 4  # sources, and targets, below which nothing is said of tables
DRAWS = 999
COMPONENTS = 3  # that are compared at most


@dataclass(frozen=True)
class Association:
    """One measure of agreement. value: with its 95 % interval; chance: its 95th percentile under the null.

    p: of so much agreement or more by chance; NaN where it cannot be tested.
    """

    value: Interval
    chance: float = nan
    p: float = nan


@dataclass(frozen=True)
class Picks:
    """Whether the source that one run would pick for a target is a good one in another run.

    targets: how many could be asked. same: on how many both runs have the same best source. lost: what the
    second run loses by the first one's pick, as a share of what its own best gains over its average source: 0
    is its best, 1 the average source, mean over targets with a 95 % interval over them. chance: the 5th
    percentile of that loss when the first run's sources are permuted; p: of so small a loss by chance.
    popular: the same loss by the first run's most popular source.
    """

    targets: int
    same: int
    lost: Interval
    chance: float
    p: float
    popular: Interval


@dataclass(frozen=True)
class TraitAgreement:
    """How alike the components of two tables are.

    supported: as many as either run's analysis calls traits; that many (one at least) are compared.
    components: Tucker's congruence of each of the first run's components with its match in the second.
    subspace: mean cosine of the principal angles between the two spaces of components (what orthogonal
    Procrustes rotation reaches), which is 1 where they hold the same patterns in another order or mixture.
    Empty, with a reason, where there are too few tasks.
    """

    supported: tuple[int, int]
    components: tuple[Association, ...]
    subspace: Association
    reason: str = ""


@dataclass(frozen=True)
class Agreement:
    """Two runs held against each other. first, second: their places. cells: transfers that both know.

    gains: correlation of gains, each target's divided by its root mean square. pattern: the same after means
    of sources and of targets are taken away. sources: correlation of the sources' mean gains. picks: see
    ``Picks``, choosing by the first for the second; back: the other way round. reason: why there is nothing.
    """

    first: int
    second: int
    cells: int
    gains: Association
    pattern: Association
    sources: Association
    picks: Picks | None
    back: Picks | None
    traits: TraitAgreement
    reason: str = ""


def agreement(
    first: Array,
    second: Array,
    own: Array,
    unclean: Array,
    *,
    places: tuple[int, int],
    loadings: tuple[Array, Array] | None,
    supported: tuple[int, int],
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreement:
    """Two tables (S, T) of gains, positive where the adapter is better, NaN where unknown.

    own: (S, T) True where a source meets its own target; unclean: where a gain is something else than
    skill in one of them, which no pick may be. places: of the two runs. loadings: (T, C) of both on the same
    targets, or None where a run has none. supported: components that count as traits in each.
    """
    earlier, later = (_scaled(np.where(own, nan, table)) for table in (first, second))
    known = np.isfinite(earlier) & np.isfinite(later)
    rows, columns = known.any(axis=1).sum(), known.any(axis=0).sum()
    traits = _traits(loadings, supported, draws, seed)
    if rows < FEWEST or columns < 2:
        reason = f"{rows} shared sources and {columns} targets are too few (at least {FEWEST} and 2)"
        none = Association(unknown(reason))
        return Agreement(*places, int(known.sum()), none, none, none, None, None, traits, reason)
    moves = _moves(len(first), draws, seed)
    return Agreement(
        *places,
        cells=int(known.sum()),
        gains=_associated(_correlation, earlier, later, moves),
        pattern=_associated(_correlation, _pattern(earlier), _pattern(later), moves),
        sources=_associated(_mean_correlation, earlier, later, moves),
        picks=_picks(_without(earlier, unclean), _without(later, unclean), moves, seed),
        back=_picks(_without(later, unclean), _without(earlier, unclean), moves, seed),
        traits=traits,
    )


def _scaled(table: Array) -> Array:
    """Each column divided by its root mean square; one that is 0 throughout says nothing and is left out."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.sqrt(np.nansum(table**2, axis=0) / np.maximum(np.isfinite(table).sum(axis=0), 1))
        return np.asarray(np.where(size > 0, table / size, nan))


def _without(table: Array, cells: Array) -> Array:
    return np.where(cells, nan, table)


def _moves(rows: int, draws: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(rows) for _ in range(draws)]


def _correlation(first: Array, second: Array) -> float:
    known = np.isfinite(first) & np.isfinite(second)
    return _correlated(first[known], second[known])


def _pattern(table: Array) -> Array:
    """What means of sources and of targets leave of a table; NaN where it is unknown."""
    known = np.isfinite(table)
    return np.where(known, two_way_residual(np.where(known, table, 0.0), known), nan)


def _mean_correlation(first: Array, second: Array) -> float:
    """Of the sources' mean gains over the targets that both tables know of them."""
    known = np.isfinite(first) & np.isfinite(second)
    counts = known.sum(axis=1)
    means = [np.where(known, table, 0.0).sum(axis=1) / np.maximum(counts, 1) for table in (first, second)]
    return _correlated(*(mean[counts > 0] for mean in means))


def _correlated(first: Array, second: Array) -> float:
    """Pearson's correlation; NaN for fewer than three pairs, and where one side does not vary."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return nan
    return pearson(first, second)


def _associated(
    measure: Callable[[Array, Array], float], first: Array, second: Array, moves: Sequence[np.ndarray]
) -> Association:
    """A correlation with its interval (sources left out one by one, Fisher's z) and its permutation null."""
    value = measure(first, second)
    if not isfinite(value):
        return Association(unknown("one of the tables does not vary"))
    null = np.array([measure(first, second[move]) for move in moves])
    null = null[np.isfinite(null)]
    p = (1 + int((null >= value - 1e-12).sum())) / (1 + len(null))
    count = len(first)
    left_out = np.array(
        [measure(np.delete(first, at, axis=0), np.delete(second, at, axis=0)) for at in range(count)]
    )
    low = high = nan
    if np.isfinite(left_out).all():
        z = np.arctanh(np.clip(left_out, -1 + 1e-9, 1 - 1e-9))
        error = sqrt((count - 1) / count * float(((z - z.mean()) ** 2).sum()))
        centre = float(np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9)))
        half = float(t_value(count - 1)) * error
        low, high = float(np.tanh(centre - half)), float(np.tanh(centre + half))
    return Association(Interval(value, min(low, value), max(high, value)), _quantile(null, 95), p)


def _quantile(null: Array, percent: float) -> float:
    return float(np.percentile(null, percent)) if len(null) else nan


def _picks(first: Array, second: Array, moves: Sequence[np.ndarray], seed: int) -> Picks | None:
    """Choose by the first table for the second; None where no target has three sources that both know."""
    known = np.isfinite(first) & np.isfinite(second)
    columns = [
        column
        for column in np.flatnonzero(known.sum(axis=0) >= 3).tolist()
        if np.ptp(second[known[:, column], column]) > 1e-12
    ]
    if not columns:
        return None
    filled, counts = np.where(np.isfinite(first), first, 0.0), np.isfinite(first).sum(axis=1)
    means = filled.sum(axis=1) / np.maximum(counts, 1)
    losses = _losses(first, second, columns)
    permuted = (_losses(first[move], second, columns) for move in moves)
    null = np.array([drawn[np.isfinite(drawn)].mean() for drawn in permuted if np.isfinite(drawn).any()])
    return Picks(
        targets=len(columns),
        same=int((losses == 0).sum()),
        lost=_over_targets(losses, seed),
        chance=_quantile(null, 5),
        p=(1 + int((null <= losses.mean() + 1e-12).sum())) / (1 + len(null)),
        popular=_over_targets(_losses(np.where(known, means[:, None], nan), second, columns), seed),
    )


def _losses(first: Array, second: Array, columns: Sequence[int]) -> Array:
    """What the first table's best source loses in the second on some targets, as share of best less average.

    Among the sources that both know; NaN where these do not differ, as a permuted table may have it.
    """
    losses = np.full(len(columns), nan)
    for place, column in enumerate(columns):
        rows = np.flatnonzero(np.isfinite(first[:, column]) & np.isfinite(second[:, column]))
        if len(rows) and np.ptp(truth := second[rows, column]) > 1e-12:
            picked = truth[first[rows, column].argmax()]
            losses[place] = (truth.max() - picked) / (truth.max() - truth.mean())
    return losses


def _over_targets(losses: Array, seed: int) -> Interval:
    """Mean loss with a bootstrap interval over targets."""
    (low,), (high,) = bootstrap_interval(losses[None], seed=seed)
    return Interval(float(losses.mean()), float(max(low, 0.0)), float(high))


def _traits(
    loadings: tuple[Array, Array] | None, supported: tuple[int, int], draws: int, seed: int
) -> TraitAgreement:
    if loadings is None:
        reason = "one of the tables is too small or too empty for components"
        return TraitAgreement(supported, (), Association(unknown(reason)), reason)
    targets = len(loadings[0])
    if targets < FEWEST:
        reason = f"{targets} shared targets are too few for components (at least {FEWEST})"
        return TraitAgreement(supported, (), Association(unknown(reason)), reason)
    count = min(max(*supported, 1), COMPONENTS, loadings[0].shape[1], loadings[1].shape[1], targets - 1)
    first, second = (part[:, :count] for part in loadings)
    generator = np.random.default_rng(seed)
    null = second[np.stack([generator.permutation(targets) for _ in range(draws)])]
    by_component, by_chance = match(first, second[None])[0][0], match(first, null)[0]
    spaces = np.linalg.svd(np.concatenate([second[None], null]).transpose(0, 2, 1) @ first)[1].mean(axis=1)
    return TraitAgreement(
        supported=supported,
        components=tuple(
            _against(float(value), by_chance[:, place]) for place, value in enumerate(by_component)
        ),
        subspace=_against(float(spaces[0]), spaces[1:]),
    )


def _against(value: float, null: Array) -> Association:
    """A value without an interval (each run's own traits tell how stable they are), against chance."""
    p = (1 + int((null >= value - 1e-12).sum())) / (1 + len(null))
    return Association(
        Interval(value, reason="no interval: see each run's own traits"), _quantile(null, 95), p
    )
