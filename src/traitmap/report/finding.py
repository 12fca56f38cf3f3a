"""A card of the headline: one finding that a section puts at the top of the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """heading: what was asked; big: the answer, a number or a few words; words: its evidence, in sentences.

    unit: stands small behind a number. side: ``better``, ``worse`` or nothing, for the colour.
    wordy: ``big`` is words, not a number. link: id of the section that shows it in full.
    """

    heading: str
    big: str
    words: str
    unit: str = ""
    side: str = ""
    wordy: bool = False
    link: str = ""
