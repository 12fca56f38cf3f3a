"""The findings that stand, and what cannot be told, in words. Everything counted comes from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from types import MappingProxyType
from urllib.parse import quote

from traitmap.analysis.features import Reason
from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import Reading
from traitmap.report.heatmap import scaled_interval
from traitmap.wording import UNKNOWN, clean, counted, listed, plain, related, share, signed, typeset

EACH = 3
_AS_IN_SCRIPTS = "!~*'()"  # what encodeURIComponent leaves as it is
# From this share of unparsed answers on, a gain may be learning to answer in the right form.
UNPARSED = 0.10


@dataclass(frozen=True)
class Transfer:
    """One transfer in words.

    caution: what in the answers makes it less than it seems; beware: the same in a few words. link: its page.
    """

    source: str
    target: str
    gain: str
    unit: str
    interval: str
    evidence: str
    caution: str
    beware: str
    link: str


@dataclass(frozen=True)
class Headline:
    """What a reader should take away.

    better, worse: strongest significant transfers off the diagonal, strongest first; of a matrix without
        tests the largest ones, and their evidence says so. Of sources with data of their own alone: a
        variation of a source is no further dataset.
    significant, tested: off-diagonal cells of these sources at q < .05, of those with a test.
    raised, lowered: how many of the significant ones are better and worse.
    varied: the same of the variations, in a sentence; empty where there are none.
    """

    better: tuple[Transfer, ...]
    worse: tuple[Transfer, ...]
    significant: int
    tested: int
    known: int
    raised: int
    lowered: int
    in_domain: str
    varied: str
    traits: tuple[str, str]
    untold: tuple[str, ...]


def headline(
    reading: Reading,
    traits: Traits | None,
    reasons: Mapping[tuple[str, str], Sequence[Reason]] = MappingProxyType({}),
) -> Headline:
    """Pick and count. reasons: (source, target) -> what the answers of the cell show beyond its score."""
    places = [
        (s, t)
        for s, t in reading.transfers()
        if isfinite(reading.cells[s][t].gain) and not reading.is_predicted(s, t)
    ]
    halves = [reading_half(reading, s, t) for s, t in places if isfinite(reading.cells[s][t].q)]
    varied = [(s, t) for s, t in places if s in reading.variations]
    places = [(s, t) for s, t in places if s not in reading.variations]
    tested = [(s, t) for s, t in places if isfinite(reading.cells[s][t].q)]
    standing = [(s, t) for s, t in tested if reading.significant(s, t)]
    ranked = sorted(standing if tested else places, key=lambda at: -_strength(reading, *at))
    better = [at for at in ranked if reading.improvement(*at) > 0]
    worse = [at for at in reversed(ranked) if reading.improvement(*at) < 0]
    return Headline(
        better=tuple(_transfer(reading, *at, reasons) for at in better[:EACH]),
        worse=tuple(_transfer(reading, *at, reasons) for at in worse[:EACH]),
        significant=len(standing),
        tested=len(tested),
        known=len(places),
        raised=len(better) if tested else 0,
        lowered=len(worse) if tested else 0,
        in_domain=_in_domain(reading),
        varied=_varied(reading, varied),
        traits=traits_in_words(traits),
        untold=tuple(_untold(reading, traits, halves)),
    )


def _strength(reading: Reading, s: int, t: int) -> float:
    """Improvement against its unit's largest, so that targets in other units can stand beside points."""
    return reading.improvement(s, t) / reading.targets[t].limit


def _transfer(
    reading: Reading, s: int, t: int, reasons: Mapping[tuple[str, str], Sequence[Reason]]
) -> Transfer:
    cell, target = reading.cells[s][t], reading.targets[t]
    test = related("q", cell.q) if isfinite(cell.q) else "not tested"
    caution, beware = _caution(reasons.get((cell.source, cell.target), ()))
    evidence = ", ".join([*([f"n = {cell.n}"] if cell.n else []), test])
    shown = scaled_interval(cell, target)
    return Transfer(
        source=clean(cell.source),
        target=clean(cell.target),
        gain=typeset(signed(cell.gain * target.factor, target.digits)),
        unit=clean(target.unit),
        interval="" if shown == UNKNOWN else typeset(shown),
        evidence=evidence,
        caution=caution,
        beware=beware,
        link="#cell="
        + "/".join(quote(clean(name), safe=_AS_IN_SCRIPTS) for name in (cell.source, cell.target)),
    )


def _caution(reasons: Sequence[Reason]) -> tuple[str, str]:
    """A collapse onto one answer, or a change of the answers' shares alone; empty where there is neither."""
    told = {reason.kind: reason.words for reason in reasons if reason.significant is not False}
    for kind, beware in (("collapse", "one answer for all"), ("metric", "class shares alone")):
        if kind in told:
            return typeset(clean(told[kind].replace(" -> ", " → "))), beware
    return "", ""


def _varied(reading: Reading, places: list[tuple[int, int]]) -> str:
    """What stands of the transfers of variations."""
    tested = [(s, t) for s, t in places if isfinite(reading.cells[s][t].q)]
    if not reading.variations:
        return ""
    count = counted(len(reading.variations), "variation")
    if not tested:
        return f"{count[:1].upper()}{count[1:]} of these sources not counted."
    standing = sum(reading.significant(s, t) for s, t in tested)
    return f"Not counted here: {count} of these sources, {standing} of {len(tested)} significant."


