"""The study on real language models: its layouts, its tasks, one wording for source and target, and one study
on both bases, each at the rates that its sweep chose.
"""

import json
import runpy
from pathlib import Path

import pytest

from traitmap.data.lineage import load_sources
from traitmap.data.targets import load_target
from traitmap.study.load import load_study
from traitmap.study.settings import Study

FOLDER = Path(__file__).parents[2] / "examples" / "real"
FIRST_LOOK = load_study(FOLDER / "first_look.yaml")
STUDY = load_study(FOLDER / "study.yaml")
FILES = ("study.yaml", "gemma.yaml")


@pytest.fixture(scope="module")
def copies(shared, tmp_path_factory):
    """The first and last rows of every file, in the hub's layouts."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("copies")
    for file in sorted((shared / "data").glob("*/*.jsonl")):
        (data / file.parent.name).mkdir(exist_ok=True)
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines if len(lines) < 1900 else lines[:900] + lines[-1000:]
        (data / file.parent.name / file.name).write_text("".join(kept), encoding="utf-8")
    runpy.run_path(str(FOLDER / "lay_out.py"))["main"](data, folder / "none", folder)
    return folder


def test_every_task_file_is_a_target_a_source_or_the_validation_of_one():
    named = {Path(entry.task).stem for study in (FIRST_LOOK, STUDY) for entry in study.targets}
    named |= {Path(source.task).stem for source in STUDY.sources if source.task}
    swept = {f"{source.name}_validation" for source in STUDY.sources if not source.from_}
    assert named | swept == {path.stem for path in (FOLDER / "tasks").glob("*.yaml")}


@pytest.mark.shared
def test_layouts_keep_every_row_and_its_label(copies):
    mnli = copies / "nyu-mll__multi_nli" / "train.jsonl"
    rows = [json.loads(line) for line in mnli.read_text(encoding="utf-8").splitlines()]
    assert {row["label"] for row in rows} == {0, 1, 2}
    assert set(rows[0]) == {"premise", "hypothesis", "label"}


@pytest.mark.shared
@pytest.mark.parametrize("name", [target.name for target in STUDY.targets])
def test_a_target_opens_and_asks_as_its_source_teaches(name, copies):
    """The answers that a source teaches are those that its target asks for, behind prompts of one wording."""
    study = STUDY.model_copy(update={"data": str(copies)})
    asked = load_target(study, next(target for target in study.targets if target.name == name))
    assert asked.n_items == (next(t for t in study.targets if t.name == name).limit or study.limit)
    source = next((source for source in study.sources if source.name == name and source.path), None)
    if source is None:
        return
    [loaded] = load_sources(study.model_copy(update={"sources": (source,)}))
    learnt = loaded.examples
    assert wording_of(learnt[0].prompt) == wording_of(asked.requests[0].context)
    if asked.choices:
        assert {example.completion for example in learnt} <= {f" {choice}" for choice in asked.choices}
    assert not {example.prompt for example in learnt} & {request.context for request in asked.requests[:20]}


def wording_of(prompt: str) -> tuple[str, ...]:
    """What every prompt of a task has: the words before its first and behind its last colon."""
    return prompt.split(":")[0], prompt.rsplit("\n", 1)[-1]


@pytest.mark.shared
def test_the_first_items_of_the_balanced_target_are_balanced(copies):
    study = STUDY.model_copy(update={"data": str(copies)})
    target = next(target for target in study.targets if target.name == "flipkart_balanced")
    golds = [text.output for text in load_target(study, target).texts()]
    assert all(0.2 < golds.count(word) / len(golds) < 0.47 for word in ("negative", "neutral", "positive"))


def without_base_and_rates(study: Study) -> Study:
    """The study with whatever may differ between the bases made alike."""
    sources = [
        source.model_copy(update={"training": {**source.training, "learning_rate": None}})
        for source in study.sources
    ]
    same = {"name": "real", "path": None, "sources": tuple(sources)}
    return study.model_copy(update={**same, "model": study.model.model_copy(update={"path": "base"})})


def test_both_files_are_one_study_but_for_name_base_and_rates() -> None:
    first, second = (load_study(FOLDER / name) for name in FILES)
    assert first.model.path != second.model.path
    assert without_base_and_rates(first) == without_base_and_rates(second)


@pytest.mark.parametrize("name", FILES)
def test_the_rates_are_those_that_the_sweep_chose(name: str) -> None:
    study = load_study(FOLDER / name)
    sweep = json.loads((FOLDER / "results" / f"sweep-{study.name}.json").read_text(encoding="utf-8"))
    own = [source for source in study.sources if source.path or source.task]
    rates = {
        source.name: source.training.get("learning_rate", study.training.learning_rate) for source in own
    }
    assert rates == {source: float(found["chosen"]) for source, found in sweep.items()}
