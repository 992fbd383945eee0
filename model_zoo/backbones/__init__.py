"""The backbones: one block, one model and its mixture variants per file."""
