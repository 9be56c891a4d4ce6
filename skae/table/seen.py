"""What a model has seen of its rows: moments of all of them, and a sample that is kept."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skae.files import Stored
from skae.table.rows import (
    Floats,
    Rows,
    group_equal_rows,
    hash_rows,
    mix_bits,
    row_chunks,
    select_by_hash,
)
from skae.table.targets import Targets, Units

SAMPLE_ROWS = 2048
SAMPLE_CELLS = 2**20
"""Largest numbers of rows and of cells of a sample."""

GROWTH = 1.25
"""Growth of the weight of the rows seen after which the model is estimated anew."""

LARGEST = 1e140
"""Absolute value at which cells are clipped in moments, so that sums of squares are finite."""

FAR = 10.0
"""Distance of the mean of some rows from that of the rows seen before, in standard deviations of
the column, above which the rows are far away."""

FAR_ROWS = 30
"""Smallest weight of the rows seen before with which new rows are compared."""


@dataclass(frozen=True)
class ColumnMoments(Stored):
    """Weighted moments of the observed cells of columns.

    Attributes
    ----------
    weight : ndarray of shape (n_columns,)
        Summed weights of the observed cells.
    mean : ndarray of shape (n_columns,)
        Means of the columns.
    scatter : ndarray of shape (n_columns,)
        Weighted sums of squared deviations from the means.
    """

    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    def _check_state(self) -> None:
        parts = self.weight, self.mean, self.scatter
        if len({part.shape for part in parts}) > 1 or self.weight.ndim != 1:
            raise ValueError("the moments of columns must be vectors of the same length")
        if not np.isfinite(parts).all() or (self.weight < 0).any() or (self.scatter < 0).any():
            raise ValueError("the moments of columns must be finite and not negative")

    @classmethod
    def from_rows(cls, values: Floats, weight: Floats) -> Self:
        """Compute the moments of a table (n, n_columns), block by block."""
        d = values.shape[1]
        total = cls(np.zeros(d), np.zeros(d), np.zeros(d))
        for block in row_chunks(len(values), d):
            cells = values[block].astype(np.float64)
            observed, share = ~np.isnan(cells), weight[block]
            cells = np.where(observed, cells, 0.0).clip(-LARGEST, LARGEST)
            largest = share.max() or 1.0
            share = share / largest
            known = (share @ observed).astype(np.float64)
            # Differences from a row of the table are exact where a column is constant.
            mean = cells[0] + share @ (observed * (cells - cells[0])) / np.where(known, known, 1.0)
            scatter = share @ (observed * (cells - mean) ** 2)
            with np.errstate(over="ignore"):
                total = total.joined(cls(largest * known, mean, np.nan_to_num(largest * scatter)))
        return total

    def joined(self, other: Self) -> Self:
        """Return the moments of the cells of both tables (Chan, Golub & LeVeque 1979)."""
        weight = self.weight + other.weight
        share = other.weight / np.where(weight > 0, weight, 1.0)
        shift = other.mean - self.mean
        with np.errstate(over="ignore"):
            scatter = self.scatter + other.scatter + shift**2 * self.weight * share
        # Sums that are too large become the largest finite number.
        return type(self)(weight, self.mean + share * shift, np.nan_to_num(scatter))

    def without(self, is_left_out: NDArray[np.bool_]) -> Self:
        """Return the moments of a table in which some columns (n_columns,) have no cells."""
        return replace(self, weight=np.where(is_left_out, 0.0, self.weight))

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variances of the columns, 0 for columns without observed cells."""
        variance: NDArray[np.float64] = self.scatter / np.where(self.weight > 0, self.weight, 1.0)
        return variance

    @property
    def scale(self) -> float:
        """Square root of the mean variance of the columns with observed cells, or 1 if it is 0."""
        variance = self.variance[self.weight > 0]
        scale = float(np.sqrt(variance.mean())) if len(variance) else 0.0
        return scale if scale > 0 else 1.0

    def farthest(self, new: Self) -> tuple[int, float] | None:
        """Return the column in which new rows are farthest away, and their distance.

        The distance is that of the means, in standard deviations of the column. It is None unless
        it exceeds `FAR` and what is possible for a part of the rows seen: the mean of m of n rows
        is at most sqrt(n / m) standard deviations from that of the n rows. The standard deviation
        of a constant column is the scale of the table.
        """
        deviation = np.sqrt(self.variance)
        deviation = np.where(deviation > 1e-14 * np.abs(self.mean), deviation, self.scale)
        compared = (new.weight > 0) & (self.weight >= FAR_ROWS)
        limit = np.maximum(FAR, np.sqrt(self.weight / np.where(new.weight > 0, new.weight, 1.0)))
        distance = np.abs(new.mean - self.mean) / deviation
        excess = np.where(compared, distance / limit, 0.0)
        column = int(excess.argmax())
        return (column, float(distance[column])) if excess[column] > 1 else None


