"""The command that chooses: recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traitmap.cli.app import AsJson, app, listed, one_of, print_json, print_table, shown_progress, shown_wait
from traitmap.cli.completing import run_folders, targets_of_run

VALUES = ("score", "relchange")


@app.command()
def recommend(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN_OR_MATRIX",
            help="A run folder, or a CSV or Parquet matrix.",
            autocompletion=run_folders,
        ),
    ] = None,
    as_json: AsJson = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="A target of the matrix; its column is hidden from the prediction.",
            autocompletion=targets_of_run,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="A few examples of a new target: JSONL rows {input, output, choices}."),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Look at the outputs of the examples too.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="How many sources to show.")] = 5,
    care: Annotated[
        str, typer.Option(metavar="NAME,...", help="Targets or traits whose change is shown beside.")
    ] = "",
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.csv|measured",
            help="Measured gains on the target (columns source, gain, and stderr or n, in the matrix's own "
            "unit), or those of the matrix itself.",
        ),
    ] = None,
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

    Example: traitmap recommend runs/mini --examples my-task.jsonl
    Example: traitmap recommend --evaluate matrix.csv --texts texts.jsonl
    """
    from traitmap import api

    if (run is None) == (evaluate is None):
        raise typer.BadParameter(
            "give a run or matrix to recommend from, or one to judge recommenders on",
            param_hint="RUN_OR_MATRIX or --evaluate",
        )
    if run is not None:
        unit = one_of("values", values, VALUES)
        with shown_wait("recommend"):
            advised = api.recommend(
                run,
                target=target,
                examples=examples,
                texts=texts,
                labels=labels,
                probe=probe,
                care=listed(care),
                top=top,
                values=unit,
                seed=seed,
            )
        if as_json:
            print_json(advised.to_json())
            return
        from traitmap.report.recommend_tables import recommendation_table

        print_table(recommendation_table(advised))
        return

    assert evaluate is not None
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
