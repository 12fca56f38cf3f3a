"""Merges and checkpoints as rows of a run, from the file to the matrix, on the fake engine."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from traitmap import api
from traitmap.api.runs import contamination_in
from traitmap.engine.fake import FakeEngine
from traitmap.errors import StudyError
from traitmap.matrix.reading import touched_cells
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store

WORDS = {"a": ("bright", "dull"), "b": ("warm", "cold"), "c": ("fresh", "stale")}
SOURCES: list[dict[str, Any]] = [
    {"name": "a", "path": "a.jsonl", "checkpoints": [2, 5]},
    {"name": "b", "path": "b.jsonl"},
    {"name": "wrong", "from": "a", "mislabel": 0.5, "checkpoints": [3]},
    {"name": "ab", "merge": ["a", "b"], "weights": [0.75, 0.25], "method": "linear"},
    {"name": "early", "merge": ["a@2", "b"]},
    {"name": "drawn", "merge": ["ab", "b"], "method": "dare_linear", "density": 0.4},
    {"name": "alone", "merge": ["b"]},
]


def written(folder: Path, sources: list[dict[str, Any]], **more: Any) -> Path:
    for name, (good, bad) in WORDS.items():
        rows = [
            {"text": f"{(good, bad)[i % 2]} thing number {i}", "label": ("good", "bad")[i % 2]}
            for i in range(60)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    rows_of = {"prompt": "{{ text }} is", "label": "label"}
    study = {
        "name": "moods",
        "model": "builtin:mini",
        "training": {"max_steps": 6, "batch_size": 8, "warmup_steps": 0},
        "lora": {"r": 4},
        "sources": [
            {**rows_of, "completion": " {{ label }}", **one} if "path" in one else one for one in sources
        ],
        "targets": [{"name": name, "path": "c.jsonl", **rows_of} for name in ("asked",)],
        **more,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


class Counting(FakeEngine):
    """Counts the trainings, their steps and the merges."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = list[int]()
        self.merges = 0

    def train(self, *args: Any, **told: Any) -> Any:
        reports = super().train(*args, **told)
        self.steps += [len(report.losses) for report in reports]
        return reports

    def merge(self, *args: Any) -> None:
        self.merges += 1
        super().merge(*args)


def run(folder: Path, sources: list[dict[str, Any]] = SOURCES, engine: FakeEngine | None = None, **more: Any):
    study = written(folder, sources, **more)
    return api.run(study, engine=engine or Counting(), output=folder / "runs")


def digests(folder: Path) -> dict[tuple[str, int | None], str | None]:
    ledger = read_ledger(open_store(folder))
    return {(entry.source, entry.seed): entry.digest for entry in ledger.adapters}


def test_every_row_is_there_and_its_cost_is_that_of_the_trainings_alone(tmp_path: Path) -> None:
    engine = Counting()
    done = run(tmp_path, engine=engine, seeds=[0, 1])
    assert done.matrix().sources == (
        *("a@2", "a@5", "a", "b", "wrong@3", "wrong", "ab", "early", "drawn", "alone"),
    )
    assert engine.steps == [6] * 6  # three trainings, two seeds, whatever is kept of them
    assert engine.merges == 3 * 2  # one of a single adapter is that adapter
    assert done.status().complete
    assert not np.isnan(done.matrix().values).any()
    assert len(set(digests(done.folder).values())) == 20 - 2


def test_a_merge_of_one_adapter_is_that_adapter_and_its_cells_are_not_asked_again(tmp_path: Path) -> None:
    done = run(tmp_path)
    of = digests(done.folder)
    assert of["alone", 0] == of["b", 0]
    matrix = done.matrix()
    assert matrix.values[matrix.sources.index("alone")] == matrix.values[matrix.sources.index("b")]
    ledger = read_ledger(open_store(done.folder))
    assert len({cell.key for cell in ledger.cells}) == len(ledger.cells) - 1


