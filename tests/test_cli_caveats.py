"""What ``check`` warns of is told before a run, kept in its records, and shown beside its numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

import traitmap as tm
from told import traitmap
from traitmap.matrix.build import build_matrix
from traitmap.matrix.reading import caveat_notes, matrix_table, read
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store

LONG = "word " * 700
TASK = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "items.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": "{{a}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1},
}
STUDY = {
    "name": "told",
    "model": "builtin:mini",
    "lora": {"r": 2, "lora_alpha": 4},
    "training": {"max_steps": 2, "batch_size": 4, "warmup_steps": 1, "max_length": 64},
    "sources": [{"name": "a", "path": "src.jsonl"}],
    "targets": [{"name": "t", "task": "t.yaml"}],
}


def write(folder: Path, **changes: object) -> Path:
    """A study with one item of twelve that is too long, two that have no right answer, one answer lost."""
    items = [{"q": f"Question: item {n}\nAnswer:", "a": n % 2} for n in range(12)]
    items[3]["q"] = f"Question: {LONG}\nAnswer:"
    items[5]["a"], items[6]["a"] = -1, 2
    rows = [{"prompt": f"Question: row {n}\nAnswer:", "completion": " no"} for n in range(8)]
    rows[2]["prompt"] = f"Question: {LONG}\nAnswer:"
    for name, values in (("items", items), ("src", rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    (folder / "t.yaml").write_text(yaml.safe_dump(TASK))
    (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and what was told on standard error."""
    study = write(tmp_path_factory.mktemp("told"))
    done = traitmap("run", study, cwd=study.parent)
    assert done.code == 0, done.err
    return study.parent / "runs" / "told", done.err


