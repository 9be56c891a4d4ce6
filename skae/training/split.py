"""Held-out rows, weights of rows, and the number of times that an epoch uses each row.

The rows, their corrupted versions, weights and targets, and a seed determine these results. The
order of the rows does not affect them. The replacement of equal rows by one row with their summed
weight does not affect them, either.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skae.table.rows import Floats, merge_equal_rows, select_by_hash

RARE_SHARE = 0.2
"""Approximate share of rows with known targets in a batch, if such rows are rare."""

MAX_FOLDS = 5
"""Largest number of folds of `Split.folds`."""

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
        Validation rows are included. They are at most half of the sample if `is_given`.
    representative_weight : ndarray
        Weights with which the representatives stand for all rows.
    is_given : bool
        Whether the user has chosen the validation rows, so that they never become training rows.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    representatives: NDArray[np.intp]
    representative_weight: NDArray[np.float64]
    is_given: bool = False

    @classmethod
    def from_hashes(
        cls,
        hashes: NDArray[np.uint64],
        content: NDArray[np.uint64],
        weight: Floats,
        rare: NDArray[np.bool_],
        validation: float | NDArray[np.bool_],
    ) -> Self:
        """Merge equal rows and hold out some of the distinct rows.

        Parameters
        ----------
        hashes : ndarray of shape (n,), uint64
            Hashes of the rows, which determine the split.
        content : ndarray of shape (n,), uint64
            Hashes of the rows with their corrupted versions and targets. Rows are merged only if
            these are equal, too. They are `hashes` itself if there is nothing but rows.
        weight : ndarray of shape (n,)
            Sample weights.
        rare : ndarray of shape (n,), bool
            Mask of rows that must not be held out, because their targets are rare.
        validation : float or ndarray of shape (n,), bool
            Fraction of the distinct rows that is held out, before the rows in `rare` are excluded,
            or mask of the rows that are held out. If it is a mask, equal rows are merged only if
            both or none of them are held out.

        Returns
        -------
        split : Split
        """
        is_given = isinstance(validation, np.ndarray)
        keys = [hashes] if content is hashes else [hashes, content]
        if isinstance(validation, np.ndarray):
            keys.append(validation.astype(np.uint64))
        index, total = merge_equal_rows(weight, *keys)
        hashes = hashes[index]
        if isinstance(validation, np.ndarray):
            held_out = validation[index]
            groups = [~held_out, held_out]
        else:
            held_out = hold_out(hashes, validation) & ~np.isin(hashes, hashes[rare[index]])
            groups = [np.ones_like(held_out)]
        size = DENSITY_ROWS // len(groups)
        chosen = np.concatenate(
            [np.flatnonzero(group)[select_by_hash(hashes[group], size)] for group in groups]
        )
        return cls(index, total, held_out, chosen, total[chosen], is_given)

    def training_part(self) -> Self:
        """Return the training rows alone, as a split without validation rows."""
        kept = ~self.held_out
        positions = kept.cumsum() - 1
        is_kept = kept[self.representatives]
        return replace(
            self,
            index=self.index[kept],
            weight=self.weight[kept],
            held_out=self.held_out[kept],
            representatives=positions[self.representatives[is_kept]],
            representative_weight=self.representative_weight[is_kept],
        )

    def joined(self) -> Self:
        """Return the same rows, all of which are training rows."""
        return replace(self, held_out=np.zeros_like(self.held_out))

    def folds(self) -> list[Self]:
        """Return up to `MAX_FOLDS` splits of the same rows, which hold out each row once."""
        n = len(self.index)
        size = max(int(self.held_out.sum()), math.ceil(n / MAX_FOLDS))
        # The order of the distinct rows is that of their hashes.
        fold = np.arange(n) // size
        return [replace(self, held_out=fold == i) for i in range(fold[-1] + 1)]

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
