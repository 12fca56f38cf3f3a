"""The findings that stand, and what cannot be told, in words. Everything counted comes from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from types import MappingProxyType
from urllib.parse import quote

from traitmap.analysis.profiles.pairs import Reason
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

    caveat: what in the answers makes it less than it seems; warning: the same in a few words. link: its page.
    """

    source: str
    target: str
    gain: str
    unit: str
    interval: str
    evidence: str
    caveat: str
    warning: str
    link: str


@dataclass(frozen=True)
class Headline:
    """What a reader should take away.

    better, worse: strongest significant transfers off the diagonal, strongest first; of a matrix without
        tests the largest ones, and their evidence says so. Of sources with data of their own alone: a
        variation of a source is no further dataset.
    significant, tested: off-diagonal cells of these sources at q < .05, of those with a test.
    raised, lowered: how many of the significant ones are better and worse.
    variations: the same of the variations, in a sentence; empty where there are none.
    traits: a verdict and its evidence. doubts: what this run cannot tell, most serious first.
    """

    better: tuple[Transfer, ...]
    worse: tuple[Transfer, ...]
    significant: int
    tested: int
    known: int
    raised: int
    lowered: int
    in_domain: str
    variations: str
    traits: tuple[str, str]
    doubts: tuple[str, ...]


def headline(
    reading: Reading,
    traits: Traits | None,
    reasons: Mapping[tuple[str, str], Sequence[Reason]] = MappingProxyType({}),
) -> Headline:
    """Pick and count. reasons: (source, target) -> what the answers of the cell show beyond its score."""
    known = [
        (s, t)
        for s, t in reading.transfers()
        if isfinite(reading.cells[s][t].gain) and not reading.is_predicted(s, t)
    ]
    places = [(s, t) for s, t in known if s not in reading.variations]
    tested = [(s, t) for s, t in places if isfinite(reading.cells[s][t].q)]
    standing = [(s, t) for s, t in tested if reading.significant(s, t)]
    # Against its unit's largest, so that targets in other units can stand beside points.
    ranked = sorted(
        standing if tested else places,
        key=lambda at: -(reading.improvement(*at) / reading.targets[at[1]].limit),
    )
    better = [at for at in ranked if reading.improvement(*at) > 0]
    worse = [at for at in reversed(ranked) if reading.improvement(*at) < 0]
    doubts = [*_holes(reading), *_uncertainty(reading, known), *_targets(reading)]
    if traits is not None and not traits.n_components.get("used"):
        doubts.append(
            "Whether there are traits at all: no component stands out from noise of this shape, so the "
            "loadings below describe this matrix and nothing beyond it."
        )
    return Headline(
        better=tuple(_transfer(reading, *at, reasons) for at in better[:EACH]),
        worse=tuple(_transfer(reading, *at, reasons) for at in worse[:EACH]),
        significant=len(standing),
        tested=len(tested),
        known=len(places),
        raised=len(better) if tested else 0,
        lowered=len(worse) if tested else 0,
        in_domain=_in_domain(reading),
        variations=_variations(reading, known),
        traits=traits_in_words(traits),
        doubts=tuple(doubts),
    )


def _transfer(
    reading: Reading, s: int, t: int, reasons: Mapping[tuple[str, str], Sequence[Reason]]
) -> Transfer:
    """One cell in words, with a warning where its answers collapse or only their shares change."""
    cell, target = reading.cells[s][t], reading.targets[t]
    test = related("q", cell.q) if isfinite(cell.q) else "not tested"
    interval = scaled_interval(cell, target)
    words = {
        reason.kind: reason.words
        for reason in reasons.get((cell.source, cell.target), ())
        if reason.significant is not False
    }
    kinds = (("collapse", "one answer for all"), ("metric", "class shares alone"))
    kind, warning = next((pair for pair in kinds if pair[0] in words), ("", ""))
    link = "/".join(quote(clean(name), safe=_AS_IN_SCRIPTS) for name in (cell.source, cell.target))
    return Transfer(
        source=clean(cell.source),
        target=clean(cell.target),
        gain=typeset(signed(cell.gain * target.factor, target.digits)),
        unit=clean(target.unit),
        interval="" if interval == UNKNOWN else typeset(interval),
        evidence=f"n = {cell.n}, {test}" if cell.n else test,
        caveat=typeset(clean(words.get(kind, "").replace(" -> ", " → "))),
        warning=warning,
        link=f"#cell={link}",
    )


