"""Commands that ask why: profile, explain."""

from __future__ import annotations
