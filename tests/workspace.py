"""A user's folder: runs, tables, texts and results under the names that the docs and the help use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from traitmap import api
from traitmap.engine.fake import FakeEngine
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts
from traitmap.study.init import write_template


def make_workspace(folder: Path, run: Path) -> Path:
    """runs/mini, runs/my-study, my-study/, scores.csv and matrix.csv, texts.jsonl and tasks.jsonl,
    my-task.jsonl and new-task.jsonl, lm_eval_results/ and results.json."""
    shutil.copytree(run, folder / "runs" / "mini")
    matrix = api.open_run(run).matrix()
    for name in ("scores.csv", "matrix.csv"):
        matrix.to_csv(folder / name)
    for name in ("texts.jsonl", "tasks.jsonl"):
        _write(folder / name, _texts(run))
    for name in ("my-task.jsonl", "new-task.jsonl"):
        _write(folder / name, _texts(run)[:4])
    api.export(run, folder / "lm_eval_results", format="lm-eval")
    (first, *_) = sorted((folder / "lm_eval_results").rglob("results*.json"))
    shutil.copy(first, folder / "results.json")
    study = write_template(folder / "my-study")
    done = api.run(study, engine=FakeEngine(), output=folder / "runs")
    assert done.status().complete
    return folder


def clear_output(words: list[str], folder: Path) -> None:
    """Remove what an earlier ``import`` wrote: it does not overwrite."""
    if words[0] == "import":
        shutil.rmtree(folder / words[words.index("-o") + 1], ignore_errors=True)


def quick(words: list[str]) -> list[str]:
    """The same command without its costly part, which tests of that part run."""
    if words[0] == "figure" and "--list" in words:
        words = [word if word != "runs/mini" else "scores.csv" for word in words]
    return words + {"check": ["--no-measure"], "report": ["--fast"]}.get(words[0], [])


def _texts(run: Path) -> list[dict]:
    kept = read_run_texts(open_store(run))
    return [
        {"task": task, "input": one.input, "output": one.output, "choices": list(one.choices)}
        for task, texts in kept.sources.items()
        for one in texts[:20]
    ]


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
