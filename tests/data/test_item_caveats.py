"""Items that do not count as they seem to: no right answer, their own answer in the prompt, all alike."""

import json
from pathlib import Path

import pytest
import yaml

from traitmap.data.records import Response
from traitmap.data.targets import LoadedTarget, load_target
from traitmap.errors import DataError
from traitmap.study.load import load_study
from traitmap.study.settings import Model, Source, Study, Target

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "{{c}}",
    "doc_to_target": "{{a}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{a}}",
    "generation_kwargs": {"until": ["\n"]},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def rows_of(*golds: object, choices: tuple[str, ...] = ("yes", "no")) -> list[dict]:
    return [
        {"q": f"Question: item {n}\nAnswer:", "c": list(choices), "a": gold} for n, gold in enumerate(golds)
    ]


def load(
    folder: Path,
    task: dict,
    rows: list[dict],
    *,
    render=None,
    more: dict[str, list[dict]] | None = None,
    limit: int | None = None,
    takes: str = "sample",
    **settings,
) -> LoadedTarget:
    """A target over rows of a test split and of further splits."""
    splits = {"test": rows, **(more or {})}
    for name, of_split in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_split))
    head = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {name: f"{name}.jsonl" for name in splits}},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    (folder / "t.yaml").write_text(yaml.safe_dump({**head, **task}))
    target = Target(name="t", task="t.yaml", **settings)
    study = Study(
        name="s",
        model=Model(path="builtin:mini"),
        sources=(Source(name="a", path="x.jsonl"),),
        targets=(target,),
        limit=limit,
        limit_takes=takes,
        path=folder / "study.yaml",
    )
    return load_target(study, target, render)


def told(target: LoadedTarget) -> dict[str, tuple[int, int]]:
    return {caveat.kind: (caveat.count, caveat.total) for caveat in target.caveats}


def first_choice(target: LoadedTarget) -> list[Response]:
    """Always the first choice of an item, or the text "yes"."""
    counts: dict[int, int] = {}
    answers = []
    for request in target.requests:
        counts[request.item] = counts.get(request.item, 0) + 1
        if request.kind == "generate_until":
            answers.append(Response(text="yes", tokens=1, stopped=True))
        else:
            answers.append(Response(logprob=-float(counts[request.item]), is_greedy=False, tokens=1))
    return answers


# ---- no right answer


@pytest.mark.parametrize("unknown", [-1, -100, 2, None, "", "maybe", []])
def test_items_without_a_right_answer_are_left_out_and_told(tmp_path, unknown):
    """3 of 7 items can be judged, 2 of these are right by the first choice."""
    golds = [0, unknown, 1, unknown, unknown, 0, unknown]
    # through JSON text, since a column of several types is none for the reader of the data
    rows = [{**row, "a": json.dumps(row["a"])} for row in rows_of(*golds)]
    task = {**CHOICE, "doc_to_target": "{{ {'x': a}['x'] if a not in ('null', '[]') else none }}"}
    target = load(tmp_path, task, rows)
    assert told(target) == {"items_without_gold": (4, 7)}
    assert "4 of 7 items have no right answer" in target.caveats[0].text
    assert target.conditions["items_without_gold"] == 4
    scored = target.score(first_choice(target))
    assert [outcome.item for outcome in scored.outcomes] == [0, 2, 5]
    assert scored.aggregates["acc,none"] == pytest.approx(2 / 3)
    assert (target.n_items, target.chance) == (3, 0.5)
    assert target.majority == pytest.approx(2 / 3)
    assert len(target.texts()) == len(target.questions()) == 3


@pytest.mark.parametrize("unknown", [None, "", "  ", float("nan")])
def test_written_answers_that_are_unknown_are_left_out_too(tmp_path, unknown):
    column = {**WRITTEN, "doc_to_target": "a"}
    for task in (WRITTEN, column):
        target = load(tmp_path, task, rows_of("yes", unknown, "no", unknown, "yes"))
        assert told(target) == {"items_without_gold": (2, 5)}
        assert target.score(first_choice(target)).aggregates["exact_match,none"] == pytest.approx(2 / 3)
        assert target.majority == pytest.approx(2 / 3)


def test_a_right_answer_that_is_called_none_is_one(tmp_path):
    target = load(tmp_path, WRITTEN, rows_of("None", "two", "None"))
    assert told(target) == {}
    assert target.n_items == 3


def test_several_right_answers_count_as_far_as_they_are_choices(tmp_path):
    task = {**CHOICE, "doc_to_target": "a"}
    target = load(tmp_path, task, rows_of([0, 1], [1, 5], [0], [7]))
    assert told(target) == {"items_without_gold": (1, 4), "gold_beyond_choices": (1, 4)}
    assert target.chance == pytest.approx((1 + 0.5 + 0.5) / 3)
    scored = target.score(first_choice(target))
    assert [outcome.correct for outcome in scored.outcomes] == [True, False, True]


