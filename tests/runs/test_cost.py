from math import isnan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_study import sources, study, targets
from traitmap.engine.fake import FakeEngine
from traitmap.engine.train import batch_schedule
from traitmap.runs.cost import ASSUMED, UnitCost, estimate, measure_cost, training_tokens
from traitmap.runs.plan import make_plan
from traitmap.study.settings import Training

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(lengths=LENGTHS, batch=st.integers(1, 16), epochs=st.integers(1, 3))
def test_whole_epochs_cost_what_the_engine_will_read(lengths: list[int], batch: int, epochs: int) -> None:
    training = Training(batch_size=batch, num_train_epochs=epochs)
    schedule = batch_schedule(lengths, training, seed=0)
    assert training_tokens(lengths, training) == sum(lengths[i] for step in schedule for i in step)


@given(lengths=LENGTHS, batch=st.integers(1, 16), budget=st.integers(1, 2000))
def test_a_token_budget_is_the_cost(lengths: list[int], batch: int, budget: int) -> None:
    training = Training(batch_size=batch, max_tokens=budget)
    schedule = batch_schedule(lengths, training, seed=0)
    read = sum(lengths[i] for step in schedule for i in step)
    assert read <= max(training_tokens(lengths, training), sum(sorted(lengths)[-batch:]))


def test_long_examples_are_cut() -> None:
    assert training_tokens([10, 1000], Training(max_length=100)) == 110
    assert training_tokens([10, 30], Training(batch_size=2, max_steps=5)) == 200


def test_cost_adds_up_over_units(tmp_path: Path) -> None:
    asked = study(tmp_path)
    rows, columns = sources(asked), targets()
    plan = make_plan(study=asked, sources=rows, targets=columns, base_digest="b")
    cost = UnitCost(100.0, 50.0, 10.0, answer_tokens=3, adapter_bytes=1000.0, measured=True)
    told = {"sources": rows, "targets": columns, "token_counts": FakeEngine().token_counts, "cost": cost}
    whole = estimate(adapters=plan.adapters, cells=plan.cells, **told)
    training = estimate(adapters=plan.adapters, cells=(), **told)
    scoring = estimate(adapters=(), cells=plan.cells, **told)
    assert whole.seconds == pytest.approx(training.seconds + scoring.seconds)
    assert whole.bytes == pytest.approx(training.bytes + scoring.bytes)
    words = sum(len(example.text.split()) for source in rows for example in source.examples)
    assert training.training_tokens == 2 * words
    assert training.bytes == 8 * 1000
    assert scoring.generated_tokens == 9 * 2 * 40 * 3
    assert whole.measured


def test_what_nobody_measured_is_marked_or_unknown(tmp_path: Path) -> None:
    asked = study(tmp_path)
    plan = make_plan(study=asked, sources=sources(asked), targets=targets(), base_digest="b")
    guess = estimate(adapters=plan.adapters, cells=plan.cells, sources=sources(asked), targets=targets())
    assert not guess.measured
    assert isnan(guess.bytes)
    assert guess.seconds > 0


def test_measured_cost_is_of_this_engine(tmp_path: Path) -> None:
    asked = study(tmp_path)
    slow = measure_cost(FakeEngine(delay=0.05), sources(asked), targets())
    assert slow.measured
    assert slow.adapter_bytes > 1000
    assert slow.training < 16 * 20 / 0.05
    assert slow.generating < 16 * 9 / 0.05
    assert slow.answer_tokens < 9
    nothing = measure_cost(FakeEngine(), [], [])
    assert (nothing.training, nothing.scoring) == (ASSUMED.training, ASSUMED.scoring)
