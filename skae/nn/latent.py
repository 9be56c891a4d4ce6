"""Latents, which compute codes and their penalty. Each variant has its own latent."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.prior import NormalPrior, Prior, StandardNormalPrior


class Code(NamedTuple):
    """Codes of a batch of rows.

    Attributes
    ----------
    z : Tensor of shape (..., n, n_outputs)
        Codes that the decoder receives when losses are computed, which may be several for each row.
    mean : Tensor of shape (n, n_outputs)
        Codes that `transform` returns.
    h : Tensor of shape (n, n_inputs)
        Raw output of the encoder, from which `z` and `mean` are computed.
    conditions : Tensor of shape (n, n_conditions) or None
        Encoded conditions of the rows. `Network.losses` sets it if there are conditions.
    """

    z: Tensor
    mean: Tensor
    h: Tensor
    conditions: Tensor | None = None


Encode = Callable[[Tensor], Tensor]
"""Encoder, a function from standardized rows to raw outputs, for penalties on its derivatives."""


class Start(NamedTuple):
    """Initial scales of the linear maps of the encoder and of the decoder, and the encoder's bias.

    The linear maps are initialized with principal axes of the training rows. Their number, n_axes,
    is at most `n_components`. Without linear maps, only `bias` is used.

    Attributes
    ----------
    down : Tensor of shape (n_axes,)
        Factors by which the axes are multiplied in the encoder.
    up : Tensor of shape (n_axes,)
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
    `n_outputs` raw outputs.

    Parameters
    ----------
    n_components : int
        Number of components of the code.
    n_inputs : int or None, default=None
        Number of raw outputs of the encoder for each row. None is `n_components`.
    n_outputs : int or None, default=None
        Length of the vector that the decoder receives as the code and that `transform` returns.
        None is `n_components`.
    """

    prior: type[Prior] = NormalPrior
    """Class of the distribution of codes, for the density `Laplace`. Other densities ignore it."""

    learns_noise = False
    """Whether an unknown noise variance is trained with the network. With deterministic codes, it
    would shrink to 0."""

    is_linear = True
    """Whether the encoder and the decoder may have a linear skip, which is initialized at PCA."""

    can_tie = True
    """Whether the first `n_outputs` raw outputs are the code or its mean, so that the decoder may
    use the transposed weights of the encoder."""

    ranks_epochs = True
    """Whether the objective may decide which weights are kept: those of the best epoch on
    validation rows, or the initial ones if training does not improve it."""

    restricts_codes = True
    """Whether a penalty, noise or a form of the codes prevents that codes with more components than
    rows have columns copy the rows."""

    has_free_axes = False
    """Whether any rotation and any unit of the codes is as good as any other, so that `fit` may
    order the components by their importance."""

    def __init__(
        self, n_components: int, n_inputs: int | None = None, n_outputs: int | None = None
    ) -> None:
        super().__init__()
        self.n_components = n_components
        self.n_inputs = n_components if n_inputs is None else n_inputs
        self.n_outputs = n_components if n_outputs is None else n_outputs

    @abstractmethod
    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        """Compute codes from raw outputs. Without `draws`, the codes are deterministic."""

    def smooth(self, code: Code) -> Tensor:
        """Return the codes (n, n_outputs) that `transform` returns, or a smooth substitute.

        Derivatives of codes with respect to rows are those of the result.
        """
        return code.mean

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        """Compute the penalty of the codes of a batch.

        Parameters
        ----------
        code : Code
            Codes of the rows.
        x : Tensor of shape (n, n_features)
            Input of the encoder: the standardized modelled columns, to which a linear map of the
            conditions may have been added.
        encode : callable
            The encoder, for penalties on its derivatives.
        weight : Tensor of shape (n,)
            Weights of the rows.
        draws : Draws or None
            Source of random numbers. None if there is none, as in `forward`.

        Returns
        -------
        penalty : Tensor of shape (..., n), or float or Tensor of shape ()
            Penalty in nats, for each code in `code.z` or as one number that is added to the loss of
            each row.
        """
        return 0.0

    def bound(self, losses: Tensor, code: Code, draws: Draws | None, batch: Batch) -> Tensor:
        """Combine the losses (..., n) of several codes per row into one loss per row, (n,)."""
        return losses

    def blocks(self) -> list[int]:
        """Return the lengths of the parts of `h`. A longer code extends each part at its end."""
        return [self.n_inputs]

    def start(self, values: Tensor, rest: float) -> Start:
        """Return the initial scales of the linear maps, and the initial bias of the encoder.

        `values` (n_axes,) are the variances of standardized rows along principal axes, and `rest`
        is the mean variance along the other axes. With factor analysis, they are relative to the
        noise variances.
        """
        one = torch.ones_like(values)
        return Start(one, one, values.new_zeros(self.n_inputs))

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        """Initialize the latent's own parameters before training, from outputs of the encoder.

        `h` (n, n_inputs) are the raw outputs for a sample of the rows, `weight` (n,) are the
        weights of these rows, and `generator` is the source of random numbers. A latent without
        parameters of its own does nothing.
        """
        return

    def adapt(self, encode: Callable[[], Tensor], weight: Tensor, draws: Draws) -> None:
        """Update parameters that have no gradient, after each step.

        `encode` returns the raw outputs (n, n_inputs) for the rows of the step, and `weight` (n,)
        are their weights.
        """
        return

    def inference_draws(self, x: Tensor) -> Draws | None:
        """Return the source of random numbers for `transform`, or None for deterministic codes."""
        return None

    def warning(self, code: Code, weight: Tensor) -> str | None:
        """Return a warning about the codes of training rows, or None.

        The warning names the parameter that the user should change. `weight` (n,) are the weights
        of the rows.
        """
        return None


def log_normal(z: Tensor) -> Tensor:
    """Compute the log-density of codes (..., k) under the standard normal distribution."""
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


class Stochastic(Latent):
    """Base of latents whose codes are drawn from a posterior that the encoder parametrizes.

    The prior is the standard normal distribution unless a subclass overrides it.
    """

    learns_noise = True

    has_normal_posterior: ClassVar[bool] = True
    """Whether `posterior` returns a `Normal`, and the prior of codes is standard normal."""

    def blocks(self) -> list[int]:
        # Means, logarithms of the diagonals of Cholesky factors and, for full covariances, the
        # entries of the factors below their diagonals.
        return [self.n_components] * 2 + [self.n_inputs - 2 * self.n_components]

    def log_prior(self, z: Tensor) -> Tensor:
        """Compute the log-density of codes (..., k) under the prior."""
        return log_normal(z)

    def draw_prior(self, n: int, draws: Draws) -> Tensor:
        """Draw codes (n, k) from the prior."""
        return draws.normal((n, self.n_components))

    @abstractmethod
    def posterior(self, h: Tensor) -> Any:
        """Compute the posterior of each row."""

    @abstractmethod
    def propose(self, h: Tensor, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draw `n` codes from each posterior, and return them with their log-densities.

        The codes have shape (n, n_rows, n_outputs), and the log-densities have shape (n, n_rows).
        """

    @abstractmethod
    def divergence(self, h: Tensor) -> Tensor:
        """Compute the Kullback-Leibler divergence of each posterior from the prior, in nats."""


