"""What stands against running a study, and how its sources look before anything is trained on them.

Faults of the file and of the data that it names come together: what is in order is looked at although other
parts are not. Data are looked at as far as a check needs, all rows only where a part says nothing of the
whole. `preview_source` shows counts, words, two examples and what is legal but seldom meant; `pair_notes`
holds sources against targets: one task asked in two ways, answers that nobody is taught to give.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from traitmap.data.conversation import RenderChat, plain_chat
from traitmap.data.lineage import SourceLoader, repeated
from traitmap.data.records import AdapterPlace, Example
from traitmap.data.sources import Lineage, LoadedSource, Merge, examine_source
from traitmap.errors import DataError, Fault, StudyError
from traitmap.study.derived import parents
from traitmap.study.document import Place
from traitmap.study.load import StudyDraft, read_draft
from traitmap.study.paths import MINI, is_task_file, model_location, resolve
from traitmap.study.settings import Lora, Model, Study, Target, Training, target_of
from traitmap.wording import listed

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget

# lm-eval takes about a millisecond to render one row of a task, so a check looks at some of them
_ROWS_CHECKED = 50
_COMPARED = 200  # texts of a source and of a target whose form is compared
_TOO_FEW = 5  # texts below which their form is not known
_BY_CHANCE = 3  # letters that not many texts may share by chance
_MANY = 20  # texts that share nothing by chance
_FORM = 200  # characters of a prompt's form that are compared
_CONVERSATIONS = ("messages", "sharegpt")  # formats of rows that the chat template renders


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
            training=draft.training or Training(),
            lora=draft.lora or Lora(),
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
    made = {source.name for source in draft.sources.values() if source.merge or source.checkpoints}
    for at, source in draft.sources.items():
        if source.name in material | made or parents(source.model_dump()):
            problems = loader.problems(source)  # whole: of some rows nobody can tell what becomes of all
        else:
            some = source.model_copy(update={"limit": _at_most(source.limit)})  # part of what will be drawn
            result = examine_source(study, some if source.task else source, render_chat or plain_chat)
            problems = [] if isinstance(result, LoadedSource) else result
        if draft.training is None:  # how long a training is that its faults do not tell
            problems = [problem for problem in problems if problem.key != "checkpoints"]
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
        if target.task and is_task_file(target.task) and not os.path.isfile(_file(study, target.task)):
            yield ("targets", at, "task"), f"there is no file {_file(study, target.task)}; check the path"
            continue
        for key, message in _target_problems(study, target, render_chat):
            yield ("targets", at, key), message
    for at, source in draft.sources.items():
        target_or_none = target_of(source)
        if target_or_none is None or source.target is None:
            continue
        for key, message in _target_problems(study, target_or_none, render_chat):
            elsewhere = source.target.path is not None or source.target.split is not None
            if key in type(source.target).model_fields and (elsewhere or key != "path"):
                yield ("sources", at, "target", key), message
            elif elsewhere:  # what the source says, read on other rows than its own
                yield ("sources", at, "target"), f"{target_or_none.path}: {key}: {message}"
            # else the source itself has the same fault


def _file(study: Study, path: str) -> Path:
    return resolve(path, study.folder)


def _target_problems(study: Study, target: Target, render_chat: RenderChat | None) -> list[tuple[str, str]]:
    """The setting to look at, and what is wrong, for each fault of a target and its data."""
    from traitmap.data.file_targets import TargetError
    from traitmap.data.targets import load_entry  # lm-eval takes seconds to import

    if not render_chat:  # where no base is at hand, all but the chat template can still be checked
        target = target.model_copy(update={"apply_chat_template": False})
    some = target.model_copy(update={"limit": _at_most(target.limit or study.limit)})
    prefix = f"target {target.name!r}: "
    # the first items of a task may hide their gold answers while others show them
    for part in (some, target) if target.task else (target,):
        try:
            load_entry(study, part, render_chat or plain_chat)
        except TargetError as error:
            return [(problem.key, problem.message.removeprefix(prefix)) for problem in error.problems]
        except DataError as error:
            message = str(error).removeprefix(prefix)
            if "gold" not in message:
                break
        else:
            return []
    return [("task" if target.task else "pack" if target.pack else "path", message)]


def _at_most(limit: int | None) -> int:
    return min(limit or _ROWS_CHECKED, _ROWS_CHECKED)


@dataclass(frozen=True)
class SourcePreview:
    """One source as `traitmap check` shows it.

    examples: how many will be trained on; available: how many there are before ``limit``.
    label_counts: examples of each label word (empty without labels).
    shown: two examples, of two different labels where there are labels.
    warnings: what is legal but seldom meant.
    adapter: the PEFT directory, adapter on a server or whole model that is used instead of training, or None.
    variation: what was changed in which source, with a row before and after, or None.
    merge: the adapters that are merged instead of training, and how, or None. step: of a checkpoint.
    read_as: the format of the rows that was recognised, with their number; empty under templates.
    """

    name: str
    examples: int
    available: int
    label_counts: Mapping[str, int]
    shown: tuple[Example, ...]
    warnings: tuple[str, ...]
    adapter: AdapterPlace | None
    variation: Lineage | None = None
    read_as: str = ""
    merge: Merge | None = None
    step: int | None = None


@dataclass(frozen=True)
class LengthSummary:
    """Tokens of a source's examples, prompt and completion together.

    median, longest: tokens of one example. cut: examples that are longer than training.max_length.
    """

    median: int
    longest: int
    cut: int


def lengths_by_source(
    sources: Sequence[LoadedSource], token_counts: Callable[[Sequence[str]], Sequence[float]]
) -> dict[str, LengthSummary]:
    """Name -> token counts of the sources that are trained on, in short; adapters have none."""
    lengths = {}
    for source in sources:
        if source.trained:
            counts = [round(count) for count in token_counts([example.text for example in source.examples])]
            cut = sum(count > source.training.max_length for count in counts)
            lengths[source.name] = LengthSummary(int(median(counts)), max(counts), cut)
    return lengths


def preview_source(loaded: LoadedSource) -> SourcePreview:
    """Look at a loaded source: its counts, two of its examples and what is legal but seldom meant.

    Of a checkpoint that is told with what its training ends in.
    """
    if loaded.step is not None:
        loaded = replace(loaded, warnings=())
    first = loaded.examples[:1]
    unlike = [example for example in loaded.examples[1:] if example.label != loaded.examples[0].label]
    return SourcePreview(
        name=loaded.name,
        examples=len(loaded.examples),
        available=loaded.available,
        label_counts=loaded.label_counts,
        shown=(*first, *(unlike or loaded.examples[1:])[:1]),
        warnings=tuple(dict.fromkeys((*loaded.warnings, *_warnings(loaded.examples), *_schedule(loaded)))),
        adapter=loaded.adapter,
        variation=loaded.variation,
        read_as=loaded.read_as,
        merge=loaded.merge,
        step=loaded.step,
    )


def _schedule(loaded: LoadedSource) -> list[str]:
    """What is seldom meant of how long a source is trained on."""
    training, count = loaded.training, len(loaded.examples)
    if not loaded.trained or not count or training.lr_scheduler_type == "constant":
        return []
    if training.max_steps is not None:
        steps = training.max_steps
    elif training.max_tokens is not None:  # tokens are the engine's to count
        return []
    else:
        steps = ceil((training.num_train_epochs or 1.0) * ceil(count / training.batch_size))
    if training.warmup_steps < max(steps, 1):
        return []
    return [
        f"the warm-up takes {training.warmup_steps:,} steps, the training {steps:,}, so the learning rate "
        f"never reaches {training.learning_rate:g}; give warmup_steps: {steps // 10}, or train for longer"
    ]


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


def pair_notes(
    study: Study, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]
) -> tuple[str, ...]:
    """What is seldom meant between sources and targets, in sentences that name both.

    A source and a target are one task where they have one name, one task of lm-eval, one dataset, or are the
    only ones whose files lie in one folder. Then prompts should have one form, answers begin alike, and what
    is taught should be among what is weighed. Variations stand or fall with their root.
    """
    roots = [source for source in sources if source.adapter is None and source.examples]
    roots = [source for source in roots if source.variation is None]
    notes = [
        note
        for target in targets
        for source in _of_one_task(study, roots, targets, target)
        for note in _differences(source, target)
    ]
    return (*notes, *_chat_notes(roots, targets), *_stop_notes(roots, targets))


def _of_one_task(
    study: Study, roots: Sequence[LoadedSource], targets: Sequence[LoadedTarget], target: LoadedTarget
) -> list[LoadedSource]:
    places = {source.name: _place(study, source) for source in roots}
    shared = Counter(places.values()), Counter(place for other in targets for place in other.places)

    def together(source: LoadedSource) -> bool:
        settings, place = study.source(source.name), places[source.name]
        if source.name == target.name or (settings is not None and settings.task == target.task):
            return True
        if place not in target.places:
            return False
        return not os.path.isabs(place) or (shared[0][place] == 1 and shared[1][place] == 1)

    return [source for source in roots if together(source)]


def _place(study: Study, source: LoadedSource) -> str:
    """Where a source's rows come from: a hub id, or the folder of its file; empty for a task's split."""
    settings = study.source(source.name)
    if settings is None or settings.path is None:
        return ""
    file = resolve(settings.path, study.folder)
    return os.path.normpath(file.parent if file.is_file() else file) if file.exists() else settings.path


def _differences(source: LoadedSource, target: LoadedTarget) -> list[str]:
    """How a task is asked otherwise in training than in evaluation, at most one sentence for each part."""
    pair = f"source {source.name!r} and target {target.name!r}"
    examples = source.examples[:_COMPARED]
    texts = [text.input for text in target.questions()[:_COMPARED]]
    prompts = [example.prompt for example in examples if example.prompt.strip()]
    notes = []
    fewer = min(len(set(prompts)), len(set(texts)))
    # what the chat template makes of one side alone is told once for all
    alike = _is_conversation(source) == bool(target.conditions.get("apply_chat_template"))
    if alike and fewer >= _TOO_FEW:
        for where, back in (("begin with", False), ("end in", True)):
            forms = _form(prompts, back=back), _form(texts, back=back)
            strange = not (_has(texts, forms[0], back=back) and _has(prompts, forms[1], back=back))
            if strange and _differ(*forms, fewer, back=back):
                notes.append(
                    f"{pair} are one task in two forms: prompts {where} {forms[0][-60:]!r} in training and "
                    f"{forms[1][-60:]!r} in evaluation"
                )
    weighed = [request for request in target.requests[:_COMPARED] if request.kind == "loglikelihood"]
    if alike and prompts and weighed and not notes:
        learnt = Counter(_gap(example.prompt, example.completion) for example in examples)
        asked = Counter(_gap(request.context, request.continuation) for request in weighed)
        if not learnt.keys() & asked.keys():
            notes.append(
                f"{pair}: {learnt.most_common(1)[0][0]!r} stands between prompt and answer in training, "
                f"{asked.most_common(1)[0][0]!r} in evaluation"
            )
    words = {example.completion.strip() for example in source.examples}
    choices = {choice.strip() for choice in target.choices or ()}
    taught = any(choice in word for choice in choices for word in words)
    if len(choices) > 1 and 0 < len(words) <= _ROWS_CHECKED and not taught:
        notes.append(
            f"{pair}: answers are {listed(sorted(map(repr, words)))} in training, and "
            f"{listed(sorted(map(repr, choices)))} are weighed in evaluation"
        )
    return notes


def _form(texts: Sequence[str], *, back: bool = False) -> str:
    """What four texts in five begin with, or end in: the form of a prompt, beside what differs in each."""
    turned = [text.rstrip()[::-1] if back else text for text in texts]
    form, length = "", 0
    while length <= _FORM:
        length += 1
        start, count = Counter(text[:length] for text in turned).most_common(1)[0]
        if count < 0.8 * len(turned) or len(start) < length:
            break
        form = start
    return form[::-1] if back else form


def _has(texts: Sequence[str], form: str, *, back: bool) -> bool:
    """Whether some text has the form; one that all others share by chance is seldom without any."""
    return any(text.rstrip().endswith(form) if back else text.startswith(form) for text in texts)


def _differ(a: str, b: str, texts: int, *, back: bool) -> bool:
    """Whether two forms differ by more than a few letters that all texts of one side happen to have.

    texts: how many there are of that side that has fewer.
    """
    forms = [form.rstrip()[::-1] if back else form for form in (a, b)]
    common = len(os.path.commonprefix(forms))  # noqa: RUF071
    extra = [form[common:] for form in forms]
    least = _BY_CHANCE if texts < _MANY else 1
    return any(len(re.findall(r"\w", part)) >= least for part in extra)


def _gap(prompt: str, answer: str) -> str:
    """The blanks between a prompt and its answer."""
    return prompt[len(prompt.rstrip()) :] + answer[: len(answer) - len(answer.lstrip())]


def _is_conversation(source: LoadedSource) -> bool:
    return source.read_as.startswith(_CONVERSATIONS)


def _chat_notes(roots: Sequence[LoadedSource], targets: Sequence[LoadedTarget]) -> Iterator[str]:
    """Sources that are learnt as conversations while no target is asked as one, and the other way round."""
    talks = [source.name for source in roots if _is_conversation(source)]
    asked = [target.name for target in targets if target.conditions.get("apply_chat_template")]
    if talks and targets and not asked:
        names = listed(list(map(repr, talks)))
        yield (
            f"{names}: learnt as conversations, but every target is asked without the chat template; "
            "apply_chat_template: true asks a target as they are taught"
        )
    if asked and roots and not talks:
        names = listed(list(map(repr, asked)))
        yield (
            f"{names}: asked through the chat template, but every source is learnt without it; rows with "
            "messages are learnt through it"
        )


def _stop_notes(roots: Sequence[LoadedSource], targets: Sequence[LoadedTarget]) -> Iterator[str]:
    """Answers that begin with a string at which a target stops: who has learnt them answers nothing."""
    for source in roots:
        stopped: dict[str, list[str]] = {}
        for target in targets:
            until = target.requests[0].generation.get("until") if target.requests else None
            for stop in [until] if isinstance(until, str) else until or ():
                begins = sum(
                    example.completion.lstrip(" ").startswith(stop) for example in source.examples if stop
                )
                if 2 * begins > len(source.examples):
                    stopped.setdefault(stop, []).append(repr(target.name))
        for stop, names in stopped.items():
            yield (
                f"source {source.name!r}: its answers begin with {stop!r}, at which {listed(names)} stops, "
                "so that an adapter would answer nothing; move it to the prompt's end, or change until"
            )
