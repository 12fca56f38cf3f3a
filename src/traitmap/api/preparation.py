"""A study made ready: its engine, sources and targets opened, and what is told before they are used."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.check import check_file, pair_notes, preview_source
from traitmap.data.conversation import plain_chat
from traitmap.data.lineage import load_sources
from traitmap.engine.cpu.memory import passing_over, paused
from traitmap.engine.open import fit_threads, notes_of, open_rows
from traitmap.errors import DataError, EngineError, ModelError, StudyError
from traitmap.runs.cost import rough_token_counts
from traitmap.runs.store import RunStore, read_study, run_folder
from traitmap.study.load import StudyDraft, read_draft
from traitmap.study.paths import resolve, task_stem
from traitmap.study.renames import with_former_names
from traitmap.study.settings import Study, target_of

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine

_NOTES = 12  # that are told before a run


def load_engine(
    study: Study, *, threads: int | None = None, announce: Callable[[str], None] | None = None
) -> Engine:
    """The engine over the base that a study names, and over its whole models; see ``engine.open_rows``.

    threads: on a CPU no more than these, see ``engine.open.fit_threads``; announce: gets a line where other
    processes leave it fewer than it would take.
    ModelError where the base cannot be loaded, or its server cannot be reached.
    """
    if (line := fit_threads(study.model, threads)) and announce is not None:
        announce(line)
    return open_rows(study, copies_of(study))


def copies_of(study: Study) -> Path | None:
    """The folder with local copies of hub datasets and models that a study names, or None.

    A relative one starts at the study file's folder.
    """
    return resolve(study.data, study.folder) if study.data else None


def load_data(
    study: Study, base: Callable[[], Engine] | None
) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets of a study, rendered; DataError holds all that is wrong with them.

    base: called only where a text cannot be rendered or counted without the base, which takes
        long to load; None where no base is at hand: conversations get a stand-in's form, tokens are guessed.
    """
    with paused():
        from traitmap.data.targets import load_targets  # lm-eval: seconds, and garbage that stays

    if base is None:
        with passing_over():
            return load_sources(study, plain_chat, rough_token_counts), load_targets(study, plain_chat)

    def render_chat(
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        if tools:
            return base().render_chat(messages, add_generation_prompt, tools)
        return base().render_chat(messages, add_generation_prompt)

    def token_counts(texts: Sequence[str]) -> list[int]:
        return base().token_counts(texts)

    with passing_over():
        return load_sources(study, render_chat, token_counts), load_targets(study, render_chat)


def with_caveats(
    sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], engine: Engine
) -> tuple[list[LoadedSource], list[LoadedTarget]]:
    """Sources and targets with what the base's tokens and length do to them, so that it is told and kept.

    A source's ``warnings`` then also hold what its preview tells.
    """
    warned = []
    for source in sources:
        of_tokens = engine.example_caveats(source.examples, source.training) if source.examples else ()
        told = (*preview_source(source).warnings, *(caveat.text for caveat in of_tokens))
        warned.append(replace(source, warnings=told))
    return warned, [
        replace(target, caveats=(*target.caveats, *engine.request_caveats(target.requests)))
        for target in targets
    ]


def require_possible(
    study: Study, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], engine: Engine
) -> None:
    """StudyError for what a run would fail on: adapters that do not fit, items that cannot be asked."""
    places: list[tuple[tuple[str | int, ...], str]] = []
    for at, source in enumerate(study.sources):
        adapter = next((loaded.adapter for loaded in sources if loaded.name == source.name), None)
        if isinstance(adapter, Path) and engine.conditions.get("engine") == "local":
            try:
                engine.answer((), adapter)
            except (ModelError, EngineError) as error:
                places.append((("sources", at, "adapter"), str(error)))
    for target in targets:
        reasons = [caveat.text for caveat in target.caveats if caveat.fatal]
        for at, given in enumerate(study.targets) if reasons else ():
            of_group = target.name.startswith(f"{given.name}.")
            of_pack = given.pack is not None and task_stem(given.pack) in target.tags
            if target.name == given.name or of_group or of_pack:
                key = next(key for key in ("task", "path", "pack") if getattr(given, key) is not None)
                places += [(("targets", at, key), f"target {target.name!r}: {reason}") for reason in reasons]
        for at, source in enumerate(study.sources) if reasons else ():
            if (own := target_of(source)) is not None and own.name == target.name:
                text = f"target {target.name!r}"
                places += [(("sources", at, "target"), f"{text}: {reason}") for reason in reasons]
    if places:
        file = study.path if study.path is not None and study.path.is_file() else None
        draft = read_draft(file) if file else StudyDraft(Path(study.name), ())
        raise StudyError(str(file or study.name), [draft.fault(place, reason) for place, reason in places])


def told_before(
    study: Study, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], engine: Engine
) -> list[str]:
    """What ``check`` would warn of, a line each, for whoever runs a study without it; at most a dozen."""
    lines = [f"{source.name}: {warning}" for source in sources for warning in source.warnings]
    lines += [f"{target.name}: {caveat.text}" for target in targets for caveat in target.caveats]
    refused = (target for target in targets if target.refused)
    lines += [f"{target.name}: its cells will be missing: {target.refused}" for target in refused]
    lines += [*pair_notes(study, sources, targets), *code_that_runs(study), *notes_of(engine, study.lora)]
    if len(lines) > _NOTES:
        lines[_NOTES - 1 :] = [f"and {len(lines) - _NOTES + 1} more: see `traitmap check`."]
    return lines


def system_note() -> str:
    """The system that this is, and whether traitmap is tested on it, in a sentence."""
    system, python = platform.system() or "an unknown system", platform.python_version()
    if system == "Linux":
        return f"this system: Linux, Python {python}; traitmap is tested on Linux."
    return (
        f"this system: {system}, Python {python}; traitmap is tested on Linux alone. Programs that a model "
        "wrote are not run here (the sandbox needs Linux); all else is meant to work."
    )


def code_that_runs(study: Study) -> tuple[str, ...]:
    """What of other people's Python this study lets run on this machine, a sentence for each.

    Empty where both ``trust_remote_code`` and ``allow_code`` are off.
    """
    notes = []
    if study.model.trust_remote_code:
        notes.append(
            f"trust_remote_code: the base {study.model.path!r} brings Python code of its own, which runs on "
            "this machine, outside any sandbox."
        )
    if study.allow_code:
        notes.append(
            "allow_code: functions of the study's own task files run on this machine, outside any sandbox; "
            "programs that a model writes run in the sandbox."
        )
    return tuple(notes)


def study_in_order(study: Study | str | Path, data: str | Path | None = None) -> Study:
    """The study, its file and all folders that it names looked at; the rows are ``loaded_data``'s."""
    if not isinstance(study, Study):
        return check_file(study, data=data, rows=False)
    data = study.data if data is None else os.path.abspath(data)
    if study.path is not None and study.path.is_file():
        check_file(study.path, data=resolve(data, study.folder) if data else None, rows=False)
    return study.model_copy(update={"data": str(data)}) if data else study


def loaded_data(
    study: Study, base: Callable[[], Engine] | None
) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets, rendered once. Where that fails, StudyError with every fault at its place."""
    try:
        return load_data(study, base)
    except DataError:
        if study.path is not None and study.path.is_file():
            check_file(study.path, data=copies_of(study))
        raise


def with_known_names(study: Study) -> tuple[Study, dict[str, str]]:
    """The study with sources that draw as they did in its run folder, and those renamed since: new -> former.

    See ``study.renames``; the study as it is where the folder holds no run.
    """
    return with_former_names(study, read_study(RunStore(run_folder(study))))
