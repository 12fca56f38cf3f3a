import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from traitmap.data.faults import check_file
from traitmap.errors import StudyError
from traitmap.study.init import TEMPLATES, write_template
from traitmap.study.load import load_study


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_a_sound_study_under_the_folder_s_name(tmp_path, template):
    file = write_template(tmp_path / "My first study!", template)
    assert file == tmp_path / "My first study!" / "study.yaml"
    assert load_study(file).name == "My-first-study"


@pytest.mark.parametrize("template", TEMPLATES)
def test_nothing_is_overwritten(tmp_path, template):
    file = write_template(tmp_path, template)
    file.write_text("mine")
    with pytest.raises(StudyError, match=r"study\.yaml.* is there already"):
        write_template(tmp_path, template)
    assert file.read_text() == "mine"


def test_one_file_in_the_way_keeps_all_others_from_being_written(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "goat.yaml").write_text("mine")
    with pytest.raises(StudyError, match=r"tasks/goat\.yaml is there already"):
        write_template(tmp_path, "paper")
    assert os.listdir(tmp_path) == ["tasks"]


def test_an_unknown_template_is_told_with_the_legal_ones(tmp_path):
    with pytest.raises(StudyError) as caught:
        write_template(tmp_path / "new", "papers")
    assert "no template 'papers'" in str(caught.value)
    assert all(f"{name}: {what}" in str(caught.value) for name, what in TEMPLATES.items())
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        write_template(tmp_path / "file" / "inside", "local-data")


@pytest.mark.parametrize("template", ["mini", "variations", "local-data"])
def test_templates_that_need_no_network_pass_the_check_as_they_are(tmp_path, template):
    check_file(write_template(tmp_path / "new", template))


def hub_rows(text: dict, labels: int) -> list[dict]:
    return [{**{key: f"{value} {n}" for key, value in text.items()}, "label": n % labels} for n in range(12)]


HUB = {
    "SetFit/amazon_reviews_multi_en": (hub_rows({"text": "thing"}, 5), {}, ["train", "test"]),
    "stanfordnlp/imdb": (hub_rows({"text": "film"}, 2), {"label": ["neg", "pos"]}, ["train", "test"]),
    "SetFit/toxic_conversations": (hub_rows({"text": "you"}, 2), {}, ["train", "test"]),
    "google-research-datasets/paws": (
        hub_rows({"sentence1": "one", "sentence2": "two"}, 2),
        {"label": ["0", "1"]},
        ["train", "test"],
    ),
    "nyu-mll/multi_nli": (
        hub_rows({"premise": "one", "hypothesis": "two"}, 3),
        {"label": ["entailment", "neutral", "contradiction"]},
        ["train", "validation_matched"],
    ),
    "meta-math/MetaMathQA": (
        [{"query": f"ask {n}", "response": f"say {n}"} for n in range(12)],
        {},
        ["train"],
    ),
    "openai/gsm8k": (
        [{"question": f"ask {n}", "answer": f"so\n#### {n}"} for n in range(12)],
        {},
        ["train", "test"],
    ),
    "tiedong/goat": (
        [
            {"instruction": f"What is {n} + 1?", "output": f"{n} + 1 = {n + 1}", "answer": str(n + 1)}
            for n in range(1012)
        ],
        {},
        ["train"],
    ),
    "ise-uiuc/Magicoder-OSS-Instruct-75K": (
        [{"problem": f"write {n}", "solution": f"```python\nprint({n})\n```"} for n in range(1012)],
        {},
        ["train"],
    ),
}
SUBSETS = {"google-research-datasets/paws": "labeled_final", "openai/gsm8k": "main"}


def write_hub(folder: Path) -> None:
    """``datasets`` takes a folder beside it for the hub repository of that name."""
    for name, (rows, classes, splits) in HUB.items():
        place = folder / name
        place.mkdir(parents=True)
        files = [{"split": split, "path": f"{split}.jsonl"} for split in splits]
        for entry in files:
            (place / entry["path"]).write_text("\n".join(map(json.dumps, rows)))
        subset = SUBSETS.get(name, "default")
        features = [
            {"name": key, "dtype": {"class_label": {"names": dict(enumerate(classes[key]))}}}
            if key in classes
            else {"name": key, "dtype": "string" if isinstance(value, str) else "int64"}
            for key, value in rows[0].items()
        ]
        card = {
            "configs": [{"config_name": subset, "data_files": files}],
            "dataset_info": {"config_name": subset, "features": features},
        }
        (place / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")


def write_flipkart(folder: Path) -> None:
    folder.mkdir()
    words = ["negative", "neutral", "positive"]
    rows = "".join(f"nice {n},it is,{words[min(n % 5, 2)]}\n" for n in range(12))
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text(f"Review,Summary,Sentiment\n{rows}")


CHECK = """
import json
from traitmap.data.lineage import load_sources
from traitmap.data.targets import load_targets
from traitmap.study.load import load_study

study = load_study("new/study.yaml")
sources = {s.name: [[e.prompt, e.completion] for e in s.examples] for s in load_sources(study)}
targets = {t.name: [[r.context, r.continuation] for r in t.requests] for t in load_targets(study)}
print(json.dumps([sources, targets]))
"""


def test_the_paper_s_study_asks_as_it_teaches(tmp_path):
    """On stand-ins with the columns and splits of the hub datasets; the network stays off."""
    write_hub(tmp_path)
    file = write_template(tmp_path / "new", "paper")
    write_flipkart(tmp_path / "new" / "flipkart")
    assert (len(load_study(file).sources), len(load_study(file).targets)) == (14, 10)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    sources, targets = json.loads(result.stdout.splitlines()[-1])
    varied = ("amazon_mislabelled", "amazon_format", "flipkart_balanced")
    for name in ("amazon", "flipkart", "imdb", "pile", "paws", "mnli", *varied):
        asked = {tuple(each) for each in targets[name.split("_")[0]]}
        assert {tuple(each) for each in sources[name]} <= asked, name
    for name, kept in (("goat", 12), ("magicoder", 12)):
        taught = {prompt for prompt, _ in sources[name]}
        asked = {prompt for prompt, _ in targets[name]}
        assert (len(taught), len(asked), taught & asked) == (kept, 1000, set()), name
    assert {prompt.split(":")[0] for prompt, _ in sources["meta_math_qa"] + targets["gsm8k"]} == {"Question"}
