"""The density of rows whose codes are numbers, integrated out by Laplace's method.

A fit leaves a generative model: a code z ~ prior and a row x ~ likelihood(decoder(z)). Here what
prior and likelihood leave open is estimated once the network is trained, and rows are scored under
the model. For a linear decoder and a normal prior everything here is exact, and at PCA's solution
it is probabilistic PCA (Tipping & Bishop 1999).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import skae._compat.torch  # noqa: F401  # before the first derivative
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.inputs import Inputs
from skae.nn.latent import Code, Deterministic
from skae.nn.likelihoods.base import Likelihood
from skae.nn.locks import process_lock
from skae.nn.network import Network
from skae.nn.prior import WIDEST, Prior, leading_axes

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
"""Rounds of expectation-maximisation at most, and the relative change that ends them."""

RELINEARIZATIONS = 3
RELINEARIZE_TOLERANCE = 1e-2
ESTIMATION_STEPS = 1
"""Times that the density's estimation linearises the decoder anew, the relative change that ends
this, and the steps to better codes before each."""


_forward_mode = process_lock()
"""torch keeps the level of forward-mode differentiation for the process, not for the thread."""


@dataclass
class Laplace:
    """Codes that follow a prior, and rows given them.

    Attributes
    ----------
    likelihood : Likelihood
        As it was estimated after training, in the network's dtype.
    prior : Prior
        The distribution of codes, float64.
    """

    likelihood: Likelihood
    prior: Prior

    @classmethod
    @torch.no_grad()
    def estimate(cls, network: "Network | _Narrow", batch: Batch, held_out: Tensor) -> "Laplace":
        """Fit prior and likelihood by expectation-maximisation, the decoder as it is.

        Parameters
        ----------
        network : Network
        batch : Batch
            Rows in a random order; as many of the first as memory allows are used.
        held_out : Tensor of shape (n,), bool
            Rows that the network was not trained on: only they tell its errors. None of them: all
            do.
        """
        family = network.latent.prior
        if network.latent.n_components > WIDEST and not family.is_fixed:
            share = batch.weight.double() / batch.weight.double().sum()
            z = network.encode(batch).mean.double()
            center = share @ z
            axes = leading_axes((z - center).mT * share @ (z - center))[1]
            inner = cls.estimate(_Narrow(network, center, axes), batch, held_out)
            return Laplace(inner.likelihood, inner.prior.extended(center, axes))
        size = _rows_at_once(network, network.likelihood)
        batch = batch.map(lambda part: part[:size])
        shares = _Shares.of(batch.weight, held_out[:size])
        z = network.encode(batch).mean.double()
        prior = family.start(z, shares.codes, shares.codes_bessel)
        likelihood = network.likelihood
        rows, out = network.inputs.modelled(batch), network.outputs(z.to(batch.x), batch)
        squares = shares.errors_bessel * likelihood.squares(rows, out).double()
        likelihood = likelihood.update(likelihood.statistics(rows, squares, shares.errors))
        density = Laplace(likelihood, prior)
        expansion = _Expansion(network, likelihood, batch, z)
        density = _maximize(density, expansion, shares, RELINEARIZE_TOLERANCE)
        for _ in range(RELINEARIZATIONS):
            before = density
            # Codes need not be the most probable ones yet: the next round goes on from them.
            density.search(expansion, ESTIMATION_STEPS)
            density = _maximize(before, expansion, shares, RELINEARIZE_TOLERANCE)
            if _change(before, density) < RELINEARIZE_TOLERANCE:
                break
        return _maximize(density, expansion, shares, EM_TOLERANCE)

    def log_prob(self, network: "Network | _Narrow", batch: Batch) -> Tensor:
        """Log-density of rows in nats, shape (n,), float64."""
        narrow = self.prior.restricted()
        if narrow is not None:
            prior, center, axes = narrow
            return Laplace(self.likelihood, prior).log_prob(_Narrow(network, center, axes), batch)
        size = _rows_at_once(network, self.likelihood)
        return torch.cat([self._log_prob(network, chunk) for chunk in batch.split(size)])

    def _log_prob(self, network: "Network | _Narrow", batch: Batch) -> Tensor:
        expansion = _Expansion(network, self.likelihood, batch, network.encode(batch).mean.double())
        self.search(expansion)
        height, gain = self._ascent(expansion, slice(None), expansion.rows)[:2]
        log_det = torch.linalg.slogdet(
            expansion.information + self.prior.precision(expansion.z)
        ).logabsdet
        # What a resting row is short of its mode is known from the quadratic around it.
        short = torch.where(gain <= MODE_TOLERANCE, gain / 2, 0.0)
        # k/2 log 2 pi of the prior and of Laplace's integral cancel.
        return height + short - 0.5 * (log_det - 2 * self.prior.constant)

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) from the prior."""
        return self.prior.draw(n, draws)

    def is_finite(self) -> bool:
        """Whether its numbers are all finite."""
        return self.likelihood.is_finite() and self.prior.is_finite()

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes, beside the likelihood."""
        return self.prior.tensors()

    @classmethod
    def restore(
        cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]
    ) -> "Laplace":
        """The density that `tensors` came from."""
        latent = network.latent
        return Laplace(likelihood, latent.prior.restore(tensors, latent.n_components))

    def blend(self, new: "Laplace", share: float) -> "Laplace":
        """The mixture of this distribution and a `share` of a new one, as far as they tell it."""
        return Laplace(
            self.likelihood.blended(new.likelihood, share), self.prior.blended(new.prior, share)
        )

    def search(self, expansion: "_Expansion", max_steps: int = SEARCH_STEPS) -> None:
        """Move an expansion to its rows' most probable codes, by damped Gauss-Newton steps.

        Each row stops by its own measure, so that its result does not depend on the others.
        """
        expansion.under(self.likelihood)
        moving = torch.arange(len(expansion.z), device=expansion.z.device)
        for _ in range(max_steps):
            batch = _taken(expansion.batch, moving)
            rows = expansion.network.inputs.modelled(batch)
            now, gain, step = self._ascent(expansion, moving, rows)
            start, length = expansion.z[moving], torch.ones_like(gain)
            for _ in range(HALVINGS):
                trial = start + length[:, None] * step
                out = expansion.network.outputs(trial.to(batch.x), batch)
                fit = self.likelihood.log_prob(rows, out).double()
                better = fit + self.prior.height(trial) >= now
                if better.all():
                    break
                length = torch.where(better, length, length / 2)
            better &= gain > MODE_TOLERANCE
            moving = moving[better]
            if len(moving) == 0:
                break
            expansion.move(moving, trial[better])

    def _ascent(
        self, expansion: "_Expansion", index: Tensor | slice, rows: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The log-density of rows and codes, twice the gain of a full Gauss-Newton step, that step.

        The log-density lacks what `Prior.height` leaves out. An index says which rows are meant.
        """
        z = expansion.z[index]
        gradient = expansion.gradient[index] + self.prior.score(z)
        step = torch.linalg.solve(expansion.information[index] + self.prior.precision(z), gradient)
        fit = self.likelihood.log_prob(rows, expansion.out[index]).double()
        return fit + self.prior.height(z), (gradient * step).sum(-1), step


