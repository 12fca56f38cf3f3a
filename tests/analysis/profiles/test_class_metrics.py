"""Metrics of confusion matrices: scikit-learn's values, the published matrices, what is unknown."""

import numpy as np
import pytest
from sklearn import metrics

from traitmap.analysis.profiles.class_metrics import class_metrics, confusion_metrics, metric_values
from traitmap.analysis.profiles.metric_comparison import compare_metrics
from traitmap.errors import MatrixError

IMDB_FLIPKART = [[219, 1, 32], [65, 4, 48], [50, 93, 1488]]
PILE_FLIPKART = [[142, 61, 49], [6, 46, 65], [10, 131, 1490]]
BALANCED_IMDB = [[1009, 2], [842, 147]]
UNBALANCED_IMDB = [[999, 12], [445, 544]]
CLASSES = ("negative", "neutral", "positive")


@pytest.mark.parametrize("seed", range(4))
def test_values_are_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    n_classes = 2 + seed
    gold, predicted = generator.integers(0, n_classes, 200), generator.integers(0, n_classes + 1, 200)
    ours = class_metrics(gold, predicted, [str(code) for code in range(n_classes)], draws=50)
    labels = list(range(n_classes))
    assert ours.accuracy.value == pytest.approx(metrics.accuracy_score(gold, predicted))
    assert ours.macro_f1.value == pytest.approx(
        metrics.f1_score(gold, predicted, labels=labels, average="macro")
    )
    recall = metrics.recall_score(gold, predicted, labels=labels, average=None)
    precision = metrics.precision_score(gold, predicted, labels=labels, average=None)
    assert [one.value for one in ours.recall] == pytest.approx(list(recall))
    assert [one.value for one in ours.precision] == pytest.approx(list(precision))
    assert ours.balanced_accuracy.value == pytest.approx(recall.mean())
    assert ours.kappa.value == pytest.approx(metrics.cohen_kappa_score(gold, predicted))
    assert ours.matthews.value == pytest.approx(metrics.matthews_corrcoef(gold, predicted))
    table = metrics.confusion_matrix(gold, predicted, labels=[*labels, n_classes])[:n_classes]
    assert (ours.counts[:, : n_classes + 1] == table).all()


@pytest.mark.parametrize(
    ("table", "accuracy", "macro_f1", "balanced", "kappa"),
    [(IMDB_FLIPKART, 0.8555, 0.572, 0.605, 0.571), (PILE_FLIPKART, 0.8390, 0.624, 0.623, 0.511)],
)
def test_published_matrices(table, accuracy, macro_f1, balanced, kappa):
    found = confusion_metrics(table, CLASSES)
    assert found.accuracy.value == pytest.approx(accuracy, abs=5e-5)
    assert found.macro_f1.value == pytest.approx(macro_f1, abs=5e-4)
    assert found.balanced_accuracy.value == pytest.approx(balanced, abs=5e-4)
    assert found.kappa.value == pytest.approx(kappa, abs=5e-4)
    assert found.majority == pytest.approx(0.8155)
    for one in (found.accuracy, found.macro_f1, found.balanced_accuracy, found.kappa, *found.recall):
        assert one.low < one.value < one.high


def test_published_marginal_of_the_balanced_source():
    balanced = confusion_metrics(BALANCED_IMDB, ("negative", "positive"))
    unbalanced = confusion_metrics(UNBALANCED_IMDB, ("negative", "positive"))
    assert balanced.marginal[0].value == pytest.approx(0.926, abs=5.1e-4)
    assert balanced.commonest == "negative"
    assert balanced.collapsed
    assert not unbalanced.collapsed
    assert balanced.collapse.low > unbalanced.collapse.high


def test_the_published_conclusion_depends_on_the_metric():
    compared = compare_metrics(IMDB_FLIPKART, PILE_FLIPKART, names=("IMDB", "Pile"))
    verdicts = {one.metric: one for one in compared.verdicts}
    assert compared.shared_items
    assert verdicts["accuracy"].difference.value > 0 > verdicts["macro_f1"].difference.value
    assert verdicts["macro_f1"].verdict == "b"
    assert verdicts["kappa"].verdict == "a"
    assert verdicts["accuracy"].verdict == "cannot tell"
    assert ("macro_f1", "kappa") in compared.opposed
    assert ("accuracy", "macro_f1") in compared.leaning
    assert "changes with the metric" in compared.words
    assert "Pile is better" in compared.words


