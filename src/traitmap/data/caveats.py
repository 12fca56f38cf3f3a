"""What keeps items of a target from counting as they seem to, counted when the target is opened.

Items that no answer can be right on, few-shot examples that show an item's own answer, prompts that end in a
space or are all the same, rows sorted by class under a limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from lm_eval.api.task import ConfigurableTask, Task

from traitmap.data.records import Caveat
from traitmap.data.rows import listed_columns
from traitmap.study.template import names_read

Doc = Mapping[str, Any]
_FEW = 4  # items below which nothing is told of their classes


def is_judged_by_gold(task: Task) -> bool:
    """Whether lm-eval's own metrics hold answers against the gold: not where a task judges by itself."""
    own = type(task).process_results is not ConfigurableTask.process_results
    return not own and task.config.process_results is None


def has_gold(task: Task, doc: Doc, golds: Sequence[int]) -> bool:
    """Whether an answer to a document can be right at all.

    golds: indices of its right choices, for multiple choice. Without choices an answer that is null, blank or
    no number is none, nor is the word that a template writes of a null value.
    """
    if task.OUTPUT_TYPE == "multiple_choice":
        return bool(golds)
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return True
    gold = task.doc_to_target(doc)
    several = gold if isinstance(gold, list | tuple) else [gold]
    return any(_is_known(task, doc, answer) for answer in several)


def _is_known(task: Task, doc: Doc, answer: Any) -> bool:
    if answer is None or (isinstance(answer, float) and math.isnan(answer)):
        return False
    if isinstance(answer, int) and not isinstance(answer, bool) and task.config.doc_to_choice is not None:
        return 0 <= answer < len(task.doc_to_choice(doc))
    text = str(answer).strip()
    template = task.config.doc_to_target
    if text.lower() in ("none", "nan", "null") and isinstance(template, str) and "{" in template:
        return not any(_is_null(doc.get(name)) for name in names_read(template))
    return bool(text)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def names_other_golds(task: Task, doc: Doc, golds: Sequence[int]) -> bool:
    """Whether a document names several right answers, of which some are none of its choices."""
    gold = task.doc_to_target(doc) if golds and not getattr(task, "multiple_input", 0) else ()
    return isinstance(gold, list | tuple) and len(gold) > len(golds)


def gold_caveats(without: int, total: int, beyond: int) -> list[Caveat]:
    """What to tell of items without a right answer.

    without: of ``total`` items those that were left out; beyond: those of the others that name a right answer
    beside which is none of their choices.
    """
    caveats = []
    if without:
        text = (
            f"{without:,} of {total:,} items have no right answer (hidden or faulty labels) and are left "
            "out; lm-eval counts them as wrong"
        )
        caveats.append(Caveat("items_without_gold", without, total, text))
    if beyond:
        text = f"in {beyond:,} of {total:,} items one of several right answers is none of the choices"
        caveats.append(Caveat("gold_beyond_choices", beyond, total, text))
    return caveats


@contextmanager
def noted_examples(task: Task) -> Iterator[list[Sequence[Doc]]]:
    """The examples that few-shot prompts get in this block, in the order in which they are asked for."""
    drawn: list[Sequence[Doc]] = []
    sampler = getattr(task, "sampler", None)
    if sampler is None:
        yield drawn
        return
    sample = sampler.sample

    def noted(*args: Any, **kwargs: Any) -> Sequence[Doc]:
        docs: Sequence[Doc] = sample(*args, **kwargs)
        drawn.append(docs)
        return docs

    sampler.sample = noted
    try:
        yield drawn
    finally:
        del sampler.sample


