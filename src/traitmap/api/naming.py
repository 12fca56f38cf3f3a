"""Ask a language model for names of traits. Off unless called: nothing else in traitmap calls it.

Any endpoint that speaks OpenAI's chat completions will do. Only names, tags and loadings of targets
are sent. The key comes from an environment variable and is sent nowhere but to the endpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np

from traitmap.analysis.traits.records import Traits
from traitmap.errors import UserError
from traitmap.study.rules import url_fault

SHOWN = 6  # strongest targets of a component that are shown to the model
LONGEST = 60  # characters of a name
LARGEST_ANSWER = 1 << 22  # bytes; the names of all components are less than a thousand
QUESTION = """\
Evaluation tasks load on latent traits of fine-tuned language models. For each component, give a name of
one to four plain words for what the tasks with large positive loadings share and those with negative
loadings lack. Where nothing is shared, answer "no common property". Answer with a JSON array of strings,
one for each component in order, and nothing else."""


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect, which could carry the key to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


def ask_names(
    traits: Traits,
    *,
    url: str,
    model: str,
    target_tags: Mapping[str, tuple[str, ...]] | None = None,
    key_variable: str = "OPENAI_API_KEY",
    timeout: float = 60.0,
) -> tuple[str, ...]:
    """Names for the used components, from the model's answer.

    url: the endpoint's base, e.g. ``http://localhost:8000/v1``; ``/chat/completions`` is added.
    model: its name there. target_tags: sent along where given. key_variable: environment variable that
    holds the key; without it no key is sent. timeout: seconds.

    Use with ``traitmap.rename(traits, names, origin="endpoint")``. Raises UserError when the endpoint cannot
    be reached or answers something else than that many names.
    """
    count = traits.n_components["used"]
    if count == 0:
        return ()
    body = {
        "model": model,
        "temperature": 0,
        "messages": [
            {"role": "system", "content": QUESTION},
            {"role": "user", "content": _components_in_words(traits, count, target_tags or {})},
        ],
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(key_variable, "").strip():
        if not key.isascii() or not key.isprintable():
            raise UserError(f"the environment variable {key_variable} holds what no HTTP header may hold")
        headers["Authorization"] = f"Bearer {key}"
    answer = _post(f"{url.rstrip('/')}/chat/completions", body, headers, timeout)
    # one line of whole, printable characters: names are kept, shown in terminals and put into reports
    lines = (" ".join(name.split()) for name in _names_in(answer, count, url))
    return tuple("".join(letter for letter in line if letter.isprintable())[:LONGEST] for line in lines)


def _components_in_words(traits: Traits, count: int, tags: Mapping[str, tuple[str, ...]]) -> str:
    """The strongest targets of each component, with their loadings and tags."""
    lines = []
    for c in range(count):
        loading = np.nan_to_num(traits.loadings[:, c])
        order = np.argsort(-np.abs(loading), kind="stable")[:SHOWN]
        parts = []
        for t in order:
            name = traits.targets[t]
            tagged = f" ({', '.join(tags[name])})" if tags.get(name) else ""
            parts.append(f"{name}{tagged} {loading[t]:+.2f}")
        lines.append(f"Component {c}: {'; '.join(parts)}")
    return "\n".join(lines)


def _post(url: str, body: object, headers: Mapping[str, str], timeout: float) -> object:
    """The endpoint's answer as JSON data."""
    if fault := url_fault(url):
        raise UserError(f"the address of the naming endpoint: {fault}")
    request = Request(url, data=json.dumps(body).encode(), headers=dict(headers), method="POST")
    try:
        with build_opener(_NoRedirect).open(request, timeout=timeout) as response:
            content = response.read(LARGEST_ANSWER + 1)
        if len(content) > LARGEST_ANSWER:
            raise UserError(f"{url} answered with more than {LARGEST_ANSWER:,} bytes instead of names")
        return json.loads(_without_key(content.decode("utf-8"), headers))
    except HTTPError as error:
        with error:
            reply = _without_key(error.read(300).decode("utf-8", "replace"), headers)
        raise UserError(
            f"{url} answered {error.code}: {reply.strip()}; check model, address and key"
        ) from None
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise UserError(
            f"{url} cannot be reached ({error}); check the address, or name the traits yourself"
        ) from None
    except (ValueError, RecursionError):
        raise UserError(
            f"{url} did not answer with JSON; check that it speaks OpenAI's chat completions"
        ) from None


def _without_key(words: str, headers: Mapping[str, str]) -> str:
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    return words.replace(key, "***") if key else words


def _names_in(answer: object, count: int, url: str) -> tuple[str, ...]:
    """The names in a chat completion."""
    try:
        text = str(answer["choices"][0]["message"]["content"])  # type: ignore[index]
        names = json.loads(text[text.index("[") : text.rindex("]") + 1])
    except (KeyError, IndexError, TypeError, ValueError):
        raise UserError(
            f"{url} did not answer with a JSON array of names; name the traits yourself"
        ) from None
    sound = isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)
    if not sound or len(names) != count:
        raise UserError(
            f"{url} answered {str(names)[:200]}, but {count} names were asked for; name the traits yourself"
        )
    return tuple(names)
