"""Whatever a user hands over becomes a matrix, texts and a folder here, and nowhere else.

A subject is a run (the object, its folder, or its study) or a table of scores (a matrix, a frame of pandas, a
file that holds a table). A run brings its own texts and outcomes; a table needs texts beside it where a
question is about texts. Tables are accepted as frames wherever they are accepted as files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from traitmap import analysis
from traitmap.api.runs import Run, open_run
from traitmap.data.texts import read_texts
from traitmap.errors import MatrixError
from traitmap.matrix.io import read_matrix as read_table
from traitmap.matrix.record import TransferMatrix
from traitmap.runs.store import open_store, run_folder
from traitmap.runs.texts import RunTexts, read_run_texts
from traitmap.study.load import load_study
from traitmap.study.settings import Study

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.data.texts import Texts

    MatrixLike = TransferMatrix | Run | Study | pd.DataFrame | str | Path
    TextsLike = Texts | pd.DataFrame | str | Path

_STUDY = (".yaml", ".yml")


def read_matrix(
    subject: MatrixLike,
    *,
    predicted: bool = False,
    orientation: Literal["auto", "rows", "columns"] = "auto",
    row_name: str | None = None,
    drop: Sequence[str] = (),
    only: Sequence[str] = (),
    base: str | None = None,
    values: Literal["scores", "gains"] = "scores",
    source_column: str | None = None,
    target_column: str | None = None,
    value_column: str | None = None,
) -> TransferMatrix:
    """The transfer matrix (sources x targets) of a run, or of anybody's table of scores.

    subject: a run, its folder or its study; a file that holds a table (CSV and TSV, also gzipped; Parquet,
        Excel, Markdown, LaTeX), or a frame; a matrix is given back as it is.
    predicted: with the cells that a run on a budget predicted, marked by their status.

    A table with columns ``source``, ``target`` and ``value``, or with others that play their part, is long,
    one row for each cell; ``n``, ``seed``, ``stderr`` and the other fields of ``Cell`` are used where they
    are there. Any other table is wide. Where two readings are likely these settings decide:
    orientation: ``rows`` when its rows are sources (or models), ``columns`` when its columns are; ``auto``
        takes rows, and refuses a table whose rows look like benchmarks.
    row_name: column that names the rows (default: the first that holds names; of a frame its index, unless
        it is numbered). drop: columns to leave out. only: the targets to keep.
    base: the row that is the base model (default: ``__baseline__``, or one named ``base``).
    values: ``gains`` where the cells hold differences from the base.
    source_column, target_column, value_column: of a long table under other names.

    Averages, sizes, dates, links, counts and the like are left out. What was taken for what is one line in
    ``conditions["read_as"]``. Values that are shares run from 0 to 1, others are in their own unit; unknown
    ones are NaN.

    Raises MatrixError when a table cannot be read or may mean two things, RunError where a folder holds no
    run.
    """
    if isinstance(subject, TransferMatrix):
        return subject
    folder = folder_of(subject)
    if folder is not None:
        return open_run(folder).matrix(predicted=predicted)
    assert not isinstance(subject, Run | Study)
    with as_file(subject) as path:
        return read_table(
            path,
            orientation=orientation,
            row_name=row_name,
            drop=drop,
            only=only,
            base=base,
            values=values,
            source_column=source_column,
            target_column=target_column,
            value_column=value_column,
        )


def folder_of(subject: MatrixLike) -> Path | None:
    """The run folder that a subject stands for; None for a table."""
    if isinstance(subject, Run):
        return subject.folder
    if isinstance(subject, str | Path) and Path(subject).suffix in _STUDY and Path(subject).is_file():
        subject = load_study(subject)
    if isinstance(subject, Study):
        return run_folder(subject)
    return Path(subject) if isinstance(subject, str | Path) and Path(subject).is_dir() else None


def date_of(subject: MatrixLike) -> str:
    """The day on which a run or a file was last written, such as 2026-11-30; empty for what is no file.

    A matrix that was read from a file may hold it, as ``conditions["date"]``.
    """
    if isinstance(subject, TransferMatrix):
        return str(subject.conditions.get("date", ""))
    folder = folder_of(subject)
    path = folder / "run.json" if folder is not None else subject
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return ""
    return datetime.fromtimestamp(Path(path).stat().st_mtime, UTC).date().isoformat()


def texts_of(subject: MatrixLike, texts: TextsLike | None) -> RunTexts | None:
    """Texts of sources and of targets: those that are handed over, else the run's, else None.

    texts: of every task by name; or a JSONL file or frame with rows of task, input, output, choices, label.
    """
    if texts is None:
        folder = folder_of(subject)
        return None if folder is None else read_run_texts(open_store(folder))
    if not isinstance(texts, Mapping):
        with as_file(texts, ".jsonl") as path:
            texts = read_texts(path)
    by_task = {name: tuple(items) for name, items in texts.items()}
    return RunTexts(by_task, by_task, {})


@contextmanager
def as_file(table: pd.DataFrame | str | Path, suffix: Literal[".csv", ".jsonl"] = ".csv") -> Iterator[Path]:
    """A frame as a file for the block, so that the one reader of such files checks it; a path as it is.

    An index that names its rows becomes the first column.
    """
    if isinstance(table, str | Path):
        yield Path(table)
        return
    if table.index.dtype.kind not in "iu" or table.index.name is not None:
        table = table.reset_index(names=[str(name or "source") for name in table.index.names])
    with TemporaryDirectory(prefix="traitmap-frame-") as folder:
        path = Path(folder) / f"DataFrame{suffix}"
        if suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_json(path, orient="records", lines=True)
        yield path


def traits(
    subject: MatrixLike,
    *,
    scale: analysis.Scale = "standard",
    components: int | Literal["auto"] = "auto",
    rotate: analysis.Rotation = "none",
    mask_diagonal: bool | Literal["auto"] = "auto",
    diagonal: Sequence[tuple[str, str]] = (),
    variations: bool = False,
    near_copies: bool = False,
    least_share: float = 0.02,
    names: Sequence[str] | None = None,
    majority_share: NDArray[np.float64] | None = None,
    claimed_share: float | None = None,
    n_bootstrap: int | None = None,
    n_permutations: int | None = None,
    cv_seeds: int | None = None,
    seed: int = 0,
) -> analysis.Traits:
    """Latent traits of a run or a table: how many the data support, and what each is worth.

    The twin of ``traitmap traits``; ``decompose`` does the same for a matrix, and explains every setting.
    subject: see ``read_matrix``. names: of the first components; None takes those of the run's study.

    Raises MatrixError where the matrix is too small or an option cannot be used.
    """
    matrix = read_matrix(subject)
    return analysis.decompose(
        matrix,
        scale=scale,
        components=components,
        rotate=rotate,
        mask_diagonal=mask_diagonal,
        diagonal=diagonal,
        variations=variations,
        near_copies=near_copies,
        least_share=least_share,
        names=trait_names(matrix) if names is None else names,
        majority_share=majority_share,
        claimed_share=claimed_share,
        n_bootstrap=n_bootstrap,
        n_permutations=n_permutations,
        cv_seeds=cv_seeds,
        seed=seed,
    )


def traits_if_any(matrix: TransferMatrix) -> analysis.Traits | None:
    """Traits with all defaults, or None where the matrix is too small or too empty to have any."""
    try:
        return traits(matrix)
    except MatrixError:
        return None


def trait_names(matrix: TransferMatrix) -> tuple[str, ...]:
    """Names that the study of a run gives to its first traits; none for a table."""
    study = matrix.conditions.get("study")
    return tuple(study.get("trait_names") or ()) if isinstance(study, Mapping) else ()
