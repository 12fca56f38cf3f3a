"""An audit as people read it: lines for a terminal, Markdown for a pull request, JUnit for a build, a page.

All four say the same of the same record; none computes anything.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from xml.etree import ElementTree

from traitmap.analysis.audit import LOSS_SHOWN, Audit, AuditRow, ChangedItem
from traitmap.analysis.audit_questions import Question
from traitmap.report.plain_page import Listing, Section, plain_page, table_section
from traitmap.table import Column, Entry, Table, to_csv
from traitmap.wording import (
    clean,
    counted,
    escaped_markdown,
    estimate,
    in_time,
    interval,
    listed,
    plain,
    sentence,
    signed,
)

LINES = 25  # of a terminal, at most
_HEAD = 9  # characters of a line's heading
_TOLD = {
    "better": "better",
    "worse": "worse",
    "changed": "worse",
    "no change seen": "faint",
    "unknown": "faint",
}


# Words that all forms share.


def asked(audit: Audit) -> str:
    """``7 tasks, 1,160 items each row, pack mini``."""
    tasks = [question for question in audit.rows[0].questions if question.kind == "task"]
    items = sum(question.n for question in tasks)
    return f"{counted(len(tasks), 'task')}, {items:,} items a row, pack {' + '.join(audit.packs)}"


def change_in_words(question: Question) -> str:
    """``mini_stars -31.0 [-46.2, -13.9] (62.0 -> 31.0)``."""
    ends = f"({plain(question.before, question.digits)} -> {plain(question.after, question.digits)})"
    return f"{question.name} {estimate(question.change, question.digits)}{_unit(question)} {ends}"


def _called(question: Question) -> str:
    """``better``, or ``better (collapse)`` where the change is something else than skill."""
    return f"{question.called} ({question.unclean})" if question.unclean else question.called


def _unit(question: Question) -> str:
    return "" if question.unit == "points" else f" {question.unit}"


def seen_in_words(audit: Audit, row: AuditRow) -> str:
    """What could have been seen, and what it takes to see less."""
    known = [
        q.smallest for q in row.questions if q.kind == "task" and q.unit == "points" and isfinite(q.smallest)
    ]
    if not known:
        return "no interval could be had"
    loss = audit.fail_on or LOSS_SHOWN
    ends = " to ".join(dict.fromkeys((plain(min(known)), plain(max(known)))))
    needed = f"; a loss of {plain(loss)} takes up to {row.needed:,} items a task" if row.needed else ""
    return f"minimal detectable effect (80 % power): {ends} points{needed}"


def cost_in_words(audit: Audit) -> str:
    return (
        f"{in_time(audit.seconds)} of answers for base and {counted(len(audit.rows), 'row')}; intervals hold "
        f"together for {audit.questions} questions"
    )


def item_in_words(item: ChangedItem, width: int = 90) -> str:
    """One item in a line: what was asked, what is right, what base and row answered."""
    question = textwrap.shorten(item.text[-240:], width, placeholder=" ...")
    before, after = (
        textwrap.shorten(text or "(nothing)", 40, placeholder=" ...") for text in (item.before, item.after)
    )
    return f"{item.target}: {question!r} right: {item.gold.strip()!r} base: {before!r} now: {after!r}"


def _form(row: AuditRow) -> str:
    """The form of what was written, in a line; empty where nothing was written."""
    parts = []
    for question in row.questions:
        if question.kind != "format":
            continue
        change = question.change
        if question.name == "length":
            times, low, high = (plain(2**end, 2) for end in (change.value, change.low, change.high))
            parts.append(f"length x{times} [{low}, {high}]")
        elif change.known:
            ends = f"{plain(question.before, 0)} % -> {plain(question.after, 0)} %"
            parts.append(f"{question.name} {ends} ({estimate(change, 0)} points)")
    return ", ".join(parts)


# The terminal.


def audit_lines(audit: Audit, width: int = 100) -> list[str]:
    """At most 25 lines, each no wider than ``width``: the verdict first, what is left out counted last."""
    base = Path(audit.base).name if audit.base.startswith("/") else audit.base
    title = f"{audit.name} · base {base} · {asked(audit)}"
    blocks = [*_title(title), *(_single(audit, audit.rows[0]) if len(audit.rows) == 1 else _several(audit))]
    blocks += [("NOT ASKED", f"{name}: {reason}") for name, reason in audit.left_out.items()]
    blocks += [("COST", cost_in_words(audit)), *(("NOTE", note) for note in audit.notes)]
    lines: list[str] = []
    for at, (head, text) in enumerate(blocks):
        wrapped = textwrap.wrap(clean(text), width - _HEAD - 1) or [""]
        wrapped = [f"{head:<{_HEAD}} {wrapped[0]}", *(f"{'':<{_HEAD}} {line}" for line in wrapped[1:3])]
        if len(lines) + len(wrapped) > LINES - (at + 1 < len(blocks)):
            return [*lines, f"{'':<{_HEAD}} and {len(blocks) - at} more: see the page or --json"]
        lines += wrapped
    return lines


def _title(title: str) -> Iterator[tuple[str, str]]:
    yield "AUDIT", title


def _single(audit: Audit, row: AuditRow) -> Iterator[tuple[str, str]]:
    yield "VERDICT", row.words
    yield from (("HARM", finding.words) for finding in row.findings[:4])
    yield from (("WORSE", change_in_words(question)) for question in row.clear("worse")[:4])
    better = [question for question in row.clear("better") if not question.unclean]
    yield from (("BETTER", change_in_words(question)) for question in better[:3])
    yield "SEEN", seen_in_words(audit, row)
    if form := _form(row):
        yield "FORMAT", form
    yield from (("DRIFT", words) for words in row.drift)
    yield from (("ITEM", item_in_words(item)) for item in row.items[:2])
    yield from (("SAFETY", words) for words in row.agreement)
    yield from (("TRAIT", words) for words in row.traits[:2])
    yield from (("OVERLAP", words) for words in row.overlap[:2])
    yield from (("BESIDE", words) for words in row.beside[:2])


def _several(audit: Audit) -> Iterator[tuple[str, str]]:
    if audit.keep:
        yield "KEEP", audit.keep
    for row in audit.rows:
        yield "ROW", f"{row.name}: {row.words}"
    for row in audit.rows:
        for finding in row.findings[:2]:
            yield "HARM", f"{row.name}: {finding.words}"
    worst = max(audit.rows, key=lambda row: row.needed or 0)
    yield "SEEN", seen_in_words(audit, worst)
    if audit.instruments:
        yield "SAFETY", audit.instruments
    for row in audit.rows:
        if row.drift:
            yield "DRIFT", f"{row.name}, {row.drift[0]}"


# Tables.


def questions_table(row: AuditRow) -> Table:
    """All that was asked of a row, with corrected intervals."""
    columns: list[Column | str] = [
        *("asked", "about", "base", row.name, "change", "interval", "minimal detectable", "items", "called"),
    ]
    return Table(
        f"{row.name}: all that was asked; intervals hold together over the whole audit",
        columns,
        [_question_entries(question) for question in row.questions],
    )


def _question_entries(question: Question) -> list[Entry | str]:
    digits, change = question.digits, question.change
    style = _TOLD[question.called]
    unit = "" if question.unit == "points" else question.unit
    return [
        Entry(question.name + (" ↓" if question.better < 0 else ""), value=question.name),
        question.area,
        Entry(plain(question.before, digits), value=question.before),
        Entry(plain(question.after, digits), value=question.after),
        Entry(signed(change.value, digits), unit, style=style, value=change.value),
        Entry(interval(change.low, change.high, digits)),
        Entry(plain(question.smallest, digits), value=question.smallest),
        Entry(f"{question.n:,}", value=question.n),
        Entry(_called(question), question.words, style=style),
    ]


def rows_table(audit: Audit) -> Table:
    """Every row's changes on every task: one line a row, for several rows or checkpoints."""
    tasks = [question.name for question in audit.rows[0].questions if question.kind == "task"]
    lines = []
    for row in audit.rows:
        by_name = {question.name: question for question in row.questions}
        cells = [
            Entry(
                signed(by_name[name].change.value, by_name[name].digits),
                interval(by_name[name].change.low, by_name[name].change.high, by_name[name].digits),
                style=_TOLD[by_name[name].called],
                value=by_name[name].change.value,
            )
            for name in tasks
        ]
        lines.append([Entry(row.name), Entry(row.verdict), *cells])
    return Table("changes from the base, each with its corrected interval", ["row", "verdict", *tasks], lines)


