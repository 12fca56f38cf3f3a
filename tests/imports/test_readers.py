"""Every format is read for what it says: model, adapter, task, metric, items; nothing else."""

from __future__ import annotations

import json
import zipfile
from math import isnan
from pathlib import Path

import pytest
import results

from traitmap.imports.discovery import find_evaluations
from traitmap.imports.reading import Evaluation


def read(path: Path, content: object) -> list[Evaluation]:
    return find_evaluations([results.write(path, content)]).evaluations


def test_lm_eval_with_samples(tmp_path: Path) -> None:
    results.lm_eval_folder(tmp_path, {"adapters/goat": [True, False, True, True]})
    (one,) = find_evaluations([tmp_path]).evaluations
    assert (one.model, one.adapter, one.task) == ("org/base", "adapters/goat", "senti")
    assert (one.metric, one.filter, one.value, one.stderr, one.n) == ("acc", "none", 0.75, 0.25, 4)
    assert one.higher_is_better is True
    assert one.setting["num_fewshot"] == 0
    assert one.setting["limit"] is None
    assert [outcome.correct for outcome in one.outcomes] == [True, False, True, True]
    assert [outcome.prediction for outcome in one.outcomes] == ["yes", "no", "yes", "yes"]
    assert {outcome.gold for outcome in one.outcomes} == {"yes"}
    assert one.outcomes[1].choice_logprobs == (-2.0, -3.0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("pretrained=org/base,peft=a/b,dtype=float16", ("org/base", "a/b")),
        ({"pretrained": "org/base", "peft": "a/b"}, ("org/base", "a/b")),
        ({"pretrained": "org/base"}, ("org/base", None)),
        (None, ("org/named", None)),
        ("", ("org/named", None)),
    ],
)
def test_lm_eval_model_arguments_in_every_shape(tmp_path: Path, arguments, expected) -> None:
    config = {"model": "hf", "model_args": arguments}
    content = results.lm_eval(config=config, model_name="org/named")
    (one,) = read(tmp_path / "results.json", content)
    assert (one.model, one.adapter) == expected


def test_lm_eval_of_before_the_comma(tmp_path: Path) -> None:
    content = results.lm_eval(
        results={"senti": {"acc": 0.5, "acc_stderr": "N/A", "word_perplexity": 12.0}},
        config={"model": "gpt2", "model_args": "pretrained=gpt2", "num_fewshot": 3, "limit": 10},
    )
    for key in ("n-shot", "configs", "higher_is_better", "n-samples", "group_subtasks"):
        del content[key]
    accuracy, perplexity = read(tmp_path / "out.json", content)
    assert (accuracy.metric, accuracy.filter, accuracy.value) == ("acc", "none", 0.5)
    assert isnan(accuracy.stderr)
    assert accuracy.setting["num_fewshot"] == 3
    assert accuracy.setting["limit"] == 10
    assert perplexity.higher_is_better is False


def test_lm_eval_groups_are_left_out(tmp_path: Path) -> None:
    content = results.lm_eval(group_subtasks={"mmlu": ["senti"]})
    content["results"]["mmlu"] = {"acc,none": 0.9}
    content["groups"] = {"mmlu": {"acc,none": 0.9}}
    assert [one.task for one in read(tmp_path / "results.json", content)] == ["senti"]


def test_lm_eval_one_line_per_filter(tmp_path: Path) -> None:
    content = results.lm_eval()
    content["results"]["senti"] = {"acc,strict": 0.0, "acc,loose": 1.0}
    results.write(tmp_path / f"results_{results.STAMP}.json", content)
    rows = [json.loads(line) for line in results.lm_eval_samples([True, True, True, True]).splitlines()]
    strict = [{**row, "filter": "strict", "acc": 0.0, "filtered_resps": ["[invalid]"]} for row in rows]
    loose = [{**row, "filter": "loose"} for row in rows]
    lines = "\n".join(json.dumps(row) for row in [*strict, *loose])
    results.write(tmp_path / f"samples_senti_{results.STAMP}.jsonl", lines)
    first, second = find_evaluations([tmp_path]).evaluations
    assert [one.filter for one in (first, second)] == ["strict", "loose"]
    assert [outcome.score for outcome in first.outcomes] == [0.0] * 4
    assert [outcome.parsed for outcome in first.outcomes] == [False] * 4
    assert [outcome.score for outcome in second.outcomes] == [1.0] * 4


