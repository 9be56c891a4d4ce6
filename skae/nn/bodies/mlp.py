"""Multilayer perceptrons for tables."""

from collections.abc import Sequence
from typing import cast

from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Chain, Residual, dense_chain


class MLP(Architecture):
    """Multilayer perceptrons. The decoder has the widths of the encoder in reverse order.

    Parameters
    ----------
    n_features : int
        Number of cells of a row.
    widths : sequence of int
        Numbers of hidden units of the encoder's layers.
    activation : str
        Activation function of the hidden layers, a key of `ACTIVATIONS`.
    dropout : float
        Share of hidden units that are set to zero during training.
    """

    has_layers = True
    can_tie = True

    def __init__(
        self, n_features: int, widths: Sequence[int], activation: str, dropout: float
    ) -> None:
        super().__init__(n_features)
        self.widths = tuple(widths)
        self.is_linear = not self.widths
        self.options = activation, dropout

    def encoder(self, n_out: int) -> Residual:
        return dense_chain([self.n_features, *self.widths, n_out], *self.options)

    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        sizes = [n_in, *reversed(self.widths), self.n_features]
        return dense_chain(sizes, *self.options, cast("Chain | None", tied_to))
