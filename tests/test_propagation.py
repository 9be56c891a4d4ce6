"""Missing targets that are estimated from a linear model and from similar rows."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_digits, make_moons
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from test_supervised import SMALL

import skae
from skae.table.rows import Rows, group_equal_rows, hash_rows
from skae.table.targets import Targets
from skae.tasks import propagation
from skae.tasks.propagation import Propagation, _neighbor_graph, _solve
from skae.tasks.units import Units
from skae.training.heads import Classes, Labels, Numbers

RNG = np.random.default_rng(0)


def clusters(n=300, known=6):
    """Rows in three clusters, their classes, and classes of which few are known."""
    y = np.arange(n) % 3
    X = 3 * np.eye(3)[y] @ np.eye(3, 4) + np.random.default_rng(0).normal(scale=0.4, size=(n, 4))
    return X, y, np.where(np.arange(n) < known, y, -1)


def one_hot(y):
    known = (y >= 0)[:, None] * 1.0
    return Targets(known * np.eye(3)[np.maximum(y, 0)], known)


def propagate(family, X, targets, weight=None):
    groups = group_equal_rows(hash_rows(X, 0))
    weight = np.ones(len(X)) if weight is None else weight
    units = Units.identity(X.shape[1])
    return Propagation(family, Rows(X), units, *groups, targets, weight)


def test_label_spreading_solves_its_linear_system():
    X = RNG.normal(size=(60, 3))
    graph, start = _neighbor_graph(X), RNG.normal(size=(60, 2))
    dense = graph.toarray()
    np.testing.assert_allclose(dense, dense.T)
    assert (np.diag(dense) == 0).all()
    assert np.abs(np.linalg.eigvalsh(dense)).max() == pytest.approx(1)
    expected = np.linalg.solve(np.eye(60) - propagation.SPREAD * dense, start)
    np.testing.assert_allclose(_solve(graph, start), expected, atol=1e-6)


def test_rows_at_the_same_place_are_neighbors():
    graph = _neighbor_graph(np.repeat(np.arange(3.0), 20)[:, None])
    assert isinstance(graph, csr_array)
    assert np.isfinite(graph.data).all()
    assert (graph.toarray()[:20, 20:] == 0).all()


def test_classes_of_clusters():
    X, y, few = clusters()
    done, likely = propagate(Classes(), X, one_hot(few)).complete()
    assert (done.values.argmax(axis=1) == y).mean() > 0.98
    np.testing.assert_allclose(done.values.sum(axis=1), 1)
    np.testing.assert_array_equal(likely.values, np.eye(3)[done.values.argmax(axis=1)])
    np.testing.assert_array_equal(likely.alone.values, one_hot(few).values)
    np.testing.assert_array_equal(likely.alone.observed, one_hot(few).observed)
    # Known targets stay, and estimates weigh less.
    np.testing.assert_array_equal(done.observed[:6], 1)
    assert (done.observed[6:] <= 1).all()
    assert done.observed[6:].mean() > 0.5


def test_labels_are_estimated_one_by_one():
    X, y, _ = clusters()
    values, observed = np.stack([y == 0, y == 1, y == 2], axis=1) * 1.0, np.zeros((300, 3))
    observed[:12, 0] = observed[:200, 1] = 1
    done = propagate(Labels(), X, Targets(values * observed, observed)).complete().expected
    assert ((done.values[:, 0] > 0.5) == (y == 0)).mean() > 0.98
    # The second label is known in most rows, and the third in none.
    np.testing.assert_array_equal(done.observed[:, 1:], observed[:, 1:])


def test_numbers_weigh_at_most_as_much_as_known_ones():
    X, y, few = clusters(known=30)
    numbers = np.where(few < 0, np.nan, 100.0 + 10 * y)[:, None]
    done = propagate(Numbers(), X, Numbers.targets(numbers, np.ones(300))).complete().expected
    np.testing.assert_allclose(done.values[:, 0], 100 + 10 * y, atol=2)
    assert 15 < done.observed[30:].sum() <= 30


def test_noise_is_not_passed_on():
    """Numbers that held-out rows cannot predict have no estimates that weigh anything."""
    X = RNG.normal(size=(200, 4))
    numbers = np.where(np.arange(200) < 40, RNG.normal(size=200), np.nan)[:, None]
    done = propagate(Numbers(), X, Numbers.targets(numbers, np.ones(200))).complete().expected
    assert done.observed[40:].mean() < 0.03


def test_held_out_targets_choose_between_both_estimates():
    X, y = make_moons(400, noise=0.05, random_state=0)
    few = np.where(np.arange(400) < 40, y, -1)
    known = (few >= 0)[:, None] * 1.0
    moons = propagate(Labels(), X, Targets(known * y[:, None], known))
    X = RNG.normal(size=(400, 20))
    plane = (X[:, :1] > 0) * 1.0
    planes = propagate(Labels(), X, Targets(known * plane, known))
    assert moons.singles[0].share[1] > 0.6
    assert planes.singles[0].share[0] > 0.6


def test_repeating_is_weighting():
    X, _, few = clusters(90)
    twice = np.repeat(np.arange(90), 1 + (np.arange(90) % 2))
    weight = 1.0 + np.arange(90) % 2
    first = propagate(Classes(), X, one_hot(few), weight).complete().expected
    second = propagate(Classes(), X[twice], one_hot(few[twice])).complete().expected
    np.testing.assert_allclose(second.observed, first.observed[twice], atol=1e-9)
    np.testing.assert_allclose(second.values, first.values[twice], atol=1e-9)


def test_class_weights_scale_estimates():
    X, _, few = clusters()
    plain, heavy = one_hot(few), one_hot(few)
    heavy.observed *= 7
    first, second = (propagate(Classes(), X, t).complete().expected for t in (plain, heavy))
    assert second.observed.mean() == pytest.approx(7 * first.observed.mean(), rel=0.1)


def test_many_rows(monkeypatch):
    """Rows beyond the limit keep their missing targets, and known targets come first."""
    monkeypatch.setattr(propagation, "MAX_ROWS", 50)
    X, _, few = clusters()
    few = few[::-1]
    done = propagate(Classes(), X[::-1], one_hot(few)).complete().expected
    assert (done.observed > 0).sum() <= 50
    assert (done.observed[-6:] == 1).all()


def test_rows_that_no_known_target_reaches_have_the_prior():
    """On a long chain of rows, the distances to known rows exceed what a number represents."""
    X = np.cumsum(np.random.default_rng(0).normal(size=(1500, 3)), axis=0)
    few = np.where(np.arange(1500) < 40, np.arange(1500) % 3, -1)
    done = propagate(Classes(), 0.01 * X, one_hot(few))
    far = done.singles[0]._spread(done.graph, np.ones(40, dtype=bool))[-1]
    np.testing.assert_allclose(far, done.singles[0].prior, atol=1e-6)


def test_probabilities_keep_the_base_rate():
    """Estimates of rows about which nothing is known are not those of the majority."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 4)), (rng.random(600) < 0.15).astype(int)
    few = np.where(np.arange(600) < 80, y, -1)
    model = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), random_state=0).fit(X, few)
    rate = y[:80].mean()
    assert model.predict_proba(X)[:, 1].mean() == pytest.approx(rate, abs=0.05)


