from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from small_study import loaded_source, sources, study, targets
from traitmap.runs.plan import Plan, make_plan, missing_groups
from traitmap.study.settings import Lora

ASKED = study(Path("x"), seeds=(0, 1, 2))
SOURCES, TARGETS = sources(ASKED, count=3), targets(count=3)


def plan(**changes: object) -> Plan:
    return make_plan(study=ASKED, sources=SOURCES, targets=TARGETS, base_digest="b", **changes)


def test_every_unit_stands_once_and_the_base_first() -> None:
    whole = plan(group_size=5)
    assert [len(group) for group in whole.groups] == [5, 5, 2]
    assert len({unit.key for unit in whole.adapters}) == 12
    assert len(set(whole.cells)) == len(whole.cells) == 4 * 13
    assert [cell.source for cell in whole.cells[:4]] == ["__baseline__"] * 4


def test_adapters_with_other_lora_settings_train_apart() -> None:
    asked = study(Path("x"), seeds=(0, 1))
    first, *rest = sources(asked)
    whole = make_plan(
        study=asked, sources=[replace(first, lora=Lora(r=2)), *rest], targets=targets(), base_digest="b"
    )
    assert [{unit.source for unit in group} for group in whole.groups] == [
        {"reviews"},
        {"flipped", "topics", "sums"},
    ]


@given(size=st.integers(1, 20), budget=st.none() | st.integers(1, 4000))
def test_groups_stay_within_size_and_budget(size: int, budget: int | None) -> None:
    whole = plan(group_size=size, token_budget=budget)
    step = 8 * 64
    assert all(len(group) <= size for group in whole.groups)
    assert all(len(group) == 1 or len(group) * step <= (budget or 1e9) for group in whole.groups)
    assert [unit for group in whole.groups for unit in group] == list(plan(group_size=100).adapters)


def test_a_newcomer_that_needs_more_memory_joins_no_group_beyond_its_own_limit() -> None:
    """Three small adapters fit together; a source with long rows fits with one other at most."""
    asked = study(Path("x"), seeds=(0,))
    *small, large = sources(asked)
    large = replace(large, training=large.training.model_copy(update={"max_length": 1024}))
    whole = make_plan(
        study=asked,
        sources=[*small, large],
        targets=targets(),
        base_digest="b",
        largest_group=lambda lora, training: 2 if training.max_length == 1024 else 4,
    )
    assert [len(group) for group in whole.groups] == [3, 1]
    first, second = small[0], small[1]
    whole = make_plan(
        study=asked,
        sources=[large, first, second],
        targets=targets(),
        base_digest="b",
        largest_group=lambda lora, training: 2 if training.max_length == 1024 else 4,
    )
    assert [len(group) for group in whole.groups] == [2, 1]


@given(done=st.sets(st.integers(0, 11)))
def test_what_is_done_leaves_the_division_alone(done: set[int]) -> None:
    whole = plan(group_size=5)
    keys = {whole.adapters[index].key for index in done}
    rest = missing_groups(whole, keys)
    assert [unit for group in rest for unit in group] == [u for u in whole.adapters if u.key not in keys]
    assert all(any(set(group) <= set(of_study) for of_study in whole.groups) for group in rest)


def test_an_existing_adapter_is_not_trained_and_has_one_row() -> None:
    asked = study(Path("x"), seeds=(0, 1))
    given_one = loaded_source("given", [], asked.training, adapter=Path("y"))
    whole = make_plan(study=asked, sources=[*sources(asked), given_one], targets=targets(), base_digest="b")
    assert whole.existing == ("given",)
    assert "given" not in {unit.source for unit in whole.adapters}
    assert sum(cell.source == "given" for cell in whole.cells) == 4


def test_the_same_study_gives_the_same_plan() -> None:
    assert plan() == plan()
    assert plan(group_size=2) != plan()
