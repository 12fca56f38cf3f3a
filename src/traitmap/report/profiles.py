"""What the texts of the datasets look like, as figures: lengths, classes, style, wording and syntax.

Every function returns None where its part of the profile is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.profiles.classes import Classes
from traitmap.analysis.profiles.datasets import alike_order, likest_pair
from traitmap.analysis.profiles.lengths import Distribution
from traitmap.analysis.profiles.record import Profile
from traitmap.analysis.profiles.semantics import MMD_TEXTS, WORDING
from traitmap.matrix.record import Array
from traitmap.report.chart import STEPS, value_class
from traitmap.report.plane_charts import likeness
from traitmap.report.records import Shown
from traitmap.report.row_charts import ChartRow, estimate_row, part_key, row_chart
from traitmap.table import Table
from traitmap.wording import (
    UNKNOWN,
    clean,
    counted,
    estimate,
    listed,
    none_of,
    plain,
    probability,
    share,
    signed,
)

MOST_DATASETS = 60
MOST_LABELLED = 16
MOST_LABELS = 6
MOST_EFFECTS = 14
APART = 1.2  # times the shortest median that the longest is, where classes differ enough to be drawn
_PERCENTILES = (5, 25, 50, 75, 95)
_DENSITY = (("ridge", "density"), ("spread", "5th to 95th percentile"), ("tick", "median"))


def name_of(profile: Profile, dataset: str, *, short: bool = False) -> str:
    """The dataset's name as a reader knows it; ``(t)`` marks the items of a target where it is short."""
    mark = " (t)" if short and profile.roles.get(dataset) == "target" else ""
    return clean(profile.tasks.get(dataset, dataset)) + mark


def output_lengths(profile: Profile) -> Shown | None:
    """Density of output lengths of every source, then of every target's gold answers.

    On a logarithmic axis, in tokens of the base where they are known, else in words.
    """
    lengths = {name: dataset.lengths for name, dataset in profile.comparison.profiles.items()}
    drawn = {name: one.output for name, one in lengths.items() if one.output.n}
    if not drawn:
        return None
    medians = {name: np.nan_to_num(one.output.median, nan=-1.0) for name, one in lengths.items()}
    order = sorted(lengths, key=lambda name: (-medians[name], name))
    rows: list[ChartRow] = []
    even: list[str] = []
    for heading, role in (
        ("What sources teach", "source"),
        ("What targets ask for", "target"),
        ("", "dataset"),
    ):
        group = [
            (name_of(profile, name), lengths[name].output)
            for name in order
            if profile.roles.get(name) == role
        ]
        tone = "quiet" if role == "target" else "neutral"
        even += [label for label, output in group if _is_one_length(output)]
        group = [(label, output) for label, output in group if not _is_one_length(output)]
        if group and heading:
            rows.append(ChartRow(heading, heading=True))
        rows += [_length_row(label, output, tone) for label, output in group[:MOST_DATASETS]]
    unit = next(lengths[name].unit for name in drawn)
    by_median = sorted(drawn, key=lambda name: (drawn[name].median, name))
    shortest, longest = by_median[0], by_median[-1]
    tokens = "; the base counts tokens, and rare words are several" if unit == "words" else ""
    return Shown(
        name="output-lengths",
        title="Length of outputs",
        description=(
            "How long the outputs are that each source teaches, and that each target asks for: from a "
            f"median of {plain(drawn[shortest].median, 0)} ({name_of(profile, shortest)}) to one of "
            f"{plain(drawn[longest].median, 0)} {unit} ({name_of(profile, longest)}). A source far from a "
            "target on this axis teaches it to say too much or too little."
            + (f" Not drawn: {counted(len(even), 'dataset')} of outputs of one length." if even else "")
        ),
        nothing="" if rows else f"the outputs of each of {counted(len(even), 'dataset')} have one length",
        chart=row_chart(
            rows,
            "Output lengths of every dataset",
            f"Density of output lengths of {counted(len(drawn), 'dataset')} on a logarithmic axis.",
            axis=f"{unit} of an output",
            heads=("median", "texts"),
        ),
        table=_lengths_table([(name_of(profile, name), output) for name, output in drawn.items()], unit),
        caveat=(
            f"Lengths are in {unit}{tokens}. Each ridge is as high as the others: compare places and widths, "
            "not heights."
        ),
        key=_DENSITY,
        wide=True,
        aside=True,
    )


def _length_row(label: str, lengths: Distribution, tone: str = "neutral") -> ChartRow:
    known = bool(lengths.n) and bool(np.isfinite(lengths.percentiles).all())
    return ChartRow(
        label,
        percentiles=lengths.percentiles if known else None,
        texts=(plain(lengths.median, 0) if lengths.n else "unknown", f"{lengths.n:,}"),
        tone=tone,
    )


