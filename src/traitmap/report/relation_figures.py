"""Syntactic relations as figures: where they occur, and how gains depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from traitmap.analysis.interval import Interval
from traitmap.analysis.profiles.record import Profile
from traitmap.analysis.profiles.syntax_records import RelationEffect
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.likeness import likeness
from traitmap.report.profile_figures import short_name
from traitmap.report.row_chart import Line, row_chart
from traitmap.report.shown import Shown
from traitmap.report.svg import clean
from traitmap.report.wording import UNKNOWN, counted, interval, probability, share, signed, typeset

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
