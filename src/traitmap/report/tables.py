"""What the terminal shows: the matrix, the traits, the status of a run, and the check of a study.

Functions return Rich renderables; whoever prints decides where. They fit the console's width and carry no
colour where it is piped or NO_COLOR is set (Rich sees to that).
"""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from traitmap.analysis.records import Traits
from traitmap.matrix import TransferMatrix
from traitmap.report.blocks import Blocks, words
from traitmap.report.headline import traits_in_words
from traitmap.report.loadings import component_name, loading_text, shown_components
from traitmap.report.overlaps import MARK
from traitmap.report.reading import Reading, read
from traitmap.report.wording import UNKNOWN, counted, interval, plain, sentence, share, signed

if TYPE_CHECKING:
    from traitmap.runs.status import RunStatus, Tally

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


def in_bytes(size: float) -> str:
    """``3.2 MB``; unknown is a dash."""
    if not isfinite(size):
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def in_time(seconds: float) -> str:
    """``40 s``, ``6 min``, ``3.2 h``; unknown is a dash."""
    if not isfinite(seconds):
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
