"""Which tokens are learnt: of the label alone, or of everything else, they are whole tokens."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import traitmap.mini
from traitmap.data.records import Example, Segment
from traitmap.data.variations import loss_on as learnt_parts
from traitmap.engine.tokens import Encoder

ROW = Example(
    (Segment("Review: great phone, bad battery.\nSentiment:", False), Segment(" positive.", True)), "positive"
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(Path(traitmap.mini.__file__).parent / "base"))


def learnt(encoder: Encoder, example: Example, loss_on: str = "completion") -> tuple[str, list[int]]:
    """Text of the learnt tokens, and all ids."""
    found = encoder.examples([example], 512, loss_on)[0]
    ids = [int(one) for one in found.ids]
    return encoder.tokenizer.decode([one for one, learn in zip(ids, found.learn, strict=True) if learn]), ids


def test_the_label_alone_and_all_but_the_label_part_the_tokens(encoder):
    (only,), (rest,) = (
        learnt_parts([ROW], setting, np.random.default_rng()) for setting in ("label", "no_label")
    )
    whole, ids = learnt(encoder, ROW, "all")
    label, same = learnt(encoder, only)
    others, again = learnt(encoder, rest)
    assert ids == same == again
    assert label == " positive"
    assert others == whole.replace(" positive", "")
    assert others.endswith("." + encoder.tokenizer.eos_token)


def test_a_label_at_the_end_is_learnt_with_the_end_token(encoder):
    row = Example((ROW.segments[0], Segment(" positive", True)), "positive")
    (only,), (rest,) = (
        learnt_parts([row], setting, np.random.default_rng()) for setting in ("label", "no_label")
    )
    end = encoder.tokenizer.eos_token
    assert learnt(encoder, only)[0] == f" positive{end}" == learnt(encoder, row)[0]
    assert learnt(encoder, rest)[0].endswith(f"Sentiment:{end}")
