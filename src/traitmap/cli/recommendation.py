"""The command that chooses: recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traitmap.cli.app import AsJson, app, one_of, print_json, print_table, shown_progress

VALUES = ("score", "relchange")


@app.command()
def recommend(
    as_json: AsJson = False,
    evaluate: Annotated[
        Path | None,
        typer.Option(
            metavar="MATRIX_OR_RUN",
            help="Judge every recommender on a matrix by holding parts of it out, beside chance.",
        ),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="JSONL rows {task, input, output, choices} of sources and targets.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="NPZ file with a vector, or several, under each task's name.")
    ] = None,
    holdout: Annotated[
        str,
        typer.Option(
            metavar="target|source|cell|GROUPS.csv",
            help="What is held out: one target (as a source too), one source, cells, or groups of targets "
            "(CSV: target, group; further columns are attributes in which targets are alike).",
        ),
    ] = "target",
    values: Annotated[
        str, typer.Option(metavar="score|relchange", help="Predict gains in the score, or relative changes.")
    ] = "score",
    seed: Annotated[int, typer.Option(help="Seed of folds, trees and resampling.")] = 0,
) -> None:
    """Which source for a target; with --evaluate, how far such recommendations can be trusted.

    Example: traitmap recommend --evaluate matrix.csv --texts texts.jsonl
    """
    if evaluate is None:
        raise typer.BadParameter("give a matrix or run to judge recommenders on", param_hint="--evaluate")
    from traitmap import api

    with shown_progress() as listener:
        found = api.evaluate_recommenders(
            evaluate,
            texts=texts,
            embeddings=embeddings,
            holdout=holdout,
            values=one_of("values", values, VALUES),
            seed=seed,
            listener=listener,
        )
    if as_json:
        print_json(found.to_json())
        return
    from traitmap.report.recommender_tables import evaluation_table

    print_table(evaluation_table(found))
