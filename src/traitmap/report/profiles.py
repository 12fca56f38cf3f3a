"""What the texts of the datasets look like, as figures: lengths, classes, style, meaning, relations.

Syntactic relations as figures: where they occur, and how gains depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log2

import numpy as np

from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.profiles.datasets import DatasetProfile
from traitmap.analysis.profiles.lengths import Distribution
from traitmap.analysis.profiles.record import Profile
from traitmap.analysis.profiles.relations import RelationEffect
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.plane_charts import likeness
from traitmap.report.records import Shown
from traitmap.report.row_charts import Bar, Line, Ridge, ridges, row_chart, shares_chart
from traitmap.wording import (
    UNKNOWN,
    clean,
    counted,
    interval,
    listed,
    plain,
    probability,
    share,
    signed,
    typeset,
)

MOST_DATASETS = 60
MOST_LABELLED = 16
MOST_LABELS = 6
_PERCENTILES = (5, 25, 50, 75, 95)


def output_lengths(found: Profile) -> Shown | None:
    """Density of output lengths of every source, then of every target's gold answers."""
    rows: list[Ridge] = []
    profiles = found.comparison.profiles
    for heading, role in (
        ("What sources teach", "source"),
        ("What targets ask for", "target"),
        ("", "dataset"),
    ):
        some = [one for one in profiles.values() if found.roles.get(one.name) == role]
        some.sort(key=lambda one: (-_known(one.lengths.output.median), one.name))
        if some and heading:
            rows.append(Ridge(heading, heading=True))
        rows += [_length_row(found, one, role) for one in some[:MOST_DATASETS]]
    drawn = [profile for profile in profiles.values() if profile.lengths.output.n]
    if not drawn:
        return None
    unit = drawn[0].lengths.unit
    medians = sorted((one.lengths.output.median, one.name) for one in drawn)
    low, high = medians[0], medians[-1]
    return Shown(
        name="output-lengths",
        title="Length of outputs",
        said=typeset(
            "How long the outputs are that each source teaches, and that each target asks for: from a "
            f"median of {plain(low[0], 0)} ({name_of(found, low[1])}) to one of {plain(high[0], 0)} "
            f"{unit} ({name_of(found, high[1])}). A source far from a target on this axis teaches it to "
            "say too much or too little."
        ),
        svg=ridges(
            rows,
            key="output-lengths",
            title="Output lengths of every dataset",
            description=f"Density of output lengths of {counted(len(drawn), 'dataset')} on a logarithmic "
            "axis. The same numbers stand in the table.",
            axis=f"{unit} of an output",
            heads=("median", "texts"),
            width=1000,
        ),
        table=_lengths_table([(name_of(found, one.name), one.lengths.output) for one in drawn], unit),
        distrust=(
            f"Lengths are in {unit}"
            + ("; the base counts tokens, and rare words are several" if unit == "words" else "")
            + ". Each ridge is as high as the others: compare places and widths, not heights."
        ),
        key=(("ridge", "density"), ("spread", "5th to 95th percentile"), ("tick", "median")),
        wide=True,
    )


def name_of(found: Profile, dataset: str) -> str:
    """The dataset's name as a reader knows it."""
    return clean(found.tasks.get(dataset, dataset))


def _known(value: float) -> float:
    return value if isfinite(value) else -1.0


def _length_row(found: Profile, one: DatasetProfile, role: str) -> Ridge:
    output = one.lengths.output
    return Ridge(
        label=name_of(found, one.name),
        percentiles=output.percentiles if output.n else None,
        texts=(plain(output.median, 0) if output.n else "unknown", f"{output.n:,}"),
        tone="quiet" if role == "target" else "neutral",
    )


def _lengths_table(some: Sequence[tuple[str, Distribution]], unit: str) -> TextTable:
    return TextTable(
        caption=f"Percentiles of lengths in {unit}, and mean and standard deviation.",
        heads=("dataset", "texts", *(f"{p} %" for p in _PERCENTILES), "mean", "sd"),
        rows=tuple(
            (
                name,
                (
                    Entry(f"{one.n:,}"),
                    *(Entry(plain(float(one.percentiles[p]), 0)) for p in _PERCENTILES),
                    Entry(plain(one.mean)),
                    Entry(plain(one.sd)),
                ),
            )
            for name, one in some
        ),
    )


