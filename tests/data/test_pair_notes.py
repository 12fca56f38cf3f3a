"""One task asked in two ways, answers that nobody is taught: what is told between sources and targets."""

import json
from pathlib import Path

import pytest
import yaml

from traitmap.data.check import pair_notes, preview_source
from traitmap.data.lineage import load_sources
from traitmap.data.targets import load_targets
from traitmap.study.load import load_study

WORDS = ["dull", "bright", "warm", "cold", "harsh", "fresh"]
SOURCE = {"name": "films", "path": "train.jsonl", "prompt": "{{text}}\nLabel:", "completion": " {{y}}"}
TASK = {
    "task": "t",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "test.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}\nLabel:",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": "{{0 if y == 'yes' else 1}}",
    "target_delimiter": " ",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{y}}",
    "generation_kwargs": {"until": ["\n\n", "\n"]},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def render_chat(messages, add_generation_prompt, tools=()):
    text = "".join(f"<{turn['role']}>{turn['content']}<end>" for turn in messages)
    return text + ("<assistant>" if add_generation_prompt else "")


def notes(
    folder: Path,
    source: dict | None = None,
    task: dict | None = None,
    *,
    rows: list[dict] | None = None,
    target: dict | None = None,
    apart: bool = False,
    more: tuple[dict, ...] = (),
) -> tuple[str, ...]:
    texts = [
        {"text": f"The film {n} was {word}.", "y": ("yes", "no")[n % 2]} for n, word in enumerate(WORDS * 5)
    ]
    place = folder / "train" if apart else folder
    place.mkdir(exist_ok=True)
    (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows or texts))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    settings = {name: value for name, value in {**TASK, **(task or {})}.items() if value is not None}
    (folder / "t.yaml").write_text(yaml.safe_dump(settings))
    used = dict(source or SOURCE)
    if apart and "path" in used:
        used["path"] = "train/train.jsonl"
    study = {
        "name": "s",
        "model": "builtin:mini",
        "sources": [used, *more],
        "targets": [{"task": "t.yaml", **(target or {})}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    loaded = load_study(folder / "study.yaml")
    sources = load_sources(loaded, render_chat, lambda texts: [float(len(text)) for text in texts])
    return pair_notes(loaded, sources, load_targets(loaded, render_chat))


def test_one_task_in_one_form_is_told_nothing(tmp_path):
    assert notes(tmp_path) == ()


@pytest.mark.parametrize(
    ("prompt", "where", "form"),
    [
        ("{{text}}\nAnswer:", "end in", ".\nAnswer:"),
        ("{{text}}", "end in", ""),
        ("Review: {{text}}\nLabel:", "begin with", "Review: The film "),
    ],
)
def test_a_prompt_in_another_form_is_told(tmp_path, prompt, where, form):
    (note,) = notes(tmp_path, {**SOURCE, "prompt": prompt})
    assert "source 'films' and target 't' are one task in two forms" in note
    assert f"prompts {where}" in note
    assert repr(form)[:-1] in note


def test_letters_that_texts_share_by_chance_are_no_form(tmp_path):
    """All of these texts end in the same words; four rows are too few to tell."""
    rows = [{"text": f"One {n} as it is.", "y": "yes"} for n in range(4)]
    assert notes(tmp_path, rows=rows) == ()


def test_one_odd_text_does_not_hide_the_form(tmp_path):
    rows = [{"text": f"The film {n} was dull.", "y": "yes"} for n in range(30)]
    rows[7] = {"text": "Quite another text!", "y": "no"}
    assert notes(tmp_path, rows=rows) == ()


def test_blanks_between_prompt_and_answer_are_compared(tmp_path):
    (note,) = notes(tmp_path, task={"target_delimiter": ""})
    assert "' ' stands between prompt and answer in training, '' in evaluation" in note
    (note,) = notes(tmp_path, {**SOURCE, "prompt": "{{text}}\nLabel:\n", "completion": "{{y}}"})
    assert r"'\n' stands between" in note
    # a space at the prompt's end and one at the answer's beginning are one gap
    assert notes(tmp_path, {**SOURCE, "prompt": "{{text}}\nLabel: ", "completion": "{{y}}"}) == ()


def test_answers_that_are_not_among_the_choices_are_told(tmp_path):
    labels = {"label": "y", "labels": {"yes": "positive", "no": "negative"}, "completion": " {{label}}"}
    (note,) = notes(tmp_path, {**SOURCE, **labels})
    assert "answers are 'negative' and 'positive' in training, and 'no' and 'yes' are weighed" in note
    # some of them are taught
    assert notes(tmp_path, {**SOURCE, **labels, "labels": {"yes": "yes", "no": "other"}}) == ()


def test_other_data_are_another_task(tmp_path):
    other = {**SOURCE, "prompt": "Q: {{text}}\nAnswer:"}
    assert notes(tmp_path, other, apart=True) == ()
    assert len(notes(tmp_path, {**other, "name": "t"}, apart=True)) == 2  # the same name
    # several sources in one folder: which of them is meant cannot be told
    assert notes(tmp_path, other, more=({**SOURCE, "name": "second"},)) == ()


def test_conversations_beside_plain_prompts_are_told_once(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"film {n}"}, {"role": "assistant", "content": "yes"}]}
        for n in range(30)
    ]
    talk = {"name": "talk", "path": "train.jsonl"}
    (note,) = notes(tmp_path, talk, rows=rows)
    assert "'talk': learnt as conversations, but every target is asked without the chat template" in note
    assert "apply_chat_template: true" in note
    (note,) = notes(tmp_path, target={"apply_chat_template": True})
    assert "'t': asked through the chat template, but every source is learnt without it" in note
    asked = notes(
        tmp_path, talk, rows=rows, task={"doc_to_text": "film {{text}}"}, target={"apply_chat_template": True}
    )
    assert not any("chat template" in note for note in asked)


def test_answers_that_begin_where_a_target_stops_are_told(tmp_path):
    source = {**SOURCE, "prompt": "{{text}}\nLabel:", "completion": "\n{{y}}"}
    told = notes(tmp_path, source, WRITTEN)
    assert len(told) == 1
    assert r"its answers begin with '\n', at which 't' stops" in told[0]
    assert notes(tmp_path, SOURCE, WRITTEN) == ()
    ends = {**WRITTEN, "generation_kwargs": {"until": "."}}
    assert notes(tmp_path, source, ends) == ()


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({}, True),  # 100 steps of warm-up, one epoch of one step
        ({"warmup_steps": 0}, False),
        ({"max_steps": 100}, True),
        ({"max_steps": 101}, False),
        ({"num_train_epochs": 150, "batch_size": 32}, False),
        ({"lr_scheduler_type": "constant"}, False),
        ({"lr_scheduler_type": "constant_with_warmup"}, True),
    ],
)
def test_a_warm_up_as_long_as_the_training_is_told(tmp_path, training, told):
    notes(tmp_path, {**SOURCE, "training": training})
    study = load_study(tmp_path / "study.yaml")
    (source,) = load_sources(study, render_chat, lambda texts: [1.0 for _ in texts])
    warnings = preview_source(source).warnings
    assert any("so the learning rate never reaches 5e-05" in warning for warning in warnings) is told
