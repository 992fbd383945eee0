"""Models for comparison that have no mixture variants: each file has one block and one model."""
