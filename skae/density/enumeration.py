"""The density of rows whose codes are finitely many: the exact sum over all of them."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from skae.density.base import CODES_AT_ONCE, map_blocks
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.latent import Discrete
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network

MOST_CODES = 65_536
"""Codes that are summed over at most."""


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
    def estimate(cls, network: Network, batch: Batch, held_out: Tensor) -> "Enumeration":
        latent, likelihood = cast(Discrete, network.latent), network.likelihood.fixed()
        code, rows, weight = network.encode(batch), network.inputs.modelled(batch), batch.weight
        chosen = torch.nn.functional.one_hot(latent.indices(code.h), latent.n_codes).double()
        shares = torch.einsum("n,nbc->bc", weight.double() / weight.double().sum(), chosen)
        seen = weight * held_out if held_out.any() else weight
        squares = likelihood.squares(rows, network.outputs(code.mean, batch))
        statistics = likelihood.statistics(rows, squares, seen / seen.sum())
        return cls(likelihood.update(statistics), shares)

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

    def log_prob(self, network: Network, batch: Batch) -> Tensor:
        n_codebooks, n_codes = self.shares.shape
        if n_codes**n_codebooks > MOST_CODES:
            raise ValueError(
                f"The density is a sum over all codes, of which n_codes={n_codes} and "
                f"n_codebooks={n_codebooks} make {n_codes**n_codebooks}; the limit is {MOST_CODES}."
            )
        choices = [torch.arange(n_codes, device=batch.x.device)] * n_codebooks
        indices = torch.cartesian_prod(*choices).reshape(-1, n_codebooks)
        log_share = self.shares.log()[torch.arange(n_codebooks), indices].sum(-1)
        codes = cast(Discrete, network.latent).look_up(indices)[:, None]
        # Without conditions, a code decodes to the same for all rows.
        outs = None if network.inputs.n_conditions else network.outputs(codes, batch)

        def log_sum(batch: Batch) -> Tensor:
            n, rows = len(batch.x), network.inputs.modelled(batch)
            total = batch.x.new_full((n,), -math.inf, dtype=torch.float64)
            for start in range(0, len(codes), CODES_AT_ONCE):
                some = slice(start, start + CODES_AT_ONCE)
                if outs is None:
                    out = network.outputs(codes[some].expand(-1, n, -1), batch)
                else:
                    out = outs[some].expand(-1, n, -1)
                fit = self.likelihood.log_prob(rows, out).double()
                total = torch.logaddexp(total, (fit + log_share[some, None]).logsumexp(0))
            return total

        return map_blocks(log_sum, network, batch, len(codes))

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        shares = self.shares.cumsum(-1)
        uniform = draws.uniform((len(shares), n)).double() * shares[:, -1:]
        indices = torch.searchsorted(shares, uniform, right=True)
        return cast(Discrete, network.latent).look_up(indices.clamp_max(shares.shape[1] - 1).mT)

    def blend(self, new: "Enumeration", share: float) -> "Enumeration":
        likelihood = self.likelihood.blended(new.likelihood, share)
        return Enumeration(likelihood, self.shares.lerp(new.shares, share))

    def is_finite(self) -> bool:
        return self.likelihood.is_finite() and bool(self.shares.isfinite().all())
