import os
import shutil
import subprocess
import sys

import pytest

from hub_layouts import HELD_OUT, LAYOUTS, write_copies, write_flipkart
from traitmap.data.check import check_file
from traitmap.data.lineage import load_sources
from traitmap.data.records import Response
from traitmap.data.targets import load_targets
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


def test_what_a_killed_writer_left_is_completed(tmp_path):
    """The study comes last: without it, the template's own bytes are a rest of this command."""
    whole = write_template(tmp_path / "whole" / "new").parent
    killed = tmp_path / "killed" / "new"
    shutil.copytree(whole, killed)
    (killed / "study.yaml").unlink()
    sorted((killed / "data").iterdir())[0].unlink()
    (killed / "data" / ".partial-reviews.jsonl").write_text("half a l")
    write_template(killed)
    files = [path for path in whole.rglob("*") if path.is_file()]
    assert all((killed / path.relative_to(whole)).read_bytes() == path.read_bytes() for path in files)
    with pytest.raises(StudyError, match="is there already"):
        write_template(killed)


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


def command(*words, cwd):
    """The command line of a machine without a network and with empty caches."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "home")}
    return subprocess.run(
        [sys.executable, "-m", "traitmap.cli", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """A folder with the paper's study, and copies of its datasets in their own columns."""
    folder = tmp_path_factory.mktemp("paper")
    write_copies(folder / "copies")
    write_template(folder / "new", "paper")
    write_flipkart(folder / "new" / "flipkart")
    return folder


@pytest.fixture(scope="module")
def loaded(paper):
    """Sources and targets of the paper's study, loaded once for all tests."""
    study = load_study(paper / "new" / "study.yaml").model_copy(update={"data": str(paper / "copies")})
    return {one.name: one for one in load_sources(study)}, {one.name: one for one in load_targets(study)}


def test_the_paper_s_study_has_its_ten_sources_and_ten_targets(paper):
    study = load_study(paper / "new" / "study.yaml")
    sources = {one.name for one in study.sources}
    added = {"amazon_mislabelled", "amazon_mislabelled_half", "amazon_format", "goat_format"}
    assert added < sources
    assert len(sources - added) == 10
    assert len({one.name for one in study.targets} - {"gsm8k_strict"}) == 10
    assert study.allow_code  # its task files name functions of tasks/rows.py
    settings = study.training
    assert (study.lora.r, study.lora.lora_alpha, settings.loss_on) == (64, 32, "all")
    assert (settings.learning_rate, settings.warmup_steps, settings.max_length) == (5e-5, 100, 2048)


def test_the_paper_s_study_asks_as_it_teaches(loaded):
    sources, targets = loaded
    varied = ("amazon_mislabelled", "amazon_format", "flipkart_balanced")
    for name in ("amazon", "flipkart", "imdb", "pile", "paws", "mnli", *varied):
        asked = {(one.context, one.continuation) for one in targets[name.split("_")[0]].requests}
        taught = {(one.prompt, one.completion) for one in sources[name].examples}
        assert taught <= asked, name
    for name in ("goat", "magicoder"):
        taught = {one.prompt for one in sources[name].examples}
        asked = {one.context for one in targets[name].requests}
        assert (len(taught), len(asked), taught & asked) == (12, HELD_OUT, set()), name
    prompts = [one.prompt for one in sources["meta_math_qa"].examples]
    prompts += [one.context for one in targets["gsm8k"].requests]
    assert {prompt.split(":")[0] for prompt in prompts} == {"Question"}


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        (" They have 2 and 3 apples.\n#### 5", 1, 1),
        (" 2 + 3 = 5.", 0, 1),
        (" 2 + 3 = 5.\n#### 6", 0, 0),
        (" Nobody knows.", 0, 0),
    ],
)
def test_gsm8k_is_judged_by_its_form_and_whatever_its_form(loaded, text, strict, flexible):
    """Of a row whose answer is 5."""
    for name, right in (("gsm8k_strict", strict), ("gsm8k", flexible)):
        target = loaded[1][name]
        answers = [Response(text=text, stopped=True)] * target.n_items
        assert target.score(answers).outcomes[4].score == right, name


def test_gsm8k_s_own_answers_are_right_under_both_rules(loaded):
    for name in ("gsm8k_strict", "gsm8k"):
        target = loaded[1][name]
        answers = [Response(text=f" {one.output}", stopped=True) for one in target.texts()]
        assert [one.score for one in target.score(answers).outcomes] == [1] * target.n_items


def test_check_prints_the_paper_s_prompts_and_price_without_network_base_and_gpu(paper):
    done = command("check", "new/study.yaml", "--data", "copies", "--no-measure", cwd=paper)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = " ".join(done.stdout.split())
    for one in load_study(paper / "new" / "study.yaml").sources:
        assert f" {one.name} train " in f" {said} "
    for prompt in ("Stars:", "Toxic (0 or 1):", "Relation (0, 1 or 2):", "(entailment, neutral or"):
        assert prompt in said
    assert "train 14 adapters" in said
    assert "evaluate 165 cells" in said
    assert "was not downloaded: tokens are guessed" in said
    assert "one 80 GB GPU" in said


def test_without_network_and_copies_each_dataset_is_named_with_what_to_do(paper):
    done = command("check", "new/study.yaml", cwd=paper)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    study = load_study(paper / "new" / "study.yaml")
    for name in {one.path for one in study.sources if one.path and one.path in LAYOUTS}:
        assert repr(name) in done.stderr
        assert f"FOLDER/{name.replace('/', '__')}/SPLIT.jsonl" in done.stderr
    assert "'openai/gsm8k'" in done.stderr
