"""Profiles of texts, studies and runs: one record from Python, the same on the command line."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import yaml
from spacy.training import Example
from spacy.util import fix_random_seed

import traitmap as tm
from small_study import sources, study, targets
from traitmap.api.profiles import write_profile
from traitmap.data.texts import TaskText
from traitmap.engine.fake import FakeEngine
from traitmap.errors import UserError
from traitmap.runs.execute import execute
from traitmap.study.paths import MINI, model_location

TRAITMAP = (sys.executable, "-m", "traitmap.cli")
WORDS = ("red", "old", "small", "warm", "loud", "green", "late")
MINI_BASE = Path(str(model_location(MINI, Path())))


def traitmap(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAITMAP, *words], cwd=cwd, capture_output=True, text=True, timeout=300)


def refuse_constants(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of texts, a finished run, and a parser of two sentences' experience."""
    folder = tmp_path_factory.mktemp("profile")
    rows = [
        *({"task": "sums", "input": f"{n} plus {n + 1} is", "output": str(2 * n + 1)} for n in range(40)),
        *(
            {"task": "moods", "input": f"a {WORDS[n % 7]} day {n}", "output": ("good", "bad")[n % 2]}
            for n in range(40)
        ),
        *({"task": "colours", "input": f"is {WORDS[n % 5]} a colour ?", "output": "no"} for n in range(40)),
    ]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    asked = study(folder)
    execute(asked, FakeEngine(), sources(asked), targets())
    fix_random_seed(0)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("parser", config={"min_action_freq": 1})
    told = {"heads": [1, 1, 1, 2], "deps": ["case", "ROOT", "obl", "xcomp"]}
    examples = [Example.from_dict(pipeline.make_doc("review warm day verdict"), told)] * 2
    pipeline.initialize(lambda: examples)
    pipeline.to_disk(folder / "parser")
    return folder


def test_texts_are_profiled_in_every_form(place: Path) -> None:
    shown = traitmap("profile", "texts.jsonl", cwd=place)
    assert shown.returncode == 0, shown.stderr
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    assert "\x1b[" not in shown.stdout
    assert all(name in shown.stdout for name in ("sums", "moods", "colours"))
    found = {row.dataset: row for row in tm.profile(place / "texts.jsonl").rows()}
    assert f"{found['sums'].meaning} {found['sums'].meaning_cosine:+.2f}" in shown.stdout
    both = traitmap("profile", "texts.jsonl", "--csv", "p.csv", "--json", "--sample", "30", cwd=place)
    assert both.returncode == 0, both.stderr
    told = json.loads(both.stdout, parse_constant=refuse_constants)
    assert (told["kind"], set(told["datasets"])) == ("texts", {"sums", "moods", "colours"})
    assert told["datasets"]["moods"]["classes"]["entropy"] == pytest.approx(1)
    assert told["datasets"]["sums"]["read"]["lengths"] == 30
    with (place / "p.csv").open(encoding="utf-8") as stream:
        rows = {row["dataset"]: row for row in csv.DictReader(stream)}
    assert float(rows["moods"]["majority"]) == pytest.approx(0.5)
    assert rows["sums"]["classes"] == rows["sums"]["perplexity"] == ""
    assert rows["moods"]["meaning"] in ("sums", "colours")


def test_a_dataset_alone_has_no_neighbours(place: Path) -> None:
    sums = [line for line in (place / "texts.jsonl").read_text().splitlines() if '"sums"' in line]
    (place / "alone.jsonl").write_text("\n".join(sums), encoding="utf-8")
    shown = traitmap("profile", "alone.jsonl", cwd=place)
    assert shown.returncode == 0, shown.stderr
    assert "nearest" not in shown.stdout
    assert "below three datasets" in " ".join(shown.stdout.split())


