"""A summary of the conditions of training rows, from which conditions are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skae.files import Stored
from skae.table.rows import Floats, Rows, hash_rows, merge_equal_rows, select_by_hash

Indices = NDArray[np.intp]

MIN_ROWS = 5
"""Smallest number of training rows in a group, if there are as many. The numbers of single rows
cannot be read from the mean and the covariance of a group."""

MAX_GROUPS = 512
MAX_ENTRIES = 2**18
"""Largest number of groups, and of entries of all their covariances together."""

MAX_CONDITIONS = 10_000
"""Largest number of distinct conditions that are summarized, and of pairs of a group and a
combination of categories. If there are more, a pseudorandom sample of this size is used."""


@dataclass(frozen=True)
class SeenConditions(Stored):
    """Distribution of the conditions of training rows, from which `sample` draws.

    Rows with similar numeric conditions form groups. A group has the mean and the covariance of the
    numeric conditions of its rows, so that the mean and the covariance of all rows are kept. The
    weight of each combination of categories in each group is kept, too. The numeric conditions of
    single rows are not.

    Attributes
    ----------
    levels : ndarray of shape (n_pairs, n_categorical)
        Indices of the levels of a combination of categories.
    group : ndarray of shape (n_pairs,), int
        Index of a group of rows that contains this combination.
    weight : ndarray of shape (n_pairs,)
        Summed sample weight of the rows of the group that have this combination.
    count : ndarray of shape (n_pairs,), int
        Number of these rows.
    mean : ndarray of shape (n_groups, n_numeric)
        Mean of the numeric conditions of each group.
    root : ndarray of shape (n_groups, n_numeric, n_numeric)
        A matrix for each group whose product with its own transpose is the covariance.
    """

    levels: Floats
    group: Indices
    weight: Floats
    count: Indices
    mean: Floats
    root: Floats

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Any:
        """Return the conditions in a file, which are `DistinctConditions` up to format 3."""
        if "cells" in state:
            return DistinctConditions._from_stored_state(state)
        return super()._from_stored_state(state)

    def _check_state(self) -> None:
        n_pairs, n_groups = len(self.weight.ravel()), len(self.mean)
        shapes = {
            "levels": (n_pairs, *self.levels.shape[1:2]),
            "group": (n_pairs,),
            "weight": (n_pairs,),
            "count": (n_pairs,),
            "mean": (n_groups, *self.mean.shape[1:2]),
            "root": (n_groups, *self.mean.shape[1:2], *self.mean.shape[1:2]),
        }
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise ValueError(f"{name} of conditions must have shape {shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} of conditions must be finite")
        _check_weights(self.weight)
        if (self.count < 0).any() or not np.isin(self.group, np.arange(n_groups)).all():
            raise ValueError("the conditions must belong to groups of rows")

    def check_columns(self, n_levels: Sequence[int]) -> None:
        """Raise ValueError unless the conditions are those of columns with `n_levels` levels."""
        categories = [n for n in n_levels if n]
        shape = len(self.weight), len(categories)
        if self.levels.shape != shape or self.n_numeric != len(n_levels) - len(categories):
            raise ValueError("the conditions do not match the columns of the schema")
        _check_levels(self.levels, categories)

    @classmethod
    def from_rows(cls, rows: Rows, weight: Floats, earlier: Self | None) -> Self:
        """Summarize the conditions of weighted rows, and those of the fits that are resumed.

        Parameters
        ----------
        rows : Rows
            Rows of the fit.
        weight : ndarray of shape (n,)
            Sample weights of the rows.
        earlier : SeenConditions or None
            Conditions of the model from which training resumes.
        """
        cells, weight = rows.conditions[weight > 0].astype(np.float64), weight[weight > 0]
        hashes = hash_rows(cells, 0, rows.n_levels)
        index, total = merge_equal_rows(weight, hashes)
        n_rows = merge_equal_rows(np.ones_like(weight), hashes)[1].astype(np.intp)
        chosen = select_by_hash(hashes[index], MAX_CONDITIONS)
        cells, total, count = cells[index[chosen]], total[chosen], n_rows[chosen]
        # The sample has the weight of all rows.
        total *= weight.sum() / total.sum()
        is_number = np.equal(rows.n_levels, 0)
        levels, x = cells[:, ~is_number], cells[:, is_number]
        root = np.zeros((1, x.shape[1], x.shape[1]))
        source = np.zeros(len(x), dtype=np.intp)
        if earlier is not None:
            # A pair of a group and a combination of categories counts as rows with the mean of the
            # group. `source` is the index of the covariance of these rows, which is 0 for new rows.
            count = np.append(earlier.count, count).astype(np.intp)
            levels = np.vstack([earlier.levels, levels])
            x = np.vstack([earlier.mean[earlier.group], x])
            total = np.append(earlier.weight, total)
            root = np.concatenate([root, earlier.root])
            source = np.append(earlier.group + 1, source)
        return cls._from_points(levels, x, total, count, root, source)

    @classmethod
    def _from_points(
        cls,
        levels: Floats,
        x: Floats,
        weight: Floats,
        count: Indices,
        inner_root: Floats,
        source: Indices,
    ) -> Self:
        """Summarize points, each of which is the mean of some rows with the same categories.

        The covariance of the rows of a point is that of `inner_root` at its `source`.
        """
        # Units in which squares are neither too large nor too small for floating-point numbers.
        low, high = x.min(axis=0), x.max(axis=0)
        center, scale = low / 2 + high / 2, _positive(high / 2 - low / 2)
        z = (x - center) / scale
        deviation = _positive(np.sqrt(np.average(z**2, axis=0, weights=weight)))
        z, scale = z / deviation, scale * deviation
        combination = np.unique(levels, axis=0, return_inverse=True)[1].ravel()
        groups = _make_groups(combination, z, weight, count)
        inner = inner_root / scale[:, None]
        inner = inner @ inner.mT
        mean, covariance, label = [], [], np.empty(len(x), dtype=np.intp)
        for i, index in enumerate(groups):
            label[index] = i
            share = weight[index] / weight[index].sum()
            # Differences from a point of the group are 0, without rounding, if all are equal.
            shift = share @ (z[index] - z[index[0]])
            mean.append(x[index[0]] + scale * shift)
            difference = z[index] - z[index[0]] - shift
            inner_share = np.bincount(source[index], share, len(inner))
            covariance.append(
                (difference.T * share) @ difference + np.tensordot(inner_share, inner, 1)
            )
        pairs, pair = np.unique(np.stack([combination, label]), axis=1, return_inverse=True)
        pair = pair.ravel()
        first = np.unique(pair, return_index=True)[1]
        pair_weight: Floats = np.bincount(pair, weight).astype(np.float64)
        summary = cls(
            levels[first],
            pairs[1].astype(np.intp),
            pair_weight,
            np.bincount(pair, count).astype(np.intp),
            np.stack(mean),
            scale[:, None] * _roots(np.stack(covariance)),
        )
        return summary._sampled()

    def _sampled(self) -> Self:
        """Return a summary of at most `MAX_CONDITIONS` pairs, which are a pseudorandom sample."""
        cells = np.column_stack([self.levels, self.group])
        kept = select_by_hash(hash_rows(cells, 0), MAX_CONDITIONS)
        weight = self.weight[kept] * (self.weight.sum() / self.weight[kept].sum())
        return type(self)(
            self.levels[kept], self.group[kept], weight, self.count[kept], self.mean, self.root
        )

    @property
    def n_numeric(self) -> int:
        """Number of numeric conditions."""
        return self.mean.shape[1]

    def draw(self, n_levels: Sequence[int], uniform: Floats) -> Floats:
        """Draw conditions in proportion to their weights.

        Within a group, numeric conditions are drawn from a uniform distribution with the mean and
        the covariance of the group, independently of the categories.

        Parameters
        ----------
        n_levels : sequence of int
            Number of levels of each condition, which is 0 for numeric conditions.
        uniform : ndarray of shape (n, 1 + n_numeric)
            Uniform random numbers in [0, 1).

        Returns
        -------
        cells : ndarray of shape (n, n_conditions)
            A number, or the index of a level, for each condition.
        """
        ends = self.weight.cumsum() / self.weight.sum()
        pair = np.searchsorted(ends, uniform[:, 0], side="right").clip(max=len(ends) - 1)
        group, is_number = self.group[pair], np.equal(n_levels, 0)
        numbers, noise = self.mean[group], np.sqrt(3) * (2 * uniform[:, 1:].astype(float) - 1)
        for i in np.unique(group):
            numbers[group == i] += noise[group == i] @ self.root[i].T
        cells = np.empty((len(uniform), len(n_levels)))
        cells[:, is_number], cells[:, ~is_number] = numbers, self.levels[pair]
        return cells


@dataclass(frozen=True)
class DistinctConditions(Stored):
    """The distinct conditions of training rows, which files contained up to format 3.

    Attributes
    ----------
    cells : ndarray of shape (n, n_conditions)
        A number, or the index of a level, for each condition.
    weight : ndarray of shape (n,)
        Summed sample weight of the rows that have each condition.
    """

    cells: Floats
    weight: Floats

    def summary(self, n_levels: tuple[int, ...]) -> SeenConditions:
        """Summarize the conditions. Raises ValueError if they are invalid."""
        if self.weight.ndim != 1 or self.cells.shape != (len(self.weight), len(n_levels)):
            raise ValueError("the conditions and their weights must fit the schema")
        _check_weights(self.weight)
        if not np.isfinite(self.cells).all():
            raise ValueError("the conditions must be finite numbers")
        is_category = np.greater(n_levels, 0)
        _check_levels(self.cells[:, is_category], [n for n in n_levels if n])
        return SeenConditions.from_rows(Rows(self.cells, n_levels), self.weight, None)


def _check_weights(weight: Floats) -> None:
    """Raise ValueError unless weights are finite, none is negative and one is positive."""
    if not ((weight >= 0).all() and 0 < weight.sum() < np.inf):
        raise ValueError("the weights of conditions must be finite and not negative")


def _check_levels(levels: Floats, n_levels: Sequence[int]) -> None:
    """Raise ValueError unless all entries are indices of levels of their columns."""
    for column, n in zip(levels.T, n_levels, strict=True):
        if not np.isin(column, np.arange(n)).all():
            raise ValueError("the conditions must hold levels of their columns")


def _positive(scale: Floats) -> Floats:
    """Replace scales of 0 by 1."""
    return np.where(scale > 0, scale, 1.0)


def _roots(covariance: Floats) -> Floats:
    """Return roots of covariances, whose rows are 0 for columns without variance."""
    values, vectors = np.linalg.eigh(covariance)
    roots = vectors * np.sqrt(values.clip(min=0))[..., None, :]
    varies = np.diagonal(covariance, axis1=-2, axis2=-1) > 0
    result: Floats = np.where(varies[..., None], roots, 0.0)
    return result


def _make_groups(combination: Indices, z: Floats, weight: Floats, count: Indices) -> list[Indices]:
    """Divide points into groups of similar numbers, as a regression tree does without targets.

    Each combination of categories has its own groups if it has enough rows. All other combinations
    share groups.

    Parameters
    ----------
    combination : ndarray of shape (n,)
        Index of the combination of categories of each point.
    z : ndarray of shape (n, n_numeric)
        Numbers of the points, in units of the standard deviations of the columns.
    weight : ndarray of shape (n,)
        Summed sample weights of the rows of the points.
    count : ndarray of shape (n,)
        Numbers of these rows.

    Returns
    -------
    groups : list of ndarray
        Indices of the points of each group.
    """
    n_groups = min(MAX_GROUPS, max(1, MAX_ENTRIES // max(1, z.shape[1] ** 2)))
    least = max(MIN_ROWS, ceil(count.sum() / n_groups))
    label = np.zeros_like(combination)
    if z.shape[1]:
        size = np.bincount(combination, count)
        label = np.where(size >= least, np.arange(len(size)), -1)[combination]
        if count[label < 0].sum() < least:
            # Too few rows for a group join the most frequent combination.
            label[label < 0] = size.argmax()
    pending, groups = [np.flatnonzero(label == i) for i in np.unique(label)], []
    while pending:
        index = pending.pop()
        cut = _cut(z[index], weight[index], count[index], least)
        if cut is None:
            groups.append(index)
        else:
            pending += [index[cut], index[~cut]]
    return groups


def _cut(z: Floats, weight: Floats, count: Indices, least: int) -> NDArray[np.bool_] | None:
    """Divide a group of points into two, each with at least `least` rows.

    The group is cut between two different numbers, as near as possible to half of the weight, in
    the column with the largest variance in which this is possible. Returns a mask of the points of
    one part, or None if the group cannot be divided.
    """
    total = count.sum()
    if total < 2 * least:
        return None
    share = weight / weight.sum()
    variance = share @ (z - share @ z) ** 2
    for j in np.argsort(-variance, kind="stable"):
        order = np.argsort(z[:, j], kind="stable")
        rows_below = count[order].cumsum()[:-1]
        is_valid = np.diff(z[order, j]) > 0
        is_valid &= (rows_below >= least) & (total - rows_below >= least)
        if is_valid.any():
            distance = np.abs(share[order].cumsum()[:-1] - 0.5)
            last = order[np.where(is_valid, distance, np.inf).argmin()]
            return z[:, j] <= z[last, j]
    return None
