"""The study file: read, validated, and turned into frozen settings."""
