"""Encoders and decoders: a linear map plus a residual network, whose kind is the architecture."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skae.nn.bodies.layers import Dense, Residual
from skae.nn.draws import Draws


class Architecture(ABC):
    """Makes the residual networks of encoders and decoders.

    Parameters
    ----------
    n_features : int
        Cells of a row.
    """

    takes_missing = False
    """Whether cells of rows may be missing, NaN."""

    has_layers = False
    """Whether the residual networks are chains, whose layers can be trained one by one."""

    can_tie = False
    """Whether decoders can have an encoder's weights."""

    is_linear = False
    """Whether the residual networks are linear maps: a linear skip makes them superfluous."""

    likes_skip = True
    """Whether a linear map beside the residual networks helps them."""

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features

    @abstractmethod
    def encoder(self, n_out: int) -> Residual:
        """A network from rows (..., n_features) to (..., n_out)."""

    @abstractmethod
    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        """A network from (..., n_in) to rows (..., n_features), of an encoder's weights or not."""


class Body(nn.Module):
    """An encoder or a decoder: a linear map plus a residual network, either of which may be absent.

    With the linear map, the residual starts at zero, so that training starts from the linear
    solution.

    Parameters
    ----------
    skip : Dense or None
    residual : Residual or None
    has_missing : bool
        Whether cells of rows may be missing: to the linear map they are as their column's mean.
    """

    def __init__(
        self, skip: Dense | None, residual: Residual | None, has_missing: bool = False
    ) -> None:
        super().__init__()
        self.skip = skip
        self.residual = residual
        self.has_missing = has_missing

    @property
    def n_hidden(self) -> int:
        """Hidden cells that a row has at once."""
        return Residual.n_hidden if self.residual is None else self.residual.n_hidden

    @property
    def out_bias(self) -> Tensor:
        """The bias of the output."""
        if self.skip is not None:
            return self.skip.bias
        assert self.residual is not None
        return self.residual.out_bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        parts = []
        if self.residual is not None:
            parts.append(self.residual(x, draws))
        if self.skip is not None:
            parts.append(self.skip(x.nan_to_num() if self.has_missing else x))
        return sum(parts[1:], parts[0])

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the residual's weights; the linear map's are the caller's to set."""
        if self.residual is not None:
            self.residual.reset(generator, self.skip is not None)
        self.zero_residual()
        if self.skip is not None:
            self.skip.bias.zero_()

    def zero_residual(self) -> None:
        """With a linear map beside it, make the residual's output zero but trainable."""
        if self.skip is not None and self.residual is not None:
            self.residual.start_at_zero()


def make_bodies(
    architecture: Architecture, n_inputs: int, n_outputs: int, linear_skip: bool, tied_weights: bool
) -> tuple[Body, Body]:
    """Encoder and decoder of an architecture, for codes made of `n_inputs` numbers."""
    d = architecture.n_features
    down = up = encoder = decoder = None
    if linear_skip:
        down = Dense(d, n_inputs)
        up = Dense(n_outputs, d, down if tied_weights else None)
    if not (linear_skip and architecture.is_linear):
        encoder = architecture.encoder(n_inputs)
        decoder = architecture.decoder(n_outputs, encoder if tied_weights else None)
    return Body(down, encoder, architecture.takes_missing), Body(up, decoder)
