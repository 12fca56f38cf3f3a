"""Commands around one study and its run folder: init, check, run, status, pretrain, query, gc, view.

Other people's results come in by ``import`` and ours go out by ``export``.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitmap import api
from traitmap import report as tables
from traitmap.cli.app import (
    NO_READING,
    AsJson,
    MatrixOrRun,
    Reading,
    RunFolder,
    StudyFile,
    app,
    listed,
    one_of,
    print_json,
    print_table,
    shown_progress,
    subject_of,
    takes_table,
    tell,
)
from traitmap.errors import RunError, UserError
from traitmap.jsonable import jsonable
from traitmap.study.init import write_template
from traitmap.terminal import shown_wait
from traitmap.wording import counted

if TYPE_CHECKING:
    from traitmap.runs.query import Answered
    from traitmap.runs.status import RunStatus


SHOWN = 100  # rows of a query that the terminal gets

Copies = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Copies of hub datasets and of the base, org__name/ each, for use without the hub.",
    ),
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for the study.")],
    template: Annotated[str, typer.Option(help="mini, variations, paper or local-data.")] = "local-data",
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Data files of yours, to write a study over."),
    ] = None,
) -> None:
    """Write a commented study.yaml to edit.

    With --from, a study over the data files in a folder: what each is, guessed, with sources, targets and
    prompts; what was left out stands at its end, with the reason.

    Example: traitmap init my-study
    """
    if from_ is not None:
        from traitmap.data.folder_study import write_study_of_folder  # reads data: only here

        with shown_wait("init"):
            path = write_study_of_folder(folder, from_)
    else:
        path = write_template(folder, template)
    typer.echo(f"Wrote {path}. Next: traitmap check {path}")


@app.command()
def check(
    study: Annotated[Path | None, typer.Argument(metavar="STUDY", help="A study file (YAML).")] = None,
    as_json: AsJson = False,
    measure: Annotated[
        bool,
        typer.Option(
            help="Time a few tokens to estimate the run; without it nothing is downloaded for that."
        ),
    ] = True,
    data: Copies = None,
    plan: Annotated[
        str | None,
        typer.Option(metavar="200x100", help="Adapters x targets: what such a matrix would cost, on paper."),
    ] = None,
    model_shape: Annotated[
        str | None, typer.Option(help="With --plan: llama-1b, llama-3b or llama-8b on 80 GB GPUs.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="With --plan: GPUs, or workers of any kind.")] = 1,
    items: Annotated[int | None, typer.Option(help="With --plan: items of each target.")] = None,
    group_size: Annotated[
        int | None, typer.Option(help="With --plan: adapters trained together, at most.")
    ] = None,
) -> None:
    """Find all faults at once; show what will be trained and evaluated, time and disk.

    With --plan, what a matrix of any size would take on many GPUs: by the costs that a run of STUDY measured,
    or, without one, by those assumed of --model-shape.

    Example: traitmap check my-study/study.yaml
    """
    if plan is not None:
        grown = api.plan_growth(
            plan, workers=gpus, model_shape=model_shape, study=study, items=items, group_size=group_size
        )
        print_json(grown.to_json()) if as_json else print_table(tables.growth_view(grown))
        return
    if study is None:
        raise typer.BadParameter("missing; it may be left out only with --plan", param_hint="STUDY")
    with shown_wait("check"):
        found = api.check(study, measure=measure, data=data)
    if as_json:
        print_json(found.to_json())
        return
    print_table(
        tables.check_preview(
            sources=found.sources,
            targets=found.targets,
            adapters=found.outlook.trainings,
            cells=found.cells_to_evaluate,
            estimate=found.estimate,
            lengths=found.lengths,
            contamination=found.contamination,
            notes=found.notes,
            warnings=found.warnings,
        )
    )


@app.command()
def run(
    study: StudyFile,
    output: Annotated[Path | None, typer.Option(help="Folder for runs, instead of the study's own.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Share of the whole price, such as 0.25: measure what tells most, predict the rest."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of what a run on a budget draws.")] = 0,
    data: Copies = None,
    as_json: AsJson = False,
    executor: Annotated[
        str, typer.Option(help="local, or ray: workers here or, with --address, on a cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: host:port, or auto for the one that is here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="How many; by default one for each GPU.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of a worker's arithmetic.")] = None,
    group_size: Annotated[int | None, typer.Option(help="Adapters trained together, at most.")] = None,
    save_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="A kill costs no more than so many minutes of a training pass; 0: all of it."
        ),
    ] = 5.0,
) -> None:
    """Train, evaluate, store. Run it again after an interruption: nothing finished is lost.

    Example: traitmap run my-study/study.yaml --budget 0.25
    """
    with shown_progress() as listener:
        done = api.run(
            study, listener, output=output, budget=budget, seed=seed, data=data, executor=executor,
            address=address, workers=workers, threads=threads, group_size=group_size,
            save_minutes=save_minutes, tell=lambda line: tell(f"! {line}"), announce=tell,
        )  # fmt: skip
    if budget is not None and not as_json:
        print_table(tables.spending_view(done.spent() or {}))
    if as_json:
        print_json({**done.status().to_json(), "spent": done.spent() if budget is not None else None})
    tell_end(done.status())


@app.command()
def forecast(
    study: StudyFile,
    run: Annotated[
        Path | None,
        typer.Option(help="A finished run, or a table of scores, on which the forecast is judged."),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option("--from", help="Judge a forecast that --json wrote; compute nothing."),
    ] = None,
    data: Copies = None,
    sample: Annotated[int, typer.Option(min=16, help="Texts and items of each source and target.")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of what is drawn.")] = 0,
    csv: Annotated[Path | None, typer.Option(help="Write one row for each pair.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a training step on each source would do to each target, from the base alone; nothing is trained.

    Example: traitmap forecast my-study/study.yaml --run runs/my-study
    """
    with shown_progress() as listener:
        found = api.forecast(
            study, data=data, run=run, earlier=earlier, sample=sample, seed=seed, listener=listener
        )
    if csv is not None:
        from traitmap.runs.files import write_output  # numpy comes with it

        write_output(csv, found.to_frame().to_csv(index=False, lineterminator="\n"))
    if as_json:
        print_json(found.to_json())
    elif csv is None:
        print_table(tables.forecast_view(found))
    else:
        tell(found.worth)


