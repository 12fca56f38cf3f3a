"""What an explanation says and what it cannot tell, in plain sentences with their numbers.

One function writes the sentences of one part of the record; every ``cannot tell`` comes with what could have
been found. Warnings say what a reader must know of the pairs, the features and the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from traitmap.analysis.explanation.design import HARDLY_VARIES, Design, PreparedFeatures
from traitmap.analysis.explanation.families import families_in_words
from traitmap.analysis.explanation.permutation import LEVEL
from traitmap.analysis.explanation.records import (
    Asymmetry,
    Dominance,
    Explanation,
    FeatureEffect,
    LevelEffect,
    OddCells,
    Strength,
)
from traitmap.analysis.traits.description import listed
from traitmap.analysis.traits.records import TraitWarning
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Interval
from traitmap.wording import estimate, related

ALIKE = 0.75  # R^2 on the other composites from which one is nearly redundant


def in_words(found: Explanation) -> tuple[str, ...]:
    """The verdicts in sentences, the pairwise ones first.

    Gains are in the unit that the explanation's conditions name.
    """
    unit = found.unit
    return (
        _compared(found),
        *map(_effect, found.joint),
        *_alone(found.alone),
        *_shares(found.dominance),
        *_levels(found.levels),
        _odd(found.odd),
        *_asymmetry(found.asymmetry, unit),
        _strengths(found.donors, "donor", "gives", unit),
        _strengths(found.recipients, "recipient", "gains", unit),
        *families_in_words(found.families),
    )


def _compared(found: Explanation) -> str:
    own = (
        f"{len(found.own)} pairs of a source and its own task are left out"
        if found.own
        else "no source is a target's own task by name"
    )
    how = (
        "tasks on both sides are permuted as both at once"
        if found.scheme == "joint"
        else "sources and targets are permuted apart"
    )
    what = {
        "gain": "Gains are",
        "score less mean": "The base is unknown: scores, less the mean of their target, are",
    }.get(found.quantity, "Gains, and where the base is unknown scores less the mean of their target, are")
    return (
        f"{found.pairs} pairs of {len(found.sources)} sources and {len(found.targets)} targets; {own}; "
        f"{how}, {found.permutations:,} times. {what} in {found.unit}."
    )


def _effect(effect: FeatureEffect) -> str:
    head = f"{effect.name.capitalize()} ({effect.words})"
    if not effect.effect.known:
        return f"{head}: cannot tell; {effect.effect.reason}."
    numbers = f"effect {_standard(effect.effect)} SD beside the others, {related('q', effect.q)}"
    if effect.verdict == "yes":
        way = "go with higher gains" if effect.effect.value > 0 else "go with lower gains"
        return f"{head}: yes, alike pairs {way}; {numbers}{_resting(effect.rests_on)}."
    if effect.verdict == "no":
        return f"{head}: no effect worth speaking of; {numbers}."
    if effect.q < LEVEL:
        return (
            f"{head}: cannot tell; {numbers}, but by itself {_standard(effect.by_itself)} "
            f"({related('p', effect.p_by_itself)}): it may come from the others."
        )
    seen = ""
    if isfinite(effect.detectable):
        seen = (
            f"; an effect below {effect.detectable:.2f} SD would have been missed more than one time in five"
        )
    alike = "; the other composites say nearly the same" if effect.collinearity > ALIKE else ""
    return f"{head}: cannot tell; {numbers}{seen}{alike}."


def _resting(names: Sequence[str]) -> str:
    """What a yes cannot do without, as the end of a sentence; nothing where it stands by itself."""
    if not names:
        return ""
    return f"; rests on {listed(names)}: cannot tell without {'it' if len(names) == 1 else 'any one of them'}"


def _alone(alone: Sequence[FeatureEffect]) -> list[str]:
    """Single features, none of them held beside another."""
    if not alone:
        return []
    significant = [effect.name for effect in alone if effect.verdict == "yes"]
    resting = [effect.name for effect in alone if effect.rests_on]
    naive = sum(effect.mantel.naive_p < 0.05 for effect in alone)
    result = f"none of {len(alone)} features goes with gains"
    if significant:
        result = f"{len(significant)} of {len(alone)} features go with gains ({listed(significant)})"
    if resting:
        result += f", of which {listed(resting)} cannot be told without some one pair or source"
    return [
        f"Each by itself, corrected for their number: {result}. Pearson's own p, which takes every pair "
        f"for a new observation, would call {naive} significant."
    ]


def _shares(found: Dominance) -> list[str]:
    if not found.groups:
        return ["Shares of variance: cannot tell; there is no feature of pairs."]
    parts = [
        f"{group.group} {_percent(group.share)} (chance {_percent(group.null_mean)}, "
        f"{related('p', group.p)}: {group.verdict}{_resting(group.rests_on)})"
        for group in found.groups
    ]
    sentences = [
        f"Of the variance between pairs, {'; '.join(parts)}; unexplained {_percent(found.unexplained)}."
    ]
    difference = found.hidden_less_surface
    if difference.known:
        numbers = (
            f"difference beyond chance {100 * difference.value:+.0f} points of variance "
            f"[{100 * difference.low:+.0f}, {100 * difference.high:+.0f}]"
        )
        answer = "cannot tell which explains more"
        if found.verdict == "yes":
            answer = "hidden explains more" if difference.value > 0 else "surface explains more"
            answer += _resting(found.rests_on)
        sentences.append(f"Hidden against surface: {answer}; {numbers}.")
    if all(group.group != "size" for group in found.groups):
        sentences.append(
            "Size and difficulty are properties of a source alone, so source effects absorb them: "
            "they have no share between pairs and are held against donor strengths instead."
        )
    return sentences


def _levels(levels: Sequence[LevelEffect]) -> list[str]:
    sentences = []
    for side, strength in (("source", "donor"), ("target", "recipient")):
        known = [level for level in levels if level.side == side and level.r.known]
        if not known:
            continue
        significant = [
            f"{level.words} (r {_standard(level.r)}, {related('q', level.q)}{_resting(level.rests_on)})"
            for level in known
            if level.verdict == "yes"
        ]
        n, seen = known[0].n, known[0].detectable
        if significant:
            sentences.append(f"Between {n} {side}s, {strength} strength goes with {listed(significant)}.")
        else:
            only = (
                f"; of {len(known)} properties only a correlation of {seen:.2f} or more would have been found"
            )
            sentences.append(
                f"Between {n} {side}s: cannot tell what {strength} strength goes with"
                f"{only if isfinite(seen) else ''}."
            )
    return sentences


def _odd(found: OddCells) -> str:
    head = f"Surface similarity explains {_percent(found.r_squared)} of the variance between pairs"
    if found.beyond_noise is None:
        return (
            f"{head}; {len(found.odd)} of {found.tested} pairs stand out from the scatter of the others; "
            f"how many depart by more than noise cannot be told: {found.reason}."
        )
    return (
        f"{head}; {found.beyond_noise} of {found.tested} pairs depart from it by more than their noise, and "
        f"{len(found.odd)} of these further than 19 in 20 pairs do."
    )


def _asymmetry(found: Asymmetry, unit: str) -> list[str]:
    if not found.pairs and not found.reciprocity.known and not found.reason:
        return [f"Asymmetry: cannot tell; {found.reciprocity.reason}."]
    significant = [pair for pair in found.pairs if pair.q < 0.05]
    text = f"{len(significant)} of {len(found.pairs)} pairs of tasks are asymmetric beyond noise"
    if not found.pairs:
        text = f"cannot tell; {found.reason}"
    elif found.reason:
        text = f"which of {len(found.pairs)} pairs are asymmetric cannot be told ({found.reason})"
    elif significant:
        pair = significant[0]
        text += (
            f", most of all {pair.first} -> {pair.second} "
            f"({pair.forward:+.1f} against {pair.backward:+.1f} {unit})"
        )
    sentences = [f"Asymmetry: {text}."]
    if found.reciprocity.known:
        verdict = (
            "one direction goes with the other"
            if found.p < 0.05
            else "cannot tell whether one direction goes with the other"
        )
        seen = f"; the minimal detectable effect is {found.detectable:.2f} (80 % power)"
        sentences.append(
            f"Reciprocity: {verdict}; r {_standard(found.reciprocity)}, {related('p', found.p)}"
            f"{_resting(found.rests_on)}"
            f"{'' if found.p < 0.05 or not isfinite(found.detectable) else seen}."
        )
    return sentences


def _strengths(strengths: Sequence[Strength], word: str, verb: str, unit: str) -> str:
    significant = [strength for strength in strengths if strength.q < 0.05]
    bands = [strength.null_high for strength in strengths if isfinite(strength.null_high)]
    if strengths and not bands:
        reasons = listed(sorted({strength.effect.reason for strength in strengths}))
        return f"{word.capitalize()}s: cannot tell; {reasons}."
    if not significant:
        return (
            f"No {word} {verb} more or less than the others beyond chance; chance alone spreads them to "
            f"about +-{np.median(bands):.1f} {unit}."
        )
    ordered = sorted(significant, key=lambda strength: -strength.effect.value)
    named = [
        f"{strength.name} {strength.effect.value:+.1f}"
        f"{f' (rests on {listed(strength.rests_on)})' if strength.rests_on else ''}"
        for strength in ordered
    ]
    return f"{word.capitalize()}s beyond chance, in {unit} against the mean of all: {listed(named)}."


def warnings_of(
    found: Explanation, matrix: TransferMatrix, design: Design, alone: PreparedFeatures
) -> tuple[TraitWarning, ...]:
    """What a reader must know of the pairs, the features and the base.

    alone: the features by themselves, of which the composites were made.
    """
    return (*_of_the_table(found, matrix, design), *_of_the_features(found, alone))


def _of_the_table(found: Explanation, matrix: TransferMatrix, design: Design) -> list[TraitWarning]:
    """Targets and sources that are left out, and targets of which it is unknown how much they gain."""
    warned = []
    if design.left_out:
        warned.append(
            TraitWarning(
                "targets_left_out",
                f"no source moves {listed(design.left_out)}, or too few are known there; they are left out",
                "use targets that some source moves",
                design.left_out,
            )
        )
    copies: dict[str, str] = found.conditions["near_copies"]
    if copies:
        warned.append(
            TraitWarning(
                "near_copies",
                f"{listed([f'{name} ({why})' for name, why in copies.items()])}: one of each kind takes "
                "part, so that no permutation and no interval counts one source for several",
                "near_copies=True (--near-copies) lets all of them; check that they are not one adapter "
                "under several names",
                tuple(copies),
            )
        )
    if not np.isfinite(matrix.baseline).all():
        warned.append(
            TraitWarning(
                "baseline_unknown",
                "the base is not known on every target: scores less their mean on the target stand for "
                "gains, which changes nothing between pairs, but how much such targets gain, and whether "
                "pairs of tasks are asymmetric there, cannot be told",
                "say which row is the base with --base ROW, or add one named base",
            )
        )
    level = tuple(name for name, why in design.no_level.items() if why == HARDLY_VARIES)
    if level:
        warned.append(
            TraitWarning(
                "level_without_scatter",
                f"on {listed(level)} sources hardly differ beside what all of them gain: in standard "
                "deviations of the target that is any number, so nothing is said of how much it gains "
                "beside the others, nor of asymmetric pairs with it",
                "name the metrics, where they are shares, or use --units points",
                level,
            )
        )
    return warned


def _of_the_features(found: Explanation, alone: PreparedFeatures) -> list[TraitWarning]:
    """Too few tasks for the questions that are asked of them, and composites that say the same."""
    warned = []
    tasks = len(set(found.sources) | set(found.targets))
    if tasks < 15:
        warned.append(
            TraitWarning(
                "few_tasks",
                f"with {tasks} tasks most questions of why have no answer; read each `cannot tell` with the "
                "smallest effect that could have been seen",
                "add tasks; more items or seeds sharpen cells, but do not add tasks",
            )
        )
    if alone.names and not found.joint:
        warned.append(
            TraitWarning(
                "no_joint_regression",
                f"{len(alone.names)} features of unknown names are too many for {tasks} tasks",
                "say which belong together with composites=[...]",
            )
        )
    alike = tuple(effect.name for effect in found.joint if effect.collinearity > ALIKE)
    if alike:
        warned.append(
            TraitWarning(
                "composites_alike",
                f"{listed(alike)} {'goes' if len(alike) == 1 else 'go'} along with the other composites "
                f"(R^2 above {ALIKE}): what one of them explains, the others may as well",
                "add tasks in which they differ, or train variations that change one of them alone",
                alike,
            )
        )
    return warned


def _standard(value: Interval) -> str:
    return estimate(value, 2)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if isfinite(share) else "an unknown share"
