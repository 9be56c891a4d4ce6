"""What `ContractiveAutoencoder` promises: the price of its code is the norm of a derivative."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from skae import ContractiveAutoencoder
from skae.nn.batch import Batch
from skae.nn.draws import Draws


def small(**parameters):
    defaults = {
        "n_components": 3,
        "hidden_layer_sizes": (16, 8),
        "max_epochs": 5,
        "random_state": 0,
    }
    return ContractiveAutoencoder(**(defaults | parameters))


def jacobians(fitted, X):
    """The encoder's Jacobian (n, k, d) at each row on the network's scale, row by row."""
    network = fitted.module_
    u = network.inputs.standardize(torch.tensor(X).to(network.like))
    return torch.stack([jacobian(lambda v: network.encoder(v[None])[0], row) for row in u])


def penalty(fitted, X, draws=None):
    """What the fitted latent charges for rows."""
    network = fitted.module_
    u = network.inputs.standardize(torch.tensor(X))
    code = network.latent(network.encoder(u), draws)
    return network.latent.penalty(code, u, network.encoder, torch.ones(len(u)), draws).detach()


@pytest.mark.parametrize("hidden", [(16,), (16, 8), (8, 8, 8)])
@pytest.mark.parametrize("linear_skip", [True, False])
def test_price_is_the_jacobians_squared_norm(curved, hidden, linear_skip):
    fitted = small(hidden_layer_sizes=hidden, linear_skip=linear_skip, contraction=0.3).fit(curved)
    expected = 0.3 * jacobians(fitted, curved).square().sum((1, 2))
    torch.testing.assert_close(penalty(fitted, curved), expected, rtol=1e-6, atol=0)
    # The rows differ: it is not the norm of a linear map.
    assert expected.std() > 1e-4 * expected.mean()


@pytest.mark.parametrize("max_epochs", [0, 5])
def test_a_linear_encoder_pays_for_its_weights(curved, max_epochs):
    fitted = small(hidden_layer_sizes=(), contraction=0.7, max_epochs=max_epochs).fit(curved)
    norm = fitted.module_.encoder.skip.weight.detach().square().sum()
    torch.testing.assert_close(penalty(fitted, curved), (0.7 * norm).expand(120), rtol=1e-9, atol=0)
    if max_epochs == 0:
        assert float(norm) == pytest.approx(3)


def test_the_objective_gains_the_price(curved):
    network = small(contraction=2.0, n_projections=None).fit(curved).module_
    batch = Batch(torch.tensor(curved), torch.ones(len(curved), dtype=torch.float64))
    with torch.no_grad():
        paid = network.losses(None, batch)
        network.latent.weight = 0.0
        free = network.losses(None, batch)
        network.latent.weight = 2.0
        u = network.inputs(batch)
        each = network.latent.penalty(network.encode(batch), u, network.encoder, batch.weight, None)
    torch.testing.assert_close(paid - free, each)


@pytest.mark.parametrize("n_projections", [1, 4])
def test_the_estimate_is_unbiased(curved, n_projections):
    fitted = small(n_projections=n_projections, contraction=1.0).fit(curved)
    exact = jacobians(fitted, curved[:5]).square().sum((1, 2))
    draws = Draws(torch.Generator().manual_seed(0), torch.float64)
    several = np.repeat(curved[:5], 4000, axis=0)
    estimates = penalty(fitted, several, draws).reshape(5, 4000)
    errors = (estimates.mean(1) - exact) / (estimates.std(1) / 4000**0.5)
    assert abs(errors).max() < 4
    # More projections, less noise: |J'v|^2 has twice the squared norm of J J' as its variance.
    J = jacobians(fitted, curved[:5])
    variance = 2 * (J @ J.mT).square().sum((1, 2)) / n_projections
    torch.testing.assert_close(estimates.var(1), variance, rtol=0.25, atol=0)


def test_without_draws_the_norm_is_exact(curved):
    fitted = small(n_projections=2, contraction=1.0).fit(curved)
    expected = jacobians(fitted, curved).square().sum((1, 2))
    torch.testing.assert_close(penalty(fitted, curved), expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_a_larger_weight_contracts_more(digits):
    """On rows it has not seen; at 0.1 all but a few directions are contracted."""
    train, test = digits[::2], digits[1::2][:300]
    norms = []
    for contraction in (0.01, 0.1, 1.0, 10.0):
        fitted = small(
            n_components=8, hidden_layer_sizes=(64,), contraction=contraction, max_epochs=15
        ).fit(train)
        J = jacobians(fitted, test)
        norms.append(float(J.square().sum((1, 2)).mean()))
        if contraction == 0.1:
            assert (torch.linalg.svdvals(J) < 1).double().mean() > 0.9
    assert (np.diff(norms) < 0).all()
    assert norms[-1] < 0.1 * norms[0]
