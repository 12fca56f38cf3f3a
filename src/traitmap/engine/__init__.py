"""The language-model edge: the only place that imports torch, transformers and peft."""

from traitmap.engine.open import open_engine, open_engine_if_present, with_local_copy

__all__ = ["open_engine", "open_engine_if_present", "with_local_copy"]
