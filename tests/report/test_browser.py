"""The report in a real browser: opens from disk, says nothing on the console, asks nothing of the network."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import simulated

from traitmap.analysis.cells import RunDetails
from traitmap.analysis.profiles.pairs import Reason
from traitmap.analysis.traits.scaling import clustered_order
from traitmap.matrix.record import TransferMatrix
from traitmap.report.page import write_report
from traitmap.report.records import ReportContents

NASTY = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
LIGHT, DARK = "rgb(251, 250, 247)", "rgb(20, 22, 26)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated matrix with a failed cell, nasty names and texts, variations, metrics and cell details."""
    sources = (*simulated.NAMES, NASTY)
    whole = simulated.failed(simulated.matrix(sources, simulated.NAMES, items=60), "stars", "toxicity")
    made = {"parents": ["stars"], "kind": "mislabel", "dose": 1.0}
    conditions = {"name": NASTY, "seeds": [0, 1], "sources": {NASTY: {"variation": made}}}
    whole = replace(whole, conditions=conditions)
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(
        path, ReportContents(whole, simulated.traits(whole), conditions, cells=details(whole))
    )


def details(whole: TransferMatrix) -> RunDetails:
    """Made-up answers with a metric, a reason and a price, and texts that would run if they could."""
    reasons = {("stars", "inference"): (Reason("length", f"outputs moved {NASTY} 3 -> 9", 0.5, True),)}
    return replace(
        simulated.details(whole, labels=("no", "yes", NASTY), asked=NASTY),
        reasons=reasons,
        metrics=(simulated.halved(whole),),
        spent={"training seconds": 99.0},
    )


def choose(page: Any, name: str) -> None:
    """Click one of the switches of the matrix, or choose an order of its rows and columns."""
    if name in ("as in the study", "clustered"):
        for side in ("rows", "columns"):
            page.locator(f"#order-{side}").select_option(label=name)
    else:
        page.locator(".switch label", has_text=name).click()


def texts(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.cell:not(.base) text')].map(t => t.textContent)")


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")])
def test_a_runs_report_opens_quietly_and_whole(visit: Any, run_report: Path, width: int, theme: str) -> None:
    opened = visit(run_report, width=width, theme=theme)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ids = page.evaluate("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert ids == ["findings", "transfer", "traits", "adapters", "why", "which", "conditions"]
    for name in ids:
        box = page.locator(f"#{name}").bounding_box()
        assert box is not None
        assert box["height"] > 100
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))")
    assert links == ids
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == (DARK if theme == "dark" else LIGHT)
    page.locator(".cell:not(.base)").nth(3).click()
    assert page.locator("#cell[open] svg.figure").count() >= 1
    assert opened.quiet(run_report)


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(visit: Any, run_report: Path, faults: Any, width: int, theme: str) -> None:
    page = visit(run_report, width=width, theme=theme).page
    page.locator("section > details > summary, figure > details > summary").evaluate_all(
        "several => several.forEach(one => { one.parentElement.open = true; })"
    )
    page.add_style_tag(content="* { content-visibility: visible !important; }")
    assert faults(page) == []
    page.locator(".cell:not(.base)").nth(3).click()
    assert faults(page, "#cell") == []


def test_text_of_others_cannot_run(visit: Any, report: Path) -> None:
    opened = visit(report)
    page = opened.page
    assert page.locator("h1").text_content() == NASTY
    row = page.evaluate("JSON.parse(document.getElementById('matrix-data').textContent).sources.length") - 1
    page.locator(".cell:not(.base)").nth(row * 10).click()
    body = page.locator("#cell")
    assert NASTY in body.inner_text()
    assert page.locator("#cell .asked").first.text_content().startswith(NASTY)
    assert page.locator("main img, main script, #cell img, #cell script").count() == 0
    assert not page.title().startswith("owned")
    assert opened.quiet(report)


def test_pointing_at_a_cell_tells_its_details(visit: Any, report: Path) -> None:
    page = visit(report).page
    panel = page.locator("#details")
    assert not panel.is_visible()
    page.locator(".cell:not(.base)").nth(3).hover()
    told = panel.inner_text()
    assert told.startswith("word_problems → inference")
    assert texts(page)[3].split(" ")[0] in told
    assert re.search(r"Items\s+60\b", told)
    page.locator("h1").hover()
    assert not panel.is_visible()
    failed = texts(page).index("failed")
    page.locator(".cell:not(.base)").nth(failed).hover()
    assert "loss became NaN" in panel.inner_text()


