"""Copies of hub datasets: the same rows as the hub gives, by whichever layout they lie in."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import constants
from pyarrow import feather, ipc, parquet

import traitmap.mini
from hub_layouts import LAYOUTS, write_copies
from traitmap.data.check import check_file
from traitmap.data.copies import (
    cache_problem,
    copy_of,
    hub_reason,
    model_copy,
    no_network,
    read_from_copy,
    tokenizer_copy,
)
from traitmap.data.harness import open_config
from traitmap.data.lineage import load_sources
from traitmap.data.targets import load_target
from traitmap.engine.endpoint.engine import load_tokenizer
from traitmap.engine.open import open_engine_if_present, with_local_copy
from traitmap.errors import DataError, ModelError, StudyError
from traitmap.study.load import load_study
from traitmap.study.settings import Model, Study, Target


def study(folder: Path, **source: object) -> Study:
    one = {"name": "one", "path": "org/name", "prompt": "{{ a }}:", "completion": " {{ b }}", **source}
    written = {"name": "s", "model": "builtin:mini", "data": "copies", "sources": [one]}
    (folder / "study.yaml").write_text(yaml.safe_dump({**written, "targets": ["mini_reviews"]}))
    return load_study(folder / "study.yaml")


def rows(*values: str) -> str:
    return "\n".join(json.dumps({"a": value, "b": "x"}) for value in values)


def prompts(asked: Study) -> list[str]:
    (source,) = load_sources(asked)
    return [example.prompt for example in source.examples]


def test_each_file_is_a_split_and_splits_can_be_cut(tmp_path: Path) -> None:
    place = tmp_path / "copies" / "org__name"
    place.mkdir(parents=True)
    (place / "train.jsonl").write_text(rows("1", "2", "3", "4"))
    (place / "validation_matched.jsonl").write_text(rows("5"))
    assert prompts(study(tmp_path)) == ["1:", "2:", "3:", "4:"]
    assert prompts(study(tmp_path, split="train[:-3]")) == ["1:"]
    assert prompts(study(tmp_path, split="validation_matched")) == ["5:"]
    with pytest.raises(DataError, match="has no split 'test'"):
        load_sources(study(tmp_path, split="test"))


def test_a_subset_is_a_folder_of_its_own_where_there_is_one(tmp_path: Path) -> None:
    place = tmp_path / "copies" / "org__name"
    (place / "main").mkdir(parents=True)
    (place / "train.jsonl").write_text(rows("1"))
    (place / "main" / "train.jsonl").write_text(rows("2"))
    assert prompts(study(tmp_path, subset="main")) == ["2:"]
    assert prompts(study(tmp_path, subset="other")) == ["1:"]


def test_the_hub_s_own_repository_is_read_by_its_card(tmp_path: Path) -> None:
    place = tmp_path / "copies" / "org__name"
    (place / "data").mkdir(parents=True)
    (place / "data" / "part-0.jsonl").write_text(rows("1", "2"))
    card = {"configs": [{"config_name": "main", "data_files": [{"split": "dev", "path": "data/*.jsonl"}]}]}
    (place / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\nAbout.\n")
    assert prompts(study(tmp_path, subset="main", split="dev")) == ["1:", "2:"]


def test_another_folder_can_be_given_and_must_be_there(tmp_path: Path) -> None:
    for name in ("copies", "elsewhere"):
        (tmp_path / name / "org__name").mkdir(parents=True)
        (tmp_path / name / "org__name" / "train.jsonl").write_text(rows(name))
    study(tmp_path)
    found = check_file(tmp_path / "study.yaml", data=tmp_path / "elsewhere")
    assert prompts(found) == ["elsewhere:"]
    assert prompts(check_file(tmp_path / "study.yaml")) == ["copies:"]
    with pytest.raises(StudyError, match=r"data: there is no folder .*absent"):
        check_file(tmp_path / "study.yaml", data=tmp_path / "absent")


def test_a_task_reads_its_copy_and_no_revision_of_the_hub(tmp_path: Path) -> None:
    copies = write_copies(tmp_path / "copies")
    given = {"dataset_path": "openai/gsm8k", "dataset_name": "main", "dataset_kwargs": {"revision": "abc"}}
    found = read_from_copy(given, copies)
    assert found["dataset_path"] == str(copies / "openai__gsm8k" / "main")
    assert "revision" not in found["dataset_kwargs"]
    assert read_from_copy(given, None) == given
    assert read_from_copy({"dataset_path": "json"}, copies) == {"dataset_path": "json"}
    assert copy_of("openai/other", None, copies) is None
    assert set(LAYOUTS) == {name for name in LAYOUTS if copy_of(name, LAYOUTS[name][1], copies)}


def test_a_base_may_lie_among_the_copies(tmp_path: Path) -> None:
    assert model_copy("org/base", tmp_path) is None
    (tmp_path / "org__base").mkdir()
    assert model_copy("org/base", tmp_path) is None
    (tmp_path / "org__base" / "config.json").write_text("{}")
    assert model_copy("org/base", tmp_path) == tmp_path / "org__base"
    assert model_copy("org/base", None) is None
    model = Model(path="org/base", revision="abc")
    assert with_local_copy(model, tmp_path) == Model(path=str(tmp_path / "org__base"))
    assert with_local_copy(model, None) == model


def test_a_base_of_the_hub_is_not_downloaded_to_be_looked_at(tmp_path: Path) -> None:
    model = Model(path="no-such-org/no-such-base")
    engine, reason = open_engine_if_present(model, tmp_path)
    assert engine is None
    assert reason == "the base 'no-such-org/no-such-base' is not on this machine and was not downloaded"


def test_a_hub_out_of_reach_is_told_from_other_faults() -> None:
    assert no_network(ConnectionError("away"))
    assert not no_network(ValueError("no such split"))
    wrapped = ValueError("no data")
    wrapped.__cause__ = ConnectionError("away")
    assert no_network(wrapped)


TABLE = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def write_split(place: Path, ending: str) -> None:
    """The split ``test`` of a copy in one of the forms that sources read."""
    place.mkdir(parents=True)
    file, lines = place / f"test{ending}", "".join(json.dumps(row) + "\n" for row in TABLE)
    texts = {
        ".jsonl": lines, ".ndjson": lines, ".json": json.dumps(TABLE, indent=1),
        ".csv": "a,b\n1,x\n2,y\n", ".tsv": "a\tb\n1\tx\n2\ty\n",
    }  # fmt: skip
    plain = ending.removesuffix(".gz")
    if plain == ".data.json":
        file, plain = place / "test.json", ".json"
        texts[".json"] = json.dumps({"version": 1, "data": TABLE})
    if plain in texts:
        content = texts[plain].encode()
        file.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    elif ending == ".parquet":
        parquet.write_table(pa.Table.from_pylist(TABLE), file)
    elif ending == ".feather":
        feather.write_feather(pa.Table.from_pylist(TABLE), file)
    else:
        with ipc.new_file(file, pa.Table.from_pylist(TABLE).schema) as stream:
            stream.write_table(pa.Table.from_pylist(TABLE))


ENDINGS = [".jsonl", ".ndjson", ".json", ".data.json", ".csv", ".tsv", ".parquet", ".feather", ".arrow"]


@pytest.mark.parametrize("ending", [*ENDINGS, ".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv.gz", ".tsv.gz"])
def test_every_form_that_sources_read_is_a_copy_for_sources_tasks_and_targets(tmp_path, ending):
    write_split(tmp_path / "copies" / "org__name", ending)
    asked = study(tmp_path, split="test")
    assert prompts(asked) == ["1:", "2:"]
    config = {"task": "t", "dataset_path": "org/name", "output_type": "generate_until", "test_split": "test"}
    task = open_config(
        "t", config | {"doc_to_text": "{{a}}", "doc_to_target": "b"}, copies=tmp_path / "copies"
    )
    assert [str(doc["a"]) for doc in task.test_docs()] == ["1", "2"]
    target = Target(path="org/name", prompt="{{ a }}:", answer="b")
    assert [text.input for text in load_target(asked, target).texts()] == ["1:", "2:"]


def test_splits_in_two_forms_are_told_and_read_one_by_one(tmp_path: Path) -> None:
    place = tmp_path / "copies" / "org__name"
    write_split(place, ".feather")
    (place / "train.csv").write_text("a,b\n3,z\n")
    assert prompts(study(tmp_path)) == ["3:"]
    assert prompts(study(tmp_path, split="test")) == ["1:", "2:"]
    with pytest.raises(DataError, match=r"several forms \(test.feather, train.csv\)"):
        read_from_copy({"dataset_path": "org/name"}, tmp_path / "copies")
    (place / "train.jsonl").write_text(rows("4"))
    with pytest.raises(DataError, match=r"train.csv and train.jsonl are one split"):
        prompts(study(tmp_path))


def test_a_pointer_of_git_lfs_is_no_copy(tmp_path: Path) -> None:
    place = tmp_path / "copies" / "org__name"
    place.mkdir(parents=True)
    (place / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataError, match="git lfs pull"):
        prompts(study(tmp_path))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can lie under a file, whoever asks: root may write everywhere else."""
    (tmp_path / "file").write_text("")
    error = NotADirectoryError(errno.ENOTDIR, "Not a directory")
    assert cache_problem(error) == ""  # the caches are in order, something else is not
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    told = cache_problem(error)
    assert str(tmp_path / "file" / "hub") in told
    assert "set HF_HOME" in told
    wrapped = RuntimeError("of a library")
    wrapped.__cause__ = error
    assert hub_reason(wrapped) == told
    assert cache_problem(ConnectionError("away")) == ""  # not what kept the file from coming
    assert "ConnectionError: away. Check the name, the network" in hub_reason(ConnectionError("away."))


