"""The same adapters through traitmap, modeldiffr and finetunecheck: what each says, its time and memory.

python benchmarks/audit_beside.py NAME BASE ADAPTER... --modeldiffr VENV --finetunecheck VENV [--pack P ...]
python benchmarks/audit_beside.py --table     # the table of docs/audit.md from the results files

Each tool runs by its own documented command, one process and one thread, without a network, in a virtual
environment of its own. modeldiffr takes whole models: adapters are merged for it first, by ``peft`` in its
environment. finetunecheck gets a copy of the base that transformers 4 can read. Adapters may be
``NAME=FOLDER``; other options go to ``traitmap audit``. Results are written to
benchmarks/results/DATE-audit-beside-NAME.json; CPU seconds and peak memory are those of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from record import conditions, save

RESULTS = Path(__file__).parent / "results"
MERGE = """
import sys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, place = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter)
model.merge_and_unload().save_pretrained(place)
AutoTokenizer.from_pretrained(base).save_pretrained(place)
"""
ALONE = {
    **{"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    **{"COLUMNS": "160", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TERM": "dumb"},
}


def measured(words: Sequence[str | Path], folder: Path, most: int | None = None) -> dict[str, Any]:
    """A command in a folder: its exit code, what it printed, CPU seconds and peak memory (megabytes).

    most: CPU seconds after which it is ended.
    """

    def limited() -> None:
        if most is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))

    printed = folder / "printed.txt"
    with printed.open("wb") as file:
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=folder,
            env={**os.environ, **ALONE},
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=limited,
        )
        _, status, usage = os.wait4(process.pid, 0)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.read_text(encoding="utf-8", errors="replace"))
    lines = [line.split("\r")[-1].rstrip() for line in text.splitlines()]
    return {
        "code": os.waitstatus_to_exitcode(status),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_megabytes": round(usage.ru_maxrss / 1024),
        "printed": [line for line in lines if line.strip()][-60:],
    }


def said(tool: str, run: dict[str, Any]) -> list[str]:
    """The lines in which a tool says what it found."""
    lines = run["printed"]
    if run["code"] < 0:
        return [f"nothing: ended by signal {-run['code']} after {run['cpu_seconds']} CPU seconds"]
    if tool == "traitmap":
        text = "\n".join(lines)
        blocks = re.findall(r"^(VERDICT|HARM) +(.*(?:\n {10}.*)*)", text, re.MULTILINE)
        return [" ".join(words.split()) for _, words in blocks] or lines[-1:]
    if tool == "modeldiffr":
        return [" ".join(line.split()) for line in lines if " delta " in line] or lines[-1:]
    if run["code"]:
        return [line.strip() for line in lines if re.match(r"\s*\w*Error: ", line)][-1:] or lines[-1:]
    shown = [line.strip(" │|") for line in lines if re.search(r"verdict|%|[-+]\d\.\d|Error", line, re.I)]
    return shown or lines[-1:]


def of_transformers_4(base: Path, place: Path) -> Path:
    """A copy of a base whose tokenizer transformers 4 can name, which finetunecheck needs."""
    shutil.copytree(base, place)
    file = place / "tokenizer_config.json"
    config = json.loads(file.read_text())
    if config.get("tokenizer_class") == "TokenizersBackend":
        file.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return place


def naming(adapter: Path, base: Path, place: Path) -> Path:
    """A copy of an adapter that names a base by its folder here, which finetunecheck loads."""
    shutil.copytree(adapter, place)
    file = place / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(base)}))
    return place


def side_by_side(options: argparse.Namespace, audit: Sequence[str]) -> dict[str, Any]:
    """Every adapter through every tool whose environment was given."""
    base = Path(options.base).absolute()
    rows: dict[str, Any] = {}
    with TemporaryDirectory(prefix="audit-beside-") as name:
        folder = Path(name)
        copy = of_transformers_4(base, folder / "base")
        for given in options.adapters:
            row, _, path = given.rpartition("=")
            adapter, row = Path(path).absolute(), row or Path(path).name
            merged, place = folder / f"{row}-merged", folder / row
            place.mkdir()
            ours = [Path(sys.executable).parent / "traitmap", "audit", adapter, "--base", base]
            rows[row] = {"traitmap": measured([*ours, *audit], place)}
            if options.modeldiffr:
                bin_ = options.modeldiffr.absolute() / "bin"
                merging = measured([bin_ / "python", "-c", MERGE, base, adapter, merged], place)
                command = [bin_ / "modeldiffr", "audit", base, merged, "--out", "report"]
                rows[row]["modeldiffr"] = {
                    **measured(command, place, options.most),
                    "merging": merging["cpu_seconds"],
                }
            if options.finetunecheck:
                command = [options.finetunecheck.absolute() / "bin" / "ftcheck", "quick", copy]
                named = naming(adapter, copy, folder / f"{row}-named")
                rows[row]["finetunecheck"] = measured(
                    [*command, named, "--report", "report.html"], place, options.most
                )
            for tool, run in rows[row].items():
                run["said"] = said(tool, run)
                print(f"{row} {tool}: {run['code']} {run['cpu_seconds']} s {run['peak_megabytes']} MB")
                print("".join(f"    {line}\n" for line in run["said"]), flush=True)
    return rows


def versions(environments: dict[str, Path | None]) -> dict[str, str]:
    """Of the tools, by the metadata in their environments."""
    known = {"traitmap": metadata.version("traitmap")}
    for tool, place in environments.items():
        found = list(place.glob(f"lib/python*/site-packages/{tool}-*.dist-info")) if place else []
        known |= {tool: found[0].name.removesuffix(".dist-info").rpartition("-")[2]} if found else {}
    return known


def table() -> str:
    """Markdown: a line for each adapter and tool, from the results files."""
    lines = [
        "| base | adapter | tool | it says | CPU s | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for file in sorted(RESULTS.glob("*-audit-beside-*.json")):
        result = json.loads(file.read_text())
        for row, tools in result["rows"].items():
            for tool, run in tools.items():
                words = "; ".join(short(line) for line in said(tool, run))
                cost = f"{run['cpu_seconds']:.0f}" + (
                    f" + {run['merging']:.0f} merging" if "merging" in run else ""
                )
                lines.append(
                    f"| {result['base']} | {row} | {tool} | {words} | {cost} | {run['peak_megabytes']:,} |"
                )
    return "\n".join(lines)


def short(line: str) -> str:
    """A line of modeldiffr without its base and derivative, of others as it is, at most 160 characters."""
    numbers = re.fullmatch(r"(\w+) base \S+ derivative \S+ delta (\S+) 95% CI (\[.*?\]) p \S+ (.*)", line)
    words = f"{numbers[1]} {numbers[2]} {numbers[3]} {numbers[4]}" if numbers else line
    return (words if len(words) <= 160 else f"{words[:157]}...").replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("base", nargs="?")
    parser.add_argument("adapters", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--modeldiffr", type=Path, metavar="VENV")
    parser.add_argument("--finetunecheck", type=Path, metavar="VENV")
    parser.add_argument("--most", type=int, help="CPU seconds after which another tool is ended")
    options, audit = parser.parse_known_args()
    if options.table:
        print(table())
        return
    environments = {"modeldiffr": options.modeldiffr, "finetunecheck": options.finetunecheck}
    told = conditions()
    result = {
        **told,
        "command": f"python benchmarks/audit_beside.py {options.name} BASE ADAPTER...",
        "base": options.name,
        "versions": {**told["versions"], **versions(environments)},
        "audit": [Path(word).name if "/" in word else word for word in audit],
        "rows": side_by_side(options, audit),
    }
    file = RESULTS / f"{told['date'][:10]}-audit-beside-{options.name}.json"
    save(file, result)
    print(file)


if __name__ == "__main__":
    main()
