import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hash_model import HashModel, answer_requests, render_chat
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from traitmap.data.records import Response
from traitmap.data.targets import load_target, load_targets
from traitmap.errors import DataError, EngineError
from traitmap.study.settings import Model, Source, Study, Target

TASKS = Path(__file__).parent / "tasks"
NAMES = sorted(path.stem for path in TASKS.glob("*.yaml") if path.stem != "tiny_group")
NOT_METRICS = ("alias", "name", "sample_len", "sample_count")


def study(*targets: Target, folder: Path = TASKS, limit: int | None = None) -> Study:
    return Study(
        allow_code=True,
        name="tiny",
        model=Model(path="builtin:mini"),
        sources=(Source(name="any", task="tiny_review"),),
        targets=targets or (Target(name="review", task="tiny_review"),),
        include_path=(str(folder),),
        limit=limit,
        limit_takes="first",
    )


def load(task: str, folder: Path = TASKS, limit: int | None = None, render=None, **settings):
    target = Target(name=settings.pop("name", "target"), task=task, **settings)
    return load_target(study(target, folder=folder, limit=limit), target, render)


def choices_of(*logprobs: float) -> list[Response]:
    return [Response(logprob=one, is_greedy=False, tokens=i + 1) for i, one in enumerate(logprobs)]


# ---- scored as lm-eval scores


@pytest.mark.parametrize(
    ("name", "limit", "chat"),
    [
        *((name, None, False) for name in NAMES),
        *((name, 2, True) for name in ("tiny_blank", "tiny_review_shots", "tiny_votes")),
    ],
)
def test_replayed_answers_score_as_under_lm_eval_itself(name, limit, chat, monkeypatch):
    """lm-eval asks the double through its LM interface; we put the same answers to our requests."""
    monkeypatch.chdir(TASKS)  # where lm-eval looks for the data
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    theirs = simple_evaluate(
        model=HashModel(),
        tasks=[name],
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    expected = {
        key: value
        for key, value in theirs["results"][name].items()
        if key not in NOT_METRICS and "_stderr" not in key
    }
    target = load(name, limit=limit, render=render_chat, apply_chat_template=chat)
    scored = target.score(answer_requests(target.requests))
    assert dict(scored.aggregates) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert not scored.unknown
    samples = [one for one in theirs["samples"][name] if one["filter"] == target.filter]
    assert [one.score for one in scored.outcomes] == [float(one[target.metric]) for one in samples]
    assert [one.item for one in scored.outcomes] == [one["doc_id"] for one in samples]


def test_three_and_two_choices_score_to_known_numbers():
    target = load("tiny_review")
    assert target.choices == ("bad", "good")
    assert (target.chance, target.majority) == (0.5, 0.6)
    # golds: good bad good bad good; right, right, wrong, right by acc but not by acc_norm, right
    answers = [
        *choices_of(-3, -1),
        *choices_of(-1, -2),
        *choices_of(-1, -2),
        *choices_of(-3, -3.5),
        *choices_of(-9, -1),
    ]
    scored = target.score(answers)
    assert [one.correct for one in scored.outcomes] == [True, True, False, True, True]
    assert scored.aggregates["acc,none"] == 0.8
    assert scored.aggregates["acc_norm,none"] == pytest.approx(0.6)
    assert scored.aggregates["f1,none"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    wrong = scored.outcomes[2]
    assert (wrong.prediction, wrong.gold) == ("bad", "good")
    assert (wrong.choice_logprobs, wrong.output_tokens) == ((-1, -2), 1)
    assert scored.outcomes[0].output_tokens == 2
    assert (wrong.text, wrong.parsed, wrong.stopped) == (None, True, None)


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_a_prediction_is_the_gold_exactly_where_the_score_is_right(metric):
    name = "tiny_facts" if metric != "acc_bytes" else "tiny_review"
    target = load(name, metric=metric)
    verdicts = set()
    for salt in map(str, range(20)):
        for one in target.score(answer_requests(target.requests, salt)).outcomes:
            assert (one.prediction == one.gold) is one.correct
            verdicts.add(one.correct)
    assert verdicts == {True, False}


def test_choices_are_measured_in_characters_or_in_bytes_as_the_metric_says():
    """Of three choices with 2, 3 and 4 characters, or 6, 3 and 5 bytes, each measure has another winner."""
    answers = choices_of(-2.6, -2, -2.4) * 5  # per character -1.3 -.67 -.6, per byte -.43 -.67 -.48
    predictions = {}
    for metric in ("acc", "acc_norm", "acc_bytes"):
        outcomes = load("tiny_scripts", metric=metric).score(answers).outcomes
        predictions[metric] = {one.prediction for one in outcomes}
        assert all((one.prediction in one.gold.split(" | ")) is one.correct for one in outcomes)
    assert predictions == {"acc": {"bad"}, "acc_norm": {"schö"}, "acc_bytes": {"名作"}}


def test_every_right_choice_counts_towards_chance():
    target = load("tiny_scripts")
    assert [one.gold for one in target.score(choices_of(-1, -2, -3) * 5).outcomes] == [
        "名作 | schö" if good else "bad" for good in (True, False, True, False, True)
    ]
    assert target.chance == pytest.approx((3 * 2 / 3 + 2 * 1 / 3) / 5)
    assert target.majority == 0.6


def test_unconditional_log_probabilities_are_no_choices():
    target = load("tiny_facts", metric="acc_mutual_info")
    assert [len(one.choice_logprobs) for one in target.score(answer_requests(target.requests)).outcomes] == [
        3,
        2,
        3,
    ]
    assert target.chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 3) / 3)
    assert target.choices is None
    assert math.isnan(target.majority)


