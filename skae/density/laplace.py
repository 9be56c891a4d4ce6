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

from skae.density.expansion import Decoder, Expansion, Subspace
from skae.density.integral import log_integral
from skae.density.maximization import EM_ITERATIONS, change, run_em, run_em_of_modes
from skae.density.search import FAST_TOLERANCE, Search
from skae.density.weights import RowWeights
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network
from skae.nn.prior import WIDEST, Prior, leading_axes

EXPANSION_ROWS, EXPANSION_BYTES = 8192, 32 * 2**20
"""Largest number of rows in a chunk, and largest memory of their expansions in bytes."""

JACOBIAN_BYTES = 256 * 2**20
"""Largest memory, in bytes, of all Jacobians from which the noise variance of each column is
estimated."""

ESTIMATION_ROWS = 2048
"""Largest number of rows from which the prior and the noise are estimated."""

SEARCH_STEPS = 20
"""Largest number of steps to the most probable code of a row that fast steps do not find."""

EM_TOLERANCE = 1e-10
"""Relative change of the parameters, as `change` defines it, below which the last run of
expectation-maximization ends. The earlier runs end below `RELINEARIZE_TOLERANCE`."""

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


@dataclass
class Laplace:
    """Density of rows, with Laplace's approximation of the integral over the code of each row.

    The joint density of a row and its code is approximated by a multiple of a normal density of the
    code, whose mean is the most probable code of the row. For tables with categories,
    `log_integral` corrects the approximation.

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
        network: Decoder,
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
            inner = cls.estimate(Subspace(network, center, axes), likelihood, batch, held_out)
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
        keeps_jacobian = not likelihood.has_common_scale
        expansions = [Expansion(network, likelihood, *chunk, keeps_jacobian) for chunk in chunks]
        if not likelihood.has_constant_information:
            return run_em_of_modes(density, expansions, weights.split(sizes))
        # The first chunk suffices to find where the decoder is linearized.
        first, size = expansions[:1], sizes[0]
        of_first = [RowWeights.from_rows(batch.weight[:size], held_out[:size])]
        density = run_em(density, first, of_first, RELINEARIZE_TOLERANCE)
        for _ in range(RELINEARIZATIONS):
            before = density
            # The codes need not have converged, because the next search continues from them.
            density.search(first[0], ESTIMATION_STEPS)
            density = run_em(before, first, of_first, RELINEARIZE_TOLERANCE)
            if change(before, density) < RELINEARIZE_TOLERANCE:
                break
        for expansion in expansions[1:]:
            density.search(expansion, RELINEARIZATIONS * ESTIMATION_STEPS)
        n_iterations = EM_ITERATIONS
        if len(sizes) > 1 and likelihood.has_common_scale:
            density = run_em(density, first, of_first, EM_TOLERANCE)
            n_iterations = EM_ITERATIONS_ALL
        return run_em(density, expansions, weights.split(sizes), EM_TOLERANCE, n_iterations)

    def log_prob(self, network: Decoder, batch: Batch) -> Tensor:
        """Compute the log-density of rows in nats, shape (n,), float64."""
        density, network, _ = self._reduced(network)
        size = _rows_at_once(network, self.likelihood)
        return torch.cat([density._log_prob(network, chunk) for chunk in batch.split(size)])

    def mode(self, network: Decoder, batch: Batch) -> Tensor:
        """Return the most probable codes (n, k) of rows, given their observed cells."""
        density, network, codes = self._reduced(network)
        size = _rows_at_once(network, self.likelihood)
        return codes(torch.cat([density._found(network, part).z for part in batch.split(size)]))

    def draw_posterior(self, network: Decoder, batch: Batch, n: int, draws: Draws) -> Tensor:
        """Draw `n` codes (n, n_rows, k) for each row from Laplace's approximation."""
        density, network, codes = self._reduced(network)
        parts = []
        for chunk in batch.split(_rows_at_once(network, self.likelihood)):
            found = density._found(network, chunk)
            root = torch.linalg.cholesky_ex(found.covariance)[0]
            noise = draws.normal((n, *found.z.shape)).to(root)
            parts.append(found.z + (root @ noise[..., None])[..., 0])
        return codes(torch.cat(parts, 1))

    def _reduced(self, network: Decoder) -> tuple["Laplace", Decoder, Callable[[Tensor], Tensor]]:
        """Return the density and the network of codes along the axes to which the prior restricts.

        A function follows that converts such codes (..., m) to codes (..., k) of the network. If
        the prior restricts nothing, they are the density and the network themselves.
        """
        restricted = self.prior.restricted()
        if restricted is None:
            return self, network, lambda z: z
        prior, center, axes = restricted
        subspace = Subspace(network, center, axes)
        return Laplace(self.likelihood, prior), subspace, lambda z: center + z @ axes.mT

    def _found(self, network: Decoder, batch: Batch) -> Search:
        """Search for the most probable codes of rows."""
        z = network.encode(batch).mean.double()
        found = Search(Expansion(network, self.likelihood, batch, z), self.prior)
        found.run_fast(SEARCH_STEPS)
        return found

    def _log_prob(self, network: Decoder, batch: Batch) -> Tensor:
        found = self._found(network, batch)
        if not self.likelihood.has_constant_information:
            return log_integral(found)
        # After convergence, the expansion predicts that the log-density at the mode is higher by
        # gain / 2.
        correction = torch.where(found.gain <= FAST_TOLERANCE, found.gain / 2, 0.0)
        # The terms k / 2 log(2 pi) of the prior and of the normal integral cancel.
        return found.log_joint + correction - 0.5 * (found.log_det - 2 * self.prior.constant)

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

    def search(self, expansion: Expansion, max_steps: int) -> None:
        """Move an expansion towards the most probable codes, by at most `max_steps` steps."""
        expansion.set_likelihood(self.likelihood)
        Search(expansion, self.prior).run(max_steps)


def _rows_at_once(network: Decoder, likelihood: Likelihood) -> int:
    """Return the number of rows, from 1 to 8,192, whose expansions fit into `EXPANSION_BYTES`."""
    k, d = network.latent.n_components, likelihood.n_outputs
    cell = network.inputs.center.element_size()
    # About four tables (n, d) and four stacks of matrices (n, k, k) exist at the same time.
    size = 4 * cell * d + 4 * 8 * k * k
    if not likelihood.has_common_scale:
        size += _jacobian_bytes(network, likelihood)
    return max(1, min(EXPANSION_ROWS, EXPANSION_BYTES // size))


def _jacobian_bytes(network: Decoder, likelihood: Likelihood) -> int:
    """Return the size of the Jacobian of one row in bytes."""
    cell = network.inputs.center.element_size()
    return cell * likelihood.n_outputs * network.latent.n_components
