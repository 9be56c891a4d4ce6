"""Arguments of fits: their validation, and the rows that are held out."""

import secrets
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state

from skae.nn.batch import Batch
from skae.nn.network import Network
from skae.starting import modelling, row_shape
from skae.state import Fitted
from skae.table.reading import MatrixLike, holds_numbers
from skae.table.rows import Floats, Rows, max_abs_values, merge_equal_rows
from skae.table.schema import Schema
from skae.table.seen import Sample, hash_content
from skae.table.targets import Targets, join_targets, rare_rows
from skae.table.weights import check_more_than_one_row, read_weight, rows_of_positive_weight
from skae.training.precision import check_overflow
from skae.training.split import Split
from skae.training.tensors import make_batch


class ReadRows(NamedTuple):
    """Rows of a table, and the schema that has read them."""

    schema: Schema
    rows: Rows


@dataclass(frozen=True)
class FitData:
    """Arguments of a fit, before validation.

    Attributes
    ----------
    X, y, sample_weight, X_corrupted, X_val, y_val, sample_weight_val : array-like or None
        Arguments of the public method.
    targets : Targets or None
        Targets that a meta-estimator has read. If it is None, the autoencoder reads them from `y`.
    target_options : dict
        Keyword arguments of the autoencoder's `_read_targets`.
    read : ReadRows or None
        The rows of `X`, if a meta-estimator has read them.
    density_rows : int or None
        Maximum number of rows from which the density is estimated. None is the usual number. A
        task whose results do not depend on the density sets a smaller number.
    """

    X: MatrixLike
    y: MatrixLike
    sample_weight: MatrixLike | None
    X_corrupted: MatrixLike | None
    X_val: MatrixLike | None = None
    y_val: MatrixLike | None = None
    sample_weight_val: MatrixLike | None = None
    targets: Targets | None = None
    target_options: dict[str, Any] = field(default_factory=dict)
    read: ReadRows | None = None
    density_rows: int | None = None

    @classmethod
    def of_task(
        cls,
        read: ReadRows,
        targets: Targets | None,
        sample_weight: Floats,
        density_rows: int | None,
    ) -> Self:
        """Return the arguments of a fit to rows and targets that a meta-estimator has read."""
        own = cls(read.rows.values, None, sample_weight, None)
        return replace(own, targets=targets, read=read, density_rows=density_rows)


@dataclass(frozen=True)
class PreparedFit:
    """Validated data of a fit.

    Attributes
    ----------
    schema : Schema
        How the table is read and written.
    rows : Rows
        The n rows of the table with positive weight, including the validation rows.
    weight : ndarray of shape (n,)
        Sample weights of the rows.
    corrupted : Rows or None
        Corrupted versions of the rows, which the encoder receives, if the user passed any.
    targets : Targets or None
        Targets of the rows, if the estimator uses targets.
    split : Split
        The distinct rows, and which of them are held out.
    hashes : ndarray of shape (n,), uint64
        Hashes of the rows with their corrupted versions and targets.
    resume : Fitted or None
        Model from which training resumes. None starts with a new model.
    seed : int
        Seed of the split and of all random numbers for a new network. If training resumes with a
        network of the same size, its random numbers continue those of the previous fit.
    density_rows : int or None
        Maximum number of rows from which the density is estimated. None is the usual number.
    pace : float
        Factor on the learning rate.
    """

    schema: Schema
    rows: Rows
    weight: Floats
    corrupted: Rows | None
    targets: Targets | None
    split: Split
    hashes: NDArray[np.uint64]
    resume: Fitted | None
    seed: int
    density_rows: int | None
    pace: float = 1.0

    @property
    def learned(self) -> dict[str, Any]:
        """What was learned from targets, such as their classes, in this and in earlier fits."""
        new = {} if self.targets is None else self.targets.learned
        return new if self.resume is None else self.resume.learned | new

    @property
    def table(self) -> Sample:
        """All rows, with all that belongs to them."""
        targets = self.targets and self.targets.alone
        return Sample(self.rows, self.weight, self.corrupted, targets, self.hashes)

    def representatives(self, network: Network) -> Batch:
        """Return up to `density_rows` representatives of the rows, without targets.

        The batch suits the network.
        """
        index = self.split.index[self.split.representatives[: self.density_rows]]
        weight = self.split.representative_weight[: self.density_rows]
        return make_batch(self.rows.take(index), network, weight)


class Table(NamedTuple):
    """Validated arguments of a fit. Rows of weight 0 are left out, except in `all_weights`."""

    schema: Schema
    rows: Rows
    weight: Floats
    corrupted: Rows | None
    targets: Targets | None
    all_weights: Floats


def read_table(
    estimator: BaseEstimator, data: FitData, resume: Fitted | None, min_rows: int = 2
) -> Table:
    """Validate the rows of a fit, their weights, corrupted versions and targets.

    `min_rows` is the smallest number of rows of a fit that does not resume.
    """
    X, X_corrupted, all_weights = data.X, data.X_corrupted, None
    drops_first = estimator._conditions()[1] is not None or not holds_numbers(X)
    if data.sample_weight is not None and data.read is None and drops_first:
        # Rows of weight 0 are dropped before the table is read, because their categories must not
        # become levels.
        all_weights = read_weight(data.sample_weight, X)
        X, X_corrupted = rows_of_positive_weight(X, X_corrupted, all_weights)
    schema, rows = data.read or read_rows(estimator, X, resume, min_rows)
    if all_weights is None:
        all_weights = read_weight(data.sample_weight, rows.values)
    corrupted, weight = None, all_weights[all_weights > 0]
    if X_corrupted is not None:
        corrupted = schema.read_corrupted(X_corrupted, rows)
        largest = max_abs_values(corrupted.modelled)
        check_overflow(largest, "X_corrupted", schema, torch.float64)
    if len(weight) < len(rows):
        rows = rows.take(all_weights > 0)
        corrupted = None if corrupted is None else corrupted.take(all_weights > 0)
    learned = {} if resume is None else resume.learned
    targets = data.targets or estimator._read_targets(
        data.y, all_weights, learned, **data.target_options
    )
    return Table(schema, rows, weight, corrupted, targets, all_weights)


