"""The texts of a run: there after it, the same as what was trained and asked, renewed when data change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from small_study import sources, study, targets
from traitmap.data.texts import texts_of_sources, texts_of_targets
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.runs import texts as module
from traitmap.runs.execute import execute
from traitmap.runs.store import RunStore
from traitmap.runs.texts import read_run_texts, write_texts


@pytest.fixture
def finished(tmp_path: Path) -> RunStore:
    asked = study(tmp_path, seeds=(0,))
    return execute(asked, FakeEngine(), sources(asked), targets())


def test_a_run_keeps_its_texts(finished: RunStore, tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    found = read_run_texts(finished)
    assert found.sources == texts_of_sources(sources(asked))
    assert found.targets == texts_of_targets(targets())
    assert found.totals == {name: len(texts) for name, texts in found.sources.items()}


def test_changed_data_are_written_anew_and_the_rest_is_left_alone(finished: RunStore, tmp_path: Path) -> None:
    first, *rest = sources(study(tmp_path, seeds=(0,)))
    before = {file.name: file.stat().st_mtime_ns for file in finished.texts.iterdir()}
    changed = replace(first, examples=first.examples[:3], digest="other")
    write_texts(finished, [changed, *rest], targets())
    after = {file.name: file.stat().st_mtime_ns for file in finished.texts.iterdir()}
    assert [name for name in before if before[name] != after[name]] == [f"source-{first.name}.parquet"]
    assert len(read_run_texts(finished).sources[first.name]) == 3


def test_a_large_source_is_drawn_and_its_total_told(finished: RunStore, tmp_path: Path) -> None:
    one = sources(study(tmp_path, seeds=(0,)))[0]
    many = replace(one, examples=one.examples * (module.KEPT // len(one.examples) + 2), digest="many")
    write_texts(finished, [many], [])
    found = read_run_texts(finished)
    assert len(found.sources[one.name]) == module.KEPT
    assert found.totals[one.name] == len(many.examples) > module.KEPT


def test_missing_and_damaged_texts_say_how_to_get_them_back(finished: RunStore) -> None:
    file = sorted(finished.texts.iterdir())[0]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunError, match="damaged"):
        read_run_texts(finished)
    file.unlink()
    with pytest.raises(RunError, match="adds the texts"):
        read_run_texts(finished)
