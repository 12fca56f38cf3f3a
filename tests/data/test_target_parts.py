"""A target asked some of its items: the same outcomes for these, under a digest of its own."""

from dataclasses import replace
from pathlib import Path

import pytest
from hash_model import answer_requests

from traitmap.data.targets import load_target
from traitmap.study.settings import Model, Source, Study, Target

TASKS = Path(__file__).parent / "tasks"
NAMES = sorted(path.stem for path in TASKS.glob("*.yaml") if path.stem not in ("tiny_group", "tiny_blank"))


def load(name: str):
    target = Target(name="target", task=name)
    study = Study(
        allow_code=True,
        name="tiny",
        model=Model(path="builtin:mini"),
        sources=(Source(name="any", task="tiny_review"),),
        targets=(target,),
        include_path=(str(TASKS),),
    )
    return load_target(study, target)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_scores_its_items_as_the_whole_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TASKS)
    target = load(name)
    whole = target.score(answer_requests(target.requests)).outcomes
    kept = tuple(range(1, target.n_items, 2)) or (0,)
    part = target.part(kept)
    assert part.score(answer_requests(part.requests)).outcomes == tuple(whole[item] for item in kept)
    assert target.score(answer_requests(target.requests)).outcomes == whole  # nothing of it is left behind
    assert part.n_items == len(kept)
    assert part.conditions["items_in_all"] == target.n_items


def test_parts_have_digests_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TASKS)
    target = load("tiny_review")
    digests = [target.digest, target.part((0, 1)).digest, target.part((0, 2)).digest]
    assert len(set(digests)) == 3
    assert replace(target.part((0, 1))).digest == digests[1]
