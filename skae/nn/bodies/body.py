"""Encoders and decoders: a linear map plus a residual network of some architecture."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skae.nn.bodies.layers import Dense, Residual
from skae.nn.bodies.linearization import Linearization
from skae.nn.draws import Draws


class Architecture(ABC):
    """Base of architectures, which create the residual networks of encoders and decoders.

    Parameters
    ----------
    n_inputs : int
        Length of the input of the encoder.
    n_outputs : int
        Length of the output of the decoder.
    """

    takes_missing = False
    """Whether rows may contain NaN."""

    has_layers = False
    """Whether the residual networks are chains of layers, which can be trained one by one."""

    can_tie = False
    """Whether decoders can use the weights of the encoder."""

    is_linear = False
    """Whether the residual networks are linear, so that a linear skip replaces them."""

    likes_skip = True
    """Whether there is a linear skip if `linear_skip="auto"`."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        self.n_inputs, self.n_outputs = n_inputs, n_outputs

    @abstractmethod
    def encoder(self, n_out: int) -> Residual:
        """Create a network that maps rows (..., n_inputs) to raw outputs (..., n_out)."""

    @abstractmethod
    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        """Create a network that maps codes (..., n_in) to outputs (..., n_outputs).

        `tied_to` is the residual network of the encoder, whose weights it uses, or None.
        """


class Body(nn.Module):
    """An encoder or a decoder: the sum of a linear map and a residual network.

    One of the two may be None. With a linear map, the output of the residual network is
    initialized to zero, so that training starts at the linear solution.

    Parameters
    ----------
    skip : Dense or None
        The linear map.
    residual : Residual or None
        The residual network.
    has_missing : bool
        Whether the inputs, which are then standardized rows, may contain NaN. The linear map
        replaces NaN with 0, the mean of the standardized column.
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
        """Largest number of hidden units per row that are in memory at once."""
        return Residual.n_hidden if self.residual is None else self.residual.n_hidden

    def ends(self) -> list[tuple[Dense, Dense]] | None:
        """Return the first and the last layer of the linear map and of the residual network.

        None if one of these layers is not dense or has tied weights.
        """
        ends = [] if self.skip is None else [(self.skip, self.skip)]
        if self.residual is not None:
            own = self.residual.ends()
            if own is None:
                return None
            ends.append(own)
        is_tied = any(layer.transposed or layer.mirrored for pair in ends for layer in pair)
        return None if is_tied else ends

    @property
    def is_linear(self) -> bool:
        """Whether the sum is an affine map."""
        return self.residual is None or self.residual.is_linear

    def input_parameters(self) -> list[Tensor] | None:
        """Return the parameters whose last axis is that of the input.

        It is None if the input is used in other ways, too, or if the weights are tied.
        """
        return _joined([part.input_parameters() for part in self._parts()])

    def output_parameters(self) -> list[Tensor] | None:
        """Return the parameters whose first axis is that of the output, in the same way."""
        return _joined([part.output_parameters() for part in self._parts()])

    def _parts(self) -> list[Dense | Residual]:
        return [part for part in (self.skip, self.residual) if part is not None]

    @property
    def out_bias(self) -> Tensor:
        """Bias of the output: that of the linear map if there is one."""
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

    def hidden(self, x: Tensor) -> list[Tensor]:
        """Compute the activations (n, n_units) of the hidden layers of the residual network."""
        return [] if self.residual is None else self.residual.hidden(x)

    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        """Compute outputs for rows `x` (n, n_in), and their derivatives along `directions`.

        `directions` has the shape (m, n_in). The rows must not contain NaN.
        """
        parts = []
        if self.residual is not None:
            parts.append(self.residual.linearize(x, directions))
        if self.skip is not None:
            parts.append(self.skip.linearize(x, directions[:, None]))
        out = sum((part.out for part in parts[1:]), parts[0].out)
        return Linearization(out, [term for part in parts for term in part.terms])

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights of the residual network; the caller sets those of the linear map."""
        if self.residual is not None:
            self.residual.reset(generator, self.skip is not None)
        self.zero_residual()
        if self.skip is not None:
            self.skip.bias.zero_()

    def zero_residual(self) -> None:
        """Set the output of the residual network to zero if there is a linear map."""
        if self.skip is not None and self.residual is not None:
            self.residual.start_at_zero()


def _joined(parts: list[list[Tensor] | None]) -> list[Tensor] | None:
    """Concatenate lists, or return None if one of them is None."""
    known = [part for part in parts if part is not None]
    return [p for part in known for p in part] if len(known) == len(parts) else None


def make_bodies(
    architecture: Architecture, n_inputs: int, n_outputs: int, linear_skip: bool, tied_weights: bool
) -> tuple[Body, Body]:
    """Create the encoder, with `n_inputs` raw outputs, and the decoder, with `n_outputs` inputs."""
    down = up = encoder = decoder = None
    if linear_skip:
        down = Dense(architecture.n_inputs, n_inputs)
        up = Dense(n_outputs, architecture.n_outputs, down if tied_weights else None)
    if not (linear_skip and architecture.is_linear):
        encoder = architecture.encoder(n_inputs)
        decoder = architecture.decoder(n_outputs, encoder if tied_weights else None)
    return Body(down, encoder, architecture.takes_missing), Body(up, decoder)
