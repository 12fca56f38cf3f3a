import time
from pathlib import Path
from textwrap import indent

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from traitmap.errors import StudyError
from traitmap.study.load import load_study, read_draft
from traitmap.study.settings import Lora, Model, Source, Study, Target, Training, settings_of

SOUND = """\
name: sound
model: org/name
sources:
  - name: reviews
    path: reviews.csv
targets: [gsm8k]
"""


def study_of(folder: Path, text: str) -> Study:
    return load_study(written(folder, text))


def faults_of(folder: Path, text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(StudyError) as caught:
        load_study(written(folder, text))
    return [(fault.line, fault.where, fault.message) for fault in caught.value.faults]


def with_source(rest: str) -> str:
    """The sound study with further lines in its source."""
    return SOUND.replace("    path: reviews.csv\n", "    path: reviews.csv\n" + indent(rest, "    ") + "\n")


def written(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return file


def test_a_sound_file_gives_the_settings_and_the_paper_s_defaults(tmp_path):
    study = study_of(tmp_path, SOUND)
    assert study.model == Model(path="org/name")
    assert study.sources == (Source(name="reviews", path="reviews.csv"),)
    assert study.targets == (Target(name="gsm8k", task="gsm8k"),)
    assert (study.training, study.lora, study.seeds) == (Training(), Lora(), (0,))
    assert (study.training.learning_rate, study.lora.r, study.lora.lora_alpha) == (5e-5, 64, 32)
    assert study.path == tmp_path / "study.yaml"
    assert study.folder == tmp_path


def test_targets_have_short_forms(tmp_path):
    text = SOUND.replace("[gsm8k]", "[gsm8k, tasks/deep/own.yaml, {task: mnli, limit: 5}]")
    assert [target.name for target in study_of(tmp_path, text).targets] == ["gsm8k", "own", "mnli"]


@pytest.mark.parametrize(
    ("written_as", "number"),
    [
        ("5e-5", 5e-5),
        ("'5e-5'", 5e-5),
        ("1E-3", 1e-3),
        (".5", 0.5),
        ("1", 1.0),
        ("1_000.5", 1000.5),
        ("2.", 2.0),
    ],
)
def test_numbers_in_every_spelling(tmp_path, written_as, number):
    text = f"{SOUND}training: {{learning_rate: {written_as}}}\n"
    assert study_of(tmp_path, text).training.learning_rate == number


@pytest.mark.parametrize(("written_as", "number"), [("1e3", 1000), ("012", 12), ("10.0", 10), ("'7'", 7)])
def test_whole_numbers_in_every_spelling(tmp_path, written_as, number):
    limit = study_of(tmp_path, f"{SOUND}limit: {written_as}\n").limit
    assert (limit, type(limit)) == (number, int)


def test_text_keeps_its_characters(tmp_path):
    text = with_source("label: 1\nlabels: {0: no, 01: 1.50, yes: on, 2: 'null'}\ntags: [yes, 007]")
    text = text.replace("name: sound", "name: 2024")
    source = study_of(tmp_path, text).sources[0]
    assert study_of(tmp_path, text).name == "2024"
    assert source.label == "1"
    assert source.labels == {"0": "no", "01": "1.50", "yes": "on", "2": "null"}
    assert source.tags == ("yes", "007")


def test_templates_keep_their_newlines(tmp_path):
    text = with_source('prompt: |\n  {{ text }}\n  Answer:\ncompletion: " {{ label }}"')
    source = study_of(tmp_path, text).sources[0]
    assert (source.prompt, source.completion) == ("{{ text }}\nAnswer:\n", " {{ label }}")


def test_anchors_and_merges(tmp_path):
    text = SOUND.replace(
        "    path: reviews.csv",
        "    path: a.csv\n    training: &long {max_steps: 5, batch_size: 2}\n"
        "  - name: b\n    path: b.csv\n    training: {<<: *long, batch_size: 3}",
    )
    first, second = study_of(tmp_path, text).sources
    assert first.training == {"max_steps": 5, "batch_size": 2}
    assert second.training == {"max_steps": 5, "batch_size": 3}


MANY = """\
name: .hidden
model: {pth: a/b, dtype: float16}
trainng: {}
training:
  max_steps: 100
  num_train_epochs: 1
  batch_size: 0
  warmup_steps: lots
  weight_decay: yes
lora: {r: 4.5, lora_dropout: .inf}
seeds: []
sources:
  - name: a
    path: x.csv
    adapter: y
    labels: {1: bad, 3: }
    prompt: "{{ a }"
    training: {lr: 1, max_steps: 1, max_tokens: 2}
    lora: {r: two}
  - name: A
    path: x.csv
    split: test
  - {name: b, task: gsm8k, prompt: hi}
  - nothing
  - {name: __baseline__}
targets:
  - gsm8k
  - {task: gsm8k, num_fewshot: -1}
  - {name: x}
limit: ten
limit: 10
path: elsewhere
"""

EXPECTED = [
    (1, "name", "'.hidden' cannot be a name"),
    (2, "model.dtype", "'float16' is not legal; give one of auto, float32, bfloat16, float64"),
    (2, "model.path", "required"),
    (2, "model.pth", "unknown key 'pth'; did you mean path? legal here: path, revision, dtype"),
    (3, "trainng", "unknown key 'trainng'; did you mean training? legal here: name, model"),
    (6, "training.num_train_epochs", ""),
    (7, "training.batch_size", "0 is not legal; give a whole number, at least 1"),
    (8, "training.warmup_steps", "'lots' is not legal; give a whole number, at least 0"),
    (9, "training.weight_decay", "True is not legal; give a number, at least 0"),
    (10, "lora.lora_dropout", "inf is not legal; give a number, at least 0, below 1"),
    (10, "lora.r", "4.5 is not legal; give a whole number, at least 1"),
    (11, "seeds", "the list is empty; give at least one"),
    (15, "sources[0].adapter", "path and adapter are given together; keep one of them"),
    (16, "sources[0].labels.3", "an empty value is not legal; give text"),
    (17, "sources[0].prompt", "not a Jinja template: unexpected '}'"),
    (18, "sources[0].training.lr", "unknown key 'lr'; legal here: learning_rate"),
    (18, "sources[0].training.max_tokens", "max_steps and max_tokens are given together"),
    (19, "sources[0].lora.r", "'two' is not legal; give a whole number, at least 1"),
    (20, "sources[1].name", "'A' is the name of sources[0] already (as 'a'"),
    (22, "sources[1].split", "split has no effect on a local file; remove it"),
    (23, "sources[2].prompt", "prompt has no effect on a source with task; remove it"),
    (24, "sources[3]", "'nothing' is not legal; give a mapping with keys among name, path"),
    (25, "sources[4]", "no data: give one of path"),
    (25, "sources[4].name", "'__baseline__' is reserved"),
    (28, "targets[1].name", "'gsm8k' is the name of targets[0] already; choose another name"),
    (28, "targets[1].num_fewshot", "-1 is not legal; give a whole number, at least 0"),
    (29, "targets[2]", "nothing is asked: give task (an lm-eval task or group), path"),
    (30, "limit", "'ten' is not legal; give a whole number, at least 1"),
    (31, "limit", "the key stands twice (first on line 30)"),
    (32, "path", "unknown key 'path'"),
]


def test_all_faults_at_once_each_with_its_line(tmp_path):
    found = faults_of(tmp_path, MANY)
    both_lengths = (6, "training.num_train_epochs")
    expected = [each for each in EXPECTED if each[:2] != both_lengths]
    rest = [each for each in found if each[1] != "training.max_steps"]
    assert sorted(each[:2] for each in rest) == sorted(each[:2] for each in expected)
    for line, where, message in expected:
        said = [each[2] for each in found if each[:2] == (line, where)]
        assert any(each.startswith(message) for each in said), (where, said)
    (lengths,) = [each for each in found if each[1] == "training.max_steps"]
    assert lengths[0] == 5
    assert "num_train_epochs and max_steps are given together" in lengths[2]


def test_the_message_lists_every_fault_in_order_of_lines(tmp_path):
    with pytest.raises(StudyError) as caught:
        load_study(written(tmp_path, MANY))
    listing = str(caught.value).splitlines()
    assert listing[0] == f"{tmp_path / 'study.yaml'}: {len(caught.value.faults)} faults"
    assert len(listing) == 1 + len(caught.value.faults)
    lines = [int(line.split(",")[0].removeprefix("  line ")) for line in listing[1:]]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: a\nmodel: [b\n", 3, "not valid YAML"),
        ("name: a\n\tmodel: b\n", 2, "spaces, not tabs"),
        ("name: a\nmodel: b: c\n", 2, "quotes"),
        ("name: a\nmodel: *nowhere\n", 2, "begins with *"),
        ("name: a\n---\nname: b\n", 2, "not valid YAML"),
        ("name: !!python/object:os.system {}\n", 1, "the tag !!python/object:os.system is not allowed"),
        ("name: &a [*a]\n", 1, "inside its own anchor"),
        ("? [a]\n: b\n", 1, "a key must be a word"),
        ('name: "\\ud800"\n', 1, "surrogate"),
        ("- name: a\n", 1, "is not a study"),
        ("just words\n", 1, "is not a study"),
        ("<<: 3\nname: a\n", 1, "<< takes a mapping"),
    ],
)
def test_faults_of_the_writing_itself(tmp_path, text, line, words):
    assert any(found[0] == line and words in found[2] for found in faults_of(tmp_path, text))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n"])
def test_an_empty_file_is_told(tmp_path, text):
    ((_, where, message),) = faults_of(tmp_path, text)
    assert where == "study"
    assert "empty" in message


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"no such file.*traitmap init"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(StudyError, match=r"is a folder; give the file in it"):
        load_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(StudyError, match="not UTF-8"):
        load_study(tmp_path / "latin.yaml")
    with pytest.raises(StudyError):
        load_study("nul\0byte")


def test_aliases_cannot_grow_without_end(tmp_path):
    doubled = "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 36))
    assert any(
        "this is not a study file" in found[2] for found in faults_of(tmp_path, f"a0: &a0 [x]\n{doubled}\n")
    )
    merged = "\n".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 36))
    assert any(
        "this is not a study file" in found[2]
        for found in faults_of(tmp_path, f"m0: &m0 {{x: 1}}\n{merged}\n")
    )
    assert faults_of(tmp_path, "name: " + "[" * 5000)


