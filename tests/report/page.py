"""A strict reading of a report: elements balanced, text and attributes collected."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})
SVG = "{http://www.w3.org/2000/svg}"


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str = "", **wanted: str) -> list[Element]:
        """Every element below (itself too) with the tag and attributes."""
        here = [] if tag and self.tag != tag else [self]
        here = [one for one in here if all(one.attributes.get(k) == v for k, v in wanted.items())]
        return here + [found for child in self.children for found in child.all(tag, **wanted)]

    def words(self) -> str:
        """All text below."""
        return self.text + "".join(child.words() for child in self.children)


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        # Text is kept in order by giving it an element of its own.
        self.open[-1].children.append(Element("#text", {}, text=data))


def parse(page: str) -> Element:
    """The page as a tree; fails where an element is closed out of turn or not at all."""
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert [element.tag for element in builder.open] == ["document"]
    return builder.root


def figures(page: str) -> list[ElementTree.Element]:
    """Every SVG, read as XML by a parser that forgives nothing."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg\b.*?</svg>", page, flags=re.DOTALL)]


def cells(figure: ElementTree.Element) -> list[tuple[str, str, bool]]:
    """Class, text and whether it is hatched, of every cell of the heat map below the base row."""
    found = []
    for group in figure.iter(f"{SVG}g"):
        style = group.get("class", "").split()
        if "cell" in style and "base" not in style:
            text = "".join(group.find(f"{SVG}text").itertext())
            hatched = any("unknown" in rect.get("fill", "") for rect in group.iter(f"{SVG}rect"))
            found.append((" ".join(style[1:]), text, hatched))
    return found
