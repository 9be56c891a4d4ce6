"""log p(x) of a fitted autoencoder: the code integrated out by Laplace's method.

A fit leaves a generative model: a code z ~ N(m, S) and a row x ~ likelihood(decoder(z)). Here m, S
and the likelihood's noise are estimated once the network is trained, and rows are scored under it.
For a linear decoder everything here is exact, and at PCA's solution it is probabilistic PCA
(Tipping & Bishop 1999).
"""

import copy
import os
import threading
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from skae.nn.draws import Draws
from skae.nn.likelihoods import Likelihood
from skae.nn.network import Network

JACOBIAN_BYTES = 64 * 2**20
"""Memory that the decoder's Jacobians of one chunk of rows may take."""

JACOBIAN_BLOCK = 128
"""Rows differentiated at once: all directions' hidden units should stay in the cache."""

SEARCH_STEPS = 20
"""Gauss-Newton steps at most to a row's most probable code; a handful is usual."""

MODE_TOLERANCE = 1e-6
"""A code is taken for the most probable one when a full step would gain fewer nats than this."""

HALVINGS = 6
"""Times a step that leads downhill is halved before its row rests."""

EM_ROUNDS = 50
EM_TOLERANCE = 1e-10
ESTIMATION_STEPS = 1
RELINEARIZE_TOLERANCE = 1e-2
RELINEARIZATIONS = 3
"""Times the decoder is linearised anew around better codes while the density is estimated."""


_forward_mode = threading.Lock()
"""torch keeps the level of forward-mode differentiation for the process, not for the thread."""

os.register_at_fork(
    before=_forward_mode.acquire,
    after_in_parent=_forward_mode.release,
    after_in_child=_forward_mode.release,
)

with warnings.catch_warnings():
    # Loaded at the first derivative otherwise, where its use of torch.jit would warn the user.
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch._decomp.decompositions_for_jvp


@dataclass
class Density:
    """The distribution of codes and rows that a fit leaves.

    Attributes
    ----------
    likelihood : Likelihood
        With the noise that was estimated after training, in the network's dtype.
    mean : Tensor of shape (k,)
    covariance : Tensor of shape (k, k)
        Moments of the code's normal distribution, float64.
    """

    likelihood: Likelihood
    mean: Tensor
    covariance: Tensor

    def log_prob(self, network: Network, x: Tensor) -> Tensor:
        """Log-density of rows (n, n_features) in nats, shape (n,), float64."""
        size = _rows_at_once(x.shape[1], len(self.mean), x.element_size())
        return torch.cat([self._log_prob(network, chunk) for chunk in x.split(size)])

    def draw_codes(self, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) from N(m, S)."""
        root = torch.linalg.cholesky(self.covariance)
        return self.mean + draws.normal((n, len(self.mean))).double() @ root.mT

    def _log_prob(self, network: Network, x: Tensor) -> Tensor:
        z = network.encode(x).mean.double()
        at = self.search(network, x, _Expansion.around(network, self.likelihood, x, z))
        height, gain = self._ascent(at)[:2]
        log_dets = torch.linalg.slogdet(at.information + self._precision()).logabsdet
        log_dets = log_dets + torch.linalg.slogdet(self.covariance).logabsdet
        # What a resting row is short of its mode is known from the quadratic around it.
        short = torch.where(gain <= MODE_TOLERANCE, gain / 2, 0.0)
        # k/2 log 2 pi of the prior and of Laplace's integral cancel.
        return height + short - 0.5 * log_dets

    def blend(self, new: "Density", share: float) -> "Density":
        """The mixture of this distribution and a `share` of a new one, by its moments."""
        shift = new.mean - self.mean
        likelihood = copy.deepcopy(new.likelihood)
        likelihood.noise_variance.lerp_(self.likelihood.noise_variance, 1 - share)
        covariance = torch.lerp(self.covariance, new.covariance, share)
        covariance = covariance + share * (1 - share) * torch.outer(shift, shift)
        return Density(likelihood, self.mean + share * shift, covariance)

    def search(
        self, network: Network, x: Tensor, at: "_Expansion", max_steps: int = SEARCH_STEPS
    ) -> "_Expansion":
        """Expand around the rows' most probable codes, by damped Gauss-Newton steps from `at.z`.

        Each row stops by its own measure, so that its result does not depend on the others.
        """
        at = at.under(self.likelihood, x)
        moving = torch.arange(len(x), device=x.device)
        for _ in range(max_steps):
            now, gain, step = (part[moving] for part in self._ascent(at))
            rows, start, length = x[moving], at.z[moving], torch.ones_like(gain)
            for _ in range(HALVINGS):
                trial = start + length[:, None] * step
                fit = self.likelihood.log_prob(rows, network.decoder(trial.to(x.dtype))).double()
                better = fit - 0.5 * self._distance(trial) >= now
                if better.all():
                    break
                length = torch.where(better, length, length / 2)
            better &= gain > MODE_TOLERANCE
            moving = moving[better]
            if len(moving) == 0:
                break
            new = _Expansion.around(network, self.likelihood, x[moving], trial[better])
            at = at.replaced(moving, new)
        return at

    def _ascent(self, at: "_Expansion") -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of rows with codes `at.z`; twice what a full step to its peak gains; it.

        Constants of the codes' normal distribution are left out.
        """
        precision = self._precision()
        gradient = at.gradient - (at.z - self.mean) @ precision
        step = torch.linalg.solve(at.information + precision, gradient)
        height = at.log_prob - 0.5 * self._distance(at.z)
        return height, (gradient * step).sum(-1), step

    def _precision(self) -> Tensor:
        return torch.linalg.inv(self.covariance)

    def _distance(self, z: Tensor) -> Tensor:
        centered = z - self.mean
        return (centered @ self._precision() * centered).sum(-1)


