"""Plan, store and execution of a study's units of work."""
