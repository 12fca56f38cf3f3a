"""The command that writes single figures of the report: figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traitmap.cli.app import AsJson, MatrixOrRun, app, print_json, shown_progress
from traitmap.cli.completing import figures_of_run


@app.command()
def figure(
    run: MatrixOrRun,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Which one; --list names them.", autocompletion=figures_of_run),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .svg, .png or .pdf file (default: NAME.svg).")
    ] = None,
    width: Annotated[
        float | None, typer.Option(metavar="MM", help="Width in mm, such as 85 or 180 for print.")
    ] = None,
    dpi: Annotated[int, typer.Option(help="Dots per inch of a PNG.")] = 300,
    list_: Annotated[bool, typer.Option("--list", help="Print the names of all figures.")] = False,
    as_json: AsJson = False,
) -> None:
    """One figure of the report as a file, without a browser.

    Example: traitmap figure runs/mini matrix -o matrix.pdf --width 180
    Example: traitmap figure runs/mini --list
    """
    from traitmap import api

    if list_ == (name is not None):
        raise typer.BadParameter("give the name of a figure, or --list", param_hint="NAME")
    with shown_progress() as listener:
        if name is None:
            names = api.figure_names(run, listener)
        else:
            path = api.figure(run, name, output or f"{name}.svg", width=width, dpi=dpi, listener=listener)
    if name is not None:
        print_json({"figure": name, "path": str(path)}) if as_json else typer.echo(str(path))
    elif as_json:
        print_json(list(names))
    else:
        typer.echo("\n".join(names))
