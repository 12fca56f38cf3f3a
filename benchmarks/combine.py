"""Combinations of sources: predicted beside measured, what a proposal loses, and whether it does harm.

    python benchmarks/combine.py --make FOLDER [--study FILE]     a study with mixtures and merges, and the
                                                                  commands that run it
    python benchmarks/combine.py RUN [--output FILE]              on a run that has been measured
    python benchmarks/combine.py --simulated 200                  on tables of known truth
    python benchmarks/combine.py --courses 40                     on courses of known truth, step by step

The study is that of the package, or --study, with one seed (--seeds), and with combinations, drawn at
random, of its sources that have data of their own: --mixtures 12, a sixth of them of three sources, and
--merges 30, a fifth by ties, the others by the weighted sum of the updates (cat), a tenth of all of three
sources and a tenth at .7 and .3. A mixture is trained with the settings that its parents share, and the
study's where they differ. Adapters and cells of a run that is there (--run) are kept, so that merges cost
their evaluation alone.

On a run every combination is predicted from those that share no two of its parents, model and intervals
chosen without it. Choices are among all measured rows, for every target and for sets of two and three: a
combination counts as it was predicted, a single source as it was measured. Harm is looked for on other items
than the proposal was made on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations as subsets
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from record import conditions, save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from planted_combinations import planted_combinations, planted_courses
from traitmap.analysis.combination import CONCAT, CombinationTable, Fit, fit, read_combinations
from traitmap.analysis.explanation.families import without_sources
from traitmap.analysis.interference import row_contrast
from traitmap.analysis.mixing import MARGIN, named, propose
from traitmap.analysis.step_prediction import predict_steps, training_courses
from traitmap.api.mix import fitted_combinations
from traitmap.api.subject import read_matrix
from traitmap.matrix.reading import read
from traitmap.matrix.record import Array, TransferMatrix

HERE = Path(__file__).parents[1]
SETS = 200  # of targets, beside each alone
FEWEST = 10  # combinations of a way that choices are made among
SPLITS = 3  # of the items into halves
ASKED = 5  # sets of targets beside each set to keep
DRAWS = 1000  # of combinations and targets


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("run", nargs="?", type=Path)
    arguments.add_argument("--make", type=Path)
    arguments.add_argument("--study", type=Path, default=HERE / "src/traitmap/mini/study.yaml")
    arguments.add_argument("--mixtures", type=int, default=12)
    arguments.add_argument("--merges", type=int, default=30)
    arguments.add_argument("--seeds", type=int, default=1, help="how many of the study's, the first ones")
    arguments.add_argument("--run", dest="former", type=Path, help="a run of the study, to be gone on with")
    arguments.add_argument("--simulated", type=int, default=0)
    arguments.add_argument("--courses", type=int, default=0)
    arguments.add_argument("--output", type=Path)
    given = arguments.parse_args()
    if given.make:
        name = made_study(given.study, given.make, given.mixtures, given.merges, given.seeds)
        if given.former:
            print(f"mkdir -p {given.make}/runs && cp -a {given.former} {given.make}/runs/{name}")
        print(f"traitmap run {given.make}/study.yaml")
        print(f"python benchmarks/combine.py {given.make}/runs/{name} --output FILE.json")
        return
    result: dict[str, Any] = {}
    if given.run:
        result["measured"] = measured(given.run)
    if given.simulated:
        result["simulated"] = simulated(given.simulated)
    if given.courses:
        result["courses"] = {
            name: steps_held_out(
                [planted_courses(seed=seed, **world) for seed in range(given.courses)], most=2
            )
            for name, world in COURSES.items()
        }
    for part, tables in result.items():
        print(part)
        for name, values in tables.items():
            print(f"  {name}: {values}")
    if given.output:
        save(given.output, {**conditions(), **result})


def made_study(path: Path, folder: Path, mixtures: int, merges: int, seeds: int) -> str:
    """Write ``folder``/study.yaml: a study with combinations of its sources. Returns the name of its run."""
    study = yaml.safe_load(path.read_text())
    _place(study, path.parent)
    sources = {
        source["name"]: source
        for source in study["sources"]
        if not {"from", "concat", "merge", "adapter"} & source.keys() and source.get("train") is not False
    }
    rng = np.random.default_rng(0)
    pairs, triples = (list(subsets(sources, count)) for count in (2, 3))
    rng.shuffle(pairs)
    rng.shuffle(triples)
    threes = mixtures // 6
    for parents in (*pairs[: mixtures - threes], *triples[:threes]):
        shares = named(parents, [1 / len(parents)] * len(parents), CONCAT)
        settings = _shared([sources[name].get("training", {}) for name in parents])
        entry = {"name": shares.name, "concat": dict.fromkeys(parents, 1.0)}
        study["sources"].append(entry | ({"training": settings} if settings else {}))
    ties, uneven, threes = merges // 5, merges // 10, merges // 10
    even = merges - ties - uneven - threes
    for parents, method, weights in (
        *((parents, "cat", None) for parents in (*pairs[:even], *triples[:threes])),
        *((parents, "cat", [0.7, 0.3]) for parents in pairs[even : even + uneven]),
        *((parents, "ties", None) for parents in pairs[:ties]),
    ):
        merge = named(parents, weights or [1 / len(parents)] * len(parents), method)
        entry = {"name": merge.name, "merge": list(parents), "method": method}
        study["sources"].append(entry | ({"weights": weights} if weights else {}))
    name = f"{study['name']}-combine"
    study |= {
        "name": name,
        "output": str(folder.absolute() / "runs"),
        "seeds": study.get("seeds", [0])[:seeds],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return str(name)


def _place(settings: dict[str, Any] | list[Any], folder: Path) -> None:
    """Files and folders that are named from a study's folder are named from the root."""
    for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        if isinstance(value, dict | list):
            _place(value, folder)
        elif isinstance(value, str) and key not in ("name", "output") and (folder / value).exists():
            settings[key] = str((folder / value).absolute())


