"""Adapters that exist already: where they are found, what is wrong with them, what a user should know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from traitmap.data.adapters import (
    CONFIG,
    adapter_problem,
    adapter_warnings,
    has_no_effect,
    locate_adapter,
    numbers_without_value,
)

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"


def adapter(folder: Path, b: float = 1.0, config: dict | None = None, **more: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps({**told, **(config or {})}))
    tensors = {A: np.ones((2, 4), np.float32), B: np.full((4, 2), b, np.float32), **more}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_a_whole_adapter_of_the_right_base_has_neither_problem_nor_warning(tmp_path: Path) -> None:
    place = adapter(tmp_path / "one")
    assert locate_adapter("one", tmp_path) == place
    assert adapter_problem(place) is None
    assert adapter_warnings(place, "some/where/base") == ()


def test_several_adapters_in_one_folder_are_named(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        adapter(tmp_path / "many" / name)
    assert "holds several adapters, bad, good" in str(adapter_problem(tmp_path / "many"))
    assert locate_adapter("many/good", tmp_path) == tmp_path / "many" / "good"


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    assert "is not a folder" in str(locate_adapter("nowhere", tmp_path))
    (tmp_path / "empty").mkdir()
    assert "has no adapter_config.json" in str(adapter_problem(tmp_path / "empty"))
    place = adapter(tmp_path / "cut")
    whole = (place / "adapter_model.safetensors").read_bytes()
    for size in (4, 40, len(whole) - 1):
        (place / "adapter_model.safetensors").write_bytes(whole[:size])
        assert "not a whole safetensors file" in str(adapter_problem(place))
    place = adapter(tmp_path / "odd")
    (place / "adapter_config.json").write_text("{}")
    assert 'names no "peft_type"' in str(adapter_problem(place))
    (place / "adapter_config.json").write_text("{")
    assert "not valid JSON" in str(adapter_problem(place))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ('{"peft_type": "LORA", "r": ' + "9" * 5000 + "}", "is not valid JSON"),
        ('{"peft_type": "LORA", "r": 1000000000}', "r 1000000000 is no rank; legal: 1 to 65,536"),
        ('{"peft_type": "LORA", "r": 1e9}', "r 1000000000.0 is no rank"),
        ('{"peft_type": "LORA", "r": 1e30}', "r 1e+30 is not a number that an adapter can have"),
        ('{"peft_type": "LORA", "r": true}', "r True is no rank"),
        ('{"peft_type": "LORA", "r": -1}', "r -1 is no rank"),
        ('{"peft_type": "LORA", "r": 2, "lora_alpha": NaN}', "lora_alpha nan is not a number"),
        ('{"peft_type": "LORA", "r": 2, "lora_alpha": 1e999}', "lora_alpha inf is not a number"),
        ('{"peft_type": "LORA", "r": 2, "alpha_pattern": {"q": Infinity}}', "alpha_pattern.q inf is not"),
        ('{"peft_type": "LORA", "r": 2, "rank_pattern": {"q": 0}}', "rank_pattern['q'] 0 is no rank"),
        ('{"peft_type": "LORA", "r": 2, "lora_dropout": 2}', "lora_dropout 2 is no share"),
        ('{"peft_type": "IA3", "any": [1, {"deep": -Infinity}]}', "any[1].deep -inf is not a number"),
    ],
)
def test_numbers_that_no_adapter_has_are_refused(tmp_path: Path, text: str, told: str) -> None:
    place = adapter(tmp_path / "one")
    (place / CONFIG).write_text(text)
    assert told in str(adapter_problem(place))


def test_all_numbers_at_fault_are_told_at_once(tmp_path: Path) -> None:
    place = adapter(tmp_path / "one", config={"r": 0, "lora_alpha": "x", "lora_dropout": -1})
    problem = str(adapter_problem(place))
    assert all(word in problem for word in ("r 0", "lora_alpha 'x'", "lora_dropout -1"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_weights_without_a_value_are_counted(tmp_path: Path, value: float, kind: type) -> None:
    place, weights = adapter(tmp_path / "one"), np.full((4, 2), np.finfo(kind).max, kind)
    weights[1] = value
    save_file({A: np.ones((2, 4), kind), B: weights}, place / "adapter_model.safetensors")
    assert numbers_without_value(place) == 2
    (warning,) = adapter_warnings(place, "org/base")
    assert warning.startswith("2 weights of it are NaN or infinite")


@pytest.mark.parametrize(("b", "no_effect"), [(0.0, True), (-0.0, True), (1e-30, False), (1.0, False)])
def test_an_adapter_that_was_never_trained_is_found_out(tmp_path: Path, b: float, no_effect: bool) -> None:
    place = adapter(tmp_path / "one", b)
    assert has_no_effect(place) is no_effect
    assert any("exactly as the base" in one for one in adapter_warnings(place, "org/base")) is no_effect


def test_whole_modules_beside_the_low_rank_part_are_an_effect(tmp_path: Path) -> None:
    head = np.ones((4, 4), np.float32)
    assert not has_no_effect(adapter(tmp_path / "one", 0.0, **{"base_model.model.lm_head.weight": head}))


def test_another_base_and_another_kind_are_told(tmp_path: Path) -> None:
    place = adapter(tmp_path / "one", config={"peft_type": "IA3"})
    first, second = adapter_warnings(place, "org/other")
    assert "names 'org/base' as its base, the study's is 'org/other'" in first
    assert "not a LoRA but IA3" in second


@pytest.mark.parametrize(
    ("named", "base", "told"),
    [
        ("org/base", "org/base", False),
        ("Org/Base", "org/base", False),
        ("other/base", "org/base", True),  # the same name of somebody else
        ("org/base", "org/base-Instruct", True),
        ("org/base", "copies/org__base", False),
        ("org/base-Instruct", "copies/org__base", True),
        ("/home/me/models/base/", "org/base", False),
        ("C:\\models\\base", "org/base", False),
        ("/home/me/models/other", "org/base", True),
        ("", "org/base", True),
        (None, "org/base", True),
    ],
)
def test_a_base_that_is_named_and_is_not_the_studys_is_told(tmp_path: Path, named, base, told) -> None:
    """Shapes say nothing of it: a base and its instruct version have the same ones."""
    (tmp_path / "copies" / "org__base").mkdir(parents=True)
    place = adapter(tmp_path / "one", config={"base_model_name_or_path": named})
    assert bool(adapter_warnings(place, base, tmp_path)) is told


def test_a_folder_is_known_by_where_it_is_and_by_its_configuration(tmp_path: Path) -> None:
    for name in ("base", "elsewhere/base"):
        (tmp_path / name).mkdir(parents=True)
    place = adapter(tmp_path / "one", config={"base_model_name_or_path": str(tmp_path / "elsewhere/base")})
    assert "names" in adapter_warnings(place, "base", tmp_path)[0]  # another folder of the same name
    assert adapter_warnings(place, "elsewhere/base", tmp_path) == ()
    place = adapter(tmp_path / "two", config={"base_model_name_or_path": "org/large"})
    assert adapter_warnings(place, "base", tmp_path)
    (tmp_path / "base" / "config.json").write_text('{"_name_or_path": "org/large"}')
    assert adapter_warnings(place, "base", tmp_path) == ()


def test_another_revision_of_the_base_is_told(tmp_path: Path) -> None:
    place = adapter(tmp_path / "one", config={"revision": "v2"})
    assert adapter_warnings(place, "org/base", tmp_path, "v2") == ()
    assert adapter_warnings(place, "org/base", tmp_path) == ()  # the study says nothing
    assert "names revision 'v2'" in adapter_warnings(place, "org/base", tmp_path, "v1")[0]


def test_the_command_for_pickled_weights_makes_them_usable(tmp_path):
    torch = pytest.importorskip("torch")
    folder = tmp_path / "an adapter's folder"
    folder.mkdir()
    (folder / CONFIG).write_text('{"peft_type": "LORA"}')
    shared = torch.arange(12.0).reshape(3, 4)
    weights = {"base_model.model.q.lora_A.weight": shared.T, "base_model.model.q.lora_B.weight": shared}
    torch.save(weights, folder / "adapter_model.bin")
    problem = adapter_problem(folder)
    assert problem is not None
    command = problem.partition("tensors alone: python ")[2]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True)  # as a person pastes it
    assert adapter_problem(folder) is None
    from safetensors.torch import load_file

    converted = load_file(folder / "adapter_model.safetensors")
    assert {name: tensor.tolist() for name, tensor in converted.items()} == {
        name: tensor.tolist() for name, tensor in weights.items()
    }


def test_adapters_of_other_programs_are_refused_by_name(tmp_path):
    mlx = tmp_path / "mlx"
    mlx.mkdir()
    config = {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20.0}}
    (mlx / CONFIG).write_text(json.dumps(config))
    (mlx / "adapters.safetensors").write_bytes(b"")
    (mlx / "0000100_adapters.safetensors").write_bytes(b"")
    problem = adapter_problem(mlx)
    assert problem is not None
    assert "MLX" in problem
    assert f"mlx_lm.fuse --model BASE --adapter-path {mlx}" in problem
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "goat-lora-f16.gguf").write_bytes(b"GGUF")
    for problem in (adapter_problem(gguf), locate_adapter("gguf/goat-lora-f16.gguf", tmp_path)):
        assert isinstance(problem, str)
        assert "goat-lora-f16.gguf is a GGUF file" in problem
        assert "convert_lora_to_gguf.py" in problem
