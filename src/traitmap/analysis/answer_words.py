"""The five lines of an answer, in plain English: each sentence says what is there and no more.

Every function takes the record and gives one line without a full stop at its end; nothing is said of a base,
a test, items or seeds that a matrix does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from traitmap.analysis.verdicts import GLYPHS, UNCLEAN, Kind, Verdicts
from traitmap.matrix.reading import Reading
from traitmap.wording import (
    UNKNOWN,
    clean,
    counted,
    estimate,
    listed,
    plain,
    related,
    share,
    signed,
)

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer, Pick, TargetAnswer
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.traits.records import Traits

NAMED = 3  # picks that a line names
UNPARSED = 0.10  # share of the base's answers that could not be parsed, from which on a gain may be form


def title(answer: Answer) -> str:
    """What was compared: name, size, base, seeds, date; what is unknown is left out."""
    sources = counted(len(answer.sources), "source")
    if answer.variations:
        sources += f" + {counted(len(answer.variations), 'variation')}"
    parts = [
        answer.name,
        f"{sources} x {counted(len(answer.targets), 'target')}",
        (f"base {answer.base}" if answer.base else "") if answer.has_base else "no base",
        counted(answer.seeds, "seed") if answer.seeds else "",
        f"for {answer.target}" if answer.target else "",
        answer.date,
    ]
    return clean(" · ".join(filter(None, parts)))


def gain_of(pick: Pick, row: TargetAnswer) -> str:
    """``+12.8 [+5.9, +19.7]``, or the score where there is no gain."""
    if not pick.gain.known:
        return plain(pick.value, row.digits)
    return estimate(pick.gain, row.digits)


def number_of(pick: Pick | None, row: TargetAnswer) -> str:
    """The gain of a pick without its interval, its score where it has no gain, or a dash for no pick."""
    if pick is None:
        return UNKNOWN
    known = pick.gain.known
    return signed(pick.gain.value, row.digits) if known else plain(pick.value, row.digits)


def _row(answer: Answer, target: str) -> TargetAnswer:
    return next(row for row in answer.by_target if row.target == target)


def _named(answer: Answer, picks: Sequence[Pick], *, intervals: bool = True) -> str:
    """``reviews +12.8 [+5.9, +19.7], stars +3.1 [...]``; beyond ``NAMED`` the others as a count."""
    texts = []
    for pick in picks[:NAMED]:
        row = _row(answer, pick.target)
        number = gain_of(pick, row) if intervals else signed(pick.gain.value, row.digits)
        texts.append(f"{clean(pick.target)} {number}{'' if row.unit == 'points' else ' ' + clean(row.unit)}")
    more = f" and {len(picks) - NAMED} more" if len(picks) > NAMED else ""
    return ", ".join(texts) + more


def why_none(others: Sequence[Pick], better: int) -> str:
    """Why a target has no best clean source. others: every pick on it but its own data."""
    if not others:
        return "no source was measured on it"
    kinds = [pick.kind for pick in others]
    if all(kind == "unknown" and not pick.gain.clear for kind, pick in zip(kinds, others, strict=True)):
        return "no gain has an interval"
    raised = [pick.kind for pick in others if better * pick.gain.value > 0]
    told = [f"{raised.count(kind)} {kind}" for kind in UNCLEAN if kind in raised]
    open_ = sum(kind == "unknown" for kind in raised)
    told += [f"{open_} cannot be told"] if open_ else []
    return f"no clean gain: {listed(told)}" if told else "no gain beyond noise"


# PICK.


def pick(answer: Answer) -> str:
    """Which source to take: for the target that was asked for, or the one that helps most and hurts least."""
    if answer.target:
        return _pick_for(answer, _row(answer, answer.target))
    if not answer.by_source:
        return "no source was measured"
    if not answer.has_base:
        return _first_by_rank(answer)
    helpful = [source for source in answer.by_source if source.helps]
    if not helpful:
        return _nothing_to_pick(answer)
    first = helpful[0]
    kind = "" if first.helps[0].kind == "clean gain" else ", nothing but their intervals checked"
    hurts = f"hurts {len(first.hurts)}"
    if first.hurts:
        hurts += f" ({_named(answer, first.hurts, intervals=False)})"
    text = (
        f"{clean(first.source)}: helps {len(first.helps)} of {counted(first.tested, 'target')} "
        f"({_named(answer, first.helps)}){kind}, {hurts}"
    )
    level = [
        source.source
        for source in helpful[1:]
        if (len(source.helps), len(source.hurts)) == (len(first.helps), len(first.hurts))
    ]
    as_many = "helps and hurts as many" if len(level) == 1 else "help and hurt as many"
    return text + (f"; {clean(listed(level))} {as_many}" if level else "")


def _pick_for(answer: Answer, row: TargetAnswer) -> str:
    """The best source for one target, whether it can be told from the next, and what own data give."""
    own = f"; its own data give {gain_of(row.own, row)}" if row.own else ""
    if row.best is None:
        return f"no source; {row.reason}{own}"
    unit = "" if row.unit == "points" else f" {clean(row.unit)}"
    caveats = {"unchecked gain": ", nothing but its interval checked", "unknown": ", untested"}
    caveat = caveats.get(row.best.kind, "") if row.best.gain.known else ""
    text = f"{clean(row.best.source)}: {gain_of(row.best, row)}{unit}{caveat}"
    if row.runner_up:
        name = clean(row.runner_up.source)
        apart = estimate(row.apart, row.digits)
        if row.apart.clear:
            text += f", ahead of {name} by {apart}"
        elif isfinite(row.apart.low):
            text += f", not told from {name} (apart by {apart})"
        else:
            text += f", then {name} {gain_of(row.runner_up, row)}"
    return text + own


def _first_by_rank(answer: Answer) -> str:
    """Without a base: who stands first, by mean rank."""
    ranked = sorted(answer.by_source, key=lambda source: (source.rank, source.source))
    first = ranked[0]
    many = len(answer.by_source)
    if len(answer.targets) == 1:
        score = number_of(answer.by_target[0].best, answer.by_target[0])
        return f"{clean(first.source)}: the best score of {many}, {score}"
    level = [source.source for source in ranked[1:] if source.rank == first.rank]
    text = (
        f"{clean(first.source)}: mean rank {plain(first.rank)} of {many} over "
        f"{counted(len(answer.targets), 'target')}, first on {first.firsts}"
    )
    return text + (
        f"; {clean(listed(level))} {'ranks' if len(level) == 1 else 'rank'} as high" if level else ""
    )


def _nothing_to_pick(answer: Answer) -> str:
    """Why no source is named: nothing is clean, nothing is beyond noise, or nothing can be tested."""
    unclean = sum(answer.gains.values())
    if unclean:
        return f"no source: of {counted(unclean, 'gain')} beyond noise none is clean"
    if answer.within_noise:
        return f"no source: no gain is beyond noise among {counted(answer.within_noise, 'transfer')}"
    first = max(answer.by_source, key=lambda source: source.mean if isfinite(source.mean) else float("-inf"))
    if not isfinite(first.mean):
        return "no source: no gain is known"
    return (
        f"cannot be told: no gain has an interval; {clean(first.source)} has the largest mean gain, untested"
    )


# AVOID.


def avoid(answer: Answer) -> str:
    """Which sources do harm, and what kind of harm."""
    if answer.target:
        row = _row(answer, answer.target)
        if not answer.has_base:
            return ""
        if not row.hurt_by:
            return "" if row.tried == 0 else f"no source lowers it beyond noise (of {row.tried})"
        names = [f"{clean(one.source)} {number_of(one, row)}" for one in row.hurt_by[:NAMED]]
        more = f" and {len(row.hurt_by) - NAMED} more" if len(row.hurt_by) > NAMED else ""
        verb = "lowers" if len(row.hurt_by) == 1 else "lower"
        return f"{', '.join(names)}{more}: {verb} it ({_worst(row.hurt_by[0])})"
    if not answer.has_base:
        ranked = sorted(answer.by_source, key=lambda source: (-source.rank, source.source))
        if len(ranked) < 2:
            return ""
        return f"{clean(ranked[0].source)}: the worst mean rank, {plain(ranked[0].rank)} of {len(ranked)}"
    most = max((len(source.hurts) for source in answer.by_source), default=0)
    if not most:
        tested = max((source.tested for source in answer.by_source), default=0)
        return (
            "no source hurts a target beyond noise" if tested else "cannot be told: no loss has an interval"
        )
    worst = [source for source in answer.by_source if len(source.hurts) == most]
    worst.sort(key=lambda source: source.mean)
    together = clean(listed([source.source for source in worst]))
    first = worst[0]
    whose = "" if len(worst) == 1 else f"{clean(first.source)} on "
    deepest = first.hurts[0]
    return (
        f"{together}: {'each ' if len(worst) > 1 else ''}hurts {most} of {counted(first.tested, 'target')} "
        f"({whose}{_named(answer, [deepest], intervals=False)}: {_worst(deepest)})"
    )


def _worst(pick: Pick) -> str:
    """What kind of loss it is, in the words of its verdict where these say more than its name."""
    if pick.kind == "collapse":
        return pick.words.partition(" (")[0]
    return pick.kind


# TRUST.


def trust(answer: Answer) -> str:
    """What the gains and losses beyond noise are."""
    if answer.target:
        return _trust_of_target(answer, _row(answer, answer.target))
    if not answer.has_base:
        return "scores only: without a base nothing here is a gain"
    gains, losses = sum(answer.gains.values()), sum(answer.losses.values())
    if not gains and not losses:
        if answer.within_noise:
            return f"nothing is beyond noise among {counted(answer.within_noise, 'transfer')}"
        return "no gain has an interval or a test, so none can be trusted or dismissed"
    parts = [
        f"{counted(count, noun, plural)} beyond noise: {_by_kind(kinds, count)}"
        for count, noun, plural, kinds in (
            (gains, "gain", "gains", answer.gains),
            (losses, "loss", "losses", answer.losses),
        )
        if count
    ]
    text = "; ".join(parts)
    if open_ := _open(answer.verdicts):
        text += f"; {open_} more cannot be told"
    if not answer.answers:
        text += "; there are no answers to look at, so nothing but intervals was checked"
    return text


def _open(verdicts: Verdicts) -> int:
    """Transfers beyond noise of which a control cannot be told."""
    return sum(cell.kind == "unknown" and bool(cell.controls) for cell in verdicts.transfers)


def _by_kind(kinds: Mapping[Kind, int], total: int) -> str:
    """``4 clean, 4 collapse, 3 class shares``; ``all clean`` where there is but one kind."""
    short = {kind: kind.split()[0] if kind.split()[-1] in ("gain", "loss") else kind for kind in GLYPHS}
    counts = [(short[kind], kinds[kind]) for kind in GLYPHS if kinds.get(kind)]
    if len(counts) == 1:
        return f"{'it is' if total == 1 else 'all'} {counts[0][0]}"
    return ", ".join(f"{count} {name}" for name, count in counts)


def _trust_of_target(answer: Answer, row: TargetAnswer) -> str:
    if not answer.has_base or not isfinite(row.base):
        return "scores only: the base is not known here"
    parts = []
    if row.best is not None:
        what = "has no test" if row.best.kind == "unknown" else f"is a {row.best.kind}"
        parts.append(f"{clean(row.best.source)} {what}: {row.best.words}")
    if row.unclean:
        names = [
            f"{clean(one.source)} {signed(one.gain.value, row.digits)} {one.kind}" for one in row.unclean
        ]
        parts.append(f"not clean: {listed(names, NAMED)}")
    return "; ".join(parts) or row.reason


# WHY.


def why(explanation: Explanation | None, why_not: str = "") -> str:
    """What goes with gains once source and target are held constant; or why nobody knows."""
    if explanation is None:
        return why_not
    stands = [effect for effect in explanation.joint if effect.stands]
    rests = [effect for effect in explanation.joint if effect.rests_on]
    parts = []
    for effect in stands:
        way = "more" if effect.effect.value > 0 else "less"
        parts.append(
            f"pairs alike in {clean(effect.name).replace('_', ' ')} gain {way} "
            f"({estimate(effect.effect, 2)} SD, {related('q', effect.q)}), also without any one source"
        )
    if not stands:
        parts.append(f"none of {len(explanation.joint)} properties of pairs can be told to go with gains")
    if rests:
        names = listed([clean(effect.name).replace("_", " ") for effect in rests])
        one = listed(list(dict.fromkeys(name for effect in rests for name in effect.rests_on)), 1)
        parts.append(f"{names} cannot be told without {clean(one)}")
    return "; ".join(parts)


# UNCERTAIN.


def uncertain(answer: Answer, traits: Traits | None) -> str:
    """What the numbers leave out: seeds, small effects, unknown cells, traits."""
    parts = []
    tested = any(isfinite(cell.q) for cell in answer.verdicts.cells)
    if answer.seeds < 2 and tested:
        seeds = "1 seed" if answer.seeds else "seeds are not told"
        parts.append(f"{seeds}: training noise is in no interval")
    if isfinite(answer.smallest):
        parts.append(f"gains under {plain(answer.smallest)} points mostly go unseen")
    if answer.known < answer.cells:
        parts.append(f"{answer.cells - answer.known} of {answer.cells} cells are unknown")
    if not tested:
        what = "gain" if answer.has_base else "difference"
        parts.append(f"no {what} has a test: the results hold no items")
    elif missing := _unchecked(answer.verdicts):
        parts.append(missing)
    if answer.by_target and not answer.target and len(answer.sources) > 1 and tested:
        parts.append(f"the best of {len(answer.sources)} is flattered by the choice")
    if traits is not None and not answer.target:
        parts.append(trait_count(traits))
    return "; ".join(filter(None, parts))


def _unchecked(verdicts: Verdicts) -> str:
    """What could not be looked at in transfers that are called clean."""
    lacking = {
        text.partition(":")[0]
        for cell in verdicts.transfers
        if cell.kind in ("clean gain",)
        for text in cell.unchecked
    }
    return f"{listed(sorted(lacking))} could not be checked everywhere" if lacking else ""


def trait_count(traits: Traits) -> str:
    """How many traits count, and how many of them stay when sources are drawn again."""
    used, stable = traits.n_components.get("used") or 0, traits.n_components.get("stable")
    if not used:
        return "no trait above noise"
    if stable is None:
        return counted(used, "trait")
    if used == 1:
        return f"1 trait, {'stable' if stable else 'not stable'}"
    shaky = used - stable
    return f"{used} traits, {'all' if not shaky else 'none' if shaky == used else stable} of them stable"


def traits_in_words(traits: Traits | None) -> tuple[str, str]:
    """A short verdict on the number of traits, and a sentence with its evidence.

    The evidence: what cross-validation and parallel analysis support, and the first component beside its
    noise band.
    """
    if traits is None:
        return "no traits", "Traits were not computed for this matrix."
    cv, parallel = traits.n_components.get("cv"), traits.n_components.get("parallel")
    used = traits.n_components.get("used") or 0
    evidence = []
    if cv is not None:
        evidence.append(f"cross-validation supports {counted(cv, 'component')}")
    if parallel is not None:
        evidence.append(f"parallel analysis {counted(parallel, 'component') if cv is None else parallel}")
    words = ", ".join(evidence)
    text = f"{words[:1].upper()}{words[1:]}." if words else ""
    if len(traits.explained_variance_ratio):
        first, low, high = (
            float(values[0]) for values in (traits.explained_variance_ratio, traits.null_p05, traits.null_p95)
        )
        if all(map(isfinite, (first, low, high))):
            text += f" The first explains {share(first)} of the variance; "
            text += f"noise of this shape, {share(low)} to {share(high)}."
    return (counted(used, "trait") if used else "no trait above noise"), text.strip()


# What cannot be told, in full sentences.


def doubts(reading: Reading, verdicts: Verdicts, traits: Traits | None, seeds: int) -> tuple[str, ...]:
    """What a matrix cannot tell, most serious first.

    traits: None where they were not computed. seeds: how many were trained, 0 where nobody tells.
    """
    sentences = [*_holes(reading), *_uncertainty(reading, verdicts, seeds), *_targets(reading)]
    if traits is not None and not traits.n_components.get("used"):
        sentences.append(
            "Whether there are traits at all: no component stands out from noise of this shape, so loadings "
            "describe this matrix and nothing beyond it."
        )
    return tuple(sentences)


def _holes(reading: Reading) -> list[str]:
    """Cells and bases that are not known or known in part only, and gains that may be recall."""
    cells = [cell for row in reading.cells for cell in row]
    failed = sum(cell.status == "failed" for cell in cells)
    missing = sum(not isfinite(cell.value) and cell.status != "failed" for cell in cells)
    sentences = []
    if failed or missing:
        parts = [f"{count} {word}" for count, word in ((failed, "failed"), (missing, "missing")) if count]
        sentences.append(
            f"{counted(failed + missing, 'cell')} of {len(cells)} "
            f"{'are' if failed + missing != 1 else 'is'} unknown ({', '.join(parts)}): no number here "
            "includes them."
        )
    asked = [cell for cell in cells if cell.asked_of]
    if asked:
        shares = [cell.asked / cell.asked_of for cell in asked]
        sentences.append(
            f"{counted(len(asked), 'cell')} of {len(cells)} "
            f"{'are' if len(asked) != 1 else 'is'} asked in part ({share(min(shares))} to "
            f"{share(max(shares))} of the items): their intervals are as wide as that makes them."
        )
    partly = sum(cell.status == "measured" and bool(cell.reason) and not cell.asked_of for cell in cells)
    if partly:
        sentences.append(
            f"{counted(partly, 'cell')} {'are' if partly != 1 else 'is'} known in part only (a seed is "
            "missing, or there is no interval): the details of the cell say why."
        )
    unbased = [
        clean(target.name)
        for target, base in zip(reading.targets, reading.base, strict=True)
        if not isfinite(base.value)
    ]
    if not reading.has_base:
        sentences.append(
            "What a source changes: no base is among the scores, so nothing here is a gain. Say which row is "
            "the base with --base ROW, if it is there."
        )
    elif unbased:
        sentences.append(f"The base is not known on {listed(unbased)}, so no gain is either.")
    material = {at: overlap for at, overlap in reading.touched.items() if overlap.material}
    if material:
        (s, t), most = max(material.items(), key=lambda at: at[1].touched / at[1].items)
        sentences.append(
            f"How much is recall in {counted(len(material), 'cell')}: test items occur in the training data, "
            f"most of all {clean(reading.targets[t].name)}'s in {clean(reading.sources[s])} ({most.words}). "
            "Verdicts test a gain without them."
        )
    return sentences


def _uncertainty(reading: Reading, verdicts: Verdicts, seeds: int) -> list[str]:
    """What intervals leave out, and what verdicts could not tell. seeds: how many were trained, 0 unknown."""
    sentences = []
    if not any(isfinite(cell.q) for row in reading.cells for cell in row):
        sentences.append(
            "Which differences are real: the results hold no items, so none has an interval or a test."
            if not reading.has_base
            else "Which gains are real: the results hold no items, so no gain has a test."
        )
    elif seeds < 2:
        trained = "one seed was trained" if seeds else "nobody tells how many seeds were trained"
        sentences.append(
            f"How much a second training would differ: {trained}, and the intervals cover the choice of test "
            "items only."
        )
    if open_ := [cell for cell in verdicts.transfers if cell.kind == "unknown" and cell.controls]:
        first = open_[0]
        sentences.append(
            f"What {counted(len(open_), 'gain or loss', 'gains or losses')} beyond noise "
            f"{'is' if len(open_) == 1 else 'are'}, such as {clean(first.source)} on {clean(first.target)}: "
            f"{first.words}."
        )
    return sentences


def _targets(reading: Reading) -> list[str]:
    """Targets whose numbers need care: nothing above guessing, or answers that could not be parsed."""
    guessing, unparsed = [], []
    for t, target in enumerate(reading.targets):
        values = [row[t].value for row in reading.cells] + [reading.base[t].value]
        floor = max((float(v) for v in (reading.chance[t], reading.majority[t]) if isfinite(v)), default=None)
        if floor is not None and target.better > 0 and all(v <= floor for v in values if isfinite(v)):
            guessing.append(clean(target.name))
        if reading.base[t].unparsed > UNPARSED:
            unparsed.append(f"{clean(target.name)} ({share(reading.base[t].unparsed)})")
    sentences = []
    if guessing:
        sentences.append(
            f"Skill on {listed(guessing)}: neither the base nor any adapter beats giving always the "
            "commonest answer, so differences there are of bias, not of skill."
        )
    if unparsed:
        sentences.append(
            f"Form or skill on {listed(unparsed)}: that share of the base's answers could not be parsed, "
            "so a gain may be learning the form of the answer."
        )
    return sentences
