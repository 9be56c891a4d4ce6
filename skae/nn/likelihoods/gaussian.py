"""The Gaussian likelihood."""

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.likelihoods.base import Likelihood, Statistics

CONSTANT_NOISE = 1e-6
"""Noise variance of constant columns, relative to the squared global scale, if each column has its
own noise variance."""

PRIOR_ROWS = 10.0
"""Weight of the noise variances of training rows, as a number of validation rows, if each column
has its own noise variance. On tables of 20 to 100 rows, 10 to 30 rows gave similar densities, and 3
rows gave lower ones."""

LEAST_OWN_NOISE = 4e-4
"""Smallest noise variance of a column, relative to its variance, if columns have their own scales.
Many cells of such a column may have the same value, and a decoder may reproduce a column exactly.
The density of its cells would grow without limit otherwise."""

NOISE_PACE = 10.0
"""Factor on the learning rate of the logarithm of a trained noise variance."""


def rounding_variance(center: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
    """Return the variance (n_columns,) of the rounding errors of cells, in their dtype.

    It is the smallest noise variance that can be estimated. Typical cells have the size of the
    center plus one standard deviation of their column, or plus the global scale if the column is
    constant.
    """
    limits = torch.finfo(center.dtype)
    spread = torch.where(variance > 0, variance.sqrt(), scale)
    return (limits.eps * (center.abs() + spread)).square().clamp_min(limits.tiny)


class Gaussian(Likelihood):
    """Normal distribution whose standardized mean is the output of the decoder.

    `Likelihood` documents the other parameters.

    Parameters
    ----------
    own_scales : bool
        Whether each column has its own scale. An unknown noise variance is then that of each
        column, and deviances are squared errors in units of the scales.
    """

    is_linear = True

    center: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(
        self,
        n_columns: int,
        noise: str | float = "isotropic",
        trains_noise: bool = False,
        own_scales: bool = False,
    ) -> None:
        noise = "diagonal" if own_scales and isinstance(noise, str) else noise
        super().__init__(n_columns, noise, trains_noise)
        self.is_known = not isinstance(noise, str)
        self.is_trained = trains_noise and not self.is_known
        self.has_common_scale = self.is_pooled
        log_noise = torch.zeros(1 if self.is_pooled else n_columns)
        self.log_noise = nn.Parameter(log_noise) if self.is_trained else None
        self.register_buffer("center", torch.zeros(n_columns))
        self.register_buffer("scale", torch.ones(n_columns if own_scales else ()))
        self.register_buffer("floor", torch.ones(n_columns))

    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        self.center.copy_(center)
        self.scale.copy_(scale)
        floor = rounding_variance(center, variance, scale)
        if not self.is_pooled:
            # The noise of a constant column cannot be estimated from its own cells.
            floor = torch.where(variance > 0, floor, CONSTANT_NOISE * scale**2)
        if self.has_own_scales:
            floor = floor.maximum(LEAST_OWN_NOISE * variance)
        self.floor.copy_(floor)
        self.fix_noise()
        return torch.zeros_like(center), torch.ones_like(center)

    @property
    def has_own_scales(self) -> bool:
        """Whether each column has its own scale."""
        return self.scale.ndim > 0

    def fix_noise(self) -> None:
        # The noise variance is fixed at the overall variance during training, unless it is known.
        if self.is_known:
            self.noise_variance.fill_(float(self.noise))
        else:
            self.noise_variance.copy_(self.scale**2)

    def change_units(self, center: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        old_center, old_scale = (part.cpu().double().clone() for part in (self.center, self.scale))
        self.center.copy_(center)
        self.scale.copy_(scale)
        self.fix_noise()
        new_center, new_scale = self.center.cpu().double(), self.scale.cpu().double()
        gain = old_scale / new_scale
        if self.log_noise is not None:
            self.log_noise.data += (2 * gain.log() / NOISE_PACE).to(self.log_noise)
        return gain, (old_center - new_center) / new_scale

    def start_noise(self, variance: Tensor) -> None:
        if self.log_noise is not None:
            variance = variance.mean(0, keepdim=True) if self.is_pooled else variance
            self.log_noise.copy_(variance.log() / NOISE_PACE)

    def output_noise(self, out: Tensor) -> Tensor:
        return self.fixed().noise_variance / self.scale**2

    def baseline(self) -> Tensor:
        # The mean of each column, with one noise variance for all columns: their mean variance.
        entropy = 0.5 * (2 * math.pi * math.e * self.scale**2).log()
        return entropy.sum() if self.has_own_scales else self.n_columns * entropy

    @property
    def smallest_noise(self) -> Tensor:
        """Smallest noise variance that can be estimated: one number, or one for each column."""
        return self.floor.mean() if self.is_pooled else self.floor

    def variance(self) -> Tensor:
        """Return the current noise variance of each column, (n_columns,), which may be trained."""
        if self.log_noise is None:
            return self.noise_variance
        noise = self.smallest_noise + self.scale**2 * (NOISE_PACE * self.log_noise).exp()
        return noise.expand(self.floor.shape)

    def fixed(self) -> Self:
        return self.with_noise(self.variance().detach().clone())

    def _squares(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute the squared errors of standardized cells, (..., n, n_columns)."""
        u = ((x - self.center) / self.scale).expand(out.shape)
        return F.mse_loss(out, u, reduction="none")

    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        variance = self.variance()
        squares = self._squares(x, out) * (self.scale**2 / variance)
        return -0.5 * (squares + (2 * math.pi * variance).log())

    def row_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        # One matrix product is faster than several passes over the cells.
        variance = self.variance()
        exponent = self._squares(x, out) @ (self.scale**2 / variance)
        return -0.5 * (exponent + (2 * math.pi * variance).log().sum())

    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        return ((x - self.center) / self.scale - out) * (self.scale**2 / self.variance())

    def information_product(self, out: Tensor, jacobian: Tensor) -> Tensor:
        return (self.scale**2 / self.variance())[:, None] * jacobian

    def common_information(self, batch: Batch) -> Tensor | None:
        return self.scale**2 / self.variance() if batch.observed is None else None

    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        squares = (x - self.mean(out)) ** 2
        return squares / self.scale**2 if self.has_own_scales else squares

    def mean(self, out: Tensor) -> Tensor:
        return self.center + self.scale * out

    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        return self.mean(out) + self.variance().sqrt() * draws.normal(out.shape)

    def cell_squares(
        self, x: Tensor, out: Tensor, spread: Tensor | None, bessel: Tensor | float
    ) -> Tensor:
        squares = bessel * (x - self.mean(out)) ** 2
        return squares if spread is None else squares + self.scale**2 * spread

    def row_squares(self, errors: Tensor, change: Tensor, spread: Tensor, bessel: Tensor) -> Tensor:
        noise = self.noise_variance[0].double()
        total = bessel * (errors + noise * change) + noise * spread
        return (total / self.n_columns)[:, None]

    def update(self, statistics: Statistics) -> Self:
        if self.is_known:
            return self
        # Means over columns have a meaning in the same units only.
        unit = self.scale**2 if self.has_own_scales else 1.0
        variance = unit * self.column_means(statistics["squares"] / unit, statistics)
        if self.is_pooled:
            variance = variance.mean()
        return self.with_noise(variance.maximum(self.smallest_noise).expand(self.n_columns).clone())

    def at(self, coordinates: Tensor) -> Self:
        other = super().at(coordinates)
        return self.with_noise(other.noise_variance.maximum(self.smallest_noise))

    def shrunk(self, training: Self, n_rows: Tensor) -> Self:
        if self.is_known or self.is_pooled:
            return self
        own, other = self.noise_variance, training.noise_variance
        n_rows = n_rows.to(own).expand_as(own)
        is_estimated = other > self.smallest_noise
        # The errors of training rows are too small, by a ratio that the columns have in common. A
        # column that the decoder reproduces in training rows has a limited influence on the ratio.
        expected = own.lerp(other, PRIOR_ROWS / (PRIOR_ROWS + n_rows))
        weight = torch.where(is_estimated, n_rows, 0.0) / expected
        if not weight.any():
            return self
        target = other * ((weight * own).sum() / (weight * other).sum()).clamp_min(1.0)
        # The more the validation rows exceed what the others predict, the less these count.
        excess = (own / target).clamp_min(1.0)
        shrunk = own.lerp(target, PRIOR_ROWS / (PRIOR_ROWS + n_rows * excess))
        return self.with_noise(torch.where(is_estimated, shrunk, own))

    def corrected(self, statistics: Statistics) -> Self:
        if self.is_known:
            return self
        noise = self.variance().detach()
        excess = self.column_means(statistics["squares"] / noise, statistics)
        return self.with_noise(excess.mean() * noise)
