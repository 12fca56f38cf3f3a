"""``traitmap explain``: from a matrix with texts, and from a run that brings its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.training import Example
from spacy.util import fix_random_seed

import small_study
import traitmap as tm
from traitmap.api.profiles import write_profile
from traitmap.engine.fake import FakeEngine
from traitmap.errors import DataError
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
        (("matrix.csv", "--texts", "texts.jsonl", "--parser", "absent"), "spacy download"),
    ],
)
def test_what_the_user_must_mend(folder: Path, words: tuple[str, ...], told: str) -> None:
    done = explain(folder, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of seven sources and five targets."""
    place = tmp_path_factory.mktemp("finished")
    study = small_study.study(place, seeds=(0,))
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
    execute(told, FakeEngine(), given, asked)
    return place


def test_a_run_brings_texts_noise_and_reasons(finished: Path) -> None:
    found = tm.explain(finished / "small", n_permutations=99)
    assert ("reviews", "reviews") in found.own
    assert found.odd.beyond_noise is not None
    assert {"style_cosine", "vocabulary_overlap"} <= {one.name for one in found.alone}
    assert found.to_json()["conditions"]["variations"] == []


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline whose parser has seen three sentences."""
    place = tmp_path_factory.mktemp("parser")
    fix_random_seed(0)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("parser", config={"min_action_freq": 1})
    taught = {
        "review warm cold verdict": ["case", "ROOT", "obl", "xcomp"],
        "text ball goal topic": ["nsubj", "ROOT", "obl", "obl"],
        "one plus two is": ["nummod", "ROOT", "nummod", "cop"],
    }
    examples = [
        Example.from_dict(pipeline.make_doc(text), {"heads": [1, 1, 1, 2], "deps": relations})
        for text, relations in taught.items()
    ]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(20):
        pipeline.update(examples, sgd=optimizer)
    pipeline.to_disk(place)
    return place


def test_a_parser_compares_the_syntax_of_a_run_too(finished: Path, parser: Path) -> None:
    given = ("small", "--permutations", "99", "--seed", "3")
    done = explain(finished, *given, "--parser", str(parser))
    assert done.returncode == 0, done.stderr
    assert "parse: 100 %" in done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    plain = tm.explain(finished / "small", n_permutations=99, seed=3)
    found = tm.explain(finished / "small", parser=parser, n_permutations=99, seed=3)
    assert {one.name for one in found.alone} - {one.name for one in plain.alone} == {"syntax_distance"}
    (alone,) = (one for one in found.alone if one.name == "syntax_distance")
    assert alone.effect.known
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("syntax_distance"))
    assert f"{alone.effect.value:+.2f}" in row
    assert alone.verdict in row


def test_perplexity_comes_back_from_the_file_that_profile_writes(finished: Path) -> None:
    profiled = tm.profile(finished / "small", perplexity=True, engine=FakeEngine(), sample=10)
    write_profile(profiled, finished / "profile.csv")
    given = {name: one.text.perplexity for name, one in profiled.perplexity.items()}
    plain, read, told = (
        tm.explain(finished / "small", n_permutations=99, perplexity=known)
        for known in (None, finished / "profile.csv", given)
    )
    numbers = [
        next(one["n"] for one in found.to_json()["levels"] if one["name"] == "source_perplexity")
        for found in (plain, read)
    ]
    assert numbers == [0, 5]  # of seven sources two have too few pairs for a strength
    assert read.to_json() == told.to_json()
    (finished / "bad.csv").write_text("dataset,perplexity\nreviews,0.5\n", encoding="utf-8")
    (finished / "other.csv").write_text("dataset,role\nreviews,source\n", encoding="utf-8")
    for name, words in (
        ("bad.csv", r"reviews 0\.5"),
        ("other.csv", "no row fits one"),
        ("absent.csv", "No such"),
    ):
        with pytest.raises(DataError, match=words):
            tm.explain(finished / "small", perplexity=finished / name)
    done = explain(finished, "small", "--permutations", "99", "--perplexity", "absent.csv")
    assert (done.returncode, "absent.csv" in done.stderr) == (2, True)


@pytest.mark.shared
def test_a_real_parser_tells_reviews_from_sums(shared: Path, tmp_path: Path) -> None:
    """Where tasks help those of their kind alone, the syntax of their real texts goes with gains."""
    reviews, sums = ("sst2", "imdb", "amazon_reviews", "flipkart"), ("gsm8k", "svamp", "metamath_backward")
    names = (*reviews, *sums)
    with (tmp_path / "texts.jsonl").open("w", encoding="utf-8") as stream:
        for name in names:
            with (shared / "data" / name / "train.jsonl").open(encoding="utf-8") as lines:
                rows = [json.loads(next(lines)) for _ in range(15)]
            for row in rows:
                text = row["text"] if name in reviews else row["question"]
                stream.write(json.dumps({"task": name, "input": text[:300], "output": "yes"}) + "\n")
    generator = np.random.default_rng(0)
    rows = [["source", *names], ["__baseline__", *["0.5"] * len(names)]]
    for source in names:
        alike = [(source in reviews) == (target in reviews) for target in names]
        gains = np.where(alike, 0.7, 0.4) + generator.normal(0, 0.02, len(names))
        rows.append([source, *(f"{gain:.3f}" for gain in gains)])
    (tmp_path / "m.csv").write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    found = tm.explain(
        tmp_path / "m.csv",
        texts=tmp_path / "texts.jsonl",
        parser=shared / "parser" / "en_ud_ewt",
        n_permutations=199,
    )
    (syntax,) = (one for one in found.alone if one.name == "syntax_distance")
    assert syntax.effect.low > 0.3  # alike is up: distances are turned round


def test_a_run_answers_the_same_itself(finished: Path) -> None:
    folder = finished / "small"
    run = tm.open_run(folder)
    assert run.explain(n_permutations=99).words == tm.explain(folder, n_permutations=99).words
    assert run.profile().to_json() == tm.profile(folder).to_json()
    target = run.matrix().targets[0]
    assert str(run.recommend(target=target)) == str(tm.recommend(folder, target=target))
