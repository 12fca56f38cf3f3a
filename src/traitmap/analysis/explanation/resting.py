"""What a yes over many pairs rests on: shares, levels, reciprocity and strengths without a pair or a source.

Effects of features have their own (``effects``). A verdict that only one pair or one source makes is not the
pattern that its sentence speaks of, so those that carry most of it are left out one at a time, and
the test is done anew; what it cannot do without is named. Odd pairs, asymmetric pairs and contrasts of two
sources speak of single pairs to begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from traitmap.analysis.explanation.design import Design, Order, ascending, effect_basis, grouped, residual
from traitmap.analysis.explanation.dominance import group_dominance, share_tests, shares_over
from traitmap.analysis.explanation.effects import FeatureQuestion
from traitmap.analysis.explanation.levels import (
    MOST_LEFT_OUT,
    RATIO_DRAWS,
    levels_resting,
    plain_ratios,
    recipient_table,
)
from traitmap.analysis.explanation.pairs import reciprocity_of
from traitmap.analysis.explanation.permutation import LEVEL
from traitmap.analysis.explanation.records import Dominance, Explanation, Strength
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import benjamini_hochberg

MOST_RANKED = 200  # pairs whose loss of a share is reckoned, those with the largest gains first

Candidates = Iterator[tuple[str, Callable[[], FeatureQuestion]]]  # name, and the question without it


def with_resting(found: Explanation, question: FeatureQuestion) -> Explanation:
    """The same explanation in which every yes over many pairs names what it rests on.

    question: of the composites beside each other; its design, draws and seed are those of the explanation.
    """
    design, draws, seed = question.design, question.draws, question.seed
    asymmetry = found.asymmetry
    if asymmetry.p < LEVEL:
        asymmetry = replace(asymmetry, rests_on=_reciprocity(question, asymmetry.reciprocity.value))
    return replace(
        found,
        dominance=_shares(found.dominance, question),
        levels=levels_resting(
            found.levels, question.features, found.donors, found.recipients, draws=draws, seed=seed
        ),
        asymmetry=asymmetry,
        donors=_strengths(found.donors, question, design, donors=True),
        recipients=_strengths(found.recipients, question, design, donors=False),
    )


def _needed(
    pairs: Candidates, sources: Candidates, stays: Callable[[FeatureQuestion], bool]
) -> tuple[str, ...]:
    """Names without which a verdict does not stay, of both kinds until one makes no difference."""
    names: list[str] = []
    for candidates in (pairs, sources):
        for name, without in candidates:
            if stays(without()):
                break
            names.append(name)
    of_pairs = {name.split(" -> ")[0] for name in names if " -> " in name}  # a pair says more than its source
    return tuple(name for name in names if name not in of_pairs)


def _pairs(question: FeatureQuestion, order: Order) -> Candidates:
    """The question without each of some used pairs, by their numbers."""
    design = question.design
    rows, columns = design.cells
    for at in order[:MOST_LEFT_OUT]:
        row, column = int(rows[at]), int(columns[at])
        name = f"{design.sources[row]} -> {design.targets[column]}"
        yield name, partial(question.without_pair, row, column)


def _sources(question: FeatureQuestion, order: Order) -> Candidates:
    """The question without each of some sources, by their numbers; none where too few would be left."""
    if len(question.design.sources) > 3:
        for at in order[:MOST_LEFT_OUT].tolist():
            yield question.design.sources[at], partial(question.without_source, at)


def _shares(dominance: Dominance, question: FeatureQuestion) -> Dominance:
    """Shares of groups, and hidden against surface; the pairs whose loss lowers a share most come first."""
    if dominance.verdict != "yes" and all(group.verdict != "yes" for group in dominance.groups):
        return dominance
    design, joint = question.design, question.prepared()
    rows, columns = design.cells
    members = tuple(grouped(joint.groups).values())
    largest = ascending(-np.abs(residual(design.y, effect_basis(design.used))))[:MOST_RANKED]

    def without(removed: Array) -> Array:
        used = design.used.copy()
        used[rows[removed], columns[removed]] = False
        return shares_over(design.gains, joint.values, used, members)

    by_pair = np.array([without(np.arange(len(rows)) == at) for at in largest])
    by_source = np.array([without(rows == at) for at in range(len(design.sources))])

    def candidates(weights: Array) -> tuple[Candidates, Candidates]:
        pairs = largest[ascending(by_pair @ weights)]
        return _pairs(question, pairs), _sources(question, ascending(by_source @ weights))

    groups = list(dominance.groups)
    for i, group in enumerate(groups):
        if group.verdict == "yes":

            def significant(other: FeatureQuestion, name: str = group.group) -> bool:
                tests = share_tests(other.design, other.prepared(), other.moves())
                return name in tests and tests[name][2] < LEVEL

            rests = _needed(*candidates(np.eye(len(groups))[i]), significant)
            groups[i] = replace(group, rests_on=rests)
    dominance = replace(dominance, groups=tuple(groups))
    if dominance.verdict != "yes":
        return dominance
    direction = np.sign(dominance.hidden_less_surface.value)

    def differs(other: FeatureQuestion) -> bool:
        again = group_dominance(other.design, other.prepared(), other.moves())
        return again.verdict == "yes" and again.hidden_less_surface.value * direction > 0

    signs = {"hidden": direction, "surface": -direction}
    weights = np.array([signs.get(group.group, 0.0) for group in groups])
    return replace(dominance, rests_on=_needed(*candidates(weights), differs))


def _reciprocity(question: FeatureQuestion, value: float) -> tuple[str, ...]:
    """Pairs and sources without which one direction does not go with the other."""
    design = question.design
    within = np.zeros(design.used.shape)
    within[design.used] = residual(design.y, effect_basis(design.used))
    back = np.zeros(design.used.shape)
    for row, column in design.shared.tolist():
        for other_row, other_column in design.shared.tolist():
            back[row, other_column] = within[other_row, column]
    carried = np.sign(value) * within * back
    # both directions of a couple carry the same: one of them is enough
    rows, columns = design.shared.T
    first, second = np.triu_indices(len(rows), 1)
    both = design.used[rows[first], columns[second]] & design.used[rows[second], columns[first]]
    cells = rows[first][both], columns[second][both]
    place = np.cumsum(design.used).reshape(design.used.shape) - 1
    of_pairs = place[cells][ascending(-carried[cells])]
    of_sources = ascending(-carried.sum(axis=1))

    def stays(other: FeatureQuestion) -> bool:
        again, p, _ = reciprocity_of(other.design, other.draws, other.seed)
        return bool(p < LEVEL and again.value * value > 0)

    return _needed(_pairs(question, of_pairs), _sources(question, of_sources), stays)


def _strengths(
    strengths: Sequence[Strength], question: FeatureQuestion, design: Design, *, donors: bool
) -> tuple[Strength, ...]:
    """Strengths beyond chance with the pairs, and other sources, without which they are not."""
    rows, columns = design.cells
    at = rows if donors else columns
    within = residual(design.y, effect_basis(design.used))
    effects = np.array([strength.effect.value for strength in strengths])
    result = list(strengths)
    # p as a drawn table gives it, and beyond what so few tables tell, Student's; it moves as Student's does
    _, whole = _ratios(design, donors=donors)
    p = np.array([strength.p for strength in strengths])
    by_student = (p <= 2 / RATIO_DRAWS) & (p > 2 * np.exp(whole))
    beyond = np.where(by_student, np.log(2), np.log(p) - np.where(by_student, 0.0, whole))
    p = np.where(by_student, 2 * np.exp(whole), p)
    for i, strength in enumerate(strengths):
        if not strength.q < LEVEL:
            continue
        sign = np.sign(strength.effect.value)
        own = np.flatnonzero(at == i)
        pairs = own[ascending(-sign * within[own])]
        others = rows[pairs]  # of a recipient the sources that lift it most
        if donors:  # those that drag the mean of all the other way
            others = ascending(sign * np.nan_to_num(effects))
            others = others[others != i]

        def stays(other: FeatureQuestion, name: str = strength.name, at: int = i, sign: float = sign) -> bool:
            names = other.design.sources if donors else other.design.targets
            ratios, tails = _ratios(other.design, donors=donors)
            row = names.index(name)
            changed = p.copy()
            changed[at] = float(np.exp(min(0.0, beyond[at] + tails[row])))
            return bool(ratios[row] * sign > 0 and benjamini_hochberg(changed)[at] < LEVEL)

        rests = _needed(_pairs(question, pairs), _sources(question, others), stays)
        result[i] = replace(strength, rests_on=rests)
    return tuple(result)


def _ratios(design: Design, *, donors: bool) -> tuple[Array, Array]:
    """Strengths over their errors, and logarithms of Student's tails, of the sources or of the targets.

    Targets without a level have none: 0, and the tail of 0.
    """
    if donors:
        return plain_ratios(design.gains, design.used)
    ratios, tails = np.zeros(len(design.targets)), np.full(len(design.targets), -np.log(2))
    if design.levelled.any():
        ratios[design.levelled], tails[design.levelled] = plain_ratios(*recipient_table(design))
    return ratios, tails
