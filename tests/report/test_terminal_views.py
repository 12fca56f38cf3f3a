"""Views of the terminal: fit the width, carry the records' numbers, plain where they are piped."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
import simulated
import simulated_why as some
from rich.console import Console, RenderableType

from traitmap.analysis.recommendation.protocol import evaluate
from traitmap.analysis.verdicts import CellVerdict, Verdicts
from traitmap.data.check import SourcePreview
from traitmap.data.records import Example, Request, Segment
from traitmap.data.targets import LoadedTarget
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Interval
from traitmap.report.first_screen import explanation_lines, traits_lines
from traitmap.report.terminal import evaluation_view, explanation_view, matrix_view, traits_view
from traitmap.report.terminal_runs import check_preview, growth_view, spending_view, status_view
from traitmap.runs.cost import CostEstimate
from traitmap.runs.growth import Growth
from traitmap.runs.status import FailedUnit, RunStatus, Tally
from traitmap.wording import in_bytes, in_time


def printed(what: RenderableType, *, width: int = 80, terminal: bool = False, **options: object) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=terminal, **options).print(what)
    return out.getvalue()


def flat(text: str) -> str:
    """Without the line breaks of wrapping."""
    return " ".join(text.split())


def rows(text: str) -> dict[str, list[str]]:
    """Entries of every row, blocks joined."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        parts = re.split(r"\s{2,}|(?<=\d)\*?\s+(?=[+-])", line.strip())
        found.setdefault(parts[0], []).extend(parts[1:])
    return found


