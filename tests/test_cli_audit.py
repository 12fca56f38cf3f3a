"""``traitmap audit`` from end to end on the embedded base: rows of every kind, codes, files, data beside."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from defusedxml import ElementTree
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.main import get_command
from typer.testing import CliRunner

import traitmap as tm
from traitmap.cli import app
from traitmap.errors import DataError
from traitmap.imports.beside import found_beside
from traitmap.study.paths import MINI, model_location

BASE = Path(model_location(MINI, Path()))
FEW = ["--only", "mini_stars,mini_arithmetic", "--limit", "40", "--no-drift"]


def adapter(folder: Path, scale: float) -> Path:
    """A LoRA adapter of PEFT on the embedded base; scale 0: without effect, large ones damage it."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    model.save_pretrained(folder)
    return folder


def audited(*words: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["audit", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    adapter(folder / "harmless", 0.0)
    adapter(folder / "damaged", 3.0)
    shutil.copytree(BASE, folder / "merged")
    weights = load_file(folder / "merged" / "model.safetensors")
    save_file(
        {k: v.clone() for k, v in weights.items()}, folder / "merged" / "model.safetensors", {"format": "pt"}
    )
    return folder


def test_adapters_and_a_merged_model_stand_beside_one_base(adapters: Path, tmp_path: Path) -> None:
    rows = [adapters / name for name in ("harmless", "damaged", "merged")]
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    code, out = audited(*rows, *FEW, "-o", tmp_path, "--json", "--junit", junit, "--markdown", summary)
    record = json.loads(out)
    verdicts = {row["name"]: row["verdict"] for row in record["rows"]}
    assert verdicts == {"harmless": "no change seen", "damaged": "harmed", "merged": "no change seen"}
    assert (code, record["exit_code"]) == (4, 4)
    assert record["questions"] == 3 * (2 + 4)
    assert record["level"] == pytest.approx(1 - 0.05 / 18)
    merged = record["rows"][2]["questions"]
    assert all(question["change"]["value"] == 0 for question in merged)  # the base's own weights
    suites = ElementTree.fromstring(junit.read_text())
    assert [bool(suite.findall("testcase/failure")) for suite in suites] == [False, True, False]
    assert "### damaged" in summary.read_text()
    page = (tmp_path / "audit-harmless" / "audit.html").read_text()
    assert page.count("<script") == 1  # the one that the page's policy names
    # the same again computes nothing, and tells the same
    again, out = audited(*rows, *FEW, "-o", tmp_path, "--json")
    assert json.loads(out)["rows"][1]["words"] == record["rows"][1]["words"]
    assert again == 4


def test_few_items_cannot_tell_a_small_loss_and_the_code_says_so(adapters: Path, tmp_path: Path) -> None:
    code, out = audited(adapters / "harmless", *FEW, "-o", tmp_path, "--fail-on", "loss:3")
    assert code == 5
    assert "items needed of" in " ".join(out.split())
    assert len(out.splitlines()) <= 25
    code, out = audited(adapters / "harmless", *FEW, "-o", tmp_path, "--fail-on", "loss:60")
    assert code == 0
    assert "VERDICT   no change seen above" in out


def test_training_data_are_held_against_the_items_that_are_asked(adapters: Path, tmp_path: Path) -> None:
    study = tm.plan_audit([adapters / "harmless"], only=["mini_stars"], limit=30).study
    from traitmap.api.studies import loaded_data

    (target,) = loaded_data(study, None)[1]
    rows = [{"prompt": text.input, "completion": f" {text.output}"} for text in target.texts()]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = tm.audit(
        [adapters / "harmless"],
        only=["mini_stars"],
        limit=30,
        output=tmp_path,
        training_data=tmp_path / "train.jsonl",
    )
    (row,) = done.rows
    assert row.overlap == ("mini_stars: 100 % of the items occur in the training data",)
    assert [words.split(":")[0] for words in row.drift] == ["neutral text", "its prompts"]
    assert all("+0.000 [" in words or " 0.000" in words for words in row.drift)  # it has no effect


def test_checkpoints_are_rows_in_the_order_of_training_and_one_is_to_be_kept(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    for step, scale in ((5, 0.0), (20, 0.001), (100, 3.0)):
        adapter(folder / f"checkpoint-{step}", scale)
    log = [{"step": step, "eval_loss": loss} for step, loss in ((5, 2.0), (20, 1.5), (100, 1.8))]
    state = {"log_history": [*log, {"step": 100, "loss": 0.5}], "best_model_checkpoint": "out/checkpoint-20"}
    (folder / "checkpoint-100" / "trainer_state.json").write_text(json.dumps(state))
    code, out = audited(folder, *FEW, "-o", tmp_path, "--json")
    record = json.loads(out)
    assert [row["name"] for row in record["rows"]] == ["checkpoint-5", "checkpoint-20", "checkpoint-100"]
    assert record["name"] == "audit-training"
    assert record["keep"].startswith("keep checkpoint-20: the lowest evaluation loss (1.5)")
    assert code == 4
    beside = " ".join(record["rows"][2]["beside"])
    assert "lowest at step 20 (1.5) and rises after it" in beside
    assert "best checkpoint is checkpoint-20" in beside


def test_the_end_of_a_training_is_a_row_unless_a_checkpoint_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    for step, scale in ((5, 0.01), (10, 0.1)):
        adapter(folder / f"checkpoint-{step}", scale)
    for file in (folder / "checkpoint-10").iterdir():
        shutil.copy(file, folder)
    assert [row.name for row in tm.plan_audit([folder]).rows] == ["checkpoint-5", "checkpoint-10"]
    adapter(folder, 0.2)
    rows = tm.plan_audit([folder]).rows
    assert [row.name for row in rows] == ["checkpoint-5", "checkpoint-10", "training-final"]
    assert {row.training for row in rows} == {folder}


@pytest.mark.shared
def test_results_and_cards_beside_a_model_are_told_as_found(shared: Path) -> None:
    told = found_beside(shared / "fixtures" / "lm_eval_0.4.13_cli" / "m__adapters__goat")
    assert any(words.startswith("lm-evaluation-harness") or "tiny_math_em" in words for words in told)
    card = found_beside(shared / "fixtures" / "peft_0.21.2_adapter_dir")
    assert any(words.startswith("model card: ") for words in card)


def test_what_cannot_be_audited_is_told_all_at_once(adapters: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        tm.plan_audit([tmp_path / "empty", tmp_path / "nowhere", adapters / "harmless"])
    assert "neither an adapter" in str(caught.value)
    assert "there is no such folder" in str(caught.value)
    with pytest.raises(DataError, match="no row names its base"):
        tm.plan_audit([adapters / "merged"])
    other = tmp_path / "other"
    shutil.copytree(adapters / "harmless", other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/other"}))
    with pytest.raises(DataError, match="different bases"):
        tm.plan_audit([adapters / "harmless", other])
    assert CliRunner().invoke(app, ["audit", str(other), "--fail-on", "much"]).exit_code == 2


def test_a_plan_says_what_it_would_take_and_writes_nothing(adapters: Path, tmp_path: Path) -> None:
    code, out = audited(adapters / "harmless", *FEW[:-1], "-o", tmp_path / "runs", "--plan")
    assert code == 0
    assert "80 items a row" in out
    assert "tokens to read" in out
    assert not (tmp_path / "runs").exists()
    served = tm.plan_audit(
        ["ft@http://localhost:1/v1"], base="base@http://localhost:1/v1", packs=["mini"]
    ).study
    assert served.sources[0].model is not None
    assert served.sources[0].model.endpoint is not None
    assert served.model.endpoint is not None


def test_the_action_and_the_hook_call_the_command_with_options_that_it_has() -> None:
    root = Path(__file__).parents[1]
    action = yaml.safe_load((root / "action.yml").read_text())
    script = "\n".join(step["run"] for step in action["runs"]["steps"])
    known = {option for parameter in get_command(app).commands["audit"].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", script)) - {"--quiet"} <= known
    used = {name for step in action["runs"]["steps"] for name in re.findall(r"inputs\.([a-z-]+)", str(step))}
    assert used == set(action["inputs"])
    (hook,) = yaml.safe_load((root / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"].split() == ["traitmap", "audit"]


def test_packs_are_listed_with_what_they_ask() -> None:
    result = CliRunner().invoke(app, ["packs"])
    assert result.exit_code == 0
    assert "general" in result.stdout
    shown = CliRunner().invoke(app, ["packs", "safety"]).stdout
    assert "toxigen" in shown
    assert json.loads(CliRunner().invoke(app, ["packs", "--json"]).stdout)[0]["name"] == "general"
