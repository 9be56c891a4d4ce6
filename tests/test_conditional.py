"""The conditional variational autoencoder: its densities, its start, and what it is for."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from skae import ConditionalVariationalAutoencoder, VariationalAutoencoder

SMALL = {"hidden_layer_sizes": (16,), "max_epochs": 30, "random_state": 0}
RNG = np.random.default_rng(0)
N = 240
KIND = np.arange(N) % 3
AXES = RNG.normal(size=(2, 5))
CELLS = 2 * RNG.normal(size=(3, 5))[KIND] + RNG.normal(size=(N, 2)) @ AXES
CELLS += 0.3 * RNG.normal(size=(N, 5))
X = np.column_stack([CELLS, KIND])


def test_without_a_condition_it_is_the_variational_autoencoder():
    noise = {"corruption": "gaussian", "corruption_level": 0.7}
    one = ConditionalVariationalAutoencoder(2, **SMALL).fit(CELLS)
    other = VariationalAutoencoder(2, **noise, **SMALL).fit(CELLS)
    np.testing.assert_array_equal(one.transform(CELLS), other.transform(CELLS))
    np.testing.assert_array_equal(one.score_samples(CELLS), other.score_samples(CELLS))


def test_a_linear_one_is_pca_of_what_the_condition_leaves():
    model = ConditionalVariationalAutoencoder(
        2, condition=-1, hidden_layer_sizes=(), corruption=None, max_epochs=0,
        early_stopping=False, random_state=0,
    ).fit(X)  # fmt: skip
    means = np.stack([CELLS[k == KIND].mean(axis=0) for k in range(3)])
    left = CELLS - means[KIND]
    pca = PCA(2).fit(left)
    values, axes = pca.explained_variance_ * (N - 1) / N, pca.components_
    noise = np.linalg.eigvalsh(left.T @ left / N)[:-2].mean()
    covariance = noise * np.eye(5) + axes.T * (values - noise) @ axes
    expected = multivariate_normal(np.zeros(5), covariance).logpdf(left)
    np.testing.assert_allclose(model.score_samples(X), expected, atol=1e-3)
    # The posterior mean is a shrunk projection: what it restores lies on the principal axes.
    off = (model.reconstruct(X)[:, :5] - means[KIND]) @ (np.eye(5) - axes.T @ axes)
    np.testing.assert_allclose(off, 0, atol=1e-9)


@pytest.fixture(scope="module")
def fitted():
    return ConditionalVariationalAutoencoder(1, condition=-1, corruption=None, **SMALL).fit(X)


def test_densities_are_those_of_rows_given_their_condition(fitted):
    """The code is integrated out by a fine grid."""
    grid = np.linspace(-8, 8, 4001)
    for row in X[:6]:
        rows = fitted.inverse_transform(grid[:, None], condition=row[-1])[:, :-1]
        noise = fitted.noise_variance_
        fit = norm(rows, noise**0.5).logpdf(row[:-1]).sum(axis=1) + norm.logpdf(grid)
        exact = np.log(np.trapezoid(np.exp(fit - fit.max()), grid)) + fit.max()
        assert fitted.log_likelihood(row[None], 20_000)[0] == pytest.approx(exact, abs=0.05)


def test_draws_have_the_density_that_scores_tell(fitted):
    """Of two models, rows that one draws are likelier under it, by the divergence of the two."""
    drawn = fitted.sample(4000, condition=1, random_state=0)
    other = drawn.copy()
    other[:, -1] = 2
    assert fitted.score(drawn) > fitted.score(other) + 1
    noise = drawn[:, :5] - fitted.sample(4000, mean=True, condition=1, random_state=0)[:, :5]
    np.testing.assert_allclose(noise.std(axis=0), fitted.noise_variance_**0.5, rtol=0.05)


def test_translation_to_the_own_condition_is_reconstruction(fitted):
    np.testing.assert_array_equal(fitted.translate(X, KIND), fitted.reconstruct(X))
    codes = fitted.transform(X)
    moved = fitted.translate(X, (KIND + 1) % 3)
    np.testing.assert_array_equal(moved, fitted.inverse_transform(codes, (KIND + 1) % 3))


def test_codes_do_not_tell_the_condition():
    """A linear map of codes cannot tell it, where rows tell it at a glance."""
    model = ConditionalVariationalAutoencoder(2, condition=-1, **SMALL).fit(X)
    codes = model.transform(X)
    means = [codes[k == KIND].mean(axis=0) for k in range(3)]
    assert np.std(means, axis=0).max() < 0.2 * codes.std()


@pytest.mark.filterwarnings("ignore:Posterior collapse")
def test_conditions_of_numbers_interpolate():
    """A model that sees a number knows what lies between the numbers it has seen."""
    age = RNG.uniform(0, 1, size=400)
    age = np.where(age < 0.5, 0.8 * age, 0.2 + 0.8 * age)
    cells = np.column_stack([np.sin(3 * age), age]) + 0.05 * RNG.normal(size=(400, 2))
    model = ConditionalVariationalAutoencoder(1, condition=2, max_epochs=60, random_state=0)
    model.fit(np.column_stack([cells, age]))
    drawn = model.sample(2000, condition=0.5, random_state=0)
    np.testing.assert_allclose(drawn.mean(axis=0), [np.sin(1.5), 0.5, 0.5], atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), [0.05, 0.05, 0], atol=0.02)


@pytest.mark.slow
def test_digits_of_a_class():
    """Draws, translations and densities of digits under a class, judged by another model."""
    pixels, digit = load_digits(return_X_y=True)
    train, test, y, y_test = train_test_split(
        pixels, digit, test_size=0.3, stratify=digit, random_state=0
    )
    judge = SVC(C=10).fit(pixels, digit)
    model = ConditionalVariationalAutoencoder(condition=-1, random_state=0)
    model.fit(np.column_stack([train, y]))
    asked = np.repeat(np.arange(10), 200)
    drawn = model.sample(2000, condition=asked, random_state=0)
    right = (judge.predict(drawn[:, :-1]) == asked).reshape(10, 200).mean(axis=1)
    assert right.mean() >= 0.97
    assert right.min() >= 0.93
    rows, others = np.column_stack([test, y_test]), (y_test + 1 + np.arange(len(test)) % 9) % 10
    moved = model.translate(rows, others)
    assert (judge.predict(moved[:, :-1]) == others).mean() >= 0.95
    # The same handwriting: a code that comes back from another digit is like the one it was.
    before, after = model.transform(rows), model.transform(moved)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.8
    densities = [
        model.score_samples(np.column_stack([test, np.full(len(test), c)])) for c in range(10)
    ]
    assert (np.argmax(densities, axis=0) == y_test).mean() >= 0.95


def test_torch_is_not_seeded(fitted):
    state = torch.random.get_rng_state()
    fitted.sample(3, random_state=0)
    assert torch.equal(torch.random.get_rng_state(), state)