def test_generated_answers_pass_the_filter_or_are_told_apart():
    texts = ["#### 2", "it is 7", "7 #### 9", "none"]
    answers = [Response(text=text, tokens=4, stopped=i > 0) for i, text in enumerate(texts)]
    strict = load("tiny_sums", filter="strict").score(answers)
    assert [one.prediction for one in strict.outcomes] == ["2", "[invalid]", "9", "[invalid]"]
    assert [one.parsed for one in strict.outcomes] == [True, False, True, False]
    assert [one.correct for one in strict.outcomes] == [True, False, False, False]
    assert strict.aggregates["exact_match,strict"] == 0.25
    assert strict.aggregates["exact_match,flexible"] == 0.5
    flexible = load("tiny_sums", filter="flexible").score(answers)
    assert [one.prediction for one in flexible.outcomes] == ["2", "7", "9", "nothing"]
    assert [one.parsed for one in flexible.outcomes] == [True, True, True, False]
    first = flexible.outcomes[0]
    assert (first.text, first.gold, first.output_tokens, first.stopped) == ("#### 2", "2", 4, False)
    assert load("tiny_sums").majority == 0.5


def test_repeated_generations_are_asked_with_their_own_seeds_and_voted_on():
    target = load("tiny_votes")
    assert [one.item for one in target.requests] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len({one.seed for one in target.requests}) == 12
    assert {one.seed for one in load("tiny_sums").requests} == {0}
    assert [one.seed for one in load("tiny_votes").requests] == [one.seed for one in target.requests]
    assert load("tiny_votes", name="other").requests[0].seed != target.requests[0].seed
    answers = [Response(text=text) for text in ("2", "3", "2") * 4]
    outcomes = target.score(answers).outcomes
    assert [one.prediction for one in outcomes] == ["2"] * 4


def test_bits_per_byte_comes_from_the_task_with_its_direction():
    target = load("tiny_bits")
    assert (target.kind, target.metric, target.higher_is_better) == ("loglikelihood", "negative_bits", True)
    assert load("tiny_bits", metric="bits").higher_is_better is False
    asked = target.requests[0]
    assert (asked.context, asked.continuation) == ("1 + 1 =", " 1 and 1 make 2")
    answers = [Response(logprob=-16 * math.log(2), is_greedy=False, tokens=6)] * 4
    scored = target.score(answers)
    assert [one.score for one in scored.outcomes] == [-16 / 15] * 4
    assert {one.correct for one in scored.outcomes} == {None}
    assert (scored.outcomes[0].gold, scored.outcomes[0].output_tokens) == (" 1 and 1 make 2", 6)
    assert math.isnan(target.chance)
    assert math.isnan(target.majority)


def test_a_greedy_continuation_is_a_right_prediction():
    target = load("tiny_answer")
    assert target.metric == "acc"  # perplexity, the first, is not a mean over items
    greedy = [Response(logprob=-1, is_greedy=i == 0) for i in range(4)]
    outcomes = target.score(greedy).outcomes
    assert [one.correct for one in outcomes] == [True, False, False, False]
    assert [one.prediction for one in outcomes] == [outcomes[0].gold, "", "", ""]


