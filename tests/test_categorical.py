"""The categorical likelihood, and blocks of columns of different kinds."""

import itertools

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as Expected
from torch.distributions import Normal

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.encoding import OneHot
from skae.nn.likelihoods import Blocks, make_blocks
from skae.nn.likelihoods.categorical import Categorical
from skae.nn.likelihoods.gaussian import LEAST_OWN_NOISE, Gaussian

LEVELS = (2, 3, 3, 17)
N, K = 40, 2
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def levels(n=N, n_levels=LEVELS):
    columns = [torch.randint(k, (n,), generator=GENERATOR) for k in n_levels]
    return torch.stack(columns, 1).double()


def batch_of(x, observed=None):
    x = x if observed is None else torch.where(observed, x, torch.nan)
    return Batch(x, torch.ones(len(x), dtype=torch.float64), observed=observed)


@pytest.fixture
def likelihood():
    return Categorical(LEVELS).double()


def test_log_probabilities_are_those_of_torch(likelihood):
    x, out = levels(), 3 * random(N, sum(LEVELS))
    expected = [
        Expected(logits=part).log_prob(column)
        for part, column in zip(out.split(LEVELS, -1), x.unbind(1), strict=True)
    ]
    torch.testing.assert_close(likelihood.cell_log_prob(x, out), torch.stack(expected, 1))
    torch.testing.assert_close(likelihood.log_prob(batch_of(x), out), sum(expected))
    deviance = likelihood.deviance(batch_of(x), out)
    torch.testing.assert_close(deviance, -2 * torch.stack(expected, 1))


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_probabilities_sum_to_one_whatever_the_size_of_logits(likelihood, shift):
    out = random(3, sum(LEVELS)) * 50 + shift
    cells = torch.cartesian_prod(*(torch.arange(n) for n in LEVELS)).double()
    log_prob = likelihood.log_prob(batch_of(cells), out[:, None].expand(-1, len(cells), -1))
    torch.testing.assert_close(log_prob.logsumexp(1), torch.zeros(3).double())


def test_scores_are_derivatives_and_information_is_their_covariance(likelihood):
    x, out, jacobian = levels(), random(N, sum(LEVELS)), random(N, sum(LEVELS), K)
    leaf = out.clone().requires_grad_()
    (expected,) = torch.autograd.grad(likelihood.log_prob(batch_of(x), leaf).sum(), leaf)
    torch.testing.assert_close(likelihood.score(batch_of(x), out), expected)
    # The expectation over all cells of one column at a time, as columns are independent.
    information = likelihood.information(batch_of(x), out, jacobian)
    total = torch.zeros_like(information)
    for j, n in enumerate(LEVELS):
        only = torch.zeros_like(x, dtype=torch.bool)
        only[:, j] = True
        for level in range(n):
            cell = x.clone()
            cell[:, j] = level
            batch = batch_of(cell, only)
            slope = (likelihood.score(batch, out)[:, None] @ jacobian)[:, 0]
            share = likelihood.log_prob(batch, out).exp()
            total += share[:, None, None] * slope[:, :, None] * slope[:, None]
    torch.testing.assert_close(information, total)


def test_missing_cells_count_nothing(likelihood):
    x, out = levels(), random(N, sum(LEVELS))
    observed = torch.rand(x.shape, generator=GENERATOR) < 0.6
    batch = batch_of(x, observed)
    cells = torch.where(observed, likelihood.cell_log_prob(x, out), 0.0)
    torch.testing.assert_close(likelihood.log_prob(batch, out), cells.sum(1))
    is_missing = ~OneHot(LEVELS).spread(observed)
    assert (likelihood.score(batch, out)[is_missing] == 0).all()
    none = batch_of(x, torch.zeros_like(observed))
    assert not likelihood.information(none, out, random(N, sum(LEVELS), K)).any()


def test_draws_and_modes(likelihood):
    out = random(1, sum(LEVELS))
    draws = Draws(GENERATOR, torch.float64)
    drawn = likelihood.sample(out.expand(20_000, -1), draws)
    shares = likelihood.expected(out)[0]
    found = OneHot(LEVELS).double()(drawn).mean(0)
    torch.testing.assert_close(found, shares, atol=0.02, rtol=0)
    modes = [float(part.argmax()) for part in out[0].split(LEVELS)]
    assert likelihood.mean(out)[0].tolist() == modes


def test_the_start_has_the_shares_of_levels_and_their_slope(likelihood):
    x = levels(200)
    encoded = OneHot(LEVELS)(x)
    share = encoded.mean(0)
    scale = share.sqrt()
    bias, slope = likelihood.start(share, share * (1 - share), scale)
    torch.testing.assert_close(likelihood.expected(bias[None])[0], share)
    torch.testing.assert_close(likelihood.output_noise(bias), 1 / share)
    # A small change of the shares within each column, in units of the scale.
    change = torch.cat([part - part.mean() for part in random(sum(LEVELS)).split(LEVELS)])
    moved = likelihood.expected((bias + 1e-6 * slope * change / scale)[None])[0]
    expected = torch.cat(
        [c - p * c.sum() for p, c in zip(share.split(LEVELS), change.split(LEVELS), strict=True)]
    )
    torch.testing.assert_close((moved - share) / 1e-6, expected, atol=1e-4, rtol=1e-3)


