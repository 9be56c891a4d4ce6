"""Units in which the autoencoders of tasks receive rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skae.base import MatrixLike
from skae.files import Stored, check_numbers
from skae.fitting.prepare import ReadRows
from skae.table.containers import index_of
from skae.table.rows import Rows
from skae.table.selection import DistinctRows, Selection, assemble
from skae.tasks.meta_estimator import FittedTask, TrainingRows, schema_of
from skae.tasks.robust_statistics import (
    MAX_DEVIATION,
    Floats,
    divide,
    scale_within_reach,
    weighted_median,
)

MAX_RESIDUAL = 1e100
"""Magnitude, in robust units, at which residuals are clipped to keep sums of squares finite."""

ROUNDING_ERRORS = 2
"""Number of machine epsilons, relative to the median of its column, by which a cell may differ from
the median because of rounding errors."""


@dataclass(frozen=True)
class Units(Stored):
    """Units of the columns of a table in which a network receives the table.

    In a column that is constant in the training rows, no unit is small enough. Its scale is 0, and
    every other value than the constant is infinitely many units away from it.

    Attributes
    ----------
    center : ndarray of shape (n_features,)
        Value of each column, in the user's units, that is 0 in these units.
    scale : ndarray of shape (n_features,)
        Difference of each column, in the user's units, that is 1 in these units. It is 0 in
        constant columns.
    reach : ndarray of shape (n_features,)
        Largest absolute value of each column in these units. Cells beyond it are clipped.
    epsilon : float
        Machine epsilon of the dtype of the training rows. It is 0 in the user's own units.
    """

    center: Floats
    scale: Floats
    reach: Floats
    epsilon: float

    def _check_state(self) -> None:
        d = self.center.shape[:1]
        check_numbers(self.center, d, "the centers of columns")
        check_numbers(self.scale, d, "the scales of columns")
        if self.reach.shape != d or (self.scale < 0).any() or not (self.reach >= 0).all():
            raise ValueError("the scales and the reach of columns must not be negative")
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"epsilon must be in [0, 1), got {self.epsilon}")

    @classmethod
    def from_rows(
        cls, rows: Selection, weight: Floats, epsilon: float, is_number: NDArray[np.bool_]
    ) -> Self:
        """Estimate robust units of numbers from rows with weights (n,).

        Columns for which `is_number` (n_columns,) is False keep their units.

        The center is the median. The scale is that of `scale_within_reach` for differences from the
        median. Differences that may be rounding errors are 0.
        """
        center, typical, deviation = np.empty((3, rows.n_columns))
        for block, values in rows.column_blocks():
            cells = values.astype(np.float64)
            center[block] = np.nan_to_num(weighted_median(cells, weight))
            difference = _round_to(center[block], cells, epsilon) - center[block]
            typical[block], deviation[block] = scale_within_reach(difference, weight)
        units = cls(center, typical * deviation, MAX_DEVIATION / deviation, epsilon)
        return units if is_number.all() else units.only(is_number)

    @classmethod
    def for_targets(cls, rows: DistinctRows, is_number: NDArray[np.bool_]) -> Self:
        """Estimate units of numbers for tasks that predict targets.

        The scale is the root mean square of the differences from the median that are not 0. A
        column that mostly contains one value is thus treated like the indicator of a category,
        whose rare 1 is not scaled up.
        """
        epsilon = float(np.finfo(rows.table.dtype).eps)
        units = cls.from_rows(rows, rows.share, epsilon, is_number)
        different = np.empty(rows.n_columns)
        for block, values in rows.column_blocks():
            cells = values.astype(np.float64)
            observed = ~np.isnan(cells)
            is_other = _round_to(units.center[block], cells, epsilon) != units.center[block]
            total = rows.share @ observed
            different[block] = rows.share @ (is_other & observed) / np.where(total > 0, total, 1.0)
        root = np.sqrt(np.where(different > 0, different, 1.0))
        units = replace(units, scale=units.scale / root, reach=units.reach * root)
        return units.clipped(np.inf).only(is_number)

    def clipped(self, reach: float) -> Self:
        """Return these units, in which cells of scaled columns are clipped at `reach` at most.

        A column that is constant here stays constant, because its weights are not trained.
        """
        is_scaled = np.isfinite(self.reach)
        limit = np.where(self.scale > 0, np.minimum(self.reach, reach), 0.0)
        return replace(self, reach=np.where(is_scaled, limit, self.reach))

    def only(self, is_scaled: NDArray[np.bool_]) -> Self:
        """Return these units of some columns, and the user's units of the others."""
        if not is_scaled.any():
            return self.identity(len(is_scaled))
        center, scale = np.where(is_scaled, self.center, 0.0), np.where(is_scaled, self.scale, 1.0)
        reach = np.where(is_scaled, self.reach, np.inf)
        return type(self)(center, scale, reach, self.epsilon)

    @classmethod
    def identity(cls, n_features: int) -> Self:
        """Return the user's units, in which cells are not clipped."""
        return cls(np.zeros(n_features), np.ones(n_features), np.full(n_features, np.inf), 0.0)

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Self:
        # Files of formats 1 to 3 that earlier versions have written contain no `epsilon`.
        return super()._from_stored_state({"epsilon": 0.0} | state)

    def round(self, X: NDArray[Any]) -> Floats:
        """Return rows in which cells that equal the center up to rounding errors are the center."""
        return _round_to(self.center, X, max(self.epsilon, float(np.finfo(X.dtype).eps)))

    def to_network(self, X: NDArray[np.floating]) -> Floats:
        """Convert rows from the user's units to the network's, and clip their cells.

        Cells are rounded to single precision, because the training depends on all their bits: it
        would otherwise depend on the rounding errors of a change of the user's units.
        """
        difference = self.round(X) - self.center
        cells: Floats = np.clip(divide(difference, self.scale), -self.reach, self.reach)
        if not self.is_single_precision:
            return cells
        # As a conversion to float32, but for numbers of any size.
        fraction, exponent = np.frexp(cells)
        return np.ldexp(np.round(fraction * 2.0**24) / 2.0**24, exponent)

    @property
    def is_single_precision(self) -> bool:
        """Whether `to_network` rounds cells to single precision."""
        return self.epsilon > 0

    def to_user(self, X: Floats) -> Floats:
        """Convert rows from the network's units to the user's."""
        return X * self.scale + self.center

    def residual(self, X: Floats, reconstruction: Floats) -> Floats:
        """Return rows minus their reconstructions, both in the user's units, in these units."""
        return np.clip(divide(X - reconstruction, self.scale), -MAX_RESIDUAL, MAX_RESIDUAL)

    def with_constants(self, reconstruction: Floats) -> Floats:
        """Return a reconstruction whose constant columns contain the constants."""
        rows: Floats = np.where(self.scale > 0, reconstruction, self.center)
        return rows

    def log_volumes(self, is_counted: NDArray[np.bool_]) -> Floats | float:
        """Return the logarithms of the products of the scales of columns that are not constant.

        They are those of the cells in a mask (n, n_columns), or one number if it contains all.
        """
        is_variable = self.scale > 0
        logs = np.log(self.scale[is_variable])
        if is_counted.all():
            return float(logs.sum())
        volumes: Floats = is_counted[:, is_variable].astype(np.float64) @ logs
        return volumes