def tell_end(status: RunStatus) -> None:
    """What came of a run, on standard error; exit code 3 where a part of it failed."""
    part = f", {status.partial.done} in part" if status.partial.done else ""
    tell(
        f"{status.folder}: {status.adapters.done} adapters, {status.cells.done} cells done{part}; "
        f"{status.adapters.failed} adapters, {status.cells.failed + status.partial.failed} cells failed."
    )
    if status.failed:
        for failure in status.failures:
            where = failure.source if failure.target is None else f"{failure.source} -> {failure.target}"
            tell(f"  {where}: {failure.reason}")
        raise typer.Exit(3)


@app.command()
def status(
    run: RunFolder,
    as_json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hold every file against its checksum; name the damaged ones.")
    ] = False,
) -> None:
    """What of a run is done, failed and missing.

    With --verify the exit code is 3 where a file is damaged, unreadable or missing.

    Example: traitmap status runs/mini
    """
    try:
        state = api.status(run, verify=verify)
    except RunError as error:
        from traitmap.runs.status import damaged_files  # only where the ledger itself cannot be read
        from traitmap.runs.store import open_store

        if not verify or not (damaged := damaged_files(open_store(run))):
            raise
        tell(str(error))
        for path, why in damaged.items():
            tell(f"damaged: {path}: {why}")
        raise typer.Exit(3) from None
    print_json(state.to_json()) if as_json else print_table(tables.status_view(state))
    if verify and (state.damaged or state.unreadable or state.absent):
        raise typer.Exit(3)


