"""The density of rows with continuous deterministic codes, by Laplace's method.

A fitted autoencoder defines a generative model: a code z is drawn from the prior, and a row x from
likelihood(decoder(z)). This module estimates the parameters of the prior and of the likelihood
after the network is trained, and computes the log-density of rows under the model. The integral
over codes is exact for a linear decoder with a normal prior and normal noise. If the decoder is
also the solution of PCA and all columns have the same noise variance, the model is probabilistic
PCA (Tipping & Bishop 1999).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import skae._compat.torch  # noqa: F401  # silences the first call of torch.func.jvp
from skae.density.weights import RowWeights, sums
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.inputs import Inputs
from skae.nn.latent import Code, Deterministic
from skae.nn.likelihoods.base import Likelihood, Statistics
from skae.nn.locks import process_lock
from skae.nn.network import Network
from skae.nn.prior import WIDEST, Prior, invertible, leading_axes

EXPANSION_BYTES = 32 * 2**20
"""Largest memory, in bytes, of the expansions of one chunk of rows."""

JACOBIAN_BYTES = 256 * 2**20
"""Largest memory, in bytes, of all Jacobians from which the noise variance of each column is
estimated."""

ESTIMATION_ROWS = 2048
"""Largest number of rows from which the prior and the noise are estimated."""

BLOCK_ROWS = 128
BLOCK_BYTES = 2 * 2**20
"""Largest number of rows that are differentiated at once, and largest size of their Jacobians in
bytes. The Jacobians should fit into the processor's cache."""

SEARCH_STEPS = 20
"""Largest number of Gauss-Newton steps to the most probable code of a row. Most rows need few."""

MODE_TOLERANCE = 1e-6
"""The search for the most probable code of a row ends when the gain of a step, defined in
`Laplace._newton_step`, is at most this number of nats."""

N_STEP_LENGTHS = 6
"""Number of step lengths to try, each half of the previous one. The search for the most probable
code of a row ends if all of them decrease the joint log-density of the row and the code."""

EM_ITERATIONS = 50
EM_TOLERANCE = 1e-10
"""Largest number of iterations of expectation-maximization for each linearization of the decoder,
and the relative change of the parameters, as `_change` defines it, below which the last run ends.
The earlier runs end below `RELINEARIZE_TOLERANCE`."""

EM_ITERATIONS_ALL = 6
"""Largest number of iterations for all chunks of rows, if there are several and the iterations are
extrapolated. The earlier runs use the first chunk, so that the last run starts near its solution.
"""

RELINEARIZATIONS = 3
RELINEARIZE_TOLERANCE = 1e-2
ESTIMATION_STEPS = 1
"""Largest number of times that `Laplace.estimate` linearizes the decoder at improved codes, the
relative change of the parameters below which no further linearization follows, and the number of
Gauss-Newton steps that improve the codes each time."""


_forward_mode_lock = process_lock()
"""Only one thread may use forward-mode differentiation at a time, because torch keeps its nesting
level per process, not per thread."""


