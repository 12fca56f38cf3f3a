"""What asking fewer items costs and saves, replayed on finished runs: rules, intervals, decisions, anchors.

    python benchmarks/ask_less.py RUN... --out benchmarks/results/DATE-ask-less.json      about a minute a run
    python benchmarks/ask_less.py RUN --seeds 5                                          less

Of each run only the item scores are used, those of each seed as a matrix of its own, and nothing is asked. A
seed below is an order of the items. Sections:

spending   six looks; spending functions and a confidence sequence at equal coverage: share of the items that
           are asked until a gain is known to 3 or 5 points, or its sign is clear.
coverage   items drawn with replacement from the run's, so that the run's gain is the truth: how often
           intervals hold it at each look, at all looks together, and where the rule ``sign`` stops.
           With an anchor: of ``within`` in orders of the run's items (the truth is the gain on all of
           them), and of the limits at large in items drawn again.
saving     share of the items that the rules of a study ask, as ``traitmap run`` would, and with an anchor;
           of targets in points.
decisions  the same share of all items asked in all, of every cell alike or with anchors: how often the matrix
           of all items is decided alike. ``again`` is the yardstick: all items, drawn again with replacement;
           ``as good as again`` is the least share with as many equal decisions. Calls are gains and losses at
           q < .05 (verdicts need answers, and follow these).
anchors    gains on all items from a share of them, some rows known on all: error beside plain random items,
           and coverage of 95 % intervals of the gain on all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from record import conditions, save
from scipy import special
from sklearn.cluster import KMeans

import traitmap as tm
from traitmap.matrix import sequential
from traitmap.matrix.assisted import Anchors, assisted_gain
from traitmap.matrix.record import Array
from traitmap.matrix.sequential import Rule, confidence_at, look_counts, settled
from traitmap.matrix.statistics import benjamini_hochberg, paired_gain, paired_interval

SHARES = (0.1, 0.2, 0.3, 0.5)
DECIDING = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75)
FIRST_ROWS = 3  # sources whose answers to all items anchors come from
Method = Callable[[Array, Array, int, np.random.Generator], tuple[float, float]]


@dataclass(frozen=True)
class Target:
    """Scores (1 + S, n) of base and sources, which sources are rivals, and the sign of better."""

    name: str
    scores: Array
    rivals: tuple[int, ...]
    better: int
    binary: bool

    @property
    def factor(self) -> float:
        return 100.0 if self.scores.min() >= 0 and self.scores.max() <= 1 else 1.0


def targets_of(matrix: tm.TransferMatrix, seed: int) -> list[Target]:
    found = []
    for name, scores in matrix.item_scores.items():
        first = scores[:, seed]
        rows = np.isfinite(first).all(axis=1)
        if not rows[0] or rows.sum() < 5:
            continue
        rivals = tuple(at for at, s in enumerate(np.flatnonzero(rows[1:])) if matrix.sources[s] != name)
        better = 1 if matrix.higher_is_better.get(name, True) else -1
        first = first[rows]
        found.append(Target(name, first, rivals, better, bool(np.isin(first, (0.0, 1.0)).all())))
    return found


# Spending functions.


def limits_by_spending(counts: Sequence[int]) -> dict[str, Array]:
    """Name -> (looks,) limits in standard errors at 95 % for all looks together."""
    times = np.array(counts) / counts[-1]
    usual, found = sequential.SPENDING, {}
    for power in (1.0, 2.0, 3.0):
        sequential.SPENDING = power
        sequential.boundaries.cache_clear()
        found[f"share to the power {power:g}"] = np.array(sequential.boundaries(tuple(counts), (0.05,))[0])
    sequential.SPENDING = usual
    sequential.boundaries.cache_clear()
    # normal mixture, tightest at a third of the items (H. Robbins 1970; asymptotic confidence sequences)
    rho = np.sqrt((-np.log(0.05**2) + np.log(-np.log(0.05**2)) + 1) / (counts[-1] / 3))
    n = np.array(counts) * rho**2
    found["confidence sequence (normal mixture)"] = np.sqrt((n + 1) / n * np.log((n + 1) / 0.05**2))
    found["plain 95 % (does not hold)"] = np.full(len(times), 1.96)
    return found


def spending(targets: Sequence[Target], seeds: int) -> dict[str, Any]:
    asked: dict[str, dict[str, list[float]]] = {}
    for target in targets:
        if not target.binary:
            continue
        counts = look_counts(target.scores.shape[1])
        differences = target.scores[1:] - target.scores[0]
        for name, limits in limits_by_spending(counts).items():
            into = asked.setdefault(name, {"precision 3": [], "precision 5": [], "sign": []})
            for seed in range(min(seeds, 10)):
                order = np.random.default_rng(seed).permutation(counts[-1])
                ended = {rule: np.full(len(differences), counts[-1]) for rule in into}
                for count, z in reversed(list(zip(counts, limits, strict=True))):
                    some = differences[:, order[:count]]
                    low, high = paired_interval(
                        (some > 0).sum(1) * 1.0, (some < 0).sum(1) * 1.0, count, float(z)
                    )
                    half = 50 * (high - low)
                    met = {"precision 3": half <= 3, "precision 5": half <= 5, "sign": (low > 0) | (high < 0)}
                    ended = {rule: np.where(met[rule], count, before) for rule, before in ended.items()}
                for rule in into:
                    into[rule].append(float(ended[rule].mean() / counts[-1]))
    return {name: {rule: float(np.mean(values)) for rule, values in by.items()} for name, by in asked.items()}


# Coverage.


def coverage(targets: Sequence[Target], seeds: int) -> dict[str, Any]:
    """Items drawn with replacement: shares of cells whose interval holds the run's gain."""
    by_look: dict[int, list[float]] = {}
    plain_by_look: dict[int, list[float]] = {}
    together, plain_together, stops = [], [], []
    for target in targets:
        n = target.scores.shape[1]
        counts = look_counts(n)
        differences = target.scores[1:] - target.scores[0]
        moving = np.ptp(differences, axis=1) > 0
        if not moving.any():
            continue
        differences = differences[moving]
        truth = differences.mean(axis=1)
        for seed in range(seeds if target.binary else min(seeds, 10)):
            drawn = differences[:, np.random.default_rng([seed, 1]).integers(0, n, n)]
            held, plain, stop = [], [], np.full(len(truth), len(counts) - 1)
            for look, count in reversed(list(enumerate(counts))):
                some = drawn[:, None, :count]
                _, low, high, _ = paired_gain(
                    some, binary=target.binary, confidence=confidence_at(counts, count)
                )
                held.append(~((low > truth) | (high < truth)))  # no interval claims nothing
                stop = np.where((low > 0) | (high < 0), look, stop)
                _, low, high, _ = paired_gain(some, binary=target.binary)
                plain.append(~((low > truth) | (high < truth)))
            held, plain = held[::-1], plain[::-1]
            for look in range(len(counts)):
                by_look.setdefault(look, []).append(float(held[look].mean()))
                plain_by_look.setdefault(look, []).append(float(plain[look].mean()))
            together.append(float(np.all(held, axis=0).mean()))
            plain_together.append(float(np.all(plain, axis=0).mean()))
            stops.append(float(np.array(held)[stop, np.arange(len(truth))].mean()))
    return {
        "at each look": [float(np.mean(values)) for values in by_look.values()],
        "at all looks together": float(np.mean(together)),
        "where `sign` stops": float(np.mean(stops)),
        "plain 95 %, at each look": [float(np.mean(values)) for values in plain_by_look.values()],
        "plain 95 %, at all looks together": float(np.mean(plain_together)),
    }