def test_the_same_matrix_twice_has_no_winner():
    compared = compare_metrics(IMDB_FLIPKART, IMDB_FLIPKART)
    assert all(one.verdict == "cannot tell" and one.difference.value == 0 for one in compared.verdicts)
    assert not compared.opposed
    assert not compared.leaning


def test_exchanging_the_models_exchanges_the_verdicts():
    one = compare_metrics(IMDB_FLIPKART, PILE_FLIPKART)
    other = compare_metrics(PILE_FLIPKART, IMDB_FLIPKART)
    swapped = {"a": "b", "b": "a", "cannot tell": "cannot tell"}
    assert [swapped[found.verdict] for found in one.verdicts] == [found.verdict for found in other.verdicts]


def test_unparsed_answers_are_wrong_and_counted_apart():
    whole = confusion_metrics([[40, 10], [5, 45]])
    silent = confusion_metrics([[40, 10], [5, 45]], unparsed=[20, 0])
    assert silent.accuracy.value == pytest.approx(85 / 120)
    assert silent.unparsed.value == pytest.approx(20 / 120)
    assert silent.recall[0].value == pytest.approx(40 / 70)
    assert silent.precision[0].value == whole.precision[0].value
    assert silent.rates.sum(axis=1) == pytest.approx([1, 1])
    assert silent.columns[2:] == ("[unparsed]", "[other]")


def test_one_answer_for_everything():
    gold = np.array([0] * 70 + [1] * 30)
    found = class_metrics(gold, np.zeros(100, int), ("yes", "no"))
    assert found.accuracy.value == found.majority == 0.7
    assert found.kappa.value == 0
    assert found.collapse.value == 1
    assert found.collapsed
    assert not found.matthews.known
    assert not found.precision[1].known
    assert found.balanced_accuracy.reason  # it is .5 in every resampled table: no interval out of that
    assert np.isnan(found.balanced_accuracy.low)
    assert found.commonest_share.low < 1


def test_a_target_of_one_class_is_no_collapse():
    gold = np.array([0] * 98 + [1] * 2)
    assert not class_metrics(gold, np.zeros(100, int), ("yes", "no")).collapsed


def test_seeds_are_a_sample_too():
    generator = np.random.default_rng(0)
    gold = generator.integers(0, 2, 300)
    alike = np.where(generator.random((2, 300)) < 0.7, gold, 1 - gold)
    apart = np.where(generator.random((2, 300)) < np.array([[0.55], [0.85]]), gold, 1 - gold)
    near, far = class_metrics(gold, alike, "ab"), class_metrics(gold, apart, "ab")
    assert far.seeds == 2
    assert far.counts.sum() == 600
    for name in ("accuracy", "macro_f1", "kappa"):
        one, other = getattr(near, name), getattr(far, name)
        assert other.high - other.low > 2 * (one.high - one.low)


def test_metrics_of_many_tables_are_those_of_each():
    tables = np.random.default_rng(0).integers(1, 30, size=(5, 3, 5))
    together = metric_values(tables)
    for at, table in enumerate(tables):
        for name, found in metric_values(table).items():
            assert together[name][at] == pytest.approx(float(found))


@pytest.mark.parametrize(
    "faulty", [[[0.5, 0.5], [0.1, 0.9]], [[1, 2, 3], [4, 5, 6]], [[-1, 2], [3, 4]], [[0, 0], [0, 0]]]
)
def test_what_is_no_table_of_counts_is_told(faulty):
    with pytest.raises(MatrixError):
        confusion_metrics(faulty)


def test_matrices_of_different_targets_cannot_be_compared():
    with pytest.raises(MatrixError, match="same target"):
        compare_metrics(IMDB_FLIPKART, BALANCED_IMDB)
