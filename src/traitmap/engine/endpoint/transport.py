"""Requests to a server, paced, and sent again when it is busy, broken or away.

How each kind of server names an adapter, and loads one from its files.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from traitmap.data.records import AdapterPlace, ServedAdapter, WholeModel
from traitmap.errors import ModelError
from traitmap.study.paths import digest
from traitmap.study.settings import Endpoint

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the first repeat; they double up to the longest
LONGEST_ASKED_WAIT = 600.0  # seconds that a Retry-After may ask for
_BUSY = frozenset({408, 425, 429})
LARGEST_ANSWER = (
    48 << 20
)  # bytes, unpacked; log-probabilities of a prompt of 100,000 tokens are about 30 million
_SMALL_ANSWER = 1 << 18  # bytes; of larger ones there is one at a time, over all connections
_MOST_VALUES = 4_000_000  # of one answer; each is an object of its own once it is read
_PIECE = 1 << 16  # bytes that are unpacked at a time
_PATIENCE = 10  # times the timeout that a whole answer may take, however steadily it drips
_SHOWN = 400  # characters of a server's own words in a message
_READ = 1 << 16  # bytes of them that are looked at


class RefusedError(ModelError):
    """The server answered that it will not do it; sending it again would not help."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class UnreachableError(ModelError):
    """The server was busy, broken or away at every try."""


class StoppedError(ModelError):
    """Another request of the same batch has failed, so that this one was given up."""


