"""Shallow autoencoders for greedy layer-wise pre-training."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from skae.nn.batch import Batch
from skae.nn.bodies.layers import ACTIVATIONS, Chain, Layer
from skae.nn.draws import Draws
from skae.nn.network import Network
from skae.nn.objective import Objective


class Shallow(Objective):
    """Autoencoder of one hidden layer [1]_, whose input may be corrupted [2]_.

    Parameters
    ----------
    encoder, decoder : Layer
        A layer of the encoder and its mirror image in the decoder, trained in place.
    activation : str
        Activation function, a key of `ACTIVATIONS`.
    standardize : callable or None
        Function that computes standardized rows from a batch in the user's units. It is for the
        layer next to the rows, which reconstructs the standardized rows without an activation after
        the decoder. None is for the other layers, which reconstruct the codes of the layer before.
    trim : float
        Share of each batch's weight that the loss ignores; see `trimmed_mean`.

    References
    ----------
    .. [1] Y. Bengio, P. Lamblin, D. Popovici and H. Larochelle, "Greedy layer-wise training of deep
       networks", NeurIPS 2006.
    .. [2] P. Vincent et al., "Stacked denoising autoencoders: learning useful representations in a
       deep network with a local denoising criterion", JMLR 11, 2010.
    """

    def __init__(
        self,
        encoder: Layer,
        decoder: Layer,
        activation: str,
        standardize: Callable[[Batch], Tensor] | None,
        trim: float,
    ) -> None:
        super().__init__(trim)
        self.encoder = encoder
        self.decoder = decoder
        self.activation = ACTIVATIONS[activation]
        self.standardize = standardize

    def encode(self, batch: Batch) -> Tensor:
        """Compute the codes, which are the input of the next layer."""
        return self.activation(self.encoder(self._scaled(batch)))

    def losses(self, draws: Draws | None, batch: Batch) -> Tensor:
        """Compute half the squared error (n,) of each row."""
        out = self.decoder(self.encode(batch))
        if self.standardize is None:
            out = self.activation(out)
        # The input of the encoder may end with bits of missing cells.
        clean = self._scaled(batch._replace(x=batch.original, visible=None))[..., : out.shape[-1]]
        return 0.5 * F.mse_loss(out, clean, reduction="none").sum(-1)

    def _scaled(self, batch: Batch) -> Tensor:
        return batch.x if self.standardize is None else self.standardize(batch)

    def penalized(self) -> list[Tensor]:
        """Return the weights to which weight decay applies."""
        return [p for p in self.parameters() if p.ndim > 1]


def shallow_layers(network: Network) -> list[Shallow]:
    """Return a shallow autoencoder for each hidden layer of a network, from the rows inwards.

    The list is empty if the residual networks are not chains of layers.
    """
    encoder, decoder = network.encoder.residual, network.decoder.residual
    if not (isinstance(encoder, Chain) and isinstance(decoder, Chain)):
        return []
    down, up = encoder.layers, decoder.layers
    return [
        Shallow(
            down[i],
            up[-1 - i],
            encoder.activation,
            None if i else network.inputs.forward,
            network.trim,
        )
        for i in range(len(down) - 1)
    ]
