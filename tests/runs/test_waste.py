"""gc lists what no entry of the study needs, removes nothing else, and never while somebody writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from small_study import sources, study, targets
from traitmap import api
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.matrix.build import build_matrix
from traitmap.runs.execute import execute
from traitmap.runs.status import damaged_files, find_waste, remove_waste
from traitmap.runs.store import RunStore, locked_store, trained_adapters


def run(
    output: Path, log: Path | None = None, *, max_steps: int | None = None, fewer: bool = False
) -> RunStore:
    asked = study(output, seeds=(0,), max_steps=max_steps)
    given = targets(count=12)[:-1] if fewer else targets(count=12)
    return execute(asked, FakeEngine(log=log), sources(asked), given)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def kinds(store: RunStore) -> dict[str, int]:
    found = [one.kind for one in find_waste(store)]
    return {kind: found.count(kind) for kind in sorted(set(found))}


def test_a_run_of_one_study_has_nothing_to_remove(tmp_path: Path) -> None:
    assert find_waste(run(tmp_path)) == ()


def test_former_adapters_and_cells_go_and_nothing_is_computed_again(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    store = run(tmp_path)
    numbers, before = list(map(repr, build_matrix(store).cells)), files(store.folder)
    assert kinds(store) == {"adapter": 4, "cell": 16}
    sizes = sum((store.folder / one.path).stat().st_size for one in find_waste(store) if one.kind == "cell")
    assert sizes == sum(one.bytes for one in find_waste(store) if one.kind == "cell")
    assert files(store.folder) == before  # a look removes nothing
    assert len(remove_waste(store)) == 20
    assert find_waste(store) == ()
    assert (len(trained_adapters(store)), len(list(store.groups.iterdir()))) == (4, 1)
    assert list(map(repr, build_matrix(store).cells)) == numbers
    assert damaged_files(store) == {}
    run(tmp_path, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_leftovers_texts_and_quarantine(tmp_path: Path) -> None:
    store = run(tmp_path)
    place = next(store.cells.iterdir())
    place.write_bytes(b"PAR1")
    run(tmp_path)  # moves it to the quarantine
    store = run(tmp_path, fewer=True)
    (store.cells / ".partial-abc.parquet").write_text("half")
    (store.adapters / ".partial-abc").mkdir()
    (store.adapters / ".partial-abc" / "weights").write_text("half")
    (store.folder / "report.html").write_text("mine")
    (store.adapters / "notes of mine").mkdir()
    (store.cells / "mine.txt").write_text("mine")
    (store.texts / "mine.parquet").write_text("mine")
    assert kinds(store) == {"cell": 5, "leftover": 2, "quarantine": 2, "texts": 1}
    remove_waste(store)
    assert find_waste(store) == ()
    assert not (store.folder / "quarantine").exists()
    assert {"report.html", "cells/mine.txt", "texts/mine.parquet"} <= files(store.folder)
    assert (store.adapters / "notes of mine").is_dir()


def test_links_are_cut_and_never_followed(tmp_path: Path) -> None:
    """What a link leads to stays: behind a whole folder that is a link nothing is even listed."""
    outside = tmp_path / "outside"
    (outside / "adapter").mkdir(parents=True)
    (outside / "adapter" / "weights").write_text("precious")
    (outside / ("0" * 32 + ".parquet")).write_text("precious")
    store = run(tmp_path)
    (store.adapters / ("a" * 32)).symlink_to(outside / "adapter")
    (store.cells / ("b" * 32 + ".parquet")).symlink_to(outside / ("0" * 32 + ".parquet"))
    (store.folder / "quarantine").symlink_to(outside)
    assert kinds(store) == {"adapter": 1, "cell": 1}
    remove_waste(store)
    assert len(files(outside)) == 2
    assert not (store.adapters / ("a" * 32)).is_symlink()
    store.cells.rename(tmp_path / "cells elsewhere")
    store.cells.symlink_to(outside)
    remove_waste(store)
    assert len(files(outside)) == 2


def test_nothing_is_removed_while_somebody_writes_or_the_ledger_is_damaged(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    store = run(tmp_path)
    before = files(store.folder)
    with locked_store(store.folder), pytest.raises(RunError, match="is running this study"):
        api.gc(store.folder, delete=True)
    raw = store.ledger.read_bytes()
    store.ledger.write_bytes(raw[:-100])
    with pytest.raises(RunError, match="damaged"):
        api.gc(store.folder, delete=True)
    assert files(store.folder) == before


def test_the_command_lists_and_removes_when_told(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    store = run(tmp_path)
    command = [sys.executable, "-m", "traitmap.cli", "gc", str(store.folder)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert "Nothing was removed. --delete removes these" in shown.stdout
    assert "former version" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    done = subprocess.run([*command, "--delete", "--json"], capture_output=True, text=True)
    assert len(json.loads(done.stdout)["waste"]) == 20
    assert find_waste(store) == ()
