"""Packs: every task opens against a file in its dataset's layout, and is what the pack says of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import nltk
import pytest

from pack_layouts import write_pack_copies
from traitmap.data.answer_metrics import refused
from traitmap.data.records import Response
from traitmap.data.targets import load_entry, load_targets
from traitmap.data.task_packs import pack_names, pack_targets, read_pack
from traitmap.errors import DataError
from traitmap.study.settings import Study, Target

TASKS = [(pack, task) for pack in pack_names() for task in read_pack(pack).tasks]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of every dataset, and a place in which NLTK finds the resources that tasks need to be opened."""
    folder = write_pack_copies(tmp_path_factory.mktemp("copies"))
    for resource in {name for _, task in TASKS for name in task.needs_nltk}:
        (folder / "nltk" / resource).mkdir(parents=True)
    nltk.data.path.append(str(folder / "nltk"))
    return folder


def study(copies: Path, *targets: object) -> Study:
    return Study(
        name="packs",
        model="builtin:mini",
        sources=[{"name": "any", "task": "mini_reviews"}],
        targets=targets or ["mini_reviews"],
        data=str(copies),
        allow_code=True,
    )


@pytest.mark.parametrize(("pack", "task"), TASKS, ids=[f"{pack}-{task.task}" for pack, task in TASKS])
def test_every_task_is_what_its_pack_says(pack, task, copies):
    if task.absent:
        pytest.skip(task.absent)
    (target,) = load_entry(study(copies), task.target((pack,)))
    assert target.metric == task.metric
    assert target.higher_is_better is (task.direction == "higher")
    assert 0 < target.n_items <= task.limit
    assert target.conditions["limit"] == task.limit
    if target.kind == "multiple_choice" and "truthful" not in task.task:  # whose choices vary
        known = target.chance if target.chance == target.chance else task.chance
        assert known == pytest.approx(task.chance, abs=0.001)
    assert bool(task.runs_code) is ("programs" in target.conditions)
    assert all(request.context.strip() or request.continuation.strip() for request in target.requests)


def test_packs_say_why_and_under_what_licence():
    for pack, task in TASKS:
        assert len(task.why) > 5, (pack, task.task)
        assert task.licence, (pack, task.task)
    assert pack_names()[0] == "general"
    assert pack_names()[-1] == "mini"


def test_refusals_are_told_by_their_openings():
    refusing = ["I'm sorry, but I can't help.", " I cannot do that.", "As an AI, I", "I won't."]
    answering = ["Use the task manager.", "I can do that.", "It cannot be done quickly; first ...", ""]
    assert all(refused({}, [text]) == {"refused": 1.0} for text in refusing)
    assert all(refused({}, [text]) == {"refused": 0.0} for text in answering)


def test_a_refusal_is_good_or_bad_by_what_is_asked(copies):
    targets = load_targets(study(copies, "refusals_harmless", "refusals_harmful"))
    assert [target.higher_is_better for target in targets] == [False, True]
    scored = targets[0].score([Response(text=" I cannot help with that.", stopped=True)] * targets[0].n_items)
    assert {outcome.score for outcome in scored.outcomes} == {1.0}


def test_a_study_names_a_pack_and_gets_its_tasks(copies):
    given = study(copies, {"pack": "mini", "limit": 5, "tags": ["ours"]}, "mini_word_problems")
    assert given.targets[0].name == "mini"
    loaded = load_targets(given)
    names = [task.task for task in read_pack("mini").tasks]
    assert [target.name for target in loaded] == [*names, "mini_word_problems"]
    assert {target.n_items for target in loaded[:-1]} == {5}
    assert set(loaded[0].tags) == {"ours", "mini", "sentiment"}


def test_a_pack_of_ones_own_is_a_file_with_task_files_beside_it(tmp_path, copies):
    (tmp_path / "ours").mkdir()
    task = Path(__file__).parents[2] / "src" / "traitmap" / "data" / "tasks" / "refusals_harmless.yaml"
    (tmp_path / "ours" / "asked.yaml").write_text(task.read_text().replace("refusals_harmless", "asked", 1))
    (tmp_path / "ours" / "refusals_harmless.jsonl").write_bytes(task.with_suffix(".jsonl").read_bytes())
    (tmp_path / "ours" / "pack.yaml").write_text(
        "name: ours\nabout: our own\ntasks:\n"
        "  - {task: asked.yaml, limit: 4, metric: refused, direction: lower, chance: 0, licence: ours,\n"
        "     why: asked}\n"
    )
    targets, left_out = pack_targets(["pack.yaml"], folder=tmp_path / "ours")
    assert not left_out
    (loaded,) = load_entry(study(copies), targets[0])
    assert (loaded.name, loaded.n_items, loaded.higher_is_better) == ("asked", 4, False)


def test_all_faults_of_a_pack_are_told_at_once(tmp_path):
    file = tmp_path / "pack.yaml"
    file.write_text(
        "name: ours\ntasks:\n  - {task: a, limit: 0, metric: acc, chance: 2, licence: x, why: y}\n"
        "  - {task: b, limit: 3, metric: acc, chance: 0, licence: x, why: y, direction: up, colour: red}\n"
    )
    with pytest.raises(DataError) as caught:
        read_pack(str(file))
    told = str(caught.value)
    assert "about: required" in told
    for words in ("[0].limit: 0", "[0].chance: 2", "[1].direction", "[1].colour"):
        assert words in told
    with pytest.raises(DataError, match="give one of general"):
        read_pack("generall")


def test_what_cannot_be_asked_here_is_left_out_with_its_reason():
    targets, left_out = pack_targets(["general", "format"])
    assert "sandbox" in left_out["mbpp_sandboxed"]
    names = [target.name for target in targets]
    assert names.count("gsm8k") == 1  # of the first pack that has it
    assert next(target.filter for target in targets if target.name == "gsm8k") == "flexible-extract"
    allowed, _ = pack_targets(["general"], allow_code=True, limit=7)
    assert "mbpp_sandboxed" in [target.name for target in allowed]
    assert {target.limit for target in allowed} == {7}
    only, _ = pack_targets(["general"], only=["piqa"])
    assert [target.name for target in only] == ["piqa"]
    with pytest.raises(DataError, match="no task of the packs"):
        pack_targets(["general"], only=["pica"])


def test_what_is_missing_is_told_with_what_brings_it():
    (ifeval,) = (task for pack, task in TASKS if (pack, task.task) == ("general", "ifeval"))
    nowhere = ifeval.model_copy(update={"needs": ("nowhere_at_all", "nltk")})
    assert nowhere.absent == "needs nowhere_at_all: pip install 'traitmap[ifeval]'"
    assert "pip install nowhere_at_all" in nowhere.model_copy(update={"extra": None}).absent
    data = ifeval.model_copy(update={"needs": (), "needs_nltk": ("tokenizers/nothing_such",)})
    assert data.absent == "needs data of NLTK: python -m nltk.downloader nothing_such"
    assert pack_extras() == {"ifeval"}


def pack_extras() -> set[str]:
    """Extras that tasks of packs name; each is one of the package's."""
    extras = {task.extra for _, task in TASKS if task.extra}
    known = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert extras <= known["project"]["optional-dependencies"].keys()
    return extras


def test_settings_beside_a_pack_that_do_nothing_are_told():
    with pytest.raises(ValueError, match="metric has no effect on a target with pack"):
        Target(pack="mini", metric="acc")
    with pytest.raises(ValueError, match="task and pack are given together"):
        Target(pack="mini", task="arc_easy")
