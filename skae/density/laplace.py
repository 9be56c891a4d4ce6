"""The density of rows whose codes are normal, integrated out by Laplace's method.

A fit leaves a generative model: a code z ~ N(m, S) and a row x ~ likelihood(decoder(z)). Here m, S
(unless the latent gives them) and the likelihood's noise are estimated once the network is trained,
and rows are scored under it. For a linear decoder everything here is exact, and at PCA's solution
it is probabilistic PCA (Tipping & Bishop 1999).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

import skae._compat.torch  # noqa: F401  # before the first derivative
from skae.density.density import split
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.inputs import Inputs
from skae.nn.latent import Code, Deterministic
from skae.nn.likelihoods.gaussian import Likelihood
from skae.nn.locks import process_lock
from skae.nn.network import Network

WIDEST = 64
"""Axes of a code along which it varies in the model of its rows: a wide code's other axes, those of
least variance, are neglected, as the cost grows with the cube of their number."""

EXPANSION_BYTES = 32 * 2**20
"""Memory that the expansions of one chunk of rows may take."""

BLOCK_ROWS = 128
BLOCK_BYTES = 2 * 2**20
"""Rows differentiated at once, and their Jacobians' size: all should stay in the cache."""

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


_forward_mode = process_lock()
"""torch keeps the level of forward-mode differentiation for the process, not for the thread."""


