"""Asking an endpoint for names, against a small real server on this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from planted import matrix_of, noise, planted
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.naming import rename
from traitmap.api.naming import ask_names
from traitmap.errors import UserError

TRAITS = decompose(matrix_of(planted(25, 10, 2, 0.9, 1)[0]), n_bootstrap=0, n_permutations=0)


@contextmanager
def endpoint(content: str, *, status: int = 200, raw: bool = False) -> Iterator[tuple[str, list[dict]]]:
    """A chat endpoint that always answers ``content``; yields its address and the requests that it saw."""
    seen: list[dict] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            message = {"choices": [{"message": {"content": content}}]}
            self.wfile.write(content.encode() if raw else json.dumps(message).encode())

        def do_GET(self) -> None:
            seen.append({"path": self.path, "headers": dict(self.headers)})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_names_come_back_and_only_targets_are_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    tags = {"target003": ("sentiment",)}
    with endpoint('Here: ["mood", "long  answers"]') as (url, seen):
        names = ask_names(TRAITS, url=url, model="small", target_tags=tags)
    assert names == ("mood", "long answers")
    assert rename(TRAITS, names, origin="endpoint").names[:2] == names
    request = seen[0]
    assert request["path"] == "/v1/chat/completions"
    assert request["body"]["model"] == "small"
    text = json.dumps(request["body"])
    assert "target003 (sentiment)" in text
    assert "source" not in text
    assert "Authorization" not in request["headers"]


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("NAMING_KEY", "k-123")
    with endpoint('["a", "b"]') as (url, seen):
        ask_names(TRAITS, url=url + "/", model="small", key_variable="NAMING_KEY")
    assert seen[0]["headers"]["Authorization"] == "Bearer k-123"
    assert seen[0]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ('["only one"]', {}, "2 names were asked for"),
        ('["a", 3]', {}, "2 names were asked for"),
        ("no idea", {}, "JSON array of names"),
        ("<html>", {"raw": True}, "did not answer with JSON"),
        ("{}", {"raw": True}, "JSON array of names"),
        ("overloaded", {"status": 503, "raw": True}, "answered 503: overloaded"),
        ("moved", {"status": 302, "raw": True}, "answered 302"),
        ("moved", {"status": 307, "raw": True}, "answered 307"),
    ],
)
def test_other_answers_are_errors_that_say_what_to_do(content, options, words):
    with endpoint(content, **options) as (url, seen), pytest.raises(UserError, match=words):
        ask_names(TRAITS, url=url, model="small")
    assert len(seen) == 1  # a redirect is not followed


def test_addresses_that_cannot_be_reached():
    with pytest.raises(UserError, match="cannot be reached"):
        ask_names(TRAITS, url="http://127.0.0.1:9/v1", model="small", timeout=2)
    with pytest.raises(UserError, match="http or https"):
        ask_names(TRAITS, url="file:///etc", model="small")


def test_nothing_is_asked_where_nothing_is_supported():
    traits = decompose(matrix_of(noise(10, 10, 0)), n_bootstrap=0, n_permutations=0)
    assert ask_names(traits, url="http://127.0.0.1:9/v1", model="small") == ()
