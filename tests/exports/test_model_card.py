"""The section of a card says what the matrix says, and leaves the rest of the card alone."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import metadata
from math import nan
from pathlib import Path

import numpy as np
import pytest

from planted import answered
from traitmap.errors import MatrixError
from traitmap.exports.model_card import card_section, update_card
from traitmap.matrix.record import Cell, TransferMatrix


def cell(target: str, gain: float, q: float, status: str = "measured") -> Cell:
    return Cell(
        source="ours", target=target, seed=None, metric="acc", value=0.5 + gain, n=100, stderr=0.01,
        gain=gain, gain_low=gain - 0.1, gain_high=gain + 0.1, p=q, q=q, unparsed=0.0, status=status,
    )  # fmt: skip


MATRIX = TransferMatrix(
    sources=("ours",),
    targets=("up", "down", "loss", "guess", "gone"),
    values=np.array([[0.7, 0.3, 0.7, 0.9, nan]]),
    baseline=np.array([0.5, 0.5, 0.5, 0.5, 0.5]),
    cells=(
        cell("up", 0.2, 0.01),
        cell("down", -0.2, 0.3),
        cell("loss", 0.2, 0.01),
        cell("guess", 0.4, nan, "predicted"),
        cell("gone", nan, nan, "missing"),
    ),
    conditions={"base": "org/base", "higher_is_better": {"loss": False}},
)


def test_it_counts_by_direction_and_significance_and_marks_what_is_predicted() -> None:
    section = card_section(MATRIX, "ours")
    assert "1 significantly better, 1 significantly worse, 1 cannot be told apart" in section
    assert "2 not known" in section
    assert "| up | acc | 0.500 | 0.700 | **+0.200 [+0.100, +0.300]** | 0.010 | – | 100 |" in section
    assert "+0.400 (predicted)" in section
    assert "| gone | acc | 0.500 | – | – | – | – | 100 |" in section


def test_an_unknown_source_is_told_which_there_are() -> None:
    with pytest.raises(MatrixError, match="no source 'theirs'; the sources are ours"):
        card_section(MATRIX, "theirs")


def test_the_rest_of_a_card_stays(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("---\nlibrary_name: peft\n---\n# Mine\n", encoding="utf-8")
    update_card(card, "first")
    update_card(card, "second")
    text = card.read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: peft\n---\n# Mine\n")
    assert "second" in text
    assert "first" not in text
    assert text.count("traitmap: start") == 1
    assert "only" in update_card(tmp_path / "new.md", "only").read_text(encoding="utf-8")


def test_the_card_names_the_tool_with_its_version_and_the_addresses_of_the_package() -> None:
    last = card_section(MATRIX, "ours").splitlines()[-1]
    about = metadata("traitmap")
    assert f"traitmap {about['Version']}" in last
    for url in about.get_all("Project-URL") or ():
        assert url.split(", ", 1)[1] in last


HOSTILE = (
    "<script>alert(1)</script>",
    "<!--",
    "a|b",
    "c`d",
    "e\u202ef",
    "__g__",
    "h\n# i",
    "[j](javascript:k)",
    "<!-- traitmap: end -->",
    "https://l.example",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_a_card_are_text_whatever_they_hold(name: str) -> None:
    """As the report does; a name stays in its cell and hides nothing after it."""
    hostile = replace(
        MATRIX,
        sources=tuple(name if source == "ours" else source for source in MATRIX.sources),
        targets=(name, *MATRIX.targets[1:]),
        cells=tuple(
            replace(
                cell,
                source=name if cell.source == "ours" else cell.source,
                target=name if cell.target == MATRIX.targets[0] else cell.target,
            )
            for cell in MATRIX.cells
        ),
        conditions={**MATRIX.conditions, "base": name},
    )
    section, plain = card_section(hostile, name), card_section(MATRIX, "ours")
    assert len(section.splitlines()) == len(plain.splitlines())
    for line, other in zip(section.splitlines(), plain.splitlines(), strict=True):
        assert line.count("|") == other.count("|")
        assert line.count("`") <= other.count("`")
    for sign in ("<script", "<!--", "\u202e", "](j", "| __", "| https://"):
        assert sign not in section


def test_a_merge_and_a_checkpoint_say_what_they_come_from() -> None:
    made = {
        "kept": {"kind": "checkpoint", "parents": ["a"], "dose": 30.0, "parent_dose": 90.0},
        "both": {
            "kind": "merge",
            "parents": ["kept", "a"],
            "changes": {"merge": {"kept": 0.6, "a": -0.4}, "method": "ties", "density": 0.5},
        },
    }
    matrix = answered(np.full((3, 1), 0.5), np.array([0.4]), items=30)
    names = ("a", "kept", "both")
    cells = tuple(replace(cell, source=names[int(cell.source[-1])]) for cell in matrix.cells)
    told = {name: {"variation": made.get(name)} for name in names}
    matrix = replace(matrix, sources=names, cells=cells, conditions={"sources": told})
    assert "as it was after 30 of 90 optimizer steps." in card_section(matrix, "kept")
    merged = card_section(matrix, "both")
    assert (
        "It is a merge of `kept` (0.6) and `a` (-0.4) by PEFT's `add_weighted_adapter`: method ties" in merged
    )
    assert "It is" not in card_section(matrix, "a")