def test_a_study_is_told_which_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = study(tmp_path)
    assert asked.path is not None
    (tmp_path / "copies").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        place = datasets.config if name == "HF_DATASETS_CACHE" else constants
        monkeypatch.setattr(place, name, str(tmp_path / "file" / name))
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        'output_type: generate_until\ndoc_to_text: "{{a}}"\ndoc_to_target: "{{b}}"\n'
    )
    (tmp_path / "rows.jsonl").write_text(rows("1", "2"))
    written = asked.path.read_text().replace("mini_reviews", "own.yaml")
    written = written.replace("path: org/name", "path: rows.jsonl")
    asked.path.write_text(written)
    with pytest.raises(StudyError) as told:
        check_file(asked.path)
    (fault,) = told.value.faults
    assert fault.where == "targets[0].task"
    assert "cannot be written (Not a directory); set HF_HOME to a folder of yours" in fault.message


def test_a_tokenizer_may_lie_among_the_copies_without_weights(tmp_path: Path) -> None:
    place = tmp_path / "org__served"
    place.mkdir()
    base = Path(traitmap.mini.__file__).parent / "base"
    assert tokenizer_copy("org/served", tmp_path) is None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, place)
    assert tokenizer_copy("org/served", tmp_path) == place
    assert tokenizer_copy("org/served", None) is None
    tokenizer, found = load_tokenizer("org/served", tmp_path, tmp_path)
    own, _ = load_tokenizer("builtin:mini", tmp_path)
    assert tokenizer.encode("Review: good") == own.encode("Review: good")
    assert found == load_tokenizer(str(place), tmp_path)[1]
    (place / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model.endpoint.tokenizer 'org/served': cannot be loaded"):
        load_tokenizer("org/served", tmp_path, tmp_path)
