"""Records -> one HTML file, figures and terminal tables; computes nothing statistical.

Names are loaded when they are first used: a table on the terminal needs no page, a page no terminal.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
