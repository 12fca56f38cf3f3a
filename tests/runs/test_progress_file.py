"""A run in progress keeps what it reports, at most once a second, and leaves nothing behind."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import pytest

from traitmap.progress import Progress, silent
from traitmap.runs.status import MOST_LOSSES, NAME, kept_progress, read_progress


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_heard_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    clock, heard = Clock(), []
    with kept_progress(tmp_path, heard.append, clock) as listen:
        assert read_progress(tmp_path) is None
        clock.now += 10
        listen(Progress("train", 25, 100, "2 adapters, mean loss 3.250"))
        kept = read_progress(tmp_path)
        assert kept is not None
        assert kept.losses == ((25, 3.25),)
        (stage,) = kept.stages
        assert (stage.stage, stage.done, stage.total) == ("train", 25, 100)
        assert stage.seconds_left == pytest.approx(30)
        clock.now += 5
        listen(Progress("train", 100, 100, "2 adapters trained in 15 s"))
        clock.now += 2
        listen(Progress("evaluate", 1, 4, "base -> stars"))
        kept = read_progress(tmp_path)
        assert kept is not None
        assert [one.stage for one in kept.stages] == ["train", "evaluate"]
        assert kept.stages[1].seconds_left == pytest.approx(6)
    assert len(heard) == 3
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    with kept_progress(tmp_path, silent, clock) as listen:
        for done in range(1, 6):
            clock.now += 0.3
            listen(Progress("train", done, 5))
        kept = read_progress(tmp_path)
        assert kept is not None
        assert kept.stages[0].done == 5  # written at the first report and 1.2 s later


def test_a_stage_that_begins_again_has_its_own_pace(tmp_path: Path) -> None:
    clock = Clock()
    with kept_progress(tmp_path, silent, clock) as listen:
        for stage, done in (("train", 10), ("evaluate", 10), ("train", 1)):
            clock.now += 10
            listen(Progress(stage, done, 10))
        kept = read_progress(tmp_path)
    assert kept is not None
    assert [one.stage for one in kept.stages] == ["evaluate", "train"]
    assert kept.stages[-1].seconds_left == pytest.approx(90)


def test_losses_are_thinned_out_and_keep_their_order(tmp_path: Path) -> None:
    clock = Clock()
    with kept_progress(tmp_path, silent, clock) as listen:
        for step in range(1, 5000):
            clock.now += 2 * (step == 4999)
            listen(Progress("train", step, 5000, f"1 adapters, mean loss {5000 - step}.5"))
        kept = read_progress(tmp_path)
    assert kept is not None
    assert MOST_LOSSES / 3 < len(kept.losses) <= MOST_LOSSES
    assert list(kept.losses) == sorted(kept.losses)
    assert kept.losses[-1][0] > 4950


def test_an_unknown_loss_is_no_loss_and_an_unknown_time_no_time(tmp_path: Path) -> None:
    with kept_progress(tmp_path, silent) as listen:
        listen(Progress("train", 0, 5, "1 adapters, mean loss nan"))
        kept = read_progress(tmp_path)
    assert kept is not None
    assert kept.losses == ()
    assert isnan(kept.stages[0].seconds_left)


def test_a_run_that_fails_leaves_no_progress_and_a_refused_one_touches_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with kept_progress(tmp_path, silent) as listen:
            listen(Progress("train", 1, 5))
            assert (tmp_path / NAME).exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).write_text("{}")
    with pytest.raises(ValueError), kept_progress(tmp_path, silent):
        raise ValueError("another process runs this study")
    assert (tmp_path / NAME).exists()  # the other process's own


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"started": 0, "stages": [{"stage": 1}], "losses": []}']
)
def test_what_is_no_progress_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert read_progress(tmp_path) is None


def test_the_engine_tells_losses_in_words_that_are_understood(tmp_path: Path) -> None:
    """Progress carries no loss; this fails where the engine's words for it change."""
    source = (Path(__file__).parents[2] / "src/traitmap/engine/train.py").read_text(encoding="utf-8")
    assert "mean loss {" in source
    with kept_progress(tmp_path, silent) as listen:
        listen(Progress("train", 1, 5, f"3 adapters, mean loss {1.5:.3f}"))
        assert json.loads((tmp_path / NAME).read_text())["losses"] == [[1, 1.5]]