class Transport:
    """A pool of connections to one server. Any number of threads may use it.

    The key is read from the environment here, sent in the header of each request, and appears in no message.
    """

    def __init__(self, settings: Endpoint) -> None:
        self.settings = settings
        self.away = False  # the last request could not be answered at any try
        self._key = _key_of(settings)
        headers = {"Accept-Encoding": "gzip, deflate"}  # what can be unpacked piece by piece
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=settings.concurrency + 1),
        )
        self._lock = threading.Lock()
        self._large = threading.Lock()  # whoever holds a large answer
        self._jitter = random.Random(0)
        self._next_start = 0.0

    def get(self, path: str, *, retries: int | None = None) -> Any:
        """JSON data at a path below the server's base address."""
        return self._send("GET", self.address(path), None, retries, threading.Event())

    def post(self, path: str, body: Mapping[str, Any], stop: threading.Event | None = None) -> Any:
        """The answer, JSON data, to a JSON body. stop: gives up waiting when it is set.

        RefusedError where the server will not do it, UnreachableError after the last try.
        """
        return self._send("POST", self.address(path), body, None, stop or threading.Event())

    def call(self, path: str, body: Mapping[str, Any], *, retries: int | None = None) -> Any:
        """As ``post``, for calls that may answer with plain words: JSON data where it is such, else text."""
        address = self.address(path)
        return self._send("POST", address, body, retries, threading.Event(), plain=True)

    def address(self, path: str) -> str:
        """Below the base address; a path with a slash in front stands beside ``/v1`` instead."""
        base = self.settings.url
        return base.removesuffix("/v1") + path if path.startswith("/") else f"{base}/{path}"

    def _send(
        self,
        method: str,
        address: str,
        body: Mapping[str, Any] | None,
        retries: int | None,
        stop: threading.Event,
        *,
        plain: bool = False,
    ) -> Any:
        tries = 1 + (self.settings.retries if retries is None else retries)
        reason = ""
        for attempt in range(tries):
            self._pace(stop)
            asked_wait = 0.0
            try:
                with self._answer(method, address, body) as (status, headers, content):
                    if status < 300:
                        self.away = False
                        try:
                            return json.loads(content)
                        except (ValueError, RecursionError):
                            if plain:
                                return content.decode("utf-8", "replace")
                            reason = "its answer was no whole JSON"
                    elif status in _BUSY or status >= 500:
                        reason = (
                            f"it answered {status}: {self._told(content[:_READ].decode('utf-8', 'replace'))}"
                        )
                        asked_wait = retry_after(headers.get("Retry-After"))
                    else:
                        told = self._told(content[:_READ].decode("utf-8", "replace"))
                        raise RefusedError(f"{address} answered {status}: {told}", status)
            except httpx.RequestError as error:
                reason = self._told(f"{type(error).__name__} {error}")
            if attempt + 1 < tries:
                with self._lock:  # drawn so that threads do not come back together
                    share = self._jitter.uniform(0.5, 1.0)
                backoff = share * min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt)
                _wait(max(backoff, asked_wait), stop)
        self.away = True
        raise UnreachableError(
            f"{address} gave no answer in {tries} {'try' if tries == 1 else 'tries'}; at the last one "
            f"{reason}. Check the server and run again: what is finished is kept."
        )

    @contextmanager
    def _answer(
        self, method: str, address: str, body: Mapping[str, Any] | None
    ) -> Iterator[tuple[int, httpx.Headers, bytearray]]:
        """Status, headers and the unpacked content, as long as both have an end.

        Answers of the usual size are read side by side, larger ones one at a time: the memory that a server
        can take here is that of one, whatever it packs into how many connections. A redirect is not followed,
        since the key would go along. RefusedError for an answer that is too large, holds too many values, is
        packed otherwise than was asked for, or never ends: the same server would send the same again.
        """
        begun, content = time.monotonic(), bytearray()
        with ExitStack() as held, self._client.stream(method, address, json=body) as response:
            try:
                for part in _unpacked(response, address):
                    if len(content) <= _SMALL_ANSWER < len(content) + len(part):
                        waiting = time.monotonic()
                        held.enter_context(self._large)
                        begun += time.monotonic() - waiting
                    content += part
                    if len(content) > LARGEST_ANSWER:
                        raise RefusedError(f"{address} answered with more than {LARGEST_ANSWER:,} bytes", 200)
                    if time.monotonic() - begun > _PATIENCE * self.settings.timeout:
                        raise RefusedError(f"{address} did not come to the end of its answer", 200)
                if sum(content.count(sign) for sign in (b",", b"[", b"{")) > _MOST_VALUES:
                    raise RefusedError(f"{address} answered with more than {_MOST_VALUES:,} values", 200)
                # a server that repeats the key would have it kept with its answers
                if self._key and self._key.encode() in content:
                    content = content.replace(self._key.encode(), b"***")
                yield response.status_code, response.headers, content
            finally:
                content.clear()  # an error on its way up would keep it, and let the next one in

    def _pace(self, stop: threading.Event) -> None:
        """Wait until another request may begin."""
        if stop.is_set():
            raise StoppedError("given up")
        if self.settings.requests_per_second is None:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 1.0 / self.settings.requests_per_second
        _wait(start - time.monotonic(), stop)

    def _told(self, words: str) -> str:
        """The server's words in one line, without the key should it repeat it."""
        if self._key:
            words = words.replace(self._key, "***")
        line = " ".join(words.split())
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _unpacked(response: httpx.Response, address: str) -> Iterator[bytes]:
    """The content of an answer in small pieces, however much is packed into few bytes."""
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing == "identity":
        yield from response.iter_raw(_PIECE)
        return
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise RefusedError(
            f"{address} packed its answer as {packing[:_SHOWN]!r}, which was not asked for", 200
        )
    unpack = zlib.decompressobj(32 + zlib.MAX_WBITS)  # either of the two
    try:
        for packed in response.iter_raw(_PIECE):
            while packed:
                yield unpack.decompress(packed, _PIECE)
                packed = unpack.unconsumed_tail
        yield unpack.flush(_PIECE)
    except zlib.error as error:
        raise httpx.DecodingError(str(error), request=response.request) from None
    if not unpack.eof:
        raise httpx.DecodingError("the packed answer is cut short", request=response.request)


def retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, in either of its forms; 0 where it says nothing."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_ASKED_WAIT) if seconds == seconds else 0.0


def _wait(seconds: float, stop: threading.Event) -> None:
    if stop.wait(max(seconds, 0.0)):
        raise StoppedError("given up")


