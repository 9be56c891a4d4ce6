"""Which rows are held out, how much each counts, and how often it is shown.

Rows' content decides it, never their order or number.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skae.table.rows import Floats, Rows, merged, shuffled

RARE_SHARE = 0.2
"""Share of the rows shown that those with rare targets should have."""

DENSITY_ROWS = 2048
"""Rows that stand for all where a latent starts and where the density is estimated."""


@dataclass(frozen=True)
class Split:
    """The distinct rows of a fit: equal ones are one of their summed weight.

    Draws then do not tell equal rows apart, and repeating a row is weighting it.

    Attributes
    ----------
    index : ndarray of shape (n_distinct,), int
        Their numbers in the table.
    weight : ndarray of shape (n_distinct,)
        How much each counts.
    held_out : ndarray of shape (n_distinct,), bool
        Which of them training does not see.
    representatives : ndarray of int
        Positions, in an order that content decides, of those that stand for all.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    representatives: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        rows: Rows,
        weight: Floats,
        others: list[NDArray[np.uint64]],
        rare: NDArray[np.bool_],
        fraction: float,
        seed: int,
    ) -> Self:
        """Merge equal rows and hold out a fraction of the distinct ones, but none of the `rare`.

        Rows are equal if their cells agree, and all hashes in `others`: of corrupted versions and
        of targets.
        """
        hashes = rows.hash(seed)
        index, total = merged(weight, hashes, *others)
        hashes = hashes[index]
        held_out = hold_out(hashes, fraction)
        held_out &= ~np.isin(hashes, hashes[rare[index]])
        return cls(index, total, held_out, shuffled(hashes, DENSITY_ROWS))

    @property
    def trained(self) -> NDArray[np.intp]:
        """Numbers of the rows that are trained on."""
        return self.index[~self.held_out]

    @property
    def validation(self) -> NDArray[np.intp]:
        """Numbers of the rows that are held out."""
        return self.index[self.held_out]

    def shares(self, n: int) -> NDArray[np.float64]:
        """How much each of the table's `n` rows counts, with a mean of 1 on either side."""
        share = np.zeros(n)
        share[self.index] = self.weight
        for side in (self.validation, self.trained):
            share[side] /= share[side].mean() if len(side) else 1.0
        return share


def hold_out(hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Mark the rows whose hash is among the smallest `fraction` of the distinct ones.

    Equal rows stay together. Nothing is marked where that would leave one side empty.
    """
    distinct = np.unique(hashes)
    count = round(fraction * len(distinct))
    if not 0 < count < len(distinct):
        return np.zeros(len(hashes), dtype=bool)
    return hashes < distinct[count]


def n_repeats(rare: NDArray[np.bool_], batch_size: int) -> NDArray[np.intp]:
    """How often an epoch shows each row: so that rare ones are a `RARE_SHARE` of each batch.

    Shown once each, with large weights, they would make steps erratic. A full batch has them all.
    """
    n_rare = rare.sum()
    if not n_rare or batch_size >= len(rare):
        return np.ones(len(rare), dtype=np.intp)
    common = (len(rare) - n_rare) * RARE_SHARE / (1 - RARE_SHARE)
    return np.where(rare, max(1, int(common / n_rare)), 1)
