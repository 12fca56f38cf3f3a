"""A number with its uncertainty, as every analysis hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval (another level where the owner says so).

    Unknown numbers are NaN; reason then says why.
    """

    value: float
    low: float = nan
    high: float = nan
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an estimate at all."""
        return isfinite(self.value)

    def to_json(self) -> dict[str, float | str | None]:
        """Plain JSON data; unknown numbers are null."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        told: dict[str, float | str | None] = {
            name: number if isfinite(number) else None for name, number in numbers.items()
        }
        return {**told, "reason": self.reason} if self.reason else told


def unknown(reason: str) -> Interval:
    """No estimate, and why."""
    return Interval(nan, nan, nan, reason)
