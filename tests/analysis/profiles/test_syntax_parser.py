"""Relations of texts by a pipeline from disk: counted, sampled, and refused where there is no parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rule_parser

from traitmap.analysis.profiles.parser import (
    Parser,
    label_scheme,
    load_parser,
    parse_relations,
    relation_shares,
    syntax_feature,
)
from traitmap.errors import UserError
from traitmap.progress import Progress

TEXTS = ("it becomes red", "it goes to town", "it goes aside to town to rest", "it goes to town")


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Parser:
    return load_parser(rule_parser.save(tmp_path_factory.mktemp("pipeline") / "rule"))


def test_relations_are_counted_text_by_text(parser: Parser) -> None:
    found = parse_relations(parser, {"a": TEXTS})["a"]
    count = dict(zip(found.labels, found.counts.T.tolist(), strict=True))
    assert count == {
        "ROOT": [1, 1, 1, 1],
        "case": [0, 1, 2, 1],
        "obl": [0, 2, 3, 2],
        "parataxis": [0, 0, 1, 0],
        "xcomp": [2, 0, 0, 0],
        "object_predicate": [1, 0, 0, 0],
    }
    assert found.words.tolist() == [3, 4, 7, 4]
    assert (found.scheme, found.available, found.cut) == ("UD", 4, 0)
    assert "oprd" in found.derived["object_predicate"]
    assert found.present.tolist() == (found.counts > 0).tolist()
    broken = parse_relations(parser, {"a": ["it becomes \n\n red"]})["a"]
    assert broken.words.tolist() == [3]  # line breaks are tokens of spaCy's, and no words


def test_the_object_predicate_is_made_for_universal_dependencies_alone(tmp_path: Path) -> None:
    clear = load_parser(rule_parser.save(tmp_path / "clear", labels=("ROOT", "dobj", "pobj", "oprd")))
    found = parse_relations(clear, {"a": TEXTS})["a"]
    assert (found.scheme, found.derived) == ("ClearNLP", {})
    assert "object_predicate" not in found.labels
    assert label_scheme(("sb", "oa", "nk")) == "other"


def test_a_sample_is_a_part_of_the_whole_and_its_seed_tells_which(parser: Parser) -> None:
    many = [f"{'aside ' * (n % 3)}it goes to {n}" for n in range(50)]
    whole = parse_relations(parser, {"a": many})["a"]
    some, again, other = (
        parse_relations(parser, {"a": many}, max_texts=20, seed=seed)["a"] for seed in (0, 0, 1)
    )
    assert some.texts.tolist() == again.texts.tolist() != other.texts.tolist()
    assert some.available == 50
    assert np.array_equal(some.counts, whole.counts[some.texts])


def test_a_text_is_parsed_once_wherever_it_stands(parser: Parser) -> None:
    heard: list[Progress] = []
    found = parse_relations(parser, {"a": TEXTS, "b": TEXTS[1:]}, listener=heard.append)
    assert heard[-1] == Progress("parse", 3, 3)
    assert np.array_equal(found["a"].words[1:], found["b"].words)
    assert parse_relations(parser, {"none": ()})["none"].counts.shape == (0, 0)


def test_what_cannot_parse_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dependency parser"):
        load_parser(rule_parser.save(tmp_path / "blank", parser=False))
    with pytest.raises(UserError, match="spacy download"):
        load_parser("no_such_pipeline")
    code = (
        "import sys; sys.modules['spacy'] = None\n"  # as where it is not installed
        "from traitmap.analysis.profiles.parser import load_parser\n"
        "from traitmap.errors import UserError\n"
        "try: load_parser('x')\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'traitmap[syntax]'" in done.stdout, done.stderr


def test_datasets_of_the_same_relations_have_no_distance(parser: Parser) -> None:
    found = parse_relations(parser, {"a": TEXTS, "b": ["it becomes red"], "c": TEXTS * 2})
    shares = relation_shares(found["a"])
    assert sum(shares.values()) == pytest.approx(1)
    assert "object_predicate" not in shares
    values = syntax_feature({"a": found["a"], "b": found["b"]}, {"a": found["a"], "c": found["c"]}).values
    assert values[0] == pytest.approx([0, 0], abs=1e-7)
    assert values[1, 0] == pytest.approx(values[1, 1])
    assert 0 < values[1, 0] < 1


@pytest.mark.shared
def test_a_real_parser_finds_the_object_predicate(shared: Path) -> None:
    parser = load_parser(shared / "parser" / "en_ud_ewt")
    assert parser.scheme == "UD"
    texts = ["The box is considered empty.", "He painted the door red.", "He painted the door."]
    found = parse_relations(parser, {"a": texts})["a"]
    assert found.present[:, found.labels.index("object_predicate")].tolist() == [True, True, False]
