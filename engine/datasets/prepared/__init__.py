"""A data set's folder: its layout, card, checks, profile, and the configuration beside it."""
