"""Other people's results in, as a run folder or a table; our results out, in other people's formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from traitmap import analysis, exports, imports
from traitmap import matrix as matrices
from traitmap.api.atlas import atlas_add
from traitmap.api.studies import write_task_files
from traitmap.api.subject import folder_of, read_matrix, traits_if_any
from traitmap.errors import MatrixError, RunError
from traitmap.imports.discovery import KIND
from traitmap.jsonable import outline
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.tables import SUFFIXES
from traitmap.runs.files import whole_folder
from traitmap.runs.ledger import write_item_groups
from traitmap.runs.store import locked_store, open_store
from traitmap.study.paths import digest

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike
    from traitmap.imports.columns import Imported
    from traitmap.runs.store import RunStore

TABLES = (".csv", ".parquet")
FORMATS = (
    *("lm-eval", "lm-eval-task", "every-eval-ever", "csv", "parquet", "atlas"),
    *("model-card", "mlflow", "trackio"),
)


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    place: the run folder or table. base: the base model, or None where nobody named one.
    kinds: of the files. paired: targets with samples of the same items, on which intervals and tests are
    paired; given: targets of which only the values are known.
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

    __repr__ = outline


def import_results(
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    base: str | None = None,
    metrics: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
    reading: Mapping[str, Any] = MappingProxyType({}),
) -> ImportReport:
    """Read results of other harnesses, by their content, and write them as ``output``.

    paths: files, or folders to search. output: a new run folder, or a ``.csv`` or ``.parquet`` file.
    base: the base model, where the files do not tell. metrics: task -> METRIC or METRIC,FILTER of its
    column. allow: settings that may differ within a column (limit, version, ..., or all).
    reading: how tables of scores are to be read, by the settings of ``read_matrix``.

    Raises MatrixError naming file and key of whatever is malformed, and the list of what differs within a
    column.
    """
    output = Path(output)
    if output.suffix in TABLES and output.exists():
        raise MatrixError(f"{output}: is there already; give a new file, or remove it")
    files = [Path(path) for path in paths]
    tables_alone = all(path.suffix.lower() in (*SUFFIXES, ".gz") for path in files)
    if base is not None and tables_alone:  # then it is a row
        reading = {**reading, "base": base}
    search = imports.find_evaluations(files, reading)
    if tables_alone and all(evaluation.kind == KIND for evaluation in search.evaluations):
        base = None  # it is the row that the table was read with
    arranged = imports.arrange(search.evaluations, base=base, metrics=metrics, allow=allow)
    if output.suffix in TABLES:
        with TemporaryDirectory(prefix="traitmap-import-") as folder:
            store = imports.write_imported(arranged, Path(folder) / output.stem)
            _keep_item_groups(store, arranged)
            _write_table(matrices.build_matrix(store), output)
    else:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise RunError(f"{output}: is there already; give a new folder for the imported results")
        with whole_folder(output) as folder:
            _keep_item_groups(imports.write_imported(arranged, folder, name=output.resolve().name), arranged)
    rows = [row for column in arranged.columns for row in column.rows.values()]
    return ImportReport(
        place=output,
        base=arranged.base,
        sources=arranged.sources,
        paired=tuple(column.target for column in arranged.columns if column.paired),
        given=tuple(column.target for column in arranged.columns if not column.paired),
        metrics={column.target: f"{column.metric},{column.filter}" for column in arranged.columns},
        kinds=tuple(dict.fromkeys(row.kind for row in rows)),
        notes=(*search.notes, *arranged.notes),
    )


def _keep_item_groups(store: RunStore, arranged: Imported) -> None:
    """Which items of imported targets repeat, by their texts and by the digests that their files tell."""
    texts = {}
    for column in arranged.columns:
        told = next((result for result in column.rows.values() if result.texts), None)
        if told is not None and column.paired:
            texts[column.target] = [
                replace(text, group=outcome.item_digest)
                for text, outcome in zip(told.texts, told.outcomes, strict=True)
            ]
    with locked_store(store.folder) as locked:
        write_item_groups(locked, analysis.repeated_items(texts, {}), digest(sorted(texts)))


def export(
    place: MatrixLike, output: str | Path, *, format: str, sources: Iterable[str] = ()
) -> tuple[Path, ...]:
    """Write a run, or (but for lm-eval and every-eval-ever, which need items) any matrix, in a format.

    place: a run or a table of scores, see ``read_matrix``; for lm-eval-task a study (the record or its file),
    whose targets over plain data become task files, with nothing run. format: one of ``FORMATS``.
    output: a file for csv and parquet, a folder for the others: an atlas, results, ``SOURCE/README.md`` cards
    (a card that is there keeps everything but our section), or the local store of a tracker (for MLflow
    also a tracking URI). sources: which cards; all by default.

    Returns what was written. MatrixError for another format, RunError where a run is needed or the folder
    is taken.
    """
    if format not in FORMATS:
        raise MatrixError(f"{format!r} is no format; legal: {', '.join(FORMATS)}")
    if format == "lm-eval-task":
        return write_task_files(place, output)
    if format in ("lm-eval", "every-eval-ever"):
        return _items(place, Path(output), format)
    if format == "atlas":
        return (atlas_add(output, place),)
    matrix = read_matrix(place)
    if format == "model-card":
        return _cards(matrix, Path(output), tuple(sources))
    name = str(matrix.conditions.get("name") or "traitmap")
    if format == "mlflow":
        exports.log_mlflow(matrix, experiment=name, store=output)
    elif format == "trackio":
        exports.log_trackio(matrix, project=name, folder=output)
    else:
        _write_table(matrix, Path(output), parquet=format == "parquet")
    return (Path(output),)


def _write_table(matrix: TransferMatrix, path: Path, *, parquet: bool | None = None) -> None:
    """The matrix as a wide CSV or a long Parquet file, by the suffix where ``parquet`` is None."""
    parquet = path.suffix == ".parquet" if parquet is None else parquet
    matrix.to_parquet(path) if parquet else matrix.to_csv(path)


def _items(place: MatrixLike, output: Path, format: str) -> tuple[Path, ...]:
    folder = folder_of(place)
    if folder is None:
        raise RunError(f"{place}: {format} holds items, which only a run has; give a run folder")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output}: is there already; give a new folder")
    write = exports.export_lm_eval if format == "lm-eval" else exports.export_every_eval_ever
    with whole_folder(output) as staged:
        written = write(open_store(folder), staged)
    return tuple(output / path.relative_to(staged) for path in written)


def _cards(matrix: TransferMatrix, output: Path, sources: tuple[str, ...]) -> tuple[Path, ...]:
    traits = traits_if_any(matrix)
    sections = {source: exports.card_section(matrix, source, traits) for source in sources or matrix.sources}
    written = []
    for source, section in sections.items():
        (output / source).mkdir(parents=True, exist_ok=True)
        written.append(exports.update_card(output / source / "README.md", section))
    return tuple(written)