class _Narrow:
    """A network whose codes are coordinates along some axes of the code's space."""

    def __init__(self, network: "Network | _Narrow", center: Tensor, axes: Tensor) -> None:
        self.inputs: Inputs = network.inputs
        self.likelihood: Likelihood = network.likelihood
        self.latent = Deterministic(axes.shape[1])
        self.latent.prior = network.latent.prior
        self._network, self._center, self._axes = network, center, axes

    def encode(self, batch: Batch) -> Code:
        z = (self._network.encode(batch).mean.double() - self._center) @ self._axes
        return Code(z, z, z)

    def outputs(self, z: Tensor, batch: Batch) -> Tensor:
        axes, center = self._axes.to(z), self._center.to(z)
        return self._network.outputs(center + z @ axes.mT, batch)


class _Expansion:
    """The log-likelihood of rows of a batch to second order around codes `z` (n, k).

    There, `out` (n, d) is the decoder's output, `errors` (n,) are the rows' squared errors, and
    `gradient` (n, k) and Fisher `information` (n, k, k) the log-likelihood's. A likelihood with a
    common scale only scales these two when it is estimated anew; else the decoder's `jacobian`
    (n, d, k) is kept to compute them. Work over columns is done in the network's dtype, over codes
    in float64.
    """

    def __init__(
        self, network: "Network | _Narrow", likelihood: Likelihood, batch: Batch, z: Tensor
    ) -> None:
        n, k, d = *z.shape, likelihood.n_outputs
        self.network = network
        self.likelihood = likelihood
        self.batch, self.rows = batch, network.inputs.modelled(batch)
        self.z = torch.empty_like(z)
        self.out = batch.x.new_empty(n, d)
        self.gradient, self.information = z.new_empty(n, k), z.new_empty(n, k, k)
        self.errors = z.new_zeros(n)
        self.jacobian = None if likelihood.has_common_scale else batch.x.new_empty(n, d, k)
        self._block = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (d * k * batch.x.element_size())))
        self.move(torch.arange(n, device=z.device), z)

    def move(self, index: Tensor, z: Tensor) -> None:
        """Expand the rows at `index` around other codes."""
        self.z[index] = z
        for some in index.split(self._block):
            batch = _taken(self.batch, some)
            rows = self.network.inputs.modelled(batch)
            point = self.z[some].to(batch.x)
            self.out[some], jacobian = _linearize(self.network.outputs, point, batch)
            if not self.likelihood.is_known:
                squares = self.likelihood.squares(rows, self.out[some])
                self.errors[some] = squares.sum(-1).double()
            self._derive(some, rows, jacobian)
            if self.jacobian is not None:
                self.jacobian[some] = jacobian

    def under(self, likelihood: Likelihood) -> None:
        """Change to a likelihood of the same family."""
        if likelihood is self.likelihood:
            return
        old, self.likelihood = self.likelihood, likelihood
        if self.jacobian is None:
            growth = likelihood.rescaled(old)
            self.gradient *= growth
            self.information *= growth
        else:
            for some in self._blocks():
                self._derive(some, _taken(self.rows, some), self.jacobian[some])

    def squares(self, shift: Tensor, covariance: Tensor, bessel: Tensor) -> Tensor:
        """Expected squares of the errors of rows whose codes are N(z + shift, covariance).

        Of each column, (n, d), or where the likelihood has a common scale (n, 1), their means.
        `bessel` scales the part that is not the codes' variance.
        """
        if self.jacobian is None:
            moved = (self.information @ shift[..., None])[..., 0] - 2 * self.gradient
            spread = torch.einsum("nij,nij->n", self.information, covariance)
            change = (moved * shift).sum(-1)
            return self.likelihood.row_squares(self.errors, change, spread, bessel)
        squares = torch.empty_like(self.rows.x)
        for some in self._blocks():
            jacobian, rows = self.jacobian[some], _taken(self.rows, some)
            out = self.out[some] + (jacobian @ shift[some].to(rows.x)[..., None])[..., 0]
            variance = (jacobian @ covariance[some].to(rows.x) * jacobian).sum(-1)
            squares[some] = self.likelihood.squares(rows, out, variance, bessel)
        return squares.double()

    def _blocks(self) -> list[slice]:
        return [slice(i, i + self._block) for i in range(0, len(self.z), self._block)]

    def _derive(self, some: Tensor | slice, rows: Batch, jacobian: Tensor) -> None:
        out = self.out[some]
        score = self.likelihood.score(rows, out)
        self.gradient[some] = (jacobian.mT @ score[..., None])[..., 0].double()
        self.information[some] = self.likelihood.information(rows, out, jacobian).double()


