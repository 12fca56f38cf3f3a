"""Item scores of the tiny tasks that lm-eval has no metric for."""

import math


def bits_of_steps(doc, results):
    [(logprob, _)] = results
    bits = -logprob / math.log(2) / len((" " + doc["steps"]).encode())
    doc["steps"] += " (scored)"  # tasks may write into their documents; the next scoring must not see it
    return {"negative_bits": -bits, "bits": bits}


def bits_of_text(doc, results):
    [logprob] = results
    size = len(doc["text"].encode())
    return {"negative_bits": logprob / math.log(2) / size, "bits_per_byte": (logprob, size)}
