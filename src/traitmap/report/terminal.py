"""The results of a run in the terminal: matrix, traits, explanation, recommendation, evaluation.

A view is what a command prints: the verdict in words, the tables that it rests on (those of
``analysis.tables`` and ``matrix.reading``, which the page and a notebook show too), and every warning. Views
are Rich renderables; whoever prints them decides where. They fit the console's width and carry no colour
where they are piped or NO_COLOR is set (Rich sees to that).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding

from traitmap.analysis.tables import (
    asymmetries_table,
    components_table,
    effects_table,
    feature_effects_table,
    loadings_table,
    ranking_table,
    shares_table,
    shown_components,
    strengths_table,
)
from traitmap.matrix.reading import MARK, matrix_table, read
from traitmap.matrix.record import TransferMatrix
from traitmap.report.headline import traits_in_words
from traitmap.report.terminal_runs import indented, section
from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import UNKNOWN, estimate, probability, sentence, signed

if TYPE_CHECKING:
    from traitmap.analysis.explanation.records import Explanation, OddCell
    from traitmap.analysis.recommendation.protocol import RecommenderEvaluation
    from traitmap.analysis.recommendation.records import Advice, Recommendation
    from traitmap.analysis.traits.records import Traits, TraitWarning
    from traitmap.matrix.statistics import Interval

SHOWN_CELLS = 8
SHOWN_PAIRS = 8


def matrix_view(matrix: TransferMatrix) -> RenderableType:
    """Base row of absolute values, gains in points beneath it, ``*`` at q < .05; in blocks that fit.

    Metrics that are not shares stand in their own unit; what is not known says why in a word.
    """
    return to_terminal(matrix_table(read(matrix)))


def _warnings(warnings: Iterable[TraitWarning]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for warning in warnings:
        parts += [words(""), words(f"! {sentence(warning.message)}", "yellow")]
        if warning.action:
            parts.append(indented(sentence(warning.action), 2))
    return parts


def traits_view(traits: Traits) -> RenderableType:
    """The number of traits with its evidence, loadings, effects of the adapters, and every warning."""
    verdict, evidence = traits_in_words(traits)
    used = traits.n_components.get("used") or 0
    tables = [components_table(traits), loadings_table(traits, range(shown_components(traits)))]
    tables += [effects_table(traits, used)] if used else []
    parts: list[RenderableType] = [words(f"{verdict[:1].upper()}{verdict[1:]}", "bold"), words(evidence)]
    for table in tables:
        parts += [words(""), to_terminal(table)]
    return Group(*parts, *_warnings(traits.warnings))


# Explanation.


def explanation_view(explanation: Explanation) -> RenderableType:
    """Everything that a person reads of an explanation: verdicts, effects, shares, odd pairs, strengths.

    The other numbers are in the record and its JSON.
    """
    parts: list[RenderableType] = [Padding(words(f"- {text}"), 0) for text in explanation.words]
    if not explanation.pairs:
        return Group(*parts)
    no_effects = words("no feature of pairs is left after source and target effects")
    for title, effects, detectable in (
        ("Composites beside each other (effects in SD)", explanation.joint, True),
        ("Each feature by itself", explanation.alone, False),
    ):
        table = to_terminal(feature_effects_table(effects, detectable=detectable)) if effects else no_effects
        parts += section(title, table)
    parts += section("Shares of the variance between pairs", to_terminal(shares_table(explanation.dominance)))
    parts += section("Odd pairs: gain against what surface similarity predicts", *_odd(explanation.odd.odd))
    if explanation.asymmetry.pairs:
        pairs = to_terminal(asymmetries_table(explanation.asymmetry.pairs[:SHOWN_PAIRS]))
        parts += section("Largest asymmetries", pairs)
    parts += section("Donors", to_terminal(strengths_table(explanation.donors, "source")))
    parts += section("Recipients", to_terminal(strengths_table(explanation.recipients, "target")))
    return Group(*parts, *_warnings(explanation.warnings))


def _odd(cells: Sequence[OddCell]) -> list[RenderableType]:
    """Each odd pair in a line, with its reasons beneath."""
    if not cells:
        return [words("none")]
    parts: list[RenderableType] = []
    for cell in cells[:SHOWN_CELLS]:
        q = cell.q_noise if isfinite(cell.q_noise) else cell.q_scatter
        parts.append(
            words(
                f"{cell.source} -> {cell.target}: {signed(cell.gain)}, predicted {signed(cell.predicted)}; "
                f"departs by {estimate(cell.departure, 1, UNKNOWN)}, q {probability(q)}"
            )
        )
        reasons = [sentence(reason.words) for reason in cell.reasons[:3]] or ["No reason found."]
        parts += [indented(reason, 4) for reason in reasons]
    if len(cells) > SHOWN_CELLS:
        parts.append(words(f"and {len(cells) - SHOWN_CELLS} more (--json shows all)"))
    return parts


# Recommendation.


def recommendation_view(result: Recommendation) -> RenderableType:
    """Verdict, table of the ranked sources, reasons of each, what was set aside, and what to measure next.

    Beside them stand what popularity and a random draw would give, and what the prediction rests on.
    """
    parts: list[RenderableType] = [words(f"Sources for {result.target}", "bold"), words(result.words)]
    parts += [words(""), to_terminal(ranking_table(result))]
    for place, advice in enumerate(result.ranked, start=1):
        parts += section(f"{place}. {advice.source}", *(indented(text) for text in _reasons(advice)))
    if result.set_aside:
        parts += section("Not ranked")
    for aside in result.set_aside:
        measured = f"; measured {estimate(aside.measured)}" if aside.measured.known else ""
        mark = f"{MARK} " if aside.kind == "contaminated" else ""
        parts.append(indented(f"{mark}{aside.source}: {aside.words}{measured}"))
    if result.next_probes:
        probes = (indented(f"{probe.source}: {probe.words}") for probe in result.next_probes)
        parts += section("To know more, measure on a few items", *probes)
    parts += [words(""), words(_beside(result)), *(words(note, "dim") for note in result.notes)]
    conditions = result.conditions
    setting = f" ({conditions['setting']})" if conditions["setting"] else ""
    probed = " * measured in a probe." if any(advice.probed for advice in result.ranked) else ""
    basis = (
        f"In {result.unit}. Predicted by {conditions['model']}{setting}, chosen by holding out targets among "
        f"{conditions['other_targets']} others.{probed} Reasons: points against the average source."
    )
    return Group(*parts, words(basis, "dim"))


def _reasons(advice: Advice) -> list[str]:
    """Why a source stands where it does, what it does to other things, and what of it occurs in the data."""
    lines = [reason.words for reason in advice.reasons] or ["nothing speaks for or against it in particular"]
    for side in advice.side_effects:
        name = f"trait {side.name}" if side.kind == "trait" else side.name
        if side.effect.known:
            lines.append(f"on {name}: {estimate(side.effect)}, measured")
        else:
            lines.append(f"on {name}: unknown ({side.effect.reason})")
    if advice.touched:
        lines.append(f"{MARK} {advice.touched}, too few to move the gain by a point")
    return lines


def _beside(result: Recommendation) -> str:
    """What popularity and chance would give, and what was measured where the target is in the matrix."""
    text = (
        f"Beside it: popularity (mean effect on other targets) would pick {result.popular[0]}; a source "
        f"drawn at random is expected to give {signed(result.random)}."
    )
    if result.measured:
        gains = result.measured
        text += (
            f" Measured on {result.target}, unseen by the prediction: first {signed(gains['first'])}, first "
            f"of popularity {signed(gains['first_of_popularity'])}, at random {signed(gains['random'])}, "
            f"best {signed(gains['best'])}."
        )
    return text


EVALUATION_METRICS = {
    "ndcg": "NDCG",
    "ndcg@3": "NDCG@3",
    "regret@1": "Regret@1",
    "regret@3": "Regret@3",
    "mean_regret@5": "mean of 5",
    "spearman": "rank r",
    "coverage": "covered",
}


def evaluation_view(result: RecommenderEvaluation) -> RenderableType:
    """Every model with its metrics, and how far the one that would be used is from popularity.

    NDCG, regrets and coverage in per cent, rank correlation as it is; intervals are 95 % bootstrap intervals.
    """
    conditions, selected = result.conditions, result.chosen
    title = (
        f"{conditions['n_sources']} sources, {conditions['n_targets']} targets, "
        f"held out: {conditions['holdout']}"
    )
    models = Table(
        title,
        ("model", *EVALUATION_METRICS.values()),
        [
            (
                Entry(name, style="strong" if name == selected else ""),
                *(_metric(values[metric], metric) for metric in EVALUATION_METRICS),
            )
            for name, values in result.models.items()
        ],
    )
    rows: list[Row] = []
    for metric, heading in EVALUATION_METRICS.items():
        value, difference = result.models[selected][metric], result.differences[selected][metric]
        rows.append(
            (
                heading,
                _metric(value, metric),
                _range(value, metric),
                _metric(difference, metric),
                _range(difference, metric),
            )
        )
    against = Table(
        "What would be used", ("", selected, "95 % interval", "less popularity", "95 % interval"), rows
    )
    picks = [name for name, _ in result.picks.values()]
    frequencies = ", ".join(
        f"{name} {picks.count(name)} of {len(picks)}"
        for name in sorted(set(picks), key=lambda name: (-picks.count(name), name))
    )
    note = (
        f"{selected} is what inner folds picked in each outer fold: {frequencies}. NDCG, regrets and "
        "coverage (of 90 % intervals) in percent; intervals are bootstrapped over "
        f"{conditions['averaged_over']}. --json has every metric with its interval."
    )
    return Group(
        words(models.caption, "bold"),
        to_terminal(models),
        *section(against.caption, to_terminal(against)),
        words(note, "dim"),
    )


def _metric(value: Interval, metric: str) -> Entry:
    if not value.known:
        return Entry("-", value=value.value)
    return Entry(f"{value.value:.{2 if metric == 'spearman' else 1}f}", value=value.value)


def _range(value: Interval, metric: str) -> str:
    if not (isfinite(value.low) and isfinite(value.high)):
        return "-"
    digits = 2 if metric == "spearman" else 1
    return f"{value.low:.{digits}f} to {value.high:.{digits}f}"