@dataclass(frozen=True)
class Sample:
    """Rows with their weights, corrupted versions and targets.

    Attributes
    ----------
    rows : Rows
        The n rows.
    weight : ndarray of shape (n,)
        Weights of the rows.
    corrupted : Rows or None
        Corrupted versions of the rows, if the user has passed any.
    targets : Targets or None
        Targets of the rows, without their loss, if the estimator uses targets.
    hashes : ndarray of shape (n,), uint64
        Hashes of all of these, except for the weights.
    """

    rows: Rows
    weight: Floats
    corrupted: Rows | None
    targets: Targets | None
    hashes: NDArray[np.uint64]

    @classmethod
    def hashed(
        cls,
        rows: Rows,
        weight: Floats,
        corrupted: Rows | None,
        targets: Targets | None,
        seed: int,
    ) -> Self:
        """Compute the hashes of rows."""
        hashes = hash_content(rows.hash(seed), corrupted, targets, seed)
        return cls(rows, weight, corrupted, targets and targets.alone, hashes)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_labeled(self) -> NDArray[np.bool_]:
        """Mask (n,) of the rows with a known target."""
        if self.targets is None:
            return np.zeros(len(self), dtype=np.bool_)
        return self.targets.any_observed

    @property
    def labeled_weight(self) -> float:
        """Sum of the weights of the rows with a known target."""
        return float(self.weight[self.is_labeled].sum())

    def take(self, index: NDArray[np.intp], weight: Floats) -> Self:
        """Return the rows at an index, with other weights."""
        return type(self)(
            self.rows.take(index),
            weight,
            None if self.corrupted is None else self.corrupted.take(index),
            None if self.targets is None else self.targets.take(index),
            self.hashes[index],
        )

    def append(self, new: Self) -> Self:
        """Return these rows, followed by new rows.

        Corrupted versions are those of both or of none. If only some rows have targets, those of
        the others are missing.
        """
        corrupted, targets = None, None
        if self.corrupted is not None and new.corrupted is not None:
            corrupted = self.corrupted.append(new.corrupted)
        known = new.targets or self.targets
        if known is not None:
            parts = [part.targets or known.missing(len(part)) for part in (self, new)]
            targets = parts[0].append(parts[1])
        weight, hashes = np.append(self.weight, new.weight), np.append(self.hashes, new.hashes)
        return type(self)(self.rows.append(new.rows), weight, corrupted, targets, hashes)


class Joined(NamedTuple):
    """The distinct rows of a sample and of new rows, which represent all rows that were seen.

    Attributes
    ----------
    table : Sample
        The rows of the sample, followed by the new rows.
    places : ndarray of shape (n_distinct,)
        Indices of the distinct rows in the table.
    weight : ndarray of shape (n_distinct,)
        Weights of the distinct rows. Their sum is that of the weights of all rows that were seen.
    is_new : ndarray of shape (n_distinct,), bool
        Whether a distinct row is among the new rows.
    chosen : ndarray of int
        Positions in `places` of the rows of the next sample, in pseudorandom order.
    new_moments : ColumnMoments
        Moments of the new rows.
    seen : Seen
        What was seen, including the new rows. `n_passed` and `due` are those before.
    """

    table: Sample
    places: NDArray[np.intp]
    weight: NDArray[np.float64]
    is_new: NDArray[np.bool_]
    chosen: NDArray[np.intp]
    new_moments: ColumnMoments
    seen: "Seen"


