"""The report as a file: complete, well formed, escaped, and the same numbers as the records."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
import simulated
from page import SVG, cells, figures, parse

from traitmap.analysis.cells import RunDetails, side_by_side
from traitmap.analysis.traits.scaling import clustered_order
from traitmap.errors import UserError
from traitmap.matrix.record import TransferMatrix
from traitmap.report.page import render_report, write_report
from traitmap.report.records import ReportContents
from traitmap.study.load import load_study
from traitmap.study.settings import Model, Source, Study, Target, Training

NASTY = '<script>alert("x")</script>'
QUOTED = '"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def matrix() -> TransferMatrix:
    return simulated.failed(simulated.matrix(), "paraphrase", "toxicity")


@pytest.fixture(scope="module")
def page(matrix: TransferMatrix) -> str:
    return render_report(ReportContents(matrix, simulated.traits(matrix), simulated.CONDITIONS))


def data(page: str, key: str) -> dict:
    """What a script element of the page holds."""
    (found,) = re.findall(
        rf'<script type="application/json" id="{key}">(.*?)</script>', page, flags=re.DOTALL
    )
    return json.loads(found)


def amount(text: str) -> float:
    return float(re.sub(r"[^\d.+-]", "", text.replace("−", "-")))


def test_page_is_well_formed_with_unique_ids(page: str) -> None:
    ids = [one.attributes["id"] for one in parse(page).all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert page.startswith("<!doctype html>")


def test_page_asks_nothing_of_the_network(page: str) -> None:
    tree = parse(page)
    ids = {one.attributes.get("id") for one in tree.all()}
    for element in tree.all():
        for name, value in element.attributes.items():
            if name in ("src", "srcset", "action", "poster", "data", "xlink:href") and element.tag != "#text":
                pytest.fail(f"{element.tag} {name}={value}")
            if name == "href":
                assert value == "data:," or value.startswith("#cell=") or value.removeprefix("#") in ids
            for address in re.findall(r"url\((.*?)\)", value):
                assert address.removeprefix("#") in ids
    style, code = tree.all("style")[0].words(), tree.all("script")[0].words()
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|import)\b\s*\(", code)
    assert "innerHTML" not in code
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_only_our_own_script_may_run(page: str) -> None:
    tree = parse(page)
    policy = next(m.attributes["content"] for m in tree.all("meta") if "http-equiv" in m.attributes)
    (script,) = (s for s in tree.all("script") if "type" not in s.attributes)
    digest = base64.b64encode(hashlib.sha256(script.words().encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    "nasty", [NASTY, QUOTED, "</script><b>", "a\x00b\x1b[31m", "{{ 7 * 7 }}", "]]>&amp;"]
)
def test_text_of_others_stays_text(nasty: str) -> None:
    names = (nasty, "b", "c")
    whole = simulated.failed(simulated.matrix(names, names, items=30), nasty, "c", reason=f"died of {nasty}")
    whole = replace(whole, source_tags={nasty: (nasty,)})
    traits = simulated.traits(whole)
    warning = replace(traits.warnings[0], message=f"Note {nasty}", action=f"Do {nasty}")
    traits = replace(traits, warnings=(warning,), names=(nasty, *traits.names[1:]))
    page = render_report(
        ReportContents(whole, traits, {"name": nasty, nasty: [nasty, {nasty: nasty}], "reproduce": nasty})
    )
    tree = parse(page)
    assert len(tree.all("script")) == 1 + len(tree.all("script", type="application/json"))
    assert not tree.all("img")
    assert all("onerror" not in one.attributes for one in tree.all())
    shown = re.sub(r"[\x00-\x1f]", "\ufffd", nasty)
    assert shown in tree.all("h1")[0].words()
    assert any(shown in heading.words() for heading in tree.all("h3"))
    assert any(f"died of {shown}" in td.words() for td in tree.all("td"))
    assert any(shown in p.words() for p in tree.all("p", **{"class": "action"}))
    assert shown in tree.all("pre")[0].words()
    assert "\x00" not in page
    assert len(figures(page)) > 3
    assert data(page, "matrix-data")["sources"][0] == shown


def test_every_figure_is_xml_with_title_and_description(page: str) -> None:
    found = figures(page)
    assert len(found) >= 1 + 1 + 2 + 11  # the matrix, the scree, two components, eleven adapters
    for figure in found:
        named = {one.get("id"): "".join(one.itertext()) for one in figure if one.get("id")}
        assert all(named[key].strip() for key in figure.get("aria-labelledby", "").split())


def test_table_holds_the_numbers_of_the_matrix(page: str, matrix: TransferMatrix) -> None:
    table = next(t for t in parse(page).all("table") if "Base: absolute" in t.all("caption")[0].words())
    rows = [row for row in table.all("tr") if row.all("td")]
    base = [amount(td.words()) for td in rows[0].all("td")]
    assert np.allclose(base, 100 * matrix.baseline, atol=0.0501)
    pooled = {(c.source, c.target): c for c in matrix.cells if c.seed is None}
    for source, row in zip(matrix.sources, rows[1:], strict=True):
        assert row.all("th")[0].words() == source
        for target, td in zip(matrix.targets, row.all("td"), strict=True):
            cell = pooled[source, target]
            small = td.all("small")[0].words()
            gain = td.words().removesuffix(small)
            if cell.status == "failed":
                assert (gain, small) == ("failed", "loss became NaN")
                continue
            assert amount(gain) == pytest.approx(100 * cell.gain, abs=0.0501)
            assert ("sign" in {span.attributes.get("class") for span in td.all("span")}) == (cell.q < 0.05)
            span, value = small.split(" · ")
            low, high = (amount(end) for end in span.strip("[]").split(", "))
            assert low == pytest.approx(100 * cell.gain_low, abs=0.0501)
            assert high == pytest.approx(100 * cell.gain_high, abs=0.0501)
            assert amount(value) == pytest.approx(100 * cell.value, abs=0.0501)


def test_heat_map_holds_the_numbers_of_the_matrix(page: str, matrix: TransferMatrix) -> None:
    found = cells(figures(page)[0])
    pooled = {(c.source, c.target): c for c in matrix.cells if c.seed is None}
    places = [pooled[s, t] for s in matrix.sources for t in matrix.targets]
    for cell, (style, text, hatched) in zip(places, found, strict=True):
        if cell.status == "failed":
            assert (style, text, hatched) == ("none", "failed", True)
        else:
            assert amount(text) == pytest.approx(100 * cell.gain, abs=0.0501)
            assert not hatched
            assert ("sig" in style.split()) == ("•" in text) == (cell.q < 0.05)
    outlined = sum(one.get("class") == "diagonal" for one in figures(page)[0].iter())
    assert outlined == 10


def test_details_are_the_same_numbers(page: str, matrix: TransferMatrix) -> None:
    layer = data(page, "layer-0")
    pooled = {(c.source, c.target): c for c in matrix.cells if c.seed is None}
    s, t = 3, 6
    at, cell = s * len(matrix.targets) + t, pooled[matrix.sources[s], matrix.targets[t]]
    assert layer["facts"]["n"][at] == str(cell.n) == "200"
    assert amount(layer["texts"]["gain"][at]) == pytest.approx(100 * cell.gain, abs=0.0501)
    assert layer["facts"]["seeds"][at].startswith("0: ")
    assert layer["base"]["facts"]["value"][t].startswith(f"{100 * matrix.baseline[t]:.1f} %")
    for view in ("gain", "absolute", "z"):
        assert len(layer["texts"][view]) == len(layer["steps"][view]) == len(layer["marks"]) == 110
    assert layer["marks"].count("?") == 1
    assert layer["marks"].count("*") == sum(one.q < 0.05 for one in pooled.values())


def test_a_loss_that_falls_is_coloured_as_better_in_every_view() -> None:
    values = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    names = ("loss", "score")
    whole = TransferMatrix(("a", "b", "c"), names, values, np.array([2.5, 2.5]))
    page = render_report(
        ReportContents(replace(whole, conditions={"higher_is_better": {"loss": False, "score": True}}))
    )
    layer = data(page, "layer-0")
    assert layer["targets"]["direction"] == ["lower is better", ""]
    assert [float(text) for text in layer["texts"]["gain"]] == [-1.5, -1.5, -0.5, -0.5, 1.5, 1.5]
    assert layer["steps"]["gain"] == [12, -12, 4, -4, -12, 12]
    assert layer["steps"]["absolute"] == [12, 0, 8, 4, 0, 12]
    assert [float(text) for text in layer["texts"]["z"]] == [-1.1, -1.1, -0.3, -0.3, 1.3, 1.3]
    assert layer["steps"]["z"] == [4, -4, 1, -1, -5, 5]
    drawn = [style for style, _, _ in cells(figures(page)[0])]
    assert drawn == ["gp12", "gm12", "gp4", "gm4", "gm12", "gp12"]


def test_each_seed_has_its_own_matrix(page: str, matrix: TransferMatrix) -> None:
    assert data(page, "matrix-data")["layers"] == [
        ["seed", "mean of 2 seeds"],
        ["seed", "seed 0"],
        ["seed", "seed 1"],
    ]
    for seed in (0, 1):
        shown = data(page, f"layer-{seed + 1}")["texts"]
        own = {(c.source, c.target): c for c in matrix.cells if c.seed == seed}
        for at, text in enumerate(shown["gain"]):
            cell = own[matrix.sources[at // 10], matrix.targets[at % 10]]
            assert float(text) == pytest.approx(100 * cell.gain, abs=0.0501)


def test_another_metric_has_gains_and_no_marks(matrix: TransferMatrix) -> None:
    table = simulated.halved(matrix)
    page = render_report(ReportContents(matrix, None, {}, cells=RunDetails({}, {}, metrics=(table,))))
    assert data(page, "matrix-data")["layers"][-1] == ["metric", "macro F1"]
    own, halved = data(page, "layer-0"), data(page, "layer-3")
    assert set(halved["marks"]) == {"?", "."}
    assert [at for at, mark in enumerate(halved["marks"]) if mark == "?"] == [
        at for at in range(110) if at % 10 == 0 or own["marks"][at] == "?"
    ]
    for at, text in enumerate(halved["texts"]["gain"]):
        if halved["marks"][at] == ".":
            assert float(text) == pytest.approx(float(own["texts"]["gain"][at]) / 2, abs=0.11)


def test_details_of_a_cell_are_those_of_the_record(matrix: TransferMatrix) -> None:
    details = simulated.details(matrix)
    page = render_report(ReportContents(matrix, None, {}, cells=details))
    for t, target in enumerate(matrix.targets):
        part = data(page, f"cells-{t}")
        assert part["base"] == details.targets[target].base_counts.tolist()
        for s, cell in part["cells"].items():
            record = details.cells[matrix.sources[int(s)], target]
            assert (cell["won"], cell["lost"]) == (record.won, record.lost)
            assert cell["counts"] == record.counts.tolist()
            assert [part["said"][place] for place in cell["answers"]] == list(record.answers)
        shown = details.targets[target]
        assert [tuple(text) for text in part["texts"]] == list(shown.texts)
        assert [part["said"][place] for place in part["answers"]] == list(shown.base_answers)


def test_two_side_by_side_are_the_numbers_of_the_record(matrix: TransferMatrix) -> None:
    pairs = side_by_side(matrix)
    page = render_report(ReportContents(matrix, None, {}, cells=RunDetails({}, {}, pairs=pairs)))
    base = {cell.target: cell for cell in matrix.base_cells}
    pooled = {(c.source, c.target): c for c in matrix.cells if c.seed is None}
    for t, target in enumerate(matrix.targets):
        part = data(page, f"cells-{t}")
        means = [
            np.mean([100 * float(score) for score in row])
            if isinstance(row, str)
            else np.mean([score for score in row if score is not None])
            for row in part["scores"]
        ]
        assert means[0] == pytest.approx(100 * base[target].value)
        for s, source in enumerate(matrix.sources):
            if pooled[source, target].status == "measured":
                assert means[1 + s] == pytest.approx(100 * pooled[source, target].value, abs=0.01)
        words = part["apart"][3][5]  # third source less fifth
        assert amount(words.split(" [")[0]) == pytest.approx(means[3] - means[5], abs=0.0501)
        back = part["apart"][5][3]
        ends = [
            [amount(end) for end in text.split(" [")[1].rstrip("]").split(", ")] for text in (words, back)
        ]
        assert ends[0] == [-ends[1][1], -ends[1][0]]


def test_boxes_stand_in_the_order_of_clusters(page: str, matrix: TransferMatrix) -> None:
    told = data(page, "matrix-data")
    sources, targets = clustered_order(matrix)
    assert told["clustered"] == {"sources": list(sources), "targets": list(targets)}
    moved = [
        one.get("transform")
        for one in figures(page)[0].iter(f"{SVG}g")
        if one.get("class", "").startswith("cell") and "base" not in one.get("class", "")
    ]
    for at, transform in enumerate(moved):
        x = told["x"][targets.index(at % 10)]
        y = told["y"][sources.index(at // 10) + 1]
        assert [float(n) for n in re.findall(r"[\d.]+", transform)] == pytest.approx([x, y], abs=0.006)


def test_what_is_missing_is_hatched_and_never_zero(matrix: TransferMatrix) -> None:
    sources, targets = matrix.sources, matrix.targets
    values = matrix.values.copy()
    values[2] = nan
    values[4, 7] = nan
    bare = TransferMatrix(sources=sources, targets=targets, values=values, baseline=matrix.baseline)
    page = render_report(ReportContents(bare, None, {}))
    found = cells(figures(page)[0])
    unknown = np.isnan(values).ravel()
    assert unknown.sum() == len(targets) + 2  # one had failed already
    for lost, (style, text, hatched) in zip(unknown, found, strict=True):
        assert hatched == lost == (style == "none")
        assert not (lost and re.search(r"\d", text))
    table = next(t for t in parse(page).all("table") if "Base: absolute" in t.all("caption")[0].words())
    row = next(r for r in table.all("tr") if r.all("th")[0].words() == sources[2])
    assert {td.words() for td in row.all("td")} == {"missingnot in the table"}
    assert "12 of 110 cells are unknown" in parse(page).words()


def test_table_without_base_or_items_says_what_is_not_known(matrix: TransferMatrix) -> None:
    nowhere = np.full(len(matrix.targets), nan)
    bare = TransferMatrix(matrix.sources, matrix.targets, matrix.values, nowhere)
    page = render_report(ReportContents(bare, None, {}))
    boxes = cells(figures(page)[0])
    assert len(boxes) == matrix.values.size  # no row for the base
    for value, (style, text, hatched) in zip(matrix.values.ravel(), boxes, strict=True):
        assert hatched == (style == "none") == bool(np.isnan(value))
        assert not re.search(r"[+\N{MINUS SIGN}]", text)
    words = parse(page).words()
    assert "no base is among the scores" in words
    assert "so none has an interval or a test" in words
    for left_out in ("best clean source", "What each adapter does", "gain over base"):
        assert left_out not in words
    gains = parse(render_report(ReportContents(replace(bare, baseline=matrix.baseline), None, {}))).words()
    assert "best source, untested" in gains
    assert "no gain has an interval" in gains


def test_same_records_give_the_same_bytes(tmp_path: Path, matrix: TransferMatrix) -> None:
    traits = simulated.traits(matrix)
    one = write_report(tmp_path / "new" / "one.html", ReportContents(matrix, traits, simulated.CONDITIONS))
    two = write_report(tmp_path / "two.html", ReportContents(matrix, traits, dict(simulated.CONDITIONS)))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "two.html"]


def test_report_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path, matrix: TransferMatrix) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written to .*report.html.*folder"):
        write_report(tmp_path / "file" / "report.html", ReportContents(matrix, None, {}))


@pytest.mark.parametrize(("count", "most"), [(20, 3_000_000), (60, 8_000_000)])
def test_size_of_large_reports(count: int, most: int) -> None:
    names = [f"a_rather_long_task_name_{i:02d}" for i in range(count)]
    whole = simulated.matrix(names, names, items=20)
    details = simulated.details(whole, asked="why? " * 80, items=60)
    page = render_report(ReportContents(whole, simulated.traits(whole), simulated.CONDITIONS, cells=details))
    assert len(details.cells) == 400
    told = sum(len(data(page, f"cells-{t}")["cells"]) for t in range(count) if f'"cells-{t}"' in page)
    assert told == 400
    assert ("400 of 3600 measured cells" in page) == (count == 60)
    assert len(cells(figures(page)[0])) == count**2
    assert len(page.encode()) < most


def test_small_and_odd_shapes_render() -> None:
    for sources, targets in ((("a",), ("b",)), (("a", "b", "c"), ("a", "b")), (("a", "b"), ("c" * 300,))):
        whole = simulated.matrix(sources, targets, items=12, seeds=(0,))
        assert len(cells(figures(render_report(ReportContents(whole, None, {})))[0])) == len(sources) * len(
            targets
        )


def test_study_in_the_report_runs_again(tmp_path: Path, matrix: TransferMatrix) -> None:
    rows = Source(
        name="rows",
        path="rows.jsonl",
        prompt="{{ a }}\n<b>",
        completion=" {{ b }}",
        label="b",
        labels={"1": "yes"},
    )
    study = Study(
        name="again",
        model=Model(path="builtin:mini"),
        training=Training(max_steps=7),
        seeds=(3, 4),
        sources=(rows, Source(name="task", task="arc_easy")),
        targets=(Target(name="task", task="arc_easy", num_fewshot=0),),
    )
    tree = parse(
        render_report(ReportContents(matrix, None, {"name": "again", "study": study.model_dump(mode="json")}))
    )
    (shown,) = tree.all("pre", id="study")
    (tmp_path / "study.yaml").write_text(shown.words())
    again = load_study(tmp_path / "study.yaml")
    assert again.model_dump() == study.model_dump()
    assert "traitmap run study.yaml" in tree.all("pre")[0].words()


def test_conditions_are_shown_whatever_their_shape(matrix: TransferMatrix) -> None:
    conditions = {
        "none": None,
        "yes": True,
        "nan": nan,
        "deep": {"a": {"b": {"c": [1, {"d": "end"}]}}},
        "empty": {},
    }
    tree = parse(render_report(ReportContents(matrix, None, conditions)))
    shown = [leaf.words().split("\n")[0].strip() for leaf in tree.all("div", **{"class": "leaf"})]
    assert {"nonenot set", "yesyes", "nanunknown", "emptynone", "dend"} <= set(shown)
    tree = parse(render_report(ReportContents(matrix, None, simulated.CONDITIONS)))
    assert "traitmap run runs/simulated/study.yaml" in tree.all("pre")[0].words()
    facts = {dt.words(): dd.words() for dt, dd in zip(tree.all("dt"), tree.all("dd"), strict=True)}
    assert facts["Base model"] == "builtin:mini"
    assert facts["Cells known"] == "109 of 110"
