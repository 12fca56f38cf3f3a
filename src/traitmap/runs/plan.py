"""All units of work of a run: adapters, in groups that are trained together, and cells."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from traitmap.runs.keys import adapter_key
from traitmap.study.settings import BASELINE, Lora, Study, Training

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
    group_size: int | None = None,
    token_budget: int | None = None,
    largest_group: Callable[[Lora, Training], int] | None = None,
    recorded: Mapping[str, int] = MappingProxyType({}),
) -> Plan:
    """Lay out the whole run.

    Adapters with the same LoRA settings are trained together, in the order seeds x sources, at most
    ``group_size`` at a time (by default ``GROUP_SIZE``), no more than the engine's ``largest_group`` says
    that memory holds, and, where ``token_budget`` is given, while the tokens of one step (batch_size x
    max_length, summed) stay within it; one adapter is always a group. What is done already has no influence:
    an adapter's last digits depend on its group, so a resumed run must group as before. For the same reason
    adapters whose group an earlier run has ``recorded`` (key -> number) stay in it, in that order and first.
    """
    by_lora: dict[str, list[_Member]] = {}
    kept: dict[int, list[AdapterUnit]] = {}
    for seed in study.seeds:
        for source in sources:
            if source.adapter is not None:
                continue
            unit = AdapterUnit(source.name, seed, adapter_key(source, seed, base_digest))
            if unit.key in recorded:
                kept.setdefault(recorded[unit.key], []).append(unit)
                continue
            step = source.training.batch_size * source.training.max_length
            most = group_size or GROUP_SIZE
            if largest_group is not None:
                most = max(1, min(most, largest_group(source.lora, source.training)))
            by_lora.setdefault(source.lora.model_dump_json(), []).append(_Member(unit, step, most))
    groups = [tuple(kept[number]) for number in sorted(kept)]
    groups += [group for members in by_lora.values() for group in _split(members, token_budget)]
    existing = tuple(source.name for source in sources if source.adapter)
    return Plan(tuple(groups), existing, _cells(study, sources, targets))


def missing_groups(plan: Plan, done: Container[str]) -> tuple[tuple[AdapterUnit, ...], ...]:
    """What of each group is still to train, given the keys that are done; no empty groups."""
    rest = (tuple(unit for unit in group if unit.key not in done) for group in plan.groups)
    return tuple(group for group in rest if group)


@dataclass(frozen=True)
class _Member:
    """An adapter to be put into a group. step: tokens of one step; most: adapters that may stand together."""

    unit: AdapterUnit
    step: int
    most: int


def _split(members: Sequence[_Member], token_budget: int | None) -> list[tuple[AdapterUnit, ...]]:
    groups: list[list[_Member]] = []
    used = 0
    for one in members:
        full = not groups or len(groups[-1]) >= min(one.most, *(other.most for other in groups[-1]))
        if full or (token_budget is not None and used + one.step > token_budget):
            groups.append([])
            used = 0
        groups[-1].append(one)
        used += one.step
    return [tuple(one.unit for one in group) for group in groups]


def _cells(
    study: Study, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]
) -> tuple[CellUnit, ...]:
    rows: list[tuple[str, int | None]] = [(BASELINE, None)]
    rows += [(source.name, None) for source in sources if source.adapter]
    rows += [(source.name, seed) for seed in study.seeds for source in sources if source.adapter is None]
    return tuple(CellUnit(source, seed, target.name) for source, seed in rows for target in targets)
