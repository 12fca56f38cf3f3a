import io

from rich.console import Console

from traitmap.data.check import preview_source
from traitmap.data.records import Example, Segment
from traitmap.data.sources import Lineage, LoadedSource
from traitmap.report.terminal_runs import check_preview
from traitmap.runs.cost import CostEstimate
from traitmap.study.settings import Lora, Training


def mood(label: str) -> Example:
    return Example((Segment("fine thing\nMood:", False), Segment(f" {label}", True)), label)


def source(variation: Lineage) -> LoadedSource:
    counts = {"bad": 1, "good": 3}
    examples = (mood("bad"), *[mood("good")] * 3)
    return LoadedSource(
        "wrong", examples, None, Training(), Lora(), (), "d", counts, available=8, variation=variation
    )


def shown(variation: Lineage) -> str:
    preview = check_preview(
        sources=[preview_source(source(variation))],
        targets=[],
        adapters=1,
        cells=0,
        estimate=CostEstimate(1, 1, 1, 1, 1, measured=False),
    )
    console = Console(file=io.StringIO(), width=200)
    console.print(preview)
    return console.file.getvalue()  # type: ignore[attr-defined]


def made(**facts) -> Lineage:
    return Lineage(
        family="moods",
        parents=("moods",),
        kind="mislabel",
        changes={"mislabel": {"rate": 0.25, "mode": "switch"}, "subsample": 4},
        dose=0.25,
        parent_dose=0.0,
        meaning="share of wrong labels",
        examples_before=8,
        counts_before={"good": 7, "bad": 1},
        **facts,
    )


def test_check_shows_what_was_changed_with_counts_and_a_row_before_and_after():
    said = shown(made(rows_changed=1, before=mood("good"), after=mood("bad")))
    for words in (
        "from moods: mislabel: {rate: 0.25, mode: switch}; subsample: 4",
        "rows: 4 of 8",
        "of these 1 changed",
        "labels: 'good' 7 → 3, 'bad' 1 → 1",
        "share of wrong labels: 0 → 0.25",
    ):
        assert words in said
    assert said.count("Mood:") == 2
    assert said.index("before:") < said.index("‹ good›") < said.index("after:") < said.index("‹ bad›")


def test_where_rows_were_only_chosen_two_of_them_are_shown():
    said = shown(made(rows_changed=0))
    assert "before:" not in said
    assert said.count("Mood:") == 2
