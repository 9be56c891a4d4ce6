"""Likelihoods: what a decoder's output says about a row, in nats and in the user's units."""

import copy
import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skae.nn.draws import Draws

NOISE_FLOOR = 1e-6
"""Smallest noise variance, as a share of the data's variance: below it a density is unbounded."""

SMALLEST_SHARE = 1e-30
"""Keeps shares of rows that have no column from dividing by zero."""

NOISE_PACE = 10.0
"""How much faster than a weight the logarithm of a trained noise may move."""


class Likelihood(nn.Module, ABC):
    """The distribution of a row given the decoder's output `out` of shape (..., n, n_features).

    Reductions run over the last axis. `out` is on the scale the network trains at; rows `x`, means
    and samples are in the user's units.
    """

    support = (-math.inf, math.inf)
    """Smallest and largest value of a cell."""

    has_one_noise = True
    """Whether the noise, if any, is the same for all columns."""

    learns_noise = False
    """Whether the noise is trained with the network."""

    learns_columns = False
    """Whether it is, and each column has its own."""

    noise_variance: Tensor

    def __init__(self, n_features: int, noise: str | float, learns_noise: bool = False) -> None:
        super().__init__()
        self.register_buffer("noise_variance", torch.zeros(n_features))

    @abstractmethod
    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Take the data's column means, column variances and global scale.

        Returns the output's bias and the slope d out / d (x / scale) at the mean row, each of
        shape (n_features,): with them a linear decoder starts at PCA.
        """

    def start_noise(self, variance: Tensor) -> None:
        """Start a noise that is trained at column variances (n_features,) over the scale's."""
        return

    @abstractmethod
    def ignorance(self) -> Tensor:
        """Nats per column that knowing nothing of a row but the data's spread costs."""

    @abstractmethod
    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Log-density (or log-mass) of each cell, in nats, shape of `out`."""

    def log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """Log-density (or log-mass) of rows, in nats, shape (..., n)."""
        return self.cell_log_prob(x, out).sum(-1)

    @abstractmethod
    def mean(self, out: Tensor) -> Tensor:
        """Expected row."""

    @abstractmethod
    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        """Rows drawn given `out`."""

    @abstractmethod
    def score(self, x: Tensor, out: Tensor) -> Tensor:
        """Derivative of rows' log-density by `out`, shape of `out`."""

    @abstractmethod
    def curvature(self, out: Tensor) -> Tensor:
        """Fisher information of each output, shape of `out`."""

    @abstractmethod
    def deviance(self, x: Tensor, out: Tensor) -> Tensor:
        """Error of each cell: its square, or twice the nats short of a perfect fit."""

    def having_noise(self, variance: Tensor) -> Self:
        """The likelihood with another noise variance (n_features,), which is not trained."""
        # Everything else is shared: it never changes once the network has started.
        other = copy.copy(self)
        other._buffers = self._buffers | {"noise_variance": variance}
        other._parameters = dict.fromkeys(self._parameters)
        return other

    def fixed(self) -> Self:
        """The likelihood with the noise that it has now."""
        return self.having_noise(self.noise_variance.clone())

    def blended(self, new: "Likelihood", share: float) -> Self:
        """The likelihood with a noise that is a `share` of the way to another's."""
        return self.having_noise(self.noise_variance.lerp(new.noise_variance, share))

    def with_noise(self, squares: Tensor, share: Tensor, x: Tensor) -> Self:
        """The likelihood with its noise, if there is one to estimate, taken from errors.

        `squares` (n, n_features) are the expected squared errors of rows `x`, or (n, 1) their means
        over columns, which `has_one_noise` allows; `share` (n,) says how much each row counts.
        """
        return self

    def present(self, x: Tensor, cells: Tensor) -> Tensor:
        """What cells of rows contribute (..., n, n_features): nothing where they are missing."""
        return cells

    def mean_cells(self, means: Tensor, share: Tensor, x: Tensor) -> Tensor:
        """Means over rows `x`, which count `share` (n,) each, as means over the cells they have.

        They are those of columns, (n_features,), or one of all, (1,).
        """
        return means


