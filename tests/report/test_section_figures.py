"""Figures of traits, why and which: the numbers of their records, nothing for the unknown, no markup."""

from __future__ import annotations

import re
from dataclasses import replace
from math import nan
from xml.etree import ElementTree

import numpy as np
import pytest
import simulated
import simulated_why as some
from page import SVG, figures, parse

from traitmap.analysis.recommendation.held_out import judged
from traitmap.analysis.traits.components import Biplot
from traitmap.analysis.traits.records import CrossValidation, Resampling, Stability, Traits
from traitmap.errors import UserError
from traitmap.matrix.statistics import unknown
from traitmap.report import explanation_figures, profiles, traits, which
from traitmap.report.figure_files import figure_names, figure_svg
from traitmap.report.page import render_report
from traitmap.report.records import ReportContents, Shown
from traitmap.report.why import why_groups

NASTY = '<script>alert("x")</script>'


def traits_with_evidence() -> Traits:
    found = simulated.traits(simulated.matrix())
    sources, targets = len(found.sources), len(found.targets)
    rng = np.random.default_rng(0)
    plane = Biplot(
        scores=found.scores[:, :2],
        loadings=found.loadings[:, :2],
        scores_covariance=np.tile(np.diag([0.01, 0.002]), (sources, 1, 1)),
        loadings_covariance=np.tile(0.01 * np.eye(2), (targets, 1, 1)),
        draws=50,
    )
    resampling = Resampling(
        "adapters", 50, np.array([0.98, 0.6]), np.array([0.95, 0.3]), np.array([0.9, 0.85]), ()
    )
    errors = np.array([1.0, 0.7, 0.65, 0.9]) + 0.01 * rng.random(4)
    return replace(
        found,
        biplot=plane,
        stability=Stability(examined=2, resamplings={"adapters": resampling}),
        cross_validation=CrossValidation(errors, np.array([0.1, 0.1, 0.0, 0.1]), 2, 1, (1, 1, 2)),
    )


@pytest.fixture(scope="module")
def contents() -> ReportContents:
    return ReportContents(
        matrix=simulated.matrix(),
        traits=traits_with_evidence(),
        conditions=simulated.CONDITIONS,
        profile=some.profile(),
        explanation=some.explanation(),
        evaluation=some.held_out(),
    )


@pytest.fixture(scope="module")
def page(contents: ReportContents) -> str:
    return render_report(contents)


def dots(shown: Shown, style: str = "dot") -> list[ElementTree.Element]:
    root = ElementTree.fromstring(shown.svg)
    return [one for one in root.iter() if style in one.get("class", "").split()]


def entries(shown: Shown) -> dict[str, list[str]]:
    """Texts of the figure's table, by the names of its rows."""
    _, rows = shown.table.shown("page")
    return {name.text: [entry.text for entry in others] for name, *others in rows}


def scale_of(shown: Shown) -> tuple[float, float]:
    """(px of nought, px of one), read off the ticks below the figure."""
    axis = next(
        one for one in ElementTree.fromstring(shown.svg).iter(f"{SVG}g") if one.get("class") == "axis"
    )
    ticks = [one for one in axis.iter(f"{SVG}text") if one.get("class") == "tick"]
    places = [
        (float((one.text or "").replace("−", "-").removesuffix(" %")), float(one.get("x", "nan")))
        for one in ticks
    ]
    (low, first), (high, last) = places[0], places[-1]
    step = (last - first) / (high - low)
    return first - low * step, step


def test_every_figure_stands_in_the_page_with_its_table(contents: ReportContents, page: str) -> None:
    tree = parse(page)
    there = {
        one.attributes["data-figure"]: one for one in tree.all("figure") if "data-figure" in one.attributes
    }
    names = figure_names(contents)
    counted = {
        one.attributes["data-silent"]: one for one in tree.all("div") if "data-silent" in one.attributes
    }
    assert {name for name in names if name != "matrix"} == there.keys() | counted.keys()
    assert not there.keys() & counted.keys()
    assert {"recipients", "regret", "class-shares"} <= counted.keys()
    assert len(names) == len(set(names))
    for name, one in there.items():
        assert len(one.all("svg")) == 2, name  # for a broad and for a narrow page
        assert len(one.all("table")) == 1, name
    for name, one in counted.items():
        assert len(one.all("table")) == 1, name
        assert not one.all("svg"), name
    ids = [one.attributes["id"] for one in tree.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))


