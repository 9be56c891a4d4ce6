"""Latents: how a code is drawn and what it costs. A variant of the autoencoder is its latent."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.prior import NormalPrior, Prior, StandardNormalPrior


class Code(NamedTuple):
    """What the encoder says about rows.

    `z` (..., n, k) goes to the decoder while training; `mean` (n, k) is what `transform` returns;
    `h` (n, n_inputs) is the encoder's raw output, from which both were made; `conditions` (n, m),
    while training, are the conditions of rows as networks see them.
    """

    z: Tensor
    mean: Tensor
    h: Tensor
    conditions: Tensor | None = None


Encode = Callable[[Tensor], Tensor]
"""Rows on the network's scale -> the encoder's raw output, for penalties on its derivatives."""


class Start(NamedTuple):
    """Where a linear code starts: what it multiplies principal axes with, and the output's bias."""

    down: Tensor
    up: Tensor
    bias: Tensor


class Latent(nn.Module, ABC):
    """Turns the encoder's raw output `h` (..., n, n_inputs) into codes and states their price.

    The first `n_components` of the inputs are the code itself or its mean; decoders with tied
    weights mirror these. Codes are `n_outputs` numbers, as many unless a subclass says otherwise.
    """

    prior: type[Prior] = NormalPrior
    """The family of distributions of its codes, for densities that have to integrate codes out."""

    learns_noise = False
    """Whether the likelihood's noise is trained: only where codes are noisy is it bounded."""

    is_linear = True
    """Whether a linear map may feed the code."""

    ranks_epochs = True
    """Whether the objective, outside training, tells which of two epochs is better."""

    def __init__(
        self, n_components: int, n_inputs: int | None = None, n_outputs: int | None = None
    ) -> None:
        super().__init__()
        self.n_components = n_components
        self.n_inputs = n_components if n_inputs is None else n_inputs
        self.n_outputs = n_components if n_outputs is None else n_outputs

    @abstractmethod
    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        """Codes for raw outputs. Without `draws` nothing is random."""

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        """Price of each row's code in nats, (..., n), or one of the whole batch for each row.

        `x` are the rows on the network's scale, `weight` (n,) says how much each counts.
        """
        return 0.0

    def bound(self, losses: Tensor, code: Code, draws: Draws | None, batch: Batch) -> Tensor:
        """The objective (n,) of rows whose codes `forward` drew several times (..., n)."""
        return losses

    def blocks(self) -> list[int]:
        """Lengths of the raw output's parts, of each of which a shorter code has the first."""
        return [self.n_inputs]

    def start(self, values: Tensor, rest: float) -> Start:
        """Where to start on principal axes with these variances, others having `rest` each."""
        one = torch.ones_like(values)
        return Start(one, one, values.new_zeros(self.n_inputs))

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        """Take the raw outputs for some training rows before training starts."""
        return

    def adapt(self, encode: Callable[[], Tensor], weight: Tensor, draws: Draws) -> None:
        """Update, after a step, what gradients do not train; `encode` gives the raw outputs."""
        return

    def inference_draws(self, x: Tensor) -> Draws | None:
        """What makes codes random outside training; by default they are not."""
        return None

    def warning(self, code: Code, weight: Tensor) -> str | None:
        """What a user should know of the codes of training rows, and which parameter to change."""
        return None


def log_normal(z: Tensor) -> Tensor:
    """Log-density of codes (..., k) under the standard normal distribution."""
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


class Stochastic(Latent):
    """A code that is drawn from a distribution which the encoder states, its posterior.

    Before a row is seen, codes follow the prior: standard normal, unless a subclass says otherwise.
    """

    learns_noise = True

    def blocks(self) -> list[int]:
        # Means, logarithms of deviations and, where the posterior has them, correlations.
        return [self.n_components] * 2 + [self.n_inputs - 2 * self.n_components]

    def log_prior(self, z: Tensor) -> Tensor:
        """Log-density of codes (..., k) before a row is seen."""
        return log_normal(z)

    def draw_prior(self, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) as they are before a row is seen."""
        return draws.normal((n, self.n_components))

    @abstractmethod
    def propose(self, h: Tensor, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """`n` codes of each row's posterior, (n, n_rows, k), and their log-densities in it."""

    @abstractmethod
    def divergence(self, h: Tensor) -> Tensor:
        """Kullback-Leibler divergence of each row's posterior from the prior, in nats."""


class Discrete(Latent):
    """A code of which there are finitely many: a choice from each of several codebooks."""

    def __init__(self, n_components: int, sizes: tuple[int, int]) -> None:
        super().__init__(n_components)
        self.n_codebooks, self.n_codes = sizes

    @abstractmethod
    def indices(self, h: Tensor) -> Tensor:
        """Which code of each codebook a raw output takes, (..., n_codebooks)."""

    @abstractmethod
    def look_up(self, indices: Tensor) -> Tensor:
        """The codes (..., k) at indices."""


class Deterministic(Latent):
    """The code is the encoder's output."""

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        return Code(h, h, h)


class Standardized(Deterministic):
    """Codes without noise, whose distribution over all rows is to be standard normal.

    Parameters
    ----------
    n_components : int
    price : float
        Weight of what training charges for being far from it.
    """

    prior = StandardNormalPrior

    def __init__(self, n_components: int, penalty_weight: float) -> None:
        super().__init__(n_components)
        self.penalty_weight = penalty_weight

    def start(self, values: Tensor, rest: float) -> Start:
        deviation = values.sqrt()
        return Start(1 / deviation, deviation, values.new_zeros(self.n_inputs))
