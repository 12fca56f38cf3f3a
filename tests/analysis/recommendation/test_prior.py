"""Other people's matrices: what matches is used as far as it holds, noise is not, an atlas keeps its word."""

import json

import numpy as np
import pytest

from traitmap.analysis.recommendation.prior import PriorMatrix, align, text_profile
from traitmap.analysis.recommendation.protocol import evaluate
from traitmap.analysis.recommendation.recommend import recommend_sources
from traitmap.api.atlas import atlas_add, atlas_report, read_priors
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.matrix.record import TransferMatrix

SOURCES, TARGETS = tuple(f"s{i}" for i in range(9)), tuple(f"t{i}" for i in range(14))


def tables(seed: int, shared: float, own: float = 1.0, count: int = 5) -> list[TransferMatrix]:
    """Matrices of several bases. shared: standard deviation of what a pair does on every base."""
    random = np.random.default_rng(seed)
    pair = shared * random.normal(size=(9, 14))
    base = np.full(14, 50.0)
    drawn = [pair + own * random.normal(size=(9, 14)) for _ in range(count)]
    return [TransferMatrix(SOURCES, TARGETS, base + gains, base) for gains in drawn]


def priors_of(matrices: list[TransferMatrix]) -> list[PriorMatrix]:
    return [PriorMatrix(f"base {b}", matrix) for b, matrix in enumerate(matrices)]


def test_what_holds_elsewhere_is_used() -> None:
    first, *others = tables(0, shared=1.0)
    with_prior, without = evaluate(first, prior=priors_of(others)), evaluate(first)
    assert {name for name, _ in with_prior.picks.values()} == {"prior"}
    gained = with_prior.per_target["nested"]["spearman"] - without.per_target["nested"]["spearman"]
    assert gained.mean() > 0.3
    told = recommend_sources(first, "t2", prior=lambda s, t: align(priors_of(others), s, t))
    assert told.conditions["model"] == "prior"
    assert "Priors are used." in told.notes
    kinds = {reason.kind for advice in told.ranked for reason in advice.reasons}
    assert "prior" in kinds


@pytest.mark.parametrize("seed", range(6))
def test_noise_as_a_prior_makes_nothing_worse(seed: int) -> None:
    """The matrix has a level for each source; the priors have nothing to do with it or with each other."""
    random = np.random.default_rng(seed)
    base = np.full(14, 50.0)
    gains = 1.5 * random.normal(size=(9, 1)) + random.normal(size=(9, 14))
    matrix = TransferMatrix(SOURCES, TARGETS, base + gains, base)
    with_prior = evaluate(matrix, prior=priors_of(tables(seed + 100, shared=0.0)))
    without = evaluate(matrix)
    for metric, sign in (("ndcg", 1), ("spearman", 1), ("regret@1", -1)):
        gained = sign * (with_prior.per_target["nested"][metric] - without.per_target["nested"][metric])
        assert gained.mean() >= -2 * gained.std() / np.sqrt(14) - 1e-9, metric


def test_priors_that_agree_with_each_other_and_not_with_the_matrix_do_no_harm() -> None:
    random = np.random.default_rng(1)
    base = np.full(14, 50.0)
    gains = 1.5 * random.normal(size=(9, 1)) + random.normal(size=(9, 14))
    first = TransferMatrix(SOURCES, TARGETS, base + gains, base)
    with_prior, without = evaluate(first, prior=priors_of(tables(2, shared=1.5, own=0.3))), evaluate(first)
    for metric in ("ndcg", "spearman"):
        gained = with_prior.per_target["nested"][metric] - without.per_target["nested"][metric]
        assert gained.mean() >= -2 * gained.std() / np.sqrt(14) - 1e-9, metric


def test_names_match_without_case_and_signs_and_texts_match_other_names() -> None:
    texts = {
        "gsm8k": [TaskText(f"How many apples are {i} apples and {i + 1} apples?", str(i)) for i in range(30)],
        "poems": [TaskText(f"Write a poem on the moon, verse {i}.", "O moon") for i in range(30)],
    }
    profile = text_profile(texts)
    theirs = text_profile({"school maths": texts["gsm8k"][::2], "verses": texts["poems"][1::2]})
    values = np.arange(12.0).reshape(3, 4) % 7
    other = TransferMatrix(
        ("A-1", "b 2", "c"), ("school maths", "verses", "X_y", "else"), values + 50, np.full(4, 50.0)
    )
    prior = align(
        [PriorMatrix("other", other, theirs)], ("a1", "B2", "z"), ("gsm8k", "poems", "x y"), profile=profile
    )
    assert prior.words == (
        "Prior other: 2 of 3 sources matched (2 by name), 3 of 3 targets matched (1 by name, 2 by texts).",
    )
    assert np.isfinite(prior.merit[0, :2]).all()
    assert np.isnan(prior.merit[0, 2]).all()
    assert prior.counts[0].tolist() == [1, 1, 0]
    grouped = align(
        [PriorMatrix("other", other, {}, {"verses": "art", "school maths": "maths"})],
        ("a1", "B2"),
        ("sonnets",),
        groups={"sonnets": "art"},
    )
    np.testing.assert_allclose(grouped.merit[0, :, 0], prior.merit[0, :2, 1])
    with pytest.raises(MatrixError, match="has no source of the matrix"):
        align([PriorMatrix("other", other)], ("q",), ("gsm8k",))


def test_an_atlas_gives_back_what_was_put_in_and_refuses_what_was_changed(tmp_path) -> None:
    matrix = tables(3, shared=1.0, count=1)[0]
    texts = {"t0": [TaskText("a secret sentence of words", "yes")]}
    written = atlas_add(tmp_path, matrix, name="one", texts=texts)
    assert atlas_add(tmp_path, matrix, name="one", texts=texts) == written, "the same again changes nothing"
    assert "secret" not in written.read_text()
    (prior,) = read_priors([tmp_path])
    np.testing.assert_array_equal(prior.matrix.values, matrix.values)
    np.testing.assert_array_equal(prior.matrix.baseline, matrix.baseline)
    np.testing.assert_allclose(prior.profile["t0"], text_profile(texts)["t0"], atol=1e-4)
    with pytest.raises(MatrixError, match="another matrix has this name"):
        atlas_add(tmp_path, tables(4, shared=1.0, count=1)[0], name="one")
    (tmp_path / "two.atlas.json").write_bytes(written.read_bytes())
    report = atlas_report(tmp_path)
    assert len(report.entries) == 1
    assert "holds the same as one.atlas.json" in report.faults[0]
    content = json.loads(written.read_text())
    content["values"][0][0] += 1
    (tmp_path / "two.atlas.json").write_text(json.dumps(content))
    with pytest.raises(MatrixError, match="does not fit its digest"):
        read_priors([tmp_path])
