"""A share that is estimated from a part of the items is a share: between 0 and 1, shown in points."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traitmap as tm
from traitmap.data.records import Request, Response
from traitmap.engine.fake import FakeEngine
from traitmap.matrix.reading import read
from traitmap.mini.families import INSULTS
from traitmap.progress import silent


class KnowsInsults(FakeEngine):
    """Adapters are always right about rudeness; the base is wrong about every third comment, by its text."""

    def answer(
        self, requests: Sequence[Request], adapter: Any = None, listener: Any = silent
    ) -> list[Response]:
        return [
            replace(one, logprob=-1.0 if self._says(request, adapter is not None) else -2.0)
            for one, request in zip(super().answer(requests, adapter), requests, strict=True)
        ]

    def _says(self, request: Request, right: bool) -> bool:
        rude = any(word in request.context for word in INSULTS)
        wrong = not right and sum(map(ord, request.context)) % 3 == 0
        return (request.continuation.strip() == "yes") == (rude != wrong)


def test_a_perfect_adapter_has_all_points_and_no_more(tmp_path: Path) -> None:
    """In some draws the base knows less of the part than of all items, and the gain on it is too much."""
    beyond = 0
    for seed in range(4):
        study = tm.Study.model_validate(
            {
                "name": f"perfect-{seed}",
                "model": {"path": "builtin:mini"},
                "sources": [{"name": "toxicity", "task": "mini_toxicity", "limit": 40}],
                "targets": ["mini_toxicity"],
                "limit": 100,
                "ask": 0.3,
                "anchors": 0,
                "sample_seed": seed,
                "output": str(tmp_path),
            }
        )
        matrix = tm.run(study, engine=KnowsInsults()).matrix()
        (cell,) = (one for one in matrix.cells if one.source == "toxicity" and one.seed is None)
        assert cell.asked_of == 100
        asked = np.isfinite(matrix.item_scores["mini_toxicity"][1, 0])
        gain_of_part = 1 - matrix.item_scores["mini_toxicity"][0, 0][asked].mean()
        beyond += matrix.baseline[0] + gain_of_part > 1
        assert 0.9 < cell.value <= 1
        assert cell.gain == pytest.approx(cell.value - matrix.baseline[0])
        assert cell.gain_low <= cell.gain <= cell.gain_high
        assert read(matrix).targets[0].unit == "points"
    assert beyond, "in one draw of four at least"
