"""One run of an experiment: its files, its measurements, and the table at its end."""
