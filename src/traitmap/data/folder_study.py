"""A study out of a folder of data files: what each file is, guessed from its name, columns and values.

Every guess stands in the study as a comment beside what follows from it, and whatever is left out stands at
its end with the reason. Each file's part is tried on the data before it is written, so that the study passes
`traitmap check`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from traitmap.data.conversation import plain_chat
from traitmap.data.render import render_rows
from traitmap.data.rows import SourceError, SourceTable, read_file
from traitmap.data.shapes import shape_of
from traitmap.data.sources import LoadedSource, examine_source
from traitmap.errors import DataError
from traitmap.study.init import name_of, write_study
from traitmap.study.paths import MINI, data_stem, data_suffix
from traitmap.study.settings import Model, Source, Study, Target, target_of

_TRAIN = ("train", "training", "trn")
_TEST = ("test", "eval", "evaluation", "validation", "valid", "val", "dev", "heldout", "held_out")
_SPLIT = re.compile(rf"(?:^|[-_. ])({'|'.join((*_TRAIN, *_TEST))})(?:[-_. ]|$)", re.IGNORECASE)
_LABELS = (
    *("label", "labels", "class", "category", "sentiment", "intent", "topic", "stance", "emotion", "target"),
    *("gold", "rating", "stars", "score", "coarse_label", "is_correct"),
)
_QUESTIONS = ("question", "instruction", "problem", "query", "prompt", "input", "sentence", "source", "text")
_ANSWERS = ("answer", "response", "output", "completion", "solution", "target", "translation", "code")
_FINALS = ("final", "final_answer", "short_answer", "answer_number")
_CHOICES = ("choices", "options", "endings")
_PAIRS = (
    *(("text1", "text2"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("text_a", "text_b")),
    *(("question1", "question2"), ("passage", "question"), ("context", "question")),
)
_CODE_LIKE = re.compile(r"id|idx|index|uuid|url|date|time|source|split|lang(uage)?", re.IGNORECASE)
_MOST_CLASSES = 30
_FEWEST = 8  # rows from which a study can be made
_LOOKED_AT = 2000  # rows from which a file's columns are guessed
_LARGEST = 500_000_000  # bytes of a file that is read for a guess


@dataclass(frozen=True)
class Guess:
    """What a file is taken for. words: in a sentence; settings: of a source, in the order of writing."""

    words: str
    settings: Mapping[str, Any]
    target: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Dataset:
    """Files of one dataset: what is learnt, what is asked, both or one of them."""

    name: str
    train: Path | None = None
    test: Path | None = None


def write_study_of_folder(folder: str | Path, data: str | Path) -> Path:
    """Write ``study.yaml`` over the data files in ``data`` into ``folder``, and return its path.

    Nothing is copied and nothing overwritten. DataError where nothing in ``data`` can be learnt from,
    StudyError where a study is there already or none can be written.
    """
    place = Path(folder).expanduser().absolute()
    return write_study(place, study_of_folder(data, place, name_of(place)))


def study_of_folder(data: str | Path, study_folder: str | Path, name: str, model: str = MINI) -> str:
    """The text of a study over the data files in a folder and its sub-folders.

    data: the folder that is searched. study_folder: where the study will lie, from which its paths start.
    Raises DataError where the folder is none, or no file of it can be used, with the reason of each.
    """
    folder, place = Path(data).expanduser().absolute(), Path(study_folder).expanduser().absolute()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one that holds data files")
    files, left_out = _files(folder)
    parts: list[tuple[str, list[str]]] = []
    seen: dict[str, str] = {}
    for dataset in _datasets(folder, files):
        written = _part(dataset, folder, place, seen)
        if isinstance(written, str):
            left_out.append((dataset.train or dataset.test or folder, written))
        else:
            parts.append(written)
    reasons = [f"{_shown(file, folder)}: {reason}" for file, reason in left_out]
    if not any(kind == "source" and not lines[-1].startswith("#") for kind, lines in parts):
        found = "\n  ".join(reasons) or "it holds no data file"
        raise DataError(f"{folder}: no file in it can be learnt from\n  {found}")
    sources = [line for kind, lines in parts if kind == "source" for line in lines]
    targets = [line for kind, lines in parts if kind == "target" for line in lines]
    return _written(name, model, sources, targets, reasons)


def _files(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Data files in order, and files that are none with the reason, a line for each ending."""
    files: list[Path] = []
    others: dict[str, list[Path]] = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(entry for entry in folders if not entry.startswith((".", "__")))
        for name in sorted(names):
            file = Path(root) / name
            if name.startswith(".") or name.lower().startswith(("readme", "license", "licence")):
                continue
            if data_suffix(name) and not (name.lower().endswith(".txt") and _is_note(name)):
                files.append(file)
            else:
                others.setdefault(file.suffix.lower() or name, []).append(file)
    return files, [
        (several[0], f"no data file{f' (and {len(several) - 1} more alike)' if len(several) > 1 else ''}")
        for several in others.values()
    ]


