"""Commands on combinations of sources, and on steps of a training: which to make, which to keep."""

from __future__ import annotations

from typing import Annotated

import typer

from traitmap import api
from traitmap import report as tables
from traitmap.cli.app import (
    NO_READING,
    AsJson,
    MatrixOrRun,
    Reading,
    app,
    listed,
    print_json,
    print_table,
    shown_progress,
    subject_of,
    takes_table,
)

Margin = Annotated[
    float, typer.Option(help="What a target to keep may lose: points; elsewhere as much of its usual gain.")
]


@app.command()
@takes_table
def mix(
    run: MatrixOrRun,
    as_json: AsJson = False,
    targets: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="Targets to gain on, by their mean; without it all that are not kept."
        ),
    ] = "",
    keep: Annotated[
        str, typer.Option(metavar="NAME,...", help="Targets that may lose at most the margin.")
    ] = "",
    margin: Margin = 2.0,
    method: Annotated[
        str | None,
        typer.Option(help="concat, merge, or one of PEFT's ways to merge; without it what the run measured."),
    ] = None,
    most: Annotated[int, typer.Option("--max", min=2, help="Sources in a combination at most.")] = 3,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 5,
    probe: Annotated[
        int,
        typer.Option(
            min=0, help="Add so many of the most informative to the run, measure them, and use that."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of permutations.")] = 0,
    reading: Reading = NO_READING,
) -> None:
    """Which mixture or merge of sources for some targets, without harm to others; before it is paid for.

    Example: traitmap mix runs/mini --targets stars,inference --keep toxicity
    Example: traitmap mix runs/mini --method merge --probe 6
    """
    subject = run if run.suffix in (".yaml", ".yml") else subject_of(run, reading)
    with shown_progress() as listener:
        result = api.mix(
            subject,
            targets=listed(targets),
            keep=listed(keep),
            margin=margin,
            method=method,
            most=most,
            top=top,
            probe=probe,
            seed=seed,
            listener=listener,
        )
    print_json(result.to_json()) if as_json else print_table(tables.mix_view(result))


@app.command()
@takes_table
def checkpoints(
    run: MatrixOrRun,
    as_json: AsJson = False,
    targets: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Targets over whose mean a step is chosen; without it all that are shares.",
        ),
    ] = "",
    keep: Annotated[
        str, typer.Option(metavar="NAME,...", help="Targets that may not clearly lose more than the margin.")
    ] = "",
    margin: Margin = 2.0,
    predict: Annotated[
        str,
        typer.Option(
            metavar="SOURCE@STEP,...", help="Steps that were not kept: what they would give, predicted."
        ),
    ] = "",
    reading: Reading = NO_READING,
) -> None:
    """Where the gain of a training is lost again, and which of the steps that were kept to take.

    Example: traitmap checkpoints runs/mini --targets reviews,stars --keep toxicity
    Example: traitmap checkpoints runs/mini --predict reviews@45,stars@20
    """
    found = api.checkpoints(
        subject_of(run, reading),
        targets=listed(targets),
        keep=listed(keep),
        margin=margin,
        predict=listed(predict),
    )
    print_json(found.to_json()) if as_json else print_table(tables.checkpoints_view(found))
