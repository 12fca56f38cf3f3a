import json
import logging
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub_layouts import write_copies
from traitmap.data.harness import (
    BUNDLED,
    gold_choices,
    open_task,
    quiet,
    sandboxed_templates,
    training_examples,
    training_rows,
)
from traitmap.errors import DataError

TASKS = Path(__file__).parent / "tasks"


def test_a_task_is_found_by_name_and_by_file_and_reads_the_data_beside_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = open_task("tiny_review", [TASKS])
    by_file = open_task(str(TASKS / "tiny_review.yaml"))
    assert [doc["text"] for doc in by_name.eval_docs] == [doc["text"] for doc in by_file.eval_docs]
    assert by_name.eval_docs[0]["text"] == "warm and clever"


def test_data_in_the_working_directory_is_used_where_none_lies_beside_the_file(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(TASKS / "tiny_facts.yaml", tmp_path / "elsewhere")
    for split in ("train", "test"):
        shutil.copy(TASKS / f"facts_{split}.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"elsewhere/facts_train\.jsonl"):
        open_task(str(tmp_path / "elsewhere" / "tiny_facts.yaml"))
    monkeypatch.chdir(tmp_path)
    assert len(open_task(str(tmp_path / "elsewhere" / "tiny_facts.yaml")).eval_docs) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny_revew", "did you mean tiny_review"),
        ("tiny_group", "group of 2 tasks; name those that you want instead: tiny_review, tiny_facts"),
        ("tiny", "tag of 4 tasks.*: tiny_blank, tiny_facts, tiny_review, tiny_review_shots"),
        ("ai2_arc", "tag of 2 tasks.*arc_challenge, arc_easy"),
        ("no/such/file.yaml", "does not exist"),
        (str(TASKS / "tiny_group.yaml"), "group of 2 tasks"),
    ],
)
def test_a_name_that_is_no_single_task_is_refused_with_what_to_name(name, words):
    with pytest.raises(DataError, match=words):
        open_task(name, [TASKS])


def test_a_faulty_file_is_refused_in_one_line_with_its_reason(tmp_path):
    review = (TASKS / "tiny_review.yaml").read_text().replace("reviews_", f"{TASKS}/reviews_")
    faults = {
        "{{text}}": ("{{txet}}", "'txet' is undefined"),
        "training_split: train": ("training_split: dev", "dev"),
        "output_type: multiple_choice": ("output_type: choice", "choice"),
        "task: tiny_review\n": ("", "no `task:` key"),
        "tag: tiny": ("tag: [tiny", "cannot be read"),
        "output_type: ": ("unsafe_code: true\noutput_type: ", "executes generated code"),
    }
    for old, (new, words) in faults.items():
        assert old in review
        (tmp_path / "faulty.yaml").write_text(review.replace(old, new))
        with pytest.raises(DataError, match=words) as caught:
            open_task(str(tmp_path / "faulty.yaml"))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not a folder"):
        open_task("tiny_review", [tmp_path / "absent"])


def test_few_shot_examples_are_set_as_lm_eval_sets_them_and_what_it_would_ignore_is_refused(tmp_path):
    assert open_task("tiny_review", [TASKS]).config.num_fewshot == 0
    assert open_task("tiny_review_shots", [TASKS]).config.num_fewshot == 2
    assert open_task("tiny_review_shots", [TASKS], num_fewshot=1).config.num_fewshot == 1
    (tmp_path / "fixed.yaml").write_text(f"include: {TASKS}/tiny_facts.yaml\ntask: fixed\nnum_fewshot: 0\n")
    for split in ("train", "test"):
        shutil.copy(TASKS / f"facts_{split}.jsonl", tmp_path)
    with pytest.raises(DataError, match="never overrides"):
        open_task("fixed", [tmp_path], num_fewshot=3)


def test_training_examples_are_prompt_and_gold_answer():
    first, second = training_examples(open_task("tiny_review", [TASKS]))[:2]
    assert (first.prompt, first.completion, first.label) == (
        "Review: a joy from start to end\nVerdict:",
        " good",
        "good",
    )
    assert (second.completion, second.label) == (" bad", "bad")
    facts = training_examples(open_task("tiny_facts", [TASKS]))
    assert [one.text for one in facts] == [
        "What do bees make? wax and honey",
        "Where do fish live? in water",
    ]
    sums = training_examples(open_task("tiny_votes", [TASKS]))[0]
    assert (sums.prompt, sums.completion, sums.label) == ("2 + 3 = So", " 2 and 3 make 5 #### 5", None)
    text = training_examples(open_task("tiny_text", [TASKS], allow_code=True))[0]
    assert (text.prompt, text.completion) == ("", "a joy from start to end")


def test_training_text_is_what_evaluation_of_the_same_row_asks(tmp_path):
    """The law behind `training_examples`: evaluate the training split and find the same texts."""
    for name in ("tiny_review", "tiny_review_shots", "tiny_facts", "tiny_answer"):
        (tmp_path / f"{name}.yaml").write_text(
            f"include: {TASKS}/{name}.yaml\ntask: {name}_train\ntest_split: train\nnum_fewshot: 0\n"
        )
        for data in TASKS.glob("*.jsonl"):
            shutil.copy(data, tmp_path)
        task = open_task(str(tmp_path / f"{name}.yaml"))
        with quiet():
            task.build_all_requests()
        asked = {"".join(one.args) for one in task.instances}
        learnt = {one.text for one in training_examples(task)}
        assert learnt <= asked
        assert len(learnt) == len(task.training_docs())


