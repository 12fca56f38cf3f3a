"""The command that shows a run in a browser: view."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from traitmap.cli.app import AsJson, RunFolder, app, print_json


@app.command()
def view(
    run: RunFolder,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the report on this machine alone, and follow a run in progress until there is one.

    Example: traitmap view runs/mini --open
    """
    from traitmap import api

    with api.view(run, port=port) as viewing:
        print_json({"address": viewing.address}) if as_json else typer.echo(viewing.address)
        sys.stdout.flush()
        typer.echo("Only this machine can reach it. Ctrl-C ends the view, not the run.", err=True)
        if open_:
            typer.launch(viewing.address)
        viewing.wait()
