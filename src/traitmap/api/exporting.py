"""Our results out, in other people's formats."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from traitmap.api.runs import matrix_of, open_run
from traitmap.errors import MatrixError, RunError

FORMATS = ("lm-eval", "every-eval-ever", "csv", "parquet", "model-card", "mlflow", "trackio")


def export(
    place: str | Path, output: str | Path, *, format: str, sources: Iterable[str] = ()
) -> tuple[Path, ...]:
    """Write a run, or (but for lm-eval and every-eval-ever, which need items) any matrix, in a format.

    output: a file for csv and parquet, a folder for the others: of results, of ``SOURCE/README.md`` cards
    (a card that is there keeps everything but our section), or the local store of a tracker (for MLflow
    also a tracking URI). sources: which cards; all by default. Returns what was written.
    """
    if format not in FORMATS:
        raise MatrixError(f"{format!r} is no format; legal: {', '.join(FORMATS)}")
    if format in ("lm-eval", "every-eval-ever"):
        return _items(place, Path(output), format)
    matrix = matrix_of(place)
    if format in ("csv", "parquet"):
        from traitmap.matrix_exports import to_csv, to_parquet

        to_csv(matrix, output) if format == "csv" else to_parquet(matrix, output)
        return (Path(output),)
    if format == "model-card":
        return _cards(place, Path(output), tuple(sources))
    from traitmap.exports.tracking import log_mlflow, log_trackio

    name = str(matrix.conditions.get("name") or "traitmap")
    if format == "mlflow":
        log_mlflow(matrix, experiment=name, store=output)
    else:
        log_trackio(matrix, project=name, folder=output)
    return (Path(output),)


def _items(place: str | Path, output: Path, format: str) -> tuple[Path, ...]:
    from traitmap.exports.every_eval_ever import export_every_eval_ever
    from traitmap.exports.lm_eval import export_lm_eval
    from traitmap.runs.store import open_store

    if not Path(place).is_dir():
        raise RunError(f"{place}: {format} holds items, which only a run has; give a run folder")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output}: is there already; give a new folder")
    write = export_lm_eval if format == "lm-eval" else export_every_eval_ever
    return write(open_store(open_run(place).folder), output)


def _cards(place: str | Path, output: Path, sources: tuple[str, ...]) -> tuple[Path, ...]:
    from traitmap.api.runs import traits_if_any
    from traitmap.exports.model_card import card_section, update_card

    matrix = matrix_of(place)
    traits = traits_if_any(matrix)
    sections = {source: card_section(matrix, source, traits) for source in sources or matrix.sources}
    written = []
    for source, section in sections.items():
        (output / source).mkdir(parents=True, exist_ok=True)
        written.append(update_card(output / source / "README.md", section))
    return tuple(written)
