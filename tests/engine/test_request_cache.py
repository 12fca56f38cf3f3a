"""What is kept between calls serves the same requests and no others."""

from __future__ import annotations

from dataclasses import replace

from test_forward_paths import few_shot
from test_score import choice_requests, engine_for

from traitmap.data.records import Request
from traitmap.engine import requests as tokenized
from traitmap.engine.requests import RequestCache


def numbers(count: int) -> list[Request]:
    return [Request("loglikelihood", f"{n}", " x", item=n) for n in range(count)]


def test_the_same_requests_are_worked_out_once_and_others_anew() -> None:
    cache, made = RequestCache(), list[int]()

    def of(requests: list[Request], settings: str = "one") -> int:
        def make() -> int:
            made.append(len(made))
            return made[-1]

        return cache.get(settings, requests, make, lambda _found: 1)

    requests = numbers(3)
    assert [of(requests), of(list(requests)), of([replace(one) for one in requests])] == [0, 0, 0]
    assert of(requests[:2]) == 1
    assert of([*requests[:2], replace(requests[2], continuation=" y")]) == 2
    assert of(requests[::-1]) == 3
    assert of(requests, "two") == 4
    assert of(requests) == 0
    requests[1] = replace(requests[1], context="another")
    assert of(requests) == 5


def test_no_more_is_kept_than_was_asked_for() -> None:
    cache, made = RequestCache(capacity=10), list[str]()

    def of(name: str, size: int) -> None:
        cache.get(name, numbers(1), lambda: made.append(name), lambda _found: size)

    for name, size in (("a", 4), ("b", 4), ("c", 4), ("b", 4), ("a", 4), ("d", 11), ("d", 11)):
        of(name, size)
    assert "".join(made) == "abcadd"  # a went for c; d is larger than all that is kept
    assert not cache.entries


def test_adapters_are_asked_with_plans_made_once(checkpoints, monkeypatch) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype="float64"), [*few_shot(), *choice_requests()]
    calls, own = list[int](), tokenized.plan_rectangles
    monkeypatch.setattr(tokenized, "plan_rectangles", lambda rows: calls.append(1) or own(rows))
    first = engine.answer(requests)
    assert calls
    calls.clear()
    assert engine.answer(requests) == first
    assert not calls
    others = [replace(one, context="a " + one.context) for one in requests]
    changed = engine.answer(others)
    assert calls
    assert engine.answer(requests) == first
    fresh = engine_for(checkpoints["llama"], dtype="float64")
    assert fresh.answer(others) == changed
    assert changed != first


def test_what_is_not_kept_is_worked_out_again(checkpoints) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype="float64"), few_shot()
    engine.cache = RequestCache(capacity=0)
    assert engine.answer(requests) == engine.answer(requests)
    assert not engine.cache.entries
