"""The one network of the package: inputs -> encoder -> latent -> decoder -> likelihood."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.bodies.body import Body
from skae.nn.draws import Draws
from skae.nn.inputs import Inputs
from skae.nn.latent import Code, Latent
from skae.nn.likelihoods.base import Likelihood
from skae.nn.objective import Objective
from skae.nn.pca import (
    EXACT_UP_TO,
    LEAST_COLUMN_NOISE,
    LEAST_NOISE,
    LazyRows,
    Moments,
    Table,
    column_moments,
    covariance,
    factor_analysis,
    principal_axes,
)

HOPED_FOR_NOISE = 0.05
"""Share of codes' and columns' variance that is noise where training starts from nothing: with much
more, codes would seem useless before they are of use, and be given up."""


class AuxiliaryLoss(nn.Module, ABC):
    """What training charges beside the autoencoder's own objective, in view of rows' targets."""

    @abstractmethod
    def forward(self, losses: Tensor, code: Code, batch: Batch) -> Tensor:
        """Nats of each row, (n,): its own objective `losses`, joined with what its code costs."""

    def start(self, codes: Tensor, batch: Batch) -> None:
        """Take the codes (n, k) of the training rows before training starts."""
        return

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on."""
        return []


class Network(Objective):
    """An autoencoder of any kind; variants differ in the parts they pass, never by subclassing.

    Parameters
    ----------
    inputs : Inputs
    encoder, decoder : Body
    latent : Latent
    likelihood : Likelihood
    trim : float
        Share of each batch's weight, its worst rows, that the loss ignores.
    """

    def __init__(
        self,
        inputs: Inputs,
        encoder: Body,
        decoder: Body,
        latent: Latent,
        likelihood: Likelihood,
        trim: float,
    ) -> None:
        super().__init__(trim)
        self.auxiliary: AuxiliaryLoss | None = None
        self.inputs = inputs
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.likelihood = likelihood

    @property
    def like(self) -> Tensor:
        """A tensor with the dtype and on the device that batches must have."""
        return self.inputs.center

    def encode(self, batch: Batch, draws: Draws | None = None) -> Code:
        """Codes of rows."""
        draws = draws or self.latent.inference_draws(self.inputs.modelled(batch).x)
        code: Code = self.latent(self.encoder(self.inputs(batch)), draws)
        return code

    def outputs(self, z: Tensor, batch: Batch, silencing: Draws | None = None) -> Tensor:
        """The decoder's output for codes (..., n, k) under the conditions of rows."""
        if self.inputs.n_conditions:
            conditions = self.inputs.conditions(batch)
            z = torch.cat([z, conditions.expand(*z.shape[:-1], -1)], -1)
        out: Tensor = self.decoder(z, silencing)
        return out

    def restored(self, batch: Batch) -> Tensor:
        """The decoder's output for rows' own codes."""
        return self.outputs(self.encode(batch).mean, batch)

    def losses(self, draws: Draws | None, batch: Batch) -> Tensor:
        """Objective of each row in nats: minus log-likelihood of the row plus the code's penalty.

        `draws` make codes random, if that is their kind; hidden units are silenced in training mode
        only.
        """
        u = self.inputs(batch)
        silencing = draws if self.training else None
        code = self.latent(self.encoder(u, silencing), draws)
        if self.inputs.n_conditions:
            code = code._replace(conditions=self.inputs.conditions(batch))
        out = self.outputs(code.z, batch, silencing)
        log_prob = self.likelihood.log_prob(self.inputs.modelled(batch), out)
        penalty = self.latent.penalty(code, u, self.encoder, batch.weight, draws)
        losses: Tensor = self.latent.bound(penalty - log_prob, code, draws, batch)
        return losses if self.auxiliary is None else self.auxiliary(losses, code, batch)

    @torch.no_grad()
    def after_step(self, draws: Draws, batch: Batch) -> None:
        self.latent.adapt(lambda: self.encoder(self.inputs(batch)), batch.weight, draws)

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on: not biases, not the linear skip."""
        hidden = [p for name, p in self.named_parameters() if ".residual." in name and p.ndim > 1]
        return [*hidden, *(self.auxiliary.penalized() if self.auxiliary is not None else [])]

    @torch.no_grad()
    def start(
        self,
        x: LazyRows,
        weight: Tensor,
        moments: Moments,
        generator: torch.Generator,
        conditions: LazyRows,
    ) -> None:
        """Initialize everything from the data and the generator; with a linear skip, at PCA.

        `x` are modelled columns and `conditions` the others; PCA is that of what these leave.
        """
        left, effect = self.inputs.start(x, conditions, weight, moments)
        center, scale = self.inputs.center, self.inputs.scale
        bias, slope = self.likelihood.start(center, moments.variance.to(center), scale)
        for body in (self.encoder, self.decoder):
            body.reset(generator)
        self.decoder.out_bias.copy_(bias)
        if effect is not None:
            effect = effect / moments.scale
            # Moments may know of missing cells, which the table has filled in.
            kept = column_moments(left, weight).variance / column_moments(x, weight).variance
            moments = moments._replace(variance=moments.variance * kept.nan_to_num())
        self._start_at_pca(left, weight, moments, slope, effect, generator)

    @torch.no_grad()
    def start_latent(self, batch: Batch, generator: torch.Generator) -> None:
        """Initialize the latent from rows that represent all."""
        self.latent.start_from(self.encoder(self.inputs(batch)), batch.weight, generator)

    def _start_at_pca(
        self,
        x: Table,
        weight: Tensor,
        moments: Moments,
        slope: Tensor,
        effect: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        down, up = self.encoder.skip, self.decoder.skip
        if down is None or up is None:
            if self.latent.is_linear:
                self._start_at_random(moments)
            return
        k, d = self.latent.n_components, self.inputs.n_outputs
        variance = moments.variance / moments.scale**2
        noise, least = torch.ones_like(variance), LEAST_NOISE
        trains_each_noise = self.likelihood.is_trained and not self.likelihood.is_pooled
        if trains_each_noise and not up.transposed and d <= EXACT_UP_TO:
            values, axes, noise = factor_analysis(covariance(x, weight, moments), k)
            rest, least = 1.0, LEAST_COLUMN_NOISE
        else:
            values, axes = principal_axes(x, weight, moments, k, generator)
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
        decoder[:, :rank] = unit * axes * start.up
        if effect is not None:
            decoder = torch.cat([decoder, effect], 1)
        decoder *= slope.to(axes)[:, None]
        down.weight.zero_()
        down.weight[:k] = encoder.to(down.weight)
        down.bias.copy_(start.bias)
        if not up.transposed:
            up.weight.copy_(decoder)
        left = variance - (unit * axes) ** 2 @ (values - rest).clamp_min(0)
        self.likelihood.start_noise(left.clamp_min(least))

    def _start_at_random(self, moments: Moments) -> None:
        """Start a code that might have started at PCA with the noise that is hoped for."""
        one = torch.ones(self.latent.n_components, dtype=torch.float64)
        self.encoder.out_bias.copy_(self.latent.start(one, HOPED_FOR_NOISE).bias)
        noise = HOPED_FOR_NOISE * moments.variance / moments.scale**2
        self.likelihood.start_noise(noise.clamp_min(HOPED_FOR_NOISE * LEAST_NOISE))
