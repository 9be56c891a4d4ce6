"""Fitted model of the outlier detector."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skae.files import check_numbers
from skae.table.seen import Seen
from skae.table.selection import Selection, assemble
from skae.tasks.outlier_scores import ModelOutputs, Score
from skae.tasks.robust_statistics import Floats
from skae.tasks.units import ScaledTask, Units

MAX_PLAUSIBLE_DEVIATION = 3.0
"""Absolute deviation above which `explain` replaces a cell by its reconstructed value."""

N_REPLACEMENTS = 2
"""Number of times that `explain` replaces implausible cells. More rounds change little."""


@dataclass(frozen=True)
class ScaledAutoencoder(ScaledTask):
    """Fitted autoencoder of a detector, and the units of its residuals.

    Attributes
    ----------
    units : Units
        Robust units of the training rows, in which residuals are measured.
    """

    units: Units

    def _check_state(self) -> None:
        super()._check_state()
        if len(self.units.center) != self.n_features_in:
            raise ValueError(f"there must be units of {self.n_features_in} columns")

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
