"""Freed memory is given back when enough has gathered, and no more often than it is worth."""

from __future__ import annotations

import subprocess
import sys

import pytest

from traitmap.engine.cpu.memory import GROWTH, PATIENCE, giving_back
from traitmap.progress import Progress


class Machine:
    """A process whose memory and time the test sets; giving back takes it a tenth of a second."""

    def __init__(self) -> None:
        self.held, self.now, self.given = 1000, 0.0, 0

    def give_back(self) -> None:
        self.given += 1
        self.held, self.now = 1000, self.now + 0.1


def test_memory_is_given_back_when_it_has_grown_and_the_last_time_is_long_enough_ago() -> None:
    machine, heard = Machine(), []
    listener = giving_back(
        heard.append,
        give_back=machine.give_back,
        held=lambda: machine.held,
        clock=lambda: machine.now,
    )
    reports = [Progress("train", float(done), 10.0, "") for done in range(5)]
    listener(reports[0])
    assert machine.given == 0  # nothing has grown
    machine.held += GROWTH + 1
    listener(reports[1])
    assert machine.given == 1
    machine.held += GROWTH + 1
    listener(reports[2])
    assert machine.given == 1  # too soon
    machine.now += PATIENCE * 0.1
    listener(reports[3])
    assert machine.given == 2
    machine.now += 1000.0
    listener(reports[4])
    assert machine.given == 2  # nothing has grown since
    assert heard == reports


FRESH = """
from traitmap.engine.cpu.memory import giving_back, held_bytes
from traitmap.progress import Progress, silent

listener, now = giving_back(silent), held_bytes()
kept = [b"x" * (100_000 + size) for size in range(3000)]  # blocks that are kept when freed
pins = [b"y" * (600 + size) for size in range(100)]
grown = held_bytes()
del kept
listener(Progress("train", 1.0, 2.0, ""))
print((grown - now) // 2**20, (grown - held_bytes()) // 2**20, len(pins))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_a_process_gives_back_what_it_has_freed() -> None:
    """In a process of its own: one that has freed much before takes that again and does not grow."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    grown, given, _ = map(int, done.stdout.split())
    assert grown > 200
    assert given > 200