def _round_to(center: Floats, X: NDArray[Any], epsilon: float) -> Floats:
    """Replace the cells that equal `center` (n_features,) up to rounding errors by `center`."""
    tolerance = ROUNDING_ERRORS * epsilon * np.abs(center)
    return np.where(np.abs(X - center) <= tolerance, center, X)


@dataclass(frozen=True)
class ScaledTask(FittedTask):
    """Fitted autoencoder of a task that scales the columns for it.

    Attributes
    ----------
    inputs : Units
        Units in which the autoencoder receives rows. Columns of categories and of conditions have
        their own cells as units.
    """

    inputs: Units

    def _check_state(self) -> None:
        super()._check_state()
        if len(self.inputs.center) != self.n_features_in:
            raise ValueError(f"there must be units of {self.n_features_in} columns")

    @staticmethod
    def choose_inputs(data: TrainingRows, make: Callable[[], Units]) -> Units:
        """Return the units in which the autoencoder of a task receives rows.

        They are those in which it was trained, if it is fitted already, and those that `make`
        returns otherwise.
        """
        if data.resumed is not None:
            inputs: Units = data.resumed.inputs
            return inputs
        if data.autoencoder is not None and data.autoencoder._fitted is not None:
            return Units.identity(data.read.schema.n_columns)
        return make()

    def fit_autoencoder(self, rows: DistinctRows, density_rows: int | None = None) -> None:
        """Fit the autoencoder to rows in the user's units.

        `density_rows` is the maximum number of rows from which the density is estimated.
        """
        weight = rows.weight
        if len(rows) == 1:
            # An autoencoder requires two rows, which may be equal.
            rows, weight = rows.take(np.zeros(2, dtype=np.intp)), np.repeat(weight / 2, 2)
        self.autoencoder._fit_rows(self.read_scaled(rows), None, weight, True, density_rows)
        # The task reads tables itself, and keeps its own sample of the rows if it needs one.
        self.autoencoder._fitted = self.autoencoder._fitted.without_rows()

    def read_scaled(self, rows: Selection) -> ReadRows:
        """Convert rows in the user's units to validated rows of the autoencoder."""
        dtype = rows.copy_dtype
        if self.inputs.is_single_precision and not rows.is_small:
            dtype = np.dtype(np.float32)
        parts = ((block, self.inputs.to_network(cells)) for block, cells in rows.row_blocks())
        schema = self.schema.for_arrays()
        if self.inputs.is_single_precision:
            schema = schema.in_other_units()
        schema = schema_of(self.autoencoder, schema)
        return ReadRows(schema, schema.as_rows(assemble(len(rows), parts, dtype)))

    def to_autoencoder(self, X: MatrixLike, rows: Rows) -> Any:
        schema = self.autoencoder._fitted.schema
        if not self.inputs.is_single_precision:
            return super().to_autoencoder(X, rows)
        cells = self.inputs.to_network(rows.values)
        if schema.holds_cells:
            return cells
        modelled, conditions = np.split(cells, [rows.n_modelled], axis=1)
        return schema.write(modelled, conditions, index_of(X))

    def to_rows(self, X: NDArray[np.floating]) -> Rows:
        """Convert cells (n, n_columns) in the user's units to rows in those of the autoencoder."""
        return self.autoencoder._fitted.schema.as_rows(self.inputs.to_network(X))
