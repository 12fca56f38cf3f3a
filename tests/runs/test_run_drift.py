"""A run keeps how far its adapters have moved, text by text: once, resumable, as columns and as features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from small_study import sources, study, targets
from tiny_architectures import save_tiny
from traitmap.analysis.profiles.pairs import Feature, PairFeatures
from traitmap.analysis.recommendation.knowledge import with_drift
from traitmap.api.drift import keep_drift
from traitmap.api.runs import Run, drift_in, query
from traitmap.data.texts import neutral_texts
from traitmap.engine.drift import base_reading, drift
from traitmap.engine.fake import FakeEngine
from traitmap.engine.local import LocalEngine
from traitmap.errors import DataError, RunError
from traitmap.progress import Progress
from traitmap.runs.execute import execute
from traitmap.runs.store import RunStore
from traitmap.study.load import load_study
from traitmap.study.settings import Model, Study

PARAGRAPHS = "The kettle boils.\n\nIt is\nraining again.\n \n\nNobody is in a hurry on this road.\n"


def of_text(folder: Path, drift: bool | str, model: str = "fake") -> Study:
    """The small study with one seed, and drift on this text."""
    return study(folder, seeds=(0,), learning_rate=0.02).model_copy(
        update={"drift": drift, "model": Model(path=model)}
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    folder = tmp_path_factory.mktemp("base")
    save_tiny("llama", folder)
    return LocalEngine.open(Model(path=str(folder), dtype="float32", device="cpu"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, engine: LocalEngine) -> Study:
    folder = tmp_path_factory.mktemp("study")
    (folder / "calm.txt").write_text(PARAGRAPHS, encoding="utf-8")
    return of_text(folder, str(folder / "calm.txt"))


@pytest.fixture(scope="module")
def finished(asked: Study, engine: LocalEngine) -> RunStore:
    store = execute(asked, engine, sources(asked, count=12), targets(count=4))
    keep_drift(asked, store.folder, engine, sources(asked, count=12))
    return store


def test_it_is_what_the_engine_measures(asked, finished, engine) -> None:
    rows = drift_in(finished.folder)
    assert [row.source for row in rows] == [source.name for source in sources(asked)]
    first = rows[0]
    prompts = list(dict.fromkeys(one.prompt for one in sources(asked, count=12)[0].examples))
    folder = next(finished.adapters.iterdir())
    for adapter in finished.adapters.iterdir():
        with base_reading(engine, neutral_texts(asked)) as reading:
            found = drift(engine, reading, adapter)
        if np.allclose(found.after, first.neutral.after, rtol=1e-12):
            folder = adapter
    with base_reading(engine, prompts, prompts=True) as reading:
        own = drift(engine, reading, folder)
    assert first.own is not None
    np.testing.assert_allclose(first.own.kl, own.kl, rtol=1e-6)
    assert len(first.neutral.tokens) == 3
    table = Run(finished.folder).drift()
    assert table["forgetting"][0] == pytest.approx(first.neutral.forgetting[0])
    assert table["own_kl_low"][0] == pytest.approx(first.own.divergence[1])
    assert (table["kl"] > 0).all()


def test_what_is_measured_is_not_measured_again_and_the_rest_is(asked, finished, engine) -> None:
    before = drift_in(finished.folder)
    heard = list[Progress]()
    keep_drift(asked, finished.folder, engine, sources(asked, count=12), heard.append)
    assert heard == []
    changed = [sources(asked, count=12)[0], *sources(asked, count=14)[1:]]  # other prompts of some sources
    keep_drift(asked, finished.folder, engine, changed, heard.append)
    assert heard[-1].total == len(before) - 1
    assert [row.key == old.key for row, old in zip(drift_in(finished.folder), before, strict=True)] == [
        True, False, False, False
    ]  # fmt: skip
    keep_drift(asked, finished.folder, engine, sources(asked, count=12))
    after = drift_in(finished.folder)
    assert [row.key for row in after] == [row.key for row in before]


def test_one_row_a_text_can_be_asked_in_sql(finished) -> None:
    rows = drift_in(finished.folder)
    told = query(
        finished.folder,
        "SELECT source, sum(after - before) / sum(tokens) AS forgetting, count(*) AS texts FROM drift "
        "WHERE about = 'neutral' GROUP BY source",
    ).set_index("source")
    for row in rows:
        assert told["forgetting"][row.source] == pytest.approx(row.neutral.forgetting[0])
        assert told["texts"][row.source] == 3


def test_drift_becomes_features_of_sources(finished) -> None:
    rows = drift_in(finished.folder)
    names, places = tuple(row.source for row in rows), ("one", "two")
    alone = with_drift(None, rows, names, places)
    assert alone is not None
    assert alone.names == ("source_forgetting", "source_divergence", "source_own_divergence")
    assert alone.array.shape == (len(rows), 2, 3)
    np.testing.assert_allclose(alone.array[:, 0, 0], [row.neutral.forgetting[0] for row in rows])
    np.testing.assert_allclose(alone.array[:, 1, 1], np.log([row.neutral.divergence[0] for row in rows]))
    np.testing.assert_allclose(alone.array[:, 1, 2], np.log([row.own.divergence[0] for row in rows]))
    size = Feature("size", "size", "size", np.ones((1, 1)), "source")
    beside = with_drift(PairFeatures(names[:1], ("two",), (size,)), rows, names, places)
    assert beside.names == ("size", *alone.names)
    assert beside.array[0, 1, 0] == 1.0
    assert np.isnan(beside.array[1, 1, 0])
    twice = [*rows, replace(rows[0], seed=1, neutral=replace(rows[0].neutral, after=rows[0].neutral.before))]
    mean = with_drift(None, twice, names, places).array[0, 0, 0]
    assert mean == pytest.approx(rows[0].neutral.forgetting[0] / 2)  # the mean over seeds
    assert with_drift(None, rows, ("another",), places) is None


def test_without_a_base_on_this_machine_it_is_told(asked, tmp_path) -> None:
    told = list[str]()
    store = execute(study(tmp_path, seeds=(0,)), FakeEngine(), sources(asked, count=12), targets(count=4))
    keep_drift(asked, store.folder, FakeEngine(), sources(asked, count=12), tell=told.append)
    assert told == ["drift was not measured: it needs a base on this machine (model.path, executor local)."]
    assert drift_in(store.folder) == ()
    assert Run(store.folder).drift().empty


def test_a_damaged_record_is_told_and_measured_anew(asked, finished, engine) -> None:
    place = finished.folder / "drift.json"
    whole = place.read_bytes()
    place.write_bytes(whole.replace(b"neutral", b"neutrel", 1))
    with pytest.raises(RunError, match=r"drift\.json: damaged"):
        drift_in(finished.folder)
    keep_drift(asked, finished.folder, engine, sources(asked, count=12))
    assert len(drift_in(finished.folder)) == len(sources(asked))


def test_neutral_text_is_paragraphs(tmp_path) -> None:
    (tmp_path / "calm.txt").write_text(PARAGRAPHS, encoding="utf-8")
    of_file = of_text(tmp_path, str(tmp_path / "calm.txt"))
    assert neutral_texts(of_file) == (
        "The kettle boils.", "It is\nraining again.", "Nobody is in a hurry on this road."
    )  # fmt: skip
    ours = neutral_texts(of_text(tmp_path, True))
    assert len(ours) == len(set(ours)) == 60
    assert 40 < np.mean([len(text.split()) for text in ours]) < 70
    mini = neutral_texts(of_text(tmp_path, True, "builtin:mini"))
    assert len(mini) == 60
    assert not set(mini) & set(ours)
    (tmp_path / "calm.txt").write_text("one paragraph", encoding="utf-8")
    with pytest.raises(DataError, match="holds 1 paragraph"):
        neutral_texts(of_file)
    with pytest.raises(DataError, match="cannot be read as text"):
        neutral_texts(of_text(tmp_path, "nowhere.txt"))


def test_a_study_file_says_whether_or_on_which_text(tmp_path) -> None:
    file = tmp_path / "study.yaml"
    rest = "name: s\nmodel: builtin:mini\nsources: [{name: a, path: a.jsonl}]\ntargets: [arc_easy]\n"
    for words, read in (("true", True), ("false", False), ("True", True), ("calm.txt", "calm.txt")):
        file.write_text(f"{rest}drift: {words}\n", encoding="utf-8")
        assert load_study(file).drift == read
