"""Normal distributions of codes, parametrized by an encoder."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from skae.nn.draws import Draws
from skae.nn.latent import log_normal

SMALLEST_LOG = -40.0
"""Smallest logarithm of a standard deviation. The square of its inverse is finite in float32."""


def bounded(raw: Tensor) -> Tensor:
    """Return logarithms of standard deviations from raw outputs of an encoder.

    The standard deviation is exp(raw) up to that of the prior, which is 1, and 1 + raw above it.
    It is thus finite for any row, however far it is from the others.
    """
    return torch.where(raw > 0, raw.clamp_min(0).log1p(), raw.clamp_min(SMALLEST_LOG))


class Normal(NamedTuple):
    """Normal distributions of codes, described by means and Cholesky factors of covariances.

    There is one distribution for each index of the leading axes, for instance one per row. k is the
    length of a code.

    Attributes
    ----------
    mean : Tensor of shape (..., k)
        Means.
    log_diagonal : Tensor of shape (..., k)
        Logarithms of the diagonals of the factors.
    below : Tensor of shape (..., k * (k - 1) / 2) or None
        Entries of the factors below the diagonals, row by row. None for diagonal covariances.
    """

    mean: Tensor
    log_diagonal: Tensor
    below: Tensor | None

    @classmethod
    def of(cls, h: Tensor, k: int, is_full: bool) -> Self:
        """Interpret the raw outputs `h` of an encoder as parameters of the distributions.

        `k` is the length of a code, and `is_full` is False for diagonal covariances.
        """
        mean, raw, below = h.tensor_split([k, 2 * k], -1)
        return cls(mean, bounded(raw), below if is_full else None)

    def replaced(self, rows: Tensor, other: "Normal") -> "Normal":
        """Return the distributions with those of `other` where the mask `rows` (n,) is True.

        `other` has full covariances. It is converted to the dtype of these distributions.
        """
        k = self.mean.shape[-1]
        none = self.mean.new_zeros(*self.mean.shape[:-1], k * (k - 1) // 2)
        old = torch.cat([*self[:2], none if self.below is None else self.below], -1)
        new = torch.cat([part for part in other if part is not None], -1).to(old)
        return Normal(*torch.where(rows[:, None], new, old).tensor_split([k, 2 * k], -1))

    def _lower(self, below: Tensor) -> Tensor:
        k = self.mean.shape[-1]
        row, column = torch.tril_indices(k, k, -1, device=self.mean.device)
        factor = self.mean.new_zeros(*self.mean.shape, k)
        factor[..., row, column] = below
        return factor

    def place(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Transform standard normal noise (..., k) to codes; return codes and log-densities."""
        z = self.mean + self.log_diagonal.exp() * noise
        if self.below is not None:
            z = z + (self._lower(self.below) @ noise[..., None])[..., 0]
        return z, log_normal(noise) - self.log_diagonal.sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-densities of codes (..., k)."""
        noise = z - self.mean
        if self.below is None:
            noise = noise * (-self.log_diagonal).exp()
        else:
            factor = self._factor(self.below)
            noise = torch.linalg.solve_triangular(factor, noise[..., None], upper=False)[..., 0]
        return log_normal(noise) - self.log_diagonal.sum(-1)

    def divergence(self) -> Tensor:
        """Compute the Kullback-Leibler divergences (...) from the standard normal, in nats."""
        squares = (2 * self.log_diagonal).exp() + self.mean**2 - 1 - 2 * self.log_diagonal
        total = squares.sum(-1)
        if self.below is not None:
            total = total + self.below.square().sum(-1)
        return 0.5 * total

    def covariance(self) -> Tensor:
        """Return covariances (..., k, k), or variances (..., k) if they are diagonal."""
        if self.below is None:
            return self.log_diagonal.exp() ** 2
        factor = self._factor(self.below)
        return factor @ factor.mT

    def _factor(self, below: Tensor) -> Tensor:
        return self._lower(below) + self.log_diagonal.exp().diag_embed()


class NormalMixture(NamedTuple):
    """Mixtures of two normal distributions, for instance one mixture per row.

    The share of the first distribution is a third.
    """

    first: Normal
    second: Normal

    def draw(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draw `n` codes (n, n_rows, k) of each mixture, and return them with log-densities.

        The numbers of codes from each distribution are fixed, and the log-density is that of the
        mixture with their shares. The codes come in pairs with opposite noise, so that means over
        them vary less (antithetic variates).
        """
        n_first = max(1, n // 3)
        sizes, codes = (n_first, n - n_first), []
        for part, size in zip(self, sizes, strict=True):
            noise = draws.normal(((size + 1) // 2, *part.mean.shape))
            codes.append(part.place(torch.cat([noise, -noise])[:size])[0])
        z = torch.cat(codes)
        log_shares = (z.new_tensor(sizes) / n).log()
        parts = [part.log_prob(z) for part in self]
        return z, torch.logaddexp(parts[0] + log_shares[0], parts[1] + log_shares[1])


class NormalPerClass(NamedTuple):
    """For each row, probabilities of classes and one normal distribution per class.

    Attributes
    ----------
    log_share : Tensor of shape (n, n_classes)
        Logarithms of the probabilities.
    normal : Normal
        Distributions with means of shape (n_classes, n, k).
    """

    log_share: Tensor
    normal: Normal

    @classmethod
    def of(cls, h: Tensor, n_classes: int, k: int) -> Self:
        """Interpret the raw outputs `h` of an encoder as parameters of the distributions.

        `k` is the length of a code without its class.
        """
        log_share, rest = h.tensor_split([n_classes], -1)
        each = rest.unflatten(-1, (n_classes, -1)).movedim(-2, 0)
        return cls(log_share.log_softmax(-1), Normal.of(each, k, False))

    def draw(self, n: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Draw classes (n, n_rows) and codes (n, n_rows, k), and return their joint log-density."""
        mean, log_diagonal, _ = self.normal
        n_classes, n_rows, k = mean.shape
        uniform = draws.uniform((n, n_rows, 1))
        chosen = (self.log_share.exp().cumsum(-1) < uniform).sum(-1).clamp_max(n_classes - 1)
        rows = torch.arange(n_rows, device=mean.device)
        normal = Normal(mean[chosen, rows], log_diagonal[chosen, rows], None)
        z, log_prob = normal.place(draws.normal((n, n_rows, k)))
        return chosen, z, log_prob + self.log_share[rows, chosen]

    def divergence(self, log_prior: Tensor) -> Tensor:
        """Compute the Kullback-Leibler divergences (n,) of rows from a prior, in nats.

        The divergence of a row is that of the joint distribution of its class and its code. Under
        the prior, the classes have the log-probabilities `log_prior` (n_classes,), and the code is
        standard normal for each class.
        """
        each = self.normal.divergence().mT + self.log_share - log_prior
        return (self.log_share.exp() * each).sum(-1)
