"""A matrix from a quarter of its price, replayed on tables that are known: cells, adapters, items.

    python benchmarks/budget.py RUN... --taskweb FOLDER --out benchmarks/results/DATE-budget.json
    python benchmarks/budget.py RUN --repeats 5                                      less than twenty

RUN is the folder of a finished run; FOLDER holds taskweb_t5l_finetune_score.csv (with a row __baseline__) and
taskweb_samples.jsonl.gz for features of texts. Each repeat draws anew; what is compared is paired by repeat.

cells      every cell has the same price, a quarter is measured: drawn at random, or chosen in five rounds
           after one random cell of each target.
adapters   three quarters of the sources are drawn, so that each repeat is another pool. A quarter of its
           tokens of training may be spent, all cells of what is trained are measured: sources at random,
           cheapest first, or by the largest variance taken away for the price, one after another.
items      adapters are there and a share of the answers is paid for: the same items of base and adapters
           (``fixed draw``), or the base asked everything and gains estimated from smaller parts by regression
           (``base whole``). Each way at the share of items that leaves its table least error, which no run
           could know. Runs with outcomes only, texts known, half the repeats.

Errors are in units of each metric's root mean square gain, so that 1 is what "no effect anywhere" gets: of
the hidden cells, and over the whole table, measured cells counting as exact. ``lost`` is in points: what the
best source of a target by the completed table costs against the best by the whole one, mean over targets;
``other lost`` the same among sources that are not the target's own. Beside our completion stand shrunk row
and column means and softImpute. Nothing is tuned on these tables but what docs/budget.md says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from record import conditions, save
from scipy import linalg, optimize, stats

from traitmap.analysis.profiles.pairs import PairFeatures, pair_features
from traitmap.analysis.recommendation.completion import (
    Aim,
    Price,
    before_anything,
    choose_cells,
    expected_item_noise,
    expected_noise,
    gain_noise,
    importance,
    items_asked,
)
from traitmap.analysis.recommendation.gaussian import Observed, Prior, TablePosterior, infer, make_prior
from traitmap.api.runs import open_run
from traitmap.api.subject import read_matrix
from traitmap.data.texts import read_texts
from traitmap.matrix.assisted import Anchors, assisted_gain
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import error_of_width, paired_gain, z_value
from traitmap.metrics import SHARE as POINTS
from traitmap.metrics import metric
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts

SHARE, LEVEL, STEPS = 0.25, 0.9, 5
ROUNDS = 3
PARTS = {0.25: (0.35, 0.25, 0.15), 0.5: (0.5, 0.35)}  # budget -> shares of the items that are tried
AIM: Aim = "best"  # as a run weighs its cells
USUAL = 3.0  # measured cells by which the centre and spread of a column are drawn to those of all columns
PENALTIES = 20  # of softImpute
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Known:
    """A table of known cells: gains and the variance of their noise (S, T), in units of their metric.

    better: (T,) the sign of an improvement. size, points: (T,) of one unit as it is measured and in points,
    NaN where gains are no points. other: (S, T) False where a source is the target's own. prices: (S,) of
    training.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    gains: Array
    there: Array
    metrics: Array
    noise: Array
    better: Array
    size: Array
    points: Array
    other: Array
    prices: Array
    unit: str
    features: PairFeatures | None
    prior: Prior


def known(name: str, matrix: TransferMatrix, features: PairFeatures | None, prices: Array) -> Known:
    """A measured matrix as a table to hide cells of."""
    cells = {cell.target: cell.metric for cell in matrix.base_cells}
    named = [cells.get(target, "") for target in matrix.targets]
    metrics = np.array([sorted(set(named)).index(one) for one in named])
    gains, words, noise = matrix.gains.copy(), list[str](), gain_noise(matrix)
    shares = float(np.nanmax(np.abs(matrix.values))) <= 1  # of a table that names no metric
    units = {POINTS: 100.0, "": 100.0 if shares else 1.0}
    points = np.array([units.get(metric(name).unit, np.nan) for name in named])
    sizes = np.ones(len(named))
    for group in np.unique(metrics):
        own = metrics == group
        size = float(np.sqrt(np.nanmean(gains[:, own] ** 2)))
        gains[:, own] /= size
        noise[:, own] /= size**2
        points[own] *= size
        sizes[own] = size
        words.append(f"{sorted(set(named))[group] or 'score'} {size:.4g}")
    return Known(
        name=name,
        sources=matrix.sources,
        targets=matrix.targets,
        gains=gains,
        there=np.isfinite(gains),
        metrics=metrics,
        noise=noise,
        better=np.array([1.0 if matrix.higher_is_better.get(t, True) else -1.0 for t in matrix.targets]),
        size=sizes,
        points=points,
        other=np.array([[source != target for target in matrix.targets] for source in matrix.sources]),
        prices=prices,
        unit=", ".join(words),
        features=features,
        prior=make_prior(matrix.sources, matrix.targets, features),
    )


