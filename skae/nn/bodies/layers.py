"""Affine layers, and chains of them with activations in between."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skae.nn.bodies.linearization import Linearization, Term, forward_mode
from skae.nn.draws import Draws

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
}

SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": lambda x, y: torch.addcmul(y, x.sigmoid(), 1 - y),
    "gelu": lambda x, y: (
        torch.special.ndtr(x) + x * (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)
    ),
    "relu": lambda x, y: (x > 0).to(x.dtype),
    "elu": lambda x, y: torch.where(x > 0, 1.0, 1 + y),
    "tanh": lambda x, y: 1 - y.square(),
    "logistic": lambda x, y: y * (1 - y),
}
"""Derivatives of the activations, as functions of their inputs and outputs."""

GAINS = {"logistic": 4.0}
"""Factors on initial weights, for activations with a small slope at 0. The slope of "logistic" is
1/4."""

SATURATING = ("tanh", "logistic")
"""Activations whose units start with random biases.

A unit with one of them distinguishes rows only where it does not saturate. Without biases, the
units would all be steepest at the mean of the rows, and odd functions of their distances from it.
"""


class Layer(nn.Module, ABC):
    """Base of affine layers.

    Parameters
    ----------
    n_in : int
        Length of the input.
    n_units : int
        Number of weighted sums.
    shape : tuple of int
        Shape of the weights of one sum.
    n_biases : int or None
        Number of biases. None is `n_units`.
    tied_to : Layer or None
        Layer whose transposed weights this layer uses. None gives the layer its own weights.
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
        """Draw weights with standard deviation gain / sqrt(n_inputs), and set biases to zero.

        n_inputs is the number of inputs of a weighted sum. If another layer uses the transposed
        weights, it is the geometric mean of the numbers for both layers. A layer that uses the
        weights of another layer draws none.
        """
        if not self.transposed:
            n_inputs: float = math.prod(self.weight.shape[1:])
            if self.mirrored:
                n_inputs = math.sqrt(n_inputs * len(self.weight))
            noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float64)
            self.weight.copy_(gain * noise / math.sqrt(n_inputs))
        self.bias.zero_()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute the output."""

    @abstractmethod
    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        """Compute outputs for rows `x` (n, n_in), and their derivatives along directions.

        `directions` has the shape (m, n, n_in), or (m, 1, n_in) if the directions are the same for
        all rows.
        """


class Dense(Layer):
    """Dense layer.

    If the layer is tied to another one with more outputs than it has inputs, it uses the weights of
    the first of these outputs.
    """

    def __init__(self, n_in: int, n_out: int, tied_to: Layer | None = None) -> None:
        super().__init__(n_in, n_out, (n_in,), tied_to=tied_to)

    @property
    def matrix(self) -> Tensor:
        """Matrix (n_out, n_in) by which inputs are multiplied."""
        return self.weight[: self.n_in].mT if self.transposed else self.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix, self.bias)

    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        return Linearization(self(x), [Term(directions, self.matrix)])

    def input_parameters(self) -> list[Tensor] | None:
        """Return the parameters whose last axis is that of the input, or None if they are tied."""
        return None if self.transposed or self.mirrored else [self.weight]

    def output_parameters(self) -> list[Tensor] | None:
        """Return the parameters whose first axis is that of the output, or None if tied."""
        return None if self.transposed or self.mirrored else [self.weight, self.bias]


class Residual(nn.Module, ABC):
    """Base of residual networks, the nonlinear parts of encoders and decoders.

    They map rows (..., n_in) to rows (..., n_out).
    """

    is_linear = False
    """Whether the network is an affine map."""

    n_hidden = 256
    """Largest number of hidden units per row that are in memory at once."""

    @property
    @abstractmethod
    def out_bias(self) -> Tensor:
        """Bias of the output, (n_out,)."""

    @abstractmethod
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Compute the output. Dropout applies only if there are `draws`."""

    def hidden(self, x: Tensor) -> list[Tensor]:
        """Compute the activations (n, n_units) of each hidden layer for rows `x` (n, n_in).

        The list is empty if there are no hidden layers or if they are not known.
        """
        return []

    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        """Compute outputs for rows `x` (n, n_in), and their derivatives along directions.

        `directions` has the shape (m, n_in). Networks whose derivatives have a closed form override
        this method.
        """
        return forward_mode(self, x, directions)

    @abstractmethod
    def reset(self, generator: torch.Generator, silent: bool) -> None:
        """Draw the weights. `silent` announces that a call of `start_at_zero` follows."""

    @abstractmethod
    def start_at_zero(self) -> None:
        """Set the output to zero such that it can still be trained."""

    def ends(self) -> tuple["Dense", "Dense"] | None:
        """Return the layers that receive the input and return the output, or None.

        It is None if one of them is not dense.
        """
        return None

    def input_parameters(self) -> list[Tensor] | None:
        """Return the parameters whose last axis is that of the input.

        It is None if the input is used in other ways, too, or if other parts use the parameters.
        """
        return None

    def output_parameters(self) -> list[Tensor] | None:
        """Return the parameters whose first axis is that of the output, in the same way."""
        return None


