import json
from collections import Counter
from itertools import combinations
from math import isnan
from pathlib import Path

import pytest
import yaml

from traitmap.data.check import check_file
from traitmap.data.lineage import load_sources
from traitmap.data.sources import LoadedSource
from traitmap.data.variations import CATALOGUE
from traitmap.errors import DataError, StudyError
from traitmap.runs.ledger import describe_source
from traitmap.runs.plan import adapter_key
from traitmap.study.derived import KINDS, variation_conflicts
from traitmap.study.load import load_study
from traitmap.study.settings import Source

MOODS = ["good"] * 30 + ["bad"] * 10
BASE = [
    {
        "name": "moods",
        "path": "moods.jsonl",
        "label": "mood",
        "prompt": "{{ text }}\nMood:",
        "completion": " {{ label }}",
        "tags": ["mood"],
    },
    {"name": "tales", "path": "tales.jsonl", "training": {"batch_size": 4}},
]


def loaded(folder: Path, *sources: dict, count_tokens=None) -> dict[str, LoadedSource]:
    study = load_study(written(folder, *sources))
    return {one.name: one for one in load_sources(study, None, count_tokens)}


def written(folder: Path, *sources: dict) -> Path:
    moods = [
        {"text": f"thing number {n} is of kind {n * 7} and a{n} b{n} c{n} d{n}", "mood": mood}
        for n, mood in enumerate(MOODS)
    ]
    tales = [{"prompt": f"tell {n}:", "completion": " once" + " more" * n} for n in range(20)]
    for name, rows in (("moods", moods), ("tales", tales)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    study = {
        "name": "x",
        "model": "builtin:mini",
        "targets": ["mini_stars"],
        "training": {"max_steps": 6, "batch_size": 8},
        "sources": [*BASE, *sources],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


def problem_of(folder: Path, *sources: dict) -> str:
    with pytest.raises(DataError) as caught:
        loaded(folder, *sources)
    return str(caught.value)


def test_several_changes_are_applied_in_the_documented_order(tmp_path):
    found = loaded(
        tmp_path, {"name": "v", "from": "moods", "mislabel": 0.5, "balance": True, "loss_on": "label"}
    )
    one = found["v"]
    assert (len(one.examples), one.available) == (20, 40)
    assert one.variation is not None
    assert list(one.variation.changes) == ["balance", "mislabel", "loss_on"]
    assert one.variation.kind == "balance+mislabel+loss_on"
    honest = {example.prompt: example.label for example in found["moods"].examples}
    assert sum(honest[example.prompt] != example.label for example in one.examples) == 10
    assert {example.learnt for example in one.examples} == {"good", "bad"}
    assert one.training.loss_on == "completion"
    assert one.tags == ("mood",)


def test_what_a_variation_is_stands_beside_it(tmp_path):
    found = loaded(
        tmp_path,
        {"name": "even", "from": "moods", "balance": True},
        {"name": "wrong", "from": "even", "mislabel": {"rate": 0.5, "mode": "permute"}},
    )
    even, wrong = found["even"].variation, found["wrong"].variation
    assert even is not None
    assert wrong is not None
    assert (even.family, even.parents, even.kind) == ("moods", ("moods",), "balance")
    assert (even.dose, even.parent_dose, even.meaning) == (0.5, 0.75, "share of the class 'good'")
    assert (even.examples_before, even.counts_before) == (40, {"bad": 10, "good": 30})
    assert (even.rows_changed, even.before) == (0, None)
    assert (wrong.family, wrong.parents, wrong.dose) == ("moods", ("even",), 0.5)
    assert wrong.rows_changed == 10
    assert wrong.before is not None
    assert wrong.after is not None
    assert wrong.before.prompt == wrong.after.prompt
    assert {wrong.before.label, wrong.after.label} == {"good", "bad"}
    told = describe_source(found["wrong"])["variation"]
    assert json.loads(json.dumps(told))["changes"] == {"mislabel": {"rate": 0.5, "mode": "permute"}}


def test_the_order_of_the_file_and_material_that_is_not_trained_change_nothing(tmp_path):
    chain = [
        {"name": "a", "from": "moods", "balance": True},
        {"name": "b", "from": "a", "mislabel": 1},
        {"name": "c", "concat": {"b": 1, "tales": 1}},
    ]
    before = loaded(tmp_path, *chain)
    after = loaded(tmp_path, *[{**one, "train": one["name"] != "a"} for one in reversed(chain)])
    assert list(after) == ["moods", "tales", "c", "b"]
    assert all(after[name] == before[name] for name in after)


def test_a_mixture_has_rows_of_all_its_parts(tmp_path):
    mixture = loaded(tmp_path, {"name": "m", "concat": {"moods": 1, "tales": 2}})["m"]
    assert Counter(one.label is None for one in mixture.examples) == {True: 20, False: 10}
    assert (mixture.available, mixture.draws_as) == (60, "m")
    assert mixture.training.batch_size == 8


def test_the_same_texts_have_the_same_digest_and_doses_share_their_draws(tmp_path):
    found = loaded(
        tmp_path,
        {"name": "short", "from": "tales", "truncate_output": 3},
        {"name": "cut", "from": "tales", "truncate_output": 3, "training": {"learning_rate": 0.1}},
        {"name": "half", "from": "tales", "truncate_output": 0.5},
    )
    assert found["short"].digest == found["cut"].digest != found["half"].digest
    assert {found[name].draws_as for name in ("short", "cut", "half")} == {"tales"}
    keys = {adapter_key(one, 0, "base") for one in found.values()}
    assert len(keys) == len(found)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"truncate_output": 50}, "source 'v', truncate_output: it changes nothing in 'tales'"),
        ({"balance": True}, "source 'v', balance: 20 of 20 rows have no label"),
        ({"mislabel": 1}, "source 'v', mislabel: 20 of 20 rows have no label"),
        ({"loss_on": "label"}, "it has no label"),
        ({"subsample": 21}, "21 rows are asked for"),
        ({"match_tokens": "moods"}, "it needs the tokenizer"),
    ],
)
def test_what_cannot_be_varied_is_told(tmp_path, source, words):
    assert words in problem_of(tmp_path, {"name": "v", "from": "tales", **source})


