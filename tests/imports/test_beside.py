"""What lies beside an adapter: results of two harnesses, told with whose they are, by what, and how sure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from results import inspect, lm_eval, write

from traitmap.imports.beside import found_beside


def test_results_of_both_harnesses_are_told_with_metric_error_items_and_model(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "2026-01-02_tiny.json", inspect(values=("C", "I", "C", "C")))
    write(tmp_path / "eval" / "org__base" / "results_2026-01-02T00-00-00.json", lm_eval(None, 0.25))
    write(tmp_path / "checkpoint-5" / "results_2026-01-02T00-00-00.json", lm_eval(None, 0.5))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    told = found_beside(tmp_path)
    assert len(told) == len({*told})
    (of_inspect,) = (words for words in told if words.startswith("inspect_ai"))
    assert of_inspect == (
        "inspect_ai: tiny accuracy (match) 0.750 ± 0.100, 4 items (of vllm/base, 2026-01-02_tiny.json)"
    )
    of_lm_eval = [words for words in told if words.startswith("lm-evaluation-harness")]
    assert of_lm_eval
    assert all("0.250" in words for words in of_lm_eval)  # a checkpoint's results are the checkpoint's


def test_a_log_that_failed_is_no_result(tmp_path: Path) -> None:
    write(tmp_path / "log.json", inspect(status="error"))
    assert found_beside(tmp_path) == ()


@pytest.mark.shared
def test_a_real_log_of_inspect_says_the_same_as_json_and_as_archive(shared: Path, tmp_path: Path) -> None:
    for file in (shared / "fixtures" / "inspect_ai_0.3.285_success").iterdir():
        shutil.copy(file, tmp_path)
    told = found_beside(tmp_path)
    assert [words.split(" (of ")[0] for words in told] == [
        "inspect_ai: tiny accuracy (match) 0.000 ± 0.000, 2 items"
    ] * 2
    assert all("of mockllm/model, 2026-" in words for words in told)
