"""Task files written from targets over plain data ask in lm-eval itself what the study asks."""

import json
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from told import traitmap
from traitmap import api
from traitmap.data.harness import open_task, quiet
from traitmap.data.records import Response
from traitmap.data.targets import load_targets
from traitmap.errors import DataError, RunError
from traitmap.study.load import load_study

ROWS = [
    {"text": f"2024-01-{n + 1:02} item {n}", "word": "ab"[n % 2], "n": n, "pick": n % 3,
     "options": [f"one{n}", "two", "three"], "story": f"because {n}\n#### {n}", "date": f"2009-01-{n + 1:02}"}
    for n in range(24)
]  # fmt: skip
STUDY = """\
name: s
model: builtin:mini
limit: 10
sources:
  - name: taught
    path: rows.jsonl
    label: word
    prompt: "{{ text }} ->"
    completion: " {{ label }}"
    target: {held_out: 0.5, num_fewshot: 2}
targets:
  - {name: labels, path: asked.jsonl, prompt: "{{ text }}:\\n", label: word, labels: [b, a], metric: acc_norm}
  - {name: choices, path: asked.jsonl, prompt: "{{ text }}?", choices: options, answer: pick, num_fewshot: 1,
     limit: 24}
  - {name: dates, path: asked.jsonl, prompt: "{{ n }}", answer: date, limit: 24}
  - {name: stories, path: asked.jsonl, prompt: "{{ n }}", answer: story, extract: "#### (.+)", num_fewshot: 2,
     limit: 24}
  - {name: words, path: asked.jsonl, prompt: "{{ n }}", answer: "{{ text }}", metric: f1}
  - {name: weighed, path: asked.jsonl, prompt: "{{ n }}", completion: " {{ story }}"}
  - mini_reviews
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for name in ("rows", "asked"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def files(study: Path) -> dict[str, Path]:
    return {file.stem: file for file in api.export(study, study.parent / "tasks", format="lm-eval-task")}


NAMES = ["labels", "choices", "dates", "stories", "words", "weighed", "taught"]


def answers_to(target) -> list[Response]:
    """Answers that are right, wrong and unparsed by turns."""
    texts = [text.output if at % 3 else "#### 3" for at, text in enumerate(target.texts())]
    return [
        Response(text=f" #### {texts[request.item % len(texts)]}" if at % 2 else texts[at % len(texts)])
        if request.kind == "generate_until"
        else Response(logprob=-float(at * 7 % 11) - 1, is_greedy=False)
        for at, request in enumerate(target.requests)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_lm_eval_itself_asks_and_scores_the_same(study, files, name):
    target = {target.name: target for target in load_targets(load_study(study))}[name]
    with quiet():  # nothing of traitmap: as `lm_eval --tasks FILE` opens and seeds it
        (task,) = TaskManager(include_defaults=False).load(str(files[name]))["tasks"].values()
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests()
    kinds = ("generate_until", "loglikelihood_rolling")
    theirs = [(i.args[0], "" if i.request_type in kinds else i.args[1]) for i in task.instances]
    assert [(r.context, r.continuation) for r in target.requests] == theirs
    assert [r.generation for r in target.requests if r.generation] == [
        i.args[1] for i in task.instances if i.request_type == "generate_until"
    ]
    answers = answers_to(target)
    for instance, answer in zip(task.instances, answers, strict=True):
        written = instance.request_type == "generate_until"
        instance.resps = [answer.text if written else (answer.logprob, answer.is_greedy)]
    task.apply_filters()
    by_doc: dict[int, list] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    scores = [
        task.process_results(group[0].doc, [i.filtered_resps[target.filter] for i in group])[target.metric]
        for group in by_doc.values()
    ]
    assert scores == [outcome.score for outcome in target.score(answers).outcomes]
    assert len(set(scores)) > 1
    assert task.higher_is_better()[target.metric] == target.higher_is_better


def test_the_files_are_targets_of_ours_too_and_tasks_of_lm_eval_are_left(files):
    assert sorted(files) == sorted(NAMES)
    assert len(open_task(str(files["labels"])).eval_docs) == 10  # the study's limit
    assert len(open_task(str(files["dates"])).eval_docs) == 24


def test_the_command_writes_them_and_says_what_it_needs(study, tmp_path):
    done = traitmap("export", str(study), "--format", "lm-eval-task", "-o", "out", cwd=tmp_path)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 7
    head = (tmp_path / "out" / "words.yaml").read_text().splitlines()[:3]
    assert head[0].startswith("# Rows of asked.jsonl: an answer that the model writes, f1; 24 rows")
    assert "traitmap's, which must be installed beside lm-eval" in head[1]
    with pytest.raises(RunError, match="written from a study; give its file"):
        api.export(tmp_path, tmp_path / "x", format="lm-eval-task")
    plain = load_study(study).model_copy(update={"targets": (), "sources": ()})
    with pytest.raises(DataError, match="no target of the study is over plain data"):
        api.export(plain, tmp_path / "y", format="lm-eval-task")
