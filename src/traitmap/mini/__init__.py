"""The embedded study: generated task families, and a tiny base that knows their words."""
