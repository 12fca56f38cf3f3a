"""Targets out of plain data: rows of a file or a hub dataset as the documents of an lm-eval task.

Rows are read and rendered as those of a source are (`data.render`), so that what is asked is written as what
is taught. The documents hold finished texts, ``prompt`` and what is right, and the task's configuration names
these columns alone: lm-eval sees no template, no label mapping and no split, and a task file written from it
(`exports.task_files`) asks the same anywhere.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from traitmap.data.conversation import RenderChat
from traitmap.data.records import Example
from traitmap.data.render import column_problem, label_word, render_rows, rows_in_words, with_numbered_words
from traitmap.data.rows import Row, SourceError, SourceProblem, SourceTable, read_table
from traitmap.data.sources import HeldOutRows, all_targets, data_place, held_out_rows, rows_of
from traitmap.errors import DataError
from traitmap.metrics import direction
from traitmap.metrics import metric as metric_of
from traitmap.study.settings import Source, Study, Target, target_of
from traitmap.study.template import compiled, names_read

CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
ANSWER_METRICS = ("exact_match", "f1", "precision", "recall", "rouge", "bleu", "chrf", "ter", "bits_per_byte")
METRIC_MODULE = "traitmap.data.answer_metrics"
_MOST_WORDS = 50  # classes of a label column, beyond which it may hold free text
_SHORT = 100  # characters of an answer that a model may be asked to write exactly
_TOKENS = (16, 256)  # that are written at least and at most, where the study does not say it
_WHOLE = r"(?s)\A.*\Z"  # an answer without a pattern: all of it, from which lm-eval strips blanks
_SHOWN = 8


class TargetError(DataError):
    """Rows of data cannot be asked. problems: everything that is wrong, each with the setting to look at."""

    def __init__(self, problems: Sequence[SourceProblem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(f"{problem.key}: {problem.message}" for problem in self.problems))


@dataclass(frozen=True)
class FileTask:
    """Rows of data as an lm-eval task.

    config: the task's configuration, without where its data lie. documents: of the split ``test`` and, where
    examples are shown that it does not hold itself, of ``train``. read_as: what the rows were taken for.
    dataset: the file (a path on this machine), or the id of the hub dataset.
    """

    config: Mapping[str, Any]
    documents: Mapping[str, Sequence[Mapping[str, Any]]]
    read_as: str
    dataset: str


@dataclass(frozen=True)
class _Form:
    """How rows are asked: the configuration of it, documents of some rows, and the same in words."""

    config: Mapping[str, Any]
    documents: Sequence[Mapping[str, Any]]
    words: str


def file_task(study: Study, target: Target, render_chat: RenderChat | None) -> FileTask:
    """The lm-eval task of a target with ``path``.

    Raises TargetError with everything that is wrong with the rows or with what the study says of them.
    """
    try:
        rows = rows_of(target)
        table = read_table(study, rows)
        held_out = held_out_rows(study, target, table, render_chat)
    except SourceError as error:
        raise TargetError([error.problem]) from None
    indices = sorted(held_out.rows) if held_out else range(len(table.rows))
    if not indices:
        share = held_out.share if held_out else 0
        message = f"of its {rows_in_words(len(table.rows))} none falls into the {share:g} that is held out"
        raise TargetError(
            [SourceProblem("held_out", f"{message}; give a larger share, or a file of its own")]
        )
    form = _form(study, target, rows, table, indices, render_chat)
    documents = {"test": form.documents}
    config = {"task": target.name, "test_split": "test", **form.config, "metadata": {"version": 1.0}}
    if target.num_fewshot:
        examples = _examples(study, target, rows, table, held_out, render_chat)
        config["fewshot_split"] = "train" if examples else "test"
        documents |= {"train": examples} if examples else {}
        available = len(examples) if examples else len(form.documents) - 1
        if available < target.num_fewshot:
            message = f"{target.num_fewshot} examples are asked for, and there are {rows_in_words(available)}"
            raise TargetError([SourceProblem("num_fewshot", f"{message} to show; give fewer")])
    place = data_place(study, target)
    return FileTask(config, documents, _read_as(study, target, table, indices, form), place[0])


def _origin(study: Study, target: Target) -> Source | None:
    """The source that brings a target, else the first that learns from the same file; None without any."""
    bringing = (s for s in study.sources if (own := target_of(s)) and own.name == target.name)
    sharing = (source for source in study.sources if data_place(study, source) == data_place(study, target))
    return next(bringing, None) or next(sharing, None)


def _examples(
    study: Study,
    target: Target,
    rows: Source,
    table: SourceTable,
    held_out: HeldOutRows | None,
    render_chat: RenderChat | None,
) -> Sequence[Mapping[str, Any]]:
    """Documents for few-shot examples: rows that the target's source learns; none where it has no source."""
    origin = _origin(study, target)
    if held_out is None and origin is not None and data_place(study, origin) != data_place(study, target):
        places = {key: getattr(origin, key) for key in ("path", "split", "subset", "revision")}
        reader = rows.model_copy(update=places)
        try:
            table = read_table(study, reader)
            held_out = held_out_rows(study, origin, table, render_chat)
        except SourceError as error:
            raise TargetError(
                [SourceProblem("num_fewshot", f"no examples: {error.problem.message}")]
            ) from None
    elif held_out is None:
        return ()
    left = [row for row in range(len(table.rows)) if held_out is None or row not in held_out.rows]
    return _form(study, target, rows, table, left, render_chat).documents