@dataclass(frozen=True)
class Seen(Stored):
    """What a model has seen of its rows.

    Attributes
    ----------
    seed : int
        Seed of the hashes that choose the sample.
    weight : float
        Sum of the sample weights of the rows of the latest call of `fit`, if there was one, and of
        all calls of `partial_fit` after it.
    moments : ColumnMoments
        Moments of the modelled columns of these rows.
    n_passed : float
        Number of rows that training has passed over, counted once in each epoch.
    due : float
        Value of `weight` at which the model is estimated anew.
    sample : Sample or None
        Those of the distinct rows that have the smallest hashes. A row is in the sample from the
        first time that it was seen, so that its weight is that of all times, and the order of the
        rows has no influence. Rows with a known target fill at least half of the sample if there
        are so many of them. None if the model was loaded from a file, which contains no rows.
    sampled : float
        Sum of the sample weights of the rows that the sample represents. It is smaller than
        `weight` if the model was loaded from a file.
    labeled, sampled_labeled : float
        As `weight` and `sampled`, for the rows with a known target alone.
    target_moments : ColumnMoments or None
        Moments of the targets, if they are numbers.
    """

    seed: int
    weight: float
    moments: ColumnMoments
    n_passed: float
    due: float
    sample: Sample | None
    sampled: float
    labeled: float = 0.0
    sampled_labeled: float = 0.0
    target_moments: ColumnMoments | None = None

    def _check_state(self) -> None:
        numbers = np.array([self.weight, self.n_passed, self.due, self.sampled])
        numbers = np.append(numbers, [self.labeled, self.sampled_labeled])
        if not (np.isfinite(numbers).all() and (numbers >= 0).all() and self.weight > 0):
            raise ValueError("the weight of the rows seen must be positive and finite")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"the seed of a sample must be in [0, 2**63), got {self.seed}")

    @classmethod
    def nothing(cls, seed: int, n_modelled: int) -> Self:
        """Return the state before the first row."""
        none = np.zeros(n_modelled)
        return cls(seed, 0.0, ColumnMoments(none, none, none), 0.0, 0.0, None, 0.0)

    @classmethod
    def of_units(cls, weight: float, center: Floats, scale: Floats) -> Self:
        """Return the state of a model of which only its units are known.

        The variances of its columns are assumed to be equal.
        """
        one = np.full(len(center), float(weight))
        moments = ColumnMoments(one, center.astype(np.float64), one * float(scale) ** 2)
        return cls(0, float(weight), moments, 100 * float(weight), GROWTH * weight, None, 0.0)

    @classmethod
    def all_at_once(
        cls, seed: int, table: Sample, index: NDArray[np.intp], weight: Floats, n_passed: float
    ) -> Self:
        """Return the state after a fit, which has passed over `n_passed` rows.

        `index` are the indices of the distinct rows in the table, and `weight` are their weights.
        """
        total, size = float(weight.sum()), sample_size(table.rows)
        chosen = choose_sample(table.hashes[index], table.is_labeled[index], size)
        known = float(weight[table.is_labeled[index]].sum())
        each = np.zeros(len(table))
        each[index] = weight
        moments = ColumnMoments.from_rows(table.rows.modelled, each)
        sample, due = table.take(index[chosen], weight[chosen]), GROWTH * total
        state = seed, total, moments, n_passed, due, sample, total, known, known
        return cls(*state, _target_moments(table.targets, each))

    def without_rows(self) -> Self:
        """Return the state without the sample."""
        return replace(self, sample=None, sampled=0.0, sampled_labeled=0.0)

    def without_targets(self) -> Self:
        """Return the state without targets and corrupted rows, which another estimator received."""
        sample, seed = self.sample, self.seed
        if sample is not None and not (sample.targets is None and sample.corrupted is None):
            # Rows without their targets are no longer those with the smallest hashes. They get
            # independent hashes and the weights of the rows that they represent.
            weight, seed = self.sample_weight * (self.sampled / self.weight), seed ^ 2**32
            sample = Sample.hashed(sample.rows, weight, None, None, seed)
        changed = replace(self, seed=seed, sample=sample, target_moments=None)
        return replace(changed, labeled=0.0, sampled_labeled=0.0)

    @property
    def represents_most(self) -> bool:
        """Whether the sample represents most rows seen.

        If not, a model must not be estimated from the sample alone.
        """
        return self.sampled >= 0.5 * self.weight

    @property
    def represents_most_targets(self) -> bool:
        """Whether the sample represents most rows with a known target."""
        return self.sampled_labeled >= 0.5 * self.labeled

    @property
    def sample_weight(self) -> NDArray[np.float64]:
        """Weights of the rows of the sample with which they represent all rows that were seen."""
        assert self.sample is not None
        weight, known = self.sample.weight.astype(np.float64), self.sample.is_labeled
        if known.any() and not known.all():
            # The rows with a known target have another share of the sample than of all rows.
            weight[known] *= self.sampled_labeled / weight[known].sum()
            rest = max(0.0, self.sampled - self.sampled_labeled)
            weight[~known] *= rest / weight[~known].sum()
        return weight * (self.weight / weight.sum())

    @property
    def target_units(self) -> Units | None:
        """Means and standard deviations of the targets, if they are numbers."""
        if self.target_moments is None:
            return None
        deviation = np.sqrt(self.target_moments.variance)
        return Units(self.target_moments.mean, np.where(deviation > 0, deviation, 1.0))

    def join(self, new: Sample) -> Joined:
        """Return the distinct rows of the sample and of new rows."""
        added = float(new.weight.sum())
        if self.sample is None:
            table, each = new, new.weight * ((self.weight + added) / added)
        else:
            table = self.sample.append(new)
            each = np.append(self.sample_weight, new.weight)
        index, group = group_equal_rows(table.hashes)
        is_new = np.bincount(group, np.arange(len(table)) >= len(table) - len(new)) > 0
        weight, own = (np.bincount(group, w).astype(np.float64) for w in (each, table.weight))
        chosen = choose_sample(
            table.hashes[index], table.is_labeled[index], sample_size(table.rows)
        )
        moments = ColumnMoments.from_rows(new.rows.modelled, new.weight)
        targets = _target_moments(new.targets, new.weight)
        if targets is not None and self.target_moments is not None:
            targets = self.target_moments.joined(targets)
        seen = replace(
            self,
            weight=self.weight + added,
            moments=self.moments.joined(moments),
            sample=table.take(index[chosen], own[chosen]),
            sampled=self.sampled + added,
            labeled=self.labeled + new.labeled_weight,
            sampled_labeled=self.sampled_labeled + new.labeled_weight,
            target_moments=targets or self.target_moments,
        )
        return Joined(table, index, weight, is_new, chosen, moments, seen)

    def passed(self, n_passed: float, is_due: bool) -> Self:
        """Return the state after a training.

        `n_passed` is the number of rows that training has passed over in all calls. `is_due` is
        whether the model was estimated anew in this call.
        """
        due = GROWTH * self.weight if is_due else self.due
        return replace(self, n_passed=n_passed, due=due)


