"""Tables of the page in a real browser: sort, filter, compare, search, the address, Back, copy, widths."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated

from traitmap.analysis.answer import Answer, answer_of
from traitmap.analysis.cells import RunDetails
from traitmap.analysis.controls import Evidence
from traitmap.analysis.verdicts import cell_verdicts, cells_to_look_at
from traitmap.api.subject import traits_if_any
from traitmap.matrix.record import TransferMatrix
from traitmap.report.page import write_report
from traitmap.report.records import ReportContents

TARGETS, SOURCES, GAINS, PAIR = "#targets-table", "#sources-table", "#gains-table", "#compare-table"


@pytest.fixture(scope="module")
def whole() -> TransferMatrix:
    """A simulated matrix with groups, a failed cell and a name that must be escaped in an address."""
    names = (*simulated.NAMES[:-1], "a/b & c=d")
    whole = simulated.failed(simulated.matrix(names, names, items=80), "stars", "toxicity")
    tags = {name: ("reviews" if "reviews" in name else "others",) for name in names}
    return replace(whole, source_tags=tags, target_tags=tags)


@pytest.fixture(scope="module")
def answer(whole: TransferMatrix) -> Answer:
    """Its answer, where everything that happens on ``paraphrase`` is collapse and all else is clean."""
    evidence = {
        (source, target): Evidence(collapsed=target == "paraphrase", commonest="no", commonest_share=1.0)
        for target, sources in cells_to_look_at(whole).items()
        for source in sources
    }
    return answer_of(whole, cell_verdicts(whole, evidence))


@pytest.fixture(scope="module")
def details(whole: TransferMatrix) -> RunDetails:
    return simulated.details(whole)


@pytest.fixture(scope="module")
def report(
    whole: TransferMatrix, answer: Answer, details: RunDetails, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    contents = ReportContents(
        whole, simulated.traits(whole), simulated.CONDITIONS, cells=details, answer=answer
    )
    return write_report(tmp_path_factory.mktemp("tables") / "report.html", contents)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty sources and forty targets with long names, all of them measured."""
    sources = [f"a_rather_long_name_of_a_source_{i:02d}" for i in range(60)]
    targets = [f"a_rather_long_name_of_a_target_{i:02d}" for i in range(40)]
    whole = simulated.matrix(sources, targets, items=20)
    scores = TransferMatrix(whole.sources, whole.targets, whole.values, whole.baseline)
    contents = ReportContents(whole, traits_if_any(scores), simulated.CONDITIONS)
    return write_report(tmp_path_factory.mktemp("large") / "report.html", contents)


def column(page: Any, table: str, at: int) -> list[str]:
    """Texts of a column, of the rows that are shown, without marks and what stands small."""
    return page.evaluate(
        """([table, at]) => [...document.querySelector(table).tBodies[0].rows].filter((row) => !row.hidden)
        .map((row) => [...row.cells[at].childNodes].filter((node) => ["#text", "A"].includes(node.nodeName))
        .map((node) => node.textContent).join(""))""",
        [table, at],
    )


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def order_of(page: Any, table: str, at: int) -> str | None:
    return page.locator(f"{table} thead th").nth(at).get_attribute("aria-sort")


def address(page: Any, wanted: Callable[[str], bool]) -> str:
    """The fragment of the address, once it is as wanted: it follows what is done with some delay."""
    for _ in range(50):
        found: str = page.evaluate("location.hash")
        if wanted(found):
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"the address stays at {found!r}")


def test_a_table_is_sorted_by_keys_and_the_address_holds_its_order(visit: Any, report: Path) -> None:
    opened = visit(report)
    page = opened.page
    names = column(page, TARGETS, 0)
    base = column(page, TARGETS, 1)
    head = page.locator(f"{TARGETS} thead button").nth(1)
    head.focus()
    page.keyboard.press("Enter")
    assert column(page, TARGETS, 1) == sorted(base, key=number, reverse=True)
    assert order_of(page, TARGETS, 1) == "descending"
    page.keyboard.press("Space")
    assert column(page, TARGETS, 1) == sorted(base, key=number)
    assert order_of(page, TARGETS, 1) == "ascending"
    assert address(page, lambda hash: hash.endswith("1a")) == "#sort-targets-table=1a"
    again = visit(report, hash="#sort-targets-table=1a").page
    assert column(again, TARGETS, 1) == sorted(base, key=number)
    page.keyboard.press("Enter")
    assert column(page, TARGETS, 0) == names
    assert order_of(page, TARGETS, 1) is None
    assert opened.quiet(report)


