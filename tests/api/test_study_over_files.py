"""The worked example of docs/datasets.md: five sources and six targets over plain files, run end to end."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from doc_blocks import blocks_of
from traitmap import api
from traitmap.data.lineage import load_sources
from traitmap.data.targets import load_targets
from traitmap.matrix.statistics import paired_gain
from traitmap.study.load import load_study

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
MOODS = ("dull", "plain", "bright")
THINGS = {"sport": "ball", "food": "soup", "law": "judge"}


def example() -> str:
    """The study as the page prints it."""
    (block,) = [one for one in blocks_of(PAGE) if one.kind == "yaml" and "name: my-files" in one.body]
    return block.body


def write_data(folder: Path) -> None:
    """Small files in the forms that the example names."""
    folder.mkdir()
    for part, numbers in (("train", range(60)), ("test", range(60, 85))):
        lines = [f"a {MOODS[n % 3]} thing {n},{n % 3}" for n in numbers]
        (folder / f"reviews_{part}.csv").write_text("\n".join(["text,stars", *lines]) + "\n")
        name = "sums.jsonl" if part == "train" else "sums_test.jsonl"
        sums = [
            {"question": f"{n} + 2?", "answer": f"{n} and 2 make {n + 2}", "final": n + 2} for n in numbers
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in sums))
    topics = [
        {"title": f"the {list(THINGS.values())[n % 3]} {n}", "topic": list(THINGS)[n % 3]} for n in range(90)
    ]
    parquet.write_table(pa.Table.from_pylist(topics), folder / "topics.parquet")
    alpaca = [{"instruction": f"Count to {n}.", "input": "", "output": f"One,\ntwo, {n}."} for n in range(40)]
    (folder / "alpaca.json").write_text(json.dumps(alpaca))
    (folder / "novel.txt").write_text("".join(f"It was night {n} of the storm.\n\n" for n in range(40)))
    quiz = [{"question": f"Is {n} even?", "options": ["yes", "no"], "right": "AB"[n % 2]} for n in range(30)]
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in quiz))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    (tmp_path / "study.yaml").write_text(example())
    return tmp_path / "study.yaml"


def test_the_example_is_five_sources_and_six_targets_in_35_lines_without_a_task_file():
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) <= 35
    data = yaml.safe_load(example())
    own = [source["target"] for source in data["sources"]]
    assert (len(data["sources"]), len(own) + len(data["targets"])) == (5, 6)
    assert not any("task" in target for target in data["targets"])


def test_what_is_asked_is_written_as_what_is_taught_and_never_learnt(study):
    loaded = {source.name: source for source in load_sources(load_study(study))}
    targets = {target.name: target for target in load_targets(load_study(study))}
    assert list(targets) == ["quiz", "reviews", "topics", "sums", "tasks", "novel"]
    assert {name: (t.kind, t.metric) for name, t in targets.items()} == {
        "quiz": ("multiple_choice", "acc"),
        "reviews": ("multiple_choice", "acc"),
        "topics": ("multiple_choice", "acc"),
        "sums": ("generate_until", "exact_match"),
        "tasks": ("loglikelihood", "bits_per_byte"),
        "novel": ("loglikelihood_rolling", "bits_per_byte"),
    }
    for name, source in loaded.items():
        taught = {example.prompt or example.text for example in source.examples}
        asked = {text.input or text.output for text in targets[name].questions()}
        assert not taught & asked, name
    assert {text.output for text in targets["reviews"].texts()} <= {"bad", "fair", "good"}
    request = targets["reviews"].requests[0]
    assert request.context.startswith("Review: a ")
    assert request.context.endswith("\nVerdict:")


def test_the_example_runs_from_data_files_to_a_matrix(study, tmp_path):
    found = api.check(study)
    assert all(target.read_as for target in found.targets)
    done = api.run(study, output=tmp_path / "runs")
    state = done.status()
    assert state.complete
    assert (state.adapters.done, state.cells.done) == (5, 36)
    matrix = done.matrix()
    assert set(matrix.targets) == {"quiz", "reviews", "topics", "sums", "tasks", "novel"}
    assert (matrix.gains == matrix.gains).all()


def test_a_column_that_a_target_names_groups_its_items_to_the_last_number(tmp_path):
    """Forty questions on ten passages: intervals, tests, n, traits' noise and completion count passages."""
    rows = [
        {"passage": n // 4, "text": f"thing {n} of {n // 4}", "mood": MOODS[n % 3], "moods": list(MOODS)}
        for n in range(40)
    ]
    for name, part in (("train", rows), ("asked", rows)):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({**row, "text": f"{name} {row['text']}"}) + "\n" for row in part)
        )
    target = {
        "name": "moods",
        "path": "asked.jsonl",
        "prompt": "Review: {{ text }}\nVerdict:",
        "choices": "moods",
        "answer": "mood",
    }
    study = {
        "name": "grouped",
        "model": "builtin:mini",
        "training": {"max_steps": 6, "batch_size": 4, "warmup_steps": 1, "learning_rate": 5e-3},
        "lora": {"r": 4, "lora_alpha": 8},
        "sources": [
            {"name": "train", "path": "train.jsonl", "prompt": target["prompt"], "completion": " {{ mood }}"}
        ],
        "targets": [target, {**target, "name": "passages", "groups": "passage"}],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    matrix = api.run(tmp_path / "study.yaml", output=tmp_path / "runs").matrix()
    groups = matrix.item_groups
    assert list(groups) == ["passages"]
    assert groups["passages"].tolist() == [n // 4 for n in range(40)]
    apart, together = (
        next(cell for cell in matrix.cells if cell.target == name) for name in ("moods", "passages")
    )
    assert apart.value == together.value
    assert (apart.n, together.n) == (40, 10)
    scores = matrix.item_scores["passages"]
    differences = (scores[1:] - scores[:1])[0]
    _, low, high, p = paired_gain(differences[None], binary=True, groups=groups["passages"])
    assert (together.gain_low, together.gain_high, together.p) == pytest.approx((low[0], high[0], p[0]))
    found = matrix.conditions["repeated_items"]["passages"]
    assert (found["items"], found["groups"], found["by"]) == (40, 10, "passage")
