"""The records of the trait analysis: what ``decompose`` returns, and as JSON.

Axes everywhere: S sources, T targets, C components, M components examined by resampling. Unknown numbers are
NaN, with a reason where the record has a field for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from traitmap.analysis.traits.components import Biplot, Mask
from traitmap.analysis.traits.description import describe
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.record import Array

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TraitWarning:
    """One thing that a reader of the traits must know.

    code: a stable word for machines. message: what was found, with its numbers.
    action: what to do about it. about: the sources, targets or components concerned.
    """

    code: str
    message: str
    action: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resampling:
    """How far the loadings move when the data are resampled in one way.

    kind: ``adapters``, ``items``, ``seeds``, ``leave_one_source_out``, ``leave_one_target_out``.
    draws: resampled tables. All arrays are (M,), one entry per component examined:
    congruence_mean, congruence_p05: Tucker's congruence with the component of the whole table,
        after Hungarian matching (1 is identical up to sign).
    noise_p95: the same statistic's 95th percentile on tables without structure; a congruence
        below it is no evidence of stability. NaN where there were too few noise draws.
    worst: the source or target whose omission moves each component most (leave-one-out only).
    """

    kind: str
    draws: int
    congruence_mean: Array
    congruence_p05: Array
    noise_p95: Array
    worst: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stability:
    """What happens to the components when the data are resampled.

    examined: how many leading components were matched (M).
    overlaps: neighbouring components whose eigenvalues cannot be told apart, so that only their plane is
        meaningful, with the mean and the 95th percentile of the largest principal angle in degrees between
        the plane of the whole table and that of a resampled one.
    eigenvalue_low, eigenvalue_high: (M,) 95 % interval of the explained variance ratio over adapters.
    """

    examined: int
    resamplings: Mapping[str, Resampling] = field(default_factory=lambda: MappingProxyType({}))
    overlaps: tuple[tuple[tuple[int, ...], float, float], ...] = ()
    eigenvalue_low: Array | None = None
    eigenvalue_high: Array | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: resamplings by kind, overlapping components, intervals of variance shares."""
        resamplings: dict[str, Any] = jsonable(self.resamplings)
        for fields in resamplings.values():
            del fields["kind"]
        names = ("components", "angle_mean", "angle_p95")
        return {
            "examined": self.examined,
            "resamplings": resamplings,
            "overlaps": [jsonable(dict(zip(names, overlap, strict=True))) for overlap in self.overlaps],
            "explained_variance_ratio_low": jsonable(self.eigenvalue_low),
            "explained_variance_ratio_high": jsonable(self.eigenvalue_high),
        }


@dataclass(frozen=True)
class Noise:
    """How much of the table is measurement noise.

    origin: ``items``, ``stderr``, ``binomial`` or ``unknown``.
    variance: (T,) expected noise variance of a cell, in squared units of the values, after the part
        that all adapters share is removed. NaN where unknown.
    share: (T,) that variance over the observed variance between sources.
    reliability: (T,) of the pooled values over seeds, 1 - within / between mean squares; NaN below two seeds.
    signal_ratio: (C,) noise-corrected share of variance of each component; NaN where noise is unknown.
    total_share: noise variance over all variance in the scale that was decomposed.
    reason: why something is unknown, else empty.
    """

    origin: str
    variance: Array
    share: Array
    reliability: Array
    signal_ratio: Array
    total_share: float
    reason: str = ""


@dataclass(frozen=True)
class NameEvidence:
    """Why a component is called what it is called.

    tag: the winning tag or empty. pole: ``+`` or ``-``, the side of the component where it sits.
    lift: share of squared loading on targets with the tag over their share of targets.
    p: of so high an over-representation of any tag when tags are shuffled over targets.
    origin: ``tags``, ``user``, ``endpoint`` or ``none``.
    """

    name: str
    origin: str
    tag: str = ""
    pole: str = ""
    lift: float = float("nan")
    p: float = float("nan")
    reason: str = ""


@dataclass(frozen=True)
class CrossValidation:
    """Element-wise cross-validation of the number of components.

    errors: (K + 1,) mean squared error of held-out cells for 0..K components, in units of the scale.
    stderr: (K + 1,) standard error of the paired difference to the best number.
    best: number with the least error. chosen: the fewest within one standard error of it.
    by_seed: the choice that each assignment of cells to folds makes alone.
    """

    errors: Array
    stderr: Array
    best: int
    chosen: int
    by_seed: tuple[int, ...]


