"""What the shell offers while a command is typed: run folders, figures and targets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def figures_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's figures, read off its report; the matrix alone where it has none yet."""
    import re

    try:
        page = (_run_of(ctx) / "report.html").read_text(encoding="utf-8")
    except OSError:
        page = ""
    names = re.findall(r'<svg [^>]*class="figure[^>]* id="([\w-]+)"', page) or ["matrix"]
    return sorted({name for name in names if name.startswith(incomplete)})


def targets_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's targets, read off its ledger alone."""
    return [name for name in _listed(ctx, "targets") if name.startswith(incomplete)]


def run_folders(ctx: Any, incomplete: str) -> list[str]:
    """Run folders that begin as what is typed does, and folders that may hold some."""
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") or not incomplete else typed.parent
    beginning = "" if incomplete.endswith("/") or not incomplete else typed.name
    if not incomplete and (Path("runs")).is_dir():
        parent = Path("runs")
    try:
        folders = sorted(one for one in parent.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []
    named = [one for one in folders if one.name.startswith(beginning)]
    runs = [str(one) for one in named if (one / "run.json").is_file()]
    return runs or [f"{one}/" for one in named]


def _listed(ctx: Any, key: str) -> list[str]:
    """Names in a list of the ledger of the run on the command line; none where that cannot be read."""
    import json

    try:
        told = json.loads((_run_of(ctx) / "run.json").read_text(encoding="utf-8"))
        return [str(one["name"]) for one in told[key]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _run_of(ctx: Any) -> Path:
    """The run on the command line: as it was understood, else the first word of it that is a run folder."""
    if ctx.params.get("run"):
        return Path(ctx.params["run"])
    # An option that still waits for its value keeps the words before it from being understood.
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return next((Path(word) for word in typed.split() if (Path(word) / "run.json").is_file()), Path("."))