def test_a_draft_keeps_what_is_in_order(tmp_path):
    text = SOUND.replace(
        "targets: [gsm8k]", "  - {name: broken}\n  - {name: third, path: third.csv}\ntargets: [{}, mnli]"
    )
    draft = read_draft(written(tmp_path, text + "include_path: [tasks]\nsample_seed: 7\n"))
    assert draft.study is None
    assert len(draft.faults) == 3
    assert {at: source.name for at, source in draft.sources.items()} == {0: "reviews", 2: "third"}
    assert {at: target.name for at, target in draft.targets.items()} == {1: "mnli"}
    assert draft.model == Model(path="org/name")
    assert (draft.include_path, draft.sample_seed) == (("tasks",), 7)
    assert draft.fault(("sources", 2, "path"), "x").line == 7
    assert draft.fault(("sources", 2, "labels"), "x").line == 7


def test_a_draft_of_a_sound_file_is_its_study(tmp_path):
    file = written(tmp_path, SOUND)
    assert read_draft(file).study == load_study(file)
    assert read_draft(file).faults == ()


def test_settings_of_a_source_replace_the_study_s(tmp_path):
    text = with_source(
        "training: {learning_rate: 5e-6, max_tokens: 1e3}\nlora: {r: 8, target_modules: [q, v]}"
    )
    study = study_of(
        tmp_path, f"{text}training: {{num_train_epochs: 3, batch_size: 4}}\nlora: {{lora_alpha: 5}}\n"
    )
    training, lora = settings_of(study, study.sources[0])
    assert training == Training(learning_rate=5e-6, max_tokens=1000, batch_size=4)
    assert lora == Lora(r=8, lora_alpha=5, target_modules=("q", "v"))


