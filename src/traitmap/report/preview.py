"""``traitmap check`` in the terminal: what will be trained and asked, as the model will see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from traitmap.matrix.reading import overlap_kinds
from traitmap.report.terminal import Blocks, words
from traitmap.wording import UNKNOWN, counted, in_bytes, in_time, plain, share

if TYPE_CHECKING:
    from traitmap.analysis.contamination import Contamination, ItemOverlap
    from traitmap.data.check import LengthSummary, SourcePreview
    from traitmap.data.records import Example, Request
    from traitmap.data.sources import Lineage
    from traitmap.data.targets import LoadedTarget
    from traitmap.runs.cost import CostEstimate

_TEXT_MOST = 700


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
) -> RenderableType:
    """Sources with rendered examples and label words, targets with a rendered request, and the cost.

    adapters, cells: how many are still to be trained and evaluated, which ``estimate`` is for.
    lengths: token counts of each source's examples, where they have been counted.
    contamination: items of the targets that stand in the training texts, where they were compared.
    notes: what the figures rest on.
    """
    parts: list[RenderableType] = [_sources(sources, lengths)]
    for source in sources:
        parts += _examples(source)
    parts += [Text(""), _targets(targets)]
    for target in targets:
        parts += _request(target)
    if contamination is not None:
        parts += _overlaps(contamination)
    parts += [Text(""), words(_cost(adapters, cells, estimate), "bold")]
    parts += [words(f"  {note}", "dim") for note in notes]
    return Group(*parts)


def _sources(sources: Sequence[SourcePreview], lengths: Mapping[str, LengthSummary]) -> Blocks:
    rows = []
    for source in sources:
        used = f"{source.examples:,}" + (
            f" of {source.available:,}" if source.available > source.examples else ""
        )
        entries = ["adapter", ""] if source.adapter else ["train", used]
        if lengths:
            found = lengths.get(source.name)
            entries += (
                ["", "", ""]
                if found is None
                else [f"{n:,}" for n in (found.median, found.longest, found.cut)]
            )
        rows.append((words(source.name), tuple(words(entry) for entry in entries)))
    header = ("use", "examples", *(("tokens: median", "longest", "cut") if lengths else ()))
    return Blocks("source", header, tuple(rows))


def _examples(source: SourcePreview) -> list[RenderableType]:
    """Label words, warnings and two examples; what is learnt from stands in bold, and between ‹ and ›."""
    parts: list[RenderableType] = [Text(""), words(source.name, "bold")]
    if source.adapter:
        return [*parts, words(f"  adapter as it is: {source.adapter}")]
    if source.variation:
        parts += _variation(source, source.variation)
    elif source.label_counts:
        counts = ", ".join(f"{label!r} {count:,}" for label, count in source.label_counts.items())
        parts.append(words(f"  labels: {counts}"))
    parts += [words(f"  ! {warning}", "yellow") for warning in source.warnings]
    changed = source.variation is not None and source.variation.before is not None
    shown = () if changed else source.shown
    parts += [Padding(_example(example), (0, 0, 0, 4), expand=False) for example in shown]
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
        before = variation.counts_before
        labels = dict.fromkeys([*before, *source.label_counts])
        counts = (
            f"{label!r} {before.get(label, 0):,} → {source.label_counts.get(label, 0):,}" for label in labels
        )
        parts.append(words(f"  labels: {', '.join(counts)}"))
    if variation.meaning:
        parts.append(
            words(f"  {variation.meaning}: {_amount(variation.parent_dose)} → {_amount(variation.dose)}")
        )
    for name, example in (("before", variation.before), ("after", variation.after)):
        if example is not None:
            parts.append(words(f"    {name}:", "dim"))
            parts.append(Padding(_example(example), (0, 0, 0, 4), expand=False))
    return parts


def _setting(value: Any) -> str:
    """A setting of a study file on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(one)}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " to ".join(_setting(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _amount(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _example(example: Example) -> Text:
    shown = Text()
    room = _TEXT_MOST
    for segment in example.segments:
        if not segment.text:
            continue
        cut = shorten_middle(segment.text, max(room, 60))
        room -= len(cut)
        shown.append_text(words(f"‹{cut}›", "bold") if segment.learn else words(cut, "dim"))
    return shown


def _targets(targets: Sequence[LoadedTarget]) -> Blocks:
    rows = []
    for target in targets:
        entries = (
            target.task,
            target.kind.replace("_", " "),
            target.metric + ("" if target.higher_is_better else " (lower)"),
            f"{target.n_items:,}",
            _per_cent(target.chance),
            _per_cent(target.majority),
        )
        rows.append((words(target.name), tuple(words(entry) for entry in entries)))
    return Blocks("target", ("task", "kind", "metric", "items", "chance", "majority"), tuple(rows))


def _request(target: LoadedTarget) -> list[RenderableType]:
    """The first item's requests: the context once, and the answers that are weighed."""
    if not target.requests:
        return []
    first = target.requests[0]
    same = [request for request in target.requests if request.item == first.item]
    parts: list[RenderableType] = [Text(""), words(target.name, "bold")]
    if target.refused:
        parts.append(words(f"  ! its cells will be missing: {target.refused}", "yellow"))
    parts.append(Padding(words(shorten_middle(first.context, _TEXT_MOST), "dim"), (0, 0, 0, 4), expand=False))
    parts.append(Padding(words(_answers(first, same), "bold"), (0, 0, 0, 4), expand=False))
    return parts


def _answers(first: Request, same: Sequence[Request]) -> str:
    if first.kind == "generate_until":
        return f"‹generates until {first.generation.get('until', 'the end')!r}›"
    if first.kind == "loglikelihood_rolling":
        return "‹probability of the whole text›"
    return " or ".join(f"‹{shorten_middle(request.continuation, 60)}›" for request in same[:8])


def _overlaps(found: Contamination) -> list[RenderableType]:
    """A warning for every pair whose items stand in the training texts, with the closest copy."""
    if not found.overlaps:
        return [Text(""), words("No item of a target stands in the training texts.")]
    parts: list[RenderableType] = [Text(""), words("Items of the targets in the training texts", "bold")]
    for overlap in found.overlaps:
        parts.append(words(f"  ! {overlap_warning(overlap)}", "yellow"))
        if overlap.examples:
            closest = overlap.examples[0]
            shown = f"{closest.kind}: {closest.item_text} | {closest.training_text}"
            parts.append(
                Padding(
                    words(shorten_middle(" ".join(shown.split()), 240), "dim"), (0, 0, 0, 4), expand=False
                )
            )
    return parts


def overlap_warning(one: ItemOverlap) -> str:
    """One line for the reader of a study that has not been run yet."""
    kinds = overlap_kinds(one.exact, one.contained, one.near, one.short)
    said = (
        f"{one.source} -> {one.target}: {counted(len(one.touched), 'item')} of {one.items:,} "
        f"({share(one.share.value)}, 95 %: {share(one.share.low)} to {share(one.share.high)}) "
        f"in the training texts: {kinds}"
    )
    return said if one.material else f"{said}; too few to move a gain by a point"


def _cost(adapters: int, cells: int, estimate: CostEstimate) -> str:
    said = (
        f"To do: train {counted(adapters, 'adapter')} on {estimate.training_tokens:,.0f} tokens, "
        f"evaluate {counted(cells, 'cell')} of {estimate.scoring_tokens:,.0f} tokens; "
        f"about {in_time(estimate.seconds)} and {in_bytes(estimate.bytes)}"
    )
    return said + (
        " (measured on this machine)." if estimate.measured else " (a guess: nothing was measured)."
    )


def _per_cent(value: float) -> str:
    return plain(100 * value) if isfinite(value) else UNKNOWN


def shorten_middle(text: str, most: int) -> str:
    """The text, or its beginning and end around a count of what is left out."""
    if len(text) <= most:
        return text
    head, tail = most * 2 // 3, most // 3
    return f"{text[:head]} … {len(text) - head - tail:,} characters … {text[-tail:]}"