@pytest.mark.parametrize("width", [60, 80, 200])
def test_matrix_fits_and_is_whole(width: int) -> None:
    whole = simulated.matrix()
    text = printed(matrix_view(whole), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    found = rows(text)
    assert [float(v) for v in found["base"]] == pytest.approx(100 * whole.baseline, abs=0.0501)
    for s, source in enumerate(whole.sources):
        entries = re.findall(r"[+-]?\d+\.\d\*?", " ".join(found[source]))
        gains = [float(entry.rstrip("*")) for entry in entries]
        assert gains == pytest.approx(100 * whole.gains[s], abs=0.0501)


def test_marks_stand_where_q_is_small() -> None:
    whole = simulated.matrix(("a", "b"), ("a", "b"), items=50)
    for target, q in (("a", 0.049), ("b", 0.051)):
        whole = simulated.with_cell(whole, "a", target, q=q, gain=0.123)
    line = next(one for one in printed(matrix_view(whole)).splitlines() if one.startswith("a "))
    assert re.findall(r"\+12\.3\S*", line) == ["+12.3*", "+12.3"]


def test_unknown_cells_are_words() -> None:
    whole = simulated.failed(simulated.matrix(("a", "b"), ("a", "b"), items=30), "a", "b")
    text = printed(matrix_view(whole))
    assert "failed" in next(line for line in text.splitlines() if line.startswith("a "))
    no_base = TransferMatrix(("a",), ("b",), np.array([[0.5]]), np.array([nan]))
    assert "50.0" in printed(matrix_view(no_base))
    assert "scores in points: no base is known" in flat(printed(matrix_view(no_base)))
    partly = TransferMatrix(("a",), ("b", "c"), np.array([[0.5, 0.6]]), np.array([nan, 0.5]))
    assert "no base" in printed(matrix_view(partly))
    assert "no gain has a test" in flat(printed(matrix_view(partly)))


def test_direction_and_unit_are_told() -> None:
    whole = simulated.matrix(("a", "b"), ("loss_of_x", "b"), items=30)
    cells = tuple(replace(cell, metric="word_perplexity") for cell in whole.base_cells)
    whole = replace(whole, base_cells=cells, conditions={"higher_is_better": {"loss_of_x": False}})
    text = printed(matrix_view(whole))
    assert "(lower)" in text
    assert "word perplexity" in text


def test_piped_output_is_plain_and_terminal_output_is_not() -> None:
    whole = simulated.matrix()
    assert re.fullmatch(r"[ -~\n]*", printed(matrix_view(whole)))
    assert "\x1b[" in printed(matrix_view(whole), terminal=True, color_system="standard")
    quiet = printed(matrix_view(whole), terminal=True, color_system="standard", no_color=True)
    assert not re.search(r"\x1b\[[\d;]*3\d", quiet)


def test_names_with_brackets_are_not_markup() -> None:
    names = ("[bold]a[/bold]", "[/]")
    text = printed(matrix_view(simulated.matrix(names, names, items=20)))
    assert "[bold]a[/bold]" in text
    assert text.count("[/]") == 2


def test_traits_show_number_noise_intervals_and_warnings() -> None:
    whole = simulated.matrix()
    traits = simulated.traits(whole)
    text = printed(traits_view(traits))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert flat(text).startswith(
        "TRAITS 2 traits: cross-validation supports 2 components, parallel analysis 1."
    )
    assert len(traits_lines(traits)) <= 5
    best = whole.targets[int(np.argmax(np.abs(traits.loadings[:, 0])))]
    assert f": loads on {best}" in flat(text)
    t = whole.targets.index("stars")
    loading = (
        f"{traits.loadings[t, 0]:+.2f} [{traits.loadings_low[t, 0]:+.2f}, {traits.loadings_high[t, 0]:+.2f}]"
    )
    assert loading in text
    effect = (
        f"{traits.effects[0, 0]:+.1f} [{traits.effects_low[0, 0]:+.1f}, {traits.effects_high[0, 0]:+.1f}]"
    )
    assert effect in text
    assert "! PC1 is mostly one adapter: inference carries .71 of it.\n" in text
    assert "  Read it as a description of that adapter" in text
    none = printed(traits_view(simulated.traits(whole, used=0)))
    assert none.startswith("TRAITS     no trait above noise")
    assert "MOVED BY" not in none
    assert "effect in points" not in none


def test_an_explanation_opens_with_what_is_clean_and_names_what_is_not() -> None:
    found = some.explanation()
    odd = found.odd.odd[0]
    place = {
        "gain": Interval(odd.gain, -20, -5),
        "improvement": odd.gain,
        "unit": "points",
        "q": 0.01,
        "n": 9,
    }
    collapse = CellVerdict(odd.source, odd.target, "collapse", words="answers 'a'", **place)  # type: ignore
    known, unknown = (flat(printed(explanation_view(found, one))) for one in (Verdicts((collapse,)), None))
    opening = unknown.split(" - ")[0]
    assert len(explanation_lines(found, None)) <= 5
    assert "WHY pairs alike in output length gain more" in opening
    assert (
        "ODD 1 of 6 pairs depart from what surface similarity predicts; most of all sums -> reviews"
        in opening
    )
    assert "1 of 2 pairs of tasks are asymmetric beyond noise; most of all reviews -> sums" in opening
    assert "predicts, 1 of them by something else than skill ASYMMETRY" in known
    assert (
        "sums -> reviews: -12.5, predicted +1.5; departs by -14.0 [-16.0, -12.0], q .004; ■ collapse" in known
    )
    reverse = replace(collapse, source="sums", target="reviews")
    assert "asymmetric beyond noise, 1 of them" in flat(
        printed(explanation_view(found, Verdicts((reverse,))))
    )


def status(**changes: object) -> RunStatus:
    failure = FailedUnit("goat", 0, None, "diverged at step 12; lower learning_rate")
    whole = RunStatus(
        name="mini",
        folder="runs/mini",
        base="4f1c",
        adapters=Tally(18, 1, 3),
        cells=Tally(200, 11, 40),
        failures=(failure, FailedUnit("sst2", 1, "mnli", "out of memory")),
        bytes=12_300_000,
        running=None,
    )
    return replace(whole, **changes)


def test_status_counts_and_says_what_to_do() -> None:
    text = printed(status_view(status()))
    assert re.search(r"adapters +18 +1 +3", text)
    assert re.search(r"cells +200 +11 +40", text)
    assert "! goat seed 0, training: diverged at step 12" in text
    assert "! sst2 seed 1 on mnli: out of memory" in text
    assert "55 units to do" in text
    assert "process 42" in printed(status_view(status(running=42)))
    assert "part" not in text
    budget = printed(status_view(status(cells=Tally(0, 0, 40), partial=Tally(12, 1, 2))))
    assert re.search(r"not done, but in part +12 +1 +2", budget)
    assert "12 cells of these partly measured" in " ".join(budget.split())
    done = status(adapters=Tally(2, 0, 0), cells=Tally(9, 0, 0), failures=())
    assert printed(status_view(done)).rstrip().endswith("Complete.")


def test_check_shows_text_labels_requests_and_cost() -> None:
    example = Example((Segment("Review: [fine]\nMood:", False), Segment(" positive", True)), "positive")
    long = Example((Segment("x" * 5000, True),))
    sources = [
        SourcePreview("reviews", 2, 10, {"positive": 2}, (example, long), ("2 of 2 repeat",), None),
        SourcePreview("ready", 0, 0, {}, (), (), Path("adapters/ready")),
    ]
    requests = (
        Request("loglikelihood", "Sky is", " blue", item=0),
        Request("loglikelihood", "Sky is", " red", item=0),
        Request("loglikelihood", "Sea is", " wet", item=1),
    )
    target = LoadedTarget(
        name="sky",
        task="sky_task",
        version="1",
        kind="multiple_choice",
        metric="acc",
        filter="none",
        higher_is_better=True,
        requests=requests,
        n_items=2,
        digest="d",
        chance=0.5,
        majority=nan,
        tags=(),
        choices=None,
        conditions={},
        _task=None,
        _items=(),
    )
    estimate = CostEstimate(1.0, 1.0, 0.0, 400.0, 2_500_000.0, True)
    text = printed(check_preview(sources=sources, targets=[target], adapters=1, cells=1, estimate=estimate))
    assert "Review: [fine]" in text
    assert "Mood:‹ positive›" in text
    assert "labels: 'positive' 2" in text
    assert "2 of 10" in text
    assert "! 2 of 2 repeat" in text
    assert "4,301 characters" in flat(text)
    assert "adapter as it is: adapters/ready" in text
    assert "‹ blue› or ‹ red›" in text
    assert "wet" not in text
    assert (
        "train 1 adapter on 1 tokens, evaluate 1 cell of 1 tokens; about 7 min and 2.5 MB (measured"
        in flat(text)
    )


def test_sizes_and_times() -> None:
    assert [in_bytes(v) for v in (12, 3200, 250_000, 4.2e9, 7e13, nan)] == [
        "12 B",
        "3.2 kB",
        "250 kB",
        "4.2 GB",
        "70.0 TB",
        "–",
    ]
    assert [in_time(v) for v in (40, 400, 12_000, nan)] == ["40 s", "7 min", "3.3 h", "–"]


def test_every_model_of_an_evaluation_is_shown_and_the_chosen_one_with_intervals() -> None:
    values = np.random.default_rng(0).uniform(size=(6, 6))
    result = evaluate(TransferMatrix(tuple("abcdef"), tuple("uvwxyz"), values, np.full(6, 0.5)))
    text = printed(evaluation_view(result), width=100)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert lines.keys() >= result.models.keys()
    for name, metrics in result.models.items():
        assert f"{metrics['ndcg'].value:.1f}" in lines[name]
        assert f"{metrics['spearman'].value:.2f}" in lines[name]
    chosen, difference = (part[result.chosen]["regret@1"] for part in (result.models, result.differences))
    assert f"{chosen.low:.1f} to {chosen.high:.1f}" in lines["Regret@1"]
    assert f" {difference.value:.1f} " in lines["Regret@1"]
    narrow = printed(evaluation_view(result), width=60)
    assert all(len(line) <= 60 for line in narrow.splitlines())
    assert all(name in flat(narrow) for name in ("NDCG@3", "Regret@3", "covered"))


def test_what_a_larger_matrix_takes_is_shown_with_units() -> None:
    growth = Growth(
        adapters=100,
        targets=20,
        items=250.0,
        workers=8,
        group_size=4,
        hours=1.25,
        unlucky_hours=2.5,
        worker_hours=8.0,
        busy=0.8,
        disk=2.5e9,
        object_store=nan,
        moved=1e6,
        measured=False,
        said=("seconds: assumed",),
    )
    text = printed(growth_view(growth))
    entries = rows(text)
    assert entries["cells, the base's among them"] == ["2,020"]
    assert entries["outcomes"] == ["505,000"]
    assert entries["workers are busy"] == ["80 %"]
    assert entries["disk"] == ["2.5 GB"]
    assert entries["object store, at most"] == ["–"]
    assert "seconds: assumed" in text
    assert "run it with --group-size 4." in text
    assert "--group-size" not in printed(growth_view(replace(growth, group_size=1)))


def test_a_budget_is_shown_beside_the_whole_price() -> None:
    spent = {
        "adapters": (2, 8),
        "cells": (10, 40),
        "items": {"stars": (50, 100), "sums": (100, 200)},
        "training": (1e5, 4e5),
        "evaluation": (3e5, 0.0),
        "rounds": (("reviews",), (), ("sums", "stars")),
        "seconds": 12.4,
        "reason": "",
    }
    text = printed(spending_view(spent))
    entries = rows(text)
    assert entries["adapters"] == ["2", "8", "25.0 %"]
    assert entries["items of a cell, mean"] == ["75", "150", "50.0 %"]
    assert entries["evaluation tokens"] == ["300,000", "0", "–"]
    assert "the cheapest trained first: reviews; sums, stars." in flat(text)
    assert "The other cells are predicted" in text
    assert "Nothing is predicted: too few." in printed(spending_view({**spent, "reason": "too few"}))


@pytest.mark.parametrize("width", [60, 200])
def test_intervals_stand_behind_the_gains_when_asked_for(width: int) -> None:
    whole = simulated.matrix()
    text = printed(matrix_view(whole, intervals=True), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    shown = re.findall(r"([+-]?\d+\.\d) \[([+-]?\d+\.\d), ([+-]?\d+\.\d)\]", text)
    known = [cell for cell in whole.cells if cell.seed is None and np.isfinite(cell.gain_low)]
    assert len(shown) == len(known)
    told = {tuple(float(number) for number in numbers) for numbers in shown}
    for cell in known:
        ends = (100 * cell.gain, 100 * cell.gain_low, 100 * cell.gain_high)
        assert any(np.allclose(ends, numbers, atol=0.0501) for numbers in told)
    assert "[" not in printed(matrix_view(whole), width=200)


def test_a_csv_with_intervals_is_the_long_table_and_reads_back(tmp_path: Path) -> None:
    whole = simulated.matrix()
    whole.to_csv(tmp_path / "long.csv", intervals=True)
    header = (tmp_path / "long.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"source", "target", "gain", "gain_low", "gain_high", "q"} <= set(header)
    again = read_matrix(tmp_path / "long.csv")
    assert again.sources == whole.sources
    assert np.allclose(again.values, whole.values, equal_nan=True)
    assert np.allclose(again.gains, whole.gains, equal_nan=True)
    before = {(cell.source, cell.target): cell.gain_low for cell in whole.cells if cell.seed is None}
    after = {(cell.source, cell.target): cell.gain_low for cell in again.cells if cell.seed is None}
    assert before.keys() == after.keys()
    assert np.allclose(list(before.values()), [after[place] for place in before], equal_nan=True)
