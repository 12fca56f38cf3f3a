"""A study whose cells may end early: items are asked look by look, and what that saves is kept and told.

Each look is an ordinary run of some items of each target, which a kill interrupts like any other. What is
decided after it follows from the first so many items of each cell alone, in an order that the study's
``sample_seed`` draws: a run that is started again decides the same and finds the work done, and one that is
to be more precise asks only further items. When a cell may end is the subject of ``matrix.sequential``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from traitmap import metrics
from traitmap.api.runs import keep_item_groups
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.assisted import Anchors, anchors_of, still_items
from traitmap.matrix.build import build_matrix
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.sequential import SHARE, Rule, look_counts, order_of_items, settled
from traitmap.matrix.statistics import numbered_groups
from traitmap.progress import Listener
from traitmap.runs.cost import ASSUMED, request_tokens
from traitmap.runs.execute import execute
from traitmap.runs.ledger import CellEntry, Parts, Selection, read_ledger, read_parts, write_parts
from traitmap.runs.plan import CellUnit, Plan, make_plan
from traitmap.runs.run_state import PassCheckpoints
from traitmap.runs.store import RunStore, locked_store
from traitmap.study.paths import digest
from traitmap.study.rules import ENDING
from traitmap.study.settings import BASELINE, Study
from traitmap.wording import counted, listed, share

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine

ALL_ENDED = "all its cells have ended"


@dataclass(frozen=True)
class Asked:
    """What was asked of a study whose cells may end early, of what asking everything would have been.

    rules: target -> precision, decide and ask, as the study has them. looks: target -> items asked at each
    look. ended: reason -> cells (of a source and a target, all seeds) that ended early for it. cells: (ended
    early, of those that had a rule). items, tokens: (asked, of all), of base and adapters, whatever run asked
    them. anchors: sources that are asked every item beside the base and help to estimate the gains of others;
    None where each cell speaks of its own items. still: target -> items that base and anchors answer alike.
    """

    rules: Mapping[str, Mapping[str, Any]]
    looks: Mapping[str, tuple[int, ...]]
    ended: Mapping[str, int]
    cells: tuple[int, int]
    items: tuple[int, int]
    tokens: tuple[float, float]
    anchors: tuple[str, ...] | None = None
    still: Mapping[str, int] = field(default_factory=dict)

    __repr__ = outline

    @property
    def lines(self) -> tuple[str, ...]:
        """The same for a reader, a line each."""
        why = listed([f"{count:,} ({reason})" for reason, count in self.ended.items()], len(self.ended))
        items, tokens = self.items, self.tokens
        return (
            f"asked: {items[0]:,} of {items[1]:,} items ({share(items[0] / max(items[1], 1))}), "
            f"{tokens[0]:,.0f} of {tokens[1]:,.0f} tokens ({share(tokens[0] / max(tokens[1], 1.0))}).",
            f"  {self.cells[0]:,} of {counted(self.cells[1], 'cell')} ended early"
            + (f": {why}." if why else "; the others were asked all items."),
            *self._of_anchors(),
        )

    def _of_anchors(self) -> tuple[str, ...]:
        if self.anchors is None:
            return ()
        rows = listed(["the base", *self.anchors], 6)
        alike = listed([f"{count:,} on {name}" for name, count in self.still.items()], 4)
        return (
            f"  {rows} {'were' if self.anchors else 'was'} asked every item; gains of the others on all "
            "items are estimated with their help.",
            *([f"  items that these answered alike, asked of the others as any: {alike}."] if alike else []),
        )


def ends_early(target: LoadedTarget) -> bool:
    """Whether cells of a target may end before all its items are asked."""
    rule = rule_of(target)
    return rule != Rule() and not target.refused and look_counts(target.n_items, rule)[0] < target.n_items


def rule_of(target: LoadedTarget, factor: float = 1.0) -> Rule:
    """When its cells end. factor: from the scores to the unit of the precision, 100 for points."""
    if target.decide == "all":
        return Rule()
    precision = None if target.precision is None else target.precision / factor
    return Rule(precision, target.decide, target.ask)


def before_asking(plan: Plan, targets: Sequence[LoadedTarget], anchors: int | None = None) -> tuple[str, ...]:
    """What the rules of a study may cost at least and at most, a line for ``check`` and ``run``.

    anchors: sources that are asked every item beside the base, as the study has it.
    """
    early = {target.name: target for target in targets if ends_early(target)}
    if not early:
        return ()
    sizes = {target.name: target.n_items for target in targets}
    whole = set() if anchors is None else {BASELINE, *_rows(plan)[:anchors]}
    least = most = 0
    for unit in plan.cells:
        size = sizes[unit.target]
        looks = (
            look_counts(size, rule_of(early[unit.target]))
            if unit.target in early and unit.source not in whole
            else (size,)
        )
        least, most = least + looks[0], most + looks[-1]
    rules = Counter(_rule_in_words(target) for target in early.values())
    words = listed([f"{rule} ({counted(count, 'target')})" for rule, count in rules.items()])
    return (
        f"cells end early by {words}: "
        + (f"between {least:,} and {most:,}" if least < most else f"{least:,}")
        + " items are asked in all; figures of cost are those of all items, the most it can be.",
        *([_anchors_in_words(_rows(plan)[:anchors])] if anchors is not None else []),
        *(
            f"the precision of {target.name} is in {target.metric}, its own unit, and not in points."
            for target in early.values()
            if target.precision is not None and not metrics.metric(target.metric).may_be_share
        ),
    )


def _rule_in_words(target: LoadedTarget) -> str:
    precision = None if target.precision is None else f"precision {target.precision:g}"
    share_of = None if target.ask is None else f"ask {target.ask:g}"
    return " or ".join(filter(None, (precision, target.decide and f"decide {target.decide}", share_of)))


def _anchors_in_words(names: Sequence[str]) -> str:
    return (
        f"anchors: {listed(['the base', *names], 6)}, asked every item; the gains of the others on all items "
        "are estimated with their help."
    )


def _rows(plan: Plan) -> list[str]:
    """The sources of a plan, in the study's order."""
    return [name for name in dict.fromkeys(unit.source for unit in plan.cells) if name != BASELINE]