def test_a_source_s_own_settings_are_read_as_the_study_s_are(tmp_path):
    source = study_of(tmp_path, with_source("training: {learning_rate: '5e-6', max_steps: 1e2}")).sources[0]
    assert source.training == {"learning_rate": 5e-6, "max_steps": 100}


def test_settings_of_a_source_without_its_own_are_the_study_s(tmp_path):
    study = study_of(tmp_path, f"{SOUND}training: {{max_steps: 3}}\n")
    assert settings_of(study, study.sources[0]) == (study.training, study.lora)


def test_the_same_rules_hold_for_settings_built_in_python():
    with pytest.raises(ValidationError, match="given together"):
        Training(max_steps=1, max_tokens=2)
    with pytest.raises(ValidationError, match="no data"):
        Source(name="a")
    with pytest.raises(ValidationError, match="already"):
        Study(
            name="a",
            model=Model(path="b"),
            sources=(Source(name="a", path="a.csv"), Source(name="a", path="b.csv")),
            targets=(Target(name="c", task="c"),),
        )


def test_a_study_s_own_dump_reads_back(tmp_path):
    text = SOUND.replace(
        "    path: reviews.csv", "    path: a.csv\n    training: {max_steps: 5}\n    lora: {r: 2}"
    )
    study = study_of(tmp_path, text)
    assert study_of(tmp_path, yaml.safe_dump(study.model_dump(mode="json"))) == study


