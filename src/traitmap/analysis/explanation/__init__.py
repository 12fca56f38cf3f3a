"""Why: hidden and surface properties held against gains, with tests that can fail."""
