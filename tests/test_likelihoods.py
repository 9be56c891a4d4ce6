"""The contracts of likelihoods, of missing cells and blocks of columns, and of priors."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.likelihoods import LIKELIHOODS, make_likelihood
from skae.nn.likelihoods.bernoulli import Bernoulli
from skae.nn.likelihoods.blocks import Blocks
from skae.nn.likelihoods.gaussian import Gaussian
from skae.nn.prior import WIDEST, NormalPrior, StandardNormalPrior

N, D, K = 60, 5, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(seed=0):
    return Draws(generator(seed), torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


X = normal(N, D).sigmoid()
OBSERVED = torch.rand(N, D, generator=generator(1)) < 0.7
WEIGHT = torch.rand(N, generator=generator(2), dtype=torch.float64)
WEIGHT[::7] = 0
WEIGHT /= WEIGHT.sum()
COMPLETE = Batch(X, WEIGHT)
EVERY = Batch(X, WEIGHT, observed=torch.ones_like(OBSERVED))
MISSING = Batch(torch.where(OBSERVED, X, torch.nan), WEIGHT, observed=OBSERVED)
OUT = normal(N, D, seed=3)
JACOBIAN = normal(N, D, K, seed=4)
SPREAD = normal(N, D, seed=5) ** 2

FAMILIES = {
    **{
        f"{name}-{noise}": lambda name=name, noise=noise: make_likelihood(name, D, noise)
        for name in LIKELIHOODS
        for noise in ("isotropic", "diagonal", 0.3)
    },
    "blocks": lambda: Blocks([Gaussian(2, "diagonal"), Bernoulli(2), Gaussian(1, 0.3)]),
    "blocks-estimated": lambda: Blocks([Gaussian(3), Gaussian(2, "diagonal")]),
}


def started(likelihood):
    """A likelihood of the table's columns; where its noise is estimated, with an estimate."""
    likelihood = likelihood.double()
    likelihood.start(X.mean(0), X.var(0), X.var(0).mean().sqrt())
    if likelihood.is_known:
        return likelihood
    squares = likelihood.squares(COMPLETE, OUT)
    return likelihood.update(likelihood.statistics(COMPLETE, squares, WEIGHT))


@pytest.fixture(params=FAMILIES)
def likelihood(request):
    return started(FAMILIES[request.param]())


@pytest.fixture(params=["complete", "missing"])
def batch(request):
    return COMPLETE if request.param == "complete" else MISSING


# --------------------------------------------------------------------- of every likelihood


def test_score_is_the_derivative(likelihood, batch):
    out = OUT.clone().requires_grad_()
    (expected,) = torch.autograd.grad(likelihood.log_prob(batch, out).sum(), out)
    torch.testing.assert_close(likelihood.score(batch, out), expected)


def test_information_is_the_expected_curvature(likelihood, batch):
    """In exponential families minus the second derivative, which the row does not enter."""
    z = torch.zeros(N, K, dtype=torch.float64, requires_grad=True)
    out = OUT + (JACOBIAN @ z[..., None])[..., 0]
    log_prob = likelihood.log_prob(batch, out).sum()
    (score,) = torch.autograd.grad(log_prob, z, create_graph=True)
    rows = [torch.autograd.grad(score[:, i].sum(), z, retain_graph=True)[0] for i in range(K)]
    expected = -torch.stack(rows, -1)
    torch.testing.assert_close(likelihood.information(batch, OUT, JACOBIAN), expected)


def test_cells_that_are_all_observed_are_complete_rows(likelihood):
    for method in ("log_prob", "score", "deviance", "squares"):
        function = getattr(likelihood, method)
        torch.testing.assert_close(function(EVERY, OUT), function(COMPLETE, OUT))
    squares = likelihood.squares(COMPLETE, OUT, SPREAD, 1.1)
    torch.testing.assert_close(likelihood.squares(EVERY, OUT, SPREAD, 1.1), squares)
    estimates = [
        likelihood.update(likelihood.statistics(some, squares, WEIGHT)).coordinates()
        for some in (EVERY, COMPLETE)
    ]
    if likelihood.is_pooled or likelihood.is_known:
        torch.testing.assert_close(*estimates)
    else:  # the mean of all columns counts as one row more where cells may be missing
        torch.testing.assert_close(*estimates, rtol=0, atol=0.1)


