"""Expectation-maximization of the parameters of the density `Laplace`, with a fixed decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skae.density.expansion import Expansion
from skae.density.weights import RowWeights, sums
from skae.nn.likelihoods.base import Statistics
from skae.nn.prior import inverse

if TYPE_CHECKING:
    from skae.density.laplace import Laplace

EM_ITERATIONS = 50
"""Largest number of iterations for each linearization of the decoder."""

MODE_ITERATIONS, MODE_TOLERANCE = 10, 1e-2
"""Largest number of iterations of `run_em_of_modes`, and the change of the parameters below which
they end."""


def run_em(
    density: Laplace,
    expansions: list[Expansion],
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
        if change(first, second) < tolerance:
            return second
        extrapolates = second.likelihood.has_common_scale
        density = _extrapolate(density, first, second) if extrapolates else second
    return second


def run_em_of_modes(
    density: Laplace, expansions: list[Expansion], weights: list[RowWeights]
) -> Laplace:
    """Run expectation-maximization with the decoder linearized at the codes of each iteration.

    Each iteration first moves the codes of `expansions` towards the most probable ones. It is for
    likelihoods whose information depends on the code. Where that is small, a step that relies on
    the information alone may lead far beyond the most probable code.
    """
    for _ in range(MODE_ITERATIONS):
        for expansion in expansions:
            density.search(expansion, 1)
        before, density = density, _em_iteration(density, expansions, weights, moves=False)
        if change(before, density) < MODE_TOLERANCE:
            break
    return density


def _em_iteration(
    density: Laplace, expansions: list[Expansion], weights: list[RowWeights], moves: bool = True
) -> Laplace:
    """Compute the posteriors of codes under a density; return the density that fits them best.

    If `moves` is False, the codes of the expansions are the means of the posteriors.
    """
    likelihood, prior = density.likelihood, density.prior
    of_codes: list[dict[str, Tensor]] = []
    of_errors: list[list[Statistics]] = []
    for expansion, weight in zip(expansions, weights, strict=True):
        factor = expansion.factor(likelihood)
        covariance = inverse(expansion.precision(prior, factor=factor))[0]
        gradient = factor * expansion.gradient + prior.score(expansion.z)
        shift = (covariance @ gradient[..., None])[..., 0] * moves
        if not likelihood.is_known:
            squares = expansion.squares(likelihood, factor, shift, covariance, weight.errors_bessel)
            of_errors.append(weight.statistics(likelihood, expansion.rows, squares))
        of_codes.append(prior.statistics(expansion.z + shift, covariance, weight.codes))
    if of_errors:
        likelihood = weights[0].estimate_noise(likelihood, of_errors)
    prior = prior.update(sums(of_codes), weights[0].codes_bessel)
    return replace(density, likelihood=likelihood, prior=prior)


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
    return replace(second, likelihood=likelihood, prior=prior)


def change(before: Laplace, after: Laplace) -> float:
    """Return the larger of the relative changes of the prior and of the noise variance."""
    return max(before.prior.change(after.prior), before.likelihood.change(after.likelihood))
