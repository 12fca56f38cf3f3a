"""The command that looks at texts and answers: profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traitmap.cli.app import AsJson, app, print_json, print_table, shown_progress

Place = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET_OR_RUN", help="A run folder, a study file, or a JSONL file with task and input."
    ),
]


@app.command()
def profile(
    dataset: Place,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write one row a dataset; of a run, cells and relations beside it.")
    ] = None,
    parser: Annotated[
        str | None, typer.Option(help="A spaCy pipeline, by folder or name: dependency relations.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="A sentence encoder of meaning, by folder or name; minilm is one in a package."),
    ] = None,
    style_encoder: Annotated[
        str | None, typer.Option(help="A sentence encoder of style, by folder or name.")
    ] = None,
    perplexity: Annotated[
        bool, typer.Option("--perplexity", help="Load the base and measure its perplexity.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="The base for perplexity, in place of the study's: a folder or hub id.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=2, help="Read at most so many texts of each dataset.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """What the texts of datasets say of them, and what the answers of a run show beyond their scores.

    Example: traitmap profile runs/mini
    Example: traitmap profile texts.jsonl --parser en_core_web_sm --csv profiles.csv
    """
    from traitmap import api

    with shown_progress() as listener:
        found = api.profile(
            dataset,
            parser=parser,
            encoder=encoder,
            style_encoder=style_encoder,
            perplexity=perplexity,
            base=base,
            sample=sample,
            seed=seed,
            listener=listener,
        )
    if csv is not None:
        for written in api.write_profile(found, csv):
            typer.echo(f"wrote {written}", err=True)
    if as_json:
        print_json(found.to_json())
    elif csv is None:
        from traitmap.report.profile_tables import profile_tables

        print_table(profile_tables(found))
