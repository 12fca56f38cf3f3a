"""Absent, unreadable and damaged are three things, and a run of a newer format is none of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from small_study import sources, study, targets
from test_boundary import command, without_root_s_rights
from traitmap.api.runs import keep_contamination
from traitmap.engine.fake import FakeEngine
from traitmap.errors import NewerRunError
from traitmap.matrix.build import build_matrix
from traitmap.matrix.reading import matrix_table, read
from traitmap.report.page import render_report
from traitmap.report.records import ReportContents
from traitmap.runs.execute import execute
from traitmap.runs.files import read_sealed_json, write_sealed_json
from traitmap.runs.ledger import GONE, read_contamination, read_ledger, write_contamination
from traitmap.runs.status import run_status
from traitmap.runs.store import RunStore, locked_store, open_store

TESTS = Path(__file__).parents[1]
KINDS = ("contamination.json", "study.json", "study.yaml", "texts", "cells", "adapters", "groups")


def run(output: Path, log: Path | None = None) -> RunStore:
    """A run as ``traitmap run`` makes it, the comparison of texts included."""
    asked = study(output, seeds=(0,))
    store = execute(asked, FakeEngine(log=log), sources(asked), targets(count=12))
    if read_contamination(store) is None:
        with locked_store(store.folder):
            write_contamination(store, {"overlaps": [], "method": "words"}, "key")
    return store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("absent")).folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "small")
    return tmp_path / "small"


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file that a run made: not of the study, which knows the folder that it is asked in."""
    kept = ("cells", "texts", "adapters", "groups", "contamination.json")
    files = (path for name in kept for path in (folder / name, *(folder / name).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def remove(folder: Path, kind: str) -> list[str]:
    """Remove a file or a whole folder; returns what is then lost, seen from the run."""
    place = folder / kind
    if kind == "groups":
        lost = [f"adapters/{entry.key}" for entry in read_ledger(open_store(folder)).adapters]
    else:
        lost = sorted(f"{kind}/{path.name}" for path in place.iterdir()) if place.is_dir() else [kind]
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return sorted(lost)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_gone_is_told_by_status_and_matrix(copied: Path, kind: str) -> None:
    assert run_status(copied, verify=True).absent == ()
    lost = remove(copied, kind)
    for verify in (False, True):
        assert sorted(path for path, _ in run_status(copied, verify=verify).absent) == lost
    assert run_status(copied, verify=True).damaged == ()
    matrix = build_matrix(copied)
    assert sorted(matrix.conditions["absent"]) == lost
    notes = " ".join(matrix_table(read(matrix)).notes)
    assert "gone from" in notes
    if kind == "contamination.json":
        assert "overlap of test items with the training data is not compared" in notes
    if kind == "cells":
        assert {cell.reason for cell in matrix.base_cells} == {GONE}
    ended = command("status", str(copied), "--verify")
    assert ended.code == 3
    assert lost[0][:20] in ended.out.replace("\n", "")
    assert "Complete." not in ended.out
    assert command("status", str(copied)).code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_run_brings_back_what_is_gone(copied: Path, kind: str) -> None:
    remove(copied, kind)
    run(copied.parent)
    assert run_status(copied, verify=True).absent == ()
    assert command("status", str(copied), "--verify").code == 0
    assert "absent" not in build_matrix(copied).conditions


def test_the_report_says_at_the_top_what_is_gone(copied: Path) -> None:
    (copied / "contamination.json").unlink()
    matrix = build_matrix(copied)
    page = render_report(ReportContents(matrix=matrix, conditions=matrix.conditions))
    top = page[page.index('<dl class="answer">') :]
    sentence = "contamination.json is gone from the run: overlap of test items with the training data is not"
    assert sentence in top[: top.index("</dl>")]


def test_what_a_run_never_had_is_not_missed(copied: Path) -> None:
    """A run of an earlier version lists no records; one without a budget has no budget.json."""
    raw = read_sealed_json(copied / "run.json")
    listed = set(raw.pop("records"))
    assert {"study.json", "study.yaml", "contamination.json"} <= listed
    assert "budget.json" not in listed
    write_sealed_json(copied / "run.json", raw)
    (copied / "contamination.json").unlink()
    assert run_status(copied, verify=True).absent == ()


@pytest.mark.parametrize("kind", ["run.json", "study.json", "cells/*", "texts/*", "adapters/*/*config*"])
def test_damage_ends_a_verification_with_3(copied: Path, kind: str) -> None:
    place = sorted(copied.glob(kind))[0]
    place.write_bytes(place.read_bytes()[:-30])
    ended = command("status", str(copied), "--verify")
    assert ended.code == 3, ended
    assert "damaged" in (ended.out + ended.err)


def test_a_run_of_a_newer_format_is_left_as_it_is(copied: Path) -> None:
    raw = read_sealed_json(copied / "run.json")
    write_sealed_json(copied / "run.json", {**raw, "format": 2, "invention": {}})
    (copied / "groups" / "new.json").write_text("{}")  # what this version cannot read
    for path in (copied / "groups").glob("[0-9a-f]*.json"):
        path.unlink()  # it lists its adapters elsewhere
    before = contents(copied)
    for work in (
        run,
        lambda folder: build_matrix(folder / "small"),
        lambda folder: run_status(folder / "small"),
    ):
        with pytest.raises(
            NewerRunError, match=r"a newer traitmap wrote this run \(format 2; this one reads 1\)"
        ):
            work(copied.parent)
    ended = command("gc", str(copied), "--delete")
    assert ended.code == 2
    assert "newer traitmap" in ended.err
    assert contents(copied) == before


# What somebody has no right to read; the first file that the pattern finds.
CLOSED = (
    *("run.json", "study.json", "contamination.json", "groups", "groups/*", "cells", "cells/*"),
    *("texts", "texts/*", "adapters", "adapters/*", "adapters/*/*"),
)


def work_without_rights(folder: str) -> list[str]:
    """A run, a matrix, a verification and a tidying of a run: what each said, or raised."""
    asked = study(Path(folder), seeds=(0,))
    ends = []
    try:
        execute(asked, FakeEngine(), sources(asked), targets(count=12))
        keep_contamination(Path(folder) / "small", sources(asked), targets(count=12))
        ends.append("done")
    except OSError as error:
        ends.append(str(error))
    for words in (("matrix",), ("status", "--verify"), ("gc", "--delete")):
        ended = command(words[0], f"{folder}/small", *words[1:])
        ends.append(f"{ended.code} {ended.out} {ended.err}")
    return ends


def test_what_may_not_be_read_is_neither_missing_nor_moved(finished: Path, tmp_path: Path) -> None:
    places, before, modes = {}, contents(finished), {}
    for number, kind in enumerate(CLOSED):
        shutil.copytree(finished, tmp_path / str(number) / "small")
        places[kind] = sorted((tmp_path / str(number) / "small").glob(kind))[0]
        modes[kind] = places[kind].stat().st_mode
        places[kind].chmod(0)
    code = (
        "import json, sys; from test_absent_files import work_without_rights\n"
        "print(json.dumps([work_without_rights(folder) for folder in sys.argv[1:]]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS / 'runs'}"}
    folders = [str(tmp_path / str(number)) for number in range(len(CLOSED))]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders],
        capture_output=True, text=True, timeout=600, env=environment, preexec_fn=without_root_s_rights,
    )  # fmt: skip
    for kind, place in places.items():
        place.chmod(modes[kind])
    assert done.returncode == 0, done.stderr
    for kind, folder, ends in zip(CLOSED, folders, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert not (Path(folder) / "small" / "quarantine").exists(), (kind, ends)
        assert contents(Path(folder) / "small") == before, (kind, ends)
        run_said, _, status_said, _ = ends
        assert "ermission denied" in run_said, (kind, ends)
        assert "ermission denied" in status_said.replace("\n", " "), (kind, ends)


def test_each_kind_of_fault_is_its_own_in_json(copied: Path) -> None:
    cell, text = sorted(copied.glob("cells/*"))[0], sorted(copied.glob("texts/*"))[0]
    cell.write_bytes(cell.read_bytes()[:-50])
    text.unlink()
    told = json.loads(command("status", str(copied), "--verify", "--json").out)
    assert [path for path, _ in told["damaged"]] == [f"cells/{cell.name}"]
    assert [path for path, _ in told["absent"]] == [f"texts/{text.name}"]
    assert told["unreadable"] == []
