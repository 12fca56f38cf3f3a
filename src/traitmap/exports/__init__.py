"""Our results in other people's formats."""
