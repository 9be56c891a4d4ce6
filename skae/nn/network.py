"""The one network of the package: scale -> encoder -> latent -> decoder -> likelihood."""

import torch
from torch import Tensor, nn

from skae.nn.draws import Draws
from skae.nn.latent import Code, Latent
from skae.nn.likelihoods import Likelihood
from skae.nn.linear import Moments, principal_axes
from skae.nn.mlp import Body


def trimmed_mean(losses: Tensor, weight: Tensor, trim: float) -> Tensor:
    """Weighted mean of row losses without the worst `trim` share of the total weight.

    A row at the border keeps part of its weight, so that weighting a row equals repeating it.
    """
    if trim > 0:
        order = losses.detach().argsort()
        losses, weight = losses[order], weight[order]
        kept = (1 - trim) * weight.sum()
        weight = torch.minimum(weight, (kept - (weight.cumsum(0) - weight)).clamp_min(0))
        return (losses * weight).sum() / weight.sum()
    # Weights have mean 1 over all training rows: a batch mean is then an unbiased gradient.
    return (losses * weight).mean()


class Network(nn.Module):
    """An autoencoder of any kind; variants differ in the parts they pass, never by subclassing.

    Parameters
    ----------
    encoder, decoder : Body
    latent : Latent
    likelihood : Likelihood
    n_features : int
    trim : float
        Share of each batch's weight, its worst rows, that the loss ignores.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: Body,
        decoder: Body,
        latent: Latent,
        likelihood: Likelihood,
        n_features: int,
        trim: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.likelihood = likelihood
        self.trim = trim
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, x: Tensor) -> Tensor:
        """Rows on the network's scale."""
        return (x - self.center) / self.scale

    def encode(self, x: Tensor, draws: Draws | None = None) -> Code:
        """Codes of rows in the user's units."""
        code: Code = self.latent(self.encoder(self.standardize(x), draws), draws)
        return code

    def decode(self, z: Tensor) -> Tensor:
        """Expected rows in the user's units."""
        return self.likelihood.mean(self.decoder(z))

    def losses(self, draws: Draws | None, x: Tensor, target: Tensor | None = None) -> Tensor:
        """Objective of each row in nats: minus log-likelihood of the row plus the code's price.

        The row is `target` where `x` is only a spoilt version of it.
        """
        u = self.standardize(x)
        code = self.latent(self.encoder(u, draws), draws)
        out = self.decoder(code.z, draws)
        log_prob = self.likelihood.log_prob(x if target is None else target, out)
        return self.latent.penalty(code, u, self.encoder) - log_prob

    def forward(
        self, draws: Draws | None, weight: Tensor, x: Tensor, target: Tensor | None = None
    ) -> Tensor:
        """The number that training minimises on a batch."""
        return self.reduce(self.losses(draws, x, target), weight)

    def reduce(self, losses: Tensor, weight: Tensor) -> Tensor:
        """Rows' losses as one number."""
        return trimmed_mean(losses, weight, self.trim)

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on: not biases, not the linear skip."""
        return [p for name, p in self.named_parameters() if ".residual." in name and p.ndim > 1]

    @torch.no_grad()
    def start(self, x: Tensor, weight: Tensor, at: Moments, generator: torch.Generator) -> None:
        """Initialise everything from the data and the generator; with a linear skip, at PCA."""
        self.center.copy_(at.center)
        self.scale.copy_(at.scale)
        bias, slope = self.likelihood.start(self.center, at.variance.to(self.center), self.scale)
        for body in (self.encoder, self.decoder):
            body.reset(generator)
        self.decoder.out_bias.copy_(bias)
        down, up = self.encoder.skip, self.decoder.skip
        if down is None or up is None:
            return
        k, d = down.weight.shape
        axes = principal_axes(x, weight, at, k, generator)[1]
        rank = axes.shape[1]
        # Codes beyond the data's rank see a random direction and are not decoded at first.
        encoder = torch.randn(k, d, generator=generator, dtype=torch.float64) / d**0.5
        encoder[:rank] = axes.mT
        decoder = torch.zeros(d, k, dtype=torch.float64)
        decoder[:, :rank] = axes * slope.to(axes)[:, None]
        down.weight.copy_(encoder)
        if not up.transposed:
            up.weight.copy_(decoder)
