"""log p(x) of a fitted autoencoder, in one of three ways that its latent names."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor

from skae.laplace import Laplace
from skae.nn.draws import Draws, Keyed
from skae.nn.latent import Discrete, Stochastic
from skae.nn.likelihoods import Likelihood
from skae.nn.network import Network

CELLS = 2**22
"""Cells of rows, or of hidden units, that are computed with at once."""

CODES_AT_ONCE = 256
"""Codes of a row that are drawn at once: their number decides the draws, not the other rows."""

IMPORTANCE_SAMPLES = 100
"""Codes drawn for each row that is scored."""

ROWS_THAT_TELL = 30
"""Held-out rows from which on they correct a trained noise: fewer would by luck."""

MOST_CODES = 65_536
"""Codes that are summed over at most."""


class Density(Protocol):
    """The distribution of codes and rows that a fit leaves."""

    likelihood: Likelihood

    @classmethod
    def estimate(cls, network: Network, x: Tensor, weight: Tensor, held_out: Tensor) -> Self:
        """Learn what the network does not tell from rows (n, n_features) in a random order.

        `weight` (n,) says how often each counts, `held_out` (n,) which the network has not seen.
        """

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        """The density that `tensors` came from."""

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes, beside the likelihood."""

    def log_prob(self, network: Network, x: Tensor) -> Tensor:
        """Log-density of rows (n, n_features) in nats, shape (n,), float64."""

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) as the model has them before it sees a row."""

    def blend(self, new: Any, share: float) -> Self:
        """The mixture of this density and a `share` of a new one."""

    def is_finite(self) -> bool:
        """Whether its numbers are all finite."""


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
                for rows in _few(network, x, IMPORTANCE_SAMPLES)
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
            [self._log_mean(network, rows, n_samples) for rows in _few(network, x, n_samples)]
        )

    def elbo(self, network: Network, x: Tensor, n_samples: int = IMPORTANCE_SAMPLES) -> Tensor:
        """The evidence lower bound of rows in nats, shape (n,), float64."""
        return torch.cat(
            [self._mean(network, rows, n_samples) for rows in _few(network, x, n_samples)]
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


@dataclass
class Enumeration:
    """Codes of which there are finitely many: the exact sum over all of them.

    Attributes
    ----------
    likelihood : Likelihood
    shares : Tensor of shape (n_codebooks, n_codes)
        How often each code occurs among rows.
    """

    likelihood: Likelihood
    shares: Tensor

    @classmethod
    @torch.no_grad()
    def estimate(
        cls, network: Network, x: Tensor, weight: Tensor, held_out: Tensor
    ) -> "Enumeration":
        latent = cast(Discrete, network.latent)
        code = network.encode(x)
        chosen = torch.nn.functional.one_hot(latent.indices(code.h), latent.n_codes).double()
        shares = torch.einsum("n,nbc->bc", weight.double() / weight.double().sum(), chosen)
        seen = weight * held_out if held_out.any() else weight
        squares = network.likelihood.deviance(x, network.decoder(code.mean))
        return cls(network.likelihood.with_noise(squares, seen / seen.sum(), x).fixed(), shares)

    @classmethod
    def restore(
        cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]
    ) -> "Enumeration":
        latent, shares = cast(Discrete, network.latent), tensors["shares"]
        if shares.shape != (latent.n_codebooks, latent.n_codes) or (shares < 0).any():
            raise ValueError("the shares of the codes are not those of this model")
        return cls(likelihood, shares)

    def tensors(self) -> dict[str, Tensor]:
        return {"shares": self.shares}

    def log_prob(self, network: Network, x: Tensor) -> Tensor:
        n_codebooks, n_codes = self.shares.shape
        if n_codes**n_codebooks > MOST_CODES:
            raise ValueError(
                f"The density is a sum over all codes, of which n_codes={n_codes} and "
                f"n_codebooks={n_codebooks} make {n_codes**n_codebooks}; the limit is {MOST_CODES}."
            )
        choices = [torch.arange(n_codes, device=x.device)] * n_codebooks
        indices = torch.cartesian_prod(*choices).reshape(-1, n_codebooks)
        log_share = self.shares.log()[torch.arange(n_codebooks), indices].sum(-1)
        out = network.decoder(cast(Discrete, network.latent).look_up(indices))
        return torch.cat(
            [self._log_sum(rows, out, log_share) for rows in _few(network, x, len(out))]
        )

    def _log_sum(self, x: Tensor, out: Tensor, log_share: Tensor) -> Tensor:
        total = x.new_full((len(x),), -math.inf, dtype=torch.float64)
        parts = zip(out.split(CODES_AT_ONCE), log_share.split(CODES_AT_ONCE), strict=True)
        for some, share in parts:
            fit = self.likelihood.log_prob(x[:, None], some[None].expand(len(x), -1, -1)).double()
            total = torch.logaddexp(total, (fit + share).logsumexp(-1))
        return total

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        shares = self.shares.cumsum(-1)
        uniform = draws.uniform((len(shares), n)).double() * shares[:, -1:]
        indices = torch.searchsorted(shares, uniform, right=True)
        return cast(Discrete, network.latent).look_up(indices.clamp_max(shares.shape[1] - 1).mT)

    def blend(self, new: "Enumeration", share: float) -> "Enumeration":
        likelihood = self.likelihood.blended(new.likelihood, share)
        return Enumeration(likelihood, self.shares.lerp(new.shares, share))

    def is_finite(self) -> bool:
        parts = (self.likelihood.noise_variance, self.shares)
        return all(bool(part.isfinite().all()) for part in parts)


DENSITIES: dict[str, type[Density]] = {
    "laplace": Laplace,
    "importance": Importance,
    "enumeration": Enumeration,
}


def _few(network: Network, x: Tensor, times: int) -> tuple[Tensor, ...]:
    """Rows in parts that can be computed with so many times at once."""
    cells = min(times, CODES_AT_ONCE) * max(x.shape[1], network.decoder.n_hidden)
    return x.split(max(1, CELLS // cells))
