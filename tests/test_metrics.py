"""The catalogue of metrics: laws that every row obeys, and how other names are recognised."""

import re
from itertools import chain
from math import isinf

import pytest

from traitmap.analysis.profiles.classes import LOWEST, METRICS
from traitmap.imports.helm import _METRICS as HELM_METRICS
from traitmap.metrics import CATALOGUE, CLASS_METRICS, SHARE, direction, metric, unit_of_gains

COSTS = re.compile(r"loss|perplexity|ppl|brier|error|\b(wer|ter|cer)\b|bits.per|\b(mae|mse|rmse|nll)\b")


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_a_row_agrees_with_its_name(row) -> None:
    for name in (row.name, *row.aliases):
        assert metric(name) is row
    assert row.higher_is_better is not bool(COSTS.search(f"{row.name} {row.label}"))
    assert row.unit
    assert row.label
    assert row.low < row.high
    if row.unit == SHARE:
        assert row.low == 0
        assert row.high == 1 or not row.higher_is_better
    if row.floor == "zero":
        assert row.low < 0 < row.high
    for word in row.words:
        variant = metric(f"eval_{word}_2")
        assert (variant.unit, variant.low, variant.high) == (row.unit, row.low, row.high)
        assert direction(f"eval_{word}_2") == (row.higher_is_better, "known")
        assert direction(f"neg_{word}") == (not row.higher_is_better, "known")


def test_names_and_labels_are_unique() -> None:
    names = list(chain.from_iterable((row.name, *row.aliases) for row in CATALOGUE))
    assert len(set(names)) == len(names)
    assert len({row.label for row in CATALOGUE}) == len(CATALOGUE)
    words = list(chain.from_iterable(row.words for row in CATALOGUE))
    assert len(set(words)) == len(words)


def test_every_class_metric_is_in_the_catalogue_with_its_range() -> None:
    assert set(METRICS) == set(CLASS_METRICS)
    assert {name: metric(name).low for name in METRICS} == LOWEST
    assert LOWEST == {"accuracy": 0, "macro_f1": 0, "balanced_accuracy": 0, "kappa": -1, "matthews": -1}
    assert all(metric(name).high == 1 for name in METRICS)


@pytest.mark.parametrize("name", HELM_METRICS)
def test_what_is_read_from_helm_is_known(name: str) -> None:
    assert direction(name) == (name != "bits_per_byte", "known")


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "val_loss",
        "eval/loss",
        "perplexity",
        "word_perplexity",
        "PPL",
        "brier_score",
        "error",
        "err",
        "error_rate",
        "wer",
        "ter",
        "cer",
        "mae",
        "mse",
        "bits_per_byte",
        "bits_per_token",
        "mean_squared_error",
        "root_mean_squared_error",
        "negative_log_likelihood",
        "cross_entropy",
        "exact_match_error",
        "accuracy_loss",
        "false_negative_error",
    ],
)
def test_costs_are_better_low(name: str) -> None:
    assert direction(name) == (False, "known")


@pytest.mark.parametrize(
    "name", ["acc_norm", "neg_mean_squared_error", "negative_loss", "log_likelihood", "MCC"]
)
def test_negated_costs_and_scores_are_better_high(name: str) -> None:
    assert direction(name) == (True, "known")


def test_the_file_counts_before_the_catalogue_and_an_unknown_name_is_assumed() -> None:
    assert direction("loss", stated=True) == (True, "stated")
    assert direction("glossary", stated=False) == (False, "stated")
    assert direction("glossary") == (True, "assumed")
    unknown = metric("my_score")
    assert (unknown.label, unknown.unit, unknown.higher_is_better) == ("my score", "", None)
    assert isinf(unknown.low)
    assert isinf(unknown.high)
    assert unknown.may_be_share


def test_a_filter_is_no_part_of_the_name() -> None:
    assert metric("exact_match,strict-match") is metric("exact_match (strict-match)") is metric("exact_match")
    assert metric("").may_be_share  # a table need not name its metric


@pytest.mark.parametrize("name", ["kappa", "mcc", "brier", "val_loss", "bits_per_byte", "log_likelihood"])
def test_what_lies_in_0_to_1_by_accident_is_no_share(name: str) -> None:
    assert not metric(name).may_be_share
    assert metric("acc").may_be_share
    assert metric("wer").may_be_share


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("negative_bits_per_byte", "bits per byte"),
        ("bits_per_byte", "bits per byte"),
        ("neg_mean_squared_error", "mean squared error"),
        ("mean_neg_log_loss", "mean log loss"),
        ("false_negative_rate", "false negative rate"),
        ("negativity", "negativity"),
    ],
)
def test_a_gain_is_told_without_the_sign_that_a_name_turns(name, unit):
    assert unit_of_gains(name) == unit
