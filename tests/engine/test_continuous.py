"""Continuous decoding: every text is what it would be alone, whatever shares the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_forward_paths import HEADER, PARTS
from test_score import ARCHITECTURES, engine_for
from test_train import jobs

from conftest import make_tokenizer
from traitmap.data.records import Request, Response
from traitmap.engine.base import Base
from traitmap.engine.contract import decoding_of
from traitmap.engine.forward_paths import ForwardPaths
from traitmap.engine.generate import PartialText, StopCriteria, may_end_in, partial_texts, queues_of
from traitmap.engine.local import LocalEngine
from traitmap.engine.tokens import Encoder
from traitmap.errors import EngineError

GREEDY = {"until": ["e", "\n"], "max_gen_toks": 20, "do_sample": False}
SAMPLED = {**GREEDY, "until": [" a", "0"], "do_sample": True, "temperature": 0.8, "top_p": 0.95}


def asked(generation: dict, count: int = 38) -> list[Request]:
    """Prompts of many lengths; 16 behind a header, 16 behind a longer one, the others by themselves."""
    beginnings = [HEADER, HEADER + PARTS[0], ""]
    return [
        Request("generate_until", beginnings[min(n // 16, 2)] + f"Review: {'cat ' * (n % 5)}{n}",
                generation=generation, item=n, seed=n)
        for n in range(count)
    ]  # fmt: skip


def alone(engine: LocalEngine, requests: list[Request], adapter: Path | None = None) -> list[Response]:
    """One text at a time, by the padded way over transformers' own cache."""
    engine.paths = ForwardPaths()
    return [engine.answer([request], adapter)[0] for request in requests]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_text_does_not_depend_on_its_neighbours(checkpoints, architecture, generation) -> None:
    requests = asked(generation)
    expected = alone(engine_for(checkpoints[architecture], dtype="float64"), requests)
    assert len({answer.tokens for answer in expected}) > 3  # they end at different lengths
    assert {answer.stopped for answer in expected} == {True, False}
    engine = engine_for(checkpoints[architecture], dtype="float64")
    texts = partial_texts(engine.base, engine.encoder, requests)
    assert sorted(bool(prefix) for prefix, _ in queues_of(texts)) == [False, True, True]
    for slots in (3, 64):
        engine.slots = slots
        assert engine.answer(requests) == expected
        assert engine.paths is not None
        assert engine.paths.cached
    assert engine.answer(requests[::-1]) == expected[::-1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_write_the_same_texts_either_way(checkpoints, tmp_path: Path, dtype: str) -> None:
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    engine, requests = engine_for(checkpoints["llama"], dtype=dtype), asked(GREEDY, 20)
    engine.train(jobs(), folders)
    found = engine.answer(requests, folders[0])
    expected = alone(engine, requests, folders[0])
    same = np.mean([one.text == other.text for one, other in zip(found, expected, strict=True)])
    assert same == 1 if dtype == "float32" else same > 0.6  # roundings of bfloat16 decide near ties


@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_memory_that_runs_out_costs_no_text(checkpoints, generation) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype="float64"), asked(generation)
    expected = engine.answer(requests)
    rows, most = list[int](), 5

    def memory(_module, _inputs, options) -> None:
        positions = options["position_ids"][0]
        rows.append(int((positions.diff() != 1).sum()) + 1)
        if rows[-1] > most and len(rows) > 12:
            raise torch.OutOfMemoryError("a device of 5 texts")

    handle = engine.base.model.register_forward_pre_hook(memory, with_kwargs=True)
    assert engine.answer(requests) == expected
    assert sum(number > most for number in rows[12:]) < 12
    most = 0
    with pytest.raises(EngineError, match="memory does not hold one text of"):
        engine.answer(requests)
    handle.remove()


def test_stop_strings_are_found_over_token_boundaries() -> None:
    assert may_end_in("x\n\ny", "\n\n")
    assert may_end_in("\ny", "\n\n")
    assert may_end_in(" b", "a b c b")
    assert not may_end_in("xa", "ab")
    assert not may_end_in("", "ab")


def test_a_stop_string_of_several_tokens_ends_a_text_at_once(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"], dtype="float64")
    free = {"until": [], "max_gen_toks": 20, "do_sample": False}
    (whole,) = engine.answer([Request("generate_until", "a b c", generation=free)])
    assert whole.text is not None
    ids = engine.encoder.tokenizer.encode(whole.text)
    term = engine.encoder.tokenizer.decode(ids[3:6])
    (cut,) = engine.answer([Request("generate_until", "a b c", generation={**free, "until": [term, "zzz"]})])
    assert cut.text == whole.text.split(term)[0]
    assert cut.stopped
    assert cut.tokens <= 6


class _NoModel:
    generation_config = None


@pytest.mark.parametrize(
    ("until", "pieces", "stops"),
    [
        (("<|im_end|>",), ["a", "<|im_end|>"], True),
        (("<|im_end|>\n",), ["a", "<|im_end|>", "\n"], True),
        (("x<|im_end|>",), ["a", "x", "<|im_end|>"], True),
        (("im_end|>",), ["a", "<|im_end|>"], True),
        (("a b",), ["a", "<|im_end|>", " b"], True),  # the text that is given has no special tokens
        (("<|im_end|>\n",), ["a", "<|im_end|>", "x", "\n"], False),
        (("<|im_end|>",), ["a", "<|other|>"], False),
    ],
)
def test_stop_strings_of_special_tokens_stop(until: tuple[str, ...], pieces: list[str], stops: bool) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|other|>"]})
    base = Base(_NoModel, tokenizer, "", None, "stream", "", 256)
    stop = StopCriteria(base, Encoder(tokenizer))
    decoding = decoding_of({"until": list(until), "max_gen_toks": 20})
    text = PartialText(0, [5], decoding, torch.Generator())
    *first, last = [tokenizer.encode(piece, add_special_tokens=False)[0] for piece in pieces]
    for token in first:
        stop.extend([text], [token])
        assert not text.stopped
    stop.extend([text], [last])
    assert text.stopped is stops