def coverage_with_anchors(targets: Sequence[Target], seeds: int) -> dict[str, Any]:
    """By look and at all looks together: shares of cells, anchors drawn for each order."""
    held: dict[str, list[list[float]]] = {}
    together: dict[str, list[float]] = {}
    for target in targets:
        n, counts = target.scores.shape[1], look_counts(target.scores.shape[1])
        for seed in range(seeds if target.binary else 0):
            draw = np.random.default_rng([seed, 2])
            rows = draw.permutation(len(target.scores) - 1)
            orders = {"all items": draw.permutation(n), "at large": draw.integers(0, n, n)}
            for question, order in orders.items():
                scores = target.scores[:, order]
                known, later = scores[[0, 1 + rows[0]]], scores[1 + rows[1:]] - scores[0]
                truth = (target.scores[1 + rows[1:]] - target.scores[0]).mean(axis=1)
                by_look = []
                for count in counts[:-1]:
                    gains = assisted_gain(
                        later[:, None, :count],
                        Anchors(known, np.arange(count)),
                        binary=True,
                        confidence=confidence_at(counts, count),
                    )
                    if question == "all items":
                        by_look.append(np.abs(gains.gain - truth) <= gains.within + 1e-12)
                    else:
                        by_look.append((gains.low <= truth) & (truth <= gains.high))
                held.setdefault(question, []).append([float(look.mean()) for look in by_look])
                together.setdefault(question, []).append(float(np.all(by_look, axis=0).mean()))
    longest = {question: max(map(len, looks)) for question, looks in held.items()}
    return {
        question: {
            "at each look": [
                float(np.mean([looks[at] for looks in held[question] if len(looks) > at]))
                for at in range(longest[question])
            ],
            "at all looks together": float(np.mean(together[question])),
        }
        for question in held
    }


