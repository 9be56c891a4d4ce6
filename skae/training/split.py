"""Held-out rows, weights of rows, and the number of times that an epoch uses each row.

The rows, their corrupted versions, weights and targets, and a seed determine these results. The
order of the rows does not affect them. The replacement of equal rows by one row with their summed
weight does not affect them, either.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skae.table.rows import Floats, Rows, merge_equal_rows, select_by_hash

RARE_SHARE = 0.2
"""Approximate share of rows with known targets in a batch, if such rows are rare."""

DENSITY_ROWS = 2048
"""Largest number of distinct rows from which the latent is initialized and the density is
estimated."""


@dataclass(frozen=True)
class Split:
    """The distinct rows of a table, split into training and validation rows.

    Equal rows are merged into one row with their summed weight. A row that occurs twice thus has
    the same effect on a fit as a row with twice the weight.

    Attributes
    ----------
    index : ndarray of shape (n_distinct,), int
        Indices of the distinct rows in the table.
    weight : ndarray of shape (n_distinct,)
        Summed sample weight of each distinct row.
    held_out : ndarray of shape (n_distinct,), bool
        Mask of the validation rows.
    representatives : ndarray of int
        Positions in `index` of a pseudorandom sample of the distinct rows, in pseudorandom order.
        Validation rows are included.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    representatives: NDArray[np.intp]

    @classmethod
    def from_rows(
        cls,
        rows: Rows,
        weight: Floats,
        other_hashes: list[NDArray[np.uint64]],
        rare: NDArray[np.bool_],
        fraction: float,
        seed: int,
    ) -> Self:
        """Merge equal rows and hold out a fraction of the distinct rows.

        Parameters
        ----------
        rows : Rows
            The table.
        weight : ndarray of shape (n,)
            Sample weights.
        other_hashes : list of ndarray of shape (n,), uint64
            Hashes of corrupted versions and of targets. Rows are merged only if all of these are
            equal, too.
        rare : ndarray of shape (n,), bool
            Mask of rows that must not be held out, because their targets are rare.
        fraction : float
            Fraction of the distinct rows that is held out, before the rows in `rare` are excluded.
        seed : int
            Seed of the hashes, and thereby of the split.

        Returns
        -------
        split : Split
        """
        hashes = rows.hash(seed)
        index, total = merge_equal_rows(weight, hashes, *other_hashes)
        hashes = hashes[index]
        held_out = hold_out(hashes, fraction)
        held_out &= ~np.isin(hashes, hashes[rare[index]])
        return cls(index, total, held_out, select_by_hash(hashes, DENSITY_ROWS))

    @property
    def training(self) -> NDArray[np.intp]:
        """Indices of the training rows in the table."""
        return self.index[~self.held_out]

    @property
    def validation(self) -> NDArray[np.intp]:
        """Indices of the validation rows in the table."""
        return self.index[self.held_out]

    def normalized_weight(self, n: int) -> NDArray[np.float64]:
        """Return the weights of the `n` rows of the table. Of equal rows, only one has a weight.

        The mean weight is 1 over the distinct training rows, and also over the distinct validation
        rows.
        """
        weight = np.zeros(n)
        weight[self.index] = self.weight
        for part in (self.validation, self.training):
            weight[part] /= weight[part].mean() if len(part) else 1.0
        return weight


def hold_out(hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Mark the rows whose hash is among the smallest `fraction` of the distinct hashes.

    Equal rows are marked together. No row is marked if the rounded number of hashes is 0 or that of
    all distinct hashes.
    """
    distinct = np.unique(hashes)
    count = round(fraction * len(distinct))
    if not 0 < count < len(distinct):
        return np.zeros(len(hashes), dtype=bool)
    return hashes < distinct[count]


def n_repeats(rare: NDArray[np.bool_], batch_size: int) -> NDArray[np.intp]:
    """Return how often an epoch uses each row.

    Rows in the mask `rare` are repeated until their share in a batch is about `RARE_SHARE`. If each
    of them were used once, with a large weight, gradients would have a large variance. No row is
    repeated if a batch contains all rows.
    """
    n_rare = rare.sum()
    if not n_rare or batch_size >= len(rare):
        return np.ones(len(rare), dtype=np.intp)
    common = (len(rare) - n_rare) * RARE_SHARE / (1 - RARE_SHARE)
    return np.where(rare, max(1, int(common / n_rare)), 1)
