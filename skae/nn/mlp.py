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


class Dense(nn.Module):
    """An affine layer; `tied_to` another one, it multiplies with that one's weights transposed."""

    def __init__(self, n_in: int, n_out: int, tied_to: "Dense | None" = None) -> None:
        super().__init__()
        self.n_in = n_in
        self.transposed = tied_to is not None
        self.weight = tied_to.weight if tied_to else nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out))

    @torch.no_grad()
    def reset(self, generator: torch.Generator, gain: float = 1.0) -> None:
        """Draw weights with variance gain^2 / n_inputs; biases are zero."""
        if not self.transposed:
            noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float64)
            self.weight.copy_(noise * (gain / math.sqrt(self.n_in)))
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.mT if self.transposed else self.weight, self.bias)


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

    def __init__(
        self, sizes: Sequence[int], activation: str, dropout: float, tied_to: "MLP | None" = None
    ) -> None:
        super().__init__()
        mirror = reversed(tied_to.layers) if tied_to else [None] * (len(sizes) - 1)
        self.layers: list[Dense] | nn.ModuleList = nn.ModuleList(
            Dense(n_in, n_out, tied)  # type: ignore[arg-type]
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
        result: Tensor = last(x)
        return result

    def reset(self, generator: torch.Generator) -> None:
        """Draw all weights; hidden layers keep the variance of what passes an activation."""
        for layer in self.layers:
            layer.reset(generator)


class Body(nn.Module):
    """An encoder or a decoder: a linear map plus a residual network, either of which may be absent.

    With the linear map, the residual's last layer starts at zero, so that training starts from
    the linear solution.
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
        layer = self.skip if self.skip is not None else self.residual.layers[-1]  # type: ignore[union-attr]
        bias: Tensor = layer.bias
        return bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        if self.residual is None:
            return self.skip(x)  # type: ignore[misc, no-any-return]
        y = self.residual(x, draws)
        return y if self.skip is None else y + self.skip(x)

    @torch.no_grad()
    def zero_residual(self) -> None:
        """With a linear map beside it, make the residual's output zero but trainable."""
        if self.skip is None or self.residual is None:
            return
        first, last = self.residual.layers[0], self.residual.layers[-1]
        if not last.transposed:
            last.weight.zero_()
        last.bias.zero_()
        # The mirror image of a tied encoder is constant here, but not zero for every activation.
        last.bias.sub_(self.residual(last.bias.new_zeros(first.n_in)))
