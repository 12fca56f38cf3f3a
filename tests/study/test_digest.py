import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traitmap.study.paths import canonical_json, digest

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_known_digest_never_changes():
    data = {"b": [1, 2.5, None, True], "a": "é"}
    assert canonical_json(data) == '{"a":"\\u00e9","b":[1,2.5,null,true]}'
    assert digest(data) == "0b8cc543e984d4d7398f5f603a4b91d3"


@settings(deadline=None)
@given(plain)
def test_reads_back_and_is_stable_under_reading_back(data):
    again = json.loads(canonical_json(data))
    assert again == data
    assert digest(again) == digest(data)


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_order_of_keys_does_not_matter(data):
    assert digest(dict(reversed(data.items()))) == digest(data)


def test_tuples_are_arrays_and_neighbours_differ():
    assert digest((1, 2)) == digest([1, 2])
    values = [1, 1.0, "1", True, None, "", [], {}, [1], ["1"]]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("data", [{1: "a"}, {"a": {None: 1}}, [{True: 1}], {"a": object()}, {1, 2}, b"x"])
def test_what_is_not_plain_is_refused(data):
    with pytest.raises(TypeError):
        digest(data)


@pytest.mark.parametrize("data", [float("nan"), [float("inf")]])
def test_what_json_cannot_hold_is_refused(data):
    with pytest.raises(ValueError):
        digest(data)


def test_lone_surrogates_have_a_digest():
    assert len(digest("\ud800")) == 32
