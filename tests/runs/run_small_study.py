"""Runs the small study in a process of its own, so that a test can kill it: FOLDER DELAY LOG."""

import sys
from pathlib import Path

from small_study import sources, study, targets
from traitmap.engine.fake import FakeEngine
from traitmap.runs.execute import execute

if __name__ == "__main__":
    asked = study(Path(sys.argv[1]))
    engine = FakeEngine(delay=float(sys.argv[2]), log=Path(sys.argv[3]))
    execute(asked, engine, sources(asked), targets(), group_size=4)
