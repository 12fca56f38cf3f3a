"""Which source for which target: models, the protocol that judges them, and its metrics."""

from traitmap.analysis.recommendation import protocol as metrics

__all__ = ["metrics"]