def test_check_counts_them(tmp_path: Path) -> None:
    study = write(tmp_path)
    found = json.loads(traitmap("check", study, "--no-measure", "--json").out)
    (target,) = found["targets"]
    counts = {caveat["kind"]: (caveat["count"], caveat["total"]) for caveat in target["caveats"]}
    assert counts == {"items_without_gold": (2, 12), "prompt_cut": (1, 10)}
    (source,) = found["sources"]
    assert any(
        "in 1 of 8 examples (first: 3) nothing of the answer is left" in one for one in source["warnings"]
    )
    shown = " ".join(traitmap("check", study, "--no-measure").out.split())
    assert "! 2 of 12 items have no right answer" in shown
    assert "! in 1 of 10 items the prompt is longer than the 512 tokens that the base reads" in shown
    assert "indexing errors" not in shown


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"limit": 4}, "4 of 12 items, drawn at random with sample_seed 0"),
        ({"limit": 4, "limit_takes": "first"}, "the first 4 of 12 items"),
        ({"limit": 12}, ""),
    ],
)
def test_check_says_which_items_a_limit_leaves(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    shown = " ".join(traitmap("check", write(tmp_path, **changes), "--no-measure").out.split())
    assert told in shown
    assert bool(told) is ("of 12 items, drawn" in shown or "the first 4" in shown)


def test_a_run_tells_them_once_before_it_begins(ran: tuple[Path, str]) -> None:
    _, told = ran
    lines = [line for line in told.splitlines() if line.startswith("! ")]
    assert len(lines) == len(set(lines))
    assert any(line.startswith("! t: 2 of 12 items") for line in lines)
    assert any(line.startswith("! t: in 1 of 10 items the prompt") for line in lines)
    assert any(line.startswith("! a: in 1 of 8 examples (first: 3)") for line in lines)
    assert told.index("! t:") < told.index("cells done")
    assert "indexing errors" not in told


def test_they_are_kept_and_stand_beside_the_numbers(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    ledger = read_ledger(open_store(folder))
    kinds = {caveat["kind"]: caveat["count"] for caveat in ledger.targets[0]["caveats"]}
    assert kinds == {"items_without_gold": 2, "prompt_cut": 1}
    assert ledger.targets[0]["items"] == 10
    assert any("nothing of the answer is left" in warning for warning in ledger.sources[0]["warnings"])
    matrix = build_matrix(folder)
    assert matrix.base_cells[0].n == 10
    notes = caveat_notes(read(matrix))
    assert [note.split(":")[0] for note in notes][:2] == ["t", "t"]
    assert any(note.startswith("a: ") for note in notes)
    shown = " ".join(traitmap("matrix", folder).out.split())
    assert "t: 2 of 12 items have no right answer" in shown
    assert matrix_table(read(matrix)).notes[1:] == notes


def test_texts_and_outcomes_number_items_alike(ran: tuple[Path, str]) -> None:
    """Items 5 and 6 of the data are left out, so that places and numbers differ behind them."""
    joined = tm.query(
        ran[0],
        "select o.item, t.input, o.gold = t.output as same from outcomes o join texts t on t.item = o.item "
        "and t.name = o.target and t.role = 'target' where o.source = '__baseline__' order by o.item",
    )
    assert list(joined["item"]) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert joined["same"].all()
    assert joined["input"].iloc[-1] == "Question: item 11\nAnswer:"


def test_the_report_shows_them_in_the_cell(ran: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = ran
    page = tm.Run(folder).report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        page.count("2 of 12 items have no right answer") >= 2
    )  # beside the table, and among the base's facts
    assert "nothing of the answer is left" in page


def test_a_run_of_an_earlier_version_is_told_what_it_counts_as_wrong(ran: tuple[Path, str]) -> None:
    matrix = build_matrix(ran[0])
    old = {**matrix.conditions["targets"]["t"], "conditions": {"items_without_gold": 6}, "items": 12}
    del old["caveats"]
    conditions = {**matrix.conditions, "targets": {"t": old}, "sources": {}}
    (note,) = caveat_notes(read(type(matrix)(**{**vars(matrix), "conditions": conditions})))
    assert note.startswith("t: 6 of 12 items have no right answer and count as wrong")


def test_check_finds_adapters_on_which_a_run_would_fail(ran: tuple[Path, str], tmp_path: Path) -> None:
    """A whole PEFT directory of other shapes, ranks or modules: read and tried, as the run would."""
    trained = next((ran[0] / "adapters").iterdir())
    faults = {}
    for name in ("shapes", "rank", "module", "config", "weights", "good"):
        place = tmp_path / name
        place.mkdir()
        tensors = load_file(trained / "adapter_model.safetensors")
        config = json.loads((trained / "adapter_config.json").read_text())
        if name == "shapes":
            tensors = {
                key: np.pad(value, ((0, 0), (0, 1))) for key, value in tensors.items() if "lora_A" in key
            } | {key: value for key, value in tensors.items() if "lora_B" in key}
        if name == "rank":
            config["r"] = 8
        if name == "module":
            tensors = {key.replace("q_proj", "other_proj"): value for key, value in tensors.items()}
        save_file(tensors, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text("{" if name == "config" else json.dumps(config))
        if name == "weights":
            (place / "adapter_model.safetensors").unlink()
        study = write(tmp_path, sources=[{"name": "made", "adapter": name}])
        faults[name] = traitmap("check", study, "--no-measure")
    assert faults.pop("good").code == 0
    assert {name: told.code for name, told in faults.items()} == dict.fromkeys(faults, 2)
    assert all("sources[0].adapter" in told.err for told in faults.values())
    assert "the adapter is made for in, out" in faults["shapes"].err
    assert "its tensors have rank 2" in faults["rank"].err
    assert "other_proj" in faults["module"].err
    assert "not valid JSON" in faults["config"].err
    assert "has no adapter_model.safetensors" in faults["weights"].err


def test_what_cannot_be_asked_is_a_fault_at_its_target(tmp_path: Path) -> None:
    study = write(tmp_path)
    written = {"output_type": "generate_until", "generation_kwargs": {"max_gen_toks": 512, "until": ["\n"]}}
    task = {name: value for name, value in {**TASK, **written}.items() if name != "doc_to_choice"}
    task["metric_list"] = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(task))
    told = traitmap("check", study, "--no-measure")
    assert told.code == 2
    assert "targets[0].task: target 't': max_gen_toks 512 leaves no room for a prompt in the 512" in told.err


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "kind", "count", "total"),
    [
        ("15_no_token_left_of_a_choice", "choice_without_tokens", 16, 16),
        ("16_prompts_cut_without_a_word", "prompt_cut", 1, 12),
    ],
)
def test_the_reported_cases(shared: Path, case: str, kind: str, count: int, total: int) -> None:
    found = tm.check(shared / "cases/models" / case / "study.yaml")
    (caveat,) = found.targets[0].caveats
    assert (caveat.kind, caveat.count, caveat.total) == (kind, count, total)
    assert len(found.sources) == len(found.targets) == 1  # the rest of the preview stands
    if kind == "choice_without_tokens":
        assert "'yes'" in caveat.text
        assert "target_delimiter" in caveat.text
