"""What was found of each syntactic relation in each cell, as records and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, log, nan
from types import MappingProxyType
from typing import Any

from traitmap.analysis.interval import Interval, unknown
from traitmap.analysis.profiles.syntax_parser import OBJECT_PREDICATE
from traitmap.analysis.profiles.syntax_statistics import LEVEL
from traitmap.analysis.reason import Reason

# What spaCy's own English pipelines call these UD relations, for comparison with work that used them.
CLEARNLP_NAMES: Mapping[str, str] = MappingProxyType(
    {
        OBJECT_PREDICATE: "oprd",
        "cc:preconj": "preconj",
        "compound:prt": "prt",
        "obl:agent": "agent",
        "obj": "dobj",
        "iobj": "dative",
        "nsubj:pass": "nsubjpass",
        "aux:pass": "auxpass",
        "nmod:poss": "poss",
        "acl:relcl": "relcl",
        "det:predet": "predet",
    }
)


@dataclass(frozen=True)
class RelationEffect:
    """One relation in one cell. Scores are of the target's metric; the adapter's are means over seeds.

    n_with, n_without: items with and without the relation.
    base_right, adapter_right: successes on items with the relation (0/1 scores; else NaN).
    base_with, base_without, adapter_with, adapter_without: success rates, smoothed by Jeffreys' prior
        Beta(1/2, 1/2), with its 95 % interval; means with a t interval where scores are not 0/1.
    difference: gain with the relation minus gain without it, in the unit of the score.
    odds_ratio: odds of items won to lost, with the relation over without it; above 1 the adapter gains
        more where the relation is (0/1 scores only).
    p, q: that the gain differs; q after Benjamini-Hochberg over all tests of the call. NaN: not tested.
    p_within: the same among items of one class and one third of the length, computed where p < .05.
    detectable: smallest odds ratio (difference, where scores are not 0/1) that a test at 5 % would have
        found with 80 % power; inf where nothing could have been found.
    reason: why there is no test.
    """

    source: str
    target: str
    relation: str
    n_with: int
    n_without: int
    base_right: float = nan
    adapter_right: float = nan
    base_with: Interval = field(default_factory=lambda: unknown(""))
    base_without: Interval = field(default_factory=lambda: unknown(""))
    adapter_with: Interval = field(default_factory=lambda: unknown(""))
    adapter_without: Interval = field(default_factory=lambda: unknown(""))
    difference: Interval = field(default_factory=lambda: unknown(""))
    odds_ratio: Interval = field(default_factory=lambda: unknown(""))
    p: float = nan
    q: float = nan
    p_within: float = nan
    detectable: float = nan
    reason: str = ""

    @property
    def tested(self) -> bool:
        return isfinite(self.p)

    @property
    def significant(self) -> bool:
        """After correction, and not explained by the length or the class of the items."""
        return self.q < LEVEL and self.p_within < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        told: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Interval):
                told[name] = value.to_json()
            elif isinstance(value, float):
                told[name] = value if isfinite(value) else None
            else:
                told[name] = value
        return {**told, "significant": self.significant}


@dataclass(frozen=True)
class RelationEffects:
    """Every relation of every cell that was asked for, the untestable ones with their reason.

    conditions: parser, scheme, derived relations, prior, tests, minimum support, seed.
    """

    effects: tuple[RelationEffect, ...]
    conditions: Mapping[str, Any]

    @property
    def tested(self) -> tuple[RelationEffect, ...]:
        return tuple(effect for effect in self.effects if effect.tested)

    @property
    def findings(self) -> tuple[RelationEffect, ...]:
        """Significant effects, the smallest q first."""
        found = (effect for effect in self.effects if effect.significant)
        return tuple(sorted(found, key=lambda effect: (effect.q, effect.p)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        return {
            "conditions": dict(self.conditions),
            "tests": len(self.tested),
            "findings": len(self.findings),
            "effects": [effect.to_json() for effect in self.effects],
        }


def relation_in_words(effect: RelationEffect) -> str:
    """One sentence with the numbers of one effect."""
    other = CLEARNLP_NAMES.get(effect.relation)
    name = f"{effect.relation} ({other})" if other else effect.relation
    if not effect.tested:
        return f"{name}: {effect.reason}"
    ratio, gap = effect.odds_ratio, effect.difference
    if ratio.known:
        more = "more" if ratio.value > 1 else "less"
        told = (
            f"won : lost is {ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}] times that of other items"
        )
    else:
        more = "more" if gap.value > 0 else "less"
        told = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] against other items"
    says = f"the score rises {more} on items with {name}: {told}, {effect.n_with} items, q = {effect.q:.3f}"
    if effect.q >= LEVEL:
        return f"{says}: not above chance"
    if effect.significant:
        return says
    if isfinite(effect.p_within):
        return f"{says}; not so among items of one length and class (p = {effect.p_within:.2f})"
    return f"{says}; cannot be told from the length and class of the items"


def relation_reasons(effects: RelationEffects, source: str, target: str) -> tuple[Reason, ...]:
    """The relations on which the gain of one cell depends, the strongest first; none is a legal answer."""
    found = []
    for effect in effects.findings:
        if (effect.source, effect.target) == (source, target):
            strength = log(effect.odds_ratio.value) if effect.odds_ratio.known else effect.difference.value
            found.append(Reason("syntax", relation_in_words(effect), strength, True))
    return tuple(sorted(found, key=lambda reason: -abs(reason.strength)))