@dataclass
class Laplace:
    """Density of rows, with Laplace's approximation of the integral over the code of each row.

    The joint density of a row and its code is approximated by a multiple of a normal density of the
    code, whose mean is the most probable code of the row.

    Attributes
    ----------
    likelihood : Likelihood
        Distribution of a row given its code, in the network's dtype. An unknown noise variance is
        estimated after training.
    prior : Prior
        Distribution of codes, in float64.
    """

    min_validation_rows: ClassVar[int] = 1

    likelihood: Likelihood
    prior: Prior

    @classmethod
    @torch.no_grad()
    def estimate(
        cls,
        network: "Network | _SubspaceNetwork",
        likelihood: Likelihood,
        batch: Batch,
        held_out: Tensor,
    ) -> "Laplace":
        """Estimate the prior and the noise by expectation-maximization; the decoder is fixed.

        A fixed prior and a known noise variance stay unchanged.

        Parameters
        ----------
        network : Network
            Trained network.
        likelihood : Likelihood
            Likelihood of the network, or the same likelihood with a known noise variance.
        batch : Batch
            Rows in random order. Only the first `ESTIMATION_ROWS` are used, or fewer if the
            Jacobians that are kept for one noise variance per column would exceed
            `JACOBIAN_BYTES`. If codes have more than `WIDEST` components, the leading axes of the
            codes are computed from all rows.
        held_out : Tensor of shape (n,), bool
            Whether each row is a validation row, on which the network was not trained. The noise
            variance is estimated from the validation rows among the used rows, or from all used
            rows if there are none.

        Returns
        -------
        density : Laplace
        """
        family = network.latent.prior
        if network.latent.n_components > WIDEST and not family.is_fixed:
            # The time of each step grows with the cube of the number of components, so only the
            # leading axes of the codes are used.
            weight = batch.weight.double() / batch.weight.double().sum()
            z = network.encode(batch).mean.double()
            center = weight @ z
            axes = leading_axes((z - center).mT * weight @ (z - center))[1]
            inner = cls.estimate(
                _SubspaceNetwork(network, center, axes), likelihood, batch, held_out
            )
            return Laplace(inner.likelihood, inner.prior.extended(center, axes))
        n_rows = ESTIMATION_ROWS
        if not likelihood.has_common_scale:
            n_rows = min(n_rows, max(1, JACOBIAN_BYTES // _jacobian_bytes(network, likelihood)))
        batch = batch.map(lambda part: part[:n_rows])
        weights = RowWeights.from_rows(batch.weight, held_out[:n_rows])
        z = network.encode(batch).mean.double()
        prior = family.start(z, weights.codes, weights.codes_bessel)
        rows, out = network.inputs.modelled(batch), network.outputs(z.to(batch.x), batch)
        squares = weights.errors_bessel * likelihood.squares(rows, out).double()
        of_errors = weights.statistics(likelihood, rows, squares)
        likelihood = weights.estimate_noise(likelihood, [of_errors])
        density = Laplace(likelihood, prior)
        sizes = [len(part) for part in z.split(_rows_at_once(network, likelihood))]
        chunks = zip(batch.split(sizes[0]), z.split(sizes), strict=True)
        expansions = [_Expansion(network, likelihood, *chunk) for chunk in chunks]
        # The first chunk suffices to find where the decoder is linearized.
        first, size = expansions[:1], sizes[0]
        of_first = [RowWeights.from_rows(batch.weight[:size], held_out[:size])]
        density = _run_em(density, first, of_first, RELINEARIZE_TOLERANCE)
        for _ in range(RELINEARIZATIONS):
            before = density
            # The codes need not have converged, because the next search continues from them.
            density.search(first[0], ESTIMATION_STEPS)
            density = _run_em(before, first, of_first, RELINEARIZE_TOLERANCE)
            if _change(before, density) < RELINEARIZE_TOLERANCE:
                break
        for expansion in expansions[1:]:
            density.search(expansion, RELINEARIZATIONS * ESTIMATION_STEPS)
        n_iterations = EM_ITERATIONS
        if len(sizes) > 1 and likelihood.has_common_scale:
            density = _run_em(density, first, of_first, EM_TOLERANCE)
            n_iterations = EM_ITERATIONS_ALL
        return _run_em(density, expansions, weights.split(sizes), EM_TOLERANCE, n_iterations)

    def log_prob(self, network: "Network | _SubspaceNetwork", batch: Batch) -> Tensor:
        """Compute the log-density of rows in nats, shape (n,), float64."""
        restricted = self.prior.restricted()
        if restricted is not None:
            prior, center, axes = restricted
            subspace = _SubspaceNetwork(network, center, axes)
            return Laplace(self.likelihood, prior).log_prob(subspace, batch)
        size = _rows_at_once(network, self.likelihood)
        return torch.cat([self._log_prob(network, chunk) for chunk in batch.split(size)])

    def _log_prob(self, network: "Network | _SubspaceNetwork", batch: Batch) -> Tensor:
        expansion = _Expansion(network, self.likelihood, batch, network.encode(batch).mean.double())
        self.search(expansion)
        log_joint, gain = self._newton_step(expansion, slice(None), expansion.rows)[:2]
        log_det = torch.linalg.slogdet(self.code_precision(expansion)).logabsdet
        # After convergence, the expansion predicts that the log-density at the mode is higher by
        # gain / 2.
        correction = torch.where(gain <= MODE_TOLERANCE, gain / 2, 0.0)
        # The terms k / 2 log(2 pi) of the prior and of the normal integral cancel.
        return log_joint + correction - 0.5 * (log_det - 2 * self.prior.constant)

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Draw codes (n, k) from the prior."""
        return self.prior.draw(n, draws)

    def is_finite(self) -> bool:
        """Return whether all parameters are finite."""
        return self.likelihood.is_finite() and self.prior.is_finite()

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters of the prior."""
        return self.prior.tensors()

    @classmethod
    def restore(
        cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]
    ) -> "Laplace":
        """Return the density with this likelihood and the parameters `tensors` of the prior.

        Raises ValueError if they are not the parameters of a prior of this network.
        """
        latent = network.latent
        return Laplace(likelihood, latent.prior.restore(tensors, latent.n_components))

    def search(self, expansion: "_Expansion", max_steps: int = SEARCH_STEPS) -> None:
        """Move an expansion to the most probable codes of its rows, by damped Gauss-Newton steps.

        Each row has its own stopping criterion, so its result does not depend on the other rows.

        Parameters
        ----------
        expansion : _Expansion
            Expansion at the initial codes; it is changed in place.
        max_steps : int
            Largest number of steps.
        """
        expansion.set_likelihood(self.likelihood)
        active = torch.arange(len(expansion.z), device=expansion.z.device)
        for _ in range(max_steps):
            batch = _select_rows(expansion.batch, active)
            rows = expansion.network.inputs.modelled(batch)
            log_joint, gain, step = self._newton_step(expansion, active, rows)
            start, length = expansion.z[active], torch.ones_like(gain)
            for _ in range(N_STEP_LENGTHS):
                trial = start + length[:, None] * step
                out = expansion.network.outputs(trial.to(batch.x), batch)
                log_likelihood = self.likelihood.log_prob(rows, out).double()
                accepted = log_likelihood + self.prior.height(trial) >= log_joint
                if accepted.all():
                    break
                length = torch.where(accepted, length, length / 2)
            accepted &= gain > MODE_TOLERANCE
            active = active[accepted]
            if len(active) == 0:
                break
            expansion.move(active, trial[accepted])

    def code_precision(
        self, expansion: "_Expansion", index: Tensor | slice = slice(None)
    ) -> Tensor:
        """Compute the precisions (m, k, k) of the codes given the rows at an index.

        If the noise is so small that the precision of the prior is lost to rounding, a decoder that
        ignores a direction of the codes has a singular matrix, which is made invertible.
        """
        z = expansion.z[index]
        return invertible(expansion.information[index] + self.prior.precision(z))

    def _newton_step(
        self, expansion: "_Expansion", index: Tensor | slice, rows: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute a Gauss-Newton step from the codes of rows to their most probable codes.

        Parameters
        ----------
        expansion : _Expansion
            Expansion of the log-likelihood at the current codes.
        index : Tensor or slice
            Selects m rows of the expansion.
        rows : Batch
            The modelled columns of these rows.

        Returns
        -------
        log_joint : Tensor of shape (m,)
            Joint log-density of each row and its code, in nats, without the terms of the prior that
            do not depend on the code.
        gain : Tensor of shape (m,)
            Twice the increase of `log_joint`, in nats, that the expansion predicts for `step`.
        step : Tensor of shape (m, k)
            Change of the codes at full step length.
        """
        z = expansion.z[index]
        gradient = expansion.gradient[index] + self.prior.score(z)
        step = torch.linalg.solve(self.code_precision(expansion, index), gradient)
        log_likelihood = self.likelihood.log_prob(rows, expansion.out[index]).double()
        return log_likelihood + self.prior.height(z), (gradient * step).sum(-1), step


class _SubspaceNetwork:
    """A network whose codes are coordinates of another network's codes along some axes.

    Parameters
    ----------
    network : Network or _SubspaceNetwork
        Network with codes of length k.
    center : Tensor of shape (k,)
        Code of `network` that corresponds to the code 0 of the new network.
    axes : Tensor of shape (k, m)
        Orthonormal axes. The codes of the new network have length m.
    """

    def __init__(self, network: "Network | _SubspaceNetwork", center: Tensor, axes: Tensor) -> None:
        self.inputs: Inputs = network.inputs
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
    """Second-order expansion of the log-likelihood of rows around their codes.

    In the shapes, n is the number of rows, k the number of components of a code, and d the number
    of outputs of the decoder per row. `rows`, `out` and `jacobian` have the network's dtype. The
    other tensors are float64.

    Parameters
    ----------
    network : Network or _SubspaceNetwork
        Network that decodes the codes.
    likelihood : Likelihood
        Distribution of rows given the outputs of the decoder.
    batch : Batch
        The rows.
    z : Tensor of shape (n, k)
        Codes around which the log-likelihood is expanded.

    Attributes
    ----------
    rows : Batch
        The modelled columns of the batch.
    out : Tensor of shape (n, d)
        Outputs of the decoder at `z`.
    errors : Tensor of shape (n,)
        Sum of the squared errors of each row. They are 0 if the noise is known, because they are
        not needed then.
    gradient : Tensor of shape (n, k)
        Derivative of the log-likelihood with respect to the code.
    information : Tensor of shape (n, k, k)
        Fisher information of the code.
    jacobian : Tensor of shape (n, d, k) or None
        Derivative of `out` with respect to the code, from which `gradient` and `information` are
        computed again if the noise changes. It is None for a likelihood with a common scale,
        because a change of the noise then only multiplies them by one factor.
    """

    def __init__(
        self, network: "Network | _SubspaceNetwork", likelihood: Likelihood, batch: Batch, z: Tensor
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
        self._block_size = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (d * k * batch.x.element_size())))
        self.move(torch.arange(n, device=z.device), z)

    def move(self, index: Tensor, z: Tensor) -> None:
        """Expand the rows at `index` (m,) around other codes `z` (m, k)."""
        self.z[index] = z
        for block in index.split(self._block_size):
            batch = _select_rows(self.batch, block)
            rows = self.network.inputs.modelled(batch)
            point = self.z[block].to(batch.x)
            self.out[block], jacobian = _linearize(self.network.outputs, point, batch)
            if not self.likelihood.is_known:
                squares = self.likelihood.squares(rows, self.out[block])
                self.errors[block] = squares.sum(-1).double()
            self._update_derivatives(block, rows, jacobian)
            if self.jacobian is not None:
                self.jacobian[block] = jacobian

    def set_likelihood(self, likelihood: Likelihood) -> None:
        """Replace the likelihood by one of the same family and update the derivatives."""
        if likelihood is self.likelihood:
            return
        old, self.likelihood = self.likelihood, likelihood
        if self.jacobian is None:
            factor = likelihood.rescaled(old)
            self.gradient *= factor
            self.information *= factor
        else:
            for block in self._blocks():
                rows = _select_rows(self.rows, block)
                self._update_derivatives(block, rows, self.jacobian[block])

    def squares(self, shift: Tensor, covariance: Tensor, bessel: Tensor) -> Tensor:
        """Compute the expected squared errors for codes that follow N(z + shift, covariance).

        The decoder is linearized at `z`.

        Parameters
        ----------
        shift : Tensor of shape (n, k)
            Difference between the mean of each code and `z`.
        covariance : Tensor of shape (n, k, k)
            Covariance of each code.
        bessel : Tensor of shape ()
            Bessel's correction. It multiplies the squared errors at the means of the codes, but not
            the part that the covariance adds.

        Returns
        -------
        squares : Tensor of shape (n, n_columns) or (n, 1)
            Expected squared errors of cells, 0 for missing ones. If the likelihood has a common
            scale, they are averaged over the columns of each row.
        """
        if self.jacobian is None:
            slope = (self.information @ shift[..., None])[..., 0] - 2 * self.gradient
            spread = torch.einsum("nij,nij->n", self.information, covariance)
            change = (slope * shift).sum(-1)
            return self.likelihood.row_squares(self.errors, change, spread, bessel)
        squares = torch.empty_like(self.rows.x)
        for block in self._blocks():
            jacobian, rows = self.jacobian[block], _select_rows(self.rows, block)
            out = self.out[block] + (jacobian @ shift[block].to(rows.x)[..., None])[..., 0]
            variance = (jacobian @ covariance[block].to(rows.x) * jacobian).sum(-1)
            squares[block] = self.likelihood.squares(rows, out, variance, bessel)
        return squares.double()

    def _blocks(self) -> list[slice]:
        """Return slices of all rows in blocks."""
        size = self._block_size
        return [slice(i, i + size) for i in range(0, len(self.z), size)]

    def _update_derivatives(self, index: Tensor | slice, rows: Batch, jacobian: Tensor) -> None:
        """Compute the gradient and the information of the rows at `index`."""
        out = self.out[index]
        score = self.likelihood.score(rows, out)
        self.gradient[index] = (jacobian.mT @ score[..., None])[..., 0].double()
        self.information[index] = self.likelihood.information(rows, out, jacobian).double()


def _select_rows(batch: Batch, index: Tensor | slice) -> Batch:
    """Return the rows of a batch at an index."""
    return batch.map(lambda part: part[index])


def _linearize(
    outputs: Callable[[Tensor, Batch], Tensor], point: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Compute the decoder's outputs (n, d) at codes `point` (n, k), and the Jacobian (n, d, k)."""
    basis = torch.eye(point.shape[-1], dtype=point.dtype, device=point.device)

    def directional_derivative(tangent: Tensor) -> tuple[Tensor, Tensor]:
        out, derivative = torch.func.jvp(lambda z: outputs(z, batch), (point,), (tangent,))  # type: ignore[misc]
        return out, derivative

    with _forward_mode_lock:
        out, jacobian = torch.func.vmap(directional_derivative, out_dims=(None, -1))(  # type: ignore[arg-type]
            basis[:, None].expand(-1, *point.shape)
        )
    return out, jacobian


def _rows_at_once(network: "Network | _SubspaceNetwork", likelihood: Likelihood) -> int:
    """Return the number of rows, from 1 to 2,048, whose expansions fit into `EXPANSION_BYTES`."""
    k, d = network.latent.n_components, likelihood.n_outputs
    cell = network.inputs.center.element_size()
    # About four tables (n, d) and four stacks of matrices (n, k, k) exist at the same time.
    size = 4 * cell * d + 4 * 8 * k * k
    if not likelihood.has_common_scale:
        size += _jacobian_bytes(network, likelihood)
    return max(1, min(ESTIMATION_ROWS, EXPANSION_BYTES // size))


def _jacobian_bytes(network: "Network | _SubspaceNetwork", likelihood: Likelihood) -> int:
    """Return the size of the Jacobian of one row in bytes."""
    cell = network.inputs.center.element_size()
    return cell * likelihood.n_outputs * network.latent.n_components


def _run_em(
    density: Laplace,
    expansions: list[_Expansion],
    weights: list[RowWeights],
    tolerance: float,
    n_iterations: int = EM_ITERATIONS,
) -> Laplace:
    """Run expectation-maximization with the decoder linearized at the codes of `expansions`.

    It ends when the second iteration of a pair changes the parameters by less than `tolerance`,
    relative to their size, and after `n_iterations` iterations at the latest.

    For a likelihood with a common scale, each pair of iterations is followed by an extrapolation
    (SQUAREM, Varadhan & Roland 2008). The extrapolated iterations converge to the same parameters
    as plain iterations, in a fraction of their number. With one noise variance per column, they
    might converge to other parameters, so there is no extrapolation.
    """
    for _ in range(n_iterations // 2):
        first = _em_iteration(density, expansions, weights)
        second = _em_iteration(first, expansions, weights)
        if _change(first, second) < tolerance:
            return second
        extrapolates = second.likelihood.has_common_scale
        density = _extrapolate(density, first, second) if extrapolates else second
    return second


def _em_iteration(
    density: Laplace, expansions: list[_Expansion], weights: list[RowWeights]
) -> Laplace:
    """Compute the posteriors of codes under a density; return the density that fits them best."""
    likelihood, prior = density.likelihood, density.prior
    of_codes: list[dict[str, Tensor]] = []
    of_errors: list[list[Statistics]] = []
    for expansion, weight in zip(expansions, weights, strict=True):
        expansion.set_likelihood(likelihood)
        covariance = torch.linalg.inv(density.code_precision(expansion))
        # The posterior is proportional to the likelihood times the prior. `natural` and
        # `prior.pull` are the products of precision and mean of these two factors.
        natural = expansion.gradient + (expansion.information @ expansion.z[..., None])[..., 0]
        mean = (covariance @ (natural + prior.pull(expansion.z))[..., None])[..., 0]
        if not likelihood.is_known:
            squares = expansion.squares(mean - expansion.z, covariance, weight.errors_bessel)
            of_errors.append(weight.statistics(likelihood, expansion.rows, squares))
        of_codes.append(prior.statistics(mean, covariance, weight.codes))
    if of_errors:
        likelihood = weights[0].estimate_noise(likelihood, of_errors)
    return Laplace(likelihood, prior.update(sums(of_codes), weights[0].codes_bessel))


def _extrapolate(start: Laplace, first: Laplace, second: Laplace) -> Laplace:
    """Extrapolate the limit of expectation-maximization from two iterations.

    The first iteration changes `start` to `first`, and the second changes `first` to `second`. The
    extrapolation assumes that each iteration shortens the step by the same factor. The result is
    `second` if the extrapolated parameters are not finite, or if the extrapolated covariance of the
    prior is not positive definite.
    """
    points = [
        torch.cat([density.prior.coordinates(), density.likelihood.coordinates()])
        for density in (start, first, second)
    ]
    step, bend = points[1] - points[0], points[2] - 2 * points[1] + points[0]
    length = (step.norm() / bend.norm()).clamp_min(1.0)
    point = points[0] + 2 * length * step + length**2 * bend
    prior_point, likelihood_point = point.tensor_split([len(second.prior.coordinates())])
    prior = second.prior.at(prior_point)
    likelihood = second.likelihood.at(likelihood_point)
    if prior is None or not (point.isfinite().all() and likelihood.is_finite()):
        return second
    return Laplace(likelihood, prior)


def _change(before: Laplace, after: Laplace) -> float:
    """Return the larger of the relative changes of the prior and of the noise variance."""
    return max(before.prior.change(after.prior), before.likelihood.change(after.likelihood))
