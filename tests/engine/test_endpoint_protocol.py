"""What the answers of different servers say, and how long they ask to wait."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from traitmap.engine.contract import decoding_of
from traitmap.engine.endpoint.protocol import continuation_start, generated, scored, token_logprobs
from traitmap.engine.endpoint.transport import LONGEST_ASKED_WAIT, Transport, UnreachableError, retry_after
from traitmap.errors import ModelError
from traitmap.study.settings import Endpoint

TOKENS = ["<s>", "Is", " it", " good", "?", " ve", "ry"]
LOGPROBS = [None, -1.0, -2.0, -3.0, -4.0, -0.5, -0.25]


def answer(tokens=TOKENS, offsets=None, *, made=0, usage=True, **changes) -> dict:
    """What a server says of a prompt; made: tokens generated behind it."""
    more = ["!"] * made
    logprobs = (LOGPROBS + [-0.1] * made)[: len(tokens) + made]
    top = [None if one is None else {"top": max(one, -0.5)} for one in logprobs]
    told = {
        "tokens": tokens + more,
        "token_logprobs": logprobs,
        "top_logprobs": top,
        "text_offset": offsets or [],
    }
    count = {"prompt_tokens": len(tokens), "completion_tokens": made} if usage else {}
    return {"choices": [{"text": "", "logprobs": {**told, **changes}}], "usage": count}


@pytest.mark.parametrize("made", [0, 1])
def test_the_continuation_is_found_behind_a_start_token(made: int) -> None:
    found = token_logprobs(answer(made=made))
    start = continuation_start(found, "Is it good? very", " very")
    assert start == 5
    assert scored(found, start).logprob == -0.75
    assert scored(found, start).tokens == 2
    assert scored(found, start).is_greedy
    assert not scored(found, 4).is_greedy


def test_without_usage_the_last_token_is_the_generated_one() -> None:
    assert len(token_logprobs(answer(made=1, usage=False)).tokens) == len(TOKENS)


def test_a_token_over_the_boundary_counts_as_the_continuations() -> None:
    found = token_logprobs(answer())
    assert continuation_start(found, "Is it good? very", "ood? very") == 3


def test_offsets_tell_where_texts_of_tokens_do_not_add_up() -> None:
    broken = ["Gr", "�", "�", "n", "?", " ve", "ry"]
    offsets = [0, 2, 3, 3, 4, 5, 8]
    assert continuation_start(token_logprobs(answer(broken, offsets)), "Grün? very", " very") == 5
    with pytest.raises(ModelError, match=r"give model\.endpoint\.tokenizer"):
        continuation_start(token_logprobs(answer(broken, [-1] * 7)), "Grün? very", " very")


@pytest.mark.parametrize(
    "said",
    [
        {"choices": [{"text": "a", "logprobs": None}]},
        {"choices": [{"text": "a", "logprobs": {"token_logprobs": []}}]},
        answer(["a"], made=0) | {"usage": {"prompt_tokens": 6, "completion_tokens": 1}},
        answer(top_logprobs=None),
    ],
)
def test_a_server_without_prompt_logprobs_is_told(said: dict) -> None:
    with pytest.raises(ModelError, match="gives no log-probabilities of the prompt"):
        token_logprobs(said)


def test_no_logprob_is_never_a_number() -> None:
    with pytest.raises(ModelError, match="no log-probability of the continuation's first token"):
        scored(token_logprobs(answer()), 0)
    with pytest.raises(ModelError, match="no choices"):
        token_logprobs({"detail": "hello"})


def test_a_generated_text_ends_at_the_first_stop_string() -> None:
    decoding = decoding_of({"until": ["\n", "."], "max_gen_toks": 9})
    said = {"choices": [{"text": "yes. no\n", "finish_reason": "length"}], "usage": {"completion_tokens": 9}}
    assert generated(said, decoding) == ("yes", 9, True)
    said = {"choices": [{"message": {"content": "yes"}, "finish_reason": "length"}]}
    assert generated(said, decoding) == ("yes", None, False)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"text": None, "finish_reason": "stop"}, "gives no text .null, finish_reason stop."),
        ({"message": {"content": None}, "finish_reason": "length"}, "gives no text .null"),
        (
            {"message": {"content": None, "reasoning_content": "Hm"}, "finish_reason": "length"},
            "it thought to",
        ),
        ({"message": {"role": "assistant", "refusal": "no"}, "finish_reason": "stop"}, "gives no text"),
        ({"finish_reason": "stop"}, "gives no text"),
        ({"text": ["yes"], "finish_reason": "stop"}, "holds no text"),
        ({"text": "", "finish_reason": None}, "broke off .finish_reason None"),
        ({"text": "", "finish_reason": "error"}, "broke off .finish_reason error"),
        ({"text": "half an ans", "finish_reason": "abort"}, "broke off .finish_reason abort"),
        ({"text": "half", "finish_reason": {"type": "abort", "message": "oom"}}, "broke off"),
        ({"message": {"content": ""}, "finish_reason": "content_filter"}, "broke off"),
        ({"text": "", "finish_reason": "stop", "error": {"message": "upstream\ntimeout"}}, "upstream"),
    ],
)
def test_an_error_is_no_empty_answer(choice: dict, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        generated({"choices": [choice]}, decoding_of({"max_gen_toks": 9}))


def test_an_error_beside_choices_is_one() -> None:
    said = {"choices": [{"text": "", "finish_reason": "stop"}], "error": {"message": "out of memory"}}
    with pytest.raises(ModelError, match=r"answers with an error.*out of memory"):
        generated(said, decoding_of({"max_gen_toks": 9}))


@pytest.mark.parametrize("finish", ["stop", "length", "eos_token", "stop_sequence"])
def test_an_empty_text_that_the_model_ended_is_an_answer(finish: str) -> None:
    said = {"choices": [{"text": "", "finish_reason": finish}]}
    assert generated(said, decoding_of({"max_gen_toks": 9}))[0] == ""


def test_retry_after_in_both_its_forms() -> None:
    assert retry_after("2.5") == 2.5
    assert 50 < retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60))) <= 60
    assert [retry_after(said) for said in (None, "soon", "-3", "nan")] == [0.0] * 4
    assert retry_after("1e9") == LONGEST_ASKED_WAIT


def test_requests_are_paced_and_a_closed_port_is_told() -> None:
    transport = Transport(Endpoint(url="http://127.0.0.1:9/v1", requests_per_second=20, retries=0))
    started = time.monotonic()
    for _ in range(5):
        with pytest.raises(UnreachableError, match=r"gave no answer in 1 try; .*what is finished is kept"):
            transport.get("models")
    assert time.monotonic() - started >= 4 / 20  # never faster, however fast the machine
    assert transport.away
    assert transport.address("models") == "http://127.0.0.1:9/v1/models"
    assert transport.address("/load_lora_adapter") == "http://127.0.0.1:9/load_lora_adapter"


def test_the_engine_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import traitmap.engine.endpoint"  # as if absent
    subprocess.run([sys.executable, "-c", code], check=True)
