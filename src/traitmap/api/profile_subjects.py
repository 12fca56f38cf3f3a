"""What is profiled: texts by name out of a run folder, a study file, or a file of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from traitmap.data.records import Outcome
    from traitmap.data.texts import TaskText, Texts
    from traitmap.engine.contract import Engine
    from traitmap.runs.store import RunStore
    from traitmap.study.settings import Model, Study

Kind = Literal["texts", "study", "run"]
MOST_OUTCOMES = 4_000_000  # of a run, held as records at once: about 3 GB


@dataclass(frozen=True)
class Subject:
    """Datasets by name, and the base that goes with them.

    kind: where the texts come from. roles: dataset -> ``source``, ``target`` or ``dataset``. tasks:
    dataset -> the name that it has in the study, which its source and its target may have in common.
    sizes: dataset -> texts that there are, where ``texts`` holds a part. store: of a run.
    model, folder: the base as the study names it, and where relative paths start; None where there is none.
    base_digest: of the base that a run was made with. label_counts: source -> examples by label word, where
    a run tells.
    """

    kind: Kind
    texts: Texts
    roles: Mapping[str, str]
    tasks: Mapping[str, str]
    sizes: Mapping[str, int]
    store: RunStore | None = None
    model: Model | None = None
    folder: Path | None = None
    base_digest: str = ""
    label_counts: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))

    def named(self, role: str, task: str) -> str | None:
        """The dataset that a source or target of the study became; None where it has no texts."""
        same = (name for name, own in self.tasks.items() if own == task and self.roles[name] == role)
        return next(same, None)

    def of_role(self, role: str) -> dict[str, Sequence[TaskText]]:
        """Texts of all sources, or of all targets, by their names in the study."""
        return {self.tasks[name]: self.texts[name] for name in self.texts if self.roles[name] == role}


def read_subject(place: Path, engine: Engine | None = None) -> Subject:
    """Texts of a run folder, of a study (``.yaml``, ``.yml``), or of a JSONL file (also ``.gz``).

    engine: renders conversations and counts tokens where a study needs it; by default its base is loaded
    when it is first needed. UserError where nothing of it can be read.
    """
    if place.is_dir():
        return _of_run(place)
    if place.suffix in (".yaml", ".yml"):
        return _of_study(place, engine)
    from traitmap.data.texts import read_texts

    texts = read_texts(place)
    sizes = {name: len(some) for name, some in texts.items()}
    return Subject("texts", texts, dict.fromkeys(texts, "dataset"), {name: name for name in texts}, sizes)


def _of_run(place: Path) -> Subject:
    from traitmap.runs.ledger import read_ledger
    from traitmap.runs.store import open_store, read_study
    from traitmap.runs.texts import read_run_texts
    from traitmap.study.settings import Model

    store = open_store(place)
    kept, ledger = read_run_texts(store), read_ledger(store)
    told = (read_study(store) or {}).get("model")
    texts, roles, tasks = together(kept.sources, kept.targets)
    sizes = {name: len(some) for name, some in texts.items()}
    sizes |= {name: kept.totals[tasks[name]] for name in texts if roles[name] == "source"}
    return Subject(
        kind="run",
        texts=texts,
        roles=roles,
        tasks=tasks,
        sizes=sizes,
        store=store,
        model=Model.model_validate(told) if told else None,
        base_digest=ledger.base,
        label_counts={source["name"]: source["label_counts"] for source in ledger.sources},
    )


def outcomes_of_run(store: RunStore) -> dict[tuple[str, int | None, str], tuple[Outcome, ...]]:
    """(source, seed, target) -> outcomes of every cell that is done, the base first.

    RunError where they are more than ``MOST_OUTCOMES``, which would not fit the memory.
    """
    from traitmap.errors import RunError
    from traitmap.runs.cells import read_outcomes
    from traitmap.runs.ledger import read_ledger
    from traitmap.study.settings import BASELINE

    ledger = read_ledger(store)
    items = {target["name"]: target["items"] for target in ledger.targets}
    done = [cell for cell in ledger.cells if cell.status == "done" and cell.key is not None]
    count = sum(items[cell.target] for cell in done)
    if count > MOST_OUTCOMES:
        raise RunError(
            f"{store.folder}: {count:,} outcomes are more than the {MOST_OUTCOMES:,} that are held in memory "
            "at once to say what answers look like; `traitmap query` reads them from the disk."
        )
    done.sort(key=lambda cell: cell.source != BASELINE)  # the order of the study within
    return {(cell.source, cell.seed, cell.target): read_outcomes(store.cell(cell.key or "")) for cell in done}


def _of_study(place: Path, engine: Engine | None) -> Subject:
    from traitmap.data.lineage import load_sources
    from traitmap.data.targets import load_targets
    from traitmap.data.texts import texts_of_sources, texts_of_targets
    from traitmap.study.load import load_study

    study = load_study(place)
    base = _BaseOnDemand(study, engine)
    sources = texts_of_sources(load_sources(study, base.render_chat, base.token_counts))
    texts, roles, tasks = together(sources, texts_of_targets(load_targets(study, base.render_chat)))
    sizes = {name: len(some) for name, some in texts.items()}
    return Subject("study", texts, roles, tasks, sizes, model=study.model, folder=study.folder)


class _BaseOnDemand:
    """The base of a study, loaded when something first needs it: most studies never do."""

    def __init__(self, study: Study, engine: Engine | None) -> None:
        self._study, self._given = study, engine

    @cached_property
    def engine(self) -> Engine:
        from traitmap.api.loading import load_engine

        return self._given or load_engine(self._study)

    def render_chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        return self.engine.render_chat(messages, add_generation_prompt)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return self.engine.token_counts(texts)


def together(
    sources: Mapping[str, Sequence[TaskText]], targets: Mapping[str, Sequence[TaskText]]
) -> tuple[dict[str, Sequence[TaskText]], dict[str, str], dict[str, str]]:
    """Texts, roles and tasks of all. A target named like a source is told apart by its role."""
    texts: dict[str, Sequence[TaskText]] = dict(sources)
    roles, tasks = dict.fromkeys(sources, "source"), {name: name for name in sources}
    for task, items in targets.items():
        if not items:
            continue
        name = _free_name(task, texts)
        texts[name], roles[name], tasks[name] = items, "target", task
    return texts, roles, tasks


def _free_name(task: str, taken: Iterable[str]) -> str:
    name = task if task not in taken else f"{task} (target)"
    while name in taken:
        name += "'"
    return name
