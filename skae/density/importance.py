"""The density of rows with noisy codes: importance sampling from the encoder's posterior."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor

from skae.density.density import CODES_AT_ONCE, row_blocks
from skae.nn.draws import Draws, Keyed
from skae.nn.latent import Stochastic
from skae.nn.likelihoods.gaussian import Likelihood
from skae.nn.network import Network

IMPORTANCE_SAMPLES = 100
"""Codes drawn for each row that is scored."""

ROWS_THAT_TELL = 30
"""Held-out rows from which on they correct a trained noise: fewer would by luck."""


@dataclass
class Importance:
    """Noisy codes: the mean over codes drawn from the posterior that the encoder states.

    A lower bound of the log-density in expectation, the tighter the more codes are drawn (Burda,
    Grosse & Salakhutdinov 2016). The draws belong to the row: they are the same at every call.
    """

    likelihood: Likelihood

    @classmethod
    @torch.no_grad()
    def estimate(cls, network: Network, x: Tensor, weight: Tensor, held_out: Tensor) -> Self:
        likelihood, waits = network.likelihood.fixed(), not network.latent.learns_noise
        tell = held_out.sum() >= ROWS_THAT_TELL
        if not (waits or (network.likelihood.learns_noise and tell)):
            return cls(likelihood)
        seen = held_out if tell else torch.ones_like(held_out)
        x, share = x[seen], weight[seen] / weight[seen].sum()
        squares = torch.cat(
            [
                cls(likelihood)._squares(network, rows)
                for rows in row_blocks(network, x, IMPORTANCE_SAMPLES)
            ]
        )
        if waits:
            return cls(likelihood.with_noise(squares, share, network.cells(x)))
        # A noise that is trained is too small for new rows: held-out ones tell by which factor.
        excess = share @ squares / likelihood.noise_variance
        factor = likelihood.mean_cells(excess, share, network.cells(x)).mean()
        return cls(likelihood.having_noise(factor * likelihood.noise_variance))

    def _squares(self, network: Network, x: Tensor) -> Tensor:
        """Expected errors of cells under their rows' posteriors."""
        cells = network.cells(x)
        total = torch.zeros_like(cells)
        for out, _ in self._drawn(network, x, IMPORTANCE_SAMPLES):
            total += self.likelihood.deviance(cells, out).sum(0)
        return total / IMPORTANCE_SAMPLES

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        return cls(likelihood)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def log_prob(self, network: Network, x: Tensor, n_samples: int = IMPORTANCE_SAMPLES) -> Tensor:
        return torch.cat(
            [self._log_mean(network, rows, n_samples) for rows in row_blocks(network, x, n_samples)]
        )

    def elbo(self, network: Network, x: Tensor, n_samples: int = IMPORTANCE_SAMPLES) -> Tensor:
        """The evidence lower bound of rows in nats, shape (n,), float64."""
        return torch.cat(
            [self._mean(network, rows, n_samples) for rows in row_blocks(network, x, n_samples)]
        )

    def _log_mean(self, network: Network, x: Tensor, n_samples: int) -> Tensor:
        total = x.new_full((len(x),), -math.inf, dtype=torch.float64)
        for out, log_ratio in self._drawn(network, x, n_samples):
            fit = self.likelihood.log_prob(network.cells(x), out).double()
            total = torch.logaddexp(total, (fit + log_ratio.double()).logsumexp(0))
        return total - math.log(n_samples)

    def _mean(self, network: Network, x: Tensor, n_samples: int) -> Tensor:
        total = x.new_zeros(len(x), dtype=torch.float64)
        for out, _ in self._drawn(network, x, n_samples):
            total += self.likelihood.log_prob(network.cells(x), out).double().sum(0)
        divergence = cast(Stochastic, network.latent).divergence(network.encode(x).h)
        return total / n_samples - divergence.double()

    def _drawn(
        self, network: Network, x: Tensor, n_samples: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What codes (s, n, k) of rows decode to, (s, n, n_features), and log p(z) / q(z | x).

        There are `n_samples` of them, in blocks.
        """
        latent, draws = cast(Stochastic, network.latent), Keyed(x)
        h = network.encode(x).h
        for start in range(0, n_samples, CODES_AT_ONCE):
            z, log_q = latent.propose(h, min(CODES_AT_ONCE, n_samples - start), draws)
            yield network.outputs(network.complete(z, x)), latent.log_prior(z) - log_q

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        return cast(Stochastic, network.latent).draw_prior(n, draws)

    def blend(self, new: "Importance", share: float) -> "Importance":
        return new

    def is_finite(self) -> bool:
        return bool(self.likelihood.noise_variance.isfinite().all())