def test_keyboard_walks_the_matrix_and_opens_a_cell(visit: Any, report: Path) -> None:
    page = visit(report).page
    choose(page, "as in the study")
    page.locator("#matrix-frame").focus()
    page.mouse.move(0, 0)  # a pointer that rests on a cell would be where the keys start from
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    spoken = page.locator("#spoken")
    assert spoken.text_content().startswith("big_arithmetic on big_arithmetic: gain ")
    page.keyboard.press("Enter")
    assert page.locator("#cell-title").text_content() == "big_arithmetic → big_arithmetic"
    assert page.evaluate("document.activeElement.id") == "cell-title"
    assert page.evaluate("location.hash").endswith("&cell=big_arithmetic/big_arithmetic")
    page.keyboard.press("Escape")
    page.locator("#cell").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "matrix-frame"
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert spoken.text_content().startswith("base on ")
    page.keyboard.press("Escape")
    assert not page.locator("#details").is_visible()


def test_address_leads_to_a_cell(visit: Any, report: Path) -> None:
    opened = visit(report, hash="#cell=stars/inference")
    page = opened.page
    assert page.locator("#cell-title").text_content() == "stars → inference"
    told = page.locator("#cell-body").inner_text()
    assert "Outputs moved" in told
    assert "3 → 9" in told
    assert page.locator("#cell svg.confusion").count() == 2
    assert page.locator("#cell svg.lengths").count() == 1
    assert re.search(r"\d+ won, \d+ lost, \d+ the same, of 30 items", told)
    page.locator("#cell-close").click()
    page.wait_for_url(report.as_uri())
    page.evaluate("location.hash = '#cell=nobody/nothing'")
    assert not page.locator("#cell").is_visible()
    assert opened.quiet(report)


def test_switches_show_views_orders_seeds_and_metrics(visit: Any, report: Path) -> None:
    opened = visit(report)
    page = opened.page
    gains = texts(page)
    assert [one for one in gains if "▲" in one or "△" in one]
    choose(page, "absolute")
    absolute = texts(page)
    choose(page, "z within target")
    z = texts(page)
    assert len({gains[0], absolute[0], z[0]}) == 3
    base = page.evaluate("[...document.querySelectorAll('.cell.base text')].map(t => t.textContent)")
    for column in range(10):
        gain = float(re.sub(r"[^\d.+-]", "", gains[column].replace("−", "-")))
        assert float(absolute[column]) - float(base[column]) == pytest.approx(gain, abs=0.15)
    shown = page.evaluate("[...document.querySelectorAll('.legend')].map(l => l.hidden)")
    assert shown == [True, True, False]
    choose(page, "gain over base")
    assert texts(page) == gains
    options = page.locator("#layer option").all_text_contents()
    assert options == ["mean of 2 seeds", "seed 0", "seed 1", "macro F1"]
    page.locator("#layer").select_option("1")
    assert texts(page) != gains
    page.locator("#layer").select_option("3")
    assert page.locator("#layer-note").is_visible()
    assert all(re.fullmatch(r"[+−\d.]*|failed", one) for one in texts(page))
    page.locator("#layer").select_option("0")
    assert texts(page) == gains
    assert opened.quiet(report)


def test_clustered_order_moves_boxes_and_names_together(visit: Any, report: Path) -> None:
    page = visit(report).page
    tops = "n => n.map(one => one.getBoundingClientRect().top)"
    for order in ("as in the study", "clustered"):
        choose(page, order)
        names = page.locator(".row-names text[data-s]").evaluate_all(tops)[1:]
        boxes = page.locator(".cell:not(.base) rect:first-child").evaluate_all(tops)[::10]
        assert np.array_equal(np.argsort(names), np.argsort(boxes))
        places = np.argsort(boxes).tolist()
        diagonal = page.locator(".diagonal").evaluate_all(tops)
        assert np.allclose(diagonal, np.array(boxes)[:10], atol=3)
        if order != "clustered":
            assert places == list(range(11))
        else:
            told = page.evaluate("JSON.parse(document.getElementById('matrix-data').textContent).clustered")
            assert places == told["sources"]
    whole = simulated.matrix((*simulated.NAMES, NASTY), simulated.NAMES, items=60)
    assert sorted(told["sources"]) == sorted(clustered_order(whole)[0])


