"""The semi-supervised variational autoencoder: its bound, its densities, and what it is for."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.distributions import Categorical
from torch.distributions import Normal as TorchNormal
from torch.nn import functional as F

from skae import SemiSupervisedVariationalAutoencoder
from skae.nn.batch import Batch
from skae.nn.draws import Draws, ReplayedDraws
from skae.variants.semisupervised import ClassAndStyle

SMALL = {"n_components": 2, "hidden_layer_sizes": (16,), "random_state": 0}


def two_bands(n=200):
    """Two long, separate bands; one labelled row at one end of each, at the same place along it."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = np.c_[4 * rng.normal(size=n), y + 0.1 * rng.normal(size=n), rng.normal(size=(n, 2)) / 10]
    X[:2, 0] = -8, 8
    few = np.full(n, -1)
    few[:2] = y[:2]
    return (X - X.mean(axis=0)) / X.std(axis=0), y, few


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    centers = rng.normal(size=(3, 5))
    return 3 * centers[y] + rng.normal(size=(150, 5)) / 2, y


@pytest.fixture(scope="module")
def fitted(blobs):
    X, y = blobs
    few = np.where(np.arange(150) < 30, y, -1)
    return SemiSupervisedVariationalAutoencoder(**SMALL, max_epochs=60, batch_size=16).fit(X, few)


@pytest.fixture
def latent():
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return ClassAndStyle(2, shares.log()).double()


@pytest.fixture
def h(latent):
    return torch.randn(7, latent.n_inputs, generator=torch.Generator().manual_seed(0)).double()


def styles(latent, h):
    """torch's own distributions of styles, (n_classes, n, k)."""
    posterior = latent.posterior(h)[1]
    return TorchNormal(posterior.mean, posterior.log_diagonal.exp())


STANDARD = TorchNormal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


# ---------------------------------------------------------------------------------- the bound


def test_the_bound_of_a_row_of_known_and_of_unknown_class(latent, h):
    """J of the paper: L for labelled rows, its mean less the entropy for others."""
    price = 7.0
    given = F.one_hot(torch.tensor([0, 1, 2, 0, 0, 0, 0]), 3).double()
    known = (torch.arange(7) < 3).double()[:, None]
    given = given * known
    draws = Draws(torch.Generator().manual_seed(0), torch.float64)
    code = latent(h, draws)
    losses = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)).double()
    losses = losses + latent.penalty(code, h, None, known, draws)
    batch = Batch(h, known[:, 0], targets=given, target_weight=price * known)
    bound = latent.bound(losses, code, draws, batch)
    belief = Categorical(logits=h[:, :3])
    for i in range(3):
        expected = losses[i, i] - price * belief.log_prob(torch.tensor(i))[i]
        torch.testing.assert_close(bound[i], expected)
    mean = (belief.probs * losses.T).sum(-1) - belief.entropy()
    torch.testing.assert_close(bound[3:], mean[3:])


def test_codes_are_style_and_class(latent, h):
    draws = Draws(torch.Generator().manual_seed(0), torch.float64)
    code = latent(h, draws)
    assert code.z.shape == (3, 7, 5)
    for j in range(3):
        torch.testing.assert_close(code.z[j, :, 2:], F.one_hot(torch.full((7,), j), 3).double())
    noise = Draws(torch.Generator().manual_seed(0), torch.float64).normal((3, 7, 2))
    stated = styles(latent, h)
    torch.testing.assert_close(code.z[..., :2], stated.mean + stated.stddev * noise)
    torch.testing.assert_close(code.mean[:, 2:], Categorical(logits=h[:, :3]).probs)
    assert latent(h, None).mean.shape == (7, 5)


def test_a_draw_at_the_edge_has_a_class(latent):
    """Shares that sum to less than 1 by rounding leave no draw without a class."""
    draws = ReplayedDraws([torch.tensor([1.0]).double(), torch.zeros(1, 2).double()])
    assert latent.draw_prior(1, draws)[0, 2:].sum() == 1


# ------------------------------------------------------------------------------- the estimator


def test_codes_hold_probabilities_of_classes(fitted, blobs):
    X, y = blobs
    codes, proba = fitted.transform(X), fitted.predict_proba(X)
    assert codes.shape == (150, 5)
    assert fitted.n_components_ == 2
    assert len(fitted.get_feature_names_out()) == 5
    np.testing.assert_array_equal(codes[:, 2:], proba)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert fitted.score(X, y) > 0.95


def test_a_class_decodes_to_rows_like_its_own(fitted, blobs):
    X, y = blobs
    rows = fitted.inverse_transform(np.c_[np.zeros((3, 2)), np.eye(3)])
    means = np.stack([X[y == j].mean(axis=0) for j in range(3)])
    distances = ((rows[:, None] - means) ** 2).sum(-1)
    np.testing.assert_array_equal(distances.argmin(axis=1), [0, 1, 2])


