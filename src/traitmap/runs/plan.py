"""All units of work of a run: adapters, in groups that are trained together, and cells."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from traitmap.runs.keys import adapter_key
from traitmap.study.settings import BASELINE, Study

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget

GROUP_SIZE = 16


@dataclass(frozen=True)
class AdapterUnit:
    """One adapter to be trained, and the key that it is stored under."""

    source: str
    seed: int
    key: str


@dataclass(frozen=True)
class CellUnit:
    """One adapter on one target. The base is the source ``__baseline__``, seed None."""

    source: str
    seed: int | None
    target: str


@dataclass(frozen=True)
class Plan:
    """Every unit of a study, done or not.

    groups: adapters trained together in one pass. existing: sources that are adapters already.
    cells: the base's first, then every adapter's, seed by seed, in the order of the study.
    """

    groups: tuple[tuple[AdapterUnit, ...], ...]
    existing: tuple[str, ...]
    cells: tuple[CellUnit, ...]

    @property
    def adapters(self) -> tuple[AdapterUnit, ...]:
        """All that are to be trained."""
        return tuple(unit for group in self.groups for unit in group)


def make_plan(
    *,
    study: Study,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    base_digest: str,
    group_size: int = GROUP_SIZE,
    token_budget: int | None = None,
) -> Plan:
    """Lay out the whole run.

    Adapters with the same LoRA settings are trained together, in the order seeds x sources, at most
    ``group_size`` at a time and, where ``token_budget`` is given, while the tokens of one step
    (batch_size x max_length, summed) stay within it; one adapter is always a group. What is done already
    has no influence: an adapter's last digits depend on its group, so a resumed run must group as before.
    """
    by_lora: dict[str, list[tuple[AdapterUnit, int]]] = {}
    for seed in study.seeds:
        for source in sources:
            if source.adapter is None:
                unit = AdapterUnit(source.name, seed, adapter_key(source, seed, base_digest))
                step = source.training.batch_size * source.training.max_length
                by_lora.setdefault(source.lora.model_dump_json(), []).append((unit, step))
    groups = [group for units in by_lora.values() for group in _split(units, group_size, token_budget)]
    existing = tuple(source.name for source in sources if source.adapter)
    return Plan(tuple(groups), existing, _cells(study, sources, targets))


def missing_groups(plan: Plan, done: Container[str]) -> tuple[tuple[AdapterUnit, ...], ...]:
    """What of each group is still to train, given the keys that are done; no empty groups."""
    rest = (tuple(unit for unit in group if unit.key not in done) for group in plan.groups)
    return tuple(group for group in rest if group)


def _split(
    units: Sequence[tuple[AdapterUnit, int]], group_size: int, token_budget: int | None
) -> list[tuple[AdapterUnit, ...]]:
    groups: list[list[AdapterUnit]] = []
    used = 0
    for unit, step in units:
        full = not groups or len(groups[-1]) >= group_size
        if full or (token_budget is not None and used + step > token_budget):
            groups.append([])
            used = 0
        groups[-1].append(unit)
        used += step
    return [tuple(group) for group in groups]


def _cells(
    study: Study, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]
) -> tuple[CellUnit, ...]:
    rows: list[tuple[str, int | None]] = [(BASELINE, None)]
    rows += [(source.name, None) for source in sources if source.adapter]
    rows += [(source.name, seed) for seed in study.seeds for source in sources if source.adapter is None]
    return tuple(CellUnit(source, seed, target.name) for source, seed in rows for target in targets)