class Discrete(Latent):
    """Base of latents with finitely many codes: one vector from each of several codebooks.

    Parameters
    ----------
    n_components : int
        Number of components of the code.
    sizes : tuple of (int, int)
        Number of codebooks, and number of vectors in each of them.
    """

    def __init__(self, n_components: int, sizes: tuple[int, int]) -> None:
        super().__init__(n_components)
        self.n_codebooks, self.n_codes = sizes

    def smooth(self, code: Code) -> Tensor:
        # The selected vectors are a step function of the raw output of the encoder.
        return code.h

    @abstractmethod
    def indices(self, h: Tensor) -> Tensor:
        """Return the index of the selected vector in each codebook, (..., n_codebooks)."""

    @abstractmethod
    def look_up(self, indices: Tensor) -> Tensor:
        """Return the codes (..., n_components) that consist of the vectors at these indices."""


class Deterministic(Latent):
    """Latent whose code is the output of the encoder."""

    restricts_codes = False
    has_free_axes = True

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        return Code(h, h, h)


class Standardized(Deterministic):
    """Base of deterministic codes that are trained to follow the standard normal distribution.

    Parameters
    ----------
    n_components : int
        Number of components of the code.
    penalty_weight : float
        Weight of the penalty for deviations from that distribution. Subclasses define the
        penalty.
    """

    prior = StandardNormalPrior
    restricts_codes = True
    has_free_axes = False

    def __init__(self, n_components: int, penalty_weight: float) -> None:
        super().__init__(n_components)
        self.penalty_weight = penalty_weight

    def start(self, values: Tensor, rest: float) -> Start:
        deviation = values.sqrt()
        return Start(1 / deviation, deviation, values.new_zeros(self.n_inputs))
