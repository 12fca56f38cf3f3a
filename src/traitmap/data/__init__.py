"""Sources and targets: what is trained on and what is asked."""
