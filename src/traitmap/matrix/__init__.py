"""The transfer matrix: its record, its statistics, how it is built from a run and read from a table.

The names below are loaded when they are first used: the tests of scipy take a third of a second.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
