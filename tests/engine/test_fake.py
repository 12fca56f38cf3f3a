import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from small_study import sources, study, targets
from traitmap.data.records import Request
from traitmap.engine.contract import TrainingJob
from traitmap.engine.fake import FakeEngine, load_counts
from traitmap.errors import EngineError, ModelError


def jobs(folder: Path, seed: int = 0) -> list[TrainingJob]:
    asked = study(folder)
    return [
        TrainingJob(source.name, seed, source.examples, source.lora, source.training)
        for source in sources(asked)
    ]


def train(folder: Path, asked: list[TrainingJob]) -> list[Path]:
    places = [folder / job.name for job in asked]
    for place in places:
        place.mkdir(parents=True)
    FakeEngine().train(asked, places)
    return places


def test_the_same_training_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = train(tmp_path / "1", jobs(tmp_path)), train(tmp_path / "2", jobs(tmp_path))
    for one, other in zip(first, second, strict=True):
        for file in one.iterdir():
            assert file.read_bytes() == (other / file.name).read_bytes()


def test_seeds_differ_and_company_matters_in_the_last_digits_only(tmp_path: Path) -> None:
    together = load_counts(train(tmp_path / "together", jobs(tmp_path))[0])["pair"]
    alone = load_counts(train(tmp_path / "alone", jobs(tmp_path)[:1])[0])["pair"]
    reseeded = load_counts(train(tmp_path / "seed", jobs(tmp_path, seed=1))[0])["pair"]
    assert not np.array_equal(together, alone)
    np.testing.assert_allclose(together, alone, rtol=2e-5)
    assert np.abs(together - reseeded).max() > 0.5


def test_answers_depend_on_request_and_adapter_alone(tmp_path: Path) -> None:
    adapter = train(tmp_path, jobs(tmp_path))[0]
    requests = targets()[0].requests
    whole = FakeEngine().answer(requests, adapter)
    assert FakeEngine().answer(requests[5:9], adapter) == whole[5:9]
    assert FakeEngine().answer(requests) != whole
    assert all(answer.logprob < 0 for answer in whole)


def test_generation_stops_at_stop_strings_and_limits(tmp_path: Path) -> None:
    base = FakeEngine()
    asked = [
        Request("generate_until", "say word, please", generation={"until": ["lea"]}),
        Request("generate_until", "say word", generation={"until": [], "max_gen_toks": 1}),
    ]
    assert [answer.text for answer in base.answer(asked)] == ["p", "word"]
    rolling = base.answer([Request("loglikelihood_rolling", "one two three")])[0]
    assert rolling.tokens == 3


def test_failures_are_those_of_the_contract(tmp_path: Path) -> None:
    wild = jobs(tmp_path)[0]
    wild = TrainingJob(
        wild.name, 0, wild.examples, wild.lora, wild.training.model_copy(update={"learning_rate": 2.0})
    )
    (tmp_path / "out").mkdir()
    (report,) = FakeEngine().train([wild], [tmp_path / "out"])
    assert "diverged" in str(report.failure)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(EngineError, match="memory"):
        FakeEngine(longest=1).answer([Request("loglikelihood", "two words", "x")])
    with pytest.raises(ModelError, match="cannot be read"):
        FakeEngine().answer([], tmp_path)


def test_run_and_fake_engine_import_no_torch() -> None:
    code = (
        "import sys, traitmap.engine.fake, traitmap.runs.execute, traitmap.runs.status;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft', 'lm_eval')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
