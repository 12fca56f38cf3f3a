"""Matrices of known truth with combinations, and with courses of trainings step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.combination import CONCAT, Combination
from traitmap.matrix.record import TransferMatrix

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlantedCombinations:
    """matrix: singles s0.. and measured combinations on targets t0.. truth: row -> (T,) true gains in points.

    true_gain: of any combination, measured or not (points).
    """

    matrix: TransferMatrix
    truth: dict[str, Array]
    seed: int
    stray: float
    lead: float

    def true_gain(self, combination: Combination) -> Array:
        """The mean of the parents, ``lead`` of the way to the best of them, and what it strays by."""
        parents = np.array([self.truth[name] for name in combination.parents])
        mean = np.asarray(combination.weights) @ parents
        code = [int(name[1:]) for name in combination.parents]
        rng = np.random.default_rng([self.seed, 7, combination.method == CONCAT, *code])
        apart = np.sqrt(np.asarray(combination.weights) @ (parents - mean) ** 2)
        own = rng.standard_normal() * 0.5 + rng.standard_normal(len(mean))
        return mean + self.lead * (parents.max(axis=0) - mean) + self.stray * own * (0.3 + 0.1 * apart)


def planted_combinations(
    *,
    sources: int = 8,
    targets: int = 6,
    pairs: int = 12,
    size: float = 12.0,
    stray: float = 3.0,
    lead: float = 0.0,
    items: int = 250,
    method: str = CONCAT,
    seed: int = 0,
) -> PlantedCombinations:
    """size: standard deviation of true single gains in points, 0 for none; pairs: how many measured."""
    rng = np.random.default_rng([seed, 1])
    names = [f"s{s}" for s in range(sources)]
    trait = rng.standard_normal((sources, 1)) @ rng.standard_normal((1, targets))
    gains = size * (0.7 * trait + 0.7 * rng.standard_normal((sources, targets)))
    planted = PlantedCombinations(
        TransferMatrix((), (), np.zeros((0, 0)), np.zeros(0)),
        dict(zip(names, np.clip(gains, -38, 38), strict=True)),
        seed,
        stray,
        lead,
    )
    every = list(combinations(names, 2))
    picked = [every[at] for at in rng.permutation(len(every))[:pairs]]
    combos = [Combination("_".join((method, *pair)), pair, (0.5, 0.5), method) for pair in picked]
    truth = dict(planted.truth) | {c.name: np.clip(planted.true_gain(c), -48, 48) for c in combos}
    matrix = measured_matrix(truth, combos, items=items, seed=seed)
    return PlantedCombinations(matrix, truth, seed, stray, lead)


def planted_courses(
    *,
    sources: int = 7,
    targets: int = 5,
    steps: Sequence[int] = (10, 40),
    end: int = 120,
    bend: float = 1.0,
    stray: float = 0.0,
    items: int = 0,
    seed: int = 0,
) -> TransferMatrix:
    """Sources s0.. with rows ``s0@10``; a true gain at a step is its end's times the share of the way, in
    logarithms, to the power of ``bend`` (1: a straight line), and strays by so many points between.

    items: 0 for a table without items, whose gains are true.
    """
    rng = np.random.default_rng([seed, 3])
    truth: dict[str, Array] = {}
    described = {}
    training = {"max_steps": end, "max_tokens": None}
    for name in (f"s{s}" for s in range(sources)):
        last = np.clip(12 * rng.standard_normal(targets), -30, 30)
        for step in (*steps, end):
            share = np.log1p(step) / np.log1p(end)
            off = stray * np.sqrt(share * (1 - share)) * rng.standard_normal(targets)
            row = name if step == end else f"{name}@{step}"
            truth[row] = last * share**bend + off
            described[row] = {"training": training, "adapter": None}
            if step != end:
                described[row]["variation"] = {
                    **{"kind": "checkpoint", "parents": [name], "family": name, "changes": {}},
                    **{"dose": float(step), "parent_dose": float(end)},
                }
    conditions = {"sources": described, "seeds": [0]}
    if items:
        return replace(measured_matrix(truth, [], items=items, seed=seed), conditions=conditions)
    values = 0.5 + np.array(list(truth.values())) / 100
    names = tuple(f"t{t}" for t in range(targets))
    return TransferMatrix(tuple(truth), names, values, np.full(targets, 0.5), conditions=conditions)


def measured_matrix(
    truth: dict[str, Array], combos: Sequence[Combination], *, items: int, seed: int, base: float = 0.5
) -> TransferMatrix:
    """Answers right or wrong to the same items, whose difficulty all rows share."""
    rng = np.random.default_rng([seed, 2])
    rows = list(truth)
    targets = len(next(iter(truth.values())))
    scores = {}
    for t in range(targets):
        shared = rng.standard_normal(items)
        levels = np.array([0.0, *(truth[name][t] / 100 for name in rows)]) + base
        drawn = 0.7 * shared + np.sqrt(1 - 0.49) * rng.standard_normal((len(levels), items))
        bound = np.array([_normal_quantile(level) for level in levels])
        scores[f"t{t}"] = (drawn < bound[:, None]).astype(float)[:, None, :]
    values = np.array([[scores[f"t{t}"][1 + r, 0].mean() for t in range(targets)] for r in range(len(rows))])
    baseline = np.array([scores[f"t{t}"][0, 0].mean() for t in range(targets)])
    described = {
        c.name: {
            "variation": {"kind": c.method if c.method == CONCAT else "merge", "parents": list(c.parents)}
        }
        for c in combos
    }
    for c in combos:
        shares = dict(zip(c.parents, c.weights, strict=True))
        changes = {CONCAT: shares} if c.method == CONCAT else {"merge": shares, "method": c.method}
        described[c.name]["variation"]["changes"] = changes
    return TransferMatrix(
        sources=tuple(rows),
        targets=tuple(scores),
        values=values,
        baseline=baseline,
        item_scores=scores,
        conditions={"sources": described, "seeds": [0]},
    )


def _normal_quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))
