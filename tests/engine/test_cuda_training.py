"""The fast ways of training on a CUDA device: each gives what the plain way gives there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_fast_training import mixed_jobs, trained

from traitmap.engine.forward_paths import find_forward_paths
from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Model

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_groups_recomputed_layers_and_the_last_layer_agree_on_cuda(checkpoints, dropout: float) -> None:
    engine = LocalEngine.open(Model(path=str(checkpoints["llama"]), device="cuda", dtype="float64"))
    together = trained(engine, mixed_jobs(dropout))
    twice = trained(engine, mixed_jobs(dropout), checkpointing=True)
    read = trained(engine, mixed_jobs(dropout), last_mlp=find_forward_paths(engine.base.model).last_mlp)
    alone = [trained(engine, [job], 10_000)[0] for job in mixed_jobs(dropout)]
    for states in (twice, read, alone):
        for one, other in zip(together, states, strict=True):
            assert np.allclose(one.losses, other.losses, rtol=0, atol=1e-8)
            assert torch.allclose(one.adapter.flat, other.adapter.flat, rtol=0, atol=1e-6)
