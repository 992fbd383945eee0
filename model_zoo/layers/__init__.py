"""Layers that several models share. They need torch only, and no FuxiCTR."""