def test_running_again_trains_and_merges_nothing_and_what_is_lost_alone_is_made_anew(tmp_path: Path) -> None:
    first = run(tmp_path)
    before, again = digests(first.folder), Counting()
    run(tmp_path, engine=again)
    assert (again.steps, again.merges) == ([], 0)
    store = open_store(first.folder)
    keys = {entry.source: entry.key for entry in read_ledger(store).adapters}
    shutil.rmtree(store.adapter(keys["ab"]))
    run(tmp_path, engine=again)
    assert (again.steps, again.merges) == ([], 1)
    shutil.rmtree(store.adapter(keys["a@2"]))
    run(tmp_path, engine=again)
    assert again.steps == [2]  # the training is taken as far as the checkpoint, and no further
    after = digests(first.folder)
    assert {place for place in before if before[place] != after[place]} <= {("a@2", 0)}


def test_further_checkpoints_and_merges_leave_what_is_there(tmp_path: Path) -> None:
    plain = [{"name": name, "path": f"{name}.jsonl"} for name in ("a", "b")]
    first = digests(run(tmp_path, plain).folder)
    engine = Counting()
    more = [{**plain[0], "checkpoints": [4]}, plain[1], {"name": "m", "merge": ["a", "b"]}]
    second = digests(run(tmp_path, more, engine).folder)
    assert engine.steps == [4]
    assert engine.merges == 1
    assert {place: second[place] for place in first} == first


