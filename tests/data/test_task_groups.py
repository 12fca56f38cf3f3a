"""A group of lm-eval tasks is one entry of a study: lm-eval's own tasks, and faults with file and line."""

import json
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from traitmap.data.check import check_file
from traitmap.data.harness import quiet
from traitmap.data.targets import load_targets
from traitmap.errors import DataError, StudyError
from traitmap.study.settings import Source, Study, Target

ROWS = [{"q": f"{n} + 1", "a": str(n + 1), "odd": n % 2} for n in range(12)]
SHARED = """\
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_choice: ["even", "odd"]
doc_to_target: odd
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
OUTER = """\
group: outer
task:
  - outer_a
  - task: outer_b
    doc_to_text: "otherwise {{q}}"
  - group: inner
    task:
      - outer_c
      - task: written_out
        dataset_path: json
        dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
        test_split: test
        output_type: generate_until
        doc_to_text: "{{q}} ="
        doc_to_target: a
        generation_kwargs: {until: ["\\n"]}
    aggregate_metric_list: [{metric: acc, weight_by_size: false}]
  - late
aggregate_metric_list: [{metric: acc}]
metadata: {version: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four tasks that include one file, two of them under a tag, and a group of everything."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "shared.inc").write_text(SHARED.replace("FOLDER", str(tmp_path)))
    for name in "abcd":
        tag = "tag: late\n" if name in "cd" else ""
        text = f'task: outer_{name}\n{tag}include: shared.inc\ndoc_to_text: "{name} {{{{q}}}}"\n'
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "outer.yaml").write_text(OUTER.replace("FOLDER", str(tmp_path)))
    return tmp_path


def study(folder: Path, *targets: Target, **settings: object) -> Study:
    sources = (Source(name="s", task="mini_reviews"),)
    (folder / "study.yaml").touch()
    path = folder / "study.yaml"
    return Study(name="g", model="builtin:mini", sources=sources, targets=targets, path=path, **settings)


def asked(target) -> list[tuple[str, str]]:
    return [(request.context, request.continuation) for request in target.requests]


def test_a_group_s_tasks_are_those_of_lm_eval(folder):
    targets = {target.task: target for target in load_targets(study(folder, Target(task="outer.yaml")))}
    with quiet():
        theirs = TaskManager(include_path=str(folder), include_defaults=False).load("outer")["tasks"]
        for task in theirs.values():
            task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=1234)
            task.build_all_requests()
    assert set(targets) == set(theirs)
    assert len(targets) == 5
    for name, task in theirs.items():
        kind = task.OUTPUT_TYPE
        expected = [(i.args[0], i.args[1] if kind == "multiple_choice" else "") for i in task.instances]
        assert asked(targets[name]) == expected, name


def test_each_task_has_a_name_tags_and_what_its_groups_say(folder):
    targets = load_targets(study(folder, Target(task="outer.yaml", tags=["x"], limit=3)))
    assert [(target.name, target.tags) for target in targets] == [
        ("outer.a", ("x", "outer")),
        ("outer.b", ("x", "outer")),
        ("outer.c", ("x", "outer", "inner")),
        ("outer.written_out", ("x", "outer", "inner")),
        ("outer.d", ("x", "outer", "late")),
    ]
    assert {target.n_items for target in targets} == {3}
    assert targets[1].requests[0].context.startswith("otherwise ")
    assert "outer: mean of acc, weighted by items" in targets[0].read_as
    assert "inner: mean of acc, each task alike" in targets[2].read_as
    assert targets[2].conditions["group"]["groups"] == ["outer", "outer::inner"]


def test_two_entries_of_one_group_and_a_tag_do_not_clash(folder):
    entries = (Target(task="outer.yaml"), Target(name="again", task="outer.yaml", num_fewshot=1))
    late = Target(name="late", task="late")
    targets = load_targets(study(folder, *entries, late, include_path=["."]))
    names = [target.name for target in targets]
    assert len(set(names)) == len(names) == 12
    assert names[-2:] == ["late.outer_c", "late.outer_d"]
    by_name = {target.name: target for target in targets}
    assert by_name["late.outer_c"].digest == by_name["outer.c"].digest  # one task: its cells are reused
    assert by_name["again.c"].digest != by_name["outer.c"].digest


def test_one_task_with_two_settings_is_two_targets_named_by_their_groups(folder):
    text = (
        "group: two\ntask:\n  - outer_a\n  - group: cut\n    task:\n      - {task: outer_a, doc_to_text: q}\n"
    )
    (folder / "two.yaml").write_text(text + "  - outer_a\n")
    targets = load_targets(study(folder, Target(task="two.yaml")))
    assert [target.name for target in targets] == ["two.outer_a", "two.two-cut.outer_a"]


def test_settings_and_lists_come_through_include(folder):
    (folder / "list.inc").write_text("task:\n  - outer_a\n  - outer_z\n")
    (folder / "short.yaml").write_text("group: short\ninclude: list.inc\ntarget_delimiter: '|'\n")
    with pytest.raises(
        DataError, match=r"list\.inc, line 3: there is no task 'outer_z': did you mean outer_"
    ):
        load_targets(study(folder, Target(task="short.yaml")))
    (folder / "list.inc").write_text("task:\n  - outer_a\n")
    (target,) = load_targets(study(folder, Target(task="short.yaml")))
    assert asked(target)[0] == ("a 0 + 1", "|even")


BAD = """\
group: bad
task:
  - outer_a
  - outer_z
  - 7
  - group: inner
    task:
      - late_
      - task: gone
        dataset_path: json
        dataset_kwargs: {data_files: {test: gone.jsonl}}
        test_split: test
        doc_to_text: q
        doc_to_target: a
  - broken
  - bad
"""


def test_every_fault_of_a_group_has_its_file_and_line(folder):
    (folder / "bad.yaml").write_text(BAD)
    (folder / "broken.yaml").write_text("task: broken\ndoc_to_text: [\n")
    text = "name: s\nmodel: builtin:mini\nsources: [{name: r, task: mini_reviews}]\ntargets:\n  - bad.yaml\n"
    (folder / "study.yaml").write_text(text)
    with pytest.raises(StudyError) as caught:
        check_file(folder / "study.yaml")
    found = [(fault.line, fault.where, fault.message) for fault in caught.value.faults]
    assert {(line, where) for line, where, _ in found} == {(5, "targets[0].task")}
    file = folder / "bad.yaml"
    for line, words in [
        (4, "there is no task 'outer_z': did you mean outer_"),
        (5, "'7' is no name"),
        (8, "there is no task 'late_': did you mean late"),
        (9, "gone.jsonl"),
        (15, "broken.yaml cannot be read: while parsing a flow node"),
    ]:
        assert any(f"{file}, line {line}: " in message and words in message for *_, message in found), words
    assert any("stand in each other without end: bad > bad" in message for *_, message in found)


def test_functions_of_a_group_s_file_run_only_where_the_study_allows_code(folder):
    (folder / "own.py").write_text("def text(doc):\n    return 'own ' + doc['q']\n")
    text = "group: own\ntask:\n  - task: outer_a\n    doc_to_text: !function own.text\n"
    (folder / "own.yaml").write_text(text)
    with pytest.raises(DataError, match=r"runs Python functions of its own \(own\.text\)"):
        load_targets(study(folder, Target(task="own.yaml")))
    (target,) = load_targets(study(folder, Target(task="own.yaml"), allow_code=True))
    assert asked(target)[0][0] == "own 0 + 1"
