"""The figures that a report can have: names, titles, and what each needs, known before anything is computed.

The sections draw them under these names; whether the data tell enough for one is known only then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Need = Literal["scores", "gains", "texts", "combinations", "checkpoints"]
Each = Literal["", "component", "source", "target"]


@dataclass(frozen=True)
class Listed:
    """A figure, or several of one kind.

    name: as ``traitmap figure`` takes it; ``-1``, ``-2`` and so on stand behind it where there is one for
    each component, source or target. needs: a matrix alone, gains over a base, texts of the tasks, or sources
    that are made of others or kept on the way.
    """

    name: str
    title: str
    needs: Need = "scores"
    each: Each = ""


FIGURES = (
    Listed("matrix", "Transfer matrix"),
    Listed("scree", "How many traits"),
    Listed("cross-validation", "Cells held out"),
    Listed("biplot", "Sources and targets"),
    Listed("stability", "How stable they are"),
    Listed("loadings", "Loadings", each="component"),
    Listed("profile", "Effects of", "gains", each="source"),
    Listed("effects", "What goes with gains", "texts"),
    Listed("shares", "Hidden against surface", "texts"),
    Listed("odd-cells", "Odd pairs", "texts"),
    Listed("asymmetry", "One way and back", "texts"),
    Listed("donors", "Strong sources", "texts"),
    Listed("recipients", "Targets that gain", "texts"),
    Listed("levels", "What strong sources and targets have in common", "texts"),
    Listed("dose-response", "Dose and response", "texts"),
    Listed("answered-dose", "Dose and answers", "texts"),
    Listed("format", "Content or format", "texts"),
    Listed("output-lengths", "Length of outputs", "texts"),
    Listed("label-lengths", "Length of inputs, class by class", "texts"),
    Listed("class-shares", "Classes", "texts"),
    Listed("style", "Style", "texts"),
    Listed("wording", "Wording", "texts"),
    Listed("relations", "Syntactic relations", "texts"),
    Listed("relation-effects", "Gains that depend on relations", "texts"),
    Listed("recommendation", "What following the recommendation gives", "gains"),
    Listed("regret", "What a wrong pick costs", "gains"),
    Listed("predicted", "Predicted against measured", "gains"),
    Listed("recommendation", "Sources for", "gains", each="target"),
    Listed("combinations", "Combinations, predicted and measured", "combinations"),
    Listed("courses", "Improvement over steps", "checkpoints"),
)
COMPONENTS = 2  # whose loadings are listed; more are there where the data support more


def possible_figures(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    *,
    gains: bool,
    texts: bool,
    kinds: Collection[str] = (),
) -> dict[str, str]:
    """Name -> title of every figure that a report of these sources and targets may have, in its order.

    gains: whether a base is known. texts: whether those of the tasks are. kinds: of variations among the
    sources, as conditions name them.
    """
    combined, kept = not {"concat", "merge"}.isdisjoint(kinds), "checkpoint" in kinds
    there = {"scores": True, "gains": gains, "texts": texts, "combinations": combined, "checkpoints": kept}
    figures: dict[str, str] = {}
    for one in FIGURES:
        names = {"source": sources, "target": targets, "component": tuple(map(str, range(COMPONENTS)))}
        if not there[one.needs]:
            continue
        if not one.each:
            figures[one.name] = one.title
        for at, name in enumerate(names.get(one.each, ()), start=1):
            words = f"PC{name}" if one.each == "component" else name
            figures[f"{one.name}-{at}"] = f"{one.title} {words}"
    return figures
