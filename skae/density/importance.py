"""The density of rows whose encoder returns a posterior: importance sampling of the codes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from skae.density.base import CODES_AT_ONCE, map_blocks
from skae.density.expansion import Expansion
from skae.density.laplace import Laplace
from skae.nn.batch import Batch
from skae.nn.draws import Draws, KeyedDraws
from skae.nn.latent import Stochastic
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network
from skae.nn.normal import Normal, NormalMixture
from skae.nn.prior import WIDEST, StandardNormalPrior, inverse

POSTERIOR_SAMPLES = 100
REFINED_SAMPLES = 12
RESAMPLED = 100
"""Default numbers of codes that are drawn for each row from its posterior, and from a mixture with
a distribution that is closer to the exact posterior, and number of codes from which draws from the
exact posterior are chosen."""

Propose = Callable[[int, Draws], tuple[Tensor, Tensor]]
"""Function that draws a number of codes of each row and returns them with their log-densities."""

MIN_VALIDATION_ROWS = 30
"""Smallest number of validation rows that estimate the noise or correct a trained noise. The result
of fewer rows would be mostly chance. The noise is then estimated from all rows, and a trained noise
is not corrected."""


@dataclass
class Importance:
    """Importance-weighted estimate of the log-density.

    The expectation of the estimate is a lower bound of the log-density, which becomes tighter with
    more codes (Burda, Grosse & Salakhutdinov 2016), and if the distribution from which they are
    drawn is closer to the exact posterior of the row. The random numbers are computed from the row,
    so equal rows have equal results in every call. `Density` documents the methods.

    Attributes
    ----------
    likelihood : Likelihood
        Distribution of a row given its code.
    """

    min_validation_rows: ClassVar[int] = MIN_VALIDATION_ROWS

    likelihood: Likelihood

    @classmethod
    @torch.no_grad()
    def estimate(
        cls, network: Network, likelihood: Likelihood, batch: Batch, held_out: Tensor
    ) -> Self:
        is_trained, likelihood = likelihood.is_trained, likelihood.fixed()
        has_validation = held_out.sum() >= MIN_VALIDATION_ROWS
        if likelihood.is_known or (is_trained and not has_validation):
            return cls(likelihood)
        used = held_out if has_validation else torch.ones_like(held_out)
        batch = batch.map(lambda part: part[used])
        # Squares are averaged over draws first, so that `statistics` is called once for all rows.
        squares = cls(likelihood)._squares(network, batch)
        weight = batch.weight / batch.weight.sum()
        statistics = likelihood.statistics(network.inputs.modelled(batch), squares, weight)
        if is_trained:
            return cls(likelihood.corrected(statistics))
        return cls(likelihood.update(statistics))

    def _squares(self, network: Network, batch: Batch) -> Tensor:
        """Compute the expected squared errors of cells under the posteriors of their codes."""

        def mean(batch: Batch) -> Tensor:
            rows = network.inputs.modelled(batch)
            total = torch.zeros_like(rows.x)
            for out, _ in self._decode_draws(network, batch, POSTERIOR_SAMPLES):
                total += self.likelihood.squares(rows, out).sum(0)
            return total / POSTERIOR_SAMPLES

        return map_blocks(mean, network, batch, POSTERIOR_SAMPLES)

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        return cls(likelihood)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def log_prob(self, network: Network, batch: Batch, n_samples: int | None = None) -> Tensor:
        """Estimate the log-densities of rows in nats, shape (n,), float64.

        Codes are drawn from a mixture of the posterior and a refined one, if there is one.
        """
        latent = cast(Stochastic, network.latent)
        is_refined = latent.has_normal_posterior and latent.n_components <= WIDEST
        if n_samples is None:
            n_samples = REFINED_SAMPLES if is_refined else POSTERIOR_SAMPLES

        def log_mean(batch: Batch) -> Tensor:
            total = batch.weight.new_full((len(batch.x),), -math.inf, dtype=torch.float64)
            rows, propose = network.inputs.modelled(batch), None
            if is_refined:
                propose = self._refined(network, batch).draw
            for out, log_ratio in self._decode_draws(network, batch, n_samples, propose=propose):
                log_prob = self.likelihood.log_prob(rows, out).double()
                total = torch.logaddexp(total, (log_prob + log_ratio.double()).logsumexp(0))
            return total - math.log(n_samples)

        return map_blocks(log_mean, network, batch, n_samples)

    def _refined(self, network: Network, batch: Batch) -> NormalMixture:
        """Return mixtures of the posteriors and of distributions closer to the exact posteriors.

        One Gauss-Newton step leads from the mean of the posterior to that of the other
        distribution, whose precision is that of the linear approximation of the decoder. The
        posterior replaces it for rows that are too far away for finite results.
        """
        posterior = cast(Stochastic, network.latent).posterior(network.encode(batch).h)
        z = posterior.mean.double()
        expansion = Expansion(network, self.likelihood, batch, z)
        k = z.shape[1]
        precision = expansion.information + torch.eye(k, dtype=z.dtype, device=z.device)
        covariance = inverse(precision)[0]
        factor, failed = torch.linalg.cholesky_ex(covariance)
        mean = z + (covariance @ (expansion.gradient - z)[..., None])[..., 0]
        row, column = torch.tril_indices(k, k, -1, device=z.device)
        below = factor[:, row, column]
        log_diagonal = factor.diagonal(dim1=-2, dim2=-1).log()
        fine = torch.cat([mean, log_diagonal, below], 1).to(batch.x).isfinite().all(1)
        fine &= failed == 0
        return NormalMixture(posterior, posterior.replaced(fine, Normal(mean, log_diagonal, below)))

    def elbo(self, network: Network, batch: Batch, n_samples: int = POSTERIOR_SAMPLES) -> Tensor:
        """Compute the evidence lower bound of rows in nats, shape (n,), float64.

        The expected log-likelihood is a mean over `n_samples` codes. The divergence is exact.
        """

        def mean(batch: Batch) -> Tensor:
            total = batch.weight.new_zeros(len(batch.x), dtype=torch.float64)
            rows = network.inputs.modelled(batch)
            for out, _ in self._decode_draws(network, batch, n_samples):
                total += self.likelihood.log_prob(rows, out).double().sum(0)
            divergence = cast(Stochastic, network.latent).divergence(network.encode(batch).h)
            return total / n_samples - divergence.double()

        return map_blocks(mean, network, batch, n_samples)

    def predict(self, network: Network, batch: Batch, n_samples: int, draws: Draws) -> Tensor:
        """Draw rows (n, n_samples, n_outputs), given codes drawn from the posterior of each row."""

        def drawn(batch: Batch) -> Tensor:
            decoded = self._decode_draws(network, batch, n_samples, draws)
            parts = [self.likelihood.sample(out, draws) for out, _ in decoded]
            return torch.cat(parts).transpose(0, 1)

        return map_blocks(drawn, network, batch, n_samples)

    def _decode_draws(
        self,
        network: Network,
        batch: Batch,
        n_samples: int,
        draws: Draws | None = None,
        propose: Propose | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw `n_samples` codes of each row and decode them, in blocks.

        If `draws` is None, the random numbers are computed from the rows. If `propose` is None,
        codes are drawn from the posteriors.

        Yields
        ------
        out : Tensor of shape (n_drawn, n, n_outputs)
            Outputs of the decoder.
        log_ratio : Tensor of shape (n_drawn, n)
            Log-density of each code under the prior minus that under the distribution from which it
            is drawn, in nats.
        """
        latent = cast(Stochastic, network.latent)
        draws = draws or KeyedDraws(network.inputs.content(batch))
        propose = propose or partial(latent.propose, network.encode(batch).h)
        for start in range(0, n_samples, CODES_AT_ONCE):
            z, log_q = propose(min(CODES_AT_ONCE, n_samples - start), draws)
            yield network.outputs(z, batch), latent.log_prior(z) - log_q

    def mode(self, network: Network, batch: Batch) -> Tensor:
        latent = cast(Stochastic, network.latent)
        code = network.encode(batch)
        if not latent.has_normal_posterior:
            return code.mean
        prior = StandardNormalPrior.start(code.mean.double(), batch.weight, batch.weight.sum())
        return Laplace(self.likelihood, prior).mode(network, batch)

    def draw_posterior(self, network: Network, batch: Batch, n: int, draws: Draws) -> Tensor:
        """Draw codes by sampling importance resampling (Rubin 1987)."""
        latent = cast(Stochastic, network.latent)
        is_refined = latent.has_normal_posterior and latent.n_components <= WIDEST

        def drawn(batch: Batch) -> Tensor:
            rows = network.inputs.modelled(batch)
            propose: Propose = partial(latent.propose, network.encode(batch).h)
            propose = self._refined(network, batch).draw if is_refined else propose
            z, log_q = propose(RESAMPLED, draws)
            log_prob = self.likelihood.log_prob(rows, network.outputs(z, batch))
            share = (log_prob + latent.log_prior(z) - log_q).double().softmax(0)
            ends, uniform = share.cumsum(0).mT.contiguous(), draws.uniform((n, len(batch.x)))
            place = torch.searchsorted(ends, uniform.double().mT.contiguous() * ends[:, -1:])
            chosen = place.clamp_max(RESAMPLED - 1)
            return z.transpose(0, 1).gather(1, chosen[..., None].expand(-1, -1, z.shape[-1]))

        return map_blocks(drawn, network, batch, RESAMPLED).transpose(0, 1)

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        return cast(Stochastic, network.latent).draw_prior(n, draws)

    def is_finite(self) -> bool:
        return self.likelihood.is_finite()