@dataclass
class _Expansion:
    """The log-likelihood of rows to second order around codes `z` (n, k).

    Work over columns is done in the network's dtype, work over codes in float64.
    """

    z: Tensor
    out: Tensor
    jacobian: Tensor
    log_prob: Tensor
    gradient: Tensor
    information: Tensor

    @classmethod
    def around(cls, network: Network, likelihood: Likelihood, x: Tensor, z: Tensor) -> "_Expansion":
        """Expand the log-likelihood of rows `x` (n, d) around codes `z` (n, k)."""
        point = z.to(x.dtype)
        eye = torch.eye(z.shape[-1], dtype=x.dtype, device=x.device)

        def expand(point: Tensor) -> tuple[Tensor, Tensor]:
            def push(tangent: Tensor) -> tuple[Tensor, Tensor]:
                out, image = torch.func.jvp(network.decoder, (point,), (tangent,))  # type: ignore[misc]
                return out, image

            basis = eye[:, None].expand(-1, *point.shape)
            out, jacobian = torch.func.vmap(push, out_dims=(None, -1))(basis)  # type: ignore[arg-type]
            return out, jacobian

        with _forward_mode:
            blocks = [expand(block) for block in point.split(JACOBIAN_BLOCK)]
        out, jacobian = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        return cls.of(likelihood, x, z, out, jacobian)

    @classmethod
    def of(
        cls, likelihood: Likelihood, x: Tensor, z: Tensor, out: Tensor, jacobian: Tensor
    ) -> "_Expansion":
        """The same with the decoder's output (n, d) and its Jacobian (n, d, k) known."""
        log_prob = likelihood.log_prob(x, out).double()
        return cls(z, out, jacobian, log_prob, *_derivatives(likelihood, x, out, jacobian))

    def under(self, likelihood: Likelihood, x: Tensor) -> "_Expansion":
        """The same codes under another likelihood: the decoder's Jacobian stays."""
        return self.of(likelihood, x, self.z, self.out, self.jacobian)

    def replaced(self, index: Tensor, new: "_Expansion") -> "_Expansion":
        """With some rows' expansions replaced by new ones."""
        if len(index) == len(self.z):
            return new
        parts = {
            name: part.index_copy(0, index, vars(new)[name]) for name, part in vars(self).items()
        }
        return _Expansion(**parts)


