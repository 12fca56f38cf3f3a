"""One cell of a table -> a number: percent signs, ``45.1 ± 1.2``, thousands, decimal commas, missing values.

Whether a comma is a decimal mark or parts thousands is a matter of the whole table: ``has_decimal_commas``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite, isinf, nan
from typing import Any, NamedTuple

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "--", "—", "–", "<na>"})
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_GROUPS_OF_DOTS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?")
_GROUPS_OF_COMMAS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_SPACES = re.compile(r"(?<=\d)[\s\u00a0\u202f\u2009'’](?=\d{3}(?:\D|$))")
_PLUS_MINUS = re.compile(r"\s*(?:±|\+/-|\+-|\\pm)\s*")


class CellNumber(NamedTuple):
    """A cell's number (NaN where it is missing), its standard error (NaN where unknown), and whether it has a
    percent sign."""

    value: float
    stderr: float = nan
    percent: bool = False


_UNKNOWN = CellNumber(nan)


def parsed_number(cell: Any, *, decimal_comma: bool = False) -> CellNumber | None:
    """A cell as a number; None for text, infinity and truth values.

    decimal_comma: read ``45,1`` as 45.1 and ``1.234,5`` as 1234.5.
    """
    if cell is None or type(cell).__name__ == "NAType":
        return _UNKNOWN
    if isinstance(cell, bool):
        return None
    if not (decimal_comma and isinstance(cell, str) and "." in cell):
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            return None if isinf(number) else CellNumber(number)
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    if text.lower() in MISSING:
        return _UNKNOWN
    if not text[-1:].isdigit() and text[-1] not in "%.":
        return None
    percent = "%" in text
    if percent:
        text = re.sub(r"\s*%", "", text)
    pieces = _PLUS_MINUS.split(text)
    if len(pieces) > 2:
        return None
    numbers = [_plain_number(piece.strip(), decimal_comma) for piece in pieces]
    if any(number is None or not isfinite(number) for number in numbers):
        return None
    known = [number for number in numbers if number is not None]
    return CellNumber(known[0], known[1] if len(known) == 2 else nan, percent)


def _plain_number(text: str, decimal_comma: bool) -> float | None:
    """Digits with their marks; None for anything else."""
    text = _SPACES.sub("", text.replace("−", "-"))
    if decimal_comma:
        if _GROUPS_OF_DOTS.fullmatch(text):
            text = text.replace(".", "")
        text = text.replace(",", ".") if text.count(",") == 1 else text
    elif _GROUPS_OF_COMMAS.fullmatch(text):
        text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        return None


def has_decimal_commas(cells: Iterable[Any], *, likely: bool) -> bool:
    """Whether commas in the numbers of a table are decimal marks.

    One ``45,1`` or ``0,451`` shows that they are, one ``45.1`` that they are not. Where all that have a comma
    could be thousands, they are taken for decimals if ``likely`` (where commas do not part the columns).
    """
    thousands = points = False
    for cell in cells:
        if not isinstance(cell, str) or not cell:
            continue
        if "," in cell:
            for piece in _PLUS_MINUS.split(cell.replace("%", "").replace("−", "-").strip()):
                piece = _SPACES.sub("", piece.strip())
                if _GROUPS_OF_DOTS.fullmatch(piece) and "," in piece:
                    return True
                if _THOUSANDS.fullmatch(piece):
                    thousands = True
                elif _DECIMAL_COMMA.fullmatch(piece):
                    return True
                elif _GROUPS_OF_COMMAS.fullmatch(piece):
                    points = True
        elif not points and "." in cell and parsed_number(cell) is not None:
            points = True
    return thousands and not points and likely