def test_classes_of_weight_0_are_not_missing():
    X, y, _ = clusters()
    y = np.where(np.arange(300) < 200, 0, y)
    parameters = {"class_weight": {0: 0, 1: 1, 2: 1}, "random_state": 0}
    model = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), **parameters).fit(X, y)
    expected = model.predict_proba(X)
    model.set_params(propagate=False).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_a_stream_forgets_estimates():
    X, _, few = clusters()
    model = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), random_state=0).fit(X, few)
    sample = model.autoencoder_._fitted.seen.sample
    assert sample.is_labeled.sum() == 6
    assert model.autoencoder_._fitted.seen.labeled


@pytest.mark.parametrize("n_columns", [3, 400])
def test_one_distinct_row_and_wide_rows(n_columns):
    y = np.where(np.arange(60) < 10, np.arange(60) % 2, -1)
    model = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL | {"n_components": 2}))
    assert model.fit(np.ones((60, n_columns)), y).predict(np.ones((2, n_columns))).shape == (2,)
    assert model.fit(RNG.normal(size=(60, n_columns)), y).n_features_in_ == n_columns


def test_errors_of_rows_of_tiny_weight_do_not_matter():
    X, y, few = clusters(known=30)
    numbers, weight = 10.0 * y, np.ones(300)
    wrong = numbers + np.where(np.arange(300) < 3, 300.0, 0.0)
    weight[:3] = 1e-9
    shares = [
        propagate(
            Numbers(), X, Numbers.targets(np.where(few < 0, np.nan, v)[:, None], weight), weight
        )
        .singles[0]
        .share
        for v in (numbers, wrong)
    ]
    np.testing.assert_allclose(*shares, atol=0.05)


