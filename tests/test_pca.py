"""Moments and principal axes: the same as PCA's, whichever way they are computed."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

import skae.nn.pca
from skae.nn.pca import column_moments, components_for_share, principal_axes


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def table():
    """150 x 40 with a falling spectrum, off centre."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(150, 40)) * np.geomspace(10, 0.1, 40) @ rng.normal(size=(40, 40)) + 50


BRANCHES = {"columns": (2048, False), "rows": (35, True), "subspace": (20, False)}
"""Limit of exactness, and whether the table is cut to fewer rows than columns."""


@pytest.mark.parametrize("branch", BRANCHES)
def test_axes_are_pcas(table, branch, monkeypatch):
    """By columns' Gram matrix, by rows' and by subspace iteration."""
    limit, wide = BRANCHES[branch]
    monkeypatch.setattr(skae.nn.pca, "EXACT_UP_TO", limit)
    X = table[:30] if wide else table
    x, weight = torch.tensor(X), torch.ones(len(X))
    at = column_moments(x, weight)
    values, axes = principal_axes(x, weight, at, 5, generator())
    pca = PCA(5, svd_solver="full").fit(X)
    variances = pca.explained_variance_ * (len(X) - 1) / len(X)
    np.testing.assert_allclose(values * at.scale**2, variances, rtol=1e-6)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-10)
    # An axis' error is of first order where its eigenvalue's is of second.
    assert subspace_angles(axes.numpy(), pca.components_.T).max() < 1e-3
    tolerance = 1e-3 if branch == "subspace" else 1e-8
    np.testing.assert_allclose(abs(axes.numpy().T @ pca.components_.T), np.eye(5), atol=tolerance)


@pytest.mark.parametrize("branch", BRANCHES)
def test_weights_are_repetitions(table, branch, monkeypatch):
    limit, wide = BRANCHES[branch]
    monkeypatch.setattr(skae.nn.pca, "EXACT_UP_TO", limit)
    X = table[:30] if wide else table
    counts = np.random.default_rng(0).integers(1, 4, len(X))
    if wide:
        monkeypatch.setattr(skae.nn.pca, "EXACT_UP_TO", 35)
    x, weight = torch.tensor(X), torch.tensor(counts, dtype=torch.float64)
    repeated = x.repeat_interleave(weight.long(), 0)
    at, again = column_moments(x, weight), column_moments(repeated, torch.ones(len(repeated)))
    for a, b in zip(at, again, strict=True):
        torch.testing.assert_close(a, b)
    values = principal_axes(x, weight, at, 4, generator())[0]
    monkeypatch.setattr(skae.nn.pca, "EXACT_UP_TO", 2048)
    expected = principal_axes(repeated, torch.ones(len(repeated)), again, 4, generator())[0]
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("branch", BRANCHES)
def test_axes_stop_at_the_rank(table, branch, monkeypatch):
    limit, wide = BRANCHES[branch]
    monkeypatch.setattr(skae.nn.pca, "EXACT_UP_TO", limit)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30 if wide else 150, 3)) @ rng.normal(size=(3, 40))
    x, weight = torch.tensor(X), torch.ones(len(X))
    values, axes = principal_axes(x, weight, column_moments(x, weight), 10, generator())
    assert values.shape == (3,)
    assert axes.shape == (40, 3)


def test_signs_make_the_largest_entry_positive(table):
    x, weight = torch.tensor(table), torch.ones(len(table))
    _, axes = principal_axes(x, weight, column_moments(x, weight), 6, generator())
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()
    _, mirrored = principal_axes(-x, weight, column_moments(-x, weight), 6, generator())
    torch.testing.assert_close(axes, mirrored)


def test_moments_are_numpys(table):
    weight = np.random.default_rng(1).random(len(table))
    at = column_moments(torch.tensor(table), torch.tensor(weight))
    mean = np.average(table, axis=0, weights=weight)
    variance = np.average((table - mean) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(at.center, mean)
    np.testing.assert_allclose(at.variance, variance)
    assert float(at.scale) == pytest.approx(np.sqrt(variance.mean()))


def test_chunks_do_not_matter(table, monkeypatch):
    x, weight = torch.tensor(table), torch.ones(len(table))
    whole = column_moments(x, weight)
    monkeypatch.setattr(skae.nn.pca, "CHUNK_CELLS", 17 * x.shape[1])
    for a, b in zip(whole, column_moments(x, weight), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_constant_column_has_no_variance(value):
    x = torch.full((1000, 2), value, dtype=torch.float64)
    at = column_moments(x, torch.rand(1000, generator=generator(), dtype=torch.float64))
    assert (at.variance == 0).all()
    assert float(at.scale) == 1
    axes = principal_axes(x, torch.ones(1000), at, 2, generator())[1]
    assert axes.shape == (2, 0) or not axes.isnan().any()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95, 0.999])
def test_share_of_variance_is_counted_as_pca_does(table, share):
    x, weight = torch.tensor(table), torch.ones(len(table))
    k = components_for_share(x, weight, column_moments(x, weight), share, generator())
    assert k == PCA(share, svd_solver="full").fit(table).n_components_
