"""What does each fine-tune do to everything else, why, and which should I pick for my task?

    import traitmap as tm

    study = tm.load_study("study.yaml")
    run = tm.run(study)
    print(run.matrix().gains)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Check": "traitmap.api",
    "Run": "traitmap.api",
    "TransferMatrix": "traitmap.matrix.build",
    "Traits": "traitmap.analysis.traits.records",
    "TraitmapError": "traitmap.errors",
    "UserError": "traitmap.errors",
    "check": "traitmap.api",
    "complete": "traitmap.analysis.recommendation.completion",
    "decompose": "traitmap.analysis.traits.decompose",
    "explain": "traitmap.api",
    "evaluate_recommenders": "traitmap.api",
    "export": "traitmap.api",
    "import_results": "traitmap.api",
    "load_study": "traitmap.study.load",
    "metrics": "traitmap.analysis.recommendation",
    "open_run": "traitmap.api",
    "profile": "traitmap.api",
    "Recommendation": "traitmap.analysis.recommendation.records",
    "query": "traitmap.api",
    "read_matrix": "traitmap.matrix.io",
    "recommend": "traitmap.api",
    "run": "traitmap.api",
    "write_template": "traitmap.study.init",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traitmap' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
