"""Data sets: each module makes or converts one into LongCTR's parquet layout (``layout.py``)."""
