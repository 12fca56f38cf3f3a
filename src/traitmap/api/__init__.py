"""The same words from Python as on the command line: check, run, open_run; a Run answers the rest."""

from traitmap.api.advice import recommend
from traitmap.api.cells import cell_details
from traitmap.api.explanation import explain
from traitmap.api.exporting import export
from traitmap.api.figures import figure, figure_names
from traitmap.api.growth import plan_growth
from traitmap.api.importing import ImportReport, import_results
from traitmap.api.profiles import profile, write_profile
from traitmap.api.recommendation import evaluate_recommenders
from traitmap.api.runs import Run, matrix_of, open_run, trait_names
from traitmap.api.storage import gc, query, streamed_query
from traitmap.api.studies import Check, check, load_checked, pretrain, run
from traitmap.api.viewing import view

__all__ = [
    "Check",
    "ImportReport",
    "Run",
    "cell_details",
    "check",
    "evaluate_recommenders",
    "explain",
    "export",
    "figure",
    "figure_names",
    "gc",
    "import_results",
    "load_checked",
    "matrix_of",
    "open_run",
    "plan_growth",
    "pretrain",
    "profile",
    "query",
    "recommend",
    "run",
    "streamed_query",
    "trait_names",
    "view",
    "write_profile",
]
