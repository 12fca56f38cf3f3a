"""A recommender for real use: predicted gains of every source on a new target, intervals, and why.

    fitted = fit_recommender(matrix, features=pair_features(sources, targets_and_new))
    found = fitted.predict("new target")                      # nothing measured there yet
    found = fitted.predict("new target", known={"math": 4.1})  # after a probe or two
    found.gain, found.low, found.high                         # (S,) in the unit of the matrix's gains
    found.contributions[source]                               # {feature: points}; they add up to the gain

``fit_recommender(matrix, *, features=None, texts=None, embeddings=None, attributes=None, new_targets=None,
values="score", seed=0) -> FittedRecommender``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.pair_features import PairFeatures
from traitmap.analysis.recommendation.effects import Effects, Values, effects_of
from traitmap.analysis.recommendation.knowledge import Attributes, Embeddings, Knowledge, knowledge_of
from traitmap.analysis.recommendation.problem import Problem
from traitmap.analysis.recommendation.selection import Selected, select
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, TransferMatrix

COMMON = "what sources do on targets in general"
INTERPLAY = "features together"
PROBES = "measured cells of this target"
WORDS: Mapping[str, str] = {
    COMMON: "what sources do on targets in general",
    INTERPLAY: "features together",
    PROBES: "what was measured on this target",
    "popularity": "helps other targets",
    "level of the target": "level of this target",
    "traits": "traits shared with this target",
    "alike targets": "helps targets that are alike",
    "alike sources": "sources that are alike help other targets",
    "alike sources on alike targets": "sources that are alike help targets that are alike",
}
SHRINKAGE = 0.3  # share of the sources' covariance that is taken as their variances alone


@dataclass(frozen=True)
class Prediction:
    """What every source is expected to do to one target, before it is trained for it or measured there.

    gain, low, high: (S,) in the unit of ``Effects.effect``, 90 % intervals; a known cell is its own value.
    contributions: for each source, points by feature name; with ``in general`` they add up to the gain.
    measured: (S,) whether the cell was given.
    """

    target: str
    sources: tuple[str, ...]
    gain: Array
    low: Array
    high: Array
    measured: NDArray[np.bool_]
    contributions: tuple[Mapping[str, float], ...]
    words: Mapping[str, str]
    model: str
    setting: str
    unit: str

    @property
    def ranked(self) -> tuple[str, ...]:
        """Sources from the largest predicted gain to the smallest."""
        return tuple(self.sources[at] for at in np.argsort(-self.gain, kind="stable"))


@dataclass(frozen=True)
class FittedRecommender:
    """A recommender chosen on the known cells of a matrix by held-out targets.

    sources: of the matrix. targets: of the matrix, then the new ones. selected: every family with the one
    that inner folds picked.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    effects: Effects
    knowledge: Knowledge
    problem: Problem
    selected: Selected

    def predict(self, target: str, known: Mapping[str, float] | None = None) -> Prediction:
        """Every source on one target, given some measured effects there (source -> effect).

        A target of the matrix is predicted by the model that was fitted with its cells; new targets are
        those named in ``new_targets`` or in the features. Raises MatrixError where a name is not known.
        """
        at = _place(target, self.targets, "target")
        one = self.selected.families[self.selected.chosen]
        gain, low, high = (table[:, at].copy() for table in (one.effect, one.low, one.high))
        spread, centre = one.spread[at], gain - one.spread[at] * one.fit.z[:, at]
        contributions = [
            _points(one.fit.parts(row, at), one.fit.z[row, at], spread, centre[row])
            for row in range(len(self.sources))
        ]
        measured = np.zeros(len(self.sources), dtype=bool)
        if known:
            rows = np.array([_place(name, self.sources, "source") for name in known])
            values = np.array(list(known.values()), dtype=float)
            shift, share = self._update(one.held_out, gain, rows, values, spread)
            low, high = gain + shift + share * (low - gain), gain + shift + share * (high - gain)
            gain = gain + shift
            measured[rows] = True
            for row, moved in enumerate(shift):
                contributions[row] = {**contributions[row], PROBES: float(moved)}
        names = (*self.problem.feature_names, *one.context_words)
        words = {**dict(zip(names, names, strict=True)), **WORDS, **one.context_words}
        words |= dict(zip(self.problem.feature_names, self.problem.feature_words, strict=True))
        return Prediction(
            target=target,
            sources=self.sources,
            gain=gain,
            low=low,
            high=high,
            measured=measured,
            contributions=tuple(contributions),
            words=words,
            model=self.selected.chosen,
            setting=one.setting,
            unit=self.effects.unit,
        )

    def _update(
        self, held_out: Array, gain: Array, rows: NDArray[np.int64], values: Array, spread: float
    ) -> tuple[Array, Array]:
        """How far measured cells move every prediction, and what share of its interval stays (S,).

        Errors of sources on one held-out target go together (a target that gains more than expected
        gains from all); given some of them, the others follow as in a normal distribution.
        """
        covariance = _covariance(held_out) * spread**2
        inner = covariance[np.ix_(rows, rows)] + 1e-9 * np.eye(len(rows)) * covariance.trace() / len(
            covariance
        )
        pull = np.linalg.solve(inner, covariance[rows]).T
        shift = pull @ (values - gain[rows])
        left = np.diag(covariance) - (pull * covariance[:, rows]).sum(axis=1)
        share = np.sqrt(np.clip(left / np.diag(covariance), 0.0, 1.0))
        shift[rows], share[rows] = values - gain[rows], 0.0
        return shift, share