def label_lengths(found: Profile) -> Shown | None:
    """Density of input lengths of every class of the sources: where classes differ, length betrays them."""
    rows: list[Ridge] = []
    listed_rows: list[tuple[str, Distribution]] = []
    apart: list[tuple[float, str]] = []
    some = [profile for profile in found.comparison.profiles.values() if _labelled(found, profile)]
    for one in some[:MOST_LABELLED]:
        rows.append(Ridge(name_of(found, one.name), heading=True))
        classes = sorted(one.lengths.input_by_label.items(), key=lambda at: (-at[1].n, at[0]))[:MOST_LABELS]
        for label, lengths in classes:
            rows.append(
                Ridge(clean(label), lengths.percentiles, (plain(lengths.median, 0), f"{lengths.n:,}"))
            )
            listed_rows.append((f"{name_of(found, one.name)}: {clean(label)}", lengths))
        medians = [lengths.median for _, lengths in classes if lengths.n > 1]
        if len(medians) > 1 and min(medians) > 0:
            apart.append((max(medians) / min(medians), name_of(found, one.name)))
    if not listed_rows:
        return None
    most = max(apart, default=(1.0, ""))
    unit = some[0].lengths.unit
    return Shown(
        name="label-lengths",
        title="Length of inputs, class by class",
        said=typeset(
            "Where the inputs of one class are longer than those of another, an adapter can learn length "
            "in place of the class. "
            + (
                f"The classes of {most[1]} are furthest apart: the longest median is {most[0]:.1f} times "
                "the shortest."
                if most[1]
                else ""
            )
        ),
        svg=ridges(
            rows,
            key="label-lengths",
            title="Input lengths by class",
            description=f"Density of input lengths of {counted(len(listed_rows), 'class', 'classes')}. The "
            "same numbers stand in the table.",
            axis=f"{unit} of an input",
            heads=("median", "texts"),
            width=530,
        ),
        table=_lengths_table(listed_rows, unit),
        distrust="A class of few texts has a ridge as high as any other: look at the number of texts.",
        key=(("ridge", "density"), ("spread", "5th to 95th percentile"), ("tick", "median")),
    )


def _labelled(found: Profile, one: DatasetProfile) -> bool:
    return (
        found.roles.get(one.name) != "target"
        and sum(d.n > 1 for d in one.lengths.input_by_label.values()) > 1
    )


def class_shares(found: Profile) -> Shown | None:
    """Shares of the classes in every dataset that has some."""
    some = [
        profile
        for profile in found.comparison.profiles.values()
        if profile.classes.how != "none" and profile.classes.counts
    ]
    if not some:
        return None
    some.sort(key=lambda one: (found.roles.get(one.name) == "target", -one.classes.majority, one.name))
    bars = [
        Bar(
            label=name_of(found, one.name) + (" (target)" if found.roles.get(one.name) == "target" else ""),
            parts=tuple((clean(word), value) for word, value in sorted(one.classes.shares.items())),
            text=f"{plain(one.classes.entropy, 2)} bits",
        )
        for one in some[:MOST_DATASETS]
    ]
    sources = [one for one in some if found.roles.get(one.name) != "target"]
    heavy = [source for source in sources if _uneven(source)]
    uneven = [f"{name_of(found, one.name)} ({share(one.classes.majority)} one class)" for one in heavy]
    return Shown(
        name="class-shares",
        title="Classes",
        said=typeset(
            "Shares of the classes in the training texts of each source and in the items of each target. "
            + (
                f"Far from even in {listed(uneven)}: an adapter trained there may answer with the common "
                "class whatever it is asked."
                if heavy
                else "Every source is near even."
            )
        ),
        svg=shares_chart(
            bars,
            key="class-shares",
            title="Shares of classes",
            description=f"{counted(len(bars), 'dataset')} with classes. The same numbers stand in the table.",
        ),
        table=TextTable(
            caption="Share of each class; entropy in bits (0: one class only).",
            heads=("dataset", "texts", "classes", "entropy", "majority", "shares"),
            rows=tuple(
                (
                    bar.label,
                    (
                        Entry(f"{one.classes.labelled:,}"),
                        Entry(plain(one.classes.number, 0)),
                        Entry(plain(one.classes.entropy, 2)),
                        Entry(share(one.classes.majority)),
                        Entry(", ".join(f"{word} {share(value)}" for word, value in bar.parts)),
                    ),
                )
                for bar, one in zip(bars, some, strict=False)
            ),
        ),
        distrust="Where classes come from choices or outputs, not labels, they are read off the texts.",
        wide=True,
    )


def _uneven(one: DatasetProfile) -> bool:
    """Whether the classes hold less than nine tenths of the entropy that even ones would."""
    return one.classes.number > 1 and one.classes.entropy < 0.9 * log2(one.classes.number)


def style(found: Profile) -> Shown | None:
    """Cosine of every two datasets in style."""
    values = found.comparison.encoded_style_cosine
    values = found.comparison.style_cosine if values is None else values
    how = clean(found.comparison.style_encoder) or (
        f"{len(found.comparison.style_names)} numbers of words, marks and sentences, against the mean of all"
    )
    return _alike(
        found,
        values,
        name="style",
        title="Style",
        how=f"Cosine in style ({how})",
        distrust=(
            "Without an encoder, style is told against the mean of these datasets: adding one dataset "
            "moves all. There is no null for a cosine; read blocks, not single cells."
        ),
    )


