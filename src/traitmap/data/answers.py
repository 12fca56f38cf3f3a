"""The parts of a rendered example: where its output begins, where its label stands, and the same changed."""

from __future__ import annotations

import re
from dataclasses import replace

from traitmap.data.records import Example, Segment


class NoSuchPartError(Exception):
    """An example has not the part that is to be changed. The message says which and why."""


def label_span(example: Example) -> tuple[int, int]:
    """Begin and end of the label word in the output, in characters of it.

    NoSuchPartError where the example has no label, or its output holds the word not exactly once: then
    nobody can tell which of them is the label.
    """
    if example.label is None:
        raise NoSuchPartError("it has no label")
    output, word = one_output(example), example.label.strip()
    found = list(re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", output))
    if len(found) != 1:
        times = "not at all" if not found else f"{len(found)} times"
        raise NoSuchPartError(f"its label {word!r} stands {times} in its output {_short(output)!r}")
    return found[0].span()


def relabelled(example: Example, word: str) -> Example:
    """The example with another label word in the place of its own; everything else stays."""
    begin, end = label_span(example)
    output = one_output(example)
    return replace(with_output(example, output[:begin] + word.strip() + output[end:]), label=word)


def one_output(example: Example) -> str:
    """The output of an example that ends in it. NoSuchPartError for conversations with several turns."""
    learnt = [segment.learn for segment in example.segments]
    if not learnt or not learnt[-1] or any(learnt[:-1]) or example.output_from is not None:
        raise NoSuchPartError("it does not consist of an input and one output")
    return example.segments[-1].text


def with_output(example: Example, output: str) -> Example:
    """The example with another output."""
    return replace(example, segments=(*example.segments[:-1], Segment(output, True)))


def one_input(example: Example) -> str:
    """The input of an example. NoSuchPartError where all of it is learnt, or for several turns."""
    one_output(example)
    if len(example.segments) == 1:
        raise NoSuchPartError("it has no input: all its text is output")
    return example.prompt


def with_input(example: Example, text: str) -> Example:
    """The example with another input."""
    return replace(example, segments=(Segment(text, False), example.segments[-1]))


def learnt_at_label(example: Example, label: bool) -> Example:
    """The example of which the label alone is learnt, or all but the label; its text stays.

    The end token is learnt with what stands before it, and in the second case always.
    """
    begin, end = label_span(example)
    output = one_output(example)
    head = [segment.text for segment in example.segments[:-1] if segment.text]
    pieces = [(text, not label) for text in (*head, output[:begin])]
    pieces += [(output[begin:end], label), (output[end:], not label)]
    segments = [Segment(text, learn) for text, learn in pieces if text]
    if not label:
        segments.append(Segment("", True))  # the engine learns the end token as the last segment says
    return replace(example, segments=tuple(segments), output_from=len(head))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
