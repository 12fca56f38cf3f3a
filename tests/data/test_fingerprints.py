"""Updates of adapters compared by their factors alone: as if dW had been formed, in every number."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from traitmap.data.fingerprints import fingerprints, read_fingerprints, read_update
from traitmap.errors import DataError

MODULES = {f"model.layers.{i}.{part}": shape for i in range(6) for part, shape in (
    ("self_attn.q_proj", (8, 6)), ("mlp.up_proj", (12, 6)))}  # fmt: skip


def write(folder: Path, seed: int, rank: int, **config: object) -> dict[str, np.ndarray]:
    """A LoRA as PEFT writes it; returns dW of every module."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors, whole = {}, {}
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, **config}
    scale = 16 / (np.sqrt(rank) if config.get("use_rslora") else rank)
    for module, (out, into) in MODULES.items():
        a, b = random.normal(size=(rank, into)), random.normal(size=(out, rank))
        patterns = config.get("alpha_pattern") or {}
        factor = 4 / rank if any(module.endswith(key) for key in patterns) else scale  # type: ignore[attr-defined]
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
        whole[module] = factor * b.astype(np.float32).astype(float) @ a.astype(np.float32).astype(float)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return whole


def test_numbers_are_those_of_the_whole_updates(tmp_path: Path) -> None:
    """Ranks differ, one is rank-stabilised, one has a pattern of alphas."""
    updates = {
        "a": write(tmp_path / "a", 0, 3),
        "b": write(tmp_path / "b", 1, 2, use_rslora=True),
        "c": write(tmp_path / "c", 2, 4, alpha_pattern={"up_proj": 4}),
    }
    found = read_fingerprints(tmp_path)
    flat = np.array([np.concatenate([update[m].ravel() for m in MODULES]) for update in updates.values()])
    lengths = np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(found.norm, lengths, rtol=1e-9)
    np.testing.assert_allclose(found.cosine, flat @ flat.T / np.outer(lengths, lengths), atol=1e-9)
    for at, update in enumerate(updates.values()):
        square = {module: (one**2).sum() for module, one in update.items()}
        total = sum(square.values())
        assert found.attention[at] == pytest.approx(sum(v for m, v in square.items() if "attn" in m) / total)
        early = sum(v for m, v in square.items() if m.split(".")[2] in "01") / total
        assert found.depth[at, 0] == pytest.approx(early)
        assert found.depth[at].sum() == pytest.approx(1.0)
        ranks = []
        for one in update.values():
            share = np.linalg.svd(one, compute_uv=False) ** 2
            share = share[share > 1e-12] / share.sum()
            ranks.append(np.exp(-(share * np.log(share)).sum()))
        assert found.rank[at] == pytest.approx(np.mean(ranks))


def test_half_precision_is_read_and_an_untrained_adapter_has_no_direction(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    write(tmp_path / "a", 0, 2)
    full = read_update(tmp_path / "a")
    tensors = {}
    for module, (a, b) in full.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.tensor(a).to(torch.bfloat16)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.tensor(b / 8).to(torch.bfloat16)
    save_tensors(tensors, tmp_path / "a" / "adapter_model.safetensors")
    half = read_update(tmp_path / "a")
    assert fingerprints({"full": full, "half": half}).cosine[0, 1] > 0.9999
    zero = {module: (a, 0 * b) for module, (a, b) in full.items()}
    found = fingerprints({"full": full, "zero": zero})
    assert np.isnan(found.cosine[0, 1])
    assert np.isnan(found.norm[1])
    assert found.cosine[0, 0] == pytest.approx(1.0)


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a", 0, 2)
    with pytest.raises(DataError, match="holds 1 adapters"):
        read_fingerprints(tmp_path)
    update = read_update(tmp_path / "a")
    other = {module: (a[:, :-1], b) for module, (a, b) in update.items()}
    with pytest.raises(DataError, match="not of one base"):
        fingerprints({"a": update, "b": other})
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(DataError, match="is no LoRA but IA3"):
        read_update(tmp_path / "a")
