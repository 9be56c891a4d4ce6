"""Validation rows that the user passes to `fit`."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_models import AUTOENCODERS, for_each
from test_common import configured

from skae import (
    Autoencoder,
    ConditionalVariationalAutoencoder,
    FairAutoencoder,
    SemiSupervisedVariationalAutoencoder,
)

RNG = np.random.default_rng(0)
AXES = RNG.normal(size=(3, 6))


def rows(n, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return np.tanh(rng.normal(size=(n, 3)) @ AXES) + noise * rng.normal(size=(n, 6))


X, V, MANY = rows(200), rows(30, seed=1), rows(150, seed=2)


def small(estimator_class=Autoencoder, **parameters):
    options = {"hidden_layer_sizes": (8,), "max_epochs": 8, "random_state": 0, "n_components": 2}
    return configured(estimator_class, **options | parameters)


def targets(estimator, table):
    """Classes of rows, for the estimators that require them."""
    is_required = estimator.__sklearn_tags__().target_tags.required
    return (table[:, 0] > 0).astype(int) if is_required else None


def fitted(estimator, X, V, **options):
    y, y_val = targets(estimator, X), targets(estimator, V)
    return estimator.fit(X, y, X_val=V, y_val=y_val, **options)


def weights(estimator):
    return [values.numpy() for values in estimator.module_.state_dict().values()]


def assert_same_weights(first, second):
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@for_each(AUTOENCODERS)
def test_all_rows_of_x_are_training_rows(estimator_class):
    """Few validation rows select no epoch: the network is that of a fit without any."""
    given = fitted(small(estimator_class), X, V)
    y = targets(given, X)
    without = small(estimator_class, early_stopping=False).fit(X, y)
    assert len(given.validation_curve_) == 8
    assert without.validation_curve_ == []
    # Validation rows are corrupted with the first random numbers. Targets are those of both tables.
    if given.corruption is None and y is None:
        assert given.loss_curve_ == without.loss_curve_
        if given.best_epoch_ == without.best_epoch_:
            assert_same_weights(given, without)


@for_each(AUTOENCODERS)
def test_many_rows_select_the_epoch(estimator_class):
    given = fitted(small(estimator_class), X, MANY)
    curve = given.validation_curve_
    if estimator_class is not FairAutoencoder and given.best_epoch_:
        assert given.best_epoch_ == 1 + int(np.argmin(curve))
    always = fitted(small(estimator_class, early_stopping=True), X, MANY)
    assert_same_weights(given, always)


def test_few_rows_select_the_epoch_if_early_stopping_is_true():
    given = small(early_stopping=True, learning_rate=0.3).fit(X, X_val=V)
    assert given.best_epoch_ == 1 + int(np.argmin(given.validation_curve_))
    assert given.best_epoch_ < 8


def test_the_network_is_never_trained_on_them():
    """If the initial network is kept, it is PCA of the rows of `X` alone."""
    linear = small(hidden_layer_sizes=()).fit(X, X_val=V)
    assert linear.best_epoch_ == 0
    pca = PCA(2).fit(X)
    np.testing.assert_allclose(linear.reconstruct(X), pca.inverse_transform(pca.transform(X)))


def test_the_size_and_the_conditions_are_those_of_x():
    low = RNG.normal(size=(200, 2)) @ RNG.normal(size=(2, 6))
    share = Autoencoder(0.99, max_epochs=1, random_state=0)
    assert share.fit(low, X_val=rows(300, noise=5.0)).n_components_ <= 2
    frame = pd.DataFrame(X).assign(group=np.where(np.arange(len(X)) % 10, "u", "v"))
    other = pd.DataFrame(MANY).assign(group="v")
    model = ConditionalVariationalAutoencoder(2, condition=["group"], max_epochs=1, random_state=0)
    for table in (frame, other):
        table.columns = table.columns.astype(str)
    drawn = model.fit(frame, X_val=other).sample(1000, random_state=0)
    assert (drawn["group"] == "v").mean() == pytest.approx(0.1, abs=0.05)


def test_the_noise_variance_is_theirs():
    linear, pca = small(hidden_layer_sizes=()), PCA(2).fit(X)
    for level in (0.1, 0.2):
        table = rows(2000, level, seed=3)
        error = ((table - pca.inverse_transform(pca.transform(table))) ** 2).sum(axis=1).mean()
        assert linear.fit(X, X_val=table).noise_variance_ == pytest.approx(error / 4, rel=0.05)


def test_weights_repeat_rows():
    count = np.arange(len(MANY)) % 3
    weighted = small().fit(X, X_val=MANY, sample_weight_val=count)
    repeated = small().fit(X, X_val=MANY.repeat(count, axis=0))
    np.testing.assert_allclose(weighted.validation_curve_, repeated.validation_curve_, rtol=1e-10)
    assert weighted.noise_variance_ == pytest.approx(repeated.noise_variance_)
    assert small().fit(X, X_val=MANY).noise_variance_ != pytest.approx(weighted.noise_variance_)


def test_a_row_may_be_in_both_tables():
    both = small().fit(X, X_val=X)
    assert len(both.validation_curve_) == 8
    assert both.loss_curve_ == small(early_stopping=False).fit(X).loss_curve_


def test_it_is_a_table_with_the_columns_of_x():
    names = list("abcdef")
    frame = pd.DataFrame(X, columns=names)
    as_frame = small().fit(frame, X_val=pd.DataFrame(V, columns=names))
    assert_same_weights(as_frame, small().fit(X, X_val=V))
    with pytest.raises(ValueError, match="feature names"):
        small().fit(frame, X_val=pd.DataFrame(V, columns=names[::-1]))
    with pytest.raises(ValueError, match="5 features"):
        small().fit(X, X_val=V[:, 1:])
    with pytest.raises(ValueError, match=r"All cells of X_val are missing \(NaN\)"):
        small().fit(X, X_val=np.full_like(V, np.nan))


def test_targets_are_joined():
    parameters = {"max_epochs": 3, "random_state": 0}
    semi = SemiSupervisedVariationalAutoencoder(2, **parameters)
    y, y_val = np.where(X[:, 0] > 0, "yes", "no"), np.where(V[:, 0] > 0, "yes", "no")
    semi.fit(X, y, X_val=V, y_val=y_val)
    assert semi.classes_.tolist() == ["no", "yes"]
    numbers = FairAutoencoder(2, sensitive=5, **parameters)
    numbers.fit(X, X[:, 0].tolist(), X_val=V, y_val=pd.Series(V[:, 0]))
    assert len(numbers.validation_curve_) == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"X_val": V}, "y_val must be passed with X_val"),
        ({"X_val": V, "y_val": [0, 1]}, "inconsistent numbers of samples"),
        ({"X_val": V, "y_val": ["a"] * len(V)}, "same kind as y"),
        ({"X_val": V, "y_val": [7] * len(V)}, "must not contain classes that y does not contain"),
        ({"X_val": V, "y_val": np.zeros((len(V), 2))}, "same kind as y"),
        ({"y_val": np.zeros(30)}, "together with X_val"),
        ({"sample_weight_val": np.ones(30)}, "together with X_val"),
    ],
)
def test_targets_must_match(options, match):
    semi = small(SemiSupervisedVariationalAutoencoder)
    with pytest.raises(ValueError, match=match):
        semi.fit(X, (X[:, 0] > 0).astype(int), **options)


@pytest.mark.parametrize(
    ("parameters", "options", "match"),
    [
        ({"early_stopping": False}, {}, "X_val cannot be passed with early_stopping=False"),
        ({}, {"X_corrupted": X}, "X_val cannot be passed with X_corrupted"),
        ({}, {"sample_weight_val": np.ones(3)}, r"shape == \(3,\)"),
        ({}, {"sample_weight_val": np.zeros(30)}, "at least one non-zero"),
        ({}, {"sample_weight_val": np.full(30, 1e308)}, "sample_weight_val must have a positive"),
    ],
)
def test_contradictions_are_refused(parameters, options, match):
    with pytest.raises(ValueError, match=match):
        small(**parameters).fit(X, X_val=V, **options)


def test_a_fit_resumes_with_other_validation_rows():
    model = small(warm_start=True).fit(X, X_val=V)
    model.fit(X, X_val=MANY)
    assert model.n_iter_ == 16
    assert model.start_epoch_ == 8


def test_a_pipeline_transforms_them():
    with config_context(enable_metadata_routing=True):
        last = small().set_fit_request(X_val=True)
        pipeline = make_pipeline(StandardScaler(), last, transform_input=["X_val"])
        pipeline.fit(X, X_val=V)
    scaler = StandardScaler().fit(X)
    direct = small().fit(scaler.transform(X), X_val=scaler.transform(V))
    assert_same_weights(pipeline[-1], direct)