def _derivatives(
    likelihood: Likelihood, x: Tensor, out: Tensor, jacobian: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient (n, k) and Fisher information (n, k, k) of rows' log-likelihood by their codes."""
    gradient = (jacobian.mT @ likelihood.score(x, out)[..., None])[..., 0]
    weighted = likelihood.curvature(out)[..., None] * jacobian
    return gradient.double(), (jacobian.mT @ weighted).double()


def _rows_at_once(n_features: int, k: int, item: int) -> int:
    return max(1, min(2048, JACOBIAN_BYTES // (n_features * k * item)))


@dataclass
class _Shares:
    """How much each row counts: for the code's moments and, with unseen rows, for the noise.

    The moments' mean comes from the same rows, so that squares around it are scaled up by `bessel`
    as PCA scales them; so are the noise's unless held-out rows tell it.
    """

    rows: Tensor
    bessel: Tensor
    noise: Tensor
    noise_bessel: Tensor

    @classmethod
    def of(cls, weight: Tensor, held_out: Tensor) -> "_Shares":
        weight = weight.double()
        total = weight.sum()
        one = torch.ones_like(total)
        bessel = total / (total - 1) if total >= 2 else one
        noise = weight * held_out if held_out.any() else weight
        return cls(
            weight / total,
            bessel,
            noise / noise.sum(),
            one if held_out.any() else bessel,
        )


@torch.no_grad()
def estimate_density(network: Network, x: Tensor, weight: Tensor, held_out: Tensor) -> Density:
    """Fit m, S and the noise by expectation-maximisation, the decoder as it is.

    Parameters
    ----------
    x : Tensor of shape (n, n_features)
        Rows in a random order; as many of the first as memory allows are used.
    weight : Tensor of shape (n,)
        How often each row counts.
    held_out : Tensor of shape (n,), bool
        Rows that the network was not trained on: only they tell the noise. None of them: all do.
    """
    size = _rows_at_once(x.shape[1], network.latent.n_components, x.element_size())
    x, shares = x[:size], _Shares.of(weight[:size], held_out[:size])
    z = network.encode(x).mean.double()
    mean, covariance = _moments(z, shares)
    ridge = 1e-8 * covariance.diagonal().mean().clamp_min(1e-30)
    covariance = covariance + ridge * torch.eye(len(mean), dtype=z.dtype, device=z.device)
    out = network.decoder(z.to(x.dtype))
    likelihood = _with_noise(network.likelihood, x, out, 0 * out, shares)
    density = Density(likelihood, mean, covariance)
    at = _Expansion.around(network, likelihood, x, z)
    for _ in range(RELINEARIZATIONS):
        before = density
        # Codes need not be settled before the density is: the next round goes on from them.
        at = density.search(network, x, at, ESTIMATION_STEPS)
        density = _maximize(before, at, x, shares, RELINEARIZE_TOLERANCE)
        if _change(before, density) < RELINEARIZE_TOLERANCE:
            break
    return _maximize(density, at, x, shares, EM_TOLERANCE)


def _moments(z: Tensor, shares: _Shares) -> tuple[Tensor, Tensor]:
    mean = shares.rows @ z
    centered = z - mean
    return mean, (centered.mT * shares.rows) @ centered * shares.bessel


def _with_noise(
    likelihood: Likelihood, x: Tensor, out: Tensor, variance: Tensor, shares: _Shares
) -> Likelihood:
    share = shares.noise.to(x.dtype)
    return likelihood.with_noise(x, out, variance, share, shares.noise_bessel.to(x.dtype))


def _maximize(
    density: Density, at: _Expansion, x: Tensor, shares: _Shares, tolerance: float
) -> Density:
    """Expectation-maximisation with the decoder linear around `at.z`."""
    for _ in range(EM_ROUNDS):
        # Score and curvature follow the noise; the output and its Jacobian stay.
        gradient, information = _derivatives(density.likelihood, x, at.out, at.jacobian)
        precision = torch.linalg.inv(density.covariance)
        posterior = torch.linalg.inv(information + precision)
        pulled = gradient + (information @ at.z[..., None])[..., 0]
        z = (posterior @ (pulled + density.mean @ precision)[..., None])[..., 0]
        mean, covariance = _moments(z, shares)
        covariance = covariance + (shares.rows[:, None, None] * posterior).sum(0)
        out = at.out + (at.jacobian @ (z - at.z).to(x.dtype)[..., None])[..., 0]
        variance = (at.jacobian @ posterior.to(x.dtype) * at.jacobian).sum(-1)
        before, density = (
            density,
            Density(
                _with_noise(density.likelihood, x, out, variance, shares),
                mean,
                (covariance + covariance.mT) / 2,
            ),
        )
        if _change(before, density) < tolerance:
            break
    return density


def _change(before: Density, after: Density) -> float:
    """Largest change of the covariance and of the noise, in terms of their largest entries."""
    pairs = [
        (before.covariance, after.covariance),
        (before.likelihood.noise_variance, after.likelihood.noise_variance),
    ]
    return max(float((b - a).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs)