def test_numbers_are_sorted_as_numbers_and_what_is_unknown_stands_last(visit: Any, report: Path) -> None:
    page = visit(report).page
    page.locator("#matrix-table summary").click()
    at = 1 + simulated.NAMES.index("toxicity")
    before = column(page, GAINS, at)
    assert "failed" in before[1:]
    for way in ("descending", "ascending"):
        page.locator(f"{GAINS} thead button").nth(at).click()
        assert order_of(page, GAINS, at) == way
        first, *rows = column(page, GAINS, at)
        assert first == before[0]  # the base stays above
        assert rows[-1] == "failed"
        gains = [number(text) for text in rows[:-1]]
        assert gains == sorted(gains, reverse=way == "descending")
        assert min(gains) < -9 or max(gains) > 9  # text would be sorted otherwise


def test_filters_by_text_and_by_group(visit: Any, report: Path, whole: TransferMatrix) -> None:
    page = visit(report).page
    page.locator(".first-table input[type=search]").fill("REVIEWS, infer")
    shown = [name for name in whole.targets if "reviews" in name or "infer" in name]
    assert column(page, TARGETS, 0) == shown
    assert page.locator(".first-table [data-count]").text_content() == f"{len(shown)} of 10 targets"
    address(page, lambda hash: "targets=REVIEWS" in hash)
    page.locator(".first-table select").select_option("others")
    assert column(page, TARGETS, 0) == ["inference"]
    # the large matrix, its table and the inputs beside it follow
    names = page.locator(".column-names [data-t]:visible").all_text_contents()
    assert names == ["inference"]
    assert page.locator("#transfer [data-state=targets]").input_value() == "REVIEWS, infer"
    page.locator("#matrix-table summary").click()
    heads = page.locator(f"{GAINS} thead th:visible").all_text_contents()
    assert heads == ["source", "inference", "mean"]
    page.locator("#transfer [data-state=sources-group]").select_option("reviews")
    rows = [name for name in whole.sources if "reviews" in name]
    assert column(page, GAINS, 0) == ["base", *rows]
    assert sorted(page.locator(".row-names [data-s]:visible").all_text_contents()[1:]) == sorted(rows)
    hash = address(page, lambda hash: "sources-group=reviews" in hash)
    again = visit(report, hash=hash).page
    assert again.locator(".column-names [data-t]:visible").all_text_contents() == ["inference"]
    page.locator("#transfer [data-state=targets]").fill("nobody")
    assert page.locator("#matrix-empty").is_visible()


def shown_means(page: Any) -> dict[str, float]:
    """Source -> mean of its row in the heat map, by the height at which both stand."""
    found = page.evaluate(
        """() => [".row-names [data-s]:not([data-s='-1'])", ".means text.mean"].map((place) =>
          [...document.querySelectorAll(place)].filter((node) => node.style.display !== "none")
          .map((node) => [node.getBoundingClientRect().y, node.firstChild.textContent]))"""
    )
    names, means = found
    return {name: number(min(means, key=lambda mean: abs(mean[0] - y))[1]) for y, name in names}


def test_means_leave_out_in_domain_and_hidden_cells(
    visit: Any, report: Path, whole: TransferMatrix, answer: Answer
) -> None:
    page = visit(report).page
    gains = 100 * whole.gains
    outside = np.array([[s != t for t in whole.targets] for s in whole.sources])
    kinds = [[answer.verdicts.of(s, t).kind for t in whole.targets] for s in whole.sources]
    unclean = np.array(kinds) == "collapse"
    assert unclean.any()
    assert not np.array_equal(unclean.any(axis=0), np.ones(10, dtype=bool))
    for hidden in (False, True):
        used = outside & np.isfinite(gains) & ~(unclean & hidden)
        for source, mean in shown_means(page).items():
            row = whole.sources.index(source)
            assert mean == pytest.approx(gains[row][used[row]].mean(), abs=0.0501)
        if not hidden:
            page.locator("#transfer [data-state=clean]").check()
    veiled = page.locator(".cell.veiled")
    assert veiled.count() == unclean.sum()
    assert set(veiled.locator("text").all_text_contents()) == {"■"}
    assert page.locator("#small-matrix .veiled").count() == unclean.sum()
    address(page, lambda hash: hash == "#clean=1")
    # an order by a column leaves them last
    page.locator("#order-rows").select_option("down:paraphrase")
    places = [whole.sources.index(name) for name in _rows(page)]
    clean = [at for at in places if used[at, whole.targets.index("paraphrase")]]
    values = gains[clean, whole.targets.index("paraphrase")].round(6).tolist()
    assert values == sorted(values, reverse=True)


