"""Records leave as JSON by one reflection, and no unknown number leaves as a number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

import numpy as np

from traitmap.jsonable import jsonable


@dataclass(frozen=True)
class _Leaf:
    value: float
    place: Path


@dataclass(frozen=True)
class _Tree:
    leaves: tuple[_Leaf, ...]
    table: np.ndarray
    names: dict[int, str]


class _Own:
    def to_json(self) -> dict[str, int]:
        return {"own": 1}


def test_nested_records_become_plain_data_under_their_own_names() -> None:
    tree = _Tree((_Leaf(0.5, Path("a/b")),), np.array([[1.0, nan], [inf, 2.0]]), {3: "three"})
    assert jsonable(tree) == {
        "leaves": [{"value": 0.5, "place": "a/b"}],
        "table": [[1.0, None], [None, 2.0]],
        "names": {"3": "three"},
    }


def test_what_comes_out_is_strict_json_whatever_goes_in() -> None:
    values = [np.float32(nan), np.int64(3), np.bool_(True), -inf, frozenset({"b", "a"}), None, True, _Own()]
    assert json.loads(json.dumps(jsonable(values), allow_nan=False)) == [
        None,
        3,
        True,
        None,
        ["a", "b"],
        None,
        True,
        {"own": 1},
    ]


def test_truth_values_stay_truth_values() -> None:
    assert jsonable(np.array([True, False])) == [True, False]
    assert jsonable({"yes": True})["yes"] is True