# ---- scoring stands alone


@pytest.mark.parametrize("name", NAMES)
def test_scoring_one_model_after_another_leaves_nothing_behind(name):
    target, alone = load(name), load(name)
    first = target.score(answer_requests(target.requests, "a"))
    second = target.score(answer_requests(target.requests, "b"))
    assert first != second
    assert target.score(answer_requests(target.requests, "a")) == first
    assert alone.score(answer_requests(alone.requests, "b")) == second


def test_a_wrong_number_of_answers_is_no_score():
    target = load("tiny_review")
    answers = answer_requests(target.requests)
    with pytest.raises(EngineError, match="9 answers to 10 requests"):
        target.score(answers[:-1])
    assert target.score(answers).outcomes


def test_an_aggregation_that_fails_is_unknown_with_its_reason(tmp_path):
    for split in ("train", "test"):
        rows = [{"text": f"{n} of {split}", "label": "abc"[n % 3]} for n in range(6)]
        (tmp_path / f"reviews_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = (TASKS / "tiny_review.yaml").read_text().replace("[bad, good]", "[a, b, c]")
    (tmp_path / "three.yaml").write_text(text.replace("tiny_review", "three"))
    target = load("three", folder=tmp_path)
    scored = target.score(answer_requests(target.requests))
    assert math.isnan(scored.aggregates["f1,none"])  # lm-eval's f1 is of two classes
    assert "multiclass" in scored.unknown["f1,none"]
    assert not math.isnan(scored.aggregates["acc,none"])


# ---- digests


def edited(tmp_path: Path, name: str, old: str = "", new: str = "", file: str = ""):
    """The tiny tasks, one of their files changed, and the target loaded from there."""
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    shutil.copytree(TASKS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    changed = folder / (file or f"{name}.yaml")
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    return load(name, folder=folder)


def test_a_digest_is_of_what_is_asked_and_how_it_is_scored(tmp_path):
    same = load("tiny_sums").digest
    assert load("tiny_sums", name="other", tags=("a",)).digest == same
    assert edited(tmp_path, "tiny_sums").digest == same
    assert (
        edited(tmp_path, "tiny_sums", "task: tiny_sums", "task: tiny_sums\ntask_alias: sums").digest == same
    )
    different = [
        load("tiny_sums", filter="flexible"),
        load("tiny_sums", limit=3),
        load("tiny_sums", num_fewshot=1),
        load("tiny_sums", apply_chat_template=True, render=render_chat),
        edited(tmp_path, "tiny_sums", "}} =", "}} is"),
        edited(tmp_path, "tiny_sums", "{{final}}", "{{steps}}"),
        edited(tmp_path, "tiny_sums", "max_gen_toks: 16", "max_gen_toks: 17"),
        edited(tmp_path, "tiny_sums", "####", "###"),
        edited(tmp_path, "tiny_sums", "version: 1.0", "version: 1.1"),
        edited(tmp_path, "tiny_sums", '"9"', '"8"', file="sums_test.jsonl"),
    ]
    assert len({same, *(one.digest for one in different)}) == 1 + len(different)
    assert edited(tmp_path, "tiny_sums", '"8"', '"9"', file="sums_train.jsonl").digest == same


def test_a_digest_covers_the_scoring_code(tmp_path):
    bits = load("tiny_bits").digest
    assert load("tiny_bits", metric="bits").digest != bits
    assert edited(tmp_path, "tiny_bits").digest == bits
    assert edited(tmp_path, "tiny_bits", "math.log(2)", "math.log(4)", file="tiny_scoring.py").digest != bits


def test_an_item_digest_follows_its_item_only(tmp_path):
    def digests(target):
        return [one.item_digest for one in target.score(answer_requests(target.requests)).outcomes]

    before = digests(load("tiny_review"))
    after = digests(edited(tmp_path, "tiny_review", "warm and", "cold and", file="reviews_test.jsonl"))
    assert before[0] != after[0]
    assert before[1:] == after[1:]
    assert digests(load("tiny_review", limit=2)) == before[:2]


# ---- what a study may ask


def test_limits_of_a_target_come_before_the_study_s():
    assert load("tiny_review", limit=3).n_items == 3
    target = Target(name="few", task="tiny_review", limit=2)
    assert load_target(study(target, limit=3), target).n_items == 2


def test_few_shot_requests_are_the_same_every_time_and_as_told():
    first, second = load("tiny_review_shots"), load("tiny_review_shots")
    assert first.requests == second.requests
    assert first.requests[0].context.startswith("Say what the review thinks.\n\nReview: ")
    assert first.requests[0].context.count("Verdict:") == 3
    assert first.conditions["num_fewshot"] == 2
    turns = load("tiny_review_shots", apply_chat_template=True, render=render_chat).requests[0].context
    assert turns.count("<user>") == 3
    assert turns.endswith("<assistant>")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"task": "tiny_review", "metric": "accuracy"},
            "its metrics: acc, acc_norm, acc_bytes, f1, mcc, brier",
        ),
        (
            {"task": "tiny_review", "metric": "f1"},
            "not a mean over items.*those that are: acc, acc_norm, acc_bytes",
        ),
        ({"task": "tiny_answer", "metric": "perplexity"}, "those that are: acc "),
        ({"task": "tiny_sums", "filter": "loose"}, "no filter 'loose'; its filters: strict, flexible"),
        ({"task": "tiny_review", "apply_chat_template": True}, "needs a base model with a chat template"),
        ({"task": "tiny_review", "num_fewshot": 9}, "cannot be rendered"),
        ({"task": "tiny_group"}, "group of 2 tasks"),
    ],
)
def test_what_a_task_does_not_have_is_refused_with_what_it_has(settings, words):
    with pytest.raises(DataError, match=words) as caught:
        load(**settings)
    assert str(caught.value).startswith("target 'target': ")
    assert "\n" not in str(caught.value)


