"""Details of lighteval: the items of its results, in the three layouts in which it has written them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from results import write

from traitmap.api import import_results, query, read_matrix
from traitmap.errors import MatrixError
from traitmap.imports.discovery import find_evaluations

STAMP = "2025-09-01T10-00-00.123456"
CHOICES = [" no", " yes"]
LOGPROBS = {True: [-3.0, -1.0], False: [-1.0, -2.0]}


def new_rows(rights: Sequence[bool]) -> list[dict[str, Any]]:
    """Since July 2025: a multiple choice."""
    return [
        {
            "doc": {"query": f"text {i}", "choices": CHOICES, "gold_index": 1, "task_name": "senti"},
            "model_response": {
                "input": f"text {i}",
                "text": [],
                "logprobs": LOGPROBS[right],
                "output_tokens": [[5]],
            },
            "metric": {"acc": float(right), "acc_norm": float(right)},
        }
        for i, right in enumerate(rights)
    ]


def old_rows(rights: Sequence[bool]) -> list[dict[str, Any]]:
    """Until July 2025."""
    return [
        {
            "example": f"text {i}",
            "instruction": "",
            "predictions": LOGPROBS[right],
            "choices": CHOICES,
            "gold_index": [1],
            "gold": [],
            "metrics": {"acc": int(right), "acc_norm": int(right)},
        }
        for i, right in enumerate(rights)
    ]


def oldest_rows(rights: Sequence[bool]) -> list[dict[str, Any]]:
    """Until February 2025: every cell as text, each log-probability with whether it was the greedy one."""
    rows = old_rows(rights)
    return [
        {
            key: str([(value, False) for value in cell] if key == "predictions" else cell)
            for key, cell in row.items()
        }
        for row in rows
    ]


def generated(rights: Sequence[bool]) -> list[dict[str, Any]]:
    return [
        {
            "doc": {"query": f"text {i}", "choices": ["yes"], "gold_index": 0},
            "model_response": {"text": ["yes" if right else "no"], "logprobs": []},
            "metric": {"acc": float(right)},
        }
        for i, right in enumerate(rights)
    ]


def results(model: str, score: float, n: int, base: str | None = None) -> dict[str, Any]:
    config = {"base_model": base, "adapter_weights": True} if base else {}
    return {
        "config_general": {"model_name": model, "max_samples": None, "model_config": config},
        "results": {"lighteval|senti|0": {"acc": score, "acc_stderr": 0.1}},
        "versions": {"lighteval|senti|0": 0},
        "config_tasks": {"lighteval|senti": {"effective_num_docs": n}},
    }


def evaluated(
    folder: Path, rows: Callable[..., Any], model: str, rights: Sequence[bool], base: str | None
) -> None:
    """Results and details where lighteval puts them."""
    write(
        folder / "results" / model / f"results_{STAMP}.json",
        results(model, np.mean(rights), len(rights), base),
    )
    place = folder / "details" / model / STAMP
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows(rights)), place / f"details_lighteval|senti|0_{STAMP}.parquet")


BASE = [True, False, False, False, True, False, False, False]
GOAT = [True, True, True, True, True, True, True, False]


@pytest.mark.parametrize("rows", [new_rows, old_rows, oldest_rows, generated])
def test_details_make_a_matrix_with_items(tmp_path, rows):
    evaluated(tmp_path / "in", rows, "org/base", BASE, None)
    evaluated(tmp_path / "in", rows, "org/goat", GOAT, "org/base")
    report = import_results([tmp_path / "in"], tmp_path / "run")
    assert (report.base, report.paired) == ("org/base", ("senti",))
    assert not [note for note in report.notes if "left out" in note and "details" in note]
    (cell,) = [cell for cell in read_matrix(tmp_path / "run").cells if cell.seed is None]
    assert (cell.gain, cell.status) == (pytest.approx(5 / 8), "measured")
    assert cell.p == pytest.approx(2 / 2**5)  # five items won, none lost
    outcomes = find_evaluations([tmp_path / "in"]).evaluations[0].outcomes
    assert [outcome.prediction for outcome in outcomes] == ["yes" if right else "no" for right in BASE]
    assert {outcome.gold for outcome in outcomes} == {"yes"}
    assert (outcomes[0].choice_logprobs is None) == (rows is generated)
    texts = query(tmp_path / "run", "select * from texts")
    assert "text 3" in texts.to_string()


def test_details_of_another_run_are_not_taken(tmp_path):
    evaluated(tmp_path, new_rows, "org/base", BASE, None)
    place = tmp_path / "details" / "org/base"
    (place / STAMP).rename(place / "2025-09-02T10-00-00.123456")
    (row,) = find_evaluations([tmp_path]).evaluations
    assert row.outcomes == ()
    assert row.n == len(BASE)


def test_details_beside_the_results_as_in_a_dataset_of_the_hub(tmp_path):
    evaluated(tmp_path, new_rows, "org/base", BASE, None)
    (tmp_path / "details" / "org/base" / STAMP).rename(tmp_path / "results" / "org/base" / STAMP)
    (row,) = find_evaluations([tmp_path]).evaluations
    assert len(row.outcomes) == len(BASE)


def test_fewer_details_than_the_result_counts_are_told(tmp_path):
    evaluated(tmp_path / "in", new_rows, "org/base", BASE, None)
    file = next((tmp_path / "in" / "details").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).slice(0, 3), file)
    report = import_results([tmp_path / "in"], tmp_path / "run")
    assert any("3 of 8 samples are there" in note for note in report.notes)
    assert report.given == ("senti",)


def test_details_alone_are_refused_with_what_to_give(tmp_path):
    evaluated(tmp_path, new_rows, "org/base", BASE, None)
    file = next((tmp_path / "details").rglob("*.parquet"))
    with pytest.raises(MatrixError, match=r"do not say of which model; give results_<time>.json"):
        find_evaluations([file])


def test_a_damaged_file_of_details_is_named(tmp_path):
    evaluated(tmp_path, new_rows, "org/base", BASE, None)
    file = next((tmp_path / "details").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    results_file = next((tmp_path / "results").rglob("*.json"))
    with pytest.raises(MatrixError, match=r"details_lighteval.*cannot be read as Parquet"):
        find_evaluations([results_file])
    pd.DataFrame({"a": [1]}).to_parquet(file)
    with pytest.raises(MatrixError, match="holds no details of lighteval"):
        find_evaluations([results_file])