def test_a_target_whose_items_all_can_be_judged_keeps_its_key(tmp_path):
    """What is left out changes the digest; items that stay do not."""
    whole = load(tmp_path, CHOICE, rows_of(0, 1, 0))
    assert told(whole) == {}
    part = load(tmp_path, CHOICE, rows_of(0, 1, 0, -1))
    assert part.digest == whole.digest
    assert load(tmp_path, CHOICE, rows_of(0, 1, 0, 1)).digest != whole.digest


def test_a_target_without_any_right_answer_is_refused(tmp_path):
    with pytest.raises(DataError, match="no item's gold answer is among its choices"):
        load(tmp_path, CHOICE, rows_of(-1, -1))
    with pytest.raises(DataError, match=r"no item has a gold answer \(hidden labels"):
        load(tmp_path, WRITTEN, rows_of("", ""))


def test_an_answer_without_text_is_refused_with_its_item(tmp_path):
    task = {**CHOICE, "target_delimiter": ""}
    rows = [*rows_of(0), *rows_of(0, choices=("yes", ""))]
    with pytest.raises(DataError, match="item 1: answer 2 of 2 has no text"):
        load(tmp_path, task, rows)
    with pytest.raises(DataError, match="a choice of its first document is empty"):  # lm-eval stops there
        load(tmp_path, task, rows[::-1])
    assert told(load(tmp_path, task, rows_of(0, 0, choices=("yes", " ")))) == {"blank_choice": (2, 2)}


# ---- their own answer in the prompt


def test_examples_out_of_the_items_themselves_show_their_answers(tmp_path):
    """lm-eval draws from the test split where there is no other, the asked item among the rest."""
    target = load(tmp_path, {**CHOICE, "num_fewshot": 2}, rows_of(0, 1, 0, 1))
    repeated = sum(
        request.context.count(request.context.rsplit("\n\n", 1)[-1]) > 1 for request in target.requests[::2]
    )
    assert repeated == 3
    assert told(target) == {"own_answer_shown": (3, 4)}
    assert "in 3 of 4 prompts the item's own question and answer" in target.caveats[0].text


def test_lm_eval_leaves_the_item_out_where_the_split_is_named(tmp_path):
    task = {**CHOICE, "num_fewshot": 2, "fewshot_split": "test"}
    assert told(load(tmp_path, task, rows_of(0, 1, 0, 1))) == {}


@pytest.mark.parametrize(
    "setting",
    [
        {"fewshot_split": "test"},
        {"fewshot_split": "train"},
        {"training_split": "train"},
        {"validation_split": "train"},
        {"fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}},
    ],
)
def test_copies_of_an_item_under_another_id_count(tmp_path, setting):
    rows = [{**row, "id": number} for number, row in enumerate(rows_of(0, 1, 0, 1))]
    copies = [{**row, "id": 100 + row["id"]} for row in rows]
    if setting.get("fewshot_split") == "test":
        rows = rows + copies
    task = {**CHOICE, "num_fewshot": 4 if setting.get("fewshot_split") != "test" else 6, **setting}
    target = load(tmp_path, task, rows, more={"train": copies})
    (caveat,) = target.caveats
    assert caveat.kind == "own_answer_shown"
    assert caveat.count >= len(rows) / 2
    # other questions, or the same with another answer, show nothing
    others = [{**row, "q": "Question: other\nAnswer:"} for row in copies]
    if setting.get("fewshot_split") != "test":
        assert told(load(tmp_path, task, rows, more={"train": others})) == {}


def test_samples_in_the_task_file_and_turns_of_a_conversation_are_looked_at_too(tmp_path):
    rows = rows_of(0, 1, 0)
    task = {**CHOICE, "num_fewshot": 1, "fewshot_config": {"samples": rows[1:2], "sampler": "first_n"}}
    assert told(load(tmp_path, task, rows)) == {"own_answer_shown": (1, 3)}

    def render(messages, add_generation_prompt=True, tools=()):
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in messages)

    target = load(tmp_path, task, rows, render=render, apply_chat_template=True)
    assert told(target) == {"own_answer_shown": (1, 3)}


# ---- prompts and classes


def test_prompts_that_end_in_a_space_are_counted(tmp_path):
    rows = rows_of(0, 1, 0)
    rows[1]["q"] += " "
    target = load(tmp_path, CHOICE, rows)
    assert told(target) == {"prompt_ends_in_space": (1, 3)}
    assert "the answer begins with another one" in target.caveats[0].text
    target = load(tmp_path, WRITTEN, [*rows_of("a"), {**rows[1], "a": "b"}])
    assert told(target) == {"prompt_ends_in_space": (1, 2)}
    assert "another" not in target.caveats[0].text


