import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traitmap.runs.cluster.drive import PATIENCE, Scheduler, Task
from traitmap.runs.growth import ideal, simulate


def scheduler(*sizes: float, workers: int = 2, **settings: object) -> Scheduler:
    made = Scheduler(**settings)
    for number, size in enumerate(sizes):
        made.add(Task(number, size))
    for worker in range(workers):
        made.join(worker)
    return made


def taken(made: Scheduler, worker: int, now: float = 0.0) -> object:
    task = made.take(worker, now)
    return task.name if task else None


def test_the_largest_goes_first_and_an_earlier_stage_before_it() -> None:
    made = scheduler(3.0, 7.0, 5.0)
    made.add(Task("later", 100.0, stage=1))
    assert [taken(made, worker) for worker in range(5)] == [1, 2, 0, "later", None]


def test_what_failed_on_a_worker_is_left_to_others_while_there_are_any() -> None:
    made = scheduler(2.0, 1.0)
    assert taken(made, 0) == 0
    assert not made.fail(0, 0)
    assert taken(made, 0) == 1
    assert taken(made, 1) == 0
    assert not made.fail(0, 1)
    assert made.finish(1, 0, 1.0)
    assert taken(made, 0) == 0  # it has failed on everybody
    assert made.fail(0, 0)  # for the third time
    assert not made.open


def test_a_failure_that_is_final_is_not_tried_again() -> None:
    made = scheduler(1.0)
    taken(made, 0)
    assert made.fail(0, 0, final=True)
    assert not made.open


def test_a_lost_worker_is_nobodys_failure() -> None:
    made = scheduler(1.0)
    for _ in range(5):
        made.join(0)
        assert taken(made, 0) == 0
        made.lose(0)
        assert made.failures(0) == 0
    assert made.open


def late() -> Scheduler:
    """Three tasks done at one second each, a fourth one under way on worker 0 since then."""
    made = scheduler(1.0, 1.0, 1.0, 1.0)
    for number in range(3):
        assert taken(made, 0, float(number)) == number
        assert made.finish(number, 0, number + 1.0)
    assert taken(made, 0, 3.0) == 3
    return made


def test_a_copy_begins_when_a_task_is_late_by_the_pace_of_its_like_and_the_first_result_counts() -> None:
    made = late()
    assert made.next_late(3.0) == 3.0 + PATIENCE
    assert taken(made, 1, 3.0 + PATIENCE - 0.01) is None
    assert taken(made, 1, 3.0 + PATIENCE + 0.01) == 3
    assert taken(made, 2, 99.0) is None  # one copy is enough
    assert made.finish(3, 1, 6.0)
    assert not made.finish(3, 0, 7.0)
    assert not made.open


def test_a_copy_that_fails_leaves_the_first_attempt_alone() -> None:
    made = late()
    assert taken(made, 1, 5.0) == 3
    assert not made.fail(3, 1)
    assert taken(made, 1, 6.0) is None
    assert made.finish(3, 0, 9.0)


def test_without_copies_a_late_task_is_waited_for() -> None:
    made = late()
    made.copies = False
    assert taken(made, 1, 1000.0) is None
    assert made.next_late(0.0) == float("inf")


@given(
    sizes=st.lists(st.floats(0.1, 100), min_size=1, max_size=60),
    workers=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_task_is_done_or_given_up_and_nothing_beats_the_ideal(
    sizes: list[float], workers: int, seed: int
) -> None:
    tasks = [Task(number, size) for number, size in enumerate(sizes)]
    calm = simulate(tasks, workers)
    assert calm.ratio >= 1 - 1e-9
    # Graham's bound of largest first: 4/3 - 1/(3 workers) of the best schedule, itself at most this
    best = max(ideal(tasks, workers), sum(sizes) / workers)
    assert calm.makespan <= best + max(sizes) + 1e-9
    assert (calm.failed, calm.given_up, calm.lost, calm.copies) == (0, 0, 0, 0)
    rough = simulate(tasks, workers, failures=0.3, stragglers=0.2, losses=20.0, absence=5.0, seed=seed)
    again = simulate(tasks, workers, failures=0.3, stragglers=0.2, losses=20.0, absence=5.0, seed=seed)
    assert rough == again
    assert rough.failed >= 3 * rough.given_up


def test_cells_wait_for_their_adapter_and_a_chain_bounds_the_time() -> None:
    tasks = [Task("group", 10.0), Task("cell", 5.0, 1, after="group"), Task("base", 1.0, 1)]
    assert ideal(tasks, 8) == 15.0
    assert simulate(tasks, 8).makespan == 15.0
    assert simulate(tasks, 1).makespan == 16.0


@pytest.mark.parametrize("seed", range(3))
def test_with_failures_and_stragglers_the_time_is_within_a_quarter_of_the_ideal(seed: int) -> None:
    """64 workers, 5 % of attempts fail, 10 % take three times as long."""
    sizes = np.random.default_rng(seed).lognormal(np.log(20), 1.0, 5000)
    tasks = [Task(number, float(size)) for number, size in enumerate(sizes)]
    found = simulate(tasks, 64, failures=0.05, stragglers=0.1, slowness=3, seed=seed)
    assert found.failed > 200
    assert 1.1 < found.ratio <= 1.25


def test_copies_help_where_units_are_few() -> None:
    sizes = np.random.default_rng(0).lognormal(np.log(20), 0.3, 256)
    tasks = [Task(number, float(size)) for number, size in enumerate(sizes)]
    with_copies = np.mean(
        [simulate(tasks, 64, stragglers=0.1, slowness=8, seed=seed).ratio for seed in range(8)]
    )
    without = np.mean(
        [simulate(tasks, 64, stragglers=0.1, slowness=8, seed=seed, copies=False).ratio for seed in range(8)]
    )
    assert with_copies < 0.8 * without
