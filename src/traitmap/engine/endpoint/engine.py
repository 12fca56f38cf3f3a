"""The tokenizer of a base that is served elsewhere: from a local folder or the hub, no weights.

The engine that asks a server: its base and its adapters answer, nothing is trained.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

from traitmap.data.copies import hub_reason, tokenizer_copy
from traitmap.data.records import AdapterPlace, Caveat, Example, Request, Response, ServedAdapter
from traitmap.engine.contract import (
    Decoding,
    MergeJob,
    PassCheckpoint,
    TrainingJob,
    TrainingReport,
    decoding_of,
)
from traitmap.engine.endpoint import protocol
from traitmap.engine.endpoint.protocol import Prompt
from traitmap.engine.endpoint.transport import RefusedError, Transport, Voice, speaking
from traitmap.engine.tokens import Encoder, request_caveats
from traitmap.errors import ModelError, whole_reason
from traitmap.progress import Listener, Progress, silent
from traitmap.study.paths import digest, model_location
from traitmap.study.settings import Lora, Model, Training

_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "config.json",
)


def load_tokenizer(given: str, folder: Path, copies: Path | None = None) -> tuple[Any, str]:
    """The tokenizer and a digest of its files. ModelError where it cannot be loaded.

    folder: where relative paths start from, the study file's. copies: a folder with local copies of hub
    models (a study's ``data``); one of them is read in the hub's place, and needs no weights.
    """
    from transformers import AutoTokenizer  # takes seconds to import

    place = tokenizer_copy(given, copies) or _located(given, folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        why = whole_reason(error)
        raise ModelError(f"model.endpoint.tokenizer {given!r}: cannot be loaded: {why}") from error
    files = sorted({path for pattern in _FILES for path in place.glob(pattern) if path.is_file()})
    return tokenizer, digest([[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files])


def _located(given: str, folder: Path) -> Path:
    location = model_location(given, folder)
    if isinstance(location, Path):
        if not location.is_dir():
            raise ModelError(f"model.endpoint.tokenizer {given!r}: there is no folder {location}.")
        return location
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(given, allow_patterns=list(_FILES)))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"model.endpoint.tokenizer {given!r}: neither a local folder nor to be had from the hub: "
            f"{hub_reason(error)}"
        ) from error


_NO_SUCH_CALL = frozenset({404, 405, 501})
_LISTED = ("id", "root", "max_model_len")  # of what a server says of a model: no times, no random ids
_CHARACTERS_PER_TOKEN = 4  # of English text, where no tokenizer is given
_RESTORES = 5  # times that an adapter lost by a restart is loaded again for one request
_REPORT_EVERY = 16


class EndpointEngine:
    """Implements ``engine.contract.Engine`` over HTTP."""

    def __init__(
        self, model: Model, transport: Transport, encoder: Encoder | None, tokenizer_digest: str | None
    ) -> None:
        self.model = model
        self.transport = transport
        self.encoder = encoder
        self._tokenizer_digest = tokenizer_digest
        self._listing = _listing(transport)
        if self._listing is not None and model.path not in self._listing:
            raise ModelError(
                f"model.path {model.path!r}: {transport.settings.url} serves no model of this name; it "
                f"serves {', '.join(sorted(self._listing)) or 'none'}."
            )

    @classmethod
    def open(cls, model: Model, folder: Path | None = None, *, copies: Path | None = None) -> EndpointEngine:
        """Reach the server that ``model.endpoint`` names. ModelError where it cannot be used.

        folder: where the path of a tokenizer starts from (default: here). copies: see `load_tokenizer`.
        """
        if model.endpoint is None:
            raise ModelError("model.endpoint is not given.")
        encoder, found = None, None
        if model.endpoint.tokenizer is not None:
            tokenizer, found = load_tokenizer(model.endpoint.tokenizer, folder or Path.cwd(), copies)
            encoder = Encoder(tokenizer)
        return cls(model, Transport(model.endpoint), encoder, found)

    @property
    def base_digest(self) -> str:
        """Digest of what can be known: names, the user's ``revision``, what the server lists, the tokenizer.

        The address takes no part, so that a run can go on against another server of the same model.
        """
        return digest(
            {
                "endpoint": self.model.path,
                "revision": self.model.revision,
                "listed": self._card,
                "tokenizer": self._tokenizer_digest,
            }
        )

    @cached_property
    def conditions(self) -> Mapping[str, Any]:
        settings = self.transport.settings
        return {
            "engine": "endpoint",
            "device": f"server ({settings.server})",
            "dtype": "the server's",
            "url": settings.url,
            "model": self.model.path,
            "listed": self._card,
            "prompts": "text" if self.encoder is None else "token ids",
            "weights": "not digested: a server does not show them; what it serves under a name is believed",
            "versions": {package: version(package) for package in ("httpx", "lm_eval")}
            | self._server_version(),
        }

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        """Always a ModelError: completions servers do not train."""
        raise ModelError(
            f"{', '.join(job.name for job in jobs)}: a server cannot train an adapter; give served_as or "
            "adapter, or remove model.endpoint to train on this machine."
        )

    def merge(self, job: MergeJob, folder: Path) -> None:
        """Always a ModelError: completions servers do not merge."""
        names = ", ".join(place.name for place in job.folders)
        raise ModelError(
            f"{names}: a server cannot merge adapters; merge them on a machine that holds the base, and give "
            "the result as adapter."
        )

    def largest_group(self, lora: Lora, training: Training) -> int:
        """1: nothing is trained here."""
        return 1

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Response]:
        if self.transport.away:
            _listing(self.transport, retries=0)  # back again? else say so at once
        if isinstance(adapter, ServedAdapter):
            self._check_served(adapter)
        with speaking(self.transport, self.model.path, adapter) as voice:
            return self._in_parallel(requests, voice, listener)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; without a tokenizer a quarter of the characters."""
        if self.encoder is None:
            return [ceil(len(text) / _CHARACTERS_PER_TOKEN) for text in texts]
        return [len(self.encoder.encode(text)) for text in texts]

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...]:
        if self.encoder is None or any(protocol.is_conversation(request) for request in requests):
            return ()
        # the server generates one token behind a prompt that it scores
        return request_caveats(self.encoder, requests, self._max_length, reserved=2)

    def example_caveats(self, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
        """None: nothing is trained here."""
        return ()

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The conversation under the tokenizer's template; without a tokenizer the server renders it."""
        if self.encoder is None:
            return protocol.conversation_text(messages)
        if not self.encoder.tokenizer.chat_template:
            raise ModelError(f"{self.transport.settings.tokenizer}: the tokenizer has no chat template.")
        text = self.encoder.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            tools=[dict(tool) for tool in tools] or None,
        )
        return str(text)

    def _in_parallel(self, requests: Sequence[Request], voice: Voice, listener: Listener) -> list[Response]:
        """All answers, in order; the first failure gives up the rest."""
        stop = threading.Event()
        answers: dict[int, Response] = {}
        with ThreadPoolExecutor(self.transport.settings.concurrency) as pool:
            waiting = {
                pool.submit(self._one, request, voice, stop): place for place, request in enumerate(requests)
            }
            try:
                for future in as_completed(waiting):
                    answers[waiting[future]] = future.result()
                    if len(answers) % _REPORT_EVERY == 0 or len(answers) == len(requests):
                        listener(Progress("evaluate", len(answers), len(requests)))
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [answers[place] for place in range(len(requests))]

    def _one(self, request: Request, voice: Voice, stop: threading.Event) -> Response:
        def ask(path: str, body: Mapping[str, Any]) -> Any:
            return _asked(self.transport, path, body, voice, stop)

        if request.kind == "generate_until":
            return self._generate(request, ask)
        if protocol.is_conversation(request):
            raise ModelError(
                "choices behind a conversation can only be scored where it is rendered here; give "
                "model.endpoint.tokenizer."
            )
        if request.kind == "loglikelihood":
            return self._score(request, ask)
        return self._score_whole(request, ask)

    def _score(self, request: Request, ask: Callable[[str, Mapping[str, Any]], Any]) -> Response:
        if self.encoder is None:
            whole = request.context + request.continuation
            found = protocol.token_logprobs(ask("completions", protocol.scoring_body(whole)))
            # as lm-eval has it, spaces at the context's end are the continuation's
            continuation = whole[len(request.context.rstrip()) :]
            return protocol.scored(found, protocol.continuation_start(found, whole, continuation))
        return self._score_ids(*self.encoder.continuation(request), ask)

    def _score_ids(
        self, context: list[int], continuation: list[int], ask: Callable[[str, Mapping[str, Any]], Any]
    ) -> Response:
        longest = self._max_length - 1  # the server generates one token behind the prompt
        if not 1 <= len(continuation) < longest:
            raise ModelError(f"a continuation has {len(continuation)} tokens; legal: 1 to {longest - 1}.")
        ids = context[-(longest - len(continuation)) :] + continuation
        found = protocol.token_logprobs(ask("completions", protocol.scoring_body(ids)))
        if len(found.logprobs) < len(ids):
            raise ModelError(
                f"{len(ids)} tokens were sent and {len(found.logprobs)} came back; does the server take "
                "token ids? Without model.endpoint.tokenizer text is sent."
            )
        return protocol.scored(found, len(found.logprobs) - len(continuation))

    def _score_whole(self, request: Request, ask: Callable[[str, Mapping[str, Any]], Any]) -> Response:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        if self.encoder is None:
            raise ModelError("a text's perplexity needs a start token; give model.endpoint.tokenizer.")
        ids = self.encoder.encode(request.context)
        windows = get_rolling_token_windows(ids, self.encoder.start, self._max_length - 2, 1)
        parts = [
            self._score_ids(list(context), list(continuation), ask)
            for context, continuation in map(make_disjoint_window, windows)
        ]
        return Response(
            logprob=sum(part.logprob for part in parts), tokens=sum(part.tokens for part in parts)
        )

    def _generate(self, request: Request, ask: Callable[[str, Mapping[str, Any]], Any]) -> Response:
        decoding = decoding_of(request.generation)
        if protocol.is_conversation(request):
            answer = ask("chat/completions", protocol.chat_body(request.context, decoding, request.seed))
        else:
            prompt = self._prompt(request.context, decoding)
            answer = ask("completions", protocol.generation_body(prompt, decoding, request.seed))
        text, tokens, stopped = protocol.generated(answer, decoding)
        return Response(
            text=text, tokens=self.token_counts([text])[0] if tokens is None else tokens, stopped=stopped
        )

    def _prompt(self, context: str, decoding: Decoding) -> Prompt:
        if self.encoder is None:
            return context
        room = self._max_length - decoding.max_tokens
        if room <= 0:
            raise ModelError(
                f"generation_kwargs: max_gen_toks {decoding.max_tokens} leaves no room for a prompt in the "
                f"model's {self._max_length} tokens; lower it in the task file."
            )
        return (self.encoder.encode(context) or [self.encoder.start])[-room:]

    @property
    def _card(self) -> dict[str, Any] | None:
        return self._listing[self.model.path] if self._listing is not None else None

    @cached_property
    def _max_length(self) -> int:
        told = (self._card or {}).get("max_model_len")
        if isinstance(told, int) and 1 <= told < 2**31:
            return told
        length = int(self.encoder.tokenizer.model_max_length) if self.encoder else 10**9
        return length if length < 10**9 else 2**31

    def _server_version(self) -> dict[str, str]:
        if self.transport.settings.server != "vllm":
            return {}
        try:
            told = self.transport.get("/version", retries=0)
        except ModelError:
            return {}
        return {"vllm": str(told.get("version"))} if isinstance(told, Mapping) else {}

    def _check_served(self, adapter: ServedAdapter) -> None:
        """A server that does not know a name might answer as the base, which nobody would notice."""
        if self.transport.settings.server not in ("vllm", "openai"):
            return
        listing = _listing(self.transport)
        if listing is not None and adapter.name not in listing:
            raise ModelError(
                f"served_as {adapter.name!r}: {self.transport.settings.url} serves no model of this name; it "
                f"serves {', '.join(sorted(listing))}."
            )


