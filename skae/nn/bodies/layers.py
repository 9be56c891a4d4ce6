"""Affine layers, and chains of them with a nonlinearity between: what bodies are made of."""

import math
from abc import ABC, abstractmethod
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


class Layer(nn.Module, ABC):
    """An affine map of rows.

    Parameters
    ----------
    n_in : int
        Length of the rows that come in.
    n_units : int
        Weighted sums that the layer makes, each with a bias.
    shape : tuple of int
        The weights of one sum.
    n_biases : int or None
        Biases, where there are not as many as sums.
    tied_to : Layer or None
        The layer whose transposed weights are used.
    """

    weight: nn.Parameter

    def __init__(
        self,
        n_in: int,
        n_units: int,
        shape: Sequence[int],
        n_biases: int | None = None,
        tied_to: "Layer | None" = None,
    ) -> None:
        super().__init__()
        self.n_in = n_in
        self.transposed, self.mirrored = tied_to is not None, False
        if tied_to is not None:
            tied_to.mirrored = True
        self.weight = tied_to.weight if tied_to else nn.Parameter(torch.empty(n_units, *shape))
        self.bias = nn.Parameter(torch.empty(n_units if n_biases is None else n_biases))

    @torch.no_grad()
    def reset(self, generator: torch.Generator, gain: float) -> None:
        """Draw weights with standard deviation gain / sqrt(n_inputs); biases are zero.

        Weights that are used in both directions have two numbers of inputs: their geometric mean.
        """
        if not self.transposed:
            n_inputs: float = math.prod(self.weight.shape[1:])
            if self.mirrored:
                n_inputs = math.sqrt(n_inputs * len(self.weight))
            noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float64)
            self.weight.copy_(gain * noise / math.sqrt(n_inputs))
        self.bias.zero_()


class Dense(Layer):
    """A layer whose outputs see all inputs.

    Of a layer with more outputs than the mirror image has inputs, it mirrors the first.
    """

    def __init__(self, n_in: int, n_out: int, tied_to: Layer | None = None) -> None:
        super().__init__(n_in, n_out, (n_in,), tied_to=tied_to)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight[: self.n_in].mT if self.transposed else self.weight
        return F.linear(x, weight, self.bias)


class Residual(nn.Module, ABC):
    """The nonlinear part of an encoder or a decoder: rows (..., n_in) to rows (..., n_out)."""

    n_hidden = 256
    """Hidden cells that a row has at once: memory is planned by them."""

    @property
    @abstractmethod
    def out_bias(self) -> Tensor:
        """What is added to the output last, (n_out,)."""

    @abstractmethod
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """The output; with `draws`, hidden units are silenced."""

    @abstractmethod
    def reset(self, generator: torch.Generator, silent: bool) -> None:
        """Draw the weights; `silent` ones are to `start_at_zero`."""

    @abstractmethod
    def start_at_zero(self) -> None:
        """Make the output zero but trainable."""


def silenced(x: Tensor, draws: Draws | None, share: float) -> Tensor:
    """Hidden units, a share of which is silent and the others the louder; all, without `draws`."""
    if draws is None or share == 0:
        return x
    return x * (draws.uniform(x.shape) >= share) / (1 - share)


class Chain(Residual):
    """Layers with an activation, and optionally dropout, between them.

    Parameters
    ----------
    layers : sequence of Layer
    activation : str
    dropout : float
        Share of hidden units silenced while training.
    """

    layers: Sequence[Layer]

    def __init__(self, layers: Sequence[Layer], activation: str, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        self.n_hidden = max(self.n_hidden, *(layer.n_in for layer in layers))
        self.activation = activation
        self.dropout = dropout

    @property
    def out_bias(self) -> Tensor:
        return self.layers[-1].bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = silenced(ACTIVATIONS[self.activation](layer(x)), draws, self.dropout)
        y: Tensor = last(x)
        return y

    @torch.no_grad()
    def reset(self, generator: torch.Generator, silent: bool = False) -> None:
        for layer in self.layers:
            layer.reset(generator, GAINS.get(self.activation, 1.0))
        if silent and self.layers[-1].mirrored:
            # A last layer of zeros would be the mirror image's first: no gradient leaves that.
            self.layers[0].weight.zero_()

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Make the output zero but trainable.

        Of tied chains only at a row of zeros, unless their outermost layer is zero.
        """
        first, last = self.layers[0], self.layers[-1]
        if not (last.transposed or last.mirrored):
            last.weight.zero_()
        last.bias.zero_()
        # Tied chains are constant at their start, but not zero for every activation.
        last.bias.sub_(self(last.bias.new_zeros(first.n_in)))


def dense_chain(
    sizes: Sequence[int], activation: str, dropout: float = 0.0, tied_to: Chain | None = None
) -> Chain:
    """A multilayer perceptron: n + 1 widths, from input to output, make n layers."""
    mirror = reversed(tied_to.layers) if tied_to else [None] * (len(sizes) - 1)
    pairs = zip(sizes[:-1], sizes[1:], mirror, strict=True)
    return Chain([Dense(*pair) for pair in pairs], activation, dropout)
