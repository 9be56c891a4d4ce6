"""Probabilistic PCA of tables with missing cells is the maximum of the likelihood."""

import numpy as np
import pytest
import torch

from skae.nn.gaps import axes_of_observed
from skae.nn.pca import LazyRows, column_moments, filled_rows, principal_axes

N, D, K = 300, 6, 2


def generator():
    return torch.Generator().manual_seed(0)


def table(share, n=N):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, K)) @ rng.normal(size=(K, D)) + 0.3 * rng.normal(size=(n, D)) + 2
    weight = torch.from_numpy(rng.integers(1, 4, n).astype(float))
    observed = torch.from_numpy(rng.random((n, D)) >= share)
    return torch.from_numpy(x), observed, weight


def lazy(values):
    return LazyRows(lambda rows: values[rows], tuple(values.shape))


def found(x, observed, weight, k=K):
    filled, moments = filled_rows(lazy(x), lazy(observed), weight)
    return axes_of_observed(filled, lazy(observed), weight, moments, k, generator()), moments


def test_without_missing_cells_it_is_pca():
    x, observed, weight = table(0.0)
    axes, moments = found(x, observed, weight)
    plain = column_moments(x, weight)
    torch.testing.assert_close(moments.center, plain.center)
    torch.testing.assert_close(moments.variance, plain.variance)
    values, expected = principal_axes(x, weight, plain, K, generator())
    torch.testing.assert_close(axes.values, values, rtol=1e-4, atol=0)
    torch.testing.assert_close(axes.axes, expected, rtol=0, atol=1e-4)
    rest = (plain.variance.sum() / plain.scale**2 - values.sum()) / (D - K)
    assert axes.rest == pytest.approx(float(rest), rel=1e-4)
    torch.testing.assert_close(axes.mean, torch.zeros(D).double(), rtol=0, atol=1e-5)


def log_likelihood(x, observed, weight, loadings, mean, log_noise):
    """Mean log-likelihood of the observed cells of rows."""
    covariance = loadings @ loadings.mT + log_noise.exp() * torch.eye(D).double()
    total = torch.zeros(()).double()
    for row, mask, share in zip(x, observed, weight / weight.sum(), strict=True):
        part = torch.distributions.MultivariateNormal(mean[mask], covariance[mask][:, mask])
        total = total + share * part.log_prob(row[mask])
    return total


def test_the_likelihood_of_observed_cells_is_stationary():
    x, observed, weight = table(0.25)
    axes, moments = found(x, observed, weight)
    u = (x - moments.center) / moments.scale
    leaves = [
        axes.axes * (axes.values - axes.rest).sqrt(),
        axes.mean.clone(),
        torch.tensor(axes.rest).double().log(),
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    value = log_likelihood(u, observed, weight, *leaves)
    for gradient in torch.autograd.grad(value, leaves):
        assert gradient.abs().max() < 1e-3
    moved = [leaves[0] * 1.05, leaves[1] + 0.05, leaves[2] + 0.1]
    for i, other in enumerate(moved):
        parts = [other if i == j else leaf for j, leaf in enumerate(leaves)]
        assert log_likelihood(u, observed, weight, *parts) < value


def test_weights_repeat_rows():
    x, observed, weight = table(0.2, n=60)
    times = weight.long()
    repeated = [part.repeat_interleave(times, 0) for part in (x, observed)]
    once, _ = found(x, observed, weight)
    again, _ = found(*repeated, torch.ones(int(times.sum())).double())
    torch.testing.assert_close(once.values, again.values)
    torch.testing.assert_close(once.axes, again.axes)


def test_a_column_without_observed_cells_has_no_loadings():
    x, observed, weight = table(0.1)
    observed[:, 3] = False
    axes, moments = found(x, observed, weight)
    assert moments.center[3] == 0
    assert all(part.isfinite().all() for part in (axes.values, axes.axes, axes.mean))
    assert axes.axes[3].abs().max() < 1e-6


def test_columns_without_variance_and_few_rows_stay_finite():
    x, observed, weight = table(0.3, n=3)
    x[:, 0] = 5.0
    axes, _ = found(x, observed, weight, k=3)
    assert all(part.isfinite().all() for part in (axes.values, axes.axes, axes.mean))
