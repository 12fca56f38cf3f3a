"""Texts of tasks from a file: rows in order, and every faulty line told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from traitmap.data.texts import TaskText, read_texts
from traitmap.errors import DataError


def test_rows_come_back_by_task_in_order(tmp_path: Path) -> None:
    rows = [
        {"task": "a", "input": "one", "output": "yes", "choices": ["no", "yes"]},
        {"task": "b", "input": "two"},
        {"task": "a", "input": "three", "output": "no", "label": 0},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "plain.jsonl").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "small.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(text)
    expected = {
        "a": (TaskText("one", "yes", ("no", "yes")), TaskText("three", "no", (), "0")),
        "b": (TaskText("two", ""),),
    }
    assert read_texts(tmp_path / "plain.jsonl") == expected
    assert read_texts(tmp_path / "small.jsonl.gz") == expected


def test_every_faulty_line_is_told_with_its_number(tmp_path: Path) -> None:
    lines = [
        '{"task": "a", "input": "x"}',
        "{",
        "[]",
        '{"task": "", "input": "x"}',
        '{"task": "a"}',
        '{"task": "a", "input": "x", "output": 3}',
        '{"task": "a", "input": "x", "choices": "ab"}',
    ]
    file = tmp_path / "bad.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_texts(file)
    told = str(caught.value).splitlines()
    assert [line.split(", line ")[1].split(":")[0] for line in told] == ["2", "3", "4", "5", "6", "7"]


def test_one_fault_of_many_lines_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "raw.jsonl"
    file.write_text('{"text": "x", "label": "y"}\n' * 30 + '{"task": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_texts(file)
    first, last = str(caught.value).splitlines()
    assert "line 1 (and 29 more alike): no task and no input among its keys (text, label)" in first
    assert "line 31: no input among its keys (task)" in last
    with pytest.raises(DataError, match="there is no such file"):
        read_texts(tmp_path / "absent.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "none.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        read_texts(file)