@dataclass
class Laplace:
    """Normal codes, and rows given them.

    Attributes
    ----------
    likelihood : Likelihood
        With the noise that was estimated after training, in the network's dtype.
    mean : Tensor of shape (k,)
    covariance : Tensor of shape (k, k)
        Moments of the code's normal distribution, float64.
    is_given : bool
        Whether these moments are the latent's own and not learned from codes.
    """

    likelihood: Likelihood
    mean: Tensor
    covariance: Tensor
    is_given: bool

    @cached_property
    def precision(self) -> Tensor:
        """Inverse of the covariance."""
        return torch.linalg.inv(self.covariance)

    @property
    def _is_narrowed(self) -> bool:
        """Whether codes are so wide that only their leading axes vary."""
        return len(self.mean) > WIDEST and not self.is_given

    @cached_property
    def leading(self) -> tuple[Tensor, Tensor]:
        """Variances and axes of a wide code that are not neglected."""
        return _leading(self.covariance)

    @classmethod
    @torch.no_grad()
    def estimate(cls, network: "Network | _Narrow", batch: Batch, held_out: Tensor) -> "Laplace":
        """Fit m, S and the noise by expectation-maximisation, the decoder as it is.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            Rows in a random order; as many of the first as memory allows are used.
        weight : Tensor of shape (n,)
            How often each row counts.
        held_out : Tensor of shape (n,), bool
            Rows that the network was not trained on: only they tell the noise. None of them: all
            do.
        """
        if network.latent.n_components > WIDEST and not network.latent.has_prior:
            share = batch.weight.double() / batch.weight.double().sum()
            z = network.encode(batch).mean.double()
            center = share @ z
            axes = _leading((z - center).mT * share @ (z - center))[1]
            inner = cls.estimate(_Narrow(network, center, axes), batch, held_out)
            mean, covariance = center + axes @ inner.mean, axes @ inner.covariance @ axes.mT
            return Laplace(inner.likelihood, mean, covariance, False)
        size = _rows_at_once(network, network.likelihood)
        batch = batch.map(lambda part: part[:size])
        x, shares = network.inputs.modelled(batch).x, _Shares.of(batch.weight, held_out[:size])
        z = network.encode(batch).mean.double()
        one = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        if network.latent.has_prior:
            mean, covariance = torch.zeros_like(one[0]), one
        else:
            mean, covariance = _moments(z, shares)
            covariance = covariance + 1e-8 * covariance.diagonal().mean().clamp_min(1e-30) * one
        errors = network.likelihood.deviance(x, network.outputs(z.to(x.dtype), batch)).double()
        likelihood = _with_noise(network.likelihood, shares.noise_bessel * errors, shares, x)
        density = Laplace(likelihood, mean, covariance, network.latent.has_prior)
        at = _Expansion(network, likelihood, batch, z)
        density = _maximize(density, at, shares, RELINEARIZE_TOLERANCE)
        for _ in range(RELINEARIZATIONS):
            before = density
            # Codes need not be settled before the density is: the next round goes on from them.
            density.search(at, ESTIMATION_STEPS)
            density = _maximize(before, at, shares, RELINEARIZE_TOLERANCE)
            if _change(before, density) < RELINEARIZE_TOLERANCE:
                break
        return _maximize(density, at, shares, EM_TOLERANCE)

    def log_prob(self, network: "Network | _Narrow", batch: Batch) -> Tensor:
        """Log-density of rows in nats, shape (n,), float64."""
        if self._is_narrowed:
            values, axes = self.leading
            inner = Laplace(self.likelihood, torch.zeros_like(values), values.diag(), False)
            return inner.log_prob(_Narrow(network, self.mean, axes), batch)
        size = _rows_at_once(network, self.likelihood)
        return torch.cat([self._log_prob(network, chunk) for chunk in split(batch, size)])

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) from N(m, S)."""
        if self._is_narrowed:
            values, axes = self.leading
            root = axes * values.sqrt()
        else:
            root = torch.linalg.cholesky(self.covariance)
        return self.mean + draws.normal((n, root.shape[1])).double() @ root.mT

    def _log_prob(self, network: "Network | _Narrow", batch: Batch) -> Tensor:
        at = _Expansion(network, self.likelihood, batch, network.encode(batch).mean.double())
        self.search(at)
        height, gain = self._ascent(at, slice(None))[:2]
        log_dets = torch.linalg.slogdet(at.information + self.precision).logabsdet
        log_dets = log_dets + torch.linalg.slogdet(self.covariance).logabsdet
        # What a resting row is short of its mode is known from the quadratic around it.
        short = torch.where(gain <= MODE_TOLERANCE, gain / 2, 0.0)
        # k/2 log 2 pi of the prior and of Laplace's integral cancel.
        return height + short - 0.5 * log_dets

    def is_finite(self) -> bool:
        """Whether its numbers are all finite."""
        parts = (self.mean, self.covariance, self.likelihood.noise_variance)
        return all(bool(part.isfinite().all()) for part in parts)

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes, beside the likelihood."""
        return {"mean": self.mean, "covariance": self.covariance}

    @classmethod
    def restore(
        cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]
    ) -> "Laplace":
        """The density that `tensors` came from."""
        mean, covariance = tensors["mean"], tensors["covariance"]
        k = network.latent.n_components
        if (mean.shape, covariance.shape) != ((k,), (k, k)):
            raise ValueError("the moments of the codes are not those of this model")
        return Laplace(likelihood, mean, covariance, network.latent.has_prior)

    def blend(self, new: "Laplace", share: float) -> "Laplace":
        """The mixture of this distribution and a `share` of a new one, by its moments."""
        shift = new.mean - self.mean
        likelihood = self.likelihood.blended(new.likelihood, share)
        if self.is_given:
            return Laplace(likelihood, self.mean, self.covariance, True)
        covariance = torch.lerp(self.covariance, new.covariance, share)
        covariance = covariance + share * (1 - share) * torch.outer(shift, shift)
        # Keeps it invertible where the codes have moved by many orders of magnitude.
        covariance.diagonal().add_(1e-12 * covariance.diagonal().max())
        return Laplace(likelihood, self.mean + share * shift, covariance, False)

    def search(self, at: "_Expansion", max_steps: int = SEARCH_STEPS) -> None:
        """Move an expansion to its rows' most probable codes, by damped Gauss-Newton steps.

        Each row stops by its own measure, so that its result does not depend on the others.
        """
        at.under(self.likelihood)
        moving = torch.arange(len(at.x), device=at.x.device)
        for _ in range(max_steps):
            now, gain, step = self._ascent(at, moving)
            rows, start, length = at.x[moving], at.z[moving], torch.ones_like(gain)
            for _ in range(HALVINGS):
                trial = start + length[:, None] * step
                out = at.network.outputs(
                    trial.to(rows.dtype), at.batch.map(partial(_at, index=moving))
                )
                fit = self.likelihood.log_prob(rows, out).double()
                better = fit - 0.5 * self._distance(trial) >= now
                if better.all():
                    break
                length = torch.where(better, length, length / 2)
            better &= gain > MODE_TOLERANCE
            moving = moving[better]
            if len(moving) == 0:
                break
            at.move(moving, trial[better])

    def _ascent(self, at: "_Expansion", rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """How high rows are, twice what a full step to the peak gains, that step.

        The height is the log-probability of row and code, less constants of the normal
        distribution that cancel.
        """
        precision = self.precision
        gradient = at.gradient[rows] - (at.z[rows] - self.mean) @ precision
        step = torch.linalg.solve(at.information[rows] + precision, gradient)
        fit = self.likelihood.log_prob(at.x[rows], at.out[rows]).double()
        return fit - 0.5 * self._distance(at.z[rows]), (gradient * step).sum(-1), step

    def _distance(self, z: Tensor) -> Tensor:
        centered = z - self.mean
        return (centered @ self.precision * centered).sum(-1)


class _Narrow:
    """A network whose codes are coordinates along some axes of the code's space."""

    def __init__(self, network: "Network | _Narrow", center: Tensor, axes: Tensor) -> None:
        self.inputs: Inputs = network.inputs
        self.likelihood: Likelihood = network.likelihood
        self.latent = Deterministic(axes.shape[1])
        self._network, self._center, self._axes = network, center, axes

    def encode(self, batch: Batch) -> Code:
        z = (self._network.encode(batch).mean.double() - self._center) @ self._axes
        return Code(z, z, z)

    def outputs(self, z: Tensor, batch: Batch) -> Tensor:
        axes, center = self._axes.to(z), self._center.to(z)
        return self._network.outputs(center + z @ axes.mT, batch)


def _leading(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of a covariance, at most `WIDEST`, and their axes as columns."""
    values, axes = torch.linalg.eigh(covariance)
    # Keeps the distribution on the axes invertible.
    values = values.clamp_min(1e-12 * values[-1:].clamp_min(1e-30))
    return values[-WIDEST:], axes[:, -WIDEST:]


class _Expansion:
    """The log-likelihood of rows `x` (n, d) to second order around codes `z` (n, k).

    There, `out` (n, d) is the decoder's output, `errors` (n,) are the rows' squared errors, and
    `gradient` (n, k) and Fisher `information` (n, k, k) the log-likelihood's. Noise that all
    columns share only scales these two; else the decoder's `jacobian` (n, d, k) is kept to
    compute them anew. Work over columns is done in the network's dtype, over codes in float64.
    """

    def __init__(
        self, network: "Network | _Narrow", likelihood: Likelihood, batch: Batch, z: Tensor
    ) -> None:
        x = network.inputs.modelled(batch).x
        n, d, k = *x.shape, z.shape[1]
        self.network = network
        self.likelihood = likelihood
        self.batch = batch
        self.x = x
        self.z = torch.empty_like(z)
        self.out = torch.empty_like(x)
        self.gradient, self.information = z.new_empty(n, k), z.new_empty(n, k, k)
        self.errors = z.new_empty(n)
        self.jacobian = None if likelihood.has_one_noise else x.new_empty(n, d, k)
        self._block = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (d * k * x.element_size())))
        self.move(torch.arange(n, device=x.device), z)

    def move(self, index: Tensor, z: Tensor) -> None:
        """Expand the rows at `index` around other codes."""
        self.z[index] = z
        for rows in index.split(self._block):
            point = self.z[rows].to(self.x.dtype)
            self.out[rows], jacobian = _linearize(
                self.network.outputs, point, self.batch.map(partial(_at, index=rows))
            )
            errors = self.likelihood.deviance(self.x[rows], self.out[rows])
            self.errors[rows] = errors.sum(-1).double()
            self._derive(rows, jacobian)
            if self.jacobian is not None:
                self.jacobian[rows] = jacobian

    def under(self, likelihood: Likelihood) -> None:
        """Change to a likelihood with another noise."""
        if likelihood is self.likelihood:
            return
        old, new = self.likelihood.noise_variance.double(), likelihood.noise_variance.double()
        self.likelihood = likelihood
        if self.jacobian is None:
            growth = torch.where(new > 0, old / new, 1.0)[0]
            self.gradient *= growth
            self.information *= growth
        else:
            for rows in self._blocks():
                self._derive(rows, self.jacobian[rows])

    def squares(self, shift: Tensor, covariance: Tensor, bessel: Tensor) -> Tensor:
        """Expected squared errors of rows whose codes are N(z + shift, covariance).

        Of each column, (n, d), where each has its noise; else (n, 1), their means. `bessel` scales
        the part that is not the codes' variance.
        """
        if self.jacobian is None:
            noise = self.likelihood.noise_variance[0].double()
            moved = (self.information @ shift[..., None])[..., 0] - 2 * self.gradient
            spread = torch.einsum("nij,nij->n", self.information, covariance)
            errors = self.errors + noise * (moved * shift).sum(-1)
            total = bessel * errors + noise * spread
            return (total / self.x.shape[1])[:, None]
        squares = torch.empty_like(self.x)
        scale = self.network.inputs.scale
        for rows in self._blocks():
            jacobian, x = self.jacobian[rows], self.x[rows]
            out = self.out[rows] + (jacobian @ shift[rows].to(x.dtype)[..., None])[..., 0]
            variance = (jacobian @ covariance[rows].to(x.dtype) * jacobian).sum(-1)
            spread = self.likelihood.present(x, scale**2 * variance)
            squares[rows] = bessel * self.likelihood.deviance(x, out) + spread
        return squares.double()

    def _blocks(self) -> list[slice]:
        return [slice(i, i + self._block) for i in range(0, len(self.x), self._block)]

    def _derive(self, rows: Tensor | slice, jacobian: Tensor) -> None:
        x, out = self.x[rows], self.out[rows]
        score = self.likelihood.score(x, out)
        curvature = self.likelihood.present(x, self.likelihood.curvature(out))
        self.gradient[rows] = (jacobian.mT @ score[..., None])[..., 0].double()
        self.information[rows] = (jacobian.mT @ (curvature[..., None] * jacobian)).double()


def _at(part: Tensor, index: Tensor) -> Tensor:
    return part[index]


def _linearize(
    outputs: Callable[[Tensor, Batch], Tensor], point: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The decoder's output (n, d) for codes (n, k) and its Jacobian (n, d, k)."""
    basis = torch.eye(point.shape[-1], dtype=point.dtype, device=point.device)

    def push(tangent: Tensor) -> tuple[Tensor, Tensor]:
        out, image = torch.func.jvp(lambda z: outputs(z, batch), (point,), (tangent,))  # type: ignore[misc]
        return out, image

    with _forward_mode:
        out, jacobian = torch.func.vmap(push, out_dims=(None, -1))(  # type: ignore[arg-type]
            basis[:, None].expand(-1, *point.shape)
        )
    return out, jacobian


def _rows_at_once(network: "Network | _Narrow", likelihood: Likelihood) -> int:
    """How many rows' expansions fit the memory for them."""
    k, d = network.latent.n_components, network.inputs.n_outputs
    cell = network.inputs.center.element_size()
    # About four tables and four stacks of matrices are alive at a time.
    size = 4 * cell * d + 4 * 8 * k * k
    if not likelihood.has_one_noise:
        size += cell * d * k
    return max(1, min(2048, EXPANSION_BYTES // size))


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


def _moments(z: Tensor, shares: _Shares) -> tuple[Tensor, Tensor]:
    mean = shares.rows @ z
    centered = z - mean
    return mean, (centered.mT * shares.rows) @ centered * shares.bessel


def _with_noise(likelihood: Likelihood, squares: Tensor, shares: _Shares, x: Tensor) -> Likelihood:
    like = likelihood.noise_variance
    return likelihood.with_noise(squares.to(like), shares.noise.to(like), x)


def _maximize(density: Laplace, at: _Expansion, shares: _Shares, tolerance: float) -> Laplace:
    """Expectation-maximisation with the decoder linear around `at.z`.

    Where columns share their noise, every second round starts from an extrapolation of the last
    two (SQUAREM, Varadhan & Roland 2008), which ends where plain rounds would, in a fraction of
    them; with a noise for each column it may end elsewhere.
    """
    for _ in range(EM_ROUNDS // 2):
        first = _round(density, at, shares)
        second = _round(first, at, shares)
        if _change(first, second) < tolerance:
            return second
        one_noise = second.likelihood.has_one_noise
        density = _extrapolate(density, first, second) if one_noise else second
    return second


def _round(density: Laplace, at: _Expansion, shares: _Shares) -> Laplace:
    """The density that fits the codes' and outputs' posterior under a given one."""
    at.under(density.likelihood)
    precision = density.precision
    posterior = torch.linalg.inv(at.information + precision)
    pulled = at.gradient + (at.information @ at.z[..., None])[..., 0]
    z = (posterior @ (pulled + density.mean @ precision)[..., None])[..., 0]
    squares = at.squares(z - at.z, posterior, shares.noise_bessel)
    likelihood = _with_noise(density.likelihood, squares, shares, at.x)
    if density.is_given:
        return replace(density, likelihood=likelihood)
    mean, covariance = _moments(z, shares)
    covariance = covariance + torch.einsum("n,nij->ij", shares.rows, posterior)
    return replace(
        density, likelihood=likelihood, mean=mean, covariance=(covariance + covariance.mT) / 2
    )


def _extrapolate(start: Laplace, first: Laplace, second: Laplace) -> Laplace:
    """Where two rounds lead to, if their steps go on to shrink at the rate at which they do."""
    points = [
        torch.cat(
            [
                density.mean,
                density.covariance.flatten(),
                density.likelihood.noise_variance.double().clamp_min(1e-300).log(),
            ]
        )
        for density in (start, first, second)
    ]
    step, bend = points[1] - points[0], points[2] - 2 * points[1] + points[0]
    length = (step.norm() / bend.norm()).clamp_min(1.0)
    point = points[0] + 2 * length * step + length**2 * bend
    k = len(start.mean)
    mean, covariance, noise = point.split([k, k * k, len(point) - k - k * k])
    covariance = covariance.reshape(k, k)
    positive = torch.linalg.cholesky_ex(covariance).info == 0
    if not (positive and point.isfinite().all()):
        return second
    growth = (noise - points[2][-len(noise) :]).exp()
    likelihood = second.likelihood
    likelihood = likelihood.having_noise(
        likelihood.noise_variance * growth.to(likelihood.noise_variance)
    )
    return replace(second, likelihood=likelihood, mean=mean, covariance=covariance)


def _change(before: Laplace, after: Laplace) -> float:
    """Largest change of the covariance and of the noise, in terms of their largest entries."""
    pairs = [
        (before.covariance, after.covariance),
        (before.likelihood.noise_variance, after.likelihood.noise_variance),
    ]
    return max(float((b - a).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs)
