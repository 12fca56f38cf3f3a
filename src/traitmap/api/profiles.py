"""The profile of a run, of a study's datasets, or of texts: what they say, and what answers show.

First the texts by name and the base that goes with them (``Datasets``), then ``profile``, which hands them to
the analysis part by part, and ``write_profile``, which writes its tables as CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from traitmap import analysis
from traitmap import matrix as matrices
from traitmap.api.preparation import copies_of, load_data, load_engine
from traitmap.api.runs import Run
from traitmap.api.subject import as_file
from traitmap.data.texts import read_texts, texts_of_sources, texts_of_targets
from traitmap.engine.open import open_engine
from traitmap.errors import ModelError, RunError, UserError
from traitmap.matrix.record import TransferMatrix
from traitmap.progress import Listener, silent
from traitmap.runs.cells import read_outcomes
from traitmap.runs.files import write_output
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store, read_study
from traitmap.runs.texts import read_run_texts
from traitmap.study.load import load_study
from traitmap.study.paths import resolve
from traitmap.study.settings import BASELINE, Model, Study
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.data.records import Outcome
    from traitmap.data.texts import TaskText, Texts
    from traitmap.engine.contract import Engine
    from traitmap.engine.perplexity import BasePerplexity
    from traitmap.runs.store import RunStore

Kind = Literal["texts", "study", "run"]
MOST_OUTCOMES = 4_000_000  # of a run, held as records at once: about 3 GB
PARSED = 300  # texts of a dataset that a parser reads: shares of relations are steady by then


@dataclass(frozen=True)
class Datasets:
    """Texts by name, and the base that goes with them.

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

    def of_role(self, role: str) -> dict[str, Sequence[TaskText]]:
        """Texts of all sources, or of all targets, by their names in the study.

        role: ``source`` or ``target``.
        """
        return {self.tasks[name]: self.texts[name] for name in self.texts if self.roles[name] == role}


def read_datasets(
    place: Run | Study | Texts | pd.DataFrame | str | Path, engine: Engine | None = None
) -> Datasets:
    """Texts of a run folder, of a study (``.yaml``, ``.yml``), of a JSONL file (also ``.gz``) or a frame.

    engine: renders conversations and counts tokens where a study needs it; by default its base is loaded
    when it is first needed. UserError where nothing of it can be read.
    """
    if isinstance(place, Run):
        return _of_run(place.folder)
    if isinstance(place, Study):
        return _of_study(place, engine)
    if isinstance(place, str | Path) and Path(place).is_dir():
        return _of_run(Path(place))
    if isinstance(place, str | Path) and Path(place).suffix in (".yaml", ".yml"):
        return _of_study(load_study(place), engine)
    if not isinstance(place, Mapping):
        with as_file(place, ".jsonl") as path:
            place = read_texts(path)
    sizes = {name: len(items) for name, items in place.items()}
    return Datasets("texts", place, dict.fromkeys(place, "dataset"), {name: name for name in place}, sizes)