def _form(
    study: Study,
    target: Target,
    rows: Source,
    table: SourceTable,
    indices: Sequence[int],
    render_chat: RenderChat | None,
) -> _Form:
    columns = [(key, name) for key in ("answer", "choices", "groups") for name in _named_columns(target, key)]
    problems = [problem for key, name in columns if (problem := column_problem(key, name, table.columns))]
    rendered = render_rows(rows, table, indices, render_chat)
    problems += rendered.problems
    legal = CHOICE_METRICS if target.label or target.choices else ANSWER_METRICS
    problems += _metric_problem(target.metric, legal)
    if problems:
        raise TargetError(problems)
    used = {index + 1: table.rows[index] for index in rendered.indices}
    form = _form_of_rows(study, target, rows, table, used, rendered.examples)
    group = target.groups
    if group is None:
        return form
    if any(group in document for document in form.documents):
        message = f"{group!r} is a name that documents have for a text of their own; rename the column"
        raise TargetError([SourceProblem("groups", message)])
    documents = [
        {**document, group: row[group]} for document, row in zip(form.documents, used.values(), strict=True)
    ]
    return replace(form, documents=documents)


def _form_of_rows(
    study: Study,
    target: Target,
    rows: Source,
    table: SourceTable,
    used: Mapping[int, Row],
    examples: Sequence[Example],
) -> _Form:
    """The form of some rows. used: by their numbers in the file, from 1."""
    if target.label is not None:
        return _of_labels(target, rows, _label_words(study, target, rows, table), [*used.values()], examples)
    if target.choices is not None:
        return _of_choices(target, used, examples)
    if target.answer is not None:
        return _of_answers(target, used, examples)
    if not any(example.prompt for example in examples):
        return _of_texts(target, examples)
    return _of_completions(target, examples)


def _named_columns(target: Target, key: str) -> Sequence[str]:
    value = getattr(target, key)
    if key != "answer":
        return (value,) if isinstance(value, str) else value or ()
    return () if value is None or "{{" in value or "{%" in value else (value,)


def _metric_problem(name: str | None, legal: Sequence[str]) -> list[SourceProblem]:
    if name is None or name in legal:
        return []
    near = get_close_matches(name, legal, n=1)
    guess = f"; did you mean {near[0]}? Legal" if near else "; legal"
    message = f"{name!r} is no metric of such rows{guess} here: {', '.join(legal)}"
    if metric_of(name).of_classes:
        message += (
            f". {metric_of(name).label} is a number of all items together, where a matrix needs the mean of "
            "items; `traitmap profile` shows it for every cell"
        )
    return [SourceProblem("metric", message)]


