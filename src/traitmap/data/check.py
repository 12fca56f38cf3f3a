"""What stands against running a study, and how its sources look before anything is trained on them.

Faults of the file and of the data that it names come together: what is in order is looked at although other
parts are not. Data are looked at as far as a check needs, all rows only where a part says nothing of the
whole. `preview_source` shows counts, words, two examples and what is legal but seldom meant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from traitmap.data.conversation import RenderChat, plain_chat
from traitmap.data.lineage import SourceLoader, repeated
from traitmap.data.records import Example, ServedAdapter
from traitmap.data.sources import Lineage, LoadedSource, examine_source
from traitmap.errors import DataError, Fault, StudyError
from traitmap.study.document import Place
from traitmap.study.load import StudyDraft, read_draft
from traitmap.study.paths import MINI, is_task_file, model_location, resolve
from traitmap.study.rules import parents
from traitmap.study.settings import Model, Study, Target

# lm-eval takes about a millisecond to render one row of a task, so a check looks at some of them
_ROWS_CHECKED = 50


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
        copies = os.path.abspath(data)
        study = draft.study.model_copy(update={"data": copies}) if draft.study is not None else None
        draft = replace(draft, study=study, data=copies)
    if not rows and draft.study is not None and not draft.faults and not place_faults(draft):
        return draft.study
    faults = [*draft.faults, *data_faults(draft, render_chat)]
    if draft.study is None or faults:
        raise StudyError(str(path), faults)
    return draft.study


def data_faults(draft: StudyDraft, render_chat: RenderChat | None = None) -> list[Fault]:
    """Faults of what a study file names, for those of its parts that are in order themselves.

    render_chat: as for `check_file`. Each fault has its line where the file has one for its place.
    """
    study = _stand_in(draft)
    faults = [
        *place_faults(draft),
        *_source_faults(draft, study, render_chat),
        *_target_faults(draft, study, render_chat),
    ]
    return [draft.fault(place, message) for place, message in faults]


def place_faults(draft: StudyDraft) -> list[tuple[Place, str]]:
    """Faults of the folders that a study file names: the base, its tasks, its copies. Reads no rows."""
    study = _stand_in(draft)
    faults: list[tuple[Place, str]] = []
    if problem := _model_problem(draft):
        faults.append((("model", "path"), problem))
    for at, name in enumerate(draft.include_path):
        if name not in study.include_path:
            folder = resolve(name, study.folder)
            faults.append(
                (("include_path", at), f"there is no folder {folder}; create it or remove the line")
            )
    if study.data is not None and not os.path.isdir(folder := resolve(study.data, study.folder)):
        message = f"there is no folder {folder}; it is for copies of hub datasets, org__name/ each"
        faults.append((("data",), message))
    return faults


def _stand_in(draft: StudyDraft) -> Study:
    """A study of the parts that are in order, so that they can be loaded although others are not."""
    study, include_path = draft.study, draft.include_path
    if study is None:
        study = Study.model_construct(
            name="draft",
            model=draft.model or Model(path="absent"),
            sources=tuple(draft.sources.values()),
            targets=tuple(draft.targets.values()),
            sample_seed=draft.sample_seed,
            data=draft.data,
            path=draft.path,
        )
    # an absent folder is told once, not again by every task
    folders = tuple(name for name in include_path if os.path.isdir(resolve(name, study.folder)))
    return study.model_copy(update={"include_path": folders})


def _model_problem(draft: StudyDraft) -> str | None:
    """Why the base cannot be opened, as far as its folder says; a server is asked when it is opened."""
    if draft.model is None or draft.model.endpoint is not None:
        return None
    path = draft.model.path
    if path.startswith("builtin:") and path != MINI:
        return f"{path!r} is not built in; there is {MINI}"
    folder = model_location(path, draft.path.parent)
    if not isinstance(folder, Path):
        return None
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; give a model folder, a hub id such as org/name, or {MINI}"
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except OSError:
        return f"{folder} has no config.json, so it is not a model in Hugging Face layout; check the path"
    except ValueError as error:
        return f"{folder / 'config.json'} is not valid JSON ({error}); copy the model again"
    return None if isinstance(config, dict) else f"{folder / 'config.json'} does not hold an object"


def _source_faults(
    draft: StudyDraft, study: Study, render_chat: RenderChat | None
) -> Iterator[tuple[Place, str]]:
    def word_counts(texts: Sequence[str]) -> list[float]:  # of tokens, any number will do here
        return [float(len(text.split())) for text in texts]

    loader = SourceLoader(study, render_chat or plain_chat, word_counts)
    material = {name for source in draft.sources.values() for name in parents(source.model_dump())}
    for at, source in draft.sources.items():
        if source.name in material or parents(source.model_dump()):
            problems = loader.problems(source)  # whole: of some rows nobody can tell what becomes of all
        else:
            some = source.model_copy(update={"limit": _at_most(source.limit)})  # part of what will be drawn
            result = examine_source(study, some if source.task else source, render_chat or plain_chat)
            problems = [] if isinstance(result, LoadedSource) else result
        for problem in problems:
            yield ("sources", at, problem.key), problem.message
    places = {source.name: at for at, source in draft.sources.items()}
    loaded = [source for source in loader.results.values() if isinstance(source, LoadedSource)]
    trained = [source for source in loaded if draft.sources[places[source.name]].train]
    for name, problem in repeated(trained):
        yield ("sources", places[name], problem.key), problem.message


def _target_faults(
    draft: StudyDraft, study: Study, render_chat: RenderChat | None
) -> Iterator[tuple[Place, str]]:
    for at, target in draft.targets.items():
        if is_task_file(target.task) and not os.path.isfile(file := resolve(target.task, study.folder)):
            yield ("targets", at, "task"), f"there is no file {file}; check the path"
            continue
        if not render_chat:  # where no base is at hand, all but the chat template can still be checked
            target = target.model_copy(update={"apply_chat_template": False})
        if message := _target_problem(study, target, render_chat):
            yield ("targets", at, "task"), message.removeprefix(f"target {target.name!r}: ")


def _target_problem(study: Study, target: Target, render_chat: RenderChat | None) -> str | None:
    from traitmap.data.targets import load_target  # lm-eval takes seconds to import

    some = target.model_copy(update={"limit": _at_most(target.limit or study.limit)})
    for part in (some, target):  # the first items may hide their gold answers while others show them
        try:
            load_target(study, part, render_chat)
        except DataError as error:
            message = str(error)
            if "gold" not in message:
                return message
        else:
            return None
    return message


def _at_most(limit: int | None) -> int:
    return min(limit or _ROWS_CHECKED, _ROWS_CHECKED)


@dataclass(frozen=True)
class SourcePreview:
    """One source as `traitmap check` shows it.

    examples: how many will be trained on; available: how many there are before ``limit``.
    label_counts: examples of each label word (empty without labels).
    shown: two examples, of two different labels where there are labels.
    warnings: what is legal but seldom meant.
    adapter: the PEFT directory, or the adapter on a server, that is used instead of training, or None.
    variation: what was changed in which source, with a row before and after, or None.
    read_as: the format of the rows that was recognised, with their number; empty under templates.
    """

    name: str
    examples: int
    available: int
    label_counts: Mapping[str, int]
    shown: tuple[Example, ...]
    warnings: tuple[str, ...]
    adapter: Path | ServedAdapter | None
    variation: Lineage | None = None
    read_as: str = ""


@dataclass(frozen=True)
class LengthSummary:
    """Tokens of a source's examples, prompt and completion together.

    median, longest: tokens of one example. cut: examples that are longer than training.max_length.
    """

    median: int
    longest: int
    cut: int


def lengths_of(counts: Sequence[int], max_length: int) -> LengthSummary:
    """Summary of the token counts of a source's examples (at least one).

    counts: tokens of each example, prompt and completion together; max_length: ``training.max_length``.
    """
    return LengthSummary(int(median(counts)), max(counts), sum(count > max_length for count in counts))


def preview_source(loaded: LoadedSource) -> SourcePreview:
    """Look at a loaded source: its counts, two of its examples and what is legal but seldom meant."""
    first = loaded.examples[:1]
    unlike = [example for example in loaded.examples[1:] if example.label != loaded.examples[0].label]
    return SourcePreview(
        name=loaded.name,
        examples=len(loaded.examples),
        available=loaded.available,
        label_counts=loaded.label_counts,
        shown=(*first, *(unlike or loaded.examples[1:])[:1]),
        warnings=(*loaded.warnings, *_warnings(loaded.examples)),
        adapter=loaded.adapter,
        variation=loaded.variation,
        read_as=loaded.read_as,
    )


def _warnings(examples: Sequence[Example]) -> list[str]:
    total = f"{len(examples):,}"
    texts = [(example.prompt, example.completion) for example in examples]
    empty = sum(not completion.strip() for _, completion in texts)
    joined = sum(
        bool(prompt and completion) and not (prompt[-1].isspace() or completion[0].isspace())
        for prompt, completion in texts
    )
    spaced = sum(prompt.endswith(" ") for prompt, _ in texts)
    repeats = len(examples) - len({example.segments for example in examples})
    warnings = []
    if empty:
        warnings.append(f"in {empty:,} of {total} examples there is nothing but blanks to learn")
    if joined:
        warnings.append(
            f"in {joined:,} of {total} examples the completion follows the prompt without a space or newline "
            "between; begin the completion with one"
        )
    if spaced:
        warnings.append(
            f"in {spaced:,} of {total} examples the prompt ends in a space, which most tokenizers put in "
            "front of the next word; move it to the beginning of the completion"
        )
    if repeats:
        warnings.append(f"{repeats:,} of {total} examples repeat an earlier one")
    return warnings
