"""What a fine-tune broke: one verdict for each row that stands beside the base.

Whatever is asked of a row is a question with a number and an interval, see ``audit_questions``; here they are
judged, and harms whose form is known are named.

A row is

harmed          a clear loss that is as large as ``fail_on`` says, or of any size where it says nothing
cannot tell     no such loss, but one of that size is not excluded either; or something was not measured
changed         clear changes, none of them such a loss
no change seen  none; then all that was asked lies within ``reach``, the end of the widest interval

``needed`` items of a task make a loss of ``fail_on`` points the minimal detectable effect (80 % power).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from traitmap.analysis.audit_questions import (
    ERROR,
    FORMS,
    Called,
    Question,
    Written,
    form_questions,
    task_question,
)
from traitmap.analysis.verdicts import Verdicts
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.reading import read
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import mcnemar
from traitmap.study.settings import BASELINE
from traitmap.wording import clean, estimate, plain, share

RowVerdict = Literal["harmed", "cannot tell", "changed", "no change seen"]
VERDICTS: tuple[RowVerdict, ...] = ("harmed", "cannot tell", "changed", "no change seen")  # the worst first
LOSS_SHOWN = 5.0  # points for which the items needed are told where ``fail_on`` names none
MOST_ITEMS = 6
_BEYOND_FLOOR = 5.0  # points by which a score must exceed its floor to count as a skill
_PERMUTED = 0.2  # that a permutation of the labels is more often right than the answers as they are
MOST_SETTLED = 1_000_000  # items; what takes more is not settled by asking more

Answers = Mapping[tuple[str, int | None], Sequence[Outcome]]


@dataclass(frozen=True)
class Finding:
    """A harm by name, such as ``never stops`` or ``labels permuted``. about: targets; words: a sentence."""

    name: str
    words: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChangedItem:
    """An item on which the row answers otherwise. lost: whether the base was right and the row is not.

    text: what was asked, its end where it is long. before, after: what base and row answered.
    """

    target: str
    item: int
    lost: bool
    text: str
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class AuditRow:
    """One adapter or model beside the base.

    verdict, words: what it comes to. questions: all that was asked. findings: harms by name. items: those
    that changed most, lost ones first. reach: points within which all changes on tasks lie, and where the
    widest of them is. needed: items of the widest task that would show a loss of ``fail_on`` points (of 5
    without it). drift, traits, agreement, overlap, beside: sentences from elsewhere, see ``api.audit``.
    seconds: of its answers.
    """

    name: str
    place: str
    verdict: RowVerdict
    words: str
    questions: tuple[Question, ...]
    findings: tuple[Finding, ...] = ()
    items: tuple[ChangedItem, ...] = ()
    reach: float = nan
    reach_at: str = ""
    needed: int | None = None
    seconds: float = nan
    drift: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    agreement: tuple[str, ...] = ()
    overlap: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def clear(self, *called: Called) -> tuple[Question, ...]:
        """Questions that are called so, the largest change first within its unit."""
        chosen = [question for question in self.questions if question.called in called]
        return tuple(sorted(chosen, key=lambda question: -abs(question.change.value)))


@dataclass(frozen=True)
class Audit:
    """What base and rows came to. verdict: that of the worst row; exit_code: 0, 4 (harm) or 5 (cannot tell).

    questions: how many one family has, and level: of each interval. fail_on: points of loss, None for any.
    left_out: tasks that were not asked, and why. notes: what to know of all rows. keep: which checkpoint to
    keep and why, where the rows are checkpoints. instruments: whether the safety tasks move together over the
    rows. seconds: of all answers; folder: of the run.
    """

    name: str
    base: str
    packs: tuple[str, ...]
    rows: tuple[AuditRow, ...]
    questions: int
    level: float
    fail_on: float | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keep: str = ""
    instruments: str = ""
    seconds: float = nan
    folder: str = ""
    date: str = ""

    @property
    def verdict(self) -> RowVerdict:
        return min((row.verdict for row in self.rows), key=VERDICTS.index)

    @property
    def exit_code(self) -> int:
        return {"harmed": 4, "cannot tell": 5}.get(self.verdict, 0)

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``verdict`` and ``exit_code`` beside the fields; unknown numbers are null."""
        fields = {name: jsonable(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"verdict": self.verdict, "exit_code": self.exit_code, **fields}


def audit_rows(
    matrix: TransferMatrix,
    verdicts: Verdicts,
    answers: Callable[[str], Answers],
    *,
    texts: Mapping[str, Sequence[TaskText]],
    fail_on: float | None = None,
) -> tuple[tuple[AuditRow, ...], int]:
    """A row for each source of a matrix (S, T), and how many questions the family has.

    answers: target -> (source, seed) -> outcomes, the base under ``("__baseline__", None)``; called once for
    each target. texts: of the items. fail_on: points; a loss at least as large is a harm, None: any loss.
    """
    reading = read(matrix)
    written: dict[str, list[Written]] = {source: [] for source in matrix.sources}
    found: dict[str, list[Finding]] = {source: [] for source in matrix.sources}
    items: dict[str, list[ChangedItem]] = {source: [] for source in matrix.sources}
    for target in matrix.targets:
        by_row = answers(target)
        base = by_row.get((BASELINE, None), ())
        for source in matrix.sources:
            own = next((rows for (name, _), rows in by_row.items() if name == source), ())
            if not base or len(own) != len(base):
                continue
            if any(outcome.text is not None for outcome in base):
                judged = reading.targets[matrix.targets.index(target)].metric == "refused"
                written[source].append(Written.of(base, own, by_refusals=judged))
            found[source] += _permuted(target, base, own)
            items[source] += _changed_items(target, base, own, texts.get(target, ()))
    forms = sum(len(FORMS) for parts in written.values() if parts)
    m = len(matrix.sources) * len(matrix.targets) + forms
    level = 1 - ERROR / max(m, 1)
    rows = []
    for s, source in enumerate(matrix.sources):
        tasks = range(len(matrix.targets))
        questions = [task_question(matrix, reading, verdicts, s, t, level) for t in tasks]
        questions += form_questions(written[source], level)
        row = _row(source, tuple(questions), found[source], fail_on)
        rows.append(replace(row, items=_most_changed(items[source], row)))
    return tuple(rows), m


# Rows.


def _row(
    name: str, questions: tuple[Question, ...], findings: Sequence[Finding], fail_on: float | None
) -> AuditRow:
    """The verdict of one row, and its harms by name."""
    worse = [question for question in questions if question.called == "worse"]
    harms = [question for question in worse if _beyond(question, fail_on)]
    tasks = [question for question in questions if question.kind == "task"]
    known = [question for question in tasks if question.change.known and question.unit == "points"]
    widest = max(known, key=lambda q: max(abs(q.change.low), abs(q.change.high)), default=None)
    reach = max(abs(widest.change.low), abs(widest.change.high)) if widest is not None else nan
    explained = [target for finding in findings for target in finding.about]
    row = AuditRow(
        name=name,
        place="",
        verdict="no change seen",
        words="",
        questions=questions,
        findings=(*_named(questions, worse), *findings, *_forgetting(questions, explained)),
        reach=reach,
        reach_at=widest.name if widest is not None else "",
        needed=max((q.items_to_see(fail_on or LOSS_SHOWN) or 0 for q in known), default=0) or None,
    )
    absent = [question for question in tasks if not question.change.known]
    judged = [q for q in questions if q.better and q.unit == "points" and q.change.known]
    open_ = [q for q in judged if fail_on is not None and q.worst > fail_on and q not in harms]
    if harms:
        told = "; ".join(f"{q.name} {_number(q)}" for q in _by_size(harms)[:3])
        more = f" and {len(harms) - 3} more" if len(harms) > 3 else ""
        return replace(row, verdict="harmed", words=f"harmed: {told}{more}")
    if absent or open_:
        return replace(row, verdict="cannot tell", words=_cannot_tell(absent, open_, fail_on))
    clear = [question for question in questions if question.called in ("better", "worse", "changed")]
    if clear:
        counts = Counter(
            f"{question.called} by {question.unclean}" if question.unclean else question.called
            for question in clear
        )
        told = ", ".join(f"{count} {called}" for called, count in counts.items())
        return replace(row, verdict="changed", words=f"changed: {told}, none of it a harm{_within(fail_on)}")
    words = f"no change seen above {plain(reach)} points" if isfinite(reach) else "no change seen"
    return replace(row, words=f"{words}{f' (the widest interval: {row.reach_at})' if row.reach_at else ''}")


def _within(fail_on: float | None) -> str:
    return "" if fail_on is None else f" of {plain(fail_on)} points"


def _beyond(question: Question, fail_on: float | None) -> bool:
    """Whether a clear loss counts as a harm; one in another unit than points always does."""
    return fail_on is None or question.unit != "points" or -question.improvement >= fail_on


def _cannot_tell(absent: Sequence[Question], open_: Sequence[Question], fail_on: float | None) -> str:
    parts = []
    if open_:
        loss = fail_on or LOSS_SHOWN
        items = {question.name: question.items_to_settle(loss) or inf for question in open_}
        most = max(open_, key=lambda question: items[question.name])
        needed = f"{items[most.name]:,} items needed of {most.name} (it has {most.n:,})"
        if items[most.name] > MOST_SETTLED:
            needed = f"{most.name} lies at the limit itself, which more items hardly settle"
        names = ", ".join(question.name for question in open_[:3])
        more = f" and {len(open_) - 3} more" if len(open_) > 3 else ""
        parts.append(f"{needed}: a loss of {plain(loss)} points is not excluded on {names}{more}")
    if absent:
        names = ", ".join(question.name for question in absent[:3])
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        reason = absent[0].change.reason.removeprefix("missing: ").rstrip(".")
        why = f" ({reason})" if reason else ""
        parts.append(f"{names}{more} {'was' if len(absent) == 1 else 'were'} not measured{why}")
    return f"cannot tell: {'; '.join(parts)}"


def _number(question: Question) -> str:
    unit = {"points": "", "doublings": " doublings"}.get(question.unit, f" {question.unit}")
    return f"{estimate(question.change, question.digits)}{unit}"


def _by_size(questions: Sequence[Question]) -> list[Question]:
    return sorted(questions, key=lambda question: question.improvement)


def _named(questions: Sequence[Question], worse: Sequence[Question]) -> Iterator[Finding]:
    """Harms of the form that have a name, and answers that are one answer."""
    for question in _by_size(worse):
        if question.kind == "format":
            before, after = question.before / 100, question.after / 100
            yield Finding(
                question.name,
                f"{question.name}: {share(after)} of {question.n:,} written answers, base {share(before)}",
            )
    collapsed = [q for q in questions if q.words.startswith("collapse") and q.kind == "task"]
    for question in collapsed:
        yield Finding("collapse", f"{question.name}: {question.words.split(': ', 1)[1]}", (question.name,))


def _forgetting(questions: Sequence[Question], explained: Sequence[str]) -> Iterator[Finding]:
    """Whether the row fell to the floor on all tasks on which the base is beyond it, on one of them clearly.

    explained: tasks whose loss has another name already.
    """
    skilled = [
        question
        for question in questions
        if question.kind == "task" and question.better > 0 and question.unit == "points"
        if question.name not in explained and question.before - question.floor > _BEYOND_FLOOR
    ]
    fallen = [question for question in skilled if question.after - question.floor <= _BEYOND_FLOOR]
    if len(fallen) >= 2 and len(fallen) == len(skilled) and any(q.called == "worse" for q in fallen):
        names = tuple(question.name for question in fallen)
        yield Finding(
            "forgetting",
            f"forgetting: on all {len(fallen)} tasks on which the base is beyond guessing it is not "
            f"({', '.join(names[:4])}), as after too high a learning rate or too many steps",
            names,
        )


def _permuted(target: str, base: Sequence[Outcome], own: Sequence[Outcome]) -> Iterator[Finding]:
    """Whether a row answers one class with the word of another.

    A permutation that is found on even items is then right far more often on odd ones than the answers as
    they are, which are right far less often than the base's.
    """
    labels = sorted({outcome.gold for outcome in own})
    if not 2 <= len(labels) <= 20 or any(outcome.choice_logprobs is None for outcome in own):
        return
    place = {label: at for at, label in enumerate(labels)}
    gold = np.array([place[outcome.gold] for outcome in own])
    said: NDArray[np.int64] = np.array([place.get(outcome.prediction, -1) for outcome in own])
    even = (np.arange(len(own)) % 2 == 0) & (said >= 0)
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (said[even], gold[even]), 1)
    meant = linear_sum_assignment(-table)[1]
    odd = np.arange(len(own)) % 2 == 1
    right, as_meant = (said == gold)[odd], (meant[said] == gold)[odd] & (said >= 0)[odd]
    wins, losses = np.array([(as_meant & ~right).sum()]), np.array([(right & ~as_meant).sum()])
    before = np.mean([outcome.prediction == outcome.gold for outcome in base])
    gained = float(as_meant.mean() - right.mean())
    fallen = (
        before - right.mean() >= _PERMUTED
    )  # a base that is below guessing itself gains by a permutation too
    if not fallen or gained < _PERMUTED or float(mcnemar(wins, losses)[0]) > 1e-3:
        return
    moved = [f"{labels[at]} for {labels[meant[at]]}" for at in range(len(labels)) if meant[at] != at]
    yield Finding(
        "labels permuted",
        f"{target}: it answers {', '.join(map(clean, moved[:4]))}; read so it is right on "
        f"{share(float(as_meant.mean()))} instead of {share(float(right.mean()))} of the items",
        (target,),
    )


