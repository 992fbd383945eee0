"""From results to tables and figures: reads what runs have written, and trained weights; never trains."""
