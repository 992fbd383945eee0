"""Kernels and plain tensor functions, each beside the reference that tests compare it with."""
