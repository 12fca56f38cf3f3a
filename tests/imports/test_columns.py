"""Columns that may be compared: the base found, names short, differences refused, statistics paired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import results

import traitmap as tm
from traitmap.api.exchange import import_results
from traitmap.api.subject import read_matrix
from traitmap.errors import MatrixError, RunError
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts

BASE = [True, True, False, False, True, False, True, False]
BETTER = [True] * 8
WORSE = [False] * 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return results.lm_eval_folder(
        tmp_path / "results", {None: BASE, "store/adapters/good": BETTER, "store/adapters/bad": WORSE}
    )


def test_samples_give_paired_statistics(folder: Path, tmp_path: Path) -> None:
    report = import_results([folder], tmp_path / "run")
    assert (report.base, set(report.sources)) == ("org/base", {"good", "bad"})
    assert report.paired == ("senti",)
    matrix = read_matrix(tmp_path / "run")
    cells = {cell.source: cell for cell in matrix.cells if cell.seed is None}
    assert cells["good"].gain == pytest.approx(0.5)
    assert cells["good"].p == pytest.approx(0.125)  # exact McNemar: 4 wins, no loss
    assert cells["good"].gain_low > -0.05
    assert cells["bad"].gain == pytest.approx(-0.5)
    assert matrix.baseline[0] == pytest.approx(0.5)
    assert matrix.item_scores["senti"].shape == (3, 1, 8)


def test_without_samples_values_stand_and_nothing_is_tested(folder: Path, tmp_path: Path) -> None:
    for file in folder.rglob("samples_*"):
        file.unlink()
    report = import_results([folder], tmp_path / "run")
    assert report.given == ("senti",)
    matrix = read_matrix(tmp_path / "run")
    good = next(cell for cell in matrix.cells if cell.source == "good")
    assert (good.status, good.value, good.n, good.stderr) == ("given", 1.0, 4, 0.25)
    assert good.gain == pytest.approx(0.5)
    assert np.isnan([good.gain_low, good.p]).all()
    assert "without items" in good.reason


def test_a_table_is_written_by_its_suffix(folder: Path, tmp_path: Path) -> None:
    import_results([folder], tmp_path / "matrix.csv")
    import_results([folder], tmp_path / "matrix.parquet")
    wide, long = read_matrix(tmp_path / "matrix.csv"), read_matrix(tmp_path / "matrix.parquet")
    assert set(wide.sources) == set(long.sources) == {"good", "bad"}
    assert np.allclose(wide.baseline, [0.5])
    np.testing.assert_allclose(sorted(wide.values[:, 0]), sorted(long.values[:, 0]))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"n-shot": {"senti": 5}}, "num_fewshot"),
        ({"config": {"model": "hf", "model_args": "pretrained=org/base,peft=a/b", "limit": 10}}, "limit"),
        ({"versions": {"senti": 2.0}}, "version"),
        ({"configs": {"senti": {"doc_to_text": "Say: {{text}}"}}}, "template"),
        ({"chat_template_sha": "abc"}, "chat_template"),
        ({"n-samples": {"senti": {"effective": 3}}}, "n"),
    ],
)
def test_columns_that_mix_settings_are_refused_with_what_differs(tmp_path: Path, changes, key) -> None:
    results.write(tmp_path / "base.json", results.lm_eval())
    results.write(tmp_path / "ours.json", results.lm_eval("a/b", **changes))
    files = [tmp_path / "base.json", tmp_path / "ours.json"]
    with pytest.raises(MatrixError, match=rf"senti: {key} differs") as caught:
        import_results(files, tmp_path / "run")
    assert f"--allow {key}" in str(caught.value)
    import_results(files, tmp_path / "run", allow=[key])
    assert read_matrix(tmp_path / "run").conditions["targets"]["senti"]["conditions"].get(key) is None


def test_other_items_are_refused_and_never_paired(folder: Path, tmp_path: Path) -> None:
    (file,) = (folder / "store__adapters__good").glob("samples_*")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["doc_hash"] = "another document"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(MatrixError, match="senti: items differs"):
        import_results([folder], tmp_path / "run")
    report = import_results([folder], tmp_path / "run", allow=["items"])
    assert report.paired == ()


def test_two_harnesses_do_not_mix_silently(tmp_path: Path) -> None:
    results.write(tmp_path / "a.json", results.lm_eval(model_name="org/base"))
    record = results.every_eval_ever(model_info={"id": "org/other", "name": "other"})
    results.write(tmp_path / "b.json", record)
    report = import_results([tmp_path], tmp_path / "alone")
    assert any("b.json" in note and "since the column is acc,none" in note for note in report.notes)
    record["evaluation_results"][0]["metric_config"]["metric_name"] = "acc"
    results.write(tmp_path / "b.json", record)
    with pytest.raises(MatrixError, match="harness differs"):
        import_results([tmp_path], tmp_path / "run", allow=["n"])


def test_the_later_of_two_results_counts_and_the_other_is_told(tmp_path: Path) -> None:
    for day, score in (("01", 0.25), ("02", 0.75)):
        results.write(tmp_path / f"r/results_2026-01-{day}T00-00-00.0.json", results.lm_eval("a/b", score))
    results.write(tmp_path / "r/base.json", results.lm_eval())
    report = import_results([tmp_path / "r"], tmp_path / "run")
    assert read_matrix(tmp_path / "run").values[0, 0] == 0.75
    assert any("2026-01-01" in note and "is later" in note for note in report.notes)


def test_the_metric_is_the_first_or_the_one_asked_for(tmp_path: Path) -> None:
    content = results.lm_eval("a/b")
    content["results"]["senti"] |= {"f1,none": 0.1, "f1,strict": 0.2}
    file = results.write(tmp_path / "a.json", content)
    assert import_results([file], tmp_path / "1").metrics == {"senti": "acc,none"}
    assert import_results([file], tmp_path / "2", metrics={"senti": "f1,strict"}).metrics == {
        "senti": "f1,strict"
    }
    with pytest.raises(MatrixError, match="acc,none, f1,none, f1,strict"):
        import_results([file], tmp_path / "3", metrics={"senti": "bleu"})
    with pytest.raises(MatrixError, match="no task is named nope"):
        import_results([file], tmp_path / "4", metrics={"nope": "acc"})


def test_who_the_base_is_is_never_guessed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        content = results.lm_eval(config={"model_args": f"pretrained=org/{name}"})
        results.write(tmp_path / f"{name}.json", content)
    assert import_results([tmp_path], tmp_path / "run").base is None
    assert np.isnan(read_matrix(tmp_path / "run").baseline).all()
    known = import_results([tmp_path], tmp_path / "run2", base="one")
    assert (known.base, known.sources) == ("org/one", ("two",))
    with pytest.raises(MatrixError, match=r"--base three: 0 models are named so; models: org/one, org/two"):
        import_results([tmp_path], tmp_path / "run3", base="three")


def test_adapters_of_two_bases_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        content = results.lm_eval(config={"model_args": f"pretrained=org/{name},peft=a/{name}"})
        results.write(tmp_path / f"{name}.json", content)
    with pytest.raises(MatrixError, match="several bases"):
        import_results([tmp_path], tmp_path / "run")


def test_names_are_as_short_as_keeps_them_apart(tmp_path: Path) -> None:
    for peft in ("x/one/final", "x/two/final", "y/odd name"):
        results.write(tmp_path / f"{peft.replace('/', '-')}.json", results.lm_eval(peft))
    report = import_results([tmp_path], tmp_path / "run")
    assert set(report.sources) == {"one__final", "two__final", "y__odd_name"}


def test_nothing_that_is_there_is_overwritten(folder: Path, tmp_path: Path) -> None:
    import_results([folder], tmp_path / "run")
    import_results([folder], tmp_path / "m.csv")
    with pytest.raises(RunError, match="is there already"):
        import_results([folder], tmp_path / "run")
    with pytest.raises(MatrixError, match="is there already"):
        import_results([folder], tmp_path / "m.csv")


def test_what_the_samples_say_is_kept_and_no_uncounted_token_is_a_zero(folder: Path, tmp_path: Path) -> None:
    import_results([folder], tmp_path / "run")
    kept = read_run_texts(open_store(tmp_path / "run"))
    assert kept.sources == {}
    (first, *_) = kept.targets["senti"]
    assert (first.input, first.output, first.choices) == ("text 0", "yes", ("no", "yes"))
    (lengths, *_) = tm.profile(tmp_path / "run").to_json()["cells"]["lengths"]
    assert lengths["tokens"]["adapter"]["mean"] is None  # no file tells tokens: not 0


def test_results_without_samples_say_nothing_of_items(folder: Path, tmp_path: Path) -> None:
    for file in folder.rglob("samples_*"):
        file.unlink()
    import_results([folder], tmp_path / "run")
    assert read_run_texts(open_store(tmp_path / "run")).targets == {}


UNKNOWN = [float("nan"), float("inf"), -float("inf"), None, "inf", "NaN", "1e999", "", "N/A"]


@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
@pytest.mark.parametrize("place", ["result", "item"])
@pytest.mark.parametrize("harness", ["lm-eval", "inspect", "helm"])
def test_a_number_that_is_unknown_is_none(tmp_path: Path, harness: str, place: str, value: object) -> None:
    """A result that is no number is missing with its file; an item that is none leaves no mean of items."""
    files, run = tmp_path / "files", tmp_path / "run"
    if harness == "lm-eval":
        results.lm_eval_folder(files, {None: [True, False, True, False], "org/a": [True, True, True, False]})
        file = sorted((files / "org__a").glob("results_*" if place == "result" else "samples_*"))[0]
        keys = ("results", "senti", "acc,none") if place == "result" else ("acc",)
    elif harness == "inspect":
        results.write(files / "base.json", results.inspect())
        log = results.inspect()
        log["eval"]["model"] = "vllm/a"
        file = results.write(files / "a.json", log)
        keys = ("results", "scores", 0, "metrics", "accuracy", "value")
        keys = keys if place == "result" else ("samples", 0, "scores", "match", "value")
    else:
        results.helm_run(files / "base")
        results.helm_run(files / "a", model="org/a")
        file = files / "a" / ("stats.json" if place == "result" else "per_instance_stats.json")
        keys = (2, "mean") if place == "result" else (0, "stats", 0, "mean")
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    content = json.loads(lines[0])
    held = content
    for key in keys[:-1]:
        held = held[key]
    held[keys[-1]] = value
    results.write(file, "\n".join([json.dumps(content), *lines[1:]]))
    import_results([files], run)
    cell = next(one for one in read_matrix(run).cells if one.source == "a")
    if place == "result":
        assert cell.status == "missing"
        assert file.name in cell.reason
        assert np.isnan([cell.value, cell.gain]).all()
    else:
        assert np.isfinite(cell.value)  # as its harness tells it
        assert np.isnan([cell.gain_low, cell.p]).all()
        assert cell.reason
