"""What ten adapters cost beside one: an audit of each, in CPU seconds, and the parts that they share.

python benchmarks/audit_price.py ADAPTER [--rows 1,10] [options of traitmap audit]

The rows are the adapter with its weights moved a little, so that nothing is answered from what is known.
Answers are asked of every row and of the base; what else it takes (Python, the base, data, the page) is paid
once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from audit_beside import RESULTS, measured
from record import conditions, save
from safetensors.torch import load_file, save_file


def moved(adapter: Path, place: Path, seed: int) -> Path:
    """A copy of an adapter with noise of a hundredth of each tensor's spread."""
    shutil.copytree(adapter, place)
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(place / "adapter_model.safetensors")
    for name, tensor in weights.items():
        noise = torch.randn(tensor.shape, generator=generator)
        weights[name] = (tensor + 0.01 * tensor.std() * noise).to(tensor.dtype)
    save_file(weights, place / "adapter_model.safetensors")
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--rows", default="1,10")
    options, audit = parser.parse_known_args()
    command = [Path(sys.executable).parent / "traitmap", "audit"]
    result = {}
    for count in map(int, options.rows.split(",")):
        with TemporaryDirectory(prefix="audit-price-") as name:
            folder = Path(name)
            rows = [moved(options.adapter, folder / f"row{n}", n) for n in range(count)]
            run = measured([*command, *rows, *audit], folder)
            result[count] = {key: run[key] for key in ("code", "cpu_seconds", "peak_megabytes")}
            print(f"{count} rows: {result[count]}", flush=True)
    first, *others = result
    for count in others:
        ratio = result[count]["cpu_seconds"] / result[first]["cpu_seconds"]
        print(f"{count} rows cost {ratio:.2f} times {first}")
    told = conditions()
    file = RESULTS / f"{told['date'][:10]}-audit-price.json"
    save(file, {**told, "audit": audit, "rows": result})


if __name__ == "__main__":
    main()
