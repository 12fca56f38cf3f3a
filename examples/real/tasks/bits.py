"""How well a model expects the right answer, where it is too small to give it."""

import math


def of_answer(doc, results):
    """Bits per byte of the gold answer given the question, negative so that more is better.

    The byte before the answer (a space or a line break) is scored with it and counted.
    """
    [(logprob, _)] = results
    return {"negative_bits_per_byte": logprob / math.log(2) / (1 + len(doc["answer"].encode()))}