def audit_csv(audit: Audit) -> str:
    """The tables of all rows as CSV, one under the other with the row's name in front."""
    parts: list[str] = []
    for row in audit.rows:
        head, *lines = to_csv(questions_table(row)).splitlines()
        head = head.replace(f",{row.name},", ",after,")
        parts += [f"row,{head}"] * (not parts) + [f"{row.name},{line}" for line in lines]
    return "\n".join(parts) + "\n"


# Markdown and JUnit.


def audit_markdown(audit: Audit) -> str:
    """A summary for a pull request or a model card: verdicts, clear changes, harms, what could be seen."""
    lines = [
        f"## Audit against {escaped_markdown(audit.base)}: {audit.verdict}",
        "",
        f"{asked(audit)}. {cost_in_words(audit)}.",
    ]
    if audit.keep:
        lines += ["", f"**{sentence(audit.keep)}**"]
    if audit.instruments:
        lines += ["", sentence(audit.instruments)]
    for row in audit.rows:
        lines += ["", f"### {escaped_markdown(row.name)}", "", f"**{sentence(row.words)}**", ""]
        lines += [f"- {sentence(finding.words)}" for finding in row.findings]
        clear = row.clear("worse", "better", "changed")
        if clear:
            lines += [
                "",
                "| asked | base | here | change [interval] | items | |",
                "|---|---|---|---|---|---|",
            ]
            lines += [
                f"| {escaped_markdown(q.name)} | {plain(q.before, q.digits)} | {plain(q.after, q.digits)} "
                f"| {estimate(q.change, q.digits)}{_unit(q)} | {q.n:,} | {_called(q)} |"
                for q in clear
            ]
        lines += ["", sentence(seen_in_words(audit, row))]
        told = (*row.drift, *row.agreement, *row.traits, *row.overlap)
        lines += [f"- {sentence(words)}" for words in told]
    left_out = "; ".join(f"{name} ({reason})" for name, reason in audit.left_out.items())
    if left_out:
        lines += ["", f"Not asked: {left_out}."]
    return "\n".join([*lines, "", "Measured with traitmap audit.", ""])


