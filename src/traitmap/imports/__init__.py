"""Results of other harnesses, read with what they were measured under."""
