"""Every timing of the project, into benchmarks/results/.

python benchmarks/run.py        # what `make bench` calls
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    for name in ("training", "scoring", "growth"):
        output = HERE / "results" / f"{day}-{name}.json"
        subprocess.run([sys.executable, HERE / f"{name}.py", "--output", output], check=True)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