def fit_recommender(
    matrix: TransferMatrix,
    *,
    features: PairFeatures | None = None,
    texts: Texts | None = None,
    embeddings: Embeddings | None = None,
    attributes: Attributes | None = None,
    new_targets: Sequence[str] | None = None,
    values: Values = "score",
    seed: int = 0,
) -> FittedRecommender:
    """Choose and fit a recommender for new targets on the known cells of a matrix.

    features: of the matrix's sources and of its targets and the new ones; texts, embeddings, attributes
    as in ``evaluate``. new_targets: names to predict for (default: the targets of ``features`` that the
    matrix does not have). The model and its hyper-parameters are those that predict held-out targets best.
    """
    effects = effects_of(matrix, values)
    if new_targets is None:
        new_targets = [] if features is None else [t for t in features.targets if t not in matrix.targets]
    targets = (*effects.targets, *new_targets)
    knowledge = knowledge_of(effects.sources, targets, texts, embeddings, attributes, features)
    rows, columns, extra = len(effects.sources), len(targets), len(new_targets)
    problem = Problem(
        effect=np.hstack([effects.effect, np.full((rows, extra), np.nan)]),
        features=knowledge.features,
        feature_names=knowledge.names,
        feature_words=knowledge.words,
        targets_alike=knowledge.targets_alike,
        sources_alike=knowledge.sources_alike,
        holdout="target",
        blocks=np.broadcast_to(np.arange(columns)[None, :], (rows, columns)),
        own=np.array([[source == target for target in targets] for source in effects.sources]),
        base=np.concatenate([effects.base, np.full(extra, np.nan)]),
        seed=seed,
    )
    return FittedRecommender(effects.sources, targets, effects, knowledge, problem, select(problem))


def _place(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise MatrixError(f"no {what} named {name!r}; there are {', '.join(names)}")
    return list(names).index(name)


def _points(parts: Mapping[str, float], z: float, spread: float, centre: float) -> dict[str, float]:
    """Parts of z in points, with what they leave unexplained, and the level that all sources share."""
    found = {name: float(value) * spread for name, value in parts.items()}
    rest = spread * z - sum(found.values())
    if abs(rest) > 1e-9 * max(spread, 1e-12):
        found[INTERPLAY] = rest
    return {COMMON: centre, **found}


def _covariance(residuals: Array) -> Array:
    """(S, S) covariance of sources' held-out errors over targets, pairwise where cells are missing.

    Drawn to its diagonal; the mean square is taken about zero, so that errors common to a target count.
    """
    known = np.isfinite(residuals)
    filled = np.where(known, residuals, 0.0)
    count = known.astype(float) @ known.T.astype(float)
    products = np.where(count > 0, filled @ filled.T / np.maximum(count, 1), 0.0)
    usual = float(np.mean(np.diag(products)[np.diag(count) > 0])) if (count > 0).any() else 1.0
    variance = np.where(np.diag(count) > 0, np.diag(products), usual) + 1e-12
    mixed = (1 - SHRINKAGE) * products
    np.fill_diagonal(mixed, variance)
    lowest, vectors = np.linalg.eigh(mixed)
    return np.asarray((vectors * np.maximum(lowest, 1e-9 * usual)) @ vectors.T)
