"""Programs as answers: run on their tests in the sandbox where the study allows it, else no number at all."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

import traitmap as tm
from hub_layouts import LAYOUTS, write_copies
from traitmap import api
from traitmap.data.code_tests import executes_unsafely, passes, program_in, why_not_executed
from traitmap.data.harness import open_task
from traitmap.data.records import Response
from traitmap.data.sandbox import why_no_sandbox
from traitmap.data.targets import LoadedTarget, load_target
from traitmap.engine.fake import FakeEngine
from traitmap.errors import DataError
from traitmap.report.terminal_runs import check_preview
from traitmap.study.load import load_study

walled = pytest.mark.skipif(why_no_sandbox() is not None, reason=f"no sandbox here: {why_no_sandbox()}")
RIGHT = "def add(a, b):\n    return a + b\n"
ROW = {"test_list": ["assert add(2, 3) == 5", "assert add(0, 0) == 0"], "test_setup_code": ""}
MBPP = LAYOUTS["google-research-datasets/mbpp"][0]


@walled
@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (RIGHT, 1),
        (f"Here it is:\n```python\n{RIGHT}```\nIt adds.", 1),
        (f"```\n{RIGHT}", 1),
        ("def add(a, b):\n    return a - b", 0),
        ("def add(a, b):\n    return 5", 0),
        ("It is easy: add them.", 0),
        ("raise SystemExit(0)", 0),
        (" \n", 0),
    ],
)
def test_an_answer_is_worth_one_where_its_program_passes_every_test(answer: str, score: int) -> None:
    assert passes(ROW, [answer]) == {"passed": score}


@walled
def test_tests_are_found_under_the_names_that_datasets_give_them() -> None:
    assert passes({"tests": "assert add(1, 1) == one + 1", "setup": "one = 1"}, [RIGHT]) == {"passed": 1}
    with pytest.raises(DataError, match="no tests; they are looked for in the columns test_list"):
        passes({"question": "add"}, [RIGHT])


def test_a_program_is_the_first_fenced_block_or_the_whole_text() -> None:
    assert program_in("a = 1\n") == "a = 1\n"
    assert program_in("so\n```py\na = 1\n```\nor\n```py\nb = 1\n```") == "a = 1\n"
    assert program_in("```python\ns = '```'\n```") == "s = '```'\n"


@pytest.mark.parametrize(
    "settings", [{"unsafe_code": True}, {"metric_list": [{"metric": "code_eval"}]}, {"include": "code.yaml"}]
)
def test_a_task_that_runs_programs_by_lm_eval_s_means_is_refused_before_anything_runs(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    """Importing the functions of lm-eval's own code tasks runs a program, so they are not imported."""
    ran = tmp_path / "ran"
    (tmp_path / "judge.py").write_text(f"open({str(ran)!r}, 'w')\ndef judge(doc, results): ...\n")
    (tmp_path / "code.yaml").write_text("unsafe_code: true\n")
    text = yaml.safe_dump({"task": "code", "dataset_path": "json", **settings})
    (tmp_path / "task.yaml").write_text(f"{text}process_results: !function judge.judge\n")
    with pytest.raises(DataError, match=r"outside any sandbox, so it is never run; use `mbpp_sandboxed`"):
        open_task(str(tmp_path / "task.yaml"))
    assert not ran.exists()


def test_only_what_runs_programs_is_refused() -> None:
    assert not executes_unsafely({"metric_list": [{"metric": "acc"}]})
    assert why_not_executed({"version": 1}, allow_code=False) == ""
    assert "allow_code: true" in why_not_executed({"executes_code": True}, allow_code=False)


