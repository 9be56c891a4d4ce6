"""The network of all autoencoders: inputs, encoder, latent, decoder and likelihood."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skae.nn.batch import Batch
from skae.nn.bodies.body import Body
from skae.nn.bodies.linearization import Linearization, forward_mode
from skae.nn.draws import Draws
from skae.nn.gaps import axes_of_observed
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

INITIAL_NOISE = 0.05
"""Initial noise variance of networks that do not start at PCA, as a share of the variance of codes
and of columns. With a larger variance, stochastic codes may collapse to the prior before they are
useful."""


class AuxiliaryLoss(nn.Module, ABC):
    """Base of losses that depend on targets and are combined with those of an autoencoder."""

    @abstractmethod
    def forward(self, losses: Tensor, code: Code, batch: Batch) -> Tensor:
        """Combine the losses (n,) of rows, in nats, with the losses of their targets."""

    def start(self, codes: Tensor, batch: Batch) -> None:
        """Initialize parameters from the codes (n, k) of the training rows, before training."""
        return

    def resume(self, like: Tensor, units: tuple[Any, Any] | None) -> bool:
        """Initialize parameters with those of the previous training. Return whether it is known.

        `like` has the dtype and the device of the codes. `units` are the centers and scales of
        targets that are numbers.
        """
        return False

    def penalized(self) -> list[Tensor]:
        """Return the weights to which weight decay applies."""
        return []

    def input_tensors(self) -> list[Tensor]:
        """Return the tensors whose last axis is that of the code, if it depends on the code."""
        return []


class Network(Objective):
    """Network of any autoencoder. Variants pass different parts and never subclass this class.

    Parameters
    ----------
    inputs : Inputs
        Computes the input of the encoder from a batch.
    encoder : Body
        Computes the raw outputs, from which the latent computes the code.
    decoder : Body
        Computes the outputs from the code and the conditions.
    latent : Latent
        Computes the code and its penalty.
    likelihood : Likelihood
        Distribution of a row given the output of the decoder.
    trim : float
        Share of each batch's weight that the loss ignores; see `trimmed_mean`.
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
        """Tensor with the dtype and the device of the network."""
        return self.inputs.center

    def encode(self, batch: Batch, draws: Draws | None = None) -> Code:
        """Compute the codes of rows. Without `draws`, the latent's `inference_draws` are used."""
        draws = draws or self.latent.inference_draws(self.inputs.modelled(batch).x)
        code: Code = self.latent(self.encoder(self.inputs(batch)), draws)
        return code

    def outputs(self, z: Tensor, batch: Batch, silencing: Draws | None = None) -> Tensor:
        """Decode codes (..., n, k) under the conditions of rows to outputs (..., n, n_outputs).

        `silencing` is the source of random numbers for dropout. None means no dropout.
        """
        out: Tensor = self.decoder(self._with_conditions(z, batch), silencing)
        return out

    def linearize(self, z: Tensor, batch: Batch, directions: Tensor | None = None) -> Linearization:
        """Decode codes (n, k) as `outputs` does, and compute derivatives with respect to the codes.

        They are derivatives along `directions` (m, k). None is the k axes of the codes.
        """
        if directions is None:
            directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        directions = F.pad(directions, (0, self.inputs.n_conditions))
        return self.decoder.linearize(self._with_conditions(z, batch), directions)

    def mean_jacobian(self, z: Tensor, batch: Batch) -> Tensor:
        """Compute the derivatives (n, n_encoded, k) of expected rows with respect to codes (n, k).

        The rows are encoded. `batch` contains the conditions of the rows.
        """

        def decode(z: Tensor) -> Tensor:
            return self.likelihood.expected(self.outputs(z, batch))

        directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        return forward_mode(decode, z, directions).jacobian()

    def _with_conditions(self, z: Tensor, batch: Batch) -> Tensor:
        """Append the conditions of rows to codes (..., n, k)."""
        if not self.inputs.n_conditions:
            return z
        conditions = self.inputs.conditions(batch)
        return torch.cat([z, conditions.expand(*z.shape[:-1], -1)], -1)

    def hidden(self, batch: Batch, decodes: bool) -> list[Tensor]:
        """Compute the activations (n, n_units) of the hidden layers of the encoder.

        `decodes` is whether those of the decoder follow.
        """
        activations = self.encoder.hidden(self.inputs(batch))
        if decodes:
            z = self.encode(batch).mean
            activations += self.decoder.hidden(self._with_conditions(z, batch))
        return activations

    def restored(self, batch: Batch) -> Tensor:
        """Encode rows and decode their codes to outputs (n, n_outputs)."""
        return self.outputs(self.encode(batch).mean, batch)

    def losses(self, draws: Draws | None, batch: Batch) -> Tensor:
        """Compute the loss (n,) of each row, in nats.

        The loss is the negative log-likelihood plus the penalty, and the auxiliary loss if there is
        one. `draws` is the source of random numbers for stochastic codes and, in training mode, for
        dropout.
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
        """Return the weights to which weight decay applies.

        They are the weights of the residual networks, without biases, and those that the auxiliary
        loss names.
        """
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
        observed: LazyRows | None = None,
    ) -> None:
        """Initialize all parts from training rows, except the latent's own parameters.

        With a linear skip, the network starts at the solution of PCA or, if the likelihood trains a
        noise variance for each column, of factor analysis. If there are conditions, these methods
        are applied to the residuals of a linear regression on the conditions.

        Parameters
        ----------
        x : LazyRows
            Encoded modelled columns of the rows, in which missing cells have the means of their
            columns.
        weight : Tensor of shape (n,)
            Weights of the rows.
        moments : Moments
            Moments of the encoded modelled columns, from observed cells.
        generator : torch.Generator
            Source of random numbers.
        conditions : LazyRows
            Columns of conditions of the rows.
        observed : LazyRows or None
            Which encoded cells of the rows are observed. None if no cell is missing.
        """
        left, effect = self.inputs.start(x, conditions, weight, moments)
        center, scale = self.inputs.center, self.inputs.scale
        bias, slope = self.likelihood.start(center, moments.variance.to(center), scale)
        for body in (self.encoder, self.decoder):
            body.reset(generator)
        self.decoder.out_bias.copy_(bias)
        if effect is not None:
            effect = effect / moments.scale[..., None]
            # The moments are those of observed cells, whereas the missing cells of `x` are filled.
            kept = column_moments(left, weight).variance / column_moments(x, weight).variance
            moments = moments._replace(variance=moments.variance * kept.nan_to_num())
        self._start_at_pca(left, weight, moments, slope, effect, generator, observed)

    @torch.no_grad()
    def start_latent(self, batch: Batch, generator: torch.Generator) -> None:
        """Initialize the latent's own parameters from a sample of the training rows."""
        self.latent.start_from(self.encoder(self.inputs(batch)), batch.weight, generator)

    def _start_at_pca(
        self,
        x: Table,
        weight: Tensor,
        moments: Moments,
        slope: Tensor,
        effect: Tensor | None,
        generator: torch.Generator,
        observed: LazyRows | None,
    ) -> None:
        down, up = self.encoder.skip, self.decoder.skip
        if down is None or up is None:
            if self.latent.is_linear:
                self._start_at_random(moments)
            return
        k, d = self.latent.n_components, self.inputs.n_encoded
        # The encoded columns of a category sum to a constant.
        n_free = d - self.inputs.encoding.n_categories
        variance = moments.variance / moments.scale**2
        # `raise_noise` raises a trained noise variance before the first step. The noise variance of
        # rows that vary along no other axes than those of the components is unknown.
        is_known = k < min(len(weight) - 1, n_free)
        is_exact = self.likelihood.is_trained and not up.transposed and is_known
        is_estimated = not (self.likelihood.is_trained or self.likelihood.is_known)
        least = torch.finfo(variance.dtype).eps if is_exact or is_estimated else LEAST_NOISE
        noise, floor = torch.ones_like(variance), torch.full_like(variance, least)
        mean = torch.zeros_like(variance)
        if observed is not None:
            values, axes, mean, rest = axes_of_observed(x, observed, weight, moments, k, generator)
        elif is_exact and not self.likelihood.is_pooled and d <= EXACT_UP_TO:
            values, axes, noise = factor_analysis(covariance(x, weight, moments), k)
            rest, floor = 1.0, LEAST_COLUMN_NOISE * torch.where(variance > 0, variance, 1.0)
        else:
            values, axes = principal_axes(x, weight, moments, k, generator)
            rest = float(variance.sum() - values.sum()) / max(1, n_free - len(values))
        rest = max(rest, least)
        start = self.latent.start(values.clamp_min(rest), rest)
        # A tied decoder has the scale of the encoder.
        gain = torch.ones_like(values) if up.transposed else start.down
        rank, unit = len(values), noise.sqrt()[:, None]
        # Components beyond the rank of the data get a random direction in the encoder and zeros in
        # the decoder. If codes are compared with those of PCA, rows do not vary along it.
        encoder = torch.randn(k, d, generator=generator, dtype=torch.float64) / d**0.5
        if rank < d and self.latent.has_free_axes:
            encoder -= (encoder @ axes) @ axes.mT
        encoder[:rank] = gain[:, None] * (axes / unit).mT
        decoder = torch.zeros(d, k, dtype=torch.float64)
        decoder[:, :rank] = unit * axes * start.up
        if effect is not None:
            decoder = torch.cat([decoder, effect], 1)
        decoder *= slope.to(axes)[:, None]
        down.weight.zero_()
        down.weight[:k, :d] = encoder.to(down.weight)
        down.bias.copy_(start.bias)
        if not up.transposed:
            up.weight.copy_(decoder)
        if observed is not None:
            down.bias[:k] -= (encoder @ mean).to(down.bias)
            self.decoder.out_bias.add_(slope * mean.to(slope))
        left = variance - (unit * axes) ** 2 @ (values - rest).clamp_min(0)
        self.likelihood.start_noise(left.maximum(floor))

    @torch.no_grad()
    def raise_noise(self) -> bool:
        """Raise a trained noise variance to the smallest one with which training can start.

        The initial network may have a smaller noise variance, that of PCA or factor analysis. The
        posteriors of codes become those of the linear map under the raised variance. A network that
        has been trained keeps its noise variance. Return whether the noise variance was raised.
        """
        up, down = self.decoder.skip, self.encoder.skip
        if up is None or down is None or up.transposed or not self.likelihood.is_trained:
            return False
        codes = up.weight.new_ones(1, up.weight.shape[1])
        if not torch.equal(self.decoder(codes), up(codes)):
            return False
        least = LEAST_NOISE if self.likelihood.is_pooled else LEAST_COLUMN_NOISE
        noise = self.likelihood.output_noise(self.decoder.out_bias)
        if (noise >= least).all():
            return False
        noise = noise.clamp_min(least)
        self.likelihood.start_noise(noise)
        precision = 1 + (up.weight[:, : self.latent.n_components] ** 2 / noise[:, None]).sum(0)
        down.bias.copy_(self.latent.start(precision, 1.0).bias)
        return True

    def _start_at_random(self, moments: Moments) -> None:
        """Initialize the noise and the encoder's bias of a network without a linear skip."""
        one = torch.ones(self.latent.n_components, dtype=torch.float64)
        self.encoder.out_bias.copy_(self.latent.start(one, INITIAL_NOISE).bias)
        noise = INITIAL_NOISE * moments.variance / moments.scale**2
        self.likelihood.start_noise(noise.clamp_min(INITIAL_NOISE * LEAST_NOISE))
