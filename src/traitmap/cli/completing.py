"""What the shell offers while a command is typed: run folders, figures and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def figures_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's figures, read off its report; the matrix alone where it has none yet."""
    import re

    try:
        page = (Path(ctx.params["run"]) / "report.html").read_text(encoding="utf-8")
    except (OSError, KeyError, TypeError):
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

    place = ctx.params.get("run")
    if not place:
        return []
    try:
        told = json.loads((Path(place) / "run.json").read_text(encoding="utf-8"))
        return [str(one["name"]) for one in told[key]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
