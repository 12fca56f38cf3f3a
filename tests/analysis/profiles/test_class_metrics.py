"""Metrics of confusion matrices: scikit-learn's values, the published matrices, what is unknown."""

import numpy as np
import pytest
from sklearn import metrics

from traitmap.analysis.profiles.classes import class_metrics, metric_values

IMDB_FLIPKART = [[219, 1, 32], [65, 4, 48], [50, 93, 1488]]
PILE_FLIPKART = [[142, 61, 49], [6, 46, 65], [10, 131, 1490]]
BALANCED_IMDB = [[1009, 2], [842, 147]]
UNBALANCED_IMDB = [[999, 12], [445, 544]]
CLASSES = ("negative", "neutral", "positive")


def confusion_metrics(table, labels, unparsed=None):
    """Metrics of items that give a table (K, K) of counts, rows true; unparsed: (K,) by true class."""
    wide = np.pad(np.array(table), ((0, 0), (0, 2)))
    if unparsed is not None:
        wide[:, len(table)] = unparsed
    gold, predicted = np.repeat(np.indices(wide.shape).reshape(2, -1), wide.ravel(), axis=1)
    return class_metrics(gold, predicted, labels)


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
    imdb, pile = metric_values(IMDB_FLIPKART), metric_values(PILE_FLIPKART)
    assert [name for name in imdb if imdb[name] > pile[name]] == ["accuracy", "kappa", "matthews"]
    assert [name for name in imdb if imdb[name] < pile[name]] == ["macro_f1", "balanced_accuracy"]


def test_unparsed_answers_are_wrong_and_counted_apart():
    whole = confusion_metrics([[40, 10], [5, 45]], "ab")
    silent = confusion_metrics([[40, 10], [5, 45]], "ab", unparsed=[20, 0])
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