def apply_dropout(x: Tensor, draws: Draws | None, share: float) -> Tensor:
    """Set units to zero with probability `share`, and divide the others by 1 - share.

    Without `draws`, nothing is changed.
    """
    if draws is None or share == 0:
        return x
    return x * (draws.uniform(x.shape) >= share) / (1 - share)


class Chain(Residual):
    """Chain of layers with an activation, and optionally dropout, between them.

    Parameters
    ----------
    layers : sequence of Layer
        Layers in the order from input to output.
    activation : str
        Activation function of the hidden layers, a key of `ACTIVATIONS`.
    dropout : float
        Share of hidden units that are set to zero during training.
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

    def ends(self) -> tuple[Dense, Dense] | None:
        first, last = self.layers[0], self.layers[-1]
        if isinstance(first, Dense) and isinstance(last, Dense):
            return first, last
        return None

    @property
    def is_linear(self) -> bool:  # type: ignore[override]
        return len(self.layers) == 1

    def input_parameters(self) -> list[Tensor] | None:
        first = self.layers[0]
        return first.input_parameters() if isinstance(first, Dense) else None

    def output_parameters(self) -> list[Tensor] | None:
        last = self.layers[-1]
        return last.output_parameters() if isinstance(last, Dense) else None

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = apply_dropout(ACTIVATIONS[self.activation](layer(x)), draws, self.dropout)
        y: Tensor = last(x)
        return y

    def hidden(self, x: Tensor) -> list[Tensor]:
        activations = []
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
            activations.append(x)
        return activations

    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        *hidden, last = self.layers
        directions = directions[:, None]
        for layer in hidden:
            linear = layer.linearize(x, directions)
            x = ACTIVATIONS[self.activation](linear.out)
            directions = linear.derivatives() * SLOPES[self.activation](linear.out, x)
        return last.linearize(x, directions)

    @torch.no_grad()
    def reset(self, generator: torch.Generator, silent: bool = False) -> None:
        gain = GAINS.get(self.activation, 1.0)
        for layer in self.layers:
            layer.reset(generator, gain)
        if self.activation in SATURATING:
            for layer in self.layers[:-1]:
                noise = torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64)
                layer.bias.copy_(gain * noise)
        if silent and self.layers[-1].mirrored:
            # The weights of the first layer are set to zero, not those of the last one. The first
            # layer of the decoder uses the latter, too, and there would be no gradient.
            self.layers[0].weight.zero_()

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Set the output to zero such that it can still be trained.

        Without tied weights, the weights and the bias of the last layer are set to zero. With tied
        weights, only its bias is changed, because the other chain uses its weights, too. The output
        is then zero for an input of zeros. It is zero for all inputs if the weights of the layer
        next to the rows are zero, as after `reset` with `silent`.
        """
        first, last = self.layers[0], self.layers[-1]
        if not (last.transposed or last.mirrored):
            last.weight.zero_()
        last.bias.zero_()
        # Tied chains are constant at initialization. With some activations, the constant is not 0.
        last.bias.sub_(self(last.bias.new_zeros(first.n_in)))


def dense_chain(
    sizes: Sequence[int], activation: str, dropout: float = 0.0, tied_to: Chain | None = None
) -> Chain:
    """Create a multilayer perceptron. `sizes` are the widths of its layers from input to output.

    If `tied_to` is given, the layers use its transposed weights in reverse order.
    """
    mirror = reversed(tied_to.layers) if tied_to else [None] * (len(sizes) - 1)
    pairs = zip(sizes[:-1], sizes[1:], mirror, strict=True)
    return Chain([Dense(*pair) for pair in pairs], activation, dropout)
