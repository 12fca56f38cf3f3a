"""The collector is spared what stays; what it collected before it still collects."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from traitmap.engine.cpu.memory import passing_over, paused


class Cycle:
    """Garbage that only the collector finds, once nobody holds it."""

    def __init__(self) -> None:
        self.own = self


def left(cycle: Cycle) -> weakref.ref[Cycle]:
    return weakref.ref(cycle)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_pause_leaves_the_collector_as_it_was_even_after_an_error(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ValueError), paused():  # noqa: PT012
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_what_becomes_garbage_in_the_block_is_collected_and_what_was_there_waits_for_its_end() -> None:
    gc.collect()
    before = left(Cycle())
    with passing_over():
        within = left(Cycle())
        gc.collect()
        assert within() is None
        assert before() is not None
        with passing_over():
            pass
        assert gc.get_freeze_count() > 0, "a block within the block must not end it"
    gc.collect()
    assert before() is None
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("first", "frozen"), [("", True), ("import duckdb; duckdb.sql('select 1').fetchall()", False)]
)
def test_a_process_of_the_command_line_ends_at_once_and_without_a_word(first: str, frozen: bool) -> None:
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"  # the last to be called
        f"{first}\n"
        "from traitmap.cli import main\n"
        "main(['status', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(frozen)
    assert not done.stderr
