"""A cell of text -> a number: percent, ``45.1 ± 1.2``, thousands, decimal commas, words for what is missing.

Whether a comma is a decimal mark or parts thousands is a matter of the whole table: ``has_decimal_commas``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite, isinf, nan
from typing import Any, NamedTuple

MISSING = frozenset(
    {
        *(
            "",
            "na",
            "n/a",
            "n.a.",
            "n.a",
            "#n/a",
            "nan",
            "nan%",
            "null",
            "none",
            "nil",
            "<na>",
            "not available",
        ),
        *(
            "-",
            "--",
            "---",
            "—",
            "–",
            "−",
            "/",
            "\\",
            ".",
            "..",
            "...",
            "…",
            "?",
            "n.d.",
            "n.d",
            "n/d",
            "missing",
        ),
        *("#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"),
    }
)
# Words for a result that there should have been: missing too, and told.
FAILED = frozenset(
    {
        *("oom", "failed", "fail", "error", "timeout", "timed out", "crash", "crashed", "dnf", "diverged"),
        *("tbd", "tba", "todo", "pending", "running", "not run", "not evaluated", "unknown", "skipped"),
    }
)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_GROUPS_OF_DOTS = re.compile(r"[-+]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?")
_GROUPS_OF_COMMAS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_SPACES = re.compile(r"(?<=\d)[\s\u00a0\u202f\u2009'’](?=\d{3}(?:\D|$))")
_PLUS_MINUS = re.compile(r"\s*(?:±|\+/-|\+-|\\pm)\s*")
_MARKS = re.compile(r"^[~≈*†‡§¶]+\s*|\s*[*†‡§¶↑↓⬆⬇🥇🥈🥉⭐\ufe0f]+$")
# ``45.1 (1.2)``, ``45.1 [44.0, 46.2]``, ``45.1 (± 1.2)``: a number with further ones behind it
_BRACKETS = re.compile(r"([^()\[\]]*\d%?)\s*[(\[]\s*((?:±|\+/-)?)\s*([-+−\d][-+−–\d.,;:/%\s]*)[)\]]")


class CellNumber(NamedTuple):
    """A cell's number (NaN where it is missing), its standard error (NaN where unknown), whether it has a
    percent sign, and what was left out of it: ``marks`` or ``brackets``."""

    value: float
    stderr: float = nan
    percent: bool = False
    aside: str = ""


_UNKNOWN = CellNumber(nan)


def is_missing(cell: Any) -> bool:
    """Whether a cell is empty or holds a word for what is missing."""
    if not isinstance(cell, str):
        return cell is None or cell != cell
    word = cell.strip().strip("()[]").strip().lower()
    return word in MISSING or word in FAILED


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
    if is_missing(cell):
        return _UNKNOWN
    text = cell.strip()
    if not any(letter.isdecimal() for letter in text):
        return None
    text, aside = _without_asides(text)
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
    return CellNumber(known[0], known[1] if len(known) == 2 else nan, percent, aside)


def _without_asides(text: str) -> tuple[str, str]:
    """The text of a number without footnote marks and what stands in brackets behind it; a ± stays."""
    plain = _MARKS.sub("", _MARKS.sub("", text))
    aside = "marks" if plain != text else ""
    bracketed = _BRACKETS.fullmatch(plain)
    if bracketed is None:
        return plain, aside
    value, sign, inside = bracketed.groups()
    return (f"{value} ± {inside}", aside) if sign else (value, "brackets")


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
                piece = _SPACES.sub("", _without_asides(piece.strip())[0])
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
