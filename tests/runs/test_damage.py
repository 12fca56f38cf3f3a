"""One wrong byte in any file of a run: an equal number, or none with its reason; never another one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from small_study import sources, study, targets
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.matrix.build import build_matrix
from traitmap.matrix.record import Cell
from traitmap.runs.cells import read_outcomes
from traitmap.runs.execute import execute
from traitmap.runs.files import quarantine, quarantined, read_sealed_json, write_sealed_json
from traitmap.runs.ledger import Selection, read_contamination, read_ledger, read_parts, write_contamination
from traitmap.runs.plan import CellUnit
from traitmap.runs.status import damaged_files, run_status
from traitmap.runs.store import RunStore, file_name, locked_store, open_store
from traitmap.runs.texts import read_run_texts
from traitmap.study.settings import BASELINE

KINDS = ("run.json", "study.json", "contamination.json", "groups/*", "cells/*", "texts/*", "adapters/*/*")
DRAWS = 25  # of each kind
OVERLAP = {
    "overlaps": [{"source": "sums", "target": "sums", "items": 40, "exact": 3, "share": 0.075}],
    "method": "words",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("damage")).folder


def run(output: Path, log: Path | None = None) -> RunStore:
    """A run as ``traitmap run`` makes it, the comparison of texts included."""
    asked = study(output, seeds=(0,))
    store = execute(asked, FakeEngine(log=log), sources(asked), targets(count=12))
    if read_contamination(store) is None:
        with locked_store(store.folder):
            write_contamination(store, OVERLAP, "key")
    return store


def told(store: RunStore) -> dict[str, object]:
    """Every number that a reader gets out of a run, by where it stands; None where it gets none."""
    try:
        matrix = build_matrix(store)
    except RunError:
        return {}
    conditions = matrix.to_json()["conditions"].items()
    found = {f"condition {key}": value for key, value in conditions if key != "absent"}
    for cell in (*matrix.cells, *matrix.base_cells):
        known = cell.status == "measured"
        place = f"{cell.source} {cell.seed} {cell.target}"
        found |= {f"{place} {n}": getattr(cell, n) if known else None for n in ("value", "n", "stderr")}
    for entry in read_ledger(store).cells:
        found[f"{entry.source} {entry.target} outcomes"] = outcomes_of(store, str(entry.key))
    for entry in read_ledger(store).adapters:
        found[f"{entry.source} training"] = dict(entry.report) or None
    for reader in (read_run_texts, read_contamination):
        try:
            found[reader.__name__] = reader(store)
        except RunError:
            found[reader.__name__] = None
    return found


def outcomes_of(store: RunStore, key: str) -> object:
    try:
        return read_outcomes(store.cell(key))
    except RunError:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_gives_an_equal_number_or_none(finished: Path, tmp_path: Path, kind: str) -> None:
    whole, generator = told(open_store(finished)), np.random.default_rng(KINDS.index(kind))
    places = sorted(finished.glob(kind))
    assert places
    changed = 0
    for _ in range(DRAWS):
        place = places[generator.integers(len(places))]
        before = place.read_bytes()
        at, bit = int(generator.integers(len(before))), int(generator.integers(1, 256))
        place.write_bytes(before[:at] + bytes([before[at] ^ bit]) + before[at + 1 :])
        try:
            for name, value in told(open_store(finished)).items():
                if value is not None:
                    assert repr(value) == repr(whole[name]), f"{place.name} byte {at} ^ {bit}: {name}"
            changed += bool(damaged_files(open_store(finished)))
        finally:
            place.write_bytes(before)
    assert changed > DRAWS / 2  # most places of a file matter, and damage there is seen


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_run_makes_a_damaged_file_anew(finished: Path, tmp_path: Path, kind: str) -> None:
    """Flipped and cut short: kept aside with the reason, named by the status, the same numbers again."""
    folder = tmp_path / "small"
    shutil.copytree(finished, folder)
    store = open_store(folder)
    numbers = list(build_matrix(store).cells)
    place = sorted(folder.glob(kind))[0]
    before = place.read_bytes()
    for damaged in (before[:9] + bytes([before[9] ^ 1]) + before[10:], before[: len(before) // 2], b""):
        place = sorted(folder.glob(kind))[0]
        shutil.rmtree(folder / "quarantine", ignore_errors=True)
        place.write_bytes(damaged)
        (named,) = damaged_files(store)
        assert place.relative_to(folder).as_posix().startswith(named)
        if kind == "run.json":
            with pytest.raises(RunError, match="damaged"):
                run_status(store)
        else:
            assert dict(run_status(store, verify=True).damaged or ())[named]
        run(tmp_path)
        assert damaged_files(store) == {}
        (kept,) = run_status(store).quarantine
        assert (kept.path, bool(kept.reason)) == (named, True)
        assert (folder / "quarantine" / kept.kept).exists()
        found = build_matrix(store).cells
        assert {cell.status for cell in found} == {"measured"}
        if kind != "adapters/*/*":  # an adapter that is trained in other company is another one
            assert list(map(repr, found)) == list(map(repr, numbers))


def test_the_matrix_shows_a_damaged_cell_as_missing_with_the_reason(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(finished, folder)
    entry = next(one for one in read_ledger(open_store(folder)).cells if one.source == "topics")
    place = open_store(folder).cell(str(entry.key))
    place.write_bytes(place.read_bytes()[:-1000])
    lost = [cell for cell in build_matrix(folder).cells if cell.status != "measured"]
    assert {(cell.source, cell.target) for cell in lost} == {("topics", entry.target)}
    assert all("damaged" in cell.reason and np.isnan(cell.value) for cell in lost)


def test_records_of_an_earlier_version_are_read(finished: Path, tmp_path: Path) -> None:
    """Without a checksum a file is taken as it is, and the next run seals it."""
    folder = tmp_path / "small"
    shutil.copytree(finished, folder)
    whole = told(open_store(folder))
    for place in (*folder.glob("*.json"), *folder.glob("groups/*.json")):
        raw = json.loads(place.read_text())
        del raw["checksum"]
        place.write_text(json.dumps(raw, indent=1))
    assert repr(told(open_store(folder))) == repr(whole)
    run(tmp_path)
    assert "checksum" in json.loads((folder / "run.json").read_text())


def test_no_single_byte_unseals_a_record(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    write_sealed_json(place, {"loss": 0.25, "name": "Straße"})
    assert read_sealed_json(place) == {"loss": 0.25, "name": "Straße"}
    whole = place.read_bytes()
    for at in range(len(whole)):
        for bit in (1, 2, 16, 32, 255):
            place.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(ValueError):
                read_sealed_json(place)


def test_clocks_that_run_backwards_change_nothing(finished: Path, tmp_path: Path) -> None:
    """Every file older than the one it was made from, or of the future: nothing is computed again."""
    folder = tmp_path / "small"
    shutil.copytree(finished, folder)
    numbers, generator = list(map(repr, build_matrix(folder).cells)), np.random.default_rng(0)
    for place in sorted(folder.rglob("*")):
        moment = float(generator.choice([0.0, 1.0, 4e9, 1e9 * generator.random()]))
        os.utime(place, (moment, moment))
    run(tmp_path, tmp_path / "log")
    assert not (tmp_path / "log").exists()
    assert list(map(repr, build_matrix(folder).cells)) == numbers


def test_the_quarantine_keeps_all_that_comes(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        quarantine(tmp_path, tmp_path / "file", f"reason {text}")
    found = quarantined(tmp_path)
    assert [(one.path, one.kept, one.reason) for one in found] == [
        ("file", "file.1", "reason one"),
        ("file", "file.2", "reason two"),
    ]
    assert [(tmp_path / "quarantine" / one.kept).read_text() for one in found] == ["one", "two"]


@pytest.mark.parametrize(
    "name", ["../a", "a/b", "/etc/passwd", "..", ".", "", ".hidden", "a\0b", "a\\b", "ａ", "a\n", "a b"]
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    store = RunStore(tmp_path)
    for place in (store.cell, store.adapter, file_name):
        with pytest.raises(RunError, match="no name of a file"):
            place(name)


@pytest.mark.parametrize("source", [BASELINE, "sums"])
def test_a_damaged_cell_of_some_items_is_missing_with_the_reason(tmp_path: Path, source: str) -> None:
    asked = study(tmp_path, seeds=(0,))
    units = (CellUnit(BASELINE, None, "sums"), CellUnit("sums", 0, "sums"))
    chosen = Selection(frozenset({("sums", 0)}), units, {"sums": (0, 2, 5, 7, 11)})
    store = execute(asked, FakeEngine(), sources(asked), targets(count=12), selection=chosen)

    def cell() -> Cell:
        matrix = build_matrix(store)
        rows = (*matrix.base_cells, *matrix.cells)
        return next(one for one in rows if (one.source, one.target) == (source, "sums"))

    assert (cell().status, cell().n) == ("measured", 5)
    entry = next(one for one in read_parts(store).cells if one.source == source)
    place = store.cell(str(entry.key))
    place.write_bytes(place.read_bytes()[:-200])
    assert cell().status == "missing"
    assert np.isnan(cell().value)
    assert "damaged" in cell().reason
