"""Which sources cancel each other when they are combined, on what, and where the conflict shows.

A measured combination *cancels* its parents on a target, or on a trait, where it lies below their weighted
mean and below the better of them, both beyond noise: the larger of the two p-values, on the same items
(``crossed_contrast``), with Benjamini-Hochberg's q over all combinations and targets, and over all
combinations and traits. What lies above the better parent in that sense *reinforces*. Of combinations that
were not measured only those are named whose predicted interval lies below the mean of their parents.

Where it shows is asked of all measured combinations of a way together: do those stray further below the mean
whose parents' updates point apart or have opposite signs (weights), or whose parents answer with other shares
of classes or at another length (outputs)? Each is a rank correlation of what combinations stray by, in
deviations expected of parents as far apart, with that distance of their parents; its null is the sources
relabelled (QAP), so that the pairs of one source move together; q over all that are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from traitmap.analysis.combination import CONCAT, Combination, CombinationTable, Fit, around
from traitmap.analysis.profiles.cell_items import TargetItems
from traitmap.analysis.traits.components import effect_weights
from traitmap.analysis.traits.records import Traits
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast
from traitmap.matrix.reading import SIGNIFICANT, Reading, read
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Estimate, Interval, benjamini_hochberg, group_scores
from traitmap.study.settings import BASELINE
from traitmap.wording import counted, estimate, listed, related, signed

FEWEST = 8  # combinations of a way, below which nothing is asked of where a conflict shows
PERMUTATIONS = 2_000
Kind = Literal["cancels", "reinforces"]


@dataclass(frozen=True)
class Interaction:
    """A combination that is not what its parents say, on one target or trait.

    on: name of the target, or of the trait where ``trait`` holds. beyond_mean, beyond_best: less the mean of
    the parents, and less the better one, 95 % (of a prediction 90 %, and no q). q: of the larger p of the
    two.
    """

    combination: Combination
    status: Literal["measured", "predicted"]
    kind: Kind
    on: str
    trait: bool
    unit: str
    beyond_mean: Interval
    beyond_best: Interval
    q: float


@dataclass(frozen=True)
class Clue:
    """Whether combinations of a way stray further below the mean where their parents differ in something.

    shows_in: ``weights`` or ``outputs``. distance: what is compared. r: rank correlation of the distance and
    how far below; p against relabelled sources, q over all clues. n: combinations. null: 95 % of the
    permuted correlations. reason: why it was not asked.
    """

    way: str
    shows_in: Literal["weights", "outputs"]
    distance: str
    r: float
    p: float
    q: float
    null: tuple[float, float]
    n: int
    reason: str = ""

    @property
    def answer(self) -> Literal["yes", "cannot tell"]:
        """``yes``: further below the mean with the distance, q < .05. Else it cannot be told."""
        return "yes" if self.q < SIGNIFICANT and self.r > 0 else "cannot tell"


@dataclass(frozen=True)
class Interference:
    """interactions: the surest first. tested: combinations, targets, traits. clues: where conflicts show."""

    interactions: tuple[Interaction, ...]
    tested: tuple[int, int, int]
    clues: tuple[Clue, ...] = ()

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Who cancels whom, on which trait, and where it shows: one sentence each."""
        return interference_lines(self)

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON data with its sentences in ``lines``; unknown numbers are null."""
        return {**jsonable(vars(self)), "lines": dict(self.lines)}


@dataclass(frozen=True)
class Distances:
    """How unlike sources are. weights: name of a distance -> (S, S); outputs: name -> target -> (S, S).

    names: of the S sources; NaN where unknown.
    """

    names: tuple[str, ...]
    weights: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))
    outputs: Mapping[str, Mapping[str, Array]] = field(default_factory=lambda: MappingProxyType({}))


# Contrasts of measured rows.


def row_contrast(
    matrix: TransferMatrix,
    rows: Mapping[str, float],
    targets: Mapping[str, float],
    reading: Reading | None = None,
) -> Estimate:
    """Weighted sum of rows on a weighted sum of targets, on the same items, in shown improvements.

    rows: source -> weight; targets: target -> weight. Without items the error is unknown. Seeds of the rows
    go together: an adapter and what was merged from it have one. reading: of the matrix, where it is there.
    """
    reading = reading or read(matrix)
    terms, value, exact = [], 0.0, True
    reach = 1.0
    for target, weight in targets.items():
        t = matrix.targets.index(target)
        view = reading.targets[t]
        unit = weight * view.factor * view.better
        value += unit * sum(
            share * float(matrix.values[matrix.sources.index(name), t]) for name, share in rows.items()
        )
        scores = matrix.item_scores.get(target)
        if scores is None:
            exact = False
            continue
        places = [1 + matrix.sources.index(name) for name in rows]
        part = scores[places]
        known = np.isfinite(part).all(axis=(0, 1))
        groups = matrix.item_groups.get(target)
        by_group = group_scores(part[..., known], None if groups is None else groups[known])
        if not np.isin(part[..., known], (0.0, 1.0)).all():
            reach = 0.0
        terms += [
            VarianceTerm("row", target, unit * share, scores_of)
            for share, scores_of in zip(rows.values(), by_group, strict=True)
        ]
    if not exact or not terms:
        return Estimate(value, nan, nan)
    return crossed_contrast(terms, reach=reach)


def interference(
    matrix: TransferMatrix,
    fitted: Fit,
    *,
    traits: Traits | None = None,
    distances: Distances | None = None,
    candidates: Sequence[Combination] = (),
    seed: int = 0,
) -> Interference:
    """Who cancels whom among the measured combinations of a matrix, and among candidates that were not.

    traits: of the single sources; only those that count are used. distances: of the parents. seed: of
    permutations.
    """
    table = fitted.table
    reading = read(matrix)
    views = dict(zip(matrix.targets, reading.targets, strict=True))
    on_targets = {name: {name: 1.0} for name in table.targets}
    on_traits: dict[str, dict[str, float]] = {}
    if traits is not None:
        used = traits.n_components["used"]
        weights = effect_weights(np.nan_to_num(traits.loadings[:, :used]))  # NaN where nothing varies
        on_traits = {
            traits.names[c]: {
                target: float(weights[t, c]) * views[target].better  # a trait's poles have no better
                for t, target in enumerate(traits.targets)
                if target in views and weights[t, c] != 0
            }
            for c in range(used)
        }
    found = [
        *_tested(
            reading, matrix, table, on_targets, {n: view.unit for n, view in views.items()}, trait=False
        ),
        *_tested(reading, matrix, table, on_traits, dict.fromkeys(on_traits, "points"), trait=True),
        *_foreseen(fitted, candidates),
    ]
    found.sort(key=lambda one: (one.status != "measured", one.q if isfinite(one.q) else 1.0))
    clues = () if distances is None else _clues(fitted, distances, seed)
    return Interference(tuple(found), (len(table.combinations), len(on_targets), len(on_traits)), clues)


def _tested(
    reading: Reading,
    matrix: TransferMatrix,
    table: CombinationTable,
    questions: Mapping[str, Mapping[str, float]],
    units: Mapping[str, str],
    *,
    trait: bool,
) -> list[Interaction]:
    """Interactions beyond noise on targets, or on traits."""
    rows: list[tuple[Combination, str, Kind, Estimate, Estimate, float]] = []
    for combination in table.combinations:
        total = sum(combination.weights)
        shares = {n: w / total for n, w in zip(combination.parents, combination.weights, strict=True)}
        for name, targets in questions.items():
            mean = row_contrast(
                matrix, {combination.name: 1.0} | {n: -w for n, w in shares.items()}, targets, reading
            )
            each = [row_contrast(matrix, {combination.name: 1.0, n: -1.0}, targets, reading) for n in shares]
            if not (isfinite(mean.value) and isfinite(mean.error) and all(isfinite(e.error) for e in each)):
                continue
            below = mean.value < 0
            better = min(each, key=lambda e: e.value)  # less the better parent
            p = max(mean.p, better.p) if better.value * mean.value > 0 else 1.0
            rows.append((combination, name, "cancels" if below else "reinforces", mean, better, p))
    q = benjamini_hochberg(np.array([p for *_, p in rows], dtype=float)) if rows else np.empty(0)
    return [
        Interaction(
            combination,
            "measured",
            kind,
            name,
            trait,
            units[name],
            mean.interval(),
            best.interval(),
            float(at),
        )
        for (combination, name, kind, mean, best, _), at in zip(rows, q, strict=True)
        if at < SIGNIFICANT
    ]


def _foreseen(fitted: Fit, candidates: Sequence[Combination]) -> list[Interaction]:
    """Predicted combinations whose interval lies below the mean of their parents."""
    table = fitted.table
    known = {c.name for c in table.combinations}
    candidates = [c for c in candidates if c.name not in known]
    if not candidates:
        return []
    values, deviation = fitted.predict(candidates)
    found = []
    for row, combination in enumerate(candidates):
        half = fitted.half(combination.way) * deviation[row]
        parents = table.gains[[table.place(n) for n in combination.parents]]
        mean = np.asarray(combination.weights) / sum(combination.weights) @ parents
        for t, target in enumerate(table.targets):
            if isfinite(half[t]) and values[row, t] + half[t] < mean[t]:
                apart = float(values[row, t] - mean[t])
                best = float(values[row, t] - parents[:, t].max())
                wide = float(half[t])
                found.append(
                    Interaction(
                        combination, "predicted", "cancels", target, False, table.units[t],
                        around(apart, wide), around(best, wide), nan,
                    )
                )  # fmt: skip
    return found


# Where a conflict shows.


def output_distances(names: Sequence[str], items: Mapping[str, TargetItems]) -> dict[str, dict[str, Array]]:
    """How differently single sources answer, target by target: shares of classes, and lengths.

    items: target -> answers. ``shares of answers``: half the sum of absolute differences of the shares of
    classes, unparsed answers among them (0 to 1). ``output length``: absolute log ratio of mean tokens, of
    generated answers alone. (S, S) for each target; NaN where a source has no answers.
    """
    shares: dict[str, Array] = {}
    lengths: dict[str, Array] = {}
    for target, answers in items.items():
        place = {name: rows for name, seed, rows in answers.groups if seed is None and name != BASELINE}
        rows = [list(place.get(name, ())) for name in names]
        if answers.labels:
            count = len(answers.labels) + 2
            profile = np.array(
                [
                    np.bincount(answers.predicted[at].ravel(), minlength=count)[:count]
                    / answers.predicted[at].size
                    if at
                    else np.full(count, nan)
                    for at in rows
                ]
            )
            shares[target] = np.abs(profile[:, None] - profile[None]).sum(axis=-1) / 2
        if answers.generated:
            mean = np.array([np.log(np.nanmean(answers.tokens[at])) if at else nan for at in rows])
            lengths[target] = np.abs(mean[:, None] - mean[None])
    return {"shares of answers": shares, "output length": lengths}


def _clues(fitted: Fit, distances: Distances, seed: int) -> tuple[Clue, ...]:
    """Every distance for every way of combining that has enough measured combinations."""
    table = fitted.table
    ways: dict[str, list[int]] = {}
    for row, combination in enumerate(table.combinations):
        ways.setdefault(CONCAT if combination.method == CONCAT else "merges", []).append(row)
    asked: list[Clue] = []
    for way, rows in ways.items():
        for shows_in, tables in (("weights", distances.weights), ("outputs", distances.outputs)):
            for name, of in tables.items():
                by_target = of if isinstance(of, Mapping) else dict.fromkeys(table.targets, of)
                asked.append(_clue(fitted, rows, distances.names, way, shows_in, name, by_target, seed))
    q = benjamini_hochberg(np.array([clue.p for clue in asked], dtype=float)) if asked else ()
    return tuple(Clue(**{**vars(clue), "q": float(at)}) for clue, at in zip(asked, q, strict=True))


def _clue(
    fitted: Fit,
    rows: Sequence[int],
    names: Sequence[str],
    way: str,
    shows_in: str,
    distance: str,
    by_target: Mapping[str, Array],
    seed: int,
) -> Clue:
    table = fitted.table
    part: dict[str, Any] = {"way": way, "shows_in": shows_in, "distance": distance}
    unknown = {**part, "r": nan, "p": nan, "q": nan, "null": (nan, nan), "n": len(rows)}
    combos = [table.combinations[row] for row in rows]
    if len(rows) < FEWEST:
        return Clue(**unknown, reason=f"{counted(len(rows), 'combination')} measured; {FEWEST} are needed")
    if any(name not in names for c in combos for name in c.parents):
        return Clue(**unknown, reason="not known of all parents")
    below = -(_strays(table)[rows])
    targets = [t for t, name in enumerate(table.targets) if name in by_target]
    if not targets:
        return Clue(**unknown, reason="no target has such answers")
    y = below[:, targets]
    stack = np.array([_ranked_pairs(by_target[table.targets[t]]) for t in targets])  # (T', S, S)
    if shows_in == "weights":  # one number for each combination
        known = np.isfinite(y)
        y = (np.where(known, y, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))[:, None]
        stack = stack[:1]
    y = _ranked(y)
    pairs = [(row, *sorted(map(names.index, pair))) for row, c in enumerate(combos) for pair in c.pairs]
    owner, first, second = np.array(pairs).T
    share = (owner[None, :] == np.arange(len(combos))[:, None]).astype(float)
    share /= share.sum(axis=1, keepdims=True)

    def correlation(order: NDArray[np.int64]) -> float:
        x = share @ stack[:, order[first], order[second]].T  # (C', T')
        known = np.isfinite(x) & np.isfinite(y)
        count = np.maximum(known.sum(axis=0), 1)
        a, b = (np.where(known, part, 0.0) for part in (x, y))
        a, b = (np.where(known, part - part.sum(axis=0) / count, 0.0) for part in (a, b))
        power = float((a**2).sum() * (b**2).sum())
        return float((a * b).sum()) / power**0.5 if power > 1e-12 and known.sum() >= FEWEST else nan

    involved = sorted({*first.tolist(), *second.tolist()})
    r = correlation(np.arange(len(names), dtype=np.int64))
    if not isfinite(r):
        return Clue(**unknown, reason="it does not vary")
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(PERMUTATIONS):
        order = np.arange(len(names), dtype=np.int64)
        order[involved] = rng.permutation(involved)
        drawn.append(correlation(order))
    null = np.array(drawn)[np.isfinite(drawn)]
    p = (1 + int((np.abs(null) >= abs(r) - 1e-12).sum())) / (1 + len(null))
    limits = tuple(map(float, np.quantile(null, [0.025, 0.975])))
    return Clue(**{**unknown, "r": r, "p": p, "null": limits})


def _strays(table: CombinationTable) -> Array:
    """(C, T) measured less the mean of the parents, over what parents so far apart let expect."""
    values = np.full(table.measured.shape, nan)
    for row, combination in enumerate(table.combinations):
        share = np.asarray(combination.weights) / sum(combination.weights)
        parents = table.gains[[table.place(name) for name in combination.parents]]
        mean = share @ parents
        apart = np.sqrt(share @ (parents - mean) ** 2)
        noise = np.sqrt(np.nan_to_num(table.measured_noise[row]) + 1e-12)
        values[row] = (table.measured[row] - mean) / np.hypot(noise, apart)
    return values


def _ranked_pairs(distance: Array) -> Array:
    """(S, S) ranks of the distances of every two sources, scaled to -1..1; NaN where unknown."""
    above = np.triu_indices(len(distance), 1)
    ranks = np.full(distance.shape, nan)
    ranks[above] = _ranked(distance[above][:, None])[:, 0]
    ranks[above[::-1]] = ranks[above]
    return ranks


def _ranked(values: Array) -> Array:
    """Ranks within each column (target) over its known rows, centred and scaled to -1..1."""
    ranks = stats.rankdata(values, axis=0, nan_policy="omit")
    count = np.isfinite(values).sum(axis=0)
    return np.asarray((ranks - (count + 1) / 2) / np.maximum(count, 1))


# Words.


def interference_lines(record: Interference) -> list[tuple[str, str]]:
    """Who cancels whom, on which trait, and where it shows: one sentence each."""
    combos, targets, traits = record.tested
    if not combos:
        return [("cancel", "cannot tell: no combination is measured")]
    lines = []
    measured = [one for one in record.interactions if one.status == "measured"]
    for kind, nothing in (
        ("cancels", "no two sources cancel each other beyond noise"),
        ("reinforces", "none beats its better parent beyond noise"),
    ):
        of = [one for one in measured if one.kind == kind and not one.trait]
        asked = f"{combos * targets} questions of {counted(combos, 'combination')}"
        if of:
            pairs = dict.fromkeys(one.combination.words for one in of)
            first = of[0]
            words = (
                f"{len(of)} of {asked}: {listed(list(pairs))}; surest "
                f"{first.combination.words} on {first.on}, "
                f"{estimate(first.beyond_mean)} {first.unit} against the mean of the parents, "
                f"{related('q', first.q)}"
            )
        else:
            words = f"{nothing} ({asked})"
        lines.append(("cancel" if kind == "cancels" else "reinforce", words))
    on_traits = [one for one in measured if one.trait and one.kind == "cancels"]
    if not traits:
        lines.append(("on trait", "cannot tell: no trait is supported here"))
    elif on_traits:
        first = on_traits[0]
        lines.append(
            (
                "on trait",
                f"{listed(list(dict.fromkeys(one.on for one in on_traits)))}: surest "
                f"{first.combination.words} on {first.on}, {estimate(first.beyond_mean)}, "
                f"{related('q', first.q)}",
            )
        )
    else:
        lines.append(("on trait", f"cannot tell: on none of {counted(traits, 'trait')} beyond noise"))
    foreseen = [one for one in record.interactions if one.status == "predicted"]
    if foreseen:
        names = list(dict.fromkeys(one.combination.words for one in foreseen))
        lines.append(("expected", f"predicted below the mean of their parents: {listed(names)}"))
    lines += [(f"in {clue.shows_in}", clue_words(clue)) for clue in record.clues]
    return _numbered(lines)


def _numbered(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sentences that share a head as one line."""
    joined: dict[str, list[str]] = {}
    for head, words in lines:
        joined.setdefault(head, []).append(words)
    return [(head, "; ".join(words)) for head, words in joined.items()]


def clue_words(clue: Clue) -> str:
    """One clue in a sentence."""
    way = "mixtures" if clue.way == CONCAT else clue.way
    if clue.reason:
        return f"{clue.distance} of {way}: cannot tell ({clue.reason})"
    numbers = f"r {signed(clue.r, 2)}, {related('q', clue.q)}"
    if clue.q < SIGNIFICANT:
        how = "further" if clue.answer == "yes" else "less"
        return (
            f"{way} fall {how} below the mean of their parents the more these differ in {clue.distance} "
            f"({numbers})"
        )
    return f"{clue.distance} of {way}: cannot tell ({numbers})"
