"""Normal distributions of codes, as an encoder states them."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from skae.nn.latent import log_normal


class Normal(NamedTuple):
    """Normal distributions, one for each row, by their means and Cholesky factors.

    `mean` and `log_diagonal` (..., k) are the means and the logarithms of the factors' diagonals,
    `below` (..., k (k - 1) / 2) the entries below these, none where covariances are diagonal.
    """

    mean: Tensor
    log_diagonal: Tensor
    below: Tensor

    @classmethod
    def of(cls, h: Tensor, k: int) -> Self:
        """The distributions that an encoder's outputs stand for."""
        return cls(*h.split([k, k, h.shape[-1] - 2 * k], -1))

    def _lower(self) -> Tensor:
        k = self.mean.shape[-1]
        row, column = torch.tril_indices(k, k, -1, device=self.mean.device)
        factor = self.mean.new_zeros(*self.mean.shape, k)
        factor[..., row, column] = self.below
        return factor

    def place(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Where standard normal noise (..., k) puts codes, and their log-densities."""
        z = self.mean + self.log_diagonal.exp() * noise
        if self.below.shape[-1]:
            z = z + (self._lower() @ noise[..., None])[..., 0]
        return z, log_normal(noise) - self.log_diagonal.sum(-1)

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, in nats."""
        squares = (2 * self.log_diagonal).exp() + self.mean**2 - 1 - 2 * self.log_diagonal
        return 0.5 * (squares.sum(-1) + self.below.square().sum(-1))

    def covariance(self) -> Tensor:
        """Variances (..., k), or covariances (..., k, k) that are not diagonal."""
        deviation = self.log_diagonal.exp()
        if not self.below.shape[-1]:
            return deviation**2
        factor = self._lower() + deviation.diag_embed()
        return factor @ factor.mT
