"""Latents: how codes are computed and which penalty they have; each variant has its own."""

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
    """Codes of a batch of rows.

    Attributes
    ----------
    z : Tensor of shape (..., n, k)
        Input of the decoder during training.
    mean : Tensor of shape (n, k)
        Codes that `transform` returns.
    h : Tensor of shape (n, n_inputs)
        Raw output of the encoder, from which `z` and `mean` are computed.
    conditions : Tensor of shape (n, m) or None
        Encoded conditions of the rows, during training only.
    """

    z: Tensor
    mean: Tensor
    h: Tensor
    conditions: Tensor | None = None


Encode = Callable[[Tensor], Tensor]
"""Map from standardized rows to raw outputs of the encoder, for penalties on its derivatives."""


class Start(NamedTuple):
    """Initial scales of the linear maps of the encoder and of the decoder, and the encoder's bias.

    The linear maps are initialized with k principal axes. Without linear maps, only `bias` is used.

    Attributes
    ----------
    down : Tensor of shape (k,)
        Factors by which the axes are multiplied in the encoder.
    up : Tensor of shape (k,)
        Factors by which the axes are multiplied in the decoder.
    bias : Tensor of shape (n_inputs,)
        Bias of the encoder, one number for each of its raw outputs (see `Latent`).
    """

    down: Tensor
    up: Tensor
    bias: Tensor


class Latent(nn.Module, ABC):
    """Base of latents, which compute codes from raw outputs `h` (..., n, n_inputs) of the encoder.

    If the decoder has tied weights, its first layer uses the transposed weights of the first
    `n_outputs` raw outputs, which should then be the code or its mean.

    Parameters
    ----------
    n_components : int
        Number of components of the code.
    n_inputs : int or None, default=None
        Number of raw outputs of the encoder for each row. None is `n_components`.
    n_outputs : int or None, default=None
        Length of the vector that the decoder receives as the code. None is `n_components`.
    """

    prior: type[Prior] = NormalPrior
    """Family of the distribution of codes, for densities that integrate over codes."""

    learns_noise = False
    """Whether the noise variance is trained; with deterministic codes it would shrink to zero."""

    is_linear = True
    """Whether the encoder and the decoder may have a linear skip."""

    ranks_epochs = True
    """Whether the objective on validation rows can be used to select the best epoch."""

    def __init__(
        self, n_components: int, n_inputs: int | None = None, n_outputs: int | None = None
    ) -> None:
        super().__init__()
        self.n_components = n_components
        self.n_inputs = n_components if n_inputs is None else n_inputs
        self.n_outputs = n_components if n_outputs is None else n_outputs

    @abstractmethod
    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        """Compute codes from raw outputs; without `draws` they are deterministic."""

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        """Compute the penalty in nats: (..., n) for each row, or one number for the batch.

        Parameters
        ----------
        code : Code
        x : Tensor of shape (n, n_columns)
            Standardized rows.
        encode : callable
            The encoder, for penalties on its derivatives.
        weight : Tensor of shape (n,)
            Weights of the rows.
        draws : Draws or None
            Source of random numbers during training.
        """
        return 0.0

    def bound(self, losses: Tensor, code: Code, draws: Draws | None, batch: Batch) -> Tensor:
        """Combine the losses (..., n) of several draws of each code to one loss per row, (n,)."""
        return losses

    def blocks(self) -> list[int]:
        """Return the lengths of the parts of `h`; a shorter code uses the first entries of each."""
        return [self.n_inputs]

    def start(self, values: Tensor, rest: float) -> Start:
        """Return initial values for axes with variances `values`; other axes have `rest` each."""
        one = torch.ones_like(values)
        return Start(one, one, values.new_zeros(self.n_inputs))

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        """Initialize parameters from raw outputs of some training rows, before training."""
        return

    def adapt(self, encode: Callable[[], Tensor], weight: Tensor, draws: Draws) -> None:
        """Update parameters without gradients after a step; `encode` returns the raw outputs."""
        return

    def inference_draws(self, x: Tensor) -> Draws | None:
        """Return the source of random numbers for `transform`; None for deterministic codes."""
        return None

    def warning(self, code: Code, weight: Tensor) -> str | None:
        """Return a warning about the codes of training rows that names the parameter to change."""
        return None


def log_normal(z: Tensor) -> Tensor:
    """Compute the log-density of codes (..., k) under the standard normal distribution."""
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


class Stochastic(Latent):
    """Base of latents whose codes are drawn from a posterior that the encoder parametrizes.

    The prior is the standard normal distribution unless a subclass overrides it.
    """

    learns_noise = True

    def blocks(self) -> list[int]:
        # Means, logarithms of standard deviations and, for full covariances, correlations.
        return [self.n_components] * 2 + [self.n_inputs - 2 * self.n_components]

    def log_prior(self, z: Tensor) -> Tensor:
        """Compute the log-density of codes (..., k) under the prior."""
        return log_normal(z)

    def draw_prior(self, n: int, draws: Draws) -> Tensor:
        """Draw codes (n, k) from the prior."""
        return draws.normal((n, self.n_components))

    @abstractmethod
    def propose(self, h: Tensor, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draw `n` codes from each posterior, (n, n_rows, k); also return their log-densities."""

    @abstractmethod
    def divergence(self, h: Tensor) -> Tensor:
        """Compute the Kullback-Leibler divergence of each posterior from the prior, in nats."""


class Discrete(Latent):
    """Base of latents with finitely many codes: one vector from each of several codebooks."""

    def __init__(self, n_components: int, sizes: tuple[int, int]) -> None:
        super().__init__(n_components)
        self.n_codebooks, self.n_codes = sizes

    @abstractmethod
    def indices(self, h: Tensor) -> Tensor:
        """Return the index of the selected vector in each codebook, (..., n_codebooks)."""

    @abstractmethod
    def look_up(self, indices: Tensor) -> Tensor:
        """Return the codes (..., k) at indices."""


class Deterministic(Latent):
    """Latent whose code is the output of the encoder."""

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        return Code(h, h, h)


class Standardized(Deterministic):
    """Deterministic codes that are trained to follow the standard normal distribution.

    Parameters
    ----------
    n_components : int
    penalty_weight : float
        Weight of the penalty for deviations from that distribution.
    """

    prior = StandardNormalPrior

    def __init__(self, n_components: int, penalty_weight: float) -> None:
        super().__init__(n_components)
        self.penalty_weight = penalty_weight

    def start(self, values: Tensor, rest: float) -> Start:
        deviation = values.sqrt()
        return Start(1 / deviation, deviation, values.new_zeros(self.n_inputs))
