import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from small_study import SmallTarget, loaded_source, sources, study, targets
from traitmap.data.records import Request, Response
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.cells import read_scores
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_ledger
from traitmap.runs.plan import make_plan
from traitmap.runs.status import Tally, pending_units, run_status
from traitmap.runs.store import RunStore, locked_store, open_store
from traitmap.study.settings import Study


class Recorder(FakeEngine):
    """The fake engine, which also remembers what it was asked."""

    def __init__(self, *, longest: int = 100_000, name: str = "fake") -> None:
        super().__init__(name, longest=longest)
        self.calls: list[dict[str, object]] = []

    def _write_log(self, **entry: object) -> None:
        self.calls.append(entry)

    def count(self, call: str) -> int:
        return sum(entry["call"] == call for entry in self.calls)


def run(asked: Study, engine: FakeEngine, listener: Listener = silent, **changes: object) -> RunStore:
    return execute(asked, engine, sources(asked), targets(), listener, **changes)


def test_everything_is_done_once_and_never_again(tmp_path: Path) -> None:
    asked, engine, again = study(tmp_path), Recorder(), Recorder()
    status = run_status(run(asked, engine))
    assert status.complete
    assert (status.adapters, status.cells) == (Tally(8, 0, 0), Tally(36, 0, 0))
    assert (engine.count("train"), engine.count("answer")) == (8, 36)
    assert run_status(run(asked, again)).complete
    assert again.calls == []


def test_the_base_is_scored_once_for_all_seeds(tmp_path: Path) -> None:
    engine = Recorder()
    run(study(tmp_path, seeds=(0, 1, 2)), engine)
    assert sum(entry["call"] == "answer" and entry["adapter"] is None for entry in engine.calls) == 4


def test_adapters_learn_their_own_task(tmp_path: Path) -> None:
    store = run(study(tmp_path, seeds=(0,)), FakeEngine())
    means = {
        (cell.source, cell.target): read_scores(store.cell(str(cell.key))).scores.mean()
        for cell in read_ledger(store).cells
    }
    for name in ("reviews", "topics", "sums"):
        assert means[name, name] > means["__baseline__", name] + 0.1
    assert means["flipped", "reviews"] < means["__baseline__", "reviews"] - 0.1


def test_progress_grows_to_its_total_in_both_stages(tmp_path: Path) -> None:
    heard: list[Progress] = []
    run(study(tmp_path), FakeEngine(), heard.append, group_size=3)
    for stage in ("train", "evaluate"):
        done = [one.done for one in heard if one.stage == stage]
        assert done == sorted(done)
        assert done[-1] == [one.total for one in heard if one.stage == stage][-1]
    assert {one.stage for one in heard} == {"train", "evaluate"}
    assert heard[-1].total == 9 * sum(len(target.requests) for target in targets())


def test_interrupt_keeps_what_is_finished_and_is_raised_on(tmp_path: Path) -> None:
    asked, first, second = study(tmp_path), Recorder(), Recorder()

    def stop_at_the_tenth_cell(report: Progress) -> None:
        if first.count("answer") == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(asked, first, stop_at_the_tenth_cell)
    status = run_status(tmp_path / "small")
    assert (status.adapters, status.cells) == (Tally(8, 0, 0), Tally(9, 0, 27))
    assert status.running is None
    run(asked, second)
    assert (second.count("train"), second.count("answer")) == (0, 27)


