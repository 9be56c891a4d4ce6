"""Validated rows of a table, with functions that hash, merge and select rows by content."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

Floats = NDArray[np.floating]

CHUNK_CELLS = 2**18
"""Number of cells that are processed at once, so that copies stay in the CPU cache."""

CHUNK_ROWS = 2**11
"""Largest number of rows that a network or another function of rows processes at once."""

ONE_BITS = np.ones(1).view(np.uint64)
"""Bit pattern of the float64 number 1, the nonzero cell of a one-hot category."""


@dataclass(frozen=True)
class Rows:
    """Validated rows.

    Attributes
    ----------
    values : ndarray of shape (n, n_columns)
        Cells of the modelled columns, followed by those of the conditions. The cell of a category
        is the index of its level. A missing cell is NaN.
    n_levels : tuple of int
        Number of levels of each condition, which is 0 for numeric conditions.
    may_have_missing : bool
        Whether cells of the table may be missing.
    modelled_levels : tuple of int
        Number of levels of each modelled column, which is 0 for numbers. It is empty if all
        modelled columns are numbers of the same kind.
    """

    values: Floats
    n_levels: tuple[int, ...] = ()
    may_have_missing: bool = False
    modelled_levels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_modelled(self) -> int:
        """Number of modelled columns."""
        return self.values.shape[1] - len(self.n_levels)

    @property
    def modelled(self) -> Floats:
        """Cells of modelled columns, of shape (n, n_modelled)."""
        return self.values[:, : self.n_modelled]

    @property
    def conditions(self) -> Floats:
        """Cells of conditions, of shape (n, n_conditions)."""
        return self.values[:, self.n_modelled :]

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Rows":
        """Return the rows at an index or in a mask."""
        return replace(self, values=self.values[index])

    def append(self, other: "Rows") -> "Rows":
        """Return these rows, followed by other rows of the same columns."""
        values = np.concatenate([self.values, other.values])
        may_have_missing = self.may_have_missing or other.may_have_missing
        return replace(self, values=values, may_have_missing=may_have_missing)

    def blocks(self, size: int) -> Iterator["Rows"]:
        """Iterate over all rows in order, in blocks of up to `size` rows."""
        for i in range(0, len(self), size):
            yield replace(self, values=self.values[i : i + size])

    def hash(self, seed: int) -> NDArray[np.uint64]:
        """Compute a 64-bit hash of each row."""
        return hash_rows(self.values, seed, self.modelled_levels + self.n_levels)


def chunks(n: int, width: int) -> Iterator[slice]:
    """Divide `n` rows of `width` cells into slices of at most `CHUNK_CELLS` cells, or one row.

    For blocks of columns, `n` is the number of columns and `width` is that of rows.
    """
    return gen_batches(n, max(1, CHUNK_CELLS // max(1, width)))


def row_chunks(n: int, d: int) -> Iterator[slice]:
    """Divide `n` rows of `d` cells into chunks of at most `CHUNK_ROWS` rows.

    They suit functions that compute more numbers for each row than it has cells.
    """
    return chunks(n, max(d, CHUNK_CELLS // CHUNK_ROWS))


def mix_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of 64-bit integers by a bijection, the finalizer of SplitMix64.

    See Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    bits = bits ^ (bits >> np.uint64(30))
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def hash_rows(X: Floats, seed: int, n_levels: tuple[int, ...] = ()) -> NDArray[np.uint64]:
    """Compute a 64-bit hash of each row, which depends only on the values of the row and the seed.

    Equal rows have equal hashes, even if their dtypes differ. Different rows have different hashes,
    except with negligible probability. All NaN in `X` must have the same bits.

    Parameters
    ----------
    X : ndarray of shape (n, n_columns)
        The rows.
    seed : int
        Seed of the hash.
    n_levels : tuple of int
        Number of levels of each of the last columns, which is 0 for numeric columns. A category is
        hashed as if it were one-hot encoded. The hash of a missing cell differs from that of 0.

    Returns
    -------
    hashes : ndarray of shape (n,), uint64
    """
    n, d = X.shape
    widths = np.ones(d, dtype=np.intp)
    widths[d - len(n_levels) :] = np.maximum(n_levels, 1)
    first_key = widths.cumsum() - widths
    categories = d - len(n_levels) + np.flatnonzero(n_levels)
    keys = make_keys(widths.sum(), seed)
    zero = mix_bits(keys)
    column_key = keys[first_key]
    hashes = np.empty(n, dtype=np.uint64)
    for chunk in chunks(n, d):
        cells = np.asarray(X[chunk], dtype=np.float64)
        parts = hash_cells(cells, column_key)
        if len(categories):
            missing = np.isnan(cells[:, categories])
            level = first_key[categories] + np.where(missing, 0, cells[:, categories]).astype(
                np.intp
            )
            one_hot = mix_bits(ONE_BITS + keys[level]) - zero[level]
            parts[:, categories] = np.where(missing, parts[:, categories], one_hot)
        hashes[chunk] = parts.sum(axis=1)
    return finish_hashes(hashes, seed)


def make_keys(n: int, seed: int) -> NDArray[np.uint64]:
    """Return the keys of `n` columns, from which `hash_cells` computes hashes."""
    return mix_bits(np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed))


def hash_cells(cells: NDArray[np.float64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash the cells (n, n_columns) of columns with these keys. The hash of 0 is 0.

    The sum of the hashes of the cells of a row, after `finish_hashes`, is the hash of the row.
    """
    # Adding zero makes -0.0 the same value as 0.0. The key is added before the bits are mixed, so
    # that a value has unrelated parts in different columns. The product of a value and a key would
    # keep the trailing zero bits of the value, which most numbers of a table have.
    parts = mix_bits((cells + 0.0).view(np.uint64) + keys)
    parts -= mix_bits(keys)
    return parts


