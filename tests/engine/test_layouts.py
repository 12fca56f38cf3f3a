"""A way to lay rows out is tried before it is trusted; every architecture is in tests/architectures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from tiny_architectures import CATALOGUE, save_tiny
from traitmap.engine.forward_paths import find_forward_paths
from traitmap.engine.layouts import choose_decoding, choose_layout, rope_switch

WRONG = 0.02  # of what a layer reads: less than rounding moves logits in bfloat16


def tiny(name: str, folder: Path, dtype: torch.dtype) -> Any:
    save_tiny(name, folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)


@contextmanager
def a_little_wrong(model: Any, when: str) -> Iterator[None]:
    """The second layer reads what depends a little on where a token stands in the pass, not in its row.

    when: in ``every`` pass, or in the model's ``own`` precision alone.
    """

    def shift(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        hidden = inputs[0]
        if when == "own" and hidden.dtype == torch.float32:
            return None
        places = torch.arange(hidden.shape[1], dtype=hidden.dtype)[None, :, None]
        late = (places >= 12).to(hidden.dtype)  # no row of a trial is longer
        size = WRONG if when == "every" else 1.0
        signs = torch.linspace(-1, 1, hidden.shape[2], dtype=hidden.dtype)
        return (hidden + size * hidden.std() * late * signs, *inputs[1:])

    handle = model.model.layers[1].register_forward_pre_hook(shift)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_way_that_is_a_little_wrong_is_found(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny("llama", tmp_path, dtype)
    before = [parameter.clone() for parameter in model.parameters()]
    assert choose_layout(model) == ("stream", "")
    with a_little_wrong(model, "every"):
        layout, reason = choose_layout(model)
        assert layout == "padded"
        assert "rows of a batch do not get the logits that they have alone" in reason
    assert choose_layout(model) == ("stream", "")
    assert model.dtype == dtype
    assert all(map(torch.equal, model.parameters(), before))


def test_a_way_that_is_wrong_in_bfloat16_alone_is_found(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path, torch.bfloat16)
    with a_little_wrong(model, "own"):
        assert choose_layout(model)[0] == "padded"


@pytest.mark.parametrize("name", ["llama", "qwen2_moe", "gemma3", "mamba2"])
def test_rounding_makes_no_way_wrong(name: str, tmp_path: Path) -> None:
    """In bfloat16 a base takes the way that it takes in float32."""
    model = tiny(name, tmp_path, torch.bfloat16)
    rows, texts = CATALOGUE[name].way
    assert choose_layout(model)[0] == rows
    if rows == "stream":
        paths = find_forward_paths(model)
        assert paths.cached
        assert paths.fast == (name == "llama")
    else:
        assert choose_decoding(model) == {"one at a time": "one"}[texts]


def test_of_a_large_base_the_first_layers_are_tried_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("zamba", tmp_path / "zamba", torch.bfloat16)
    whole = choose_layout(model)
    monkeypatch.setattr("traitmap.engine.trials._COPY", 4 * 60_000)
    assert choose_layout(model) == whole
    assert len(model.model.layers) == 4
    llama = tiny("llama", tmp_path / "llama", torch.bfloat16)
    assert choose_layout(llama) == ("stream", "")
    with a_little_wrong(llama, "every"):
        assert choose_layout(llama)[0] == "padded"


def test_a_rope_that_switches_is_known_by_its_configuration() -> None:
    longrope, plain = CATALOGUE["phi3_longrope"], CATALOGUE["mistral"]
    assert rope_switch(transformers.Phi3Config(**longrope.settings)) == 32
    assert rope_switch(transformers.MistralConfig(**plain.settings)) is None