def test_missing_cells_contribute_nothing(likelihood):
    log_prob = likelihood.cell_log_prob(X, OUT)
    expected = torch.where(OBSERVED, log_prob, 0.0).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(MISSING, OUT), expected)
    for cells in (
        likelihood.score(MISSING, OUT),
        likelihood.deviance(MISSING, OUT),
        likelihood.squares(MISSING, OUT, SPREAD),
    ):
        assert not cells[~OBSERVED].any()
        assert cells[OBSERVED].all()
    nothing = Batch(MISSING.x, WEIGHT, observed=torch.zeros_like(OBSERVED))
    assert not likelihood.log_prob(nothing, OUT).any()
    assert not likelihood.information(nothing, OUT, JACOBIAN).any()


def test_several_outputs_of_each_row(likelihood, batch):
    """Leading axes are those of the outputs."""
    several = torch.stack([OUT, OUT + 1])
    for method in ("log_prob", "score", "deviance"):
        function = getattr(likelihood, method)
        expected = torch.stack([function(batch, out) for out in several])
        torch.testing.assert_close(function(batch, several), expected)


def test_corrupted_rows_are_judged_by_the_clean_ones(likelihood):
    corrupted = COMPLETE._replace(x=torch.zeros_like(X), clean=X)
    for method in ("log_prob", "score", "deviance", "squares"):
        function = getattr(likelihood, method)
        torch.testing.assert_close(function(corrupted, OUT), function(COMPLETE, OUT))


def test_statistics_of_parts_add_up(likelihood, batch):
    squares = likelihood.squares(batch, OUT, SPREAD)
    whole = likelihood.statistics(batch, squares, WEIGHT)
    parts = [
        likelihood.statistics(batch.map(lambda t, s=s: t[s]), squares[s], WEIGHT[s])
        for s in (slice(25), slice(25, None))
    ]
    assert all(part.keys() == whole.keys() for part in parts)
    for name, expected in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), expected)


def test_update_is_the_mean_over_observed_cells(likelihood, batch):
    squares = likelihood.squares(batch, OUT, SPREAD)
    updated = likelihood.update(likelihood.statistics(batch, squares, WEIGHT))
    if likelihood.is_known:
        torch.testing.assert_close(updated.coordinates(), likelihood.coordinates())
        return
    observed = torch.ones_like(X) if batch.observed is None else OBSERVED.double()
    own = (WEIGHT @ squares) / (WEIGHT @ observed)
    if likelihood.is_pooled:
        pooled = (WEIGHT @ squares).sum() / (WEIGHT @ observed).sum()
        torch.testing.assert_close(updated.noise_variance, pooled.expand(D))
    elif isinstance(likelihood, Gaussian):
        # Missing cells make the mean of all columns count as one row more.
        torch.testing.assert_close(updated.noise_variance, own, rtol=0.1, atol=0.1)


def test_coordinates_are_those_of_the_noise(likelihood):
    coordinates = likelihood.coordinates()
    assert coordinates.dtype == torch.float64
    torch.testing.assert_close(likelihood.at(coordinates).coordinates(), coordinates)
    assert torch.equal(likelihood.at(coordinates).noise_variance, likelihood.noise_variance)
    assert likelihood.change(likelihood.at(coordinates)) == 0
    if likelihood.is_known:
        return
    moved = likelihood.at(coordinates + math.log(2))
    torch.testing.assert_close(moved.noise_variance, 2 * likelihood.noise_variance)
    further = (moved.coordinates() - coordinates)[likelihood.noise_variance > 0]
    torch.testing.assert_close(further, torch.full_like(further, math.log(2)))
    assert likelihood.change(moved) == pytest.approx(0.5)
    half = likelihood.blended(moved, 0.5)
    torch.testing.assert_close(half.noise_variance, 1.5 * likelihood.noise_variance)


def test_what_is_not_finite_is_seen(likelihood):
    assert likelihood.is_finite()
    assert not likelihood.with_noise(torch.full((D,), torch.nan).double()).is_finite()


