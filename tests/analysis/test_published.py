"""Published results on published tables come back. The tables lie in ../shared, but for the MIT one here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import FactorAnalysis

from planted import COUNTS_ONLY, matrix_of
from traitmap.analysis.traits.components import complete, factor_variances, rotate_loadings, standardise
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.description import describe
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix

SIZES = ("Model Family", "Model Size (B)", "Pretraining Data Size (T)", "FLOPs (1E21)")
BESIDE = (
    "ethics_all",
    "sycophancy",
    "gpqa",
    "scrolls_quality",
    "crows_pairs_english",
    "bbq_amb",
    "truthfulqa_mc1",
)
PUBLISHED = (82.15, -66.84, 77.72, 88.79, 28.48, -37.30, 81.18)
PRINTED = 0.015  # what rounding to two digits does to a vector of ten


@pytest.mark.shared
def test_observational_scaling_laws(shared):
    """Ruan et al. 2024: three components hold 97 % of the variance of 77 base models' scores."""
    matrix = read_matrix(shared / "matrices" / "obsscaling_base_77x8.csv", row_name="Model", drop=SIZES)
    traits = decompose(matrix, scale="center", **COUNTS_ONLY)
    assert traits.explained_variance_ratio[0] == pytest.approx(0.8016, abs=0.002)
    assert traits.explained_variance_ratio[:3].sum() == pytest.approx(0.9670, abs=0.002)
    loading = dict(zip(traits.targets, traits.loadings[:, 2], strict=True))
    assert loading["HumanEval"] == pytest.approx(0.826, abs=0.02)


def helm(shared: Path) -> TransferMatrix:
    """HELM scores with bits per byte turned round, so that higher is better everywhere."""
    matrix = read_matrix(shared / "matrices" / "helm_burnell_29x27.csv")
    turn = np.where([name.endswith("_BPB") for name in matrix.targets], -1.0, 1.0)
    return replace(matrix, values=matrix.values * turn)


@pytest.mark.shared
def test_revealing_the_structure_of_language_model_capabilities(shared):
    """Burnell et al. 2023 on HELM: task correlations and shares of three oblique factors."""
    matrix = helm(shared)
    traits = decompose(matrix, **COUNTS_ONLY)
    correlation = traits.conditions["target_correlation"]
    assert correlation["mean"] == pytest.approx(0.557, abs=0.002)
    assert correlation["median"] == pytest.approx(0.596, abs=0.002)
    np.testing.assert_allclose(traits.explained_variance_ratio[:3], [0.601, 0.155, 0.084], atol=0.001)
    filled = complete(matrix.values, 3, tolerance=1e-8)
    z = standardise(filled[None], "standard")[0][0] * np.sqrt(len(filled) / (len(filled) - 1))
    model = FactorAnalysis(3, tol=1e-10, max_iter=20000, svd_method="lapack").fit(z)
    pattern, transform = rotate_loadings(model.components_.T, "oblimin")
    shares = factor_variances(pattern, transform) / len(matrix.targets)
    np.testing.assert_allclose(shares, [0.333, 0.307, 0.174], atol=0.002)
    assert shares.sum() == pytest.approx(0.815, abs=0.002)
    correlations = sorted((transform.T @ transform)[np.triu_indices(3, 1)])
    np.testing.assert_allclose(correlations, [0.22, 0.48, 0.52], atol=0.005)


@pytest.mark.shared
def test_number_of_components_of_helm(shared):
    traits = decompose(helm(shared), n_bootstrap=300, n_permutations=200)
    assert traits.n_components["parallel"] == 2
    assert traits.n_components["cv"] == 3
    worst = traits.stability.resamplings["adapters"].congruence_p05
    np.testing.assert_allclose(worst[:3], [0.973, 0.79, 0.69], atol=0.06)
    assert "sources_named_alike" in [warning.code for warning in traits.warnings]


@pytest.mark.shared
def test_safetywashing(shared):
    """Ren et al. 2024: rank correlations of safety benchmarks with the first component of capabilities."""
    path = shared / "matrices" / "safetywashing_chat_26x12.csv"
    table = pd.read_csv(path)
    traits = decompose(read_matrix(path, drop=tuple(table.columns[13:])), **COUNTS_ONLY)
    assert len(traits.targets) == 12
    assert traits.explained_variance_ratio[0] == pytest.approx(0.7376, abs=0.0005)
    correlations = [100 * spearmanr(traits.scores[:, 0], table[name]).statistic for name in BESIDE]
    np.testing.assert_allclose(correlations, PUBLISHED, atol=0.05)


