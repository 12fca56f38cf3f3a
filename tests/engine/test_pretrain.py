"""The recipe of a base: it learns, repeats itself bit by bit, and gives a folder that transformers reads."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from traitmap import api
from traitmap.engine.pretrain import PretrainRecipe, pretrain
from traitmap.errors import DataError, ModelError, RunError

RECIPE = PretrainRecipe(
    hidden_size=32,
    num_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=320,
    context=64,
    sequence_length=32,
    batch_size=4,
    steps=30,
    warmup_steps=5,
    learning_rate=1e-2,
    threads=1,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(
        "\n\n".join(f"The number {n} comes before {n + 1}.\nSo it does: é." for n in range(400)),
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def base(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    return folder, pretrain([text], folder, RECIPE)


def test_the_loss_falls_below_half(base):
    _, report = base
    assert report.losses[0] > 5
    assert report.validation_loss < report.losses[0] / 2
    assert len(report.losses) == RECIPE.steps


def test_two_runs_give_the_same_files_and_another_seed_other_weights(base, text, tmp_path):
    folder, _ = base
    pretrain([text], tmp_path / "again", RECIPE)
    pretrain([text], tmp_path / "other", replace(RECIPE, seed=1))
    for name in ("model.safetensors", "tokenizer.json", "config.json", "recipe.json", "loss_curve.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    other = (tmp_path / "other" / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() != other


def test_transformers_reads_it_and_finds_the_reported_loss(base, text):
    folder, report = base
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert sum(p.numel() for p in model.parameters()) == report.parameters
    documents = text.read_text(encoding="utf-8").split("\n\n")[-4:]
    stream = [
        i for d in documents for i in (tokenizer.bos_token_id, *tokenizer.encode(d), tokenizer.eos_token_id)
    ]
    length = RECIPE.sequence_length + 1
    rows = torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
    with torch.no_grad():
        loss = model(rows, labels=rows).loss
    assert float(loss) == pytest.approx(report.validation_loss, abs=1e-5)


def test_weights_are_stored_in_half_the_bytes_without_loss(base):
    folder, _ = base
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_the_tokenizer_keeps_digits_apart_adds_nothing_and_reads_back(base):
    folder, _ = base
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "So it does: é. 1234 ✓"
    ids = tokenizer.encode(text)
    assert not set(ids) & {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert tokenizer.decode(ids) == text
    assert [token for token in tokenizer.convert_ids_to_tokens(ids) if token.strip("Ġ").isdigit()] == list(
        "1234"
    )


def test_the_record_tells_the_recipe_and_the_loss_curve(base):
    folder, report = base
    record = json.loads((folder / "recipe.json").read_text())
    assert PretrainRecipe(**record["recipe"]) == RECIPE
    assert record["found"]["validation_loss"] == report.validation_loss
    with (folder / "loss_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [round(loss, 4) for loss in report.losses] == [float(row["loss"]) for row in rows]


def test_all_impossible_sizes_are_named_at_once(tmp_path):
    recipe = replace(RECIPE, hidden_size=33, vocab_size=100, sequence_length=100, steps=0)
    with pytest.raises(ModelError) as caught:
        pretrain([], tmp_path, recipe)
    for word in ("hidden_size 33", "vocab_size 100", "sequence_length 100", "steps 0"):
        assert word in str(caught.value)


def test_missing_and_short_texts_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt"):
        pretrain([tmp_path / "none.txt"], tmp_path, RECIPE)
    short = tmp_path / "short.txt"
    short.write_text("One.\n\nTwo.")
    with pytest.raises(DataError, match="too short"):
        pretrain([short], tmp_path, RECIPE)


def test_the_command_s_folder_is_new_and_whole_or_not_there(text, tmp_path):
    """What fails or is stopped leaves nothing, and nothing of anybody else's is replaced."""
    sizes = {name: getattr(RECIPE, name) for name in ("hidden_size", "num_layers", "num_attention_heads")}
    sizes |= {"intermediate_size": 64, "vocab_size": 320, "context": 64, "sequence_length": 32, "threads": 1}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="mine: is there already"):
        api.pretrain([text], mine, steps=1, **sizes)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.pretrain([text], tmp_path / "new", stop, steps=2, **sizes)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    api.pretrain([text], tmp_path / "new", steps=1, **sizes)
    assert (tmp_path / "new" / "recipe.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]
