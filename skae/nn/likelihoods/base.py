"""What every likelihood answers: the distribution of a row given the decoder's output."""

import copy
import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.draws import Draws

SMALLEST_SHARE = 1e-30
"""Keeps shares of rows that have no column from dividing by zero."""

Statistics = dict[str, Tensor]
"""Weighted sums over rows by their names. Those of all rows are the sums of those of some."""


class Likelihood(nn.Module, ABC):
    """The distribution of a row given the decoder's output `out` of shape (..., n, n_outputs).

    Batches hold modelled columns only, in the user's units, as means and samples are; `out` is on
    the scale the network trains at. A family states what single cells say, as functions of complete
    cells `x` (..., n, n_columns); cells that are not observed are left out here. Log-probabilities
    are in nats.

    Parameters
    ----------
    n_columns : int
    noise : {"isotropic", "diagonal"} or float
        One variance for all columns, one for each, or a known variance in squared user's units.
    trains_noise : bool
        Whether a noise that is not known is trained with the network; else it is estimated later.

    Attributes
    ----------
    n_outputs : int
        Numbers that the decoder gives for each row.
    is_pooled : bool
        Whether all columns share their noise, if any.
    noise_variance : Tensor of shape (n_columns,)
        A positive number for each column; 0 for families without noise.
    """

    support = (-math.inf, math.inf)
    """Smallest and largest value of a cell."""

    is_known = True
    """Whether there is no noise to estimate."""

    is_trained = False
    """Whether the noise is trained with the network."""

    has_common_scale = True
    """Whether another noise multiplies the scores and informations of all rows by one factor."""

    noise_variance: Tensor

    def __init__(
        self, n_columns: int, noise: str | float = "isotropic", trains_noise: bool = False
    ) -> None:
        super().__init__()
        self.n_columns = self.n_outputs = n_columns
        self.is_pooled = noise != "diagonal"
        self.register_buffer("noise_variance", torch.zeros(n_columns))

    # ------------------------------------------------------------ what a family states

    @abstractmethod
    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Take the data's column means, column variances and global scale.

        Returns the output's bias and the slope d out / d (x / scale) at the mean row, each of
        shape (n_outputs,): with them a linear decoder starts at PCA.
        """

    def start_noise(self, variance: Tensor) -> None:
        """Start a noise that is trained at column variances (n_columns,) over the scale's."""
        return

    @abstractmethod
    def baseline(self) -> Tensor:
        """Nats that a row costs where nothing is known of it but the columns' means."""

    @abstractmethod
    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Log-density (or log-mass) of each cell."""

    def row_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Log-density (or log-mass) of complete rows, (..., n)."""
        return self.cell_log_prob(x, out).sum(-1)

    @abstractmethod
    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        """Derivative of the log-density by each output."""

    @abstractmethod
    def curved(self, out: Tensor, jacobian: Tensor) -> Tensor:
        """The outputs' Fisher information times a matrix (..., n, n_outputs, k)."""

    @abstractmethod
    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        """Error of each cell: its square, or twice the nats short of a perfect fit."""

    def cell_squares(
        self, x: Tensor, out: Tensor, spread: Tensor | None, bessel: Tensor | float
    ) -> Tensor:
        """Expected square of each cell's error, as `squares` explains."""
        # Nothing is estimated from those of a family without noise.
        return self.cell_deviance(x, out)

    @abstractmethod
    def mean(self, out: Tensor) -> Tensor:
        """Expected row."""

    @abstractmethod
    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        """Rows drawn given `out`."""

    # ----------------------------------------------------------------- observed cells

    def log_prob(self, batch: Batch, out: Tensor) -> Tensor:
        """Log-density (or log-mass) of rows, (..., n)."""
        if batch.observed is None:
            return self.row_log_prob(batch.original, out)
        return _kept(batch.observed, self.cell_log_prob(_filled(batch), out)).sum(-1)

    def score(self, batch: Batch, out: Tensor) -> Tensor:
        """Derivative of rows' log-density by `out`, shape of `out`."""
        return _kept(self.observed_outputs(batch.observed), self.cell_score(_filled(batch), out))

    def information(self, batch: Batch, out: Tensor, jacobian: Tensor) -> Tensor:
        """Fisher information (..., n, k, k) of codes that move `out` by `jacobian` (..., d, k)."""
        observed, curved = self.observed_outputs(batch.observed), self.curved(out, jacobian)
        return jacobian.mT @ _kept(None if observed is None else observed[..., None], curved)

    def deviance(self, batch: Batch, out: Tensor) -> Tensor:
        """Error of each cell: its square, or twice the nats short of a perfect fit."""
        return _kept(batch.observed, self.cell_deviance(_filled(batch), out))

    def squares(
        self, batch: Batch, out: Tensor, spread: Tensor | None = None, bessel: Tensor | float = 1.0
    ) -> Tensor:
        """Expected squares of cells' errors, the mean of which estimates the noise.

        `spread` are variances of `out`, if it is not known; `bessel` scales the rest.
        """
        return _kept(batch.observed, self.cell_squares(_filled(batch), out, spread, bessel))

    def observed_outputs(self, observed: Tensor | None) -> Tensor | None:
        """Outputs (n, n_outputs) that belong to observed cells."""
        return None if observed is None else observed.expand(*observed.shape[:-1], self.n_outputs)

    # ------------------------------------------------------------ estimating the noise

    def row_squares(self, errors: Tensor, change: Tensor, spread: Tensor, bessel: Tensor) -> Tensor:
        """Expected squares (n, 1), means of rows, where `has_common_scale`.

        Codes have moved from where rows' squares were `errors` (n,). To second order, minus twice
        the log-density has changed by `change` (n,), and by `spread` (n,) for the codes' variance.
        """
        raise NotImplementedError

    def statistics(self, batch: Batch, squares: Tensor, weight: Tensor) -> Statistics:
        """Weighted sums over rows that `update` needs; they are additive over parts of a table.

        `squares` are those of cells (n, n_columns), or means over rows' cells (n, 1). The weights
        (n,) of all rows of the table sum to 1.
        """
        weight = weight.to(self.noise_variance)
        sums = {"squares": weight @ squares.to(weight)}
        if batch.observed is not None:
            observed = batch.observed.to(weight)
            sums["observed"] = weight @ observed
            sums["rows"] = (weight > 0).to(weight) @ observed
        return sums

    def column_means(self, squares: Tensor, statistics: Statistics) -> Tensor:
        """Means over observed cells from sums over rows: of columns, or one of all."""
        if "observed" not in statistics:
            return squares
        observed, n_rows = statistics["observed"], statistics["rows"]
        pooled = squares.mean() / observed.mean()
        if self.is_pooled:
            return pooled[None]
        # Few rows may reach a column, or none: the mean of all columns counts as one row more.
        own = squares / observed.clamp_min(SMALLEST_SHARE)
        return (n_rows * own + pooled) / (n_rows + 1)

    def update(self, statistics: Statistics) -> Self:
        """The likelihood with the noise that fits the statistics; not trained."""
        return self

    def corrected(self, statistics: Statistics) -> Self:
        """The likelihood with its noise times the factor by which validation rows exceed it."""
        return self

    def rescaled(self, old: Self) -> Tensor:
        """The factor of scores and informations since another noise, if `has_common_scale`."""
        new, before = self.noise_variance.double(), old.noise_variance.double()
        return torch.where(new > 0, before / new, 1.0)[0]

    # --------------------------------------------------------------- the noise as numbers

    def with_noise(self, variance: Tensor) -> Self:
        """The likelihood with another noise variance, which is not trained."""
        # Everything else is shared: it never changes once the network has started.
        other = copy.copy(self)
        other._buffers = self._buffers | {"noise_variance": variance}
        other._parameters = dict.fromkeys(self._parameters)
        other.is_trained = False
        return other

    def fixed(self) -> Self:
        """The likelihood with the noise that it has now."""
        return self.with_noise(self.noise_variance.clone())

    def blended(self, new: Self, share: float) -> Self:
        """The likelihood with a noise that is a `share` of the way to another's."""
        return self.with_noise(self.noise_variance.lerp(new.noise_variance, share))

    def coordinates(self) -> Tensor:
        """The noise as numbers that may have any value, float64."""
        return self.noise_variance.double().clamp_min(1e-300).log()

    def at(self, coordinates: Tensor) -> Self:
        """The likelihood whose noise has these coordinates."""
        growth = (coordinates - self.coordinates()).exp()
        return self.with_noise(self.noise_variance * growth.to(self.noise_variance))

    def change(self, other: Self) -> float:
        """Largest difference from another's noise, as a share of its largest number."""
        old, new = self.noise_variance, other.noise_variance
        tiny = torch.finfo(new.dtype).tiny
        return float((new - old).abs().max() / new.abs().max().clamp_min(tiny))

    def is_finite(self) -> bool:
        """Whether its noise is finite."""
        return bool(self.noise_variance.isfinite().all())


def _filled(batch: Batch) -> Tensor:
    """Cells of rows, 0 where they are missing."""
    return batch.original if batch.observed is None else batch.original.nan_to_num()


def _kept(observed: Tensor | None, cells: Tensor) -> Tensor:
    """What cells contribute: nothing where they are missing."""
    return cells if observed is None else torch.where(observed, cells, 0.0)
