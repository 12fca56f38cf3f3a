"""An audit: adapters and models beside their base on the tasks of packs, as a study made from arguments.

Everything but the question is the study's: the engine, the run folder (so that an audit goes on where it was
stopped), the matrix, the verdicts. Here the rows are found, the study is made of them, and what the run says
is put together with what lies beside the rows already.
"""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.analysis.audit import Audit, AuditRow, audit_rows
from traitmap.analysis.audit_context import (
    agreement_in_words,
    checkpoint_to_keep,
    instruments_in_words,
    moved_along,
)
from traitmap.analysis.audit_questions import ERROR
from traitmap.api.answers import date_of, target_outcomes, verdicts
from traitmap.api.atlas import read_priors
from traitmap.api.drift import keep_drift
from traitmap.api.runs import Run, contamination_in, drift_in, keep_contamination
from traitmap.api.studies import Check, check, load_engine, loaded_data, run
from traitmap.api.subject import traits_if_any
from traitmap.data.adapters import CONFIG, WEIGHTS
from traitmap.data.folder_study import guess_of
from traitmap.data.rows import SourceError, read_file
from traitmap.data.sources import LoadedSource, examine_source
from traitmap.data.task_packs import Pack, pack_names, pack_targets, read_pack
from traitmap.engine.perplexity import TextDrift
from traitmap.errors import DataError, ModelError
from traitmap.imports.beside import CHECKPOINT, checkpoints_in, evaluation_losses, found_beside
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Interval
from traitmap.progress import Listener, silent
from traitmap.runs.ledger import Ledger, read_ledger
from traitmap.runs.status import FailedUnit
from traitmap.runs.store import open_store
from traitmap.runs.texts import read_run_texts
from traitmap.study.init import name_of
from traitmap.study.paths import MINI, digest, model_location
from traitmap.study.settings import Source, Study
from traitmap.terminal import shows_progress
from traitmap.wording import counted, estimate, share

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike
    from traitmap.engine.contract import Engine

_SERVED = re.compile(r"(?P<name>[^@\s]+)@(?P<url>https?://\S+)")


@dataclass(frozen=True)
class RowPlace:
    """A row as it was found. source: its entry in the study. folder: of its files, None where it is served.

    base: the base that it names itself, empty where it names none. step: of a checkpoint; training: the
    folder of the training that it is a checkpoint or the end of.
    """

    name: str
    source: Mapping[str, Any]
    folder: Path | None
    base: str = ""
    step: int | None = None
    training: Path | None = None


@dataclass(frozen=True)
class AuditPlan:
    """An audit before it is run: the study made of it, its rows, and what is left out with the reason."""

    study: Study
    rows: tuple[RowPlace, ...]
    packs: tuple[str, ...]
    left_out: Mapping[str, str]
    training_data: Path | None = None

    def check(self) -> Check:
        """What running it means: tokens, time, disk; costs are measured on a few samples."""
        return check(self.study, measure=True)


def plan_audit(
    rows: Sequence[str | Path],
    *,
    base: str | None = None,
    packs: Sequence[str] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    data: str | Path | None = None,
    training_data: str | Path | None = None,
    name: str | None = None,
    output: str | Path = "runs",
    dtype: str = "auto",
    device: str = "auto",
    allow_code: bool = False,
    seed: int = 0,
) -> AuditPlan:
    """The study of an audit, without running it; settings as for ``audit``.

    DataError where a row is neither an adapter nor a model, rows name different bases or none, or a pack
    cannot be asked.
    """
    places = find_rows(rows)
    base = base or _common_base(places)
    embedded = model_location(base, Path.cwd()) == model_location(MINI, Path.cwd())
    base = MINI if embedded else base
    packs = tuple(packs) or ("mini" if embedded else "general",)
    targets, left_out = pack_targets(packs, folder=Path.cwd(), only=only, limit=limit, allow_code=allow_code)
    first = places[0].training.absolute().name if places[0].training else places[0].name
    model: dict[str, Any] = {"path": base, "dtype": dtype, "device": device}
    if served := _SERVED.fullmatch(base):
        model = {"path": served["name"], "endpoint": {"url": served["url"]}}
    study = Study.model_validate(
        {
            "name": name or f"audit-{name_of(Path(first))}"[:100],
            "model": model,
            "sources": [{"name": place.name, **place.source} for place in places],
            "targets": targets,
            "sample_seed": seed,
            "data": None if data is None else str(Path(data).absolute()),
            "allow_code": allow_code,
            "output": str(output),
        }
    )
    texts = None if training_data is None else Path(training_data)
    return AuditPlan(study, places, packs, left_out, texts)


