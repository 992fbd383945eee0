"""Forms of logs: what the columns of raw tables mean. Each form makes a ``log`` of tables."""