# What the rules of a study ask.


def saving(targets: Sequence[Target], seeds: int) -> dict[str, Any]:
    rules: dict[str, Callable[[Target], Rule]] = {
        "precision 3": lambda t: Rule(3 / t.factor),
        "precision 5": lambda t: Rule(5 / t.factor),
        "sign": lambda t: Rule(decide="sign"),
        "best": lambda t: Rule(decide="best"),
        "sign or precision 5": lambda t: Rule(5 / t.factor, "sign"),
        "best or precision 5": lambda t: Rule(5 / t.factor, "best"),
    }
    found: dict[str, Any] = {}
    targets = [target for target in targets if target.factor == 100]  # a precision in points is none in bits
    for (name, rule), anchors in product(rules.items(), (None, 1)):
        shares, best_kept, wrong_sign, signs = [], [], 0, 0
        for seed in range(min(seeds, 10)):
            items = whole = 0
            for target in targets:
                asked, reasons = replay(target, rule(target), seed, anchors)
                items += int(asked.sum() + (asked.max() if anchors is None else target.scores.shape[1]))
                whole += (len(asked) + 1) * target.scores.shape[1]
                gains = (target.scores[1:] - target.scores[0]).mean(axis=1) * target.better
                order = np.random.default_rng([seed, len(target.name)]).permutation(target.scores.shape[1])
                part = target.better * np.array([
                    _estimated(target, s, order[:count], anchors) for s, count in enumerate(asked)
                ])  # fmt: skip
                for s, why in reasons.items():
                    if why == sequential.CLEAR:
                        signs += 1
                        wrong_sign += part[s] * gains[s] <= 0
                rivals = list(target.rivals)
                top = gains[rivals].max()
                best_kept.append(bool(gains[rivals[int(np.argmax(part[rivals]))]] >= top - 1e-12))
            shares.append(items / whole)
        found[name if anchors is None else f"{name}, {anchors} anchor"] = {
            "share of the items": float(np.mean(shares)),
            "best source the same": float(np.mean(best_kept)),
            **({"signs that all items turn": wrong_sign / signs} if signs else {}),
        }
    return found


def _estimated(target: Target, s: int, items: Array, anchors: int | None) -> float:
    """The gain of a source that was asked some items."""
    differences = (target.scores[1 + s] - target.scores[0])[items]
    if anchors is None or len(items) == target.scores.shape[1]:
        return float(differences.mean())
    known = Anchors(target.scores[: 1 + anchors], items)
    return float(assisted_gain(differences[None, None], known, binary=target.binary).gain[0])


