"""Base of autoencoders with conditions, columns that are not modelled."""

from numbers import Integral
from typing import Any, ClassVar

from numpy.random import RandomState
from numpy.typing import NDArray

from skae import inference
from skae.base import BaseAutoencoder
from skae.state import Fitted
from skae.table.rows import Floats
from skae.table.schema import ColumnKey, MatrixLike

COLUMN_KEY: list[object] = [str, Integral, slice, callable, "array-like", None]
"""Constraints of a parameter that selects columns."""


class ConditionedAutoencoder(BaseAutoencoder):
    """Base of autoencoders whose decoder receives conditions beside the code."""

    _condition_parameter: ClassVar[str]
    """Name of the parameter that selects the columns of the condition."""

    def _conditions(self) -> tuple[str, ColumnKey]:
        return self._condition_parameter, getattr(self, self._condition_parameter)

    def inverse_transform(self, X: MatrixLike, condition: Any = None) -> NDArray[Any]:
        """Decode codes to rows under a condition.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.
        condition : scalar, array-like or DataFrame, default=None
            Values of the columns of the condition: one value for all rows, one value per row, one
            row of several columns for all rows, or a table with one row per row. Columns are in the
            order of the training table; those of a DataFrame are matched by name.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Decoder's mean for each code, in the user's units, with the columns of the condition.
            The dtype is object if the condition contains strings.

        Raises
        ------
        ValueError
            If the model has a condition and `condition` is None, or if it contains categories that
            training has not seen.
        """
        fitted = self._read_fitted()
        Z = self._read_codes(X, fitted)
        conditions = self._read_conditions(condition, len(Z), fitted, "inverse_transform")
        return inference.decode(Z, conditions, fitted)

    def _read_conditions(
        self, condition: Any, n: int, fitted: Fitted, caller: str
    ) -> Floats | None:
        """Validate the conditions of `n` codes, which the method `caller` received."""
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

        Codes of the rows are decoded under that condition.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        condition : scalar, array-like or DataFrame
            See `inverse_transform`.

        Returns
        -------
        X_translated : ndarray of shape (n_samples, n_features)
            Decoder's mean, in the user's units, with the columns of the condition. The dtype is
            object if the condition contains strings.

        Raises
        ------
        ValueError
            If `condition` contains categories that training has not seen.
        """
        fitted = self._read_fitted()
        rows = fitted.schema.read(X)
        conditions = self._read_conditions(condition, len(rows), fitted, "translate")
        return inference.decode(inference.codes(rows, fitted), conditions, fitted)

    def sample(
        self,
        n_samples: int = 1,
        mean: bool = False,
        random_state: int | RandomState | None = None,
        condition: Any = None,
    ) -> NDArray[Any]:
        """Draw rows from the model: codes from the prior, and rows from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        mean : bool, default=False
            Whether to return the decoder's mean for the drawn codes, without noise.
        random_state : int, RandomState instance or None, default=None
            Determines the draws.
        condition : scalar, array-like or DataFrame, default=None
            See `inverse_transform`. None draws conditions of training rows.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows in the user's units, with the columns of the condition. The dtype is object if the
            condition contains strings.

        Raises
        ------
        ValueError
            If `condition` contains categories that training has not seen.
        """
        return self._sample(n_samples, mean, random_state, condition)