def meaning(found: Profile) -> Shown | None:
    """Cosine of every two datasets in meaning; a dot where their clouds of texts cannot be told apart."""
    apart = found.comparison.discrepancy
    off = ~np.eye(len(found.comparison.names), dtype=bool)
    even = np.isfinite(apart.p) & (apart.p > 0.05) & off
    return _alike(
        found,
        found.comparison.semantic_cosine,
        name="meaning",
        title="Meaning",
        how="Cosine in meaning of the mean text",
        marked=even,
        extra=(
            f"{int(even.sum()) // 2} of {int((np.isfinite(apart.p) & off).sum()) // 2} pairs cannot be "
            f"told apart by their texts (dots; MMD, p > .05, {apart.permutations} permutations)."
        ),
        distrust=(
            f"Measured by {clean(found.comparison.semantic_kind)}. Words are not meanings: texts that say "
            "the same in other words look apart, unless an encoder of sentences was given."
            if "TF-IDF" in found.comparison.semantic_kind
            else f"Measured by {clean(found.comparison.semantic_kind)}, over {apart.texts} texts of each."
        ),
    )


def _order(values: Array, names: Sequence[str]) -> list[int]:
    """Datasets so that alike ones stand together: from the first on, always the likest of those left."""
    known = np.where(np.isfinite(values), values, -1.0)
    left = sorted(range(len(names)), key=lambda at: names[at])
    if not left:
        return []
    found = [max(left, key=lambda at: (float(known[at].sum()), -at))]
    left.remove(found[0])
    while left:
        near = max(left, key=lambda at: (float(known[found[-3:], at].mean()), -at))
        found.append(near)
        left.remove(near)
    return found


def _alike(
    found: Profile,
    values: Array,
    *,
    name: str,
    title: str,
    how: str,
    distrust: str,
    marked: np.ndarray | None = None,
    extra: str = "",
) -> Shown | None:
    """A square heat map of the datasets, alike ones together."""
    if len(values) < 2 or not np.isfinite(values).any():
        return None
    order = _order(values, found.comparison.names)
    names = [short_name(found, found.comparison.names[at]) for at in order]
    square = np.ix_(order, order)
    shown = values[square]
    best = _nearest(found, values)
    return Shown(
        name=name,
        title=title,
        said=typeset(
            f"{how}; datasets that are alike stand together, and (t) marks the items of a target. "
            f"{best} {extra}".strip()
        ),
        svg=likeness(
            names,
            names,
            shown,
            key=name,
            title=f"{title}: how alike the datasets are",
            description=f"Cosines of {counted(len(names), 'dataset')}. The same numbers stand in the table.",
            marked=None if marked is None else marked[square],
        ),
        table=TextTable(
            caption=f"{how}, -1 to 1." + (" * cannot be told apart." if marked is not None else ""),
            heads=("dataset", *names),
            rows=tuple(
                (
                    label,
                    tuple(
                        Entry(
                            typeset(signed(float(shown[r, c]), 2))
                            + ("*" if marked is not None and marked[square][r, c] else "")
                        )
                        for c in range(len(names))
                    ),
                )
                for r, label in enumerate(names)
            ),
        ),
        distrust=distrust,
        key=(("gp9", "alike"), ("g0", "unrelated"), ("gm9", "opposite"))
        + ((("even", "texts cannot be told apart"),) if marked is not None else ()),
        wide=len(names) > 14,
    )


def short_name(found: Profile, dataset: str) -> str:
    target = found.roles.get(dataset) == "target"
    return name_of(found, dataset) + (" (t)" if target else "")


def _nearest(found: Profile, values: Array) -> str:
    """The likest two datasets of different tasks, in words."""
    names = found.comparison.names
    made = variations_of(found.matrix) if found.matrix is not None else {}
    best: tuple[float, str, str] | None = None
    for r, row in enumerate(names):
        for c in range(r):
            value = float(values[r, c])
            tasks = (found.tasks.get(row, row), found.tasks.get(names[c], names[c]))
            same = tasks[0] == tasks[1] or bool(made.keys() & set(tasks))
            if isfinite(value) and not same and (best is None or value > best[0]):
                best = (value, names[c], row)
    if best is None:
        return ""
    return (
        f"Of different tasks, {short_name(found, best[1])} and {short_name(found, best[2])} are likest "
        f"({signed(best[0], 2)})."
    )


MOST = 14


