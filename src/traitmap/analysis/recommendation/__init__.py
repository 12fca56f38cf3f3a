"""Which source for my task: predicted gains with intervals, judged on held-out targets."""
