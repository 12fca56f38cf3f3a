"""What is profiled: texts by name out of a run folder, a study file, or a file of texts.

The profile of a run, of a study's datasets, or of a file of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.profiles.cells import CellProfiles
    from traitmap.analysis.profiles.datasets import Sampling
    from traitmap.analysis.profiles.parser import Parser, Relations
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.profiles.relations import RelationEffects
    from traitmap.data.records import Outcome
    from traitmap.data.texts import TaskText, Texts
    from traitmap.engine.contract import Engine
    from traitmap.engine.perplexity import BasePerplexity
    from traitmap.matrix.record import TransferMatrix
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
    copies: the study's folder with local copies of hub models, or None.
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
    copies: Path | None = None
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
    from traitmap.study.paths import resolve
    from traitmap.study.settings import Model

    store = open_store(place)
    kept, ledger = read_run_texts(store), read_ledger(store)
    record = read_study(store) or {}
    model, data = record.get("model"), record.get("data")
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
        model=Model.model_validate(model) if model else None,
        copies=resolve(data, Path.cwd()) if data else None,
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
    from traitmap.api.studies import copies_of
    from traitmap.data.lineage import load_sources
    from traitmap.data.targets import load_targets
    from traitmap.data.texts import texts_of_sources, texts_of_targets
    from traitmap.study.load import load_study

    study = load_study(place)
    base = _BaseOnDemand(study, engine)
    sources = texts_of_sources(load_sources(study, base.render_chat, base.token_counts))
    texts, roles, tasks = together(sources, texts_of_targets(load_targets(study, base.render_chat)))
    sizes = {name: len(some) for name, some in texts.items()}
    return Subject(
        kind="study",
        texts=texts,
        roles=roles,
        tasks=tasks,
        sizes=sizes,
        model=study.model,
        folder=study.folder,
        copies=copies_of(study),
    )


class _BaseOnDemand:
    """The base of a study, loaded when something first needs it: most studies never do."""

    def __init__(self, study: Study, engine: Engine | None) -> None:
        self._study, self._given = study, engine

    @cached_property
    def engine(self) -> Engine:
        from traitmap.api.studies import load_engine

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


PARSED = 300  # texts of a source; items of a run's targets are all parsed, since their outcomes are known


def profile(
    place: str | Path,
    *,
    parser: str | Path | None = None,
    encoder: str | Path | None = None,
    style_encoder: str | Path | None = None,
    perplexity: bool = False,
    base: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    listener: Listener = silent,
    engine: Engine | None = None,
) -> Profile:
    """Profile the datasets of a run folder, of a study file, or of a JSONL file of texts.

    parser: a spaCy pipeline, by path or installed name, for dependency relations; with a run also for how
        gains depend on them. encoder, style_encoder: sentence-transformers models of meaning and of style,
        by path or name (``minilm`` is one that a package holds).
    perplexity: that of the base, which is loaded for it. base: a path or hub id in place of the study's.
    sample: at most so many texts of each dataset. engine: one that is loaded already.
    Raises a UserError for what cannot be read or loaded.
    """
    subject = read_subject(Path(place), engine)
    pipeline = _parser(parser)
    embed, style_embed = _encoder(encoder), _encoder(style_encoder)
    if perplexity and engine is None:
        engine = _base(subject, base)
    surprise = _perplexity(engine, subject, sample, seed, listener) if perplexity and engine else {}
    relations = _relations(pipeline, subject, sample, seed, listener) if pipeline else {}
    from traitmap.analysis.profiles.datasets import profile_datasets
    from traitmap.analysis.profiles.record import Profile

    comparison = profile_datasets(
        subject.texts,
        token_counts=engine.token_counts if engine else None,
        embed=embed,
        style_embed=style_embed,
        parser=pipeline.pipeline if pipeline else None,
        perplexity=_known(surprise),
        sizes=subject.sizes,
        sampling=_sampling(sample),
        seed=seed,
    )
    matrix = _matrix(subject)
    return Profile(
        kind=subject.kind,
        roles=subject.roles,
        tasks=subject.tasks,
        comparison=comparison,
        relations=relations,
        perplexity=surprise,
        cells=_cells(subject, engine, seed),
        matrix=matrix,
        effects=_effects(matrix, subject, relations, seed) if matrix is not None and relations else None,
        notes=_notes(subject, engine if perplexity else None),
    )


def write_profile(found: Profile, path: str | Path) -> tuple[Path, ...]:
    """Write one row a dataset as CSV; of a run, cells and relations beside it (``NAME.cells.csv``, ...).

    Returns the files written. Unknown numbers are empty.
    """
    from traitmap.analysis.profiles.record import cell_rows, relation_rows

    place = Path(path)
    tables = {
        place: [vars(row) for row in found.rows()],
        place.with_suffix(".cells.csv"): cell_rows(found.cells) if found.cells else [],
        place.with_suffix(".relations.csv"): relation_rows(found.effects) if found.effects else [],
    }
    written = []
    for file, rows in tables.items():
        if rows:
            _write_csv(file, rows)
            written.append(file)
    return tuple(written)


def _write_csv(place: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import csv

    from traitmap.errors import UserError

    try:
        with place.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}; give another place") from error


def _cell(value: Any) -> Any:
    """A value as CSV has it: nothing for what is unknown, lists with spaces between."""
    if isinstance(value, float) and not isfinite(value):
        return ""
    return " ".join(value) if isinstance(value, tuple) else value


def _parser(pipeline: str | Path | None) -> Parser | None:
    from traitmap.analysis.profiles.parser import load_parser

    return None if pipeline is None else load_parser(pipeline)


def _encoder(model: str | Path | None) -> Any:
    from traitmap.analysis.profiles.semantics import load_encoder

    return None if model is None else load_encoder(model)


def _base(subject: Subject, base: str | None) -> Engine:
    """The base that the subject names, or another one on this machine, by ``base`` a path or hub id."""
    from traitmap.engine import open_engine
    from traitmap.errors import ModelError, UserError
    from traitmap.study.settings import Model

    if base is not None:
        other = {
            "path": base,
            "revision": None,
            "endpoint": None,
        }  # arithmetic stays, so that numbers compare
        model = subject.model.model_copy(update=other) if subject.model else Model(path=base)
        return open_engine(model, copies=subject.copies)
    if subject.model is None:
        raise UserError("perplexity needs a base model, and texts name none; give one with --base PATH")
    try:
        return open_engine(subject.model, subject.folder, copies=subject.copies)
    except ModelError as error:
        if subject.kind != "run" or subject.model.endpoint is not None:
            raise
        raise ModelError(
            f"{error}\nThe run was made from another folder than this one; give its base with --base PATH."
        ) from error


def _perplexity(
    engine: Engine, subject: Subject, sample: int | None, seed: int, listener: Listener
) -> dict[str, BasePerplexity]:
    from traitmap.engine.perplexity import SAMPLE, base_perplexity

    most = SAMPLE if sample is None else sample
    return base_perplexity(engine, subject.texts, sample=most, seed=seed, listener=listener)


def _known(surprise: Mapping[str, BasePerplexity]) -> dict[str, float]:
    """Perplexity of input and output together, as the profiles take it."""
    return {name: one.text.perplexity for name, one in surprise.items() if one.text.texts}


def _relations(
    parser: Parser, subject: Subject, sample: int | None, seed: int, listener: Listener
) -> dict[str, Relations]:
    from traitmap.analysis.profiles.parser import parse_relations

    inputs = {name: [text.input for text in some] for name, some in subject.texts.items()}
    most = {
        name: None if subject.kind == "run" and subject.roles[name] == "target" else PARSED for name in inputs
    }
    if sample is not None:
        most = dict.fromkeys(inputs, sample)
    return parse_relations(parser, inputs, max_texts=most, seed=seed, listener=listener)


def _sampling(sample: int | None) -> Sampling:
    from traitmap.analysis.profiles.datasets import Sampling

    usual = Sampling()
    if sample is None:
        return usual
    return Sampling(**{name: min(sample, most) for name, most in vars(usual).items()})


def _cells(subject: Subject, engine: Engine | None, seed: int) -> CellProfiles | None:
    """What the outcomes of a run show."""
    if subject.store is None:
        return None
    from traitmap.analysis.profiles.cells import cell_profiles

    sources, targets = subject.of_role("source"), subject.of_role("target")
    counted = engine.token_counts if engine else None
    return cell_profiles(
        outcomes_of_run(subject.store),
        source_texts=sources,
        target_texts=targets,
        label_counts=subject.label_counts,
        source_tokens={
            name: counted([text.output.strip() for text in some if text.output.strip()])
            for name, some in sources.items()
        }
        if counted
        else None,
        gold_tokens={name: counted([text.output for text in some]) for name, some in targets.items()}
        if counted
        else None,
        seed=seed,
    )


def _matrix(subject: Subject) -> TransferMatrix | None:
    from traitmap.matrix.build import build_matrix

    return None if subject.store is None else build_matrix(subject.store)


def _effects(
    matrix: TransferMatrix, subject: Subject, relations: Mapping[str, Relations], seed: int
) -> RelationEffects:
    """How gains depend on relations."""
    from traitmap.analysis.profiles.relations import relation_effects

    datasets = {task: name for task in matrix.targets if (name := subject.named("target", task))}
    classes = {
        task: labels
        for task, name in datasets.items()
        if all(labels := [text.label for text in subject.texts[name]])
    }
    of_target = {task: relations[name] for task, name in datasets.items()}
    return relation_effects(matrix, of_target, classes=classes, seed=seed)


def _notes(subject: Subject, base: Engine | None) -> tuple[str, ...]:
    if base is not None and subject.base_digest and base.base_digest != subject.base_digest:
        return ("perplexity is that of another base, or of other arithmetic, than the run was made with",)
    return ()
