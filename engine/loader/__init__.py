"""From prepared data on disk to LongCTR's batches."""
