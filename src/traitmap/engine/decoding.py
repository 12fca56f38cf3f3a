"""lm-evaluation-harness's generation settings, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from traitmap.errors import ModelError

_LEGAL = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"})
_DEFAULT_MAX_GEN_TOKS = 256  # lm-eval's own default


@dataclass(frozen=True)
class Decoding:
    """Settings of one request, normalised as lm-eval normalises them."""

    until: tuple[str, ...]
    max_tokens: int
    sample: bool
    temperature: float
    top_p: float
    top_k: int


def decoding_of(generation: Mapping[str, Any]) -> Decoding:
    """Read lm-eval's generation kwargs. ModelError names a key that is not supported."""
    from lm_eval.models.utils import normalize_gen_kwargs  # takes a second to import

    kwargs = dict(normalize_gen_kwargs(dict(generation), _DEFAULT_MAX_GEN_TOKS))
    unknown = sorted(kwargs.keys() - _LEGAL)
    if unknown:
        raise ModelError(
            f"generation_kwargs: {unknown[0]!r} is not supported; legal: {', '.join(sorted(_LEGAL))}."
        )
    until = kwargs.get("until") or []
    return Decoding(
        until=tuple(term for term in ([until] if isinstance(until, str) else until) if term),
        max_tokens=int(kwargs["max_gen_toks"]),
        sample=bool(kwargs["do_sample"]) and float(kwargs.get("temperature") or 0.0) > 0.0,
        temperature=float(kwargs.get("temperature") or 0.0),
        top_p=float(kwargs.get("top_p", 1.0)),
        top_k=int(kwargs.get("top_k", 0)),
    )