def test_another_noise_scales_scores_where_it_says_so(likelihood):
    if likelihood.has_common_scale:
        other = likelihood.at(likelihood.coordinates() + 0.7)
        factor = other.rescaled(likelihood)
        torch.testing.assert_close(
            other.score(MISSING, OUT), factor * likelihood.score(MISSING, OUT)
        )
        torch.testing.assert_close(
            other.information(COMPLETE, OUT, JACOBIAN),
            factor * likelihood.information(COMPLETE, OUT, JACOBIAN),
        )


def test_draws_have_the_mean(likelihood):
    drawn = likelihood.sample(OUT[:4].expand(40_000, 4, D), draws())
    mean = likelihood.mean(OUT[:4])
    error = 5 * drawn.std(0) / 200
    assert ((drawn.mean(0) - mean).abs() <= error).all()


def test_scores_of_draws_have_the_information_as_covariance(likelihood):
    """And their mean is 0."""
    drawn = likelihood.sample(OUT[:1].expand(40_000, 1, D), draws())[:, 0]
    some = Batch(drawn, torch.ones(len(drawn)).double())
    score = likelihood.score(some, OUT[:1].expand(len(drawn), -1))
    assert (score.mean(0).abs() <= 5 * score.std(0) / 200).all()
    information = likelihood.information(some, OUT[:1], torch.eye(D).double()[None])[0]
    covariance = torch.cov(score.mT)
    scale = information.diagonal().sqrt()
    assert ((covariance - information) / torch.outer(scale, scale)).abs().max() < 8 / 200


# --------------------------------------------------------------------------- the Gaussian


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_a_trained_noise_is_corrected_by_a_factor(noise):
    """That by which the squares of validation rows exceed it, in the mean over cells."""
    likelihood = make_likelihood("gaussian", D, noise, True).double()
    likelihood.start(X.mean(0), X.var(0), X.var(0).mean().sqrt())
    with torch.no_grad():
        likelihood.start_noise(X.var(0))
        assert likelihood.is_trained
        fixed = likelihood.fixed()
        assert not fixed.is_trained
        squares = 3 * fixed.noise_variance.expand(N, D)
        for batch in (COMPLETE, MISSING):
            kept = squares if batch.observed is None else torch.where(OBSERVED, squares, 0.0)
            statistics = fixed.statistics(batch, kept, WEIGHT)
            corrected = fixed.corrected(statistics)
            torch.testing.assert_close(corrected.noise_variance, 3 * fixed.noise_variance)


def test_rows_tell_their_squares_by_the_log_density():
    """Where one noise scales all: to second order, which is exact for a linear decoder."""
    likelihood = started(Gaussian(D))
    shift, root = normal(N, K, seed=7), normal(N, K, K, seed=8)
    covariance, bessel = root @ root.mT, torch.tensor(1.3).double()
    gradient = (JACOBIAN.mT @ likelihood.score(COMPLETE, OUT)[..., None])[..., 0]
    information = likelihood.information(COMPLETE, OUT, JACOBIAN)
    moved = (information @ shift[..., None])[..., 0] - 2 * gradient
    found = likelihood.row_squares(
        likelihood.squares(COMPLETE, OUT).sum(-1),
        (moved * shift).sum(-1),
        torch.einsum("nij,nij->n", information, covariance),
        bessel,
    )
    out = OUT + (JACOBIAN @ shift[..., None])[..., 0]
    variance = (JACOBIAN @ covariance * JACOBIAN).sum(-1)
    expected = likelihood.squares(COMPLETE, out, variance, bessel)
    torch.testing.assert_close(found, expected.mean(-1, keepdim=True))


def test_the_noise_has_a_floor():
    likelihood = started(Gaussian(D, "diagonal"))
    statistics = likelihood.statistics(COMPLETE, torch.zeros_like(X), WEIGHT)
    updated = likelihood.update(statistics).noise_variance
    torch.testing.assert_close(updated, 1e-6 * X.var(0))


