"""Random numbers that depend on a seed and on what they are for, and on nothing else.

A row's numbers are the same in whatever block, process or order the row is met. NumPy's generators
draw in a sequence, so they cannot promise that. The mixing is that of SplitMix64 (Steele et al. 2014).
"""

import numpy as np
from numpy.typing import NDArray

STEP = np.uint64(0x9E3779B97F4A7C15)


def keys(seed: int, *columns: NDArray) -> NDArray[np.uint64]:
    """A number of 64 random bits for each row of some columns of whole numbers."""
    found = np.full(1, seed, np.uint64)
    for column in columns:
        found = _mixed(found ^ column.astype(np.uint64))
    return found


def uniform(keys: NDArray[np.uint64], draw: int | NDArray[np.integer]) -> NDArray[np.floating]:
    """The draw of each key, from 0 to below 1.

    Args:
        draw: 0, 1, 2, ...; each gives other numbers.
    """
    offset = (np.atleast_1d(draw).astype(np.uint64) + np.uint64(1)) * STEP  # an array may overflow
    return (_mixed(keys + offset) >> np.uint64(11)) * 2.0**-53


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
