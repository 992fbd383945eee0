"""The tables: what is compared, how sure that is, and how it is laid out and written."""
