"""First gradients: a small step along a source's direction changes a target's loss by what was forecast."""

import numpy as np
import pytest
import torch
from scipy import optimize

from traitmap.data.records import Example, Request, Segment
from traitmap.data.texts import TaskText
from traitmap.engine.adapted_modules import linear_modules
from traitmap.engine.attention import layout_attention
from traitmap.engine.gradients import (
    Directions,
    _gradients,
    _projected,
    first_directions,
    lessons_of_examples,
    lessons_of_items,
)
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import new_adapter, resident
from traitmap.engine.passes import Row, read_logits
from traitmap.errors import ModelError
from traitmap.progress import Progress
from traitmap.study.settings import Lora, Model, Training

LORA = Lora(r=4, lora_alpha=8)
WORDS = ("positive", "negative", "so so")  # the last has several tokens


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def engine(request, checkpoints):
    return LocalEngine.open(Model(path=str(checkpoints[request.param]), dtype="float64"))


def examples(count: int) -> list[Example]:
    return [
        Example(
            (Segment(f"Review: the fox number {n}. Sentiment:", False), Segment(f" {WORDS[n % 2]}", True))
        )
        for n in range(count)
    ]


def items(count: int) -> tuple[list[Request], list[TaskText]]:
    contexts = [f"Review: a lazy dog, {n} cats. Sentiment:" for n in range(count)]
    requests = [
        Request("loglikelihood", context, f" {word}", item=n)
        for n, context in enumerate(contexts)
        for word in WORDS
    ]
    texts = [TaskText(context, WORDS[n % 3], WORDS) for n, context in enumerate(contexts)]
    return requests, texts


def balanced_loss(logprobs: np.ndarray, texts) -> float:
    """Mean of -log softmax at the gold choice, lowest over offsets of the choices: by scipy, another way."""
    gold = [WORDS.index(text.output) for text in texts]

    def loss(offset: np.ndarray) -> float:
        scores = logprobs + offset
        return float(np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(texts)), gold]))

    return float(optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).fun)


def target_loss(engine: LocalEngine, requests, texts) -> float:
    """The same from answers of the engine itself."""
    logprobs = np.array([answer.logprob for answer in engine.answer(requests)]).reshape(len(texts), -1)
    return balanced_loss(logprobs, texts)


def loss_with(engine: LocalEngine, b: torch.Tensor, requests, texts) -> float:
    """The same with an adapter hooked on whose B is this vector, A being that of seed 0."""
    modules = linear_modules(engine.base.model, LORA.target_modules)
    adapter = new_adapter(modules, LORA, torch.Generator().manual_seed(0))
    of_a = sum(a.numel() for a in adapter.a.values())
    with torch.no_grad():
        adapter.flat[of_a:] = b
    pairs = engine.encoder.continuations(requests)
    logprobs = []
    model = engine.base.model
    with torch.no_grad(), layout_attention(model, engine.base.layout), resident(model, [adapter]) as adapters:
        for context, continuation in pairs:
            ids = np.array([*context, *continuation[:-1]])
            row = Row(ids=ids, reads=np.arange(len(context) - 1, len(ids)))
            logits = read_logits(model, engine.base.layout, [row], adapters).log_softmax(-1)
            logprobs.append(float(logits[range(len(continuation)), continuation].sum()))
    return balanced_loss(np.array(logprobs).reshape(len(texts), -1), texts)


def test_a_small_step_changes_the_targets_loss_as_forecast(engine):
    requests, texts = items(6)
    lessons = lessons_of_examples(engine.encoder, examples(8), Training(), engine.base.max_length)
    [step] = _gradients(engine, lessons, LORA, 1, 0)
    [gradient] = _gradients(engine, lessons_of_items(engine, requests, texts, range(6)), LORA, 1, 0)
    zero = loss_with(engine, torch.zeros_like(step), requests, texts)
    assert zero == pytest.approx(target_loss(engine, requests, texts), abs=1e-9)
    small = 1e-2 / float(step.norm())
    change = loss_with(engine, -small * step, requests, texts) - loss_with(
        engine, small * step, requests, texts
    )
    assert change == pytest.approx(-2 * small * float(step @ gradient), rel=1e-3)
    assert abs(change) > 1e-5  # the two are not at right angles, so that a wrong sign is seen


def test_the_gradient_of_text_is_that_of_its_mean_loss_per_token(engine):
    """Twice the same example says the same as once; a target of text is the loss that a source of it has."""
    once, twice = (
        _gradients(
            engine,
            lessons_of_examples(engine.encoder, examples(1) * count, Training(), 256),
            LORA,
            1,
            0,
        )[0]
        for count in (1, 2)
    )
    assert torch.allclose(once, twice, atol=1e-12)
    prompt, answer = examples(1)[0].segments
    end = engine.encoder.end_text
    request = Request("loglikelihood", prompt.text, answer.text + end)
    lessons = lessons_of_items(engine, [request], [TaskText(prompt.text, answer.text)], [0])
    assert torch.allclose(_gradients(engine, lessons, LORA, 1, 0)[0], once, atol=1e-10)


def test_sources_step_by_adam_and_what_has_too_few_lessons_is_left_out(engine):
    (requests, texts), heard = items(16), list[Progress]()
    found = first_directions(
        engine,
        {"one": (examples(16), Training()), "short": (examples(3), Training())},
        {"dogs": (requests, texts), "gold unknown": (requests, [TaskText(t.input, "") for t in texts])},
        LORA,
        parts=4,
        listener=heard.append,
    )
    assert [(report.done, report.total) for report in heard] == [(n, 4) for n in (1, 2, 3, 4)]
    assert isinstance(found, Directions)
    assert set(found.steps) == {"one"}
    assert set(found.gradients) == {"dogs"}
    squares = (found.steps["one"].astype(float) ** 2).mean(axis=0)
    touched = squares > 1e-3
    assert touched.any()
    assert squares[touched] == pytest.approx(1.0, abs=1e-3)  # divided by the root of the mean square


def test_a_gradient_that_is_no_number_makes_no_forecast(engine):
    """One weight of the base that is NaN: a source, of which no answer is asked, is named all the same."""
    weight = next(engine.base.model.parameters()).data
    kept = weight.clone()
    weight.fill_(float("nan"))
    try:
        with pytest.raises(ModelError, match="its gradient on 'one' is NaN or infinite"):
            first_directions(engine, {"one": (examples(16), Training())}, {}, LORA, parts=4)
        with pytest.raises(ModelError, match="no finite log-probability"):
            first_directions(engine, {}, {"dogs": items(16)}, LORA, parts=4)
    finally:
        weight.copy_(kept)


def test_a_projection_keeps_products():
    draw = torch.Generator().manual_seed(1)
    one, noise = torch.randn(2, 300_000, generator=draw)
    other = one + noise
    true = float(one @ other) / float(one.norm() * other.norm())
    a, b = (_projected(vector, 2**14, 5) for vector in (one, other))
    assert float(a @ b) / float(one.norm() * other.norm()) == pytest.approx(true, abs=4 / 2**7)
    assert np.array_equal(_projected(one[:100], 2**14, 5), one[:100].numpy())
    assert not np.array_equal(a, _projected(one, 2**14, 6))
