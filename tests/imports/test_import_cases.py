"""Results that were once read wrong in silence: each case with its right value, and siblings of its kind."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import pytest
from results import STAMP, inspect, lm_eval, write

from traitmap.errors import MatrixError
from traitmap.imports.columns import Imported, arrange
from traitmap.imports.discovery import find_evaluations
from traitmap.imports.reading import sortable_date
from traitmap.imports.writing import write_imported
from traitmap.matrix.build import build_matrix

CASES = Path(__file__).parent / "cases"


def case(name: str, pattern: str = "*", **asked: Any) -> Imported:
    (folder,) = CASES.glob(f"{name}_*")
    results = find_evaluations(sorted(folder.glob(pattern)))
    imported = arrange(results.evaluations, **asked)
    return Imported(imported.base, imported.sources, imported.columns, (*results.notes, *imported.notes))


def values(imported: Imported) -> dict[str, float]:
    (column,) = imported.columns
    return {name: row.value for (name, _), row in column.rows.items()}


def model(folder: Path, name: str, score: float, arguments: dict[str, Any], date: float = 1.75e9) -> None:
    config = {"model": "hf", "model_args": arguments, "limit": None}
    write(folder / f"{name}.json", lm_eval(score=score, config=config, date=date))


class TestWhoIsIt:
    def test_revisions_of_one_model_are_rows_of_their_own(self) -> None:
        assert values(case("01")) == {
            "kestrel-90m-step1000": 0.31,
            "kestrel-90m-step50": 0.25,
            "kestrel-90m-step9000": 0.62,
        }

    def test_a_model_without_pretrained_is_named_by_what_it_loads(self) -> None:
        assert values(case("02")) == {"kestrel-90m-1000": 0.3, "kestrel-90m-9000": 0.6}

    @pytest.mark.parametrize(
        ("one", "other", "names"),
        [
            ({}, {"load_in_4bit": True}, {"base", "base-load_in_4bit"}),
            ({"subfolder": "a/x"}, {"subfolder": "a/y"}, {"base-x", "base-y"}),
            ({"gguf_file": "q4.gguf"}, {"gguf_file": "q8.gguf"}, {"base-q4.gguf", "base-q8.gguf"}),
            ({}, {"base_url": "http://h:1/v1"}, {"base", "base-base_url-v1"}),
            ({"revision": "main"}, {"revision": "v2"}, {"base", "base-v2"}),
        ],
    )
    def test_whatever_tells_two_models_apart_names_them(
        self, tmp_path: Path, one: dict[str, Any], other: dict[str, Any], names: set[str]
    ) -> None:
        model(tmp_path, "a", 0.25, {"pretrained": "org/base", **one})
        model(tmp_path, "b", 0.5, {"pretrained": "org/base", **other}, date=1.76e9)
        imported = arrange(find_evaluations([tmp_path]).evaluations)
        assert set(values(imported)) == names

    def test_how_fast_a_model_is_computed_makes_no_other_model(self, tmp_path: Path) -> None:
        model(tmp_path, "a", 0.25, {"pretrained": "org/base", "batch_size": 8, "device": "cuda:0"})
        model(tmp_path, "b", 0.5, {"pretrained": "org/base", "revision": "main"}, date=1.76e9)
        imported = arrange(find_evaluations([tmp_path]).evaluations)
        assert values(imported) == {"base": 0.5}
        assert any("is later" in note for note in imported.notes)

    def test_without_a_date_no_result_is_the_later_one(self, tmp_path: Path) -> None:
        for name, score in (("a", 0.25), ("b", 0.5)):
            write(tmp_path / f"{name}.json", lm_eval(score=score))
        with pytest.raises(MatrixError, match="no date tells which is later"):
            arrange(find_evaluations([tmp_path]).evaluations)

    def test_a_base_of_several_variants_is_asked_for(self, tmp_path: Path) -> None:
        model(tmp_path, "a", 0.25, {"pretrained": "org/base", "revision": "one"})
        model(tmp_path, "b", 0.5, {"pretrained": "org/base", "revision": "two"})
        model(tmp_path, "c", 0.75, {"pretrained": "org/base", "peft": "x/owl"})
        evaluations = find_evaluations([tmp_path]).evaluations
        with pytest.raises(MatrixError, match=r"revision=one; revision=two.*--base org/base@VALUE"):
            arrange(evaluations)
        imported = arrange(evaluations, base="base@two", allow=["revision"])
        assert values(imported) == {"base-one": 0.25, "__baseline__": 0.5, "owl": 0.75}

    def test_an_adapter_is_compared_with_its_base_under_the_same_weights_only(self, tmp_path: Path) -> None:
        model(tmp_path, "a", 0.25, {"pretrained": "org/base"})
        model(tmp_path, "b", 0.5, {"pretrained": "org/base", "peft": "x/owl", "load_in_4bit": True})
        evaluations = find_evaluations([tmp_path]).evaluations
        with pytest.raises(MatrixError, match="load_in_4bit differs"):
            arrange(evaluations)
        assert values(arrange(evaluations, allow=["load_in_4bit"])) == {"__baseline__": 0.25, "owl": 0.5}

    def test_lighteval_dates_stand_in_file_names(self) -> None:
        imported = case("05")
        assert values(imported) == {"owl": 0.7}
        assert any("2025-01-02" in note.split("since")[0] for note in imported.notes)


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("2025-01-02T03-04-05.678901", "2025-01-02T03:04:06"),
        (1735787045.0, "2025-01-02T03-04-06.5"),
        ("1735787045", "20250102_030406"),
        ("2025-01-02T05:04:05+02:00", "2025-01-02T03:04:06Z"),
    ],
)
def test_dates_of_different_forms_sort_by_time(early: Any, late: Any) -> None:
    assert "" < sortable_date(early) < sortable_date(late)


@pytest.mark.parametrize("value", [None, "", 900.0, "soon", True, {"a": 1}, 1e30])
def test_what_names_no_moment_is_no_date(value: Any) -> None:
    assert sortable_date(value) == ""


class TestWhichWayHowManyOnWhichScale:
    def test_lighteval_says_which_way_is_better_and_how_many(self) -> None:
        (column,) = case("04", base="base").columns
        assert {row.higher_is_better for row in column.rows.values()} == {False}
        assert {row.n for row in column.rows.values()} == {62}

    def test_lighteval_with_other_numbers_of_documents_is_refused(self) -> None:
        with pytest.raises(MatrixError, match=r"n differs \(1319 for __baseline__; 100 for owl\)"):
            case("06", base="base")

    def test_opencompass_perplexity_falls_and_a_dash_is_missing(self, tmp_path: Path) -> None:
        matrix = build_matrix(write_imported(case("07", base="m-base"), tmp_path / "run"))
        cells = {cell.target: cell for cell in matrix.cells if cell.source == "m-tuned"}
        assert matrix.higher_is_better == {"wikitext-2": False, "ceval-test": True, "hellaswag": True}
        assert cells["wikitext-2"].value - cells["wikitext-2"].gain == pytest.approx(12.5)
        assert cells["ceval-test"].gain == pytest.approx(3.9)
        assert cells["hellaswag"].status == "missing"
        assert isnan(cells["hellaswag"].value)

    @pytest.mark.parametrize("suffix", [".txt", ".md"])
    def test_opencompass_summaries_are_read_in_every_form(self, tmp_path: Path, suffix: str) -> None:
        if suffix == ".md":
            table = "| dataset | version | metric | mode | heron-7b |\n|---|---|---|---|---:|\n"
            table += "| sums | 1d7fe4 | accuracy | gen | 65.62 |\n"
            path = write(tmp_path / "summary_20250101_000000.md", table)
            imported = arrange(find_evaluations([path]).evaluations)
        else:
            imported = case("08")
        assert values(imported) == {"heron-7b": 65.62}
        assert imported.columns[0].metric == "accuracy"

    def test_one_evaluation_on_two_scales_is_brought_to_one(self) -> None:
        imported = case("09", base="base")
        assert values(imported) == pytest.approx({"__baseline__": 0.41, "owl": 0.455})
        assert any("brought to 0 to 1" in note for note in imported.notes)

    def test_shares_and_percents_in_one_column_are_refused(self, tmp_path: Path) -> None:
        model(tmp_path, "a", 0.41, {"pretrained": "org/base"})
        model(tmp_path, "b", 45.5, {"pretrained": "org/base", "peft": "x/owl"})
        with pytest.raises(MatrixError, match=r"scale differs \(\"0 to 1\" for __baseline__; \"0 to 100\""):
            arrange(find_evaluations([tmp_path]).evaluations)

    @pytest.mark.parametrize("metric", ["bleu", "rouge1", "wer"])
    def test_a_small_value_of_such_a_metric_tells_no_scale(self, tmp_path: Path, metric: str) -> None:
        for name, score in (("a", 0.9), ("b", 1.3)):
            arguments = {"pretrained": "org/base", **({"peft": "x/owl"} if name == "b" else {})}
            content = lm_eval(results={"senti": {f"{metric},none": score}}, higher_is_better={})
            content["config"]["model_args"] = arguments
            write(tmp_path / f"{name}.json", content)
        imported = arrange(find_evaluations([tmp_path]).evaluations)
        assert values(imported) == {"__baseline__": 0.9, "owl": 1.3}

    def test_samples_that_broke_off_change_neither_number_nor_status(self, tmp_path: Path) -> None:
        imported = case("03")
        (column,) = imported.columns
        assert not column.paired
        assert {row.n for row in column.rows.values()} == {40}
        assert sum("12 of 40 samples" in note for note in imported.notes) == 2
        (cell,) = [
            cell
            for cell in build_matrix(write_imported(imported, tmp_path / "run")).cells
            if cell.source == "owl" and cell.seed is None
        ]
        assert (cell.status, cell.n) == ("given", 40)
        assert cell.gain == pytest.approx(0.1)

    def test_an_assumed_direction_is_told(self, tmp_path: Path) -> None:
        content = lm_eval(higher_is_better={}, results={"senti": {"sparkle,none": 0.5}})
        write(tmp_path / "a.json", content)
        notes = arrange(find_evaluations([tmp_path]).evaluations).notes
        assert any("sparkle" in note and "higher is assumed" in note for note in notes)


class TestAskedAlikeAndTold:
    def test_prompts_that_differ_are_refused(self) -> None:
        with pytest.raises(MatrixError, match=r"(?s)fewshot_as_multiturn differs.*task_hash differs"):
            case("14")

    def test_the_metric_and_its_alternatives_are_told(self) -> None:
        notes = case("15").notes
        assert any(
            note.startswith("metric bleu_max,none (also there: bleu_acc,none, acc,none") for note in notes
        )

    def test_one_bad_file_of_a_folder_is_left_out_and_told(self) -> None:
        imported = case("13")
        assert values(imported) == {"owl": 0.6, "__baseline__": 0.5}
        assert any(note.startswith("left out: ") and "not an object" in note for note in imported.notes)

    def test_a_pointer_of_git_lfs_is_called_what_it_is(self, tmp_path: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
        bad = write(tmp_path / f"results_{STAMP}.json", pointer)
        with pytest.raises(MatrixError, match=r"Git LFS pointer.*git lfs pull"):
            find_evaluations([bad])
        table = write(tmp_path / "table.csv", pointer)
        with pytest.raises(MatrixError, match="Git LFS pointer"):
            find_evaluations([table])
        write(tmp_path / "good.json", lm_eval())
        notes = find_evaluations([tmp_path]).notes
        assert sum("Git LFS pointer" in note for note in notes) == 2


def test_partial_credit_of_inspect_ai_is_half_and_neither_right_nor_wrong(tmp_path: Path) -> None:
    write(tmp_path / "log.json", inspect(values=("C", "P", "I", "N")))
    (column,) = arrange(find_evaluations([tmp_path]).evaluations).columns
    (row,) = column.rows.values()
    assert [outcome.score for outcome in row.outcomes] == [1.0, 0.5, 0.0, 0.0]
    assert [outcome.correct for outcome in row.outcomes] == [True, None, False, False]
    assert not column.binary
