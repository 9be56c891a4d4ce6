"""The integral over the code of a row by importance sampling, which starts at Laplace's method.

It is for tables with categories, for which the posterior of a code can be far from normal: the
probability of a category changes little once it is close to 0 or 1. Tables of binary numbers with
the Bernoulli likelihood keep Laplace's method.
"""

import math

import torch
from torch import Tensor

from skae.density.base import MAX_CELLS
from skae.density.search import Search

N_POINTS = 128
"""Number of codes that are drawn from each of two distributions, the prior and Laplace's normal
approximation of the posterior. With 128, the probabilities of all rows of tables of four columns of
categories had sums between 0.98 and 1.01 for 2, 3 and 20 components."""


def log_integral(found: Search) -> Tensor:
    """Estimate the log-densities of rows in nats, shape (n,), float64.

    Half of the codes are drawn from the prior, and half from the normal approximation of the
    posterior. They are weighted as draws from an equal mixture of both, so that no weight is large
    where one of them is small (Owen & Zhou 2000). The draws are transformed points of a Sobol
    sequence, which are the same in each call and for all rows.

    Parameters
    ----------
    found : Search
        Result of the search for the most probable codes of the rows.
    """
    network, likelihood = found.expansion.network, found.expansion.likelihood
    prior, batch, k = found.prior, found.expansion.batch, found.z.shape[1]
    points = normal_points(k).to(found.z)
    # Draws from the prior are the same for all rows.
    common = prior.transform(points)[:, None]
    common_log_prior = prior.log_prob(common)
    width = max(network.inputs.n_outputs, network.decoder.n_hidden)
    size = max(1, MAX_CELLS // (2 * N_POINTS * width))
    results = []
    for rows, mode, covariance in zip(
        batch.split(size), found.z.split(size), found.covariance.split(size), strict=True
    ):
        root = torch.linalg.cholesky_ex(covariance)[0]
        constant = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + k / 2 * math.log(2 * math.pi)
        own = mode + (root @ points[:, None, :, None])[..., 0]
        whitened = torch.linalg.solve_triangular(root, (common - mode)[..., None], upper=False)
        squares = torch.cat(
            [(points**2).sum(-1, keepdim=True).expand(own.shape[:-1]), (whitened**2).sum((-2, -1))]
        )
        log_prior = torch.cat([prior.log_prob(own), common_log_prior.expand(own.shape[:-1])])
        log_mixture = torch.logaddexp(log_prior, -squares / 2 - constant) - math.log(2)
        # They are decoded once if there are no conditions, which differ between rows.
        shared = common.expand_as(own) if network.inputs.n_conditions else common
        parts = [network.outputs(z.to(rows.x), rows) for z in (own, shared)]
        out = torch.cat([parts[0], parts[1].expand_as(parts[0])])
        log_prob = likelihood.log_prob(network.inputs.modelled(rows), out).double()
        results.append((log_prob + log_prior - log_mixture).logsumexp(0))
    return torch.cat(results) - math.log(2 * N_POINTS)


def normal_points(k: int) -> Tensor:
    """Return points (N_POINTS, k) that represent the standard normal distribution."""
    with torch.device("cpu"):
        engine = torch.quasirandom.SobolEngine(k, scramble=True, seed=0)
        uniform = engine.draw(N_POINTS, dtype=torch.float64)
    rounding = torch.finfo(torch.float32).eps
    return torch.special.ndtri(uniform.clamp(rounding, 1 - rounding))
