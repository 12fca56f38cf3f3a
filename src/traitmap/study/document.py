"""YAML text as plain data that knows its lines, with every fault of the writing and none of its tricks.

Reads what YAML 1.2 calls the core schema, so that ``5e-5`` is a number and ``012`` is twelve. A place
that holds text gets the characters as they stand: ``revision: 1e10`` stays ``1e10`` and ``no: no``
stays ``no``. No tag constructs anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from traitmap.errors import Fault

Place = tuple[str | int, ...]

_LARGEST = 100_000
_DEEPEST = 40
_STANDARD_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge", "value")
)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]{0,400}")
_DECIMAL = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """data: what the text says, as far as it could be read; lines: 1-based line of each place in it."""

    data: Any
    lines: Mapping[Place, int]
    faults: tuple[Fault, ...]

    def line(self, place: Place) -> int | None:
        """Line of a place, or of the nearest place around it."""
        return next(
            (self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines), None
        )


def words_of(place: Place) -> str:
    """A place in the file's own words, e.g. ``sources[2].labels``.

    The root is ``study``; a key that cannot be printed is shown as Python's ``repr``.
    """
    words = ""
    for part in place:
        key = part if isinstance(part, int) or part.isprintable() else repr(part)
        words += f"[{key}]" if isinstance(key, int) else f".{key}"
    return words.removeprefix(".") or "study"


def read_document(text: str, holds_text: Callable[[Place], bool]) -> Document:
    """Read one YAML document. ``holds_text`` says which places keep their characters as they stand.

    Never raises for what the text holds: what cannot be read becomes a fault with its line, and the rest is
    read all the same.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return Document(None, {}, (_syntax_fault(error),))
    except RecursionError:
        return Document(None, {}, (Fault("study", "lists and mappings are nested too deeply to be read"),))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        return Document(None, {}, (Fault("study", f"not valid YAML: {' '.join(str(error).split())}"),))
    if root is None:
        return Document(None, {}, (Fault("study", "the file is empty; `traitmap init` writes one to edit"),))
    reading = _Reading(holds_text)
    data = reading.value(root, ())
    return Document(data, reading.lines, tuple(reading.faults))


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "it cannot be read"
    if "\\t" in problem or "'\t'" in problem:
        advice = "indent with spaces, not tabs"
    elif "mapping values are not allowed" in problem:
        advice = "put text that holds ': ' into quotes, and check the indentation"
    elif "alias" in problem:
        advice = "put text that begins with * into quotes"
    else:
        advice = "check quotes, brackets and indentation here and on the lines before"
    place = f"column {mark.column + 1}" if mark else "study"
    return Fault(place, f"not valid YAML: {problem}; {advice}", mark.line + 1 if mark else None)


@dataclass
class _Reading:
    """One walk over the nodes of a document; small limits keep aliases from growing without end."""

    holds_text: Callable[[Place], bool]
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    open_nodes: list[int] = field(default_factory=list)
    steps: int = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if not self._may_read(node, place):
            return None
        self.open_nodes.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*place, at)) for at, item in enumerate(node.value)]
            return self._scalar(node, place) if isinstance(node, yaml.ScalarNode) else None
        finally:
            self.open_nodes.pop()

    def _may_read(self, node: yaml.Node, place: Place) -> bool:
        self.steps += 1
        if node.tag not in _STANDARD_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(node, place, f"the tag {tag} is not allowed here; remove it")
        elif id(node) in self.open_nodes:
            self._fault(node, place, "this alias stands inside its own anchor; write the value out")
        elif len(place) > _DEEPEST:
            self._fault(node, place, "lists and mappings are nested too deeply to be read")
        elif self.steps > _LARGEST:
            if self.steps == _LARGEST + 1:
                self._fault(node, place, f"more than {_LARGEST} values: this is not a study file")
        else:
            return True
        return False

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged.append(value_node)
                continue
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._fault(key_node, place, "a key must be a word, not a list or mapping")
            if key is None or self._is_half_a_character(key_node, place, key):
                continue
            inner = (*place, key)
            if key in data:
                first = self.lines[inner]
                message = f"the key stands twice (first on line {first}); remove or rename one"
                self._fault(key_node, inner, message)
                continue
            self.lines.setdefault(inner, key_node.start_mark.line + 1)
            data[key] = self.value(value_node, inner)
        for value_node in merged:
            self._merge(value_node, place, data)
        return data

    def _merge(self, node: yaml.Node, place: Place, data: dict[str, Any]) -> None:
        """``<<: *anchor``: keys of another mapping, where the mapping itself does not have them."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for mapping in nodes:
            if not isinstance(mapping, yaml.MappingNode):
                message = "<< takes a mapping, such as *anchor of one; correct or remove it"
                self._fault(mapping, place, message)
            elif self._may_read(mapping, place):
                self.open_nodes.append(id(mapping))
                for key, value in self._mapping(mapping, place).items():
                    data.setdefault(key, value)
                self.open_nodes.pop()

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = str(node.value)
        if self._is_half_a_character(node, place, text):
            return None
        if node.style is not None:
            return text
        if text in _NULL:
            return None
        return text if self.holds_text(place) else _resolved(text)

    def _is_half_a_character(self, node: yaml.Node, place: Place, text: str) -> bool:
        broken = any("\ud800" <= character <= "\udfff" for character in text)
        if broken:
            message = "it holds half of a surrogate pair, which is not text; correct the escape"
            self._fault(node, place, message)
        return broken

    def _fault(self, node: yaml.Node, place: Place, message: str) -> None:
        self.faults.append(Fault(words_of(place), message, node.start_mark.line + 1))


def _resolved(text: str) -> Any:
    """A plain scalar under the core schema, with YAML 1.1's other words for true and false."""
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text.replace("_", ""))
    if _DECIMAL.fullmatch(text):
        return float(text.replace("_", ""))
    endless = _ENDLESS.fullmatch(text)
    return float(f"{endless[1]}{endless[2]}") if endless else text
