"""Multilayer perceptrons for tables."""

from collections.abc import Sequence
from typing import cast

from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Chain, Residual, dense_chain


class MLP(Architecture):
    """Dense layers; the decoder mirrors the encoder.

    Parameters
    ----------
    n_features : int
    widths : sequence of int
        Numbers of hidden units of the encoder's layers.
    activation : str
    dropout : float
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
