"""A matrix from a quarter of its cells: our completion beside shrunk means and softImpute, for two choices.

    python benchmarks/budget.py --taskweb FOLDER --run RUN         both tables, 20 repeats
    python benchmarks/budget.py --taskweb FOLDER --repeats 5       less

FOLDER holds taskweb_t5l_finetune_score.csv (with a row __baseline__) and, for features of texts,
taskweb_samples.jsonl.gz; RUN is the folder of a run. Three quarters of the cells are hidden, chosen at
random or by us, each repeat with another seed. Two settings: every cell has the same price, or the price
is that of adapters (a quarter of the sources may be trained, all their cells measured).

Errors are in units of each metric's root mean square gain (for one metric: a fixed factor from points), of
the hidden cells and, where choices differ, over the whole table with measured cells counted as zero.
Nothing is tuned on these tables but what the docs say. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from traitmap.analysis.profiles.pairs import PairFeatures, pair_features
from traitmap.analysis.recommendation.completion import (
    Budget,
    Price,
    choose_cells,
    choose_sources,
    expected_item_noise,
    gain_noise,
    importance,
)
from traitmap.analysis.recommendation.gaussian import Observed, Prior, TablePosterior, infer, make_prior
from traitmap.api.subject import read_matrix
from traitmap.data.texts import read_texts
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts

SHARE, LEVEL, STEPS = 0.25, 0.9, 5
USUAL = 3.0  # measured cells by which the centre and spread of a column are drawn to those of all columns
PENALTIES = 20  # of softImpute
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Known:
    """A table of known cells: gains and the variance of their noise (S, T), in units of their metric."""

    name: str
    gains: Array
    there: Array
    metrics: Array
    noise: Array
    unit: str
    prior: Prior


def known(name: str, matrix: TransferMatrix, features: PairFeatures | None) -> Known:
    """A measured matrix as a table to hide cells of."""
    cells = {cell.target: cell.metric for cell in matrix.base_cells}
    named = [cells.get(target, "") for target in matrix.targets]
    metrics = np.array([sorted(set(named)).index(one) for one in named])
    gains, units, noise = matrix.gains.copy(), [], gain_noise(matrix)
    for group in np.unique(metrics):
        own = metrics == group
        size = float(np.sqrt(np.nanmean(gains[:, own] ** 2)))
        gains[:, own] /= size
        noise[:, own] /= size**2
        units.append(f"{sorted(set(named))[group] or 'score'} {size:.4g}")
    prior = make_prior(matrix.sources, matrix.targets, features)
    return Known(name, gains, np.isfinite(gains), metrics, noise, ", ".join(units), prior)


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


def our_cells(table: Known, seed: int) -> Array:
    """As many, chosen in steps: first one of each target at random, then by expected reduction."""
    count = round(SHARE * int(table.there.sum()))
    draw = np.random.default_rng(seed)
    mask = np.zeros_like(table.there)
    order = draw.permutation(len(table.gains))
    for column in range(table.gains.shape[1]):
        rows = [order[(column + k) % len(order)] for k in range(len(order))]
        mask[next(row for row in rows if table.there[row, column]), column] = True
    price = Price(np.ones_like(table.gains), np.zeros(len(table.gains)), np.zeros_like(table.gains))
    step = max(1, (count - int(mask.sum())) // STEPS)
    while mask.sum() < count:
        posterior = infer(table.prior, observed(table, mask), table.metrics, calibrate=False)
        weight = importance(posterior, "all", table.metrics, np.ones(len(table.metrics)))
        weight[~table.there] = 0.0
        most = min(step, count - int(mask.sum()))
        for cell in choose_cells(posterior, price, table.there & ~mask, weight, np.inf, most=most):
            mask[cell] = True
    return mask


def random_adapters(table: Known, seed: int) -> Array:
    """All cells of a quarter of the sources, drawn at random."""
    mask = np.zeros_like(table.there)
    mask[np.random.default_rng(seed).permutation(len(mask))[: round(SHARE * len(mask))]] = True
    return mask & table.there


def our_adapters(table: Known, seed: int) -> Array:
    """All cells of as many sources, one by one, by expected reduction; the first is drawn at random."""
    count = round(SHARE * len(table.gains))
    rows = [int(np.random.default_rng(seed).integers(len(table.gains)))]
    price = Price(np.ones_like(table.gains), np.ones(len(table.gains)), np.zeros_like(table.gains))
    mask = np.zeros_like(table.there)
    while True:
        mask[rows] = table.there[rows]
        if len(rows) == count:
            return mask
        posterior = infer(table.prior, observed(table, mask), table.metrics, calibrate=False)
        weight = importance(posterior, "all", table.metrics, np.ones(len(table.metrics)))
        weight[~table.there] = 0.0
        rest = [row for row in range(len(mask)) if row not in rows]
        rows += choose_sources(posterior, price, rest, weight, Budget(np.inf, np.inf), most=1)


def judged(table: Known, mask: Array, seed: int) -> dict[str, float]:
    """Errors of our completion and of its rivals on the cells that a mask leaves hidden."""
    hidden = table.there & ~mask
    posterior = completed(table, mask, seed)
    error = (posterior.mean - table.gains)[hidden]
    rivals = {"shrunk": shrunk_means(table, mask), "soft": soft_impute(table, mask, seed)}
    noise = expected_item_noise(np.where(mask, table.noise, np.nan)) * posterior.stretch**2
    deviation = np.sqrt(posterior.deviation**2 + np.nan_to_num(noise))
    inside = np.abs(error) <= Z * deviation[hidden] + 1e-9
    whole = int(table.there.sum())
    errors = {"ours": error} | {name: (fit - table.gains)[hidden] for name, fit in rivals.items()}
    return {
        "coverage": float(inside.mean()),
        **{name: float(np.sqrt(np.mean(missed**2))) for name, missed in errors.items()},
        **{f"{name} whole": float(np.sqrt(np.sum(missed**2) / whole)) for name, missed in errors.items()},
    }


def interval(values: Sequence[float]) -> str:
    """Mean and its 95 % interval over the repeats, by t."""
    found = np.asarray(values)
    half = float(stats.t.ppf(0.975, len(found) - 1)) * found.std(ddof=1) / np.sqrt(len(found))
    return f"{found.mean():.3f} [{found.mean() - half:.3f}, {found.mean() + half:.3f}]"


def benchmark(table: Known, repeats: int) -> None:
    settings: tuple[tuple[str, Callable[..., Array], Callable[..., Array]], ...] = (
        ("cells are free to choose", random_cells, our_cells),
        ("adapters cost", random_adapters, our_adapters),
    )
    for setting, by_chance, by_us in settings:
        started = time.monotonic()
        chance = [judged(table, by_chance(table, seed), seed) for seed in range(repeats)]
        ours = [judged(table, by_us(table, seed), seed) for seed in range(repeats)]
        print(f"\n{table.name}, {setting} ({repeats} repeats, {time.monotonic() - started:.0f} s)\n")
        print("| | RMSE, hidden cells | RMSE, whole table | 90 % intervals hold |")
        print("|---|---|---|---|")
        for label, told, which in (
            ("random choice, shrunk row and column means", chance, "shrunk"),
            ("random choice, softImpute", chance, "soft"),
            ("random choice, our completion", chance, "ours"),
            ("our choice, shrunk row and column means", ours, "shrunk"),
            ("our choice, softImpute", ours, "soft"),
            ("our choice, our completion", ours, "ours"),
        ):
            held = interval([one["coverage"] for one in told]) if which == "ours" else ""
            columns = [interval([one[key] for one in told]) for key in (which, f"{which} whole")]
            print(f"| {label} | {columns[0]} | {columns[1]} | {held} |")
        pairs = (
            ("our completion less shrunk means, random choice", chance, chance, "ours", "shrunk"),
            ("our completion less softImpute, random choice", chance, chance, "ours", "soft"),
            ("our completion less shrunk means, our choice", ours, ours, "ours", "shrunk"),
            ("our choice less random, our completion", ours, chance, "ours", "ours"),
            ("our choice and completion less random choice and shrunk means", ours, chance, "ours", "shrunk"),
        )
        for label, one, other, first, second in pairs:
            differences = [
                interval([a[first + end] - b[second + end] for a, b in zip(one, other, strict=True)])
                for end in ("", " whole")
            ]
            print(f"| {label} | {differences[0]} | {differences[1]} | |")
        print(flush=True)


def taskweb(folder: Path) -> list[Known]:
    matrix = read_matrix(folder / "taskweb_t5l_finetune_score.csv")
    tables = [known("TaskWeb T5-large, no features", matrix, None)]
    file = folder / "taskweb_samples.jsonl.gz"
    if file.exists():
        texts = read_texts(file)
        features = pair_features(
            {name: texts[name] for name in matrix.sources}, {name: texts[name] for name in matrix.targets}
        )
        tables.append(known("TaskWeb T5-large, features of texts", matrix, features))
    return tables


def real(folder: Path) -> list[Known]:
    matrix = read_matrix(folder)
    tables = [known(f"{folder.name}, no features", matrix, None)]
    store = open_store(folder)
    if store.texts.is_dir():
        texts = read_run_texts(store)
        rows = {name: texts.sources[name] for name in matrix.sources}
        columns = {name: texts.targets[name] for name in matrix.targets}
        features = pair_features(rows, columns, sizes=texts.totals)
        tables.append(known(f"{folder.name}, features of texts", matrix, features))
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--taskweb", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    tables = (taskweb(asked.taskweb) if asked.taskweb else []) + (real(asked.run) if asked.run else [])
    for table in tables:
        print(f"\n## {table.name}: {int(table.there.sum())} cells; one unit is {table.unit}")
        benchmark(table, asked.repeats)


if __name__ == "__main__":
    main()
