"""The catalogue of metrics: what a number called ``acc`` or ``bits_per_byte`` is, and which way is better.

One row is one metric, and every reader, table and chart asks here. Names that have no row of their own (each
harness has its variants: ``quasi_exact_match``, ``word_perplexity``, ``eval_loss``) are recognised by a word
of a row's family, and a leading ``neg_`` turns the direction around. What even that does not recognise has
no unit, and its direction is assumed: higher is better.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Literal

__all__ = ["CATALOGUE", "CLASS_METRICS", "SHARE", "Metric", "direction", "metric", "unit_of_gains"]

SHARE = "share"  # of items or words; numbers from 0 to 1 are shown in points

Origin = Literal["stated", "known", "assumed"]
Floor = Literal["majority", "chance", "zero"]


@dataclass(frozen=True)
class Metric:
    """What is known of one metric.

    name: as results and studies write it. label: as reports write it.
    higher_is_better: None for a metric that the catalogue does not have.
    unit: ``share``, or what else its numbers count; empty where unknown. low, high: ends of its range.
    floor: what a model without skill reaches: always the commonest answer (``majority``), guessing uniformly
        (``chance``), 0 (``zero``); None where there is no such number.
    of_classes: computed from a confusion matrix of classes.
    may_be_small: values below 1 are common on a scale of 0 to 100, so a value does not tell its scale (BLEU).
    aliases: other names of the very same metric. words: a name with one of them as a part is of this family.
    """

    name: str
    label: str
    higher_is_better: bool | None
    unit: str
    low: float = 0.0
    high: float = inf
    floor: Floor | None = None
    of_classes: bool = False
    aliases: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    may_be_small: bool = False

    @property
    def may_be_share(self) -> bool:
        """Whether values that all lie in 0..1 are to be read as shares. Other units lie there by accident."""
        return self.unit in (SHARE, "")


def _share(
    name: str,
    label: str = "",
    *,
    floor: Floor | None = None,
    of_classes: bool = False,
    aliases: Sequence[str] = (),
    words: Sequence[str] = (),
    may_be_small: bool = False,
) -> Metric:
    """A row for a share of what is right."""
    return Metric(
        name=name,
        label=label or name.replace("_", " "),
        higher_is_better=True,
        unit=SHARE,
        high=1.0,
        floor=floor,
        of_classes=of_classes,
        aliases=tuple(aliases),
        words=tuple(words),
        may_be_small=may_be_small,
    )


def _loss(
    name: str,
    label: str,
    unit: str,
    *,
    low: float = 0.0,
    aliases: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Metric:
    """A row for a cost: lower is better."""
    return Metric(name, label, False, unit, low, aliases=tuple(aliases), words=tuple(words))


# Costs stand first: where a name holds words of two families, ``accuracy_loss`` say, it is the cost.
# The order of the class metrics is the one in which a report offers them.
CATALOGUE: tuple[Metric, ...] = (
    _loss(
        "perplexity", "perplexity", "inverse probability of a token", low=1.0,
        aliases=("ppl",), words=("perplexity", "ppl"),
    ),
    _loss("word_perplexity", "word perplexity", "inverse probability of a word", low=1.0),
    _loss("byte_perplexity", "byte perplexity", "inverse probability of a byte", low=1.0),
    _loss("bits_per_byte", "bits per byte", "bits", aliases=("bpb",), words=("bits_per",)),
    _loss("loss", "loss", "nats", low=-inf, words=("loss", "logloss", "entropy", "crossentropy")),
    _loss("nll", "negative log-likelihood", "nats", low=-inf, words=("nll",)),
    _loss("brier_score", "brier score", "squared probability", aliases=("brier",), words=("brier",)),
    _loss("mse", "mean squared error", "squared units of the answer", words=("mse", "squared_error")),
    _loss("rmse", "root mean squared error", "units of the answer", words=("rmse",)),
    _loss("mae", "mean absolute error", "units of the answer", words=("mae", "absolute_error")),
    _loss("ece", "expected calibration error", "difference of shares", words=("ece", "calibration_error")),
    _loss("wer", "word error rate", SHARE, aliases=("word_error_rate",), words=("wer",)),
    _loss("cer", "character error rate", SHARE, aliases=("character_error_rate",), words=("cer",)),
    _loss("ter", "translation edit rate", SHARE, words=("ter", "edit_rate")),
    _loss("error", "error rate", SHARE, aliases=("error_rate", "err"), words=("error", "errors")),
    _share("balanced_accuracy", floor="chance", of_classes=True),
    _share("macro_f1", "macro F1", of_classes=True),
    Metric(
        "kappa", "Cohen's kappa", True, "agreement beyond chance", -1.0, 1.0, "zero", True, words=("kappa",),
    ),
    Metric(
        "matthews", "Matthews correlation", True, "correlation", -1.0, 1.0, "zero", True,
        aliases=("mcc", "matthews_corrcoef", "matthews_correlation"), words=("matthews", "mcc"),
    ),
    _share("accuracy", floor="majority", of_classes=True, words=("accuracy",)),
    _share("acc", floor="majority", words=("acc",)),
    _share("exact_match", floor="majority", aliases=("em",), words=("exact_match",)),
    _share("f1", aliases=("f1_score",), words=("f1",)),
    _share("precision", words=("precision",)),
    _share("recall", words=("recall",)),
    _share("auc", "area under the ROC curve", floor="chance", aliases=("roc_auc", "auroc"), words=("auc",)),
    _share("pass", words=("pass",)),
    _share("math_equiv", words=("equiv",)),
    _share("correctness", words=("correctness", "correct")),
    _share("bleu", words=("bleu",), may_be_small=True),
    _share("rouge", words=("rouge", "rouge1", "rouge2", "rougel", "rougelsum"), may_be_small=True),
    _share("chrf", words=("chrf",), may_be_small=True),
    _share("meteor", words=("meteor",), may_be_small=True),
    Metric("likelihood", "likelihood", True, "nats", -inf, inf, words=("likelihood", "loglikelihood")),
    Metric(
        "correlation", "correlation", True, "correlation", -1.0, 1.0, "zero", words=("pearson", "spearman"),
    ),
)  # fmt: skip

_BY_NAME = MappingProxyType({name: row for row in CATALOGUE for name in (row.name, *row.aliases)})
_FAMILIES = tuple(
    (re.compile(rf"(?:^|_){re.escape(word)}(?:_|$)"), row) for row in CATALOGUE for word in row.words
)
_NEGATED = re.compile(r"(?:^|(?<!false)_)neg(?:ative)?_")

CLASS_METRICS: tuple[str, ...] = tuple(row.name for row in CATALOGUE if row.of_classes)


def metric(name: str) -> Metric:
    """The metric of a name, with or without the filter of a harness (``acc``, ``exact_match,strict``).

    An alias gives the row itself; a variant of a family gives the family's row under its own name and label;
    an unknown name gives a metric without direction and unit. It never raises.
    """
    plain = re.split(r",| \(", name.strip(), maxsplit=1)[0]
    key = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    if key in _BY_NAME:
        return _BY_NAME[key]
    label = plain.replace("_", " ")
    row = next((row for word, row in _FAMILIES if word.search(key)), None)
    if row is None:
        return Metric(plain, label, None, "", low=-inf)
    found = replace(row, name=plain, label=label, floor=None, of_classes=False, aliases=(), words=())
    if not _NEGATED.search(key):
        return found
    return replace(found, higher_is_better=not row.higher_is_better, low=-row.high, high=-row.low)


def unit_of_gains(name: str) -> str:
    """What a gain in a metric counts, in words: its name, without a ``negative_`` that only turns it around.

    A gain is positive where the model is better, so -0.7 in ``negative_bits_per_byte`` is a loss of .7 bits
    per byte.
    """
    return _NEGATED.sub(lambda found: found.group()[: found.group().startswith("_")], name).replace("_", " ")


def direction(name: str, stated: bool | None = None) -> tuple[bool, Origin]:
    """Whether higher is better, and how that is known.

    stated: what the file of results says of it, which counts before the catalogue.
    Returns (higher is better, ``stated`` | ``known`` from the catalogue | ``assumed``).
    """
    if isinstance(stated, bool):
        return stated, "stated"
    higher = metric(name).higher_is_better
    return (True, "assumed") if higher is None else (higher, "known")
