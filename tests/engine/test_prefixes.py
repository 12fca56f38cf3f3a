"""Shared beginnings: every sequence begins with its prefix, and nothing long is left unshared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from traitmap.engine.requests import Prefix, shared_prefixes

sequences = st.lists(st.lists(st.integers(0, 2), max_size=9).map(tuple), max_size=12)


def whole(prefixes: list[Prefix], index: int | None) -> tuple[int, ...]:
    if index is None:
        return ()
    return whole(prefixes, prefixes[index].parent) + prefixes[index].ids


@given(sequences, st.integers(1, 4), st.integers(1, 6))
def test_prefixes_are_what_sequences_begin_with(some, shortest: int, saved: int) -> None:
    prefixes, homes = shared_prefixes(some, shortest=shortest, saved=saved)
    for index, prefix in enumerate(prefixes):
        before = whole(prefixes, prefix.parent)
        assert len(before) == prefix.start
        assert prefix.parent is None or prefix.parent < index
        below = sum(one[: prefix.stop] == whole(prefixes, index) for one in some)
        assert len(prefix.ids) >= shortest
        assert len(prefix.ids) * (below - 1) >= saved
    for sequence, home in zip(some, homes, strict=True):
        begun = whole(prefixes, home)
        assert sequence[: len(begun)] == begun
        longer = [i for i, p in enumerate(prefixes) if p.stop > len(begun)]
        assert not any(sequence[: prefixes[i].stop] == whole(prefixes, i) for i in longer)


def test_a_few_shot_prompt_is_found_at_two_depths() -> None:
    header, first, second = tuple(range(100)), tuple(range(200, 250)), tuple(range(300, 350))
    contexts = [header + part + (400 + i, 7) for part in (first, second) for i in range(5)]
    prefixes, homes = shared_prefixes([*contexts, (5, 6, 7)])
    assert [(p.start, p.stop, p.parent) for p in prefixes] == [(0, 100, None), (100, 150, 0), (100, 150, 0)]
    assert homes[-1] is None
    assert {whole(prefixes, home) for home in homes[:5]} == {header + first}
