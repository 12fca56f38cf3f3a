"""A run shown on the loopback: what can be asked for, what cannot, and a run that is followed to its end."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from prepared_run import prepared_study
from traitmap import api
from traitmap.api.viewing import Follower, Viewing, view
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError, UserError
from traitmap.runs.ledger import read_ledger, write_ledger
from traitmap.runs.store import open_store
from traitmap.study.settings import BASELINE

FEW: dict[str, tuple] = {
    "sources": ("inference", "reviews"),
    "targets": ("inference", "reviews"),
    "seeds": (0, 1),
}
REPORT = "<!doctype html><title>the report</title>"


@pytest.fixture(scope="module")
def finished(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the prepared run with a report in it, and a secret beside it."""
    folder = tmp_path_factory.mktemp("view") / "mini"
    shutil.copytree(prepared_run, folder)
    (folder / "report.html").write_text(REPORT)
    (folder.parent / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def viewing(finished: Path) -> Iterator[Viewing]:
    with view(finished) as served:
        yield served


def raw(port: int, request: str) -> str:
    """The answer to a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode())
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces).decode()


def wait_for(told: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_finished_run_is_its_report(viewing: Viewing) -> None:
    told = httpx.get(viewing.address + "progress.json").json()
    assert (told["state"], told["report"]["state"]) == ("done", "ready")
    assert told["rows"][0] == BASELINE
    assert {cell["state"] for row in told["cells"] for cell in row} == {"done"}
    assert httpx.get(viewing.address + "report.html").text == REPORT


def test_it_listens_on_the_loopback_alone(viewing: Viewing) -> None:
    assert viewing.address == f"http://127.0.0.1:{viewing.port}/"
    with socket.socket() as other:  # the same port of another address of this machine is free
        other.bind(("127.0.0.2", viewing.port))


@pytest.mark.parametrize(
    "path",
    [
        "/run.json",
        "/study.yaml",
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/report.html/../../secret.txt",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/report.html%00.txt",
        "/..\\secret.txt",
        "/./progress.json",
        "file:///etc/passwd",
        "http://127.0.0.1/etc/passwd",
    ],
)
def test_nothing_else_can_be_read(viewing: Viewing, path: str) -> None:
    host = f"127.0.0.1:{viewing.port}"
    answer = raw(viewing.port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] == "404"
    assert "secret" not in answer.lower().split("\r\n\r\n", 1)[1]
    assert "root:" not in answer


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        ["evil.example:{port}"],
        ["127.0.0.1"],
        ["127.0.0.1.evil.example:{port}"],
        ["127.0.0.1:{port}", "evil.example"],
        ["127.0.0.1:1"],
        [],
    ],
)
def test_another_name_is_refused(viewing: Viewing, hosts: list[str]) -> None:
    lines = "".join(f"Host: {host.format(port=viewing.port)}\r\n" for host in hosts)
    answer = raw(viewing.port, f"GET /progress.json HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")
    assert answer.split()[1] == "403"
    assert "cells" not in answer


def test_localhost_is_this_machine_too(viewing: Viewing) -> None:
    answer = httpx.get(viewing.address, headers={"Host": f"LOCALHOST:{viewing.port}"})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_reading_is_possible(viewing: Viewing, method: str) -> None:
    assert httpx.request(method, viewing.address + "progress.json").status_code == 501


def test_head_has_no_body(viewing: Viewing) -> None:
    answer = httpx.head(viewing.address + "report.html")
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) == len(REPORT)


def test_the_server_ends_with_its_block(finished: Path) -> None:
    with view(finished) as served:
        port = served.port
        assert httpx.get(served.address).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(served.address)
    with view(finished, port=port) as again:
        assert again.port == port


def test_a_taken_port_and_no_run_are_the_users_to_mend(finished: Path, tmp_path: Path) -> None:
    with (
        view(finished) as served,
        pytest.raises(UserError, match=str(served.port)),
        view(finished, port=served.port),
    ):
        pass
    with pytest.raises(RunError, match="no such run folder"), view(tmp_path / "absent"):
        pass


def test_a_report_older_than_its_run_is_written_anew(tmp_path: Path) -> None:
    folder = api.run(prepared_study(tmp_path, **FEW), engine=FakeEngine()).folder
    (folder / "report.html").write_text(REPORT)
    later = time.time_ns() + 10**9
    os.utime(folder / "run.json", ns=(later, later))
    with view(folder) as served:
        wait_for(lambda: httpx.get(served.address + "progress.json").json()["report"]["state"] == "ready")
        assert "mini" in httpx.get(served.address + "report.html").text
    assert (folder / "report.html").read_text() != REPORT


class Gated(FakeEngine):
    """Waits before each cell until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def answer(self, *words: object, **named: object):  # type: ignore[no-untyped-def]
        self.gate.acquire()
        return super().answer(*words, **named)


def test_a_run_is_followed_from_its_first_cell_to_its_report(tmp_path: Path) -> None:
    engine, study = Gated(), prepared_study(tmp_path / "runs", **FEW)
    running = threading.Thread(target=lambda: api.run(study, engine=engine), daemon=True)
    running.start()
    folder = tmp_path / "runs" / "mini"
    wait_for(lambda: (folder / "progress.json").is_file())
    cells = 2 * (1 + 2 * 2)
    with view(folder) as served:

        def told() -> dict:
            return httpx.get(served.address + "progress.json", timeout=30).json()

        def there() -> int:
            return sum(cell["done"] for row in told()["cells"] for cell in row)

        assert told()["state"] == "running"
        assert httpx.get(served.address + "report.html").status_code == 303
        for _ in range(3):
            engine.gate.release()
        wait_for(lambda: there() == 3)
        found = told()
        base, first = found["cells"][0], found["cells"][1]
        assert [cell["state"] for cell in base] == ["done"] * 2
        assert all(cell["difference"] is None for cell in base)
        assert sum(cell["difference"] is not None for cell in first) == 1
        assert sum(cell["seeds"] for row in found["cells"] for cell in row) == cells
        assert {stage["stage"] for stage in found["stages"]} == {"train", "evaluate"}
        for _ in range(cells):
            engine.gate.release()
        running.join(60)
        wait_for(lambda: told()["state"] == "done")
        wait_for(lambda: told()["report"]["state"] == "ready")
        assert httpx.get(served.address + "report.html").text.startswith("<!doctype html>")
    assert not (folder / "progress.json").exists()


def test_differences_are_improvements_whatever_is_better(prepared_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(prepared_run, folder)
    ahead = Follower(folder).look()
    ledger = read_ledger(open_store(folder))
    targets = tuple({**one, "higher_is_better": False} for one in ledger.targets)
    write_ledger(open_store(folder), replace(ledger, targets=targets))
    turned = Follower(folder).look()
    matrix = api.open_run(prepared_run).matrix()
    for s, source in enumerate(matrix.sources):
        row = ahead.rows.index(source)
        for t, _ in enumerate(matrix.targets):
            assert ahead.cells[row][t].difference == pytest.approx(100 * matrix.gains[s, t])
            assert turned.cells[row][t].difference == pytest.approx(-100 * matrix.gains[s, t])


def test_what_failed_says_why(tmp_path: Path) -> None:
    study = prepared_study(tmp_path / "runs", **FEW)
    api.run(study, engine=FakeEngine(longest=10))
    found = Follower(tmp_path / "runs" / "mini").look()
    assert found.state == "stopped"
    assert any("memory does not hold" in one for one in found.failures)
    assert any(cell.state == "failed" for row in found.cells for cell in row)


def test_a_report_that_is_a_link_is_neither_served_nor_written_through(
    finished: Path, tmp_path: Path
) -> None:
    """A run that somebody gave you may hold links to your files."""
    folder, secret = tmp_path / "run", tmp_path / "secret.txt"
    shutil.copytree(finished, folder)
    for newer in (True, False):
        secret.write_text("secret")
        (folder / "report.html").unlink(missing_ok=True)
        (folder / "report.html").symlink_to(secret)
        moment = (folder / "run.json").stat().st_mtime + (100 if newer else -100)
        os.utime(secret, (moment, moment))
        with view(folder) as served:
            progress = served.address + "progress.json"
            wait_for(lambda url=progress: httpx.get(url).json()["report"]["state"] == "ready", 300)
            answer = httpx.get(served.address + "report.html")
            assert "secret" not in answer.text[:100]
            assert answer.text.startswith("<!doctype html>")
        assert secret.read_text() == "secret"


def test_every_answer_carries_a_policy_that_lets_no_foreign_script_run(finished: Path) -> None:
    script = "<script>document.title = 'foreign'</script>"
    (finished / "report.html").write_text(REPORT + script)
    with view(finished) as served:
        policies = {
            place: httpx.get(served.address + place).headers["Content-Security-Policy"]
            for place in ("", "report.html", "progress.json", "nothing")
        }
    (finished / "report.html").write_text(REPORT)
    assert all(policy.startswith("default-src 'none'") for policy in policies.values())
    assert "script-src 'sha256-" in policies["report.html"]
    assert all("unsafe-inline'" not in policy.split("style-src")[0] for policy in policies.values())


@pytest.mark.parametrize(
    "request_line",
    [
        "GET http://[ HTTP/1.1",
        "GET //[x HTTP/1.1",
        "\x00\x01\x02 \xff",
        "GET / HTTP/9.x",
        "BREW / HTTP/1.1",
        "x",
    ],
)
def test_garbage_is_answered_and_not_with_a_traceback(
    viewing: Viewing, request_line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = raw(
        viewing.port, f"{request_line}\r\nHost: 127.0.0.1:{viewing.port}\r\nConnection: close\r\n\r\n"
    )
    if answer.startswith("HTTP/"):
        assert answer.split()[1] in ("400", "404", "501", "505")  # Python takes // for /
        assert "Content-Security-Policy" in answer
    else:  # an answer without headers, to what is taken for HTTP/0.9
        assert answer
        assert "<" not in answer
    assert "Traceback" not in capfd.readouterr().err


def test_a_table_of_scores_is_shown_as_its_report(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("source,a,b\nbase,.2,.3\nx,.3,.35\ny,.25,.3\n")
    with view(table) as served:
        for path in ("", "report.html"):  # there is nothing to follow, so the address leads to the report
            answer = httpx.get(served.address + path, follow_redirects=True)
            assert answer.url.path == "/report.html"
            assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
            assert "Which source for which target" in answer.text
    assert [one.name for one in tmp_path.iterdir()] == ["scores.csv"]
    table.write_text("no table\n")
    with pytest.raises(UserError), view(table):
        pass