def _is_one_length(lengths: Distribution) -> bool:
    """Whether nine in ten texts are equally long, so that there is no distribution to draw."""
    return bool(lengths.n) and bool(lengths.percentiles[5] == lengths.percentiles[95])


def _lengths_table(rows: Sequence[tuple[str, Distribution]], unit: str) -> Table:
    return Table(
        f"Percentiles of lengths in {unit}, and mean and standard deviation.",
        ("dataset", "texts", *(f"{percent} %" for percent in _PERCENTILES), "mean", "sd"),
        [
            (
                name,
                f"{lengths.n:,}",
                *(plain(float(lengths.percentiles[percent]), 0) for percent in _PERCENTILES),
                plain(lengths.mean),
                plain(lengths.sd),
            )
            for name, lengths in rows
        ],
    )


def label_lengths(profile: Profile) -> Shown | None:
    """Density of input lengths of every class of the sources: where classes differ, length betrays them.

    Of the first ``MOST_LABELLED`` sources with two classes or more, the ``MOST_LABELS`` commonest classes.
    """
    rows: list[ChartRow] = []
    known: list[tuple[str, Distribution]] = []
    ratio, furthest, drawn = 1.0, "", 0
    labelled = [
        (name_of(profile, name), dataset.lengths)
        for name, dataset in profile.comparison.profiles.items()
        if profile.roles.get(name) != "target"
        and sum(lengths.n > 1 for lengths in dataset.lengths.input_by_label.values()) > 1
    ]
    for name, dataset in labelled[:MOST_LABELLED]:
        classes = sorted(dataset.input_by_label.items(), key=lambda at: (-at[1].n, at[0]))[:MOST_LABELS]
        known += [(f"{name}: {clean(label)}", lengths) for label, lengths in classes]
        medians = [lengths.median for _, lengths in classes if lengths.n > 1]
        times = max(medians) / min(medians) if len(medians) > 1 and min(medians) > 0 else 1.0
        ratio, furthest = max((ratio, furthest), (times, name))
        if times >= APART:
            rows.append(ChartRow(name, heading=True))
            rows += [_length_row(clean(label), lengths) for label, lengths in classes]
            drawn += 1
    if not known:
        return None
    text = "Where the inputs of one class are longer than those of another, an adapter can learn length in "
    text += "place of the class. "
    if furthest:
        text += (
            f"The classes of {furthest} are furthest apart: the longest median is {plain(ratio)} times the "
        )
        text += "shortest."
    if 0 < drawn < len(labelled):
        text += f" Not drawn: {counted(len(labelled) - drawn, 'source')} whose classes are nearly as long."
    unit = labelled[0][1].unit
    return Shown(
        name="label-lengths",
        title="Length of inputs, class by class",
        description=text,
        chart=row_chart(
            rows,
            "Input lengths by class",
            f"Density of input lengths of {counted(len(known), 'class', 'classes')}.",
            axis=f"{unit} of an input",
            heads=("median", "texts"),
        ),
        nothing="" if rows else f"the classes of {counted(len(labelled), 'source')} are nearly as long",
        table=_lengths_table(known, unit),
        caveat="A class of few texts has a ridge as high as any other: look at the number of texts.",
        wide=True,
        key=_DENSITY,
        aside=True,
    )


def class_shares(profile: Profile) -> Shown | None:
    """Shares of the classes in every dataset that has some.

    Sources first, the most uneven ones on top. At most ``MOST_DATASETS`` are drawn and listed.
    """
    known = [
        (profile.roles.get(name) == "target", name_of(profile, name), dataset.classes)
        for name, dataset in profile.comparison.profiles.items()
        if dataset.classes.how != "none" and dataset.classes.counts
    ]
    if not known:
        return None
    known.sort(key=lambda one: (one[0], -one[2].majority, one[1]))
    rows, table = [], []
    for target, name, classes in known[:MOST_DATASETS]:
        label = name + (" (target)" if target else "")
        parts = tuple((clean(word), value) for word, value in sorted(classes.shares.items()))
        if classes.uneven:
            rows.append(ChartRow(label, parts=parts, texts=(f"{plain(classes.entropy, 2)} bits",)))
        table.append(
            (
                label,
                f"{classes.labelled:,}",
                plain(classes.number, 0),
                plain(classes.entropy, 2),
                share(classes.majority),
                ", ".join(f"{word} {share(value)}" for word, value in parts),
            )
        )
    return Shown(
        name="class-shares",
        title="Classes",
        description=_class_shares_description(known),
        chart=row_chart(
            rows,
            "Shares of classes",
            f"{counted(len(rows), 'dataset')} with classes.",
            heads=("entropy",),
            axis="share of texts",
            unit=" %",
            ends=(0.0, 100.0),
        ),
        nothing="" if rows else f"the classes of {counted(len(known), 'dataset')} are near even",
        table=Table(
            "Share of each class; entropy in bits (0: one class only).",
            ("dataset", "texts", "classes", "entropy", "majority", "shares"),
            table,
        ),
        caveat="Where classes come from choices or outputs, not labels, they are read off the texts.",
        key=part_key(rows),
        wide=True,
        aside=True,
    )