def packs(pack: str | None = None) -> tuple[Pack, ...]:
    """The packs of the package, or the one of a name or file: their tasks with limit, metric and licence.

    DataError with every fault of a file, and where there is no such pack.
    """
    return tuple(read_pack(name) for name in ([pack] if pack else pack_names()))


@shows_progress
def audit(
    rows: Sequence[str | Path],
    *,
    base: str | None = None,
    packs: Sequence[str] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    data: str | Path | None = None,
    training_data: str | Path | None = None,
    fail_on: float | None = None,
    atlas: MatrixLike | None = None,
    name: str | None = None,
    output: str | Path = "runs",
    dtype: str = "auto",
    device: str = "auto",
    allow_code: bool = False,
    drift: bool = True,
    seed: int = 0,
    listener: Listener | None = None,
    engine: Engine | None = None,
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """What did these fine-tunes change or break? One verdict for each row beside the base.

    rows: PEFT directories, whole models in Hugging Face layout, folders with ``checkpoint-*``, or served
        models as ``NAME@http://host/v1``. base: by default the one that the adapters name. packs: names or
        files (``traitmap packs``); by default ``general``, of the embedded base ``mini``. only: of their
        tasks. limit: items of each, instead of the packs' own.
    data: a folder with copies of hub datasets and models. training_data: a file of what the rows were trained
        on: test items in it are found, and drift is measured on its prompts as well.
    fail_on: a loss of so many points or more is a harm, and one that cannot be excluded makes the verdict
        ``cannot tell``; None: any clear loss is a harm. atlas: matrices whose traits rows are held against.
    name, output: of the run, by default ``runs/audit-...``; the same audit again goes on where it stopped.
    drift: whether cross-entropy and KL on neutral text are measured. seed: of the items that are drawn.
    listener: see ``Progress``. engine: one that is loaded already. tell: gets what to know before it begins.

    Raises DataError and StudyError for what cannot be asked, ModelError for what cannot be loaded.
    """
    plan = plan_audit(
        rows, base=base, packs=packs, only=only, limit=limit, data=data, training_data=training_data,
        name=name, output=output, dtype=dtype, device=device, allow_code=allow_code, seed=seed,
    )  # fmt: skip
    listener = listener or silent
    texts = None if plan.training_data is None else _training_texts(plan)
    try:
        opened = engine or load_engine(plan.study)
    except ModelError as error:
        hint = "" if base else " The rows name it as their base; where it lies elsewhere, say so with --base."
        raise ModelError(f"{error}{hint}") from error
    done = run(plan.study, listener, opened, tell=tell)
    if texts is not None or drift:
        sources, targets = loaded_data(plan.study, lambda: opened)
        if texts is not None:
            sources = [
                replace(source, examples=texts.examples, digest=digest([source.digest, texts.digest]))
                for source in sources
            ]
            keep_contamination(done.folder, sources, targets, listener)
        if drift:
            asked = plan.study.model_copy(update={"drift": True})
            keep_drift(asked, done.folder, opened, sources, listener, tell)
    return read_audit(plan, done, fail_on=fail_on, atlas=atlas)


def read_audit(
    plan: AuditPlan, done: Run, *, fail_on: float | None = None, atlas: MatrixLike | None = None
) -> Audit:
    """The audit of a run that was made of a plan; no model is loaded. Settings as for ``audit``.

    RunError where the folder holds no run.
    """
    matrix = done.matrix()
    store = open_store(done.folder)
    ledger = read_ledger(store)
    read, questions = audit_rows(
        matrix,
        verdicts(done, matrix=matrix),
        lambda target: target_outcomes(store, ledger, target, matrix.sources),
        texts=read_run_texts(store).targets,
        fail_on=fail_on,
    )
    traits = _known_traits(atlas)
    safety = {target.name: target.tags[-1] for target in plan.study.targets if "safety" in target.tags}
    drifts = {row.source: row for row in drift_in(done.folder)}
    overlap = _overlaps(done.folder)
    rows = []
    for place, row in zip(plan.rows, read, strict=True):
        moved = drifts.get(row.name)
        words = (
            ()
            if moved is None
            else (*_drift("neutral text", moved.neutral), *_drift("its prompts", moved.own))
        )
        rows.append(
            replace(
                row,
                place=str(place.folder or next(iter(place.source.values()))),
                seconds=_seconds(ledger, row.name),
                drift=words,
                agreement=agreement_in_words(row, safety),
                overlap=overlap.get(row.name, ()),
                traits=tuple(told for of in traits for told in moved_along(row, *of)),
                beside=found_beside(place.folder) if place.folder is not None else (),
            )
        )
    return Audit(
        name=plan.study.name,
        base=plan.study.model.path,
        packs=plan.packs,
        rows=tuple(rows),
        questions=questions,
        level=1 - ERROR / max(questions, 1),
        fail_on=fail_on,
        left_out=plan.left_out,
        notes=_notes(done, ledger),
        keep=_keep(plan.rows, rows, matrix),
        instruments=instruments_in_words(matrix, tuple(safety)),
        seconds=sum(cell.seconds or 0.0 for cell in ledger.cells),
        folder=str(done.folder),
        date=date_of(done),
    )


# Rows.


def find_rows(paths: Sequence[str | Path]) -> tuple[RowPlace, ...]:
    """What each path is: an adapter, a whole model, several checkpoints, or a served model.

    Rows are called by their folders, with the folder above where two are called alike. DataError holds what
    is wrong with each path.
    """
    if not paths:
        raise DataError("nothing to audit: give a PEFT directory, a model folder or NAME@http://host/v1")
    found: list[RowPlace] = []
    faults = []
    for path in map(str, paths):
        places = _rows_at(path)
        if isinstance(places, str):
            faults.append(places)
        else:
            found += places
    if faults:
        raise DataError("\n".join(faults))
    counts = [place.name for place in found]
    named: list[RowPlace] = []
    for place in found:
        name = place.name
        if counts.count(name) > 1 and place.folder is not None:
            name = name_of(Path(f"{place.folder.absolute().parent.name}-{name}"))
        while name in [other.name for other in named]:
            name += "-again"
        named.append(replace(place, name=name))
    return tuple(named)


def _rows_at(path: str) -> list[RowPlace] | str:
    """The rows of one path, or what is wrong with it."""
    if served := _SERVED.fullmatch(path):
        source = {"model": {"path": served["name"], "endpoint": {"url": served["url"]}}}
        return [RowPlace(name_of(Path(served["name"])), source, None)]
    folder = Path(path).expanduser()
    if not folder.exists():
        if path.count("/") == 1 and not path.startswith((".", "~", "/")):
            return [RowPlace(name_of(folder), {"adapter": path}, None)]  # of the hub
        return f"{path}: there is no such folder; give a PEFT directory or a model folder"
    if not folder.is_dir():
        hint = "; serve a GGUF file and give NAME@http://host/v1" if path.endswith(".gguf") else ""
        return f"{path}: a file; give the folder of an adapter or a model{hint}"
    name = name_of(folder.absolute())
    inside = checkpoints_in(folder)
    if (folder / CONFIG).is_file() and not inside:
        return [RowPlace(name, {"adapter": str(folder.absolute())}, folder, _named_base(folder))]
    if (folder / "config.json").is_file() and not inside:
        return [RowPlace(name, {"model": str(folder.absolute())}, folder)]
    if not inside:
        return (
            f"{path}: neither an adapter (adapter_config.json), nor a model (config.json), nor a folder with "
            "checkpoint-*; save it with save_pretrained()"
        )
    rows: list[RowPlace] = []
    for place in inside:
        match, of_place = CHECKPOINT.fullmatch(place.name), _rows_at(str(place))
        if isinstance(of_place, str):
            return of_place
        rows += [replace(row, step=int(match[1]) if match else None, training=folder) for row in of_place]
    for kind, config, weights in (
        ("adapter", CONFIG, WEIGHTS),
        ("model", "config.json", "model.safetensors"),
    ):
        end = folder / weights
        if (folder / config).is_file() and end.is_file() and not _saved_in(end, inside):
            entry = {kind: str(folder.absolute())}
            rows.append(RowPlace(f"{name}-final", entry, folder, _named_base(folder), training=folder))
            break
    return rows


def _saved_in(end: Path, checkpoints: Sequence[Path]) -> bool:
    """Whether the weights at the end of a training are those of one of its checkpoints, byte for byte."""
    same = (place / end.name for place in checkpoints)
    return any(file.is_file() and filecmp.cmp(file, end, shallow=False) for file in same)


def _named_base(folder: Path) -> str:
    """The base that an adapter names, or an empty text."""
    try:
        named = json.loads((folder / CONFIG).read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    return str(named or "")


def _common_base(places: Sequence[RowPlace]) -> str:
    """The one base that the rows name. DataError where they name none, or several."""
    named = dict.fromkeys(place.base for place in places if place.base)
    if len(named) == 1:
        return next(iter(named))
    if named:
        listed = "; ".join(f"{place.name}: {place.base}" for place in places if place.base)
        raise DataError(f"the rows name different bases ({listed}); audit those of one base, or give --base")
    raise DataError("no row names its base; give --base: a hub id, a folder, or NAME@http://host/v1")


# What the run says beside the verdicts.


def _training_texts(plan: AuditPlan) -> LoadedSource:
    """The rows of a file that the adapters were trained on, read as a source would be, or guessed."""
    file = (plan.training_data or Path()).absolute()
    source = Source(name="training", path=str(file))
    result = examine_source(plan.study, source)
    if not isinstance(result, LoadedSource):
        try:
            guess = guess_of(read_file(file))
        except SourceError as error:
            raise DataError(f"training data {file}: {error.problem.message}") from None
        if isinstance(guess, str):
            raise DataError(f"training data {file}: {guess}")
        source = Source.model_validate({"name": "training", "path": str(file), **guess.settings})
        result = examine_source(plan.study, source)
    if isinstance(result, LoadedSource):
        return result
    raise DataError("\n".join(f"training data {file}, {one.key}: {one.message}" for one in result))


def _known_traits(atlas: MatrixLike | None) -> list[tuple[tuple[str, ...], Any, tuple[str, ...]]]:
    """Targets, loadings (T, C) and names of the supported traits of every matrix of an atlas."""
    known = []
    for prior in read_priors([atlas]) if atlas is not None else ():
        traits = traits_if_any(prior.matrix)
        used = int(traits.n_components.get("used") or 0) if traits is not None else 0
        if traits is not None and used:
            known.append((traits.targets, traits.loadings[:, :used], traits.names[:used]))
    return known


def _drift(where: str, drift: TextDrift | None) -> tuple[str, ...]:
    """Cross-entropy and KL in a sentence, each with its 95 % interval."""
    if drift is None:
        return ()
    forgetting = Interval(*drift.forgetting)
    words = f"{where}: {estimate(forgetting, 3)} nats per token beyond the base"
    divergence = Interval(*drift.divergence)
    kl = f", KL {divergence.value:.3f} [{divergence.low:.3f}, {divergence.high:.3f}] nats"
    return (words + (kl if isfinite(divergence.value) else f", KL unknown: {drift.unknown}"),)


def _overlaps(folder: Path) -> dict[str, tuple[str, ...]]:
    """Row -> sentences on test items that occur in its training data; empty where none was given."""
    contamination = contamination_in(folder)
    told: dict[str, tuple[str, ...]] = {}
    for one in contamination.overlaps if contamination is not None else ():
        if one.material and one.touched:
            part = (
                share(len(one.touched) / max(contamination.items.get(one.target, 1), 1))
                if contamination
                else ""
            )
            told[one.source] = (
                *told.get(one.source, ()),
                f"{one.target}: {part} of the items occur in the training data",
            )
    return told


def _seconds(ledger: Ledger, row: str) -> float:
    taken = [cell.seconds for cell in ledger.cells if cell.source == row and cell.seconds is not None]
    return float(sum(taken)) if taken else nan


def _notes(done: Run, ledger: Ledger) -> tuple[str, ...]:
    """What to know of all rows: failures, and how they were computed."""
    by_row: dict[str, list[FailedUnit]] = {}
    for failure in done.status().failures:
        by_row.setdefault(failure.source, []).append(failure)
    failures = []
    for row, (first, *others) in by_row.items():
        more = f" and {counted(len(others), 'more task')}" if others else ""
        failures.append(f"{row} on {first.target}{more}: {first.reason}" if first.target else first.reason)
    device = ", ".join(str(ledger.conditions[key]) for key in ("device", "dtype") if key in ledger.conditions)
    return (*failures[:6], *([f"computed on {device}"] if device else []))


def _keep(places: Sequence[RowPlace], rows: Sequence[AuditRow], matrix: TransferMatrix) -> str:
    """Which checkpoint to keep, where the rows are checkpoints of one training."""
    training = places[0].training
    if training is None or len(rows) < 2 or any(place.training != training for place in places):
        return ""
    steps = {place.step: row.name for place, row in zip(places, rows, strict=True) if place.step is not None}
    losses = evaluation_losses(training)
    known = {steps[step]: loss for step, loss in losses.items() if step in steps}
    return checkpoint_to_keep(matrix, rows, known)
