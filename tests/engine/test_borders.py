"""Where a prompt ends and an answer begins, in tokens: what is scored, what is learnt, what is told."""

import json
import logging
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from traitmap.data.records import Example, Request, Segment
from traitmap.engine.tokens import Encoder, example_caveats, request_caveats
from traitmap.study.settings import Training

# Llama-3 and Qwen: a sign that is no letter joins the word behind it, and newlines join the sign before
JOINING = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
TEXT = [
    "Label:yes Label:no answer:是 answer:是 的 的 答案：对 答案：对 不 不 "
    "Answer:\n yes yes no no the film was dull"
] * 50


def encoder_of(*, end: str = "<|end|>", joining: bool = True) -> Encoder:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(JOINING), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *([split] if joining else []),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not joining),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[end, "<|head|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return Encoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, model_max_length=64))


def choice(context: str, continuation: str, item: int = 0) -> Request:
    return Request("loglikelihood", context, continuation=continuation, item=item)


def row(encoder: Encoder, *segments: tuple[str, bool], loss_on: str = "completion", max_length: int = 99):
    example = Example(tuple(Segment(text, learn) for text, learn in segments))
    return encoder.examples([example], max_length, loss_on)[0]


def learnt(encoder: Encoder, *segments: tuple[str, bool], **settings) -> str:
    tokenized = row(encoder, *segments, **settings)
    return encoder.tokenizer.decode(tokenized.ids[tokenized.learn])


# ---- what is scored


@pytest.mark.parametrize(
    ("context", "continuation"), [("Label:", "yes"), ("answer:", "是"), ("答案：", "对")]
)
def test_a_choice_without_a_token_of_its_own_is_scored_by_itself(context, continuation):
    """The tokenizer joins all of it with the prompt's end; lm-eval stops with an assertion there."""
    encoder = encoder_of()
    assert len(encoder.encode(context + continuation)) <= len(encoder.encode(context))  # the joint token
    head, tail = encoder.continuation(choice(context, continuation))
    assert encoder.tokenizer.decode(head) == context
    assert encoder.tokenizer.decode(tail) == continuation
    assert encoder.continuations([choice(context, continuation)]) == [(head, tail)]


def test_a_choice_of_which_a_part_is_left_is_scored_as_lm_eval_does():
    encoder = encoder_of()
    head, tail = encoder.continuation(choice("answer:", "是的"))
    assert head + tail != encoder.encode("answer:是的")
    assert head == encoder.encode("answer:")
    assert tail == encoder.encode("answer:是的")[len(head) :]


@pytest.mark.parametrize("joining", [True, False])
def test_nothing_changes_where_the_border_is_between_tokens(joining):
    encoder = encoder_of(joining=joining)
    for context, continuation in (("Label:", " yes"), ("the film was", " dull"), ("Answer:\n", "yes")):
        head, tail = encoder.continuation(choice(context, continuation))
        moved = context.rstrip()
        assert head == encoder.encode(moved)
        assert tail == encoder.encode(context + continuation)[len(head) :]


# ---- what is learnt


@pytest.mark.parametrize(
    ("prompt", "answer"), [("Label:", "yes"), ("answer:", "是"), ("answer:", "是的"), ("答案：", "对的")]
)
def test_the_row_holds_the_answer_whole(prompt, answer):
    encoder = encoder_of()
    tokenized = row(encoder, (prompt, False), (answer, True))
    assert encoder.tokenizer.decode(tokenized.ids) == prompt + answer + "<|end|>"
    assert learnt(encoder, (prompt, False), (answer, True)) == answer + "<|end|>"
    assert tokenized.merged


def test_turns_behind_a_joined_border_are_whole_too():
    encoder = encoder_of()
    turns = ("Label:", False), ("yes", True), (" Label:", False), ("no", True)
    tokenized = row(encoder, *turns)
    assert encoder.tokenizer.decode(tokenized.ids) == "Label:yes Label:no<|end|>"
    assert learnt(encoder, *turns) == "yesno<|end|>"


def test_blanks_that_join_the_prompts_end_leave_the_row_as_it_is_scored():
    """``:`` and a newline are one token for Llama-3; training and scoring both read the prompt without it."""
    encoder = encoder_of()
    head, tail = encoder.pair("Answer:\n", "yes")
    tokenized = row(encoder, ("Answer:\n", False), ("yes", True))
    assert tokenized.ids.tolist() == [*head, *tail, encoder.end]
    assert not tokenized.merged


@pytest.mark.parametrize("behind", ["", "\n", " \n\n"])
@pytest.mark.parametrize("end", ["<|end|>", "</s>", "<｜end▁of▁sentence｜>"])
def test_the_end_is_learnt_once_where_the_text_brings_it(end, behind):
    encoder = encoder_of(end=end)
    tokenized = row(encoder, ("Label:", False), (f" yes{end}{behind}", True))
    assert (tokenized.ids == encoder.end).sum() == 1
    assert tokenized.learn[tokenized.ids == encoder.end].all()
    assert learnt(encoder, ("Label:", False), (f" yes{end}", True)) == f" yes{end}"


def test_the_end_is_learnt_once_where_the_text_does_not_bring_it():
    encoder = encoder_of()
    assert learnt(encoder, ("Label:", False), (" yes", True)) == " yes<|end|>"
    # the prompt's end is no end of the row, nor is one that stands before the answer's last words
    assert learnt(encoder, ("Label:<|end|>", False), (" yes", True)) == " yes<|end|>"
    assert learnt(encoder, ("Label:", False), (" yes<|end|> no", True)) == " yes<|end|> no<|end|>"
    # another token behind each turn is not the end
    assert learnt(encoder, ("Label:", False), (" yes<|head|>", True)) == " yes<|head|><|end|>"


def test_an_answer_in_words_that_look_like_the_end_token_gets_one():
    encoder = encoder_of()
    encoder.tokenizer.split_special_tokens = True
    plain = PreTrainedTokenizerFast(tokenizer_object=encoder.tokenizer._tokenizer, eos_token="Z")
    assert learnt(Encoder(plain), ("Label:", False), (" no", True)).endswith("Z")


# ---- what is told


def told(caveats) -> dict[str, tuple[int, int]]:
    return {caveat.kind: (caveat.count, caveat.total) for caveat in caveats}


def test_choices_at_the_border_are_counted_by_item():
    encoder = encoder_of()
    requests = [
        *(choice("Label:", text, 0) for text in ("yes", "no")),
        *(choice("Label:", text, 1) for text in (" yes", " no")),
        *(choice("answer:", text, 2) for text in ("是的", "的")),
    ]
    caveats = request_caveats(encoder, requests, 64)
    assert told(caveats) == {
        "choice_without_tokens": (1, 3),
        "choice_merged": (1, 3),
        "choices_alike": (1, 3),
    }
    lost = caveats[0].text
    assert "in 1 of 3 items" in lost
    assert "'Label:' + 'yes'" in lost
    assert "target_delimiter" in lost
    assert "'是的' and '的'" in caveats[2].text
    assert not any(caveat.fatal for caveat in caveats)


def test_prompts_that_lose_their_beginning_are_counted():
    encoder = encoder_of()
    sentence = "the film was dull"
    requests = [
        choice(sentence * repeats, text, repeats) for repeats in (1, 2, 40) for text in (" yes", " no")
    ]
    (caveat,) = request_caveats(encoder, requests, 64)
    assert (caveat.kind, caveat.count, caveat.total) == ("prompt_cut", 1, 3)
    longest = len(encoder.encode(sentence * 40)) + 1 - 65
    assert f"up to {longest} tokens" in caveat.text
    # exactly what fits is not cut: the base reads all but the last token
    length = len(encoder.encode(sentence * 2)) + 1
    assert told(request_caveats(encoder, requests[:4], length - 1)) == {}
    assert told(request_caveats(encoder, requests[:4], length - 2)) == {"prompt_cut": (1, 2)}
    assert told(request_caveats(encoder, requests[:4], length + 1, reserved=3)) == {"prompt_cut": (1, 2)}


def test_prompts_of_generation_leave_room_for_the_answer():
    encoder = encoder_of()
    ids = len(encoder.encode("the film was dull"))

    def ask(written: int) -> Request:
        return Request("generate_until", "the film was dull", generation={"max_gen_toks": written})

    assert request_caveats(encoder, [ask(64 - ids)], 64) == ()
    assert told(request_caveats(encoder, [ask(64 - ids + 1)], 64)) == {"prompt_cut": (1, 1)}
    (caveat,) = request_caveats(encoder, [ask(64)], 64)
    assert caveat.fatal
    assert "max_gen_toks 64 leaves no room" in caveat.text


def test_answers_that_are_cut_off_are_counted_and_the_first_is_named():
    encoder = encoder_of()
    long = "the film was dull" * 9

    def example(prompt: str, answer: str) -> Example:
        return Example((Segment(prompt, False), Segment(answer, True)))

    examples = [
        example("Label:", " yes"),
        example(long, " yes"),
        example("Label:", long),
        example(long, " no"),
    ]
    caveats = example_caveats(encoder, examples, Training(max_length=20))
    assert told(caveats) == {"answer_lost": (2, 4), "answer_cut": (1, 4)}
    assert (
        "in 2 of 4 examples (first: 2) nothing of the answer is left within max_length 20" in caveats[0].text
    )
    assert "(first: 3)" in caveats[1].text
    assert example_caveats(encoder, examples, Training(max_length=2000)) == ()


def test_ends_in_the_data_are_told_where_they_differ_or_stand_inside():
    encoder = encoder_of()
    rows = [" yes", " yes<|end|>", " yes<|end|> and no"]
    examples = [Example((Segment("Label:", False), Segment(text, True))) for text in rows]
    assert told(example_caveats(encoder, examples, Training())) == {
        "ended_before": (1, 3),
        "end_inside": (1, 3),
    }
    assert example_caveats(encoder, examples[1:2] * 3, Training()) == ()


def test_long_texts_are_tokenised_without_a_foreign_warning(caplog):
    encoder = encoder_of()
    with caplog.at_level(logging.WARNING, logger="transformers"):
        encoder.encode("the film was dull" * 90)
        encoder.encode_all(["the film was dull" * 80])
        encoder.examples([Example((Segment("the film was dull" * 70, True),))], 9999, "all")
    assert caplog.records == []


# ---- the reported cases


@pytest.mark.shared
def test_the_end_token_of_a_chat_template_is_not_doubled(shared):
    from transformers import AutoTokenizer

    case = Path(shared) / "cases/models/14_end_token_doubled_by_chat_template"
    tokenizer = AutoTokenizer.from_pretrained(case / "base")
    turns = json.loads((case / "src.jsonl").read_text().splitlines()[0])["messages"]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    head = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    tokenized = row(Encoder(tokenizer), (head, False), (whole[len(head) :], True))
    words = [tokenizer.decode([token]) for token in tokenized.ids[tokenized.learn]]
    assert words == ["\n", "no", "<|im_end|>"]
