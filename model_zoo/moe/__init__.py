"""Routers, the theme codebook, branches of experts, and the mixtures that are built from them."""
