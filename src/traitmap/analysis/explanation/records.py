"""The frozen records of an explanation. Every number has its interval, its null, or the reason why not.

Gains are in points, or in standard deviations of the target where ``conditions["units"]`` says so. Where the
base is unknown (``conditions["no_base"]``), scores less their mean on the target stand in their place. An
effect of a feature is in standard deviations of gain. A verdict is ``yes``, ``no`` or ``cannot tell``, and
the last comes with the minimal effect that would have been found (80 % power).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from traitmap.analysis.explanation.families import Families
from traitmap.analysis.explanation.permutation import Mantel
from traitmap.analysis.profiles.pairs import Group, Reason
from traitmap.analysis.traits.records import TraitWarning
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["yes", "no", "cannot tell"]


@dataclass(frozen=True)
class FeatureEffect:
    """What one property of a pair, or a composite of several, goes with.

    effect: standard deviations of gain for one of the feature, source and target effects taken out of
        both, with a 95 % interval; in the joint regression the other composites are held constant.
    p, q: of no effect, tasks permuted; q after Benjamini-Hochberg over its list.
    detectable: smallest effect found with 80 % power at the level that correction leaves.
    collinearity: R^2 on the other composites, 0 alone. members: features in a composite.
    by_itself, p_by_itself: the same effect without the others held constant.
    known: share of the used pairs on which it is known. mantel: second opinion, no effects taken out.
    verdict: ``yes`` (q < .05 and, by itself, p < .05 with the same sign), ``no`` (the whole interval is
        negligible), else ``cannot tell``.
    rests_on: single pairs (``source -> target``) and sources without any one of which a yes is one no more.
    """

    name: str
    group: Group
    words: str
    effect: Interval
    p: float
    q: float
    detectable: float
    collinearity: float
    by_itself: Interval
    p_by_itself: float
    known: float
    members: tuple[str, ...]
    mantel: Mantel
    verdict: Verdict
    rests_on: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether it says yes and goes on saying so without any one pair or source."""
        return self.verdict == "yes" and not self.rests_on

    @property
    def verdict_words(self) -> str:
        """The verdict as tables show it, with the doubt of a yes that rests on a single pair or source."""
        return f"{self.verdict}, but rests on one" if self.rests_on else self.verdict


@dataclass(frozen=True)
class LevelEffect:
    """A property of sources (or targets) alone, held against their strengths: n is the number of tasks.

    r: Pearson's correlation with Fisher's interval. p: tasks permuted; q: Benjamini-Hochberg.
    detectable: smallest |r| found with 80 % power. rests_on: tasks without any one of which a yes is one no
    more.
    """

    name: str
    group: Group
    words: str
    side: Literal["source", "target"]
    r: Interval
    p: float
    q: float
    detectable: float
    n: int
    verdict: Verdict
    rests_on: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether it says yes and goes on saying so without any one task."""
        return self.verdict == "yes" and not self.rests_on


@dataclass(frozen=True)
class GroupShare:
    """Share of the variance of gains (after effects) that one group of composites explains.

    share: general dominance. null_mean, null_p95: what the same features get with tasks permuted.
    beyond: share less null_mean, with a 95 % interval over tasks. p: of so large a share by chance.
    rests_on: pairs and sources without any one of which a yes is one no more.
    """

    group: Group
    features: tuple[str, ...]
    share: float
    null_mean: float
    null_p95: float
    p: float
    beyond: Interval
    verdict: Verdict
    rests_on: tuple[str, ...] = ()

    @property
    def verdict_words(self) -> str:
        """The verdict as tables show it, with the doubt of a yes that rests on a single pair or source."""
        return f"{self.verdict}, but rests on one" if self.rests_on else self.verdict


@dataclass(frozen=True)
class Dominance:
    """Shares of all groups, what is unexplained, and hidden held against surface.

    unexplained: 1 - R^2, and less what chance explains with an interval. hidden_less_surface: difference
    of the two shares beyond chance; verdict ``yes`` when its interval leaves out 0. rests_on: pairs and
    sources without any one of which that yes is one no more.
    """

    groups: tuple[GroupShare, ...]
    unexplained: float
    unexplained_beyond: Interval
    hidden_less_surface: Interval
    verdict: Verdict
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class OddCell:
    """A pair whose gain departs from what surface similarity predicts, predicted without itself.

    departure: gain less predicted, with the 95 % interval of the cells' own noise (of the scatter of all
        pairs where noise is unknown). p_noise, q_noise: of no departure but noise.
    studentised: departure in standard errors of the scatter of all other pairs; q_scatter: of so large a
        one among all pairs, where sources and targets may scatter unlike. reasons: the strongest first.
    """

    source: str
    target: str
    gain: float
    predicted: float
    departure: Interval
    p_noise: float
    q_noise: float
    studentised: float
    q_scatter: float
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class OddCells:
    """odd: beyond noise (q < .05) and further out than 19 in 20 pairs. tested: pairs examined.

    beyond_noise: how many depart by more than their noise, None where noise is unknown.
    cells: every examined pair, the oddest first. r_squared: variance after effects that surface explains.
    """

    odd: tuple[OddCell, ...]
    cells: tuple[OddCell, ...]
    tested: int
    beyond_noise: int | None
    r_squared: float
    reason: str = ""


@dataclass(frozen=True)
class AsymmetricPair:
    """Two tasks, each once source and once target.

    forward: gain of ``second`` from training on ``first``; backward the other way round.
    difference: forward less backward with its 95 % interval; p, q of none.
    """

    first: str
    second: str
    forward: float
    backward: float
    difference: Interval
    p: float
    q: float


@dataclass(frozen=True)
class Asymmetry:
    """T - T' over all pairs of tasks that are both.

    reciprocity: correlation of a pair's two gains after effects (1: symmetric, 0: one direction says nothing
    of the other); p from drawn tables in which it does not. detectable: smallest found with 80 % power.
    rests_on: pairs and sources without any one of which that p is above .05. reason: why no pair has a p, or
    why there are no pairs.
    """

    pairs: tuple[AsymmetricPair, ...]
    reciprocity: Interval
    p: float
    detectable: float
    reason: str = ""
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strength:
    """How much a source gives on average (donor) or a target gains on average (recipient).

    effect: against the mean source (target) on the same targets (sources), with a 95 % interval over
    them. null_low, null_high: 95 % band when gains are permuted among sources (targets). p, q: of
    none, by the jackknife of the interval. rests_on: pairs, and other sources, without any one of which it is
    not beyond chance.
    """

    name: str
    effect: Interval
    null_low: float
    null_high: float
    p: float
    q: float
    rests_on: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether it is beyond chance (q < .05), and without any one pair or other source too."""
        return self.q < 0.05 and not self.rests_on