def observed(table: Known, mask: Array) -> Observed:
    places = np.argwhere(mask)
    return Observed(places, table.gains[mask], np.nan_to_num(table.noise[mask]))


def completed(table: Known, mask: Array, seed: int) -> TablePosterior:
    return infer(table.prior, observed(table, mask), table.metrics, level=LEVEL, seed=seed)


def shrunk_means(table: Known, mask: Array) -> Array:
    """Row and column means as a careful reader would take them: standardised columns, both kinds shrunk.

    Columns are divided by their spread, which is drawn to the common one by ``USUAL`` cells. Row and column
    effects are normal with variances of their own, found by marginal likelihood (best linear unbiased
    prediction; G. Robinson, Statistical Science 6:15-32, 1991), so that an effect of few cells is drawn to 0.
    """
    center, spread = _columns(table, mask)
    values = ((table.gains - center) / spread)[mask]
    rows, columns = np.nonzero(mask)
    same_row, same_column = rows[:, None] == rows, columns[:, None] == columns

    def covariance(logs: Array) -> Array:
        of_row, of_column, of_cell = np.exp(np.clip(logs, -12, 6))
        return np.asarray(of_row * same_row + of_column * same_column + of_cell * np.eye(len(values)))

    def cost(logs: Array) -> float:
        matrix = covariance(logs)
        return float(values @ np.linalg.solve(matrix, values) + np.linalg.slogdet(matrix)[1])

    logs = optimize.minimize(cost, np.log([0.2, 0.2, 0.6]), method="Nelder-Mead", options={"fatol": 1e-4}).x
    weights = np.linalg.solve(covariance(logs), values)
    of_row, of_column, _ = np.exp(np.clip(logs, -12, 6))
    row = of_row * np.bincount(rows, weights, len(mask))
    column = of_column * np.bincount(columns, weights, mask.shape[1])
    return np.asarray((row[:, None] + column) * spread + center)


def soft_impute(table: Known, mask: Array, seed: int) -> Array:
    """softImpute (Mazumder, Hastie, Tibshirani, JMLR 11:2287-2322, 2010) on standardised columns.

    The singular values of the filled table are lowered by a penalty until nothing changes; of ``PENALTIES``
    on the way from the largest one down, that with the least error on five folds of the measured cells.
    """
    center, spread = _columns(table, mask)
    z = np.where(mask, (table.gains - center) / spread, 0.0)
    places = np.argwhere(mask)
    fold = np.random.default_rng([seed, 71]).permutation(len(places)) % 5
    errors = np.zeros(PENALTIES)
    for part in range(5):
        held = places[fold == part]
        train = mask.copy()
        train[tuple(held.T)] = False
        for at, fit in enumerate(_soft_path(z, train)):
            errors[at] += float(((fit - z)[tuple(held.T)] ** 2).sum())
    return np.asarray(_soft_path(z, mask)[int(np.argmin(errors))] * spread + center)


def _soft_path(z: Array, mask: Array) -> list[Array]:
    """Fits (S, T) to the masked cells with falling penalties, each begun at the one before."""
    fit, fits = np.zeros_like(z), []
    largest = float(np.linalg.svd(np.where(mask, z, 0.0), compute_uv=False)[0])
    for penalty in largest * np.geomspace(1.0, 0.05, PENALTIES):
        for _ in range(300):
            u, singular, vt = np.linalg.svd(np.where(mask, z, fit), full_matrices=False)
            new = (u * np.maximum(singular - penalty, 0.0)) @ vt
            step, fit = float(((new - fit) ** 2).sum()), new
            if step <= 1e-8 * max(float((fit**2).sum()), 1e-12):
                break
        fits.append(fit)
    return fits


