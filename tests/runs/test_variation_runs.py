"""A study of variations from the file to the matrix, on the fake engine."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from traitmap import api
from traitmap.engine.fake import FakeEngine
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts

GOOD, BAD = ("bright", "warm", "lovely", "clever"), ("dull", "cold", "ugly", "clumsy")
TASK = {
    "task": "moods",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "A {{text}} thing.\nMood:",
    "doc_to_choice": ["bad", "good"],
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}
SOURCES = [
    {"name": "moods", "task": "moods.yaml"},
    {"name": "wrong_half", "from": "moods", "mislabel": 0.4},
    {"name": "wrong", "from": "moods", "mislabel": 1},
    {"name": "even", "from": "moods", "balance": True},
    {"name": "label_only", "from": "moods", "loss_on": "label"},
    {"name": "all_but_label", "from": "moods", "loss_on": "no_label"},
]


def rows(seed: int, count: int, good: float) -> list[dict]:
    draw = np.random.default_rng(seed)
    labels = (draw.random(count) < good).astype(int)
    words = (BAD, GOOD)
    return [
        {"text": f"{draw.choice(words[label])} {draw.choice(words[label])}", "label": int(label)}
        for label in labels
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("moods")
    for name, found in (("train", rows(0, 200, 0.8)), ("test", rows(1, 60, 0.5))):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)) + "\n")
    (folder / "moods.yaml").write_text(yaml.safe_dump(TASK))
    study = {"name": "moods", "model": "builtin:mini", "sources": SOURCES, "targets": ["moods.yaml"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return api.run(folder / "study.yaml", engine=FakeEngine(), output=folder / "runs")


def test_what_was_changed_and_how_much_can_be_read_off_the_matrix(run):
    sources = run.matrix().conditions["sources"]
    changes = {name: source["variation"] for name, source in sources.items() if source.get("variation")}
    doses = {
        name: (change["kind"], change["parent_dose"], change["dose"]) for name, change in changes.items()
    }
    assert doses == {
        "wrong_half": ("mislabel", 0.0, 0.4),
        "wrong": ("mislabel", 0.0, 1.0),
        "even": ("balance", 0.725, 0.5),
        "label_only": ("loss_on", None, None),
        "all_but_label": ("loss_on", None, None),
    }


def test_wrong_labels_cost_score_and_a_label_that_is_not_learnt_is_not_known(run):
    items = run.matrix().item_scores["moods"][1:, 0]
    scores = dict(zip(run.matrix().sources, items.mean(axis=1), strict=True))
    assert scores["moods"] > 0.9
    assert scores["moods"] >= scores["wrong_half"] > 0.5 > scores["wrong"]
    assert scores["label_only"] == scores["moods"]
    assert scores["all_but_label"] < 0.8


def test_texts_tell_input_and_output_whatever_is_learnt(run):
    texts = read_run_texts(open_store(run.folder)).sources
    assert texts["label_only"] == texts["all_but_label"] == texts["moods"]


def test_running_again_trains_nothing(run, tmp_path):
    log = tmp_path / "log.jsonl"
    api.run(run.folder.parents[1] / "study.yaml", engine=FakeEngine(log=log), output=run.folder.parent)
    assert not log.exists()
