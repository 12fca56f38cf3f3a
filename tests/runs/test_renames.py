"""A new name trains nothing anew, and a run says before it starts what it keeps and why not the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

import traitmap as tm
from traitmap.engine.fake import FakeEngine
from traitmap.errors import TraitmapError
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import RunStore, read_study
from traitmap.study.renames import with_former_names

STARS = {"name": "stars", "task": "mini_stars", "limit": 30}
SUMS = {"name": "sums", "task": "mini_arithmetic", "limit": 30}
HALF = {"name": "half", "from": "stars", "subsample": 0.5}
WRONG = {"name": "wrong", "from": "stars", "mislabel": 0.5}
MIXED = {"name": "mixed", "concat": {"stars": 1, "sums": 1}}


def study(folder: Path, *sources: dict[str, Any], **changes: Any) -> tm.Study:
    given: dict[str, Any] = {
        "name": "names",
        "model": {"path": "builtin:mini"},
        "sources": sources,
        "targets": ["mini_stars"],
        "limit": 8,
        "output": str(folder),
    }
    return tm.Study.model_validate(given | changes)


def run(asked: tm.Study, *, name: str = "fake") -> tuple[list[str], list[str]]:
    """What a run tells before it starts, and the sources that it trains."""
    log, lines = Path(asked.output) / "log", list[str]()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    assert tm.run(asked, engine=FakeEngine(name, log=log), announce=lines.append).status().complete
    calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return lines, [call["source"] for call in calls if call["call"] == "train"]


def keys(folder: Path) -> dict[str, str | None]:
    return {entry.source: entry.key for entry in read_ledger(RunStore(folder / "names")).adapters}


def renamed(entry: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    return {**entry, "name": name, **changes}


def test_a_renamed_source_with_all_that_is_made_of_it_costs_nothing(tmp_path: Path) -> None:
    run(study(tmp_path, STARS, SUMS, HALF, WRONG, MIXED))
    before = keys(tmp_path)
    lines, trained = run(
        study(
            tmp_path,
            renamed(STARS, "ratings", tags=["reviews"]),
            SUMS,
            renamed(HALF, "half", **{"from": "ratings"}),
            renamed(WRONG, "mistaken", **{"from": "ratings"}),
            renamed(MIXED, "both", concat={"ratings": 1, "sums": 1}),
        )
    )
    assert trained == []
    assert lines[:3] == [
        "read as stars renamed to ratings",
        "read as wrong renamed to mistaken",
        "read as mixed renamed to both",
    ]
    assert lines[3].startswith("kept: 5 adapters, 6 cells (48 items); nothing is left to do")
    after = keys(tmp_path)
    assert after["ratings"] == before["stars"]
    assert after["mistaken"] == before["wrong"]
    assert after["both"] == before["mixed"]


def test_it_stays_so_in_later_runs_and_after_another_new_name(tmp_path: Path) -> None:
    run(study(tmp_path, STARS))
    for name in ("ratings", "ratings", "scores", "stars"):
        lines, trained = run(study(tmp_path, renamed(STARS, name)))
        assert trained == []
        assert "nothing is left to do" in lines[-1]
    first = keys(tmp_path)["stars"]
    run(study(tmp_path / "new", STARS))
    assert keys(tmp_path / "new")["stars"] == first


def test_two_names_that_change_places_keep_their_adapters(tmp_path: Path) -> None:
    run(study(tmp_path, STARS, SUMS))
    lines, trained = run(study(tmp_path, renamed(STARS, "sums"), renamed(SUMS, "stars")))
    assert trained == []
    assert {"read as stars renamed to sums", "read as sums renamed to stars"} < set(lines)


def test_the_name_of_a_source_that_is_gone_may_be_given_to_another(tmp_path: Path) -> None:
    run(study(tmp_path, STARS))
    lines, trained = run(study(tmp_path, renamed(STARS, "ratings"), renamed(SUMS, "stars")))
    assert trained == ["stars.2"]
    assert "read as stars renamed to ratings" in lines
    # the same data once more, under the former name: another draw, as two names always are
    again = study(tmp_path, renamed(STARS, "ratings"), renamed(STARS, "stars"))
    _, trained = run(again)
    assert len(set(keys(tmp_path).values())) == 2


def test_the_same_data_under_two_names_are_two_draws(tmp_path: Path) -> None:
    twin = renamed(STARS, "twin", limit=None)
    run(study(tmp_path, renamed(STARS, "stars", limit=None), twin))
    first = keys(tmp_path)
    assert first["stars"] != first["twin"]
    _, trained = run(study(tmp_path, twin, renamed(STARS, "other", limit=None)))
    assert trained == []
    assert keys(tmp_path)["other"] == first["stars"]


def test_two_names_for_the_same_data_that_both_change_stay_two_draws(tmp_path: Path) -> None:
    run(study(tmp_path, STARS, renamed(STARS, "twin")))
    first = keys(tmp_path)
    lines, trained = run(study(tmp_path, renamed(STARS, "one"), renamed(STARS, "two")))
    assert trained == []
    assert lines[:2] == ["read as stars renamed to one", "read as twin renamed to two"]
    assert keys(tmp_path) == {"one": first["stars"], "two": first["twin"]}


def test_two_sources_that_would_be_the_very_same_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraitmapError, match="'twin', draws_as: it gives the same as 'stars'"):
        run(study(tmp_path, STARS, renamed(STARS, "twin", draws_as="stars")))


def test_a_study_file_may_say_itself_under_which_name_a_source_draws(tmp_path: Path) -> None:
    run(study(tmp_path / "a", STARS))
    run(study(tmp_path / "b", renamed(STARS, "ratings", draws_as="stars")))
    assert keys(tmp_path / "a")["stars"] == keys(tmp_path / "b")["ratings"]


def test_studies_of_earlier_versions_have_no_such_setting_and_are_read(tmp_path: Path) -> None:
    asked = study(tmp_path, STARS)
    run(asked)
    store = RunStore(tmp_path / "names")
    before = read_study(store)
    assert before is not None
    for source in before["sources"]:
        del source["draws_as"]
    now, names = with_former_names(study(tmp_path, renamed(STARS, "ratings")), before)
    assert names == {"ratings": "stars"}
    assert now.sources[0].draws_as == "stars"


@pytest.mark.parametrize(
    ("sources", "changes", "words"),
    [
        ([renamed(STARS, "stars", limit=20)], {}, "stars: changed: its data (30 -> 20 examples)"),
        (
            [STARS],
            {"training": {"learning_rate": 0.25, "batch_size": 8}},
            "stars: changed: training.learning_rate 5e-05 -> 0.25, training.batch_size 32 -> 8",
        ),
        ([STARS], {"lora": {"r": 4}}, "stars: changed: lora.r 64 -> 4"),
        ([STARS], {"seeds": [0, 1]}, "stars: seed 1 is new"),
        ([STARS, SUMS], {}, "to train: sums: new"),
        (
            [STARS],
            {"limit": 12},
            "to evaluate: mini_stars: changed: limit 8 -> 12; 8 of 12 items are kept (2 cells)",
        ),
        ([STARS], {"targets": ["mini_stars", "mini_reviews"]}, "to evaluate: mini_reviews: new (2 cells)"),
    ],
)
def test_what_is_not_kept_has_its_reason(
    tmp_path: Path, sources: list[dict[str, Any]], changes: dict[str, Any], words: str
) -> None:
    run(study(tmp_path, STARS))
    asked = study(tmp_path, *sources, **changes)
    checked = tm.check(asked, FakeEngine())
    lines, _ = run(asked)
    assert any(words in line for line in lines), lines
    assert list(checked.notes[: len(lines)]) == lines  # in the same words


def test_a_new_run_and_one_that_was_interrupted_and_one_that_failed(tmp_path: Path) -> None:
    asked = study(tmp_path, STARS, SUMS)

    def stop(report: tm.Progress) -> None:
        if report.stage == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tm.run(asked, stop, FakeEngine())
    lines, _ = run(asked)
    assert lines == [
        "kept: 2 adapters, no cells (no items); to do: no adapters, 3 cells (24 items).",
        "  to evaluate: mini_stars: not done before (3 cells)",
    ]
    lines, _ = run(study(tmp_path / "b", STARS, SUMS))
    assert lines == ["to do: 2 adapters, 3 cells (24 items); nothing is there yet."]
    wild = study(tmp_path / "c", renamed(STARS, "stars", training={"learning_rate": 5}), SUMS)
    tm.run(wild, engine=FakeEngine())
    lines = list[str]()
    tm.run(wild, engine=FakeEngine(), announce=lines.append)
    assert lines[1].startswith("  to train: stars: failed before (diverged at step 1")
