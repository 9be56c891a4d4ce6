"""Base of likelihoods, distributions of a row given the output of the decoder."""

import copy
import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.draws import Draws

SMALLEST_SHARE = 1e-30
"""Prevents a division by zero for columns without observed cells."""

Statistics = dict[str, Tensor]
"""Weighted sums over rows by name; they are additive over parts of a table."""


class Likelihood(nn.Module, ABC):
    """Base of distributions of a row given the decoder's output `out` (..., n, n_outputs).

    Batches contain modelled columns only. They are in the user's units, and so are means and
    samples; `out` is standardized. A subclass defines functions of complete cells `x`
    (..., n, n_columns), and this class leaves out cells that are not observed. Log-probabilities
    are in nats.

    Parameters
    ----------
    n_columns : int
    noise : {"isotropic", "diagonal"} or float
        One variance for all columns, one per column, or a known variance in squared user's units.
    trains_noise : bool
        Whether an unknown noise variance is trained with the network; otherwise it is estimated
        afterwards.

    Attributes
    ----------
    n_outputs : int
        Number of the decoder's outputs per row.
    is_pooled : bool
        Whether all columns have the same noise variance.
    noise_variance : Tensor of shape (n_columns,)
        Noise variance of each column; 0 for likelihoods without noise.
    """

    support = (-math.inf, math.inf)
    """Smallest and largest value of a cell."""

    is_known = True
    """Whether no noise variance has to be estimated."""

    is_trained = False
    """Whether the noise variance is trained with the network."""

    has_common_scale = True
    """Whether a change of the noise multiplies all scores and informations by one factor."""

    noise_variance: Tensor

    def __init__(
        self, n_columns: int, noise: str | float = "isotropic", trains_noise: bool = False
    ) -> None:
        super().__init__()
        self.n_columns = self.n_outputs = n_columns
        self.is_pooled = noise != "diagonal"
        self.register_buffer("noise_variance", torch.zeros(n_columns))

    # ------------------------------------------------------------ defined by subclasses

    @abstractmethod
    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Initialize from column means, column variances and the global scale of the data.

        Returns
        -------
        bias, slope : Tensor of shape (n_outputs,)
            Output at the mean row, and its derivative with respect to x / scale. A linear decoder
            is initialized at PCA's solution with them.
        """

    def start_noise(self, variance: Tensor) -> None:
        """Initialize a trained noise with variances (n_columns,) of standardized columns."""
        return

    @abstractmethod
    def baseline(self) -> Tensor:
        """Return the negative log-likelihood of a row, in nats, of a model without components."""

    @abstractmethod
    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the log-density or log-probability of each cell."""

    def row_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the log-density or log-probability of complete rows, (..., n)."""
        return self.cell_log_prob(x, out).sum(-1)

    @abstractmethod
    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the derivative of the log-density with respect to each output."""

    @abstractmethod
    def information_product(self, out: Tensor, jacobian: Tensor) -> Tensor:
        """Multiply the Fisher information of the outputs by a matrix (..., n, n_outputs, k)."""

    @abstractmethod
    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the error of each cell: squared error, or deviance for discrete cells."""

    def cell_squares(
        self, x: Tensor, out: Tensor, spread: Tensor | None, bessel: Tensor | float
    ) -> Tensor:
        """Compute the expected squared error of each complete cell; see `squares`."""
        # A likelihood without noise estimates nothing from them.
        return self.cell_deviance(x, out)

    @abstractmethod
    def mean(self, out: Tensor) -> Tensor:
        """Compute the expected row."""

    @abstractmethod
    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        """Draw rows."""

    # ----------------------------------------------------------------- observed cells

    def log_prob(self, batch: Batch, out: Tensor) -> Tensor:
        """Compute the log-density or log-probability of the observed cells of rows, (..., n)."""
        if batch.observed is None:
            return self.row_log_prob(batch.original, out)
        return _masked(batch.observed, self.cell_log_prob(_filled(batch), out)).sum(-1)

    def score(self, batch: Batch, out: Tensor) -> Tensor:
        """Compute the derivative of the log-density of rows with respect to `out`."""
        return _masked(self.observed_outputs(batch.observed), self.cell_score(_filled(batch), out))

    def information(self, batch: Batch, out: Tensor, jacobian: Tensor) -> Tensor:
        """Compute the Fisher information (..., n, k, k) of codes with Jacobian (..., n, d, k)."""
        observed = self.observed_outputs(batch.observed)
        mask = None if observed is None else observed[..., None]
        return jacobian.mT @ _masked(mask, self.information_product(out, jacobian))

    def deviance(self, batch: Batch, out: Tensor) -> Tensor:
        """Compute the error of each cell, squared error or deviance; 0 for missing cells."""
        return _masked(batch.observed, self.cell_deviance(_filled(batch), out))

    def squares(
        self, batch: Batch, out: Tensor, spread: Tensor | None = None, bessel: Tensor | float = 1.0
    ) -> Tensor:
        """Compute expected squared errors of cells, whose mean estimates the noise variance.

        Parameters
        ----------
        batch : Batch
        out : Tensor of shape (n, n_outputs)
        spread : Tensor of shape (n, n_outputs) or None
            Variances of `out` under the posterior of the code, if it is uncertain.
        bessel : float or Tensor of shape ()
            Bessel's correction, a factor on the squared errors at `out`.

        Returns
        -------
        squares : Tensor of shape (n, n_columns)
        """
        return _masked(batch.observed, self.cell_squares(_filled(batch), out, spread, bessel))

    def observed_outputs(self, observed: Tensor | None) -> Tensor | None:
        """Return a mask (n, n_outputs) of the outputs that belong to observed cells."""
        return None if observed is None else observed.expand(*observed.shape[:-1], self.n_outputs)

    # ------------------------------------------------------------ estimating the noise

    def row_squares(self, errors: Tensor, change: Tensor, spread: Tensor, bessel: Tensor) -> Tensor:
        """Compute the mean expected squared errors (n, 1) of rows whose codes have changed.

        This is for likelihoods with `has_common_scale`. It avoids decoding the rows again.

        Parameters
        ----------
        errors : Tensor of shape (n,)
            Sums of squared errors at the previous codes.
        change : Tensor of shape (n,)
            Change of minus twice the log-density, to second order.
        spread : Tensor of shape (n,)
            Increase of minus twice the log-density due to the variance of the codes.
        bessel : Tensor of shape ()
            Bessel's correction.
        """
        raise NotImplementedError

    def statistics(self, batch: Batch, squares: Tensor, weight: Tensor) -> Statistics:
        """Compute the weighted sums over rows that `update` needs.

        They are additive over parts of a table.

        Parameters
        ----------
        batch : Batch
        squares : Tensor of shape (n, n_columns) or (n, 1)
            Squared errors of cells, or their means over the cells of each row.
        weight : Tensor of shape (n,)
            Weights; those of all rows of the table sum to 1.
        """
        weight = weight.to(self.noise_variance)
        sums = {"squares": weight @ squares.to(weight)}
        if batch.observed is not None:
            observed = batch.observed.to(weight)
            sums["observed"] = weight @ observed
            sums["rows"] = (weight > 0).to(weight) @ observed
        return sums

    def column_means(self, squares: Tensor, statistics: Statistics) -> Tensor:
        """Compute means over observed cells, per column or one for all, from sums over rows."""
        if "observed" not in statistics:
            return squares
        observed, n_rows = statistics["observed"], statistics["rows"]
        pooled = squares.mean() / observed.mean()
        if self.is_pooled:
            return pooled[None]
        # A column may have few observed cells or none. The mean of all columns counts as one more.
        own = squares / observed.clamp_min(SMALLEST_SHARE)
        return (n_rows * own + pooled) / (n_rows + 1)

    def update(self, statistics: Statistics) -> Self:
        """Return the likelihood with the noise that fits the statistics, which is not trained."""
        return self

    def corrected(self, statistics: Statistics) -> Self:
        """Return the likelihood with its noise multiplied by the mean ratio of squares to noise."""
        return self

    def rescaled(self, old: Self) -> Tensor:
        """Return the factor on scores and informations since `old`, if `has_common_scale`."""
        new, before = self.noise_variance.double(), old.noise_variance.double()
        return torch.where(new > 0, before / new, 1.0)[0]

    # --------------------------------------------------------------- parameters of the noise

    def with_noise(self, variance: Tensor) -> Self:
        """Return the likelihood with another noise variance, which is not trained."""
        # Everything else is shared, because it does not change after initialization.
        other = copy.copy(self)
        other._buffers = self._buffers | {"noise_variance": variance}
        other._parameters = dict.fromkeys(self._parameters)
        other.is_trained = False
        return other

    def fixed(self) -> Self:
        """Return the likelihood with its present noise, which is not trained."""
        return self.with_noise(self.noise_variance.clone())

    def blended(self, new: Self, share: float) -> Self:
        """Interpolate the noise variance between this likelihood and a new one."""
        return self.with_noise(self.noise_variance.lerp(new.noise_variance, share))

    def coordinates(self) -> Tensor:
        """Return the noise as unconstrained numbers, float64."""
        return self.noise_variance.double().clamp_min(1e-300).log()

    def at(self, coordinates: Tensor) -> Self:
        """Return the likelihood with these coordinates."""
        growth = (coordinates - self.coordinates()).exp()
        return self.with_noise(self.noise_variance * growth.to(self.noise_variance))

    def change(self, other: Self) -> float:
        """Compute the relative difference to the noise of another likelihood."""
        old, new = self.noise_variance, other.noise_variance
        tiny = torch.finfo(new.dtype).tiny
        return float((new - old).abs().max() / new.abs().max().clamp_min(tiny))

    def is_finite(self) -> bool:
        """Return whether the noise is finite."""
        return bool(self.noise_variance.isfinite().all())


def _filled(batch: Batch) -> Tensor:
    """Return the cells of rows, with 0 for missing ones."""
    return batch.original if batch.observed is None else batch.original.nan_to_num()


def _masked(observed: Tensor | None, cells: Tensor) -> Tensor:
    """Set the contributions of missing cells to 0."""
    return cells if observed is None else torch.where(observed, cells, 0.0)