def _is_note(name: str) -> bool:
    return bool(re.match(r"(requirements|notes?|changelog|citation|version|urls?)\b", name, re.IGNORECASE))


def _datasets(folder: Path, files: Sequence[Path]) -> Iterator[_Dataset]:
    """Files by dataset: those whose names differ in a split's word alone are its splits."""
    groups: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for file in files:
        stem = data_stem(file.name)
        match = _SPLIT.search(stem)
        role = "train"
        if match:
            role = "train" if match[1].lower() in _TRAIN else "test"
            stem = (stem[: match.start()] + "_" + stem[match.end() :]).strip("-_. ")
        place = file.parent
        if not stem:  # train.jsonl: the folder is the dataset
            stem, place = (place.name if place != folder else folder.name), place.parent
        groups.setdefault((place, stem), {}).setdefault(role, []).append(file)
    names: dict[str, int] = {}
    for (_, stem), roles in groups.items():
        train, test = roles.get("train", []), roles.get("test", [])
        # several files of one role, such as one table in two forms: each is a dataset of its own
        pairs = [(train[0] if train else None, _best_test(test))]
        pairs += [(file, None) for file in train[1:]]
        for learnt, asked in pairs:
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:80] or "data"
            names[name.casefold()] = names.get(name.casefold(), 0) + 1
            if names[name.casefold()] > 1:
                name = f"{name}-{names[name.casefold()]}"
            yield _Dataset(name, learnt, asked)


def _best_test(files: Sequence[Path]) -> Path | None:
    """A test file before a validation file."""
    return min(files, key=lambda file: "test" not in file.name.lower()) if files else None


def _part(dataset: _Dataset, folder: Path, place: Path, seen: dict[str, str]) -> tuple[str, list[str]] | str:
    """The lines of a dataset in the study, as a source or as a target alone, or why it is left out."""
    file = dataset.train or dataset.test
    table = _table(file) if file else "no file"
    if file is None or isinstance(table, str):
        return str(table)
    guess = guess_of(table)
    if isinstance(guess, str):
        return guess
    path = _relative(file, place)
    if dataset.train is None or "choices" in guess.settings:
        return _target_part(dataset, path, guess, folder, place)
    target: Any = {**({"path": _relative(dataset.test, place)} if dataset.test else {}), **guess.target}
    alone = dataset.test is not None and not guess.target
    settings = {"name": dataset.name, "path": path, **guess.settings}
    settings["target"] = (target["path"] if alone else target) or True
    source = Source.model_validate(settings)
    study = Study(name="guess", model=Model(path=MINI), sources=(source,), path=place / "study.yaml")
    loaded, problem = _tried(study, source)
    if problem and dataset.test is not None:  # the test file may be the one at fault
        note = f"{_shown(dataset.test, folder)} is not used as its test: {problem}"
        settings["target"] = dict(guess.target) or True
        source = Source.model_validate(settings)
        study = study.model_copy(update={"sources": (source,)})
        loaded, problem = _tried(study, source)
    else:
        note = ""
    if problem or loaded is None:
        return problem
    if loaded.digest in seen:
        return f"it holds the same rows as {seen[loaded.digest]}"
    seen[loaded.digest] = dataset.name
    count = f"{len(table.rows):,} rows"
    lines = [f"# {_shown(file, folder)}, {count}: {guess.words}", *([f"# {note}"] if note else [])]
    held_out = settings["target"] is True or (isinstance(target, dict) and not dataset.test) or bool(note)
    if held_out:
        lines.append("# No test file: a fifth of the rows is held out and asked.")
    if _is_conversation(source, table):
        note = "# Conversations need a base with a chat template. Under such a base, uncomment this entry:"
        return "source", [*lines, note, *(f"# {line}" for line in _entry(settings))]
    return "source", [*lines, *_entry(settings)]


