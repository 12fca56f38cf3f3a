"""The same words from Python: load_study, check, run, open_run."""