@app.command()
def pretrain(
    texts: Annotated[list[Path], typer.Argument(metavar="TEXT...", help="Text files to learn from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    hidden_size: Annotated[int, typer.Option()] = 192,
    num_layers: Annotated[int, typer.Option()] = 4,
    num_attention_heads: Annotated[int, typer.Option()] = 6,
    intermediate_size: Annotated[int, typer.Option()] = 512,
    vocab_size: Annotated[int, typer.Option()] = 1536,
    context: Annotated[int, typer.Option(help="Positions that the model has.")] = 512,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a training row.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Rows of an optimizer step.")] = 16,
    steps: Annotated[int, typer.Option()] = 1000,
    learning_rate: Annotated[float, typer.Option()] = 3e-3,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    arithmetic: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; fixed ones give the same weights.")
    ] = None,
) -> None:
    """Train a small base model from text files: a tokenizer and a Llama-shaped model.

    Example: traitmap pretrain corpus.txt -o my-base --steps 2000
    """
    kind = one_of("arithmetic", arithmetic, ("auto", "float32", "bfloat16"))
    with shown_progress() as listener:
        done = api.pretrain(
            texts, output, listener,
            hidden_size=hidden_size, num_layers=num_layers, num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size, vocab_size=vocab_size, context=context,
            sequence_length=sequence_length, batch_size=batch_size, steps=steps,
            learning_rate=learning_rate, seed=seed, device=device, arithmetic=kind, threads=threads,
        )  # fmt: skip
    tell(
        f"{output}: {done.parameters:,} parameters, {done.tokens:,} tokens seen, "
        f"validation loss {done.validation_loss:.3f} nats per token"
    )


@app.command()
def query(
    run: RunFolder,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, in DuckDB's SQL.")],
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Parquet file.")] = None,
    seconds: Annotated[float, typer.Option(help="Stop after so many seconds.")] = 600.0,
    memory: Annotated[int, typer.Option(metavar="MB", help="Take so much memory at most.")] = 4096,
) -> None:
    """Ask a run in SQL: outcomes, cells, adapters, sources, targets, texts.

    The table outcomes has a row for each item of each cell: source, seed, target, item, item_digest, score,
    correct, prediction, gold, choice_logprobs, text, parsed, output_tokens, stopped. The base is the source
    __baseline__ and has no seed. A score that is not known is NaN: where not isnan(score). Nothing but the
    run can be read, and nothing written.

    Example: traitmap query runs/mini "select source, target, avg(score) from outcomes group by all"
    """
    with api.streamed_query(run, sql, seconds=seconds, memory_mb=memory) as answer:
        for path, why in answer.left_out.items():
            tell(f"{path}: damaged ({why}); left out. `traitmap run` computes it anew.")
        names = answer.rows.schema.names
        if parquet is not None:
            from traitmap.runs.query import write_rows  # DuckDB: only here

            write_rows(answer.rows, parquet)
        elif as_csv:
            csv.writer(sys.stdout, lineterminator="\n").writerows(chain([names], _rows(answer)))
        elif as_json:
            if len(set(names)) < len(names):
                raise UserError(f"Two columns have one name ({', '.join(names)}); name them apart with AS.")
            rows = [dict(zip(names, row, strict=True)) for row in _rows(answer)]
            print_json(jsonable(rows), default=_plain)
        else:
            first = list(islice(_rows(answer, SHOWN + 1), SHOWN + 1))
            print_table(tables.answer_view(names, first[:SHOWN], more=len(first) > SHOWN))


@app.command()
def gc(
    run: RunFolder,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what nothing needs: cells and adapters of former versions, leftovers, quarantine.

    Example: traitmap gc runs/mini --delete
    """
    waste = api.gc(run, delete=delete)
    if as_json:
        print_json({"deleted": delete, "waste": jsonable(waste)})
    else:
        print_table(tables.waste_view(waste, deleted=delete))


def _rows(answer: Answered, most: int | None = None) -> Iterator[tuple[Any, ...]]:
    """The rows of an answer, of each batch at most so many."""
    for batch in answer.rows:
        yield from zip(*(column.slice(0, most).to_pylist() for column in batch.columns), strict=True)


def _plain(value: Any) -> Any:
    """A value of DuckDB as JSON has it: decimals are numbers, dates and the like are text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else jsonable(float(value))
    return str(value)


@app.command()
@takes_table
def view(
    run: MatrixOrRun,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: a free one.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJson = False,
    reading: Reading = NO_READING,
) -> None:
    """Show the report on this machine alone, and follow a run in progress until there is one.

    Example: traitmap view runs/mini --open
    Example: traitmap view scores.csv
    """
    with api.view(subject_of(run, reading), port=port) as viewing:
        print_json({"address": viewing.address}) if as_json else typer.echo(viewing.address)
        sys.stdout.flush()
        tell("Only this machine can reach it. Ctrl-C ends the view, not the run.")
        if open_:
            typer.launch(viewing.address)
        viewing.wait()


@app.command(name="import")
@takes_table
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
    reading: Reading = NO_READING,
) -> None:
    """Results of lm-eval, inspect_ai, lighteval, HELM, OpenCompass, Every Eval Ever, or tables, as a run.

    Example: traitmap import lm_eval_results/ -o runs/ours
    """
    metrics = dict(_pair(text) for text in metric or [])
    with shown_wait("import"):
        done = api.import_results(
            paths, output, base=base, metrics=metrics, allow=listed(allow), reading=reading
        )
    for note in done.notes:
        tell(note)
    if as_json:
        print_json(jsonable(done))
        return
    named = "a base row" if done.base == "base" else f"base {done.base}"
    known = named if done.base else "no base (--base says which row or model it is)"
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
@takes_table
def export(
    run: MatrixOrRun,
    output: Annotated[Path, typer.Option("--output", "-o", help="A file (csv, parquet) or a folder.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="lm-eval, every-eval-ever, csv, parquet, atlas, model-card, mlflow or trackio; of a study "
            "lm-eval-task.",
        ),
    ] = "lm-eval",
    source: Annotated[
        list[str] | None, typer.Option(help="Only these model cards; may be given again.")
    ] = None,
    as_json: AsJson = False,
    reading: Reading = NO_READING,
) -> None:
    """A run as lm-eval results, Every Eval Ever records, tables, model cards, or in a tracker's local store.

    Of a study file, --format lm-eval-task writes its targets over plain data as task files of lm-eval.

    Example: traitmap export runs/mini --format model-card -o cards
    """
    with shown_wait("export"):
        subject = subject_of(run, reading)
        places = api.export(subject, output, format=format_, sources=source or ())
        written = [str(place) for place in places]
    print_json(written) if as_json else typer.echo("\n".join(written))
