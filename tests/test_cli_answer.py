"""The first screen of four kinds of results, held against ``--json``: terminal, page and record agree."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from traitmap.cli.app import app
from traitmap.wording import typeset

UNCLEAN = ("collapse", "format", "class shares", "overlap")
KINDS = ("run", "imported", "leaderboard", "thirty")


def leaderboard(path: Path) -> Path:
    """Eight models on five benchmarks in percent, none of them the base."""
    rng = np.random.default_rng(3)
    rows = ["model,GSM8K,BoolQ,PIQA,COPA,RTE"]
    rows += [f"m{i}," + ",".join(f"{score:.1f}" for score in rng.uniform(20, 80, 5)) for i in range(8)]
    path.write_text("\n".join(rows))
    return path


def thirty(path: Path) -> Path:
    """30 sources on 20 targets with standard errors; three sources lift, two lower, the others do nothing."""
    rng = np.random.default_rng(4)
    effect = np.zeros((30, 20))
    effect[:3, :10], effect[3:5] = 0.15, -0.15
    base = rng.uniform(0.4, 0.6, 20)
    rows = ["source,target,value,n,stderr"]
    rows += [f"base,t{t},{base[t]:.4f},1000,0.015" for t in range(20)]
    rows += [
        f"s{s},t{t},{base[t] + effect[s, t] + rng.normal(0, 0.004):.4f},1000,0.015"
        for s in range(30)
        for t in range(20)
    ]
    path.write_text("\n".join(rows))
    return path


class Lines(HTMLParser):
    """Headings and words of the page's first list, and the rows of its first table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self._inside, self._heading, self._tables = "", "", 0
        self._answer = False
        self.feed(re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._answer |= ("class", "answer") in attrs
        self._inside = tag
        self._tables += tag == "table"
        if self._tables == 1 and tag == "tr":
            self.rows.append([])
        elif self._tables == 1 and tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._answer &= tag != "dl"
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._answer and self._inside == "dt":
            self._heading = data.upper()
        elif self._answer and self._inside == "dd":
            self.lines[self._heading] = data.removesuffix(".")
        elif self._tables == 1 and self._inside in ("th", "td") and self.rows:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def screens(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Terminal, page and JSON of each kind."""
    folder = tmp_path_factory.mktemp("screens")
    table = leaderboard(folder / "leaderboard.csv")
    imported = folder / "imported"
    assert CliRunner().invoke(app, ["import", str(table), "-o", str(imported)]).exit_code == 0
    places = {
        "run": prepared_run,
        "imported": imported,
        "leaderboard": table,
        "thirty": thirty(folder / "30.csv"),
    }
    shown: dict[str, dict[str, object]] = {}
    for kind, place in places.items():
        printed = CliRunner().invoke(app, ["answer", str(place)], env={"COLUMNS": "80"})
        assert printed.exit_code == 0, printed.output
        page = folder / f"{kind}.html"
        written = CliRunner().invoke(app, ["report", str(place), "-o", str(page)])
        assert written.exit_code == 0, written.output
        data = json.loads(CliRunner().invoke(app, ["answer", str(place), "--json"]).stdout)
        shown[kind] = {"text": printed.stdout, "page": Lines(page.read_text(encoding="utf-8")), "data": data}
    return shown


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_eight_statements_of_the_first_screen_are_those_of_the_json(
    screens: dict[str, dict[str, object]], kind: str
) -> None:
    text, page, data = (screens[kind][part] for part in ("text", "page", "data"))
    assert isinstance(text, str)
    assert isinstance(page, Lines)
    assert isinstance(data, dict)
    told, lines = flat(text), data["lines"]
    # 1: what was compared, and when
    assert told.startswith(flat(data["title"]))
    assert f"{len(data['sources'])} sources x {len(data['targets'])} targets" in data["title"]
    assert re.search(r"\d{4}-\d\d-\d\d", data["title"])
    assert ("no base" in data["title"]) == (not data["has_base"])
    # every line stands on the terminal and on the page as it stands in the data; at most five
    assert len(lines) <= 5
    for heading, words in lines.items():
        assert flat(f"{heading} {words}") in told
        assert page.lines[heading] == typeset(words).replace(" -> ", " → ")
    # 2, 3: who to pick, who to avoid
    first, harm = data["by_source"][0], max(len(source["hurts"]) for source in data["by_source"])
    if data["has_base"] and first["helps"]:
        assert lines["PICK"].startswith(
            f"{first['source']}: helps {len(first['helps'])} of {first['tested']}"
        )
        assert f"hurts {len(first['hurts'])}" in lines["PICK"]
        number = first["helps"][0]["gain"]["value"]
        assert f"{first['helps'][0]['target']} {number:+.1f}" in lines["PICK"]
    elif data["has_base"]:
        assert lines["PICK"].startswith("no source")
    else:
        ranked = sorted(data["by_source"], key=lambda source: source["rank"])
        assert lines["PICK"].startswith(f"{ranked[0]['source']}: mean rank {ranked[0]['rank']:.1f} of")
        assert lines["AVOID"].startswith(ranked[-1]["source"])
    if data["has_base"] and harm:
        worst = {source["source"] for source in data["by_source"] if len(source["hurts"]) == harm}
        assert f"{harm} of " in lines["AVOID"]
        assert any(name in lines["AVOID"] for name in worst)
        assert not any(
            re.search(rf"\b{source['source']}\b", lines["AVOID"].split(":")[0])
            for source in data["by_source"]
            if len(source["hurts"]) < harm
        )
    # 4, 5: how many gains and losses, and what they are
    for noun, kinds in (("gain", data["gains"]), ("loss", data["losses"])):
        total = sum(kinds.values())
        plural = {"gain": "gains", "loss": "losses"}[noun] if total != 1 else noun
        assert (f"{total} {plural} beyond noise" in lines["TRUST"]) == bool(total)
        for name in UNCLEAN:
            if len(kinds) > 1 and name in kinds:
                assert f"{kinds[name]} {name}" in lines["TRUST"]
    # 6: seeds and what is unknown
    assert ("1 seed:" in lines["UNCERTAIN"]) == (data["seeds"] == 1 and kind == "run")
    missing = data["cells"] - data["known"]
    assert (f"{missing} of {data['cells']} cells are unknown" in lines["UNCERTAIN"]) == bool(missing)
    # 7: how small a gain could be seen
    seen = re.search(r"gains under ([\d.]+) points", lines["UNCERTAIN"])
    assert (seen is None) == (data["smallest"] is None)
    assert seen is None or float(seen[1]) == pytest.approx(data["smallest"], abs=0.0501)
    # 8: the best source of every target, on terminal and page
    assert len(page.rows) == 1 + len(data["by_target"])
    for row, shown in zip(data["by_target"], page.rows[1:], strict=True):
        assert shown[0].startswith(row["target"])
        best = row["best"]["source"] if row["best"] else "none"
        assert any(entry.startswith(best) for entry in shown[1:])
        printed = next(line for line in text.splitlines() if re.match(rf"{row['target']}\s", line))
        assert best in printed
        if row["best"] and data["has_base"]:
            assert f"{row['best']['gain']['value']:+.{row['digits']}f}" in printed


def test_nothing_untrue_is_said_of_what_is_not_there(screens: dict[str, dict[str, object]]) -> None:
    for kind in ("leaderboard", "imported"):
        told = flat(str(screens[kind]["text"]))
        assert "scores only: without a base nothing here is a gain" in told
        assert not re.search(r"\bgain \+|beyond noise|own data|fine-tun|adapter", told)
    told, data = flat(str(screens["thirty"]["text"])), screens["thirty"]["data"]
    assert isinstance(data, dict)
    assert "there are no answers to look at, so nothing but intervals was checked" in told
    assert "unchecked" in told.replace(data["lines"]["PICK"], "")
    assert " seed" not in told
    assert {source["source"] for source in data["by_source"][:3]} == {"s0", "s1", "s2"}
    assert data["gains"] == {"unchecked gain": 30}
    assert data["losses"] == {"unchecked loss": 40}


def test_a_target_that_is_asked_for_has_the_screen_to_itself(prepared_run: Path) -> None:
    done = CliRunner().invoke(app, ["answer", str(prepared_run), "--target", "stars", "--json"])
    data = json.loads(done.stdout)
    assert "for stars" in data["title"]
    refused = CliRunner().invoke(app, ["answer", str(prepared_run), "--target", "moons"])
    assert refused.exit_code != 0
    assert "no target 'moons'" in str(refused.exception) + refused.output


def test_the_matrix_opens_with_the_answer_and_marks_each_verdict(prepared_run: Path) -> None:
    printed = CliRunner().invoke(app, ["matrix", str(prepared_run)], env={"COLUMNS": "100"}).stdout
    data = json.loads(CliRunner().invoke(app, ["answer", str(prepared_run), "--json"]).stdout)
    assert flat(f"PICK {data['lines']['PICK']}") in flat(printed)
    glyphs = {cell["glyph"] for cell in data["verdicts"]["cells"] if cell["kind"] == "in-domain"}
    assert glyphs <= set(printed)
    assert "WHY" not in printed


def test_recommend_opens_with_what_was_measured_in_the_words_of_the_answer(prepared_run: Path) -> None:
    done = CliRunner().invoke(app, ["recommend", str(prepared_run), "--target", "stars"])
    assert done.exit_code == 0, done.output
    data = json.loads(
        CliRunner().invoke(app, ["answer", str(prepared_run), "--target", "stars", "--json"]).stdout
    )
    opening = flat(done.stdout).split("by is")[0]
    assert f"MEASURED {data['lines']['PICK']}" in opening
    assert "PICK" in opening
    assert "LEFT OUT stars (the target's own training set" in opening
    told = CliRunner().invoke(app, ["recommend", "--evaluate", str(prepared_run)])
    assert told.exit_code == 0, told.output
    assert flat(told.stdout).startswith("TRUST ")
    assert "FIRST PICK loses against the best source there was" in flat(told.stdout)
