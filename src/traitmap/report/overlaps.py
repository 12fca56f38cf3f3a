"""Test items that stand in training texts, in words and as marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from traitmap.wording import counted, listed, share

if TYPE_CHECKING:
    from traitmap.analysis.contamination import ItemOverlap

MARK = "!"


@dataclass(frozen=True)
class Touched:
    """How much of one target stands in one source's training texts. material: a gain may be moved by it."""

    touched: int
    items: int
    kinds: str
    material: bool

    @property
    def words(self) -> str:
        """``36 of 499 (7 %): 30 equal, 6 nearly``."""
        return f"{self.touched:,} of {self.items:,} ({share(self.touched / self.items)}): {self.kinds}"


def touched_cells(conditions: Mapping[str, Any]) -> dict[tuple[str, str], Touched]:
    """The touched pairs that a matrix carries in its conditions, by (source, target)."""
    told = conditions.get("contamination")
    pairs = told if isinstance(told, list | tuple) else ()
    return {
        (pair["source"], pair["target"]): Touched(
            touched=pair["exact"] + pair["contained"] + pair["near"],
            items=pair["items"],
            kinds=_kinds(pair["exact"], pair["contained"], pair["near"], pair["short"]),
            material=bool(pair["material"]),
        )
        for pair in pairs
    }


def overlap_warning(one: ItemOverlap) -> str:
    """One line for the reader of a study that has not been run yet."""
    kinds = _kinds(one.exact, one.contained, one.near, one.short)
    said = (
        f"{one.source} -> {one.target}: {counted(len(one.touched), 'item')} of {one.items:,} "
        f"({share(one.share.value)}, 95 %: {share(one.share.low)} to {share(one.share.high)}) "
        f"in the training texts: {kinds}"
    )
    return said if one.material else f"{said}; too few to move a gain by a point"


def _kinds(exact: int, contained: int, near: int, short: int) -> str:
    counts = ((exact, "equal"), (contained, "within longer texts"), (near, "nearly equal"))
    said = listed([f"{count:,} {word}" for count, word in counts if count])
    return f"{said}, {short:,} of them below eight words" if short else said
