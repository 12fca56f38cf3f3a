"""A wide table for the terminal: split into blocks of columns that fit, plain where it is piped.

What the terminal shows: the matrix, the traits, the status of a run, and the check of a study.

Functions return Rich renderables; whoever prints decides where. They fit the console's width and carry no
colour where it is piped or NO_COLOR is set (Rich sees to that).

A matrix on paper as a table for the terminal.

What a run on a budget spent of the whole run's price, for the terminal.

The answer to a query, and what can be cleaned away, as tables for the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import MARK, Reading, read
from traitmap.matrix.record import TransferMatrix
from traitmap.report.headline import traits_in_words
from traitmap.report.loadings import component_name, loading_text, shown_components
from traitmap.wording import UNKNOWN, clean, counted, in_bytes, interval, plain, sentence, share, signed

if TYPE_CHECKING:
    from traitmap.runs.gc import Waste
    from traitmap.runs.growth import Growth
    from traitmap.runs.status import RunStatus, Tally


_NAME_MOST = 24
_HEAD_MOST = 11


def words(text: str, style: str = "") -> Text:
    """Text as it is: names may hold brackets, which Rich would take for markup. Padding stays unstyled."""
    return Text.assemble((clean(text), style))


@dataclass(frozen=True)
class Blocks:
    """head: of the row names; heads: of the columns; rows: (name, entries). Fits the console's width."""

    head: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Text, tuple[Text, ...]], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = min(_NAME_MOST, max([len(self.head), *(name.cell_len for name, _ in self.rows)]))
        widths = [self._width(column) for column in range(len(self.heads))]
        for first, last in split(widths, options.max_width - names):
            if first:
                yield Text("")
            yield self._block(console, names, widths, first, last)

    def _width(self, column: int) -> int:
        """Entries are never broken; a long head is folded, between its words where it can be."""
        entries = max((row[column].cell_len for _, row in self.rows), default=0)
        longest = max(map(len, _pieces(self.heads[column])), default=0)
        return max(entries, min(longest, _HEAD_MOST), 4)

    def _block(self, console: Console, names: int, widths: Sequence[int], first: int, last: int) -> Table:
        table = plain_table(console)
        table.add_column(words(self.head), width=names, overflow="fold", vertical="bottom")
        for column in range(first, last):
            table.add_column(
                words(fold(self.heads[column], widths[column])),
                width=widths[column],
                justify="right",
                overflow="fold",
            )
        for name, entries in self.rows:
            table.add_row(name, *entries[first:last])
        return table


def plain_table(console: Console) -> Table:
    """A table with a ruled head on a terminal, and with spaces alone in a pipe."""
    return Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 1, 0, 0) if console.is_terminal else (0, 1),
        header_style="bold",
        show_edge=False,
    )


def fold(head: str, width: int) -> str:
    """Lines of a head that break after ``_``, ``-``, ``.``, ``:`` and spaces where the width allows it."""
    lines = [""]
    for piece in _pieces(head):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _pieces(head: str) -> list[str]:
    return re.findall(r"[^_\-.: ]*[_\-.: ]+|[^_\-.: ]+", clean(head))


