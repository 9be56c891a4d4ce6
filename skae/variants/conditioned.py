"""Base class of autoencoders with a condition: columns that are not modelled."""

from numbers import Integral
from typing import Any, ClassVar

from numpy.random import RandomState
from numpy.typing import NDArray

from skae import inference
from skae.base import BaseAutoencoder
from skae.state import Fitted
from skae.table.blocks import ColumnKey
from skae.table.containers import index_of
from skae.table.reading import MatrixLike
from skae.table.rows import Floats

COLUMN_KEY: list[object] = [str, Integral, slice, callable, "array-like", None]
"""Constraints of a parameter that selects columns."""


class ConditionedAutoencoder(BaseAutoencoder):
    """Base class of autoencoders whose decoder receives a condition beside the code.

    A subclass has a parameter, named by `_condition_parameter`, that selects the columns of the
    condition. If it is None, there is no condition.
    """

    _condition_parameter: ClassVar[str]
    """Name of the parameter that selects the columns of the condition."""

    def _conditions(self) -> tuple[str, ColumnKey]:
        return self._condition_parameter, getattr(self, self._condition_parameter)

    def inverse_transform(self, X: MatrixLike, condition: Any = None) -> NDArray[Any]:
        """Decode codes into rows under a condition.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.
        condition : scalar, array-like, dict, Series or DataFrame, default=None
            Values of the columns of the condition, which are those that the estimator's parameter
            `condition` selects, or `sensitive` in `FairAutoencoder`. It must be None if this
            parameter is None, and must not be None otherwise.

            - For one column: one value for all codes, or an array with one value for each code.
            - For several columns: an array with one value for each column, which applies to all
              codes, or a table with one row for each code.

            The order of the columns is that of the training table. The values of a dict, of a
            DataFrame, or of a Series whose index contains the names are matched by name instead.

        Returns
        -------
        X_original : ndarray or data frame of shape (n_samples, n_features)
            Expected row of each code under the likelihood, in the user's units. The columns of the
            condition contain `condition`. It is a data frame with the columns and dtypes of the
            first fit if that received one. Otherwise, the dtype is object if the table contains
            strings, and else a floating dtype, in which booleans are 0 and 1.

        Raises
        ------
        ValueError
            If `X` is invalid, if the model has a condition and `condition` is None, or if
            `condition` has the wrong shape, contains missing values or categories that training has
            not seen, or is not None although the model has no condition.
        TypeError
            If a column of `condition` contains values of several types.
        """
        fitted = self._read_fitted()
        Z = self._read_codes(X, fitted)
        conditions = self._read_conditions(condition, len(Z), fitted, "inverse_transform")
        return inference.decode(Z, conditions, fitted, index_of(X))

    def _read_conditions(
        self, condition: Any, n: int, fitted: Fitted, caller: str
    ) -> Floats | None:
        """Validate the argument `condition` that the method `caller` received for `n` codes.

        Returns cells of shape (n, n_conditions), or None if the model has no condition. Raises
        ValueError or TypeError if the argument is invalid.
        """
        schema = fitted.schema
        if condition is None and not schema.conditions:
            return None
        if condition is None:
            names = ", ".join(column.name for column in schema.conditions)
            raise ValueError(
                f"{caller} needs condition, because codes do not contain it: pass values "
                f"of {names}."
            )
        return schema.read_conditions(condition, n)

    def translate(self, X: MatrixLike, condition: Any) -> NDArray[Any]:
        """Predict what rows would be under another condition.

        The rows are encoded under their own condition, and their codes are decoded under
        `condition`. The encoder of `FairAutoencoder` does not receive the condition.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units, including the columns of their own condition.
        condition : scalar, array-like, dict, Series, DataFrame or None
            Values of the columns of the condition, for all rows or for each row, as in
            `inverse_transform`. None is valid only if the model has no condition.

        Returns
        -------
        X_translated : ndarray of shape (n_samples, n_features)
            Expected row of each code under the likelihood, in the user's units and in the same
            format as that of `inverse_transform`.

        Raises
        ------
        ValueError
            If `X` is invalid, or if `condition` is invalid (see `inverse_transform`).
        TypeError
            If `X` is sparse, or if a column of the condition contains values of several types.
        """
        fitted = self._read_fitted()
        rows = fitted.schema.read(X)
        conditions = self._read_conditions(condition, len(rows), fitted, "translate")
        codes = inference.codes(rows, fitted)
        return inference.decode(codes, conditions, fitted, index_of(X))

    def sample(
        self,
        n_samples: int = 1,
        mean: bool = False,
        random_state: int | RandomState | None = None,
        condition: Any = None,
    ) -> NDArray[Any]:
        """Draw random rows from the fitted model, under a condition.

        For each row, a code is drawn from the prior, and the row is drawn from the likelihood under
        this code and the condition.

        Parameters
        ----------
        condition : scalar, array-like, dict, Series or DataFrame, default=None
            Values of the columns of the condition, for all rows or for each row, as in
            `inverse_transform`. With None, the condition of each row is drawn from the distribution
            of those of the training rows, in proportion to their sample weights. Categories are
            drawn as often together as they occur together. Numbers have the mean and the covariance
            of the training rows, but those that few rows share do not occur again.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows in the user's units. The columns of the condition contain the condition of each
            row. The dtype is that of the rows that `inverse_transform` returns.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, if the rows do not fit into memory, if
            `random_state` is invalid, or if `condition` has the wrong shape, contains missing
            values or categories that training has not seen, or is not None although the model has
            no condition.
        TypeError
            If a column of `condition` contains values of several types.
        """
        return self._sample(n_samples, mean, random_state, condition)