# Among choices


def _label_words(study: Study, target: Target, rows: Source, table: SourceTable) -> dict[str, str]:
    """The word of each label in the order of the choices: those of the study, else those in the data."""
    label = rows.label or ""
    if rows.labels is not None:
        return with_numbered_words(rows, (row[label] for row in table.rows)).labels or {}
    if names := table.class_names.get(label):
        return {name: name for name in names}
    tables = [table]
    origin = _origin(study, target)
    apart = origin is not None and data_place(study, origin) != data_place(study, target)
    if origin is not None and origin.label == label and apart:
        with suppress(SourceError):  # told of the source
            tables.append(read_table(study, origin))  # its classes are taught, and may be answered
    values = (row.get(label) for part in tables for row in part.rows)
    counts = Counter(word for value in values if (word := label_word(value, None)))
    total = sum(counts.values())
    if len(counts) > _MOST_WORDS and len(counts) > total / 2:
        message = (
            f"the column {label!r} has {len(counts):,} values in {rows_in_words(total)}, as free text has; "
            f"give answer: {label} to have the model write it, or labels: the words of the classes"
        )
        raise TargetError([SourceProblem("label", message)])
    if len(counts) < 2:
        message = (
            f"the column {label!r} holds {', '.join(map(repr, counts))} alone; give labels: all the words"
        )
        raise TargetError([SourceProblem("label", message)])
    numeric = all(re.fullmatch(r"-?\d+(\.\d+)?", word) for word in counts)
    return {word: word for word in sorted(sorted(counts), key=float if numeric else str.casefold)}


def _of_labels(
    target: Target, rows: Source, words: Mapping[str, str], used: Sequence[Row], examples: Sequence[Example]
) -> _Form:
    """The likeliest of the label words, each as the completion writes it."""
    choices = list(dict.fromkeys(words.values()))
    template = rows.completion or ""
    shared = names_read(template) <= {"label"} and "label" not in names_read(rows.prompt or "")
    try:
        once = [compiled(template).render(label=word) for word in choices] if shared else []
        written = [
            once or [compiled(template).render({**row, "label": word}) for word in choices] for row in used
        ]
    except Exception as error:  # a template is a small program, and may fail for another word than the row's
        message = f"the template fails for another label word: {' '.join(str(error).split())[:200]}"
        raise TargetError([SourceProblem("completion", message)]) from None
    golds = [choices.index(example.label or "") for example in examples]
    if any(len(set(texts)) < len(texts) for texts in written):
        message = "two label words give the same text; write {{ label }} into the completion"
        raise TargetError([SourceProblem("completion", message)])
    listing = ", ".join(choices[:_SHOWN]) + (", ..." if len(choices) > _SHOWN else "")
    origin = "" if rows.labels is not None else " read from the data"
    phrase = f"multiple choice among {len(choices)} words{origin} ({listing})"
    prompts = [example.prompt for example in examples]
    return _chosen(target, prompts, written, golds, phrase, shared=shared)


def _chosen(
    target: Target,
    prompts: Sequence[str],
    written: Sequence[Sequence[str]],
    golds: Sequence[int],
    phrase: str,
    *,
    shared: bool,
) -> _Form:
    """Documents with choices, all the same where they are ``shared``.

    What all begin with, as far as it is blank, is lm-eval's delimiter.
    """
    delimiter = _common_blank(text for texts in written for text in texts)
    choices = [[text[len(delimiter) :] for text in texts] for texts in written]
    documents = [
        {"prompt": prompt, "gold": gold, **({} if shared else {"choices": texts})}
        for prompt, gold, texts in zip(prompts, golds, choices, strict=True)
    ]
    metrics = dict.fromkeys(([target.metric] if target.metric else []) + ["acc", "acc_norm"])
    config = {
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": choices[0] if shared else "choices",
        "doc_to_target": "gold",
        "target_delimiter": delimiter,
        "metric_list": [_metric_entry(name) for name in metrics],
    }
    return _Form(config, documents, phrase)


