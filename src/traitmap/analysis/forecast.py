"""What gradients of the base alone say of every pair before anything is trained, and what that is worth.

The forecast of a pair is the product of two directions (``engine.gradients``): where Adam's first step on the
source goes, and where the target's loss falls. Only its order within a target means something. Whether it
means anything on a base is measured on pairs whose gains are known: the rank correlation of forecast and gain
within each target, averaged over targets, beside that of popularity (the source's mean gain on the other
targets, standardised) and of the likeness of words. A source's own target takes no part, nor does that of the
source that it is a variation of.

How far the mean correlation may be chance is told twice: by an interval over resampled targets, and by a
permutation of the sources, which leaves alone what the columns have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from traitmap.analysis.explanation.families import variations_of
from traitmap.errors import DataError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.crossed import resampled_interval
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, unknown
from traitmap.table import Entry, Table
from traitmap.wording import UNKNOWN, interval, plain, probability, with_interval

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.analysis.profiles.pairs import PairFeatures

DRAWS = 2000
_BLOCK = 2**22  # numbers of permuted tables at a time
FEWEST_SOURCES, FEWEST_TARGETS = 4, 3  # below, a rank correlation says nothing
WORDING = "semantic_cosine"  # the feature that stands for likeness of words, where no encoder was used


@dataclass(frozen=True)
class Standing:
    """How well one ranking of the sources goes with measured gains.

    name: ``forecast``, ``popularity``, ``wording``, ``popularity + forecast``, or a difference of two.
    correlation: mean rank correlation within targets, -1 to 1, with its 95 % interval over targets.
    p: two-sided, by permuting the sources; NaN for a difference. targets: that could be ranked.
    """

    name: str
    correlation: Interval
    p: float
    targets: int


@dataclass(frozen=True)
class Forecast:
    """What a step on every source would do to every target, to first order.

    gain: (S, T) fall of the target's loss in nats for a step of Adam of length 1; above zero is better. Only
        comparable within a target. stderr: (S, T) its standard error over the texts drawn.
    standings: what it is worth, where gains were measured; empty where none were.
    measured_on: what they were measured on; empty where nothing was.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    gain: Array
    stderr: Array
    standings: tuple[Standing, ...] = ()
    measured_on: str = ""
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    __repr__ = outline

    @property
    def worth(self) -> str:
        """One sentence on what the forecast is worth, to be read before any of its numbers."""
        by_name = {standing.name: standing for standing in self.standings}
        own = by_name.get("forecast")
        if own is None or not own.correlation.known:
            return (
                "Nobody has measured what this forecast is worth here: give a finished run with the same "
                "sources and targets. Until then take it for a guess."
            )
        words = f"On {self.measured_on} it goes with measured gains by a rank correlation of {_shown(own)}"
        over = by_name.get("forecast - popularity")
        value = own.correlation  # without an interval where all targets give the same
        if not (own.p < 0.05 and value.value > 0 and not value.low <= 0):
            return f"That this forecast is worth anything cannot be told here. {words}."
        if over is not None and over.correlation.known and over.correlation.low > 0:
            return f"{words}, better than popularity by {_shown(over, p=False)}."
        popular = by_name.get("popularity")
        beside = f"; popularity alone: {_shown(popular)}" if popular is not None else ""
        return f"{words}{beside}. That it says more than popularity cannot be told."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, the sentence on its worth first; unknown numbers are null."""
        return {"worth": self.worth, **{name: jsonable(value) for name, value in vars(self).items()}}

    def to_frame(self) -> pd.DataFrame:
        """One row for each pair: source, target, gain, stderr, and its rank within the target (1 is best)."""
        import pandas as pd

        ranks = stats.rankdata(-self.gain, axis=0, nan_policy="omit")
        rows = [
            (source, target, self.gain[i, j], self.stderr[i, j], ranks[i, j])
            for j, target in enumerate(self.targets)
            for i, source in enumerate(self.sources)
        ]
        return pd.DataFrame(rows, columns=["source", "target", "gain", "stderr", "rank"])


def forecast_of(
    steps: Mapping[str, NDArray[np.floating]],
    gradients: Mapping[str, NDArray[np.floating]],
    conditions: Mapping[str, Any],
) -> Forecast:
    """Products of directions by name, (parts, width) each, and how far the parts disagree.

    The standard error is that of a mean over both sides' parts, taken as independent draws.
    """
    sources, targets = tuple(steps), tuple(gradients)
    gain = np.full((len(sources), len(targets)), np.nan)
    stderr = np.full_like(gain, np.nan)
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            products = steps[source].astype(float) @ gradients[target].astype(float).T
            gain[i, j] = products.mean()
            variance = sum(
                side.var(ddof=1) / len(side)
                for side in (products.mean(axis=1), products.mean(axis=0))
                if len(side) > 1
            )
            stderr[i, j] = np.sqrt(variance)
    return Forecast(sources, targets, gain, stderr, conditions=conditions)


def forecast_from_json(record: Mapping[str, Any]) -> Forecast:
    """The forecast that ``to_json`` wrote, not judged. DataError where a part of it is missing or amiss."""
    try:
        sources, targets = tuple(map(str, record["sources"])), tuple(map(str, record["targets"]))
        gain, stderr = (np.array(record[name], dtype=float) for name in ("gain", "stderr"))
        gain[~np.isfinite(gain)] = stderr[~np.isfinite(stderr)] = np.nan  # infinite is as little known
        conditions = MappingProxyType(dict(record["conditions"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not a forecast as `traitmap forecast --json` writes it: {error}") from None
    if not gain.shape == stderr.shape == (len(sources), len(targets)):
        raise DataError(
            f"not a forecast as `traitmap forecast --json` writes it: {len(sources)} sources, {len(targets)} "
            f"targets, but gain {gain.shape} and stderr {stderr.shape}."
        )
    return Forecast(sources, targets, gain, stderr, conditions=conditions)


def judged(
    forecast: Forecast,
    matrix: TransferMatrix,
    features: PairFeatures | None = None,
    *,
    measured_on: str = "the table",
    seed: int = 0,
) -> Forecast:
    """The forecast with what it is worth on measured gains; see ``standings``. measured_on: their name."""
    found = standings(forecast, matrix, features, seed=seed)
    return replace(forecast, standings=found, measured_on=measured_on if found else "")


def standings(
    forecast: Forecast, matrix: TransferMatrix, features: PairFeatures | None, *, seed: int = 0
) -> tuple[Standing, ...]:
    """What a forecast is worth on measured gains, beside popularity and likeness of words.

    matrix: gains of sources and targets of the same names, in any number of others; gains are turned so that
    more is better. features: of all pairs, for the likeness of words; None where there are no texts.
    Nothing where fewer than ``FEWEST_TARGETS`` targets have ``FEWEST_SOURCES`` measured sources.
    """
    sources = [name for name in forecast.sources if name in matrix.sources]
    targets = [name for name in forecast.targets if name in matrix.targets]
    rows = [matrix.sources.index(name) for name in sources]
    columns = [matrix.targets.index(name) for name in targets]
    upwards = np.array([1.0 if matrix.higher_is_better.get(name, True) else -1.0 for name in targets])
    gains = matrix.gains[np.ix_(rows, columns)] * upwards if rows and columns else np.empty((0, 0))
    made = variations_of(matrix)
    for i, source in enumerate(sources):
        own = {source, *(made[source]["parents"] if source in made else ())}
        gains[i, [j for j, target in enumerate(targets) if target in own]] = np.nan
    used = [
        j
        for j in range(len(targets))
        if np.isfinite(gains[:, j]).sum() >= FEWEST_SOURCES and np.ptp(gains[np.isfinite(gains[:, j]), j]) > 0
    ]
    if len(used) < FEWEST_TARGETS:
        return ()
    gains, names = gains[:, used], [targets[j] for j in used]
    at = np.ix_(
        [forecast.sources.index(name) for name in sources], [forecast.targets.index(name) for name in names]
    )
    rankings = {"forecast": forecast.gain[at], "popularity": popularity(gains)}
    if features is not None and WORDING in features.names:
        likeness = features.over(sources, names)
        rankings["wording"] = likeness.array[:, :, likeness.names.index(WORDING)]
    both = np.stack([_standardised(rankings[name]) for name in ("popularity", "forecast")])
    rankings["popularity + forecast"] = both.mean(axis=0)
    return _judged(rankings, gains, seed)


def popularity(gains: Array) -> Array:
    """(S, T) each source's mean standardised gain on all other targets; NaN where it has none."""
    scaled = _standardised(gains)
    known = np.isfinite(scaled)
    total, count = np.where(known, scaled, 0).sum(axis=1), known.sum(axis=1)
    others = count[:, None] - known
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(others > 0, (total[:, None] - np.where(known, scaled, 0)) / others, np.nan)


