"""What data and outcomes say of themselves: lengths, classes, style, meaning, syntax, difficulty."""
