"""No name leads out of a run folder, whoever wrote it: a study, another harness, or somebody's run."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
import results

from traitmap.api.atlas import atlas_add
from traitmap.api.exchange import import_results
from traitmap.api.report import write_report
from traitmap.errors import MatrixError, RunError, StudyError, TraitmapError, UserError
from traitmap.exports.atlas import read_atlas_entry
from traitmap.runs.files import read_sealed_json, write_sealed_json
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store
from traitmap.study.load import load_study

NAMES = [
    *(
        "../up",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:\\x",
        "~",
        "~root",
        ".hidden",
        "a\0b",
        "",
        " ",
        "a b",
    ),
    *(
        "．．／up",
        "a／b",
        "․․",
        "a\u202eb",
        "é",
        "e\u0301",
        "ﬁ",
        "Ⅷ",
        "а",
        "a\nb",
        "-" * 101,
        "con",
        "NUL.txt",
        "COM1",
    ),
    "__baseline__",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["study", "source", "target"])
def test_a_name_that_is_no_plain_file_name_is_refused(name: str, where: str, tmp_path: Path) -> None:
    told = {"study": "n", "source": "s", "target": "t"} | {where: name}
    study = {
        "name": told["study"],
        "model": "m",
        "sources": [{"name": told["source"], "path": "f.jsonl"}],
        "targets": [{"name": told["target"], "task": "t"}],
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path / "study.yaml")
    assert any(fault.where.endswith("name") for fault in caught.value.faults)


def test_names_that_one_disk_would_take_for_one_are_refused(tmp_path: Path) -> None:
    study = {"name": "n", "model": "m", "targets": ["t"]}
    study["sources"] = [{"name": name, "path": "f.jsonl"} for name in ("Goat", "goat")]
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    with pytest.raises(StudyError, match="upper and lower case do not tell names apart"):
        load_study(tmp_path / "study.yaml")
    assert unicodedata.normalize("NFKC", "ﬁ") == "fi"  # why other alphabets are refused above


HOSTILE = ["../../up", "/abs", "a/../../b", "..", "x" * 400, "a\\..\\b", "\u202eb", "C:x", "mmlu:a=b", "a\0b"]


@pytest.mark.parametrize("task", HOSTILE)
def test_names_of_other_harnesses_stay_in_the_run_folder(task: str, tmp_path: Path) -> None:
    record = results.every_eval_ever(
        detailed_evaluation_results={"format": "jsonl", "file_path": "../../detail.jsonl"}
    )
    record["evaluation_results"][0]["evaluation_name"] = task
    record["model_info"] = {"id": f"org/{task}", "additional_details": {"base_model": "b"}}
    given = tmp_path / "given" / "deep"
    results.write(given / "record.json", record)
    row = {
        "evaluation_name": task,
        "sample_id": "0",
        "input": {"raw": "q", "reference": ["a"]},
        "evaluation": {"score": 1.0},
    }
    results.write(given / "detail.jsonl", json.dumps(row))
    before = {str(path) for path in tmp_path.rglob("*")}
    run = tmp_path / "runs" / "deep" / "run"
    try:
        import_results([given], run)
    except TraitmapError:
        return
    made = {str(path) for path in tmp_path.rglob("*")} - before
    assert all(one.startswith(str(tmp_path / "runs")) for one in made)
    inside = [one for one in made if not str(run).startswith(one)]
    assert all(one.startswith(str(run) + os.sep) for one in inside)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    place = results.lm_eval_folder(tmp_path / "r", {None: [True, False], "org/goat": [True, True]})
    import_results([place], tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "key", ["../../secret", "/etc/passwd", "..", "A" * 32, "0" * 31, 7, ["0" * 32], "0" * 32 + "\n"]
)
def test_a_key_of_a_run_is_never_a_path(key: object, run: Path) -> None:
    ledger = read_sealed_json(run / "run.json")
    ledger["cells"][0]["key"] = key
    write_sealed_json(run / "run.json", ledger)
    with pytest.raises(RunError, match="is no key"):
        read_ledger(open_store(run))


def test_a_source_that_a_run_does_not_have_is_damage(run: Path) -> None:
    for change in ({"source": "../x"}, {"target": "../x"}, {"seed": "0"}, {"status": "../x"}, {"reason": 3}):
        copy = run.with_name("copy")
        shutil.copytree(run, copy)
        ledger = read_sealed_json(copy / "run.json")
        ledger["cells"][0] |= change
        write_sealed_json(copy / "run.json", ledger)
        with pytest.raises(RunError, match="damaged"):
            read_ledger(open_store(copy))
        shutil.rmtree(copy)


def test_a_link_of_a_run_leads_no_report_out_of_it(run: Path, tmp_path: Path) -> None:
    """Named by the user a link is followed; one that somebody put into a run is not."""
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    (run / "report.html").symlink_to(mine)
    with pytest.raises(UserError, match=r"is a link to .*mine\.html, outside of the run"):
        write_report(run, fast=True)
    assert mine.read_text() == "mine"
    (run / "report.html").unlink()


@pytest.mark.parametrize("there", [True, False], ids=["a file of mine", "nothing yet"])
def test_a_link_of_an_atlas_is_not_written_through(run: Path, tmp_path: Path, there: bool) -> None:
    """Who made the atlas may have put a link where the next matrix of this name goes."""
    mine, atlas = tmp_path / "mine.json", tmp_path / "atlas"
    atlas.mkdir()
    if there:
        mine.write_text("mine")
    (atlas / f"{run.name}.atlas.json").symlink_to(mine)
    with pytest.raises(RunError, match=r"is a link to .*mine\.json, outside of its folder"):
        atlas_add(atlas, run)
    assert mine.exists() == there
    assert not there or mine.read_text() == "mine"
    (atlas / f"{run.name}.atlas.json").unlink()
    assert atlas_add(atlas, run).is_file()
    (atlas / f"{run.name}.atlas.json").write_text("[" * 100_000)
    with pytest.raises(MatrixError, match=r"atlas\.json cannot be read as a file of an atlas"):
        read_atlas_entry(atlas / f"{run.name}.atlas.json")
