"""Every timing of the engine, into benchmarks/results/.

python benchmarks/run.py        # what `make bench` calls; hours on two cores, each script has shorter ways
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

HERE = Path(__file__).parent
SCRIPTS = ("training", "scoring", "growth", "where_time_goes", "kernels", "end_to_end")


def main() -> None:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    for name in (*SCRIPTS, *(("cuda",) if torch.cuda.is_available() else ())):
        output = HERE / "results" / f"{day}-{name.replace('_', '-')}.json"
        subprocess.run([sys.executable, HERE / f"{name}.py", "--output", output], check=True)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
