"""The contract of priors: what every distribution of codes must satisfy.

Every check is a function of one prior. It must pass for each family, and it must fail for a prior
that is wrong in the way that the check looks for.
"""

import math

import pytest
import torch
from contracts import (
    altered_class,
    assert_fails,
    assert_passes,
    concrete_classes,
    draws,
    named_checks,
    normal,
)
from torch.distributions import MultivariateNormal

from skae.nn.prior import WIDEST, NormalPrior, Prior, StandardNormalPrior

N, K = 50, 2
ONE = torch.ones((), dtype=torch.float64)
CODES = normal(N, K) @ torch.tensor([[1.0, 0.4], [0.0, 2.0]]).double() + 1
WEIGHT = draws(1).uniform((N,))
WEIGHT[::7] = 0
WEIGHT /= WEIGHT.sum()
ROOTS = normal(N, K, K, seed=2) / 2
COVARIANCES = ROOTS @ ROOTS.mT

EXACT = {"rtol": 1e-5, "atol": 1e-5}
"""Tolerance of a sum over a grid of codes."""


def some(family):
    """A prior of a family, for codes that are correlated and not centered."""
    return family.start(CODES, WEIGHT, ONE)


def updated(prior):
    """The prior that fits other codes, whose posteriors have covariances."""
    return prior.update(prior.statistics(CODES.flip(1) - 2, COVARIANCES, WEIGHT), ONE)


PRIORS = {family.__name__: family for family in (NormalPrior, StandardNormalPrior)}


def test_every_family_is_checked():
    assert concrete_classes(Prior) == {*PRIORS.values()}


def grid(prior):
    """Codes in all directions, far into the tails, and the probability of each."""
    drawn = prior.draw(1000, draws())
    t = torch.linspace(-5, 5, 121, dtype=torch.float64)
    root = torch.linalg.cholesky(torch.cov(drawn.mT))
    z = drawn.mean(0) + torch.cartesian_prod(t.sinh(), t.sinh()) @ root.mT
    step = torch.outer(t.cosh(), t.cosh()).flatten() * (t[1] - t[0]) ** 2
    return z, step * root.det() * prior.log_prob(z).exp()


def moments(prior):
    z, share = grid(prior)
    mean = share @ z
    return mean, ((z - mean).mT * share) @ (z - mean)


# --------------------------------------------------------------------------------- the contract


def check_density(prior):
    """The density integrates to 1."""
    assert float(grid(prior)[1].sum()) == pytest.approx(1, abs=1e-6)


def check_score(prior):
    """The score is the derivative of the log-density."""
    z = CODES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(prior.log_prob(z).sum(), z)
    torch.testing.assert_close(prior.score(z), expected)


def check_precision(prior):
    """The precision is positive definite; that of normal codes is minus the second derivative."""
    precision = prior.precision(CODES).expand(N, K, K)
    assert (torch.linalg.eigvalsh(precision) > 0).all()
    torch.testing.assert_close(precision, precision.mT)
    if isinstance(prior, NormalPrior):
        hessian = torch.autograd.functional.hessian(prior.log_prob, CODES[0])
        torch.testing.assert_close(precision[0], -hessian)


def check_draws(prior):
    """Draws have the density's mean, covariance and entropy; the same seed gives the same draws."""
    n = 20_000
    drawn = prior.draw(n, draws())
    assert torch.equal(drawn, prior.draw(n, draws()))
    (mean, covariance), (z, share) = moments(prior), grid(prior)
    deviation = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - mean).abs() <= 5 * deviation / n**0.5).all()
    error = (torch.cov(drawn.mT) - covariance) / torch.outer(deviation, deviation)
    assert error.abs().max() < 8 / n**0.5
    nats = prior.log_prob(drawn)
    entropy = -share @ prior.log_prob(z)
    assert abs(nats.mean() + entropy) <= 5 * nats.std() / n**0.5


def check_transform(prior):
    """The transformation of normal numbers is linear, and its determinant that of the density."""
    noise = normal(N, K)
    ratio = prior.log_prob(prior.transform(noise)) + (noise**2).sum(-1) / 2
    torch.testing.assert_close(ratio, ratio.mean().expand(N))


def check_leading_axes(prior):
    several = torch.stack([CODES, CODES + 1, -CODES])
    for function in (prior.log_prob, prior.height, prior.score):
        expected = torch.stack([function(codes) for codes in several])
        torch.testing.assert_close(function(several), expected)


def check_update(prior):
    """The updated prior has the largest expected log-density of rows' posteriors in its family."""
    # Points with the means and covariances of the posteriors: exact for squares.
    roots = torch.linalg.cholesky(COVARIANCES) * K**0.5
    codes = CODES.flip(1) - 2

    def expected(some):
        points = [codes + side * roots[..., i] for side in (1, -1) for i in range(K)]
        return float(WEIGHT @ sum(some.log_prob(point) for point in points)) / len(points)

    new = updated(prior)
    if prior.is_fixed:
        assert new is prior
        return
    assert expected(new) > expected(prior)
    at = new.coordinates()
    for seed in range(5):
        step = 0.02 * new.tensors()["covariance"].diagonal().min() * normal(K, K + 1, seed=seed)
        step = torch.cat([step[:, :1], (step[:, 1:] + step[:, 1:].mT)], 1).mT.flatten()
        assert max(expected(new.at(at + side * step)) for side in (1, -1)) < expected(new)


def check_statistics(prior):
    """Statistics of parts of the rows add up to those of all rows."""
    whole = prior.statistics(CODES, COVARIANCES, WEIGHT)
    parts = [
        prior.statistics(CODES[part], COVARIANCES[part], WEIGHT[part])
        for part in (slice(7), slice(7, N))
    ]
    assert all(part.keys() == whole.keys() for part in parts)
    for name, expected in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], expected)


