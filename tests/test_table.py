"""One table, four writers: the same entries everywhere, other people's text harmless, raw numbers in CSV."""

from __future__ import annotations

import csv
import io
import re
from html import unescape
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from traitmap.table import (
    NOTEBOOK_MOST,
    Column,
    Entry,
    Table,
    fold,
    split,
    to_csv,
    to_html,
    to_notebook,
    to_terminal,
)

NASTY = '<script>alert("x")</script>\x1b[2J\x07[bold]'


def printed(table: Table, *, width: int = 80, **options: object) -> str:
    out = io.StringIO()
    Console(file=out, width=width, **options).print(to_terminal(table))
    return out.getvalue()


def cells(html: str) -> list[list[str]]:
    """Text of every row; what stands small beneath an entry is left out."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [
        [
            unescape(re.sub(r"<small>.*?</small>|</?span[^>]*>", "", text))
            for text in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in rows
    ]


def table_of(numbers: list[list[float]]) -> Table:
    columns = ("source", *(f"target_{at}" for at in range(len(numbers[0]))))
    return Table(
        "Gains.",
        columns,
        [(f"s{at}", *(Entry(f"{x:+.1f}", value=x) for x in row)) for at, row in enumerate(numbers)],
    )


TABLES = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-99, 99, allow_nan=False), min_size=width, max_size=width), min_size=1, max_size=6
    )
)


@given(TABLES, st.integers(40, 120))
def test_the_four_writers_show_the_same_entries(numbers: list[list[float]], width: int) -> None:
    table = table_of(numbers)
    page, notebook = cells(to_html(table)), cells(to_notebook("t", table))
    assert [[text.replace("−", "-") for text in row] for row in page] == notebook
    assert notebook[0] == list(table.columns)
    for row, line in zip(notebook[1:], numbers, strict=True):
        assert row[1:] == [f"{number:+.1f}" for number in line]
    by_name: dict[str, list[str]] = {}
    text = printed(table, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    for line in text.splitlines():
        name, *entries = line.split() or [""]
        by_name.setdefault(name, []).extend(entries)
    assert [[row[0], *by_name[row[0]]] for row in notebook[1:]] == notebook[1:]


@given(TABLES)
def test_csv_gives_the_raw_numbers_back(numbers: list[list[float]]) -> None:
    head, *rows = csv.reader(io.StringIO(to_csv(table_of(numbers))))
    assert head == list(table_of(numbers).columns)
    assert [[float(text) for text in row[1:]] for row in rows] == numbers


def test_csv_has_neither_marks_nor_dashes() -> None:
    table = Table(
        "", ("source", "gain", "q", "note"), [("a", Entry("+3.6", mark="*", value=3.61), "–", "few\nitems")]
    )
    assert to_csv(table) == 'source,gain,q,note\na,3.61,,"few\nitems"\n'
    assert to_csv(Table("", ("s", "x"), [("a", Entry("unknown", value=nan))])) == "s,x\na,\n"


def test_text_of_others_is_text() -> None:
    entry = Entry(NASTY, small=NASTY, title=NASTY)
    table = Table(NASTY, (NASTY, Column(NASTY)), [(NASTY, entry)], notes=(NASTY,))
    for shown in (to_html(table), to_notebook(NASTY, NASTY, table, notes=[NASTY])):
        assert "<script" not in shown
        assert not re.search("[\x00-\x08\x0e-\x1f]", shown)
        assert '"x"' not in shown
    text = printed(table, width=200, force_terminal=True, no_color=True)
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert text.count("[bold]") == 5


def test_a_wide_table_is_split_and_loses_no_column() -> None:
    table = table_of([[float(at) for at in range(40)]])
    text = printed(table, width=60)
    assert len(text.split("\n\n")) > 3
    shown = re.findall(r"\+(\d+)\.0", text)
    assert [int(number) for number in shown] == list(range(40))


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(10, 120))
def test_blocks_hold_every_column_once_and_fit(widths: list[int], room: int) -> None:
    ranges = list(split(widths, room))
    assert [c for first, last in ranges for c in range(first, last)] == list(range(len(widths)))
    for first, last in ranges:
        assert last - first == 1 or sum(w + 2 for w in widths[first:last]) <= room


def test_heads_break_between_words() -> None:
    assert fold("reviews_3way_balanced", 9) == "reviews_\n3way_\nbalanced"
    assert fold("reviews_3way_balanced", 13) == "reviews_3way_\nbalanced"
    assert fold("plain", 3) == "plain"


def test_a_column_is_shown_where_it_is_meant_for() -> None:
    columns = (
        Column("property"),
        Column("seen four times in five", short="seen"),
        Column("R²", media=("page",)),
        Column("loss", lower=True),
    )
    table = Table("", columns, [("topic", "0.30", "0.10", "2.50")])
    assert cells(to_html(table)) == [
        ["property", "seen four times in five", "R²", "loss ↓"],
        ["topic", "0.30", "0.10", "2.50"],
    ]
    assert cells(to_notebook("", table)) == [["property", "seen", "loss ↓"], ["topic", "0.30", "2.50"]]
    assert [line.split() for line in printed(table).splitlines()] == [
        ["loss"],
        ["property", "seen", "(lower)"],
        ["topic", "0.30", "2.50"],
    ]


def test_room_for_a_mark_is_kept_in_a_terminal_only() -> None:
    def table(mark: str) -> Table:
        return Table("", ("s", "t", "u"), [("a", Entry("+3.66", mark=mark), "1")])

    assert len(printed(table("  "))) == len(printed(table("*!"))) > len(printed(table("")))
    assert cells(to_html(table("  "))) == cells(to_notebook("", table("")))
    assert cells(to_html(table("  ")))[1] == ["a", "+3.66", "1"]
    assert cells(to_html(table(" !")))[1] == ["a", "+3.66!", "1"]
    assert "+3.66 !" in printed(table(" !"))
    assert to_csv(table("*!")) == "s,t,u\na,+3.66,1\n"


def test_arrows_are_typeset_where_there_are_some() -> None:
    table = Table("", ("pair", "gain"), [("a -> b", "-1.0")])
    assert cells(to_html(table))[1] == ["a → b", "−1.0"]
    assert cells(to_notebook("", table))[1] == ["a → b", "-1.0"]
    assert printed(table).splitlines()[1].startswith("a -> b")


def test_styles_are_words_that_the_writers_know() -> None:
    table = Table("", ("s", "t"), [("a", Entry("+3.6", style="in_domain better", shade=0.5))])
    text = printed(table, force_terminal=True, color_system="standard")
    assert re.search(r"\x1b\[1;4;36m\+3\.6", text)
    shown = to_notebook("", table)
    assert "font-weight:600;background:rgba(23,102,168,0.29)" in shown
    assert "style=" not in to_html(table)
    with pytest.raises(KeyError):
        printed(Table("", ("s", "t"), [("a", Entry("+3.6", style="loud"))]))


def test_rows_have_an_entry_for_each_column() -> None:
    with pytest.raises(ValueError, match="a row of 1 entries in a table of 2 columns"):
        Table("", ("s", "t"), [("a",)])


def test_a_notebook_cuts_large_tables_and_says_so() -> None:
    wide = Table("", ("s", *map(str, range(100))), [(str(at), *["1"] * 100) for at in range(90)])
    shown = to_notebook("wide", wide)
    assert len(cells(shown)) == 1 + NOTEBOOK_MOST
    assert all(len(row) == 1 + NOTEBOOK_MOST for row in cells(shown))
    assert "50 more rows are not shown; 60 more columns are not shown." in shown


def test_a_column_by_itself_is_printed_whole() -> None:
    long = "word " * 60
    shown = printed(Table("", ("text",), [("short",), (long.strip(),)]))
    assert shown.split()[:2] == ["text", "short"]
    assert shown.split().count("word") == 60


def test_a_table_without_columns_or_rows_is_nothing_to_print() -> None:
    assert printed(Table("", ("source",), [])) == ""
    assert to_csv(Table("", ("source",), [])) == "source\n"
