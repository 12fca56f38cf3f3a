from dataclasses import fields
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traitmap.data.outcomes import SCHEMA, OutcomeColumns, outcome_table
from traitmap.data.records import Outcome
from traitmap.errors import RunError
from traitmap.runs.cells import (
    BATCH,
    CellResult,
    cell_fault,
    read_aggregates,
    read_outcomes,
    read_scores,
    write_cell,
    write_cells,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OUTCOME = st.builds(
    Outcome,
    item=st.integers(0, 2**31 - 1),
    item_digest=TEXT,
    score=st.floats(),
    correct=st.none() | st.booleans(),
    prediction=TEXT,
    gold=TEXT,
    choice_logprobs=st.none() | st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
    text=st.none() | TEXT,
    parsed=st.booleans(),
    output_tokens=st.integers(0, 2**31 - 1),
    stopped=st.none() | st.booleans(),
)
THREE = [
    Outcome(0, "a", 1.0, True, "yes", "yes", choice_logprobs=(-1.5, -0.25), output_tokens=3),
    Outcome(1, "b", 0.0, False, "?", "no", text="hm", parsed=False, stopped=False),
    Outcome(2, "c", nan, None, "", "Straße"),
]


def test_the_file_has_a_column_for_every_field() -> None:
    assert SCHEMA.names == [field.name for field in fields(Outcome)]


@settings(max_examples=60, deadline=None)
@given(outcomes=st.lists(OUTCOME, max_size=8))
def test_outcomes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome]
) -> None:
    path = tmp_path_factory.mktemp("cell") / "key.parquet"
    write_cell(path, outcomes=outcomes, aggregates={}, conditions={})
    assert list(map(repr, read_outcomes(path))) == list(map(repr, outcomes))  # NaN equals NaN in words
    scores = [outcome.score for outcome in outcomes]
    assert np.array_equal(read_scores(path).scores, scores, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(outcomes=st.lists(OUTCOME, min_size=1, max_size=8), data=st.data())
def test_columns_say_what_their_outcomes_say(outcomes: list[Outcome], data: st.DataObject) -> None:
    """One by one, sliced, picked and by column: the same values as of the records that they were made of."""
    columns = OutcomeColumns.of(outcomes)
    assert OutcomeColumns.of(columns) is columns
    assert repr(columns) == repr(tuple(outcomes))
    place = data.draw(st.integers(-len(outcomes), len(outcomes) - 1))
    assert repr(columns[place]) == repr(outcomes[place])
    assert repr(columns[place:]) == repr(tuple(outcomes[place:]))
    assert repr(columns[::-2]) == repr(tuple(outcomes[::-2]))
    picked = data.draw(st.lists(st.integers(0, len(outcomes) - 1), max_size=4))
    assert repr(columns.take(picked)) == repr(tuple(outcomes[at] for at in picked))
    with pytest.raises(IndexError):
        columns[len(outcomes)]
    for name in ("score", "correct", "parsed", "output_tokens", "stopped"):
        values = [getattr(one, name) for one in outcomes]
        expected = np.array([nan if value is None else value for value in values], dtype=float)
        assert np.array_equal(columns.numbers(name), expected, equal_nan=True)
    for name in ("prediction", "gold", "text", "item_digest"):
        assert columns.words(name) == [getattr(one, name) for one in outcomes]
        assert columns.known(name).tolist() == [getattr(one, name) is not None for one in outcomes]
    widths = [len(one.choice_logprobs or ()) for one in outcomes]
    assert columns.widths.tolist() == widths
    table = columns.choice_logprobs
    if len(set(widths)) == 1 and widths[0]:
        assert np.array_equal(table, [one.choice_logprobs for one in outcomes], equal_nan=True)
    else:
        assert table is None


def test_columns_of_more_than_a_batch_are_read_in_order() -> None:
    many = [Outcome(at, str(at), at % 2, bool(at % 2), "a", "b") for at in range(20_001)]
    columns = OutcomeColumns.of(many)
    assert [one.item for one in columns] == list(range(20_001))
    assert columns == many
    assert columns != many[:-1]
    assert columns[8192:8194] == many[8192:8194]


def test_scores_conditions_and_aggregates(tmp_path: Path) -> None:
    path = tmp_path / "key.parquet"
    write_cell(path, outcomes=THREE, aggregates={"acc,none": 0.5, "f1,none": nan}, conditions={"base": "x"})
    found = read_scores(path)
    assert found.binary
    assert found.parsed.tolist() == [True, False, True]
    assert found.conditions == {"base": "x"}
    assert found.aggregates["acc,none"] == 0.5
    assert isnan(found.aggregates["f1,none"])
    assert repr(read_aggregates(path)) == repr(dict(found.aggregates))


def test_a_score_that_is_neither_right_nor_wrong_is_not_binary(tmp_path: Path) -> None:
    path = tmp_path / "key.parquet"
    graded = [Outcome(0, "a", 0.5, None, "", ""), Outcome(1, "b", 1.0, None, "", "")]
    write_cell(path, outcomes=graded, aggregates={}, conditions={})
    assert not read_scores(path).binary


def test_the_same_cell_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "key.parquet"
        write_cell(path, outcomes=THREE, aggregates={"b": 1.0, "a": 2.0}, conditions={"base": "x"})
    assert (tmp_path / "one/key.parquet").read_bytes() == (tmp_path / "two/key.parquet").read_bytes()


def test_no_flipped_byte_changes_what_is_read(tmp_path: Path) -> None:
    """Wherever a byte is flipped, the file is refused or nothing that matters has changed."""
    path = tmp_path / "key.parquet"
    write_cell(path, outcomes=THREE, aggregates={"acc,none": 0.5}, conditions={"base": "x"})
    whole, expected = path.read_bytes(), repr(read_outcomes(path))
    refused = 0
    for place in range(0, len(whole), 17):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        if cell_fault(path):
            refused += 1
            continue
        assert repr(read_outcomes(path)) == expected
        assert read_scores(path).aggregates == {"acc,none": 0.5}
    assert refused > len(whole) / 17 / 3


def test_a_cell_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.parquet"
    write_cell(path, outcomes=THREE, aggregates={}, conditions={})
    path.rename(tmp_path / "other.parquet")
    assert cell_fault(tmp_path / "other.parquet")
    with pytest.raises(RunError, match="no such cell"):
        read_outcomes(path)


def test_many_cells_are_written_like_one_by_one(tmp_path: Path) -> None:
    """More than a batch; and where one cannot be written, none of its batch is there."""
    (tmp_path / "many").mkdir()
    made = [
        (tmp_path / "many" / f"{number}.parquet", CellResult(outcome_table(THREE), {"acc,none": 0.5}), {})
        for number in range(BATCH + 3)
    ]
    assert write_cells(iter(made)) == BATCH + 3
    for number in (0, BATCH + 2):
        path = tmp_path / f"{number}.parquet"
        write_cell(path, outcomes=THREE, aggregates={"acc,none": 0.5}, conditions={})
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes()
    wrong = (tmp_path / "bad.parquet", CellResult(outcome_table(THREE), {}), {"unknown": nan})
    with pytest.raises(ValueError):
        write_cells([(tmp_path / "good.parquet", CellResult(outcome_table(THREE), {}), {}), wrong])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", f"{BATCH + 2}.parquet", "many"]