def _class_shares_description(known: Sequence[tuple[bool, str, Classes]]) -> str:
    """Which sources have far more of one class. known: whether it is a target, its name, its classes."""
    uneven = [
        f"{name} ({share(classes.majority)} one class)"
        for target, name, classes in known
        if not target and classes.uneven
    ]
    text = "Shares of the classes in the training texts of each source and in the items of each target. "
    text += (
        f"Far from even in {listed(uneven)}: an adapter trained there may answer with the common class "
        "whatever it is asked."
        if uneven
        else "Every source is near even."
    )
    even = sum(not classes.uneven for *_, classes in known)
    if 0 < even < len(known):
        text += f" Not drawn: {counted(even, 'dataset')} with classes that are near even."
    return text


def style(profile: Profile) -> Shown | None:
    """Cosine of every two datasets in style.

    Of a style encoder where one was given, else of counted features against the mean of the datasets.
    """
    comparison = profile.comparison
    how = clean(comparison.style_encoder) or (
        f"{len(comparison.style_names)} numbers of words, marks and sentences, against the mean of all"
    )
    encoded = comparison.encoded_style_cosine
    return _alike(
        profile,
        comparison.style_cosine if encoded is None else encoded,
        name="style",
        title="Style",
        how=f"Cosine in style ({how})",
        caveat=(
            "Without an encoder, style is told against the mean of these datasets: adding one dataset moves "
            "all. There is no null for a cosine; read blocks, not single cells."
        ),
    )


def meaning(profile: Profile) -> Shown | None:
    """Cosine of every two datasets in meaning; a dot where their clouds of texts cannot be told apart.

    A dot stands where the test of discrepancy has p > .05. Without an encoder of sentences words were
    weighed (TF-IDF), and the figure is named wording.
    """
    comparison = profile.comparison
    kind, p = clean(comparison.semantic_kind), comparison.mmd_p
    tested = np.isfinite(p) & ~np.eye(len(comparison.names), dtype=bool)
    even = tested & (p > 0.05)
    what = comparison.content_word
    return _alike(
        profile,
        comparison.semantic_cosine,
        name=what,
        title=what.capitalize(),
        how=f"Cosine in {what} of the mean text",
        marked=even,
        note=(
            f"{int(even.sum()) // 2} of {int(tested.sum()) // 2} pairs cannot be told apart by their texts "
            f"(dots; MMD, p > .05, {comparison.conditions['permutations']} permutations)."
        ),
        caveat=(
            f"Measured by {kind}: texts that say the same in other words look apart."
            if what == WORDING
            else f"Measured by {kind}, over {MMD_TEXTS} texts of each."
        ),
    )


def _alike(
    profile: Profile,
    cosines: Array,
    *,
    name: str,
    title: str,
    how: str,
    caveat: str,
    marked: NDArray[np.bool_] | None = None,
    note: str = "",
) -> Shown | None:
    """A square heat map of the datasets, alike ones together."""
    if len(cosines) < 2 or not np.isfinite(cosines).any():
        return None
    datasets = profile.comparison.names
    order = alike_order(cosines)
    names = [name_of(profile, datasets[at], short=True) for at in order]
    square = np.ix_(order, order)
    shown, dots = cosines[square], None if marked is None else marked[square]
    text = f"{how}; datasets that are alike stand together, and (t) marks the items of a target. "
    made = variations_of(profile.matrix) if profile.matrix is not None else {}
    tasks = [profile.tasks.get(dataset, dataset) for dataset in datasets]
    if likest := likest_pair(cosines, [None if task in made else task for task in tasks]):
        first, second = (name_of(profile, datasets[at], short=True) for at in likest)
        text += (
            f"Of different tasks, {first} and {second} are most alike ({signed(float(cosines[likest]), 2)}). "
        )
    return Shown(
        name=name,
        title=title,
        description=(text + note).strip(),
        chart=likeness(
            names,
            names,
            shown,
            f"{title}: how alike the datasets are",
            f"Cosines of {counted(len(names), 'dataset')}.",
            marked=dots,
        ),
        table=Table(
            f"{how}, -1 to 1." + (" * cannot be told apart." if dots is not None else ""),
            ("dataset", *names),
            [
                (
                    label,
                    *(
                        signed(float(shown[r, c]), 2) + ("*" if dots is not None and dots[r, c] else "")
                        for c in range(len(names))
                    ),
                )
                for r, label in enumerate(names)
            ],
        ),
        caveat=caveat,
        key=(
            ("box gp9", "alike"),
            ("box g0", "unrelated"),
            ("box gm9", "opposite"),
            *((("even", "texts cannot be told apart"),) if dots is not None else ()),
        ),
        wide=len(names) > 14,
        aside=True,
    )