def run_in_looks(
    study: Study,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener,
    *,
    group_size: int | None = None,
    checkpoints: PassCheckpoints | None = None,
) -> tuple[RunStore, Asked]:
    """Train what is to be trained, and ask items look by look until every cell has ended.

    Targets without a rule are asked whole at first, and so are base and anchors where the study has some.
    Settings as for ``execute``; whose answer the store is. What was saved is kept in the run's list of
    partial cells (``Parts.asking``).
    """
    plan = make_plan(study=study, sources=sources, targets=targets, base_digest=engine.base_digest)
    campaign = _Asking(study, plan, sources, {target.name: target for target in targets})
    trained = frozenset((unit.source, unit.seed) for unit in plan.adapters)
    number = 0
    while selection := campaign.selection(number, trained):
        store = execute(
            study,
            engine,
            sources,
            targets,
            listener,
            group_size=group_size,
            selection=selection,
            checkpoints=checkpoints,
        )
        if number == 0:
            keep_item_groups(store.folder, targets)
        campaign.look(number, store)
        number += 1
    asked = campaign.asked(store, engine)
    _keep(store, campaign, asked)
    return store, asked


class _Asking:
    """A run in looks: who is still asked about what, and why others are not."""

    def __init__(
        self,
        study: Study,
        plan: Plan,
        sources: Sequence[LoadedSource],
        targets: Mapping[str, LoadedTarget],
    ) -> None:
        self.plan, self.targets = plan, targets
        self.looks = {
            name: look_counts(target.n_items, rule_of(target)) if ends_early(target) else (target.n_items,)
            for name, target in targets.items()
        }
        self.order = {
            name: tuple(order_of_items(target.n_items, _seed(study, target)).tolist())
            for name, target in targets.items()
            if ends_early(target)
        }
        self.rows: dict[str, list[int | None]] = {}
        for unit in plan.cells:
            seeds = self.rows.setdefault(unit.source, [])
            if unit.seed not in seeds:
                seeds.append(unit.seed)
        names = _rows(plan)
        self.anchors = None if study.anchors is None else tuple(names[: study.anchors])
        self.whole = () if self.anchors is None else (BASELINE, *self.anchors)
        self.active = {
            name: [row for row in names if name not in self.order or row not in self.whole]
            for name in targets
        }
        self.reasons: dict[tuple[str, str], str] = {}
        self.made_from = {
            source.name: tuple(source.variation.parents) if source.variation else () for source in sources
        }

    def selection(self, number: int, trained: frozenset[tuple[str, int]]) -> Selection | None:
        """What is done before look ``number`` (from 0); with anchors these are asked first, alone.

        None where nothing is to be asked any more.
        """
        cells: list[CellUnit] = []
        items: dict[str, tuple[int, ...]] = {}
        for name, counts in self.looks.items():
            at = self._look(name, number)
            if at >= len(counts) or (number and not self.active[name]):
                continue
            rows = self.whole if at < 0 else tuple(self.active[name])
            if not self._anchored(name):
                rows = (BASELINE, *rows)
            cells += [CellUnit(source, seed, name) for source in rows for seed in self.rows[source]]
            if at >= 0 and counts[at] < self.targets[name].n_items:
                items[name] = self.order[name][: counts[at]]
        if not cells:
            return None
        order = {unit: at for at, unit in enumerate(self.plan.cells)}
        return Selection(trained, tuple(sorted(cells, key=order.__getitem__)), items, self.asking())

    def _anchored(self, name: str) -> bool:
        """Whether gains on a target are estimated with the help of anchors."""
        return self.anchors is not None and name in self.order

    def _look(self, name: str, number: int) -> int:
        """Which look at a target is due; -1 where its anchors are."""
        return number - 1 if self._anchored(name) else number

    def look(self, number: int, store: RunStore) -> None:
        """Decide, from the items of this look alone, which cells end."""
        due = {
            name: counts[at]
            for name, counts in self.looks.items()
            if self.active[name]
            and 0 <= (at := self._look(name, number)) < len(counts)
            and counts[at] < self.targets[name].n_items
        }
        if not due:
            return
        held = _held(store)
        matrix = build_matrix(store)
        for name, count in due.items():
            self.active[name] = [
                source
                for source in self.active[name]
                if all(held.get(CellUnit(source, seed, name), 0) >= count for seed in self.rows[source])
            ]
            ended = self._ended(matrix, name, count)
            if count == self.looks[name][-1]:
                ended = dict.fromkeys(self.active[name], SHARE) | ended
            for source, reason in ended.items():
                self.reasons[source, name] = reason
                self.active[name].remove(source)

    def _ended(self, matrix: TransferMatrix, name: str, count: int) -> dict[str, str]:
        if name not in matrix.item_scores:
            return {}
        first = np.array(self.order[name][:count])
        scores, target = matrix.item_scores[name][:, :, first], self.targets[name]
        groups = matrix.item_groups.get(name)
        known = scores[np.isfinite(scores)]
        points = metrics.metric(target.metric).may_be_share and bool(((known >= 0) & (known <= 1)).all())
        place = {source: at for at, source in enumerate(matrix.sources)}
        ended = settled(
            scores,
            rule_of(target, 100.0 if points else 1.0),
            self.looks[name],
            active=[place[source] for source in (*self.whole[1:], *self.active[name])],
            rivals=[
                at
                for source, at in place.items()
                if source != name and name not in self.made_from.get(source, ())
            ],
            better=1 if target.higher_is_better else -1,
            groups=None if groups is None else numbered_groups(groups[first]),
            anchors=self._known(matrix, name, first),
        )
        reasons = {matrix.sources[at]: reason for at, reason in ended.items()}
        return {source: reason for source, reason in reasons.items() if source in self.active[name]}

    def _known(self, matrix: TransferMatrix, name: str, items: NDArray[np.int64]) -> Anchors | None:
        if self.anchors is None or name not in matrix.item_scores:
            return None
        rows = [matrix.sources.index(source) for source in self.anchors]
        return anchors_of(matrix.item_scores[name], rows, items, matrix.item_groups.get(name))

    def asking(self, asked: Asked | None = None) -> dict[str, Any]:
        """What the run keeps of it, as JSON data: rules and looks, and at the end what was asked."""
        early = {name: self.targets[name] for name in self.order}
        rules = {
            name: {key: getattr(target, key) for key in ENDING if getattr(target, key) is not None}
            for name, target in early.items()
        }
        looks = {name: list(self.looks[name]) for name in early}
        anchors = {} if self.anchors is None else {"anchors": list(self.anchors)}
        return dict(jsonable(asked)) if asked else {"rules": rules, "looks": looks, **anchors}

    def _still(self, store: RunStore) -> dict[str, int]:
        """Target -> items that base and anchors answer alike; none where only the base is asked all."""
        if not self.anchors:
            return {}
        matrix = build_matrix(store)
        known = {name: self._known(matrix, name, np.zeros(0, dtype=np.int64)) for name in self.order}
        return {name: still_items(anchors.known) for name, anchors in known.items() if anchors is not None}

    def asked(self, store: RunStore, engine: Engine) -> Asked:
        """What was asked, by what the run holds; cells that failed count on neither side."""
        held, asking = _held(store), self.asking()
        items, tokens = np.zeros(2, dtype=int), np.zeros(2)
        price: dict[tuple[str, int], float] = {}
        for unit in self.plan.cells:
            target, count = self.targets[unit.target], held.get(unit, 0)
            for size in {count, target.n_items} - {0}:
                if (unit.target, size) not in price:
                    part = (
                        target.part(sorted(self.order[unit.target][:size]))
                        if size < target.n_items
                        else target
                    )
                    price[unit.target, size] = sum(
                        request_tokens(part.requests, engine.token_counts, ASSUMED)
                    )
            if count:
                items += (count, target.n_items)
                tokens += (price[unit.target, count], price[unit.target, target.n_items])
        return Asked(
            rules=asking["rules"],
            looks={name: tuple(counts) for name, counts in asking["looks"].items()},
            ended=dict(Counter(self.reasons.values()).most_common()),
            cells=(len(self.reasons), (len(_rows(self.plan)) - len(self.whole[1:])) * len(self.order)),
            items=(int(items[0]), int(items[1])),
            tokens=(float(tokens[0]), float(tokens[1])),
            anchors=self.anchors,
            still=self._still(store),
        )


