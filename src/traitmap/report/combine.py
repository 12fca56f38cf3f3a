"""Combinations of sources: the section of the page, and what ``traitmap mix`` prints.

Measured combinations beside what was predicted of them while they were hidden, the models that were tried,
and who cancels whom. Only a question about some targets (``traitmap mix``) has proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType

from traitmap.analysis.combination import CONCAT, CombinedCell
from traitmap.analysis.corrections import LEAST, ModelScore
from traitmap.analysis.interference import Interaction
from traitmap.analysis.mixing import Mix, Proposal
from traitmap.analysis.mixing_words import MODELS, models_words
from traitmap.matrix.reading import PREDICTED
from traitmap.matrix.statistics import Interval
from traitmap.report.first_screen import lines_view
from traitmap.report.plane_charts import against
from traitmap.report.records import Shown
from traitmap.report.terminal_runs import section
from traitmap.table import Column, Entry, Row, Table, to_terminal, words
from traitmap.wording import UNKNOWN, clean, counted, estimate, interval, plain, probability, sentence, signed


def mix_view(result: Mix) -> RenderableType:
    """The answer in lines, the proposals beside the best single source, and the models that were tried."""
    parts: list[RenderableType] = [words(f"Combinations for {', '.join(result.targets)}", "bold")]
    parts += [lines_view(result.lines), words("")]
    if result.proposals:
        parts.append(to_terminal(proposals_table(result)))
    if result.scores:
        parts += [words(""), to_terminal(models_table(result.scores, result.cells))]
    if result.added:
        parts += section(
            "Measured for this; to keep them, add to the sources of the study file",
            *(words(f"  - {study_line(entry)}") for entry in result.added),
        )
    if result.left_out:
        parts += section("Not used", *(words(f"  {name}: {why}") for name, why in result.left_out.items()))
    return Group(*parts)


def study_line(entry: Any) -> str:
    """An entry of a study file on one line."""
    shown = []
    for key, value in entry.items():
        if isinstance(value, dict):
            text = "{" + ", ".join(f"{name}: {number:.3g}" for name, number in value.items()) + "}"
        elif isinstance(value, list):
            text = f"[{', '.join(f'{one:.3g}' if isinstance(one, float) else str(one) for one in value)}]"
        else:
            text = str(value)
        shown.append(f"{key}: {text}")
    return "{" + ", ".join(shown) + "}"


def proposals_table(mix: Mix) -> Table:
    """Proposals, the best first, and beneath them the best single source.

    Gains are improvements: positive is better. Predicted rows carry the mark of a prediction.
    """
    rows: list[Row] = [_proposal(mix, one) for one in mix.proposals]
    singles = {one.source: one for one in (mix.single, mix.safe_single) if one is not None}
    for single in singles.values():
        worst = min(single.keep.values(), key=_low, default=None)
        rows.append(
            (
                Entry(f"{single.source} alone", style="italic"),
                "one source",
                _number(single.gain, mix.digits),
                Entry(UNKNOWN),
                *([_kept(worst), single.safe] if mix.keep else []),
            )
        )
    notes = []
    if any(proposal.status == "predicted" for proposal in mix.proposals):
        few = f"no interval where fewer than {LEAST} of its way were measured"
        notes = [f"{PREDICTED} predicted, not measured; {few}"]
    keep = (Column("worst on what to keep", "worst kept"), Column("no harm")) if mix.keep else ()
    return Table(
        f"Mean improvement on {', '.join(mix.targets)} in {mix.unit}, 90 %; beyond the best single "
        "source, one-sided at 5 % over all that are shown.",
        (Column("combination"), Column("how"), Column("gain"), Column("beyond the best single"), *keep),
        rows,
        notes=notes,
    )


def _proposal(mix: Mix, one: Proposal) -> Row:
    style = "predicted" if one.status == "predicted" else "better" if one.better == "yes" else ""
    worst = min(one.keep.values(), key=_low, default=None)
    return (
        Entry(one.combination.words, style=style),
        one.combination.way,
        _number(one.gain, mix.digits, predicted=one.status == "predicted"),
        _number(one.lead, mix.digits),
        *([_kept(worst), one.safe] if mix.keep else []),
    )


def _number(value: Interval, digits: int, *, predicted: bool = False) -> Entry:
    return Entry(
        estimate(value, digits),
        mark=PREDICTED if predicted else " ",
        style="predicted" if predicted else "",
        title=value.reason,
        value=value.value,
    )


def _kept(bound: Interval | None) -> Entry:
    if bound is None:
        return Entry(UNKNOWN)
    low = f", at least {signed(bound.low)}" if bound.low == bound.low else ""
    return Entry(f"{signed(bound.value)}{low}", value=bound.value, title=bound.reason)


def _low(bound: Interval) -> float:
    return bound.low if bound.low == bound.low else bound.value


def models_table(scores: Sequence[ModelScore], cells: Sequence[CombinedCell]) -> Table:
    """Every model and baseline on held-out combinations."""
    units = {cell.unit for cell in cells}
    unit = units.pop() if len(units) == 1 else "usual gains"
    measured = counted(len({cell.combination.name for cell in cells}), "measured combination")
    return Table(
        f"{measured}, each predicted from those that share no two of its parents.",
        ("of", "predicted by", f"error (RMSE, {unit}, 90 %)", "r"),
        [
            (
                "mixtures" if one.kind == CONCAT else "merges",
                Entry(
                    MODELS[one.name][0],
                    style="strong" if one.chosen else "",
                    mark="*" if one.chosen else " ",
                ),
                Entry(
                    f"{plain(one.rmse.value, 2)} [{plain(one.rmse.low, 2)}, {plain(one.rmse.high, 2)}]",
                    value=one.rmse.value,
                ),
                Entry(plain(one.r, 2), value=one.r),
            )
            for one in scores
        ],
        notes=["* used: the simplest that is not clearly worse than the best; intervals over combinations"],
    )


def combine_part(mix: Mix | None, missing: str = "") -> dict[str, Any]:
    """What ``combine.html`` shows (key ``combine``; None: no section).

    mix: of all targets. missing: why there is none, in a sentence.
    """
    if mix is None:
        return {
            "combine": {"missing": missing, "figures": (), "lines": (), "models": None} if missing else None
        }
    between = mix.interference.interactions if mix.interference is not None else ()
    lines = [
        (head, sentence(clean(text)))
        for head, text in mix.lines
        if head not in ("take", "beside", "measure next")
    ]
    return {
        "combine": {
            "missing": "",
            "figures": combine_figures(mix),
            "lines": lines,
            "interactions": interactions_table(between) if between else None,
            "models": models_table(mix.scores, mix.cells) if mix.scores else None,
        }
    }


def combine_figures(mix: Mix) -> tuple[Shown, ...]:
    """The figures of the section: one, where some prediction has an interval."""
    figure = _predicted(mix)
    return () if figure is None else (figure,)


def _predicted(mix: Mix) -> Shown | None:
    """Measured against predicted, of the commonest unit; None without a prediction that has an interval."""
    cells = [cell for cell in mix.cells if cell.predicted.low == cell.predicted.low]
    if not cells:
        return None
    units = [cell.unit for cell in cells]
    unit = max(dict.fromkeys(units), key=units.count)
    drawn = [cell for cell in cells if cell.unit == unit]
    inside = sum(cell.predicted.low <= cell.measured.value <= cell.predicted.high for cell in drawn)
    names = {cell.combination.name for cell in drawn}
    return Shown(
        name="combinations",
        title="Combinations, predicted and measured",
        description=(
            f"What was measured of {counted(len(names), 'combination')} on "
            f"{counted(len({cell.target for cell in drawn}), 'target')}, against what had been predicted "
            f"while each was hidden ({models_words(mix.model)}). {inside} of {len(drawn)} lie in their 90 % "
            "interval, as they must: the intervals were made from these errors."
        ),
        chart=against(
            [
                (
                    f"{clean(cell.combination.words)} on {clean(cell.target)}",
                    cell.predicted,
                    cell.measured.value,
                )
                for cell in drawn
            ],
            "Combinations, predicted and measured",
            f"{len(drawn)} measured improvements of combinations against what was predicted of them.",
            axes=(f"predicted improvement in {clean(unit)}", "measured"),
        ),
        table=cells_table(cells),
        caveat="The width of these intervals rests on these very combinations; few tell little of others.",
        key=(("dot-solid", "measured, against its prediction with the 90 % interval"),),
    )


def cells_table(cells: Sequence[CombinedCell]) -> Table:
    """Measured combinations with their parents' mean and best, and what was predicted of them."""
    return Table(
        "Measured improvements of combinations beside their parents and their predictions, 90 %.",
        (
            "combination",
            "how",
            "target",
            "unit",
            "measured",
            "predicted",
            "interval",
            "mean of parents",
            "best parent",
        ),
        [
            (
                cell.combination.words,
                cell.combination.way,
                cell.target,
                cell.unit,
                Entry(signed(cell.measured.value), value=cell.measured.value),
                Entry(signed(cell.predicted.value), mark=PREDICTED, value=cell.predicted.value),
                interval(cell.predicted.low, cell.predicted.high),
                Entry(signed(cell.mean), value=cell.mean),
                Entry(signed(cell.best), value=cell.best),
            )
            for cell in cells
        ],
    )


def interactions_table(interactions: Sequence[Interaction]) -> Table:
    """Who cancels or reinforces whom, the surest first."""
    return Table(
        "Combinations that are not what their parents say: less their mean, less the better one, 95 %.",
        ("combination", "how", "on", "what", "beyond the mean", "beyond the better", "q"),
        [
            (
                one.combination.words,
                one.combination.way,
                f"trait {one.on}" if one.trait else one.on,
                one.kind if one.status == "measured" else f"{one.kind} {PREDICTED}",
                Entry(estimate(one.beyond_mean), value=one.beyond_mean.value),
                Entry(estimate(one.beyond_best), value=one.beyond_best.value),
                Entry(probability(one.q), value=one.q),
            )
            for one in interactions
        ],
    )
