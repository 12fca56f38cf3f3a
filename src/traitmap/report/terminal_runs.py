"""Runs in the terminal: what a study will train and ask, what is done, what a run costs, and what it holds.

``traitmap check`` shows the texts as the model will see them; ``status``, ``query``, ``gc`` and the plans of
larger runs follow. Views are Rich renderables, as in ``report.terminal``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from traitmap.analysis.comparison_words import agreement_table, cells_table, conditions_table
from traitmap.analysis.comparison_words import title as comparison_title
from traitmap.analysis.forecast import forecast_table, standings_table
from traitmap.matrix.reading import overlap_kinds
from traitmap.report.first_screen import lines_view
from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import UNKNOWN, counted, in_bytes, in_time, plain, share

if TYPE_CHECKING:
    from traitmap.analysis.comparison import Comparison
    from traitmap.analysis.contamination import Contamination, ItemOverlap
    from traitmap.analysis.forecast import Forecast
    from traitmap.data.check import LengthSummary, SourcePreview
    from traitmap.data.records import Example
    from traitmap.data.sources import Lineage
    from traitmap.data.targets import LoadedTarget
    from traitmap.runs.cost import CostEstimate
    from traitmap.runs.growth import Growth
    from traitmap.runs.status import RunStatus, Waste

_TEXT_MOST = 700  # characters of an example or a request
_ENTRY_MOST = 40  # characters of an entry of a query's answer


def section(title: str, *body: RenderableType) -> list[RenderableType]:
    """A blank line, a heading, and what stands under it."""
    return [words(""), words(title, "bold"), *body]


def indented(text: str | Text, by: int = 3) -> Padding:
    """A paragraph that is set in by so many characters."""
    return Padding(words(text) if isinstance(text, str) else text, (0, 0, 0, by), expand=False)


def check_preview(
    *,
    sources: Sequence[SourcePreview],
    targets: Sequence[LoadedTarget],
    adapters: int,
    cells: int,
    estimate: CostEstimate,
    lengths: Mapping[str, LengthSummary] = MappingProxyType({}),
    contamination: Contamination | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> RenderableType:
    """Sources with rendered examples and label words, targets with a rendered request, and the cost.

    adapters, cells: how many are still to be trained and evaluated, which ``estimate`` is for.
    lengths: token counts of each source's examples, where they have been counted.
    contamination: items of the targets that occur in the training data, where they were compared.
    notes: what the figures rest on. warnings: what is seldom meant between sources and targets.
    """
    parts: list[RenderableType] = [to_terminal(_sources(sources, lengths))]
    for source in sources:
        parts += _examples(source)
    parts += [words(""), to_terminal(_targets(targets))]
    for target in targets:
        parts += _request(target)
    if contamination is not None:
        parts += _overlaps(contamination)
    if warnings:
        parts += [*section("Sources and targets"), *(words(f"  ! {text}", "yellow") for text in warnings)]
    room = f" and {in_bytes(estimate.bytes)}" if isfinite(estimate.bytes) else ""
    cost = (
        f"To do: train {counted(adapters, 'adapter')} on {estimate.training_tokens:,.0f} tokens, "
        f"evaluate {counted(cells, 'cell')} of {estimate.scoring_tokens:,.0f} tokens; "
        f"about {in_time(estimate.seconds)}{room} "
        f"({'measured on this machine' if estimate.measured else 'a guess: nothing was measured'})."
    )
    parts += section(cost)
    parts += [words(f"  {note}", "dim") for note in notes]
    return Group(*parts)


def _sources(sources: Sequence[SourcePreview], lengths: Mapping[str, LengthSummary]) -> Table:
    """What is trained on, how many examples, and how many tokens they have where these were counted."""
    rows: list[Row] = []
    for source in sources:
        used = f"{source.examples:,}" + (
            f" of {source.available:,}" if source.available > source.examples else ""
        )
        if source.adapter or source.merge:
            use = ("adapter" if source.adapter else "merge", "")
        else:
            use = ("train" if source.step is None else "checkpoint", used)
        row = [source.name, *use]
        if lengths:
            tokens = lengths.get(source.name)
            counts = (tokens.median, tokens.longest, tokens.cut) if tokens else ()
            row += [f"{count:,}" for count in counts] or ["", "", ""]
        rows.append(row)
    columns = ("source", "use", "examples", *(("tokens: median", "longest", "cut") if lengths else ()))
    return Table("Sources.", columns, rows)


def _examples(source: SourcePreview) -> list[RenderableType]:
    """Label words, warnings and two examples; what is learnt from stands in bold, and between ‹ and ›."""
    parts = section(source.name)
    if source.adapter:
        return [*parts, words(f"  adapter as it is: {source.adapter}")]
    if source.merge:
        return [*parts, words(f"  {source.merge}")]
    if source.step is not None and source.variation is not None:
        steps, parent = counted(source.step, "step"), source.variation.parents[0]
        return [*parts, words(f"  {parent} as it is after {steps}; it costs no training of its own")]
    if source.read_as:
        parts.append(words(f"  read as {source.read_as}"))
    if source.variation:
        parts += _variation(source, source.variation)
    elif source.label_counts:
        counts = ", ".join(f"{label!r} {count:,}" for label, count in source.label_counts.items())
        parts.append(words(f"  labels: {counts}"))
    parts += [words(f"  ! {warning}", "yellow") for warning in source.warnings]
    changed = source.variation is not None and source.variation.before is not None
    shown = () if changed else source.shown
    parts += [indented(_example(example), 4) for example in shown]
    return parts


def _variation(source: SourcePreview, variation: Lineage) -> list[RenderableType]:
    """What it is made from, what was changed, what became of its rows, and one row before and after."""
    changes = "; ".join(f"{kind}: {_setting(value)}" for kind, value in variation.changes.items())
    parts: list[RenderableType] = [
        words(f"  from {', '.join(variation.parents)}: {changes or 'training settings'}"),
        words(f"  rows: {source.examples:,} of {variation.examples_before:,}"),
    ]
    if variation.rows_changed:
        parts.append(words(f"  of these {variation.rows_changed:,} changed"))
    if source.label_counts:
        old, new = variation.counts_before, source.label_counts
        labels = dict.fromkeys([*old, *new])
        counts = (f"{label!r} {old.get(label, 0):,} → {new.get(label, 0):,}" for label in labels)
        parts.append(words(f"  labels: {', '.join(counts)}"))
    if variation.meaning:
        before, after = (
            f"{dose:,.3g}" if abs(dose) < 1000 else f"{dose:,.0f}"
            for dose in (variation.parent_dose, variation.dose)
        )
        parts.append(words(f"  {variation.meaning}: {before} → {after}"))
    for name, example in (("before", variation.before), ("after", variation.after)):
        if example is not None:
            parts.append(words(f"    {name}:", "dim"))
            parts.append(indented(_example(example), 4))
    return parts


def _setting(value: Any) -> str:
    """A setting of a study file on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_setting(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " to ".join(_setting(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _example(example: Example) -> Text:
    """A rendered example, cut where it is long; what is learnt from in bold and between ‹ and ›."""
    shown = Text()
    room = _TEXT_MOST
    for segment in example.segments:
        if not segment.text:
            continue
        cut = shorten_middle(segment.text, max(room, 60))
        room -= len(cut)
        shown.append_text(words(f"‹{cut}›", "bold") if segment.learn else words(cut, "dim"))
    return shown


def _targets(targets: Sequence[LoadedTarget]) -> Table:
    """Task, metric and items of each target; what chance and the majority class reach, in per cent."""
    rows = [
        (
            target.name,
            target.task,
            target.kind.replace("_", " "),
            target.metric + ("" if target.higher_is_better else " (lower)"),
            f"{target.n_items:,}",
            plain(100 * target.chance),
            plain(100 * target.majority),
        )
        for target in targets
    ]
    columns = ("target", "task", "kind", "metric", "items", "chance", "majority")
    return Table("Targets.", columns, rows)


def _request(target: LoadedTarget) -> list[RenderableType]:
    """What to know of the items, then the first one's requests: the context once, and the answers weighed."""
    if not target.requests:
        return []
    first = target.requests[0]
    answers = " or ".join(
        f"‹{shorten_middle(request.continuation, 60)}›"
        for request in [request for request in target.requests if request.item == first.item][:8]
    )
    if first.kind == "generate_until":
        answers = f"‹generates until {first.generation.get('until', 'the end')!r}›"
    elif first.kind == "loglikelihood_rolling":
        answers = "‹probability of the whole text›"
    parts = section(target.name)
    if target.read_as:
        parts.append(words(f"  read as {target.read_as}"))
    if limited := _limited(target):
        parts.append(words(f"  {limited}"))
    if target.refused:
        parts.append(words(f"  ! its cells will be missing: {target.refused}", "yellow"))
    parts += [words(f"  ! {caveat.text}", "yellow") for caveat in target.caveats]
    parts.append(indented(words(shorten_middle(first.context, _TEXT_MOST), "dim"), 4))
    return [*parts, indented(words(answers, "bold"), 4)]


def _limited(target: LoadedTarget) -> str:
    """Which items a limit left; empty where it left them all."""
    asked, limit = target.conditions, target.conditions.get("limit")
    if limit is None or asked.get("available", 0) <= limit:
        return ""
    if asked["limit_takes"] == "first":
        return f"the first {limit:,} of {asked['available']:,} items"
    return (
        f"{limit:,} of {asked['available']:,} items, drawn at random with sample_seed {asked['sample_seed']}"
    )


def _overlaps(contamination: Contamination) -> list[RenderableType]:
    """A warning for every pair whose items occur in the training data, with the closest copy."""
    if not contamination.overlaps:
        return [words(""), words("No item of a target occurs in the training data.")]
    parts = section("Items of the targets in the training texts")
    for overlap in contamination.overlaps:
        parts.append(words(f"  ! {overlap_warning(overlap)}", "yellow"))
        if overlap.examples:
            closest = overlap.examples[0]
            shown = f"{closest.kind}: {closest.item_text} | {closest.training_text}"
            parts.append(indented(words(shorten_middle(" ".join(shown.split()), 240), "dim"), 4))
    return parts


def overlap_warning(overlap: ItemOverlap) -> str:
    """``reviews -> stars: 3 items of 500 (1 %, 95 %: 0 % to 2 %) in the training texts: 3 equal``."""
    kinds = overlap_kinds(overlap.exact, overlap.contained, overlap.near, overlap.short)
    text = (
        f"{overlap.source} -> {overlap.target}: {counted(len(overlap.touched), 'item')} of {overlap.items:,} "
        f"({share(overlap.share.value)}, 95 %: {share(overlap.share.low)} to {share(overlap.share.high)}) "
        f"in the training texts: {kinds}"
    )
    return text if overlap.material else f"{text}; too few to move a gain by a point"


def shorten_middle(text: str, most: int) -> str:
    """The text, or its beginning and end around a count of what is left out."""
    if len(text) <= most:
        return text
    head, tail = most * 2 // 3, most // 3
    return f"{text[:head]} … {len(text) - head - tail:,} characters … {text[-tail:]}"


# Runs.


def status_view(status: RunStatus) -> RenderableType:
    """What of a run is done, what failed and why, and what to do next.

    Damaged and unreadable files are named where the run was verified, and always those that were moved to
    quarantine and those that the run has had and lacks.
    """
    tallies = {"adapters": status.adapters, "cells": status.cells}
    if any(asdict(status.partial).values()):
        tallies["not done, but in part"] = status.partial
    table = Table(
        "Units by what came of them.",
        ("", "done", "failed", "missing"),
        [
            (
                name,
                str(tally.done),
                Entry(str(tally.failed), style="worse" if tally.failed else ""),
                str(tally.missing),
            )
            for name, tally in tallies.items()
        ],
    )
    head = Text.assemble(words(status.name, "bold"), words(f"  {status.folder}  {in_bytes(status.bytes)}"))
    warnings = []
    for failure in status.failures:
        unit = failure.source + ("" if failure.seed is None else f" seed {failure.seed}")
        unit += f" on {failure.target}" if failure.target else ", training"
        warnings.append(f"{unit}: {failure.reason}")
    warnings += [
        f"damaged and moved to quarantine/{damage.kept}: {damage.path}: {damage.reason}"
        for damage in status.quarantine
    ]
    warnings += [f"damaged: {path}: {reason}" for path, reason in status.damaged or ()]
    warnings += [f"unreadable: {path}: {reason}" for path, reason in status.unreadable or ()]
    warnings += [f"missing, and the run has had it: {path}: {reason}" for path, reason in status.absent]
    parts: list[RenderableType] = [head, to_terminal(table)]
    parts += [words(f"! {warning}", "yellow") for warning in warnings]
    if status.damaged == status.unreadable == status.absent == ():
        parts.append(words("Every file agrees with its checksum."))
    return Group(*parts, words(_next_step(status)))


def _next_step(status: RunStatus) -> str:
    if status.unreadable:
        return "Give yourself the right to read these files; they may be whole, and nothing is done to them."
    if status.damaged or status.absent:
        return "`traitmap run` with the study makes what is damaged or missing anew."
    if status.complete:
        return "Complete."
    if status.running is not None:
        where = f" on {status.host}" if status.host else ""
        return f"Running now (process {status.running}{where})."
    left = status.adapters.missing + status.adapters.failed + status.cells.missing + status.cells.failed
    partial = status.partial.done
    part = f" {counted(partial, 'cell')} of these partly measured, on a budget." if partial else ""
    return (
        f"Not running; {counted(left, 'unit')} to do.{part} "
        "`traitmap run` with the study goes on where it stopped."
    )


def comparison_view(comparison: Comparison, *, verbose: bool = False) -> RenderableType:
    """Several runs held against each other: the lines, cells that hold or differ, agreement, conditions.

    verbose: every cell that two runs know, and every condition.
    """
    cells = cells_table(comparison, None) if verbose else cells_table(comparison)
    conditions = conditions_table(comparison, None) if verbose else conditions_table(comparison)
    shown = [table for table in (cells, agreement_table(comparison), conditions) if table.rows]
    parts: list[RenderableType] = [
        words(comparison_title(comparison), "bold"),
        lines_view(comparison.lines),
    ]
    for table in shown:
        parts += [words(""), words(table.caption, "bold"), to_terminal(table)]
    return Group(*parts)


def forecast_view(forecast: Forecast) -> RenderableType:
    """What a forecast is worth, then what it says of every target."""
    parts: list[RenderableType] = [words(forecast.worth)]
    if forecast.standings:
        parts += [words(""), to_terminal(standings_table(forecast))]
    return Group(*parts, words(""), to_terminal(forecast_table(forecast)))


def growth_view(growth: Growth) -> RenderableType:
    """What a larger matrix would take in hours and bytes, then what that rests on.

    Hours of workers (GPU hours, where a worker is a GPU) and from start to end, also where units fail.
    """
    cells = (growth.adapters + 1) * growth.targets
    table = Table(
        f"{growth.adapters} adapters x {growth.targets} targets, {growth.workers} workers",
        ("what", "how much"),
        [
            ("items of each target", Entry(f"{growth.items:,.0f}", value=growth.items)),
            ("cells, the base's among them", Entry(f"{cells:,}", value=cells)),
            ("outcomes", Entry(f"{cells * growth.items:,.0f}", value=cells * growth.items)),
            ("adapters trained together", Entry(f"{growth.group_size}", value=growth.group_size)),
            ("worker hours (GPU hours)", Entry(f"{growth.worker_hours:,.3g}", value=growth.worker_hours)),
            ("hours from start to end", Entry(f"{growth.hours:,.3g}", value=growth.hours)),
            ("the same, unlucky", Entry(f"{growth.unlucky_hours:,.3g}", value=growth.unlucky_hours)),
            ("workers are busy", Entry(f"{100 * growth.busy:.0f} %", value=growth.busy)),
            ("disk", Entry(in_bytes(growth.disk), value=growth.disk)),
            ("object store, at most", Entry(in_bytes(growth.object_store), value=growth.object_store)),
            ("moved between machines", Entry(in_bytes(growth.moved), value=growth.moved)),
        ],
        (*growth.said, "unlucky: 5 % of units fail once, 10 % take three times as long (simulated)."),
    )
    advice = f"run it with --group-size {growth.group_size}." if growth.group_size > 1 else ""
    parts: list[RenderableType] = [words(table.caption, "italic"), to_terminal(table, names=32)]
    return Group(*parts, *([words(advice, "dim")] if advice else []))


def spent_of_whole(spent: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(what, spent by a run on a budget, spent by the whole run). spent: as ``Spent`` is written."""
    items = spent["items"].values()
    return [
        ("adapters", *spent["adapters"]),
        ("cells with the base's", *spent["cells"]),
        ("items of a cell, mean", *(sum(item[at] for item in items) / len(items) for at in (0, 1))),
        ("training tokens", *spent["training"]),
        ("evaluation tokens", *spent["evaluation"]),
    ]


def spending_view(spent: Mapping[str, Any]) -> RenderableType:
    """Adapters, cells, items and tokens of a run on a budget: spent, in full, and the share."""
    rows = [
        (name, f"{used:,.0f}", f"{whole:,.0f}", f"{100 * used / whole:.1f} %" if whole else UNKNOWN)
        for name, used, whole in spent_of_whole(spent)
    ]
    rounds = "; ".join(", ".join(sources) for sources in spent["rounds"] if sources)
    end = "The other cells are predicted; `traitmap matrix` marks them."
    if spent["reason"]:
        end = f"Nothing is predicted: {spent['reason']}."
    return Group(
        to_terminal(Table("Spent of the price of the whole run.", ("", "spent", "in full", "share"), rows)),
        words(f"Adapters in this order, the cheapest trained first: {rounds or 'none'}."),
        words(f"{spent['seconds']:.0f} s. {end}"),
    )


def answer_view(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, more: bool = False) -> RenderableType:
    """Rows of a query's answer, whose first column names them.

    heads: names of the columns. more: there are rows that are not shown. Long texts are cut where there are
    several columns; one by itself is shown whole.
    """
    most = _ENTRY_MOST if len(heads) > 1 else None
    entries = [tuple(_entry(value, most) for value in row) for row in rows]
    end = f"{counted(len(entries), 'row')}."
    if more:
        end = f"The first {len(entries)} rows. --csv, --json and --parquet give all."
    return Group(to_terminal(Table("Answer.", heads, entries)), words(end))


def _entry(value: Any, most: int | None) -> str:
    """A value on one line, cut at ``most`` characters; None keeps it whole."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return UNKNOWN
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list):
        text = ", ".join(_entry(item, most) for item in value)
    else:
        text = " ".join(str(value).split())
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def waste_view(waste: Sequence[Waste], *, deleted: bool) -> RenderableType:
    """What nothing needs, file by file and by kind, with its size."""
    if not waste:
        return words("Nothing to remove: the study needs all that is here.")
    rows: list[Row] = []
    for kind in dict.fromkeys(entry.kind for entry in waste):
        sizes = [entry.bytes for entry in waste if entry.kind == kind]
        rows.append((kind, str(len(sizes)), Entry(in_bytes(sum(sizes)), value=sum(sizes))))
    lines = [words(f"{entry.path}  {in_bytes(entry.bytes)}  {entry.why}") for entry in waste]
    total = in_bytes(sum(entry.bytes for entry in waste))
    end = f"Removed {total}." if deleted else f"Nothing was removed. --delete removes these {total}."
    table = Table("What nothing needs.", ("", "entries", "size"), rows)
    return Group(*lines, words(""), to_terminal(table), words(end))
