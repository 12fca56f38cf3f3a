"""The same study on one machine and on a cluster of two: the same bytes, whoever dies meanwhile."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_engines import calls, results, wait_until

from conftest import NODE
from small_study import sources, study, targets
from traitmap.api.asking import run_in_looks
from traitmap.data.sources import Lineage, LoadedSource, Merge
from traitmap.engine.fake import FakeEngine
from traitmap.errors import ModelError, RunError
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.cluster.engine import ClusterEngine, open_cluster
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_ledger, read_parts
from traitmap.runs.status import Tally, run_status
from traitmap.runs.store import RunStore
from traitmap.study.settings import Study

pytestmark = pytest.mark.cluster
Order = Callable[..., Path]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """The study as one machine does it, in groups of four."""
    return do(study(tmp_path_factory.mktemp("alone")), FakeEngine(), group_size=4)


def do(asked: Study, engine: Any, listener: Listener = silent, **changes: Any) -> RunStore:
    return execute(asked, engine, sources(asked), targets(), listener, **changes)


def test_a_base_that_cannot_be_loaded_is_told(cluster: Any) -> None:
    # before the workers of the other tests take all cores
    def broken() -> FakeEngine:
        raise ModelError("model.path 'nowhere': there is no folder nowhere.")

    with (
        pytest.raises(ModelError, match=r"no worker can be started: model\.path 'nowhere'"),
        open_cluster(broken, address=cluster.address),
    ):
        pytest.fail("a cluster without workers")


def test_a_cluster_that_is_not_there_is_told() -> None:
    with pytest.raises(RunError, match="cannot be used"), open_cluster(FakeEngine, address="127.0.0.1:1"):
        pytest.fail("a cluster out of nothing")


def test_cells_end_early_on_two_nodes_as_on_one_machine(engine: ClusterEngine, tmp_path: Path) -> None:
    held = []
    for name, each in (("alone", FakeEngine()), ("cluster", engine)):
        asked = study(tmp_path / name)
        early = [replace(target, precision=30.0, decide="sign") for target in targets()]
        store, told = run_in_looks(asked, each, sources(asked), early, silent, group_size=4)
        cells = {(cell.source, cell.seed, cell.target): cell for cell in read_parts(store).cells}
        held.append((told, results(store), {unit: (cell.asked, cell.key) for unit, cell in cells.items()}))
    assert held[0] == held[1]
    assert held[0][0].items[0] < held[0][0].items[1]
    assert held[0][2]


def derived(of: Study) -> tuple[LoadedSource, ...]:
    """Two sources, a checkpoint of the first, a merge of that with the second, and a merge of the merge."""
    first, second, *_ = sources(of)

    def made(kind: str, *parents: str) -> Lineage:
        return Lineage(first.name, parents, kind, {}, 3.0, 8.0, "steps", 0, {}, 0)

    def merged(name: str, *parents: str) -> LoadedSource:
        merge = Merge(parents, (0.5, 0.5), "dare_linear", 0.5, None, seeded=True)
        return replace(second, name=name, examples=(), merge=merge, variation=made("merge", *parents))

    kept = replace(first, name="kept@3", step=3, variation=made("checkpoint", first.name))
    merges = merged("again", "both", second.name), merged("both", kept.name, second.name)
    return (kept, first, second, *merges)


def test_checkpoints_and_merges_come_from_two_nodes_as_from_one_machine(
    engine: ClusterEngine, tmp_path: Path
) -> None:
    held = []
    for name, each in (("alone", FakeEngine()), ("cluster", engine)):
        asked = study(tmp_path / name)
        store = execute(asked, each, derived(asked), targets(), group_size=2)
        assert run_status(store).complete
        held.append(results(store))
    assert held[0] == held[1]
    assert run_status(store).adapters.done == 10


def test_two_nodes_give_the_bytes_of_one_machine(
    engine: ClusterEngine, alone: RunStore, order: Order, tmp_path: Path
) -> None:
    heard: list[Progress] = []
    log = order(delay=0.02)
    store = do(study(tmp_path), engine, heard.append, group_size=4)
    assert results(store) == results(alone)
    assert (len(calls(log, "train")), len(calls(log, "answer"))) == (8, 36)
    for stage in ("train", "evaluate"):
        done = [one.done for one in heard if one.stage == stage]
        assert done == sorted(done)
        assert done[-1] == [one.total for one in heard if one.stage == stage][-1]
    again = order()
    do(study(tmp_path), engine)
    assert calls(again) == []


def test_begun_here_and_ended_there_and_the_other_way_round(
    engine: ClusterEngine, alone: RunStore, order: Order, tmp_path: Path
) -> None:
    here, there = study(tmp_path / "here"), study(tmp_path / "there")

    def stop(report: Progress) -> None:
        if report.stage == "evaluate" and report.done > report.total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(here, FakeEngine(), stop, group_size=4)
    first = run_status(tmp_path / "here" / "small")
    assert 8 < first.cells.done < 36
    log = order()
    assert results(do(here, engine)) == results(alone)
    assert len(calls(log)) == first.cells.missing

    order(delay=0.02)
    with pytest.raises(KeyboardInterrupt):
        do(there, engine, stop, group_size=4)
    second = run_status(tmp_path / "there" / "small")
    assert 0 < second.cells.done < 36
    asked = FakeEngine(log=tmp_path / "log-of-the-end")
    assert results(do(there, asked)) == results(alone)
    assert len(calls(tmp_path / "log-of-the-end", "answer")) == second.cells.missing


def test_a_worker_that_is_killed_costs_its_unit_and_nothing_else(
    engine: ClusterEngine, alone: RunStore, order: Order, tmp_path: Path
) -> None:
    log = order(deadly="topics", deaths=1)
    assert results(do(study(tmp_path), engine, group_size=4)) == results(alone)
    assert len(calls(log, "death")) == 1
    assert (len(calls(log, "train")), len(calls(log, "answer"))) == (8, 36)


def test_a_node_that_is_lost_changes_nothing(
    cluster: Any, engine: ClusterEngine, alone: RunStore, order: Order, tmp_path: Path
) -> None:
    log = order(delay=0.3)
    node = cluster.add_node(**NODE)
    wait_until(lambda: engine.pool.refresh() is not None and len(engine.pool.members) == 3)
    on_node = [member.name for member in engine.pool.members.values() if member.node == node.node_id]
    assert len(on_node) == 1  # a worker joined with the machine
    lost = threading.Event()

    def lose() -> None:
        wait_until(lambda: len(calls(log)) > 10)
        cluster.remove_node(node, allow_graceful=False)
        lost.set()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        store = do(study(tmp_path), engine, group_size=4)
    finally:
        thread.join()
    assert lost.is_set()
    assert results(store) == results(alone)
    assert on_node[0] not in engine.pool.members


def test_a_unit_that_fails_thrice_is_kept_with_its_reason_and_tried_by_the_next_run(
    engine: ClusterEngine, order: Order, tmp_path: Path
) -> None:
    asked = study(tmp_path, seeds=(0,))
    order(word="review", failures=3)
    status = run_status(do(asked, engine))
    assert status.cells == Tally(19, 1, 0)
    (failure,) = status.failures
    assert (failure.source, failure.target) == ("__baseline__", "reviews")
    assert failure.reason == "the card is hot (tried 3 times)"
    again = order(word="review", failures=2)
    assert run_status(do(asked, engine)).complete
    assert len(calls(again)) == 1


def test_a_group_that_memory_does_not_hold_is_trained_in_halves(
    engine: ClusterEngine, order: Order, tmp_path: Path
) -> None:
    order(most=2)
    store = do(study(tmp_path), engine, group_size=8)
    assert run_status(store).complete
    groups = [entry.group for entry in read_ledger(store).adapters]
    assert sorted(groups.count(group) for group in set(groups)) == [2, 2, 2, 2]


def test_a_source_that_kills_every_worker_is_given_up_alone(
    engine: ClusterEngine, order: Order, tmp_path: Path
) -> None:
    """Its group is trained in halves before the third try, so that nothing else is lost with it."""
    order(deadly="topics", deaths=99)
    status = run_status(do(study(tmp_path, seeds=(0,)), engine, group_size=2))
    assert status.adapters == Tally(3, 1, 0)
    assert status.cells == Tally(16, 4, 0)
    (failure,) = status.failures
    assert failure.source == "topics"
    assert "a worker ended" in failure.reason
    assert "tried 3 times" in failure.reason
