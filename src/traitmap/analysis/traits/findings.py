"""What a reader of the traits must be warned of: one function per kind of trouble, each yielding warnings.

``all_findings`` puts them in order, the gravest first. Every warning has a stable code, a message with its
numbers and the action to take; thresholds stand at the top of the chapter and in the docstrings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from traitmap.analysis.traits.copies import near_duplicates
from traitmap.analysis.traits.description import exact_rank, listed, read_count, used_share
from traitmap.analysis.traits.records import Traits, TraitWarning
from traitmap.analysis.traits.scaling import PreparedTable
from traitmap.matrix.record import Array, TransferMatrix

ONE_ROW = 0.5  # leverage at which a component is mostly one source
TWO_ROWS = 0.75  # leverage at which it is mostly two
ONE_COLUMN = 0.5  # squared loading at which it is mostly one target
COLLAPSED = -2.0  # median robust z-score at which a source has fallen through the floor
MOST_WARNINGS = 25
ONE_ANSWER = 0.9  # share of one answer at which predictions count as collapsed


def left_out(prepared: PreparedTable) -> Iterator[TraitWarning]:
    """Sources without values, and targets without values or without variation.

    Codes ``sources_left_out`` and ``targets_left_out``.
    """
    if prepared.dropped_rows:
        yield TraitWarning(
            "sources_left_out",
            f"left out for lack of values: {listed(prepared.dropped_rows)}",
            "evaluate them, or leave them out of the study",
            prepared.dropped_rows,
        )
    if prepared.dropped_columns:
        yield TraitWarning(
            "targets_left_out",
            f"left out, their values missing or all the same: {listed(prepared.dropped_columns)}",
            "use targets that some source moves; a constant target cannot load on any trait",
            prepared.dropped_columns,
        )


def taken_as_one(matrix: TransferMatrix, prepared: PreparedTable, traits: Traits) -> Iterator[TraitWarning]:
    """Sources that take no part since another one stands for them, targets and items that say the same.

    Codes ``variations_aside``, ``near_copies``, ``targets_alike`` (moved together in every null and fold),
    ``shared_items`` and ``repeated_items``.
    """
    for code, start, why, action in (
        (
            "variations_aside",
            "made",
            "made from other sources, and take no part",
            "variations=True lets them; a trait may then be what a family of variations has in common",
        ),
        (
            "near_copies",
            "agrees",
            "agree with another source beyond noise; one of each kind takes part",
            "near_copies=True lets all of them; check that they are not one adapter under several names",
        ),
    ):
        names = tuple(name for name, reason in prepared.aside.items() if reason.startswith(start))
        if names:
            told = [f"{name} ({prepared.aside[name]})" for name in names]
            yield TraitWarning(code, f"{listed(told)}: {why}", action, names)
    for names in traits.conditions["targets_alike"]:
        yield TraitWarning(
            "targets_alike",
            f"targets {listed(names)} share many items: folds and nulls take them as one",
            "keep one of them, or hold out by family of targets rather than by target",
            tuple(names),
        )
    for pair in matrix.conditions.get("shared_items") or ():
        if {pair["first"], pair["second"]} <= set(prepared.targets):
            yield TraitWarning(
                "shared_items",
                f"targets {pair['first']} and {pair['second']} have {pair['items']:,} items in common, "
                f"{100 * pair['share']:.0f} % of the smaller one's",
                "read what they have in common as one finding",
                (pair["first"], pair["second"]),
            )
    for name, found in (matrix.conditions.get("repeated_items") or {}).items():
        if name in prepared.targets:
            yield TraitWarning(
                "repeated_items",
                f"of {found['items']:,} items of {name} {found['groups']:,} are apart (by {found['by']}): "
                "intervals, tests and n count these",
                "nothing: it is counted; more items that differ make intervals shorter",
                (name,),
            )


def incomplete(prepared: PreparedTable) -> Iterator[TraitWarning]:
    """A table with many cells to fill.

    Code ``many_missing_cells``, from a fifth of the cells filled in.
    """
    missing = ~prepared.observed & ~prepared.masked
    share = float((~prepared.observed).mean())
    if share <= 0.2:
        return
    yield TraitWarning(
        "many_missing_cells",
        f"{100 * share:.0f} % of the cells are filled in ({int(missing.sum())} missing, "
        f"{int(prepared.masked.sum())} masked); filled cells follow the traits exactly and make them "
        "look stronger, in the null as well",
        "read the shares of variance only beside their null; measure the missing cells if you can",
    )


def duplicated_sources(prepared: PreparedTable) -> Iterator[TraitWarning]:
    """Groups of sources with equal values on all targets that they share.

    Code ``duplicated_sources``: two targets or more in common, equal to nine digits on all of them.
    """
    sources, values = prepared.every_source
    observed = np.isfinite(values)
    values = np.where(observed, values, 0.0)
    size = np.abs(values).max(axis=0) + 1e-300
    groups: list[list[int]] = []
    for row in range(len(values)):
        first = [group[0] for group in groups]
        both = observed[first] & observed[row]
        gap = np.where(both, np.abs(values[first] - values[row]) / size, 0.0)
        same = np.flatnonzero((both.sum(axis=1) >= 2) & (gap.max(axis=1, initial=0.0) < 1e-9))
        if same.size:
            groups[int(same[0])].append(row)
        else:
            groups.append([row])
    for names in (tuple(sources[i] for i in group) for group in groups if len(group) > 1):
        yield TraitWarning(
            "duplicated_sources",
            f"sources {listed(names)} have the same values on every target: they count as {len(names)} "
            "sources but hold the information of one",
            "leave out all but one, or check that the same adapter was not evaluated twice",
            names,
        )


def near_duplicate_targets(prepared: PreparedTable) -> Iterator[TraitWarning]:
    """Pairs of targets that correlate so highly that they measure one thing.

    Code ``near_duplicate_targets``: |r| of at least .98 over five sources or more, highest first.
    """
    for first_at, second_at, r in near_duplicates(np.where(prepared.observed, prepared.values, np.nan)):
        first, second = prepared.targets[first_at], prepared.targets[second_at]
        yield TraitWarning(
            "near_duplicate_targets",
            f"targets {first} and {second} correlate at {r:.3f}: they weigh one ability twice",
            "keep one of them, or hold out by family of targets rather than by target",
            (first, second),
        )


def collapsed_sources(prepared: PreparedTable, majority_share: Array | None) -> Iterator[TraitWarning]:
    """Sources that give one answer to everything, seen from predictions if known, else from the scores.

    majority_share: (S' + E, T') share of predictions that are the commonest one, NaN where unknown. A source
    is collapsed when that is at least .9 on a third of the targets on which other sources vary.
    From scores: the median over targets of (score - median) / (1.4826 MAD) is below -2 and at least
    half of the scores lie within a quarter of the way from the target's lowest score to its median.
    """
    if majority_share is not None and np.isfinite(majority_share).any():
        yield from _collapsed_from_predictions(prepared, majority_share)
        return
    sources, values = prepared.every_source
    median = np.nanmedian(values, axis=0)
    deviation = 1.4826 * np.nanmedian(np.abs(values - median), axis=0)
    usable = deviation > 0
    if usable.sum() < 3 or len(values) < 6:
        return
    z = ((values - median) / np.where(usable, deviation, np.nan))[:, usable]
    floor = np.nanmin(values, axis=0)
    depth = ((values - floor) / np.where(median > floor, median - floor, np.nan))[:, usable]
    for row, name in enumerate(sources):
        seen = np.isfinite(z[row])
        if seen.sum() < 3:
            continue
        typical, low = float(np.median(z[row][seen])), float((depth[row][seen] <= 0.25).mean())
        if typical < COLLAPSED and low >= 0.5:
            yield TraitWarning(
                "collapsed_source",
                f"source {name} lies at the floor on {100 * low:.0f} % of the targets (median robust z "
                f"{typical:.1f}): it may give one answer to everything",
                "look at its answers; if they are all the same, train it again with a lower learning "
                "rate or leave it out, for such rows make a trait of their own",
                (name,),
            )


def _collapsed_from_predictions(prepared: PreparedTable, majority_share: Array) -> Iterator[TraitWarning]:
    """Collapsed sources from the share of their commonest prediction (S' + E, T')."""
    known = np.isfinite(majority_share)
    typical = np.array(
        [
            np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 1.0
            for column in majority_share.T
        ]
    )
    telling = known & (typical < ONE_ANSWER)[None, :]
    constant = telling & (np.where(known, majority_share, 0.0) >= ONE_ANSWER)
    for row, name in enumerate(prepared.every_source[0]):
        count, total = int(constant[row].sum()), int(telling[row].sum())
        if total >= 3 and count / total >= 1 / 3:
            yield TraitWarning(
                "collapsed_source",
                f"source {name} gives one answer to at least {100 * ONE_ANSWER:.0f} % of the "
                f"items on {count} of "
                f"{total} targets",
                "train it again with a lower learning rate or leave it out, for such rows make a trait "
                "of their own",
                (name,),
            )


def one_row_axes(traits: Traits, examined: Iterable[int]) -> Iterator[TraitWarning]:
    """Components that are mostly one source, mostly two, or mostly one target.

    examined: the components that are looked at. Codes ``one_source_axis`` (leverage of at least .5),
    ``two_source_axis`` (.75 together) and ``one_target_axis`` (squared loading of at least .5, of more
    than two targets).
    """
    for c in examined:
        leverage = np.nan_to_num(traits.leverage[:, c])
        order = np.argsort(-leverage, kind="stable")
        first, second = (traits.sources[i] for i in order[:2])
        top, both = leverage[order[0]], leverage[order[:2]].sum()
        action = "do not read it as a trait; add sources of that kind, or leave the source out and look again"
        if top >= ONE_ROW:
            message = f"PC{c} is mostly the source {first}: leverage {top:.2f}"
            yield TraitWarning("one_source_axis", message, action, (f"PC{c}", first))
        elif both >= TWO_ROWS:
            opposed = np.prod(np.sign(traits.scores_u[order[:2], c])) < 0
            pair = f"{first} {'against' if opposed else 'and'} {second}"
            message = f"PC{c} is mostly {pair}: leverage {both:.2f} together"
            yield TraitWarning("two_source_axis", message, action, (f"PC{c}", first, second))
        squares = np.nan_to_num(traits.loadings[:, c] ** 2)
        peak = int(np.argmax(squares))
        if squares[peak] >= ONE_COLUMN and len(squares) > 2:
            yield TraitWarning(
                "one_target_axis",
                f"PC{c} is mostly the {traits.targets[peak]} target: squared loading {squares[peak]:.2f}",
                "do not read it as a trait across tasks; see whether it stays without that target",
                (f"PC{c}", traits.targets[peak]),
            )


def support(traits: Traits) -> Iterator[TraitWarning]:
    """No component supported, criteria that disagree, or more components used than exceed their null.

    Codes ``no_component_supported``, ``criteria_disagree``, ``more_than_supported``, and those of
    ``chance``.
    """
    counts = traits.n_components
    used, cv, parallel = counts["used"], counts["cv"], counts["parallel"]
    shape = f"{traits.conditions['rows']} x {traits.conditions['columns']}"
    if cv == 0:
        yield TraitWarning(
            "no_component_supported",
            f"cross-validation supports no component in this {shape} table: predicting every cell by its "
            "target's mean is as good",
            "do not interpret the components; measure more sources, more targets or more items",
        )
    elif cv != parallel:
        yield TraitWarning(
            "criteria_disagree",
            f"cross-validation supports {cv} components, Horn's parallel analysis {parallel}, the "
            f"permutation null {counts['permutation']}",
            "trust the components that all of them support; treat the others as open",
        )
    if used > cv:
        yield TraitWarning(
            "more_than_supported",
            f"{used} components are used, but cross-validation supports {cv}",
            "use components='auto', or say that the number was chosen by hand",
        )
    yield from chance(traits)


def chance(traits: Traits) -> Iterator[TraitWarning]:
    """Explained variance that does not exceed that of tables without structure, found or claimed.

    Codes ``claim_not_above_null``, ``low_rank_table`` and ``not_above_null``; none where no null was
    drawn. Shares are held against the 95th percentile of the permutation null for as many components.
    """
    count = read_count(traits)
    share, (mean, low, high) = used_share(traits, count)
    claimed = traits.conditions.get("claimed_share")
    shape = f"{traits.conditions['rows']} x {traits.conditions['columns']}"
    if not np.isfinite(high):
        return
    subject = "component" if count == 1 else f"{count} components"
    null = (
        f"tables of {shape} without structure give {100 * mean:.1f} % (5-95 %: {100 * low:.1f} "
        f"% to {100 * high:.1f} %)"
    )
    if claimed is not None and claimed <= high:
        yield TraitWarning(
            "claim_not_above_null",
            f"the claimed {100 * claimed:.0f} % for the first {subject} does not exceed chance: {null}",
            "do not quote it as evidence of traits",
        )
    rank = exact_rank(traits)
    if rank is not None:
        yield TraitWarning(
            "low_rank_table",
            f"the table has rank {rank}, so its first {rank} components explain all of it by "
            f"construction; in the table that it was made from, {rank} components explain more than "
            f"chance at {shape} only above {100 * traits.null_cumulative_p95[rank - 1]:.1f} %",
            "decompose the original table; with a share that was published for it, pass claimed_share",
        )
    elif share <= high:
        yield TraitWarning(
            "not_above_null",
            f"the first {subject} explain{'s' if count == 1 else ''} {100 * share:.1f} %; {null}: "
            "the explained "
            "variance is not above its null",
            "do not quote the explained variance as evidence of traits",
        )


def instability(traits: Traits) -> Iterator[TraitWarning]:
    """Used components that do not come back in resampled tables, or cannot be told from a neighbour.

    Codes ``unstable_component`` (congruence below .85 at the 5th percentile of the bootstrap over
    sources, or on average not above its noise level) and ``overlapping_components``.
    """
    rows = traits.stability.resamplings.get("adapters")
    for c in range(min(traits.n_components["used"], traits.stability.examined)):
        if rows is None:
            break
        mean, low, noise = rows.congruence_mean[c], rows.congruence_p05[c], rows.noise_p95[c]
        if low < 0.85 or (np.isfinite(noise) and mean <= noise):
            level = f"; tables without structure reach {noise:.2f}" if np.isfinite(noise) else ""
            yield TraitWarning(
                "unstable_component",
                f"PC{c} changes with the choice of sources: congruence {mean:.2f} on average, "
                f"{low:.2f} at the 5th percentile over {rows.draws:,} bootstrap draws{level}",
                "read its loadings with their intervals only; add sources",
                (f"PC{c}",),
            )
    for components, angle_mean, angle_p95 in traits.stability.overlaps:
        if components[0] < traits.n_components["used"]:
            names = tuple(f"PC{c}" for c in components)
            yield TraitWarning(
                "overlapping_components",
                f"the eigenvalues of {listed(names)} overlap: which is which is arbitrary; their common "
                f"subspace turns by {angle_mean:.0f} degrees on average "
                f"({angle_p95:.0f} at the 95th percentile)",
                "interpret the subspace, or rotate it (varimax, oblimin), rather than single components",
                names,
            )


def noisy(traits: Traits) -> Iterator[TraitWarning]:
    """Targets that are mostly noise or unreliable over seeds.

    Codes ``noisy_targets`` (more than half of the variance between sources) and ``unreliable_targets``
    (reliability over seeds below .5).
    """
    share, reliability = traits.noise.share, traits.noise.reliability
    bad = [t for t, s in zip(traits.targets, share, strict=True) if np.isfinite(s) and s > 0.5]
    if bad:
        yield TraitWarning(
            "noisy_targets",
            f"more than half of the variance between sources is item noise on {listed(bad)}",
            "evaluate more items of these targets, or leave them out",
            tuple(bad),
        )
    weak = [t for t, r in zip(traits.targets, reliability, strict=True) if np.isfinite(r) and r < 0.5]
    if weak:
        yield TraitWarning(
            "unreliable_targets",
            f"reliability over training seeds is below .5 on {listed(weak)}",
            "train more seeds, or leave these targets out",
            tuple(weak),
        )


def general_component(traits: Traits, examined: Iterable[int]) -> Iterator[TraitWarning]:
    """Components that are no more than the average over targets.

    examined: the components that are looked at. Code ``general_component``: |r| above .95 between a
    component's scores and the mean of the standardised targets.
    """
    z = (traits.completed - traits.centers) / traits.divisors
    known = np.isfinite(z).any(axis=1)
    columns = np.isfinite(z[known]).all(axis=0)
    average = z[known][:, columns].mean(axis=1)
    for c in examined:
        score = traits.scores[known, c]
        if average.std() < 1e-12 or score.std() < 1e-12:
            continue
        r = float(np.corrcoef(average, score)[0, 1])
        if abs(r) > 0.95:
            yield TraitWarning(
                "general_component",
                f"PC{c} is the average over the targets (r = {r:.3f}): how good a source is overall",
                "use scale='double' to see what sources do beyond their general level",
                (f"PC{c}",),
            )


def unknown_base(prepared: PreparedTable) -> Iterator[TraitWarning]:
    """Effects cannot be stated against the base model.

    Code ``baseline_unknown``.
    """
    if np.isfinite(prepared.baseline).all():
        return
    yield TraitWarning(
        "baseline_unknown",
        "the base model is not known on every target: effects are against the mean of the sources",
        "say which row is the base with --base ROW, or add one named base",
    )


def in_other_units(matrix: TransferMatrix) -> tuple[str, ...]:
    """Targets that are no proportions, where others are; none where all may be in one unit.

    Only a run tells: its cells name their metric, and a metric with values outside [0, 1] beside one
    within is in another unit.
    """
    metrics = {cell.target: cell.metric for cell in matrix.cells if cell.status == "measured"}
    values = np.vstack([matrix.baseline[None], matrix.values])
    within = np.array([np.nanmin(v, initial=0.0) >= 0 and np.nanmax(v, initial=0.0) <= 1 for v in values.T])
    kinds = {metrics.get(target) for target, inside in zip(matrix.targets, within, strict=True) if inside}
    pairs = zip(matrix.targets, within, strict=True)
    unlike = [name for name, inside in pairs if not inside and name in metrics and metrics[name] not in kinds]
    return tuple(unlike) if kinds - {None} else ()


def mixed_units(matrix: TransferMatrix) -> Iterator[TraitWarning]:
    """Effects average gains over targets; in different units the average has none.

    Code ``mixed_units``, of the targets that ``in_other_units`` names.
    """
    unlike = in_other_units(matrix)
    if not unlike:
        return
    yield TraitWarning(
        "mixed_units",
        f"targets {listed(unlike)} are no proportions: effects add their units to those of the others",
        "do not read the size of an effect; leave targets of one kind out, or read loadings and scores",
        unlike,
    )


def table_as_read(matrix: TransferMatrix, prepared: PreparedTable) -> Iterator[TraitWarning]:
    """Sources that were named alike, and targets whose metric is better when lower.

    Codes ``sources_named_alike`` and ``lower_is_better``.
    """
    renamed = tuple(str(name) for name in matrix.conditions.get("renamed", ()))
    if renamed:
        yield TraitWarning(
            "sources_named_alike",
            f"the table names several rows alike; they are told apart as {listed(renamed)}",
            "give every row its own name in the table",
            renamed,
        )
    lower = tuple(t for t in prepared.targets if matrix.higher_is_better.get(t) is False)
    if lower:
        yield TraitWarning(
            "lower_is_better",
            f"lower is better on {listed(lower)}: a positive loading or effect there means getting worse",
            "read the signs of these targets the other way round",
            lower,
        )


def all_findings(
    matrix: TransferMatrix, prepared: PreparedTable, traits: Traits, majority_share: Array | None
) -> tuple[TraitWarning, ...]:
    """Every warning, the gravest first: support, then what shapes the components, then the data, then noise.

    Axes are examined for the used components, and for those of the first four that hold more than an
    average one (Kaiser's rule), because people read those. At most ``MOST_WARNINGS``, the others counted.
    """
    ratios = traits.explained_variance_ratio
    used = traits.n_components["used"]
    examined = [c for c in range(min(max(used, 4), len(ratios))) if c < used or ratios[c] >= 1 / len(ratios)]
    return at_most(
        (
            *support(traits),
            *one_row_axes(traits, examined),
            *collapsed_sources(prepared, majority_share),
            *duplicated_sources(prepared),
            *instability(traits),
            *general_component(traits, range(traits.n_components["used"])),
            *near_duplicate_targets(prepared),
            *left_out(prepared),
            *taken_as_one(matrix, prepared, traits),
            *table_as_read(matrix, prepared),
            *incomplete(prepared),
            *noisy(traits),
            *mixed_units(matrix),
            *unknown_base(prepared),
        )
    )


def at_most(warnings: Iterable[TraitWarning], most: int = MOST_WARNINGS) -> tuple[TraitWarning, ...]:
    """Warnings in their order, at most ``most``: of each kind as many as there is room for.

    The last one then says how many of which kinds are left out (code ``more_warnings``).
    """
    listed = tuple(warnings)
    if len(listed) <= most:
        return listed
    counts = Counter(warning.code for warning in listed)
    room = max(
        (each for each in range(1, most) if sum(min(count, each) for count in counts.values()) < most),
        default=1,
    )
    seen: Counter[str] = Counter()
    kept: list[TraitWarning] = []
    for warning in listed:
        seen[warning.code] += 1
        if seen[warning.code] <= room and len(kept) < most - 1:
            kept.append(warning)
    left = counts - Counter(warning.code for warning in kept)
    kinds = ", ".join(f"{count:,} of {code.replace('_', ' ')}" for code, count in left.items())
    message = f"{sum(left.values()):,} more warnings are not listed: {kinds}"
    return (*kept, TraitWarning("more_warnings", message, "mend those that are listed, and look again"))
