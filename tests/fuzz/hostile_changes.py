"""Bytes -> a damaged file: the same bytes always damage it alike, whichever fuzzer draws them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_DEEP: list[Any] = []
for _ in range(60):
    _DEEP = [_DEEP]

# what stands where something else is expected
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**30, 10**400, 0.5, 1.5, -0.0, 1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "0", "1", "1e999", "nan", "inf", "N/A", "-", "true", "null", "none", "yes"),
    *("\0", "\n", "a\tb", "\u202e", "e\u0301", "．．／", "\U0001f4a5", "\x1b[31m", "\ud800", "ſ", "K"),
    *("../../x", "/etc/passwd", "C:\\x", "~", ".", "..", "CON", "__baseline__", "a" * 300, "a,b", "a=b,c"),
    *("<script>", "=1+1", "{{ 7*7 }}", "{% for i in range(9**9) %}", "{{ x", "!!python/none", "*a", "&a"),
    *([], {}, [[]], [None], [1, "1", None], {"": None}, {"a": {}}, {"a": [1]}, [{}], _DEEP),
)
# bytes that mean something to a reader of text
WORDS: tuple[bytes, ...] = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r", b"\t", b"\r\n", b" ", b"  "),
    *(b",", b";", b'"', b"'", b":", b": ", b"- ", b"[", b"]", b"{", b"}", b"#", b"|", b">", b"?", b"%"),
    *(b"&a ", b"*a", b"<<: *a", b"!!python/object/apply:os.system [true]", b"!!binary ", b"!a ", b"---\n"),
    *(b"...\n", b"&a [*a]", b"%YAML 1.1\n", b"\\u0000", b"\\ud800", b"\\x", b"\xe2\x80\xa8", b"\xc2\x85"),
    *(b"nan", b".nan", b".inf", b"-.inf", b"1e400", b"0x1F", b"0o17", b"1_000", b"1:30:30", b"2001-01-01"),
    *(b"9" * 30, b"9" * 5000, b"[" * 200, b"{a: " * 60, b"(" * 300, b"NaN", b"-Infinity", b"null", b"true"),
    *(b"source", b"target", b"value", b"seed", b"__baseline__", b"{{", b"}}", b"{%", b"%}", b"\x1b[2J"),
)


class Choices:
    """Decisions read off bytes, one after another; when they run out, the first choice is taken."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are not yet used."""
        return max(0, len(self._data) - self._at)

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        size = 1 if n <= 256 else 2 if n <= 65536 else 3
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "big") % max(n, 1)

    def of(self, things: Sequence[T]) -> T:
        """One of several things."""
        return things[self.below(len(things))]

    def some(self, most: int) -> bytes:
        """Bytes as they come."""
        size = self.below(most + 1)
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


def changed_tree(tree: Any, choices: Choices, most: int = 6) -> Any:
    """Plain data with up to ``most`` places replaced, removed, added, moved or doubled."""
    holder = [copy.deepcopy(tree)]
    for _ in range(choices.below(most + 1)):
        _change(holder, choices)
    return holder[0]


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if len(found) < 3000:
            found.append((node, key))
            _places(value, found)
    return found


def _change(holder: list[Any], choices: Choices) -> None:
    places = _places(holder, [])
    parent, key = choices.of(places)
    kind = choices.below(8)
    if kind <= 2:
        parent[key] = copy.deepcopy(choices.of(VALUES))
    elif kind == 3 and parent is not holder:
        del parent[key]
    elif kind == 4:
        other, at = choices.of(places)
        parent[key] = copy.deepcopy(other[at])
    elif kind == 5 and isinstance(parent[key], list):
        parent[key] = parent[key] * choices.below(4)
    elif kind == 6 and isinstance(parent, dict):
        named = choices.of([value for value in VALUES if isinstance(value, str)])
        parent[named] = parent.pop(key)
    elif kind == 7 and isinstance(parent[key], str):
        parent[key] = parent[key] + choices.some(12).decode("utf-8", "surrogateescape")
    else:
        parent[key] = [parent[key]] if choices.below(2) else {"a": parent[key]}


def changed_bytes(content: bytes, choices: Choices, most: int = 4) -> bytes:
    """The content with up to ``most`` bytes or slices changed, added, doubled or cut off."""
    found = bytearray(content)
    for _ in range(choices.below(most + 1)):
        at = choices.below(len(found) + 1)
        kind = choices.below(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << choices.below(8)
        elif kind == 1:
            found[at:at] = choices.of(WORDS)
        elif kind == 2:
            found[at:at] = choices.some(16)
        elif kind == 3:
            del found[at : at + choices.below(64) + 1]
        elif kind == 4:
            found[at:at] = found[at : at + choices.below(256) + 1]
        else:
            del found[at:]
    return bytes(found)
