"""A run whose training texts hold test items says so: in folder, matrix, terminal and report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from small_study import loaded_source, sources, study, targets
from traitmap.api.runs import contamination_in, contamination_of, keep_contamination
from traitmap.data.sources import LoadedSource
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.matrix.build import build_matrix
from traitmap.matrix.reading import touched_cells
from traitmap.report.page import render_report
from traitmap.report.records import ReportContents
from traitmap.report.terminal import matrix_view
from traitmap.report.terminal_runs import overlap_warning
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_contamination
from traitmap.runs.store import RunStore


def leaking(folder: Path) -> tuple[LoadedSource, ...]:
    """The small study's sources; the reviews hold three test items, one of them twice."""
    asked = study(folder, seeds=(0,))
    first, *rest = sources(asked)
    items = [(text.input, text.output) for text in targets()[0].texts()]
    rows = [(one.prompt, one.completion.strip()) for one in first.examples if one.prompt not in dict(items)]
    leaked = loaded_source(first.name, [*rows, *items[:3], items[0]], asked.training)
    return (leaked, *rest)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    folder = tmp_path_factory.mktemp("leaking")
    asked = study(folder, seeds=(0,))
    store = execute(asked, FakeEngine(), leaking(folder), targets())
    keep_contamination(store.folder, leaking(folder), targets())
    return store


def printed(what: object) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_the_run_keeps_what_was_found(finished: RunStore, tmp_path: Path) -> None:
    found = contamination_in(finished.folder)
    assert found == contamination_of(leaking(tmp_path), targets())
    assert found is not None
    one = found.of("reviews", "reviews")
    assert one is not None
    assert set(one.touched) >= {0, 1, 2}
    assert one.exact >= 3
    assert found.of("reviews", "topics") is None
    assert "reviews -> reviews" in overlap_warning(one)


def test_the_same_texts_are_compared_once(finished: RunStore, tmp_path: Path) -> None:
    place = finished.folder / "contamination.json"
    before = place.stat().st_mtime_ns
    keep_contamination(finished.folder, leaking(tmp_path), targets())
    assert place.stat().st_mtime_ns == before
    first, *rest = leaking(tmp_path)
    clean = replace(first, examples=first.examples[:5], digest="other")
    keep_contamination(finished.folder, [clean, *rest], targets())
    assert place.stat().st_mtime_ns != before
    keep_contamination(finished.folder, leaking(tmp_path), targets())


def test_matrix_terminal_and_report_are_marked(finished: RunStore) -> None:
    matrix = build_matrix(finished)
    told = touched_cells(matrix.conditions)
    assert ("reviews", "reviews") in told
    assert ("reviews", "topics") not in told
    conditions = matrix.to_json()["conditions"]["contamination"]
    assert {(one["source"], one["target"]) for one in conditions} == told.keys()
    assert all(0 < one["share"]["value"] <= 1 for one in conditions)
    lines = printed(matrix_view(matrix)).splitlines()
    row = next(line for line in lines if line.startswith("reviews"))
    assert "!" in row
    assert "! test items occur in the training data" in " ".join(" ".join(lines).split())
    page = render_report(ReportContents(matrix, None, matrix.conditions))
    assert page.count('class="touched') == len(told)
    assert "A folded corner marks cells" in page
    assert "How much is recall in" in page


def test_a_run_without_overlap_has_no_marks(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = execute(asked, FakeEngine(), sources(asked)[2:3], targets()[2:3])
    assert contamination_in(store.folder) is None
    assert build_matrix(store).conditions["contamination"] is None
    keep_contamination(store.folder, sources(asked)[2:3], targets()[2:3])
    assert build_matrix(store).conditions["contamination"] == []
    text = printed(matrix_view(build_matrix(store)))
    assert "!" not in text


@pytest.mark.parametrize("content", ["no json", "[]", '{"overlaps": 3}'])
def test_a_damaged_file_says_how_to_mend_it(tmp_path: Path, content: str) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = execute(asked, FakeEngine(), sources(asked)[2:3], targets()[2:3])
    (store.folder / "contamination.json").write_text(content)
    with pytest.raises(RunError, match=r"remove it|compares again"):
        read_contamination(store)
    keep_contamination(store.folder, sources(asked)[2:3], targets()[2:3])
    assert contamination_in(store.folder) is not None