def test_an_encoder_in_a_folder_measures_meaning_and_style(place: Path) -> None:
    """One that knows three words: by it sums and moods are alike, whatever their other words."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "plus": 1, "day": 2, "colour": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.array([[0.1, 0.1], [1, 0], [1, 0], [0, 1]], dtype="float32")
    words = StaticEmbedding(tokenizer, embedding_weights=vectors)
    library.SentenceTransformer(modules=[words], device="cpu").save(str(place / "encoder"))
    given = ("profile", "texts.jsonl", "--encoder", "encoder", "--style-encoder", "encoder", "--json")
    done = traitmap(*given, cwd=place)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout, parse_constant=refuse_constants)
    assert told["semantics"]["kind"] == told["style"]["encoder"] == "sentence-transformers encoder"
    assert not any("TF-IDF" in note for note in told["notes"])
    rows = {row.dataset: row for row in tm.profile(place / "texts.jsonl", encoder=place / "encoder").rows()}
    assert (rows["sums"].meaning, rows["moods"].meaning) == ("moods", "sums")
    assert rows["sums"].meaning_cosine > 0.95 > rows["colours"].meaning_cosine


def test_help_has_an_example_and_mistakes_are_one_message(place: Path) -> None:
    assert "Example: traitmap profile" in traitmap("profile", "--help", cwd=place).stdout
    for words, message in (
        (("texts.jsonl", "--perplexity"), "--base"),
        (("texts.jsonl", "--parser", "absent"), "spacy download"),
    ):
        done = traitmap("profile", *words, cwd=place)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_run_is_profiled_by_its_texts_and_its_answers(place: Path) -> None:
    found = tm.profile(place / "small", parser=place / "parser")
    assert found.kind == "run"
    assert found.roles["reviews"] == "source"
    assert found.roles["reviews (target)"] == "target"
    assert found.tasks["reviews (target)"] == "reviews"
    assert list(found.rows()[0].__dict__)[:2] == ["dataset", "role"]
    near = {row.dataset: row.style for row in found.rows()}
    assert near["reviews"] == near["reviews (target)"] == "flipped"  # not its own other half
    assert found.cells is not None
    accuracy = found.cells.classes_of("reviews", "reviews").adapter.accuracy.value
    assert accuracy == pytest.approx(found.matrix.values[0, 0])
    assert len(found.relations["reviews (target)"].texts) == 40
    assert {effect.target for effect in found.effects.effects} == set(found.matrix.targets)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"cells", "relation_effects", "syntax"} <= told.keys()
    assert told["relation_effects"]["conditions"]["scheme"] == "UD"


def test_a_run_is_shown_and_written(place: Path) -> None:
    done = traitmap("profile", "small", "--parser", "parser", cwd=place)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for part in ("Share of the commonest answer", "cannot be parsed", "depend on syntactic"):
        assert part in done.stdout
    assert "parse: 100 %" in done.stderr
    found = tm.profile(place / "small", sample=10)
    written = write_profile(found, place / "run.csv")
    assert [path.name for path in written] == ["run.csv", "run.cells.csv"]
    with written[1].open(encoding="utf-8") as stream:
        cells = list(csv.DictReader(stream))
    pooled = [row for row in cells if row["seed"] == ""]
    assert {(row["source"], row["target"]) for row in pooled} >= {("reviews", "topics"), ("sums", "sums")}
    with pytest.raises(UserError, match="cannot be written"):
        write_profile(found, place / "run.csv" / "p.csv")


def test_perplexity_is_measured_by_the_base_that_is_given(place: Path) -> None:
    engine = FakeEngine()
    found = tm.profile(place / "small", perplexity=True, engine=engine, sample=10)
    surprise = found.perplexity["reviews"]
    assert (surprise.n, surprise.available) == (10, 60)
    profile = found.comparison.profiles["reviews"]
    assert profile.perplexity == pytest.approx(math.exp(surprise.text.nats_per_token))
    assert profile.lengths.unit == profile.to_json()["difficulty"]["unit"] == "tokens"
    assert found.notes == ()
    other = tm.profile(place / "small", perplexity=True, engine=FakeEngine("another"), sample=10)
    assert "another base" in other.notes[0]
    with pytest.raises(UserError, match="--base"):
        tm.profile(place / "small", perplexity=True)  # the run's base "fake" is not there


def test_perplexity_honours_the_local_copy_of_the_base_before_and_after_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base with a hub name lies in the folder that ``data`` names; nothing is asked of the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(MINI_BASE, tmp_path / "copies" / "org__base")
    rows = [{"text": f"a {WORDS[n % 7]} day", "label": n % 2} for n in range(20)]
    (tmp_path / "days.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = {"name": "days", "path": "days.jsonl", "prompt": "{{ text }}:", "completion": " {{ label }}"}
    settings = {"name": "copied", "model": "org/base", "data": "copies", "training": {"max_steps": 1}}
    lists = {"sources": [source], "targets": ["mini_reviews"], "limit": 4}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**settings, **lists}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = tm.profile("study.yaml", perplexity=True, sample=2)
    run = tm.run("study.yaml")
    after = tm.profile(run.folder, perplexity=True, sample=2)
    assert before.perplexity["days"] == after.perplexity["days"]
    assert math.isfinite(after.perplexity["days"].text.perplexity)
    assert after.notes == ()  # the base is the very one that the run was made with


def test_the_datasets_of_a_study_are_profiled_before_anything_is_trained(tmp_path: Path) -> None:
    tm.write_template(tmp_path / "my-study", "local-data")
    found = tm.profile(tmp_path / "my-study" / "study.yaml")
    assert found.kind == "study"
    assert {"source", "target"} == set(found.roles.values())
    assert found.cells is None
    assert found.effects is None


def test_no_target_takes_the_name_of_a_source() -> None:
    from traitmap.api.profiles import together

    one, other = (TaskText("a", "b"),), (TaskText("c", "d"),)
    texts, roles, tasks = together({"x": one, "x (target)": one}, {"x": other, "empty": ()})
    assert [(name, roles[name], tasks[name]) for name in texts] == [
        ("x", "source", "x"),
        ("x (target)", "source", "x (target)"),
        ("x (target)'", "target", "x"),
    ]