def study_of_programs(folder: Path, allow_code: bool) -> Path:
    """One source and two targets, one of which asks for programs; data in the hub's own columns."""
    write_copies(folder / "copies")
    template = {"prompt": "Problem: {{ text }}\nSolution:\n", "completion": "{{ code }}"}
    written = {
        "name": "programs",
        "model": "builtin:mini",
        "data": "copies",
        "allow_code": allow_code,
        "output": str(folder / "runs"),
        "training": {"max_steps": 2},
        "sources": [{"name": "mbpp", "path": "google-research-datasets/mbpp", "subset": "full", **template}],
        "targets": ["mbpp_sandboxed", {"task": "mini_reviews", "limit": 20}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(written))
    return folder / "study.yaml"


def programs(file: Path) -> LoadedTarget:
    study = load_study(file)
    return load_target(study, study.targets[0])


@walled
def test_an_allowed_target_is_scored_by_running_each_answer(tmp_path: Path) -> None:
    target = programs(study_of_programs(tmp_path, allow_code=True))
    assert (target.refused, target.metric) == ("", "passed")
    answers = [Response(text=row["code"] if n % 3 else "pass", stopped=True) for n, row in enumerate(MBPP)]
    scored = target.score(answers)
    assert [one.score for one in scored.outcomes] == [float(bool(n % 3)) for n in range(len(MBPP))]
    assert scored.aggregates["passed,none"] == pytest.approx(8 / 12)
    assert target.conditions["programs"] == {"seconds": 10.0, "memory_mb": 256}


def test_a_target_that_is_not_allowed_is_told_by_check_and_has_no_value_in_the_run(tmp_path: Path) -> None:
    file = study_of_programs(tmp_path, allow_code=False)
    found = api.check(file, FakeEngine())
    assert "allow_code: true" in found.targets[0].refused
    assert found.to_json()["targets"][0]["refused"] == found.targets[0].refused
    run = tm.run(file, engine=FakeEngine(log=tmp_path / "log"))
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {call["requests"] for call in calls if call["call"] == "answer"} == {60}, (
        "it was asked for nothing"
    )
    matrix = run.matrix()
    statuses = {cell.target: cell.status for cell in matrix.cells}
    assert statuses == {"mbpp_sandboxed": "failed", "mini_reviews": "measured"}
    assert matrix.values[0, 0] != matrix.values[0, 0]
    assert matrix.baseline[0] != matrix.baseline[0]
    assert "allow_code: true" in matrix.cells[0].reason
    assert matrix.values[0, 1] == matrix.values[0, 1]
    with pytest.raises(DataError, match="allow_code: true"):
        programs(file).score([Response(text="pass", stopped=True)] * len(MBPP))


WITHOUT_WALLS = """
import sys
import traitmap as tm
from traitmap.data.code_tests import passes
from traitmap.engine.fake import FakeEngine
from traitmap.errors import DataError

try:
    passes({"tests": ["open('ran', 'w')"]}, ["x = 1"])
except DataError as fault:
    print(fault)
matrix = tm.run(sys.argv[1], engine=FakeEngine()).matrix()
print([(cell.status, cell.reason) for cell in matrix.cells if cell.target == "mbpp_sandboxed"])
"""


@walled
def test_where_nothing_can_be_shut_in_nothing_is_run_and_the_cell_stays_missing(tmp_path: Path) -> None:
    """In a namespace that may make no others, as on a machine that forbids them."""
    file = study_of_programs(tmp_path, allow_code=True)
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "-Ur", "sh", "-c", forbid, "sh", sys.executable, "-c", WITHOUT_WALLS, str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, cells = done.stdout.strip().splitlines()
    assert said.startswith("the sandbox cannot run programs here: ")
    assert not (tmp_path / "ran").exists()
    assert "('failed', 'its answers are programs, and this machine cannot shut them in (" in cells
    assert "measured" not in cells


def test_check_says_so_in_the_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    found = api.check(study_of_programs(tmp_path, allow_code=False), FakeEngine())
    console = Console(width=200, record=True, file=(tmp_path / "shown").open("w"))
    console.print(
        check_preview(sources=(), targets=found.targets, adapters=1, cells=2, estimate=found.estimate)
    )
    assert "! its cells will be missing: its answers are programs" in console.export_text()


@walled
@pytest.mark.shared
def test_real_reference_solutions_pass_and_broken_ones_fail(shared: Path) -> None:
    with (shared / "data" / "mbpp" / "test.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines][:60]
    with ThreadPoolExecutor(2) as pool:
        right = list(pool.map(lambda row: passes(row, [row["answer"]])["passed"], rows))
        broken = [row["answer"].replace("return", "return not ") for row in rows]
        wrong = list(pool.map(lambda row, text: passes(row, [text])["passed"], rows, broken))
    assert (sum(right), sum(wrong)) == (60, 0)
