"""What follows from requests alone, kept between calls: every adapter is asked the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from traitmap.data.records import Request

Made = TypeVar("Made")
MOST = 2**20  # tokens of requests of which anything is kept: some 100 MB


@dataclass
class Kept:
    """Known by the requests' content, not by the object that they come in; the oldest go first.

    most: the sum of sizes that is kept.
    """

    most: int = MOST
    _found: list[tuple[Hashable, tuple[Request, ...], int, Any]] = field(default_factory=list)

    def of(
        self,
        settings: Hashable,
        requests: Sequence[Request],
        make: Callable[[], Made],
        size: Callable[[Made], int],
    ) -> Made:
        """What ``make`` gives for these requests under these settings; called where that is not kept."""
        asked = tuple(requests)
        for known, same, _, made in self._found:
            if known == settings and same == asked:  # quick: what is the same object is not looked into
                kept: Made = made
                return kept
        fresh = make()
        self._found.append((settings, asked, size(fresh), fresh))
        while self._found and sum(one[2] for one in self._found) > self.most:
            self._found.pop(0)
        return fresh