def finish_hashes(sums: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Convert sums of the hashes of cells to the hashes of rows."""
    return mix_bits(sums ^ mix_bits(np.full(1, seed, dtype=np.uint64)))


def merge_equal_rows(
    weight: Floats, *hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the index of one of each group of equal rows, and the summed weight of the group.

    Rows are equal if all their `hashes` are equal. The groups are sorted by their hashes.
    """
    index, group = group_equal_rows(*hashes)
    return index, np.bincount(group, weight).astype(np.float64)


def group_equal_rows(
    *hashes: NDArray[np.uint64],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the index of one of each group of equal rows, and the group (n,) of each row.

    The groups are those of `merge_equal_rows`.
    """
    order = np.lexsort(hashes[::-1])
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = np.any([np.diff(h[order]) != 0 for h in hashes], axis=0)
    group = np.empty(len(order), dtype=np.intp)
    group[order] = is_new.cumsum() - 1
    return order[is_new], group


def max_abs_values(X: Floats) -> Floats:
    """Return the largest absolute value of the observed cells of each column, or 0 without any."""
    low, high = np.fmin.reduce(X, axis=0, initial=0.0), np.fmax.reduce(X, axis=0, initial=0.0)
    return np.maximum(high, -low).astype(np.float64)


def select_by_hash(hashes: NDArray[np.uint64], size: int) -> NDArray[np.intp]:
    """Return the indices of all rows with one of up to `size` hashes, in a pseudorandom order.

    The selection and the order depend only on the content of the rows. Rows with equal hashes are
    selected together, so there may be more than `size` of them. The selection is independent of
    that of `skae.training.split.hold_out`, which uses the same hashes.
    """
    # Hashes are mixed again, since `hold_out` selects the smallest ones.
    keys = mix_bits(hashes + np.uint64(0x9E3779B97F4A7C15))
    # `np.unique`, which finds distinct values with a hash table, takes ten times as long.
    ordered = np.sort(keys)
    distinct = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    chosen = keys <= distinct[min(size, len(distinct)) - 1]
    return np.flatnonzero(chosen)[np.argsort(keys[chosen], kind="stable")]
