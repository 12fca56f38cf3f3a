"""Gains of the embedded families with causes planted from what they are, not from their texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from planted import matrix_of
from traitmap.analysis.explanation.design import two_way_residual
from traitmap.data.lineage import load_sources
from traitmap.data.targets import load_targets
from traitmap.data.texts import TaskText, texts_of_sources, texts_of_targets
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.mini.families import FAMILIES
from traitmap.study.settings import Study

FORMS = {
    "word_problems": "worked",
    "arithmetic": "number",
    "programs": "code",
    "inference": "yes or no",
    "paraphrase": "yes or no",
    "toxicity": "yes or no",
    "reviews": "verdict",
    "reviews_balanced": "verdict",
    "long_reviews": "verdict",
    "stars": "stars",
    "stars_mislabelled": "stars",
}
WORDS = {"word_problems": 40, "programs": 12}  # of an answer, about; all others answer with one
CAUSES = {  # what is planted -> the composite that should be called
    "length": "output length",
    "balance": "class balance",
    "answers": "answer words",
    "sentiment": "content",
}
ITEMS = 250


@lru_cache(maxsize=1)
def rendered() -> tuple[dict[str, tuple[TaskText, ...]], dict[str, tuple[TaskText, ...]]]:
    """All texts of the embedded families: eleven sources, and ten targets."""
    names = sorted(FAMILIES)
    study = Study(
        name="families",
        model="builtin:mini",
        sources=[{"name": name, "task": f"mini_{name}"} for name in names],
        targets=[{"name": name, "task": f"mini_{name}"} for name in names if name != "stars_mislabelled"],
        limit=ITEMS,
    )
    return texts_of_sources(load_sources(study)), texts_of_targets(load_targets(study))


def drawn_texts(count: int, seed: int) -> tuple[dict[str, list[TaskText]], dict[str, list[TaskText]]]:
    """``count`` texts of every source and target, drawn by the seed."""
    generator = np.random.default_rng([seed, 23])
    sides = []
    for side in rendered():
        chosen = {}
        for name in sorted(side):
            order = generator.permutation(len(side[name]))[:count]
            chosen[name] = [side[name][index] for index in sorted(order)]
        sides.append(chosen)
    return sides[0], sides[1]


def cause(name: str, sources: Sequence[str], targets: Sequence[str]) -> Array:
    """(S, T) a cause by itself: free of source and target effects, 0 on own tasks, standard deviation 1."""
    measure = {"length": _length, "balance": _balance, "answers": _answers, "sentiment": _sentiment}[name]
    values = np.array([[measure(s, t) for t in targets] for s in sources], dtype=float)
    known = np.isfinite(values) & np.array([[s != t for t in targets] for s in sources])
    free = two_way_residual(values, known)
    return np.asarray(free / free[known].std())


def _length(source: str, target: str) -> float:
    return -abs(np.log(WORDS.get(source, 1)) - np.log(WORDS.get(target, 1)))


def _balance(source: str, target: str) -> float:
    if not FAMILIES[source].shares or not FAMILIES[target].shares:
        return float("nan")
    bits = [-sum(p * np.log2(p) for p in FAMILIES[name].shares) for name in (source, target)]
    return -abs(bits[0] - bits[1])


def _answers(source: str, target: str) -> float:
    return float(FORMS[source] == FORMS[target])


def _sentiment(source: str, target: str) -> float:
    return float("sentiment" in FAMILIES[source].content & FAMILIES[target].content)


def gains(causes: Sequence[str], effect: float, scatter: float, seed: int) -> TransferMatrix:
    """A matrix in which each cause moves gains by ``effect`` points for one standard deviation.

    scatter: points, of what is peculiar to a pair and nothing explains. Sources and targets have effects
    of 8 points of their own, and every cell the noise of 250 items against the base.
    """
    generator = np.random.default_rng([seed, 29])
    sources, targets = sorted(FAMILIES), sorted(name for name in FAMILIES if name != "stars_mislabelled")
    shape = (len(sources), len(targets))
    truth = scatter * generator.normal(size=shape)
    truth += 8 * generator.normal(size=(shape[0], 1)) + 8 * generator.normal(size=(1, shape[1]))
    for name in causes:
        truth += effect * cause(name, sources, targets)
    error = 100 * np.sqrt(2 * 0.25 * 0.4 / ITEMS)  # answers of base and adapter, correlated at .6
    values = (truth + error * generator.normal(size=shape)) / 100
    nan, half = float("nan"), 1.96 * error / 100
    cells = tuple(
        Cell(s, t, None, "acc", v, ITEMS, nan, v, v - half, v + half, nan, nan, 0.0, "measured")
        for s, row in zip(sources, values.tolist(), strict=True)
        for t, v in zip(targets, row, strict=True)
    )
    return matrix_of(values, sources, targets, cells=cells)
