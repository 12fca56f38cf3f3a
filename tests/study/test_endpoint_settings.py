"""Settings of a server: legal ones are read, every fault is told at once with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from traitmap.errors import StudyError
from traitmap.study.load import load_study
from traitmap.study.settings import Endpoint

SERVED = """
name: served
model: {path: base, endpoint: {url: "http://localhost:8000/v1/", server: vllm, api_key_env: KEY}}
sources:
  - {name: goat, served_as: goat-v2, revision: june}
  - {name: files, adapter: ./adapter}
targets: [gsm8k]
"""


def load(folder: Path, text: str):
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return load_study(folder / "study.yaml")


def test_a_served_study_is_read(tmp_path: Path) -> None:
    study = load(tmp_path, SERVED)
    assert study.model.endpoint == Endpoint(url="http://localhost:8000/v1", server="vllm", api_key_env="KEY")
    assert study.sources[0].served_as == "goat-v2"
    short = load(
        tmp_path,
        "name: a\nmodel: {path: b, endpoint: https://host/v1}\n"
        + SERVED[SERVED.index("sources") :].replace("adapter: ./adapter", "served_as: files"),
    )
    assert short.model.endpoint == Endpoint(url="https://host/v1")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("served_as: goat-v2, revision: june", "task: gsm8k", "sources[0].task: a server cannot train"),
        ("server: vllm, ", "", "sources[1].adapter: it takes a server that loads adapters from files"),
        (
            ', endpoint: {url: "http://localhost:8000/v1/", server: vllm, api_key_env: KEY}',
            "",
            "sources[0].served_as: no server is named",
        ),
        ("http://localhost", "http://me:secret@localhost", "model.endpoint.url: an address with a user"),
        ("http://localhost", "localhost", "model.endpoint.url: it is not an http or https address"),
        (
            "server: vllm",
            "server: tgi",
            "model.endpoint.server: 'tgi' is not legal; give one of openai, vllm",
        ),
        (
            "path: base",
            "path: base, dtype: float32",
            "model.dtype: dtype has no effect on a model with endpoint",
        ),
        ("revision: june", "limit: 5", "limit has no effect on a source with served_as"),
        ("revision: june", "path: x.csv", "path and served_as are given together"),
        ("api_key_env", "api_key", "unknown key 'api_key'; did you mean api_key_env?"),
    ],
)
def test_faults_are_told(tmp_path: Path, before: str, after: str, words: str) -> None:
    assert SERVED.count(before) == 1
    with pytest.raises(StudyError) as told:
        load(tmp_path, SERVED.replace(before, after))
    assert words in str(told.value)
    assert "line " in str(told.value)


def test_faults_of_other_parts_hide_none(tmp_path: Path) -> None:
    text = SERVED.replace("served_as: goat-v2, revision: june", "task: gsm8k").replace("[gsm8k]", "[]")
    with pytest.raises(StudyError) as told:
        load(tmp_path, text)
    assert len(told.value.faults) == 2
