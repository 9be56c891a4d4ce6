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
"""Sums over rows, by name. The sums over the parts of a table add up to those over the table."""


class Likelihood(nn.Module, ABC):
    """Base of distributions of a row given the decoder's output `out` (..., n, n_outputs).

    The cells of batches are in the user's units, and so are means and samples. Batches contain
    modelled columns only. The subclass defines the units of `out`: standardized cells for the
    Gaussian family, logits for the Bernoulli and the categorical family. A subclass defines
    functions of complete cells `x` (..., n, n_columns). From them, this class computes functions of
    batches, which use the observed cells only. Log-densities and log-probabilities are in nats.

    Parameters
    ----------
    n_columns : int
        Number of modelled columns.
    noise : {"isotropic", "diagonal"} or float
        Noise variance. "isotropic" is an unknown variance that all columns have in common,
        "diagonal" is an unknown variance for each column, and a number is the known variance of all
        columns, in squared units of the user. Likelihoods without noise ignore it, except that
        `is_pooled` is False for "diagonal".
    trains_noise : bool
        Whether an unknown noise variance is trained with the network. Otherwise, it is estimated
        after training.

    Attributes
    ----------
    n_outputs : int
        Number of the decoder's outputs per row.
    is_pooled : bool
        Whether all columns have the same noise variance.
    noise_variance : Tensor of shape (n_columns,)
        Noise variance of each column, or 0 for likelihoods without noise. If `is_trained` is True,
        training does not update it: `fixed` returns a likelihood with the trained noise variance.
    """

    support = (-math.inf, math.inf)
    """Smallest and largest value of a cell."""

    is_known = True
    """Whether the noise variance is known or there is no noise, so that nothing is estimated."""

    is_linear = False
    """Whether expected rows are an affine map of the outputs."""

    is_trained = False
    """Whether the noise variance is trained with the network."""

    has_common_scale = True
    """Whether a change of the noise multiplies all scores and informations by one factor."""

    has_constant_information = True
    """Whether the density may be estimated as if the Fisher information of the outputs did not
    depend on them."""

    noise_variance: Tensor

    def __init__(
        self, n_columns: int, noise: str | float = "isotropic", trains_noise: bool = False
    ) -> None:
        super().__init__()
        self.n_columns = self.n_outputs = n_columns
        self.noise = noise
        self.is_pooled = noise != "diagonal"
        self.register_buffer("noise_variance", torch.zeros(n_columns))

    # ------------------------------------------------------------ defined by subclasses

    @abstractmethod
    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Initialize from the moments of encoded columns.

        Encoded columns are numbers, and a column for each level of a category (see `OneHot`).

        Parameters
        ----------
        center, variance : Tensor of shape (n_outputs,)
            Means and variances of encoded columns.
        scale : Tensor of shape () or (n_outputs,)
            The global scale, or the scale of each encoded column.

        Returns
        -------
        bias, slope : Tensor of shape (n_outputs,)
            Output for which the mean row is expected, and the derivative of this output with
            respect to the mean row divided by `scale`. With them, a linear decoder is initialized
            at the solution of PCA.
        """

    def fix_noise(self) -> None:
        """Set the noise variance of training, if it is not trained, after the scale is known."""
        return

    def change_units(self, center: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Replace the means (n_outputs,) of encoded columns and the global scale.

        Likelihoods whose outputs do not depend on them do nothing. The noise of training is that of
        the new scale, but a trained noise is kept. Return the gain and the shift, on the CPU and
        broadcastable to (n_outputs,), with which the outputs gain * out + shift have the same mean
        as `out` had before.
        """
        return torch.ones(()), torch.zeros(())

    def start_noise(self, variance: Tensor) -> None:
        """Initialize a trained noise with noise variances (n_outputs,) of standardized columns."""
        return

    def output_noise(self, out: Tensor) -> Tensor:
        """Compute the noise variance of each output, (..., n_outputs).

        It is the inverse of the Fisher information of the output alone.
        """
        return 1 / self.information_product(out, torch.ones_like(out)[..., None])[..., 0]

    @abstractmethod
    def baseline(self) -> Tensor:
        """Return the mean negative log-likelihood of rows, in nats, for a model without components.

        A fit with a much larger loss has diverged.
        """

    @abstractmethod
    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the log-density or log-probability of each cell, (..., n, n_columns)."""

    def row_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the log-density or log-probability of complete rows, (..., n)."""
        return self.cell_log_prob(x, out).sum(-1)

    @abstractmethod
    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the derivative of the log-density with respect to `out`, (..., n, n_outputs)."""

    @abstractmethod
    def information_product(self, out: Tensor, jacobian: Tensor) -> Tensor:
        """Multiply the Fisher information of the outputs of each row by its Jacobian.

        The Jacobian and the result have the shape (..., n, n_outputs, k).
        """

    def common_information(self, batch: Batch) -> Tensor | None:
        """Return the Fisher information (n_outputs,) of each output if all rows have the same.

        It is None if the information depends on the row or on observed cells, or if the outputs
        have information in common.
        """
        return None

    @abstractmethod
    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the squared error or the deviance of each cell, (..., n, n_columns)."""

    def cell_squares(
        self, x: Tensor, out: Tensor, spread: Tensor | None, bessel: Tensor | float
    ) -> Tensor:
        """Compute the expected squared error of each complete cell; `squares` has the details."""
        # A likelihood without noise estimates nothing from them.
        return self.cell_deviance(x, out)

    @abstractmethod
    def mean(self, out: Tensor) -> Tensor:
        """Compute expected rows (..., n, n_columns), in the user's units.

        For a category, it is the most probable level.
        """

    def expected(self, out: Tensor) -> Tensor:
        """Compute expected encoded rows (..., n, n_outputs).

        They are expected rows, with the probabilities of all levels in place of the most probable
        one.
        """
        return self.mean(out)

    @abstractmethod
    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        """Draw rows (..., n, n_columns), in the user's units."""

    # ----------------------------------------------------------------- observed cells

    def log_prob(self, batch: Batch, out: Tensor) -> Tensor:
        """Compute the log-density or log-probability of the observed cells of rows, (..., n)."""
        if batch.observed is None:
            return self.row_log_prob(batch.original, out)
        return _masked(batch.observed, self.cell_log_prob(_filled(batch), out)).sum(-1)

    def score(self, batch: Batch, out: Tensor) -> Tensor:
        """Compute the derivative of `log_prob` with respect to `out`, (..., n, n_outputs)."""
        return _masked(self.observed_outputs(batch.observed), self.cell_score(_filled(batch), out))

    def information(self, batch: Batch, out: Tensor, jacobian: Tensor) -> Tensor:
        """Compute the Fisher information (..., n, k, k) of codes from the observed cells.

        `jacobian` (..., n, n_outputs, k) is the derivative of `out` with respect to the codes.
        """
        observed = self.observed_outputs(batch.observed)
        mask = None if observed is None else observed[..., None]
        return jacobian.mT @ _masked(mask, self.information_product(out, jacobian))

    def deviance(self, batch: Batch, out: Tensor) -> Tensor:
        """Compute the squared error or the deviance of each cell; it is 0 for missing cells."""
        return _masked(batch.observed, self.cell_deviance(_filled(batch), out))

    def squares(
        self, batch: Batch, out: Tensor, spread: Tensor | None = None, bessel: Tensor | float = 1.0
    ) -> Tensor:
        """Compute the expected squared error of each cell.

        The mean of these errors estimates the noise variance. A likelihood without noise returns
        the deviances.

        Parameters
        ----------
        batch : Batch
            The rows.
        out : Tensor of shape (..., n, n_outputs)
            Outputs of the decoder.
        spread : Tensor of shape (..., n, n_outputs) or None
            Variances of the outputs under the posterior of the code. None means that the outputs
            are certain.
        bessel : float or Tensor of shape ()
            Bessel's correction, by which the squared errors at `out` are multiplied.

        Returns
        -------
        squares : Tensor of shape (..., n, n_columns)
            Errors, in squared units of the user; 0 for missing cells.
        """
        return _masked(batch.observed, self.cell_squares(_filled(batch), out, spread, bessel))

    def observed_outputs(self, observed: Tensor | None) -> Tensor | None:
        """Return a mask (n, n_outputs) of the outputs that belong to observed cells.

        It is None if `observed` is None. This version is for one output per column.
        """
        return None if observed is None else observed.expand(*observed.shape[:-1], self.n_outputs)

    # ------------------------------------------------------------ estimating the noise

    def row_squares(self, errors: Tensor, change: Tensor, spread: Tensor, bessel: Tensor) -> Tensor:
        """Compute the expected squared errors of rows whose codes have changed, without decoding.

        Only likelihoods with `has_common_scale` and an unknown noise variance define it.

        Parameters
        ----------
        errors : Tensor of shape (n,)
            Sums of squared errors at the previous codes.
        change : Tensor of shape (n,)
            Change of minus twice the log-density of each row given its code, to second order in the
            change of the code.
        spread : Tensor of shape (n,)
            Expected increase of minus twice this log-density due to the variance of the code.
        bessel : Tensor of shape ()
            Bessel's correction, by which the squared errors at the new codes are multiplied.

        Returns
        -------
        squares : Tensor of shape (n, 1)
            Expected squared errors, averaged over the columns of each row. Missing cells count
            as 0.
        """
        raise NotImplementedError

    def statistics(self, batch: Batch, squares: Tensor, weight: Tensor) -> Statistics:
        """Compute the sums over rows that `update` and `corrected` need.

        The sums over the parts of a table add up to those over the table.

        Parameters
        ----------
        batch : Batch
            The rows.
        squares : Tensor of shape (n, n_columns) or (n, 1)
            Squared errors of cells, or their means over the columns of each row.
        weight : Tensor of shape (n,)
            Weights of the rows. Those of all rows of the table sum to 1.

        Returns
        -------
        statistics : dict of str to Tensor
            "squares" is the weighted sum of `squares`. If cells may be missing, there are also the
            summed weight of the rows in which each column is observed ("observed"), and the number
            of those rows that have a positive weight ("rows").
        """
        weight = weight.to(self.noise_variance)
        sums = {"squares": weight @ squares.to(weight)}
        if batch.observed is not None:
            observed = batch.observed.to(weight)
            sums["observed"] = weight @ observed
            sums["rows"] = (weight > 0).to(weight) @ observed
        return sums

    def column_means(self, squares: Tensor, statistics: Statistics) -> Tensor:
        """Compute means of squared errors over observed cells, from their sums over rows.

        Without missing cells, the sums are the means. Otherwise, the result is one mean for the
        whole table, of shape (1,), if `is_pooled` is True. If it is False, the result has a mean
        for each column.

        Parameters
        ----------
        squares : Tensor of shape (n_columns,) or (1,)
            Weighted sums of squared errors, 0 for missing cells.
        statistics : dict of str to Tensor
            Result of `statistics`.
        """
        if "observed" not in statistics:
            return squares
        observed, n_rows = statistics["observed"], statistics["rows"]
        pooled = squares.mean() / observed.mean()
        if self.is_pooled:
            return pooled[None]
        # A column may have few observed cells or none, so the mean of the whole table is averaged
        # in, with the weight of one observed cell.
        own = squares / observed.clamp_min(SMALLEST_SHARE)
        return (n_rows * own + pooled) / (n_rows + 1)

    def update(self, statistics: Statistics) -> Self:
        """Return the likelihood with the noise that maximizes the expected log-density.

        The noise of the result is not trained. A likelihood without unknown noise returns itself.
        """
        return self

    def corrected(self, statistics: Statistics) -> Self:
        """Return the likelihood with its noise multiplied by the mean ratio of squares to noise.

        The noise of the result is not trained. A likelihood without unknown noise returns itself.
        """
        return self

    def shrunk(self, training: Self, n_rows: Tensor) -> Self:
        """Return the likelihood with noise variances shrunk towards those of training rows.

        The noise variances of this likelihood are means over validation rows, which may be few.
        Those of `training` are means over training rows, to which the decoder was fitted. A
        likelihood without unknown noise returns itself, as does one whose columns have the same
        noise variance.

        Parameters
        ----------
        training : Likelihood
            Likelihood with the noise variances of training rows.
        n_rows : Tensor of shape () or (n_columns,)
            Effective number of validation rows, in which a column is observed.
        """
        return self

    def rescaled(self, old: Self) -> Tensor:
        """Return the ratio of scores and informations to those of `old`, if `has_common_scale`."""
        new, before = self.noise_variance.double(), old.noise_variance.double()
        return torch.where(new > 0, before / new, 1.0)[0]

    # --------------------------------------------------------------- parameters of the noise

    def with_noise(self, variance: Tensor) -> Self:
        """Return the likelihood with another, untrained noise variance (n_columns,)."""
        # Everything else is shared, because it does not change after initialization.
        other = copy.copy(self)
        other._buffers = self._buffers | {"noise_variance": variance}
        other._parameters = dict.fromkeys(self._parameters)
        other.is_trained = False
        return other

    def known(self, variance: Tensor) -> Self:
        """Return the likelihood with a known noise variance (n_columns,)."""
        other = self.with_noise(variance)
        other.is_known = True
        return other

    def fixed(self) -> Self:
        """Return the likelihood with its current noise variance, which is then not trained."""
        return self.with_noise(self.noise_variance.clone())

    def coordinates(self) -> Tensor:
        """Return the logarithms of the noise variances (n_columns,), in float64."""
        return self.noise_variance.double().clamp_min(1e-300).log()

    def at(self, coordinates: Tensor) -> Self:
        """Return the likelihood with these logarithms of the noise variances."""
        growth = (coordinates - self.coordinates()).exp()
        return self.with_noise(self.noise_variance * growth.to(self.noise_variance))

    def change(self, other: Self) -> float:
        """Compute the largest difference to the noise of `other`, relative to its largest noise."""
        old, new = self.noise_variance, other.noise_variance
        tiny = torch.finfo(new.dtype).tiny
        return float((new - old).abs().max() / new.abs().max().clamp_min(tiny))

    def is_finite(self) -> bool:
        """Return whether the noise is finite."""
        return bool(self.noise_variance.isfinite().all())


def _filled(batch: Batch) -> Tensor:
    """Return the uncorrupted cells of rows, with 0 for missing ones."""
    return batch.original if batch.observed is None else batch.original.nan_to_num()


def _masked(observed: Tensor | None, cells: Tensor) -> Tensor:
    """Set the contributions of missing cells to 0."""
    return cells if observed is None else torch.where(observed, cells, 0.0)
