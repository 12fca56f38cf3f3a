"""How numbers are read: units, direction, colours."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
import simulated
from hypothesis import given
from hypothesis import strategies as st

from traitmap.matrix.reading import nice_limit, of_seed, read, standardised
from traitmap.matrix.record import TransferMatrix
from traitmap.report import chart as palette
from traitmap.report.chart import element, shorten, text_width
from traitmap.report.heatmap import absolute_view, gain_view, layout, z_view
from traitmap.wording import counted, interval, listed, plain, probability, related, share, signed, typeset


def bare(values: list[list[float]], baseline: list[float], **more: object) -> TransferMatrix:
    sources = tuple(f"s{i}" for i in range(len(values)))
    targets = tuple(f"t{i}" for i in range(len(baseline)))
    return TransferMatrix(sources, targets, np.array(values), np.array(baseline), **more)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_colour_is_symmetric_around_zero(value: float, limit: float) -> None:
    at = palette.step(value, limit)
    assert palette.step(-value, limit) == -at
    assert palette.step(0.0, limit) == 0
    mirrored = palette.diverging_class(palette.step(-value, limit)).translate(str.maketrans("mp", "pm"))
    assert palette.diverging_class(at) == mirrored


def test_mirrored_matrix_gives_mirrored_colours() -> None:
    whole = bare([[0.1, 0.6], [0.45, 0.9]], [0.4, 0.6])
    other = replace(whole, values=2 * whole.baseline - whole.values)
    for s in range(2):
        for t in range(2):
            one, two = gain_view(read(whole), s, t)[0], gain_view(read(other), s, t)[0]
            assert one == -two


def test_ink_can_be_read_on_every_colour_of_both_themes() -> None:
    for theme in ("light", "dark"):
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{6});", palette.variables(theme)))
        assert set(palette.classes()) <= set(colours)
        for name in palette.classes():
            assert palette.contrast(colours[name], colours[f"{name}i"]) >= 4.5, (theme, name)
        # Deeper is always farther from the middle, on both sides.
        for side in "mp":
            away = [palette.contrast(colours["g0"], colours[f"g{side}{at}"]) for at in (3, 6, 9, 12)]
            assert away == sorted(away)


def test_shares_are_points_and_other_metrics_keep_their_unit() -> None:
    whole = bare([[0.5, 12.0], [0.7, 15.0]], [0.4, 14.0])
    accuracy, perplexity = read(whole).targets
    assert (accuracy.unit, accuracy.factor, accuracy.limit) == ("points", 100.0, pytest.approx(30.0))
    assert (perplexity.unit, perplexity.factor, perplexity.limit) == ("", 1.0, 2.0)
    whole = simulated.matrix(("a", "b"), ("a", "b"), items=30)
    cells = tuple(replace(cell, metric="bits_per_byte") for cell in whole.base_cells)
    assert {t.unit for t in read(replace(whole, base_cells=cells)).targets} == {"bits per byte"}


@pytest.mark.parametrize(
    "conditions",
    [
        {"higher_is_better": {"t0": False}},
        {"targets": [{"name": "t0", "higher_is_better": False}, {"name": "t1", "higher_is_better": True}]},
    ],
)
def test_lower_is_better_turns_the_colour_and_not_the_number(conditions: dict) -> None:
    whole = bare([[12.0, 0.5], [15.0, 0.7]], [14.0, 0.6])
    plain_reading, turned = read(whole), read(replace(whole, conditions=conditions))
    assert gain_view(plain_reading, 0, 0) == (-12, "-2.00")
    assert gain_view(turned, 0, 0) == (12, "-2.00")
    assert gain_view(plain_reading, 0, 1) == gain_view(turned, 0, 1)
    assert turned.improvement(0, 0) == 2.0
    assert turned.improvement(1, 0) == -1.0
    # The lowest value of a lower-is-better target is its best one.
    assert absolute_view(turned, 0, 0)[0] == 12
    assert absolute_view(plain_reading, 0, 0)[0] == 0


def test_standardised_columns_have_mean_zero_and_deviation_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(9, 4))
    values[2, 1] = nan
    values[:, 3] = 0.5
    z = standardised(values)
    assert np.allclose(np.nanmean(z[:, :3], axis=0), 0)
    assert np.allclose(np.nanstd(z[:, :3], axis=0), 1)
    assert np.isnan(z[2, 1])
    assert np.isnan(z[:, 3]).all()
    assert np.isnan(standardised(values[:2])).all()
    assert z_view(read(bare([[0.1], [0.2], [0.3]], [0.2])), 0, 0) == (-5, "-1.2")


def test_limit_is_the_next_round_number() -> None:
    cases = {3.2: 4, 10: 10, 10.1: 15, 0.031: 0.04, 99: 100, 0.3: 0.3}
    assert {value: nice_limit(value) for value in cases} == pytest.approx(cases)
    assert nice_limit(0.0) == nice_limit(nan) == nice_limit(inf) == 1.0


@pytest.mark.parametrize("count", [1, 2, 10, 20, 23, 60])
def test_layout_fills_the_page_and_not_more(count: int) -> None:
    names = [f"a_task_with_a_long_name_{i}" for i in range(count)]
    rows = [[0.5] * count] * count
    named = TransferMatrix(tuple(names), tuple(names), np.array(rows), np.array(rows[0]))
    sizes = layout(read(named))
    assert sizes.numbers == (count <= 22)
    assert sizes.width <= 1200
    assert sizes.cell_width >= 13


def test_names_are_cut_in_the_middle_to_their_room() -> None:
    long = "toxicity_civil_comments_binary_balanced"
    cut = shorten(long, 12, 120)
    assert text_width(cut, 12) <= 120
    assert cut.startswith("toxicity")
    assert cut.endswith("ced")
    assert shorten("short", 12, 120) == "short"


def test_element_escapes_and_leaves_out() -> None:
    made = element("text", {"x": 1.0, "class": 'a"b', "id": None}, "<b> & \x07", None, element("tspan"))
    assert made == '<text x="1" class="a&#34;b">&lt;b&gt; &amp; \ufffd<tspan/></text>'


def test_wording() -> None:
    assert [plain(v) for v in (63.24, -0.04, nan)] == ["63.2", "0.0", "–"]
    assert [signed(v) for v in (3.6, -3.6, 0.04, -0.04, nan)] == ["+3.6", "-3.6", "0.0", "0.0", "–"]
    assert (interval(1.2, 6), interval(nan, 6)) == ("[+1.2, +6.0]", "–")
    assert [probability(v) for v in (0.0004, 0.023, 0.5, 1.0, nan)] == ["<.001", ".023", ".500", "1.00", "–"]
    assert (related("q", 0.02), related("p", 1e-9)) == ("q = .020", "p < .001")
    assert [share(v) for v in (0.0, 0.003, 0.12, nan)] == ["0 %", "<1 %", "12 %", "–"]
    assert typeset("-3.6 [-4.0, +1.0] a-b x-1") == "−3.6 [−4.0, +1.0] a-b x-1"
    assert [counted(n, "cell") for n in (0, 1, 2)] == ["no cells", "1 cell", "2 cells"]
    assert (listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdef"))) == (
        "a",
        "a, b and c",
        "a, b, c, d and 2 more",
    )


def with_variation() -> TransferMatrix:
    whole = simulated.matrix()
    made = {"parents": ["stars"], "kind": "mislabel", "dose": 1.0}
    return replace(whole, conditions={"sources": {"stars_mislabelled": {"variation": made}, "stars": {}}})


def test_variations_of_a_source_are_told_apart() -> None:
    whole = with_variation()
    reading = read(whole)
    assert reading.variations == {10: "stars, mislabel 1"}


def test_a_seed_is_shown_on_the_scales_of_the_mean() -> None:
    reading = read(simulated.matrix())
    own = of_seed(reading, 1)
    assert own.targets == reading.targets
    assert {cell.seed for row in own.cells for cell in row} == {1}
    missing = of_seed(reading, 7)
    assert {cell.status for row in missing.cells for cell in row} == {"missing"}
    assert not np.isfinite(missing.z).any()