def _is_conversation(source: Source, table: SourceTable) -> bool:
    """Whether the rows go through the base's chat template."""
    rendered: list[str] = []

    def render_chat(*arguments: Any, **named: Any) -> str:
        rendered.append("")
        return plain_chat(*arguments, **named)

    render_rows(source, table, range(1), render_chat)
    return bool(rendered)


def _target_part(
    dataset: _Dataset, path: str, guess: Guess, folder: Path, place: Path
) -> tuple[str, list[str]] | str:
    """A test file without rows to learn from is asked and not learnt."""
    settings = {"name": dataset.name, "path": path, **guess.settings, **guess.target}
    if "label" in settings or "answer" in settings or "choices" in settings:
        settings.pop("completion", None)
    from traitmap.data.targets import load_target  # lm-eval takes seconds to import

    try:
        target = Target.model_validate(settings)
        load_target(_asking(target, place / "study.yaml"), target, plain_chat)
    except (DataError, ValueError) as error:
        return " ".join(str(error).split())[:300]
    file = dataset.train or dataset.test or folder
    why = "its rows do not say how they are learnt" if dataset.train else "there is no training file"
    return "target", [f"# {_shown(file, folder)}: {guess.words}. Asked alone: {why}.", *_entry(settings)]


def _asking(target: Target, file: Path) -> Study:
    """The smallest study that asks a target."""
    other = Source(name="other", task="mini_reviews")
    return Study(name="guess", model=Model(path=MINI), sources=(other,), targets=(target,), path=file)


def _tried(study: Study, source: Source) -> tuple[LoadedSource | None, str]:
    """The source, loaded with its target, and what is wrong with either."""
    from traitmap.data.targets import load_target  # lm-eval takes seconds to import

    loaded = examine_source(study, source, plain_chat)
    if not isinstance(loaded, LoadedSource):
        return None, "; ".join(problem.message for problem in loaded)[:300]
    target = target_of(source)
    try:
        if target is not None:
            load_target(study, target.model_copy(update={"limit": 20}), plain_chat)
    except DataError as error:
        return loaded, " ".join(str(error).split())[:300]
    return loaded, ""


def _table(file: Path) -> SourceTable | str:
    """The rows of a file, or why they cannot be used."""
    if file.stat().st_size > _LARGEST:
        return f"larger than {_LARGEST // 1_000_000} MB; write its part of the study by hand"
    try:
        table = read_file(file)
    except SourceError as error:
        return error.problem.message.replace(f"{file} ", "").replace(f"{file}: ", "").replace(f"{file}, ", "")
    if len(table.rows) < _FEWEST:
        return f"{len(table.rows)} rows, fewer than {_FEWEST}"
    return table


