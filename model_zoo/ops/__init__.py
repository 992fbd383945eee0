"""Kernels and tensor functions, which know nothing of models."""