@pytest.mark.shared
def test_collapsed_adapters_of_taskweb(shared):
    """Kim et al. 2023 left T5-base LoRA out as unstable: 15 % of its runs predict one class only."""
    path = shared / "matrices" / "taskweb_t5b_lora_score.csv"
    matrix = read_matrix(path)
    found = decompose(matrix, n_bootstrap=0).warnings
    by_scores = {warning.about[0] for warning in found if warning.code == "collapsed_source"}
    assert by_scores == {"boolq", "qqp", "snli", "squad_v2"}
    runs = pd.read_csv(path.with_name("taskweb_prediction_class_dist.csv.gz"))
    runs = runs[runs.model_adapt == "t5b-lora"]
    share = runs.pivot_table(index="source", columns="target", values="majority_frac")
    share = share.reindex(index=matrix.sources, columns=matrix.targets).to_numpy()
    found = decompose(matrix, majority_share=share, n_bootstrap=0).warnings
    by_predictions = {warning.about[0] for warning in found if warning.code == "collapsed_source"}
    assert by_predictions == by_scores
    sound = read_matrix(path.with_name("taskweb_t5l_finetune_score.csv"))
    assert "collapsed_source" not in [w.code for w in decompose(sound, n_bootstrap=0).warnings]


def printed_table(shared: Path, shares: tuple[float, ...]) -> tuple[TransferMatrix, np.ndarray, np.ndarray]:
    """The rank-4 table of the paper's printed U and V, with the given shares of variance, and U and V."""
    printed = json.loads((shared / "paper" / "paper_data.json").read_text())["pca"]
    u, v = np.array(printed["U_rows_by_components"]), np.array(printed["V_components_by_tasks"]).T
    names = [
        "row0",
        "row1",
        "MetaMath?",
        "Goat?",
        "Magicoder?",
        "PAWS?",
        "MNLI?",
        "Pile?",
        "Flipkart?",
        "Amazon?",
        "IMDB?",
    ]
    return matrix_of((u * np.sqrt(shares)) @ v.T, names, printed["tasks"]), u, v


@pytest.mark.shared
def test_the_papers_components_come_back_and_are_not_above_chance(shared):
    matrix, u, v = printed_table(shared, (0.27, 0.20, 0.16, 0.12))
    traits = decompose(matrix, scale="center", components=4, claimed_share=0.75, n_bootstrap=100)
    turn = np.sign((traits.loadings[:, :4] * v).sum(axis=0))
    np.testing.assert_allclose(traits.loadings[:, :4] * turn, v, atol=PRINTED)
    np.testing.assert_allclose(traits.scores_u[:, :4] * turn, u, atol=PRINTED)
    about = {warning.code: warning for warning in traits.warnings}
    assert about["one_source_axis"].about == ("PC0", "MNLI?")
    assert about["two_source_axis"].about[0] == "PC3"
    assert set(about["two_source_axis"].about[1:]) == {"Goat?", "MetaMath?"}
    assert "75 %" in about["claim_not_above_null"].message
    assert "11 x 10" in about["claim_not_above_null"].message
    words = " ".join(describe(traits))
    assert "The claimed 75 % of the variance does not exceed chance at 11 x 10" in words
    assert traits.null_cumulative_mean[3] == pytest.approx(0.796, abs=0.01)
    assert traits.n_components["cv"] == 0
    json.dumps(traits.to_json(), allow_nan=False)


def test_prompt_transfer_masks_its_diagonal():
    """Su et al. 2022: 17 prompts on 17 tasks; three components, all of them unstable over prompts."""
    matrix = read_matrix(Path(__file__).parent / "prompttransfer" / "T5_score.csv")
    traits = decompose(matrix, n_bootstrap=200)
    assert traits.masked.sum() == 17
    assert traits.masked.diagonal().all()
    assert [traits.n_components[rule] for rule in ("cv", "parallel", "permutation", "used")] == [3, 3, 3, 3]
    assert "unstable_component" in [warning.code for warning in traits.warnings]
    known = np.isfinite(matrix.values) & ~traits.masked
    np.testing.assert_allclose(traits.completed[known], matrix.values[known])
