"""Multilayer perceptrons for tables."""

from collections.abc import Sequence
from typing import cast

from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Chain, Residual, dense_chain


class MLP(Architecture):
    """Multilayer perceptrons. The decoder has the widths of the encoder in reverse order.

    Parameters
    ----------
    n_outputs : int
        Length of the output of the decoder.
    widths : sequence of int
        Numbers of hidden units of the encoder's layers.
    activation : str
        Activation function of the hidden layers, a key of `ACTIVATIONS`.
    dropout : float
        Share of hidden units that are set to zero during training.
    n_inputs : int or None, default=None
        Length of the input of the encoder. None is `n_outputs`.
    """

    has_layers = True
    can_tie = True

    def __init__(
        self,
        n_outputs: int,
        widths: Sequence[int],
        activation: str,
        dropout: float,
        n_inputs: int | None = None,
    ) -> None:
        super().__init__(n_outputs if n_inputs is None else n_inputs, n_outputs)
        self.widths = tuple(widths)
        self.is_linear = not self.widths
        self.options = activation, dropout

    def encoder(self, n_out: int) -> Residual:
        return dense_chain([self.n_inputs, *self.widths, n_out], *self.options)

    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        sizes = [n_in, *reversed(self.widths), self.n_outputs]
        return dense_chain(sizes, *self.options, cast("Chain | None", tied_to))