def _rows(page: Any) -> list[str]:
    """Names of the rows of the heat map, from the top."""
    rows = page.evaluate(
        """() => [...document.querySelectorAll(".row-names [data-s]")].filter((n) => n.dataset.s >= 0)
        .map((n) => [n.getBoundingClientRect().y, n.textContent])"""
    )
    return [name for _, name in sorted(rows)]


def test_a_click_on_a_name_orders_the_other_side(visit: Any, report: Path, whole: TransferMatrix) -> None:
    page = visit(report).page
    clustered = _rows(page)
    name = page.locator(".column-names [data-t]", has_text="inference").last
    at = whole.targets.index("inference")
    for sign in (-1, 1):
        name.click()
        gains = [sign * whole.gains[whole.sources.index(row), at] for row in _rows(page)]
        assert np.array(gains).round(6).tolist() == sorted(np.array(gains).round(6).tolist())
    assert page.locator("#order-rows").input_value() == "down:inference"
    assert address(page, lambda hash: "rows=up" in hash) == "#rows=up%3Ainference"
    name.click()
    assert _rows(page) == clustered


def test_two_adapters_stand_side_by_side(
    visit: Any, report: Path, whole: TransferMatrix, details: RunDetails
) -> None:
    opened = visit(report)
    page = opened.page
    page.locator("#compare summary").click()
    page.locator("#compare-first").select_option("inference")
    page.locator("#compare-second").select_option("stars")
    assert column(page, PAIR, 0) == list(whole.targets)
    first, second = 1 + whole.sources.index("inference"), 1 + whole.sources.index("stars")
    for row, target in enumerate(whole.targets):
        sides = details.pairs[target]
        if np.isfinite(sides.gain[first, second]):
            change = sides.scores[first] - sides.scores[second]
            assert number(column(page, PAIR, 3)[row]) == pytest.approx(
                100 * sides.gain[first, second], abs=0.051
            )
            assert column(page, PAIR, 4)[row] == str((change > 0).sum())
            assert column(page, PAIR, 5)[row] == str((change < 0).sum())
    hash = address(page, lambda hash: "compare=inference/stars" in hash)
    again = visit(report, hash=hash).page
    assert column(again, PAIR, 3) == column(page, PAIR, 3)
    page.locator("#compare-second").select_option("base")
    assert column(page, PAIR, 3)[4] == "+1.2" or number(column(page, PAIR, 3)[4]) is not None
    page.locator(f"{PAIR} a", has_text="toxicity").click()
    assert page.locator("#cell-title").text_content() == "inference → toxicity"
    page.go_back()
    page.locator("#cell").wait_for(state="hidden")
    assert opened.quiet(report)


def test_items_of_a_cell_are_searched_and_back_closes_it(
    visit: Any, report: Path, whole: TransferMatrix, details: RunDetails
) -> None:
    opened = visit(report, hash="#view=absolute")
    page = opened.page
    page.locator("#small-matrix [data-cell='3 4']").click()
    source, target = whole.sources[3], whole.targets[4]
    assert address(page, lambda hash: "cell" in hash) == f"#view=absolute&cell={source}/{target}"
    cell = details.cells[source, target]
    tally = page.locator("#cell .tally")
    same = cell.items - cell.won - cell.lost
    assert tally.text_content() == f"{cell.won} won, {cell.lost} lost, {same} the same, of {cell.items} items"
    items = page.locator("#cell .items > li")
    assert items.count() == 10
    page.locator("#cell button.more").click()
    assert items.count() == 20
    page.locator("#cell section select").select_option("won")
    assert items.count() == min(10, cell.won)
    assert all("won" in text for text in page.locator("#cell .items .evidence").all_text_contents())
    page.locator("#cell input[type=search]").fill("ITEM 7")
    base, sides = details.targets[target], details.pairs[target]
    won = sides.scores[4] > sides.scores[0]
    wanted = [at for at in range(30) if "item 7" in base.texts[at][0] and won[at]]
    assert items.count() == len(wanted)
    page.locator("#cell-with").select_option(whole.sources[5])
    change = sides.scores[4] - sides.scores[6]
    if np.isfinite(change).all():
        assert f"{(change > 0).sum()} won, {(change < 0).sum()} lost" in tally.text_content()
    hash = address(page, lambda hash: "with=" in hash and "find=ITEM" in hash)
    again = visit(report, hash=hash).page
    assert again.locator("#cell-with").input_value() == whole.sources[5]
    assert again.locator("#cell input[type=search]").input_value() == "ITEM 7"
    again.keyboard.press("Escape")
    again.locator("#cell").wait_for(state="hidden")
    assert address(again, lambda hash: "cell" not in hash) == "#view=absolute"
    page.go_back()
    page.locator("#cell").wait_for(state="hidden")
    assert page.evaluate("location.hash") == "#view=absolute"
    page.go_forward()
    page.locator("#cell").wait_for(state="visible")
    assert opened.quiet(report)