def replay(target: Target, rule: Rule, seed: int, anchors: int | None = None) -> tuple[Array, dict[int, str]]:
    """(S,) items that each source is asked, and why it ended; the first ``anchors`` sources all of them."""
    n = target.scores.shape[1]
    order = np.random.default_rng([seed, len(target.name)]).permutation(n)
    counts = look_counts(n)
    whole = list(range(anchors or 0))
    active = list(range(len(whole), len(target.scores) - 1))
    asked, reasons = np.full(len(target.scores) - 1, n), dict[int, str]()
    for count in counts:
        asked[active] = count
        if count == n:
            break
        ended = settled(
            target.scores[:, None, order[:count]],
            rule,
            counts,
            active=whole + active,
            rivals=target.rivals,
            better=target.better,
            anchors=None if anchors is None else Anchors(target.scores[: 1 + anchors], order[:count]),
        )
        reasons |= {s: why for s, why in ended.items() if s in active}
        active = [s for s in active if s not in ended]
        if not active:
            break
    return asked, reasons


# Decisions.


def decisions(targets: Sequence[Target], seeds: int) -> dict[str, Any]:
    whole = [_decided(target, np.arange(target.scores.shape[1])) for target in targets]
    again = [_agreement(targets, whole, seed, None, None) for seed in range(seeds)]
    rows: dict[str, Any] = {"again, all items": _summary(again)}
    least: dict[str, dict[str, float | None]] = {}
    for way, anchors in (("random items", None), ("the base asked all", 0), ("and one source", 1)):
        by_share = {
            share: [_agreement(targets, whole, seed, share, anchors) for seed in range(seeds)]
            for share in DECIDING
            if all(_part(target, share, anchors) is not None for target in targets)
        }
        rows |= {f"{share:.0%}, {way}": _summary(found) for share, found in by_share.items()}
        least[way] = {
            name: next(
                (
                    share
                    for share, found in by_share.items()
                    if np.mean([one[name] for one in found]) >= np.mean([one[name] for one in again])
                ),
                None,
            )
            for name in again[0]
        }
    return {
        "cells beyond noise": int((_calls(whole) != 0).sum()),
        "targets": len(targets),
        "by share": rows,
        "as good as again": least,
    }


