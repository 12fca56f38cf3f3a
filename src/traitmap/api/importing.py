"""Other people's results in: as a run folder, or as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from traitmap.errors import MatrixError

if TYPE_CHECKING:
    from traitmap.matrix import TransferMatrix

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
    from traitmap.matrix import build_matrix

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
    rows = [one for column in imported.columns for one in column.rows.values()]
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
    from traitmap.matrix_exports import to_csv, to_parquet

    to_parquet(matrix, path) if path.suffix == ".parquet" else to_csv(matrix, path)
