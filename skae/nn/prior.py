"""Priors: how codes are distributed before a row is seen."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from skae.nn.draws import Draws

WIDEST = 64
"""Axes of a code along which a learned prior varies: a wide code's other axes, those of least
variance, are neglected, as the cost of a density grows with the cube of their number."""


class Prior(ABC):
    """The distribution of codes `z` (..., k) before a row is seen, in float64.

    A latent names its family. Codes' weights (n,) sum to 1; `bessel` is the factor by which squares
    around a mean from the same rows are too small.
    """

    is_fixed: ClassVar[bool] = False
    """Whether the latent states it wholly; else it is estimated from codes after training."""

    @classmethod
    @abstractmethod
    def start(cls, codes: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        """The prior that the estimation starts with, for some rows' codes (n, k)."""

    @abstractmethod
    def update(self, codes: Tensor, covariances: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        """The prior that fits rows' posteriors, by their means (n, k) and covariances (n, k, k)."""

    @abstractmethod
    def height(self, z: Tensor) -> Tensor:
        """The part of the log-density (...) that depends on the code."""

    @property
    @abstractmethod
    def constant(self) -> Tensor:
        """What `height` leaves out, which the search for a most probable code does not need."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of codes (...) in nats."""
        return self.height(z) + self.constant - 0.5 * z.shape[-1] * math.log(2 * math.pi)

    @abstractmethod
    def score(self, z: Tensor) -> Tensor:
        """Derivative of the log-density by the code."""

    @abstractmethod
    def precision(self, z: Tensor) -> Tensor:
        """Minus the second derivative there, or what stands for it: positive definite, (k, k)."""

    def pull(self, z: Tensor) -> Tensor:
        """The precision times the mean of the normal distribution that has them at a code."""
        return self.score(z) + (self.precision(z) @ z[..., None])[..., 0]

    @abstractmethod
    def draw(self, n: int, draws: Draws) -> Tensor:
        """Codes (n, k), wide ones in the space of the axes that `restricted` gives."""

    @abstractmethod
    def restricted(self) -> tuple[Self, Tensor, Tensor] | None:
        """For wide codes: the prior of coordinates along some axes, their origin, and the axes.

        None where all axes are computed with.
        """

    @abstractmethod
    def extended(self, center: Tensor, axes: Tensor) -> Self:
        """The prior of wide codes whose coordinates along axes (k, m) have this one."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The prior's parameters."""

    @classmethod
    @abstractmethod
    def restore(cls, tensors: Mapping[str, Tensor], k: int) -> Self:
        """The prior of codes of a length with these parameters.

        Raises ValueError where they are not those of such a prior.
        """

    def coordinates(self) -> Tensor:
        """The parameters as one vector."""
        return torch.cat([tensor.flatten() for tensor in self.tensors().values()])

    @abstractmethod
    def at(self, coordinates: Tensor) -> Self | None:
        """The prior with these coordinates, or None where there is no such distribution."""

    @abstractmethod
    def change(self, other: Self) -> float:
        """How far another prior is, as a share of its own size."""

    @abstractmethod
    def blended(self, new: Self, share: float) -> Self:
        """The mixture of this prior and a `share` of a new one, as a member of the family."""

    def is_finite(self) -> bool:
        """Whether all parameters are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())


@dataclass
class NormalPrior(Prior):
    """A normal distribution.

    Attributes
    ----------
    mean : Tensor of shape (k,)
    covariance : Tensor of shape (k, k)
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def start(cls, codes: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        mean, covariance = _moments(codes, weight, bessel)
        one = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        scale = covariance.diagonal().mean().clamp_min(1e-30)
        return cls(mean, covariance + 1e-8 * scale * one)

    def update(self, codes: Tensor, covariances: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        mean, covariance = _moments(codes, weight, bessel)
        covariance = covariance + torch.einsum("n,nij->ij", weight, covariances)
        return type(self)(mean, (covariance + covariance.mT) / 2)

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.inv(self.covariance)

    @cached_property
    def _leading(self) -> tuple[Tensor, Tensor] | None:
        """Variances and axes of a wide code that are not neglected."""
        if self.is_fixed or len(self.mean) <= WIDEST:
            return None
        return leading_axes(self.covariance)

    def height(self, z: Tensor) -> Tensor:
        centered = z - self.mean
        return -0.5 * (centered @ self._inverse * centered).sum(-1)

    @property
    def constant(self) -> Tensor:
        return -0.5 * torch.linalg.slogdet(self.covariance).logabsdet

    def score(self, z: Tensor) -> Tensor:
        return (self.mean - z) @ self._inverse

    def precision(self, z: Tensor) -> Tensor:
        return self._inverse

    def pull(self, z: Tensor) -> Tensor:
        # Exact, however far codes are from the mean.
        return self.mean @ self._inverse

    def draw(self, n: int, draws: Draws) -> Tensor:
        if self._leading is None:
            root = torch.linalg.cholesky(self.covariance)
        else:
            values, axes = self._leading
            root = axes * values.sqrt()
        return self.mean + draws.normal((n, root.shape[1])).double() @ root.T

    def restricted(self) -> tuple[Self, Tensor, Tensor] | None:
        if self._leading is None:
            return None
        values, axes = self._leading
        return type(self)(torch.zeros_like(values), values.diag()), self.mean, axes

    def extended(self, center: Tensor, axes: Tensor) -> Self:
        return type(self)(center + axes @ self.mean, axes @ self.covariance @ axes.mT)

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "covariance": self.covariance}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], k: int) -> Self:
        mean, covariance = tensors["mean"], tensors["covariance"]
        if (mean.shape, covariance.shape) != ((k,), (k, k)):
            raise ValueError("the moments of the codes are not those of this model")
        return cls(mean, covariance)

    def at(self, coordinates: Tensor) -> Self | None:
        mean, covariance = coordinates.tensor_split([len(self.mean)])
        covariance = covariance.reshape(self.covariance.shape)
        is_positive = torch.linalg.cholesky_ex(covariance).info == 0
        return type(self)(mean, covariance) if is_positive else None

    def change(self, other: Self) -> float:
        difference = (other.covariance - self.covariance).abs().max()
        return float(difference / other.covariance.abs().max().clamp_min(1e-300))

    def blended(self, new: Self, share: float) -> Self:
        shift = new.mean - self.mean
        covariance = torch.lerp(self.covariance, new.covariance, share)
        covariance = covariance + share * (1 - share) * torch.outer(shift, shift)
        # Keeps it invertible where the codes have moved by many orders of magnitude.
        covariance.diagonal().add_(1e-12 * covariance.diagonal().max())
        return type(self)(self.mean + share * shift, covariance)


class StandardNormalPrior(NormalPrior):
    """The standard normal distribution, which codes are made to have."""

    is_fixed = True

    @classmethod
    def start(cls, codes: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        one = torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
        return cls(torch.zeros_like(one[0]), one)

    def update(self, codes: Tensor, covariances: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        return self

    def blended(self, new: Self, share: float) -> Self:
        return self


def leading_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of a covariance, at most `WIDEST`, and their axes as columns."""
    values, axes = torch.linalg.eigh(covariance)
    # Keeps the distribution on the axes invertible.
    values = values.clamp_min(1e-12 * values[-1:].clamp_min(1e-30))
    return values[-WIDEST:], axes[:, -WIDEST:]


def _moments(z: Tensor, weight: Tensor, bessel: Tensor) -> tuple[Tensor, Tensor]:
    mean = weight @ z
    centered = z - mean
    return mean, (centered.mT * weight) @ centered * bessel