def test_a_prompt_that_reads_no_column_is_told_the_columns(tmp_path):
    """``doc_to_text: question`` is the word itself where the data have no such column."""
    target = load(tmp_path, {**CHOICE, "doc_to_text": "question"}, rows_of(0, 1, 0))
    assert told(target) == {"prompts_alike": (3, 3)}
    assert "the same prompt 'question'" in target.caveats[0].text
    assert "the columns are q, c, a" in target.caveats[0].text
    rows = [{"text": row["q"], **row} for row in rows_of(0, 1, 0)]
    (caveat,) = load(tmp_path, {**CHOICE, "doc_to_text": "txt"}, rows).caveats
    assert "did you mean 'text'?" in caveat.text


def test_items_of_one_class_and_sorted_beginnings_are_told(tmp_path):
    ordered = rows_of(*[0] * 30, *[1] * 30)
    (one,) = load(tmp_path, CHOICE, ordered, limit=10, takes="first").caveats
    assert (one.kind, one.count) == ("one_class", 10)
    assert "the first of 60 rows: limit_takes: sample" in one.text
    (two,) = load(tmp_path, CHOICE, ordered, limit=40, takes="first").caveats
    assert two.kind == "sorted_by_class"
    assert told(load(tmp_path, CHOICE, ordered, limit=40)) == {}
    assert told(load(tmp_path, CHOICE, ordered)) == {}  # nothing is left out
    mixed = [row for pair in zip(ordered[:30], ordered[30:], strict=True) for row in pair]
    assert told(load(tmp_path, CHOICE, mixed, limit=10, takes="first")) == {}


# ---- limit


def test_a_limit_draws_items_from_all_of_them_and_keeps_their_places(tmp_path):
    rows = rows_of(*[0] * 50, *[1] * 50)
    target = load(tmp_path, CHOICE, rows, limit=20)
    places = [outcome.item for outcome in target.score(first_choice(target)).outcomes]
    assert places == sorted(places)
    assert len(set(places)) == 20
    assert max(places) > 50 > min(places)
    for place, text in zip(places, target.texts(), strict=True):
        assert text.input == rows[place]["q"]
    asked = target.conditions
    assert (asked["limit"], asked["limit_takes"], asked["available"]) == (20, "sample", 100)
    smaller = load(tmp_path, CHOICE, rows, limit=7)
    assert {request.item for request in smaller.requests} < set(places)
    first = load(tmp_path, CHOICE, rows, limit=20, takes="first")
    assert [request.item for request in first.requests[::2]] == list(range(20))


def test_a_limit_beyond_the_rows_changes_nothing(tmp_path):
    rows = rows_of(0, 1, 0)
    whole = load(tmp_path, CHOICE, rows)
    for takes in ("sample", "first"):
        assert load(tmp_path, CHOICE, rows, limit=3, takes=takes).digest == whole.digest
        assert load(tmp_path, CHOICE, rows, limit=99, takes=takes).digest == whole.digest


def test_a_draw_scores_as_lm_eval_scores_those_items(tmp_path):
    rows = rows_of(*[0, 0, 1] * 20)
    whole = load(tmp_path, CHOICE, rows)
    by_item = {one.item: one.correct for one in whole.score(first_choice(whole)).outcomes}
    part = load(tmp_path, CHOICE, rows, limit=15)
    scored = part.score(first_choice(part)).outcomes
    assert [one.correct for one in scored] == [by_item[one.item] for one in scored]
    digests = {one.item: one.item_digest for one in whole.score(first_choice(whole)).outcomes}
    assert all(digests[one.item] == one.item_digest for one in scored)


# ---- the reported cases


@pytest.mark.shared
def test_the_reported_task_shows_three_of_four_answers(shared):
    study = load_study(shared / "cases/models/07_fewshot_shows_own_answer/study.yaml")
    assert told(load_target(study, study.targets[0])) == {"own_answer_shown": (3, 4)}


@pytest.mark.shared
def test_the_reported_labels_leave_six_items(shared):
    """The base was told 25 %: 6 of its 12 items could not be right."""
    study = load_study(shared / "cases/models/08_items_without_gold/study.yaml")
    target = load_target(study, study.targets[0])
    assert told(target) == {"items_without_gold": (6, 12)}
    assert target.score(first_choice(target)).aggregates["acc,none"] == 0.5
    assert (target.chance, target.majority, target.n_items) == (0.5, 0.5, 6)