def test_names_survive_the_address(visit: Any, report: Path) -> None:
    page = visit(report).page
    page.locator("#small-matrix [data-cell='9 9']").click()
    hash = address(page, lambda hash: "cell" in hash)
    again = visit(report, hash=hash).page
    assert again.locator("#cell-title").text_content() == "a/b & c=d → a/b & c=d"
    assert visit(report, hash="#cell=%ZZ/x").page.locator("#cell").is_hidden()


def test_links_of_the_page_keep_what_is_set(visit: Any, report: Path) -> None:
    page = visit(report, hash="#clean=1").page
    page.locator("nav a", has_text="Traits").click()
    assert address(page, lambda hash: "at=" in hash) == "#clean=1&at=traits"
    top = page.locator("#traits").bounding_box()["y"]
    assert -5 < top < 120
    assert page.locator("#transfer [data-state=clean]").is_checked()
    assert visit(report, hash="#traits").page.locator("#traits").bounding_box()["y"] < 200


@pytest.mark.parametrize("kind", ["Markdown", "LaTeX", "CSV"])
def test_tables_are_copied_as_numbers_without_marks(visit: Any, report: Path, kind: str) -> None:
    page = visit(report).page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".first-table input[type=search]").fill("reviews")
    page.locator("#matrix-table summary").click()
    page.locator("#matrix-table .copies button", has_text=kind).click()
    text = page.evaluate("navigator.clipboard.readText()").replace("\r\n", "\n")
    names = ["source", "reviews_3way", "reviews_3way_balanced"]
    rows = _read(kind, text)
    assert rows[0] == names
    assert len(rows) == 1 + 1 + 10
    for row in rows[1:]:
        assert all(re.fullmatch(r"[+-]?\d+\.\d", entry) for entry in row[1:])
    shown = [number(entry) for entry in column(page, GAINS, 1 + simulated.NAMES.index("reviews_3way"))]
    assert [float(row[1]) for row in rows[1:]] == shown
    page.locator(".first-table .copies button", has_text=kind).click()
    rows = _read(kind, page.evaluate("navigator.clipboard.readText()").replace("\r\n", "\n"))
    assert {"gain", "gain: low", "gain: high"} <= set(rows[0]) or "gain" in rows[0]
    gains = [row[rows[0].index("gain")] for row in rows[1:]]
    assert all(entry == "" or float(entry) for entry in gains)


