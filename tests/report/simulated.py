"""A small study made of random numbers with known structure, as the real pipeline would hand it over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np
from scipy.stats import norm

from traitmap.analysis.cells import (
    CellDetail,
    MetricTable,
    RunDetails,
    SideBySide,
    TargetDetail,
    chosen_cells,
    target_details,
)
from traitmap.analysis.traits.records import CrossValidation, Noise, Stability, Traits, TraitWarning
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.matrix.record import Cell, TransferMatrix

NAMES = (
    "word_problems",
    "big_arithmetic",
    "tiny_programs",
    "inference",
    "paraphrase",
    "toxicity",
    "reviews_3way",
    "reviews_3way_balanced",
    "stars",
    "long_reviews",
)


def matrix(
    sources: Sequence[str] = (*NAMES, "stars_mislabelled"),
    targets: Sequence[str] = NAMES,
    *,
    items: int = 200,
    seeds: Sequence[int] = (0, 1),
    seed: int = 0,
) -> TransferMatrix:
    """Two planted traits plus a lift on the diagonal; 0/1 scores of shared items."""
    rng = np.random.default_rng(seed)
    loads = rng.normal(size=(len(targets), 2))
    powers = rng.normal(size=(len(sources), 2)) * (0.11, 0.05)
    chance = rng.choice([0.0, 0.2, 1 / 3, 0.5], size=len(targets))
    base = np.clip(chance + rng.uniform(0.02, 0.25, size=len(targets)), 0.05, 0.8)
    same = np.array([[source == target for target in targets] for source in sources], dtype=float)
    truth = np.clip(base + powers @ loads.T + 0.3 * same, 0.01, 0.98)
    ease = rng.uniform(size=(len(targets), items))
    scores = {}
    for t, target in enumerate(targets):
        wobble = rng.normal(scale=0.02, size=(len(sources), len(seeds), 1))
        chosen = ease[t] + rng.normal(scale=0.15, size=(len(sources), len(seeds), items))
        right = (chosen < truth[:, t, None, None] + wobble).astype(float)
        scores[target] = np.concatenate([np.tile(ease[t] < base[t], (1, len(seeds), 1)).astype(float), right])
    return from_scores(sources, targets, scores, seeds, chance)


def from_scores(
    sources: Sequence[str], targets: Sequence[str], scores: dict, seeds: Sequence[int], chance: np.ndarray
) -> TransferMatrix:
    """Cells with normal-theory paired intervals: good enough to be shown."""
    cells, base_cells = [], []
    for target in targets:
        base_cells.append(_cell("__baseline__", target, None, scores[target][0, 0], scores[target][0, 0]))
        for s, source in enumerate(sources):
            rows, base = scores[target][s + 1], scores[target][0]
            cells += [_cell(source, target, one, rows[i], base[i]) for i, one in enumerate(seeds)]
            cells.append(_cell(source, target, None, rows.mean(0), base[0]))
    pooled = [cell for cell in cells if cell.seed is None]
    ranked = np.argsort([cell.p for cell in pooled])
    q, least = {}, 1.0
    for rank in range(len(pooled), 0, -1):
        cell = pooled[ranked[rank - 1]]
        least = min(least, cell.p * len(pooled) / rank)
        q[cell.source, cell.target] = least
    cells = [replace(c, q=q[c.source, c.target]) if c.seed is None else c for c in cells]
    values = {(c.source, c.target): c.value for c in cells if c.seed is None}
    return TransferMatrix(
        sources=tuple(sources),
        targets=tuple(targets),
        values=np.array([[values[s, t] for t in targets] for s in sources]),
        baseline=np.array([cell.value for cell in base_cells]),
        cells=tuple(cells),
        base_cells=tuple(base_cells),
        item_scores=scores,
        chance=chance,
        majority=np.maximum(chance, 0.1),
        source_tags={s: ("simulated", f"family {i % 3}") for i, s in enumerate(sources)},
    )


def _cell(source: str, target: str, seed: int | None, scores: np.ndarray, base: np.ndarray) -> Cell:
    n = len(scores)
    gains = scores - base
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(n))
    p = nan if source == "__baseline__" else 2 * norm.sf(abs(gain) / error) if error else 1.0
    return Cell(
        source=source,
        target=target,
        seed=seed,
        metric="acc",
        value=float(scores.mean()),
        n=n,
        stderr=float(scores.std(ddof=1) / np.sqrt(n)),
        gain=gain,
        gain_low=gain - 1.96 * error,
        gain_high=gain + 1.96 * error,
        p=float(p),
        q=nan,
        unparsed=0.12 if source == "__baseline__" and target.startswith("big") else 0.01,
        status="measured",
    )


def with_cell(whole: TransferMatrix, source: str, target: str, **changes: object) -> TransferMatrix:
    """The matrix with one pooled cell changed (values follow)."""
    cells = tuple(
        replace(c, **changes) if (c.source, c.target, c.seed) == (source, target, None) else c
        for c in whole.cells
    )
    values = whole.values.copy()
    changed = next(c for c in cells if (c.source, c.target, c.seed) == (source, target, None))
    values[whole.sources.index(source), whole.targets.index(target)] = changed.value
    return replace(whole, cells=cells, values=values)


def failed(
    whole: TransferMatrix, source: str, target: str, reason: str = "loss became NaN"
) -> TransferMatrix:
    """The matrix with one cell that failed."""
    unknown = dict.fromkeys(("value", "stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed"), nan)
    return with_cell(whole, source, target, status="failed", reason=reason, n=0, **unknown)


def traits(whole: TransferMatrix, used: int = 2) -> Traits:
    """Principal components of the gains with plausible uncertainty: for showing, not for believing."""
    table = np.nan_to_num(whole.gains - np.nanmean(whole.gains, axis=0))
    u, sizes, v = np.linalg.svd(table, full_matrices=False)
    signs = np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])
    u, v = u * signs, v * signs[:, None]
    count = len(sizes)
    ratio = sizes**2 / (sizes**2).sum()
    mean = np.linspace(1.9, 0.1, count) / count
    effects = np.nan_to_num(whole.gains) @ v.T * 100 / np.abs(v).sum(1)
    spread = np.where(np.arange(count) < used, 0.12, 0.5)
    none = np.full(len(whole.targets), nan)
    return Traits(
        sources=whole.sources,
        targets=whole.targets,
        n_components={"cv": used, "parallel": min(used, 1), "permutation": used, "used": used},
        explained_variance_ratio=ratio,
        null_mean=mean,
        null_p05=mean * 0.8,
        null_p95=mean * 1.2,
        null_cumulative_mean=mean.cumsum(),
        null_cumulative_p05=mean.cumsum() * 0.9,
        null_cumulative_p95=np.minimum(mean.cumsum() * 1.1, 1),
        loadings=v.T,
        loadings_low=v.T - spread,
        loadings_high=v.T + spread,
        scores_u=u,
        scores=u * sizes,
        base_scores=np.zeros(count),
        effects=effects,
        effects_low=effects - 1.5,
        effects_high=effects + 1.5,
        leverage=u**2,
        singular_values=sizes,
        centers=none,
        divisors=none,
        completed=whole.values,
        masked=np.zeros(whole.values.shape, dtype=bool),
        cross_validation=CrossValidation(np.ones(3), np.zeros(3), used, used, (used,)),
        stability=Stability(examined=0),
        noise=Noise("unknown", none, none, none, np.full(count, nan), nan, "simulated"),
        names=tuple(["reviews", "reasoning", *[f"component {c + 1}" for c in range(2, count)]][:count]),
        naming=(),
        warnings=(
            TraitWarning(
                code="one_row_axis",
                message="PC1 is mostly one adapter: inference carries .71 of it",
                action="read it as a description of that adapter, and train further sources of its kind.",
            ),
        ),
        conditions={"scale": "standard", "draws": 2000},
    )


def details(
    whole: TransferMatrix,
    *,
    labels: Sequence[str] = ("no", "yes", "maybe"),
    asked: str = "is it so?",
    items: int = 30,
    most: int = 400,
) -> RunDetails:
    """Answers drawn at random, one seed each, of the cells that matter most."""
    rng = np.random.default_rng(0)
    chosen = chosen_cells(whole, most=most)
    pairs: dict[str, SideBySide] = {}
    cells: dict[tuple[str, str], CellDetail] = {}
    targets: dict[str, TargetDetail] = {}
    for target in whole.targets:
        sources = [source for source, own in chosen if own == target]
        texts = [TaskText(f"{asked} item {i}", labels[i % len(labels)], tuple(labels)) for i in range(items)]
        outcomes = {(one, None): _answers(rng, labels, items) for one in ("__baseline__", *sources)}
        found = target_details(target, outcomes, texts, sources)
        if found is not None and sources:
            targets[target] = found[0]
            pairs[target] = _beside(whole, outcomes)
            cells |= {(one.source, one.target): one for one in found[1]}
    measured = sum(cell.seed is None and cell.status == "measured" for cell in whole.cells)
    some = "those with the smallest q" if len(chosen) < measured else ""
    return RunDetails(cells, targets, measured=measured, chosen=some, pairs=pairs)


def _beside(whole: TransferMatrix, outcomes: dict) -> SideBySide:
    """Every two adapters by the answers that were drawn; the others are unknown."""
    rows = [outcomes.get((name, None)) for name in ("__baseline__", *whole.sources)]
    items = len(outcomes["__baseline__", None])
    scores = np.array([[one.score for one in row] if row else [nan] * items for row in rows])
    gain = scores.mean(axis=1)[:, None] - scores.mean(axis=1)[None]
    return SideBySide(scores, gain, gain - 0.1, gain + 0.1)


def _answers(rng: np.random.Generator, labels: Sequence[str], items: int) -> list[Outcome]:
    said = [labels[int(one)] for one in rng.integers(0, len(labels), items)]
    return [
        Outcome(
            item=i,
            item_digest=str(i),
            score=float(one == labels[i % len(labels)]),
            correct=one == labels[i % len(labels)],
            prediction=one,
            gold=labels[i % len(labels)],
            choice_logprobs=None,
            text=" ".join([one] * int(rng.integers(1, 40))),
            parsed=True,
            output_tokens=3,
            stopped=True,
        )
        for i, one in enumerate(said)
    ]


def halved(whole: TransferMatrix) -> MetricTable:
    """The matrix in another metric, half of its own everywhere; unknown on the first target."""
    values, baseline = whole.values / 2, whole.baseline / 2
    values[:, 0] = baseline[0] = nan
    none = np.full(values.shape, nan)
    return MetricTable("macro_f1", values, baseline, none, none)


CONDITIONS = {
    "name": "simulated",
    "base": "builtin:mini",
    "reproduce": ["traitmap run runs/simulated/study.yaml", "traitmap report runs/simulated"],
    "seeds": [0, 1],
    "versions": {"traitmap": "0.1.0", "torch": "2.13.0", "lm_eval": "0.4.13"},
    "digests": {"base": "4f1c0b7e9a", "study": "a01d33f27c"},
    "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "use_rslora": False},
    "times": {"train_seconds": 71.25, "evaluate_seconds": 140.0},
    "sources": [{"name": "word_problems", "rows": 800}, {"name": "stars", "rows": 640, "revision": None}],
    "study_file": "name: simulated\nmodel:\n  path: builtin:mini\n",
}
