"""Priors: distributions of codes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from skae.nn.draws import Draws
from skae.nn.locks import cached_property

WIDEST = 64
"""Largest number of axes of an estimated prior. For longer codes, the axes of smallest variance are
neglected, because the time to compute a density grows with the cube of the number of axes."""


class Prior(ABC):
    """Base of priors, distributions of codes `z` (..., k) in float64.

    k is the number of components of a code. In all methods, the weights (n,) of the codes sum to 1,
    and `bessel` is Bessel's correction, a number by which squared deviations from an estimated mean
    are multiplied.
    """

    is_fixed: ClassVar[bool] = False
    """Whether the prior is fixed. Otherwise, it is estimated from codes after training."""

    @classmethod
    @abstractmethod
    def start(cls, codes: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        """Return the initial prior for its estimation from the codes (n, k) of some rows."""

    @abstractmethod
    def statistics(self, codes: Tensor, covariances: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Compute the sums over the posteriors of codes that `update` needs.

        The sums over the parts of a table add up to those over the table. `codes` (n, k) are the
        means of the posteriors, and `covariances` (n, k, k) are their covariances.
        """

    @abstractmethod
    def update(self, statistics: Mapping[str, Tensor], bessel: Tensor) -> Self:
        """Return the prior that fits the posteriors of codes best, from their `statistics`."""

    @abstractmethod
    def height(self, z: Tensor) -> Tensor:
        """Compute the part of the log-density of codes, (...), that depends on the code."""

    @property
    @abstractmethod
    def constant(self) -> Tensor:
        """The rest of the log-density, without the term -k / 2 log(2 pi)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-density of codes (...) in nats."""
        return self.height(z) + self.constant - 0.5 * z.shape[-1] * math.log(2 * math.pi)

    @abstractmethod
    def score(self, z: Tensor) -> Tensor:
        """Compute the derivative (..., k) of the log-density with respect to the code."""

    @abstractmethod
    def precision(self, z: Tensor) -> Tensor:
        """Compute minus the second derivative of the log-density, or a substitute for it.

        The result is positive definite. Its shape is (..., k, k), or (k, k) if it is the same for
        all codes.
        """

    @abstractmethod
    def draw(self, n: int, draws: Draws) -> Tensor:
        """Draw codes (n, k). If axes are neglected, codes vary along the other axes only."""

    @abstractmethod
    def transform(self, normal: Tensor) -> Tensor:
        """Transform standard normal draws (n, m) into draws of codes (n, k).

        m is k or, if axes are neglected, the number of the others.
        """

    @abstractmethod
    def restricted(self) -> tuple[Self, Tensor, Tensor] | None:
        """Return the prior of coordinates along the axes of largest variance, and these axes.

        If no axes are neglected, it returns None.

        Returns
        -------
        prior : Prior
            Prior of the m coordinates.
        center : Tensor of shape (k,)
            Code with coordinates 0.
        axes : Tensor of shape (k, m)
            The axes.
        """

    @abstractmethod
    def extended(self, center: Tensor, axes: Tensor) -> Self:
        """Return the prior of codes `center` + `axes` @ u, where u (m,) has this prior.

        `center` has shape (k,), and `axes` has shape (k, m). This reverses `restricted`.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters of the prior by name."""

    @classmethod
    @abstractmethod
    def restore(cls, tensors: Mapping[str, Tensor], k: int) -> Self:
        """Return the prior of codes of length `k` with these parameters.

        It raises ValueError if they are not the parameters of such a prior.
        """

    def coordinates(self) -> Tensor:
        """Return the parameters as one vector."""
        return torch.cat([tensor.flatten() for tensor in self.tensors().values()])

    @abstractmethod
    def at(self, coordinates: Tensor) -> Self | None:
        """Return the prior with this vector of parameters, or None if they are not valid."""

    @abstractmethod
    def change(self, other: Self) -> float:
        """Compute the relative difference to another prior, by which convergence is judged."""

    def is_finite(self) -> bool:
        """Return whether all parameters are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())


@dataclass
class NormalPrior(Prior):
    """Normal distribution.

    Attributes
    ----------
    mean : Tensor of shape (k,)
        Mean of the codes.
    covariance : Tensor of shape (k, k)
        Covariance of the codes.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def start(cls, codes: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        mean, covariance = _moments(codes, weight, bessel)
        one = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        scale = covariance.diagonal().mean().clamp_min(1e-30)
        return cls(mean, covariance + 1e-8 * scale * one)

    def statistics(self, codes: Tensor, covariances: Tensor, weight: Tensor) -> dict[str, Tensor]:
        # Squares of differences from a mean near that of the codes lose few digits.
        shift = codes - self.mean
        return {
            "shift": weight @ shift,
            "scatter": (shift.mT * weight) @ shift,
            "spread": torch.einsum("n,nij->ij", weight, covariances),
        }

    def update(self, statistics: Mapping[str, Tensor], bessel: Tensor) -> Self:
        shift = statistics["shift"]
        scatter = statistics["scatter"] - torch.outer(shift, shift)
        covariance = scatter * bessel + statistics["spread"]
        return type(self)(self.mean + shift, invertible((covariance + covariance.mT) / 2))

    @cached_property
    def _inverse(self) -> Tensor:
        return inverse(self.covariance)[0]

    @cached_property
    def _leading(self) -> tuple[Tensor, Tensor] | None:
        """Variances (m,) and axes (k, m) that are not neglected, or None if all are used."""
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

    def draw(self, n: int, draws: Draws) -> Tensor:
        m = len(self.mean) if self._leading is None else len(self._leading[0])
        return self.transform(draws.normal((n, m)).double())

    def transform(self, normal: Tensor) -> Tensor:
        if self._leading is None:
            root, failed = torch.linalg.cholesky_ex(self.covariance)
            if failed:
                # Rounding errors of a covariance that is almost singular.
                values, axes = torch.linalg.eigh(self.covariance)
                root = axes * values.clamp_min(0).sqrt()
        else:
            values, axes = self._leading
            root = axes * values.sqrt()
        return self.mean + normal @ root.T

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
        if not mean.dtype == covariance.dtype == torch.float64:
            raise ValueError("the density does not match this model: its prior must be in float64")
        # Of more components, only the leading axes are used, along which no variance is 0.
        is_finite = bool(covariance.isfinite().all())
        if not is_finite or (k <= WIDEST and torch.linalg.cholesky_ex(covariance).info):
            raise ValueError(
                "the density does not match this model: the covariance of the codes must be "
                "positive definite"
            )
        return cls(mean, covariance)

    def at(self, coordinates: Tensor) -> Self | None:
        mean, covariance = coordinates.tensor_split([len(self.mean)])
        covariance = covariance.reshape(self.covariance.shape)
        is_positive = torch.linalg.cholesky_ex(covariance).info == 0
        return type(self)(mean, covariance) if is_positive else None

    def change(self, other: Self) -> float:
        """Compute the Frobenius norm of the difference of the covariances, relative to the other's.

        It does not depend on a rotation of the codes. The means are not compared.
        """
        difference = (other.covariance - self.covariance).norm()
        return float(difference / other.covariance.norm().clamp_min(1e-300))


class StandardNormalPrior(NormalPrior):
    """Standard normal distribution, for codes that are trained to follow it."""

    is_fixed = True

    @classmethod
    def start(cls, codes: Tensor, weight: Tensor, bessel: Tensor) -> Self:
        one = torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
        return cls(torch.zeros_like(one[0]), one)

    def statistics(self, codes: Tensor, covariances: Tensor, weight: Tensor) -> dict[str, Tensor]:
        return {}

    def update(self, statistics: Mapping[str, Tensor], bessel: Tensor) -> Self:
        return self


def leading_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues of a covariance in increasing order, and their axes.

    There are at most `WIDEST` of them.
    """
    values, axes = torch.linalg.eigh(covariance)
    # This keeps the covariance of the coordinates invertible.
    values = values.clamp_min(1e-12 * values[-1:].clamp_min(1e-30))
    return values[-WIDEST:], axes[:, -WIDEST:]


def invertible(matrix: Tensor) -> Tensor:
    """Increase the diagonals of positive semidefinite matrices (..., k, k) by rounding errors.

    A Cholesky decomposition of the result succeeds if the entries are semidefinite up to their
    rounding. The relative increase is twice the bound of rounding errors in the decomposition
    (Demmel, "On floating point errors in Cholesky", 1989). It does not depend on the units of the
    components.
    """
    k, limits, result = matrix.shape[-1], torch.finfo(matrix.dtype), matrix.clone()
    diagonal = result.diagonal(dim1=-2, dim2=-1)
    rounding = 2 * k * (k + 1) * limits.eps
    diagonal.add_((rounding * diagonal).clamp_min(limits.tiny))
    return result


def inverse(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverses and the log-determinants of positive definite matrices (..., k, k).

    A Cholesky decomposition gives exactly symmetric inverses. It is faster and, for matrices that
    are almost singular, more accurate than an LU decomposition, which is used if it fails.
    """
    root, failed = torch.linalg.cholesky_ex(matrices)
    if failed.any():
        return torch.linalg.inv(matrices), torch.linalg.slogdet(matrices).logabsdet
    log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.cholesky_inverse(root), log_det


def _moments(z: Tensor, weight: Tensor, bessel: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean and the corrected weighted covariance of codes."""
    mean = weight @ z
    centered = z - mean
    return mean, (centered.mT * weight) @ centered * bessel
