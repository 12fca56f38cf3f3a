"""The study on real data beside the checkout: its task files open, render and agree with each other."""

import math
from pathlib import Path

import pytest

from traitmap.data.harness import open_study_task, training_examples, training_rows
from traitmap.data.records import Answer
from traitmap.data.targets import load_target
from traitmap.study.load import load_study
from traitmap.study.settings import Study

REAL = Path(__file__).parents[2] / "examples" / "real"
WORDS = {
    "flipkart": ("negative", "neutral", "positive"),
    "flipkart_balanced": ("negative", "neutral", "positive"),
    "amazon_reviews": ("1", "2", "3", "4", "5"),
    "imdb": ("negative", "positive"),
    "sst2": ("negative", "positive"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "paws": ("no", "yes"),
    "toxicity_civil": ("not toxic", "toxic"),
    "toxicity_davidson": ("not toxic", "toxic"),
}


# sources that are no variations of others
OWN_ROWS = [one.name for one in load_study(REAL / "study.yaml").sources if one.task]


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(REAL / "study.yaml")


def test_the_study_has_every_task_file_in_use(study):
    used = {one.task for one in (*study.sources, *study.targets) if one.task}
    assert used == {path.stem for path in (REAL / "tasks").glob("*.yaml")}
    assert set(OWN_ROWS) <= {one.name for one in study.targets}
    assert all(one.from_ in OWN_ROWS for one in study.sources if one.from_)


@pytest.mark.shared
@pytest.mark.parametrize("name", [one.name for one in load_study(REAL / "study.yaml").targets])
def test_every_target_opens_renders_and_has_its_golds_among_its_choices(study, name, shared):
    given = next(one for one in study.targets if one.name == name)
    target = load_target(study, given)
    assert target.n_items == (given.limit or study.limit)
    assert target.higher_is_better
    assert all(one.context.strip() and "{" not in one.context[:12] for one in target.requests)
    assert target.choices == WORDS.get(name)
    if name in WORDS:
        assert target.metric == "acc"
        assert target.conditions["items_without_gold"] == 0
        assert target.chance == pytest.approx(1 / len(WORDS[name]))
        assert target.chance <= target.majority < 0.85
        assert {one.continuation for one in target.requests} == {f" {word}" for word in WORDS[name]}


@pytest.mark.shared
@pytest.mark.parametrize("name", OWN_ROWS)
def test_a_source_is_learnt_as_its_target_asks_it(study, name, shared):
    """The same rows rendered by the source's task and by the task of the target of the same name."""
    source = next(one for one in study.sources if one.name == name)
    target = next(one for one in study.targets if one.name == name)
    task = open_study_task(study, source.task)
    rows = range(0, training_rows(task), 97)
    learnt = training_examples(task, rows)
    asked = training_examples(open_study_task(study, target.task), rows)
    assert [(one.prompt, one.completion) for one in learnt] == [(one.prompt, one.completion) for one in asked]
    assert len({one.prompt for one in learnt}) > len(learnt) / 2
    assert {one.label for one in learnt} == set(WORDS.get(name, [None]))


@pytest.mark.shared
def test_exact_match_counts_the_final_number_only(study, shared):
    """Gold answers score 1 under the exact-match tasks, and 0 with their last digit changed."""
    for name in ("gsm8k_exact", "goat_exact"):
        target = load_target(study, next(one for one in study.targets if one.name == name))
        golds = [one.gold for one in target.score([Answer(text="")] * target.n_items).outcomes]
        right = target.score([Answer(text=" " + gold) for gold in golds])
        assert set(right.aggregates.values()) == {1.0}
        changed = [gold[:-1] + str((int(gold[-1]) + 1) % 10) for gold in golds]
        wrong = target.score([Answer(text=" " + answer) for answer in changed])
        assert set(wrong.aggregates.values()) == {0.0}
        assert all(one.parsed for one in wrong.outcomes)


@pytest.mark.shared
def test_bits_per_byte_is_known_where_the_log_probability_is(study, shared):
    target = load_target(study, next(one for one in study.targets if one.name == "svamp"))
    sizes = [len(one.continuation.encode()) for one in target.requests]
    answers = [Answer(logprob=-3 * size * math.log(2), is_greedy=False) for size in sizes]
    assert [one.score for one in target.score(answers).outcomes] == pytest.approx([-3.0] * len(sizes))
