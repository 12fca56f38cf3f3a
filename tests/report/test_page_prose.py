"""What a page says, whatever it was made from: one form of numbers, plurals that fit, nothing untrue."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import simulated
import simulated_why as some
from page import Element, parse

from traitmap import api
from traitmap.api.report import table_contents
from traitmap.matrix.record import TransferMatrix
from traitmap.report.page import render_report
from traitmap.report.records import ReportContents

NOUNS = "source|target|item|seed|cell|adapter|pair|component|dataset|gain|curve|test|warning|task|text|group"


def whole() -> ReportContents:
    """Every section that a run can have."""
    matrix = simulated.matrix()
    return ReportContents(
        matrix,
        simulated.traits(matrix),
        simulated.CONDITIONS,
        profile=some.profile(),
        explanation=some.explanation(),
        evaluation=some.held_out(),
        cells=simulated.details(matrix),
    )


def one_seed() -> ReportContents:
    matrix = simulated.matrix(seeds=(0,))
    return ReportContents(matrix, simulated.traits(matrix), simulated.CONDITIONS)


def table(text: str, folder: Path) -> ReportContents:
    path = folder / "scores.csv"
    path.write_text(text)
    return table_contents(api.read_matrix(path), date="2026-11-30")


TABLES = {
    "shares with a base": "source,a,b,c,d\nbase,.2,.3,.4,.5\nx,.3,.3,.5,.4\ny,.2,.3,.4,.6\nz,.1,.4,.4,.5\n",
    "shares": "source,a,b,c\nx,.3,.35,.5\ny,.25,.3,.45\nz,.1,.4,.4\n",
    "per cent": "source,a,b,c\nbase,20.5,30,40\nx,30,35,50\ny,25,30,45\nz,10,40,40\n",
    "one column": "source,a\nbase,.2\nx,.3\ny,.25\nz,.1\n",
    "one row": "source,a,b,c\nx,.3,.35,.5\n",
    "one row with a base": "source,a,b,c\nbase,.2,.3,.4\nx,.3,.35,.5\n",
    "an empty column": "source,a,b,c\nbase,.2,.3,\nx,.3,.35,\ny,.25,.3,\nz,.4,.2,\n",
    "holes": "source,a,b,c\nbase,.2,.3,.4\nx,.3,,.5\ny,,.3,.45\nz,.1,.4,\n",
    "large numbers": "source,a,b,c\nx,30123,35.5,5\ny,25000,30,4\nz,10999,40,4\n",
    "negative": "source,a,b\nbase,-1.2,-3\nx,-1.1,-2.5\ny,-1.3,-3.5\nz,-2,-1\n",
}


@pytest.fixture(scope="module", params=["whole", "one seed", "unknown base", *TABLES])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = request.param
    if name in TABLES:
        return render_report(table(TABLES[name], tmp_path_factory.mktemp("table")))
    if name == "unknown base":
        matrix = simulated.matrix()
        bare = TransferMatrix(matrix.sources, matrix.targets, matrix.values, np.full(10, np.nan))
        return render_report(ReportContents(bare))
    return render_report({"whole": whole, "one seed": one_seed}[name]())


def prose(element: Element) -> list[str]:
    """Texts of the page, but of scripts, commands, files and what was recorded as it came."""
    if element.tag in ("script", "style", "pre") or element.attributes.get("class") in (
        "conditions",
        "pairs",
    ):
        return []
    if element.tag == "#text":
        return [element.text]
    here = [text for child in element.children for text in prose(child)]
    # what stands in one block is read together
    return (
        [" ".join("".join(here).split())]
        if element.tag in ("p", "li", "dd", "td", "th", "summary", "figcaption")
        else here
    )


def faults(texts: list[str], pattern: str) -> list[str]:
    found = (re.search(pattern, text) for text in texts)
    return [match.string[max(0, match.start() - 40) : match.end() + 40] for match in found if match]


def test_numbers_have_one_form(page: str) -> None:
    texts = prose(parse(page).all("main")[0])
    assert len(texts) > 40
    assert faults(texts, r"(?:^|[\s\[(,])-\d") == []  # a minus sign, no hyphen
    assert faults(texts, r"\d%") == []
    assert faults(texts, r"(?<![\d.,−-])(?!(?:19|20)\d\d\b)\d{4,}(?![\d-])") == []  # thousands are set apart
    assert faults(texts, r"\b(?:nan|NaN|None|inf)\b") == []


def test_sentences_are_set_as_sentences(page: str) -> None:
    texts = prose(parse(page).all("main")[0])
    assert faults(texts, "`") == []
    assert faults(texts, "->") == []
    assert faults(texts, r"[^.]\.\.$|[^.]\.\.\s|\s[,;]\s") == []


def test_plurals_fit_their_numbers(page: str) -> None:
    texts = prose(parse(page).all("main")[0])
    assert faults(texts, rf"(?<![\d.,\[−+])(?<!to )1 (?:other )?(?:{NOUNS}|propertie|classe)s\b") == []
    assert faults(texts, rf"(?<![\d.,\[])(?:[02-9]|\d\d+) (?:other )?(?:{NOUNS}|property)\b(?!['-])") == []


def test_what_is_not_there_is_not_spoken_of(page: str) -> None:
    tree = parse(page).all("main")[0]
    words = " ".join(prose(tree))
    cells = [one for one in tree.all("g") if "cell" in one.attributes.get("class", "").split()]
    known = [one for one in cells if "none" not in one.attributes["class"].split()]
    assert known, "scores are shown where there are no gains"
    assert ("Hatched cells are not measured" in words) == (len(known) < len(cells))
    if "no base is among the scores" in words:
        for untrue in ("LoRA", "over the base", "untouched base", "adapter"):
            assert untrue not in words, untrue
    if 'id="which"' not in page:
        assert "would have been recommended" not in words
    assert re.search(r"Results of|Results of\s*20\d\d-\d\d-\d\d", words) or "scores.csv" not in page
