"""Commands that take other people's results in, and give ours out: import, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traitmap import api
from traitmap.cli.app import AsJson, MatrixOrRun, app, listed, print_json, tell
from traitmap.jsonable import jsonable
from traitmap.terminal import shown_wait
from traitmap.wording import counted


@app.command(name="import")
def import_(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, or folders to search for results.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A new run folder, or a .csv or .parquet file.")
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The base model, where the files do not tell; NAME@VALUE for one variant of it."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="TASK=METRIC or TASK=METRIC,FILTER for its column; may be given again."),
    ] = None,
    allow: Annotated[
        str, typer.Option(help="Settings that may differ within a column: limit, version, ..., or all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Results of lm-eval, inspect_ai, lighteval, HELM, OpenCompass, Every Eval Ever, or tables, as a run.

    Example: traitmap import lm_eval_results/ -o runs/ours
    """
    metrics = dict(_pair(text) for text in metric or [])
    with shown_wait("import"):
        done = api.import_results(paths, output, base=base, metrics=metrics, allow=listed(allow))
    for note in done.notes:
        tell(note)
    if as_json:
        print_json(jsonable(done))
        return
    known = f"base {done.base}" if done.base else "no base model (give --base)"
    size = f"{counted(len(done.sources), 'source')}, {counted(len(done.metrics), 'target')}"
    tell(
        f"{done.place}: {size}, {known}; "
        f"{len(done.paired)} with items and paired statistics, {len(done.given)} with values alone. "
        f"Read: {', '.join(done.kinds)}."
    )


def _pair(text: str) -> tuple[str, str]:
    """``TASK=METRIC`` as two words."""
    task, equals, metric = text.partition("=")
    if not (task and equals and metric):
        raise typer.BadParameter(f"{text!r}; write TASK=METRIC", param_hint="--metric")
    return task, metric


@app.command()
def export(
    run: MatrixOrRun,
    output: Annotated[Path, typer.Option("--output", "-o", help="A file (csv, parquet) or a folder.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="lm-eval, every-eval-ever, csv, parquet, model-card, mlflow or trackio."
        ),
    ] = "lm-eval",
    source: Annotated[
        list[str] | None, typer.Option(help="Only these model cards; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A run as lm-eval results, Every Eval Ever records, tables, model cards, or in a tracker's local store.

    Example: traitmap export runs/mini --format model-card -o cards
    """
    with shown_wait("export"):
        written = [str(place) for place in api.export(run, output, format=format_, sources=source or ())]
    print_json(written) if as_json else typer.echo("\n".join(written))
