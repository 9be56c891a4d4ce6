"""Latents: how a code is drawn and what it costs. A variant of the autoencoder is its latent."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from skae.nn.draws import Draws


class Code(NamedTuple):
    """What the encoder says about rows.

    `z` goes to the decoder while training; `mean` is what `transform` returns. Both (..., n, k).
    """

    z: Tensor
    mean: Tensor


Encode = Callable[[Tensor], Tensor]
"""Rows on the network's scale -> the encoder's raw output, for penalties on its derivatives."""


class Latent(nn.Module, ABC):
    """Turns the encoder's raw output `h` (..., n, n_inputs) into codes and states their price."""

    def __init__(self, n_components: int) -> None:
        super().__init__()
        self.n_components = n_components
        self.n_inputs = n_components

    @abstractmethod
    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        """Codes for raw outputs. `draws` is None outside training: then nothing is random."""

    @abstractmethod
    def penalty(self, code: Code, x: Tensor, encode: Encode) -> Tensor | float:
        """Price of each row's code, in nats, shape (..., n) or a constant."""


class Deterministic(Latent):
    """The code is the encoder's output and costs nothing."""

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        return Code(h, h)

    def penalty(self, code: Code, x: Tensor, encode: Encode) -> Tensor | float:
        return 0.0
