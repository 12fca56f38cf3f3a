"""``traitmap explain``: from a matrix with texts, and from a run that brings its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import small_study
import traitmap as tm
from traitmap.engine.fake import FakeEngine
from traitmap.runs.execute import execute

TASKS = {
    "films": ("What do you think of this film? It was {}.", ("good", "bad"), ("dull", "great", "long")),
    "shops": ("Is this review of a shop kind? The staff were {}.", ("good", "bad"), ("rude", "kind", "slow")),
    "sums": ("Add {} and 7", (), ("3", "12", "40")),
    "tales": ("Tell a story of {}", (), ("a fox", "two kings", "the sea")),
    "truth": ("Is it true that {}?", ("yes", "no"), ("ice is cold", "fish fly", "the moon shines")),
    "rude": ("Comment: you are {}. Is it rude?", ("yes", "no"), ("a pig", "so kind", "late")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix of six tasks on each other, and their texts."""
    place = tmp_path_factory.mktemp("explain")
    generator = np.random.default_rng(0)
    with (place / "texts.jsonl").open("w", encoding="utf-8") as stream:
        for task, (asked, choices, subjects) in TASKS.items():
            for number in range(24):
                given = asked.format(subjects[number % 3]) + " " * (number % 2)
                output = (
                    choices[number % 2] if choices else "word " * (1 + 8 * (task == "tales")) + str(number)
                )
                row = {"task": task, "input": given, "output": output, "choices": list(choices)}
                stream.write(json.dumps(row) + "\n")
    names = list(TASKS)
    lines = ["source," + ",".join(names), "__baseline__," + ",".join(["0.5"] * 6)]
    lines += [f"{name}," + ",".join(f"{v:.3f}" for v in generator.uniform(0.3, 0.8, 6)) for name in names]
    (place / "matrix.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


def explain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "traitmap.cli", "explain", *words)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_matrix_with_texts_is_explained_in_words_and_json(folder: Path) -> None:
    given = ("matrix.csv", "--texts", "texts.jsonl", "--permutations", "199")
    shown = explain(folder, *given)
    assert shown.returncode == 0, shown.stderr
    assert "30 pairs of 6 sources and 6 targets; 6 pairs of a source and its own task" in " ".join(
        shown.stdout.split()
    )
    assert "cannot tell" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    told = json.loads(explain(folder, *given, "--json").stdout)
    assert {"joint", "alone", "levels", "dominance", "odd", "asymmetry", "donors", "words"} <= told.keys()
    assert {one["verdict"] for one in told["joint"]} <= {"yes", "no", "cannot tell"}
    found = tm.explain(folder / "matrix.csv", texts=folder / "texts.jsonl", n_permutations=199)
    assert json.loads(json.dumps(found.to_json())) == told  # the same words, the same numbers


def test_own_tasks_of_other_names_are_left_out(folder: Path) -> None:
    given = ("matrix.csv", "--texts", "texts.jsonl", "--permutations", "99", "--json")
    told = json.loads(explain(folder, *given, "--own", "films:shops").stdout)
    assert ["films", "shops"] in told["own"]
    assert told["pairs"] == 29


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("matrix.csv",), "--texts"),
        (("matrix.csv", "--texts", "absent.jsonl"), "absent.jsonl"),
        (("matrix.csv", "--texts", "texts.jsonl", "--own", "films"), "SOURCE:TARGET"),
        (("matrix.csv", "--texts", "texts.jsonl", "--units", "miles"), "standard"),
    ],
)
def test_what_the_user_must_mend(folder: Path, words: tuple[str, ...], told: str) -> None:
    done = explain(folder, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_brings_texts_noise_and_reasons(tmp_path: Path) -> None:
    study = small_study.study(tmp_path, seeds=(0,))
    given = list(small_study.sources(study))
    right = [(one.segments[0].text, one.segments[1].text.strip()) for one in given[0].examples]
    wrong = [(prompt, {"good": "bad", "bad": "good"}[label]) for prompt, label in right]
    given += [
        small_study.loaded_source(f"half{share}", wrong[:share] + right[share:], study.training)
        for share in (10, 25, 45)
    ]
    reviews, topics, sums, nearness = small_study.targets()
    prompts = [request.context for request in reviews.requests[::2]]
    turned = {"good": "bad", "bad": "good"}
    other = [(prompt.upper(), turned[gold]) for prompt, gold in zip(prompts, reviews.golds, strict=True)]
    asked = (reviews, topics, sums, nearness, small_study.chosen("flipped", other, ("good", "bad")))
    told = study.model_copy(
        update={
            "sources": tuple(study.sources[0].model_copy(update={"name": one.name}) for one in given),
            "targets": tuple(study.targets[0].model_copy(update={"name": one.name}) for one in asked),
        }
    )
    store = execute(told, FakeEngine(), given, asked)
    found = tm.explain(store.folder, n_permutations=99)
    assert ("reviews", "reviews") in found.own
    assert found.odd.beyond_noise is not None
    assert {"style_cosine", "vocabulary_overlap"} <= {one.name for one in found.alone}
    assert found.to_json()["conditions"]["variations"] == []
