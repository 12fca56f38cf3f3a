"""The command that chooses: recommend."""

from __future__ import annotations
