"""Commands on what is kept of a run: query, gc."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitmap.cli.app import AsJson, RunFolder, app, print_json, print_table

if TYPE_CHECKING:
    from traitmap.runs.query import Answered

SHOWN = 100  # rows that the terminal gets


@app.command()
def query(
    run: RunFolder,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, in DuckDB's SQL.")],
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Parquet file.")] = None,
) -> None:
    """Ask a run in SQL: outcomes, cells, adapters, sources, targets, texts.

    The table outcomes has a row for each item of each cell: source, seed, target, item, item_digest, score,
    correct, prediction, gold, choice_logprobs, text, parsed, output_tokens, stopped. The base is the source
    __baseline__ and has no seed. A score that is not known is NaN: where not isnan(score). Nothing but the
    run can be read, and nothing written.

    Example: traitmap query runs/mini "select source, target, avg(score) from outcomes group by all"
    """
    from traitmap import api

    with api.streamed_query(run, sql) as found:
        for path, why in found.left_out.items():
            typer.echo(f"{path}: damaged ({why}); left out. `traitmap run` computes it anew.", err=True)
        if parquet is not None:
            from traitmap.runs.query import write_rows

            write_rows(found.rows, parquet)
        elif as_csv:
            _print_csv(found)
        elif as_json:
            print_json(_records(found))
        else:
            _print_table(found)


@app.command()
def gc(
    run: RunFolder,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what nothing needs: cells and adapters of former versions, leftovers, quarantine.

    Example: traitmap gc runs/mini --delete
    """
    from dataclasses import asdict

    from traitmap import api
    from traitmap.report.answers import waste_table

    found = api.gc(run, delete=delete)
    if as_json:
        print_json({"deleted": delete, "waste": [asdict(one) for one in found]})
    else:
        print_table(waste_table(found, deleted=delete))


def _print_table(found: Answered) -> None:
    from traitmap.report.answers import answer_table

    rows: list[tuple[Any, ...]] = []
    for batch in found.rows:
        rows += zip(*(column.slice(0, SHOWN + 1).to_pylist() for column in batch.columns), strict=True)
        if len(rows) > SHOWN:
            break
    print_table(answer_table(found.rows.schema.names, rows[:SHOWN], more=len(rows) > SHOWN))


def _print_csv(found: Answered) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.rows.schema.names)
    for batch in found.rows:
        writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _records(found: Answered) -> list[dict[str, Any]]:
    from traitmap.errors import UserError

    names = found.rows.schema.names
    if len(set(names)) < len(names):
        raise UserError(f"Two columns have one name ({', '.join(names)}); name them apart with AS.")
    return [
        dict(zip(names, map(_plain, row), strict=True))
        for batch in found.rows
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it: unknown numbers are null, dates and the like are text."""
    from decimal import Decimal

    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value if value is None or isinstance(value, str | int | bool) else str(value)
