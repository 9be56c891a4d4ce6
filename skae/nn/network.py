"""The one network of the package: scale -> encoder -> latent -> decoder -> likelihood.

Rows are modelled cells; where some are given, these come last, and complete the code.
"""

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from skae.nn.bodies.body import Body
from skae.nn.draws import Draws, Keyed
from skae.nn.given import Given
from skae.nn.latent import Code, Latent
from skae.nn.likelihoods.gaussian import Likelihood
from skae.nn.linear import (
    EXACT_UP_TO,
    LEAST_COLUMN_NOISE,
    LEAST_NOISE,
    DistinctRows,
    Moments,
    Table,
    covariance,
    factor_analysis,
    moments,
    principal_axes,
)
from skae.nn.objective import Objective

HOPED_FOR_NOISE = 0.05
"""Share of codes' and columns' variance that is noise where training starts from nothing: with much
more, codes would seem useless before they are of use, and be given up."""


class Term(nn.Module, ABC):
    """What training charges for codes in view of facts about rows, beside the network's own price.

    Parameters
    ----------
    share : float
        What the network's own objective is multiplied with.
    """

    share: Tensor

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        # A buffer tells a fit that a checkpoint may belong to from others.
        self.register_buffer("share", torch.tensor(float(share)))

    @abstractmethod
    def forward(self, code: Code, *facts: Tensor) -> Tensor:
        """Nats of each row, (n,), for its code and its facts, each (n, m)."""

    def settle(self, codes: Tensor, weight: Tensor, *facts: Tensor) -> None:
        """Take the codes (n, k) of the training rows before training starts."""
        return

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on."""
        return []


class Network(Objective):
    """An autoencoder of any kind; variants differ in the parts they pass, never by subclassing.

    Parameters
    ----------
    encoder, decoder : Body
    latent : Latent
    likelihood : Likelihood
    n_features : int
        Modelled cells of a row.
    trim : float
        Share of each batch's weight, its worst rows, that the loss ignores.
    given : Given or None
        Rows' given cells, where there are any.
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
        given: Given | None = None,
    ) -> None:
        super().__init__(trim)
        self.term: Term | None = None
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.likelihood = likelihood
        self.given = given
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))

    def cells(self, x: Tensor) -> Tensor:
        """What is modelled of rows."""
        return x if self.given is None else x[..., : len(self.center)]

    def told(self, x: Tensor) -> Tensor:
        """What is given of rows."""
        return x[..., len(self.center) :]

    def standardize(self, x: Tensor) -> Tensor:
        """Rows as the encoder sees them, on the network's scale."""
        u = (self.cells(x) - self.center) / self.scale
        if self.given is None or self.given.shift is None:
            return u
        return u + self.given.shift(self.given(self.told(x)))

    def encode(self, x: Tensor, draws: Draws | None = None) -> Code:
        """Codes of rows in the user's units."""
        if draws is None and self.latent.is_private:
            draws = Keyed(self.cells(x))
        code: Code = self.latent(self.encoder(self.standardize(x)), draws)
        return code

    def complete(self, z: Tensor, x: Tensor) -> Tensor:
        """Codes (..., n, n_outputs) of rows, followed by what is given of these."""
        if self.given is None:
            return z
        return torch.cat([z, self.told(x).expand(*z.shape[:-1], -1)], -1)

    def outputs(self, codes: Tensor, silencing: Draws | None = None) -> Tensor:
        """The decoder's output for complete codes."""
        if self.given is not None:
            z, told = codes.tensor_split([self.latent.n_outputs], -1)
            codes = torch.cat([z, self.given(told)], -1)
        out: Tensor = self.decoder(codes, silencing)
        return out

    def decode(self, codes: Tensor) -> Tensor:
        """Expected rows, in the user's units, of complete codes."""
        return self.likelihood.mean(self.outputs(codes))

    def restored(self, x: Tensor) -> Tensor:
        """The decoder's output for rows' own codes."""
        return self.outputs(self.complete(self.encode(x).mean, x))

    def losses(
        self,
        draws: Draws | None,
        weight: Tensor,
        x: Tensor,
        target: Tensor | None = None,
        *facts: Tensor,
    ) -> Tensor:
        """Objective of each row in nats: minus log-likelihood of the row plus the code's price.

        The row is `target` where `x` is only a spoilt version of it. `draws` make codes random,
        if that is their kind; hidden units are silenced in training mode only. Facts about rows are
        for the latent and for the term, where there is one.
        """
        u = self.standardize(x)
        silencing = draws if self.training else None
        code = self.latent(self.encoder(u, silencing), draws)
        if self.given is not None:
            code = code._replace(given=self.given(self.told(x)))
        out = self.outputs(self.complete(code.z, x), silencing)
        log_prob = self.likelihood.log_prob(self.cells(x if target is None else target), out)
        price = self.latent.penalty(code, u, self.encoder, weight, draws)
        losses = self.latent.bound(price - log_prob, code, draws, *facts)
        return losses if self.term is None else self.term.share * losses + self.term(code, *facts)

    @torch.no_grad()
    def after_step(self, draws: Draws, weight: Tensor, x: Tensor, *more: Tensor) -> None:
        if self.latent.adapts:
            self.latent.adapt(self.encoder(self.standardize(x)), weight, draws)

    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on: not biases, not the linear skip."""
        hidden = [p for name, p in self.named_parameters() if ".residual." in name and p.ndim > 1]
        return [*hidden, *(self.term.penalized() if self.term is not None else [])]

    @torch.no_grad()
    def start(
        self,
        x: DistinctRows,
        weight: Tensor,
        at: Moments,
        generator: torch.Generator,
        told: DistinctRows,
    ) -> None:
        """Initialise everything from the data and the generator; with a linear skip, at PCA.

        `x` are modelled cells and `told` given ones; PCA is that of what these leave.
        """
        self.center.copy_(at.center)
        self.scale.copy_(at.scale)
        bias, slope = self.likelihood.start(self.center, at.variance.to(self.center), self.scale)
        for body in (self.encoder, self.decoder):
            body.reset(generator)
        self.decoder.out_bias.copy_(bias)
        effect, left = None, cast(Table, x)
        if self.given is not None:
            left = self.given.start(x, told, weight, at)
            effect = left.effect / at.scale
            # Moments may know of missing cells, which the table has filled in.
            kept = moments(left, weight).variance / moments(x, weight).variance
            at = at._replace(variance=at.variance * kept.nan_to_num())
        self._start_at_pca(left, weight, at, slope, effect, generator)

    @torch.no_grad()
    def settle(self, x: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        """Show the latent rows that stand for all."""
        self.latent.settle(self.encoder(self.standardize(x)), weight, generator)

    def _start_at_pca(
        self,
        x: Table,
        weight: Tensor,
        at: Moments,
        slope: Tensor,
        effect: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        down, up = self.encoder.skip, self.decoder.skip
        if down is None or up is None:
            if self.latent.is_linear:
                self._start_from_nothing(at)
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

    def _start_from_nothing(self, at: Moments) -> None:
        """Start a code that might have started at PCA with the noise that is hoped for."""
        one = torch.ones(self.latent.n_components, dtype=torch.float64)
        self.encoder.out_bias.copy_(self.latent.start(one, HOPED_FOR_NOISE).bias)
        noise = HOPED_FOR_NOISE * at.variance / at.scale**2
        self.likelihood.start_noise(noise.clamp_min(HOPED_FOR_NOISE * LEAST_NOISE))
