"""The same words from Python as on the command line: check, run, open_run; a Run answers the rest."""

from traitmap.api.explanation import explain
from traitmap.api.recommendation import evaluate_recommenders
from traitmap.api.runs import Run, matrix_of, open_run, trait_names
from traitmap.api.studies import Check, check, load_checked, pretrain, run

__all__ = [
    "Check",
    "Run",
    "check",
    "evaluate_recommenders",
    "explain",
    "load_checked",
    "matrix_of",
    "open_run",
    "pretrain",
    "run",
    "trait_names",
]