def _key_of(settings: Endpoint) -> str | None:
    name = settings.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ModelError(
            f"model.endpoint.api_key_env: the environment variable {name} is not set; set it to the key, or "
            "remove api_key_env."
        )
    if not key.isascii() or not key.isprintable():
        raise ModelError(f"the environment variable {name} holds characters that no HTTP header may hold.")
    return key


# SGLang's own calls stand beside /v1, vLLM's in it
_LOAD = {"vllm": "load_lora_adapter", "sglang": "/load_lora_adapter"}
_UNLOAD = {"vllm": "unload_lora_adapter", "sglang": "/unload_lora_adapter"}


class Voice:
    """Who shall answer: the base or one adapter, as a server wants it said.

    fields: of a request's body. restore: brings a loaded adapter back after the server lost it; False where
    there is nothing to bring back.
    """

    def __init__(self, fields: dict[str, Any], transport: Transport | None = None, folder: str = "") -> None:
        self.fields = fields
        self._transport = transport
        self._folder = folder
        self._lock = threading.Lock()
        self._times = 0

    @property
    def restored(self) -> int:
        """How often the adapter was brought back."""
        return self._times

    def restore(self, seen: int) -> bool:
        """Load the adapter again, unless another thread has done so since ``seen`` was read."""
        if self._transport is None:
            return False
        with self._lock:
            if self._times == seen:
                _load(self._transport, _runtime_name(self._folder), self._folder)
                self._times += 1
        return True


@contextmanager
def speaking(transport: Transport, base: str, adapter: AdapterPlace | None) -> Iterator[Voice]:
    """The voice of the base or an adapter; an adapter's files are loaded for as long as it speaks."""
    server = transport.settings.server
    if adapter is None:
        yield Voice({"model": base})
    elif isinstance(adapter, ServedAdapter):
        yield Voice(_named(server, base, adapter.name))
    elif isinstance(adapter, WholeModel):
        raise ModelError(f"{adapter}: a row of its own, which this server does not answer for (open_rows).")
    elif server == "lorax":  # loads whatever a request names
        yield Voice({"model": str(adapter.absolute())})
    elif server in _LOAD:
        folder = str(adapter.absolute())
        name = _runtime_name(folder)
        _load(transport, name, folder)
        try:
            yield Voice(_named(server, base, name), transport, folder)
        finally:
            _unload(transport, name)
    else:
        raise ModelError(
            f"{adapter}: this server loads no adapters from files; serve it under a name and give "
            "served_as, or say which server it is: model.endpoint.server: vllm, sglang or lorax."
        )


def _named(server: str, base: str, name: str) -> dict[str, Any]:
    return {"model": base, "lora_path": name} if server == "sglang" else {"model": name}


def _runtime_name(folder: str) -> str:
    return f"traitmap-{digest(folder, 12)}"


def _load(transport: Transport, name: str, folder: str) -> None:
    """Load from files, anew where the name is taken: the files may have changed since."""
    call, body = _LOAD[transport.settings.server], {"lora_name": name, "lora_path": folder}
    try:
        _confirmed(transport, call, body)
    except RefusedError:
        _unload(transport, name)
        try:
            _confirmed(transport, call, body)
        except RefusedError as error:
            raise ModelError(
                f"the server does not load {folder}: {error}. It must see the folder under this very "
                "path and allow loading at run time (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, "
                "--enable-lora, --max-lora-rank), or serve the adapter under a name (served_as)."
            ) from None


def _confirmed(transport: Transport, call: str, body: dict[str, str]) -> None:
    answer = transport.call(call, body)
    if isinstance(answer, dict) and answer.get("success") is False:
        raise RefusedError(str(answer.get("error_message") or answer), 400)


def _unload(transport: Transport, name: str) -> None:
    try:
        transport.call(_UNLOAD[transport.settings.server], {"lora_name": name}, retries=0)
    except ModelError:
        return  # it is not there, or the server is not: either way it is not loaded
