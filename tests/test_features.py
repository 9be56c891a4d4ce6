"""AutoencoderFeatures: which features it returns, their bounds, units and names."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from test_mixed import PANDAS, N

from skae import (
    Autoencoder,
    AutoencoderFeatures,
    DenoisingAutoencoder,
    FairAutoencoder,
    SemiSupervisedVariationalAutoencoder,
    VariationalAutoencoder,
    load,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2)) @ RNG.normal(size=(2, 5)) + 0.3 * RNG.normal(size=(200, 5))
QUICK = Autoencoder(2, hidden_layer_sizes=(7, 4), activation="tanh", max_epochs=3)
CUBED = Autoencoder(2, architecture="conv", feature_shape=(1, 1, 5), max_epochs=3)
RECURRENT = Autoencoder(
    *(2,), architecture="recurrent", hidden_layer_sizes=(6, 3), feature_shape=(5, 1), max_epochs=3
)
N_COLUMNS, N_UNITS, LARGEST = 5, 11, 4 * (4 / 11) ** 0.5


def fitted(autoencoder=QUICK, rows=X, **parameters):
    return AutoencoderFeatures(autoencoder, random_state=0, **parameters).fit(rows)


def hidden_by_hand(model, rows):
    """The activations of the hidden layers of an encoder that is a chain of dense layers."""
    network = model.autoencoder_.module_
    cells = torch.as_tensor(model.preprocess(rows), dtype=torch.float64)
    u = (cells - network.inputs.center) / network.inputs.scale
    first, second, _ = network.encoder.residual.layers
    units = torch.tanh(u @ first.weight.T + first.bias)
    return u, torch.cat([units, torch.tanh(units @ second.weight.T + second.bias)], 1)


def test_features_are_the_inputs_and_the_standardized_hidden_units():
    model = fitted()
    inputs, units = (part.detach().numpy() for part in hidden_by_hand(model, X))
    standard = (units - units.mean(axis=0)) / units.std(axis=0)
    expected = np.hstack([inputs, (4 / N_UNITS) ** 0.5 * standard.clip(-4, 4)])
    np.testing.assert_allclose(model.transform(X), expected, rtol=1e-6, atol=1e-8)
    alone = fitted(passthrough=False).transform(X)
    np.testing.assert_array_equal(alone, model.transform(X)[:, N_COLUMNS:])


@pytest.mark.parametrize("activation", ["tanh", "silu", "relu"])
def test_features_of_extreme_rows_are_bounded(activation):
    model = fitted(clone(QUICK).set_params(activation=activation))
    extreme = np.vstack([X[:3], 1e9 * X[:3], np.full((1, 5), -1e300)])
    features = model.transform(extreme)
    assert np.abs(features[:, N_COLUMNS:]).max() <= LARGEST * (1 + 1e-12)
    assert np.abs(model.preprocess(extreme)).max() <= 4
    assert np.abs(features[:, :N_COLUMNS]).max() <= 4


def test_units_of_columns_have_no_influence():
    scale, shift = np.array([1e-6, 3.0, 1e5, 1.0, 7.0]), np.array([0.0, 5.0, -1e4, 100.0, 0.0])
    other = scale * X + shift
    np.testing.assert_allclose(
        fitted(rows=other).transform(other), fitted().transform(X), atol=1e-4
    )


def test_a_weight_is_a_number_of_repetitions():
    weight = np.arange(len(X)) % 3
    quick = clone(QUICK).set_params(batch_size=1000, early_stopping=False)
    weighted = AutoencoderFeatures(quick, random_state=0).fit(X, sample_weight=weight)
    repeated = fitted(quick, np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), atol=1e-6)


def test_names():
    model = fitted(passthrough=True)
    units = [f"hidden0_{i}" for i in range(7)] + [f"hidden1_{i}" for i in range(4)]
    assert list(model.get_feature_names_out()) == [*(f"x{j}" for j in range(5)), *units]
    assert list(model.get_feature_names_out(list("abcde")))[:6] == [*"abcde", "hidden0_0"]
    with pytest.raises(ValueError, match="input_features"):
        model.get_feature_names_out(["a"])
    assert list(fitted(passthrough=False).get_feature_names_out()) == units
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d", "hidden0_3"])
    with pytest.raises(ValueError, match=r"have the name 'hidden0_3'. Rename the column"):
        fitted(rows=frame).get_feature_names_out()


def test_inputs_of_mixed_tables_are_in_the_order_of_columns():
    model = fitted(rows=PANDAS).set_output(transform="pandas")
    features = model.transform(PANDAS)
    assert len(features) == N
    assert np.isfinite(features.to_numpy()).all()
    names = list(features.columns)
    inputs = [name for name in names if not name.startswith(("hidden", "missingindicator"))]
    columns = [next(c for c in PANDAS.columns if name.startswith(c)) for name in inputs]
    assert columns == sorted(columns, key=list(PANDAS.columns).index)
    flags = [name for name in names if name.startswith("missingindicator")]
    missing = [c for c in PANDAS.columns if PANDAS[c].isna().any()]
    assert missing
    assert flags == [f"missingindicator_{c}" for c in missing]
    for column, flag in zip(missing, flags, strict=True):
        np.testing.assert_array_equal(features[flag] == 1, PANDAS[column].isna())
        own = [name for name in inputs if name.startswith(column)]
        assert (features.loc[PANDAS[column].isna(), own] == 0).all(axis=None)


@pytest.mark.parametrize(
    ("autoencoder", "n_units"),
    [(RECURRENT, 9), (CUBED, None), (Autoencoder(3, hidden_layer_sizes=(), max_epochs=3), 3)],
    ids=["recurrent", "conv", "linear"],
)
def test_units_of_other_architectures(autoencoder, n_units):
    model = fitted(autoencoder, passthrough=False)
    units = model.transform(X)
    assert units.shape == (len(X), len(model.get_feature_names_out()))
    assert n_units in (None, units.shape[1])
    if n_units == 3:
        codes = model.autoencoder_.transform(model.preprocess(X))
        standard = (codes - codes.mean(axis=0)) / codes.std(axis=0)
        np.testing.assert_allclose(units, (4 / 3) ** 0.5 * standard.clip(-4, 4), atol=1e-6)
        assert list(model.get_feature_names_out()) == [f"autoencoder{i}" for i in range(3)]


def test_sequences_of_different_lengths():
    rows = X.copy()
    rows[::3, 3:] = np.nan
    features = fitted(RECURRENT, rows).transform(rows)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[::3, 3:5], 0)


def test_stochastic_encoders_have_units_that_are_not_random():
    model = fitted(VariationalAutoencoder(2, hidden_layer_sizes=(7, 4), max_epochs=3))
    np.testing.assert_array_equal(model.transform(X), model.transform(X))


def test_a_frozen_autoencoder_receives_the_units_of_the_user():
    autoencoder = clone(QUICK).set_params(random_state=0).fit(X)
    before = autoencoder.transform(X)
    model = fitted(FrozenEstimator(autoencoder))
    np.testing.assert_array_equal(model.preprocess(X), X)
    np.testing.assert_array_equal(model.autoencoder_.transform(X), before)
    moved = AutoencoderFeatures(FrozenEstimator(autoencoder)).fit(X[:100]).transform(X)
    np.testing.assert_array_equal(moved[:, :N_COLUMNS], model.transform(X)[:, :N_COLUMNS])


def test_hidden_units_of_fair_autoencoders_are_refused():
    model = fitted()
    before = model.transform(X)
    model.set_params(autoencoder=FairAutoencoder(2, sensitive=[0]))
    with pytest.raises(TypeError, match="must not be a FairAutoencoder: only its codes"):
        model.fit(X)
    np.testing.assert_array_equal(model.transform(X), before)
    with pytest.raises(TypeError, match="must not require y"):
        fitted(SemiSupervisedVariationalAutoencoder(2))


def test_linear_models_fit_nonlinear_functions():
    """The function is even in each column, so that no linear function of columns predicts it."""
    rows = np.random.default_rng(1).normal(size=(600, 3))
    y = rows[:, 0] * rows[:, 1] + np.abs(rows[:, 2])
    model = make_pipeline(AutoencoderFeatures(random_state=0), RidgeCV())
    assert model.fit(rows[:400], y[:400]).score(rows[400:], y[400:]) > 0.7
    assert RidgeCV().fit(rows[:400], y[:400]).score(rows[400:], y[400:]) < 0.1


def test_searches_set_parameters_of_the_autoencoder():
    denoising = DenoisingAutoencoder(2, hidden_layer_sizes=(4,), max_epochs=2)
    model = make_pipeline(AutoencoderFeatures(denoising, random_state=0), LogisticRegression())
    grid = {"autoencoderfeatures__autoencoder__corruption": ["swap", "gaussian"]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, X[:, 0] > 0)
    assert search.best_score_ > 0.8


def test_float32_is_kept():
    single = X.astype(np.float32)
    features = fitted(rows=single).transform(single)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, fitted(rows=single).transform(X), atol=1e-4)


def test_features_of_a_given_number_are_principal_components_of_all_units():
    model = fitted(n_features=3)
    units = torch.cat([*decoder_by_hand(model, X)], 1).detach().numpy()
    standard = ((units - units.mean(axis=0)) / units.std(axis=0)).clip(-4, 4)
    expected = PCA(3).fit_transform(standard)
    features = model.transform(X)
    assert features.var(axis=0).mean() == pytest.approx(1)
    ratio = (features - features.mean(axis=0)) / expected
    assert np.ptp(np.abs(ratio)) < 1e-5 * np.abs(ratio).max()
    names = [f"autoencoderfeatures{i}" for i in range(3)]
    assert list(model.get_feature_names_out()) == names
    np.testing.assert_array_equal(fitted(n_features=3, passthrough=False).transform(X), features)


def decoder_by_hand(model, rows):
    """Yield the hidden units of the encoder, and those of the decoder."""
    u, hidden = hidden_by_hand(model, rows)
    yield hidden
    network = model.autoencoder_.module_
    z = network.encoder(u)
    for layer in network.decoder.residual.layers[:-1]:
        z = torch.tanh(layer(z))
        yield z


def test_the_default_autoencoder_has_the_number_of_features():
    assert fitted(None, X[:50], n_features=2).autoencoder_.n_components_ == 2
    assert fitted(None, X[:50]).autoencoder_.n_components_ == N_COLUMNS


@pytest.mark.parametrize(
    ("n_features", "match"), [(201, "at most 200, the number of distinct"), (23, "at most 22")]
)
def test_too_many_features_are_refused(n_features, match):
    with pytest.raises(ValueError, match=f"n_features={n_features} must be {match}"):
        fitted(n_features=n_features)


def test_features_of_a_given_number_are_stored(tmp_path):
    model = fitted(n_features=3)
    model.save(tmp_path / "model.skae")
    np.testing.assert_array_equal(load(tmp_path / "model.skae").transform(X), model.transform(X))


def test_the_number_of_features_may_change_when_training_resumes():
    quick = clone(QUICK).set_params(warm_start=True)
    model = fitted(quick).set_params(n_features=3)
    assert model.fit(X).transform(X).shape == (len(X), 3)


def test_a_column_that_was_constant_has_no_influence():
    """No weight of its inputs is trained."""
    constant = np.c_[X, np.full(len(X), 5.0)]
    model = fitted(rows=constant)
    changed = constant + np.array([0, 0, 0, 0, 0, 1e-3])
    np.testing.assert_array_equal(model.transform(changed), model.transform(constant))


def test_inputs_of_frozen_autoencoders_are_bounded():
    frozen = FrozenEstimator(clone(QUICK).set_params(random_state=0).fit(X))
    far = fitted(frozen).transform(1e6 * X)
    assert np.abs(far[:, :N_COLUMNS]).max() == 4


def test_repeated_names_of_inputs_are_refused():
    frame = pd.DataFrame({"c": np.where(X[:, 0] > 0, "x", "y"), "c_x": X[:, 1]})
    with pytest.raises(ValueError, match="the name 'c_x'"):
        fitted(rows=frame).get_feature_names_out()