def _summary(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    values = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {
        name: {
            "mean": float(of.mean()),
            "seeds with all the same": float((of == 1).mean()),
            "seeds with nine in ten": float((of >= 0.9).mean()),
        }
        for name, of in values.items()
    }


def _part(target: Target, share: float, anchors: int | None) -> int | None:
    """Items of a source, so that base and sources together are asked a share; None where that cannot be."""
    rows, n = target.scores.shape
    if anchors is None:
        return max(2, round(share * n))
    count = round(n * (share * rows - 1 - anchors) / (rows - 1 - anchors))
    return count if count >= 10 else None


def _agreement(
    targets: Sequence[Target],
    whole: Sequence[tuple[tuple[Array, Array], list[int]]],
    seed: int,
    share: float | None,
    anchors: int | None,
) -> dict[str, float]:
    """Shares of decisions as with all items: calls, best sources, first three. share None: drawn again."""
    parts = []
    for target in targets:
        n = target.scores.shape[1]
        draw = np.random.default_rng([seed, len(target.name), 7])
        items = draw.integers(0, n, n)
        if share is not None:
            items = draw.permutation(n)[: _part(target, share, anchors)]
        parts.append(_decided(target, items, anchors if share is not None else None))
    calls, again = _calls(whole), _calls(parts)
    known = calls != 0
    return {
        "calls": float((again == calls)[known].mean()) if known.any() else 1.0,
        "best": float(np.mean([a[1][:1] == b[1][:1] for a, b in zip(whole, parts, strict=True)])),
        "first three": float(np.mean([a[1] == b[1] for a, b in zip(whole, parts, strict=True)])),
    }


def _decided(
    target: Target, items: Array, anchors: int | None = None
) -> tuple[tuple[Array, Array], list[int]]:
    """Gains and p of all sources on some items (anchors on all), and the first three rivals in order."""
    differences = (target.scores[1:, items] - target.scores[0, items]) * target.better
    gains, p = _tested(differences, target.binary)
    if anchors is not None:
        found = assisted_gain(
            differences[:, None], Anchors(target.scores[: 1 + anchors], items), binary=target.binary
        )
        gains, p = found.gain, found.p
        all_items = (target.scores[1 : 1 + anchors] - target.scores[0]) * target.better
        gains[:anchors], p[:anchors] = _tested(all_items, target.binary)
    rivals = sorted(target.rivals, key=lambda s: -gains[s])
    return (gains, p), rivals[:3]


def _tested(differences: Array, binary: bool) -> tuple[Array, Array]:
    gains = differences.mean(axis=1)
    if binary:
        *_, p = paired_gain(differences[:, None], binary=True)
    else:
        error = differences.std(axis=1, ddof=1) / np.sqrt(differences.shape[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.where(error > 0, 2 * special.ndtr(-np.abs(gains / error)), 1.0)
    return gains, p


def _calls(decided: Sequence[tuple[tuple[Array, Array], list[int]]]) -> Array:
    q = benjamini_hochberg(np.concatenate([p for (_, p), _ in decided]))
    return np.where(q < 0.05, np.sign(np.concatenate([gains for (gains, _), _ in decided])), 0)


# Anchors.


def anchors(targets: Sequence[Target], seeds: int) -> dict[str, Any]:
    """Error (root mean square, of the gain on all items) and coverage, by method and share of items."""
    squares: dict[tuple[str, float], list[float]] = {}
    holds: dict[tuple[str, float], list[bool]] = {}
    still: list[float] = []
    for target in targets:
        scores, n = target.scores * target.factor, target.scores.shape[1]
        if not target.binary:
            continue
        for seed in range(min(seeds, 20)):
            draw = np.random.default_rng([seed, len(target.name), 9])
            rows = 1 + draw.permutation(len(scores) - 1)
            known = scores[[0, *rows[:FIRST_ROWS]]]
            still.append(float((np.ptp(known, axis=0) == 0).mean()))
            for row in rows[FIRST_ROWS:]:
                truth = float((scores[row] - scores[0]).mean())
                for share in SHARES:
                    m = max(10, round(share * n))
                    for name, estimate in METHODS.items():
                        value, error = estimate(scores[row], known, m, draw)
                        squares.setdefault((name, share), []).append((value - truth) ** 2)
                        holds.setdefault((name, share), []).append(abs(value - truth) <= _t(m) * error)
    return {
        "items that base and first rows answer alike": float(np.mean(still)),
        "methods": {
            name: {
                f"{share:.0%}": {
                    "error": float(np.sqrt(np.mean(squares[name, share]))),
                    "coverage": float(np.mean(holds[name, share])),
                }
                for share in SHARES
            }
            for name in METHODS
        },
    }


def _t(m: int) -> float:
    return float(special.stdtrit(max(m - 1, 1), 0.975))


def _plain(row: Array, known: Array, m: int, draw: np.random.Generator) -> tuple[float, float]:
    """Mean paired difference on m random items."""
    items = draw.permutation(len(row))[:m]
    difference = (row - known[0])[items]
    return float(difference.mean()), _error(difference, m, len(row))


def _error(values: Array, m: int, n: int) -> float:
    """Standard error of the mean of m of n differences in points, with two pseudo-items (Agresti and Min)."""
    spread = ((values - values.mean()) ** 2).sum() + 100.0**2
    return float(np.sqrt(spread / (m + 1) / (m + 2) * (1 - m / n)))


def _assisted(rows: int) -> Method:
    """Random items with the package's estimate, by the base and so many rows."""

    def estimate(row: Array, known: Array, m: int, draw: np.random.Generator) -> tuple[float, float]:
        items = draw.permutation(len(row))[:m]
        differences = (row - known[0])[None, None, items] / 100
        found = assisted_gain(differences, Anchors(known[: 1 + rows] / 100, items), binary=True)
        return float(100 * found.gain[0]), float(100 * found.within[0]) / _t(m)

    return estimate


def _spread(row: Array, known: Array, m: int, draw: np.random.Generator) -> tuple[float, float]:
    """Items by the spread of what is known of them (still ones a fifth of the usual chance), each by a
    chance of its own, and the same correction weighted by one over the chance (Horvitz and Thompson)."""
    n = len(row)
    size = known.std(axis=0)
    size = size + 0.25 * max(float(size.mean()), 1e-9)
    chance = np.full(n, 0.0)
    certain: Array = np.zeros(n, dtype=bool)
    for _ in range(20):
        left = m - certain.sum()
        chance = np.where(certain, 1.0, left * size / size[~certain].sum())
        if not (chance > 1).any():
            break
        certain |= chance >= 1
    start = draw.random()  # systematic in a random order: the size is fixed
    order = draw.permutation(n)
    steps = np.floor(np.cumsum(chance[order]) + start)
    items = order[np.diff(steps, prepend=np.floor(start)) > 0]
    weight = 1 / chance[items]
    predicted = _ridge(known[:, items].T, row[items], known.T, weight)
    residual = row[items] - predicted[items]
    total = float((weight * residual).sum()) / n
    terms = weight * residual * len(items) / n
    fewer = np.sqrt(len(items) / max(len(items) - known.shape[0] - 1, 1))
    count = len(items)
    spread = ((1 - chance[items]) * (terms - terms.mean()) ** 2).sum() + 100.0**2
    error = float(np.sqrt(spread / (count + 1) / (count + 2)))
    return float(predicted.mean() + total - known[0].mean()), error * fewer


def _ridge(x: Array, y: Array, everywhere: Array, weight: Array) -> Array:
    """Predictions of a ridge with an intercept that is not shrunk."""
    centre, mean = np.average(x, axis=0, weights=weight), np.average(y, weights=weight)
    z = (x - centre) * np.sqrt(weight)[:, None]
    penalty = weight.sum() / len(weight) * max(float((x - centre).var()), 1e-9)
    slope = np.linalg.solve(z.T @ z + penalty * np.eye(x.shape[1]), z.T @ ((y - mean) * np.sqrt(weight)))
    return np.asarray(mean + (everywhere - centre) @ slope)


def _clusters(row: Array, known: Array, m: int, draw: np.random.Generator) -> tuple[float, float]:
    """tinyBenchmarks' anchors (Maia Polo et al. 2024): an item of each cluster, weighted by its size."""
    n = len(row)
    jitter = known.T + draw.normal(scale=1e-6 * max(float(known.std()), 1.0), size=known.T.shape)
    kinds = len(np.unique(known.T, axis=0))
    model = KMeans(min(m, kinds), n_init=1, random_state=int(draw.integers(2**31))).fit(jitter)
    value = 0.0
    spread = []
    share = max(1, m // model.n_clusters)
    for k in range(model.n_clusters):
        members = np.flatnonzero(model.labels_ == k)
        some = draw.permutation(members)[:share]
        difference = (row - known[0])[some]
        value += len(members) / n * float(difference.mean())
        spread.append(len(members) / n)
    difference = row - known[0]
    items = draw.permutation(n)[:m]
    return value, float(difference[items].std(ddof=1) * np.sqrt(np.sum(np.square(spread)) / share))


METHODS: dict[str, Method] = {
    "random items": _plain,
    "with the base": _assisted(0),
    "with the base and 1 source": _assisted(1),
    "with the base and 3 sources": _assisted(3),
    "items by spread, model-assisted": _spread,
    "clusters of items (tinyBenchmarks)": _clusters,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found: dict[str, Any] = {**conditions(), "runs": {}}
    found["command"] = f"python benchmarks/ask_less.py RUN... --seeds {asked.seeds}"
    for folder in asked.runs:
        matrix = tm.open_run(folder).matrix()
        for at, seed in enumerate(matrix.conditions["seeds"]):
            targets = targets_of(matrix, at)
            name = f"{matrix.conditions['name']}, seed {seed}"
            found["runs"][name] = {
                "targets": len(targets),
                "sources": max(len(target.scores) - 1 for target in targets),
                "items": [target.scores.shape[1] for target in targets],
                **{
                    part.__name__: part(targets, asked.seeds)
                    for part in (spending, coverage, coverage_with_anchors, saving, decisions, anchors)
                },
            }
            print(json.dumps({name: found["runs"][name]}, indent=1), flush=True)
            save(asked.out, found)


if __name__ == "__main__":
    main()
