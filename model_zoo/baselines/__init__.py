"""Comparison models that are not backbones of a mixture: one block and one model per file."""
