"""Dependency relations of texts, by any spaCy pipeline with a parser, and distances of datasets by them.

The label scheme (Universal Dependencies or ClearNLP) is recorded with the counts: relations of different
schemes have other names. spaCy is imported late, and only here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from traitmap.analysis.profiles.pairs import Feature
from traitmap.errors import UserError
from traitmap.progress import Listener, Progress, silent

Scheme = Literal["UD", "ClearNLP", "other"]

OBJECT_PREDICATE = "object_predicate"
_UNUSED = ["ner", "lemmatizer", "textcat", "textcat_multilabel", "entity_linker", "senter"]
_NOMINAL = {"ADJ", "NOUN", "PROPN", "ADV"}
_NOMINAL_PENN = ("JJ", "NN", "RB")  # beginnings of Penn Treebank tags, for pipelines without UPOS


@dataclass(frozen=True)
class Parser:
    """A loaded pipeline.

    name: as the pipeline calls itself, with its version. labels: relations that its parser knows.
    scheme: ``UD`` (Universal Dependencies 2), ``ClearNLP`` (spaCy's own English pipelines) or ``other``.
    """

    name: str
    labels: tuple[str, ...]
    scheme: Scheme
    pipeline: Any = field(repr=False, compare=False)

    @property
    def derived(self) -> Mapping[str, str]:
        """Relations that are made here out of others, and how."""
        if self.scheme != "UD":
            return {}
        made = "xcomp whose dependent is ADJ, NOUN, PROPN or ADV: the counterpart of ClearNLP's oprd"
        return {OBJECT_PREDICATE: made}


@dataclass(frozen=True)
class Relations:
    """Dependency relations of one dataset's texts. n texts that were parsed, R relations.

    labels: (R,) relations that occur, sorted. counts: (n, R) how often each occurs in each text.
    texts: (n,) index of every parsed text, ascending; available: texts that there were to parse.
    words: (n,) words and signs of each text. cut: texts of which only the beginning was parsed.
    """

    parser: str
    scheme: Scheme
    derived: Mapping[str, str]
    labels: tuple[str, ...]
    counts: NDArray[np.int32]
    texts: NDArray[np.int64]
    available: int
    words: NDArray[np.int64]
    cut: int = 0

    @property
    def present(self) -> NDArray[np.bool_]:
        """(n, R) whether each relation occurs in each text."""
        return self.counts > 0

    def shares(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """(L,) share of the parsed texts in which each of ``labels`` occurs; NaN where none was parsed."""
        if not len(self.texts):
            return np.full(len(labels), np.nan)
        present = dict(zip(self.labels, self.present.mean(axis=0), strict=True))
        return np.array([present.get(label, 0.0) for label in labels])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: how many texts were parsed, by what, and how common each relation is in them."""
        occurrences, texts = self.counts.sum(axis=0), self.present.sum(axis=0)
        return {
            "parser": self.parser,
            "scheme": self.scheme,
            "derived": dict(self.derived),
            "parsed": len(self.texts),
            "available": self.available,
            "cut": self.cut,
            "words": int(self.words.sum()),
            "relations": {
                label: {"count": int(count), "texts": int(number)}
                for label, count, number in zip(self.labels, occurrences, texts, strict=True)
            },
        }


def load_parser(pipeline: str | Path) -> Parser:
    """A spaCy pipeline by path or installed name.

    Raises UserError where spaCy is not installed, the pipeline is not there, or it has no parser.
    """
    try:
        import spacy
    except ImportError:
        raise UserError(
            "dependency relations need spaCy, which is not installed: pip install 'traitmap[syntax]'"
        ) from None
    try:
        loaded = spacy.load(pipeline, exclude=_UNUSED)
    except OSError:
        raise UserError(
            f"parser {str(pipeline)!r} is neither the folder of a spaCy pipeline nor the name of an "
            "installed one; give a path, or install one, e.g. python -m spacy download en_core_web_sm"
        ) from None
    except (ValueError, ImportError, KeyError) as error:
        raise UserError(f"parser {str(pipeline)!r} cannot be loaded by spaCy: {error}") from error
    parsers = [
        name for name in loaded.pipe_names if "token.dep" in (loaded.get_pipe_meta(name).assigns or ())
    ]
    if not parsers:
        raise UserError(
            f"pipeline {str(pipeline)!r} has no dependency parser (its parts: "
            f"{', '.join(loaded.pipe_names) or 'none'}); give one with a parser, such as en_core_web_sm"
        )
    labels = tuple(sorted(getattr(loaded.get_pipe(parsers[0]), "labels", ())))
    meta = loaded.meta
    name = f"{meta.get('lang', '')}_{meta.get('name', '')} {meta.get('version', '')}".strip()
    return Parser(name, labels, label_scheme(labels), loaded)


def label_scheme(labels: Sequence[str]) -> Scheme:
    """Which scheme a set of labels belongs to: only UD 2 has ``obl``, only ClearNLP ``pobj``."""
    if "obl" in labels and "case" in labels:
        return "UD"
    return "ClearNLP" if "pobj" in labels and "dobj" in labels else "other"


def parse_relations(
    parser: Parser,
    texts: Mapping[str, Sequence[str]],
    *,
    max_texts: int | Mapping[str, int | None] | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> dict[str, Relations]:
    """Relations of every dataset's texts. A text that stands in several places is parsed once.

    max_texts: of each dataset, or of each by name, drawn by ``seed`` where it has more; None takes all.
    Reports the stage ``parse`` in texts.
    A text longer than the pipeline takes (spaCy: a million characters) is parsed up to there.
    """
    most = max_texts if isinstance(max_texts, Mapping) else dict.fromkeys(texts, max_texts)
    places: dict[str, NDArray[np.int64]] = {}
    for name, members in texts.items():
        size = most.get(name)
        places[name] = np.arange(len(members))
        if size is not None and len(members) > size:
            drawn = np.random.default_rng(seed).choice(len(members), size, replace=False)
            places[name] = np.sort(drawn)
    unique = list(dict.fromkeys(texts[name][index] for name, at in places.items() for index in at))
    parsed = dict(zip(unique, _parsed(parser, unique, listener), strict=True))
    longest = parser.pipeline.max_length
    return {
        name: _relations(
            parser,
            [parsed[texts[name][index]] for index in at],
            at,
            len(texts[name]),
            sum(len(texts[name][index]) > longest for index in at),
        )
        for name, at in places.items()
    }


def _parsed(parser: Parser, texts: Sequence[str], listener: Listener) -> Iterator[tuple[Counter[str], int]]:
    """Counts of relations and number of words of each text, in order."""
    longest = parser.pipeline.max_length
    stream = (text[:longest] for text in texts)
    for done, document in enumerate(parser.pipeline.pipe(stream, batch_size=64), start=1):
        yield _counted(document, parser.scheme)
        if done % 64 == 0 or done == len(texts):
            listener(Progress("parse", done, len(texts)))


def _counted(document: Any, scheme: Scheme) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    words = 0
    for token in document:
        if token.is_space:
            continue
        words += 1
        counts[token.dep_] += 1
        if scheme == "UD" and token.dep_.partition(":")[0] == "xcomp":
            nominal = token.pos_ in _NOMINAL if token.pos_ else token.tag_.startswith(_NOMINAL_PENN)
            counts[OBJECT_PREDICATE] += nominal
    return counts, words


def _relations(
    parser: Parser,
    parsed: Sequence[tuple[Counter[str], int]],
    texts: NDArray[np.int64],
    available: int,
    cut: int,
) -> Relations:
    labels = tuple(sorted({label for counts, _ in parsed for label in counts if label}))
    return Relations(
        parser=parser.name,
        scheme=parser.scheme,
        derived=parser.derived,
        labels=labels,
        counts=np.array([[counts[label] for label in labels] for counts, _ in parsed], np.int32).reshape(
            len(parsed), len(labels)
        ),
        texts=texts,
        available=available,
        words=np.array([words for _, words in parsed], np.int64),
        cut=cut,
    )


def relation_shares(relations: Relations) -> dict[str, float]:
    """Share of all relations that each one makes up; derived ones are left out, being counted.

    Over all parsed texts together; from 0 to 1. Empty where no relation was found.
    """
    totals = relations.counts.sum(axis=0)
    counted = [number for number, label in enumerate(relations.labels) if label not in relations.derived]
    whole = int(totals[counted].sum())
    return {relations.labels[number]: float(totals[number] / whole) for number in counted} if whole else {}


def syntax_feature(sources: Mapping[str, Relations], targets: Mapping[str, Relations]) -> Feature:
    """(S, T) distance of the relations that make up the texts: Jensen-Shannon, 0 the same to 1 disjoint.

    NaN where a dataset has no relation. Returned as a feature of pairs, beside those of ``pair_features``.
    """
    shares = [relation_shares(relations) for relations in (*sources.values(), *targets.values())]
    labels = sorted({label for share in shares for label in share})
    table = np.array([[share.get(label, 0.0) for label in labels] for share in shares])
    table = table.reshape(len(shares), len(labels))
    values = np.full((len(sources), len(targets)), nan)
    for s in range(len(sources)):
        for t in range(len(targets)):
            source, target = table[s], table[len(sources) + t]
            if source.sum() and target.sum():
                values[s, t] = jensenshannon(source, target, base=2)
    return Feature(
        "syntax_distance", "hidden", "dependency relations in other proportions than the target's", values
    )