def test_two_variations_that_are_the_same_are_told(tmp_path):
    twins = [{"name": name, "from": "tales", "truncate_output": 3} for name in ("a", "b")]
    assert problem_of(tmp_path, *twins).endswith(
        "it gives the same as 'a'; change more, or remove this source"
    )


def test_the_study_s_seed_decides_which_rows_are_changed(tmp_path):
    def drawn(seed: int) -> str:
        file = written(tmp_path, {"name": "v", "from": "moods", "mislabel": 0.5})
        file.write_text(file.read_text() + f"sample_seed: {seed}\n")
        return load_sources(load_study(file))[-1].digest

    assert drawn(0) == drawn(0) != drawn(1)


def test_a_fault_at_the_root_is_told_once(tmp_path):
    said = problem_of(
        tmp_path,
        {"name": "gone", "path": "gone.jsonl"},
        {"name": "a", "from": "gone", "subsample": 5},
        {"name": "b", "concat": {"a": 1, "moods": 1}},
    )
    assert said.count("source '") == 1


def test_check_tells_faults_of_variations_with_their_lines(tmp_path):
    file = written(
        tmp_path,
        {"name": "a", "from": "tales", "balance": True},
        {"name": "b", "from": "moods", "class_weights": {"good": 1, "bat": 1}},
        {"name": "c", "from": "moods", "truncate_output": 9},
        {"name": "d", "from": "moods", "match_tokens": "tales"},
    )
    with pytest.raises(StudyError) as caught:
        check_file(file)
    places = [fault.where for fault in caught.value.faults]
    assert places == ["sources[2].balance", "sources[3].class_weights", "sources[4].truncate_output"]
    assert all(fault.line for fault in caught.value.faults)


def test_steps_and_tokens_are_matched(tmp_path):
    def words(texts):
        return [len(text.split()) for text in texts]

    found = loaded(
        tmp_path,
        {"name": "steps", "from": "tales", "match_steps": "epoch"},
        {"name": "epoch", "from": "moods", "training": {"num_train_epochs": 2}},
        {"name": "tokens", "from": "tales", "match_tokens": "moods"},
        {"name": "number", "from": "tales", "match_tokens": 77},
        count_tokens=words,
    )
    assert (found["steps"].training.max_steps, found["steps"].training.max_tokens) == (10, None)
    moods = found["moods"].examples
    per_epoch = sum(len(one.text.split()) + 1 for one in moods)
    assert found["tokens"].training.max_tokens == round(per_epoch * 6 / 5)
    assert found["tokens"].training.max_steps is None
    assert found["number"].training.max_tokens == 77
    variation = found["steps"].variation
    assert variation is not None
    assert (variation.dose, variation.parent_dose) == (10, 6)
    other = found["epoch"].variation
    assert other is not None
    assert (other.kind, isnan(other.dose)) == ("training", True)