def test_the_whole_list_of_figures_is_there(contents: ReportContents) -> None:
    wanted = (
        "scree cross-validation biplot stability loadings-1 loadings-2 profile-1 effects shares odd-cells "
        "asymmetry donors recipients dose-response answered-dose format output-lengths label-lengths "
        "class-shares style wording recommendation regret predicted recommendation-1 recommendation-3"
    )
    assert set(wanted.split()) <= set(figure_names(contents))


def test_every_figure_is_well_formed_and_says_what_it_is(page: str) -> None:
    for figure in figures(page):
        assert (figure.findtext(f"{SVG}title") or "").strip()
        assert (figure.findtext(f"{SVG}desc") or "").strip()
        assert "nan" not in ElementTree.tostring(figure, encoding="unicode").lower().replace("alternan", "")


def test_figures_stand_alone_without_styles_of_the_page(contents: ReportContents) -> None:
    for name in figure_names(contents):
        text = figure_svg(name, contents)
        root = ElementTree.fromstring(text)
        assert "var(" not in text, name
        assert 'class="' not in text, name
        assert "data-" not in text, name
        assert root.get("font-family"), name
        for one in root.iter(f"{SVG}path"):
            drawn = (one.get("fill"), one.get("stroke"))
            assert drawn != (None, None), (name, one.attrib)  # a bare path would be filled black
    with pytest.raises(UserError, match="effects"):
        figure_svg("absent", contents)


def test_effects_are_dots_at_their_values_with_intervals_where_known() -> None:
    shown = explanation_figures.effects(some.explanation())
    assert shown is not None
    zero, one = scale_of(shown)
    places = [float(dot.get("cx", "nan")) for dot in dots(shown)]
    assert places == pytest.approx([zero + v * one for v in (0.61, 0.58)], abs=0.1)  # others cannot be told
    assert len(dots(shown, "interval")) == 2
    assert "of 1 other it cannot be told" in shown.description
    open_ = some.explanation()
    quiet = explanation_figures.effects(replace(open_, joint=open_.joint[1:], alone=open_.alone[1:]))
    assert quiet is not None
    assert quiet.nothing == "none of 2 properties can be told"
    assert [("solid" in (dot.get("class") or "")) for dot in dots(shown)] == [True, True]
    bands = dots(shown, "noise")
    assert float(bands[0].get("width", "nan")) == pytest.approx(0.7 * one, abs=0.1)
    assert entries(shown)["output length"][2:5] == ["+0.61 [+0.41, +0.81]", ".006", ".012"]
    assert entries(shown)["mmd"][2] == "unknown"


def test_shares_lie_beside_chance() -> None:
    shown = explanation_figures.shares(some.explanation())
    assert shown is not None
    zero, one = scale_of(shown)
    assert [float(dot.get("cx", "nan")) for dot in dots(shown)] == pytest.approx(
        [zero + v * one for v in (21, 3, 76)], abs=0.1
    )
    assert [float(band.get("width", "nan")) for band in dots(shown, "noise")] == pytest.approx(
        [11 * one, 6 * one], abs=0.1
    )
    assert "cannot be told" in shown.description  # hidden less surface: its interval holds nought


def test_odd_cells_come_with_their_reason_and_are_not_called_odd_where_none_is(page: str) -> None:
    found = some.explanation()
    shown = explanation_figures.odd_cells(found)
    assert shown is not None
    assert shown.tag == ""
    assert "9 words too short" in str(shown.table)
    assert "Outputs are 9 words too short." in page
    calm = replace(found, odd=replace(found.odd, odd=()))
    quiet = explanation_figures.odd_cells(calm)
    assert quiet is not None
    assert quiet.nothing.endswith("is odd beyond noise")
    assert not dots(quiet, "solid")


