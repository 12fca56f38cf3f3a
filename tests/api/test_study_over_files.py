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
