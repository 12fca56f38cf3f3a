"""Commands that ask what a fine-tune broke: the audit, and the packs that it asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from traitmap import api
from traitmap.cli.app import (
    AsJson,
    app,
    listed,
    print_json,
    print_table,
    shown_progress,
    tell,
)

_FAIL_ON = re.compile(r"loss(?::(\d+(?:\.\d+)?))?")


@app.command()
def audit(
    rows: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER...",
            help="PEFT directories, model folders, folders of checkpoints, or NAME@http://host/v1.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The base: hub id, folder or NAME@http://... (default: as the adapters name it)."),
    ] = None,
    pack: Annotated[
        str, typer.Option(help="Packs of tasks, with commas between: names or YAML files (traitmap packs).")
    ] = "",
    only: Annotated[str, typer.Option(help="Only these tasks of the packs, with commas between.")] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Items of each task, instead of the pack's.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A folder with copies of hub datasets and models, or a file of training data; or both.",
        ),
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(metavar="loss:POINTS", help="What is a harm: a loss of so many points (default: any)."),
    ] = "loss",
    atlas: Annotated[
        Path | None, typer.Option(help="A run, table or atlas whose traits the rows are held against.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would take, and run nothing.")] = False,
    name: Annotated[str | None, typer.Option(help="Of the run (default: audit-ADAPTER).")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for runs.")] = Path("runs"),
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float64.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Ask tasks that run what the model wrote, in the sandbox.")
    ] = False,
    drift: Annotated[bool, typer.Option("--drift/--no-drift", help="Measure drift on neutral text.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the items that are drawn.")] = 0,
    as_json: AsJson = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a summary for a pull request; added to the file."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(metavar="README", help="Put the summary into this model card.")
    ] = None,
) -> None:
    """What did this fine-tune break? Adapters and models beside their base, a verdict for each.

    Exit code 0: no harm; 4: harm, a loss as --fail-on has it; 5: cannot tell, more items are needed.

    Example: traitmap audit my-adapter/
    Example: traitmap audit runs/ft1 runs/ft2 --pack general,safety --fail-on loss:3
    Example: traitmap audit merged-model/ --base org/base --limit 100
    """
    match = _FAIL_ON.fullmatch(fail_on)
    if match is None:
        raise typer.BadParameter(f"{fail_on!r}; write loss:POINTS, such as loss:3", param_hint="--fail-on")
    folders = [path for path in data or () if not path.is_file()]
    files = [path for path in data or () if path.is_file()]
    if len(folders) > 1 or len(files) > 1:
        raise typer.BadParameter(
            "give one folder of copies and one file of training data", param_hint="--data"
        )
    settings: dict[str, Any] = {
        "base": base, "packs": listed(pack), "only": listed(only), "limit": limit,
        "data": folders[0] if folders else None, "training_data": files[0] if files else None,
        "name": name, "output": output, "dtype": dtype, "device": device, "allow_code": allow_code,
        "seed": seed,
    }  # fmt: skip
    if plan:
        _print_plan(rows, settings, as_json)
        return
    from traitmap.report import audit as reports
    from traitmap.report.plain_page import write_page
    from traitmap.runs.files import own_file

    with shown_progress() as listener:
        done = api.audit(
            rows, **settings, fail_on=float(match[1]) if match[1] else None, atlas=atlas, drift=drift,
            listener=listener, tell=lambda line: tell(f"! {line}"),
        )  # fmt: skip
    page = write_page(own_file(Path(done.folder), "audit.html"), reports.audit_page(done))
    if junit is not None:
        write_page(junit, reports.audit_junit(done))
    if markdown is not None:
        write_page(markdown, reports.audit_markdown(done), append=True)
    if card is not None:
        from traitmap.exports.model_card import update_card

        update_card(card, reports.audit_markdown(done))
    if as_json:
        print_json(done.to_json())
    else:
        from traitmap.terminal import printable

        for line in reports.audit_lines(done):
            typer.echo(printable(line))
        tell(f"page: {page}")
    if done.exit_code:
        raise typer.Exit(done.exit_code)


def _print_plan(rows: list[str], settings: dict[str, Any], as_json: bool) -> None:
    """What an audit would take: rows, tasks, items, tokens and time, measured on a few samples."""
    from traitmap.wording import counted, in_time

    planned = api.plan_audit(rows, **settings)
    checked = planned.check()
    cost = checked.estimate
    if as_json:
        rows_ = [row.name for row in planned.rows]
        print_json({"rows": rows_, "left_out": dict(planned.left_out), **checked.to_json()})
        return
    items = sum(target.n_items for target in checked.targets)
    lines = [
        f"{counted(len(planned.rows), 'row')} beside {planned.study.model.path}: "
        f"{', '.join(row.name for row in planned.rows)}",
        f"{counted(len(checked.targets), 'task')}, {items:,} items a row: "
        f"{', '.join(f'{target.name} {target.n_items}' for target in checked.targets)}",
        f"to do: {counted(checked.cells_to_evaluate, 'cell')}, {cost.scoring_tokens:,.0f} tokens to read, "
        f"{cost.generated_tokens:,.0f} to write; about {in_time(cost.seconds)} here (measured on a few)",
        *(f"not asked: {name}: {reason}" for name, reason in planned.left_out.items()),
    ]
    for line in lines:
        typer.echo(line)


@app.command()
def packs(
    pack: Annotated[str | None, typer.Argument(metavar="PACK", help="Show the tasks of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Packs of tasks that an audit, or a target of a study, may name: what is in them, and why.

    Example: traitmap packs safety
    """
    from traitmap.table import Table, to_terminal

    chosen = api.packs(pack)
    if as_json:
        print_json([one.model_dump(mode="json") for one in chosen])
    elif pack is None:
        for one in chosen:
            items = sum(task.limit for task in one.tasks)
            typer.echo(f"{one.name:13} {len(one.tasks):3} tasks {items:6,} items")
            typer.echo(f"    {one.about}")
    else:
        rows = [
            [task.task, task.area, str(task.limit), task.metric + " ↓" * (task.direction == "lower"), *about]
            for task in chosen[0].tasks
            for about in [(task.licence, task.absent or task.why)]
        ]
        heads = ["task", "about", "items", "metric", "licence", "why"]
        print_table(to_terminal(Table(chosen[0].name, heads, rows, ("↓ lower is better.",))))