def _of_choices(target: Target, used: Mapping[int, Row], examples: Sequence[Example]) -> _Form:
    """The likeliest of each row's own choices."""
    problems: list[SourceProblem] = []
    sets: list[list[str]] = []
    marks: list[list[str]] = []
    for number, row in used.items():
        texts, names, fault = _choices_of(target, row)
        if fault:
            problems.append(SourceProblem("choices", f"row {number}: {fault}"))
        sets.append(texts)
        marks.append(names)
    if problems:
        raise TargetError(problems[:_SHOWN])
    answers = [_values(target.answer or "", row) for row in used.values()]
    golds, phrase = _gold_indices(answers, sets, marks, list(used))
    prompts = [example.prompt for example in examples]
    gap = "" if all(prompt[-1:].isspace() for prompt in prompts) else " "
    written = [[f"{gap}{text}" for text in texts] for texts in sets]
    counts = sorted({len(texts) for texts in sets})
    sizes = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    phrase = f"multiple choice, {sizes} choices of each row's own, {phrase}"
    return _chosen(target, prompts, written, golds, phrase, shared=False)


def _choices_of(target: Target, row: Row) -> tuple[list[str], list[str], str]:
    """Texts of a row's choices, their marks where it has some (A, B, ...), and what is wrong with them."""
    columns = target.choices or ()
    value = [row[column] for column in columns] if len(columns) > 1 else row[columns[0]]
    if isinstance(value, str):
        value = _parsed_list(value)
    names: list[str] = []
    if isinstance(value, Mapping):  # {"text": [...], "label": ["A", ...]}, as ARC has it
        names = [str(name) for name in value.get("label") or ()]
        value = value.get("text")
    if not isinstance(value, list | tuple):
        return [], [], f'the choices are {str(row[columns[0]])[:60]!r}, not a list such as ["red", "green"]'
    texts = [str(text).strip() for text in value if text is not None]
    if len(texts) < 2 or not all(texts):
        return [], [], f"the choices are {texts!r}; give at least two, none of them empty"
    if len(set(texts)) < len(texts):
        return [], [], f"the choices {texts!r} hold one twice; give each once"
    return texts, names if len(names) == len(texts) else [], ""


