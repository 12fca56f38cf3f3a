"""Effects of features and composites, and whether their verdicts stand without one pair or one source.

``feature_effects`` tests features beside each other or each by itself. A *yes* is then put to the test: the
pairs and the sources that carry most of it are left out one at a time, and what it cannot do without is named
in ``rests_on``. ``fitted_reasons`` explains an odd pair by composites that were fitted without that pair,
and ``relabelled`` finds sources whose texts are those of another one with other answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitmap.analysis.explanation.design import (
    Composite,
    Design,
    Moves,
    PreparedFeatures,
    ascending,
    effect_basis,
    node_permutations,
    prepare_alone,
    prepare_composites,
    residual,
    with_features,
)
from traitmap.analysis.explanation.levels import MOST_LEFT_OUT, verdict
from traitmap.analysis.explanation.pairs import VARIATION, Reasons
from traitmap.analysis.explanation.permutation import LEVEL, Slope, mantel, slope_of
from traitmap.analysis.explanation.records import FeatureEffect, OddCells
from traitmap.analysis.profiles.pairs import Feature, Reason
from traitmap.data.texts import Texts
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, benjamini_hochberg, unknown

ORDINARY = 0.5  # standard deviations within which a pair is like the others in a feature: no reason
LEAST_PART = 0.05  # of a departure that a fitted part must make up to be a reason
SAME_TEXTS = 0.5  # of a source's inputs that another one must have for its answers to be compared


@dataclass(frozen=True)
class FeatureQuestion:
    """What is asked of the pairs: features over a design, alone (composites None) or as composites.

    draws, seed: of the permutations of tasks.
    """

    design: Design
    features: tuple[Feature, ...]
    composites: tuple[Composite, ...] | None
    draws: int
    seed: int

    def prepared(self) -> PreparedFeatures:
        """The features as they are tested."""
        alone = prepare_alone(self.features, self.design.own)
        return (
            alone if self.composites is None else prepare_composites(alone, self.composites, self.design.own)
        )

    def moves(self) -> Moves:
        """Permutations of the tasks; the same seed gives the same."""
        return node_permutations(self.design, self.draws, self.seed)

    def without_pair(self, source: int, target: int) -> FeatureQuestion:
        """The same with one pair unknown, in gains and in features."""
        out = np.zeros(self.design.used.shape, dtype=bool)
        out[source, target] = True
        design = replace(self.design, used=self.design.used & ~out, own=self.design.own | out)
        return replace(self, design=design)

    def without_source(self, source: int) -> FeatureQuestion:
        """The same without one source; the task stays a target where it is one."""
        rows = np.delete(np.arange(len(self.design.sources)), source)
        places = {int(row): at for at, row in enumerate(rows)}
        shared = [(places[s], t) for s, t in self.design.shared.tolist() if s in places]
        design = replace(
            self.design,
            sources=tuple(self.design.sources[row] for row in rows),
            gains=self.design.gains[rows],
            noise=self.design.noise[rows],
            used=self.design.used[rows],
            own=self.design.own[rows],
            shared=np.array(shared, dtype=np.intp).reshape(-1, 2),
            row_order=tuple(self.design.row_order[row] for row in rows),
        )
        features = tuple(replace(feature, values=feature.values[rows]) for feature in self.features)
        return replace(self, design=design, features=features)


def feature_effects(question: FeatureQuestion) -> tuple[FeatureEffect, ...]:
    """Every feature by itself, or every composite beside all the others; a *yes* names what it rests on."""
    design, prepared, moves = question.design, question.prepared(), question.moves()
    together = question.composites is not None
    basis, count = effect_basis(design.used), len(prepared.names)
    level = LEVEL / max(1, count)

    def slope_beside(i: int, others: Array) -> Slope:
        return slope_of(design.y, prepared.values[..., i], others, design.used, basis, moves, level=level)

    single = [slope_beside(i, prepared.values[..., :0]) for i in range(count)]
    slopes = single
    if together and count > 1:
        slopes = [slope_beside(i, np.delete(prepared.values, i, axis=2)) for i in range(count)]
    q = benjamini_hochberg(np.array([slope.p for slope in slopes], dtype=float))
    effects = []
    for i, slope in enumerate(slopes):
        raw = prepared.raw[..., i]
        effects.append(
            FeatureEffect(
                name=prepared.names[i],
                group=prepared.groups[i],
                words=prepared.words[i],
                effect=_interval(slope),
                p=slope.p,
                q=float(q[i]),
                detectable=slope.detectable,
                collinearity=slope.collinearity,
                known=float(np.isfinite(raw[design.used]).mean()),
                members=prepared.members[i],
                mantel=mantel(design.y, raw, design.used, moves),
                by_itself=_interval(single[i]),
                p_by_itself=single[i].p,
                verdict=verdict(float(q[i]), _interval(slope)),
            )
        )
        # An effect that only shows beside the others may come from them: what a composite measures poorly,
        # correlated ones seem to have, mostly with the sign turned (suppression; D. MacKinnon, J. Krull,
        # C. Lockwood, Prevention Science 1:173-181, 2000).
        if effects[i].verdict == "yes" and not _agrees(single[i], slope.effect):
            effects[i] = replace(effects[i], verdict="cannot tell")
    return tuple(
        replace(effect, rests_on=_rests_on(question, prepared, effects, i))
        if effect.verdict == "yes"
        else effect
        for i, effect in enumerate(effects)
    )


def _agrees(single: Slope, effect: float) -> bool:
    """Whether a feature goes with gains by itself, the same way as beside the others."""
    return single.p < LEVEL and effect * single.effect > 0


def _interval(slope: Slope) -> Interval:
    """The effect of a slope; unknown where the others leave nothing of the feature."""
    if np.isfinite(slope.effect):
        return Interval(slope.effect, slope.low, slope.high)
    return unknown("the other composites say all that it says")


def _rests_on(
    question: FeatureQuestion, prepared: PreparedFeatures, effects: Sequence[FeatureEffect], i: int
) -> tuple[str, ...]:
    """Pairs ``source -> target`` and sources without which the verdict on feature ``i`` is no longer yes.

    Left out are those that carry most of it, beside the others and by itself, until one makes no difference.
    """
    design = question.design
    rows, columns = design.cells
    values = prepared.values[design.used]
    together = question.composites is not None
    kinds = [values[:, :0], np.delete(values, i, axis=1)] if together else [values[:, :0]]
    pairs: list[str] = []
    sources: list[str] = []
    for others in kinds:
        worst_pairs, worst_sources = _least_without(design, values[:, i], others)
        for at in worst_pairs[:MOST_LEFT_OUT]:
            name = f"{design.sources[rows[at]]} -> {design.targets[columns[at]]}"
            if name not in pairs:
                if still_yes(question.without_pair(rows[at], columns[at]), effects, i):
                    break
                pairs.append(name)
        for source in worst_sources[:MOST_LEFT_OUT]:
            name = design.sources[source]
            if name not in sources:
                if still_yes(question.without_source(source), effects, i):
                    break
                sources.append(name)
    # a pair says more than its source
    of_pairs = {name.split(" -> ")[0] for name in pairs}
    return (*pairs, *(name for name in sources if name not in of_pairs))


def _least_without(design: Design, feature: Array, others: Array) -> tuple[list[int], list[int]]:
    """Used pairs, and sources, without which the partial correlation is smaller, the least first.

    feature: (n,), others: (n, k) over the used pairs.
    """
    basis = with_features(effect_basis(design.used), others)
    x, y = residual(feature, basis), residual(design.y, basis)
    left = np.maximum(1 - (basis**2).sum(axis=1), 1e-9)
    products = np.stack([x * x, x * y, y * y]) / left
    whole = np.array([x @ x, x @ y, y @ y])
    sign = np.sign(whole[1])

    def correlation(removed: Array) -> Array:
        xx, xy, yy = whole[:, None] - removed
        return np.asarray(sign * xy / np.sqrt(np.maximum(xx, 1e-150) * np.maximum(yy, 1e-150)))

    rows, _ = design.cells
    by_source = products @ np.eye(len(design.sources))[rows]
    full = float(correlation(np.zeros((3, 1)))[0])
    listed: list[list[int]] = []
    for removed in (products, by_source):
        r = correlation(removed)
        order = ascending(r)
        listed.append(order[r[order] < full].tolist())
    return listed[0], listed[1]


def still_yes(without: FeatureQuestion, effects: Sequence[FeatureEffect], i: int) -> bool:
    """Whether the verdict on effect ``i`` of a list is still yes by fewer pairs.

    without: the question with a pair or a source left out. The other effects keep their p in the list.
    """
    members = {name for effect in effects for name in effect.members}
    if without.composites is None:
        members = set(effects[i].members)
    without = replace(without, features=tuple(f for f in without.features if f.name in members))
    prepared, design = without.prepared(), without.design
    if effects[i].name not in prepared.names:
        return False
    at = prepared.names.index(effects[i].name)
    moves, basis = without.moves(), effect_basis(design.used)

    def slope_beside(others: Array) -> Slope:
        return slope_of(design.y, prepared.values[..., at], others, design.used, basis, moves)

    single = slope_beside(prepared.values[..., :0])
    if not _agrees(single, effects[i].effect.value):
        return False
    slope = single
    if without.composites is not None and len(prepared.names) > 1:
        slope = slope_beside(np.delete(prepared.values, at, axis=2))
    p = np.array([effect.p for effect in effects], dtype=float)
    p[i] = slope.p
    return bool(benjamini_hochberg(p)[i] < LEVEL and slope.effect * effects[i].effect.value > 0)


def fitted_reasons(
    question: FeatureQuestion, joint: PreparedFeatures, effects: Sequence[FeatureEffect], odd: OddCells
) -> Reasons:
    """The hidden composites that push an odd pair the way it went, in the units of the gains.

    Everything is fitted without the pair: what source and target lead to expect of it, the slopes, and
    whether a composite goes with gains.
    """
    design = question.design
    hidden = [i for i, group in enumerate(joint.groups) if group == "hidden"]
    reasons: dict[tuple[str, str], list[Reason]] = {}
    for cell in odd.odd if hidden else ():
        place = design.sources.index(cell.source), design.targets.index(cell.target)
        without = question.without_pair(*place)
        used = without.design.used
        basis = effect_basis(used)
        x = residual(joint.values[used], basis)
        slopes = np.linalg.lstsq(x, residual(without.design.y, basis), rcond=1e-9)[0]
        spread = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        whole = effect_basis(design.used)
        at = int(np.flatnonzero((design.cells[0] == place[0]) & (design.cells[1] == place[1]))[0])
        left = 1 - float((whole[at] ** 2).sum())
        values = residual(joint.values[design.used], whole)[at] / max(left, 1e-9)
        direction = 1.0 if cell.departure.value > 0 else -1.0
        for i in hidden:
            value, part = float(values[i]), float(slopes[i] * values[i])
            small = abs(value) <= ORDINARY * spread[i]
            if small or part * direction <= LEAST_PART * abs(cell.departure.value):
                continue
            significant = effects[i].verdict == "yes" and still_yes(without, effects, i)
            reasons.setdefault((cell.source, cell.target), []).append(
                Reason(
                    kind=joint.names[i].replace(" ", "_"),
                    words=(
                        f"{joint.words[i]}: {'more' if value > 0 else 'less'} than source and target lead to "
                        f"expect ({value / float(spread[i]):+.1f} SD); fitted part {part:+.1f}; significant "
                        f"over all other pairs: {'yes' if significant else 'no'}"
                    ),
                    strength=part * direction,
                    significant=significant,
                )
            )
    return reasons


def relabelled(matrix: TransferMatrix, texts: Texts) -> Reasons:
    """Pairs whose source has the texts of the target's own source, and other answers to them.

    texts: of the sources, by name. Where source and target of a pair share at least ``SAME_TEXTS`` of the
    source's inputs, and answers to them differ, the changed answers are a reason before any other.
    """
    answers = {name: {text.input: text.output for text in texts.get(name, ())} for name in matrix.sources}
    reasons: dict[tuple[str, str], tuple[Reason, ...]] = {}
    for target in matrix.targets:
        right = answers.get(target, {})
        for source in matrix.sources if right else ():
            common = [text for text in answers[source] if text in right] if source != target else []
            if not common or len(common) < SAME_TEXTS * len(answers[source]):
                continue
            other = sum(answers[source][text] != right[text] for text in common)
            if other:
                reasons[source, target] = (
                    Reason(
                        VARIATION,
                        f"texts of {target}'s own training set with other answers: {other:,} of "
                        f"{len(common):,} shared texts have another label",
                        100.0 * other / len(common),
                    ),
                )
    return reasons


def merged(*parts: Mapping[tuple[str, str], Sequence[Reason]]) -> Reasons:
    """Reasons of pairs out of several places; those of one pair one after the other."""
    pairs = dict.fromkeys(pair for part in parts for pair in part)
    return {pair: tuple(reason for part in parts for reason in part.get(pair, ())) for pair in pairs}
