"""The figures: each file draws one."""
