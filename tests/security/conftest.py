"""Small results files lie with the tests of the importers, the reading of a page with those of the report."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "imports"))
sys.path.append(str(Path(__file__).parents[1] / "report"))
