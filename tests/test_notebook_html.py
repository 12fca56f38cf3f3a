"""What a notebook shows of a record: static, escaped, the record's own numbers, unknown as a dash."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traitmap as tm
from traitmap.matrix.io import read_matrix
from traitmap.table import NOTEBOOK_MOST, Entry, Table, to_notebook

NASTY = '<script>alert("x")</script>'


class Tags(HTMLParser):
    """Every tag with its attributes, and the rows of every table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def records(prepared_run: Path) -> dict[str, Any]:
    run = tm.open_run(prepared_run)
    return {
        "matrix": run.matrix(),
        "traits": run.traits(),
        "recommendation": run.recommend(target="reviews"),
        "explanation": run.explain(n_permutations=99),
    }


@pytest.mark.parametrize("name", ["matrix", "traits", "recommendation", "explanation"])
def test_it_is_static_and_takes_the_colours_of_the_page(records: dict[str, Any], name: str) -> None:
    shown = records[name]._repr_html_()
    tags = Tags(shown)
    assert {tag for tag, _ in tags.tags} <= {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert {key for _, given in tags.tags for key in given} <= {"style", "title"}
    colours = re.findall(r"(?<![-\w])color:([^;\"]+)", shown)
    assert set(colours) <= {"inherit"}
    assert set(re.findall(r"background:([a-z]+)", shown)) <= {"transparent", "rgba"}
    assert len(shown) < 60_000
    assert "nan" not in Tags(shown).rows.__repr__()


def test_the_matrix_has_every_gain_in_points(records: dict[str, Any]) -> None:
    matrix = records["matrix"]
    head, base, *rows = Tags(matrix._repr_html_()).rows
    assert head[1:] == list(matrix.targets)
    assert base[0] == "base"
    assert [row[0] for row in rows] == list(matrix.sources)
    for s, row in enumerate(rows):
        for t, text in enumerate(row[1:]):
            assert float(text.rstrip("*!")) == pytest.approx(100 * matrix.gains[s, t], abs=0.051)
    starred = sum("*" in text for row in rows for text in row)
    assert starred == sum(cell.seed is None and cell.q < 0.05 for cell in matrix.cells)


def test_unknown_is_a_dash_and_lower_can_be_better(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("source,loss,hits\n__baseline__,2.5,0.5\na,2.0,0.6\nb,3.0,\n")
    matrix = read_matrix(path)
    matrix = replace(
        matrix, conditions={**matrix.conditions, "higher_is_better": {"loss": False, "hits": True}}
    )
    shown = matrix._repr_html_()
    head, base, first, second = Tags(shown).rows
    assert head == ["source", "loss ↓", "hits"]
    assert base == ["base", "2.50", "50.0"]
    assert first == ["a", "-0.50", "+10.0"]
    assert second[1] == "+0.50"
    assert not second[2].lstrip("+-").replace(".", "").isdigit()
    blue, orange = (shown.count(f"rgba({colour}") for colour in ("23,102,168", "201,96,20"))
    assert (blue, orange) == (2, 1)


def test_traits_give_loadings_with_intervals_and_every_warning(records: dict[str, Any]) -> None:
    traits = records["traits"]
    shown = traits._repr_html_()
    rows = {row[0]: row[1:] for row in Tags(shown).rows}
    for t, target in enumerate(traits.targets):
        first = float(traits.loadings[t, 0])
        if isfinite(first):
            assert float(rows[target][0].split()[0]) == pytest.approx(first, abs=0.0051)
    assert shown.count("! ") == len(traits.warnings)


def test_a_recommendation_keeps_its_order_and_says_its_verdict(records: dict[str, Any]) -> None:
    advice = records["recommendation"]
    shown = advice._repr_html_()
    assert advice.verdict_words in shown
    names = [row[0].split(". ", 1)[1] for row in Tags(shown).rows[1:]]
    assert names == [one.source for one in advice.ranked]
    assert replace(advice, ranked=())._repr_html_()


def test_an_explanation_says_all_its_words(records: dict[str, Any]) -> None:
    from html import unescape

    found = records["explanation"]
    shown = unescape(found._repr_html_())
    assert all(one in shown for one in found.words)


def test_names_are_text_and_large_tables_are_cut() -> None:
    table = Table(NASTY, [NASTY, NASTY], [(NASTY, Entry(NASTY, title='" onx="'))])
    shown = to_notebook(NASTY, NASTY, table, notes=[NASTY])
    assert "<script" not in shown
    assert {key for _, given in Tags(shown).tags for key in given} == {"style", "title"}
    wide = Table("", ["s", *map(str, range(100))], [(str(at), *["1"] * 100) for at in range(90)])
    tags = Tags(to_notebook("wide", wide))
    assert len(tags.rows) == 1 + NOTEBOOK_MOST
    assert all(len(row) == 1 + NOTEBOOK_MOST for row in tags.rows)
    assert "60 more columns" in to_notebook("wide", wide)


def test_a_matrix_of_one_number_and_none_are_shown() -> None:
    one = tm.TransferMatrix(("a",), ("t",), np.array([[np.nan]]), np.array([np.nan]))
    assert Tags(one._repr_html_()).rows[1:] == [["a", "missing"]]
    none = tm.TransferMatrix((), (), np.zeros((0, 0)), np.zeros(0))
    assert "0 sources" in none._repr_html_()