def prepare_fit(estimator: BaseEstimator, data: FitData, resume: Fitted | None) -> PreparedFit:
    """Validate the arguments of a fit and hold out rows."""
    schema, rows, weight, corrupted, targets, all_weights = read_table(estimator, data, resume)
    if resume is None:
        check_more_than_one_row(estimator, len(rows))
    validation: float | NDArray[np.bool_] = 0.0
    check_validation(estimator, data, targets)
    if data.X_val is not None:
        held_out = schema.read(data.X_val)
        if np.isnan(held_out.modelled).all():
            raise ValueError("All cells of X_val are missing (NaN). Pass rows with observed cells.")
        weights = read_weight(data.sample_weight_val, held_out.values, "sample_weight_val")
        if targets is not None:
            y, both = join_targets(data.y, data.y_val), np.append(all_weights, weights)
            joined = estimator._read_targets(y, both, {} if resume is None else resume.learned)
            if joined.values.shape[1] != targets.values.shape[1]:
                raise ValueError("y_val must not contain classes that y does not contain.")
            targets = replace(joined, learned=targets.learned)
        validation = np.arange(len(rows) + np.count_nonzero(weights)) >= len(rows)
        rows = rows.append(held_out.take(weights > 0))
        weight = np.append(weight, weights[weights > 0])
    elif estimator.early_stopping is not False:
        validation = estimator.validation_fraction
    seed = draw_seed(estimator.random_state)
    own = rows.hash(seed)
    if (
        estimator.early_stopping == "auto"
        and data.X_val is None
        and mostly_repeats(rows, own, weight)
    ):
        validation = 0.0
    hashes = hash_content(own, corrupted, targets, seed)
    split = Split.from_hashes(own, hashes, weight, rare_rows(targets, weight), validation)
    parts = schema, rows, weight, corrupted, targets, split, hashes
    return PreparedFit(*parts, resume, seed, data.density_rows)


def mostly_repeats(rows: Rows, hashes: NDArray[np.uint64], weight: Floats) -> bool:
    """Return whether fewer than half of the rows of a table with categories are distinct.

    Equal rows are held out together, so that validation rows would be kinds of rows that training
    never sees. Whole weights are numbers of repetitions, without their greatest common divisor: a
    table in which each row occurs three times is equivalent to one without repetitions.
    """
    if not rows.modelled_levels:
        return False
    total = merge_equal_rows(weight, hashes)[1]
    n = len(rows)
    if (weight == np.rint(weight)).all() and weight.sum() < 2**53:
        n = total.sum() / np.gcd.reduce(total.astype(np.int64))
    return bool(2 * len(total) < n)


def check_validation(estimator: BaseEstimator, data: FitData, targets: Targets | None) -> None:
    """Raise ValueError if validation rows of the user do not suit the other arguments."""
    if data.X_val is None:
        if data.y_val is not None or data.sample_weight_val is not None:
            raise ValueError("y_val and sample_weight_val must be passed together with X_val.")
        return
    if estimator.early_stopping is False:
        raise ValueError(
            "X_val cannot be passed with early_stopping=False, which uses no validation rows. Set "
            "early_stopping to 'auto' or True, or omit X_val."
        )
    if data.X_corrupted is not None:
        raise ValueError(
            "X_val cannot be passed with X_corrupted, because there are no corrupted versions of "
            "the rows of X_val. Set the parameter corruption instead of passing X_corrupted, or "
            "omit X_val, so that rows of X are held out."
        )
    if targets is not None and data.y_val is None:
        raise ValueError(
            f"y_val must be passed with X_val, because this {type(estimator).__name__} uses y."
        )
    if data.y_val is not None:
        check_consistent_length(data.X_val, data.y_val)


def read_rows(
    estimator: BaseEstimator,
    X: MatrixLike,
    resume: Fitted | None,
    min_rows: int,
    owner: str | None = None,
) -> ReadRows:
    """Return the schema of a table and its rows. A resumed model determines the schema.

    `owner` is the class name of the estimator in error messages, or None for that of `estimator`.
    """
    conditions = estimator._conditions()
    if resume is not None:
        resume.schema.check_same_columns(X, conditions[1])
        return ReadRows(resume.schema, resume.schema.read(X))
    owner, shape = owner or type(estimator).__name__, row_shape(estimator)
    return ReadRows(*Schema.infer(X, conditions, modelling(estimator), shape, owner, min_rows))


def draw_seed(random_state: int | RandomState | None) -> int:
    """Draw a seed from a `random_state`. None gives a different seed in each call."""
    if random_state is None:
        # numpy's global generator is never used: that would change the user's random numbers.
        return secrets.randbelow(2**31)
    return int(check_random_state(random_state).randint(2**31 - 1))
