"""A local file is a local file whatever its ending; what is here is never looked for on the hub."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow
import pytest
from pyarrow import feather, ipc

from traitmap.data.lineage import load_sources
from traitmap.data.sources import LoadedSource
from traitmap.errors import DataError
from traitmap.study.load import load_study
from traitmap.study.paths import data_suffix, is_local_data
from traitmap.study.settings import Model, Source, Study, Target

ROWS = [{"prompt": f"{n}+1=", "completion": f" {n + 1}"} for n in range(12)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(folder: Path, path: str, **settings) -> LoadedSource:
    study = Study(
        name="test",
        model=Model(path="builtin:mini"),
        sources=(Source(name="test", path=path, **settings),),
        targets=(Target(name="gsm8k", task="gsm8k"),),
        path=folder / "study.yaml",
    )
    (loaded,) = load_sources(study)
    return loaded


def texts(loaded: LoadedSource) -> list[str]:
    return [example.text for example in loaded.examples]


@pytest.mark.shared
def test_a_packed_file_beside_the_study_is_read(shared, tmp_path):
    study = load_study(shared / "cases/files/17_local_file_taken_for_hub/study.yaml")
    (loaded,) = load_sources(study)
    assert texts(loaded) == [row["prompt"] + row["completion"] for row in ROWS]


def _arrow(write) -> bytes:
    sink = pyarrow.BufferOutputStream()
    write(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


def _stream(table: pyarrow.Table, sink: pyarrow.BufferOutputStream) -> None:
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


CSV = ("prompt,completion\n" + "".join(f"{n}+1=, {n + 1}\n" for n in range(12))).encode()
FILES = {
    "rows.jsonl": LINES,
    "rows.jsonl.gz": gzip.compress(LINES),
    "rows.JSONL.GZ": gzip.compress(LINES),
    "rows.ndjson": LINES,
    "rows.ndjson.gz": gzip.compress(LINES),
    "rows.json": json.dumps(ROWS).encode(),
    "rows.json.gz": gzip.compress(json.dumps({"version": 1, "data": ROWS}, indent=1).encode()),
    "lines.json": LINES,
    "list.jsonl": json.dumps(ROWS, indent=1).encode(),
    "rows.csv.gz": gzip.compress(CSV),
    "rows.tsv.gz": gzip.compress(CSV.replace(b",", b"\t")),
    "rows.arrow": _arrow(_stream),
    "file.arrow": _arrow(feather.write_feather),
    "rows.feather": _arrow(feather.write_feather),
}


@pytest.mark.parametrize("name", FILES)
def test_every_ending_gives_the_same_rows(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(FILES[name])
    assert texts(read(tmp_path, f"data/{name}")) == [row["prompt"] + row["completion"] for row in ROWS]
    assert texts(read(tmp_path, str(tmp_path / "data" / name))) == texts(read(tmp_path, f"data/{name}"))


def test_a_text_file_has_a_row_in_every_line_that_is_not_blank(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\n\n  two\u2028words \n".encode())
    assert texts(read(tmp_path, "a.txt")) == ["one", "  two\u2028words "]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n"))
    assert texts(read(tmp_path, "a.txt.gz")) == ["one"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data/gone.jsonl.gz", None, "gone.jsonl.gz does not exist; relative paths start from"),
        ("data/gone.ndjson", None, "does not exist"),
        ("gone.txt", None, "does not exist"),
        ("data/gone.xlsx", None, "does not exist"),
        ("data/rows.zip", b"PK", "rows.zip is none of .jsonl, .ndjson"),
        ("data/rows.jsonl.zst", b"x", "or unpack it"),
        ("data/rows.parquet.gz", b"x", "or unpack it"),
        ("data/rows", b"x", "rows is none of"),
        ("data/rows.jsonl.gz", b"not packed", "cannot be read"),
        ("data/rows.jsonl.gz", gzip.compress(LINES)[:-9], "cannot be read"),
        ("data/rows.arrow", b"nonsense", "cannot be read"),
        ("data/rows.json", b'{"data": 3}', '{"data": [...]} with such a list'),
        ("data/rows.json", b'{"text": ["a"]}', "must hold a list of objects"),
        ("data/a.txt", b"\n \n", "it has no rows"),
        (
            "data/rows.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
            "is a Git LFS pointer, not the data; run: git lfs pull",
        ),
    ],
)
def test_a_file_that_is_missing_or_broken_is_called_so(tmp_path, name, content, words):
    (tmp_path / "data").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path, name)
    assert words in str(caught.value)
    assert "hub" not in str(caught.value)


def test_a_folder_beside_the_study_is_taken_and_not_the_hub(tmp_path, monkeypatch):
    folder = tmp_path / "beside" / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(LINES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(read(tmp_path / "beside", "org/name").examples) == 12
    with pytest.raises(DataError, match="org/name is a folder here, where revision has no effect"):
        read(tmp_path / "beside", "org/name", revision="main")
    shutil.rmtree(folder)


def test_names_are_sorted_by_their_endings():
    assert data_suffix("a.JSONL.gz") == ".jsonl"
    assert data_suffix("a.feather") == ".feather"
    assert data_suffix("a.parquet.gz") == data_suffix("a.gz") == data_suffix("a") == ""
    assert all(map(is_local_data, ("data/a.jsonl.gz", "a.txt", "a.xlsx", "d/a.zip")))
    assert not any(map(is_local_data, ("org/name", "org/name.v2", "imdb", "org/c4-2.1")))
