"""The first screen says what ``traitmap answer --json`` holds: eight sentences of each, read off the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from page import Element, parse
from typer.testing import CliRunner

from traitmap import api
from traitmap.cli import app

REAL = Path(__file__).parents[2] / "examples" / "real" / "results" / "real-smollm2-matrix.json"
KINDS = ("mini", "import", "leaderboard", "large", "real")


def made_table(path: Path, rows: int, columns: int, *, base: bool, holes: int = 0) -> Path:
    """A file of scores with two traits behind them; some of them unknown."""
    rng = np.random.default_rng(rows)
    scores = 0.5 + 0.08 * rng.normal(size=(rows, 2)) @ rng.normal(size=(2, columns))
    scores = (scores + rng.normal(scale=0.02, size=scores.shape)).clip(0.01, 0.99)
    for hole in range(holes):
        scores[(7 * hole + 3) % rows, (3 * hole + 1) % columns] = np.nan
    names = [f"model_{at:02d}" for at in range(rows)]
    if base:
        names[0] = "base"
    frame = pd.DataFrame(scores, index=names, columns=[f"task_{at:02d}" for at in range(columns)])
    frame.to_csv(path, index_label="model")
    return path


@pytest.fixture(scope="module", params=KINDS)
def screen(
    request: pytest.FixtureRequest, prepared_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Element, dict[str, Any]]:
    """The first screen of a report, and the JSON of the same subject."""
    folder = tmp_path_factory.mktemp(request.param)
    subject = {
        "mini": lambda: prepared_run,
        "import": lambda: made_table(folder / "scores.csv", 12, 6, base=False),
        "leaderboard": lambda: made_table(folder / "board.csv", 70, 8, base=False, holes=6),
        "large": lambda: made_table(folder / "large.csv", 61, 40, base=True),
        "real": lambda: REAL,
    }[request.param]()
    told = CliRunner().invoke(app, ["answer", str(subject), "--json"])
    assert told.exit_code == 0, told.output
    page = parse(api.write_report(subject, folder / "report.html", fast=True).read_text(encoding="utf-8"))
    (section,) = page.all("section", id="findings")
    return section, json.loads(told.stdout)


def numbers(text: str) -> list[float]:
    """The numbers of a sentence, minus signs and all."""
    plain = (
        text.replace("−", "-").replace(",", "") if re.search(r"\d,\d{3}\b", text) else text.replace("−", "-")
    )
    return [float(found) for found in re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?", plain)]


def facts_of(section: Element) -> dict[str, str]:
    (facts,) = section.all("dl", **{"class": "facts"})
    names = [dt.words() for dt in facts.all("dt")]
    return dict(zip(names, [dd.words() for dd in facts.all("dd")], strict=True))


def line(section: Element, heading: str) -> str:
    (lines,) = section.all("dl", **{"class": "answer"})
    names = [dt.words() for dt in lines.all("dt")]
    return lines.all("dd")[names.index(heading)].words()


def table(section: Element, key: str) -> Iterator[list[tuple[str, str]]]:
    """(text without its mark, what stands small) of each entry, row by row below the heads."""
    (found,) = section.all("table", id=key)
    for row in found.all("tbody")[0].all("tr"):
        entries = []
        for cell in [child for child in row.children if child.tag in ("th", "td")]:
            small = "".join(one.words() for one in cell.all("small"))
            sign = "".join(one.words() for one in cell.all("span", **{"class": "sign"}))
            words = cell.words().removesuffix(small).removesuffix(sign)
            entries.append((words, small))
        yield entries


def heads(section: Element, key: str) -> list[str]:
    (found,) = section.all("table", id=key)
    return [th.words() for th in found.all("thead")[0].all("th")]


# The eight sentences: each takes the first screen and the JSON, and asserts that they agree.


def what_was_compared(section: Element, told: dict[str, Any]) -> None:
    facts = facts_of(section)
    variations = f" + {len(told['variations'])} variation" if told["variations"] else ""
    assert facts["Sources"].startswith(f"{len(told['sources'])}{variations}")
    assert facts["Targets"] == str(len(told["targets"]))
    assert facts["Cells known"] == f"{told['known']} of {told['cells']}"


def what_to_pick(section: Element, told: dict[str, Any]) -> None:
    words, first = line(section, "Pick"), told["by_source"][0]
    if not told["has_base"]:
        assert words.startswith(f"{first['source']}: mean rank {first['rank']:.1f} of {len(told['sources'])}")
        assert numbers(words.partition("first on")[2])[0] == first["firsts"]
    elif first["tested"]:
        assert first["source"] in words or not first["helps"]
        if first["helps"]:
            assert f"helps {len(first['helps'])} of {first['tested']}" in words
            most = first["helps"][0]
            digits = 1 if abs(most["gain"]["value"]) >= 1 else 2  # points, or bits per byte
            assert f"{most['gain']['value']:+.{digits}f}".replace("-", "−") in words
    else:
        name = max(told["by_source"], key=lambda source: source["mean"])["source"]
        assert words == (
            f"cannot be told: no gain has an interval; {name} has the largest mean gain, untested."
        )


def what_to_avoid(section: Element, told: dict[str, Any]) -> None:
    words, sources = line(section, "Avoid"), told["by_source"]
    if not told["has_base"]:
        worst = max(sources, key=lambda source: source["rank"])
        assert words == f"{worst['source']}: the worst mean rank, {worst['rank']:.1f} of {len(sources)}."
    elif any(source["tested"] for source in sources):
        most = max(len(source["hurts"]) for source in sources)
        assert not most or str(most) in words
    else:
        assert words == "cannot be told: no loss has an interval."


def what_to_trust(section: Element, told: dict[str, Any]) -> None:
    words = line(section, "Trust")
    for counts, noun in ((told["gains"], "gain"), (told["losses"], "loss")):
        total = sum(counts.values())
        if total:
            assert re.search(rf"\b{total} {noun}(s|es)? beyond noise", words)
            assert len(counts) == 1 or all(str(count) in words for count in counts.values())
    if not told["has_base"]:
        assert "without a base" in words


def what_is_uncertain(section: Element, told: dict[str, Any]) -> None:
    words, unknown = line(section, "Uncertain"), told["cells"] - told["known"]
    assert (f"{unknown} of {told['cells']} cells are unknown" in words) == (unknown > 0)
    if told["smallest"] is not None:
        assert f"gains under {told['smallest']:.1f} points" in words
    assert ("has a test" in words) == all(cell["q"] is None for cell in told["verdicts"]["cells"])


def which_source_for_which_target(section: Element, told: dict[str, Any]) -> None:
    rows = list(table(section, "targets-table"))
    based = told["has_base"]
    assert len(rows) == len(told["by_target"])
    for row, target in zip(rows, told["by_target"], strict=True):
        digits, best, second = target["digits"], target["best"], target["runner_up"]
        assert row[0][0].removesuffix(" (lower is better)") == target["target"]
        if based:
            assert numbers(row[1][0])[0] == pytest.approx(target["base"], abs=0.51 * 10**-digits)
        source, gain, runner = row[1 + based : 4 + based]
        if best is None:
            assert source[0].startswith("none")
            assert gain[0] == "–"
            continue
        number = best["gain"]["value"] if best["gain"]["value"] is not None else best["value"]
        assert source[0] == best["source"]
        assert numbers(gain[0])[0] == pytest.approx(number, abs=0.51 * 10**-digits)
        if best["gain"]["low"] is not None:
            ends = [best["gain"]["low"], best["gain"]["high"]]
            assert numbers(gain[1]) == pytest.approx(ends, abs=0.51 * 10**-digits)
        assert runner[0] == (second["source"] if second else "–")


def what_each_source_does(section: Element, told: dict[str, Any]) -> None:
    names = heads(section, "sources-table")
    by_name = {source["source"]: source for source in told["by_source"]}
    rows = list(table(section, "sources-table"))
    assert {row[0][0] for row in rows} <= set(by_name)
    for row in rows:
        source = by_name[row[0][0]]
        entry = dict(zip(names, row, strict=True))
        if "helps" in names:
            assert [int(entry[name][0]) for name in ("helps", "hurts", "of targets")] == [
                len(source["helps"]),
                len(source["hurts"]),
                source["tested"],
            ]
        else:
            assert float(entry["mean rank"][0]) == pytest.approx(source["rank"], abs=0.051)
            assert int(entry["targets it is first on"][0]) == source["firsts"]


def what_cannot_be_told(section: Element, told: dict[str, Any]) -> None:
    shown = [item.words().strip() for item in section.all("li")]
    for doubt in told["doubts"]:
        assert any(numbers(doubt) == numbers(item) and doubt[:30] == item[:30] for item in shown)
    signs = [cell.words().strip() for cell in section.all("i") if "data-cell" in cell.attributes]
    cells = told["verdicts"]["cells"]
    assert len(signs) == len(cells) == told["cells"]
    quiet = ("within noise", "unknown", "in-domain")
    if len(told["sources"]) + len(told["variations"]) <= 16 and len(told["targets"]) <= 16:
        assert signs == ["" if cell["kind"] in quiet else cell["glyph"] for cell in cells]


SENTENCES: tuple[Callable[[Element, dict[str, Any]], None], ...] = (
    what_was_compared,
    what_to_pick,
    what_to_avoid,
    what_to_trust,
    what_is_uncertain,
    which_source_for_which_target,
    what_each_source_does,
    what_cannot_be_told,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_the_first_screen_says_what_the_json_holds(
    screen: tuple[Element, dict[str, Any]], sentence: Callable[[Element, dict[str, Any]], None]
) -> None:
    sentence(*screen)
