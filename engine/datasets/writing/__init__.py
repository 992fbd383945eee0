"""From a log to a folder: ids, histories, samples, negatives and features, block by block."""
