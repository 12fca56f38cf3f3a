"""A real spaCy pipeline whose parser goes by a rule: the word after ``becomes`` or ``counts`` tells."""

from __future__ import annotations

from typing import Any

import spacy
from spacy.language import Language

UD = ("ROOT", "case", "obl", "parataxis", "xcomp")


class RuleParser:
    """``to`` is case, ``becomes`` an xcomp, ``aside`` parataxis, anything else obl of the first word."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def __call__(self, document: Any) -> Any:
        relations = {"to": "case", "becomes": "xcomp", "red": "xcomp", "aside": "parataxis"}
        for token in document:
            token.dep_ = "ROOT" if token.i == 0 else relations.get(token.text, "obl")
            token.head = document[0]
            token.tag_ = "JJ" if token.text == "red" else "VBZ"
        return document


@Language.factory("rule_parser", assigns=["token.dep", "token.head"], default_config={"labels": list(UD)})
def make(nlp: Language, name: str, labels: list[str]) -> RuleParser:
    return RuleParser(tuple(labels))


def save(folder: Any, *, labels: tuple[str, ...] = UD, parser: bool = True) -> str:
    """A pipeline folder to load; without the parser on demand."""
    pipeline = spacy.blank("en")
    if parser:
        pipeline.add_pipe("rule_parser", config={"labels": list(labels)})
    pipeline.to_disk(folder)
    return str(folder)
