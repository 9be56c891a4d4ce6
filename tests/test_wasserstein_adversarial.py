"""What holds codes to a normal distribution: `WassersteinAutoencoder`, `AdversarialAutoencoder`."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from scipy.special import gammaln, hyp1f1
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from skae import AdversarialAutoencoder, Autoencoder, WassersteinAutoencoder
from skae.nn.draws import ReplayedDraws
from skae.training.threads import one_thread
from skae.variants.adversarial import Adversarial
from skae.variants.wasserstein import discrepancy

pytestmark = pytest.mark.xdist_group("priors")  # they share a fit

HELD = (WassersteinAutoencoder, AdversarialAutoencoder)


def name(kind):
    return kind.__name__


@pytest.fixture(scope="module")
def fits(digits):
    """Each kind with its default parameters and eight components."""
    kinds = (*HELD, Autoencoder)
    return {kind: kind(8, precision="float64", random_state=0).fit(digits) for kind in kinds}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ what it does


@pytest.mark.slow
@pytest.mark.xdist_group("fits")
@pytest.mark.parametrize("kind", HELD, ids=name)
def test_codes_have_the_priors_moments(fits, digits, kind):
    codes = fits[kind].transform(digits)
    assert abs(codes.mean(axis=0)).max() <= 0.1
    assert abs(codes.std(axis=0) - 1).max() <= 0.1


def energy_distance(codes):
    """Unbiased estimate of that between the codes' distribution and the standard normal.

    Of the prior nothing is drawn: the expected distance of a point x to it is a Kummer function of
    |x|^2, that between two draws of it the mean of a chi distribution times the root of 2.
    """
    k = codes.shape[1]
    half = np.exp(gammaln((k + 1) / 2) - gammaln(k / 2))
    across = np.sqrt(2) * half * hyp1f1(-0.5, k / 2, -0.5 * (codes**2).sum(axis=1))
    return 2 * across.mean() - pdist(codes).mean() - 2 * half


def test_energy_distance_is_that_to_draws():
    """The reference itself."""
    rng = np.random.default_rng(0)
    codes, prior = 1.5 * rng.normal(size=(500, 3)) + 0.2, rng.normal(size=(4000, 3))
    drawn = 2 * cdist(codes, prior).mean() - pdist(codes).mean() - pdist(prior).mean()
    assert energy_distance(codes) == pytest.approx(drawn, rel=0.1)


@pytest.mark.slow
@pytest.mark.xdist_group("fits")
@pytest.mark.parametrize("kind", HELD, ids=name)
def test_codes_are_nearer_to_the_prior_than_plain_ones(fits, digits, kind):
    """Than those of a plain autoencoder scaled to mean 0 and variance 1."""
    plain = StandardScaler().fit_transform(fits[Autoencoder].transform(digits))
    held = fits[kind].transform(digits)
    assert energy_distance(held) <= 0.3 * energy_distance(plain)


def accuracy(fitted, X, judge):
    """How well a classifier tells rows from samples, both of which it has not seen."""
    judge = clone(judge)
    scores = []
    for seed in range(2):
        drawn = fitted.sample(len(X), random_state=seed)
        rows, drawn_row = np.concatenate([X, drawn]), np.repeat([0, 1], len(X))
        halves = train_test_split(rows, drawn_row, test_size=0.5, random_state=seed)
        learn, test, learn_drawn, test_drawn = halves
        scores.append(judge.fit(learn, learn_drawn).score(test, test_drawn))
    return np.mean(scores)


@pytest.mark.slow
@pytest.mark.xdist_group("fits")
@pytest.mark.parametrize("kind", HELD, ids=name)
@pytest.mark.parametrize(
    "judge",
    [
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        RandomForestClassifier(50, random_state=0),
    ],
    ids=["logistic", "forest"],
)
def test_samples_are_no_easier_to_tell_than_plain_ones(fits, digits, kind, judge):
    plain = accuracy(fits[Autoencoder], digits, judge)
    assert accuracy(fits[kind], digits, judge) <= plain


@pytest.mark.parametrize("kind", HELD, ids=name)
def test_samples_are_decoded_draws_of_the_prior(curved, kind):
    fitted = kind(2, hidden_layer_sizes=(8,), max_epochs=2, random_state=0).fit(curved)
    codes = torch.randn(4000, 2, generator=generator(), dtype=torch.float64)
    expected = fitted.inverse_transform(codes.numpy())
    drawn = fitted.sample(4000, mean=True, random_state=0)
    error = 5 * expected.std(axis=0) * np.sqrt(2 / 4000)
    assert (abs(drawn.mean(axis=0) - expected.mean(axis=0)) <= error).all()
    np.testing.assert_allclose(drawn.std(axis=0), expected.std(axis=0), rtol=0.1)


# ------------------------------------------------------------------- Wasserstein


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 8])
def test_discrepancy_is_unbiased(k, weighted):
    """Zero on average between two samples of the prior, whatever the rows' weights."""
    draws = generator()
    weight = torch.rand(50, generator=draws, dtype=torch.float64)
    weight = weight if weighted else torch.ones_like(weight)
    pairs = torch.randn(1000, 2, 50, k, generator=draws, dtype=torch.float64)
    estimates = one_thread(lambda: [discrepancy(z, weight, prior) for z, prior in pairs])()
    estimates = torch.stack(estimates)
    assert abs(estimates.mean()) <= 4 * estimates.std() / 1000**0.5


@pytest.mark.parametrize("change", [(0.3, 1.0), (0.0, 1.3), (0.0, 0.7)], ids=str)
def test_discrepancy_sees_shifts_and_scales(change):
    shift, scale = change
    z, prior = (torch.randn(1000, 4, generator=generator(i), dtype=torch.float64) for i in (0, 1))
    one = torch.ones(1000, dtype=torch.float64)
    assert discrepancy(shift + scale * z, one, prior) > 3 * abs(discrepancy(z, one, prior))


# ------------------------------------------------------------------- adversarial


@pytest.fixture
def judged():
    """A latent whose judge has an opinion, codes, weights of mean 1 and draws of the prior."""
    latent = Adversarial(3, 3.0).double()
    latent.start_from(torch.zeros(1, 3), torch.ones(1), generator())
    z = torch.randn(40, 3, generator=generator(1), dtype=torch.float64)
    prior = torch.randn(40, 3, generator=generator(2), dtype=torch.float64)
    weight = torch.rand(40, generator=generator(3), dtype=torch.float64)
    return latent, z, prior, weight / weight.mean()


def objective(latent, z, prior, weight):
    """What a batch's codes cost, as the network reduces it."""
    code = latent(z, None)
    draws = None if prior is None else ReplayedDraws([prior])
    return (latent.penalty(code, z, None, weight, draws) * weight).mean()


def test_the_judge_is_not_moved_by_what_codes_pay(judged):
    """It learns to tell codes from draws by logistic regression, whatever the price."""
    latent, z, prior, weight = judged
    parameters = list(latent.judge.parameters())
    rows, truth = torch.cat([z, prior]), torch.tensor([0.0, 1.0]).double().repeat_interleave(40)
    each = F.binary_cross_entropy_with_logits(latent.judge(rows)[:, 0], truth, reduction="none")
    lesson = (each * torch.cat([weight, torch.ones(40).double()])).sum() / 40
    expected = torch.autograd.grad(lesson, parameters)
    for penalty_weight in (0.0, 3.0, 100.0):
        latent.penalty_weight = penalty_weight
        found = torch.autograd.grad(objective(latent, z, prior, weight), parameters)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