def _shared(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The training settings that all have alike."""
    first = settings[0].items()
    return {key: value for key, value in first if all(other.get(key) == value for other in settings)}


# A run.


def measured(place: Path) -> dict[str, Any]:
    """Everything that the notes tell of a run."""
    matrix = read_matrix(place)
    whole, _ = fitted_combinations(place, matrix)
    fits = held_out_fits(whole.table)
    units = whole.table.units
    result: dict[str, Any] = {
        "combinations": _counts(whole.table),
        "unit": units[0] if len(set(units)) == 1 else "usual gains",
        "usual gains": {unit: f"{size:.2f}" for unit, size in zip(units, whole.table.scale, strict=True)},
        "chosen on all": whole.chosen,
    }
    for way in ("all", *dict.fromkeys(c.way for c in whole.table.combinations)):
        rows = [at for at, c in enumerate(whole.table.combinations) if way in ("all", c.way)]
        result[f"predicted, {way}"] = accuracy(whole.table, fits, rows)
    result["models, held out"] = {
        f"{one.kind}: {one.name}": f"rmse {one.rmse.value:.2f} [{one.rmse.low:.2f}, {one.rmse.high:.2f}], "
        f"r {one.r:.2f}{' (chosen)' if one.chosen else ''}"
        for one in whole.scores
    }
    for way in ("all", *dict.fromkeys(c.way for c in whole.table.combinations)):
        rows = [at for at, c in enumerate(whole.table.combinations) if way in ("all", c.way)]
        if len(rows) >= FEWEST:
            result[f"lost by choices, {way}"] = choices(_only(whole.table, rows), [fits[at] for at in rows])
    result["no harm on other items"] = harm(matrix, whole.table)
    if any(len(steps) > 1 for steps in training_courses(matrix).values()):
        result["steps that were hidden"] = steps_held_out([matrix])
    return result


def _counts(table: CombinationTable) -> dict[str, int]:
    ways = [c.way for c in table.combinations]
    return {way: ways.count(way) for way in dict.fromkeys(ways)}


def held_out_fits(table: CombinationTable) -> list[Fit]:
    """For every combination, what is learnt from those that share no two of its parents."""
    fits = []
    for combination in table.combinations:
        rows = [at for at, other in enumerate(table.combinations) if not combination.pairs & other.pairs]
        fits.append(fit(_only(table, rows)))
    return fits


def _only(table: CombinationTable, rows: Sequence[int]) -> CombinationTable:
    """The table with some of its combinations."""
    return replace(
        table,
        combinations=tuple(table.combinations[at] for at in rows),
        **{
            name: getattr(table, name)[list(rows)]
            for name in ("measured", "measured_counted", "measured_noise")
        },
    )


def accuracy(table: CombinationTable, fits: Sequence[Fit], rows: Sequence[int]) -> dict[str, Any]:
    """RMSE, r and coverage of 90 % intervals, beside baselines; coverage with its error over combinations."""
    shown: dict[str, Any] = {"combinations": len(rows), "cells": len(rows) * len(table.targets)}
    guesses: dict[str, Array] = {"model": np.full((len(rows), len(table.targets)), np.nan)}
    for name in ("mean of parents", "best parent", "zero"):
        guesses[name] = guesses["model"].copy()
    inside = np.full((len(rows), len(table.targets)), np.nan)
    for place, at in enumerate(rows):
        combination = table.combinations[at]
        values, deviation = fits[at].predict([combination])
        half = fits[at].half(combination.way) * deviation[0]
        guesses["model"][place] = values[0]
        parents = table.gains[[table.place(name) for name in combination.parents]]
        guesses["mean of parents"][place] = (
            np.asarray(combination.weights) / sum(combination.weights) @ parents
        )
        guesses["best parent"][place] = parents.max(axis=0)
        guesses["zero"][place] = 0.0
        if np.isfinite(half).all():
            inside[place] = np.abs(table.measured[at] - values[0]) <= half
    truth = table.measured[list(rows)] / unit_of(table)
    for name, guess in guesses.items():
        guess = guess / unit_of(table)
        errors = truth - guess
        r = np.corrcoef(guess.ravel(), truth.ravel())[0, 1] if np.ptp(guess) > 0 else float("nan")
        shown[name] = f"rmse {np.sqrt(np.nanmean(errors**2)):.2f}, r {r:.3f}"
    with_interval = inside[np.isfinite(inside).all(axis=1)].mean(axis=1)
    if len(with_interval) > 1:
        error = with_interval.std(ddof=1) / np.sqrt(len(with_interval))
        shown["coverage of 90 %"] = f"{100 * with_interval.mean():.1f} +- {100 * error:.1f} %"
    models = [fits[at].chosen.get(table.combinations[at].kind, "mean") for at in rows]
    shown["models"] = {name: models.count(name) for name in dict.fromkeys(models)}
    return shown


def unit_of(table: CombinationTable) -> Array:
    """(T,) what improvements are divided by: 1, or usual gains where targets have several units."""
    return np.ones(len(table.units)) if len(set(table.units)) == 1 else table.scale


def choices(table: CombinationTable, fits: Sequence[Fit]) -> dict[str, Any]:
    """What a choice loses to the best measured row, over targets and sets of them, in ``unit_of``."""
    predicted = np.array([of.predict([c])[0][0] for of, c in zip(fits, table.combinations, strict=True)])
    pool = np.vstack([table.gains, table.measured]) / unit_of(table)
    seen = np.vstack([table.gains, predicted]) / unit_of(table)
    rng = np.random.default_rng(0)
    count = len(table.targets)
    sets = [(t,) for t in range(count)]
    sets += [tuple(rng.permutation(count)[: 2 + at % 2].tolist()) for at in range(SETS)]
    losses: dict[str, dict[int, list[float]]] = {
        name: {}
        for name in ("choice", "choice among combinations", "best single source", "mean of parents", "random")
    }
    mean = np.array(
        [
            np.asarray(c.weights) / sum(c.weights) @ table.gains[[table.place(n) for n in c.parents]]
            for c in table.combinations
        ]
    ) / unit_of(table)
    singles = len(table.gains)
    for of in sets:
        truth, guess = pool[:, of].mean(axis=1), seen[:, of].mean(axis=1)
        combos, best = truth[singles:].max(), truth.max()
        for name, lost in (
            ("choice", best - truth[guess.argmax()]),
            ("choice among combinations", combos - truth[singles + guess[singles:].argmax()]),
            ("best single source", best - truth[:singles].max()),
            ("mean of parents", combos - truth[singles + mean[:, of].mean(axis=1).argmax()]),
            ("random", combos - truth[singles:].mean()),
        ):
            losses[name].setdefault(len(of), []).append(float(lost))
    return {
        name: {
            f"{size} target{'s' if size > 1 else ''}": f"{np.mean(lost):.2f}"
            for size, lost in by_size.items()
        }
        for name, by_size in losses.items()
    }


def harm(matrix: TransferMatrix, table: CombinationTable) -> dict[str, Any]:
    """How often what was called safe on half of the items is so on the other half, each half in turn.

    Every combination and every one and two targets in points to keep; beside it what would be proposed first
    for each of ASKED sets of one to three further targets.
    """
    count = len(table.targets)
    in_points = [t for t, unit in enumerate(table.units) if unit == "points"]  # the margin is of points
    kept_sets = [keep for size in (1, 2) for keep in subsets(in_points, size)]
    safe, first = list[Safe](), list[Safe]()
    questions = proposals = 0
    for split, part in ((split, part) for split in range(SPLITS) for part in (0, 1)):
        rng = np.random.default_rng([split, part])
        seen, other = (
            read_combinations(half_of(matrix, split, half), weights=table.weights)
            for half in (part, 1 - part)
        )
        fits = held_out_fits(seen)
        predicted = np.array([of.predict([c])[0][0] for of, c in zip(fits, seen.combinations, strict=True)])
        for keep in kept_sets:
            further = [t for t in range(count) if t not in keep]
            names = [seen.targets[t] for t in keep]
            judged = [
                propose(of, [seen.targets[further[0]]], keep=names, only=[c], probes=0).proposals[0].safe
                for of, c in zip(fits, seen.combinations, strict=True)
            ]
            rows = [at for at, answer in enumerate(judged) if answer == "yes"]
            questions, proposals = questions + len(judged), proposals + ASKED
            safe += [_safe(other, at, keep) for at in rows]
            for size in rng.integers(1, 4, ASKED) if rows else ():
                wanted = rng.permutation(further)[:size]
                first.append(_safe(other, max(rows, key=lambda at: predicted[at, wanted].mean()), keep))
    return {
        "called safe": _kept(safe, questions, count),
        "proposed first among safe ones": _kept(first, proposals, count),
    }


@dataclass(frozen=True)
class Safe:
    """A combination that was called safe for some targets: whether it is on other items, and whether it is
    not below the margin beyond their noise."""

    combination: int
    keep: tuple[int, ...]
    held: bool
    within_noise: bool


def _safe(other: CombinationTable, at: int, keep: tuple[int, ...]) -> Safe:
    gains, noise = other.measured[at, list(keep)], np.sqrt(other.measured_noise[at, list(keep)])
    held, noisy = bool((gains > -MARGIN).all()), bool((gains + 1.645 * noise > -MARGIN).all())
    return Safe(at, keep, held, noisy)


def _kept(safe: Sequence[Safe], asked: int, targets: int) -> dict[str, Any]:
    """Shares, with 90 % intervals from combinations and targets drawn anew, both at a time (Owen, 2007)."""
    if not safe:
        return {"asked": asked, "safe": 0}
    names = sorted({one.combination for one in safe})
    place = np.array([names.index(one.combination) for one in safe])
    rng = np.random.default_rng(0)
    shares = {}
    for label, values in (
        ("kept", np.array([one.held for one in safe])),
        ("not below beyond noise", np.array([one.within_noise for one in safe])),
    ):
        drawn = []
        for _ in range(DRAWS):
            of_names = rng.multinomial(len(names), [1 / len(names)] * len(names))
            of_targets = rng.multinomial(targets, [1 / targets] * targets)
            weight = of_names[place] * np.array([np.prod(of_targets[list(one.keep)]) for one in safe])
            if weight.sum():
                drawn.append(float(weight @ values / weight.sum()))
        low, high = np.quantile(drawn, [0.05, 0.95])
        shares[label] = f"{100 * values.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    kept_targets = len({t for one in safe for t in one.keep})
    return {
        "asked": asked,
        "safe": len(safe),
        "different combinations": len(names),
        "different targets": kept_targets,
        **shares,
    }


def half_of(matrix: TransferMatrix, split: int, part: int) -> TransferMatrix:
    """The matrix by half of each target's items."""
    scores: dict[str, Array] = {}
    values, baseline = matrix.values.copy(), matrix.baseline.copy()
    for t, target in enumerate(matrix.targets):
        items = matrix.item_scores[target].shape[-1]
        places = np.random.default_rng([split, t]).permutation(items)[part::2]
        scores[target] = matrix.item_scores[target][..., np.sort(places)]
        means = np.nanmean(scores[target], axis=(1, 2))
        values[:, t], baseline[t] = means[1:], means[0]
    return replace(
        matrix, values=values, baseline=baseline, cells=(), base_cells=(), item_scores=scores, item_groups={}
    )


def steps_held_out(matrices: Sequence[TransferMatrix], most: int | None = None) -> dict[str, Any]:
    """Steps of every training (the first ``most`` of a matrix), predicted while they were hidden: with all of
    their course between base and end, and alone. RMSE in points; coverage of 90 %, +- its error over
    courses."""
    shown = {}
    for name, alone in (("all between base and end", True), ("one at a time", False)):
        errors, zero, inside = list[float](), list[float](), list[float]()
        for matrix in matrices:
            courses = {s: of for s, of in training_courses(matrix).items() if len(of) > (1 if alone else 2)}
            for steps in list(courses.values())[:most]:
                rows = list(steps.values())[:-1]
                found = [
                    step
                    for row in rows
                    for step in predict_steps(without_sources(matrix, rows if alone else [row]), [row])
                ]
                views = {view.name: view for view in read(matrix).targets}
                measured = [
                    views[one.target].factor
                    * views[one.target].better
                    * matrix.gains[matrix.sources.index(one.row), matrix.targets.index(one.target)]
                    for one in found
                ]
                pairs = list(zip(found, measured, strict=True))
                errors += [value - one.gain.value for one, value in pairs]
                zero += measured
                if np.isfinite([one.gain.low for one in found]).all():
                    inside.append(float(np.mean([o.gain.low <= v <= o.gain.high for o, v in pairs])))
        sizes = {
            of: np.sqrt(np.mean(np.square(values))) for of, values in (("model", errors), ("zero", zero))
        }
        shown[name] = {of: f"rmse {size:.2f}" for of, size in sizes.items()} | {
            "courses": len(inside),
            "cells": len(errors),
            "coverage of 90 %": f"{100 * np.mean(inside):.1f} +- "
            f"{100 * np.std(inside, ddof=1) / np.sqrt(len(inside)):.1f} %"
            if len(inside) > 1
            else "no interval",
        }
    return shown


# Tables of known truth.

WORLDS: Mapping[str, dict[str, Any]] = {
    "no effect at all, 4 measured": {"size": 0, "stray": 0, "pairs": 4},
    "no effect at all, 12 measured": {"size": 0, "stray": 0, "pairs": 12},
    "single sources alike, combinations stray, 24": {"size": 0, "stray": 3, "pairs": 24},
    "gains, 6 measured": {"pairs": 6},
    "gains, 12 measured": {"pairs": 12},
    "gains, 24 measured": {"pairs": 24, "sources": 10},
    "near the better parent, 6 measured": {"pairs": 6, "lead": 0.6},
    "near the better parent, 24 measured": {"pairs": 24, "lead": 0.6, "sources": 10},
}


COURSES: Mapping[str, dict[str, Any]] = {
    "no effect between steps, 4 sources": {"sources": 4, "items": 250},
    "gains come early, 4 sources": {"sources": 4, "bend": 0.5, "stray": 4.0, "items": 250},
    "gains come early, 8 sources": {"sources": 8, "bend": 0.5, "stray": 4.0, "items": 250},
    "gains come late and stray, 8 sources": {"sources": 8, "bend": 2.5, "stray": 10.0, "items": 250},
}


def simulated(tables: int) -> dict[str, Any]:
    """Coverage, false claims to beat the best single source, and harm, in each world."""
    result = {}
    for name, world in WORLDS.items():
        covered, claims, wrong, safe, kept = [], 0, 0, 0, 0
        for seed in range(tables):
            planted = planted_combinations(seed=seed, **world)
            table = read_combinations(planted.matrix)
            order = np.random.default_rng(seed).permutation(len(table.targets))
            names = [table.targets[t] for t in order]
            columns, keep = order[:2], order[2:4]

            def contrast(first: str, second: str, on: Sequence[str], planted: Any = planted) -> Any:
                rows = {first: 1.0, second: -1.0}
                return row_contrast(planted.matrix, rows, dict.fromkeys(on, 1 / len(on)))

            mix = propose(fit(table), names[:2], keep=names[2:4], contrast=contrast, probes=0)
            known = {c.name for c in table.combinations}

            def truth(combination: Any, planted: Any = planted, known: Any = known) -> Array:
                name = combination.name
                return planted.truth[name] if name in known else planted.true_gain(combination)

            able = [s for s in table.singles if (planted.truth[s][keep] > -MARGIN).all()]
            best = max((float(planted.truth[s][columns].mean()) for s in able), default=-np.inf)
            if mix.pick is not None:
                claims += 1
                wrong += float(truth(mix.pick.combination)[columns].mean()) <= best
            if mix.proposals[0].safe == "yes":
                safe += 1
                kept += bool((truth(mix.proposals[0].combination)[keep] > -MARGIN).all())
            covered.append(_coverage(world, seed))
        known_cover = [one for one in covered if one is not None]
        result[name] = {
            "coverage of 90 %": f"{100 * np.mean(known_cover):.1f} %" if known_cover else "no interval",
            "claims": f"{claims} of {tables}, {wrong} wrong ({100 * wrong / tables:.1f} % of tables)",
            "no harm": f"{safe} first proposals called safe, {kept} are",
        }
    return result


def _coverage(world: Mapping[str, Any], seed: int) -> float | None:
    """Share of cells of pairs that were hidden, measured on the same items, within their intervals."""
    count = world.get("sources", 8)
    whole = planted_combinations(seed=seed, **{**world, "pairs": count * (count - 1) // 2})
    table = read_combinations(whole.matrix)
    fitted = fit(_only(table, range(world["pairs"])))
    if not fitted.widths:
        return None
    rest = list(range(world["pairs"], len(table.combinations)))
    values, deviation = fitted.predict([table.combinations[at] for at in rest])
    half = fitted.half(table.combinations[0].way) * deviation
    return float((np.abs(table.measured[rest] - values) <= half).mean())


if __name__ == "__main__":
    main()
