"""Other people's results in: as a run folder, or as a table.

Our results out, in other people's formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from traitmap.api.runs import matrix_of, open_run
from traitmap.errors import MatrixError, RunError

if TYPE_CHECKING:
    from traitmap.matrix.record import TransferMatrix


TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    place: the run folder or table. kinds: of the files. paired: targets with samples of the same items, on
    which intervals and tests are paired; given: targets of which only the values are known.
    metrics: target -> metric and filter of its column. notes: what was left out, and why.
    """

    place: Path
    base: str | None
    sources: tuple[str, ...]
    paired: tuple[str, ...]
    given: tuple[str, ...]
    metrics: Mapping[str, str]
    kinds: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data."""
        return {
            "place": str(self.place),
            "base": self.base,
            "sources": list(self.sources),
            "paired": list(self.paired),
            "given": list(self.given),
            "metrics": dict(self.metrics),
            "kinds": list(self.kinds),
            "notes": list(self.notes),
        }


def import_results(
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    base: str | None = None,
    metrics: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
) -> ImportReport:
    """Read results of other harnesses, by their content, and write them as ``output``.

    output: a new run folder, or a ``.csv`` or ``.parquet`` file. base, metrics, allow: see
    ``imports.columns.arrange``. Raises MatrixError naming file and key of whatever is malformed, and the
    list of what differs within a column.
    """
    from traitmap.imports.columns import arrange
    from traitmap.imports.discovery import find_evaluations
    from traitmap.imports.writing import write_imported
    from traitmap.matrix.build import build_matrix

    output = Path(output)
    if output.suffix in TABLES and output.exists():
        raise MatrixError(f"{output}: is there already; give a new file, or remove it")
    found = find_evaluations(paths)
    imported = arrange(found.evaluations, base=base, metrics=metrics, allow=allow)
    if output.suffix in TABLES:
        with TemporaryDirectory(prefix="traitmap-import-") as folder:
            store = write_imported(imported, Path(folder) / output.stem)
            _write_table(build_matrix(store), output)
    else:
        write_imported(imported, output)
    rows = [row for column in imported.columns for row in column.rows.values()]
    return ImportReport(
        place=output,
        base=imported.base,
        sources=imported.sources,
        paired=tuple(column.target for column in imported.columns if column.paired),
        given=tuple(column.target for column in imported.columns if not column.paired),
        metrics={column.target: f"{column.metric},{column.filter}" for column in imported.columns},
        kinds=tuple(dict.fromkeys(one.kind for one in rows)),
        notes=(*found.notes, *imported.notes),
    )


def _write_table(matrix: TransferMatrix, path: Path) -> None:
    """The matrix as a wide CSV or a long Parquet file, by the suffix."""
    from traitmap.matrix.record import to_csv, to_parquet

    to_parquet(matrix, path) if path.suffix == ".parquet" else to_csv(matrix, path)


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
        from traitmap.matrix.record import to_csv, to_parquet

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
