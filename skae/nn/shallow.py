"""One hidden layer as an autoencoder of its own, for greedy layer-wise pre-training."""

from torch import Tensor
from torch.nn import functional as F

from skae.nn.draws import Draws
from skae.nn.mlp import ACTIVATIONS, Body, Dense
from skae.nn.objective import Objective


class Shallow(Objective):
    """Reconstructs the codes of the layer below from those of one layer (Bengio et al. 2007).

    Parameters
    ----------
    encoder, decoder : Dense
        A layer of the encoder and its mirror image in the decoder, trained in place.
    activation : str
    outermost : bool
        Whether rows, not codes, are reconstructed: then the decoder has no activation.
    trim : float
        See `trimmed_mean`.
    """

    def __init__(
        self,
        encoder: Dense,
        decoder: Dense,
        activation: str,
        outermost: bool,
        trim: float,
    ) -> None:
        super().__init__(trim)
        self.encoder = encoder
        self.decoder = decoder
        self.activation = ACTIVATIONS[activation]
        self.outermost = outermost

    def encode(self, x: Tensor) -> Tensor:
        """Codes for the layer above."""
        return self.activation(self.encoder(x))

    def losses(
        self, draws: Draws | None, weight: Tensor, x: Tensor, target: Tensor | None = None
    ) -> Tensor:
        """Half the squared error of each row."""
        out = self.decoder(self.encode(x))
        if not self.outermost:
            out = self.activation(out)
        return 0.5 * F.mse_loss(out, x, reduction="none").sum(-1)

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on."""
        return [p for p in self.parameters() if p.ndim > 1]


def shallow_layers(encoder: Body, decoder: Body, trim: float) -> list[Shallow]:
    """The hidden layers of a body and its mirror image, outermost first."""
    if encoder.residual is None or decoder.residual is None:
        return []
    down, up = encoder.residual.layers, decoder.residual.layers
    return [
        Shallow(down[i], up[-1 - i], encoder.residual.activation, i == 0, trim)
        for i in range(len(down) - 1)
    ]
