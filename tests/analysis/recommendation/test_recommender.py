"""Recommenders: what is planted comes back, nothing leaks, parts add up, and directions are respected."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from traitmap.analysis.recommendation.models import FAMILIES, two_way
from traitmap.analysis.recommendation.problem import Problem, design_of, effects_of, level_of
from traitmap.analysis.recommendation.protocol import evaluate
from traitmap.analysis.recommendation.selection import select
from traitmap.api.recommendation import evaluate_recommenders
from traitmap.cli import app
from traitmap.data.texts import read_embeddings, read_groups
from traitmap.errors import DataError, MatrixError
from traitmap.matrix.record import TransferMatrix

FIXTURE = Path(__file__).parents[1] / "prompttransfer" / "T5_score.csv"


def planted(sources=9, targets=10, seed=0):
    """Gains = source's level + inner product of task vectors + noise; tasks' vectors are the embeddings."""
    random = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(sources)], [f"t{i}" for i in range(targets)]
    vectors = {name: random.normal(size=3) for name in (*names[0], *names[1])}
    alike = np.array([[vectors[s] @ vectors[t] for t in names[1]] for s in names[0]])
    gains = random.normal(size=(sources, 1)) * 0.3 + alike + 0.1 * random.normal(size=alike.shape)
    base = np.full(targets, 50.0)
    return TransferMatrix(tuple(names[0]), tuple(names[1]), base + gains, base), vectors


def problem_of(matrix, features=None):
    effects = effects_of(matrix)
    rows, columns = effects.effect.shape
    given = np.empty((rows, columns, 0)) if features is None else features
    names = tuple(f"f{i}" for i in range(given.shape[-1]))
    return Problem(
        effect=effects.effect,
        features=given,
        feature_names=names,
        feature_words=names,
        targets_alike=(),
        sources_alike=(),
        holdout="target",
        blocks=np.broadcast_to(np.arange(columns), (rows, columns)),
        own=np.array([[s == t for t in effects.targets] for s in effects.sources]),
    )


@pytest.fixture(scope="module")
def judged():
    matrix, vectors = planted(8, 8)
    return evaluate(matrix, embeddings=vectors)


def test_what_is_planted_in_features_is_found(judged):
    nested, popular = judged.models["nested"], judged.models["popularity"]
    assert nested["spearman"].value > popular["spearman"].value + 0.2
    assert judged.differences["nested"]["ndcg"].low > 0
    assert 80 <= nested["coverage"].value <= 98


def test_random_scores_what_chance_scores(judged):
    assert judged.models["random"]["spearman"].value == 0
    best = judged.effects.score.max(axis=0)
    expected = (100 * (best - judged.effects.score.mean(axis=0)) / best).mean()
    assert judged.models["random"]["regret@1"].value == pytest.approx(expected)


def test_json_names_every_metric_with_its_interval(judged):
    told = judged.to_json()
    assert told["chosen"] in told["models"]
    assert (told["n_targets"], told["n_sources"]) == (8, 8)
    for metric in ("ndcg", "ndcg@3", "regret@1", "mean_regret@5", "spearman", "auc", "coverage"):
        one = told["models"]["nested"][metric]
        assert one["low"] <= one["value"] <= one["high"], metric


def test_a_held_out_target_cannot_be_seen_in_its_prediction():
    """Its column, and the row of the source of its name, may hold anything: the prediction stays the same."""
    matrix, _ = planted()
    names = ("t0", *matrix.sources[1:])
    before = problem_of(replace(matrix, sources=names))
    values = matrix.values.copy()
    values[:, 0] += np.arange(9) * 7.0
    values[0, :] -= 30.0
    after = problem_of(replace(matrix, sources=names, values=values))
    held = np.zeros_like(before.known)
    held[1:, 0] = True
    few = ("popularity", "additive", "ridge")
    one, other = (select(problem.without(held), few)[1] for problem in (before, after))
    for name in few:
        np.testing.assert_array_equal(one[name].effect, other[name].effect)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "prior"])
def test_the_order_of_sources_does_not_matter_to_a_fit(family):
    matrix, _ = planted()
    features = np.random.default_rng(1).normal(size=(9, 10, 4))
    order = np.random.default_rng(2).permutation(9)
    problem = problem_of(matrix, features)
    shuffled = replace(
        problem, effect=problem.effect[order], features=features[order], own=problem.own[order]
    )
    for candidate in FAMILIES[family]:
        one = candidate.fit(problem, design_of(problem)).z
        other = candidate.fit(shuffled, design_of(shuffled)).z
        np.testing.assert_allclose(one[order], other, atol=1e-6)


def test_with_a_level_alone_the_gaussian_process_is_a_shrunken_mean():
    problem = problem_of(planted()[0])
    design = design_of(problem)
    found = two_way(popularity=0.2, noise=0.5)(problem, design).z
    np.testing.assert_allclose(found[:, 0], design.merit.sum(axis=1) / (10 + 0.5 / 0.2))


def test_a_target_without_cells_gets_the_usual_level():
    effect = np.column_stack([np.arange(12.0), 2 * np.arange(12.0), np.full(12, np.nan)])
    centre, spread = level_of(effect)
    assert centre[2] == pytest.approx(np.median([5.5, 11.0]))
    spreads = np.std(effect[:, :2], axis=0, ddof=1)
    assert spread[2] == pytest.approx(np.exp(np.median(np.log(spreads))))


def test_lower_is_better_is_the_same_turned_round():
    matrix, vectors = planted(6, 5)
    lower = replace(
        matrix,
        values=100 - matrix.values,
        baseline=100 - matrix.baseline,
        conditions={"higher_is_better": dict.fromkeys(matrix.targets, False)},
    )
    assert effects_of(matrix).effect == pytest.approx(effects_of(lower).effect)
    change = effects_of(lower, "relchange")
    assert change.effect == pytest.approx(effects_of(lower).effect / 50)
    assert vectors


# What smooth is made of is found by occlusion, which need not add up.
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("prior", "smooth")])
def test_parts_of_a_prediction_add_up(family):
    """Occlusion in trees leaves what features do together; every other model is a sum of its parts."""
    matrix, _ = planted()
    problem = problem_of(matrix, np.random.default_rng(1).normal(size=(9, 10, 4)))
    for candidate in FAMILIES[family]:
        fit = candidate.fit(problem, design_of(problem))
        for source, target in ((0, 0), (3, 7), (8, 9)):
            assert sum(fit.parts(source, target).values()) == pytest.approx(fit.z[source, target])


def test_parts_of_the_stack_add_up_to_its_effect():
    matrix, _ = planted()
    problem = problem_of(matrix, np.random.default_rng(1).normal(size=(9, 10, 4)))
    hidden = problem.without(np.arange(10)[None, :].repeat(9, axis=0) == 9)
    _, families = select(hidden, ("popularity", "ridge", "two-way"))
    stack, (centre, _) = families["stack"], level_of(hidden.effect)
    for source in range(9):
        parts = stack.fit.parts(source, 9)
        gain = centre[9] + stack.spread[9] * sum(parts.values())
        assert gain == pytest.approx(stack.effect[source, 9])
    assert (stack.low < stack.effect).all()
    assert (stack.effect < stack.high).all()


def test_groups_are_held_out_together(tmp_path):
    file = tmp_path / "groups.csv"
    matrix, _ = planted(5, 6)
    file.write_text("target,group,kind\n" + "\n".join(f"t{i},g{i // 2},k{i % 2}" for i in range(6)))
    found = evaluate_recommenders(matrix, holdout=file)
    assert set(found.picks) == {"t0, t1", "t2, t3", "t4, t5"}
    assert found.conditions["averaged_over"].startswith("groups")
    assert found.conditions["likenesses"] == ["kind"]
    file.write_text("target,group\nt0,a\nt0,b\n")
    with pytest.raises(DataError, match="twice"):
        read_groups(file)


@pytest.mark.parametrize("holdout", ["source", "cell"])
def test_sources_and_cells_can_be_held_out(holdout):
    matrix, _ = planted(6, 7)
    found = evaluate(matrix, holdout=holdout)
    assert np.isfinite(found.predicted["nested"]).all()
    assert 75 <= found.models["nested"]["coverage"].value <= 100


def test_what_cannot_be_used_is_told(tmp_path):
    matrix, vectors = planted(5, 5)
    with pytest.raises(MatrixError, match="holdout 'row'"):
        evaluate(matrix, holdout="row")
    with pytest.raises(MatrixError, match="'nowhere'"):
        evaluate(matrix, holdout={"nowhere": "a"})
    with pytest.raises(DataError, match="no source of the matrix has embeddings"):
        evaluate(matrix, embeddings={"t0": vectors["t0"]})
    (tmp_path / "bad.npz").write_text("no")
    with pytest.raises(DataError, match="cannot be read as an NPZ"):
        read_embeddings(tmp_path / "bad.npz")


def test_published_floors_of_prompt_transfer_come_back_from_the_command():
    """Random 37.9 / 20.0 and popularity 28.5 / 23.9: Regret@1 and Regret@3, self cells left out."""
    run = CliRunner().invoke(app, ["recommend", "--evaluate", str(FIXTURE), "--json"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert told["chosen"] in told["models"]
    assert (told["n_targets"], told["n_sources"]) == (17, 17)
    for name, floor in (("random", (37.8, 19.9)), ("popularity", (28.5, 23.9))):
        of = told["models"][name]
        assert (of["regret@1"]["value"], of["regret@3"]["value"]) == pytest.approx(floor, abs=0.1)


def test_relative_changes_come_from_the_base_where_there_is_one():
    matrix = planted(4, 4)[0]
    change = effects_of(matrix, "relchange")
    np.testing.assert_allclose(change.effect, matrix.values / 50 - 1)
    given = replace(matrix, values=change.effect, baseline=np.full(4, np.nan))
    np.testing.assert_allclose(effects_of(given, "relchange").effect, change.effect)
    np.testing.assert_allclose(effects_of(given, "relchange").score, matrix.values / 50)
