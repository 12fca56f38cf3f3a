"""Commands on a run or a table of scores: answer, matrix, traits, profile, explain, recommend, report, ..."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from traitmap import api
from traitmap import report as tables
from traitmap.cli.app import (
    NO_READING,
    AsJson,
    MatrixOrRun,
    Reading,
    app,
    figures_of_run,
    listed,
    one_of,
    print_json,
    print_table,
    run_folders,
    shown_progress,
    subject_of,
    takes_table,
    targets_of_run,
    tell,
)
from traitmap.progress import silent
from traitmap.terminal import printable, shown_wait
from traitmap.wording import counted

SCALES = ("standard", "center", "logit", "gain", "double")
ROTATIONS = ("none", "varimax", "oblimin")
MASKS: dict[str, Any] = {"auto": "auto", "yes": True, "no": False, "true": True, "false": False}
UNITS = ("points", "standard", "auto")
VALUES = ("score", "relchange")

Place = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET_OR_RUN", help="A run folder, a study file, or a JSONL file with task and input."
    ),
]


@app.command()
@takes_table
def matrix(
    run: MatrixOrRun,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write the wide table, with a row __baseline__.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every cell as a long table.")] = None,
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals", help="Print the 95 % interval of every gain; with --csv write the long table."
        ),
    ] = False,
    measured_only: Annotated[
        bool, typer.Option("--measured-only", help="Leave out cells that a run on a budget predicted.")
    ] = False,
    reading: Reading = NO_READING,
) -> None:
    """The transfer matrix: what each adapter does to each target, with intervals and tests.

    Example: traitmap matrix runs/mini --csv matrix.csv
    """
    subject, record = subject_of(run, reading), None
    with shown_wait("matrix"):
        table = api.read_matrix(subject, predicted=not measured_only)
        if not as_json and csv is None and parquet is None:
            record = api.answer(subject, why=False, date=api.date_of(run), listener=silent)
    if csv is not None:
        table.to_csv(csv, intervals=intervals)
        if table.predicted.any() and not intervals:
            tell(
                f"{csv}: {table.predicted.sum()} predicted cells are left empty, since a wide table cannot "
                "mark them; --parquet and --json hold them, marked."
            )
        if partial := sum(cell.seed is None and cell.asked_of > 0 for cell in table.cells):
            where = (
                "columns asked and asked_of"
                if intervals
                else "a wide table cannot mark them, --intervals can"
            )
            rest = "rests" if partial == 1 else "rest"
            tell(f"{csv}: {counted(partial, 'cell')} {rest} on a part of the items; {where}.")
    if parquet is not None:
        table.to_parquet(parquet)
    if as_json:
        print_json(table.to_json())
    elif record is not None:
        print_table(tables.matrix_view(table, record, intervals=intervals))


@app.command()
@takes_table
def answer(
    run: MatrixOrRun,
    as_json: AsJson = False,
    target: Annotated[
        str | None, typer.Option(help="Speak of one target alone.", autocompletion=targets_of_run)
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="JSONL rows of task, input, output, choices; a run has its own.")
    ] = None,
    reading: Reading = NO_READING,
) -> None:
    """What to pick, what to avoid, what can be trusted, why, and what is uncertain: one screen.

    Example: traitmap answer runs/mini
    Example: traitmap answer runs/mini --target reviews
    """
    subject = subject_of(run, reading)
    with shown_wait("answer"):
        record = api.answer(subject, target=target, texts=texts, date=api.date_of(run), listener=silent)
    print_json(record.to_json()) if as_json else print_table(tables.first_screen_view(record))


@app.command()
@takes_table
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_MATRIX...", help="Two run folders, studies or tables, or more."),
    ],
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write a row for each cell and run.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
    names: Annotated[str, typer.Option(help="Names of the runs, in their order, with commas.")] = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show every cell and every condition that was not the same.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of permutations and resampling.")] = 0,
    reading: Reading = NO_READING,
) -> None:
    """Several runs held against each other: what holds in all, what differs, do traits and picks agree.

    Example: traitmap compare runs/mini runs/mini --names first,second
    """
    with shown_wait("compare"):
        result = api.compare([subject_of(run, reading) for run in runs], names=listed(names), seed=seed)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        result.to_frame().to_csv(csv, index=False)
    if html is not None:
        tell(f"Page: {tables.write_page(html, tables.comparison_page(result))}")
    print_json(result.to_json()) if as_json else print_table(tables.comparison_view(result, verbose=verbose))


@app.command()
@takes_table
def traits(
    run: MatrixOrRun,
    as_json: AsJson = False,
    scale: Annotated[str, typer.Option(help="standard, center, logit, gain or double.")] = "standard",
    components: Annotated[str, typer.Option(help="auto, or a number.")] = "auto",
    rotate: Annotated[str, typer.Option(help="none, varimax or oblimin.")] = "none",
    mask_diagonal: Annotated[
        str, typer.Option(help="auto, yes or no: leave out cells of a source on its own target.")
    ] = "auto",
    variations: Annotated[
        bool, typer.Option("--variations", help="Let sources that are made from others take part.")
    ] = False,
    near_copies: Annotated[
        bool, typer.Option("--near-copies", help="Let sources take part that agree with others beyond noise.")
    ] = False,
    least_share: Annotated[
        float, typer.Option(help="Share of the variance that a component must take away to count as a trait.")
    ] = 0.02,
    claimed_share: Annotated[
        float | None, typer.Option(help="A share of variance that somebody claims, to be held against noise.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of resampling and permutations.")] = 0,
    reading: Reading = NO_READING,
) -> None:
    """Latent traits, how many the data support, and what cannot be told.

    Example: traitmap traits runs/mini --rotate varimax
    """
    settings: dict[str, Any] = {
        "scale": one_of("scale", scale, SCALES),
        "components": (
            int(components)
            if components.isdigit()
            else one_of("components", components, ("auto", "a whole number"))
        ),
        "rotate": one_of("rotate", rotate, ROTATIONS),
        "mask_diagonal": MASKS[one_of("mask-diagonal", mask_diagonal, tuple(MASKS))],
        "variations": variations,
        "near_copies": near_copies,
        "least_share": least_share,
    }
    with shown_wait("traits"):
        result = api.traits(subject_of(run, reading), claimed_share=claimed_share, seed=seed, **settings)
    print_json(result.to_json()) if as_json else print_table(tables.traits_view(result))


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
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
) -> None:
    """What the texts of datasets say of them, and what the answers of a run show beyond their scores.

    Example: traitmap profile runs/mini
    Example: traitmap profile texts.jsonl --parser en_core_web_sm --csv profiles.csv
    """
    with shown_progress() as listener:
        result = api.profile(
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
        for written in api.write_profile(result, csv):
            tell(f"wrote {written}")
    if as_json:
        print_json(result.to_json())
    elif csv is None:
        print_table(tables.profile_view(result))


@app.command()
@takes_table
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
            help="points, or standard: each target's gains in standard deviations; auto: points where the "
            "metrics of all targets are known and shares."
        ),
    ] = "auto",
    near_copies: Annotated[
        bool, typer.Option("--near-copies", help="Let sources take part that agree with others beyond noise.")
    ] = False,
    permutations: Annotated[int, typer.Option(help="Permutations of tasks.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")] = 0,
    reading: Reading = NO_READING,
) -> None:
    """Why gains are what they are: hidden and surface properties of pairs, odd cells, asymmetry.

    Example: traitmap explain runs/mini
    """
    subject = subject_of(run, reading)
    with shown_progress() as listener:
        result = api.explain(
            subject,
            texts=texts,
            parser=parser,
            perplexity=perplexity,
            listener=listener,
            own=pairs_of(own or []),
            units=None if units == "auto" else one_of("units", units, UNITS),
            near_copies=near_copies,
            n_permutations=permutations,
            seed=seed,
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_table(tables.explanation_view(result, api.verdicts(subject)))


def pairs_of(texts: list[str]) -> tuple[tuple[str, str], ...]:
    """``a:b`` as ("a", "b"), for each."""
    for text in texts:
        if text.count(":") != 1 or text.startswith(":") or text.endswith(":"):
            raise typer.BadParameter(f"{text!r}; give SOURCE:TARGET", param_hint="--own")
    return tuple((text.split(":")[0], text.split(":")[1]) for text in texts)


@app.command()
@takes_table
def recommend(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN_OR_MATRIX",
            help="A run folder, or a table of scores (CSV, Parquet, Excel, ...).",
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
    encoder: Annotated[
        str | None,
        typer.Option(help="A sentence encoder of the texts, by folder or name; minilm is one in a package."),
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="NPZ file with a vector, or several, under each task's name.")
    ] = None,
    similarity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="How alike tasks are by anybody's measure: source, target, numbers."
        ),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(
            help="Folder with each source's LoRA (a PEFT directory under its name): weights compared."
        ),
    ] = None,
    prior: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MATRIX_OR_ATLAS",
            help="What others measured: a run, a table of scores or an atlas; may be given again.",
        ),
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
        str,
        typer.Option(
            metavar="score|relchange|gains",
            help="Predict gains in the score, or relative changes; gains: the cells of a table are gains.",
        ),
    ] = "score",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of folds, trees and resampling.")] = 0,
    reading: Reading = NO_READING,
) -> None:
    """Which source for a target; with --evaluate, how far such recommendations can be trusted.

    Example: traitmap recommend runs/mini --examples my-task.jsonl
    Example: traitmap recommend --evaluate matrix.csv --texts texts.jsonl
    Example: traitmap recommend runs/mini --target stars --prior other/runs/mini --prior atlas
    """
    if (run is None) == (evaluate is None):
        raise typer.BadParameter(
            "give a run or matrix to recommend from, or one to judge recommenders on",
            param_hint="RUN_OR_MATRIX or --evaluate",
        )
    unit = one_of("values", values, (*VALUES, "scores", "gains"))
    if unit in ("scores", "gains"):
        reading, unit = {**reading, "values": unit}, "score"
    if run is not None:
        subject, record = subject_of(run, reading), None
        with shown_wait("recommend"):
            ranked = api.recommend(
                subject,
                target=target,
                examples=examples,
                texts=texts,
                encoder=encoder,
                embeddings=embeddings,
                similarity=similarity,
                adapters=adapters,
                prior=prior or (),
                labels=labels,
                probe=probe,
                care=listed(care),
                top=top,
                values=unit,
                seed=seed,
                listener=silent,
            )
            if target is not None and not as_json:
                record = api.answer(subject, target=target, why=False, listener=silent)
        print_json(ranked.to_json()) if as_json else print_table(tables.recommendation_view(ranked, record))
        return

    assert evaluate is not None
    with shown_progress() as listener:
        judged = api.evaluate_recommenders(
            subject_of(evaluate, reading),
            texts=texts,
            encoder=encoder,
            embeddings=embeddings,
            similarity=similarity,
            adapters=adapters,
            prior=prior or (),
            holdout=holdout,
            values=unit,
            seed=seed,
            listener=listener,
        )
    print_json(judged.to_json()) if as_json else print_table(tables.evaluation_view(judged))


@app.command()
@takes_table
def atlas(
    action: Annotated[str, typer.Argument(metavar="add|list|check", help="What to do with it.")],
    folder: Annotated[Path, typer.Argument(help="The atlas, a folder of matrices.")],
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN_OR_MATRIX",
            help="What to add: a run folder, or a table of scores.",
            autocompletion=run_folders,
        ),
    ] = None,
    as_json: AsJson = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the matrix (default: the run's or file's).")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="JSONL rows {task, input, output} of a table's tasks, for its profile."),
    ] = None,
    reading: Reading = NO_READING,
) -> None:
    """A folder of matrices that serve as a prior for recommendations: add one, list them, check them all.

    Of texts only a profile is kept, of which no text can be read.

    Example: traitmap atlas add atlas runs/mini
    Example: traitmap atlas list atlas
    """
    if action not in ("add", "list", "check"):
        raise typer.BadParameter(f"{action!r}; legal: add, list, check", param_hint="ACTION")
    if (run is None) == (action == "add"):
        raise typer.BadParameter("add takes a run or matrix, list and check none", param_hint="RUN_OR_MATRIX")
    if run is not None:
        written = str(
            api.atlas_add(
                folder,
                subject_of(run, reading),
                name=name or (run.name if run.is_dir() else run.stem),
                texts=texts,
            )
        )
        print_json(written) if as_json else typer.echo(written)
        return
    found = api.atlas_report(folder)
    print_json(found.to_json()) if as_json else print_table(tables.atlas_view(found))
    if found.faults:
        raise typer.Exit(2)


@app.command()
@takes_table
def report(
    run: MatrixOrRun,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
    as_json: AsJson = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Leave out why and which source, which take longest.")
    ] = False,
    parser: Annotated[
        str | None, typer.Option(help="A spaCy pipeline, by name or folder, for syntactic relations too.")
    ] = None,
    reading: Reading = NO_READING,
) -> None:
    """Write the report: one HTML file that needs nothing else.

    Example: traitmap report runs/mini
    Example: traitmap report scores.csv -o report.html
    """
    subject = subject_of(run, reading)
    if not isinstance(subject, Path):  # the page tells the day of the file's scores
        subject = replace(subject, conditions={**subject.conditions, "date": api.date_of(run)})
    with shown_progress() as listener:
        written = api.write_report(
            subject, output or api.report_path(run), fast=fast, parser=parser, listener=listener
        )
    print_json({"report": str(written)}) if as_json else typer.echo(str(written))


@app.command()
@takes_table
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
    list_: Annotated[
        bool, typer.Option("--list", help="Print the names of the figures that there can be.")
    ] = False,
    as_json: AsJson = False,
    reading: Reading = NO_READING,
) -> None:
    """One figure of the report as a file, without a browser.

    Example: traitmap figure runs/mini matrix -o matrix.pdf --width 180
    Example: traitmap figure runs/mini --list
    """
    if list_ == (name is not None):
        raise typer.BadParameter("give the name of a figure, or --list", param_hint="NAME")
    subject = subject_of(run, reading)
    if name is None:
        names = api.figure_names(subject)
        room = max(map(len, names))
        lines = (f"{one:{room}}  {printable(title)}" for one, title in names.items())
        print_json(names) if as_json else typer.echo("\n".join(lines))
        return
    with shown_progress() as listener:
        path = api.figure(subject, name, output or f"{name}.svg", width=width, dpi=dpi, listener=listener)
    print_json({"figure": name, "path": str(path)}) if as_json else typer.echo(str(path))