# ------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("batch", [COMPLETE, MISSING], ids=["complete", "missing"])
def test_blocks_of_one_family_are_that_family(batch):
    whole, blocks = (
        started(made) for made in (Gaussian(D, 0.3), Blocks([Gaussian(2, 0.3), Gaussian(3, 0.3)]))
    )
    for method in ("log_prob", "score", "deviance", "squares"):
        expected = getattr(whole, method)(batch, OUT)
        torch.testing.assert_close(getattr(blocks, method)(batch, OUT), expected)
    torch.testing.assert_close(
        blocks.information(batch, OUT, JACOBIAN), whole.information(batch, OUT, JACOBIAN)
    )
    torch.testing.assert_close(blocks.mean(OUT), whole.mean(OUT))
    torch.testing.assert_close(blocks.baseline(), whole.baseline())
    assert (blocks.is_known, blocks.has_common_scale) == (True, True)


@pytest.mark.parametrize("batch", [COMPLETE, MISSING], ids=["complete", "missing"])
def test_blocks_are_their_parts(batch):
    parts = [Gaussian(2, "diagonal"), Bernoulli(3)]
    blocks = Blocks(parts).double()
    center, variance, scale = X.mean(0), X.var(0), X.var(0).mean().sqrt()
    bias, slope = blocks.start(center, variance, scale)
    columns = slice(2), slice(2, D)
    total = 0.0
    for part, some in zip(parts, columns, strict=True):
        assert torch.equal(bias[some], part.start(center[some], variance[some], scale)[0])
        assert torch.equal(slope[some], part.start(center[some], variance[some], scale)[1])
        own = batch.map(lambda t, some=some: t if t.ndim == 1 else t[:, some])
        for method in ("score", "deviance"):
            expected = getattr(part, method)(own, OUT[:, some])
            torch.testing.assert_close(getattr(blocks, method)(batch, OUT)[:, some], expected)
        total = total + part.log_prob(own, OUT[:, some])
    torch.testing.assert_close(blocks.log_prob(batch, OUT), total)
    statistics = blocks.statistics(batch, blocks.squares(batch, OUT, SPREAD), WEIGHT)
    own = batch.map(lambda t: t if t.ndim == 1 else t[:, :2])
    squares = parts[0].squares(own, OUT[:, :2], SPREAD[:, :2])
    expected = parts[0].update(parts[0].statistics(own, squares, WEIGHT)).noise_variance
    updated = blocks.update(statistics)
    torch.testing.assert_close(updated.noise_variance[:2], expected)
    assert not updated.noise_variance[2:].any()
    assert (blocks.is_known, blocks.has_common_scale, blocks.is_trained) == (False, False, False)
    drawn = blocks.sample(OUT, draws())
    assert {*drawn[:, 2:].flatten().tolist()} == {0.0, 1.0}


def test_blocks_train_the_noise_of_their_parts():
    blocks = Blocks([Gaussian(2, "isotropic", True), Gaussian(3, 0.3, True)]).double()
    blocks.start(X.mean(0), X.var(0), X.var(0).mean().sqrt())
    with torch.no_grad():
        blocks.start_noise(torch.ones(D).double())
    assert blocks.is_trained
    assert len([*blocks.parameters()]) == 1
    fixed = blocks.fixed()
    assert not fixed.is_trained
    torch.testing.assert_close(fixed.noise_variance[2:], torch.full((3,), 0.3).double())
    torch.testing.assert_close(
        fixed.noise_variance[:2], X.var(0).mean().expand(2), rtol=1e-4, atol=0
    )
    statistics = fixed.statistics(COMPLETE, 2 * fixed.noise_variance.expand(N, D), WEIGHT)
    corrected = fixed.corrected(statistics).noise_variance
    torch.testing.assert_close(corrected, fixed.noise_variance * torch.tensor([2.0, 2, 1, 1, 1]))


# ------------------------------------------------------------------------------- priors


def a_normal(k=K):
    root = normal(k, k, seed=9)
    return NormalPrior(normal(k, seed=10), root @ root.mT + torch.eye(k).double())


def a_standard(k=K):
    return StandardNormalPrior.start(normal(10, k), torch.full((10,), 0.1), torch.tensor(1.0))


PRIORS = [a_normal, a_standard]


@pytest.fixture(params=PRIORS, ids=["normal", "standard"])
def prior(request):
    return request.param()


