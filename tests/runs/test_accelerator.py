"""The assumed price of a base on one GPU: from its size, known or told, and larger for larger bases."""

from __future__ import annotations

from math import isnan, nan
from pathlib import Path

import pytest

from traitmap.runs.cost import KNOWN, PEAK_FLOPS, TRAINING_SHARE, assumed_cost, shape_of, shape_of_base
from traitmap.study.paths import MINI
from traitmap.study.settings import Model

LLAMA_3B = {
    "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24, "num_key_value_heads": 8,
    "head_dim": 128, "num_hidden_layers": 28, "vocab_size": 128_256, "tie_word_embeddings": True,
}  # fmt: skip


def test_the_paper_s_base_is_known_as_its_configuration_tells_it() -> None:
    known, told = KNOWN["meta-llama/Llama-3.2-3B"], shape_of(LLAMA_3B)
    assert told is not None
    assert told[0] == pytest.approx(known[0], rel=1e-3)
    assert told[1] == known[1]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("org/model-7B", 7e9),
        ("org/model-0.5B-instruct", 5e8),
        ("org/model-160m", 1.6e8),
        ("org/v2-model", None),
        ("meta-llama/Llama-3.2-3B", 3.213e9),
    ],
)
def test_a_base_s_size_is_read_off_its_name(path: str, parameters: float | None, tmp_path: Path) -> None:
    found = shape_of_base(Model(path=path), tmp_path)
    assert (found[0] if found else None) == parameters


def test_a_token_costs_what_the_formula_says() -> None:
    found = assumed_cost((3e9, 1.5e6), 64)
    assert found is not None
    cost, (said,) = found
    adapter = 1.5e6 * 64
    assert cost.training == pytest.approx(TRAINING_SHARE * PEAK_FLOPS / (4 * 3e9 + 6 * adapter))
    assert cost.adapter_bytes == 4 * adapter
    assert not cost.measured
    assert f"{cost.training:,.0f} tokens/s in training" in said
    larger = assumed_cost((6e9, nan), 64)
    assert larger is not None
    assert larger[0].scoring == pytest.approx(cost.scoring / 2)
    assert larger[0].generating == pytest.approx(cost.generating / 2)
    assert isnan(larger[0].adapter_bytes)


def test_of_a_tiny_base_nothing_is_assumed(tmp_path: Path) -> None:
    tiny = shape_of_base(Model(path=MINI), tmp_path)
    assert tiny is None or assumed_cost(tiny, 64) is None
