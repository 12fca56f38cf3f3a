"""Tables of the newest results of every benchmark, into docs/performance.md.

python docs/performance_tables.py          # writes them into the page
python docs/performance_tables.py --check  # fails where the page shows something else
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from page_blocks import table, with_blocks, write_pages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"

Result = Mapping[str, Any]


def newest(name: str) -> Path | None:
    """The results file of a benchmark with the latest date."""
    return max(RESULTS.glob(f"????-??-??-{name}.json"), default=None)


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    return "\n".join(table(head, rows))


def ratio(values: Sequence[float] | Mapping[str, float] | None) -> str:
    """Median and range of ratios; a dash where there is none."""
    if values is None:
        return "–"
    low, middle, high = (
        (values["low"], values["median"], values["high"]) if isinstance(values, Mapping) else values
    )
    return f"**{middle:.2f}** [{low:.2f}, {high:.2f}]"


def training(found: Result) -> str:
    rows = []
    for one in found["results"]:
        speed = one["tokens_per_cpu_second"]
        rows.append(
            [
                str(one["adapters"]),
                str(one["rows"]),
                f"{speed['ours']:,.0f}",
                ratio(one.get("S/ours cpu")),
                ratio(one.get("S/ours wall")),
                ratio(one.get("T/ours cpu")),
                f"{one['ours']}; {one['S']}",
                f"{one['share_of_matmul_ceiling']:.0%}".replace("%", " %"),
            ]
        )
    head = ("K", "rows", "tokens per CPU second", "S / ours, CPU", "S / ours, wall", "T / ours, CPU")
    return lines([*head, "dtype of ours; of S", "of the matmul ceiling"], rows)


def scoring(found: Result) -> str:
    rows = []
    for one in found["results"]:
        usual = one.get("ratio_cpu_command")
        rows.append(
            [
                one["kind"],
                str(one["adapters"]),
                f"{one['items_per_cpu_second_ours']:.1f}",
                ratio(one["ratio_cpu_best"]),
                ratio(one["ratio_wall_best"]),
                ratio(one.get("ratio_cpu_float32")),
                ratio(one.get("ratio_cpu_bfloat16")),
                "–" if usual is None else f"{usual:.0f}",
                f"{one['best_dtype']['ours']}; {one['best_dtype']['S']}",
            ]
        )
    head = ("target", "K", "items per CPU second", "S / ours, CPU", "S / ours, wall")
    return lines([*head, "both float32", "both bfloat16", "T / ours, CPU", "best dtype of ours; of S"], rows)


def growth(found: Result) -> str:
    one = found["training"]
    rows = [
        [str(count), f"{cpu:.2f}", f"{wall:.2f}"]
        for count, cpu, wall in zip(one["adapters"], one["cpu_seconds"], one["wall_seconds"], strict=True)
    ]
    shares = one["additional_adapter_over_own_run"]
    words = "an additional adapter over a run of its own"
    told = "\n".join(f"- {words} {key}: {share:.2f}" for key, share in shares.items())
    targets = found["targets"]
    seconds = ", ".join(f"{value:.2f}" for value in targets["cpu_seconds"])
    count = ", ".join(map(str, targets["targets"]))
    return (
        lines(["K", "CPU seconds", "wall seconds"], rows)
        + f"\n\n{told}\n- scoring {count} targets of {targets['items']} items: {seconds} CPU seconds"
    )


def end_to_end(found: Result) -> str:
    options, medians = found["options"], found["medians"]
    names = {"S wall": "S / ours, wall", "S cpu": "S / ours, CPU", "T wall": "T / ours, wall"}
    names |= {"T cpu": "T / ours, CPU", "memory": "our peak memory / one PEFT run's"}
    rows = [[said, ratio(medians[key])] for key, said in names.items() if key in medians]
    size = ", ".join(f"{options[key]} {key}" for key in ("sources", "targets", "steps"))
    turns = found["turns"]
    ours = ", ".join(f"{turn['ours']['wall']:.0f}" for turn in turns)
    return f"{size}, {options['limit']} items a target, {len(turns)} turns; ours took {ours} s.\n\n" + lines(
        ["", "median [least, most]"], rows
    )


def where_time_goes(found: Result) -> str:
    works = found["results"]
    names = [name for name in next(iter(works.values())) if name != "seconds"]
    rows = [[name, *(f"{100 * work[name]:.0f} %" for work in works.values())] for name in names]
    return lines(["share of the time", *works], rows)


def kernels(found: Result) -> str:
    head = ("kernels kept", "products", "compiled", "s computing", "s compiling", "CPU s in all", "peak MB")
    rows = [
        [
            f"{one['capacity']:,}",
            f"{one['products']:,.0f}",
            f"{one['compiled']:,.0f}",
            f"{one['compute_seconds']:.2f}",
            f"{one['compile_seconds']:.2f}",
            f"{one['cpu_seconds']:.2f}",
            f"{one['peak_bytes'] / 1e6:,.0f}",
        ]
        for one in found["results"]
    ]
    return lines(head, rows)


TABLES: dict[str, Callable[[Result], str]] = {
    "training": training,
    "scoring": scoring,
    "scoring-generation": scoring,
    "growth": growth,
    "where-time-goes": where_time_goes,
    "end-to-end": end_to_end,
    "kernels": kernels,
    "training-smollm2": training,
    "training-gemma3": training,
    "scoring-smollm2": scoring,
}


def block(name: str) -> str:
    """A benchmark's table with its date, machine and command; or that it has not been run."""
    path = newest(name)
    if path is None:
        return "Not measured yet.\n"
    found = json.loads(path.read_text(encoding="utf-8"))
    machine = f"{found['machine']}, {found['device']}"
    link = f"[{path.name}](../benchmarks/results/{path.name})"
    told = f"`{found['command']}`, {found['date']}, {machine}; {link}"
    return f"{told}\n\n{TABLES[name](found)}\n"


def blocks() -> dict[str, str]:
    """Name -> the lines of every block of the page."""
    return {name: block(name) for name in TABLES}


def with_tables(page: str) -> str:
    """The page with every block as the results are now."""
    return with_blocks(page, "performance_tables", blocks())


if __name__ == "__main__":
    write_pages([PAGE], "performance_tables", blocks())