def _asked(
    transport: Transport, path: str, body: Mapping[str, Any], voice: Voice, stop: threading.Event
) -> Any:
    """The server's answer; an adapter that a restart has made it forget is loaded again."""
    for _ in range(_RESTORES):
        seen = voice.restored
        try:
            return transport.post(path, {**voice.fields, **body}, stop)
        except RefusedError as error:
            forgotten = error.status == 404 or (error.status == 400 and "lora" in str(error).lower())
            if not forgotten or not voice.restore(seen):
                raise
    return transport.post(path, {**voice.fields, **body}, stop)


def _listing(transport: Transport, *, retries: int | None = None) -> dict[str, dict[str, Any]] | None:
    """What the server lists of each model, or None where it has no such list."""
    try:
        told = transport.get("models", retries=retries)
    except RefusedError as error:
        if error.status in _NO_SUCH_CALL:
            return None
        raise
    cards = told.get("data") if isinstance(told, Mapping) else None
    if not isinstance(cards, list):
        return None
    return {
        str(card["id"]): {key: _plain(card.get(key)) for key in _LISTED}
        for card in cards
        if isinstance(card, Mapping) and "id" in card
    }


def _plain(value: Any) -> str | int | None:
    """What a server lists, as something that can be kept and digested, whatever it is."""
    if value is None or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return str(value)[:200].encode("utf-8", "replace").decode()