def relations(found: Profile, most: int = 16) -> Shown | None:
    """Share of texts that have each syntactic relation, where a parser was given."""
    some = found.relations
    if not some:
        return None
    labels = sorted({label for one in some.values() for label in one.labels})
    table = np.full((len(some), len(labels)), np.nan)
    for r, one in enumerate(some.values()):
        for c, label in enumerate(labels):
            if len(one.texts):
                has = label in one.labels
                table[r, c] = one.present[:, one.labels.index(label)].mean() if has else 0.0
    spread = np.nanstd(table, axis=0)
    keep = sorted(sorted(range(len(labels)), key=lambda c: (-spread[c], labels[c]))[:most])
    names = [short_name(found, name) for name in some]
    shown, kept = table[:, keep], [labels[c] for c in keep]
    first = next(iter(some.values()))
    return Shown(
        name="relations",
        title="Syntactic relations",
        said=typeset(
            f"Share of parsed texts that have each relation ({clean(first.scheme)}), those that differ "
            f"most between datasets: most of all {clean(labels[int(np.argmax(spread))])}."
        ),
        svg=likeness(
            names,
            kept,
            shown,
            key="relations",
            title="Syntactic relations in the datasets",
            description=f"{counted(len(names), 'dataset')} and {counted(len(kept), 'relation')}. The same "
            "numbers stand in the table.",
            limit=None,
            percent=True,
        ),
        table=TextTable(
            caption=f"Share of parsed texts with each relation ({clean(first.parser)}).",
            heads=("dataset", *map(clean, kept)),
            rows=tuple(
                (name, tuple(Entry(share(float(value)) if isfinite(value) else UNKNOWN) for value in row))
                for name, row in zip(names, shown, strict=True)
            ),
        ),
        distrust="A parser errs, most of all on code, numbers and chat; shares are of its reading.",
        wide=True,
    )


def relation_effects(found: Profile) -> Shown | None:
    """Cells whose gain differs between items with a relation and items without it."""
    if found.effects is None or not found.effects.tested:
        return None
    findings, tested = found.effects.findings, found.effects.tested
    some = findings or tuple(sorted(tested, key=lambda one: (one.p, one.source, one.target, one.relation)))
    lines = [_effect_line(one) for one in some[:MOST]]
    said = f"Gain on items that have a relation less gain on items that do not. {len(findings) or 'None'} of "
    said += f"{counted(len(tested), 'test')} stands after correction and among items of one length and class"
    said += "." if findings else ": the clearest are shown, and can all be chance."
    return Shown(
        name="relation-effects",
        title="Gains that depend on relations",
        said=typeset(said),
        svg=row_chart(
            lines,
            key="relation-effects",
            title="Gains with a relation less gains without it",
            description=f"{counted(len(lines), 'relation in a cell', 'relations in cells')} with 95 % "
            "interval. The "
            "same numbers stand in the table.",
            heads=("difference", "items", "q"),
            axis="gain with the relation less gain without it, in the unit of the score",
            width=1000,
        ),
        table=_effects_table(some),
        distrust="An item that has a rare relation is rare in other ways too; few items have long intervals.",
        key=(("dot-solid", "stands after correction"), ("dot-open", "does not")),
        tag="" if findings else "none beyond noise",
        wide=True,
    )


def _effect_line(one: RelationEffect) -> Line:
    return Line(
        label=f"{clean(one.relation)}: {clean(one.source)} → {clean(one.target)}",
        value=one.difference.value,
        low=one.difference.low,
        high=one.difference.high,
        texts=(_amount(one.difference), str(one.n_with), probability(one.q)),
        tone="neutral" if one.significant else "quiet",
        solid=one.significant,
    )


def _effects_table(some: Sequence[RelationEffect]) -> TextTable:
    return TextTable(
        caption="Gain with the relation less gain without it; odds of won to lost items; 95 % intervals.",
        heads=("relation", "source", "target", "items with", "without", "difference", "odds ratio", "p", "q"),
        rows=tuple(
            (
                clean(one.relation),
                (
                    Entry(clean(one.source)),
                    Entry(clean(one.target)),
                    Entry(str(one.n_with)),
                    Entry(str(one.n_without)),
                    Entry(typeset(_amount(one.difference))),
                    Entry(_ratio(one.odds_ratio)),
                    Entry(probability(one.p)),
                    Entry(probability(one.q)),
                ),
            )
            for one in some
        ),
    )


def _amount(one: Interval) -> str:
    if not one.known:
        return "unknown"
    ends = interval(one.low, one.high, 2)
    return signed(one.value, 2) + ("" if ends == UNKNOWN else f" {ends}")


def _ratio(one: Interval) -> str:
    return f"{one.value:.2g} [{one.low:.2g}, {one.high:.2g}]" if one.known else UNKNOWN