def _read(kind: str, text: str) -> list[list[str]]:
    """Rows of a copied table, by a reader that knows the form and nothing of the page."""
    if kind == "CSV":
        return list(csv.reader(io.StringIO(text)))
    if kind == "Markdown":
        lines = [line for line in text.splitlines() if not set(line) <= set("|-: ")]
        return [[entry.strip() for entry in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{tabular}{l")
    lines = [line.removesuffix(" \\\\") for line in text.splitlines() if line.endswith("\\\\")]
    return [
        [entry.strip(" $").replace("\\_", "_") for entry in re.split(r"(?<!\\)&", line)] for line in lines
    ]


def test_one_card_at_a_time(visit: Any, report: Path, whole: TransferMatrix) -> None:
    page = visit(report).page
    shown = page.locator("#adapters .cards > :visible h3")
    assert page.locator("#adapters .cards > *").count() == 10
    assert shown.all_text_contents() == [whole.sources[0]]
    assert page.locator("#adapters svg.figure:visible").count() == 1
    page.locator("#adapters .one-of button").last.click()
    assert shown.all_text_contents() == [whole.sources[1]]
    page.locator("#adapters .one-of select").select_option("stars")
    assert address(page, lambda hash: "stars" in hash) == "#adapter=stars"
    page.locator("#adapters .one-of select").select_option("*")
    assert shown.all_text_contents() == list(whole.sources)


def test_sixty_by_forty_is_usable(visit: Any, large: Path) -> None:
    opened = visit(large)
    page = opened.page
    page.add_style_tag(content="* { content-visibility: visible !important; }")
    assert page.evaluate("document.documentElement.scrollHeight") < 12_000
    # heads of the long tables and of the matrix stay in sight while these are scrolled
    for frame, head in (("#targets-table", "thead th"), ("#sources-table", "thead th")):
        scroll = page.locator(f".scroll:has(> {frame})")
        scroll.evaluate("one => { one.scrollTop = 400; }")
        top = scroll.bounding_box()["y"]
        assert page.locator(f"{frame} {head}").first.bounding_box()["y"] == pytest.approx(top, abs=2)
    frame = page.locator("#matrix-frame")
    names = page.locator(".column-names .name").first
    before = names.bounding_box()["y"] - frame.bounding_box()["y"]
    frame.evaluate("one => { one.scrollTop = 300; }")
    page.wait_for_timeout(100)
    assert names.bounding_box()["y"] - frame.bounding_box()["y"] == pytest.approx(before, abs=2)
    page.locator("#transfer [data-state=sources]").fill("_07")
    assert page.locator(".row-names [data-s]:visible").count() == 2
    labels = page.evaluate(
        """() => {
          document.querySelectorAll("#traits details").forEach((one) => { one.open = true; });
          const names = document.querySelectorAll("[data-figure=biplot] .broad text.name");
          return [...names].map((n) => n.getBoundingClientRect())
            .map((box) => [box.left, box.top + 2, box.right, box.bottom - 2]);
        }"""
    )
    assert len(labels) > 10
    for at, (left, top, right, bottom) in enumerate(labels):
        for other in labels[:at]:
            assert not (left < other[2] and other[0] < right and top < other[3] and other[1] < bottom)
    assert opened.quiet(large)


@pytest.mark.parametrize("width", [390, 768, 1024, 1440])
@pytest.mark.parametrize("kind", ["report", "large", "run_report"])
def test_nothing_is_clipped(visit: Any, request: pytest.FixtureRequest, width: int, kind: str) -> None:
    """Nothing is wider than the window but what scrolls in its own frame, and no figure cuts its text."""
    page = visit(request.getfixturevalue(kind), width=width).page
    page.add_style_tag(content="* { content-visibility: visible !important; }")
    page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll("body *")].filter((node) => {
          const box = node.getBoundingClientRect();
          if (!box.width || box.right <= width + 1 || node.closest(".sr-only, .skip")) return false;
          for (let up = node.parentElement; up; up = up.parentElement) {
            if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(up).overflowX)) return false;
          }
          return true;
        }).map((node) => node.outerHTML.slice(0, 120))""",
        width,
    )
    assert wide == []
    cut = page.evaluate(
        """() => [...document.querySelectorAll("main svg.figure")].flatMap((svg) => {
          const frame = svg.getBoundingClientRect();
          if (!frame.width) return [];
          return [...svg.querySelectorAll("text")].filter((text) => {
            const box = text.getBoundingClientRect();
            const inside = box.left >= frame.left - 2 && box.right <= frame.right + 2
              && box.top >= frame.top - 2 && box.bottom <= frame.bottom + 2;
            return box.width && !inside && !text.closest(".row-names, .column-names");
          }).map((text) => `${svg.querySelector("title")?.textContent}: ${text.textContent}`);
        })"""
    )
    assert cut == []


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_in_what_opens(
    visit: Any, report: Path, faults: Any, width: int, theme: str
) -> None:
    page = visit(report, width=width, theme=theme, hash="#compare=inference/stars&clean=1").page
    page.locator("#matrix-table summary").click()
    page.add_style_tag(content="* { content-visibility: visible !important; }")
    for place in ("#findings", "#transfer"):
        assert faults(page, place) == []
    page.locator("#small-matrix [data-cell='3 4']").click()
    assert faults(page, "#cell") == []