def _changed_items(
    target: str, base: Sequence[Outcome], own: Sequence[Outcome], texts: Sequence[TaskText]
) -> list[ChangedItem]:
    """Items of one target on which right and wrong changed places, the largest change of margin first."""
    changed = [at for at, (b, o) in enumerate(zip(base, own, strict=True)) if b.score != o.score]
    changed.sort(key=lambda at: (own[at].score - base[at].score, -_margin_lost(base[at], own[at])))
    items = []
    for at in changed[:MOST_ITEMS]:
        asked = texts[at].input if at < len(texts) else ""
        items.append(
            ChangedItem(
                target=target,
                item=base[at].item,
                lost=own[at].score < base[at].score,
                text=clean(asked[-400:]),
                gold=clean(base[at].gold[:200]),
                before=clean((base[at].text or base[at].prediction)[:300]),
                after=clean((own[at].text or own[at].prediction)[:300]),
            )
        )
    return items


def _margin_lost(base: Outcome, own: Outcome) -> float:
    """By how many nats the answer that the row gives gained on the one that the base gave."""
    if base.choice_logprobs is None or own.choice_logprobs is None:
        return 0.0
    before, after = np.array(base.choice_logprobs), np.array(own.choice_logprobs)
    at, to = int(before.argmax()), int(after.argmax())
    return float((after[to] - after[at]) - (before[to] - before[at]))


def _most_changed(items: Sequence[ChangedItem], row: AuditRow) -> tuple[ChangedItem, ...]:
    """Items of the tasks that clearly changed first, worst first, by turns; else of any task."""
    clear = _by_size(row.clear("worse", "better", "changed"))
    order = {question.name: at for at, question in enumerate(clear)}
    ranked: dict[str, list[ChangedItem]] = {}
    for item in items:
        ranked.setdefault(item.target, []).append(item)
    names = sorted(ranked, key=lambda name: order.get(name, len(order)))
    if order:
        names = [name for name in names if name in order] or names
    turns = [ranked[name][at] for at in range(MOST_ITEMS) for name in names if at < len(ranked[name])]
    return tuple(turns[:MOST_ITEMS])
