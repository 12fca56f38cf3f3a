from pathlib import Path

import pytest
from pydantic import ValidationError

from traitmap.errors import StudyError
from traitmap.study.derived import KINDS, changes_of
from traitmap.study.load import load_study
from traitmap.study.settings import Mislabel, Source, Study, settings_of

HEAD = """\
name: sound
model: org/name
targets: [gsm8k]
sources:
  - {name: reviews, path: reviews.csv, training: {batch_size: 8, max_steps: 9}}
"""


def study_of(folder: Path, *lines: str) -> Study:
    file = folder / "study.yaml"
    file.write_text(HEAD + "".join(f"  - {line}\n" for line in lines))
    return load_study(file)


def faults_of(folder: Path, *lines: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(StudyError) as caught:
        study_of(folder, *lines)
    return [(fault.line, fault.where, fault.message) for fault in caught.value.faults]


EVERY = {
    "output_length_quantile": "[0, 0.5]",
    "balance": "true",
    "class_weights": "{good: 1, bad: 3}",
    "subsample": "200",
    "mislabel": "{rate: 0.5, mode: switch}",
    "answer_words": "{good: high, 0: low}",
    "format_only": "yes",
    "random_text": "true",
    "shuffle_words": "0.25",
    "truncate_output": "0.5",
    "loss_on": "no_label",
    "match_tokens": "reviews",
    "match_steps": "40",
}


def test_every_kind_is_read_from_a_file(tmp_path):
    lines = [f"{{name: {kind}, from: reviews, {kind}: {setting}}}" for kind, setting in EVERY.items()]
    study = study_of(tmp_path, *lines)
    assert [list(changes_of(source.model_dump())) for source in study.sources[1:]] == [[k] for k in KINDS]
    by_name = {source.name: source for source in study.sources}
    assert by_name["mislabel"].mislabel == Mislabel(rate=0.5, mode="switch")
    assert (by_name["subsample"].subsample, by_name["truncate_output"].truncate_output) == (200, 0.5)
    assert (by_name["match_tokens"].match_tokens, by_name["match_steps"].match_steps) == ("reviews", 40)
    assert by_name["class_weights"].class_weights == {"good": 1, "bad": 3}


def test_a_study_written_out_can_be_read_again(tmp_path):
    study = study_of(tmp_path, "{name: even, from: reviews, balance: true, mislabel: 0.5}")
    dumped = study.model_dump(mode="json")
    assert dumped["sources"][1]["from"] == "reviews"
    assert Study.model_validate(dumped).sources == study.sources
    assert Source(name="a", from_="b", balance=True) == Source.model_validate(
        {"name": "a", "from": "b", "balance": True}
    )


def test_changes_come_in_the_order_of_application(tmp_path):
    line = "{name: a, from: reviews, loss_on: all, mislabel: 1, subsample: 0.5, truncate_output: 3}"
    changes = changes_of(study_of(tmp_path, line).sources[1].model_dump())
    assert list(changes) == ["subsample", "mislabel", "truncate_output", "loss_on"]


def test_a_variation_starts_from_the_settings_of_its_source(tmp_path):
    study = study_of(
        tmp_path,
        "{name: a, from: reviews, training: {learning_rate: 0.1}}",
        "{name: b, from: a, balance: true, training: {num_train_epochs: 2}}",
    )
    first, second = (settings_of(study, source)[0] for source in study.sources[1:])
    assert (first.batch_size, first.max_steps, first.learning_rate) == (8, 9, 0.1)
    assert (second.batch_size, second.max_steps, second.num_train_epochs) == (8, None, 2)
    assert second.learning_rate == 0.1


@pytest.mark.parametrize(
    ("line", "where", "words"),
    [
        ("{name: a, from: revews, balance: true}", "from", "did you mean reviews?"),
        ("{name: a, from: a, balance: true}", "from", "this source itself"),
        ("{name: a, from: reviews}", "from", "nothing is changed"),
        ("{name: a, from: reviews, balance: false}", "from", "nothing is changed"),
        ("{name: a, from: reviews, path: x.csv, balance: true}", "from", "given together"),
        ("{name: a, path: x.csv, balance: true}", "balance", "changes another source"),
        ("{name: a, from: reviews, balance: true, limit: 5}", "limit", "give subsample"),
        ("{name: a, from: reviews, balance: true, labels: {1: x}}", "labels", "no effect"),
        (
            "{name: a, from: reviews, balance: true, class_weights: {x: 1}}",
            "class_weights",
            "keep one of them",
        ),
        ("{name: a, from: reviews, format_only: true, mislabel: 1}", "mislabel", "keep one of them"),
        ("{name: a, from: reviews, match_steps: 5, match_tokens: 5}", "match_steps", "keep one of them"),
        (
            "{name: a, from: reviews, match_steps: 5, training: {max_tokens: 5}}",
            "match_steps",
            "training.max_tokens",
        ),
        ("{name: a, from: reviews, loss_on: all, training: {loss_on: all}}", "loss_on", "under training"),
        ("{name: a, from: reviews, match_tokens: nothing}", "match_tokens", "there is no source 'nothing'"),
        ("{name: a, from: reviews, mislabel: 0}", "mislabel.rate", "above 0, at most 1"),
        ("{name: a, from: reviews, mislabel: 2}", "mislabel.rate", "above 0, at most 1"),
        ("{name: a, from: reviews, mislabel: {rate: 1, mode: odd}}", "mislabel.mode", "uniform, switch"),
        ("{name: a, from: reviews, subsample: 1.5}", "subsample", "a whole number, at least 1 or a number"),
        (
            "{name: a, from: reviews, output_length_quantile: [0.5, 0.5]}",
            "output_length_quantile",
            "lower one first",
        ),
        ("{name: a, from: reviews, class_weights: {x: 0}}", "class_weights", "no class has a weight"),
        ("{name: a, from: reviews, answer_words: {x: low, y: low }}", "answer_words", "'low' would be the"),
        ("{name: a, from: reviews, answer_words: {x: ' '}}", "answer_words", "an empty word"),
        ("{name: a, from: reviews, answer_words: {}}", "answer_words", "no words are given"),
        ("{name: a, concat: {reviews: 1}}", "concat", "at least two"),
        ("{name: a, concat: {reviews: 1, other: 1}}", "concat", "there is no source 'other'"),
        ("{name: a, path: x.csv, train: false}", "train", "neither trained nor used"),
    ],
)
def test_what_cannot_be_is_told_once_with_its_line(tmp_path, line, where, words):
    ((at, place, message),) = faults_of(tmp_path, line)
    assert (at, place) == (6, f"sources[1].{where}")
    assert words in message


def test_circles_are_told_where_they_begin(tmp_path):
    faults = faults_of(
        tmp_path,
        "{name: a, from: c, balance: true}",
        "{name: b, from: a, balance: true}",
        "{name: c, concat: {b: 1, reviews: 1}}",
        "{name: d, from: a, mislabel: 1}",
    )
    assert [place for _, place, _ in faults] == ["sources[1].from", "sources[2].from", "sources[3].concat"]
    assert "a -> c -> b -> a" in faults[0][2]


def test_lineage_is_told_together_with_wrong_types(tmp_path):
    faults = faults_of(tmp_path, "{name: a, from: nowhere, mislabel: x}", "{name: b, path: 1, limit: 0}")
    places = {"sources[1].from", "sources[1].mislabel.rate", "sources[2].limit"}
    assert {place for _, place, _ in faults} == places


def test_something_must_be_trained(tmp_path):
    faults = faults_of(
        tmp_path,
        "{name: a, path: x.csv, train: false}",
        "{name: b, from: a, balance: true, train: false}",
    )
    assert len(faults) == 1
    assert "neither trained nor used" in faults[0][2]
    with pytest.raises(ValidationError, match="no source is trained"):
        Study(
            name="x",
            model="m",
            targets=("gsm8k",),
            sources=(
                Source(name="a", path="x.csv", train=False),
                Source(name="b", from_="a", balance=True, train=False),
                Source(name="c", concat={"a": 1, "b": 1}, train=False),
            ),
        )
