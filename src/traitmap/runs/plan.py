"""The plan of a run: all its units, adapters in groups that are trained together and cells, and their keys.

A key is a digest of whatever determines a result. Same key, same result: reuse it; anything else: compute
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from traitmap.data.records import AdapterPlace, ServedAdapter, WholeModel
from traitmap.errors import ModelError, whole_reason
from traitmap.study.derived import MERGE_METHODS
from traitmap.study.paths import digest
from traitmap.study.settings import BASELINE, Lora, Study, Training

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# Keys of adapter_config.json that change no answer: where the base lay, who wrote the file, how it was
# trained. Every other key, known to us or not, takes part in the digest.
_MEANINGLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_dropout",
        "peft_version",
        "revision",
        "runtime_config",
        "task_type",
    }
)


def adapter_key(source: LoadedSource, seed: int, base_digest: str) -> str:
    """Key of the adapter that training on a source with a seed gives.

    The name that the source draws as takes part, since the engine draws an adapter's first weights from
    that name and the seed: its own, or of a variation that of the source at its root.
    """
    return digest(
        {
            "base": base_digest,
            "source": source.digest,
            "name": source.draws_as,
            "lora": source.lora.model_dump(mode="json"),
            "training": source.training.model_dump(mode="json"),
            "seed": seed,
        }
    )


def adapter_digest(folder: AdapterPlace) -> str:
    """Digest of a PEFT directory: the bytes of its weights and what of its configuration has a meaning.

    Of a whole model its own digest; of an adapter that a server holds only its name there, and the user's
    word for its weights.
    ModelError where the weights or the configuration are absent or are none; OSError where the system does
    not give them, which says nothing against them.
    """
    if isinstance(folder, WholeModel):
        return digest({"model": folder.digest})
    if isinstance(folder, ServedAdapter):
        return digest({"served_as": folder.name, "revision": folder.revision})
    try:
        with (folder / WEIGHTS).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        meaning = {key: value for key, value in config.items() if key not in _MEANINGLESS}
        if isinstance(meaning.get("target_modules"), list):  # PEFT keeps a set, written in any order
            meaning["target_modules"] = sorted(meaning["target_modules"])
        return digest({"weights": weights, "config": meaning})
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise ModelError(f"{folder}: no {missing}; a PEFT directory holds {WEIGHTS} and {CONFIG}.") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{folder}: cannot be read as a PEFT directory ({whole_reason(error)}).") from None


def cell_key(base_digest: str, adapter: str | None, target_digest: str) -> str:
    """Key of one cell. adapter: ``adapter_digest`` of its files, None for the base alone."""
    return digest({"base": base_digest, "adapter": adapter, "target": target_digest})


GROUP_SIZE = 16


@dataclass(frozen=True)
class AdapterUnit:
    """One adapter to be trained, and the key that it is stored under.

    step: of a checkpoint, the optimizer step at which it is kept; None at the end of a training. training:
    the source whose training gives it, where that is not its own.
    """

    source: str
    seed: int
    key: str
    step: int | None = None
    training: str = ""

    @property
    def trained_with(self) -> tuple[str, int]:
        """Source and seed of the training that gives it; units that share it cost one training."""
        return self.training or self.source, self.seed


@dataclass(frozen=True)
class MergeUnit:
    """One merge of adapters, and the key that it is stored under.

    parents: rows (source, seed) whose adapters are merged; it waits for them. seed None: the same for all
    seeds.
    """

    source: str
    seed: int | None
    key: str
    parents: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class CellUnit:
    """One adapter on one target. The base is the source ``__baseline__``, seed None."""

    source: str
    seed: int | None
    target: str


@dataclass(frozen=True)
class Plan:
    """Every unit of a study, done or not.

    groups: adapters trained together in one pass, checkpoints before what they end in. existing: sources that
    are adapters already. cells: the base's first, then every adapter's, seed by seed, in the order of the
    study. merges: in an order in which each stands behind its parents.
    """

    groups: tuple[tuple[AdapterUnit, ...], ...]
    existing: tuple[str, ...]
    cells: tuple[CellUnit, ...]
    merges: tuple[MergeUnit, ...] = ()

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
    max_length, summed) stay within it; one adapter is always a group. A checkpoint stands in the group of its
    training, where it counts nothing. What is done already has no influence: an adapter's last digits depend
    on its group, so a resumed run must group as before. For the same reason adapters whose group an earlier
    run has ``recorded`` (key -> number) stay in it, in that order and first.
    """
    by_lora: dict[str, list[tuple[AdapterUnit, int, int]]] = {}  # unit, tokens of one step, most together
    grouped: dict[int, list[AdapterUnit]] = {}
    kept: dict[tuple[str, int], list[AdapterUnit]] = {}  # checkpoints by their training
    for seed in study.seeds:
        for source in sources:
            if not source.trained:
                continue
            unit = _adapter_unit(source, seed, base_digest)
            if unit.step is not None:
                kept.setdefault(unit.trained_with, []).append(unit)
                continue
            if unit.key in recorded:
                grouped.setdefault(recorded[unit.key], []).append(unit)
                continue
            step = source.training.batch_size * source.training.max_length
            most = group_size or GROUP_SIZE
            if largest_group is not None:
                most = max(1, min(most, largest_group(source.lora, source.training)))
            by_lora.setdefault(source.lora.model_dump_json(), []).append((unit, step, most))
    groups = [tuple(grouped[number]) for number in sorted(grouped)]
    groups += [group for members in by_lora.values() for group in _split(members, token_budget)]
    groups = [
        tuple(row for unit in group for row in (*kept.get(unit.trained_with, ()), unit)) for group in groups
    ]
    existing = tuple(source.name for source in sources if source.adapter)
    rows: list[tuple[str, int | None]] = [(BASELINE, None)]
    rows += [(source.name, None) for source in sources if not source.seeded]
    rows += [(source.name, seed) for seed in study.seeds for source in sources if source.seeded]
    cells = tuple(CellUnit(source, seed, target.name) for source, seed in rows for target in targets)
    return Plan(tuple(groups), existing, cells, _merge_units(study, sources, base_digest))


