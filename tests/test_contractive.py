"""What `ContractiveAutoencoder` promises: the penalty of its code is the norm of a derivative."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from skae import ContractiveAutoencoder
from skae.nn.batch import Batch


def standardized(network, x):
    return (x - network.inputs.center) / network.inputs.scale


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
    u = standardized(network, torch.tensor(X).to(network.like))
    return torch.stack([jacobian(lambda v: network.encoder(v[None])[0], row) for row in u])


def test_the_penalty_of_principal_axes_is_their_number(curved):
    """Where training starts, a linear encoder has orthonormal weights."""
    network = small(hidden_layer_sizes=(), contraction=0.7, max_epochs=0).fit(curved).module_
    u = standardized(network, torch.tensor(curved))
    code = network.latent(network.encoder(u), None)
    penalty = network.latent.penalty(code, u, network.encoder, torch.ones(len(u)), None)
    torch.testing.assert_close(penalty, torch.full((120,), 0.7 * 3).double())


def test_the_objective_has_the_penalty_added(curved):
    network = small(contraction=2.0, n_projections=None).fit(curved).module_
    batch = Batch(torch.tensor(curved), torch.ones(len(curved), dtype=torch.float64))
    with torch.no_grad():
        with_penalty = network.losses(None, batch)
        network.latent.weight = 0.0
        without = network.losses(None, batch)
        network.latent.weight = 2.0
        u = network.inputs(batch)
        each = network.latent.penalty(network.encode(batch), u, network.encoder, batch.weight, None)
    torch.testing.assert_close(with_penalty - without, each)


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
