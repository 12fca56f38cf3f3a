"""A server of OpenAI's completions protocol around transformers and PEFT, with faults by a schedule.

Run as a process: ``python served.py BASE --port 8123 --name base --adapter goat=FOLDER --log calls.jsonl``.
It serves the base and adapters by model name, gives log-probabilities of prompts (echo, logprobs,
text_offset), takes prompts as text or token ids, and loads adapters at run time: by a call as vLLM and SGLang
do; a request may also name an adapter by its folder, as LoRAX has it.

--faults FILE: JSON, read at every request: from the number of a completions request in the log (1, 2, ...),
or ``*`` for all others, to a fault: ``slow`` (answers after --slow seconds), ``busy`` (429 with Retry-After),
``broken`` (500), ``cut`` (half of the body), ``half`` (half of the JSON, as if whole), ``reset`` (the
connection), ``die`` (kill -9 of this process), ``blind`` (no log-probabilities of the prompt).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


class Served:
    """The base with its adapters, one question at a time."""

    def __init__(self, base: str, name: str) -> None:
        self.name = name
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.adapters: dict[str, str] = {}
        self.lock = threading.Lock()

    def load(self, name: str, folder: str) -> None:
        with self.lock:
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(folder, adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
            self.model.eval()
            self.adapters[name] = folder

    def named(self, folder: str) -> str:
        """The name of the adapter in a folder that a request names."""
        known = {path: name for name, path in self.adapters.items()}
        return known[folder]

    def unload(self, name: str) -> None:
        with self.lock:
            del self.adapters[name]
            if self.adapters:
                self.model.delete_adapter(name)
            else:
                self.model = self.model.unload()

    def speak(self, name: str) -> Any:
        """The model of this name, ready for passes."""
        if not isinstance(self.model, PeftModel):
            return self.model
        if name == self.name:
            return self.model.disable_adapter()
        self.model.set_adapter(name)
        return torch.no_grad()

    def complete(self, body: dict[str, Any], prompt: str | list[int]) -> dict[str, Any]:
        ids = prompt if isinstance(prompt, list) else self.tokenizer(prompt)["input_ids"]
        with self.lock, torch.no_grad():
            guard = self.speak(body["model"])
            if hasattr(guard, "__enter__"):
                with guard:
                    return self._complete(body, ids)
            return self._complete(body, ids)

    def _complete(self, body: dict[str, Any], ids: list[int]) -> dict[str, Any]:
        fresh, reason = self._generate(body, ids)
        text = self.tokenizer.decode(fresh, skip_special_tokens=True)
        for stop in body.get("stop") or []:
            text = text.split(stop)[0]
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        if body.get("echo"):
            choice["text"] = self.tokenizer.decode(ids) + text
            choice["logprobs"] = self._logprobs(ids + fresh)
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(fresh)}
        return {"object": "text_completion", "model": body["model"], "choices": [choice], "usage": usage}

    def _generate(self, body: dict[str, Any], ids: list[int]) -> tuple[list[int], str]:
        stops = body.get("stop") or []
        settings: dict[str, Any] = {"do_sample": bool(body.get("temperature"))}
        if settings["do_sample"]:
            torch.manual_seed(body.get("seed") or 0)
            settings |= {"temperature": body["temperature"], "top_p": body.get("top_p", 1.0)}
        if stops:
            settings |= {"stop_strings": stops, "tokenizer": self.tokenizer}
        output = self.model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=body["max_tokens"],
            pad_token_id=self.tokenizer.eos_token_id,
            **settings,
        )
        fresh = output[0, len(ids) :].tolist()
        text = self.tokenizer.decode(fresh)
        ended = fresh[-1] == self.tokenizer.eos_token_id or any(stop in text for stop in stops)
        return fresh, "stop" if ended else "length"

    def _logprobs(self, ids: list[int]) -> dict[str, Any]:
        logprobs = self.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        tokens = [self.tokenizer.decode([one]) for one in ids]
        likeliest = logprobs.argmax(-1).tolist()
        chosen: list[float | None] = [None]
        top: list[dict[str, float] | None] = [None]
        offsets = [0]
        for at, one in enumerate(ids[1:]):
            chosen.append(float(logprobs[at, one]))
            best = likeliest[at]
            top.append({self.tokenizer.decode([best]): float(logprobs[at, best]), tokens[at + 1]: chosen[-1]})
            offsets.append(offsets[-1] + len(tokens[at]))
        return {"tokens": tokens, "token_logprobs": chosen, "top_logprobs": top, "text_offset": offsets}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served
    options: argparse.Namespace
    counting = threading.Lock()

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._send(404, {"error": {"message": f"no {self.path}"}})
        limit = self.served.model.config.max_position_embeddings
        names = [self.served.name, *self.served.adapters]
        return self._send(200, {"data": [{"id": one, "max_model_len": limit} for one in names]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("SERVED_KEY")
        given = self.headers.get("Authorization", "")
        if key and given != f"Bearer {key}":
            return self._send(401, {"error": {"message": f"no such key: {given}"}})
        if self.path.removeprefix("/v1") == "/load_lora_adapter":
            return self._load(body)
        if self.path.removeprefix("/v1") == "/unload_lora_adapter":
            if body["lora_name"] not in self.served.adapters:
                return self._send(404, {"error": {"message": "no such adapter"}})
            self.served.unload(body["lora_name"])
            return self._send(200, "Success: unloaded")
        return self._complete(body)

    def _load(self, body: dict[str, Any]) -> None:
        if body["lora_name"] in self.served.adapters:
            return self._send(400, {"error": {"message": "has already been loaded"}})
        try:
            self.served.load(body["lora_name"], body["lora_path"])
        except (OSError, ValueError) as error:
            return self._send(404, {"error": {"message": f"cannot be loaded: {error}"}})
        return self._send(200, "Success: loaded")

    def _complete(self, body: dict[str, Any]) -> None:
        number = str(self._count(body))
        body["model"] = body.get("lora_path") or body["model"]
        faults = json.loads(Path(self.options.faults).read_text(encoding="utf-8"))
        fault = faults.get(number, faults.get("*", ""))
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "slow":
            time.sleep(self.options.slow)
        if fault == "busy":
            return self._send(429, {"error": {"message": "too many requests"}}, {"Retry-After": "0.2"})
        if fault == "broken":
            return self._send(500, {"error": {"message": "out of memory"}})
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return self.connection.close()
        if os.path.isdir(body["model"]):
            body["model"] = self.served.named(body["model"])
        if body["model"] not in (self.served.name, *self.served.adapters):
            return self._send(404, {"error": {"message": f"the model {body['model']} does not exist"}})
        if fault == "blind" and body.get("echo"):
            return self._send(200, {"choices": [{"text": "", "logprobs": None}], "usage": {}})
        return self._send(200, self._answer(body), fault=fault)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.path == "/v1/completions":
            return self.served.complete(body, body["prompt"])
        prompt = "".join(f"{one['role']}: {one['content']}\n" for one in body["messages"]) + "assistant:"
        answer = self.served.complete(body, prompt)
        choice = answer["choices"][0]
        choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        return answer

    def _count(self, body: dict[str, Any]) -> int:
        """The number of this request, written down before anything is done."""
        log = Path(self.options.log)
        with self.counting:
            asked = {"model": body["model"], "prompt": body.get("prompt"), "path": self.path}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asked) + "\n")
            return sum(1 for _ in log.open(encoding="utf-8"))

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None, fault: str = "") -> None:
        raw = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        half = raw[: len(raw) // 2]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(half) if fault == "half" else len(raw)))
        self.end_headers()
        self.wfile.write(half if fault in ("half", "cut") else raw)
        if fault == "cut":
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="base")
    parser.add_argument("--adapter", action="append", default=[])
    parser.add_argument("--log", required=True)
    parser.add_argument("--faults", required=True)
    parser.add_argument("--slow", type=float, default=3.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    Handler.options, Handler.served = options, Served(options.base, options.name)
    for one in options.adapter:
        Handler.served.load(*one.split("=", 1))
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