@dataclass(frozen=True)
class Traits:
    """Latent directions of a transfer matrix and how far they can be believed.

    All C components that exist are given (for the scree); only the first ``n_components["used"]``
    are supported, and that may be none.

    n_components: ``cv`` by cross-validation: as many fit. ``parallel`` by Horn's parallel analysis,
        ``permutation`` by the permutation null. ``used``: those that count as traits, or as many as were
        asked for. ``stable``: of these, stable enough to be named; 0 where nothing was resampled.
    explained_variance_ratio: (C,). null_mean, null_p05, null_p95: (C,) the same for tables whose
        columns were permuted; null_cumulative_*: (C,) of the running sum.
    loadings: (T, C) unit-norm columns, largest magnitude positive; loadings_low, loadings_high:
        95 % interval over resampled adapters (and items, seeds), NaN for components not examined.
    scores_u: (S, C) unit-norm left singular vectors. scores: (S, C) scores_u times singular value.
    base_scores: (C,) the base model projected on the components, NaN if unknown.
    effects: (S, C) loading-weighted mean gain over the base in points (see ``docs/traits.md``);
        effects_low, effects_high: 95 % interval of measurement noise, NaN where it cannot be had.
    leverage: (S, C) share of the component's variance that comes from each source.
    singular_values: (C,). centers, divisors: (T,) subtracted from and dividing each target's column.
    completed: (S, T) the table with missing and masked cells filled, in the units of ``values``.
    masked: (S, T) True where a cell was left out because source and target are the same task.
    rotation, factor_correlation: (k, k) for the k rotated components, else None.
    rotated_variance_ratio: (k,) shares of variance after rotation, weighted by factor correlation.
    names: (C,). naming: why. conditions: what was asked and how it was done.
    biplot: the first two components as a plane with the scatter of each point; None without a bootstrap.
    aside: sources that took no part, and why: made from others, or near copies. They have scores and effects
        by projection, and no leverage.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    n_components: Mapping[str, int]
    explained_variance_ratio: Array
    null_mean: Array
    null_p05: Array
    null_p95: Array
    null_cumulative_mean: Array
    null_cumulative_p05: Array
    null_cumulative_p95: Array
    loadings: Array
    loadings_low: Array
    loadings_high: Array
    scores_u: Array
    scores: Array
    base_scores: Array
    effects: Array
    effects_low: Array
    effects_high: Array
    leverage: Array
    singular_values: Array
    centers: Array
    divisors: Array
    completed: Array
    masked: Mask
    cross_validation: CrossValidation
    stability: Stability
    noise: Noise
    names: tuple[str, ...]
    naming: tuple[NameEvidence, ...]
    warnings: tuple[TraitWarning, ...]
    conditions: Mapping[str, Any]
    rotation: Array | None = None
    factor_correlation: Array | None = None
    rotated_variance_ratio: Array | None = None
    biplot: Biplot | None = None
    aside: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def to_frame(self) -> pd.DataFrame:
        """Loadings as a long table: a row for each target and component, in that order.

        Columns: target, component (from 0), name, used (whether the data support it), loading, and its 95 %
        interval low, high (NaN for components that were not examined).
        """
        import pandas as pd

        count = len(self.names)
        return pd.DataFrame(
            {
                "target": [target for target in self.targets for _ in range(count)],
                "component": [*range(count)] * len(self.targets),
                "name": [*self.names] * len(self.targets),
                "used": [c < self.n_components["used"] for c in range(count)] * len(self.targets),
                "loading": self.loadings.ravel(),
                "low": self.loadings_low.ravel(),
                "high": self.loadings_high.ravel(),
            }
        )

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON data, loadings and scores keyed by name; unknown numbers are null.

        ``words`` are the sentences of ``description.describe``.
        """

        def by_name(names: tuple[str, ...], *fields: str, of: Any = self) -> dict[str, Any]:
            return {field: dict(zip(names, jsonable(getattr(of, field)), strict=True)) for field in fields}

        def plainly(*fields: str) -> dict[str, Any]:
            return {field: jsonable(getattr(self, field)) for field in fields}

        def band(name: str) -> dict[str, Any]:
            return {part: jsonable(getattr(self, f"{name}_{part}")) for part in ("mean", "p05", "p95")}

        plane, noise = self.biplot, self.noise
        return {
            **plainly("n_components", "explained_variance_ratio"),
            "null_explained_variance_ratio": band("null"),
            "null_cumulative": band("null_cumulative"),
            **plainly("singular_values"),
            **by_name(self.targets, "loadings", "loadings_low", "loadings_high"),
            **by_name(self.sources, "scores", "scores_u"),
            **plainly("base_scores"),
            **by_name(self.sources, "effects", "effects_low", "effects_high", "leverage"),
            "biplot": None
            if plane is None
            else {
                **jsonable(vars(plane)),
                **by_name(self.sources, "scores", "scores_covariance", of=plane),
                **by_name(self.targets, "loadings", "loadings_covariance", of=plane),
            },
            **plainly("cross_validation", "stability"),
            "noise": {
                **jsonable(vars(noise)),
                **by_name(self.targets, "variance", "share", "reliability", of=noise),
            },
            **plainly("rotation", "factor_correlation", "rotated_variance_ratio", "names", "naming"),
            "words": describe(self),
            **plainly("warnings", "conditions", "aside"),
        }

    def _repr_html_(self) -> str:
        """Small tables, for notebooks."""
        from traitmap.analysis.tables import traits_html

        return traits_html(self)