def test_inspect_json_and_eval_say_the_same(tmp_path: Path) -> None:
    log = results.inspect(values=("C", "I", "N"))
    (plain,) = read(tmp_path / "log.json", log)
    header = {key: value for key, value in log.items() if key != "samples"}
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        for sample in log["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    (packed,) = find_evaluations([tmp_path / "log.eval"]).evaluations
    assert packed.outcomes == plain.outcomes
    assert [outcome.score for outcome in plain.outcomes] == [1.0, 0.0, 0.0]
    assert [outcome.parsed for outcome in plain.outcomes] == [True, True, False]
    assert (plain.model, plain.task, plain.metric, plain.filter) == ("vllm/base", "tiny", "accuracy", "match")


def test_inspect_logs_that_did_not_succeed_are_passed_over_in_folders(tmp_path: Path) -> None:
    results.write(tmp_path / "good.json", results.inspect())
    results.write(tmp_path / "bad.json", results.inspect(status="error"))
    found = find_evaluations([tmp_path])
    assert len(found.evaluations) == 1
    assert any("bad.json" in note and "error" in note for note in found.notes)


def test_lighteval_averages_are_left_out(tmp_path: Path) -> None:
    gsm8k, law = read(tmp_path / "results.json", results.lighteval())
    assert (gsm8k.task, gsm8k.metric, gsm8k.value, gsm8k.stderr) == ("gsm8k", "em", 0.25, 0.1)
    assert gsm8k.setting["num_fewshot"] == 5
    assert law.task == "mmlu:law"
    assert isnan(law.stderr)
    general = {"model_name": "me/mine", "model_config": {"adapter_weights": True, "base_model": "org/base"}}
    adapted = read(tmp_path / "adapted.json", results.lighteval(config_general=general))[0]
    assert (adapted.model, adapted.adapter) == ("org/base", "me/mine")


def test_every_eval_ever_with_instances(tmp_path: Path) -> None:
    record = results.every_eval_ever(
        detailed_evaluation_results={"format": "jsonl", "file_path": "somewhere/items.jsonl"}
    )
    rows = [
        {
            "evaluation_name": "senti",
            "sample_id": str(i),
            "input": {"raw": f"text {i}", "reference": ["yes"]},
            "output": {"raw": ["yes" if right else "no"]},
            "evaluation": {"score": float(right), "is_correct": right},
            "answer_attribution": [],
        }
        for i, right in ((10, True), (2, False))
    ]
    results.write(tmp_path / "items.jsonl", "\n".join(json.dumps(row) for row in rows))
    (one,) = read(tmp_path / "record.json", record)
    assert (one.model, one.task, one.value, one.stderr) == ("org/base", "senti", 0.5, 0.1)
    assert [outcome.prediction for outcome in one.outcomes] == ["no", "yes"]  # 2 stands before 10


def test_helm_takes_the_unperturbed_test_split(tmp_path: Path) -> None:
    (one,) = find_evaluations([results.helm_run(tmp_path / "runs" / "boolq")]).evaluations
    assert (one.model, one.task, one.metric) == ("org/base", "boolq:data=a", "exact_match")
    assert one.value == pytest.approx(2 / 3)
    assert [outcome.score for outcome in one.outcomes] == [1.0, 0.0, 1.0]
    assert one.setting["num_fewshot"] == 5


def test_opencompass_summary(tmp_path: Path) -> None:
    found = read(tmp_path / "summary.csv", results.OPENCOMPASS)
    assert [(one.task, one.model, one.value) for one in found[:2]] == [
        ("gsm8k", "base", 55.2),
        ("gsm8k", "ours", 60.1),
    ]
    assert isnan(found[2].value)
    assert found[0].setting == {"version": "1d7fe4", "mode": "gen"}
    assert not any(one.task == "Average" for one in found)


def test_long_and_wide_tables(tmp_path: Path) -> None:
    wide = read(tmp_path / "wide.csv", "source,a,b\n__baseline__,1,2\nx,3,\n")
    assert {(one.adapter, one.task, one.value) for one in wide} == {
        (None, "a", 1),
        (None, "b", 2),
        ("x", "a", 3),
    }
    long = read(tmp_path / "long.csv", "source,target,value,n\nx,a,3,10\n__baseline__,a,1,10\n")
    assert {(one.adapter, one.task, one.value, one.n) for one in long} >= {("x", "a", 3, 10)}


def test_names_do_not_matter_to_what_a_file_is(tmp_path: Path) -> None:
    for content in (results.lm_eval(), results.inspect(), results.lighteval(), results.every_eval_ever()):
        assert read(tmp_path / "anything.json", content)


@pytest.mark.shared
def test_every_real_file_is_read(shared: Path) -> None:
    found = find_evaluations([shared / "fixtures"])
    kinds = {one.kind for one in found.evaluations}
    assert kinds == {"lm-evaluation-harness", "inspect_ai"}
    assert {one.adapter for one in found.evaluations} >= {"m/adapters/flipkart", "m/adapters/goat", None}
    assert all(one.outcomes for one in found.evaluations)
    for one in found.evaluations:
        mean = sum(outcome.score for outcome in one.outcomes) / len(one.outcomes)
        assert mean == pytest.approx(one.value)
