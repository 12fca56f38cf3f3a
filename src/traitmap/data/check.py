"""Everything that stands against running a study: faults of its file and of the data it names, together.

What a source looks like before anything is trained on it: counts, words, two examples, and warnings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from traitmap.data.lineage import SourceLoader, repeated
from traitmap.data.records import Example, ServedAdapter
from traitmap.data.render import RenderChat, plain_chat
from traitmap.data.sources import Lineage, LoadedSource, examine_source
from traitmap.errors import DataError, Fault, StudyError
from traitmap.study.document import Place
from traitmap.study.load import StudyDraft, read_draft
from traitmap.study.paths import MINI, is_task_file, model_location, resolve
from traitmap.study.rules import parents
from traitmap.study.settings import Model, Study, Target

Found = tuple[Place, str]
_FEW = 50


def check_file(
    path: str | Path,
    render_chat: RenderChat | None = None,
    data: str | Path | None = None,
    *,
    rows: bool = True,
) -> Study:
    """The study in a file whose data is all in order, or StudyError with every fault of file and data.

    render_chat: ``Engine.render_chat`` where a base is at hand; without it conversations are looked
        at, but not rendered as the base would. data: another folder of copies than the study's ``data``.
    rows: False where the caller loads all rows next and comes back if that fails: then they are looked at
        only where something else is wrong already, so that all faults are told at once.
    """
    draft = read_draft(path)
    if data is not None:
        draft = _reading(draft, os.path.abspath(data))
    if not rows and draft.study is not None and not draft.faults and not place_faults(draft):
        return draft.study
    faults = [*draft.faults, *data_faults(draft, render_chat)]
    if draft.study is None or faults:
        raise StudyError(str(path), faults)
    return draft.study


def _reading(draft: StudyDraft, data: str) -> StudyDraft:
    """The draft with another folder of copies."""
    study = draft.study.model_copy(update={"data": data}) if draft.study is not None else None
    return replace(draft, study=study, data=data)


def data_faults(draft: StudyDraft, render_chat: RenderChat | None = None) -> list[Fault]:
    """Faults of what a study file names, for those of its parts that are in order themselves."""
    study = _stand_in(draft)
    found = [
        *place_faults(draft),
        *_source_faults(draft, study, render_chat),
        *_target_faults(draft, study, render_chat),
    ]
    return [draft.fault(place, message) for place, message in found]


def place_faults(draft: StudyDraft) -> list[Found]:
    """Faults of the folders that a study file names: the base, its tasks, its copies. Reads no rows."""
    study = _stand_in(draft)
    return [*_model_faults(draft), *_include_faults(draft, study), *_copies_faults(study)]


def _stand_in(draft: StudyDraft) -> Study:
    """A study of the parts that are in order, so that they can be loaded although others are not."""
    if draft.study is not None:
        folders = _folders(draft.study.include_path, draft.study)
        return draft.study.model_copy(update={"include_path": folders})
    study = Study.model_construct(
        name="draft",
        model=draft.model or Model(path="absent"),
        sources=tuple(draft.sources.values()),
        targets=tuple(draft.targets.values()),
        sample_seed=draft.sample_seed,
        data=draft.data,
        path=draft.path,
    )
    return study.model_copy(update={"include_path": _folders(draft.include_path, study)})


def _folders(include_path: tuple[str, ...], study: Study) -> tuple[str, ...]:
    """Those that exist: an absent one is told once, not again by every task."""
    return tuple(folder for folder in include_path if os.path.isdir(resolve(folder, study.folder)))


def _model_faults(draft: StudyDraft) -> Iterator[Found]:
    if draft.model is None:
        return
    if draft.model.endpoint is not None:
        return  # a name on a server, which is asked when the engine is opened
    path, place = draft.model.path, ("model", "path")
    if path.startswith("builtin:") and path != MINI:
        yield place, f"{path!r} is not built in; there is {MINI}"
        return
    location = model_location(path, draft.path.parent)
    if isinstance(location, Path):
        problem = _model_problem(location)
        if problem:
            yield place, problem


def _model_problem(folder: Path) -> str | None:
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; give a model folder, a hub id such as org/name, or {MINI}"
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except OSError:
        return f"{folder} has no config.json, so it is not a model in Hugging Face layout; check the path"
    except ValueError as error:
        return f"{folder / 'config.json'} is not valid JSON ({error}); copy the model again"
    return None if isinstance(config, dict) else f"{folder / 'config.json'} does not hold an object"


def _include_faults(draft: StudyDraft, study: Study) -> Iterator[Found]:
    for at, folder in enumerate(draft.include_path):
        if folder not in study.include_path:
            where = resolve(folder, study.folder)
            yield ("include_path", at), f"there is no folder {where}; create it or remove the line"


def _copies_faults(study: Study) -> Iterator[Found]:
    if study.data is not None and not os.path.isdir(resolve(study.data, study.folder)):
        where = resolve(study.data, study.folder)
        yield ("data",), f"there is no folder {where}; it is for copies of hub datasets, org__name/ each"


def _source_faults(draft: StudyDraft, study: Study, render_chat: RenderChat | None) -> Iterator[Found]:
    loader = SourceLoader(study, render_chat or plain_chat, _words)  # of tokens, any number will do here
    material = {name for source in draft.sources.values() for name in parents(source.model_dump())}
    for at, source in draft.sources.items():
        if source.name in material or parents(source.model_dump()):
            problems = loader.problems(source)  # whole: of some rows nobody can tell what becomes of all
        else:
            few = source.model_copy(update={"limit": _few(source.limit)})  # a part of what will be drawn
            found = examine_source(study, few if source.task else source, render_chat or plain_chat)
            problems = [] if isinstance(found, LoadedSource) else found
        for problem in problems:
            yield ("sources", at, problem.key), problem.message
    places = {source.name: at for at, source in draft.sources.items()}
    loaded = [one for one in loader.results.values() if isinstance(one, LoadedSource)]
    trained = [one for one in loaded if draft.sources[places[one.name]].train]
    for name, problem in repeated(trained):
        yield ("sources", places[name], problem.key), problem.message


def _words(texts: Sequence[str]) -> list[float]:
    return [float(len(text.split())) for text in texts]


def _target_faults(draft: StudyDraft, study: Study, render_chat: RenderChat | None) -> Iterator[Found]:
    for at, target in draft.targets.items():
        place = ("targets", at, "task")
        if is_task_file(target.task) and not os.path.isfile(resolve(target.task, study.folder)):
            yield place, f"there is no file {resolve(target.task, study.folder)}; check the path"
        elif said := _target_problem(study, _without_chat(target, render_chat), render_chat):
            yield place, said.removeprefix(f"target {target.name!r}: ")


def _target_problem(study: Study, target: Target, render_chat: RenderChat | None) -> str | None:
    from traitmap.data.targets import load_target  # lm-eval takes seconds to import

    few = target.model_copy(update={"limit": _few(target.limit or study.limit)})
    try:
        load_target(study, few, render_chat)
    except DataError as error:
        if "gold" not in str(error):
            return str(error)
        try:  # the first items may hide their gold answers while others show them
            load_target(study, target, render_chat)
        except DataError as whole:
            return str(whole)
    return None


def _few(limit: int | None) -> int:
    """lm-eval takes about a millisecond to render one row of a task, so a check looks at some of them."""
    return min(limit or _FEW, _FEW)


def _without_chat(target: Target, render_chat: RenderChat | None) -> Target:
    """Where no base is at hand, all of a target but its chat template can still be checked."""
    return target if render_chat else target.model_copy(update={"apply_chat_template": False})


@dataclass(frozen=True)
class SourcePreview:
    """One source as `traitmap check` shows it.

    examples: how many will be trained on; available: how many there are before ``limit``.
    label_counts: examples of each label word (empty without labels).
    shown: two examples, of two different labels where there are labels.
    warnings: what is legal but seldom meant.
    adapter: the PEFT directory, or the adapter on a server, that is used instead of training, or None.
    variation: what was changed in which source, with a row before and after, or None.
    """

    name: str
    examples: int
    available: int
    label_counts: Mapping[str, int]
    shown: tuple[Example, ...]
    warnings: tuple[str, ...]
    adapter: Path | ServedAdapter | None
    variation: Lineage | None = None


@dataclass(frozen=True)
class LengthSummary:
    """Tokens of a source's examples, prompt and completion together.

    median, longest: tokens of one example. cut: examples that are longer than training.max_length.
    """

    median: int
    longest: int
    cut: int


def lengths_of(counts: Sequence[int], max_length: int) -> LengthSummary:
    """Summary of the token counts of a source's examples (at least one)."""
    return LengthSummary(int(median(counts)), max(counts), sum(count > max_length for count in counts))


