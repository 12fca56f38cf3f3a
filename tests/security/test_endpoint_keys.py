"""Keys of endpoints go to one host, in one header, and stay nowhere; answers of servers are hostile input."""

from __future__ import annotations

import gzip
import json
import math
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from traitmap.analysis.traits.decompose import decompose
from traitmap.api.naming import ask_names
from traitmap.engine.contract import Decoding
from traitmap.engine.endpoint import protocol, transport
from traitmap.engine.endpoint.engine import EndpointEngine
from traitmap.engine.endpoint.transport import Transport
from traitmap.errors import ModelError, UserError
from traitmap.matrix.record import TransferMatrix
from traitmap.study.settings import Endpoint, Model

KEY = "sk-very-secret-1234567890"


@contextmanager
def server(
    body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list]]:
    """A server that answers everything alike; yields its address and the headers that it was sent."""
    seen: list[dict[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(dict(self.headers))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", seen
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def settings(url: str, **more: Any) -> Endpoint:
    return Endpoint(url=url, api_key_env="SECRET_KEY", retries=0, timeout=5, **more)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_key_to_another_host(status: int) -> None:
    with (
        server(b"{}") as (other, reached),
        server(b"moved", status=status, headers={"Location": f"{other}/models"}) as (url, asked),
    ):
        with pytest.raises(ModelError, match=str(status)):
            Transport(settings(url)).get("models")
        with pytest.raises(UserError, match=str(status)):
            ask_names(traits(), url=url, model="m", key_variable="SECRET_KEY")
    assert len(asked) == 2
    assert all(KEY in headers["Authorization"] for headers in asked)
    assert reached == []


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_that_the_server_repeats_is_told_nowhere(status: int) -> None:
    body = json.dumps({"data": [{"id": "base", "root": KEY}], "error": f"bad key {KEY}"}).encode()
    with server(body, status=status) as (url, _):
        model = Model(path="base", endpoint=settings(url))
        if status == 200:
            engine = EndpointEngine.open(model)
            kept = json.dumps([dict(engine.conditions), engine.base_digest], default=str)
            assert "***" in kept
            said = kept + repr(engine.transport) + repr(vars(engine)) + repr(model) + model.model_dump_json()
        else:
            with pytest.raises(ModelError) as caught:
                EndpointEngine.open(model)
            said = str(caught.value) + repr(caught.value)
        with pytest.raises(UserError) as caught_names:
            ask_names(traits(), url=url, model="m", key_variable="SECRET_KEY")
    assert KEY not in said + str(caught_names.value)


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGEST_ANSWER", 100_000)
    bomb = gzip.compress(b" " * 3_000_000)
    for body, headers in ((b" " * 3_000_000, {}), (bomb, {"Content-Encoding": "gzip"})):
        with (
            server(body, headers=headers) as (url, _),
            pytest.raises(ModelError, match="more than 100,000 bytes"),
        ):
            Transport(settings(url)).get("models")
    with (
        server(b"[" + b" " * (1 << 22)) as (url, _),
        pytest.raises(UserError, match="bytes instead of names"),
    ):
        ask_names(traits(), url=url, model="m")


HOSTILE: list[Any] = [
    *(None, [], {}, "text", 7, {"choices": 3}, {"choices": [[]]}, {"choices": [{"logprobs": 1}]}),
    *({"choices": [{"text": value, "message": value}]} for value in ([1], {"a": 1}, 3, True)),
    *(
        {"choices": [{"logprobs": {"token_logprobs": found, "tokens": ["a", "b"], "top_logprobs": top}}]}
        for found in (["x", 1], [[], {}], [None, math.nan], [None, math.inf], [None, 10**400], [None, -1.0])
        for top in ([{}, {"b": "x"}], [None, {"b": None}], [{"a": math.nan}] * 2, "ab", {"0": 1, "1": 2})
    ),
    *({"choices": [{"text": "a"}], "usage": value} for value in ([], "x", {"completion_tokens": "9" * 50})),
]


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_any_answer_is_read_or_refused(place: int) -> None:
    decoding = Decoding(until=(), max_tokens=4, sample=False, temperature=0.0, top_p=1.0, top_k=0)
    for read in (
        lambda: protocol.scored(protocol.token_logprobs(HOSTILE[place]), 1),
        lambda: protocol.generated(HOSTILE[place], decoding),
    ):
        try:
            found = read()
        except ModelError:
            continue
        number = found.logprob if hasattr(found, "logprob") else 0.0
        assert math.isfinite(number)


def test_json_that_is_nested_too_deeply_is_no_answer() -> None:
    with server(b"[" * 200_000) as (url, _):
        with pytest.raises(ModelError, match="no whole JSON"):
            Transport(settings(url)).get("models")
        with pytest.raises(UserError, match="did not answer with JSON"):
            ask_names(traits(), url=url, model="m")


def test_an_address_with_a_key_in_it_is_not_taken() -> None:
    for url in ("http://user:pass@host/v1", "http://host/v1?key=abc"):
        with pytest.raises(UserError, match="not kept") as caught:
            ask_names(traits(), url=url, model="m")
        assert "pass" not in str(caught.value).replace("password", "")
        with pytest.raises(ValueError, match="not kept"):
            Endpoint(url=url)


def traits() -> Any:
    drawing = np.random.default_rng(0)
    values = drawing.normal(size=(20, 1)) * drawing.normal(size=(1, 6)) * 10 + drawing.normal(size=(20, 6))
    names = tuple(f"t{at}" for at in range(6))
    matrix = TransferMatrix(tuple(f"s{at}" for at in range(20)), names, values, np.zeros(6))
    found = decompose(matrix, n_bootstrap=0, n_permutations=0)
    assert found.n_components["used"]
    return found


def test_gzip_bombs_over_all_connections_take_the_memory_of_one_answer() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(150)) + packer.flush()
    with server(bomb, headers={"Content-Encoding": "gzip"}) as (url, _):
        asked = Transport(settings(url, concurrency=6))

        def ask(_: int) -> str:
            with pytest.raises(ModelError, match="answered with more than") as refused:
                asked.get("models")
            return str(refused.value)

        tracemalloc.start()
        try:
            with ThreadPoolExecutor(6) as pool:
                assert len(list(pool.map(ask, range(6)))) == 6
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("body", "packing", "reason"),
    [
        (b"[" + b"[]," * 2_100_000 + b"[]]", "identity", "more than 4,000,000 values"),
        (b"x", "br", "packed its answer as 'br'"),
        (b"x", "gzip, gzip", "packed its answer as 'gzip, gzip'"),
        (gzip.compress(b'{"data": []}')[:-4], "gzip", "cut short"),
        (b"no gzip", "gzip", "DecodingError"),
    ],
)
def test_answers_that_are_packed_or_filled_against_us_are_refused(
    body: bytes, packing: str, reason: str
) -> None:
    with (
        server(body, headers={"Content-Encoding": packing}) as (url, _),
        pytest.raises(ModelError, match=reason),
    ):
        Transport(settings(url)).get("models")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bytes])
def test_packed_answers_are_read_as_they_are_large_ones_too(pack: Callable[[bytes], bytes]) -> None:
    content = json.dumps({"data": ["x" * 900] * 1000}).encode()
    packing = {gzip.compress: "gzip", zlib.compress: "deflate"}.get(pack, "identity")
    with server(pack(content), headers={"Content-Encoding": packing}) as (url, _):
        asked = Transport(settings(url, concurrency=4))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: asked.get("models"), range(8)))
    assert all(answer == json.loads(content) for answer in answers)
