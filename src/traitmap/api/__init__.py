"""The same words from Python as on the command line; a ``Run`` answers the rest.

Each function is loaded when it is first used, so that a short question does not wait for what another needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
