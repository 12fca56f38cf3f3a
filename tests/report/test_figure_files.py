"""Figures as files: the size that was asked for, the same bytes again, and words for what cannot be made."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import simulated

from traitmap import api
from traitmap.errors import UserError
from traitmap.report.figure_files import MARGIN, MM_PER_PX, figure_file, figure_names, figure_svg
from traitmap.report.figure_list import possible_figures
from traitmap.report.records import ReportContents

NASTY = '<script>alert("x")</script> & #panic("typst") \\ $x$'


@pytest.fixture(scope="module")
def contents() -> ReportContents:
    names = (*simulated.NAMES[:3], NASTY)
    matrix = simulated.matrix(names, names, items=40)
    return ReportContents(matrix=matrix, traits=simulated.traits(matrix), conditions=matrix.conditions)


@pytest.fixture(scope="module")
def svg(contents: ReportContents) -> str:
    return figure_svg("matrix", contents)


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def box_of(svg: str) -> tuple[float, float]:
    _, _, width, height = ElementTree.fromstring(svg).get("viewBox", "").split()
    return float(width), float(height)


def test_a_png_has_the_width_and_the_dots_that_were_asked_for(svg: str) -> None:
    pytest.importorskip("typst", reason="figures need the extra traitmap[figures]")
    width, height = size_of(figure_file(svg, "png", width=85, dpi=254))
    assert width == pytest.approx(850, abs=1)
    box = [one + 2 * MARGIN for one in box_of(svg)]
    assert height == pytest.approx(850 * box[1] / box[0], abs=2)
    own, _ = size_of(figure_file(svg, "png", dpi=96))
    assert own == pytest.approx(box[0], abs=1)


def test_a_pdf_is_one_page_of_text_that_can_be_searched(svg: str) -> None:
    pytest.importorskip("typst", reason="figures need the extra traitmap[figures]")
    made = figure_file(svg, "pdf", width=180)
    assert made.startswith(b"%PDF")
    assert b"/Type/Pages/Count 1/" in made
    assert b"/Font" in made


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_figure_gives_the_same_bytes(svg: str, kind: str) -> None:
    if kind != "svg":
        pytest.importorskip("typst", reason="figures need the extra traitmap[figures]")
    assert figure_file(svg, kind, width=60, dpi=72) == figure_file(svg, kind, width=60, dpi=72)


def test_an_svg_has_its_size_in_mm_and_stands_alone(svg: str) -> None:
    made = figure_file(svg, "svg", width=120).decode()
    root = ElementTree.fromstring(made)
    assert root.get("width") == "120mm"
    width, height = box_of(made)
    assert float(root.get("height", "").removesuffix("mm")) == pytest.approx(120 * height / width, rel=1e-3)
    assert "var(" not in made
    assert "<script" not in made
    assert (width - 2 * MARGIN) * MM_PER_PX == pytest.approx(box_of(svg)[0] * MM_PER_PX)


def test_names_of_a_dataset_are_text_in_every_figure(contents: ReportContents) -> None:
    pytest.importorskip("typst", reason="figures need the extra traitmap[figures]")
    for name in figure_names(contents):
        drawn = figure_svg(name, contents)
        ElementTree.fromstring(drawn)
        assert figure_file(drawn, "png", width=40, dpi=40).startswith(b"\x89PNG")


def smallest(svg: str) -> float:
    """Points of the smallest text of a file that has its width in mm."""
    root = ElementTree.fromstring(svg)
    mm = float(root.get("width", "").removesuffix("mm"))
    scale = mm / box_of(svg)[0] / 25.4 * 72

    def sizes(node: ElementTree.Element, inherited: float) -> list[float]:
        own = float((node.get("font-size") or f"{inherited}px").removesuffix("px"))
        here = [own] if node.tag.endswith("text") and "".join(node.itertext()).strip() else []
        return here + [size for child in node for size in sizes(child, own)]

    return scale * min(sizes(root, 12.0))


@pytest.mark.parametrize("width", [70, 85, 120, 180, 400])
def test_no_text_is_under_seven_points_at_the_width_that_was_asked_for(
    contents: ReportContents, width: float
) -> None:
    for name in figure_names(contents):
        drawn = figure_svg(name, contents, width=width)
        made = figure_file(drawn, "svg", width=width).decode()
        assert smallest(made) >= 6.99, name
        shown = [one.text for one in ElementTree.fromstring(made).iter() if one.tag.endswith("text")]
        assert len(shown[0] or "") > 2, name  # its title
        assert "nan" not in made


def test_a_figure_says_how_wide_it_must_be() -> None:
    names = tuple(f"task_{at:02d}" for at in range(40))
    wide = ReportContents(simulated.matrix(names, names, items=10, seeds=(0,)))
    with pytest.raises(
        UserError, match=r"--width 60: matrix needs at least (\d+) mm for text of 7 pt"
    ) as told:
        figure_svg("matrix", wide, width=60)
    least = int(str(told.value).split("at least ")[1].split()[0])
    made = figure_file(figure_svg("matrix", wide, width=least), "svg", width=least).decode()
    assert smallest(made) >= 6.99


def test_what_needs_typst_is_said_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"traitmap\[figures\]"):
        api.figure("no/such/run", "matrix", "matrix.pdf")
    with pytest.raises(UserError, match="no/such/run"):
        api.figure("no/such/run", "matrix", "matrix.svg")


def test_the_list_has_the_names_and_titles_that_are_drawn(contents: ReportContents) -> None:
    sources, targets = contents.matrix.sources, contents.matrix.targets
    kinds = ["mislabel", "concat"]
    listed = possible_figures(sources, targets, gains=True, texts=True, kinds=kinds)
    assert "combinations" in listed
    assert {"combinations", "courses"}.isdisjoint(possible_figures(sources, targets, gains=True, texts=True))
    names = figure_names(contents)
    assert set(names) <= set(listed)
    assert [name for name in listed if name in names] == list(names)
    for name in names:
        root = ElementTree.fromstring(figure_svg(name, contents))
        title = next(one.text for one in root.iter() if one.tag.endswith("text"))
        assert (title or "").startswith(listed[name].removeprefix("Loadings ")[:20]), name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "jpg"}, "svg, png, pdf"),
        ({"width": 0}, "--width 0"),
        ({"width": float("nan")}, "--width nan"),
        ({"width": 1e9}, "2000 mm"),
        ({"dpi": 1}, "--dpi 1"),
        ({"width": 2000, "dpi": 2400}, "dots"),
    ],
)
def test_what_makes_no_figure_is_told(svg: str, changes: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        figure_file(svg, **{"kind": "png", **changes})


def test_without_typst_the_message_says_what_to_install(svg: str, tmp_path: Path) -> None:
    (tmp_path / "typst.py").write_text("raise ImportError('not here')")
    (tmp_path / "figure.svg").write_text(svg)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from traitmap.report.figure_files import figure_file\n"
        f"svg = open({str(tmp_path / 'figure.svg')!r}).read()\n"
        "assert figure_file(svg, 'svg')\n"
        "figure_file(svg, 'pdf')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "traitmap[figures]" in done.stderr.splitlines()[-1]