def test_a_merge_waits_for_its_parents_and_says_which_one_it_lacks(tmp_path: Path) -> None:
    sources = [
        {"name": "m", "merge": ["wild", "b"]},
        {"name": "of_m", "merge": ["m", "b"]},
        {"name": "wild", "path": "a.jsonl", "training": {"learning_rate": 5}},
        {"name": "b", "path": "b.jsonl"},
    ]
    failures = {unit.source: unit.reason for unit in run(tmp_path, sources).status().failures}
    assert "wild seed 0 has no adapter: diverged" in failures["m"]
    assert "m seed 0 has no adapter" in failures["of_m"]
    sources[2].pop("training")
    assert run(tmp_path, sources).status().complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge": ["a", "nobody"]}, ["no source 'nobody'", "legal here"]),
        ({"merge": ["a@4", "b"]}, ["'a' keeps no checkpoint at step 4", "a@2, a@5"]),
        ({"merge": ["b@4", "a"]}, ["'b' keeps no checkpoint", "checkpoints: [4]"]),
        ({"merge": ["new"]}, ["this source itself"]),
        ({"merge": ["a", "b"], "weights": [1]}, ["1 weights for 2 adapters"]),
        ({"merge": ["a", "b"], "method": "mean"}, ["no such method", "cat, svd, linear"]),
        ({"merge": ["a", "big"], "method": "ties"}, ["one rank", "4 (a), 8 (big)", "ties_svd"]),
        ({"from": "ab", "subsample": 5}, ["'ab' is a merge of adapters, which has no rows"]),
        ({"concat": ["a@2", "b"]}, ["a checkpoint, which has no rows of its own; give 'a'"]),
        ({"from": "b", "subsample": 5, "checkpoints": [7]}, ["ends at step 6, before 7"]),
        ({"from": "b", "subsample": 5, "checkpoints": [3, 3]}, ["step 3 stands twice"]),
        ({"from": "b", "subsample": 5, "train": False, "checkpoints": [3]}, ["remove train: false"]),
        ({"concat": ["a", "b"], "weights": [1, 2, 3]}, ["3 weights for 2 sources"]),
        ({"merge": ["a", "material"]}, ["'material' is not trained"]),
    ],
)
def test_what_cannot_be_merged_or_kept_is_said_before_anything_is_trained(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    more = [
        {"name": "big", "path": "c.jsonl", "lora": {"r": 8}},
        {"name": "material", "path": "c.jsonl", "train": False},
        {"name": "user", "from": "material", "subsample": 9},
    ]
    study = written(tmp_path, [*SOURCES, *more, {"name": "new", **change}])
    with pytest.raises(StudyError) as caught:
        api.check(study, engine=FakeEngine())
    faults = [str(fault) for fault in caught.value.faults if fault.where.startswith("sources[10]")]
    assert len(faults) == len(caught.value.faults)
    assert any(all(word in fault for word in words) for fault in faults), faults


def test_merges_do_not_go_in_a_circle(tmp_path: Path) -> None:
    sources = [*SOURCES[:2], {"name": "m", "merge": ["n", "b"]}, {"name": "n", "merge": ["m", "b"]}]
    with pytest.raises(StudyError, match="circle: m -> n -> m"):
        api.check(written(tmp_path, sources), engine=FakeEngine())


def test_weights_of_a_mixture_may_stand_apart_and_are_shares_of_its_rows(tmp_path: Path) -> None:
    mixed = {"concat": ["a", "b"], "weights": [1, 3]}
    sources = [*SOURCES[:2], {"name": "m", **mixed}, {"name": "n", "concat": ["a", "b"]}]
    looked = {one.name: one for one in api.check(written(tmp_path, sources), engine=FakeEngine()).sources}
    assert looked["m"].examples == 20 + 60
    assert looked["n"].examples == 60 + 60


def test_the_last_step_is_the_source_itself(tmp_path: Path) -> None:
    sources = [
        {**SOURCES[0], "checkpoints": [2, 6]},
        SOURCES[1],
        {"name": "m", "merge": ["a@6", "b"]},
        {"name": "n", "merge": ["a", "b"]},
    ]
    done = run(tmp_path, sources)
    assert done.matrix().sources == ("a@2", "a", "b", "m", "n")
    of = digests(done.folder)
    assert of["m", 0] == of["n", 0]


def test_merges_inherit_the_test_items_in_the_texts_of_their_parents(tmp_path: Path) -> None:
    sources = [
        {**SOURCES[0], "checkpoints": [2]},
        SOURCES[1],
        {"name": "ab", "merge": ["a@2", "b"]},
        {"name": "deep", "merge": ["ab", "b"]},
        {"name": "b_twice", "merge": {"b": 2}},
    ]
    study = written(tmp_path, sources)
    (tmp_path / "a.jsonl").open("a").write((tmp_path / "c.jsonl").read_text())  # the items, in a's texts
    done = api.run(study, engine=FakeEngine(), output=tmp_path / "runs")
    marked = touched_cells(done.matrix().conditions)
    assert {source for source, _ in marked} == {"a@2", "a", "ab", "deep"}
    assert len({touched.words for touched in marked.values()}) == 1
    assert all(touched.material and touched.touched == touched.items for touched in marked.values())
    found = contamination_in(done.folder)
    assert found is not None
    assert set(found.sources) == {"a@2", "a", "b", "ab", "deep", "b_twice"}


@pytest.mark.parametrize("form", ["csv", "parquet", "lm-eval", "every-eval-ever", "model-card", "atlas"])
def test_every_export_has_the_rows_of_merges_mixtures_and_checkpoints(tmp_path: Path, form: str) -> None:
    mixture = {"name": "both", "concat": {"a": 1.0, "b": 1.0}}
    done = run(tmp_path, [*SOURCES, mixture])
    matrix = done.matrix()
    out = tmp_path / f"made.{form}"
    api.export(done.folder, out, format=form)
    if form in ("csv", "parquet"):
        again = api.read_matrix(out)
        assert again.sources == matrix.sources
        assert again.values == pytest.approx(matrix.values)
    elif form in ("lm-eval", "every-eval-ever"):
        api.import_results([out], tmp_path / "back")
        back = api.read_matrix(tmp_path / "back")
        assert set(back.sources) == set(matrix.sources)
        order = [back.sources.index(name) for name in matrix.sources]
        assert back.values[order] == pytest.approx(matrix.values)
    elif form == "model-card":
        assert {card.parent.name for card in out.glob("*/README.md")} == set(matrix.sources)
    else:
        written = "".join(path.read_text(encoding="utf-8") for path in out.rglob("*.json"))
        assert all(f'"{name}"' in written for name in matrix.sources)


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_a_budget_pays_once_for_a_training_whatever_checkpoints_and_merges_come_of_it(
    tmp_path: Path, share: float
) -> None:
    engine = Counting()
    spent = api.run(written(tmp_path, SOURCES), engine=engine, output=tmp_path / "runs", budget=share).spent()
    assert spent is not None
    used, whole = spent["training"]
    assert used <= share * whole + 1e-6
    assert used / whole == pytest.approx(sum(engine.steps) / 18)  # of three trainings of six steps
    if share == 1.0:
        assert set(spent["cheapest"]) == {name for names in spent["rounds"] for name in names}
        assert spent["adapters"] == [10, 10]
        assert (engine.steps, engine.merges) == ([6, 6, 6], 3)
