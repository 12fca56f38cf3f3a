"""Commands on a matrix that is there: matrix, traits, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from traitmap.cli.app import (
    AsJson,
    MatrixOrRun,
    RunFolder,
    app,
    listed,
    one_of,
    print_json,
    print_table,
    shown_progress,
    shown_wait,
)

SCALES = ("standard", "center", "logit", "gain", "double")
ROTATIONS = ("none", "varimax", "oblimin")
MASKS: dict[str, Any] = {"auto": "auto", "yes": True, "no": False, "true": True, "false": False}


@app.command()
def matrix(
    run: MatrixOrRun,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write the wide table, with a row __baseline__.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every cell as a long table.")] = None,
    measured_only: Annotated[
        bool, typer.Option("--measured-only", help="Leave out cells that a run on a budget predicted.")
    ] = False,
) -> None:
    """The transfer matrix: what each adapter does to each target, with intervals and tests.

    Example: traitmap matrix runs/mini --csv matrix.csv
    """
    from traitmap import api
    from traitmap import matrix_exports as records

    with shown_wait("matrix"):
        found = api.matrix_of(run, predicted=not measured_only)
    if csv is not None:
        records.to_csv(found, csv)
        if found.predicted.any():
            typer.echo(
                f"{csv}: {found.predicted.sum()} predicted cells are left empty, since a wide table cannot "
                "mark them; --parquet and --json hold them, marked.",
                err=True,
            )
    if parquet is not None:
        records.to_parquet(found, parquet)
    if as_json:
        print_json(records.to_json(found))
    elif csv is None and parquet is None:
        from traitmap.report.tables import matrix_table

        print_table(matrix_table(found))


@app.command()
def traits(
    run: MatrixOrRun,
    as_json: AsJson = False,
    scale: Annotated[str, typer.Option(help="standard, center, logit, gain or double.")] = "standard",
    components: Annotated[str, typer.Option(help="auto, or a number.")] = "auto",
    rotate: Annotated[str, typer.Option(help="none, varimax or oblimin.")] = "none",
    mask_diagonal: Annotated[
        str, typer.Option(help="auto, yes or no: leave out cells of a source on its own target.")
    ] = "auto",
    row_name: Annotated[
        str | None, typer.Option(help="Column of a CSV that names its rows (default: the first).")
    ] = None,
    drop: Annotated[str, typer.Option(help="Columns of a CSV to leave out, with commas between.")] = "",
    orientation: Annotated[
        str, typer.Option(help="rows: sources are rows of a CSV; columns: they are columns.")
    ] = "rows",
    claimed_share: Annotated[
        float | None, typer.Option(help="A share of variance that somebody claims, to be held against noise.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of resampling and permutations.")] = 0,
) -> None:
    """Latent traits, how many the data support, and what cannot be told.

    Example: traitmap traits runs/mini --rotate varimax
    """
    from traitmap import api
    from traitmap.analysis.traits import decompose
    from traitmap.analysis.traits_json import to_json

    reading: dict[str, Any] = {"orientation": orientation, "row_name": row_name, "drop": listed(drop)}
    asked = {
        "scale": one_of("scale", scale, SCALES),
        "components": components_of(components),
        "rotate": one_of("rotate", rotate, ROTATIONS),
        "mask_diagonal": MASKS[one_of("mask-diagonal", mask_diagonal, tuple(MASKS))],
    }
    with shown_wait("traits"):
        table = api.matrix_of(run, **reading)
        names = api.trait_names(table)
        found = decompose(table, names=names, claimed_share=claimed_share, seed=seed, **asked)
    if as_json:
        print_json(to_json(found))
        return
    from traitmap.report.tables import traits_table

    print_table(traits_table(found))


@app.command()
def report(
    run: RunFolder,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
    as_json: AsJson = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Leave out why and which source, which take longest.")
    ] = False,
    parser: Annotated[
        str | None, typer.Option(help="A spaCy pipeline, by name or folder, for syntactic relations too.")
    ] = None,
) -> None:
    """Write the report: one HTML file that needs nothing else.

    Example: traitmap report runs/mini
    """
    from traitmap import api

    with shown_progress() as listener:
        written = api.open_run(run).report(output, fast=fast, parser=parser, listener=listener)
    print_json({"report": str(written)}) if as_json else typer.echo(str(written))


def components_of(text: str) -> Any:
    return int(text) if text.isdigit() else one_of("components", text, ("auto", "a whole number"))
