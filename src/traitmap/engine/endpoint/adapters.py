"""How each kind of server names an adapter, and loads one from its files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from traitmap.data.records import ServedAdapter
from traitmap.engine.endpoint.transport import RefusedError, Transport
from traitmap.errors import ModelError
from traitmap.study.digest import digest

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
def speaking(transport: Transport, base: str, adapter: Path | ServedAdapter | None) -> Iterator[Voice]:
    """The voice of the base or an adapter; an adapter's files are loaded for as long as it speaks."""
    server = transport.settings.server
    if adapter is None:
        yield Voice({"model": base})
    elif isinstance(adapter, ServedAdapter):
        yield Voice(_named(server, base, adapter.name))
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
