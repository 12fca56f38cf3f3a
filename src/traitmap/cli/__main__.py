"""``python -m traitmap.cli`` is ``traitmap``."""

from traitmap.cli import main

main()