def _parsed_list(text: str) -> Any:
    """A list that a cell of text holds, as JSON or Python writes it; the text where it holds none."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _gold_indices(
    answers: Sequence[Any],
    sets: Sequence[Sequence[str]],
    marks: Sequence[Sequence[str]],
    rows: Sequence[int],
) -> tuple[list[int], str]:
    """Which choice is right in each row, and how that was read.

    One reading for all rows, the first that fits: whole numbers are places before they are texts, texts are
    texts before they are letters or places.
    """
    numbers = [int(value) if re.fullmatch(r"\d+", str(value).strip()) else None for value in answers]
    whole = [number for number in numbers if number is not None]
    from_one = (
        len(whole) == len(answers)
        and 0 not in whole
        and any(number == len(texts) for number, texts in zip(whole, sets, strict=True))
    )

    def place(at: int) -> int | None:
        number = numbers[at]
        return None if number is None else number - from_one

    def text(at: int) -> int | None:
        value = str(answers[at]).strip()
        return sets[at].index(value) if value in sets[at] else None

    def mark(at: int) -> int | None:
        value = str(answers[at]).strip().strip("().").upper()
        names = [name.upper() for name in marks[at]] or [chr(ord("A") + n) for n in range(len(sets[at]))]
        return names.index(value) if value in names else None

    typed = all(isinstance(value, int) and not isinstance(value, bool) for value in answers)
    start = "answer counts from " + ("1" if from_one else "0")
    readings = [("answer is a choice's text", text), ("answer is a choice's letter", mark), (start, place)]
    for phrase, reading in sorted(readings, key=lambda pair: typed and pair[0] != start):
        golds = [reading(at) for at in range(len(answers))]
        if all(gold is not None and 0 <= gold < len(sets[at]) for at, gold in enumerate(golds)):
            return [gold for gold in golds if gold is not None], phrase
    wrong = next((at for at in range(len(answers)) if text(at) is None and mark(at) is None), 0)
    message = (
        f"the answers are neither texts of choices nor all their letters or numbers: row {rows[wrong]} has "
        f"{answers[wrong]!r} for {list(sets[wrong])!r}"
    )
    raise TargetError([SourceProblem("answer", message)])


# Written, or weighed as they stand


def _values(answer: str, row: Row) -> Any:
    """What ``answer`` says of one row: the column's value, or the template's text."""
    if answer in row:
        return row[answer]
    try:
        return compiled(answer).render(row)
    except Exception as error:  # a template is a small program, and may fail as any program
        message = (
            f"the template fails: {' '.join(str(error).split())[:200]}; the columns are {', '.join(row)}"
        )
        raise TargetError([SourceProblem("answer", message)]) from None


def _of_answers(target: Target, used: Mapping[int, Row], examples: Sequence[Example]) -> _Form:
    """The right answers of each row, and the completion that few-shot examples show."""
    answers = [_answer_texts(_values(target.answer or "", row)) for row in used.values()]
    golds = [[_extracted(target, text) for text in texts] for texts in answers]
    empty = [row for row, texts in zip(used, golds, strict=True) if not all(texts) or not texts]
    if empty:
        more = f" (and {rows_in_words(len(empty) - 1)} more)" if len(empty) > 1 else ""
        message = f"row {empty[0]}{more}: there is no answer; fill or remove such rows"
        raise TargetError([SourceProblem("answer", message)])
    prompts = [example.prompt for example in examples]
    gap = "" if all(prompt[-1:].isspace() for prompt in prompts) else " "
    shown = [
        example.completion or f"{gap}{texts[0]}" for example, texts in zip(examples, answers, strict=True)
    ]
    return _written(target, prompts, golds, shown)


def _answer_texts(value: Any) -> list[str]:
    """Right answers as text: one, a list of them, or SQuAD's ``{"text": [...]}``; none where empty."""
    if isinstance(value, Mapping):
        value = value.get("text")
    values = value if isinstance(value, list | tuple) else [value]
    texts = [text for item in values if item is not None and (text := str(item).strip())]
    return [
        text.encode("utf-8", "replace").decode("utf-8") for text in texts
    ]  # half a surrogate pair is none


def _extracted(target: Target, text: str) -> str:
    """The answer in a text as lm-eval's filter finds it in what the model writes; else the text itself."""
    matches = re.findall(target.extract, text) if target.extract else []
    return str(matches[-1]).strip() if matches else text


def _of_completions(target: Target, examples: Sequence[Example]) -> _Form:
    """Completions that a format or a template gives: written where all are short lines, else weighed."""
    texts = [example.completion.strip() for example in examples]
    short = all(text and "\n" not in text and len(text) <= _SHORT for text in texts)
    target = target.model_copy(
        update={"metric": target.metric or ("exact_match" if short else "bits_per_byte")}
    )
    golds = [[_extracted(target, text)] for text in texts]
    return _written(
        target, [example.prompt for example in examples], golds, [example.completion for example in examples]
    )


def _written(
    target: Target, prompts: Sequence[str], golds: Sequence[Sequence[str]], shown: Sequence[str]
) -> _Form:
    """Documents of answers. shown: the whole completion of each, as it is taught and as examples show it."""
    metric = target.metric or "exact_match"
    if metric == "bits_per_byte":
        return _weighed(prompts, shown)
    delimiter = _common_blank(shown)
    several = any(len(texts) > 1 for texts in golds)
    answers = [list(texts) if several else texts[0] for texts in golds]
    completions = [text[len(delimiter) :] for text in shown]
    same = not several and completions == answers and not target.num_fewshot
    documents: list[dict[str, Any]] = [
        {"prompt": prompt, "answer": answer, **({} if same else {"completion": text})}
        for prompt, answer, text in zip(prompts, answers, completions, strict=True)
    ]
    pattern, place = (target.extract, -1) if target.extract else (_WHOLE, 0)
    search = {"function": "regex", "regex_pattern": pattern, "group_select": place}
    name = "extract" if target.extract else "whole"
    exact = {"metric_list": [_metric_entry(metric)]}
    config = {
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "target_delimiter": delimiter,
        **({} if same else {"fewshot_config": {"doc_to_target": "completion"}}),
        "generation_kwargs": _generation(target, golds, shown),
        "filter_list": [{"name": name, "filter": [search, {"function": "take_first"}]}],
        **(exact if metric == "exact_match" else _own_metric(metric)),
    }
    extracted = f", the last match of {target.extract!r}" if target.extract else ""
    return _Form(config, documents, f"an answer that the model writes{extracted}, {metric}")


