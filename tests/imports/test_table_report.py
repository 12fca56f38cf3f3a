"""Tables of scores through every command: scores where there is no base, gains where there is one."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from traitmap.api import import_results, read_matrix, report_path, write_report
from traitmap.cli.app import app

MODELS = ("owl", "cat", "dog", "emu", "fox", "hen", "jay", "yak")
BENCHMARKS = ("GSM8K", "BoolQ", "PIQA", "COPA", "RTE")


def frame() -> pd.DataFrame:
    """Eight models on five benchmarks, in percent, with an average."""
    rng = np.random.default_rng(3)
    scores = pd.DataFrame(np.round(rng.uniform(20, 80, (8, 5)), 1), columns=list(BENCHMARKS))
    scores.insert(0, "model", list(MODELS))
    return scores.assign(Average=scores[list(BENCHMARKS)].mean(axis=1).round(1))


def as_csv(path: Path) -> None:
    frame().to_csv(path, index=False)


def as_excel(path: Path) -> None:
    frame().to_excel(path, index=False)


def as_markdown(path: Path) -> None:
    rows = [list(frame().columns), ["---"] * 7, *frame().astype(str).to_numpy().tolist()]
    path.write_text("\n".join("| " + " | ".join(row) + " |" for row in rows))


def as_latex(path: Path) -> None:
    rows = [list(frame().columns), *frame().astype(str).to_numpy().tolist()]
    body = " \\\\\n".join(" & ".join(row) for row in rows)
    path.write_text("\\begin{tabular}{lrrrrrr}\n" + body + " \\\\\n\\end{tabular}\n")


def as_long_table(path: Path) -> None:
    melted = frame().drop(columns="Average").melt(id_vars="model", var_name="task", value_name="acc")
    melted.to_csv(path, index=False)


class Headings(HTMLParser):
    """Texts of headings and table heads, and which section each heading is in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.sections: dict[str, str] = {}
        self._inside, self._section = "", ""
        self.feed(re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
            self.sections[self._section] = ""
        self._inside = tag if tag in ("th", "h1", "h2", "h3", "h4") else ""

    def handle_data(self, data: str) -> None:
        if self._inside and data.strip():
            self.heads.append(data.strip())
        if self._section:
            self.sections[self._section] += data


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.csv", as_csv),
        ("t.xlsx", as_excel),
        ("t.md", as_markdown),
        ("t.tex", as_latex),
        ("long.csv", as_long_table),
    ],
)
def test_a_table_without_a_base_shows_scores_and_no_gain(tmp_path, name, write):
    write(tmp_path / name)
    done = CliRunner().invoke(app, ["report", str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    assert "read as: 8 sources x 5 targets" in done.stderr
    place = tmp_path / f"{name.split('.')[0]}-report.html"
    assert place == report_path(tmp_path / name)
    page = place.read_text()
    shown = Headings(page)
    assert set(shown.sections) == {"findings", "transfer", "traits", "conditions"}
    assert all(len(words.split()) > 30 for words in shown.sections.values())
    assert not [head for head in shown.heads if "gain" in head.lower() or "adapter" in head.lower()]
    assert "__baseline__" not in page
    scores = frame().set_index("model")
    assert f"{scores.loc['owl', 'GSM8K']:.1f}" in shown.sections["transfer"]
    printed = CliRunner().invoke(app, ["matrix", str(tmp_path / name)]).stdout
    assert "no base" in printed.splitlines()[-2] + printed.splitlines()[-1]
    assert f"{scores.loc['hen', 'RTE']:.1f}" in printed
    ranked = CliRunner().invoke(app, ["recommend", str(tmp_path / name), "--target", "RTE"]).stdout
    assert re.search(r"source +score", ranked)
    assert not re.search(r"source +gain", ranked)


def with_base(path: Path, name: str) -> Path:
    frame().drop(columns="Average").replace({"model": {"emu": name}}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["base", "Base model", "__baseline__"])
def test_a_base_row_is_never_shown_by_the_name_of_the_record(tmp_path, name):
    table = with_base(tmp_path / "t.csv", name)
    done = CliRunner().invoke(app, ["import", str(table), "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "a base row" in done.stderr
    assert "base __baseline__" not in done.stderr
    for subject in (table, tmp_path / "run"):
        page = write_report(subject, tmp_path / "page.html").read_text()
        assert not re.search(r"[Bb]ase\W+(\w+\W+)?__baseline__", page)
        words = Headings(page).sections
        assert "gains over the base" in words["transfer"]
        assert "measured elsewhere" in words["findings"]
        assert "why" not in words  # a table has no texts: that is told once
        assert "Why the scores are what they are" in words["findings"]
    imported = read_matrix(tmp_path / "run")
    assert imported.conditions["base"] == "base"
    np.testing.assert_array_equal(imported.gains, read_matrix(table).gains)
    printed = CliRunner().invoke(app, ["import", str(table), "-o", str(tmp_path / "r2"), "--json"]).stdout
    assert json.loads(printed)["base"] == "base"


def test_a_table_without_a_base_is_imported_without_one(tmp_path):
    as_csv(tmp_path / "t.csv")
    report = import_results([tmp_path / "t.csv"], tmp_path / "run")
    assert report.base is None
    assert report.sources == MODELS
    matrix = read_matrix(tmp_path / "run")
    assert np.isnan(matrix.baseline).all()
    np.testing.assert_array_equal(matrix.values, read_matrix(tmp_path / "t.csv").values)
    shown = Headings(write_report(tmp_path / "run").read_text())
    assert set(shown.sections) == {"findings", "transfer", "traits", "conditions"}
    named = import_results([tmp_path / "t.csv"], tmp_path / "based", base="emu")
    assert (named.base, len(named.sources)) == ("emu", 7)


def test_errors_and_numbers_of_items_of_the_base_row_are_imported(tmp_path):
    base, other = "base,a,0.5,100,0.05\nbase,b,0.2,50,0.03", "x,a,0.6,100,0.04\nx,b,0.3,50,0.02"
    (tmp_path / "t.csv").write_text(f"source,target,value,n,stderr\n{base}\n{other}\n")
    import_results([tmp_path / "t.csv"], tmp_path / "run")
    matrix = read_matrix(tmp_path / "run")
    assert [(cell.n, cell.stderr) for cell in matrix.base_cells] == [(100, 0.05), (50, 0.03)]


def test_a_csv_without_a_base_has_no_row_for_it(tmp_path):
    as_csv(tmp_path / "t.csv")
    matrix = read_matrix(tmp_path / "t.csv")
    matrix.to_csv(tmp_path / "again.csv")
    assert "__baseline__" not in (tmp_path / "again.csv").read_text()
    again = read_matrix(tmp_path / "again.csv")
    assert again.sources == matrix.sources
    np.testing.assert_array_equal(again.values, matrix.values)
