"""The command that asks why gains are what they are: explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traitmap.cli.app import AsJson, MatrixOrRun, app, one_of, print_json, print_table, shown_progress

UNITS = ("points", "standard", "auto")


@app.command()
def explain(
    run: MatrixOrRun,
    as_json: AsJson = False,
    texts: Annotated[
        Path | None, typer.Option(help="JSONL rows of task, input, output, choices; a run has its own.")
    ] = None,
    parser: Annotated[
        str | None, typer.Option(help="A spaCy pipeline, by name or folder, to compare syntax too.")
    ] = None,
    perplexity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="The base's, as `traitmap profile --perplexity --csv` writes it."
        ),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(help="SOURCE:TARGET that is the target's own training set under another name."),
    ] = None,
    units: Annotated[
        str,
        typer.Option(
            help="points, or standard: each target's gains in standard deviations; auto: standard where "
            "targets are in different units."
        ),
    ] = "auto",
    permutations: Annotated[int, typer.Option(help="Permutations of tasks.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Why gains are what they are: hidden and surface properties of pairs, odd cells, asymmetry.

    Example: traitmap explain runs/mini
    """
    from traitmap import api

    with shown_progress() as listener:
        found = api.explain(
            run,
            texts=texts,
            parser=parser,
            perplexity=perplexity,
            listener=listener,
            own=pairs_of(own or []),
            units=None if units == "auto" else one_of("units", units, UNITS),
            n_permutations=permutations,
            seed=seed,
        )
    if as_json:
        print_json(found.to_json())
        return
    from traitmap.report.explain_tables import explanation_table

    print_table(explanation_table(found))


def pairs_of(given: list[str]) -> tuple[tuple[str, str], ...]:
    """``a:b`` as ("a", "b")."""
    for text in given:
        if text.count(":") != 1 or text.startswith(":") or text.endswith(":"):
            raise typer.BadParameter(f"{text!r}; give SOURCE:TARGET", param_hint="--own")
    return tuple((text.split(":")[0], text.split(":")[1]) for text in given)