def preview_source(loaded: LoadedSource) -> SourcePreview:
    """Look at a loaded source."""
    return SourcePreview(
        name=loaded.name,
        examples=len(loaded.examples),
        available=loaded.available,
        label_counts=loaded.label_counts,
        shown=_two(loaded.examples),
        warnings=(*loaded.warnings, *_warnings(loaded.examples)),
        adapter=loaded.adapter,
        variation=loaded.variation,
    )


def _two(examples: Sequence[Example]) -> tuple[Example, ...]:
    first = examples[:1]
    others = (example for example in examples[1:] if example.label != examples[0].label)
    return (*first, *(examples[1:2] if (other := next(others, None)) is None else (other,)))


def _warnings(examples: Sequence[Example]) -> list[str]:
    total = f"{len(examples):,}"
    empty = sum(not example.completion.strip() for example in examples)
    joined = sum(_runs_together(example) for example in examples)
    spaced = sum(example.prompt.endswith(" ") for example in examples)
    repeated = len(examples) - len({example.segments for example in examples})
    found = []
    if empty:
        found.append(f"in {empty:,} of {total} examples there is nothing but blanks to learn")
    if joined:
        found.append(
            f"in {joined:,} of {total} examples the completion follows the prompt without a space or newline "
            "between; begin the completion with one"
        )
    if spaced:
        found.append(
            f"in {spaced:,} of {total} examples the prompt ends in a space, which most tokenizers put in "
            "front of the next word; move it to the beginning of the completion"
        )
    if repeated:
        found.append(f"{repeated:,} of {total} examples repeat an earlier one")
    return found


def _runs_together(example: Example) -> bool:
    prompt, completion = example.prompt, example.completion
    return bool(prompt and completion) and not (prompt[-1].isspace() or completion[0].isspace())
