"""The same words from Python as on the command line: check, run, open_run; a Run answers the rest."""

from traitmap.api.exchange import ImportReport, export, import_results
from traitmap.api.explanation import explain
from traitmap.api.profiles import profile, write_profile
from traitmap.api.recommendation import evaluate_recommenders, recommend
from traitmap.api.report import cell_details, figure, figure_names
from traitmap.api.runs import Run, gc, matrix_of, open_run, query, streamed_query, trait_names
from traitmap.api.studies import Check, check, load_checked, plan_growth, pretrain, run
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