def _seed(study: Study, target: LoadedTarget) -> int:
    """Of the order of a target's items: the study's, and what the target asks."""
    return int(digest([study.sample_seed, target.digest, "order of items"], 12), 16)


def _held(store: RunStore) -> dict[CellUnit, int]:
    """How many items every cell that is done holds."""
    ledger, parts = read_ledger(store), read_parts(store)
    sizes = {target["name"]: int(target["items"]) for target in ledger.targets}
    held = {_unit(cell): cell.asked or 0 for cell in parts.cells if cell.status == "done"}
    return held | {_unit(cell): sizes[cell.target] for cell in ledger.cells if cell.status == "done"}


def _unit(cell: CellEntry) -> CellUnit:
    return CellUnit(cell.source, cell.seed, cell.target)


def _keep(store: RunStore, campaign: _Asking, asked: Asked) -> None:
    """Keep why cells ended and what was asked; partial cells that whole ones have replaced go."""
    with locked_store(store.folder) as locked:
        ledger, parts = read_ledger(locked), read_parts(locked)
        whole = {_unit(cell) for cell in ledger.cells if cell.status == "done"}
        cells = []
        for cell in parts.cells:
            reason = campaign.reasons.get((cell.source, cell.target), "")
            if cell.source == BASELINE:
                reason = ALL_ENDED
            if _unit(cell) not in whole:
                cells.append(replace(cell, settled=reason if cell.status == "done" else ""))
        write_parts(locked, Parts(parts.order, tuple(cells), campaign.asking(asked)))
        needed = {cell.key for cell in (*ledger.cells, *cells)} | {cell.earlier for cell in ledger.cells}
        for cell in parts.cells:
            if cell.key is not None and cell.key not in needed:
                locked.cell(cell.key).unlink(missing_ok=True)