@pytest.mark.parametrize("kind", ["SVG", "PNG", "CSV"])
def test_figures_can_be_saved(visit: Any, report: Path, kind: str, tmp_path: Path) -> None:
    opened = visit(report)
    page = opened.page
    button = page.locator("#transfer .save-list button", has_text=kind)
    with page.expect_download() as waiting:
        button.focus()
        page.keyboard.press("Enter")
    place = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(place)
    assert place.suffix == f".{kind.lower()}"
    if kind == "PNG":
        assert place.read_bytes().startswith(b"\x89PNG")
        assert place.stat().st_size > 20_000
    elif kind == "SVG":
        text = place.read_text(encoding="utf-8")
        assert "fill:rgb(" in text
        assert "var(" not in text
        assert "word_problems" in text
    else:
        rows = list(csv.reader(io.StringIO(place.read_text(encoding="utf-8"))))
        columns = [f"word_problems{part}" for part in ("", ": low", ": high", ": value")]
        assert rows[0][:5] == ["source", *columns]
        assert len(rows) == 1 + 1 + 11
        assert len({len(row) for row in rows}) == 1
        amounts = [entry for row in rows for entry in row if entry[:1] in "-−"]
        assert any(entry.startswith("-") for entry in amounts)
        assert not any(entry.startswith("−") for entry in amounts)
        assert float(rows[2][1]) == pytest.approx(
            float(re.sub(r"[^\d.+-]", "", texts(page)[0].replace("−", "-")))
        )
    assert opened.quiet(report)


def test_every_figure_has_its_menu(visit: Any, run_report: Path) -> None:
    page = visit(run_report).page
    figures = page.locator("main svg.figure:not(.slim *)")
    assert figures.count() == page.locator("main .save-list:not(.copies)").count() > 8
    without = page.evaluate(
        "[...document.querySelectorAll('main .save-list')].filter(m => m.children.length < 3).length"
    )
    assert without == 0


def test_what_is_wider_than_the_window_fades_at_its_edge(visit: Any, report: Path) -> None:
    frame = visit(report, width=390).page.locator("#matrix-frame")
    frame.and_(frame.page.locator(".more")).wait_for()
    frame.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    frame.and_(frame.page.locator(":not(.more)")).wait_for()
    assert "more" not in visit(report).page.locator("#matrix-frame").get_attribute("class")


def test_theme_button_overrides_the_system(visit: Any, report: Path) -> None:
    opened = visit(report, theme="dark")
    page = opened.page
    seen = []
    for _ in range(4):
        seen.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator("#theme").click()
    assert seen == [DARK, LIGHT, DARK, DARK]
    assert opened.quiet(report)


def test_paper_shows_all_and_no_switches(visit: Any, report: Path) -> None:
    page = visit(report, theme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in (".bar", ".tools", ".save-list", "#details"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator("#conditions .pairs").first.is_visible()
    assert not page.locator("#conditions .leaf").first.is_visible()  # what is folded stays in the file


def test_sixty_by_sixty_is_small_and_alive(visit: Any, tmp_path: Path) -> None:
    names = [f"a_rather_long_task_name_{i:02d}" for i in range(60)]
    whole = simulated.matrix(names, names, items=20)
    path = write_report(
        tmp_path / "large.html", ReportContents(whole, simulated.traits(whole), simulated.CONDITIONS)
    )
    assert path.stat().st_size < 8_000_000
    opened = visit(path)
    opened.page.locator(".cell:not(.base)").nth(70).hover()
    assert opened.page.locator("#details").is_visible()
    assert opened.quiet(path)


def test_pictures_of_sections(browser: Any, screenshot: ModuleType, report: Path, tmp_path: Path) -> None:
    written = screenshot.shoot(browser, report, tmp_path, ["transfer", "cell"])
    assert sorted(path.name for path in written) == [
        "cell-dark.png",
        "cell-light.png",
        "transfer-dark.png",
        "transfer-light.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert all(path.stat().st_size < 200_000 for path in written)
