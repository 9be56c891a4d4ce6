"""Which rows are one, and which are held out: decided by content, never by order or number."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

CHUNK_CELLS = 2**18
"""Cells handled at once: their copies stay in the processor's cache."""


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def hash_rows(X: Floats, seed: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: equal rows, and only they, share it, whatever their dtype."""
    n, d = X.shape
    factors = mix(np.arange(1, d + 1, dtype=np.uint64) + np.uint64(seed)) | np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    chunk = max(1, CHUNK_CELLS // d)
    for i in range(0, n, chunk):
        # Adding zero makes -0.0 the same value as 0.0.
        bits = (np.asarray(X[i : i + chunk], dtype=np.float64) + 0.0).view(np.uint64)
        hashes[i : i + chunk] = ((bits ^ (bits >> np.uint64(32))) * factors).sum(axis=1)
    return mix(hashes ^ mix(np.full(1, seed, dtype=np.uint64)))


def merged(
    weight: Floats, *hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """One index for each distinct row, in an order that only hashes decide, and summed weights.

    Rows are equal where all their `hashes` are.
    """
    order = np.lexsort(hashes[::-1])
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = np.any([np.diff(h[order]) != 0 for h in hashes], axis=0)
    totals = np.bincount(is_new.cumsum() - 1, weight[order])
    return order[is_new], totals.astype(np.float64)
