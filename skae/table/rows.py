"""Rows of a table: cells as numbers, which of them are observed, and hashes of their content."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

CHUNK_CELLS = 2**18
"""Cells handled at once: their copies stay in the processor's cache."""

ONE = np.ones(1).view(np.uint64)


@dataclass(frozen=True)
class Rows:
    """Validated rows.

    Attributes
    ----------
    values : ndarray of shape (n, n_columns)
        One number for each cell: modelled columns, then conditions. A category's cell is the number
        of its level; NaN is a cell that is missing.
    n_levels : tuple of int
        The number of levels of each condition, 0 where it holds numbers.
    may_miss : bool
        Whether cells of the table may be missing.
    """

    values: Floats
    n_levels: tuple[int, ...] = ()
    may_miss: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_modelled(self) -> int:
        """Columns that are modelled."""
        return self.values.shape[1] - len(self.n_levels)

    @property
    def modelled(self) -> Floats:
        """Cells of modelled columns."""
        return self.values[:, : self.n_modelled]

    @property
    def conditions(self) -> Floats:
        """Cells of conditions."""
        return self.values[:, self.n_modelled :]

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Rows":
        """The rows at an index."""
        return Rows(self.values[index], self.n_levels, self.may_miss)

    def blocks(self, size: int) -> Iterator["Rows"]:
        """All rows in their order, some at a time."""
        for i in range(0, len(self), size):
            yield Rows(self.values[i : i + size], self.n_levels, self.may_miss)

    def hash(self, seed: int) -> NDArray[np.uint64]:
        """A 64-bit hash of each row."""
        return hash_rows(self.values, seed, self.n_levels)


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _folded(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return bits ^ (bits >> np.uint64(32))


def hash_rows(X: Floats, seed: int, n_levels: tuple[int, ...] = ()) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: equal rows share it, whatever their dtype, others almost never.

    The last columns may be categories, with so many levels each or 0 where they hold numbers. Each
    level of a category enters the hash as a column of its own, one-hot.
    """
    n, d = X.shape
    widths = np.ones(d, dtype=np.intp)
    widths[d - len(n_levels) :] = np.maximum(n_levels, 1)
    first = widths.cumsum() - widths
    categories = d - len(n_levels) + np.flatnonzero(n_levels)
    factors = mix(np.arange(1, widths.sum() + 1, dtype=np.uint64) + np.uint64(seed)) | np.uint64(1)
    of_column = factors[first]
    hashes = np.empty(n, dtype=np.uint64)
    chunk = max(1, CHUNK_CELLS // d)
    for i in range(0, n, chunk):
        # Adding zero makes -0.0 the same value as 0.0.
        cells = np.asarray(X[i : i + chunk], dtype=np.float64) + 0.0
        parts = _folded(cells.view(np.uint64)) * of_column
        if len(categories):
            level = cells[:, categories].astype(np.intp)
            parts[:, categories] = _folded(ONE) * factors[first[categories] + level]
        hashes[i : i + chunk] = parts.sum(axis=1)
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


def largest_sizes(X: Floats) -> Floats:
    """Largest absolute value of each column."""
    return np.maximum(X.max(axis=0), -X.min(axis=0)).astype(np.float64)


def shuffled(hashes: NDArray[np.uint64], size: int) -> NDArray[np.intp]:
    """Indices of rows in an order that only their content decides, as many as `size` distinct ones.

    It is independent of which rows are held out.
    """
    again = mix(hashes + np.uint64(0x9E3779B97F4A7C15))
    distinct = np.unique(again)
    chosen = again <= distinct[min(size, len(distinct)) - 1]
    return np.flatnonzero(chosen)[np.argsort(again[chosen], kind="stable")]