def _of_run(place: Path) -> Datasets:
    store = open_store(place)
    rendered, ledger = read_run_texts(store), read_ledger(store)
    record = read_study(store) or {}
    model, data = record.get("model"), record.get("data")
    texts, roles, tasks = together(rendered.sources, rendered.targets)
    sizes = {name: len(items) for name, items in texts.items()}
    sizes |= {name: rendered.totals[tasks[name]] for name in texts if roles[name] == "source"}
    return Datasets(
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


def _of_study(study: Study, engine: Engine | None) -> Datasets:
    sources, targets = load_data(study, cache(lambda: engine or load_engine(study)))
    texts, roles, tasks = together(texts_of_sources(sources), texts_of_targets(targets))
    return Datasets(
        kind="study",
        texts=texts,
        roles=roles,
        tasks=tasks,
        sizes={name: len(items) for name, items in texts.items()},
        model=study.model,
        folder=study.folder,
        copies=copies_of(study),
    )


def together(
    sources: Mapping[str, Sequence[TaskText]], targets: Mapping[str, Sequence[TaskText]]
) -> tuple[dict[str, Sequence[TaskText]], dict[str, str], dict[str, str]]:
    """Texts, roles and tasks of all. A target named like a source is told apart by its role.

    Targets without items are left out.
    """
    texts: dict[str, Sequence[TaskText]] = dict(sources)
    roles, tasks = dict.fromkeys(sources, "source"), {name: name for name in sources}
    for task, items in targets.items():
        if not items:
            continue
        name = task if task not in texts else f"{task} (target)"
        while name in texts:
            name += "'"
        texts[name], roles[name], tasks[name] = items, "target", task
    return texts, roles, tasks


def outcomes_of_run(store: RunStore) -> dict[tuple[str, int | None, str], Sequence[Outcome]]:
    """(source, seed, target) -> outcomes of every cell that is done, the base first.

    RunError where they are more than ``MOST_OUTCOMES``, which would not fit the memory.
    """
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


@shows_progress
def profile(
    place: Run | Study | Texts | pd.DataFrame | str | Path,
    *,
    parser: str | Path | None = None,
    encoder: str | Path | None = None,
    style_encoder: str | Path | None = None,
    perplexity: bool = False,
    base: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    listener: Listener | None = None,
    engine: Engine | None = None,
) -> analysis.Profile:
    """Profile the datasets of a run, of a study, or of texts; of a run also its answers.

    place: a run or its folder; a study or its file; texts by dataset, a JSONL file or a frame of them with
        rows of task, input, output, choices, label.
    parser: a spaCy pipeline, by path or installed name, for dependency relations; with a run also for how
        gains depend on them. encoder, style_encoder: sentence-transformers models of meaning and of style,
        by path or name (``minilm`` is one that a package holds).
    perplexity: that of the base, which is loaded for it. base: a path or hub id in place of the study's.
    sample: at most so many texts of each dataset. engine: one that is loaded already.
    listener: see ``Progress``; None shows progress on a terminal or notebook.

    Raises a UserError for what cannot be read or loaded.
    """
    listener = listener or silent
    datasets = read_datasets(place, engine)
    pipeline = None if parser is None else analysis.load_parser(parser)
    embed = None if encoder is None else analysis.load_encoder(encoder)
    style_embed = None if style_encoder is None else analysis.load_encoder(style_encoder)
    surprise: dict[str, BasePerplexity] = {}
    if perplexity:
        from traitmap.engine.perplexity import SAMPLE, base_perplexity  # scipy's tests, for few who ask

        engine = engine or _base(datasets, base)
        most = SAMPLE if sample is None else sample
        surprise = base_perplexity(engine, datasets.texts, sample=most, seed=seed, listener=listener)
    sampling = analysis.Sampling()
    if sample is not None:
        sampling = analysis.Sampling(**{name: min(sample, most) for name, most in vars(sampling).items()})
    relations = _relations(pipeline, datasets, sample, seed, listener) if pipeline else {}
    comparison = analysis.profile_datasets(
        datasets.texts,
        token_counts=engine.token_counts if engine else None,
        embed=embed,
        style_embed=style_embed,
        parser=pipeline.pipeline if pipeline else None,
        # of input and output together, as the profiles take it
        perplexity={name: part.text.perplexity for name, part in surprise.items() if part.text.texts},
        sizes=datasets.sizes,
        sampling=sampling,
        seed=seed,
    )
    matrix = matrices.build_matrix(datasets.store) if datasets.store is not None else None
    other_base = perplexity and engine is not None and datasets.base_digest not in ("", engine.base_digest)
    note = "perplexity is that of another base, or of other arithmetic, than the run was made with"
    return analysis.Profile(
        kind=datasets.kind,
        roles=datasets.roles,
        tasks=datasets.tasks,
        comparison=comparison,
        relations=relations,
        perplexity=surprise,
        cells=_cells(datasets, datasets.store, matrix, engine, seed)
        if datasets.store is not None and matrix is not None
        else None,
        matrix=matrix,
        effects=_effects(matrix, datasets, relations, seed) if matrix is not None and relations else None,
        notes=(note,) if other_base else (),
    )


def _base(datasets: Datasets, base: str | None) -> Engine:
    """The base that the datasets come with, or another one on this machine, by ``base`` a path or hub id."""
    if base is not None:
        other = {"path": base, "revision": None, "endpoint": None}  # arithmetic stays: numbers compare
        model = datasets.model.model_copy(update=other) if datasets.model else Model(path=base)
        return open_engine(model, copies=datasets.copies)
    if datasets.model is None:
        raise UserError("perplexity needs a base model, and texts name none; give one with --base PATH")
    try:
        return open_engine(datasets.model, datasets.folder, copies=datasets.copies)
    except ModelError as error:
        if datasets.kind != "run" or datasets.model.endpoint is not None:
            raise
        raise ModelError(
            f"{error}\nThe run was made from another folder than this one; give its base with --base PATH."
        ) from error


def _relations(
    parser: analysis.Parser, datasets: Datasets, sample: int | None, seed: int, listener: Listener
) -> dict[str, analysis.Relations]:
    """Relations of a part of each source's texts; items of a run's targets are all parsed."""
    inputs = {name: [text.input for text in items] for name, items in datasets.texts.items()}
    whole = {name for name in inputs if datasets.kind == "run" and datasets.roles[name] == "target"}
    most = {name: None if name in whole else PARSED for name in inputs}
    if sample is not None:
        most = dict.fromkeys(inputs, sample)
    return analysis.parse_relations(parser, inputs, max_texts=most, seed=seed, listener=listener)


def _cells(
    datasets: Datasets, store: RunStore, matrix: TransferMatrix, engine: Engine | None, seed: int
) -> analysis.CellProfiles:
    """What the outcomes of a run show. Lengths are in tokens where there is an engine to count them."""
    sources, targets = datasets.of_role("source"), datasets.of_role("target")
    source_tokens = gold_tokens = None
    if engine is not None:
        source_tokens = {
            name: engine.token_counts([text.output.strip() for text in items if text.output.strip()])
            for name, items in sources.items()
        }
        gold_tokens = {
            name: engine.token_counts([text.output for text in items]) for name, items in targets.items()
        }
    return analysis.cell_profiles(
        outcomes_of_run(store),
        source_texts=sources,
        target_texts=targets,
        label_counts=datasets.label_counts,
        source_tokens=source_tokens,
        gold_tokens=gold_tokens,
        item_groups=matrix.item_groups,
        seed=seed,
    )


def _effects(
    matrix: TransferMatrix, datasets: Datasets, relations: Mapping[str, analysis.Relations], seed: int
) -> analysis.RelationEffects:
    """How gains depend on relations."""
    by_task = {datasets.tasks[name]: name for name, role in datasets.roles.items() if role == "target"}
    names = {task: by_task[task] for task in matrix.targets if task in by_task}
    classes = {
        task: labels
        for task, name in names.items()
        if all(labels := [text.label for text in datasets.texts[name]])
    }
    of_target = {task: relations[name] for task, name in names.items()}
    return analysis.relation_effects(matrix, of_target, classes=classes, seed=seed)


def write_profile(found: analysis.Profile, path: str | Path) -> tuple[Path, ...]:
    """Write one row a dataset as CSV; of a run, cells and relations beside it (``NAME.cells.csv``, ...).

    Returns the files written. Unknown numbers are empty. UserError where a file cannot be written.
    """
    place = Path(path)
    tables: dict[Path, list[dict[str, Any]]] = {
        place: [vars(row) for row in found.rows()],
        place.with_suffix(".cells.csv"): analysis.cell_rows(found.cells) if found.cells else [],
        place.with_suffix(".relations.csv"): analysis.relation_rows(found.effects) if found.effects else [],
    }
    written = {file: rows for file, rows in tables.items() if rows}
    for file, rows in written.items():
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: _entry(value) for name, value in row.items()} for row in rows)
        try:
            write_output(file, stream.getvalue())
        except OSError as error:
            raise UserError(f"{file} cannot be written: {error.strerror}; give another place") from error
    return tuple(written)


def _entry(value: Any) -> Any:
    """A value as CSV has it: nothing for what is unknown, lists with spaces between."""
    if isinstance(value, float) and not isfinite(value):
        return ""
    return " ".join(value) if isinstance(value, tuple) else value