def test_a_task_without_a_mean_over_items_or_with_hidden_labels_is_refused(tmp_path):
    metrics = (TASKS / "tiny_review.yaml").read_text().partition("metric_list:\n")[2]
    only_f1 = "  - metric: f1\n    aggregation: f1\n    higher_is_better: true\n"
    with pytest.raises(DataError, match=r"no metric that is a mean over items.*it has f1"):
        edited(tmp_path, "tiny_review", metrics, only_f1)
    with pytest.raises(DataError, match="hidden labels"):
        edited(tmp_path, "tiny_facts", "doc_to_target: answer", "doc_to_target: question")


def test_a_task_that_cannot_score_an_empty_answer_says_so_before_anything_is_trained(tmp_path):
    with pytest.raises(DataError, match="scoring of item 0 fails: ZeroDivisionError"):
        edited(tmp_path, "tiny_bits", "math.log(2)", "(1 / 0)", file="tiny_scoring.py")


def test_all_faults_of_all_targets_come_together():
    targets = [Target(name=name, task=task) for name, task in [("a", "tiny_revew"), ("b", "tiny_review")]]
    targets.append(Target(name="c", task="tiny_sums", metric="acc"))
    with pytest.raises(DataError) as caught:
        load_targets(study(*targets))
    first, second = str(caught.value).splitlines()
    assert first.startswith("target 'a': there is no task 'tiny_revew'")
    assert second.startswith("target 'c': task 'tiny_sums' has no metric 'acc'")
    assert [one.name for one in load_targets(study(*targets[1:2]))] == ["b"]


def test_paths_in_a_study_are_relative_to_its_file(tmp_path, monkeypatch):
    shutil.copytree(TASKS, tmp_path / "home" / "tasks")
    monkeypatch.chdir(tmp_path)
    target = Target(name="a", task="tasks/tiny_review.yaml")
    included = Target(name="b", task="tiny_sums")
    here = replace_study(
        study(target, included), include_path=("tasks",), path=tmp_path / "home" / "study.yaml"
    )
    assert [one.n_items for one in load_targets(here)] == [5, 4]


def replace_study(given: Study, **changes) -> Study:
    return given.model_copy(update=changes)


def test_a_target_s_record_is_plain_data():
    target = load("tiny_votes", tags=("mathematics",))
    told = json.loads(json.dumps(target.conditions))
    assert told == target.conditions
    assert told["generation_kwargs"]["temperature"] == 0.7
    assert (told["repeats"], told["split"], told["items"], target.tags) == (3, "test", 4, ("mathematics",))
    assert replace(target, name="other").score(answer_requests(target.requests)).outcomes
