"""Fitted model of the outlier detector, and the units in which its autoencoder receives rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skae.base import MatrixLike
from skae.files import Stored, check_numbers
from skae.fitting.prepare import ReadRows
from skae.table.containers import index_of
from skae.table.rows import Rows
from skae.table.seen import Seen
from skae.table.selection import DistinctRows, Selection, assemble
from skae.tasks.meta_estimator import FittedTask, schema_of
from skae.tasks.outlier_scores import ModelOutputs, Score
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

MAX_PLAUSIBLE_DEVIATION = 3.0
"""Absolute deviation above which `explain` replaces a cell by its reconstructed value."""

N_REPLACEMENTS = 2
"""Number of times that `explain` replaces implausible cells. More rounds change little."""


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
        if self.reach.shape != d or (self.scale < 0).any() or not (self.reach > 0).all():
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

    def to_network(self, X: Floats) -> Floats:
        """Convert rows from the user's units to the network's, and clip their cells.

        Cells are rounded to single precision, because the training depends on all their bits: it
        would otherwise depend on the rounding errors of a change of the user's units.
        """
        cells: Floats = np.clip(divide(X - self.center, self.scale), -self.reach, self.reach)
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
class ScaledAutoencoder(FittedTask):
    """Fitted autoencoder of a detector, and the units of its rows and of its residuals.

    Attributes
    ----------
    inputs : Units
        Units in which the autoencoder receives rows. Columns of categories and of conditions have
        their own cells as units.
    units : Units
        Robust units of the training rows, in which residuals are measured.
    """

    inputs: Units
    units: Units

    def _check_state(self) -> None:
        super()._check_state()
        if not len(self.inputs.center) == len(self.units.center) == self.n_features_in:
            raise ValueError(f"there must be units of {self.n_features_in} columns")

    def fit_autoencoder(self, rows: DistinctRows) -> None:
        """Fit the autoencoder to rows in the user's units."""
        dtype = rows.copy_dtype
        if self.inputs.is_single_precision and not rows.is_small:
            dtype = np.dtype(np.float32)
        weight = rows.weight
        if len(rows) == 1:
            # An autoencoder requires two rows, which may be equal.
            rows, weight = rows.take(np.zeros(2, dtype=np.intp)), np.repeat(weight / 2, 2)
        parts = ((block, self.inputs.to_network(cells)) for block, cells in self.blocks(rows))
        schema = self.schema.for_arrays()
        if self.inputs.is_single_precision:
            schema = schema.in_other_units()
        schema = schema_of(self.autoencoder, schema)
        read = ReadRows(schema, schema.as_rows(assemble(len(rows), parts, dtype)))
        self.autoencoder._fit_rows(read, None, weight, resume=True)
        # The detector keeps its own sample of the rows, in the user's units.
        self.autoencoder._fitted = self.autoencoder._fitted.without_rows()

    def to_autoencoder(self, X: MatrixLike, rows: Rows) -> Any:
        schema, cells = self.autoencoder._fitted.schema, rows.values
        if not self.inputs.is_single_precision:
            return super().to_autoencoder(X, rows)
        cells = self.inputs.to_network(self.units.round(cells))
        if schema.holds_cells:
            return cells
        modelled, conditions = np.split(cells, [rows.n_modelled], axis=1)
        return schema.write(modelled, conditions, index_of(X))

    def to_rows(self, X: Floats) -> Rows:
        """Convert cells (n, n_columns) in the user's units to rows in those of the autoencoder."""
        return self.autoencoder._fitted.schema.as_rows(self.inputs.to_network(X))

    def encode(self, X: Floats) -> Floats:
        """Compute the codes (n, n_components) of rows (n, n_columns) in the user's units."""
        return np.asarray(self.autoencoder._encode(self.to_rows(X)), dtype=np.float64)

    def decode(self, codes: Floats, X: Floats) -> tuple[Floats, Floats]:
        """Decode codes, and compare rows (n, n_columns) with the results.

        Returns the reconstructed cells in the user's units, and the residuals of the rows in robust
        units. The residual of a number is its difference from the reconstructed cell, that of a
        category is its surprise, and that of a missing cell is NaN. The cells of conditions are
        those of the rows.
        """
        rows = self.to_rows(X)
        cells, surprise = self.autoencoder._decode_for_rows(codes, rows)
        if rows.n_levels:
            cells = np.hstack([cells, rows.conditions])
            surprise = np.hstack([surprise, np.zeros(rows.conditions.shape)])
        reconstruction = self.units.with_constants(self.inputs.to_user(cells.astype(np.float64)))
        residual = self.units.residual(X, reconstruction)
        residual = np.where(self.schema.is_category, surprise, residual)
        return reconstruction, np.where(np.isnan(X), np.nan, residual)

    @property
    def has_categories(self) -> bool:
        """Whether modelled columns are categories."""
        return bool(self.schema.is_category.any())

    def outputs(self, X: Floats) -> ModelOutputs:
        """Compute what criteria need of rows (n, n_columns) in the user's units."""
        missing = np.isnan(X)

        def log_prob() -> Floats:
            log_prob = self.autoencoder._log_prob(self.to_rows(X)).astype(np.float64)
            log_prob -= self.inputs.log_volumes(~missing)
            # Rows with different missing cells are compared in robust units.
            return log_prob - self.units.log_volumes(missing) if missing.any() else log_prob

        codes = self.encode(X)
        residual = self.decode(codes, X)[1]
        return ModelOutputs(codes, residual, log_prob, self.schema.is_category)

    def stored_outputs(self, rows: Selection) -> ModelOutputs:
        """Compute `outputs` of many rows block by block, in their `copy_dtype`."""
        dtype = rows.copy_dtype
        largest = float(np.finfo(dtype).max)

        def blocks() -> Iterator[tuple[slice, ModelOutputs]]:
            return ((block, self.outputs(cells)) for block, cells in self.blocks(rows))

        def log_prob() -> Floats:
            return assemble(len(rows), ((block, part.log_prob()) for block, part in blocks()))

        parts = (
            (block, np.hstack([part.code, part.residual.clip(-largest, largest)]))
            for block, part in blocks()
        )
        code, residual = np.split(assemble(len(rows), parts, dtype), [-rows.n_columns], axis=1)
        return ModelOutputs(code, residual, log_prob, self.schema.is_category)

    def anomaly_scores(self, rows: Selection, score: Score) -> Floats:
        """Compute the anomaly scores (n,) of rows in the user's units, block by block."""
        parts = ((block, score(self.outputs(cells))) for block, cells in self.blocks(rows))
        return assemble(len(rows), parts)

    def blocks(self, rows: Selection) -> Iterator[tuple[slice, Floats]]:
        """Iterate over blocks of rows, with their positions.

        Rounding errors in constant columns, which would be infinite deviations, are removed.
        """
        return ((block, self.units.round(cells)) for block, cells in rows.row_blocks())


