"""Rows of a table that an index selects, read block by block so that the table is not copied."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skae.table.rows import (
    CHUNK_CELLS,
    Floats,
    chunks,
    finish_hashes,
    hash_cells,
    make_keys,
    merge_equal_rows,
    row_chunks,
)


@dataclass(frozen=True)
class Selection:
    """Rows of a table that an index selects.

    Attributes
    ----------
    table : ndarray of shape (n_table, n_columns)
        The table.
    index : ndarray of shape (n,)
        Indices of the selected rows.
    """

    table: Floats
    index: NDArray[np.intp]

    @classmethod
    def all(cls, table: Floats) -> Self:
        """Select all rows of a table."""
        return cls(table, np.arange(len(table)))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.table.shape[1]

    @property
    def is_small(self) -> bool:
        """Whether there are so few cells that a copy of them in float64 needs little memory."""
        return len(self) * self.n_columns <= CHUNK_CELLS

    @property
    def copy_dtype(self) -> np.dtype:
        """Dtype of arrays as large as these rows: float64 for few cells, else that of the table."""
        return np.dtype(np.float64) if self.is_small else self.table.dtype

    def take(self, index: NDArray[np.intp] | slice) -> Self:
        """Select some of these rows."""
        return type(self)(self.table, self.index[index])

    def row_blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Iterate over blocks of rows, with their positions among the selected rows."""
        for block in row_chunks(len(self), self.n_columns):
            yield block, self.table[self.index[block]]

    def column_blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Iterate over blocks of columns of all selected rows, with their positions."""
        for block in chunks(self.n_columns, len(self)):
            yield block, self.table[self.index, block]

    def hash_ranks(self, seed: int) -> NDArray[np.uint64]:
        """Compute the hashes of rows whose cells are ranks among the distinct values of a column.

        These hashes do not depend on the units of the columns.
        """
        keys, sums = make_keys(self.n_columns, seed), np.zeros(len(self), dtype=np.uint64)
        for block, cells in self.column_blocks():
            for key, column in zip(keys[block, None], cells.T, strict=True):
                ranks = np.unique(column, return_inverse=True)[1]
                sums += hash_cells(ranks.astype(np.float64), key)
        return finish_hashes(sums, seed)


@dataclass(frozen=True)
class DistinctRows(Selection):
    """Distinct rows of a table, with the summed weights of equal rows.

    Repeating a row is thus equivalent to weighting it. The rows are sorted by their hashes, so that
    the order of the table has no influence on sums over rows, either.

    Attributes
    ----------
    weight : ndarray of shape (n,)
        Summed weight of each row.
    share : ndarray of shape (n,)
        The weights, scaled to a mean of 1 over all distinct rows of the table.
    hashes : ndarray of shape (n,), uint64
        Hashes of the rows, which do not depend on the units of the columns.
    """

    weight: NDArray[np.float64]
    share: NDArray[np.float64]
    hashes: NDArray[np.uint64]

    @classmethod
    def merge(cls, table: Floats, weight: NDArray[np.float64], seed: int) -> Self:
        """Merge the equal rows of a table, and leave out those of weight 0.

        `weight` are the weights of the rows (n_table,), and `seed` is the seed of the hashes.
        """
        rows = Selection(table, np.flatnonzero(weight))
        hashes = rows.hash_ranks(seed)
        first, total = merge_equal_rows(weight[rows.index], hashes)
        return cls(table, rows.index[first], total, total / total.mean(), hashes[first])

    def take(self, index: NDArray[np.intp] | slice) -> Self:
        """Select some of these rows."""
        rest = self.weight[index], self.share[index], self.hashes[index]
        return type(self)(self.table, self.index[index], *rest)


def assemble(
    n: int, blocks: Iterable[tuple[slice, Floats]], dtype: Any = np.float64
) -> NDArray[Any]:
    """Copy blocks of rows into an array.

    Parameters
    ----------
    n : int
        Number of rows of the array, at least 1.
    blocks : iterable of (slice, ndarray)
        Blocks of rows of shape (n_block, ...), with their positions. Together, they are all rows.
    dtype : dtype, default=np.float64
        Dtype of the array.

    Returns
    -------
    rows : ndarray of shape (n, ...)
    """
    rows = None
    for block, part in blocks:
        if rows is None:
            rows = np.empty((n, *part.shape[1:]), dtype)
        rows[block] = part
    assert rows is not None
    return rows