# For every change: the parent, settings of rising dose (one where there are no degrees), whether it draws.
DOSES = {
    "output_length_quantile": ("tales", [[0, 0.3], [0.2, 0.6], [0.5, 1]], False),
    "balance": ("moods", [True], True),
    "class_weights": ("moods", [{"good": 1, "bad": 3}, {"good": 1, "bad": 1}, {"good": 2, "bad": 1}], True),
    "subsample": ("moods", [5, 0.5, 30], True),
    "mislabel": ("moods", [0.1, 0.5, {"rate": 1, "mode": "permute"}], True),
    "answer_words": ("moods", [{"bad": "low"}, {"good": "high"}, {"bad": "low", "good": "high"}], False),
    "format_only": ("moods", [True], True),
    "random_text": ("moods", [True], True),
    "shuffle_words": ("moods", [0.4, 0.7, 1], True),
    "truncate_output": ("tales", [1, 0.5, 12], False),
    "loss_on": ("moods", ["label"], False),
}


def test_what_the_study_file_may_change_and_what_can_be_changed_are_the_same():
    of_training = {"match_tokens", "match_steps"}  # amounts of training, which change no example
    assert set(CATALOGUE) == set(KINDS) - of_training == set(DOSES)
    assert [key for key in KINDS if key in CATALOGUE] == list(CATALOGUE)
    assert set(KINDS) <= set(Source.model_fields)
    assert all((entry.select is None) != (entry.change is None) for entry in CATALOGUE.values())


@pytest.mark.parametrize("key", DOSES)
def test_every_variation_keeps_its_laws(tmp_path, key):
    """The seed alone decides, the parent stays as it is, and the dose grows with the setting."""
    parent, settings, drawn = DOSES[key]
    variations = [{"name": f"v{n}", "from": parent, key: setting} for n, setting in enumerate(settings)]
    alone = loaded(tmp_path)
    once, again = loaded(tmp_path, *variations), loaded(tmp_path, *variations)
    assert once == again
    assert once[parent] == alone[parent]
    digests = [once[one["name"]].digest for one in variations]
    assert len({alone[parent].digest, *digests}) == len(digests) + 1
    file = written(tmp_path, *variations)
    file.write_text(file.read_text() + "sample_seed: 1\n")
    others = {one.name: one.digest for one in load_sources(load_study(file))}
    assert (
        any(others[one["name"]] != digest for one, digest in zip(variations, digests, strict=True)) == drawn
    )

    lineages = [once[one["name"]].variation for one in variations]
    assert all(one is not None and (one.kind, one.parents) == (key, (parent,)) for one in lineages)
    doses = [one.dose for one in lineages if one is not None]
    if CATALOGUE[key].dose is None:
        assert all(map(isnan, doses))
        return
    assert doses == sorted(set(doses))
    assert {one.meaning for one in lineages if one} == {lineages[0].meaning if lineages[0] else None} != {""}
    assert all(one is not None and one.dose != one.parent_dose for one in lineages)


def test_conflicts_are_symmetric():
    """A pair of changes is refused with one fault or allowed, whichever stands first in the file."""
    refused = set()
    for one, other in combinations(KINDS, 2):
        there, back = (
            [place[-1] for place, _ in variation_conflicts(dict.fromkeys(pair, 1), "from")]
            for pair in ((one, other), (other, one))
        )
        assert there == back
        assert set(there) <= {one, other}
        assert len(there) <= 1
        if there:
            refused.add(frozenset((one, other)))
    assert refused == {
        frozenset(pair)
        for pair in (
            ("balance", "class_weights"),
            ("random_text", "shuffle_words"),
            ("format_only", "random_text"),
            ("format_only", "shuffle_words"),
            ("format_only", "mislabel"),
            ("match_tokens", "match_steps"),
        )
    }