def guess_of(table: SourceTable) -> Guess | str:
    """What rows are and how a source would read them, or why nobody can tell."""
    rows = list(islice(table.rows, _LOOKED_AT))
    columns = [column for column in table.columns if any(row[column] not in (None, "") for row in rows)]
    if guess := _choices(rows, columns):
        return guess
    if {"chosen", "rejected"} <= set(columns):
        return Guess("preference pairs, of which the chosen answer is learnt", {"train_on": "chosen"})
    bare = Source(name="guess", path="guess.jsonl")
    formats = {"messages", "conversations", "conversation", "instruction", "completion"}
    if formats & set(columns):
        try:
            shape = shape_of(bare, columns, plain_chat)
            return Guess(f"rows of the format {shape.name}", {}, _answer_of_format(rows, columns))
        except SourceError:
            pass
    texts = {column: [row[column] for row in rows if isinstance(row[column], str)] for column in columns}
    texts = {column: values for column, values in texts.items() if len(values) > 0.9 * len(rows)}
    question = next((name for name in _QUESTIONS if name in texts), None)
    answer = next((name for name in _ANSWERS if name in texts and name != question), None)
    label = _label(rows, columns, texts)
    if question and question != "text" and answer and answer != label:
        return _generation(rows, columns, question, answer)
    inputs = _inputs(texts, label)
    if label and inputs:
        return _classification(rows, label, inputs)
    if list(texts) == ["text"] or (list(texts) and max(texts, key=lambda c: _mean(texts[c])) == "text"):
        return Guess("plain text, all of it learnt, its probability asked", {})
    return f"its columns ({', '.join(table.columns)}) tell neither a label nor a question and its answer"


