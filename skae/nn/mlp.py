"""Multilayer perceptrons for tables: the encoder's and the decoder's bodies."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skae.nn.draws import Draws

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
}

GAINS = {"logistic": 4.0}
"""What start weights are multiplied with where an activation is flat: its slope at 0 is 1/4."""


class Dense(nn.Module):
    """An affine layer; `tied_to` another one, it multiplies with that one's weights transposed.

    Of a layer with more outputs than the mirror image has inputs, it mirrors the first.
    """

    weight: nn.Parameter

    def __init__(self, n_in: int, n_out: int, tied_to: "Dense | None" = None) -> None:
        super().__init__()
        self.n_in = n_in
        self.transposed, self.mirrored = tied_to is not None, False
        if tied_to is not None:
            tied_to.mirrored = True
        self.weight = tied_to.weight if tied_to else nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out))

    @torch.no_grad()
    def reset(self, generator: torch.Generator, gain: float) -> None:
        """Draw weights with standard deviation gain / sqrt(n_inputs); biases are zero.

        Weights that are used in both directions have two numbers of inputs: their geometric mean.
        """
        if not self.transposed:
            n_inputs = math.sqrt(self.weight.numel()) if self.mirrored else self.n_in
            noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float64)
            self.weight.copy_(gain * noise / math.sqrt(n_inputs))
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight[: self.n_in].mT if self.transposed else self.weight
        return F.linear(x, weight, self.bias)


class MLP(nn.Module):
    """Affine layers with an activation, and optionally dropout, between them.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output: n + 1 widths make n layers.
    activation : str
    dropout : float
        Share of hidden units silenced while training.
    tied_to : MLP or None
        The mirror image whose transposed weights are used.
    """

    layers: Sequence[Dense]

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        dropout: float,
        tied_to: "MLP | None" = None,
    ) -> None:
        super().__init__()
        mirror = reversed(tied_to.layers) if tied_to else [None] * (len(sizes) - 1)
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            Dense(n_in, n_out, tied)
            for n_in, n_out, tied in zip(sizes[:-1], sizes[1:], mirror, strict=True)
        )
        self.activation = activation
        self.dropout = dropout

    def hidden(self, layer: nn.Module, x: Tensor, draws: Draws | None) -> Tensor:
        """A layer with its activation and dropout."""
        x = ACTIVATIONS[self.activation](layer(x))
        if draws is not None and self.dropout > 0:
            x = x * (draws.uniform(x.shape) >= self.dropout) / (1 - self.dropout)
        return x

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.hidden(layer, x, draws)
        y: Tensor = last(x)
        return y

    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights of all layers."""
        for layer in self.layers:
            layer.reset(generator, GAINS.get(self.activation, 1.0))


class Body(nn.Module):
    """An encoder or a decoder: a linear map plus a residual network, either of which may be absent.

    With the linear map, the residual starts at zero, so that training starts from the linear
    solution.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        dropout: float,
        linear_skip: bool,
        tied_to: "Body | None" = None,
    ) -> None:
        super().__init__()
        self.skip: Dense | None = None
        self.residual: MLP | None = None
        if linear_skip:
            self.skip = Dense(sizes[0], sizes[-1], tied_to.skip if tied_to else None)
        if len(sizes) > 2 or not linear_skip:
            mirror = tied_to.residual if tied_to else None
            self.residual = MLP(sizes, activation, dropout, mirror)

    @property
    def out_bias(self) -> Tensor:
        """The bias of the output."""
        if self.residual is None or self.skip is not None:
            assert self.skip is not None
            return self.skip.bias
        return self.residual.layers[-1].bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        parts = []
        if self.residual is not None:
            parts.append(self.residual(x, draws))
        if self.skip is not None:
            parts.append(self.skip(x))
        return sum(parts[1:], parts[0])

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the residual's weights; the linear map's are the caller's to set."""
        if self.residual is not None:
            self.residual.reset(generator)
            if self.skip is not None and self.residual.layers[-1].mirrored:
                # A last layer of zeros would be the mirror image's first: no gradient leaves that.
                self.residual.layers[0].weight.zero_()
        self.zero_residual()
        if self.skip is not None:
            self.skip.bias.zero_()

    @torch.no_grad()
    def zero_residual(self) -> None:
        """With a linear map beside it, make the residual's output zero but trainable.

        Of tied bodies only at a row of zeros, unless their outermost layer is zero.
        """
        if self.skip is None or self.residual is None:
            return
        first, last = self.residual.layers[0], self.residual.layers[-1]
        if not (last.transposed or last.mirrored):
            last.weight.zero_()
        last.bias.zero_()
        # Tied bodies are constant at their start, but not zero for every activation.
        last.bias.sub_(self.residual(last.bias.new_zeros(first.n_in)))