class Gaussian(Likelihood):
    """Normal noise around the decoder's mean.

    Parameters
    ----------
    n_features : int
    noise : {"isotropic", "diagonal"} or float
        One variance for all columns, one for each, or a known variance in squared user's units.
    learns_noise : bool
        Whether a noise that is not known is trained with the network.
    """

    center: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(self, n_features: int, noise: str | float, learns_noise: bool = False) -> None:
        super().__init__(n_features, noise, learns_noise)
        self.noise = noise
        self.has_one_noise = noise != "diagonal"
        learned = torch.zeros(1 if self.has_one_noise else n_features)
        self.learns_noise = learns_noise and isinstance(noise, str)
        self.learns_columns = self.learns_noise and not self.has_one_noise
        self.log_noise = nn.Parameter(learned) if self.learns_noise else None
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("floor", torch.ones(n_features))

    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        self.center.copy_(center)
        self.scale.copy_(scale)
        # A constant column has no variance to take a share of: the global scale stands in.
        self.floor.copy_(NOISE_FLOOR * torch.where(variance > 0, variance, scale**2))
        # A learned noise is unbounded while a code trains, so it waits at the global scale.
        known = not isinstance(self.noise, str)
        self.noise_variance.copy_(torch.full_like(center, float(self.noise)) if known else scale**2)
        return torch.zeros_like(center), torch.ones_like(center)

    def start_noise(self, variance: Tensor) -> None:
        if self.log_noise is not None:
            variance = variance.mean(0, keepdim=True) if self.has_one_noise else variance
            self.log_noise.copy_(variance.log() / NOISE_PACE)

    def ignorance(self) -> Tensor:
        return 0.5 * (2 * math.pi * math.e * self.scale**2).log()

    def _variance(self) -> Tensor:
        if self.log_noise is None:
            return self.noise_variance
        floor = self.floor.mean() if self.has_one_noise else self.floor
        noise = floor + self.scale**2 * (NOISE_PACE * self.log_noise).exp()
        return noise.expand(self.floor.shape)

    def fixed(self) -> Self:
        return self.having_noise(self._variance().detach().clone())

    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        variance = self._variance()
        u = ((x - self.center) / self.scale).expand(out.shape)
        squares = F.mse_loss(out, u, reduction="none") * (self.scale**2 / variance)
        return -0.5 * (squares + (2 * math.pi * variance).log())

    def log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        # One product with all cells, where their sum would need several passes.
        variance = self._variance()
        u = ((x - self.center) / self.scale).expand(out.shape)
        exponent = F.mse_loss(out, u, reduction="none") @ (self.scale**2 / variance)
        return -0.5 * (exponent + (2 * math.pi * variance).log().sum())

    def mean(self, out: Tensor) -> Tensor:
        return self.center + self.scale * out

    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        return self.mean(out) + self._variance().sqrt() * draws.normal(out.shape)

    def score(self, x: Tensor, out: Tensor) -> Tensor:
        return ((x - self.center) / self.scale - out) * self.curvature(out)

    def curvature(self, out: Tensor) -> Tensor:
        return (self.scale**2 / self._variance()).expand(out.shape)

    def deviance(self, x: Tensor, out: Tensor) -> Tensor:
        return (x - self.mean(out)) ** 2

    def with_noise(self, squares: Tensor, share: Tensor, x: Tensor) -> Self:
        if not isinstance(self.noise, str):
            return self
        variance, floor = self.mean_cells(share @ squares, share, x), self.floor
        if self.has_one_noise:
            variance, floor = variance.mean(), floor.mean()
        return self.having_noise(variance.maximum(floor).expand(len(self.floor)).clone())


class Bernoulli(Likelihood):
    """Independent coin flips with the decoder's logits; cells in (0, 1) are means of flips."""

    support = (0.0, 1.0)

    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        # The clip keeps the logits of columns that are always 0 or always 1 finite.
        mean = center.clamp(1e-3, 1 - 1e-3)
        return mean.logit(), scale / (mean * (1 - mean))

    def ignorance(self) -> Tensor:
        return torch.tensor(2.0).log()

    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        return x * out - F.softplus(out)

    def mean(self, out: Tensor) -> Tensor:
        return out.sigmoid()

    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        return (draws.uniform(out.shape) < out.sigmoid()).to(out.dtype)

    def score(self, x: Tensor, out: Tensor) -> Tensor:
        return x - out.sigmoid()

    def curvature(self, out: Tensor) -> Tensor:
        p = out.sigmoid()
        return p * (1 - p)

    def deviance(self, x: Tensor, out: Tensor) -> Tensor:
        entropy = -torch.special.xlogy(x, x) - torch.special.xlogy(1 - x, 1 - x)
        return 2 * (F.softplus(out) - x * out - entropy)


class WithGaps(Likelihood):
    """Rows whose cells may be missing, NaN; those that are there count. Comes before a family."""

    def present(self, x: Tensor, cells: Tensor) -> Tensor:
        return torch.where(x.isnan(), 0.0, cells)

    def mean_cells(self, means: Tensor, share: Tensor, x: Tensor) -> Tensor:
        there = (~x.isnan()).to(share)
        presence = share @ there
        pooled = means.mean() / presence.mean()
        if self.has_one_noise:
            return pooled[None]
        # Few rows may reach a column, or none: the mean of all columns counts as one row more.
        n_rows = (share > 0).to(share) @ there
        own = means / presence.clamp_min(SMALLEST_SHARE)
        return (n_rows * own + pooled) / (n_rows + 1)

    def log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        return self.present(x, self.cell_log_prob(x.nan_to_num(), out)).sum(-1)

    def score(self, x: Tensor, out: Tensor) -> Tensor:
        return self.present(x, super().score(x.nan_to_num(), out))  # type: ignore[safe-super]

    def deviance(self, x: Tensor, out: Tensor) -> Tensor:
        return self.present(x, super().deviance(x.nan_to_num(), out))  # type: ignore[safe-super]


class GaussianWithGaps(WithGaps, Gaussian):
    """Normal noise around the decoder's mean, in the cells that are there."""


class BernoulliWithGaps(WithGaps, Bernoulli):
    """Independent coin flips, in the cells that are there."""


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
}

WITH_GAPS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianWithGaps,
    "bernoulli": BernoulliWithGaps,
}


def make_likelihood(
    name: str,
    n_features: int,
    noise: str | float,
    learns_noise: bool = False,
    has_gaps: bool = False,
) -> Likelihood:
    """The likelihood called `name`, for rows some of whose cells may be missing or not."""
    return (WITH_GAPS if has_gaps else LIKELIHOODS)[name](n_features, noise, learns_noise)