def hash_content(
    hashes: NDArray[np.uint64], corrupted: Rows | None, targets: Targets | None, seed: int
) -> NDArray[np.uint64]:
    """Return hashes of rows with their corrupted versions and targets, if there are any.

    `hashes` are those of the rows alone. They are also those of rows without a known target.
    """
    if corrupted is not None:
        hashes = mix_bits(hashes + mix_bits(corrupted.hash(seed)))
    if targets is not None:
        targets = targets.alone
        own = mix_bits(hash_rows(targets.values, seed))
        own = mix_bits(own + hash_rows(targets.observed, seed))
        hashes = np.where(targets.any_observed, hashes + own, hashes)
    return hashes


def choose_sample(
    hashes: NDArray[np.uint64], is_labeled: NDArray[np.bool_], size: int
) -> NDArray[np.intp]:
    """Choose at most `size` of distinct rows by their hashes. Return them in pseudorandom order.

    Rows with a known target, which `is_labeled` marks, fill half of the sample, or more if there
    are too few other rows.
    """
    if not is_labeled.any() or is_labeled.all():
        return select_by_hash(hashes, size)
    groups = np.flatnonzero(is_labeled), np.flatnonzero(~is_labeled)
    n_labeled = min(len(groups[0]), max(size // 2, size - len(groups[1])))
    sizes = n_labeled, size - n_labeled
    parts = [
        group[select_by_hash(hashes[group], n)] for group, n in zip(groups, sizes, strict=True)
    ]
    chosen = np.concatenate(parts)
    return chosen[select_by_hash(hashes[chosen], size)]


def sample_size(rows: Rows) -> int:
    """Return the largest number of rows of a sample."""
    return max(2, min(SAMPLE_ROWS, SAMPLE_CELLS // rows.values.shape[1]))


def _target_moments(targets: Targets | None, weight: Floats) -> ColumnMoments | None:
    """Return the moments of the targets of weighted rows, if they are numbers."""
    if targets is None or targets.units is None:
        return None
    values = np.where(targets.observed > 0, targets.values, np.nan)
    return ColumnMoments.from_rows(values, weight)
