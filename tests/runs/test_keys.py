import json
from dataclasses import replace
from pathlib import Path

import pytest

from small_study import sources, study
from traitmap.errors import ModelError
from traitmap.runs.plan import adapter_digest, adapter_key, cell_key


def adapter(folder: Path, weights: bytes = b"weights", **config: object) -> Path:
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_what_changes_no_answer_changes_no_digest(tmp_path: Path) -> None:
    plain = adapter_digest(adapter(tmp_path / "plain"))
    moved = {
        "base_model_name_or_path": "/elsewhere",
        "inference_mode": True,
        "lora_dropout": 0.5,
        "revision": "x",
    }
    assert adapter_digest(adapter(tmp_path / "moved", **moved)) == plain
    assert adapter_digest(adapter(tmp_path / "order", target_modules=["v_proj", "q_proj"])) == plain


@pytest.mark.parametrize(
    "config", [{"r": 8}, {"target_modules": ["q_proj"]}, {"use_rslora": True}, {"a_new_key": 1}]
)
def test_what_may_change_an_answer_changes_the_digest(tmp_path: Path, config: dict[str, object]) -> None:
    plain = adapter_digest(adapter(tmp_path / "plain"))
    assert adapter_digest(adapter(tmp_path / "other", **config)) != plain
    assert adapter_digest(adapter(tmp_path / "retrained", weights=b"others")) != plain


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot be read"):
        adapter_digest(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        adapter_digest(folder)


def test_adapter_keys_differ_by_all_that_determines_the_adapter(tmp_path: Path) -> None:
    source = sources(study(tmp_path))[0]
    longer = source.training.model_copy(update={"max_steps": 7})
    keys = [
        adapter_key(source, 0, "base"),
        adapter_key(source, 1, "base"),
        adapter_key(source, 0, "other base"),
        adapter_key(replace(source, name="renamed"), 0, "base"),
        adapter_key(replace(source, digest="other examples"), 0, "base"),
        adapter_key(replace(source, training=longer), 0, "base"),
        adapter_key(replace(source, lora=source.lora.model_copy(update={"r": 2})), 0, "base"),
    ]
    assert len(set(keys)) == len(keys)
    assert adapter_key(replace(source, tags=("other",)), 0, "base") == keys[0]


def test_cell_keys_differ_by_base_adapter_and_target() -> None:
    keys = {
        cell_key("b", None, "t"),
        cell_key("b", "a", "t"),
        cell_key("c", "a", "t"),
        cell_key("b", "a", "u"),
    }
    assert len(keys) == 4