def test_the_log_density_is_torchs(prior):
    z = normal(20, K, seed=11)
    expected = MultivariateNormal(prior.mean, prior.covariance).log_prob(z)
    torch.testing.assert_close(prior.log_prob(z), expected)
    less = 0.5 * K * math.log(2 * math.pi)
    torch.testing.assert_close(prior.height(z) + prior.constant - less, expected)


def test_derivatives_are_those_of_the_log_density(prior):
    z = normal(20, K, seed=11).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(z).sum(), z, create_graph=True)
    torch.testing.assert_close(prior.score(z), score)
    rows = [torch.autograd.grad(score[:, i].sum(), z, retain_graph=True)[0] for i in range(K)]
    expected = -torch.stack(rows, -1)
    torch.testing.assert_close(prior.precision(z).expand(20, K, K), expected)
    assert (torch.linalg.eigvalsh(prior.precision(z)) > 0).all()
    pull = prior.score(z) + (prior.precision(z) @ z[..., None])[..., 0]
    torch.testing.assert_close(prior.pull(z).expand(20, K), pull)


def test_draws_of_a_prior_have_its_moments(prior):
    z = prior.draw(40_000, draws())
    deviation = prior.covariance.diagonal().sqrt()
    assert ((z.mean(0) - prior.mean).abs() <= 5 * deviation / 200).all()
    error = torch.cov(z.mT) - prior.covariance
    assert (error / torch.outer(deviation, deviation)).abs().max() < 8 / 200


def test_a_prior_is_what_its_tensors_and_coordinates_say(prior):
    again = type(prior).restore(prior.tensors(), K)
    at = prior.at(prior.coordinates())
    for other in (again, at):
        assert all(torch.equal(a, b) for a, b in zip(
            other.tensors().values(), prior.tensors().values(), strict=True
        ))  # fmt: skip
    assert prior.change(at) == 0
    assert prior.is_finite()
    with pytest.raises(ValueError, match="not those of this model"):
        type(prior).restore(prior.tensors(), K + 1)
    coordinates = prior.coordinates()
    coordinates[K] = -1.0  # a variance
    assert prior.at(coordinates) is None


def test_update_gives_the_moments_of_posteriors():
    """The covariance of the means, as PCA scales it, plus the mean covariance."""
    z, root = normal(50, K), normal(50, K, K, seed=1)
    covariances, weight = root @ root.mT, torch.full((50,), 0.02).double()
    updated = a_normal().update(z, covariances, weight, torch.tensor(50 / 49).double())
    torch.testing.assert_close(updated.mean, z.mean(0))
    torch.testing.assert_close(updated.covariance, torch.cov(z.mT) + covariances.mean(0))
    start = NormalPrior.start(z, weight, torch.tensor(50 / 49).double())
    torch.testing.assert_close(start.covariance, torch.cov(z.mT), rtol=1e-6, atol=1e-6)


def test_what_the_latent_states_is_not_learned():
    standard = a_standard()
    z, weight = 3 + normal(50, K), torch.full((50,), 0.02).double()
    assert standard.update(z, torch.zeros(50, K, K), weight, torch.tensor(1.0)) is standard
    assert standard.blended(standard, 0.3) is standard
    assert standard.is_fixed
    assert a_standard(WIDEST + 1).restricted() is None


def test_wide_codes_vary_along_leading_axes():
    k = WIDEST + 6
    axes = torch.linalg.qr(normal(k, 4))[0]
    inner = NormalPrior(normal(4), torch.diag(torch.arange(1.0, 5).double()))
    wide = inner.extended(torch.ones(k).double(), axes)
    torch.testing.assert_close(wide.mean, 1 + axes @ inner.mean)
    narrow, center, found = wide.restricted()
    assert found.shape == (k, WIDEST)
    torch.testing.assert_close(center, wide.mean)
    torch.testing.assert_close(
        found @ narrow.covariance @ found.mT, wide.covariance, rtol=0, atol=1e-8
    )
    z = wide.draw(20_000, draws())
    left = z - center - (z - center) @ axes @ axes.mT
    assert left.abs().max() < 1e-4
    error = torch.cov(((z - center) @ axes).mT) - inner.covariance
    np.testing.assert_allclose(error, 0, atol=0.2)
    assert inner.restricted() is None
