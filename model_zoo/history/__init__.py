"""Histories as indices into rows of item vectors, embedded only where an output reads them."""
