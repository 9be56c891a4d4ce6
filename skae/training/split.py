"""Which rows are held out: decided by their content, never by order or number."""

import numpy as np
from numpy.typing import NDArray

from skae.table.rows import mix


def hold_out(hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Mark the rows whose hash is among the smallest `fraction` of the distinct ones.

    Equal rows stay together. Nothing is marked where that would leave one side empty.
    """
    distinct = np.unique(hashes)
    count = round(fraction * len(distinct))
    if not 0 < count < len(distinct):
        return np.zeros(len(hashes), dtype=bool)
    return hashes < distinct[count]


def shuffled(hashes: NDArray[np.uint64], size: int) -> NDArray[np.intp]:
    """Indices of rows in an order that only their content decides, as many as `size` distinct ones.

    It is independent of which rows are held out.
    """
    again = mix(hashes + np.uint64(0x9E3779B97F4A7C15))
    distinct = np.unique(again)
    chosen = again <= distinct[min(size, len(distinct)) - 1]
    return np.flatnonzero(chosen)[np.argsort(again[chosen], kind="stable")]