def _answer_of_format(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    final = next((name for name in _FINALS if name in columns), None)
    return {"answer": final, "extract": _NUMBER} if final and _all_numbers(rows, final) else {}


_NUMBER = r"(-?\d[\d,]*\.?\d*)"


def _choices(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Guess | None:
    """A question with choices of its own in each row; nobody's rows say how they should be learnt."""
    column = next((name for name in _CHOICES if name in columns), None)
    question = next((name for name in _QUESTIONS if name in columns), None)
    answer = next((name for name in ("answer", "answerKey", "label", "gold") if name in columns), None)
    if not (column and question and answer):
        return None
    prompt = f"Question: {{{{ {question} }}}}\nAnswer:"
    words = f"a question ({question}) with choices of its own ({column}), the right one in {answer}"
    return Guess(words, {"prompt": prompt, "choices": column, "answer": answer})


def _label(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], texts: Mapping[str, Sequence[str]]
) -> str | None:
    """The column that holds a class: one of the usual names, else the only one with few values."""
    few = []
    for column in columns:
        values = {str(row[column]) for row in rows if row[column] not in (None, "")}
        plain = all(isinstance(row[column], str | int | bool | None) for row in rows)
        if plain and 2 <= len(values) <= min(_MOST_CLASSES, max(2, len(rows) // 3)):
            few.append(column)
    named = next((name for name in _LABELS if name in few), None)
    if named:
        return named
    others = [column for column in few if not _CODE_LIKE.fullmatch(column)]
    return others[0] if len(others) == 1 and set(texts) - set(others) else None


def _inputs(texts: Mapping[str, Sequence[str]], label: str | None) -> list[str]:
    """Columns of text that are read: pairs such as text1 and text2, else the one with the longest texts."""
    free = {c: v for c, v in texts.items() if c != label and len(set(v)) > 0.3 * len(v) and _mean(v) > 2}
    free = {c: v for c, v in free.items() if not _CODE_LIKE.fullmatch(c) or c == "sentence"}
    if not free:
        return []
    for first, second in _PAIRS:
        if first in free and second in free:
            return [first, second]
    usual: list[str] = [
        name for name in ("text", "sentence", "review", "content", "body", "tweet") if name in free
    ]
    return usual[:1] or [max(free, key=lambda column: _mean(free[column]))]


def _mean(values: Sequence[str]) -> float:
    return sum(map(len, values)) / max(len(values), 1)


def _classification(rows: Sequence[Mapping[str, Any]], label: str, inputs: Sequence[str]) -> Guess:
    values = sorted({str(row[label]) for row in rows})
    prompt = "".join(f"{name.capitalize()}: {{{{ {name} }}}}\n" for name in inputs) + f"{label.capitalize()}:"
    shown = ", ".join(values[:6]) + (", ..." if len(values) > 6 else "")
    words = f"classes in {label} ({shown}) of {' and '.join(inputs)}"
    return Guess(words, {"label": label, "prompt": prompt, "completion": " {{ label }}"})


def _all_numbers(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    values = [str(row[column]).strip() for row in rows if row[column] not in (None, "")]
    return bool(values) and all(re.fullmatch(_NUMBER, value) for value in values)


def _generation(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], question: str, answer: str
) -> Guess:
    """A question and its answer; what is asked is the short end of a long answer, where there is one."""
    settings = {
        "prompt": f"Question: {{{{ {question} }}}}\nAnswer:",
        "completion": f" {{{{ {answer} }}}}",
    }
    words = f"a question ({question}) and its answer ({answer})"
    texts = [str(row[answer]).strip() for row in rows]
    final = next((name for name in _FINALS if name in columns), None)
    if all(re.search(r"#### \S", text) for text in texts):
        return Guess(f"{words} that ends in ####", settings, {"answer": answer, "extract": r"#### (.+)"})
    if final and _all_numbers(rows, final):
        found = [re.findall(_NUMBER, text) for text in texts]
        pairs = zip(found, (str(row[final]).strip() for row in rows), strict=True)
        last = sum(bool(numbers) and numbers[-1].rstrip(".,") == value for numbers, value in pairs)
        if last > 0.9 * len(rows):
            words += f", whose last number ({final}) is what is asked"
            return Guess(words, settings, {"answer": final, "extract": r"(-?\d+(?:[.,]\d+)*)"})
    if all(text and "\n" not in text and len(text) <= 100 for text in texts):
        return Guess(f"{words}, which must be written exactly", settings)
    return Guess(f"{words}, of which the probability is asked", settings, {"metric": "bits_per_byte"})


def _entry(settings: Mapping[str, Any]) -> list[str]:
    """One entry of a list as YAML."""
    lines = [f"{key}: {_value(value)}" for key, value in settings.items()]
    return [f"- {lines[0]}", *(f"  {line}" for line in lines[1:])]


def _value(value: Any) -> str:
    """A value on one line; text that YAML could read as something else in quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    if value is True:
        return "true"
    plain = re.fullmatch(r"[A-Za-z./_~][A-Za-z0-9./_-]*", value) and yaml.safe_load(value) == value
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def _relative(file: Path | None, place: Path) -> str:
    return Path(os.path.relpath(file or place, place)).as_posix()


def _shown(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file != folder and folder in file.parents else file.name


def _written(
    name: str, model: str, sources: Sequence[str], targets: Sequence[str], left_out: Sequence[str]
) -> str:
    lines = [
        "# Written by `traitmap init --from`. What was guessed stands above each entry: look at it, and at",
        "# the examples that `traitmap check` prints. Templates are Jinja over the columns.",
        f"name: {name}",
        f"model: {model}  # a tiny base inside traitmap; give a hub id (org/name) or a model's folder",
        "training: {max_steps: 100, batch_size: 8, warmup_steps: 10, learning_rate: 5e-4}  # or 5e-5",
        "lora: {r: 8, lora_alpha: 16}",
        "limit: 200  # items of each target",
        "sources:",
        *(f"  {line}" for line in sources),
        *(["targets:", *(f"  {line}" for line in targets)] if targets else []),
        *(["", "# Left out:"] if left_out else []),
        *(f"# - {' '.join(reason.split())}" for reason in left_out),
    ]
    return "\n".join(lines) + "\n"