def _columns(table: Known, mask: Array) -> tuple[Array, Array]:
    """(T,) centre and spread of the measured cells of each column, drawn to those of all columns."""
    seen = np.where(mask, table.gains, 0.0)
    count, grand = mask.sum(axis=0), seen.sum() / mask.sum()
    common = float((((seen - grand) ** 2)[mask]).mean())
    center = (seen.sum(axis=0) + USUAL * grand) / (count + USUAL)
    squares = np.where(mask, (table.gains - center) ** 2, 0.0).sum(axis=0)
    return center, np.sqrt((squares + USUAL * common) / (count + USUAL))


def random_cells(table: Known, seed: int) -> Array:
    """A quarter of the cells at random."""
    places = np.argwhere(table.there)
    drawn = np.random.default_rng(seed).permutation(len(places))[: round(SHARE * len(places))]
    mask = np.zeros_like(table.there)
    mask[tuple(places[drawn].T)] = True
    return mask


def chosen_cells(table: Known, seed: int) -> Array:
    """As many, chosen in steps: first one of each target at random, then by expected reduction."""
    count = round(SHARE * int(table.there.sum()))
    draw = np.random.default_rng(seed)
    mask = np.zeros_like(table.there)
    order = draw.permutation(len(table.gains))
    for column in range(table.gains.shape[1]):
        rows = [order[(column + k) % len(order)] for k in range(len(order))]
        mask[next(row for row in rows if table.there[row, column]), column] = True
    price = Price(np.ones_like(table.gains), np.zeros_like(table.gains))
    step = max(1, (count - int(mask.sum())) // STEPS)
    while mask.sum() < count:
        posterior, weight = judgement(table, mask)
        most = min(step, count - int(mask.sum()))
        for cell in choose_cells(posterior, price, table.there & ~mask, weight, np.inf, most=most):
            mask[cell] = True
    return mask


def judgement(table: Known, mask: Array) -> tuple[TablePosterior, Array]:
    """What the measured cells say, and how much the variance of every cell matters (as a run weighs it)."""
    posterior = infer(table.prior, observed(table, mask), table.metrics, calibrate=False)
    weight = importance(posterior, AIM, table.metrics, table.better)
    weight[~table.there] = 0.0
    return posterior, weight


def affordable(table: Known, order: Sequence[int]) -> Array:
    """All cells of the sources in their order, each that a quarter of all training still pays for."""
    left, mask = SHARE * table.prices.sum() * (1 + 1e-9), np.zeros_like(table.there)
    for row in order:
        if table.prices[row] <= left:
            left -= table.prices[row]
            mask[row] = table.there[row]
    return mask


def pool(table: Known, seed: int) -> Known:
    """The table of three quarters of its sources, drawn."""
    rows = np.random.default_rng([seed, 3]).permutation(len(table.gains))[: round(0.75 * len(table.gains))]
    rows = np.sort(rows)
    names = tuple(table.sources[row] for row in rows)
    features = table.features and table.features.over(names, table.targets)
    return replace(
        table,
        sources=names,
        gains=table.gains[rows],
        there=table.there[rows],
        noise=table.noise[rows],
        other=table.other[rows],
        prices=table.prices[rows],
        prior=make_prior(names, table.targets, features),
    )


def random_adapters(table: Known, seed: int) -> Array:
    return affordable(table, np.random.default_rng(seed).permutation(len(table.gains)).tolist())


def cheapest_adapters(table: Known, seed: int) -> Array:
    """The cheapest first; equals in random order."""
    order = np.random.default_rng(seed).permutation(len(table.gains))
    return affordable(table, order[np.argsort(table.prices[order], kind="stable")].tolist())


def variance_adapters(table: Known, seed: int) -> Array:
    """By the weighted variance that all cells of a source would take away for its price."""
    left, mask = SHARE * table.prices.sum() * (1 + 1e-9), np.zeros_like(table.there)
    order = np.random.default_rng(seed).permutation(len(mask))
    while able := [row for row in order if table.prices[row] <= left and not mask[row].any()]:
        posterior, weight = judgement(table, mask) if mask.any() else first_judgement(table)
        worth = [row_reduction(posterior, row, weight) / table.prices[row] for row in able]
        row = able[int(np.argmax(worth))]
        mask[row] = table.there[row]
        left -= table.prices[row]
    return mask


def first_judgement(table: Known) -> tuple[TablePosterior, Array]:
    posterior = before_anything(table.prior)
    units = np.zeros(table.gains.shape[1], dtype=int)
    return posterior, importance(posterior, AIM, units, table.better) * table.there


def row_reduction(posterior: TablePosterior, source: int, weight: Array) -> float:
    """By how much measuring all cells of one source would cut the weighted sum of variances."""
    targets = posterior.mean.shape[1]
    row = slice(source * targets, (source + 1) * targets)
    whole = posterior.covariance[row, row]
    whole = whole + np.eye(targets) * 1e-10 * max(float(np.diag(whole).mean()), 1e-300)
    half = linalg.cholesky(whole, lower=True, check_finite=False)
    shrunk = linalg.solve_triangular(half, posterior.covariance[row], lower=True, check_finite=False)
    return float(((shrunk**2).sum(axis=0) * weight.ravel()).sum())


def judged(table: Known, mask: Array, seed: int) -> dict[str, float]:
    """Errors of our completion and of its rivals on the cells that a mask leaves hidden."""
    hidden = table.there & ~mask
    posterior = completed(table, mask, seed)
    fits = {
        "completion": posterior.mean,
        "shrunk means": shrunk_means(table, mask),
        "softImpute": soft_impute(table, mask, seed),
    }
    noise = expected_item_noise(np.where(mask, table.noise, np.nan)) * posterior.stretch**2
    deviation = np.sqrt(posterior.deviation**2 + np.nan_to_num(noise))
    inside = np.abs(posterior.mean - table.gains)[hidden] <= Z * deviation[hidden] + 1e-9
    whole, found = int(table.there.sum()), {"coverage": float(inside.mean()), "measured": float(mask.sum())}
    for name, fit in fits.items():
        missed = (fit - table.gains)[hidden]
        found[f"{name}, hidden"] = float(np.sqrt(np.mean(missed**2)))
        found[f"{name}, whole"] = float(np.sqrt(np.sum(missed**2) / whole))
        filled = np.where(mask, table.gains, fit)
        found[f"{name}, lost"] = lost(table, filled, table.there)
        found[f"{name}, other lost"] = lost(table, filled, table.there & table.other)
    return found


def lost(table: Known, gains: Array, able: Array) -> float:
    """Points that the best able source by these gains costs against the best by the table's own, mean."""
    shown = np.where(able, table.gains * table.better, -np.inf)
    taken = np.argmax(np.where(able, gains * table.better, -np.inf), axis=0)
    short = shown.max(axis=0) - shown[taken, np.arange(len(taken))]
    return float(np.nanmean(short * table.points))


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and its 95 % interval over the repeats, by t."""
    found = np.asarray(values)
    half = float(stats.t.ppf(0.975, len(found) - 1)) * found.std(ddof=1) / np.sqrt(len(found))
    return {
        "mean": float(found.mean()),
        "low": float(found.mean() - half),
        "high": float(found.mean() + half),
    }


def summary(choices: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Of every choice its means, and what each later one has less (or more) than the first, by repeat."""
    first, *others = choices
    keys = list(choices[first][0])
    means = {
        name: {key: interval([one[key] for one in runs]) for key in keys} for name, runs in choices.items()
    }
    less = {
        name: {
            key: interval([a[key] - b[key] for a, b in zip(choices[name], choices[first], strict=True)])
            for key in keys
        }
        for name in others
    }
    return {"choices": means, f"less {first}": less}


def replayed(table: Known, repeats: int) -> dict[str, Any]:
    choices: dict[str, dict[str, Callable[[Known, int], Array]]] = {
        "cells": {"random": random_cells, "chosen": chosen_cells},
        "adapters": {
            "random": random_adapters,
            "cheapest first": cheapest_adapters,
            "largest variance": variance_adapters,
        },
    }
    if np.ptp(table.prices) == 0:
        del choices["adapters"]["cheapest first"]
    found: dict[str, Any] = {"cells": int(table.there.sum()), "unit": table.unit, "settings": {}}
    for setting, ways in choices.items():
        started = time.process_time()
        pools = [table if setting == "cells" else pool(table, seed) for seed in range(repeats)]
        found["settings"][setting] = summary(
            {
                name: [judged(at, way(at, seed), seed) for seed, at in enumerate(pools)]
                for name, way in ways.items()
            }
        )
        print(f"{table.name}, {setting}: {time.process_time() - started:.0f} CPU seconds", flush=True)
    return found


def asked_in_part(
    table: Known, scores: Sequence[Array], *, budget: float, share: float, base_whole: bool, seed: int
) -> dict[str, float]:
    """A run on a share of all answers in three rounds, from parts of items; scores: (1 + S, N) a target."""
    shape = table.gains.shape
    available = [target.shape[1] for target in scores]
    counts = np.array(items_asked(available, share))
    left = budget * sum(available) * (1 + shape[0]) - (sum(available) if base_whole else counts.sum())
    posterior, noise = before_anything(table.prior), expected_noise(counts, shape[0])
    metrics, better = np.zeros(shape[1], dtype=int), np.ones(shape[1])
    mask, gains, variance = np.zeros(shape, dtype=bool), np.full(shape, np.nan), np.full(shape, np.nan)
    for rounds in range(ROUNDS, 0, -1):
        weight = importance(posterior, AIM, metrics, better, seed=seed)
        price = Price(np.repeat(counts[None, :].astype(float), shape[0], axis=0), noise)
        for s, t in choose_cells(posterior, price, table.there & ~mask, weight, max(left, 0.0) / rounds):
            mask[s, t], left = True, left - counts[t]
            gains[s, t], variance[s, t] = estimate(scores[t][[0, 1 + s]], counts[t], base_whole, [seed, t])
        if mask.any():
            seen = Observed(np.argwhere(mask), (gains / table.size)[mask], (variance / table.size**2)[mask])
            posterior = infer(table.prior, seen, table.metrics, calibrate=False)
            metrics, better = table.metrics, table.better
    whole = np.array([(target[1:] - target[0]).mean(axis=1) for target in scores]).T / table.size
    filled = np.where(mask, gains / table.size, posterior.mean)
    truth = replace(table, gains=whole)
    off = (filled - whole) * table.points
    return {
        "cells": float(mask.sum()),
        "measured, points": float(np.sqrt(np.nanmean(off[mask] ** 2))),
        "completion, whole": float(np.sqrt(np.mean((filled - whole)[table.there] ** 2))),
        "completion, lost": lost(truth, filled, table.there),
        "completion, other lost": lost(truth, filled, table.there & table.other),
    }


def estimate(pair: Array, count: int, base_whole: bool, seed: Sequence[int]) -> tuple[float, float]:
    """Gain of the second row over the first by a random part of the items, and the variance of that."""
    items = np.sort(np.random.default_rng(seed).permutation(pair.shape[1])[:count])
    differences, binary = (pair[1] - pair[0])[None, None, items], bool(np.isin(pair, (0, 1)).all())
    if base_whole and count < pair.shape[1]:
        found = assisted_gain(differences, Anchors(pair[:1], items), binary=binary)
        gain, low, high = found.gain[0], found.low[0], found.high[0]
    else:
        (gain,), (low,), (high,), _ = paired_gain(differences, binary=binary)
    error = error_of_width(high - low, z_value()) if np.isfinite(high - low) else 0.0
    return float(gain), float(error) ** 2


def items_replayed(table: Known, matrix: TransferMatrix, repeats: int) -> dict[str, Any]:
    """Both ways at two budgets, each at the share of items that leaves its whole table least error."""
    scores, found = [matrix.item_scores[target][:, 0] for target in matrix.targets], dict[str, Any]()
    for budget, parts in PARTS.items():
        ways, shares = dict[str, list[dict[str, float]]](), dict[str, float]()
        for name, base_whole in (("fixed draw", False), ("base whole", True)):
            tried = {
                share: [
                    asked_in_part(table, scores, budget=budget, share=share, base_whole=base_whole, seed=seed)
                    for seed in range(repeats)
                ]
                for share in parts
            }
            errors = {
                share: np.mean([run["completion, whole"] for run in runs]) for share, runs in tried.items()
            }
            shares[name] = min(errors, key=errors.__getitem__)
            ways[name] = tried[shares[name]]
        found[f"{budget:g}"] = {"share of items": shares, **summary(ways)}
    return found


def known_both(name: str, matrix: TransferMatrix, features: PairFeatures, prices: Array) -> list[Known]:
    """The table with features of texts, and without."""
    return [
        known(f"{name}, {kind}", matrix, given, prices)
        for kind, given in (("texts", features), ("no texts", None))
    ]


def taskweb(folder: Path) -> list[Known]:
    matrix = read_matrix(folder / "taskweb_t5l_finetune_score.csv")
    texts = read_texts(folder / "taskweb_samples.jsonl.gz")
    features = pair_features(
        {name: texts[name] for name in matrix.sources}, {name: texts[name] for name in matrix.targets}
    )
    return known_both("TaskWeb T5-large", matrix, features, np.ones(len(matrix.sources)))


def finished(folder: Path) -> list[Known]:
    matrix, store = read_matrix(folder), open_store(folder)
    texts = read_run_texts(store)
    features = pair_features(
        {name: texts.sources[name] for name in matrix.sources},
        {name: texts.targets[name] for name in matrix.targets},
        sizes=texts.totals,
    )
    tokens = {entry.source: float(entry.report["tokens"]) for entry in read_ledger(store).adapters}
    prices = np.array([tokens[name] for name in matrix.sources])
    return known_both(folder.name, matrix, features, prices)


def on_budget(part: Path, whole: Path) -> dict[str, Any]:
    """What a run on a budget spent, and how far its matrix is from that of the finished run of the study."""
    run = open_run(part)
    found, truth = run.matrix(predicted=True), read_matrix(whole)
    rows, columns = (
        [names.index(name) for name in ours]
        for names, ours in ((truth.sources, found.sources), (truth.targets, found.targets))
    )
    table = known("", truth, None, np.ones(len(truth.sources)))
    gains = np.full(truth.gains.shape, np.nan)
    gains[np.ix_(rows, columns)] = found.gains
    predicted = np.zeros(gains.shape, dtype=bool)
    predicted[np.ix_(rows, columns)] = found.predicted
    off = (gains / table.size - table.gains) * table.points
    limits = {(c.source, c.target): (c.gain_low, c.gain_high) for c in found.cells if c.seed is None}
    inside = np.array(
        [
            [low <= gain <= high for gain, (low, high) in zip(row, ends, strict=True)]
            for row, ends in zip(
                truth.gains, [[limits[s, t] for t in truth.targets] for s in truth.sources], strict=True
            )
        ]
    )
    own = predicted & ~table.other
    return {
        "spent": run.spent(),
        "predicted": int(predicted.sum()),
        "own predicted": int(own.sum()),
        "gains, points": float(np.sqrt(np.nanmean((table.gains * table.points)[predicted] ** 2))),
        "measured off, points": float(np.sqrt(np.nanmean(off[~predicted] ** 2))),
        "measured inside": float(inside[~predicted].mean()),
        "predicted off, points": float(np.sqrt(np.nanmean(off[predicted] ** 2))),
        "predicted inside": float(inside[predicted].mean()),
        "lost": lost(table, gains / table.size, table.there),
        "other lost": lost(table, gains / table.size, table.there & table.other),
        "middle other lost": middle_lost(table),
    }


def middle_lost(table: Known) -> float:
    """Points that the median other source costs against the best, mean over targets."""
    shown = np.where(table.there & table.other, table.gains * table.better, np.nan)
    return float(np.nanmean((np.nanmax(shown, axis=0) - np.nanmedian(shown, axis=0)) * table.points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--taskweb", type=Path)
    parser.add_argument("--on-budget", type=Path, help="a run on a budget of the first RUN's study")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    tables = [table for folder in asked.runs for table in finished(folder)]
    tables += taskweb(asked.taskweb) if asked.taskweb else []
    found: dict[str, Any] = {**conditions(), "repeats": asked.repeats, "tables": {}, "items": {}}
    if asked.on_budget:
        found["run"] = on_budget(asked.on_budget, asked.runs[0])
    for table in tables:
        found["tables"][table.name] = replayed(table, asked.repeats)
        save(asked.out, found)
    for folder in asked.runs:
        started = time.process_time()
        found["items"][folder.name] = items_replayed(
            finished(folder)[0], read_matrix(folder), asked.repeats // 2
        )
        save(asked.out, found)
        print(f"{folder.name}, items: {time.process_time() - started:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
