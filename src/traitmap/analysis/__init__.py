"""Arrays in, records out: why a transfer matrix looks as it does, and which source to take.

Nothing here reads a file, asks a model or imports torch. The names below are loaded when they are first used:
scikit-learn and scipy take a second.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
