"""Scales, ticks and densities that figures stand on."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traitmap.report.chart import NAME_SIZE, Scale, around, log_ticks, name_text, round_ticks, text_width
from traitmap.report.figure_files import standalone
from traitmap.report.row_charts import ChartRow, density, row_chart

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, st.floats(1e-3, 1e6))
def test_ticks_are_round_evenly_spaced_and_within(low: float, span: float) -> None:
    high = low + span
    ticks = round_ticks(low, high)
    assert 1 <= len(ticks) <= 7
    room = 1e-6 * max(1.0, abs(low), abs(high))
    assert all(low - room <= tick <= high + room for tick in ticks)
    gaps = np.diff(ticks)
    assert np.allclose(gaps, gaps[0] if len(gaps) else 0, rtol=1e-5, atol=room)


@given(st.floats(0.01, 1e5), st.floats(1.5, 1e6))
def test_logarithmic_ticks_lie_within(low: float, times: float) -> None:
    assert all(low * 0.999 <= tick <= low * times * 1.001 for tick in log_ticks(low, low * times))


@given(st.lists(numbers, min_size=1, max_size=9))
def test_an_axis_holds_all_values_and_nought(values: list[float]) -> None:
    low, high = around([*values, float("nan")], zero=True)
    assert low <= min([*values, 0.0])
    assert high >= max([*values, 0.0])


def test_scales_are_straight_or_logarithmic_and_hold_what_lies_beyond() -> None:
    straight, logarithmic = Scale(0, 10, 100, 200), Scale(1, 100, 0, 50, logarithmic=True)
    assert [straight(v) for v in (0, 5, 10, 99, -7)] == [100, 150, 200, 200, 100]
    assert logarithmic(10) == pytest.approx(25)


def test_density_has_its_mode_where_most_texts_lie() -> None:
    sample = np.concatenate([np.full(900, 8.0), np.full(100, 200.0)])
    at, heights = density(np.percentile(sample, np.arange(101)), 1.0, 1000.0)
    assert 10 ** at[int(heights.argmax())] == pytest.approx(8, rel=0.06)
    assert heights.max() == 1
    assert heights[np.abs(at - np.log10(200)).argmin()] == pytest.approx(0.1, abs=0.03)


def test_an_interval_far_beyond_all_dots_is_cut_with_an_arrow() -> None:
    lines = [
        ChartRow("near", 1.0, 0.5, 1.5),
        ChartRow("far", 2.0, -400.0, 500.0),
        ChartRow("unknown", texts=("unknown",)),
    ]
    svg = row_chart(lines, "t", "d", heads=("value",))(720.0).svg("k")
    root = ElementTree.fromstring(svg)
    assert sum(one.get("class") == "beyond" for one in root.iter()) == 2
    assert sum("dot" in one.get("class", "") for one in root.iter()) == 2


def test_a_bold_name_is_cut_sooner_than_a_plain_one() -> None:
    name = "answers positive on long_reviews"
    room = text_width(name, NAME_SIZE)
    plain, bold = (name_text(name, 0, 0, room, style=style) for style in ("name", "group"))
    assert "…" not in str(plain)
    assert "…" in str(bold)


def test_a_dot_beyond_the_ends_of_a_shared_axis_is_an_arrow_at_its_edge() -> None:
    rows = [
        ChartRow("within", 0.9),
        ChartRow("above", 7.0, 6.0, 8.0),
        ChartRow("below", -3.0),
        ChartRow("at the end", 1.0),
    ]
    root = ElementTree.fromstring(row_chart(rows, "t", "d", ends=(-1.0, 1.0))(720.0).svg("k"))
    dots = [one for one in root.iter() if one.get("class", "") == "dot"]
    assert [one.tag.split("}")[1] for one in dots] == ["circle", "path", "path", "circle"]
    edge = float(dots[3].get("cx", "nan"))
    tips = [float(one.get("d", "M").split()[0][1:]) for one in dots[1:3]]
    assert tips[0] - 5 == pytest.approx(edge, abs=0.06)
    assert tips[1] + 5 == pytest.approx(2 * float(zero_of(root)) - edge, abs=0.06)


def zero_of(root: ElementTree.Element) -> str:
    """Px of nought on the axis below."""
    return next(one.get("x", "nan") for one in root.iter() if one.text == "0")


def test_one_chart_draws_dots_densities_and_parts_by_what_its_rows_hold() -> None:
    lengths = ChartRow("lengths", percentiles=np.linspace(1, 100, 101), texts=("50",))
    shares = ChartRow("classes", parts=(("yes", 0.25), ("no", 0.75)), texts=("0.81 bits",))
    logarithmic = ElementTree.fromstring(row_chart([lengths], "t", "d")(720.0).svg("k"))
    straight = ElementTree.fromstring(row_chart([shares], "t", "d", ends=(0.0, 100.0))(720.0).svg("k"))
    ticks = [float(one.get("x", "nan")) for one in logarithmic.iter() if one.text in ("1", "10", "100")]
    assert len(ticks) == 3
    assert ticks[1] - ticks[0] == pytest.approx(ticks[2] - ticks[1], abs=0.02)
    (median,) = [one for one in logarithmic.iter() if one.get("class") == "median"]
    place = float(median.get("d", "M").split()[0][1:])
    assert place == pytest.approx(ticks[0] + np.log10(50.5) * (ticks[1] - ticks[0]), abs=0.06)
    widths = [
        float(one.get("width", "nan")) + 1
        for one in straight.iter()
        if "part" in one.get("class", "").split()
    ]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.05)


def test_styles_are_written_onto_elements_by_weight_and_inheritance() -> None:
    lines = [ChartRow("a", 1.0, 0.5, 1.5, tone="better", solid=True), ChartRow("b", -1.0, tone="worse")]
    root = ElementTree.fromstring(standalone(str(row_chart(lines, "t", "d")(720.0).svg("k"))))
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    assert [one.get("fill") for one in circles] == ["#1766a8", "#ffffff"]
    assert [one.get("stroke") for one in circles] == ["#1766a8", "#b1510b"]
    texts = [one for one in root.iter() if one.tag.endswith("text")]
    assert all((one.get("fill") or "").startswith("#") for one in texts)