def test_asymmetry_says_which_pairs_are_beyond_noise() -> None:
    shown = explanation_figures.asymmetry(some.explanation())
    assert shown is not None
    assert shown.description.startswith("1 of 2 pairs")
    assert ["solid" in (dot.get("class") or "") for dot in dots(shown)] == [True]
    assert shown.aside


def test_unknown_strengths_draw_nothing() -> None:
    shown = explanation_figures.strengths(some.explanation(), "recipients")
    assert shown is not None
    assert shown.nothing == "not the only target can be told from the others"
    assert not dots(shown)
    assert not dots(shown, "interval")
    assert not dots(shown, "noise")
    assert "unknown" in str(shown.svg)


def test_lengths_are_told_from_the_texts() -> None:
    shown = profiles.output_lengths(some.profile())
    assert shown is not None
    assert entries(shown)["sums"][:2] == ["24", "1"]
    assert len(dots(shown, "ridge")) == 1
    assert "Not drawn: 3 datasets of outputs of one length" in shown.description
    labels = profiles.label_lengths(some.profile())
    assert labels is not None
    assert "reviews are furthest apart: the longest median is 3.0 times" in labels.description
    assert list(entries(labels)) == ["reviews: good", "reviews: bad"]


def test_likeness_is_symmetric_and_marks_what_cannot_be_told_apart() -> None:
    shown = profiles.meaning(some.profile())
    assert shown is not None
    rows = entries(shown)
    table = {
        (row, column): text for row, texts in rows.items() for column, text in zip(rows, texts, strict=True)
    }
    assert all(table[a, b] == table[b, a] for a, b in table)
    assert len(dots(shown, "box")) == 16
    assert len(dots(shown, "even")) == sum("*" in text for text in table.values())


def test_recommendations_are_judged_by_what_was_measured() -> None:
    found = some.held_out()
    shown = which.picks(found)
    assert shown is not None
    assert "better than popularity's on 2, worse on 1" in shown.description
    assert "all of them" in shown.description
    assert len(dots(shown, "solid")) == 2  # the third is in another unit
    assert "1 target in other units" in shown.description
    zero, one = scale_of(shown)
    firsts = sorted(float(dot.get("cx", "nan")) for dot in dots(shown, "solid"))
    assert firsts == pytest.approx(sorted([zero + 7.25 * one, zero - 3.0 * one]), abs=0.1)


def test_predictions_outside_their_interval_are_marked() -> None:
    shown = which.predicted(some.held_out())
    assert shown is not None
    missed = {
        (dot.findtext(f"{SVG}title") or "").split(":")[0] for dot in dots(shown, "missed") if dot.get("cx")
    }
    assert missed == {"stories → reviews", "riddles → reviews", "reviews → sums", "stories → sums"}
    assert len(dots(shown, "held")) - 1 == 2  # two dots and the path of their intervals


def test_without_measurements_there_is_no_picture_of_them() -> None:
    bare = some.recommendation("reviews", {"sums": (1.0, nan), "riddles": (0.0, nan)}, "sums", measured={})
    held = judged((bare,))
    assert which.picks(held) is None
    assert which.regret(held) is None
    assert which.predicted(held) is None
    ranking = which.rankings(held)[0]
    assert not dots(ranking, "diamond")
    assert len(dots(ranking, "dot")) == 2


def test_cross_validation_shows_every_error_and_the_choice() -> None:
    shown = traits.cross_validation(traits_with_evidence())
    assert shown is not None
    assert len(dots(shown, "dot")) == 4
    assert len(dots(shown, "interval")) == 3  # the best one differs from itself by nothing
    assert len(dots(shown, "chosen")) == 1
    assert "best by 2 components" in shown.description
    assert "2 of 3 divisions" in shown.description


