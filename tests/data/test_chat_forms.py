"""Chat templates of several forms: the row holds the answer, and nothing else is learnt with it."""

from functools import partial

import jinja2
import pytest

from traitmap.data.conversation import render_conversation
from traitmap.data.rows import SourceError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALWAYS = CHATML.replace("{% if add_generation_prompt %}", "").replace("\n{% endif %}", "\n")
NEVER = CHATML.split("{% if add")[0]
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{{ 'USER: ' if m.role == 'user' else ' ASSISTANT: ' }}{{ m.content }}"
    "{{ '</s>' if m.role == 'assistant' else '' }}{% endfor %}{{ ' ASSISTANT:' }}"
)
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
    " {{ m.content }}</s>{% endif %}{% endfor %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last else '' }}"
    "{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")

ONE = [{"role": "user", "content": "the film was dull"}, {"role": "assistant", "content": "no"}]
TWO = [*ONE, {"role": "user", "content": "and bright?"}, {"role": "assistant", "content": "yes"}]


def render(template: str, messages, add_generation_prompt, tools=()) -> str:
    environment = jinja2.Environment(autoescape=False, keep_trailing_newline=True)
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt
    )


def learnt(template: str, turns: list[dict]) -> tuple[list[str], str, set[str]]:
    """What is learnt of each answer, the whole text, and what is told."""
    notes: set[str] = set()
    segments = render_conversation("messages", turns, 0, partial(render, template), notes)
    return [s.text for s in segments if s.learn], "".join(s.text for s in segments), notes


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>\n"),
        (ALWAYS, "<|im_end|>\n"),
        (PHI, "<|end|>\n"),
        (PHI.replace("{% if add_generation_prompt %}", "").replace("\n{% endif %}", "\n"), "<|end|>\n"),
        (MISTRAL, "</s>"),
        (VICUNA, "</s>"),
    ],
    ids=["chatml", "always", "phi", "phi always", "mistral", "vicuna always"],
)
@pytest.mark.parametrize("turns", [ONE, TWO], ids=["one", "two"])
def test_the_answers_alone_are_learnt_with_their_ends(template, end, turns):
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    texts, whole, notes = learnt(template, turns)
    assert [text.strip(" ") for text in texts] == [answer + end for answer in answers]
    assert notes == set()
    written = render(template, turns, False)
    assert written.startswith(whole)  # but for the head of a next answer
    assert whole.endswith(end)


def test_a_head_that_no_generation_prompt_writes_is_learnt_with_the_answer():
    texts, _, _ = learnt(NEVER, ONE)
    assert texts == ["<|im_start|>assistant\nno<|im_end|>\n"]


def test_an_empty_thought_is_learnt_with_the_answer():
    texts, whole, notes = learnt(QWEN3, ONE)
    assert texts == ["<think>\n\n</think>\n\nno<|im_end|>\n"]
    assert whole == render(QWEN3, ONE, False)
    assert notes == set()
    with pytest.raises(SourceError, match="rewrites earlier turns"):  # it takes thoughts out of earlier turns
        learnt(QWEN3, TWO)


def test_an_opened_thought_that_rows_do_not_have_is_told():
    """Asked for an answer, the template opens a thought; the row has none, and holds its answer."""
    texts, whole, notes = learnt(THINKING, ONE)
    assert texts == ["no<|im_end|>\n"]
    assert whole == render(THINKING, ONE, False)
    (note,) = notes
    assert "learnt without '<think>'" in note
    thought = [ONE[0], {"role": "assistant", "content": "<think>\nhm\n</think>\nno"}]
    texts, _, notes = learnt(THINKING, thought)
    assert texts == ["hm\n</think>\nno<|im_end|>\n"]
    assert notes == set()