def _variations(reading: Reading, known: Sequence[tuple[int, int]]) -> str:
    """How many of the transfers of variations are significant. known: (source, target) with a gain."""
    if not reading.variations:
        return ""
    count = counted(len(reading.variations), "variation")
    tested = [(s, t) for s, t in known if s in reading.variations and isfinite(reading.cells[s][t].q)]
    if not tested:
        return f"{count[:1].upper()}{count[1:]} of these sources not counted."
    standing = sum(reading.significant(s, t) for s, t in tested)
    return f"Not counted here: {count} of these sources, {standing} of {len(tested)} significant."


def _in_domain(reading: Reading) -> str:
    """How many adapters are significantly better on their own target."""
    places = [
        (s, t)
        for s in range(len(reading.sources))
        for t in range(len(reading.targets))
        if reading.in_domain(s, t) and s not in reading.variations and isfinite(reading.cells[s][t].q)
    ]
    if not places:
        return ""
    better = sum(reading.significant(s, t) and reading.improvement(s, t) > 0 for s, t in places)
    return f"On their own task: {better} of {len(places)} better than the base."


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


def _holes(reading: Reading) -> list[str]:
    """Cells and bases that are not known or known in part only, and gains that may be recall."""
    cells = [cell for row in reading.cells for cell in row]
    failed = sum(cell.status == "failed" for cell in cells)
    missing = sum(not isfinite(cell.value) and cell.status != "failed" for cell in cells)
    doubts = []
    if failed or missing:
        parts = [f"{count} {word}" for count, word in ((failed, "failed"), (missing, "missing")) if count]
        doubts.append(
            f"{counted(failed + missing, 'cell')} of {len(cells)} "
            f"{'are' if failed + missing != 1 else 'is'} unknown ({', '.join(parts)}). "
            "They are hatched, and no number here includes them."
        )
    partly = sum(cell.status == "measured" and bool(cell.reason) for cell in cells)
    if partly:
        doubts.append(
            f"{counted(partly, 'cell')} {'are' if partly != 1 else 'is'} known in part only (a seed is "
            "missing, or there is no interval): the details of the cell say why."
        )
    unbased = [
        clean(target.name)
        for target, base in zip(reading.targets, reading.base, strict=True)
        if not isfinite(base.value)
    ]
    if not reading.has_base:
        doubts.append(
            "What a source changes: no base is among the scores, so nothing here is a gain. Say which row is "
            "the base with --base ROW, if it is there."
        )
    elif unbased:
        doubts.append(f"The base is not known on {listed(unbased)}, so no gain is either.")
    material = {at: overlap for at, overlap in reading.touched.items() if overlap.material}
    if material:
        (s, t), most = max(material.items(), key=lambda at: at[1].touched / at[1].items)
        doubts.append(
            f"Skill or recall in {counted(len(material), 'cell')}: test items occur in the training data, "
            f"most of all {clean(reading.targets[t].name)}'s in {clean(reading.sources[s])} ({most.words})."
        )
    return doubts


def _uncertainty(reading: Reading, known: Sequence[tuple[int, int]]) -> list[str]:
    """How small a gain can be seen, and what intervals leave out. known: transfers with a gain."""
    tested = [(reading.cells[s][t], reading.targets[t]) for s, t in known if isfinite(reading.cells[s][t].q)]
    widths = [
        (cell.gain_high - cell.gain_low) * target.factor for cell, target in tested if target.unit == "points"
    ]
    halves = [width / 2 for width in widths if isfinite(width)]
    doubts = []
    if halves:
        doubts.append(
            f"Small effects: the typical 95 % interval reaches {plain(median(halves))} points to either "
            "side, so a true gain smaller than that mostly goes unseen. A cell without a mark does not "
            "prove that there is no effect."
        )
    if not any(isfinite(cell.q) for row in reading.cells for cell in row):
        doubts.append(
            "Which differences are real: the results hold no items, so none has an interval or a test."
            if not reading.has_base
            else "Which gains are real: the table holds no item results, so no gain has an interval or a "
            "test."
        )
    elif len(reading.seeds) == 1:
        doubts.append(
            "How much a second training would differ: one seed was trained, and the intervals cover the "
            "choice of test items only."
        )
    return doubts


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
    doubts = []
    if guessing:
        doubts.append(
            f"Skill on {listed(guessing)}: neither the base nor any adapter beats giving always the "
            "commonest answer, so differences there are of bias, not of skill."
        )
    if unparsed:
        doubts.append(
            f"Form or skill on {listed(unparsed)}: that share of the base's answers could not be parsed, "
            "so a gain may be learning the form of the answer."
        )
    return doubts
