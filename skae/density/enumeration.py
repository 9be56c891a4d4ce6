"""The density of rows with finitely many codes: an exact sum over all codes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from skae.density.base import CODES_AT_ONCE, map_blocks
from skae.density.weights import RowWeights
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.latent import Discrete
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network

MAX_CODES = 65_536
"""Largest number of codes to sum over. It limits the time, because with conditions each code is
decoded once per row."""

CodeBlocks = Iterator[tuple[Tensor, Tensor]]
"""Some codes (m, 1, k), and the logarithms of their joint densities with n rows, (m, n)."""


@dataclass
class Enumeration:
    """Exact density for codes that consist of one vector from each of several codebooks.

    In the prior, the vectors of different codebooks are independent. `Density` documents the
    methods. `log_prob` raises ValueError if there are more than `MAX_CODES` codes.

    Attributes
    ----------
    likelihood : Likelihood
        Distribution of a row given its code.
    shares : Tensor of shape (n_codebooks, n_codes)
        Weighted relative frequency of each vector of a codebook among the codes of rows.
    """

    min_validation_rows: ClassVar[int] = 1

    likelihood: Likelihood
    shares: Tensor

    @classmethod
    @torch.no_grad()
    def estimate(
        cls, network: Network, likelihood: Likelihood, batch: Batch, held_out: Tensor
    ) -> "Enumeration":
        latent, likelihood = cast(Discrete, network.latent), likelihood.fixed()
        code, rows, weight = network.encode(batch), network.inputs.modelled(batch), batch.weight
        selected = torch.nn.functional.one_hot(latent.indices(code.h), latent.n_codes).double()
        shares = torch.einsum("n,nbc->bc", weight.double() / weight.double().sum(), selected)
        squares = likelihood.squares(rows, network.outputs(code.mean, batch))
        weights = RowWeights.from_rows(weight, held_out)
        of_errors = weights.statistics(likelihood, rows, squares)
        return cls(weights.estimate_noise(likelihood, [of_errors]), shares)

    @classmethod
    def restore(
        cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]
    ) -> "Enumeration":
        latent, shares = cast(Discrete, network.latent), tensors["shares"]
        expected = (latent.n_codebooks, latent.n_codes)
        is_valid = shares.shape == expected and shares.dtype == torch.float64
        if not is_valid or (shares < 0).any():
            raise ValueError(
                f"the shares of the codes must be non-negative, of shape {expected} and float64, "
                f"got shape {tuple(shares.shape)} and {shares.dtype}"
            )
        return cls(likelihood, shares)

    def tensors(self) -> dict[str, Tensor]:
        return {"shares": self.shares}

    def log_prob(self, network: Network, batch: Batch) -> Tensor:
        def log_sum(batch: Batch, blocks: CodeBlocks) -> Tensor:
            total = batch.x.new_full((len(batch.x),), -math.inf, dtype=torch.float64)
            for _, log_joint in blocks:
                total = torch.logaddexp(total, log_joint.logsumexp(0))
            return total

        return self._map(log_sum, network, batch)

    def mode(self, network: Network, batch: Batch) -> Tensor:
        def best(batch: Batch, blocks: CodeBlocks) -> Tensor:
            highest = batch.x.new_full((len(batch.x),), -math.inf, dtype=torch.float64)
            mode = batch.x.new_zeros(len(batch.x), network.latent.n_components)
            for codes, log_joint in blocks:
                value, place = log_joint.max(0)
                mode = torch.where((value > highest)[:, None], codes[place, 0].to(mode), mode)
                highest = highest.maximum(value)
            return mode

        return self._map(best, network, batch)

    def draw_posterior(self, network: Network, batch: Batch, n: int, draws: Draws) -> Tensor:
        def drawn(batch: Batch, blocks: CodeBlocks) -> Tensor:
            # The code with the largest sum of its log-density and Gumbel noise has the right
            # distribution.
            shape = n, len(batch.x)
            highest = batch.x.new_full(shape, -math.inf, dtype=torch.float64)
            codes = batch.x.new_zeros(*shape, network.latent.n_components)
            for block, log_joint in blocks:
                uniform = draws.uniform((len(block), *shape)).double().clamp_min(1e-300)
                value, place = (log_joint[:, None] - (-uniform.log()).log()).max(0)
                chosen = block[place, 0].to(codes)
                codes = torch.where((value > highest)[..., None], chosen, codes)
                highest = highest.maximum(value)
            return codes.transpose(0, 1)

        return self._map(drawn, network, batch).transpose(0, 1)

    def _map(
        self, function: Callable[[Batch, CodeBlocks], Tensor], network: Network, batch: Batch
    ) -> Tensor:
        """Apply a function to rows and to the joint log-densities of all codes and these rows."""
        n_codebooks, n_codes = self.shares.shape
        if n_codes**n_codebooks > MAX_CODES:
            raise ValueError(
                "The density is a sum over all n_codes**n_codebooks codes, which must be at most "
                f"{MAX_CODES}, got {n_codes**n_codebooks} with n_codes={n_codes} and "
                f"n_codebooks={n_codebooks}. Reduce n_codes or n_codebooks."
            )
        choices = [torch.arange(n_codes, device=batch.x.device)] * n_codebooks
        indices = torch.cartesian_prod(*choices).reshape(-1, n_codebooks)
        log_share = self.shares.log()[torch.arange(n_codebooks), indices].sum(-1)
        codes = cast(Discrete, network.latent).look_up(indices)[:, None]
        # Without conditions, the output for a code is the same for all rows.
        shared_out = None if network.inputs.n_conditions else network.outputs(codes, batch)

        def log_joint(batch: Batch) -> CodeBlocks:
            n, rows = len(batch.x), network.inputs.modelled(batch)
            for start in range(0, len(codes), CODES_AT_ONCE):
                block = slice(start, start + CODES_AT_ONCE)
                if shared_out is None:
                    out = network.outputs(codes[block].expand(-1, n, -1), batch)
                else:
                    out = shared_out[block].expand(-1, n, -1)
                log_prob = self.likelihood.log_prob(rows, out).double()
                yield codes[block], log_prob + log_share[block, None]

        return map_blocks(lambda rows: function(rows, log_joint(rows)), network, batch, len(codes))

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        cumulative = self.shares.cumsum(-1)
        uniform = draws.uniform((len(cumulative), n)).double() * cumulative[:, -1:]
        indices = torch.searchsorted(cumulative, uniform, right=True)
        return cast(Discrete, network.latent).look_up(indices.clamp_max(cumulative.shape[1] - 1).mT)

    def is_finite(self) -> bool:
        return self.likelihood.is_finite() and bool(self.shares.isfinite().all())
