"""The engine over a server that speaks OpenAI's completions protocol; imports no torch of its own."""

from __future__ import annotations

from traitmap.engine.endpoint.engine import EndpointEngine

__all__ = ["EndpointEngine"]