def relations(profile: Profile, most: int = 16) -> Shown | None:
    """Share of texts that have each syntactic relation, where a parser was given.

    most: relations that are drawn, those whose shares differ most between the datasets.
    """
    parsed = list(profile.relations.values())
    if not parsed:
        return None
    labels = sorted({label for one in parsed for label in one.labels})
    shares = np.array([one.shares(labels) for one in parsed])
    spread = np.nanstd(shares, axis=0)
    columns = sorted(sorted(range(len(labels)), key=lambda c: (-spread[c], labels[c]))[:most])
    names = [name_of(profile, dataset, short=True) for dataset in profile.relations]
    heads = [labels[c] for c in columns]
    return Shown(
        name="relations",
        title="Syntactic relations",
        description=(
            f"Share of parsed texts that have each relation ({clean(parsed[0].scheme)}), those that differ "
            f"most between datasets: most of all {clean(labels[int(np.argmax(spread))])}."
        ),
        chart=likeness(
            names,
            heads,
            shares[:, columns],
            "Syntactic relations in the datasets",
            f"{counted(len(names), 'dataset')} and {counted(len(heads), 'relation')}.",
            limit=None,
            percent=True,
        ),
        key=(("ramp " + " ".join(value_class(at) for at in range(STEPS + 1)), "0 to 100 % of texts"),),
        table=Table(
            f"Share of parsed texts with each relation ({clean(parsed[0].parser)}).",
            ("dataset", *heads),
            [
                (name, *(share(float(row[c])) for c in columns))
                for name, row in zip(names, shares, strict=True)
            ],
        ),
        caveat="A parser errs, most of all on code, numbers and chat; shares are of its reading.",
        wide=True,
        aside=True,
    )


def relation_effects(profile: Profile) -> Shown | None:
    """Cells whose gain differs between items with a relation and items without it.

    Those that stand after correction; where none does, the clearest, and the tag says so.
    """
    if profile.effects is None or not profile.effects.tested:
        return None
    findings, tested = profile.effects.findings, profile.effects.tested
    effects = findings or tuple(
        sorted(tested, key=lambda effect: (effect.p, effect.source, effect.target, effect.relation))
    )
    text = f"Gain on items that have a relation less gain on items that do not. {len(findings) or 'None'} of "
    text += f"{counted(len(tested), 'test')} stands after correction and among items of one length and class"
    text += "." if findings else ": the clearest are shown, and can all be chance."
    return Shown(
        name="relation-effects",
        title="Gains that depend on relations",
        description=text,
        chart=row_chart(
            [
                estimate_row(
                    f"{clean(effect.relation)}: {clean(effect.source)} → {clean(effect.target)}",
                    effect.difference,
                    estimate(effect.difference, 2),
                    str(effect.n_with),
                    probability(effect.q),
                    clear=effect.significant,
                )
                for effect in effects[:MOST_EFFECTS]
            ],
            "Gains with a relation less gains without it",
            f"{counted(min(len(effects), MOST_EFFECTS), 'relation in a cell', 'relations in cells')} with 95 "
            "% interval.",
            heads=("difference", "items", "q"),
            axis="gain with the relation less gain without it, in the unit of the score",
        ),
        table=Table(
            "Gain with the relation less gain without it; odds of won to lost items; 95 % intervals.",
            ("relation", "source", "target", "items with", "without", "difference", "odds ratio", "p", "q"),
            [
                (
                    effect.relation,
                    effect.source,
                    effect.target,
                    str(effect.n_with),
                    str(effect.n_without),
                    estimate(effect.difference, 2),
                    f"{odds.value:.2g} [{odds.low:.2g}, {odds.high:.2g}]" if odds.known else UNKNOWN,
                    probability(effect.p),
                    probability(effect.q),
                )
                for effect in effects
                for odds in (effect.odds_ratio,)
            ],
        ),
        caveat="An item that has a rare relation is rare in other ways too; few items have long intervals.",
        key=(("dot-solid", "stands after correction"), ("dot-open", "does not")),
        nothing="" if findings else f"{none_of(len(tested), 'test')} stands after correction",
        wide=True,
        aside=True,
    )