def test_a_diverging_adapter_fails_alone_and_is_tried_again(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    wild, *tame = sources(asked)
    wild = replace(wild, training=wild.training.model_copy(update={"learning_rate": 5.0}))
    status = run_status(execute(asked, FakeEngine(), [wild, *tame], targets()))
    assert status.adapters == Tally(3, 1, 0)
    assert status.cells == Tally(16, 4, 0)
    (failure,) = status.failures
    assert (failure.source, failure.target) == ("reviews", None)
    assert "lower learning_rate" in failure.reason
    again = Recorder()
    execute(asked, again, [wild, *tame], targets())
    assert [entry["source"] for entry in again.calls] == ["reviews"]
    assert run_status(run(asked, FakeEngine())).complete


def test_a_cell_that_fails_is_recorded_and_tried_again(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    status = run_status(run(asked, FakeEngine(longest=5)))
    assert status.cells == Tally(15, 5, 0)  # reviews are six words long
    assert {failure.target for failure in status.failures} == {"reviews"}
    assert all("memory" in failure.reason for failure in status.failures)
    assert not status.complete
    engine = Recorder()
    assert run_status(run(asked, engine)).complete
    assert engine.count("answer") == 5


def test_a_failure_is_told_until_it_has_been_tried_again(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    wild, *tame = sources(asked)
    wild = replace(wild, training=wild.training.model_copy(update={"learning_rate": 5.0}))
    before = run_status(execute(asked, FakeEngine(longest=5), [wild, *tame], targets()))
    assert len(before.failures) == 1 + 4

    def stop(report: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(asked, FakeEngine(), [wild, *tame], targets(), stop)
    assert run_status(tmp_path / "small").failures == before.failures


def test_a_defect_in_scoring_fails_its_cells_only_and_says_where(tmp_path: Path) -> None:
    class Broken(SmallTarget):
        def score(self, answers: Sequence[Response]):
            return answers["no such index"]

    asked = study(tmp_path, seeds=(0,))
    first, *rest = targets()
    status = run_status(execute(asked, FakeEngine(), sources(asked), [Broken(**vars(first)), *rest]))
    assert status.cells == Tally(15, 5, 0)
    assert "TypeError" in status.failures[0].reason
    assert "test_execute.py line" in status.failures[0].reason


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    class Full(FakeEngine):
        def answer(
            self, requests: Sequence[Request], adapter: Path | None = None, listener: Listener = silent
        ) -> list[Response]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match="make room"):
        run(study(tmp_path), Full())
    assert run_status(tmp_path / "small").adapters.done == 8


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cell_is_set_aside_and_computed_anew(tmp_path: Path, damage: str) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    store = run(asked, FakeEngine())
    path = store.cell(str(read_ledger(store).cells[6].key))
    whole = path.read_bytes()
    middle = 60  # in the first column
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    path.write_bytes({"cut": whole[:middle], "flip": flipped, "empty": b""}[damage])
    run(asked, engine)
    assert engine.count("answer") == 1
    assert path.read_bytes() == whole
    (kept,) = run_status(store).quarantine
    assert kept.path == f"cells/{path.name}"
    assert kept.reason


def test_a_damaged_adapter_is_set_aside_and_trained_anew(tmp_path: Path) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    store = run(asked, FakeEngine())
    key = str(read_ledger(store).adapters[2].key)
    weights = store.adapter(key) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    assert run_status(run(asked, engine)).complete
    assert [entry["source"] for entry in engine.calls if entry["call"] == "train"] == ["topics"]
    (kept,) = run_status(store).quarantine
    assert (kept.path, kept.reason) == (f"adapters/{key}", "its files are not those that were written")
    # trained in another company, its last digits differ, so it is another adapter to its cells
    assert engine.count("answer") == 4


def test_an_adapter_without_its_mark_does_not_count(tmp_path: Path) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    store = run(asked, FakeEngine())
    before = {path.name for path in store.adapters.iterdir()}
    (mark,) = store.groups.iterdir()
    mark.unlink()
    assert run_status(store).adapters == Tally(0, 0, 4)
    with locked_store(store.folder):
        assert list(store.adapters.iterdir()) == []
    run(asked, engine)
    assert (engine.count("train"), engine.count("answer")) == (4, 0)
    assert {path.name for path in store.adapters.iterdir()} == before


def test_leftovers_of_a_killed_write_are_cleaned(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store = run(asked, FakeEngine())
    (store.adapters / ".partial-abc").mkdir()
    (store.adapters / ".partial-abc" / "adapter_config.json").write_text("{")
    (store.cells / ".partial-abc.parquet").write_text("half")
    (store.folder / ".partial-run.json").write_text("half")
    (store.adapters / "notes of mine").mkdir()
    run(asked, FakeEngine())
    assert not list(store.folder.glob("**/.partial-*"))
    assert (store.adapters / "notes of mine").is_dir()


def test_a_new_source_adds_its_own_row_only(tmp_path: Path) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    execute(asked, FakeEngine(), sources(asked)[:3], targets())
    run(asked, engine)
    assert [entry.get("source") for entry in engine.calls if entry["call"] == "train"] == ["sums"]
    assert engine.count("answer") == 4


def test_a_changed_setting_computes_anew_and_the_former_study_is_kept(tmp_path: Path) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    run(asked, FakeEngine())
    store = run(study(tmp_path, seeds=(0,), max_steps=2), engine)
    assert (engine.count("train"), engine.count("answer")) == (4, 16)  # the base stays
    (former,) = store.studies.iterdir()
    assert json.loads(former.read_text())["training"]["max_steps"] is None
    assert json.loads((store.folder / "study.json").read_text())["training"]["max_steps"] == 2
    back = Recorder()
    assert run_status(run(asked, back)).complete
    assert back.calls == []


def test_a_changed_task_computes_its_column_anew(tmp_path: Path) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    before = set(run(asked, FakeEngine()).cells.iterdir())
    first, *rest = targets()
    store = execute(asked, engine, sources(asked), [replace(first, version="2.0"), *rest])
    assert (engine.count("train"), engine.count("answer")) == (0, 5)
    assert len(set(store.cells.iterdir()) - before) == 5
    assert run_status(store).complete


def test_another_base_is_refused(tmp_path: Path) -> None:
    asked = study(tmp_path)
    run(asked, FakeEngine())
    with pytest.raises(RunError, match="made with another base"):
        run(asked, FakeEngine("other"))


def test_an_existing_adapter_is_scored_once_for_all_seeds(tmp_path: Path) -> None:
    asked, engine = study(tmp_path), Recorder()
    store = run(asked, FakeEngine())
    entry = read_ledger(store).adapters[0]
    existing = loaded_source("bought", [], asked.training, adapter=store.adapter(str(entry.key)))
    execute(asked, engine, [*sources(asked), existing], targets())
    ledger = read_ledger(store)
    bought = {cell.target: cell for cell in ledger.cells if cell.source == "bought"}
    assert len(bought) == 4
    assert all(cell.seed is None and cell.status == "done" for cell in bought.values())
    assert engine.calls == []  # its files are those of an adapter that was scored here


def test_an_existing_adapter_that_is_not_there_fails_alone(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    gone = loaded_source("gone", [], asked.training, adapter=tmp_path / "nowhere")
    status = run_status(execute(asked, FakeEngine(), [*sources(asked), gone], targets()))
    assert status.adapters == Tally(4, 1, 0)
    assert status.cells == Tally(20, 4, 0)
    assert "adapter_model.safetensors" in status.failures[0].reason


def test_the_given_study_file_is_kept_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("# my words\nname: small\n")
    asked = study(tmp_path, seeds=(0,)).model_copy(update={"path": file})
    store = run(asked, FakeEngine())
    assert (store.folder / "study.yaml").read_bytes() == file.read_bytes()


def test_a_second_driver_is_told_who_runs(tmp_path: Path) -> None:
    asked = study(tmp_path)
    run(asked, FakeEngine())
    with locked_store(tmp_path / "small") as store:
        assert run_status(store).running == os.getpid()
        with pytest.raises(RunError, match=f"process {os.getpid()} on .+ is running"):
            run(asked, FakeEngine())
    assert run_status(store).running is None
    assert run_status(run(asked, FakeEngine())).complete


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no run\.json"):
        open_store(tmp_path)


def test_a_damaged_ledger_is_written_anew_from_the_files(tmp_path: Path) -> None:
    asked, engine = study(tmp_path), Recorder()
    store = run(asked, FakeEngine())
    store.ledger.write_text("{ half")
    with pytest.raises(RunError, match="damaged"):
        run_status(store)
    assert run_status(run(asked, engine)).complete
    assert engine.calls == []


def test_pending_is_what_running_would_do(tmp_path: Path) -> None:
    asked, engine = study(tmp_path, seeds=(0,)), Recorder()
    rows, columns, base = sources(asked), targets(), FakeEngine().base_digest
    plan = make_plan(study=asked, sources=rows, targets=columns, base_digest=base)
    told = {"plan": plan, "base_digest": base, "sources": rows, "targets": columns}
    assert pending_units(folder=tmp_path / "small", **told) == (plan.adapters, (), plan.cells)
    store = execute(asked, FakeEngine(), rows[:3], columns[:2])
    adapters, _, cells = pending_units(folder=store.folder, **told)
    assert {unit.source for unit in adapters} == {"sums"}
    assert len(cells) == 20 - 2 * 4
    execute(asked, engine, rows, columns)
    assert (engine.count("train"), engine.count("answer")) == (len(adapters), len(cells))
    assert pending_units(folder=store.folder, **told) == ((), (), ())


def test_status_is_plain_json(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    status = run_status(run(asked, FakeEngine(longest=5)))
    told = json.loads(json.dumps(status.to_json(), allow_nan=False))
    assert told["cells"] == {"done": 15, "failed": 5, "missing": 0}
    assert told["complete"] is False
    assert told["bytes"] > 1000
