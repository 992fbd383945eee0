"""The backbones: each file has one sequence block and the model built on it."""