unhurried = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
keys = st.sampled_from(
    [*Study.model_fields, *Source.model_fields, *Training.model_fields, *Lora.model_fields, "<<", "task"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(
        ["{{ a }}", "{{", "a.csv", "gsm8k", "5e-5", "1e999", "__baseline__", "a", "A", "{% if"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=25,
)
documents = st.dictionaries(keys, values, max_size=8).map(
    lambda data: yaml.safe_dump(data, allow_unicode=True)
)
scribbles = st.lists(
    st.text(max_size=12)
    | st.sampled_from(["name: ", "\n", "  ", "- ", "&a ", "*a", "[", "{", "!!x ", '"\\U', "<<: "])
).map("".join)


@given(documents | scribbles)
@unhurried
def test_no_document_raises_anything_but_a_study_error(tmp_path, text):
    draft = read_draft(written(tmp_path, text))
    assert (draft.study is None) == bool(draft.faults)
    assert all(fault.message and fault.where and str(fault).encode() for fault in draft.faults)
    try:
        study_of(tmp_path, text)
    except StudyError:
        return
    assert not draft.faults


@given(values)
@unhurried
def test_anything_in_the_place_of_a_source_or_target_is_told(tmp_path, value):
    text = yaml.safe_dump({"name": "a", "model": "b", "sources": [value], "targets": [value, "gsm8k"]})
    draft = read_draft(written(tmp_path, text))
    assert (draft.study is None) == bool(draft.faults)
    assert all(fault.message and fault.where for fault in draft.faults)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("seeds: [0]", "seeds: [" + ",".join(map(str, range(90_000))) + "]", "90,000 seeds; legal: at most"),
        ("seeds: [0]", "seeds: [" + "1," * 90_000 + "]", "90,000 seeds; legal"),
        ("lora: {}", "lora: {r: 1e9}", "lora.r"),
        ("lora: {}", "lora: {r: 100000}", "lora.r"),
        ("lora: {}", "lora: {lora_alpha: .nan}", "lora.lora_alpha"),
        ("lora: {}", "lora: {lora_alpha: 1e300}", "lora.lora_alpha"),
        ("lora: {}", "lora: " + "[" * 90_000, "nested too deeply"),
        ("lora: {}", "lora: {a: " + "[" * 50 + "]" * 50 + "}", "nested too deeply"),
        ("training: {}", "training: {num_train_epochs: 1e300}", "training.num_train_epochs"),
        ("training: {}", "training: {max_steps: 1000000000000}", "training.max_steps"),
        ("training: {}", "training: {batch_size: " + "9" * 300 + "}", "training.batch_size"),
        ("training: {}", "training: {learning_rate: 1e999}", "training.learning_rate"),
        ("limit: 9", "limit: " + "9" * 300, "limit"),
        ("limit: 9", "limit: " + "9" * 5000, "limit"),
    ],
)
def test_numbers_without_measure_are_refused_at_once(tmp_path: Path, old: str, new: str, place: str) -> None:
    text = (
        "name: a\nmodel: builtin:mini\nseeds: [0]\nlora: {}\ntraining: {}\nlimit: 9\n"
        "sources: [{name: s, task: mini_reviews}]\ntargets: [mini_reviews]\n"
    )
    (tmp_path / "study.yaml").write_text(text.replace(old, new))
    started = time.process_time()
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path / "study.yaml")
    assert place in str(caught.value)
    assert time.process_time() - started < 30  # a second or two; squared it would be hours
