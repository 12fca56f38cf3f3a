"""The small results files of other harnesses lie with the tests of the importers."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "imports"))
