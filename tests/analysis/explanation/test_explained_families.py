"""Controlled changes: doses in order, balance, the part of the format; and no pairs of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planted import answered
from planted_pairs import Shape, simulated
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.families import (
    doses_of,
    families,
    origins_of,
    without_derived,
    without_variations,
)
from traitmap.matrix.record import TransferMatrix


def made(parent: str, kind: str, dose: float | None) -> dict:
    return {
        "family": parent,
        "parents": [parent],
        "kind": kind,
        "changes": {kind: dose},
        "dose": dose,
        "parent_dose": None if dose is None else 0.0,
        "meaning": f"the rate of {kind}",
        "rows_changed": 10,
    }


def study() -> TransferMatrix:
    """A source, the same mislabelled at two rates, balanced, and reduced to its format; six more sources."""
    names = ("task00", "half", "all", "even", "shape", *(f"task{i:02d}" for i in range(1, 7)))
    targets = tuple(f"task{i:02d}" for i in range(7))
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.4, 0.6, size=(11, 7))
    shares[:5, 0] = 0.9, 0.6, 0.2, 0.7, 0.5
    shares[:5, 1] = 0.5, 0.5, 0.5, 0.9, 0.5
    given = answered(shares, np.full(7, 0.45), items=400, seeds=1, shared_difficulty=0.0, seed=1)
    variations = {
        "half": made("task00", "mislabel", 0.5),
        "all": made("task00", "mislabel", 1.0),
        "even": made("task00", "balance", None),
        "shape": made("task00", "format_only", None),
    }
    scores = {new: given.item_scores[old] for new, old in zip(targets, given.targets, strict=True)}
    told = {name: {"variation": variations.get(name)} for name in names}
    return replace(
        given, sources=names, targets=targets, item_scores=scores, cells=(), conditions={"sources": told}
    )


def test_doses_rise_from_the_parent_and_the_planted_fall_is_told() -> None:
    found = families(study())
    curve = next(one for one in found.curves if one.target == "task00")
    assert curve.sources == ("task00", "half", "all")
    assert curve.response.doses == (0.0, 0.5, 1.0)
    assert curve.response.verdict == "falls"
    assert curve.q < 0.05
    assert all(one.q >= one.response.p for one in found.curves)


def test_balance_and_format_are_held_against_the_parent() -> None:
    found = families(study())
    contrast = next(one for one in found.balanced if one.contrast.targets == ("task00", "task01"))
    assert contrast.source == "even"
    assert contrast.contrast.difference.value < -0.4
    assert contrast.q < 0.05
    assert {part.control for part in found.format} == {"shape"}
    assert {part.target for part in found.format} == {"task00"}


def test_variations_are_no_pairs_of_their_own() -> None:
    matrix = study()
    kept = without_variations(matrix)
    assert kept.sources == ("task00", *(f"task{i:02d}" for i in range(1, 7)))
    assert kept.item_scores["task00"].shape[0] == 8
    assert np.array_equal(kept.item_scores["task00"][2], matrix.item_scores["task00"][6])
    _, features = simulated(Shape(7, 7), 0.0, 0)
    found = explain(matrix, features=features, n_permutations=99)
    assert found.pairs == 42
    assert found.conditions["variations"] == ["all", "even", "half", "shape"]
    assert any("falls with the rate of mislabel" in said for said in found.words)
    assert without_variations(kept) is kept
    assert not families(kept)


def test_a_study_of_one_family_is_told_without_pairs() -> None:
    matrix = study()
    rows = [0, 1, 2, 3, 4]
    small = replace(
        matrix,
        sources=matrix.sources[:5],
        values=matrix.values[:5],
        item_scores={t: scores[[0, *(1 + row for row in rows)]] for t, scores in matrix.item_scores.items()},
    )
    _, features = simulated(Shape(7, 7), 0.0, 0)
    found = explain(small, features=features)
    assert found.pairs == 0
    assert "nobody can tell" in found.words[0]
    assert found.families.curves
    assert found.to_json()["dominance"]["unexplained"] is None


def test_merges_and_checkpoints_are_no_doses_and_no_tasks_and_know_where_they_come_from() -> None:
    matrix = answered(np.full((4, 1), 0.5), np.array([0.4]), items=30)
    names = dict(zip(matrix.sources, ("a", "a@5", "half", "ab"), strict=True))
    of = {
        "a@5": {"kind": "checkpoint", "parents": ["a"], "dose": 5, "parent_dose": 9, "meaning": "steps"},
        "half": {"kind": "subsample", "parents": ["a"], "dose": 5, "parent_dose": 9, "meaning": "rows"},
        "ab": {"kind": "merge", "parents": ["a@5", "half"], "dose": None, "parent_dose": None, "meaning": ""},
    }
    told = {name: {"variation": of.get(name)} for name in names.values()}
    matrix = replace(matrix, sources=tuple(names.values()), conditions={"sources": told})
    assert without_derived(matrix).sources == ("a", "half")
    assert without_variations(matrix).sources == ("a",)
    assert list(doses_of(matrix)) == [("a", "subsample", "rows")]
    assert origins_of(matrix) == {"a@5": {"a"}, "half": {"a"}, "ab": {"a", "half"}}