def split(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Ranges of columns that fit beside the names; each column costs its width and the gap before it."""
    first, used = 0, 0
    for column, width in enumerate(widths):
        cost = width + 2
        if column > first and used + cost > room:
            yield first, column
            first, used = column, 0
        used += cost
    if first < len(widths):
        yield first, len(widths)


PREDICTED = "~"
BETTER, WORSE, IN_DOMAIN = "bold cyan", "bold yellow", "underline"


def matrix_table(matrix: TransferMatrix) -> RenderableType:
    """Base row of absolute values, gains in points beneath it, ``*`` at q < .05; in blocks that fit."""
    reading = read(matrix)
    base = tuple(
        words(plain(cell.value * target.factor, target.digits))
        for cell, target in zip(reading.base, reading.targets, strict=True)
    )
    rows = [
        (words(source), tuple(_gain(reading, s, t) for t in range(len(reading.targets))))
        for s, source in enumerate(reading.sources)
    ]
    blocks = Blocks(
        head="source",
        heads=tuple(
            f"{target.name} (lower)" if target.better < 0 else target.name for target in reading.targets
        ),
        rows=((words("base", "italic"), base), *rows),
    )
    return Group(blocks, words(_matrix_note(reading), "dim"))


def _gain(reading: Reading, s: int, t: int) -> Text:
    cell, target = reading.cells[s][t], reading.targets[t]
    if not isfinite(cell.gain):
        return words(cell.status if not isfinite(cell.value) else "no base", "dim")
    style = IN_DOMAIN if reading.in_domain(s, t) else ""
    if cell.status == "predicted":
        return words(signed(cell.gain * target.factor, target.digits) + PREDICTED, "dim italic")
    # The space keeps the decimal points of marked and unmarked gains under each other.
    mark = " "
    if reading.significant(s, t):
        mark = "*"
        style = f"{style} {BETTER if reading.improvement(s, t) > 0 else WORSE}".strip()
    if reading.touched:
        mark += MARK if (s, t) in reading.touched else " "
    return words(signed(cell.gain * target.factor, target.digits) + mark, style)


def _matrix_note(reading: Reading) -> str:
    units = sorted({target.unit for target in reading.targets if target.unit != "points"})
    said = ["base: absolute; below it gains over the base in points"]
    if units:
        said[0] += f" ({', '.join(units)}: in their own unit)"
    tested = any(isfinite(cell.q) for row in reading.cells for cell in row)
    said.append("* q < .05 over the matrix" if tested else "no item results, so no gain has a test")
    if reading.some_predicted:
        said.append(f"{PREDICTED} predicted from other cells, not measured")
    if reading.touched:
        most = max(reading.touched.values(), key=lambda one: one.touched / one.items)
        said.append(
            f"{MARK} test items stand in the training texts, at most {share(most.touched / most.items)}"
        )
    if any(target.better < 0 for target in reading.targets):
        said.append("(lower): lower is better")
    return "; ".join(said) + "."


def traits_table(traits: Traits) -> RenderableType:
    """The number of traits with its evidence, loadings, effects of the adapters, and every warning."""
    verdict, evidence = traits_in_words(traits)
    used = traits.n_components.get("used") or 0
    parts: list[RenderableType] = [words(f"{verdict[:1].upper()}{verdict[1:]}", "bold"), words(evidence)]
    parts += [Text(""), _components(traits), Text(""), _loadings(traits)]
    if used:
        parts += [Text(""), _effects(traits, used)]
    for warning in traits.warnings:
        parts += [Text(""), words(f"! {sentence(warning.message)}", "yellow")]
        if warning.action:
            parts.append(Padding(words(sentence(warning.action)), (0, 0, 0, 2), expand=False))
    return Group(*parts)


def _components(traits: Traits) -> Blocks:
    used = traits.n_components.get("used") or 0
    rows = []
    for c in range(min(len(traits.explained_variance_ratio), max(used, 4))):
        low, high = float(traits.null_p05[c]), float(traits.null_p95[c])
        noise = f"{share(low)} to {share(high)}" if isfinite(low) and isfinite(high) else UNKNOWN
        entries = (share(float(traits.explained_variance_ratio[c])), noise, "yes" if c < used else "no")
        name = component_name(traits, c) if c < used else f"PC{c}"
        rows.append((words(name), tuple(words(entry) for entry in entries)))
    return Blocks("component", ("explained", "noise 5-95 %", "supported"), tuple(rows))


def _loadings(traits: Traits) -> Blocks:
    shown = range(shown_components(traits))
    rows = [
        (
            words(target),
            tuple(
                words(
                    loading_text(
                        float(traits.loadings[t, c]),
                        float(traits.loadings_low[t, c]),
                        float(traits.loadings_high[t, c]),
                    )
                )
                for c in shown
            ),
        )
        for t, target in enumerate(traits.targets)
    ]
    return Blocks("loading of target", tuple(component_name(traits, c) for c in shown), tuple(rows))


def _effects(traits: Traits, used: int) -> Blocks:
    rows = [
        (words(source), tuple(_effect(traits, s, c) for c in range(used)))
        for s, source in enumerate(traits.sources)
    ]
    return Blocks("effect in points", tuple(component_name(traits, c) for c in range(used)), tuple(rows))


def _effect(traits: Traits, s: int, c: int) -> Text:
    effect = float(traits.effects[s, c])
    shown = interval(float(traits.effects_low[s, c]), float(traits.effects_high[s, c]))
    return words(signed(effect) + ("" if shown == UNKNOWN else f" {shown}"))


def status_table(status: RunStatus) -> RenderableType:
    """What of a run is done, what failed and why, and what to do next."""
    rows = [
        (words("adapters"), _tally(status.adapters)),
        (words("cells"), _tally(status.cells)),
    ]
    if any(asdict(status.partial).values()):
        rows.append((words("not done, but in part"), _tally(status.partial)))
    head = Text.assemble(words(status.name, "bold"), words(f"  {status.folder}  {in_bytes(status.bytes)}"))
    parts: list[RenderableType] = [head, Blocks("", ("done", "failed", "missing"), tuple(rows))]
    for failure in status.failures:
        what = failure.source + ("" if failure.seed is None else f" seed {failure.seed}")
        what += f" on {failure.target}" if failure.target else ", training"
        parts.append(words(f"! {what}: {failure.reason}", "yellow"))
    for kept in status.quarantine:
        parts.append(
            words(f"! damaged and moved to quarantine/{kept.kept}: {kept.path}: {kept.reason}", "yellow")
        )
    for path, why in status.damaged or ():
        parts.append(words(f"! damaged: {path}: {why}", "yellow"))
    if status.damaged == ():
        parts.append(words("Every file agrees with its checksum."))
    parts.append(words(_next_step(status)))
    return Group(*parts)


def _tally(tally: Tally) -> tuple[Text, ...]:
    return (
        words(str(tally.done)),
        words(str(tally.failed), "bold yellow" if tally.failed else ""),
        words(str(tally.missing)),
    )


def _next_step(status: RunStatus) -> str:
    if status.damaged:
        return "`traitmap run` with the study makes what is damaged anew."
    if status.complete:
        return "Complete."
    if status.running is not None:
        where = f" on {status.host}" if status.host else ""
        return f"Running now (process {status.running}{where})."
    left = status.adapters.missing + status.adapters.failed + status.cells.missing + status.cells.failed
    part = ""
    if status.partial.done:
        part = f" {counted(status.partial.done, 'cell')} of these partly measured, on a budget."
    return (
        f"Not running; {counted(left, 'unit')} to do.{part} "
        "`traitmap run` with the study goes on where it stopped."
    )


def growth_table(found: Growth) -> Group:
    """What it would take, then what that rests on."""
    title = f"{found.adapters} adapters x {found.targets} targets, {found.workers} workers"
    # No box: rules of a box are noise in a pipe.
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("how much", justify="right")
    rows = (
        ("items of each target", f"{found.items:,.0f}"),
        ("cells, the base's among them", f"{(found.adapters + 1) * found.targets:,}"),
        ("outcomes", f"{(found.adapters + 1) * found.targets * found.items:,.0f}"),
        ("adapters trained together", f"{found.group_size}"),
        ("worker hours (GPU hours)", f"{found.worker_hours:,.3g}"),
        ("hours from start to end", f"{found.hours:,.3g}"),
        ("the same, unlucky", f"{found.unlucky_hours:,.3g}"),
        ("workers are busy", f"{found.busy:.0%}"),
        ("disk", _bytes(found.disk)),
        ("object store, at most", _bytes(found.object_store)),
        ("moved between machines", _bytes(found.moved)),
    )
    for row in rows:
        table.add_row(*row)
    notes = [*found.said, "unlucky: 5 % of units fail once, 10 % take three times as long (simulated)."]
    if found.group_size > 1:
        notes.append(f"run it with --group-size {found.group_size}.")
    return Group(table, *[Text(note, style="dim") for note in notes])


def _bytes(value: float) -> str:
    if isnan(value):
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def spending_table(spent: Mapping[str, Any]) -> RenderableType:
    """Adapters, cells, items and both prices: spent, in full, and the share."""
    items = spent["items"].values()
    counts = (
        ("adapters", *spent["adapters"]),
        ("cells with the base's", *spent["cells"]),
        ("items of a cell, mean", *(sum(item[at] for item in items) / len(items) for at in (0, 1))),
        ("training tokens", *spent["training"]),
        ("evaluation tokens", *spent["evaluation"]),
    )
    rows = tuple(
        (words(name), tuple(words(text) for text in (f"{used:,.0f}", f"{whole:,.0f}", _share(used, whole))))
        for name, used, whole in counts
    )
    rounds = "; ".join(", ".join(one) if one else "cells only" for one in spent["rounds"])
    return Group(
        Blocks("", ("spent", "in full", "share"), rows),
        words(f"Trained in this order: {rounds or 'nothing'}."),
        words(f"{spent['seconds']:.0f} s. {_rest(spent['reason'])}"),
    )


def _rest(reason: str) -> str:
    if reason:
        return f"Nothing is predicted: {reason}."
    return "The other cells are predicted; `traitmap matrix` marks them."


def _share(used: float, whole: float) -> str:
    return f"{100 * used / whole:.1f} %" if whole else UNKNOWN


_MOST = 40  # characters of an entry


def answer_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, more: bool = False
) -> RenderableType:
    """Rows of an answer; its first column names them. more: there are rows that are not shown."""
    shown = [tuple(_entry(value) for value in row) for row in rows]
    table = Blocks(
        heads[0], tuple(heads[1:]), tuple((words(row[0]), tuple(map(words, row[1:]))) for row in shown)
    )
    if more:
        return Group(table, words(f"The first {len(shown)} rows. --csv, --json and --parquet give all."))
    return Group(table, words(counted(len(shown), "row") + "."))


def waste_table(found: Sequence[Waste], *, deleted: bool) -> RenderableType:
    """What nothing needs, by kind, with its size."""
    if not found:
        return words("Nothing to remove: the study needs all that is here.")
    kinds = dict.fromkeys(one.kind for one in found)
    rows = []
    for kind in kinds:
        own = [one for one in found if one.kind == kind]
        rows.append((words(kind), (words(str(len(own))), words(in_bytes(sum(one.bytes for one in own))))))
    lines = [words(f"{one.path}  {in_bytes(one.bytes)}  {one.why}") for one in found]
    total = in_bytes(sum(one.bytes for one in found))
    end = f"Removed {total}." if deleted else f"Nothing was removed. --delete removes these {total}."
    return Group(*lines, words(""), Blocks("", ("entries", "size"), tuple(rows)), words(end))


def _entry(value: Any) -> str:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return UNKNOWN
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list):
        text = ", ".join(_entry(one) for one in value)
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
