"""The section of a Hugging Face model card that says what an adapter does to everything else."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from math import isfinite, nan
from pathlib import Path

from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.traits.records import Traits
from traitmap.errors import MatrixError
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.runs.files import write_output
from traitmap.wording import escaped_markdown, listed, with_interval

START, END = "<!-- traitmap: start -->", "<!-- traitmap: end -->"
_SIGNIFICANT = 0.05
_PLAIN = re.compile(r"[\w .:/+@=,()-]+", re.ASCII)


def card_section(matrix: TransferMatrix, source: str, traits: Traits | None = None) -> str:
    """Markdown: gains over the base with intervals and tests on every target, effects on the traits.

    Gains are adapter minus base on the same items, pooled over seeds. MatrixError for an unknown source.
    """
    if source not in matrix.sources:
        raise MatrixError(f"there is no source {source!r}; the sources are {', '.join(matrix.sources)}")
    cells = [cell for cell in matrix.cells if cell.source == source and cell.seed is None]
    known = [cell for cell in cells if isfinite(cell.gain) and cell.status != "predicted"]
    higher = matrix.higher_is_better
    better = [cell for cell in known if _sure(cell) and _direction(cell, higher) > 0]
    worse = [cell for cell in known if _sure(cell) and _direction(cell, higher) < 0]
    base = escaped_markdown(matrix.conditions.get("base") or "the base model")
    lines = [
        "## Side effects",
        "",
        f"What this adapter ({_code(source)}) does to {len(cells)} tasks, against {base} on the same items: "
        f"{len(better)} significantly better, {len(worse)} significantly worse, "
        f"{len(known) - len(better) - len(worse)} cannot be told apart from no change"
        + (f", {len(cells) - len(known)} not known" if len(cells) > len(known) else "")
        + f" (q < {_SIGNIFICANT} after Benjamini-Hochberg over all adapters).",
        *_origin(matrix, source),
        "",
        "| task | metric | base | adapter | gain [95 %] | q | majority | items |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(matrix, cell) for cell in cells),
        "",
        "`majority` is the accuracy of always giving the commonest answer: a gain that ends there is a "
        "collapse to one answer, not a skill.",
        "",
        *_trait_lines(traits, source),
        f"Measured with {_tool()}.",
    ]
    return "\n".join(lines)


def _origin(matrix: TransferMatrix, source: str) -> list[str]:
    """How an adapter came from other sources of the run, in a sentence; nothing for one of its own."""
    made = variations_of(matrix).get(source)
    if made is None:
        return []
    parents = listed([_code(parent) for parent in made["parents"]])
    if made["kind"] == "checkpoint":
        return [
            "",
            f"It is {parents} as it was after {made['dose']:g} of {made['parent_dose']:g} optimizer steps.",
        ]
    if made["kind"] == "merge":
        how = dict(made["changes"])
        weights = listed([f"{_code(name)} ({weight:g})" for name, weight in how.pop("merge", {}).items()])
        settings = ", ".join(f"{key} {value}" for key, value in how.items())
        return [
            "",
            f"It is a merge of {weights} by PEFT's `add_weighted_adapter`: {escaped_markdown(settings)}.",
        ]
    return ["", f"It is made from {parents}: {escaped_markdown(str(made['kind']))}."]


def _tool() -> str:
    """The name of the tool, with its version and the addresses that the package's metadata gives."""
    about = metadata("traitmap")
    places = dict(url.split(", ", 1) for url in about.get_all("Project-URL") or ())
    name = f"traitmap {about['Version']}"
    home = next((places[label] for label in ("Homepage", "Repository", "Source") if label in places), "")
    paper = f" ([the paper it builds on]({places['Paper']}))" if "Paper" in places else ""
    return (f"[{name}]({home})" if home else name) + paper


def update_card(readme: str | Path, section: str) -> Path:
    """Put the section into a card, in the place of an earlier one, or at its end; a missing card is made."""
    place = Path(readme)
    text = place.read_text(encoding="utf-8") if place.exists() else ""
    block = f"{START}\n{section}\n{END}"
    if START in text and END in text.split(START, 1)[1]:
        before, rest = text.split(START, 1)
        text = before + block + rest.split(END, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{block}\n" if text.strip() else f"{block}\n"
    return write_output(place, text)


def _code(name: str) -> str:
    """A name set as code; as HTML where it holds what would end the code or show as something else."""
    return f"`{name}`" if _PLAIN.fullmatch(name) else f"<code>{escaped_markdown(name)}</code>"


def _sure(cell: Cell) -> bool:
    return isfinite(cell.q) and cell.q < _SIGNIFICANT


def _direction(cell: Cell, higher: object) -> float:
    better = higher.get(cell.target, True) if hasattr(higher, "get") else True
    return cell.gain if better else -cell.gain


def _row(matrix: TransferMatrix, cell: Cell) -> str:
    t = matrix.targets.index(cell.target)
    base = float(matrix.baseline[t])
    majority = float(matrix.majority[t]) if matrix.majority is not None else nan
    mark = " (predicted)" if cell.status == "predicted" else ""
    gain = "–"
    if isfinite(cell.gain):
        gain = f"{cell.gain:+.3f}{mark}"
        if isfinite(cell.gain_low):
            gain += f" [{cell.gain_low:+.3f}, {cell.gain_high:+.3f}]"
        if _sure(cell):
            gain = f"**{gain}**"
    q = "< 0.001" if cell.q < 0.001 else _number(cell.q)
    items = (cell.asked_words or str(cell.n)) if cell.n else "–"
    numbers = (_number(base), _number(cell.value), gain, q, _number(majority), items)
    return f"| {escaped_markdown(cell.target)} | {escaped_markdown(cell.metric)} | {' | '.join(numbers)} |"


def _number(value: float) -> str:
    return f"{value:.3f}" if isfinite(value) else "–"


def _trait_lines(traits: Traits | None, source: str) -> list[str]:
    """Effects on the supported traits; silence where the data support none."""
    used = int(traits.n_components.get("used") or 0) if traits is not None else 0
    if traits is None or used == 0 or source not in traits.sources:
        return []
    s = traits.sources.index(source)
    lines = [
        f"{escaped_markdown(traits.names[c])} "
        + with_interval(traits.effects[s, c], traits.effects_low[s, c], traits.effects_high[s, c])
        for c in range(used)
        if isfinite(traits.effects[s, c])
    ]
    return (
        [f"Effects on the latent traits, in points with 95 % intervals: {'; '.join(lines)}.", ""]
        if lines
        else []
    )