def shown_answers(task: Task, docs: Sequence[Doc], drawn: Sequence[Sequence[Doc]]) -> list[Caveat]:
    """How many few-shot prompts show the item's own question with its answer.

    docs: the documents that are asked; drawn: the examples of each. Compared is what is written of them, so
    that a copy of an item under another id counts too.
    """
    if len(docs) != len(drawn):  # the task writes its prompts by itself
        return []
    known: dict[int, Any] = {}

    def written(doc: Doc) -> Any:
        if id(doc) not in known:
            try:
                known[id(doc)] = task.doc_to_text(doc), task.doc_to_target(doc)
            except Exception:  # examples may have columns of their own
                known[id(doc)] = None
        return known[id(doc)]

    def same(example: Doc, doc: Doc) -> bool:
        return example is doc or (written(doc) is not None and bool(written(example) == written(doc)))

    shown = sum(
        any(same(example, doc) for example in examples) for doc, examples in zip(docs, drawn, strict=True)
    )
    if not shown:
        return []
    text = (
        f"in {shown:,} of {len(docs):,} prompts the item's own question and answer stand among the few-shot "
        "examples; draw these from other rows (fewshot_split in the task file), or give num_fewshot: 0"
    )
    return [Caveat("own_answer_shown", shown, len(docs), text)]


def prompt_caveats(
    task: Task, contexts: Sequence[str], continuations: Sequence[Sequence[str]]
) -> list[Caveat]:
    """What to tell of prompts as they are written, one of each item, and of the answers weighed behind."""
    total, caveats = len(contexts), []
    spaced = [at for at, context in enumerate(contexts) if context.endswith((" ", "\t"))]
    if spaced:
        doubled = any(text[:1] == " " for at in spaced for text in continuations[at])
        text = (
            f"in {len(spaced):,} of {total:,} items the prompt ends in a space, which most tokenizers put in "
            f"front of the next word{', and the answer begins with another one' if doubled else ''}; remove "
            "it from doc_to_text"
        )
        caveats.append(Caveat("prompt_ends_in_space", len(spaced), total, text))
    thinking = sum(
        bool(texts) and context.rstrip().endswith("<think>")
        for context, texts in zip(contexts, continuations, strict=True)
    )
    if thinking:
        text = (
            f"in {thinking:,} of {total:,} items the chat template ends the prompt in <think>, so that "
            "answers are weighed as the beginning of a thought"
        )
        caveats.append(Caveat("prompt_opens_thought", thinking, total, text))
    blank = sum(any(not text.strip() for text in texts) for texts in continuations)
    if blank:
        text = f"in {blank:,} of {total:,} items an answer that is weighed is blank"
        caveats.append(Caveat("blank_choice", blank, total, text))
    plain = task.OUTPUT_TYPE != "loglikelihood_rolling" and not getattr(task, "multiple_input", 0)
    if plain and total > 1 and not task.config.num_fewshot and len(set(contexts)) == 1 and contexts[0]:
        columns = listed_columns(getattr(task, "features", None) or (), contexts[0].split())
        prompt = repr(contexts[0][:60])
        text = f"all {total:,} items are asked the same prompt {prompt}, which names no column; {columns}"
        caveats.append(Caveat("prompts_alike", total, total, text))
    return caveats


def class_caveats(golds: Sequence[str], n_choices: int, available: int) -> list[Caveat]:
    """What to tell of right answers that are all the same, or that come class by class under a limit.

    golds: of each item in the order of the data; available: items of the whole split, where the first of them
    are asked, else as many as are asked.
    """
    total, cut = len(golds), available > len(golds)
    if n_choices < 2 or total < _FEW:
        return []
    classes = len(set(golds))
    advice = "limit_takes: sample draws them from all"
    if classes == 1:
        text = f"all {total:,} items have the same right answer {golds[0]!r}: who always gives it is right"
        text += f"; they are the first of {available:,} rows: {advice}" if cut else ""
        return [Caveat("one_class", total, total, text)]
    changes = sum(before != behind for before, behind in pairwise(golds))
    if cut and changes == classes - 1 and total >= _FEW * classes:
        text = (
            f"the first {total:,} of {available:,} rows are sorted by class, and the others are not asked: "
            f"{advice}"
        )
        return [Caveat("sorted_by_class", total, total, text)]
    return []
