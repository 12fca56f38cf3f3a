"""The command line: parse, one library call, print. Heavy imports happen inside the commands.

Data go to standard output, progress and messages to standard error. Exit codes: 0 done, 2 something
that the user can mend, 3 finished with failed parts, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from traitmap.progress import Listener, Progress

app = typer.Typer(
    name="traitmap",
    help="What does each fine-tune do to everything else, why, and which should I pick for my task?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/mini.")]
SCALES = ("standard", "center", "logit", "gain", "double")
ROTATIONS = ("none", "varimax", "oblimin")
MASKS: dict[str, Any] = {"auto": "auto", "yes": True, "no": False, "true": True, "false": False}
MatrixOrRun = Annotated[
    Path, typer.Argument(metavar="MATRIX_OR_RUN", help="A run folder, or a CSV or Parquet matrix.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for the study.")],
    template: Annotated[str, typer.Option(help="mini, paper or local-data.")] = "local-data",
) -> None:
    """Write a commented study.yaml to edit.

    Example: traitmap init my-study
    """
    from traitmap.study.init import write_template

    path = write_template(folder, template)
    typer.echo(f"Wrote {path}. Next: traitmap check {path}")


@app.command()
def check(
    study: StudyFile,
    as_json: AsJson = False,
    measure: Annotated[bool, typer.Option(help="Time a few tokens to estimate the run.")] = True,
) -> None:
    """Find all faults at once; show what will be trained and evaluated, time and disk.

    Example: traitmap check my-study/study.yaml
    """
    from traitmap import api
    from traitmap.report.preview import check_preview

    found = api.check(study, measure=measure)
    if as_json:
        _print_json(found.to_json())
        return
    _print(
        check_preview(
            sources=found.sources,
            targets=found.targets,
            adapters=found.adapters_to_train,
            cells=found.cells_to_evaluate,
            estimate=found.estimate,
            lengths=found.lengths,
        )
    )


@app.command()
def run(
    study: StudyFile,
    output: Annotated[Path | None, typer.Option(help="Folder for runs, instead of the study's own.")] = None,
) -> None:
    """Train, evaluate, store. Run it again after an interruption: nothing finished is lost.

    Example: traitmap run my-study/study.yaml
    """
    from traitmap import api

    with _shown_progress() as listener:
        done = api.run(study, listener, output=output)
    status = done.status()
    typer.echo(
        f"{status.folder}: {status.adapters.done} adapters, {status.cells.done} cells done; "
        f"{status.adapters.failed} adapters, {status.cells.failed} cells failed.",
        err=True,
    )
    if status.adapters.failed or status.cells.failed:
        for failure in status.failures:
            where = failure.source if failure.target is None else f"{failure.source} -> {failure.target}"
            typer.echo(f"  {where}: {failure.reason}", err=True)
        raise typer.Exit(3)


@app.command()
def status(run: RunFolder, as_json: AsJson = False) -> None:
    """What of a run is done, failed and missing.

    Example: traitmap status runs/mini
    """
    from traitmap import api
    from traitmap.report.tables import status_table

    found = api.open_run(run).status()
    _print_json(found.to_json()) if as_json else _print(status_table(found))


@app.command()
def matrix(
    run: MatrixOrRun,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write the wide table, with a row __baseline__.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every cell as a long table.")] = None,
) -> None:
    """The transfer matrix: what each adapter does to each target, with intervals and tests.

    Example: traitmap matrix runs/mini --csv matrix.csv
    """
    from traitmap import api
    from traitmap import matrix_exports as records

    found = api.matrix_of(run)
    if csv is not None:
        records.to_csv(found, csv)
    if parquet is not None:
        records.to_parquet(found, parquet)
    if as_json:
        _print_json(records.to_json(found))
    elif csv is None and parquet is None:
        from traitmap.report.tables import matrix_table

        _print(matrix_table(found))


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

    reading = {"orientation": orientation, "row_name": row_name, "drop": _listed(drop)}
    table = api.matrix_of(run, **reading)
    found = decompose(
        table,
        names=api.trait_names(table),
        claimed_share=claimed_share,
        scale=_one_of("scale", scale, SCALES),
        components=_components(components),
        rotate=_one_of("rotate", rotate, ROTATIONS),
        mask_diagonal=MASKS[_one_of("mask-diagonal", mask_diagonal, tuple(MASKS))],
        seed=seed,
    )
    if as_json:
        _print_json(to_json(found))
        return
    from traitmap.report.tables import traits_table

    _print(traits_table(found))


@app.command()
def report(
    run: RunFolder,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
) -> None:
    """Write the report: one HTML file that needs nothing else.

    Example: traitmap report runs/mini
    """
    from traitmap import api

    typer.echo(str(api.open_run(run).report(output)))


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
    from traitmap import api

    _one_of("arithmetic", arithmetic, ("auto", "float32", "bfloat16"))
    with _shown_progress() as listener:
        done = api.pretrain(
            texts, output, listener,
            hidden_size=hidden_size, num_layers=num_layers, num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size, vocab_size=vocab_size, context=context,
            sequence_length=sequence_length, batch_size=batch_size, steps=steps,
            learning_rate=learning_rate, seed=seed, device=device, arithmetic=arithmetic, threads=threads,
        )  # fmt: skip
    typer.echo(
        f"{output}: {done.parameters:,} parameters, {done.tokens:,} tokens seen, "
        f"validation loss {done.validation_loss:.3f} nats per token",
        err=True,
    )


def main() -> None:
    """Entry point of ``traitmap``: errors that the user can mend end in one message and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from traitmap.errors import UserError

    try:
        app()
    except UserError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(renderable: RenderableType) -> None:
    from rich.console import Console

    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 80)
    console.print(renderable)


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _components(text: str) -> Any:
    return int(text) if text.isdigit() else _one_of("components", text, ("auto", "a whole number"))


def _one_of(option: str, value: str, legal: tuple[str, ...]) -> Any:
    if value not in legal:
        raise typer.BadParameter(f"{value!r}; legal: {', '.join(legal)}", param_hint=f"--{option}")
    return value


@contextmanager
def _shown_progress() -> Iterator[Listener]:
    """A bar per stage on standard error, with time left; plain lines where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_listener(lambda line: typer.echo(line, err=True))
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.fields[detail]}", style="dim"),
    )
    with bars.Progress(*columns, console=console) as shown:
        stages: dict[str, bars.TaskID] = {}

        def listen(report: Progress) -> None:
            if report.stage not in stages:
                stages[report.stage] = shown.add_task(report.stage, total=report.total, detail="")
            shown.update(
                stages[report.stage], completed=report.done, total=report.total, detail=report.detail
            )

        yield listen


def _plain_listener(write: Callable[[str], None]) -> Listener:
    """A line at every tenth of a stage."""
    reached: dict[str, int] = {}

    def listen(report: Progress) -> None:
        tenth = int(10 * report.done / report.total) if report.total else 10
        if tenth > reached.get(report.stage, -1):
            reached[report.stage] = tenth
            write(f"{report.stage}: {10 * tenth} % {report.detail}")

    return listen


if __name__ == "__main__":
    main()
