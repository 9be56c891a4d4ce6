"""Sample weights: functions that read them, and that select the rows of positive weight."""

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length

from skae._compat.sklearn import check_sample_weight, safe_indexing
from skae.table.reading import MatrixLike, as_container
from skae.table.rows import Floats

MIN_WEIGHT_SUM = 1e-300
"""Smallest sum of sample weights. Dividing by a smaller sum could overflow."""


def read_weight(
    sample_weight: MatrixLike | None, X: MatrixLike, name: str = "sample_weight"
) -> NDArray[np.float64]:
    """Validate the weights of the rows of `X`, and return them as a float64 array (n_samples,).

    `sample_weight` contains one weight for each row. A number is the weight of every row, and None
    is a weight of 1. Raises ValueError, which calls the weights `name`, if the number of weights is
    not that of the rows, if a weight is negative or not finite, or if the sum of the weights is at
    most `MIN_WEIGHT_SUM` or not finite.
    """
    weight: NDArray[np.float64] = check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not MIN_WEIGHT_SUM < total < np.inf:
        raise ValueError(
            f"{name} must have a positive and finite sum, got a sum of {total:g}. Scale it "
            "to a mean of about 1."
        )
    return weight


def check_more_than_one_row(estimator: object, n: int) -> None:
    """Raise ValueError if fewer than two rows have a positive weight."""
    if n < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs at least 2 rows with a positive sample_weight, got "
            f"n_samples = {n}."
        )


def rows_of_positive_weight(
    X: MatrixLike, X_corrupted: MatrixLike | None, weight: Floats
) -> tuple[MatrixLike, MatrixLike | None]:
    """Return the rows of positive weight of tables that have not been validated."""
    if weight.all():
        return X, X_corrupted
    positive = np.flatnonzero(weight)
    if X_corrupted is not None:
        X_corrupted = as_container(X_corrupted)
        check_consistent_length(X_corrupted, weight)
        X_corrupted = safe_indexing(X_corrupted, positive)
    return safe_indexing(as_container(X), positive), X_corrupted
