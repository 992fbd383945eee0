#!/usr/bin/env python
"""Prepare data sets: ``python data/prepare.py movielens --input DIR --output data/movielens_1m``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.datasets.command import main

if __name__ == "__main__":
    main()