def _in_domain(reading: Reading) -> str:
    """How many adapters are significantly better on their own target."""
    own = [
        (s, t)
        for s in range(len(reading.sources))
        for t in range(len(reading.targets))
        if reading.in_domain(s, t) and s not in reading.variations and isfinite(reading.cells[s][t].q)
    ]
    if not own:
        return ""
    up = sum(reading.significant(s, t) and reading.improvement(s, t) > 0 for s, t in own)
    return f"On their own task: {up} of {len(own)} better than the base."


def reading_half(reading: Reading, s: int, t: int) -> float:
    """Half the width of a gain's interval in points; NaN for targets in other units."""
    cell, target = reading.cells[s][t], reading.targets[t]
    width = (cell.gain_high - cell.gain_low) * target.factor
    return width / 2 if target.unit == "points" else float("nan")


def traits_in_words(traits: Traits | None) -> tuple[str, str]:
    """A short verdict on the number of traits, and a sentence with its evidence."""
    if traits is None:
        return "no traits", "Traits were not computed for this matrix."
    cv, parallel = traits.n_components.get("cv"), traits.n_components.get("parallel")
    used = traits.n_components.get("used") or 0
    evidence = []
    if cv is not None:
        evidence.append(f"cross-validation supports {counted(cv, 'component')}")
    if parallel is not None:
        evidence.append(
            f"parallel analysis {counted(parallel, 'component')}"
            if cv is None
            else f"parallel analysis {parallel}"
        )
    words = ", ".join(evidence)
    sentence = f"{words[:1].upper()}{words[1:]}." if words else ""
    if len(traits.explained_variance_ratio):
        first, low, high = (
            float(values[0]) for values in (traits.explained_variance_ratio, traits.null_p05, traits.null_p95)
        )
        if all(map(isfinite, (first, low, high))):
            sentence += f" The first explains {share(first)} of the variance; "
            sentence += f"noise of this shape, {share(low)} to {share(high)}."
    return (counted(used, "trait") if used else "no trait above noise"), sentence.strip()


def _untold(reading: Reading, traits: Traits | None, halves: list[float]) -> list[str]:
    """What this run cannot tell, most serious first."""
    said = [*_holes(reading), *_leaks(reading), *_uncertainty(reading, halves), *_targets(reading)]
    if traits is not None and not traits.n_components.get("used"):
        said.append(
            "Whether there are traits at all: no component stands out from noise of this shape, so the "
            "loadings below describe this matrix and nothing beyond it."
        )
    return said


def _holes(reading: Reading) -> list[str]:
    cells = [cell for row in reading.cells for cell in row]
    failed = sum(cell.status == "failed" for cell in cells)
    missing = sum(not isfinite(cell.value) and cell.status != "failed" for cell in cells)
    said = []
    if failed or missing:
        parts = [*([f"{failed} failed"] if failed else []), *([f"{missing} missing"] if missing else [])]
        said.append(
            f"{counted(failed + missing, 'cell')} of {len(cells)} "
            f"{'are' if failed + missing != 1 else 'is'} unknown ({', '.join(parts)}). "
            "They are hatched, and no number here includes them."
        )
    noted = sum(cell.status == "measured" and bool(cell.reason) for cell in cells)
    if noted:
        said.append(
            f"{counted(noted, 'cell')} {'are' if noted != 1 else 'is'} known in part only (a seed is "
            "missing, or there is no interval): the details of the cell say why."
        )
    unbased = [
        clean(t.name)
        for t, base in zip(reading.targets, reading.base, strict=True)
        if not isfinite(base.value)
    ]
    if unbased:
        said.append(f"The base is not known on {listed(unbased)}, so no gain is either.")
    return said


def _leaks(reading: Reading) -> list[str]:
    """Cells whose gain may be recall: enough of their test items stand in the training texts."""
    touched = {at: one for at, one in reading.touched.items() if one.material}
    if not touched:
        return []
    (s, t), most = max(touched.items(), key=lambda at: at[1].touched / at[1].items)
    return [
        f"Skill or recall in {counted(len(touched), 'cell')}: test items stand in the training texts, most "
        f"of all {clean(reading.targets[t].name)}'s in {clean(reading.sources[s])} ({most.words})."
    ]


def _uncertainty(reading: Reading, halves: list[float]) -> list[str]:
    said = []
    known = [half for half in halves if isfinite(half)]
    if known:
        said.append(
            f"Small effects: the typical 95 % interval reaches {plain(median(known))} points to either side, "
            "so a true gain smaller than that mostly goes unseen. A cell without a mark does not prove that "
            "there is no effect."
        )
    if not any(isfinite(cell.q) for row in reading.cells for cell in row):
        said.append(
            "Which gains are real: the table holds no item results, so no gain has an interval or a test."
        )
    elif len(reading.seeds) == 1:
        said.append(
            "How much a second training would differ: one seed was trained, and the intervals cover the "
            "choice of test items only."
        )
    return said


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
    said = []
    if guessing:
        said.append(
            f"Skill on {listed(guessing)}: neither the base nor any adapter beats giving always the "
            "commonest answer, so differences there are of bias, not of skill."
        )
    if unparsed:
        said.append(
            f"Form or skill on {listed(unparsed)}: that share of the base's answers could not be parsed, "
            "so a gain may be learning the form of the answer."
        )
    return said
