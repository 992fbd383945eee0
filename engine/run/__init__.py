"""One run: an experiment, its files, its measurements, and the table that it ends with."""