def check_parameters(prior):
    """Tensors and coordinates determine a prior, and those of another size are refused."""
    again = type(prior).restore(prior.tensors(), K), prior.at(prior.coordinates())
    for other in again:
        assert torch.equal(other.log_prob(CODES), prior.log_prob(CODES))
        assert prior.change(other) == 0
    assert prior.is_finite()
    nowhere = prior.at(prior.coordinates() * torch.nan)
    assert nowhere is None or not nowhere.is_finite()
    with pytest.raises(ValueError, match="not those of this model"):
        type(prior).restore(prior.tensors(), K + 1)
    assert prior.is_fixed or prior.change(updated(prior)) > 0.1


def check_start(prior):
    """A prior may start from codes that do not vary, or in one direction only."""
    for codes in (torch.zeros(N, K).double(), CODES[:, :1].expand(-1, K)):
        started = type(prior).start(codes, WEIGHT, ONE)
        assert started.is_finite()
        assert (torch.linalg.eigvalsh(started.precision(codes)) > 0).all()
        assert started.log_prob(codes).isfinite().all()


CHECKS = named_checks(globals())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", PRIORS)
def test_contract(family, check):
    assert_passes(CHECKS[check], some(PRIORS[family]))


# ---------------------------------------------------------------------------- negative controls

WRONG = {
    "density": {"constant": property(lambda self: -torch.linalg.slogdet(self.covariance)[1])},
    "score": {"score": lambda self, z: -NormalPrior.score(self, z)},
    "precision": {"precision": lambda self, z: self.covariance},
    "draws": {"draw": lambda self, n, draws: self.mean + draws.normal((n, K)) @ self.covariance},
    "transform": {"transform": lambda self, normal: self.mean + normal @ self.covariance},
    "leading_axes": {"score": lambda self, z: (self.mean - z).flatten(0, -2) @ self._inverse},
    "update": {  # forgets the covariances of the posteriors
        "update": lambda self, statistics, bessel: NormalPrior.update(
            self, {name: sums * (name != "spread") for name, sums in statistics.items()}, bessel
        )
    },
    "statistics": {  # divides by the sum of the weights
        "statistics": lambda self, codes, covariances, weight: NormalPrior.statistics(
            self, codes, covariances, weight / weight.sum()
        )
    },
    "parameters": {"coordinates": lambda self: torch.cat([-self.mean, self.covariance.flatten()])},
    "start": {  # divides by the deviations of codes
        "start": classmethod(
            lambda cls, codes, weight, bessel: cls(weight @ codes, torch.corrcoef(codes.mT))
        )
    },
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_wrong_prior_fails(check):
    right = some(NormalPrior)
    wrong = altered_class(NormalPrior, WRONG[check])(right.mean, right.covariance)
    assert_fails(CHECKS[check], wrong)


# ------------------------------------------------------------------------------ single families


@pytest.mark.parametrize("prior", [some(family) for family in PRIORS.values()], ids=PRIORS)
def test_the_log_density_is_torchs(prior):
    expected = MultivariateNormal(prior.mean, prior.covariance).log_prob(CODES)
    torch.testing.assert_close(prior.log_prob(CODES), expected)
    rest = prior.constant - 0.5 * K * math.log(2 * math.pi)
    torch.testing.assert_close(prior.height(CODES) + rest, expected)


def test_a_normal_prior_has_the_moments_of_the_codes():
    """As PCA scales them where codes have no covariances: the start differs by rounding only."""
    weight, bessel = torch.full((N,), 1 / N).double(), torch.tensor(N / (N - 1)).double()
    prior = some(NormalPrior)
    new = prior.update(prior.statistics(CODES, COVARIANCES, weight), bessel)
    torch.testing.assert_close(new.mean, CODES.mean(0))
    torch.testing.assert_close(new.covariance, torch.cov(CODES.mT) + COVARIANCES.mean(0))
    start = NormalPrior.start(CODES, weight, bessel)
    torch.testing.assert_close(start.covariance, torch.cov(CODES.mT), rtol=1e-6, atol=1e-6)


def test_coordinates_of_no_distribution_are_refused():
    coordinates = some(NormalPrior).coordinates()
    coordinates[K] = -1.0  # a variance
    assert some(NormalPrior).at(coordinates) is None


def test_the_standard_prior_is_standard():
    prior = some(StandardNormalPrior)
    assert not prior.mean.any()
    assert torch.equal(prior.covariance, torch.eye(K).double())
    wide = StandardNormalPrior.start(normal(N, WIDEST + 1), WEIGHT, ONE)
    assert wide.restricted() is None


def test_wide_codes_vary_along_leading_axes():
    k = WIDEST + 6
    axes = torch.linalg.qr(normal(k, 4))[0]
    inner = NormalPrior(normal(4), torch.diag(torch.arange(1.0, 5).double()))
    assert inner.restricted() is None
    wide = inner.extended(torch.ones(k).double(), axes)
    torch.testing.assert_close(wide.mean, 1 + axes @ inner.mean)
    narrow, center, found = wide.restricted()
    assert found.shape == (k, WIDEST)
    torch.testing.assert_close(center, wide.mean)
    torch.testing.assert_close(
        found @ narrow.covariance @ found.mT, wide.covariance, rtol=0, atol=1e-8
    )
    z = wide.draw(20_000, draws())
    rest = z - center - (z - center) @ axes @ axes.mT
    assert rest.abs().max() < 1e-4
    error = torch.cov(((z - center) @ axes).mT) - inner.covariance
    assert error.abs().max() < 0.2
