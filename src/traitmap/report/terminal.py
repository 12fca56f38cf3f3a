"""The results of a run in the terminal: matrix, traits, profiles, explanation, recommendation, evaluation.

A view is what a command prints: the verdict in words, the tables that it rests on (those of
``analysis.tables`` and ``matrix.reading``, which the page and a notebook show too), and every warning. Views
are Rich renderables; whoever prints them decides where. They fit the console's width and carry no colour
where they are piped or NO_COLOR is set (Rich sees to that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

import numpy as np
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
from traitmap.report.first_screen import (
    evaluation_lines,
    explanation_lines,
    is_clean,
    lines_view,
    recommendation_lines,
    traits_lines,
    verdict_table,
)
from traitmap.report.terminal_runs import indented, section
from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import (
    UNKNOWN,
    counted,
    estimate,
    interval,
    plain,
    probability,
    sentence,
    share,
    signed,
)

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer
    from traitmap.analysis.explanation.records import Explanation, OddCell
    from traitmap.analysis.profiles.cell_classes import CellClasses
    from traitmap.analysis.profiles.cell_lengths import CellLengths
    from traitmap.analysis.profiles.cells import CellProfiles
    from traitmap.analysis.profiles.parser import Relations
    from traitmap.analysis.profiles.record import DatasetRow, Profile
    from traitmap.analysis.profiles.relations import RelationEffects
    from traitmap.analysis.recommendation.protocol import RecommenderEvaluation
    from traitmap.analysis.recommendation.records import Advice, Recommendation
    from traitmap.analysis.traits.records import Traits, TraitWarning
    from traitmap.analysis.verdicts import Verdicts
    from traitmap.exports.atlas import AtlasReport
    from traitmap.matrix.statistics import Interval

    CellRecord = TypeVar("CellRecord", CellClasses, CellLengths)


SHOWN_CELLS = 8
SHOWN_PAIRS = 8


def matrix_view(
    matrix: TransferMatrix, answer: Answer | None = None, *, intervals: bool = False
) -> RenderableType:
    """Base row of absolute values, gains in points beneath it; in blocks that fit.

    answer: of the same matrix, whose lines stand above it, and whose verdicts behind the gains in place of
    ``*`` at q < .05. Metrics that are not shares stand in their own unit; what is not known says why.
    intervals: of 95 % behind every gain.
    """
    reading = read(matrix)
    if answer is None:
        return to_terminal(matrix_table(reading, intervals=intervals))
    lines = [(heading, text) for heading, text in answer.lines if heading != "WHY"]
    table = to_terminal(verdict_table(reading, answer.verdicts, intervals=intervals))
    return Group(words(answer.title, "bold"), lines_view(lines), words(""), table)


def _warnings(warnings: Iterable[TraitWarning]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for warning in warnings:
        parts += [words(""), words(f"! {sentence(warning.message)}", "yellow")]
        if warning.action:
            parts.append(indented(sentence(warning.action), 2))
    return parts


def traits_view(traits: Traits) -> RenderableType:
    """Five lines at most, then loadings, effects of the adapters, and every warning."""
    used = traits.n_components.get("used") or 0
    tables = [components_table(traits), loadings_table(traits, range(shown_components(traits)))]
    tables += [effects_table(traits, used)] if used else []
    parts: list[RenderableType] = [lines_view(traits_lines(traits))]
    for table in tables:
        parts += [words(""), to_terminal(table)]
    return Group(*parts, *_warnings(traits.warnings))


# Explanation.


def explanation_view(explanation: Explanation, verdicts: Verdicts | None = None) -> RenderableType:
    """Five lines at most, then verdicts, effects, shares, odd pairs, strengths.

    verdicts: on the cells; pairs that are something else than skill then stand behind the others, with what
    they are. The other numbers are in the record and its JSON.
    """
    told: list[RenderableType] = [Padding(words(f"- {text}"), 0) for text in explanation.words]
    if not explanation.pairs:
        return Group(*told)
    parts: list[RenderableType] = [lines_view(explanation_lines(explanation, verdicts)), words(""), *told]
    no_effects = words("no feature of pairs is left after source and target effects")
    for title, effects, detectable in (
        ("Composites beside each other (effects in SD)", explanation.joint, True),
        ("Each feature by itself", explanation.alone, False),
    ):
        table = to_terminal(feature_effects_table(effects, detectable=detectable)) if effects else no_effects
        parts += section(title, table)
    parts += section("Shares of the variance between pairs", to_terminal(shares_table(explanation.dominance)))
    odd = sorted(explanation.odd.odd, key=lambda cell: not is_clean(verdicts, (cell.source, cell.target)))
    title = f"Odd pairs: {explanation.quantity} against what surface similarity predicts"
    parts += section(title, *_odd(odd, verdicts))
    if clear := [
        pair
        for pair in explanation.asymmetry.pairs
        if is_clean(verdicts, (pair.first, pair.second), (pair.second, pair.first))
    ]:
        left = len(explanation.asymmetry.pairs) - len(clear)
        title = "Largest asymmetries" + (f" ({left} more are something else than skill)" if left else "")
        parts += section(title, to_terminal(asymmetries_table(clear[:SHOWN_PAIRS], explanation.unit)))
    for title, strengths, noun in (
        ("Donors", explanation.donors, "source"),
        ("Recipients", explanation.recipients, "target"),
    ):
        if any(strength.effect.known for strength in strengths):
            parts += section(title, to_terminal(strengths_table(strengths, noun, explanation.unit)))
    return Group(*parts, *_warnings(explanation.warnings))


def _odd(cells: Sequence[OddCell], verdicts: Verdicts | None) -> list[RenderableType]:
    """Each odd pair in a line, with its reasons beneath; what is something else than skill is called so."""
    if not cells:
        return [words("none")]
    parts: list[RenderableType] = []
    for cell in cells[:SHOWN_CELLS]:
        q = cell.q_noise if isfinite(cell.q_noise) else cell.q_scatter
        parts.append(
            words(
                f"{cell.source} -> {cell.target}: {signed(cell.gain)}, predicted {signed(cell.predicted)}; "
                f"departs by {estimate(cell.departure, 1, UNKNOWN)}, q {probability(q)}"
                f"{_label(cell, verdicts)}"
            )
        )
        reasons = [sentence(reason.words) for reason in cell.reasons[:3]] or ["No reason found."]
        parts += [indented(reason, 4) for reason in reasons]
    if len(cells) > SHOWN_CELLS:
        parts.append(words(f"and {len(cells) - SHOWN_CELLS} more (--json shows all)"))
    return parts


def _label(cell: OddCell, verdicts: Verdicts | None) -> str:
    place = (cell.source, cell.target)
    return "" if verdicts is None or is_clean(verdicts, place) else f"; {verdicts.of(*place).label}"


# Recommendation.


def recommendation_view(result: Recommendation, answer: Answer | None = None) -> RenderableType:
    """Five lines at most, ranked sources, reasons of each, what was set aside, and what to measure next.

    answer: for the same target, where it was measured. Beside the ranking stand what popularity and a random
    draw would give, and what the prediction rests on.
    """
    parts: list[RenderableType] = [words(f"Sources for {result.target}", "bold")]
    parts += [lines_view(recommendation_lines(result, answer)), words("")]
    parts += [words(result.words), words("")] if result.headline != result.words else []
    parts += [to_terminal(ranking_table(result))]
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


def atlas_view(report: AtlasReport) -> RenderableType:
    """The matrices of an atlas, and whatever stands against files of it."""
    rows = [
        (
            entry.name,
            str(len(entry.matrix.sources)),
            str(len(entry.matrix.targets)),
            str(entry.conditions.get("base_model") or UNKNOWN),
            str(len(entry.profile)),
            entry.digest[:8],
        )
        for entry in report.entries
    ]
    columns = ("matrix", "sources", "targets", "base model", "tasks with texts", "digest")
    table = Table(f"{counted(len(rows), 'matrix', 'matrices')} to be used as a prior", columns, rows)
    return Group(
        words(table.caption, "bold"),
        to_terminal(table),
        *(words(f"! {fault}", "yellow") for fault in report.faults),
    )


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
        lines_view(evaluation_lines(result)),
        words(""),
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


SIGNIFICANT = 0.05
SHOWN_FINDINGS = 12  # relation findings that are printed; --json has all
_NAME_MOST = 20  # characters of a neighbour's name within a table


def profile_view(profile: Profile) -> RenderableType:
    """Everything in a profile that fits a terminal; parts that were not computed are left out.

    Datasets, syntactic relations, what the answers of the run show, and how gains depend on relations.
    """
    content = profile.comparison.content_word
    parts: list[RenderableType] = [_datasets(profile.rows(), profile.all_notes(), content)]
    if profile.relations:
        parts.append(to_terminal(_relations_table(profile.relations)))
    if profile.cells is not None and profile.matrix is not None:
        parts += cells_views(profile.cells, profile.matrix)
    if profile.effects is not None:
        parts.append(_relation_effects(profile.effects))
    return Group(*(Group(words(""), part) if number else part for number, part in enumerate(parts)))


def _datasets(rows: Sequence[DatasetRow], warnings: Sequence[str], content: str) -> RenderableType:
    """Size, lengths, classes, form, difficulty and neighbours of datasets; content: wording, or meaning."""
    unit = rows[0].unit if rows else "words"
    columns: dict[str, Callable[[DatasetRow], str]] = {
        "texts": lambda row: plain(row.size, 0),
        f"input {unit}": lambda row: plain(row.input, 0),
        f"output {unit}": lambda row: plain(row.output, 0),
        "output 5-95 %": lambda row: (
            f"{plain(row.output_low, 0)}-{plain(row.output_high, 0)}" if isfinite(row.output) else UNKNOWN
        ),
        "classes": lambda row: plain(row.classes, 0),
        "entropy bits": lambda row: plain(row.entropy, 2),
        "majority": lambda row: share(row.majority),
        "answers": lambda row: f"{row.answer} {share(row.answer_share)}",
        "marks in half": lambda row: (
            ", ".join(mark.replace("_", " ") for mark in row.marks[:2])
            + ("..." if len(row.marks) > 2 else "")
        ),
        "different words": lambda row: str(row.vocabulary),
        "type-token": lambda row: plain(row.richness, 2),
    }
    notes = ["lengths: medians; answers: the commonest form; marks: what half of the outputs bear"]
    if any(isfinite(row.perplexity) for row in rows):
        columns["perplexity"] = lambda row: plain(row.perplexity)
    if any(row.style for row in rows):
        columns["nearest in style"] = lambda row: _neighbour(row.style, row.style_cosine)
    if any(row.meaning for row in rows):
        columns[f"nearest in {content}"] = lambda row: _neighbour(row.meaning, row.meaning_cosine)
    if any(row.style or row.meaning for row in rows):
        notes.append("nearest: with its cosine (of style, without an encoder, about the mean of all)")
    if any(row.role == "target" for row in rows):
        notes.append("italic: targets, and nearest is among other tasks")
    if "perplexity" in columns:
        notes.append("perplexity: of the base, per token of input and output")
    table = Table(
        "Profiles of the datasets.",
        ("dataset", *columns),
        [
            (
                Entry(row.dataset, style="italic" if row.role == "target" else ""),
                *(text(row) or UNKNOWN for text in columns.values()),
            )
            for row in rows
        ],
        ("; ".join(notes) + ".",),
    )
    return Group(to_terminal(table), *(words(f"! {sentence(warning)}", "yellow") for warning in warnings))


def _neighbour(name: str, cosine: float) -> str:
    return f"{_short(name)} {signed(cosine, 2)}" if name else ""


def _short(name: str) -> str:
    return name if len(name) <= _NAME_MOST else f"{name[: _NAME_MOST - 1]}…"


def _relations_table(relations: Mapping[str, Relations], most: int = 12) -> Table:
    """Share of texts with the commonest relations (but for those of all texts), and with derived ones."""
    totals: dict[str, int] = {}
    for parsed in relations.values():
        for label, count in zip(parsed.labels, parsed.present.sum(axis=0), strict=True):
            totals[label] = totals.get(label, 0) + int(count)
    labels = sorted(totals, key=lambda label: (-totals[label], label))
    shares = np.array([parsed.shares(labels) for parsed in relations.values()])
    common = [label for label, column in zip(labels, shares.T, strict=True) if not np.all(column > 0.98)]
    first = next(iter(relations.values()))
    derived = (label for label in first.derived if label in totals and label not in common[:most])
    columns = [*common[:most], *derived]
    parsed_texts = sorted({f"{len(parsed.texts)} of {parsed.available}" for parsed in relations.values()})
    note = f"share of parsed texts with each relation ({first.scheme}, {first.parser}); parsed: "
    return Table(
        "Share of parsed texts with each relation.",
        ("relations in", *columns),
        [
            (name, *(Entry(share(float(value)), value=float(value)) for value in parsed.shares(columns)))
            for name, parsed in relations.items()
        ],
        (f"{note}{', '.join(parsed_texts[:3])}.",),
    )


def _relation_effects(effects: RelationEffects) -> RenderableType:
    """What was found of relations on gains, and what could not be."""
    tested, total = effects.tested, len(effects.effects)
    result = f"{len(effects.findings)} found in {counted(len(tested), 'test')}"
    title = f"Gains that depend on syntactic relations: {result if tested else 'nothing could be tested'}"
    rows: list[Row] = []
    for effect in effects.findings[:SHOWN_FINDINGS]:
        ratio, gap = effect.odds_ratio, effect.difference
        size = f"{signed(gap.value, 2)} {interval(gap.low, gap.high, 2)}"
        if ratio.known:
            size = f"x {ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}]"
        names = (effect.source, _short(effect.target), _short(effect.relation))
        rows.append((*names, str(effect.n_with), size, probability(effect.q)))
    columns = ("source", "target", "relation", "items", "won : lost, or difference", "q")
    notes = [
        f"{total - len(tested)} of {counted(total, 'relation in a cell', 'relations in cells')} not tested: "
        "too few items have it, or too few of them changed"
    ]
    if suspects := [effect for effect in tested if effect.q < SIGNIFICANT and not effect.significant]:
        notes.append(f"{len(suspects)} more differ, but not among items of one length and class")
    if ratios := sorted(effect.detectable for effect in tested if effect.odds_ratio.known):
        middle = ratios[len(ratios) // 2]
        notes.append(f"half of the tests on right or wrong could see no odds ratio below {middle:.1f}")
    table = [to_terminal(Table(title, columns, rows))] if rows else []
    return Group(words(title, "bold"), *table, words("; ".join(notes) + ".", "dim"))


# What the answers of a run show beyond their scores: tables of sources by targets.


def cells_views(cells: CellProfiles, matrix: TransferMatrix) -> tuple[RenderableType, ...]:
    """Collapse, balanced accuracy, lengths, parsing and stopping: a view each, sources by targets.

    A view is left out where no target has its number; a last one holds the trends in words.
    """
    classes = {(cell.source, cell.target): cell for cell in cells.classes if cell.seed is None}
    lengths = {(cell.source, cell.target): cell for cell in cells.lengths if cell.seed is None}
    starred = "* interval leaves out 0."
    changed = "* interval of the change leaves out 0."
    tables = (
        _square(
            matrix,
            "Share of the commonest answer, %",
            "* collapsed: beyond noise, nine in ten answers and more are one and the same.",
            classes,
            _commonest,
        ),
        _square(
            matrix,
            "Balanced accuracy over the base, points",
            starred,
            classes,
            lambda cell: _change(cell.gains["balanced_accuracy"]),
        ),
        _square(
            matrix,
            "Length of outputs on the way from the base's (0) to the source's (1)",
            f"{starred} A dash: base and source cannot be told apart, or one is not known.",
            lengths,
            _interpolation,
        ),
        _square(
            matrix,
            "Answers that cannot be parsed, % (the base's)",
            f"{changed} They count as wrong.",
            lengths,
            lambda cell: _fault(cell.unparsed, cell.base_unparsed, cell.unparsed_change.difference),
        ),
        _square(
            matrix,
            "Outputs that never stop, % (the base's)",
            f"{changed} They are cut where the task cuts them.",
            lengths,
            lambda cell: _fault(cell.endless, cell.base_endless, cell.endless_change.difference),
        ),
    )
    views: list[RenderableType] = [
        Group(words(table.caption, "bold"), to_terminal(table)) for table in tables if table is not None
    ]
    if cells.trends:
        views.append(Group(*(words(trend.words) for trend in cells.trends)))
    return tuple(views)


def _square(
    matrix: TransferMatrix,
    title: str,
    note: str,
    records: Mapping[tuple[str, str], CellRecord],
    entry: Callable[[CellRecord], Entry | None],
) -> Table | None:
    """Sources by those targets that have the number in any cell; None where none has."""
    entries: dict[tuple[str, str], Entry] = {}
    for cell, record in records.items():
        if (shown := entry(record)) is not None:
            entries[cell] = shown
    targets: list[str] = [
        t for t in matrix.targets if any((source, t) in entries for source in matrix.sources)
    ]
    if not targets:
        return None
    rows: list[Row] = []
    for source in matrix.sources:
        row: list[Entry | str] = [entries.get((source, target), UNKNOWN) for target in targets]
        rows.append([source, *row])
    return Table(title, ("source", *targets), rows, (note,))


def _commonest(cell: CellClasses) -> Entry:
    answers = cell.adapter
    return Entry(
        plain(100 * answers.commonest_share.value, 0),
        mark="*" if answers.collapsed else " ",
        style="worse" if answers.collapsed else "",
    )


def _interpolation(cell: CellLengths) -> Entry | None:
    way = cell.best.interpolation
    if cell.written == "chosen" or not way.known:
        return None
    return Entry(signed(way.value, 2), mark="*" if _excludes_zero(way) else " ")


def _fault(adapter: Interval, base: Interval, change: Interval) -> Entry | None:
    """A share that should be small, the base's in brackets; nothing where neither has any."""
    if not adapter.known or (adapter.value == 0 and not base.value > 0):
        return None
    style = ""
    if change.known and _excludes_zero(change):
        style = "worse" if change.value > 0 else "better"
    text = f"{plain(100 * adapter.value, 0)} ({plain(100 * base.value, 0)})"
    return Entry(text, mark="*" if style else " ", style=style)


def _change(difference: Interval) -> Entry | None:
    """A difference in points, starred where it is beyond noise."""
    if not difference.known:
        return None
    style = ""
    if _excludes_zero(difference):
        style = "better" if difference.value > 0 else "worse"
    return Entry(signed(100 * difference.value), mark="*" if style else " ", style=style)


def _excludes_zero(value: Interval) -> bool:
    return value.low > 0 or value.high < 0