@dataclass(frozen=True)
class FittedDetector(ScaledAutoencoder):
    """Fitted model of the outlier detector.

    Attributes
    ----------
    score : Score
        The fitted outlier criterion.
    offset : float
        The threshold, in the unit of `score_samples`.
    center, scale : ndarray of shape (n_features,)
        Median and robust standard deviation of the residuals of each column.
    calibration : ndarray of shape (n_calibration_rows,)
        Anomaly scores of the calibration rows, in increasing order.
    at_least : ndarray of shape (n_calibration_rows + 1,)
        Entry i is 1 plus the effective number of calibration rows whose anomaly score is at least
        the i-th smallest.
    seen : Seen or None
        What the detector has seen of its rows, from which `partial_fit` continues. None for models
        from files of earlier versions.
    """

    score: Score
    offset: float
    center: Floats
    scale: Floats
    calibration: Floats
    at_least: Floats
    seen: Seen | None = None

    def _check_state(self) -> None:
        super()._check_state()
        d, n = self.n_features_in, len(self.calibration.ravel())
        self.score.check_sizes(self.autoencoder.n_components_, d)
        check_numbers(self.center, (d,), "the centers of residuals")
        check_numbers(self.scale, (d,), "the scales of residuals", positive=True)
        check_numbers(self.calibration, (n,), "the scores of calibration rows")
        check_numbers(self.at_least, (n + 1,), "the numbers of calibration rows", positive=True)
        if not np.isfinite(self.offset):
            raise ValueError(f"offset must be finite, got {self.offset}")
        if self.seen is not None and self.seen.moments.mean.shape != self.schema.modelled.shape:
            raise ValueError("there must be moments of all modelled columns")

    def explain(self, rows: Selection) -> Floats:
        """Compute the deviations, expected cells and shares of cells, (n, 3, n_columns).

        Deviations of missing cells are NaN, and their shares are 0.
        """
        parts = (
            (block, np.stack(self._explain(cells), axis=1)) for block, cells in self.blocks(rows)
        )
        return assemble(len(rows), parts)

    def _explain(self, X: Floats) -> tuple[Floats, Floats, Floats]:
        """Compute the deviations, expected cells and shares of cells, each (n, n_columns)."""
        reconstruction, deviation = self._compare(X, X)
        for _ in range(N_REPLACEMENTS):
            plausible = np.where(np.abs(deviation) > MAX_PLAUSIBLE_DEVIATION, reconstruction, X)
            reconstruction, deviation = self._compare(X, plausible)
        terms = self.score.cell_terms(np.nan_to_num(deviation))
        total = terms.sum(axis=1, keepdims=True)
        observed = ~np.isnan(X)
        equal = observed / np.maximum(observed.sum(axis=1, keepdims=True), 1)
        share = np.divide(terms, total, out=equal, where=total > 0)
        shift = np.where(self.schema.is_category, 0.0, self.center * self.units.scale)
        expected = reconstruction + shift
        return deviation, expected, share

    def _compare(self, X: Floats, plausible: Floats) -> tuple[Floats, Floats]:
        """Return the reconstructions of `plausible` rows, and the deviations of `X` from them."""
        reconstruction, residual = self.decode(self.encode(plausible), X)
        return reconstruction, (residual - self.center) / self.scale
