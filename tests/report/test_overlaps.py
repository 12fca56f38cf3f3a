"""What a reader is told of test items in training texts: each pair with its closest copy, no markup."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from traitmap.analysis.contamination import Contamination, ItemOverlap, find_contamination
from traitmap.data.texts import TaskText
from traitmap.matrix.reading import touched_cells
from traitmap.report.terminal_runs import check_preview, overlap_warning
from traitmap.runs.cost import CostEstimate

ITEMS = [f"item {word} [b]stands[/b] here" for word in ("one", "two", "three", "four")]
FOUND = find_contamination(
    {"leaky": [TaskText(one, "yes") for one in ITEMS[:2]], "clean": [TaskText("other words", "yes")]},
    {"asked": [TaskText(one, "yes") for one in ITEMS]},
)


def printed(found: Contamination | None) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        estimate = CostEstimate(1.0, 1.0, 0.0, 400.0, 2_500_000.0, True)
        console.print(
            check_preview(sources=(), targets=(), adapters=1, cells=1, estimate=estimate, contamination=found)
        )
    return " ".join(capture.get().split())


def test_check_warns_of_every_touched_pair_and_shows_a_copy() -> None:
    text = printed(FOUND)
    assert "! leaky -> asked: 2 items of 4 (50 %, 95 %: 15 % to 85 %) in the training texts: 2 equal" in text
    assert "2 of them below eight words" in text
    assert "item one [b]stands[/b] here" in text
    assert "clean -> asked" not in text


def test_check_says_that_nothing_was_found_and_is_silent_where_nothing_was_looked_for() -> None:
    assert "No item of a target occurs in the training data." in printed(replace(FOUND, overlaps=()))
    assert "training texts" not in printed(None)


def test_few_touched_items_are_said_to_be_few() -> None:
    (one,) = FOUND.overlaps
    few: ItemOverlap = replace(one, items=1000, touched=(0,), exact=1)
    assert "too few to move a gain by a point" in overlap_warning(few)
    assert "too few" not in overlap_warning(one)


def test_a_matrix_without_comparison_has_no_touched_cells() -> None:
    assert touched_cells({}) == {}
    assert touched_cells({"contamination": None}) == {}
