"""The one network of the package: scale -> encoder -> latent -> decoder -> likelihood."""

import torch
from torch import Tensor

from skae.nn.draws import Draws
from skae.nn.latent import Code, Latent
from skae.nn.likelihoods import Likelihood
from skae.nn.linear import (
    EXACT_UP_TO,
    LEAST_COLUMN_NOISE,
    LEAST_NOISE,
    DistinctRows,
    Moments,
    covariance,
    factor_analysis,
    principal_axes,
)
from skae.nn.mlp import Body
from skae.nn.objective import Objective


class Network(Objective):
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
        super().__init__(trim)
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.likelihood = likelihood
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

    def losses(
        self, draws: Draws | None, weight: Tensor, x: Tensor, target: Tensor | None = None
    ) -> Tensor:
        """Objective of each row in nats: minus log-likelihood of the row plus the code's price.

        The row is `target` where `x` is only a spoilt version of it. `draws` make codes random,
        if that is their kind; hidden units are silenced in training mode only.
        """
        u = self.standardize(x)
        silencing = draws if self.training else None
        code = self.latent(self.encoder(u, silencing), draws)
        out = self.decoder(code.z, silencing)
        log_prob = self.likelihood.log_prob(x if target is None else target, out)
        price = self.latent.penalty(code, u, self.encoder, weight, draws)
        return self.latent.bound(price - log_prob, code, draws)

    @torch.no_grad()
    def after_step(
        self, draws: Draws, weight: Tensor, x: Tensor, target: Tensor | None = None
    ) -> None:
        if self.latent.adapts:
            self.latent.adapt(self.encoder(self.standardize(x)), weight, draws)

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on: not biases, not the linear skip."""
        return [p for name, p in self.named_parameters() if ".residual." in name and p.ndim > 1]

    @torch.no_grad()
    def start(
        self, x: Tensor | DistinctRows, weight: Tensor, at: Moments, generator: torch.Generator
    ) -> None:
        """Initialise everything from the data and the generator; with a linear skip, at PCA."""
        self.center.copy_(at.center)
        self.scale.copy_(at.scale)
        bias, slope = self.likelihood.start(self.center, at.variance.to(self.center), self.scale)
        for body in (self.encoder, self.decoder):
            body.reset(generator)
        self.decoder.out_bias.copy_(bias)
        self._start_at_pca(x, weight, at, slope, generator)

    @torch.no_grad()
    def settle(self, x: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        """Show the latent rows that stand for all."""
        self.latent.settle(self.encoder(self.standardize(x)), weight, generator)

    def _start_at_pca(
        self,
        x: Tensor | DistinctRows,
        weight: Tensor,
        at: Moments,
        slope: Tensor,
        generator: torch.Generator,
    ) -> None:
        down, up = self.encoder.skip, self.decoder.skip
        if down is None or up is None:
            return
        k, d = self.latent.n_components, len(self.center)
        variance = at.variance / at.scale**2
        noise, least = torch.ones_like(variance), LEAST_NOISE
        if self.likelihood.learns_columns and not up.transposed and d <= EXACT_UP_TO:
            values, axes, noise = factor_analysis(covariance(x, weight, at), k)
            rest, least = 1.0, LEAST_COLUMN_NOISE
        else:
            values, axes = principal_axes(x, weight, at, k, generator)
            rest = float(variance.sum() - values.sum()) / max(1, d - len(values))
            rest = max(rest, LEAST_NOISE)
        start = self.latent.start(values.clamp_min(rest), rest)
        # The mirror image of an encoder has its scale.
        gain = torch.ones_like(values) if up.transposed else start.down
        rank, unit = len(values), noise.sqrt()[:, None]
        # Codes beyond the data's rank see a random direction and are not decoded at first.
        encoder = torch.randn(k, d, generator=generator, dtype=torch.float64) / d**0.5
        encoder[:rank] = gain[:, None] * (axes / unit).mT
        decoder = torch.zeros(d, k, dtype=torch.float64)
        decoder[:, :rank] = unit * axes * start.up * slope.to(axes)[:, None]
        down.weight.zero_()
        down.weight[:k] = encoder.to(down.weight)
        down.bias.copy_(start.bias)
        if not up.transposed:
            up.weight.copy_(decoder)
        left = variance - (unit * axes) ** 2 @ (values - rest).clamp_min(0)
        self.likelihood.start_noise(left.clamp_min(least))
