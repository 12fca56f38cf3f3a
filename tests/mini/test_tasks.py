"""Every task file of the embedded study, as lm-evaluation-harness reads it."""

from math import log
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

import traitmap.data
from traitmap.mini.families import FAMILIES

FOLDER = Path(traitmap.data.__file__).parent / "tasks"


@pytest.fixture(scope="module")
def tasks() -> dict:
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)
    return manager.load([f"mini_{name}" for name in FAMILIES])["tasks"]


@pytest.mark.parametrize("name", FAMILIES)
class TestEveryTask:
    def test_both_splits_are_the_family_rows(self, name, tasks):
        task = tasks[f"mini_{name}"]
        assert list(task.test_docs())[:20] == FAMILIES[name].rows("test", len(task.test_docs()), 0)[:20]
        assert (
            list(task.training_docs())[:5] == FAMILIES[name].rows("train", len(task.training_docs()), 0)[:5]
        )

    def test_choices_are_the_family_labels_in_order(self, name, tasks):
        task = tasks[f"mini_{name}"]
        if FAMILIES[name].labels:
            doc = task.test_docs()[0]
            assert tuple(task.doc_to_choice(doc)) == FAMILIES[name].labels
            assert task.doc_to_target(doc) == doc["label"]
        else:
            assert task.config.output_type == "generate_until"

    def test_the_gold_answer_scores_one_and_silence_zero(self, name, tasks):
        task = tasks[f"mini_{name}"]
        if FAMILIES[name].labels:
            return
        task.build_all_requests(limit=5)
        for good in (True, False):
            for instance in task.instances:
                gold = task.doc_to_target(instance.doc)
                instance.resps = [str(gold) if good else "nothing"]
            task.apply_filters()
            for instance in task.instances:
                for answer in instance.filtered_resps.values():
                    found = task.process_results(instance.doc, [answer])
                    assert found == {"exact_match": 1.0 if good else 0.0}


@pytest.mark.parametrize("name", ["word_problems", "arithmetic", "programs"])
def test_bits_of_an_answer_are_of_the_text_that_is_learnt(name):
    """Prompt and answer stand together as in the task that is trained on, and each halving costs a bit."""
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)
    loaded = manager.load([f"mini_{name}", f"mini_{name}_bits"])["tasks"]
    trained, asked = loaded[f"mini_{name}"], loaded[f"mini_{name}_bits"]
    asked.build_all_requests(limit=3)
    for instance in asked.instances:
        doc = instance.doc
        prompt, answer = instance.args
        whole = trained.doc_to_text(doc) + trained.config.target_delimiter + trained.doc_to_target(doc)
        assert prompt + answer == whole
        size = len(trained.doc_to_target(doc).encode())
        (bits,) = asked.process_results(doc, [(-3 * log(2) * size, False)]).values()
        assert bits == pytest.approx(-3)
