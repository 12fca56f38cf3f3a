"""traitmap recommend on the command line: a ranking from a matrix, from texts, from a run; clear errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import traitmap as tm
from small_study import sources, study, targets
from traitmap.api.runs import keep_contamination
from traitmap.cli import app
from traitmap.data.texts import TaskText, read_examples, read_probes, read_similarity
from traitmap.engine.fake import FakeEngine
from traitmap.errors import DataError, MatrixError
from traitmap.runs.execute import execute

TRAITMAP = (sys.executable, "-m", "traitmap.cli")
SOURCES = ("films", "sums", "rules", "places", "names", "songs")
TARGETS = ("plots", "totals", "laws", "maps", "people")


def traitmap(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAITMAP, *words], cwd=cwd, capture_output=True, text=True, timeout=300)


def text_of(task: str, number: int) -> str:
    rng = np.random.default_rng([sum(map(ord, task)), number])
    return " ".join(f"{task[:3]}{word}" for word in rng.integers(0, 400, 14))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix in which songs help every target, texts of all tasks, and examples of a new one."""
    place = tmp_path_factory.mktemp("recommend")
    gains = 0.002 * np.random.default_rng(4).standard_normal((len(SOURCES), len(TARGETS)))
    gains[-1] += 0.08
    rows = [("__baseline__", np.full(len(TARGETS), 0.5)), *zip(SOURCES, 0.5 + gains, strict=True)]
    lines = [",".join(["source", *TARGETS])]
    lines += [",".join([name, *(f"{value:.5f}" for value in values)]) for name, values in rows]
    (place / "matrix.csv").write_text("\n".join(lines) + "\n")
    with (place / "texts.jsonl").open("w") as stream:
        for task in (*SOURCES, *TARGETS):
            for number in range(25):
                row = {"task": task, "input": f"Text: {text_of(task, number)}", "output": "yes"}
                stream.write(json.dumps(row | {"choices": ["yes", "no"]}) + "\n")
    examples = [f"Text: {text_of('songs', number)}" for number in range(3)] + [text_of("new", 9)]
    (place / "stolen.jsonl").write_text("".join(json.dumps({"input": one}) + "\n" for one in examples))
    fresh = [text_of("fresh", number) for number in range(5)]
    (place / "fresh.jsonl").write_text("".join(json.dumps({"input": one}) + "\n" for one in fresh))
    (place / "probes.csv").write_text("source,gain,stderr,n\nfilms,0.2,0.01,\nsums,0.0,,400\n")
    return place


def test_the_best_source_comes_first_and_what_was_measured_stands_beside(folder: Path) -> None:
    done = traitmap("recommend", "matrix.csv", "--target", "laws", "--top", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("1. songs") for line in lines)
    assert not any(line.startswith("3. ") for line in lines)
    shown = " ".join(done.stdout.split())
    assert "songs is better than any other" in shown
    assert "give texts" in shown
    assert "Measured on laws, unseen by the prediction" in shown
    assert max(map(len, lines)) <= 80


def test_json_names_what_was_found(folder: Path) -> None:
    done = traitmap(
        *("recommend", "matrix.csv", "--target", "laws", "--probe", "probes.csv"),
        *("--care", "maps", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ranked"][0]["source"] == "films"
    assert told["ranked"][0]["probed"] is True
    assert told["conditions"]["probes"] == ["films", "sums"]
    assert [one["name"] for one in told["ranked"][0]["side_effects"]] == ["maps"]
    assert {"verdict", "smallest", "popular", "random", "measured", "next_probes", "notes"} <= told.keys()


def test_a_source_that_holds_the_examples_is_marked_and_not_recommended(folder: Path) -> None:
    found = tm.recommend(
        folder / "matrix.csv", examples=folder / "stolen.jsonl", texts=folder / "texts.jsonl"
    )
    assert [one.source for one in found.set_aside] == ["songs"]
    assert "3 of 4 items" in found.set_aside[0].words
    assert "songs" not in {one.source for one in found.ranked}
    assert found.new
    assert found.target == "stolen"


def test_fresh_examples_are_ranked_with_features_and_labels_only_when_asked(folder: Path) -> None:
    examples = [TaskText(one.input, "yes", ("yes", "no")) for one in read_examples(folder / "fresh.jsonl")]
    settings = {"texts": folder / "texts.jsonl", "examples": examples}
    without = tm.recommend(folder / "matrix.csv", **settings)
    hidden = [TaskText(one.input, "no", ("yes", "no")) for one in examples]
    assert tm.recommend(folder / "matrix.csv", **(settings | {"examples": hidden})) == without
    assert tm.recommend(folder / "matrix.csv", labels=True, **settings) != without
    assert without.ranked[0].source == "songs"
    assert without.set_aside == ()
    assert without.conditions["features"] > 0
    assert isinstance(without, tm.Recommendation)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("recommend", "matrix.csv", "--target", "absent"), "it has plots, totals, laws, maps, people"),
        (("recommend", "matrix.csv"), "either a target of the matrix or examples"),
        (("recommend",), "--evaluate"),
        (("recommend", "matrix.csv", "--examples", "absent.jsonl"), "absent.jsonl cannot be read"),
    ],
)
def test_what_the_user_must_mend_is_one_message_and_exit_code_two(
    folder: Path, words: tuple[str, ...], told: str
) -> None:
    done = traitmap(*words, cwd=folder)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no rows"),
        ('{"input": "a"}\nnot json\n', "line 2: not valid JSON"),
        ('{"output": "a"}\n', "no input among its keys"),
        ('{"task": "a", "input": "x"}\n{"task": "b", "input": "y"}\n', "of a, b; give those of one task"),
    ],
)
def test_faulty_examples_are_told_with_their_line(folder: Path, content: str, told: str) -> None:
    place = folder / "faulty.jsonl"
    place.write_text(content)
    with pytest.raises(DataError, match=told):
        tm.recommend(folder / "matrix.csv", examples=place)
    with pytest.raises(DataError, match="no examples"):
        tm.recommend(folder / "matrix.csv", examples=[])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name,value\na,1\n", "has the columns name, value; give source, gain"),
        ("source,gain\n", "has no rows"),
        ("source,gain\nfilms,much\n", "line 2: gain is 'much'"),
        ("source,gain\nfilms,\n", "the gain of 'films' is empty"),
        ("source,gain,n\nfilms,0.1,-3\n", "cannot be negative"),
        ("source,gain\nfilms,0.1\nfilms,0.2\n", "more than once"),
    ],
)
def test_faulty_probes_are_told_with_their_line(folder: Path, content: str, told: str) -> None:
    place = folder / "faulty.csv"
    place.write_text(content)
    with pytest.raises(DataError, match=told):
        read_probes(place)


