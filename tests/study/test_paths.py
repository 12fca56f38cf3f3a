from pathlib import Path

import pytest

import traitmap
from traitmap.study.paths import is_local_data, is_task_file, model_location, resolve, task_stem


@pytest.mark.parametrize(
    "path", ["a.csv", "x/y.JSONL", "./data", "../data/x", "/abs", "~/x", "a/b/c", "d.parquet"]
)
def test_files_are_told_by_their_form(path):
    assert is_local_data(path)


@pytest.mark.parametrize("path", ["imdb", "stanfordnlp/imdb", "org/name.v2"])
def test_hub_datasets_are_told_by_their_form(path):
    assert not is_local_data(path)


def test_relative_paths_start_from_the_folder(tmp_path):
    assert resolve("a/../b.csv", tmp_path) == tmp_path / "b.csv"
    assert resolve("/b.csv", tmp_path) == Path("/b.csv")
    assert resolve("~/b.csv", tmp_path) == Path.home() / "b.csv"


def test_a_model_is_a_folder_where_there_is_one(tmp_path):
    assert model_location("org/name", tmp_path) == "org/name"
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert model_location("org/name", tmp_path) == tmp_path / "org" / "name"
    assert model_location("./absent", tmp_path) == tmp_path / "absent"
    assert model_location("builtin:mini", tmp_path) == Path(traitmap.__file__).parent / "mini" / "base"


def test_a_task_file_gives_its_stem_as_name():
    assert is_task_file("x/y.yaml")
    assert not is_task_file("gsm8k")
    assert (task_stem("x/y.yaml"), task_stem("gsm8k")) == ("y", "gsm8k")