def _taken(batch: Batch, index: Tensor | slice) -> Batch:
    """The rows of a batch at an index."""
    return batch.map(lambda part: part[index])


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
    k, d = network.latent.n_components, likelihood.n_outputs
    cell = network.inputs.center.element_size()
    # About four tables and four stacks of matrices are alive at a time.
    size = 4 * cell * d + 4 * 8 * k * k
    if not likelihood.has_common_scale:
        size += cell * d * k
    return max(1, min(2048, EXPANSION_BYTES // size))


@dataclass
class _Shares:
    """How much each row counts: for the prior of codes and, with validation rows, for the errors.

    The mean code comes from the same rows, so that squares around it are scaled up, as PCA scales
    them; so are the errors' unless validation rows tell them.
    """

    codes: Tensor
    codes_bessel: Tensor
    errors: Tensor
    errors_bessel: Tensor

    @classmethod
    def of(cls, weight: Tensor, held_out: Tensor) -> "_Shares":
        weight = weight.double()
        total = weight.sum()
        one = torch.ones_like(total)
        bessel = total / (total - 1) if total >= 2 else one
        if not held_out.any():
            return cls(weight / total, bessel, weight / total, bessel)
        judged = weight * held_out
        return cls(weight / total, bessel, judged / judged.sum(), one)


def _maximize(
    density: Laplace, expansion: _Expansion, shares: _Shares, tolerance: float
) -> Laplace:
    """Expectation-maximisation with the decoder linear around `at.z`.

    Where the likelihood has a common scale, every second round starts from an extrapolation of the
    last two (SQUAREM, Varadhan & Roland 2008), which ends where plain rounds would, in a fraction
    of them; with a scale for each column it may end elsewhere.
    """
    for _ in range(EM_ROUNDS // 2):
        first = _round(density, expansion, shares)
        second = _round(first, expansion, shares)
        if _change(first, second) < tolerance:
            return second
        extrapolates = second.likelihood.has_common_scale
        density = _extrapolate(density, first, second) if extrapolates else second
    return second


def _round(density: Laplace, expansion: _Expansion, shares: _Shares) -> Laplace:
    """The density that fits the codes' and outputs' posterior under a given one."""
    likelihood, prior = density.likelihood, density.prior
    expansion.under(likelihood)
    posterior = torch.linalg.inv(expansion.information + prior.precision(expansion.z))
    pulled = expansion.gradient + (expansion.information @ expansion.z[..., None])[..., 0]
    z = (posterior @ (pulled + prior.pull(expansion.z))[..., None])[..., 0]
    if not likelihood.is_known:
        squares = expansion.squares(z - expansion.z, posterior, shares.errors_bessel)
        likelihood = likelihood.update(
            likelihood.statistics(expansion.rows, squares, shares.errors)
        )
    return Laplace(likelihood, prior.update(z, posterior, shares.codes, shares.codes_bessel))


def _extrapolate(start: Laplace, first: Laplace, second: Laplace) -> Laplace:
    """Where two rounds lead to, if their steps go on to shrink at the rate at which they do."""
    points = [
        torch.cat([density.prior.coordinates(), density.likelihood.coordinates()])
        for density in (start, first, second)
    ]
    step, bend = points[1] - points[0], points[2] - 2 * points[1] + points[0]
    length = (step.norm() / bend.norm()).clamp_min(1.0)
    point = points[0] + 2 * length * step + length**2 * bend
    of_prior, of_likelihood = point.tensor_split([len(second.prior.coordinates())])
    prior = second.prior.at(of_prior)
    if prior is None or not point.isfinite().all():
        return second
    return Laplace(second.likelihood.at(of_likelihood), prior)


def _change(before: Laplace, after: Laplace) -> float:
    """Largest change of prior and likelihood, in terms of their largest numbers."""
    return max(before.prior.change(after.prior), before.likelihood.change(after.likelihood))