def test_a_target_that_no_chosen_row_has(monkeypatch):
    monkeypatch.setattr(propagation, "MAX_ROWS", 20)
    X, y, _ = clusters()
    observed = np.zeros((300, 2))
    groups = group_equal_rows(hash_rows(X, 0))
    observed[groups[0][::4], 0] = observed[groups[0][-1], 1] = 1
    values = np.stack([y == 0, y == 1], axis=1) * observed
    done = propagate(Labels(), X, Targets(values, observed)).complete().expected
    assert (done.observed[:, 0] > 0).sum() > 75
    np.testing.assert_array_equal(done.observed[:, 1], observed[:, 1])


@pytest.mark.parametrize("known", [1, 2])
def test_very_few_known_targets(known):
    X, _, _ = clusters(60)
    values = np.where(np.arange(60) < known, 1.0 + np.arange(60), np.nan)[:, None]
    for family, targets in (
        (Classes(), one_hot(np.where(np.arange(60) < known, np.arange(60), -1))),
        (Numbers(), Numbers.targets(values, np.ones(60))),
    ):
        done = propagate(family, X, targets).complete().expected
        assert np.isfinite(done.values).all()
        assert np.isfinite(done.observed).all()


@pytest.mark.parametrize("fine_tune", [True, False])
def test_unlabeled_rows_improve_a_classifier(fine_tune):
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    few = np.full_like(y, -1)
    for c in range(10):
        few[np.flatnonzero(y == c)[:5]] = c
    model = skae.AutoencoderClassifier(random_state=0, fine_tune=fine_tune)
    with_rows = model.fit(X, few).score(X_test, y_test)
    without = model.set_params(propagate=False).fit(X, few).score(X_test, y_test)
    scaler = StandardScaler().fit(X)
    linear = LogisticRegression(max_iter=1000).fit(scaler.transform(X[few >= 0]), few[few >= 0])
    assert with_rows > linear.score(scaler.transform(X_test), y_test) + 0.05
    assert with_rows > without + 0.03


def test_unlabeled_rows_improve_a_regressor():
    X, y, few = clusters(known=15)
    numbers = np.where(few < 0, np.nan, 100.0 + 10 * (y == 1))
    model = skae.AutoencoderRegressor(skae.Autoencoder(**SMALL), random_state=0)
    with_rows = model.fit(X, numbers).score(X, 100.0 + 10 * (y == 1))
    without = model.set_params(propagate=False).fit(X, numbers).score(X, 100.0 + 10 * (y == 1))
    assert with_rows > max(0.8, without)


@pytest.mark.parametrize("fine_tune", [True, False])
def test_a_frozen_autoencoder_and_wide_units(fine_tune):
    """Rows are compared in robust units, whatever the units of the autoencoder."""
    X, y, few = clusters()
    X = 1000 * X + 5000
    frozen = FrozenEstimator(skae.Autoencoder(**SMALL, random_state=0).fit(X))
    model = skae.AutoencoderClassifier(frozen, fine_tune=fine_tune, random_state=0)
    assert model.fit(X, few).score(X, y) > 0.95


def test_many_known_targets_are_not_propagated():
    X, y, _ = clusters()
    half = np.where(np.arange(300) < 150, y, -1)
    model = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), random_state=0).fit(X, half)
    expected = model.predict_proba(X)
    model.set_params(propagate=False).fit(X, half)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_missing_cells_and_categories():
    X, y, few = clusters()
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame.loc[::7, "a"] = np.nan
    frame["e"] = np.where(y == 2, "x", "y")
    model = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), random_state=0)
    assert model.fit(frame, few).score(frame, y) > 0.95
