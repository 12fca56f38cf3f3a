"""A page of lines and tables: nothing in it can run, empty tables are left out, lines stand first."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from traitmap.errors import UserError
from traitmap.report.plain_page import plain_page, table_section, write_page
from traitmap.table import Entry, Table

HOSTILE = "<script>alert(1)</script>"


def page(name: str = "a") -> str:
    table = Table(
        "Gains", ["transfer", name], [[Entry(name), Entry("-1.5", mark="*", value=-1.5)]], ["A note."]
    )
    empty = Table("Zilch", ["one"], [])
    sections = [table_section("Gains", table), table_section("No", empty)]
    return plain_page(name, "What it is.", [("HOLDS", f"1 of 2: {name}")], sections)


def test_names_cannot_run() -> None:
    text = page(HOSTILE)
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(1)") >= 3


def test_the_policy_names_the_one_script() -> None:
    text = page()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 1
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", text)


def test_lines_come_first_and_empty_tables_not_at_all() -> None:
    text = page()
    assert text.index("1 of 2: a.") < text.index("<table")
    assert "Zilch" not in text
    assert "−1.5" in text
    assert "A note." in text


def test_a_page_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", page())
    assert write_page(tmp_path / "page.html", page()).read_text() == page()