@dataclass(frozen=True)
class Explanation:
    """Why gains are what they are, as far as these tasks can tell.

    sources, targets: what was compared. pairs: how many (source, target) pairs; own: pairs left out
        because the source is the target's own training set. scheme: ``joint`` or ``independent``
        permutation of tasks. joint: composites beside each other; alone: each feature by itself;
        levels: features of sources or of targets alone, which the effects absorb.
    words: the verdicts in plain sentences. families: what controlled changes of a source showed.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    pairs: int
    own: tuple[tuple[str, str], ...]
    scheme: Literal["joint", "independent"]
    permutations: int
    joint: tuple[FeatureEffect, ...]
    alone: tuple[FeatureEffect, ...]
    levels: tuple[LevelEffect, ...]
    dominance: Dominance
    odd: OddCells
    asymmetry: Asymmetry
    donors: tuple[Strength, ...]
    recipients: tuple[Strength, ...]
    words: tuple[str, ...]
    families: Families = field(default_factory=Families)
    warnings: tuple[TraitWarning, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def unit(self) -> str:
        """What gains are in, in words."""
        standard = self.conditions.get("units") == "standard"
        return "standard deviations of the target" if standard else "points"

    @property
    def quantity(self) -> str:
        """What a pair has: a gain, or its score less the mean of its target where the base is unknown."""
        no_base = set(self.conditions.get("no_base", ()))
        if not no_base:
            return "gain"
        return "score less mean" if no_base >= set(self.targets) else "gain, or score less mean"

    def to_frame(self) -> pd.DataFrame:
        """Effects as a table: a row for each composite of the joint regression, then for each feature alone.

        Columns: part (``joint`` or ``alone``), name, group, effect in standard deviations of gain with its
        95 % interval low, high, then p, q, detectable, known and verdict as in ``FeatureEffect``.
        """
        import pandas as pd

        columns = ("p", "q", "detectable", "known", "verdict")
        rows = [
            {"part": part, "name": effect.name, "group": effect.group, "effect": effect.effect.value}
            | {"low": effect.effect.low, "high": effect.effect.high}
            | {column: getattr(effect, column) for column in columns}
            for part, effects in (("joint", self.joint), ("alone", self.alone))
            for effect in effects
        ]
        return pd.DataFrame(rows, columns=["part", "name", "group", "effect", "low", "high", *columns])

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON data under its own field names; unknown numbers are null."""
        return {name: jsonable(getattr(self, name)) for name in self.__dataclass_fields__}

    def _repr_html_(self) -> str:
        """Verdicts and effects, for notebooks."""
        from traitmap.analysis.tables import explanation_html

        return explanation_html(self)