def test_one_hot_codes():
    encoding = OneHot((0, 3, 0, 2))
    cells = torch.tensor([[1.5, 2.0, -1.0, 0.0], [torch.nan, torch.nan, 4.0, 1.0]])
    expected = [[1.5, 0, 0, 1, -1, 1, 0], [torch.nan, 0, 0, 0, 4, 0, 1]]
    torch.testing.assert_close(encoding(cells), torch.tensor(expected), equal_nan=True)
    spread = encoding.spread(torch.arange(4))
    assert spread.tolist() == [0, 1, 1, 1, 2, 3, 3]
    numbers = OneHot((0, 0))
    assert numbers(cells[:, :2]) is not None
    assert numbers.n_categories == 0


def test_blocks_add_their_parts():
    names = ["bernoulli", "gaussian", "gaussian", *["categorical"] * 4]
    blocks = make_blocks(names, [0, 0, 0, *LEVELS], "isotropic", False).double()
    assert isinstance(blocks, Blocks)
    scale = torch.cat([torch.tensor([0.5, 2.0, 5.0]), torch.full((sum(LEVELS),), 0.3)]).double()
    center = torch.cat([torch.tensor([0.5, 1.0, -3.0]), torch.full((sum(LEVELS),), 0.1)]).double()
    blocks.start(center, scale**2, scale)
    x = torch.cat([(random(N, 1) > 0).double(), random(N, 2), levels()], 1)
    out = random(N, 3 + sum(LEVELS))
    normal = Normal(center[1:3] + scale[1:3] * out[:, 1:3], scale[1:3])
    expected = normal.log_prob(x[:, 1:3]).sum(1)
    expected = expected + x[:, 0] * out[:, 0] - torch.nn.functional.softplus(out[:, 0])
    expected = expected + Categorical(LEVELS).double().log_prob(batch_of(x[:, 3:]), out[:, 3:])
    torch.testing.assert_close(blocks.log_prob(batch_of(x), out), expected)


def test_columns_are_divided_into_runs_without_changing_the_likelihood():
    n_levels = [2] * 20 + [90]
    blocks = make_blocks(["categorical"] * 21, n_levels, "isotropic", False).double()
    assert isinstance(blocks, Blocks)
    whole = Categorical(n_levels).double()
    x, out = levels(n_levels=n_levels), random(N, sum(n_levels))
    torch.testing.assert_close(blocks.log_prob(batch_of(x), out), whole.log_prob(batch_of(x), out))
    largest = max(part.places.numel() / part.n_outputs for part in blocks.parts)
    assert largest <= 4


def test_gaussians_with_scales_of_their_own():
    own = Gaussian(3, own_scales=True).double()
    center, scale = random(3), torch.tensor([1e-3, 1.0, 1e6]).double()
    own.start(center, scale**2, scale)
    x, out = center + scale * random(N, 3), random(N, 3)
    single = [Gaussian(1).double() for _ in range(3)]
    for j, part in enumerate(single):
        part.start(center[j : j + 1], scale[j : j + 1] ** 2, scale[j])
    expected = [part.log_prob(batch_of(x[:, [j]]), out[:, [j]]) for j, part in enumerate(single)]
    torch.testing.assert_close(own.log_prob(batch_of(x), out), sum(expected))
    torch.testing.assert_close(own.baseline(), sum(part.baseline() for part in single))
    # The estimate of a column does not depend on the units of the others.
    squares = own.squares(batch_of(x), out)
    weight = torch.full((N,), 1 / N).double()
    statistics = own.statistics(batch_of(x), squares, weight)
    updated = own.update(statistics).noise_variance
    torch.testing.assert_close(updated, (x - own.mean(out)).square().mean(0))
    exact = own.update({"squares": torch.zeros(3).double()}).noise_variance
    torch.testing.assert_close(exact, LEAST_OWN_NOISE * scale**2)


def test_masses_of_all_rows_of_a_mixed_block_sum_to_one_over_categories():
    names, n_levels = ["gaussian", "categorical", "categorical"], [0, 2, 3]
    blocks = make_blocks(names, n_levels, 0.5, False).double()
    one = torch.ones(6).double()
    blocks.start(0 * one, one, one)
    out, number = random(1, 6), random(1)
    rows = [[number.item(), a, b] for a, b in itertools.product(range(2), range(3))]
    log_prob = blocks.log_prob(batch_of(torch.tensor(rows).double()), out.expand(6, -1))
    density = Normal(out[0, 0], np.sqrt(0.5)).log_prob(number)[0]
    torch.testing.assert_close(log_prob.logsumexp(0), density)
