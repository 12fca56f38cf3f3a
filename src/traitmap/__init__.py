"""What does each fine-tune do to everything else, why, and which should I pick for my task?"""
