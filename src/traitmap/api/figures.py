"""Single figures of the report as files for print or slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.errors import UserError
from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.report.contents import ReportContents


def figure(
    run: str | Path,
    name: str,
    output: str | Path,
    *,
    width: float | None = None,
    dpi: int = 300,
    listener: Listener = silent,
) -> Path:
    """Write one figure of the report as an SVG, PNG or PDF file, told by its ending.

    run: a run folder, or a matrix file, whose report has fewer figures. name: one of ``figure_names``.
    width: in mm, default the figure's own. dpi: dots per inch of a PNG. PNG and PDF need
    ``traitmap[figures]``.
    UserError for an unknown name or ending, and where the file cannot be written.
    """
    from traitmap.report.figure_files import FORMATS, figure_file
    from traitmap.report.figures import figure_svg

    path = Path(output)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise UserError(
            f"{path}: ends in no format of a figure; legal: {', '.join('.' + one for one in FORMATS)}."
        )
    made = figure_file(figure_svg(name, _contents(run, listener, name)), kind, width=width, dpi=dpi)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another --output.") from None
    return path


def figure_names(run: str | Path, listener: Listener = silent) -> tuple[str, ...]:
    """Names of all figures that the report of a run folder or matrix file has, in the report's order."""
    from traitmap.report.figures import figure_names

    return figure_names(_contents(run, listener))


def _contents(run: str | Path, listener: Listener, wanted: str | None = None) -> ReportContents:
    """What the report shows; without its costly parts where the figure that is wanted needs none of them."""
    from traitmap.api.report_contents import report_contents
    from traitmap.api.runs import matrix_of, traits_if_any
    from traitmap.report.contents import ReportContents
    from traitmap.report.figures import figure_names

    if not Path(run).is_dir():
        matrix = matrix_of(run)
        return ReportContents(matrix=matrix, traits=traits_if_any(matrix), conditions=matrix.conditions)
    if wanted is not None:
        quick = report_contents(run, why=False, which=False, listener=listener)
        if wanted in figure_names(quick):
            return quick
    return report_contents(run, listener=listener)