def _adapter_unit(source: LoadedSource, seed: int, base_digest: str) -> AdapterUnit:
    key = adapter_key(source, seed, base_digest)
    if source.step is None:
        return AdapterUnit(source.name, seed, key)
    assert source.variation is not None
    (training,) = source.variation.parents
    return AdapterUnit(
        source.name, seed, digest({"training": key, "step": source.step}), source.step, training
    )


def _merge_units(study: Study, sources: Sequence[LoadedSource], base_digest: str) -> tuple[MergeUnit, ...]:
    """Every merge, parents before children. A key follows from the parents' keys, in their order, and how."""
    by_name = {source.name: source for source in sources}
    units: dict[tuple[str, int | None], MergeUnit] = {}

    def key_of(source: LoadedSource, seed: int | None) -> str:
        if source.merge is not None:
            return unit_of(source, seed if source.seeded else None).key
        if source.adapter is not None:
            return source.digest
        assert seed is not None
        return _adapter_unit(source, seed, base_digest).key

    def unit_of(source: LoadedSource, seed: int | None) -> MergeUnit:
        if (source.name, seed) not in units:
            assert source.merge is not None
            parents = [by_name[name] for name in source.merge.parents]
            content = {
                "base": base_digest,
                "merge": [key_of(parent, seed) for parent in parents],
                **source.merge.settings,
                "seed": seed if MERGE_METHODS[source.merge.method].draws else None,
            }
            rows = tuple((parent.name, seed if parent.seeded else None) for parent in parents)
            units[source.name, seed] = MergeUnit(source.name, seed, digest(content), rows)
        return units[source.name, seed]

    for seed in (None, *study.seeds):
        for source in sources:
            if source.merge is not None and source.seeded == (seed is not None):
                unit_of(source, seed)
    return tuple(units.values())


def trainings(units: Sequence[AdapterUnit]) -> list[tuple[AdapterUnit, ...]]:
    """Units by the training that gives them, in the order of their first.

    In each the steps rise, and the end of the training stands last.
    """
    together: dict[tuple[str, int], list[AdapterUnit]] = {}
    for unit in units:
        together.setdefault(unit.trained_with, []).append(unit)
    return [
        tuple(sorted(members, key=lambda unit: (unit.step is None, unit.step)))
        for members in together.values()
    ]


def missing_groups(plan: Plan, done: Container[str]) -> tuple[tuple[AdapterUnit, ...], ...]:
    """What of each group is still to train, given the keys that are done; no empty groups.

    done: keys of adapters (``AdapterUnit.key``). Groups keep their order, and adapters theirs in a group.
    """
    groups = (tuple(unit for unit in group if unit.key not in done) for group in plan.groups)
    return tuple(group for group in groups if group)


def _split(
    members: Sequence[tuple[AdapterUnit, int, int]], token_budget: int | None
) -> list[tuple[AdapterUnit, ...]]:
    """Adapters (unit, tokens of one step, most that may be trained together) in groups, in their order."""
    groups: list[list[AdapterUnit]] = []
    used = limit = 0
    for unit, step, most in members:
        full = not groups or len(groups[-1]) >= min(most, limit)
        if full or (token_budget is not None and used + step > token_budget):
            groups.append([])
            used, limit = 0, most
        groups[-1].append(unit)
        used, limit = used + step, min(limit, most)
    return [tuple(group) for group in groups]
