"""The density of rows whose codes are distributions: importance sampling from the posterior."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor

from skae.density.base import CODES_AT_ONCE, map_blocks
from skae.nn.batch import Batch
from skae.nn.draws import Draws, KeyedDraws
from skae.nn.latent import Stochastic
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network

IMPORTANCE_SAMPLES = 100
"""Codes drawn for each row that is scored."""

ENOUGH_ROWS = 30
"""Validation rows from which on they correct a trained likelihood: fewer would by luck."""


@dataclass
class Importance:
    """Codes that are distributions: the mean over codes drawn from the encoder's posterior.

    A lower bound of the log-density in expectation, the tighter the more codes are drawn (Burda,
    Grosse & Salakhutdinov 2016). The draws belong to the row: they are the same at every call.
    """

    likelihood: Likelihood

    @classmethod
    @torch.no_grad()
    def estimate(cls, network: Network, batch: Batch, held_out: Tensor) -> Self:
        likelihood, is_trained = network.likelihood.fixed(), network.likelihood.is_trained
        is_enough = held_out.sum() >= ENOUGH_ROWS
        if likelihood.is_known or (is_trained and not is_enough):
            return cls(likelihood)
        some = held_out if is_enough else torch.ones_like(held_out)
        batch = batch.map(lambda part: part[some])
        # Means over draws come first: rows are summed over at once.
        squares = cls(likelihood)._squares(network, batch)
        share = batch.weight / batch.weight.sum()
        statistics = likelihood.statistics(network.inputs.modelled(batch), squares, share)
        if is_trained:
            return cls(likelihood.corrected(statistics))
        return cls(likelihood.update(statistics))

    def _squares(self, network: Network, batch: Batch) -> Tensor:
        """Expected squares of cells' errors under their rows' posteriors."""

        def mean(batch: Batch) -> Tensor:
            rows = network.inputs.modelled(batch)
            total = torch.zeros_like(rows.x)
            for out, _ in self._drawn(network, batch, IMPORTANCE_SAMPLES):
                total += self.likelihood.squares(rows, out).sum(0)
            return total / IMPORTANCE_SAMPLES

        return map_blocks(mean, network, batch, IMPORTANCE_SAMPLES)

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        return cls(likelihood)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def log_prob(
        self, network: Network, batch: Batch, n_samples: int = IMPORTANCE_SAMPLES
    ) -> Tensor:
        def log_mean(batch: Batch) -> Tensor:
            total = batch.weight.new_full((len(batch.x),), -math.inf, dtype=torch.float64)
            rows = network.inputs.modelled(batch)
            for out, log_ratio in self._drawn(network, batch, n_samples):
                fit = self.likelihood.log_prob(rows, out).double()
                total = torch.logaddexp(total, (fit + log_ratio.double()).logsumexp(0))
            return total - math.log(n_samples)

        return map_blocks(log_mean, network, batch, n_samples)

    def elbo(self, network: Network, batch: Batch, n_samples: int = IMPORTANCE_SAMPLES) -> Tensor:
        """The evidence lower bound of rows in nats, shape (n,), float64."""

        def mean(batch: Batch) -> Tensor:
            total = batch.weight.new_zeros(len(batch.x), dtype=torch.float64)
            rows = network.inputs.modelled(batch)
            for out, _ in self._drawn(network, batch, n_samples):
                total += self.likelihood.log_prob(rows, out).double().sum(0)
            divergence = cast(Stochastic, network.latent).divergence(network.encode(batch).h)
            return total / n_samples - divergence.double()

        return map_blocks(mean, network, batch, n_samples)

    def _drawn(
        self, network: Network, batch: Batch, n_samples: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What codes (s, n, k) of rows decode to, (s, n, n_outputs), and log p(z) / q(z | x).

        There are `n_samples` of them, in blocks.
        """
        latent, draws = cast(Stochastic, network.latent), KeyedDraws(network.inputs.content(batch))
        h = network.encode(batch).h
        for start in range(0, n_samples, CODES_AT_ONCE):
            z, log_q = latent.propose(h, min(CODES_AT_ONCE, n_samples - start), draws)
            yield network.outputs(z, batch), latent.log_prior(z) - log_q

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        return cast(Stochastic, network.latent).draw_prior(n, draws)

    def blend(self, new: "Importance", share: float) -> "Importance":
        return new

    def is_finite(self) -> bool:
        return self.likelihood.is_finite()
