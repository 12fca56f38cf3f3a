"""Atlases: folders of matrices that serve as a prior, and whatever a user hands over as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap import exports
from traitmap.analysis.recommendation.prior import PriorMatrix, text_profile
from traitmap.api.subject import read_matrix, texts_of
from traitmap.errors import MatrixError

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike, TextsLike


def atlas_add(
    folder: str | Path, subject: MatrixLike, *, name: str | None = None, texts: TextsLike | None = None
) -> Path:
    """Put the matrix of a run, or any table of scores, into an atlas; returns the file that was written.

    folder: of the atlas; made where it is not there. subject: see ``read_matrix``. name: of the matrix
    (default: that of the run or the file). texts: of its tasks, of which a profile is kept that no text can
    be read off; a run brings its own. MatrixError where another matrix has that name.
    """
    matrix = read_matrix(subject)
    rendered = texts_of(subject, texts)
    profile = {} if rendered is None else text_profile({**rendered.sources, **rendered.targets})
    tasks = {*matrix.sources, *matrix.targets}
    return exports.write_atlas_entry(
        matrix,
        folder,
        name=name or name_of(subject, matrix.conditions.get("name")),
        profile={task: vector for task, vector in profile.items() if task in tasks},
    )


def atlas_report(folder: str | Path) -> exports.atlas.AtlasReport:
    """Read every file of an atlas; what is damaged, or stands there twice, is a fault.

    MatrixError where the folder is none, or holds no file of an atlas.
    """
    return exports.read_atlas(folder)


def read_priors(given: Sequence[MatrixLike]) -> list[PriorMatrix]:
    """Whatever serves as a prior: runs, tables of scores, files of an atlas, or whole atlases.

    MatrixError where one cannot be read, or an atlas has a fault.
    """
    priors = []
    for subject in given:
        if isinstance(subject, str | Path) and Path(subject).is_dir() and exports.atlas_files(subject):
            report = exports.read_atlas(subject)
            if report.faults:
                raise MatrixError("\n".join(report.faults))
            entries: Sequence[exports.atlas.AtlasEntry] = report.entries
        elif isinstance(subject, str | Path) and str(subject).endswith(exports.atlas.SUFFIX):
            entries = (exports.read_atlas_entry(subject),)
        else:
            matrix = read_matrix(subject)
            rendered = texts_of(subject, None)
            profile = {} if rendered is None else text_profile({**rendered.sources, **rendered.targets})
            priors.append(PriorMatrix(name_of(subject, matrix.conditions.get("name")), matrix, profile))
            continue
        priors += [PriorMatrix(entry.name, entry.matrix, entry.profile) for entry in entries]
    return priors


def name_of(subject: MatrixLike, known: object) -> str:
    """What to call a matrix: the name that it has, else that of its file or folder."""
    if known:
        return str(known)
    if isinstance(subject, str | Path):
        return Path(subject).name.split(".csv")[0].split(".parquet")[0]
    return "matrix"
