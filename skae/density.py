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
ESTIMATION_STEPS = 2
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
        z = self.search(network, x, network.encode(x).mean.double())
        at = _Expansion.around(network, self.likelihood, x, z)
        precision = torch.linalg.inv(self.covariance)
        log_dets = torch.linalg.slogdet(at.information + precision).logabsdet
        log_dets = log_dets + torch.linalg.slogdet(self.covariance).logabsdet
        # k/2 log 2 pi of the prior and of Laplace's integral cancel.
        return at.log_prob - 0.5 * (_quadratic(z - self.mean, precision) + log_dets)

    def blend(self, new: "Density", share: float) -> "Density":
        """The mixture of this distribution and a `share` of a new one, by its moments."""
        shift = new.mean - self.mean
        likelihood = copy.deepcopy(new.likelihood)
        likelihood.noise_variance.lerp_(self.likelihood.noise_variance, 1 - share)
        covariance = torch.lerp(self.covariance, new.covariance, share)
        covariance = covariance + share * (1 - share) * torch.outer(shift, shift)
        return Density(likelihood, self.mean + share * shift, covariance)

    def search(
        self, network: Network, x: Tensor, z: Tensor, max_steps: int = SEARCH_STEPS
    ) -> Tensor:
        """Most probable codes of rows, by damped Gauss-Newton steps from `z`.

        Each row stops by its own measure, so that its result does not depend on the others.
        """
        precision = torch.linalg.inv(self.covariance)

        def height(x: Tensor, z: Tensor) -> Tensor:
            fit = self.likelihood.log_prob(x, network.decoder(z.to(x.dtype))).double()
            return fit - 0.5 * _quadratic(z - self.mean, precision)

        z = z.clone()
        moving = torch.arange(len(x), device=x.device)
        for _ in range(max_steps):
            rows, start = x[moving], z[moving]
            at = _Expansion.around(network, self.likelihood, rows, start)
            now = at.log_prob - 0.5 * _quadratic(start - self.mean, precision)
            gradient = at.gradient - (start - self.mean) @ precision
            step = torch.linalg.solve(at.information + precision, gradient)
            gain = (gradient * step).sum(-1)
            length = torch.ones_like(gain)
            for _ in range(HALVINGS):
                trial = start + length[:, None] * step
                better = height(rows, trial) >= now
                if better.all():
                    break
                length = torch.where(better, length, length / 2)
            z[moving[better]] = trial[better]
            moving = moving[better & (gain > MODE_TOLERANCE)]
            if len(moving) == 0:
                break
        return z


def _quadratic(centered: Tensor, precision: Tensor) -> Tensor:
    return (centered @ precision * centered).sum(-1)


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
        return cls.at(likelihood, x, z, out, jacobian)

    @classmethod
    def at(
        cls, likelihood: Likelihood, x: Tensor, z: Tensor, out: Tensor, jacobian: Tensor
    ) -> "_Expansion":
        """The same with the decoder's output (n, d) and its Jacobian (n, d, k) known."""

        def log_prob(out: Tensor) -> tuple[Tensor, Tensor]:
            rows = likelihood.log_prob(x, out)
            return rows.sum(), rows

        score, rows = torch.func.grad(log_prob, has_aux=True)(out)
        gradient = (jacobian.mT @ score[..., None])[..., 0].double()
        weighted = likelihood.curvature(out)[..., None] * jacobian
        return cls(z, out, jacobian, rows.double(), gradient, (jacobian.mT @ weighted).double())


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
    density = Density(_with_noise(network.likelihood, x, out, 0 * out, shares), mean, covariance)
    for _ in range(RELINEARIZATIONS):
        before = density
        # Codes need not be settled before the density is: the next round goes on from them.
        z = density.search(network, x, z, ESTIMATION_STEPS)
        at = _Expansion.around(network, before.likelihood, x, z)
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
        # The expansion's score and curvature follow the noise; its output and Jacobian stay.
        at = _Expansion.at(density.likelihood, x, at.z, at.out, at.jacobian)
        precision = torch.linalg.inv(density.covariance)
        posterior = torch.linalg.inv(at.information + precision)
        pulled = at.gradient + (at.information @ at.z[..., None])[..., 0]
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
    """Largest relative change of the covariance and of the likelihood's noise."""
    old, new = before.likelihood.state_dict(), after.likelihood.state_dict()
    pairs = [(before.covariance, after.covariance)] + [(old[name], new[name]) for name in old]
    return max(float((b - a).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs)
