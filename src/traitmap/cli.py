"""The command line: parse, one library call, print. Heavy imports happen inside the commands."""


def main() -> None:
    """Entry point of ``traitmap``."""