def audit_junit(audit: Audit) -> str:
    """JUnit XML: a suite for each row, a case for each question; a harm fails, what is unknown is skipped."""
    suites = ElementTree.Element("testsuites", name=clean(audit.name))
    for row in audit.rows:
        suite = ElementTree.SubElement(
            suites, "testsuite", name=clean(row.name), tests=str(len(row.questions) + 1)
        )
        verdict = ElementTree.SubElement(suite, "testcase", classname=clean(row.name), name="verdict")
        if row.verdict == "harmed":
            ElementTree.SubElement(verdict, "failure", message=clean(row.words))
        elif row.verdict == "cannot tell":
            ElementTree.SubElement(verdict, "error", message=clean(row.words))
        failed = 0
        for question in row.questions:
            case = ElementTree.SubElement(
                suite, "testcase", classname=clean(row.name), name=clean(question.name)
            )
            beyond = (
                audit.fail_on is None or question.unit != "points" or -question.improvement >= audit.fail_on
            )
            if question.called == "worse" and beyond:
                failed += 1
                ElementTree.SubElement(case, "failure", message=clean(change_in_words(question)))
            elif question.called == "unknown":
                ElementTree.SubElement(case, "skipped", message=clean(question.change.reason))
        suite.set("failures", str(failed + (row.verdict == "harmed")))
        suite.set("errors", str(int(row.verdict == "cannot tell")))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


# The page.


def audit_page(audit: Audit) -> str:
    """One self-contained HTML page. All texts are escaped; nothing is fetched."""
    verdicts = [row.words if len(audit.rows) == 1 else f"{row.name}: {row.words}" for row in audit.rows]
    lines = [("VERDICT", listed(verdicts)), ("ASKED", f"{asked(audit)}, against {audit.base}")]
    lines += [("KEEP", audit.keep)] if audit.keep else []
    lines += [("SAFETY", audit.instruments)] if audit.instruments else []
    sections = [table_section("Rows", rows_table(audit))] if len(audit.rows) > 1 else []
    sections += [_row_section(audit, row) for row in audit.rows]
    left_out = [f"{name} was not asked: {reason}" for name, reason in audit.left_out.items()]
    sections.append(Section("To know", "To know", [*left_out, *audit.notes]))
    return plain_page(
        title=f"{audit.name}: {audit.verdict}",
        lead="What each row changed, beside its base on the same items.",
        lines=[*lines, ("COST", cost_in_words(audit))],
        sections=sections,
    )


def _row_section(audit: Audit, row: AuditRow) -> Section:
    parts: list[str | Listing | Table] = [row.words]
    if row.findings:
        parts.append(Listing("What it did", [finding.words for finding in row.findings]))
    parts += [questions_table(row), seen_in_words(audit, row)]
    for head, texts in (
        ("Drift (95 % intervals over texts)", row.drift),
        ("Do the safety tasks agree?", row.agreement),
        ("Known traits that it moved along", row.traits),
        ("Test items in the training data", row.overlap),
        ("What lies beside it (shown as found, not measured here)", row.beside),
    ):
        if texts:
            parts.append(Listing(head, texts))
    if row.items:
        columns = ["target", "asked", "right", "base answered", "now"]
        rows = [[item.target, item.text, item.gold, item.before, item.after] for item in row.items]
        parts.append(Table("Items that changed most (of long ones the end)", columns, rows))
    return Section(row.name, row.name, parts)
