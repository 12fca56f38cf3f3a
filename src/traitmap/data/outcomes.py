"""The outcomes of one cell by column: a cell of 200,000 items is a few arrays, not as many records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from traitmap.data.records import Outcome

SCHEMA = pa.schema(
    [
        pa.field("item", pa.int32(), nullable=False),
        pa.field("item_digest", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("correct", pa.bool_()),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("choice_logprobs", pa.list_(pa.float64())),
        pa.field("text", pa.string()),
        pa.field("parsed", pa.bool_(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("stopped", pa.bool_()),
    ]
)
FEW = ("prediction", "gold")  # columns of few values, many times
_BATCH = 8192  # records that are made at a time


def outcome_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Outcomes as the columns of a cell, one row per item in their order, types as ``SCHEMA`` has them.

    Raises pyarrow's ArrowInvalid or ArrowTypeError for a value of another type.
    """
    columns = {
        field.name: [getattr(outcome, field.name) for outcome in outcomes] for field in fields(Outcome)
    }
    columns["score"] = [float(score) for score in columns["score"]]
    return pa.table(columns, schema=SCHEMA)


class OutcomeColumns(Sequence[Outcome]):
    """The outcomes of one cell, in the order of its items, held by column.

    It reads and compares like the tuple of its outcomes, each of which is made when it is asked for; whole
    columns come as arrays. 200,000 records take some 90 MB, their columns 12. table: as ``SCHEMA`` has it.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> OutcomeColumns:
        """The same outcomes, by column."""
        return outcomes if isinstance(outcomes, cls) else cls(outcome_table(outcomes))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """(n,) a column of numbers or of yes (1) and no (0); NaN where it is not known."""
        return np.array(self._table[name].cast(pa.float64()).to_numpy())

    def words(self, name: str) -> list[Any]:
        """(n,) a column of texts, None where there is none; equal texts of few values are one object."""
        column = self._table[name]
        if name not in FEW:
            return list(column.to_pylist())
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        return list(map(encoded.dictionary.to_pylist().__getitem__, encoded.indices.to_pylist()))

    def known(self, name: str) -> NDArray[np.bool_]:
        """(n,) whether an item has a value in this column."""
        return np.asarray(self._table[name].is_valid(), dtype=bool)

    @property
    def widths(self) -> NDArray[np.int64]:
        """(n,) how many choices have a log-probability; 0 where an item has none."""
        lengths = pc.list_value_length(self._table["choice_logprobs"]).fill_null(0)
        return np.asarray(lengths, dtype=np.int64)

    @property
    def choice_logprobs(self) -> NDArray[np.float64] | None:
        """(n, K) log-probabilities of the choices; None where not every item has the same K > 0 of them."""
        widths = self.widths
        if not len(widths) or not widths[0] or (widths != widths[0]).any():
            return None
        flat = self._table["choice_logprobs"].combine_chunks().flatten()
        return np.asarray(flat, dtype=np.float64).reshape(len(widths), -1)

    def take(self, places: Sequence[int]) -> OutcomeColumns:
        """The outcomes at some places, in this order. IndexError where there are fewer."""
        return OutcomeColumns(self._table.take(pa.array(places, type=pa.int64())))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Outcome: ...

    @overload
    def __getitem__(self, place: slice) -> OutcomeColumns: ...

    def __getitem__(self, place: int | slice) -> Outcome | OutcomeColumns:
        if isinstance(place, slice):
            return self.take(range(*place.indices(len(self))))
        return next(iter(self.take([range(len(self))[place]])))

    def __iter__(self) -> Iterator[Outcome]:
        for start in range(0, len(self), _BATCH):
            part = OutcomeColumns(self._table.slice(start, _BATCH))
            columns = {field.name: part.words(field.name) for field in fields(Outcome)}
            columns["choice_logprobs"] = [
                held if held is None else tuple(held) for held in columns["choice_logprobs"]
            ]
            yield from map(Outcome, *columns.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))
