"""Histories: indices into rows of item vectors, which are looked up only where they are read."""