def test_a_run_brings_its_texts_and_its_contamination(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = execute(asked, FakeEngine(), sources(asked), targets())
    keep_contamination(store.folder, sources(asked), targets())
    found = tm.recommend(store.folder, target="topics")
    held = {one.source for one in found.set_aside}
    assert "topics" in held
    assert {one.source for one in found.ranked} | held == {"reviews", "flipped", "topics", "sums"}
    assert found.conditions["features"] > 0
    with pytest.raises(MatrixError, match="no target 'absent'"):
        tm.recommend(store.folder, target="absent")


def test_an_atlas_is_filled_checked_and_used_as_a_prior(tmp_path: Path) -> None:
    """A table of another base goes into an atlas; the command says what of it matched and was used."""
    rows = ["source,t1,t2,t3,t4,t5", "__baseline__,50,50,50,50,50"]
    rows += [f"s{i},{50 + 3 * i},{50 + 2 * i},{54 - i},{50 + i},{52 + i % 2}" for i in range(6)]
    (tmp_path / "here.csv").write_text("\n".join(rows))
    (tmp_path / "there.csv").write_text("\n".join(rows).replace("t5", "T-5"))
    run = CliRunner()
    done = run.invoke(app, ["atlas", "add", str(tmp_path / "atlas"), str(tmp_path / "there.csv")])
    assert done.exit_code == 0, done.output
    assert run.invoke(app, ["atlas", "list", str(tmp_path / "atlas")]).exit_code == 0
    told = run.invoke(
        app,
        [
            "recommend",
            str(tmp_path / "here.csv"),
            "--target",
            "t3",
            "--prior",
            str(tmp_path / "atlas"),
            "--json",
        ],
    )
    assert told.exit_code == 0, told.output
    notes = json.loads(told.stdout)["notes"]
    assert any(
        "6 of 6 sources matched (6 by name), 5 of 5 targets matched (5 by name)" in note for note in notes
    )
    assert any(note.startswith("Priors ") for note in notes)
    (tmp_path / "atlas" / "there.atlas.json").write_text("{}")
    broken = run.invoke(app, ["atlas", "check", str(tmp_path / "atlas")])
    assert broken.exit_code == 2
    assert "is no file of an atlas" in " ".join(broken.output.split())


def test_similarity_files_are_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("source,target,a,b\nx,y,0.5,\nx,z,1,2\n")
    assert read_similarity(tmp_path / "long.csv") == {
        "a": {("x", "y"): 0.5, ("x", "z"): 1.0},
        "b": {("x", "z"): 2.0},
    }
    (tmp_path / "wide.csv").write_text("task,y,z\nx,0.5,1\n")
    assert read_similarity(tmp_path / "wide.csv") == {"wide": {("x", "y"): 0.5, ("x", "z"): 1.0}}
    (tmp_path / "bad.csv").write_text("source,target,a\nx,y,much\nx,z,inf\n")
    with pytest.raises(DataError) as faults:
        read_similarity(tmp_path / "bad.csv")
    assert str(faults.value).count("give a number") == 2
    (tmp_path / "empty.csv").write_text("source,target\nx,y\n")
    with pytest.raises(DataError, match="holds no similarities"):
        read_similarity(tmp_path / "empty.csv")