def test_rows_are_rendered_as_drawn():
    task = open_task("tiny_review", [TASKS])
    whole = training_examples(task)
    assert training_rows(task) == len(whole) == 4
    assert training_examples(task, [2, 0]) == [whole[2], whole[0]]


def test_rows_read_together_are_those_read_one_by_one(tmp_path):
    rows = [
        {"text": f"row {n}", "label": n % 2, "parts": [{"of": n, "in": ["a"] * (n % 3)}], "note": None}
        for n in range(1, 2300)
    ]
    rows[7]["note"] = "seven"
    lines = "\n".join(json.dumps(row) for row in rows)
    for split in ("train", "test"):
        (tmp_path / f"reviews_{split}.jsonl").write_text(lines)
    review = (TASKS / "tiny_review.yaml").read_text()
    (tmp_path / "nested.yaml").write_text(
        review.replace("Review: {{text}}", "{{text}} {{parts[0].of}} {{parts[0]['in'] | length}} {{note}}")
    )
    task = open_task(str(tmp_path / "nested.yaml"))
    drawn = [5, 2298, 7, 0, *range(1000, 2100)]
    docs = [task.dataset["train"][row] for row in drawn]
    assert [one.prompt for one in training_examples(task, drawn)] == [task.doc_to_text(doc) for doc in docs]
    assert training_examples(task, [7])[0].prompt.startswith("row 8 8 2 seven")


def test_a_template_is_compiled_once_for_all_rows():
    environment = sandboxed_templates()
    assert environment.from_string("{{text}}") is environment.from_string("{{text}}")


def test_a_task_that_shows_no_examples_keeps_none_and_one_that_shows_some_has_them_all():
    assert not open_task("tiny_review", [TASKS]).sampler.df
    assert len(open_task("tiny_review", [TASKS], num_fewshot=1).sampler.df) == 4
    assert len(open_task("tiny_review_shots", [TASKS]).sampler.df) == 4


def test_what_cannot_be_learnt_is_refused(tmp_path):
    with pytest.raises(DataError, match="multiple inputs"):
        training_examples(open_task("tiny_blank", [TASKS]))
    review = (TASKS / "tiny_review.yaml").read_text().replace("reviews_", f"{TASKS}/reviews_")
    (tmp_path / "a.yaml").write_text(review.replace("training_split: train\n", ""))
    with pytest.raises(DataError, match="no training split"):
        training_examples(open_task(str(tmp_path / "a.yaml")))
    (tmp_path / "b.yaml").write_text(review.replace("[bad, good]", "[bad, fine]"))
    with pytest.raises(DataError, match=r"training row 0: its answer 'good' is none of its choices"):
        training_examples(open_task(str(tmp_path / "b.yaml")))


@pytest.mark.parametrize(
    ("target", "golds"),
    [("good", (1,)), (0, (0,)), ([1, 0], (1, 0)), (-1, ()), (2, ()), ("fine", ())],
)
def test_gold_choices_are_indices_or_texts_and_never_count_from_the_end(target, golds):
    task = open_task("tiny_review", [TASKS])
    assert gold_choices(task, {"label": target}, ["bad", "good"]) == golds


def test_quiet_and_seeds_leave_everything_as_it_was(capfd):
    logger = logging.getLogger("lm_eval")
    level, stderr = logger.level, sys.stderr
    random.seed(5)
    expected = random.random()
    random.seed(5)
    open_task("tiny_votes", [TASKS])
    assert random.random() == expected
    assert (logger.level, sys.stderr) == (level, stderr)
    assert capfd.readouterr() == ("", "")


def test_the_edge_imports_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'peft'} & set(sys.modules)"
    code = f"import sys, traitmap.data.targets; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_task_opens_renders_and_has_its_golds_among_its_choices(path, tmp_path):
    """Those over hub datasets on generated rows in the datasets' own columns."""
    if "task:" not in path.read_text():
        pytest.skip("a part that other task files include")
    task = open_task(path.stem, copies=write_copies(tmp_path / "copies"))
    if path.stem.startswith("refusals_"):  # nothing is right about an answer but whether it refuses
        assert not task.has_training_docs()
        assert task.fewshot_context(task.eval_docs[0], 0).startswith("Question: ")
        return
    examples = training_examples(task)
    assert len(examples) > 0
    assert all(one.prompt and one.completion.strip() for one in examples)
    if task.OUTPUT_TYPE == "multiple_choice":
        labels = {one.label for one in examples}
        assert all(
            gold_choices(task, doc, task.doc_to_choice(doc)) and len(labels) > 1 for doc in task.eval_docs
        )


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("immutabledict", r"pip install 'lm-eval\[ifeval\]'"),
        ("sentencepiece", r"pip install 'lm-eval\["),
        ("nobody_has_this", "install the package that has nobody_has_this"),
    ],
)
def test_a_module_that_a_task_lacks_is_told_with_what_brings_it(module, advice, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "functions_here", raising=False)
    (tmp_path / "functions_here.py").write_text(f"import {module}\n\ndef f(doc): return doc\n")
    text = (TASKS / "tiny_review.yaml").read_text() + "process_results: !function functions_here.f\n"
    (tmp_path / "lacking.yaml").write_text(text)
    with pytest.raises(DataError, match=f"{module}.*{advice}"):
        open_task(str(tmp_path / "lacking.yaml"), allow_code=True)