def _weighed(prompts: Sequence[str], shown: Sequence[str]) -> _Form:
    """Documents of answers whose probability is asked."""
    config = {
        "output_type": "loglikelihood",
        "doc_to_text": "prompt",
        "doc_to_target": "completion",
        "target_delimiter": "",
        **_own_metric("bits_per_byte"),
    }
    documents = [{"prompt": p, "completion": text} for p, text in zip(prompts, shown, strict=True)]
    return _Form(config, documents, "the probability of the answer as it stands, bits_per_byte")


def _generation(target: Target, golds: Sequence[Sequence[str]], shown: Sequence[str]) -> dict[str, Any]:
    """What ends an answer, and after how many tokens: no tokenizer needs more than one for a byte."""
    texts = [*shown, *(text for several in golds for text in several)]
    lines = [text.strip() for text in texts]
    low, high = _TOKENS
    tokens = max(len(text.encode("utf-8", "surrogatepass")) for text in texts) + 8
    until = ["\n\n"] if any("\n" in text for text in lines) else ["\n"]
    if any("\n\n" in text for text in lines) and not target.num_fewshot:
        until = []
    if target.extract and all(line in several for line, several in zip(lines, golds, strict=False)):
        until, tokens = ["\n\n"], high  # nobody knows how long what stands before the answer will be
    return {
        "until": list(target.until or until),
        "do_sample": False,
        "max_gen_toks": target.max_gen_toks or min(max(tokens, low), high),
    }


def _of_texts(target: Target, examples: Sequence[Example]) -> _Form:
    """Whole texts, of which the model's probability is asked."""
    problems = _metric_problem(target.metric, ("bits_per_byte",))
    if problems:
        raise TargetError(problems)
    config = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        **_own_metric("bits_per_byte"),
    }
    documents = [{"text": example.text} for example in examples]
    return _Form(config, documents, "the probability of texts, bits_per_byte")


def _metric_entry(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": direction(name)[0]}


def _own_metric(name: str) -> dict[str, Any]:
    """A metric of ours, by the name that a task file gives to its function."""
    return {"metric_list": [_metric_entry(name)], "process_results": f"{METRIC_MODULE}.{name}"}


def _common_blank(texts: Iterable[str]) -> str:
    """The blanks with which all texts begin."""
    blanks = [text[: len(text) - len(text.lstrip())] for text in texts]
    shortest = min(blanks, key=len, default="")
    equal = takewhile(lambda at: all(blank[at] == shortest[at] for blank in blanks), range(len(shortest)))
    return shortest[: sum(1 for _ in equal)]


def _read_as(
    study: Study,
    target: Target,
    table: SourceTable,
    indices: Sequence[int],
    form: _Form,
) -> str:
    """What the rows were taken for, where they come from, and how many of them are asked."""
    parts = [form.words]
    if len(indices) < len(table.rows):
        sources = [s.name for s in study.sources if data_place(study, s) == data_place(study, target)]
        first = next(t.name for t in all_targets(study) if data_place(study, t) == data_place(study, target))
        split = f"split by a hash of the text that {first!r} asks"
        learning = f"; the others are learnt by {', '.join(sources)}" if sources else ""
        parts.append(f"{len(indices):,} of {rows_in_words(len(table.rows))} held out, {split}{learning}")
    else:
        parts.append(rows_in_words(len(table.rows)))
    return "; ".join(parts)
