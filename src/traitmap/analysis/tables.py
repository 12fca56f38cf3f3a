"""The records of the analysis as tables: each described once, for terminal, page, notebook and CSV.

A column that only one of them has room for says so. Beneath the tables of each record stands what a notebook
shows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from traitmap.analysis.answer_words import number_of
from traitmap.analysis.verdicts import GLYPHS
from traitmap.table import Column, Entry, Medium, Row, Table, to_notebook
from traitmap.wording import (
    UNKNOWN,
    clean,
    estimate,
    interval,
    plain,
    probability,
    sentence,
    share,
    signed,
    with_interval,
)

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer, Pick
    from traitmap.analysis.explanation.records import (
        AsymmetricPair,
        Dominance,
        Explanation,
        FeatureEffect,
        Strength,
    )
    from traitmap.analysis.recommendation.records import Recommendation
    from traitmap.analysis.traits.records import Resampling, Traits
    from traitmap.matrix.statistics import Interval

UNTESTED = {"unknown": "untested"}  # kinds of verdicts that have another name beside a score
SHOWN_COMPONENTS = (2, 6)  # the least, to see what noise is like, and the most
SCREE_MOST = 12


# Traits.


def shown_components(traits: Traits) -> int:
    """How many components to show: the supported ones, and at least two, to see what noise is like."""
    least, most = SHOWN_COMPONENTS
    used = traits.n_components.get("used") or 0
    return min(max(used, least), most, traits.loadings.shape[1])


def component_name(traits: Traits, c: int) -> str:
    """``PC0: reviews``, or ``PC0`` where nothing names it; counted from 0, as the warnings do."""
    named = c >= len(traits.naming) or traits.naming[c].origin != "none"
    name = clean(traits.names[c]) if named and c < len(traits.names) else ""
    return f"PC{c}: {name}" if name else f"PC{c}"


def components_table(traits: Traits) -> Table:
    """Explained variance of the leading components beside what noise explains, and which are supported.

    One row for each supported component, and at least four; shares in per cent of the variance of the table.
    """
    used = traits.n_components.get("used") or 0
    rows: list[Row] = []
    for c in range(min(len(traits.explained_variance_ratio), max(used, 4))):
        low, high = float(traits.null_p05[c]), float(traits.null_p95[c])
        noise = f"{share(low)} to {share(high)}" if isfinite(low) and isfinite(high) else UNKNOWN
        name = component_name(traits, c) if c < used else f"PC{c}"
        ratio = float(traits.explained_variance_ratio[c])
        rows.append((name, Entry(share(ratio), value=ratio), noise, "yes" if c < used else "no"))
    return Table(
        "Share of variance, and what noise of the same shape explains.",
        ("component", "explained", "noise 5-95 %", "supported"),
        rows,
    )


def scree_table(traits: Traits) -> Table:
    """Explained variance in per cent and its noise band, for the page.

    The first components only, as many as the scree chart has; noise is that of parallel analysis.
    """
    columns = (traits.explained_variance_ratio, traits.null_mean, traits.null_p05, traits.null_p95)
    return Table(
        "Share of variance in per cent: this matrix, and noise of the same shape (mean, 5th and 95th "
        "percentile).",
        ("component", "explained", "noise mean", "noise 5 %", "noise 95 %"),
        [
            (f"PC{c}", *(plain(100 * float(column[c])) for column in columns))
            for c in range(min(SCREE_MOST, len(traits.explained_variance_ratio)))
        ],
    )


def loadings_table(traits: Traits, components: Sequence[int]) -> Table:
    """Loadings of the targets on some components, with 95 % intervals.

    components: counted from 0. Shaded from -1 to 1; strong where the interval excludes zero.
    """
    columns = [Column("loading", component_name(traits, c)) for c in components]
    rows: list[Row] = []
    for t, target in enumerate(traits.targets):
        entries = []
        for c in components:
            loading = float(traits.loadings[t, c])
            low, high = float(traits.loadings_low[t, c]), float(traits.loadings_high[t, c])
            strong = "strong" if low > 0 or high < 0 else ""
            text = with_interval(loading, low, high, 2)
            entries.append(Entry(text, shade=loading, style=strong, value=loading))
        rows.append((target, *entries))
    return Table("Loadings with 95 % intervals.", (Column("target", "loading of target"), *columns), rows)


def effects_table(traits: Traits, count: int) -> Table:
    """Effects of the adapters on the first ``count`` components, in points with 95 % intervals.

    Positive where the adapter raises the targets that load positively on the component.
    """
    rows: list[Row] = []
    for s, source in enumerate(traits.sources):
        entries = []
        for c in range(count):
            effect, low, high = (
                float(part[s, c]) for part in (traits.effects, traits.effects_low, traits.effects_high)
            )
            entries.append(Entry(with_interval(effect, low, high, unknown=UNKNOWN), value=effect))
        rows.append((source, *entries))
    names = (component_name(traits, c) for c in range(count))
    caption = "Effects on the components in points, with 95 % intervals."
    return Table(caption, (Column("source", "effect in points"), *names), rows)


def resampled_in_words(resampling: Resampling) -> str:
    """What was drawn again. Adapters are called sources: the rows of a table need not be adapters."""
    return clean(resampling.kind).replace("adapters", "sources").replace("_", " ")


def stability_table(traits: Traits) -> Table | None:
    """Congruence of each component with itself under each resampling, from 0 to 1.

    None where the data were not resampled. One row for each component that was examined.
    """
    resamplings = traits.stability.resamplings.values()
    if not resamplings:
        return None
    rows: list[Row] = []
    for c in range(traits.stability.examined):
        entries = []
        for resampling in resamplings:
            mean, low = float(resampling.congruence_mean[c]), float(resampling.congruence_p05[c])
            noise = f"noise {plain(float(resampling.noise_p95[c]), 2)}"
            entries.append(Entry(f"{plain(mean, 2)} ({plain(low, 2)})", noise, value=mean))
        rows.append((component_name(traits, c), *entries))
    return Table(
        "Tucker's congruence with the component of the whole table when the data are resampled: mean, "
        "5th percentile, and beneath it what tables without structure reach (95th percentile). Stable "
        "means well above that, and near 1.",
        ("component", *(f"{resampled_in_words(r)} ({r.draws:,})" for r in resamplings)),
        rows,
    )


def traits_html(traits: Traits) -> str:
    """For a notebook: explained variance beside noise, loadings of what is shown, and every warning."""
    used = traits.n_components.get("used") or 0
    title = (
        f"{used or 'No'} {'trait is' if used == 1 else 'traits are'} supported by "
        f"{len(traits.sources)} sources × {len(traits.targets)} targets"
    )
    warnings = [
        f"! {'; '.join(part for part in (warning.message, warning.action) if part)}."
        for warning in traits.warnings
    ]
    loadings = loadings_table(traits, range(shown_components(traits)))
    return to_notebook(title, components_table(traits), loadings, notes=warnings)


# Explanation.


def feature_effects_table(effects: Sequence[FeatureEffect], *, detectable: bool = True) -> Table:
    """Effects of properties of pairs on gains, in standard deviations, with 95 % intervals, p and q.

    detectable: with the smallest effect that would have been seen; else the page alone has it.
    """
    columns = (
        Column("property", media=("page",)),
        Column("", media=("terminal", "notebook")),
        Column("group", media=("page", "notebook")),
        Column("what it says", media=("page",)),
        Column("effect in SD", "effect"),
        Column("p", media=("page",)),
        Column("q"),
        Column("minimal detectable effect", "detectable", media=() if detectable else ("page",)),
        Column("R²", media=("page",)),
        Column("Mantel p", "Mantel"),
        Column("naive p", "naive"),
        Column("verdict"),
    )
    rows = [
        (
            effect.name.replace("_", " "),
            effect.name,
            effect.group,
            effect.words,
            _estimate(effect.effect, 2),
            _p(effect.p),
            _p(effect.q),
            plain(effect.detectable, 2),
            plain(effect.collinearity, 2),
            _p(effect.mantel.p),
            _p(effect.mantel.naive_p),
            Entry(effect.verdict_words, style="strong" if effect.stands else ""),
        )
        for effect in effects
    ]
    return Table(
        "Effects with 95 % intervals; p and q by permuting tasks. R²: of the property on the others. "
        "Mantel: no effects of sources and targets taken out; naive: every pair taken for a new observation.",
        columns,
        rows,
    )


def shares_table(dominance: Dominance) -> Table:
    """Shares of the variance between pairs by general dominance, beside what chance gives.

    One row for each group of properties, and a last one for what none of them explains.
    """
    columns = (
        Column("group", ""),
        Column("properties", media=("page",)),
        Column("share"),
        Column("chance"),
        Column("chance 95 %"),
        Column("beyond chance", media=("page",)),
        Column("beyond chance", media=("terminal", "notebook")),
        Column("p"),
        Column("verdict"),
    )
    rows: list[Row] = [
        (
            group.group,
            ", ".join(group.features),
            *(Entry(share(value), value=value) for value in (group.share, group.null_mean, group.null_p95)),
            points_of_variance(group.beyond),
            _beyond(group.beyond),
            _p(group.p),
            group.verdict_words,
        )
        for group in dominance.groups
    ]
    unexplained, beyond = dominance.unexplained, dominance.unexplained_beyond
    rows.append(
        (
            "unexplained",
            "",
            Entry(share(unexplained), value=unexplained),
            "",
            "",
            points_of_variance(beyond),
            _beyond(beyond),
            "",
            "",
        )
    )
    return Table(
        "Shares by general dominance, with what chance gives (tasks permuted): mean and 95th percentile.",
        columns,
        rows,
    )


def points_of_variance(beyond: Interval) -> str:
    """``+6 % [-15, +28]``: a difference of shares with its interval."""
    if not beyond.known:
        return "unknown"
    return f"{signed(100 * beyond.value, 0)} % {interval(100 * beyond.low, 100 * beyond.high, 0)}"


def _beyond(beyond: Interval) -> str:
    if not beyond.known:
        return UNKNOWN
    return f"{100 * beyond.value:.0f} % [{100 * beyond.low:.0f}, {100 * beyond.high:.0f}]"


def asymmetries_table(pairs: Sequence[AsymmetricPair], unit: str = "points", digits: int = 1) -> Table:
    """Both directions of pairs of tasks, their difference with its 95 % interval, and q of none.

    unit: of the gains, in words. digits: their decimals.
    """
    return Table(
        f"Gains in {unit}, their difference with its 95 % interval, p and q of none.",
        ("pair", Column("there", "gain"), "back", "difference", Column("p", media=("page",)), "q"),
        [
            (
                f"{pair.first} -> {pair.second}",
                Entry(signed(pair.forward, digits), value=pair.forward),
                Entry(signed(pair.backward, digits), value=pair.backward),
                _estimate(pair.difference, digits),
                _p(pair.p),
                _p(pair.q),
            )
            for pair in pairs
        ],
    )


def by_strength(strengths: Sequence[Strength]) -> list[Strength]:
    """Strongest first, unknown last."""
    return sorted(
        strengths,
        key=lambda strength: (
            not strength.effect.known,
            -strength.effect.value if strength.effect.known else 0,
        ),
    )


def strengths_table(strengths: Sequence[Strength], noun: str, unit: str = "points") -> Table:
    """Strengths of sources or targets with the band of chance, strongest first, unknown last.

    noun: ``source`` or ``target``, the head of the names. unit: of the strengths, in words.
    """
    return Table(
        f"Strength in {unit} with 95 % interval; the 95 % band of chance; p and q of none.",
        (
            noun,
            "strength",
            Column("chance 95 %", media=("page",)),
            Column("chance 95 %", media=("terminal", "notebook")),
            Column("p", media=("page",)),
            "q",
        ),
        [
            (
                strength.name,
                _estimate(strength.effect, 1),
                interval(strength.null_low, strength.null_high),
                f"{signed(strength.null_low)} to {signed(strength.null_high)}",
                _p(strength.p),
                _p(strength.q),
            )
            for strength in by_strength(strengths)
        ],
    )


def _estimate(result: Interval, digits: int) -> Entry:
    return Entry(estimate(result, digits), value=result.value)


def _p(value: float) -> Entry:
    return Entry(probability(value), value=value)


def explanation_html(explanation: Explanation) -> str:
    """For a notebook: every verdict in words, and the effects of the composites beside each other."""
    sources, targets = len(explanation.sources), len(explanation.targets)
    title = f"Why: {explanation.pairs} pairs of {sources} sources and {targets} targets"
    effects = [feature_effects_table(explanation.joint)] if explanation.joint else []
    warnings = [f"! {warning.message}" for warning in explanation.warnings]
    return to_notebook(title, *explanation.words, *effects, notes=warnings)


# Recommendation.


def ranking_table(result: Recommendation, *, reasons: int = 6) -> Table:
    """Sources in order: predicted gain with its 90 % interval, popularity, risks, and what was measured.

    reasons: so many of the first sources have their two strongest reasons on the page.
    """
    measured = any(advice.measured.known for advice in result.ranked)
    known = (abs(advice.gain.value) for advice in result.ranked if advice.gain.known)
    deepest = result.conditions.get("largest") or max([*known, 1e-9])
    short: tuple[Medium, ...] = ("terminal", "notebook")
    columns = [
        Column("source", media=("page",)),
        Column("source", media=short),
        Column("predicted", media=("page",)),
        Column("gain" if result.conditions.get("based", True) else "score", media=short),
        Column("90 %", media=short),
        Column("by popularity"),
        Column("harm"),
        Column("is best"),
        *([Column("measured", media=short)] if measured else []),
        Column("measured", media=("page",)),
        Column("why", media=("page",)),
    ]
    number = signed if result.conditions.get("based", True) else plain
    rows: list[Row] = []
    for place, advice in enumerate(result.ranked, start=1):
        why = [reason.words for reason in advice.reasons]
        gain = Entry(
            number(advice.gain.value),
            mark="*" if advice.probed else "",
            shade=advice.gain.value / deepest,
            title="; ".join(why),
        )
        rows.append(
            [
                advice.source,
                f"{place}. {advice.source}",
                _estimate(advice.gain, 1),
                gain,
                interval(advice.gain.low, advice.gain.high),
                Entry(number(advice.popularity), value=advice.popularity),
                Entry(share(advice.harm), value=advice.harm),
                Entry(share(advice.best), value=advice.best),
                *([number(advice.measured.value)] if measured else []),
                _estimate(advice.measured, 1),
                "; ".join(why[:2]) if place <= reasons else "",
            ]
        )
    return Table(
        f"In {result.unit}: predicted with 90 % interval while the target was hidden, what popularity "
        "predicts, probability of harm and of being the best, and what was measured (95 %).",
        columns,
        rows,
    )


def recommendation_html(result: Recommendation) -> str:
    """For a notebook: the verdict, the sources in order, and what was set aside and why."""
    aside = [f"Not ranked: {source.source}, {source.words}" for source in result.set_aside]
    title = f"Sources for {result.target} ({result.unit}): {result.verdict_words}"
    return to_notebook(title, result.words, ranking_table(result), notes=[*aside, *result.notes])


# Answer.


def targets_table(answer: Answer) -> Table:
    """A row for each target: the base, the best clean source with its gain, the runner-up, the own data.

    Where no base is known: the best two scores. What is not in points stands in its own unit.
    """
    rows = [row for row in answer.by_target if answer.target in ("", row.target)]
    has_base = answer.has_base
    kinds = {row.best.kind for row in rows if row.best is not None}
    best = "best clean source" if has_base else "best score"
    if has_base and kinds & {"unchecked gain", "unknown"}:
        best = "best source, untested" if "unknown" in kinds else "best source, unchecked"
    columns: list[Column | str] = [
        "target",
        *(["base"] if has_base else []),
        Column(best),
        "gain" if has_base else "score",
        Column("runner-up", media=("terminal", "notebook")),
        Column("runner-up", media=("page",)),  # its gain beneath it, so that names and numbers stay apart
        "own data",
    ]
    table_rows: list[Row] = []
    for row in rows:
        name = Entry(clean(row.target) + (" (lower is better)" if row.better < 0 else ""))
        base = [Entry(plain(row.base, row.digits), value=row.base)] if has_base else []
        own = Entry(number_of(row.own, row), value=row.own.gain.value if row.own else None)
        if row.best is None:
            otherwise = row.reason.partition("no clean gain: ")[2]
            none = Entry(f"none ({otherwise})" if otherwise else "none", "" if otherwise else row.reason)
            table_rows.append([name, *base, replace(none, style="faint"), *(UNKNOWN,) * 3, own])
            continue
        runner = row.runner_up
        second = Entry(clean(runner.source), number_of(runner, row)) if runner else Entry(UNKNOWN)
        mark = f" {GLYPHS[row.best.kind]}" if has_base and row.best.kind != "unknown" else ""
        low, high = row.best.gain.low, row.best.gain.high
        ends = interval(low, high, row.digits) if isfinite(low) and isfinite(high) else ""
        table_rows.append(
            [
                name,
                *base,
                Entry(
                    clean(row.best.source),
                    UNTESTED.get(row.best.kind, row.best.kind) if len(kinds) > 1 else "",
                ),
                Entry(number_of(row.best, row), ends, mark=mark, value=row.best.gain.value),
                f"{second.text} {second.small}".rstrip(),
                second,
                own,
            ]
        )
    if not any(row.own for row in rows):
        columns, table_rows = columns[:-1], [list(row)[:-1] for row in table_rows]
    units = sorted({row.unit for row in rows} - {"points"})
    note = "gains in points" if has_base else "scores"
    note += f" ({clean(', '.join(units))}: in their own unit)" if units else ""
    caption = "For each target the source to take." if has_base else "For each target the best two scores."
    return Table(caption, columns, table_rows, (f"{note}.",))


def sources_table(answer: Answer) -> Table:
    """A row for each source, the ones that help most and hurt least first: what it does to the other targets.

    Counts are of targets other than its own. Where no gain has an interval, and where no base is known, the
    mean rank among the sources and the targets on which it is first, which is no test.
    """
    digits = {row.target: row.digits for row in answer.by_target}

    def strongest(picks: Sequence[Pick]) -> Entry:
        if not picks:
            return Entry(UNKNOWN)
        first = picks[0]
        return Entry(clean(first.target), signed(first.gain.value, digits[first.target]))

    caption = "What each source does to the targets that are not its own."
    if not any(source.tested for source in answer.by_source):
        heads = (
            "source",
            "mean rank",
            "targets it is first on",
            *(("mean gain",) if answer.has_base else ()),
        )
        known = [source for source in answer.by_source if isfinite(source.rank)]
        rows: list[Row] = [
            (
                clean(source.source),
                Entry(plain(source.rank), value=source.rank),
                Entry(str(source.firsts), value=source.firsts),
                *((Entry(signed(source.mean, 2), value=source.mean),) if answer.has_base else ()),
            )
            for source in sorted(known, key=lambda source: source.rank)
        ]
        note = " Untested; a mean gain is over targets, each in units of its own largest."
        return Table(caption + (note if answer.has_base else " Untested."), heads, rows)
    rows = [
        (
            clean(source.source),
            *(
                Entry(str(len(picks)), value=len(picks))
                for picks in (source.helps, source.hurts, source.unclean)
            ),
            Entry(str(source.tested), value=source.tested),
            strongest(source.helps),
            strongest(source.hurts),
        )
        for source in answer.by_source
    ]
    columns = ("source", "helps", "hurts", "gains that are not clean", "of targets", "most on", "worst on")
    return Table(
        f"{caption} Helps: clean or unchecked gains; hurts: losses beyond noise of any kind.", columns, rows
    )


def unclean_table(answer: Answer, most: int) -> Table:
    """Gains and losses beyond noise that are something else, with what they are; the first ``most``."""
    digits = {row.target: row.digits for row in answer.by_target}
    rows: list[Row] = []
    for cell in sorted(answer.unclean, key=lambda cell: (cell.target, -abs(cell.gain.value)))[:most]:
        number = estimate(cell.gain, digits[cell.target])
        change = Entry(number, value=cell.gain.value)
        rows.append((clean(cell.target), clean(cell.source), change, cell.label, clean(cell.words)))
    left = len(answer.unclean) - len(rows)
    caption = "Gains and losses beyond noise that are something else."
    caption += f" {left} more are in the JSON." if left > 0 else ""
    return Table(caption, ("target", "source", "change", "what it is", "since"), rows)


def answer_html(answer: Answer) -> str:
    """The lines and the table for a notebook."""
    lines = (sentence(f"{heading.capitalize()}: {words}") for heading, words in answer.lines)
    return to_notebook(answer.title, *lines, targets_table(answer))
