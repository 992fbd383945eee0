"""The figures, by what they are drawn from."""
