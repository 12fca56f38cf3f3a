"""Single figures of a report: their names, known before anything is computed, and each as a file.

Apart from the report, whose imports alone take longer than the list of names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from traitmap import api
from traitmap import report as pages
from traitmap.analysis.explanation.families import variations_of
from traitmap.api.subject import folder_of, read_matrix
from traitmap.errors import UserError
from traitmap.progress import Listener, silent
from traitmap.runs.files import write_output
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike


@shows_progress
def figure(
    run: MatrixLike,
    name: str,
    output: str | Path,
    *,
    width: float | None = None,
    dpi: int = 300,
    listener: Listener | None = None,
) -> Path:
    """Write one figure of the report as an SVG, PNG or PDF file, told by its ending.

    run: a run, or a table of scores, whose report has fewer figures. name: one of ``figure_names``.
    width: in mm, default the figure's own. dpi: dots per inch of a PNG. PNG and PDF need
    ``traitmap[figures]``. listener: see ``Progress``; None shows progress on a terminal or notebook.

    Returns the path. UserError for an unknown name or ending, and where the file cannot be written.
    """
    path = Path(output)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in pages.FORMATS:
        legal = ", ".join("." + suffix for suffix in pages.FORMATS)
        raise UserError(f"{path}: ends in no format of a figure; legal: {legal}.")
    pages.check_file(kind, width=width, dpi=dpi)
    drawing = pages.figure_svg(name, _contents(run, listener or silent, name), width=width)
    made = pages.figure_file(drawing, kind, width=width, dpi=dpi)
    try:
        return write_output(path, made)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another --output.") from None


def figure_names(run: MatrixLike) -> dict[str, str]:
    """Name -> title of the figures that a run or a table of scores may have, in the report's order.

    run: see ``read_matrix``; of a run only its ledger is read. Nothing is computed: whether the data say
    enough for a figure is known when it is drawn, and ``figure`` then says why it is not there.
    """
    folder = folder_of(run)
    if folder is None:
        matrix = read_matrix(run)
        based = bool(np.isfinite(matrix.baseline).any())
        kinds = {str(made.get("kind")) for made in variations_of(matrix).values()}
        return pages.possible_figures(matrix.sources, matrix.targets, gains=based, texts=False, kinds=kinds)
    ledger = read_ledger(open_store(folder))
    sources, targets = (tuple(one["name"] for one in side) for side in (ledger.sources, ledger.targets))
    kinds = {str((source.get("variation") or {}).get("kind")) for source in ledger.sources}
    return pages.possible_figures(sources, targets, gains=True, texts=True, kinds=kinds)


def _contents(run: MatrixLike, listener: Listener, name: str) -> pages.ReportContents:
    """What the report shows; without its costly parts where the named figure needs none of them."""
    folder = folder_of(run)
    if folder is None:
        matrix = read_matrix(run)
        quick = api.table_contents(matrix, which=False, listener=listener)
        return quick if name in pages.figure_names(quick) else api.table_contents(matrix, listener=listener)
    quick = api.report_contents(folder, why=False, which=False, listener=listener)
    if name in pages.figure_names(quick):
        return quick
    return api.report_contents(folder, listener=listener)
