"""Routers, codebook, dispatch and the mixtures built from them: they import torch only."""