def _judged(rankings: Mapping[str, Array], gains: Array, seed: int) -> tuple[Standing, ...]:
    """Each ranking's mean correlation with its interval and p, and what the forecast has over the others."""
    generator = np.random.default_rng(seed)
    n_targets = gains.shape[1]
    weights = generator.multinomial(n_targets, np.full(n_targets, 1 / n_targets), size=DRAWS).astype(float)
    orders = np.array([generator.permutation(len(gains)) for _ in range(DRAWS // 2)])
    pieces = np.array_split(orders, -(-len(orders) * gains.size // _BLOCK))
    by_target = {name: correlations(ranking, gains) for name, ranking in rankings.items()}
    judged = []
    for name, values in by_target.items():
        null = _means(np.concatenate([correlations(rankings[name][part], gains) for part in pieces]))
        extreme = np.abs(null) >= abs(float(_means(values))) - 1e-12
        p = (1 + extreme.sum()) / (1 + len(orders))
        judged.append(_standing(name, values, weights, float(p)))
    for name in by_target:
        if name != "forecast":
            pair = ("forecast", name) if " + " not in name else (name, "popularity")
            difference = by_target[pair[0]] - by_target[pair[1]]
            judged.append(_standing(" - ".join(pair), difference, weights, np.nan))
    return tuple(judged)


def _standing(name: str, values: Array, weights: Array, p: float) -> Standing:
    known = np.isfinite(values)
    if not known.any():
        return Standing(name, unknown("no target can be ranked"), p, 0)
    counts = weights[:, known]
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = counts @ values[known] / counts.sum(axis=1)
    correlation = resampled_interval(float(values[known].mean()), draws, n=int(known.sum()))
    return Standing(name, correlation, p, int(known.sum()))


def correlations(ranking: Array, gains: Array) -> Array:
    """(..., T) rank correlation of tables (..., S, T) and (S, T) within each target, over what both know.

    NaN where fewer than ``FEWEST_SOURCES`` sources are left, or where either side is constant.
    """
    known = np.isfinite(ranking) & np.isfinite(gains)
    count = known.sum(axis=-2)
    one, other = (_centred_ranks(np.broadcast_to(side, known.shape), known) for side in (ranking, gains))
    spread = np.sqrt((one**2).sum(axis=-2) * (other**2).sum(axis=-2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((count >= FEWEST_SOURCES) & (spread > 0), (one * other).sum(axis=-2) / spread, np.nan)


def _centred_ranks(values: Array, known: NDArray[np.bool_]) -> Array:
    """(..., S, T) mean ranks among the known values of a column, less their mean; 0 where unknown."""
    filled = np.where(known, values, np.inf)
    ranks = stats.rankdata(filled, axis=-2)  # what is unknown comes last and moves no other rank
    mean = np.where(known, ranks, 0).sum(axis=-2) / np.maximum(known.sum(axis=-2), 1)
    return np.where(known, ranks - mean[..., None, :], 0.0)


def _standardised(table: Array) -> Array:
    """Columns less their mean, over their spread; a constant column is all zero."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(table)
        count = np.maximum(known.sum(axis=0), 1)
        centred = table - np.where(known, table, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, centred, 0) ** 2).sum(axis=0) / count)
        return centred / np.where(spread > 0, spread, 1)


def forecast_table(forecast: Forecast, most: int = 3) -> Table:
    """For every target the sources whose step would lower its loss most, and the one that would raise it."""
    rows: list[list[Entry | str]] = []
    for j, target in enumerate(forecast.targets):
        gain, error = forecast.gain[:, j], forecast.stderr[:, j]
        others = [i for i in np.argsort(-gain, kind="stable") if forecast.sources[i] != target]
        first = [f"{forecast.sources[i]}{_clear(gain[i], error[i])}" for i in others[:most] if gain[i] > 0]
        last = others[-1] if others and gain[others[-1]] < 0 else None
        rows.append(
            [
                target,
                ", ".join(first) or UNKNOWN,
                UNKNOWN if last is None else f"{forecast.sources[last]}{_clear(gain[last], error[last])}",
            ]
        )
    return Table(
        "Sources by the forecast of their first step, within each target; its own is left out.",
        ("target", "would help most, in this order", "would hurt most"),
        rows,
        ("~ within two standard errors of nothing, over the texts that were drawn",),
    )


def standings_table(forecast: Forecast) -> Table:
    """What the forecast is worth beside other rankings, on gains that were measured."""
    return Table(
        f"Mean rank correlation within targets with the gains of {forecast.measured_on}, with 95 % intervals "
        "over targets; p by permuting sources.",
        ("ranking", "rank correlation", "95 % interval", "p", "targets"),
        [
            (
                standing.name,
                Entry(plain(standing.correlation.value, 2), value=standing.correlation.value),
                interval(standing.correlation.low, standing.correlation.high, 2),
                probability(standing.p),
                str(standing.targets),
            )
            for standing in forecast.standings
        ],
    )


def _clear(gain: float, error: float) -> str:
    return "" if abs(gain) > 2 * error else " ~"


def _means(values: Array) -> Array:
    """(...) means over the last axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)


def _shown(standing: Standing, *, p: bool = True) -> str:
    """``+.31 [+.12, +.47] (11 targets, p .004)``."""
    value = standing.correlation
    test = f", p {probability(standing.p)}" if p else ""
    return f"{with_interval(value.value, value.low, value.high, 2)} ({standing.targets} targets{test})"
