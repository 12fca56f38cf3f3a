import threading
from pathlib import Path

import pytest

from traitmap.runs.files import partial_path, publish, remove_partials, write_json, write_whole


def test_a_reader_finds_the_old_or_the_new_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {b"a" * 3_000_000, b"b" * 3_000_000}
    write_whole(path, b"a" * 3_000_000)
    found = set()

    def read() -> None:
        while not stop.is_set():
            found.add(path.read_bytes())

    stop = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for content in contents:
            write_whole(path, content)
    stop.set()
    reader.join()
    assert found <= contents
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_folder_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        partial_path(path).mkdir()
        (partial_path(path) / content).write_text(content)
        publish(partial_path(path), path)
    assert [one.name for one in path.iterdir()] == ["new"]


def test_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".partial-folder").mkdir()
    (tmp_path / ".partial-file").write_text("half")
    (tmp_path / "whole").write_text("whole")
    remove_partials(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["whole"]


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