def test_draws_are_like_the_rows(fitted, blobs):
    X, _ = blobs
    drawn = fitted.sample(2000, random_state=0)
    assert fitted.score_samples(drawn).mean() == pytest.approx(
        fitted.score_samples(X).mean(), abs=2
    )
    shares = np.bincount(fitted.predict(drawn), minlength=3) / 2000
    np.testing.assert_allclose(shares, fitted.class_prior_, atol=0.1)


def test_the_density_is_bounded_by_that_of_the_best_class(fitted, blobs):
    """log p(x) is the sum over classes of p(y) p(x | y), each integrated over styles."""
    X, _ = blobs
    network, density = fitted.module_, fitted._fitted.density
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    rows = Batch(torch.from_numpy(X[:5]), torch.ones(5))
    terms = []
    with torch.no_grad():
        for j, share in enumerate(fitted.class_prior_):
            one_hot = torch.eye(3, dtype=torch.float64)[j].expand(len(noise), -1)
            out = network.decoder(torch.cat([noise, one_hot], 1))[:, None]
            fit = density.likelihood.log_prob(rows, out.expand(-1, 5, -1))
            terms.append(fit.logsumexp(0) - np.log(len(noise)) + np.log(share))
    expected = torch.stack(terms).logsumexp(0).numpy()
    np.testing.assert_allclose(fitted.score_samples(X[:5]), expected, atol=0.3)


def test_the_prior_of_classes(blobs):
    """Shares of labelled weight, one row more of each class assumed."""
    X, y = blobs
    few = np.where(np.arange(150) < 9, y, -1)
    weight = np.where(y == 2, 3.0, 1.0)
    start = SemiSupervisedVariationalAutoencoder(**SMALL, max_epochs=0)
    np.testing.assert_allclose(start.fit(X, few).class_prior_, 1 / 3)
    np.testing.assert_allclose(start.fit(X, few, weight).class_prior_, [4 / 18, 4 / 18, 10 / 18])


def test_rows_without_a_label_tell_where_classes_are():
    """What one labelled row of each class cannot tell, the bands that rows form do."""
    X, y, few = two_bands()
    steps = {"max_epochs": 300, "batch_size": 32, "weight_decay": 0.1}
    model = SemiSupervisedVariationalAutoencoder(
        1, hidden_layer_sizes=(32,), **steps, random_state=0
    ).fit(X, few)
    by_labels = LogisticRegression().fit(X[:2], y[:2]).score(X, y)
    assert by_labels < 0.7
    assert model.score(X, y) > 0.9


def test_labels_may_be_strings(blobs):
    X, y = blobs
    names = np.array(["a", "b", "c"], dtype=object)[y]
    few = names.copy()
    few[60:] = -1
    model = SemiSupervisedVariationalAutoencoder(**SMALL, max_epochs=40).fit(X, few)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.score(X, names) > 0.9


@pytest.mark.parametrize(
    ("y", "match"),
    [
        pytest.param(None, "requires y to be passed", id="None"),
        pytest.param(np.full(150, -1), "no row has a label", id="all -1"),
        pytest.param(np.zeros(150, int), "2 classes, got only 0", id="one class"),
        pytest.param(np.linspace(0, 1, 150), "Unknown label type", id="numbers"),
        pytest.param(np.zeros((150, 2), int), "1d array", id="2-D"),
        pytest.param(np.arange(149) % 2, "inconsistent numbers", id="length"),
    ],
)
def test_targets_refused(blobs, y, match):
    with pytest.raises(ValueError, match=match):
        SemiSupervisedVariationalAutoencoder(**SMALL, max_epochs=1).fit(blobs[0], y)


def test_training_goes_on_in_passes(blobs):
    X, y = blobs
    model = SemiSupervisedVariationalAutoencoder(**SMALL)
    model.partial_fit(X[:50], np.zeros(50, int), classes=[2, 1, 0])
    assert model.classes_.tolist() == [0, 1, 2]
    prior = model.class_prior_
    for _ in range(30):
        model.partial_fit(X, y)
    model.partial_fit(X, np.full(150, -1))
    assert model.score(X, y) > 0.9
    np.testing.assert_array_equal(model.class_prior_, prior)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=r"y contains 7, but the classes are \[0, 1, 2\]"):
        model.partial_fit(X, np.full(150, 7))
    model.partial_fit(X, y, classes=[0, 1, 2])
    before = model.predict_proba(X)
    for wrong, match in (([0, 1], "those of the first call"), ([0, 1, 2, 3], "of the first call")):
        with pytest.raises(ValueError, match=match):
            model.partial_fit(X, y, classes=wrong)
    with pytest.raises(ValueError, match="at least 2 classes"):
        SemiSupervisedVariationalAutoencoder(**SMALL).partial_fit(X, 0 * y, classes=[0])
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_warm_start_keeps_the_classes(blobs):
    X, y = blobs
    model = SemiSupervisedVariationalAutoencoder(**SMALL, max_epochs=20, warm_start=True)
    first = model.fit(X, y).n_iter_
    model.fit(X[:40], np.where(y[:40] == 0, 0, -1))
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.n_iter_ == 2 * first
