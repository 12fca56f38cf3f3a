"""explain: why gains are what they are, as far as these tasks can tell.

``explain`` puts the chapters of this package together: the design of pairs, features alone and composites
beside each other, levels, shares of variance, odd cells, asymmetries, and what controlled changes of a
source showed. One seed makes everything random, and all permutations are drawn once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from traitmap.analysis.explanation.design import (
    NO_BASE,
    Composite,
    PreparedFeatures,
    Units,
    aligned,
    default_composites,
    make_design,
    prepare_alone,
    prepare_composites,
    usual_units,
)
from traitmap.analysis.explanation.dominance import group_dominance
from traitmap.analysis.explanation.effects import FeatureQuestion, feature_effects, fitted_reasons
from traitmap.analysis.explanation.families import (
    AnsweredCurve,
    Families,
    families,
    families_in_words,
    variations_of,
    without_sources,
    without_variations,
)
from traitmap.analysis.explanation.levels import both_strengths, corrected_together, level_effects
from traitmap.analysis.explanation.pairs import Reasons, asymmetry, odd_cells, with_reasons
from traitmap.analysis.explanation.records import Asymmetry, Dominance, Explanation, OddCells
from traitmap.analysis.explanation.resting import with_resting
from traitmap.analysis.explanation.verdicts import in_words, warnings_of
from traitmap.analysis.profiles.pairs import PairFeatures, pair_features
from traitmap.analysis.traits.decompose import sources_that_agree
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import unknown

LEAST_PERMUTATIONS = 99


def explain(
    matrix: TransferMatrix,
    *,
    features: PairFeatures | None = None,
    texts: Texts | None = None,
    own: Collection[tuple[str, str]] = (),
    composites: Sequence[Composite] | None = None,
    units: Units | None = None,
    noise: Array | None = None,
    reasons: Reasons | None = None,
    answered: Sequence[AnsweredCurve] = (),
    near_copies: bool = False,
    n_permutations: int = 2000,
    seed: int = 0,
) -> Explanation:
    """Hold the gains of a matrix (S sources x T targets) against what is known of every pair beforehand.

    features: of all pairs, e.g. from ``pair_features``; or texts: of every task by name, from which they
        are computed with the offline defaults.
    own: further pairs, beside those of one name, whose source is the target's own training set; they are
        left out of everything. Sources that are variations of another are held against that one instead,
        and are no pairs of their own. composites: what the joint regression holds beside each other.
    units: ``points``, or ``standard`` to divide each target's gains by their standard deviation, so that its
        unit does not matter; by default points where the metrics of all targets are known and shares.
    noise: (S, T) standard errors of the gains, by default from the matrix's cells.
    reasons: further reasons for single pairs, e.g. out of outcomes. answered: what variations do to the
        answers, from ``answered_curves``. near_copies: let all of several sources take part whose rows agree
        beyond noise, of which otherwise one stands for all. seed: of everything random.

    Raises MatrixError where the matrix is too small and has no variations to tell of, or where features
    and matrix do not fit each other.
    Methods and sources: docs/explanation.md.
    """
    if n_permutations < LEAST_PERMUTATIONS:
        raise MatrixError(f"n_permutations={n_permutations} is too few; use {LEAST_PERMUTATIONS} or more")
    if (features is None) == (texts is None):
        raise MatrixError(
            "give either features=... (of all pairs) or texts=... (of all tasks), one of the two"
        )
    if features is None and texts is not None:
        features = features_from_texts(matrix, texts)
    assert features is not None
    units = units or usual_units(matrix)
    # One thread gives the same bits on every machine, and tables this small gain nothing from more.
    with threadpool_limits(limits=1, user_api="blas"):
        if noise is not None and variations_of(matrix):
            raise MatrixError("noise=... cannot be given for a run with variations: its cells have their own")
        controlled = replace(families(matrix), answered=tuple(answered))
        originals = without_variations(matrix)
        own = [pair for pair in own if pair[0] not in matrix.sources or pair[0] in originals.sources]
        copies = {} if near_copies else sources_that_agree(originals, diagonal=tuple(own), seed=seed)
        if noise is not None and np.shape(noise) == originals.values.shape:  # else make_design tells of it
            noise = np.asarray(noise, dtype=float)[[name not in copies for name in originals.sources]]
        own = [pair for pair in own if pair[0] not in copies]
        try:
            design = make_design(without_sources(originals, copies), own=own, units=units, noise=noise)
        except MatrixError as error:
            if not controlled:
                raise
            return _of_families(matrix, controlled, str(error), {"units": units, "seed": seed})
        known = aligned(features, design)
        alone = prepare_alone(known, design.own)
        tasks = len(set(design.sources) | set(design.targets))
        if composites is None:
            composites = default_composites(alone, tasks)
        question = FeatureQuestion(design, known, None, n_permutations, seed)
        explanation = _explained(question, alone, composites, reasons or {})
    explanation = replace(
        explanation,
        families=controlled,
        conditions={
            "units": units,
            "seed": seed,
            "composites": [composite.name for composite in composites],
            "left_out_targets": list(design.left_out),
            "no_base": [name for name, why in design.no_level.items() if why == NO_BASE],
            "variations": sorted(variations_of(matrix)),
            "near_copies": copies,
        },
    )
    warnings = warnings_of(explanation, matrix, design, alone)
    return replace(explanation, words=in_words(explanation), warnings=warnings)


def _of_families(
    matrix: TransferMatrix, controlled: Families, reason: str, conditions: Mapping[str, Any]
) -> Explanation:
    """A study of controlled changes alone: too few tasks to compare pairs, and no need to."""
    nan = float("nan")
    return Explanation(
        sources=matrix.sources,
        targets=matrix.targets,
        pairs=0,
        own=(),
        scheme="independent",
        permutations=0,
        joint=(),
        alone=(),
        levels=(),
        dominance=Dominance((), nan, unknown(reason), unknown(reason), "cannot tell"),
        odd=OddCells((), (), 0, None, nan, reason),
        asymmetry=Asymmetry((), unknown(reason), nan, nan),
        donors=(),
        recipients=(),
        words=(f"Between pairs nobody can tell: {reason}.", *families_in_words(controlled)),
        families=controlled,
        conditions={**conditions, "variations": sorted(variations_of(matrix))},
    )


def features_from_texts(
    matrix: TransferMatrix, texts: Texts, *, target_texts: Texts | None = None, **settings: Any
) -> PairFeatures:
    """Pair features of the matrix's tasks from their texts; tasks without texts are left unknown.

    target_texts: of the targets, where they differ from those of sources of the same name.
    settings: as for ``pair_features``.
    """
    of_targets = texts if target_texts is None else target_texts
    sources = {name: texts[name] for name in matrix.sources if texts.get(name)}
    targets = {name: of_targets[name] for name in matrix.targets if of_targets.get(name)}
    if len(sources) < 3 or len(targets) < 3:
        tasks = ", ".join(sorted({*texts, *of_targets})[:12])
        named = f". Tasks in the texts: {tasks}; name them as in the matrix" if tasks else ""
        raise MatrixError(
            f"the texts hold {len(sources)} of {len(matrix.sources)} sources and {len(targets)} of "
            f"{len(matrix.targets)} targets of the matrix; at least 3 of each are needed{named}"
        )
    return pair_features(sources, targets, **settings)


def _explained(
    question: FeatureQuestion, alone: PreparedFeatures, composites: Sequence[Composite], reasons: Reasons
) -> Explanation:
    """Everything that is compared between pairs and between tasks; without words and families.

    question: of the features alone. composites: what is held beside each other.
    """
    design, draws, seed = question.design, question.draws, question.seed
    beside = replace(question, composites=tuple(composites))
    joint = prepare_composites(alone, composites, design.own)
    effects = feature_effects(beside)
    donors, recipients = both_strengths(design, draws=draws, seed=seed)
    surface = [i for i, group in enumerate(joint.groups) if group == "surface"]
    odd = odd_cells(design, joint.values[..., surface], reasons)
    rows, columns = np.nonzero(design.own)
    found = Explanation(
        sources=design.sources,
        targets=design.targets,
        pairs=int(design.used.sum()),
        own=tuple((design.sources[i], design.targets[j]) for i, j in zip(rows, columns, strict=True)),
        scheme=design.scheme,
        permutations=draws,
        joint=effects,
        alone=feature_effects(question),
        levels=corrected_together(
            (
                *level_effects(question.features, "source", donors, draws=draws, seed=seed),
                *level_effects(question.features, "target", recipients, draws=draws, seed=seed),
            )
        ),
        dominance=group_dominance(design, joint, question.moves()),
        odd=with_reasons(odd, fitted_reasons(beside, joint, effects, odd)),
        asymmetry=asymmetry(design, draws=draws, seed=seed),
        donors=donors,
        recipients=recipients,
        words=(),
    )
    return with_resting(found, beside)