def test_biplot_draws_points_and_ellipses_of_what_is_known() -> None:
    record = traits_with_evidence()
    assert record.biplot is not None
    scores = record.biplot.scores.copy()
    scores[0] = nan
    shown = traits.biplot(replace(record, biplot=replace(record.biplot, scores=scores)))
    assert shown is not None
    assert len(dots(shown, "source")) >= len(record.sources) - 1
    assert (
        len([e for e in dots(shown, "ellipse") if "source" in (e.get("class") or "")])
        == len(record.sources) - 1
    )
    assert len(dots(shown, "arrow")) == len(record.targets)
    assert traits.biplot(replace(record, biplot=None)) is None


def test_stability_fills_only_what_is_beyond_noise() -> None:
    shown = traits.stability(traits_with_evidence())
    assert shown is not None
    assert ["solid" in (dot.get("class") or "") for dot in dots(shown)] == [True, False]


def test_markup_in_names_and_reasons_stays_text(contents: ReportContents) -> None:
    explained = some.explanation()
    bad = some.odd_cell(NASTY, NASTY, 9.0, 1.0, NASTY)
    explained = replace(explained, odd=replace(explained.odd, odd=(bad,), cells=(bad,)), words=(NASTY,))
    told = some.recommendation(NASTY, {NASTY: (1.0, 2.0), "b": (0.5, 1.0), "c": (0.1, 0.0)}, "b", words=NASTY)
    page = render_report(replace(contents, explanation=explained, evaluation=judged((told, told))))
    assert len(re.findall(r"<script\b", page)) == len(re.findall(r"<script\b", render_report(contents)))
    figures(page)


def test_what_is_missing_is_said_in_its_place(contents: ReportContents) -> None:
    bare = ReportContents(
        matrix=contents.matrix,
        traits=contents.traits,
        conditions=contents.conditions,
        missing={"why": "3 tasks are too few to tell", "which": "a recommender needs 3 targets"},
    )
    page = render_report(bare)
    assert "3 tasks are too few to tell." in parse(page).all("section", id="why")[0].words()
    assert "A recommender needs 3 targets." in parse(page).all("section", id="which")[0].words()
    assert not why_groups(bare.matrix, None, None)
    with pytest.raises(UserError, match="3 tasks are too few"):
        figure_svg("effects", bare)


def test_the_same_records_give_the_same_page(contents: ReportContents, page: str) -> None:
    assert render_report(contents) == page


def test_an_interval_that_is_unknown_is_not_drawn() -> None:
    held = some.held_out()
    shown = which.regret(replace(held, lost={**held.lost, "random": unknown("none")}))
    assert shown is not None
    assert len(dots(shown, "interval")) == 2
    assert "unknown" in str(shown.svg)


def test_relations_are_shown_where_a_parser_told_them() -> None:
    bare = some.profile()
    assert profiles.relations(bare) is None
    assert profiles.relation_effects(bare) is None
    shown = profiles.relations(some.parsed_profile())
    assert shown is not None
    columns, _ = shown.table.shown("page")
    at = [column.head for column in columns].index("obj") - 1
    assert entries(shown)["reviews"][at] == "50 %"
    effects = profiles.relation_effects(some.parsed_profile())
    assert effects is not None
    assert effects.description.count("1 of 2 tests") == 1
    zero, one = scale_of(effects)
    assert [float(dot.get("cx", "nan")) for dot in dots(effects)] == pytest.approx(
        [zero + 0.21 * one], abs=0.1
    )


def test_levels_leave_out_what_is_unknown() -> None:
    shown = explanation_figures.levels(some.explanation())
    assert shown is not None
    zero, one = scale_of(shown)
    assert [float(dot.get("cx", "nan")) for dot in dots(shown)] == pytest.approx([zero + 0.8 * one], abs=0.1)
    assert "only 9 sources" in shown.description
    assert explanation_figures.levels(replace(some.explanation(), levels=())) is None
