"""Order, units and variances of components, those of PCA, and what the order may not change."""

import copy
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from small_models import AUTOENCODERS, X, fitted_once, for_each, tiny
from test_common import train
from torch import nn

import skae
from skae import Autoencoder, AutoencoderClassifier, ContractiveAutoencoder, DenoisingAutoencoder
from skae.metrics import explained_variance_ratio
from skae.nn.batch import Batch
from skae.nn.rotation import can_rotate, rotate
from skae.training.loop import Net

CANCER = StandardScaler().fit_transform(load_breast_cancer().data)
LINEAR = {"hidden_layer_sizes": (), "max_epochs": 0, "early_stopping": False}
ORDERED = [Autoencoder, ContractiveAutoencoder, DenoisingAutoencoder]
"""Autoencoders whose components `fit` orders."""

NETWORKS = {
    "mlp": {"hidden_layer_sizes": (9, 6)},
    "linear": {"hidden_layer_sizes": ()},
    "no skip": {"hidden_layer_sizes": (9,), "linear_skip": False},
    "conv": {"architecture": "conv", "feature_shape": (1, 2, 3), "hidden_layer_sizes": (3,)},
    "recurrent": {"architecture": "recurrent", "feature_shape": (3, 2), "hidden_layer_sizes": (4,)},
    "bernoulli": {"likelihood": "bernoulli", "hidden_layer_sizes": (9,)},
}


class OwnDecoder:
    """A pair of modules of which only the decoder is the user's."""

    def decoder(self, n_in):
        return nn.Sequential(nn.Linear(n_in, 5), nn.SiLU(), nn.Linear(5, 6))


UNORDERED = {
    "tied": {"tied_weights": True, "hidden_layer_sizes": (9,), "linear_skip": False},
    "module": {"architecture": OwnDecoder(), "hidden_layer_sizes": (9,), "linear_skip": False},
}


def rows_in_range(curved, parameters):
    if parameters.get("likelihood") != "bernoulli":
        return curved
    return (curved - curved.min(axis=0)) / np.ptp(curved, axis=0)


def fit(curved, **parameters):
    defaults = {"n_components": 3, "max_epochs": 20, "early_stopping": False, "random_state": 0}
    # Without these two, so few rows would be left to PCA.
    defaults |= {"precision": "float64", "weight_decay": 0.1, "learning_rate": 0.03}
    return Autoencoder(**(defaults | parameters)).fit(rows_in_range(curved, parameters))


def correlations(Z):
    """Largest absolute correlation between two components."""
    return abs(np.corrcoef(Z.T) - np.eye(Z.shape[1])).max()


def shares_by_hand(model, rows):
    """Explained variance that is lost if a component of the code is set to its mean."""
    Z = model.transform(rows)
    full = explained_variance_ratio(model, rows)
    total = ((rows - rows.mean(axis=0)) ** 2).sum()
    lost = []
    for j in range(Z.shape[1]):
        without = Z.copy()
        without[:, j] = Z[:, j].mean()
        lost.append(full - 1 + ((rows - model.inverse_transform(without)) ** 2).sum() / total)
    return np.array(lost)


# ------------------------------------------------------------------------------------ PCA


TABLES = {"iris": load_iris().data, "wine": load_wine().data, "cancer": CANCER[:250]}


@pytest.mark.every_case
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("n_components", [None, "mle", 3, 0.9])
@pytest.mark.parametrize("whiten", [False, True])
def test_the_start_has_the_attributes_of_pca(table, n_components, whiten):
    rows = TABLES[table]
    pca = PCA(n_components, whiten=whiten, svd_solver="full").fit(rows)
    start = Autoencoder(n_components, whiten=whiten, **LINEAR).fit(rows)
    assert start.n_components_ == pca.n_components_
    assert start.n_samples_ == start.n_samples_seen_ == pca.n_samples_
    for name in (
        *("components_", "mean_", "explained_variance_", "explained_variance_ratio_"),
        "singular_values_",
    ):
        expected = getattr(pca, name)
        np.testing.assert_allclose(
            getattr(start, name), expected, rtol=1e-6, atol=1e-9 * abs(expected).max(), err_msg=name
        )
    Z = pca.transform(rows)
    np.testing.assert_allclose(start.transform(rows), Z, atol=1e-8 * abs(Z).max())
    np.testing.assert_allclose(start.inverse_transform(Z), pca.inverse_transform(Z), rtol=1e-8)
    # With `whiten=True`, PCA's covariance is that of other rows than those that it was fitted to.
    pca.whiten = False
    np.testing.assert_allclose(start.get_covariance(), pca.get_covariance(), rtol=1e-6, atol=1e-8)
    if n_components in (3, 0.9):
        precision = pca.get_precision()
        atol = 1e-6 * abs(precision).max()
        np.testing.assert_allclose(start.get_precision(), precision, rtol=1e-6, atol=atol)
        np.testing.assert_allclose(start.noise_variance_, pca.noise_variance_, rtol=1e-6)


def test_the_shares_of_many_linear_components_are_exact():
    """They are computed from all rows, although decoding each of them would take long."""
    rows = np.random.default_rng(0).normal(size=(3000, 120))
    start = Autoencoder(120, precision="float64", **LINEAR).fit(rows)
    expected = PCA(120).fit(rows).explained_variance_ratio_
    np.testing.assert_allclose(start.explained_variance_ratio_, expected, rtol=1e-8)


def test_fewer_rows_than_columns_have_as_many_components_as_rows():
    rows = np.random.default_rng(0).normal(size=(10, 20))
    with pytest.warns(UserWarning, match="The noise variance cannot be estimated"):
        start = Autoencoder(None, **LINEAR).fit(rows)
    pca = PCA(None).fit(rows)
    np.testing.assert_allclose(start.transform(rows), pca.transform(rows), atol=1e-12)
    with pytest.raises(ValueError, match="n_components='mle' requires at least as many rows"):
        Autoencoder("mle", **LINEAR).fit(rows)


def test_the_map_of_a_trained_linear_autoencoder(curved):
    linear = Autoencoder(2, hidden_layer_sizes=(), linear_skip=False, random_state=0).fit(curved)
    by_hand = (curved - linear.mean_) @ linear.components_.T
    np.testing.assert_allclose(linear.transform(curved), by_hand, atol=1e-9)
    sampled = np.cov(linear.sample(200_000, random_state=0).T)
    np.testing.assert_allclose(linear.get_covariance(), sampled, atol=0.02 * sampled.max())


@pytest.mark.parametrize("estimator_class", [Autoencoder, skae.VariationalAutoencoder])
def test_a_nonlinear_model_has_no_linear_map(estimator_class):
    model = fitted_once(estimator_class)
    for name in ("components_", "mean_"):
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match="linear autoencoders only: hidden_layer_sizes="):
            getattr(model, name)
    with pytest.raises(ValueError, match="linear autoencoders only"):
        model.get_covariance()


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e30])
def test_the_estimate_of_the_size_does_not_depend_on_the_unit(scale):
    rows = TABLES["wine"]
    assert Autoencoder("mle", **LINEAR).fit(scale * rows).n_components_ == 12


@pytest.mark.parametrize("rows", [np.ones((20, 3)), np.arange(20.0)[:, None]])
def test_the_estimate_of_the_size_is_at_least_one(rows):
    assert Autoencoder("mle", noise=1.0, **LINEAR).fit(rows).n_components_ == 1


@pytest.mark.parametrize("shift", [1e4, 1e6])
def test_the_covariance_does_not_depend_on_the_mean(shift):
    rows = (TABLES["iris"] + shift).astype(np.float32)
    start = Autoencoder(2, precision="float32", **LINEAR).fit(rows)
    expected = PCA(2).fit(rows.astype(np.float64)).get_covariance()
    np.testing.assert_allclose(start.get_covariance(), expected, atol=1e-3 * expected.max())


def test_a_singular_covariance_has_no_inverse():
    rows = np.random.default_rng(0).normal(size=(60, 2)) @ [[1.0, 2, 0, 1], [0, 1, 1, -1]]
    start = Autoencoder(2, noise=1e-300, **LINEAR).fit(rows)
    with pytest.raises(ValueError, match="The covariance is singular"):
        start.get_precision()


# ----------------------------------------------------------------------------- all estimators


@for_each(AUTOENCODERS)
def test_variances_and_shares_are_those_of_the_codes(estimator_class):
    model = fitted_once(estimator_class)
    Z = model.transform(X)
    np.testing.assert_allclose(model.explained_variance_, Z.var(axis=0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(
        model.explained_variance_ratio_, shares_by_hand(model, X), rtol=1e-5, atol=1e-9
    )
    norms = np.linalg.norm(Z - Z.mean(axis=0), axis=0)
    np.testing.assert_allclose(model.singular_values_, norms, rtol=1e-6)
    assert model.n_samples_ == len(X)
    assert can_rotate(model.module_) == (estimator_class in ORDERED)


@for_each(ORDERED)
def test_components_are_uncorrelated_and_in_order(estimator_class):
    model = fitted_once(estimator_class, max_epochs=20)
    Z = model.transform(X)
    assert correlations(Z) < 1e-10
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-12)
    assert (np.diff(model.explained_variance_ratio_) <= 0).all()


@for_each([c for c in AUTOENCODERS if c not in ORDERED])
def test_other_autoencoders_refuse_to_whiten(estimator_class):
    with pytest.raises(ValueError, match=f"whiten=True.*{estimator_class.__name__}"):
        train(tiny(estimator_class, whiten=True), X)


# --------------------------------------------------------------------------- what stays equal


@pytest.mark.every_case
@pytest.mark.parametrize("network", NETWORKS)
def test_the_order_changes_neither_rows_nor_densities(curved, network, monkeypatch):
    parameters = NETWORKS[network]
    rows, ordered = rows_in_range(curved, parameters), fit(curved, **parameters)
    Z = ordered.transform(rows)
    assert correlations(Z) < 1e-8
    assert (np.diff(ordered.explained_variance_ratio_) <= 0).all()
    monkeypatch.setattr("skae.fitting.components.can_rotate", lambda network: False)
    kept = fit(curved, **parameters)
    # The optimum of a linear autoencoder is PCA, whose codes are uncorrelated.
    assert network == "linear" or correlations(kept.transform(rows)) > 1e-3
    for method in ("reconstruct", "score_samples", "reconstruction_error"):
        a, b = getattr(ordered, method)(rows), getattr(kept, method)(rows)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * abs(b).max(), err_msg=method)
    # The change of codes is orthogonal.
    turn = np.linalg.lstsq(kept.transform(rows), Z, rcond=None)[0]
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-8)


@pytest.mark.every_case
@pytest.mark.parametrize("network", NETWORKS)
def test_momentum_is_rotated_as_gradients_are(curved, network):
    parameters = NETWORKS[network]
    model = fit(curved, max_epochs=2, **parameters)
    net = Net.from_module(copy.deepcopy(model.module_), torch.Generator())
    x = torch.tensor(rows_in_range(curved, parameters))
    batch = Batch(x, torch.ones(len(x), dtype=x.dtype))

    def gradients():
        net.module_.zero_grad()
        net.module_.losses(None, batch).sum().backward()
        return [p.grad.clone() for p in net.module_.parameters()]

    trained = [*net.module_.parameters()]
    for p, gradient in zip(trained, gradients(), strict=True):
        net.optimizer_.state[p]["exp_avg"].copy_(gradient)
    before = net.module_.losses(None, batch).detach()
    axes = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    rotate(net.module_, axes, net.optimizer_.state)
    torch.testing.assert_close(net.module_.losses(None, batch).detach(), before)
    for p, gradient in zip(trained, gradients(), strict=True):
        momentum = net.optimizer_.state[p]["exp_avg"]
        torch.testing.assert_close(momentum, gradient, rtol=1e-8, atol=1e-8)


class AtTheEnd(Callback):
    """Keeps a copy of the module at the end of training, for all clones of the callback."""

    modules: ClassVar = []

    def on_train_end(self, net, **kwargs):
        self.modules.append(copy.deepcopy(net.module_))


def test_the_weights_at_the_end_of_training_are_those_of_the_model(curved):
    """The head of a classifier is rotated with the codes."""
    y = curved[:, 0] > 0
    model = Autoencoder(3, hidden_layer_sizes=(9, 6), max_epochs=20, callbacks=[AtTheEnd()])
    fitted = AutoencoderClassifier(model, random_state=0).fit(curved, y).autoencoder_.module_
    network = AtTheEnd.modules[-1]
    for name, weights in fitted.state_dict().items():
        assert torch.equal(weights, network.state_dict()[name]), name
    x = torch.tensor(curved, dtype=network.like.dtype)
    batch = Batch(x, torch.ones(len(x), dtype=x.dtype))

    def predictions():
        head, z = network.auxiliary, network.encode(batch).mean
        return head.linear((z - head.center) / head.scale).detach()

    outputs = [predictions()]
    rotate(network, torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0], {})
    outputs.append(predictions())
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", "recurrent"])
def test_whitened_codes_have_unit_variance_and_the_same_rows(curved, network):
    plain, whitened = (fit(curved, whiten=w, **NETWORKS[network]) for w in (False, True))
    Z = plain.transform(curved)
    scaled = Z / np.sqrt(plain.explained_variance_)
    np.testing.assert_allclose(whitened.transform(curved), scaled, atol=1e-10)
    np.testing.assert_allclose(np.cov(scaled.T), np.eye(3), atol=1e-8)
    for method in ("reconstruct", "score_samples"):
        a, b = getattr(whitened, method)(curved), getattr(plain, method)(curved)
        np.testing.assert_allclose(a, b, rtol=1e-10, err_msg=method)
    for name in ("explained_variance_", "explained_variance_ratio_"):
        np.testing.assert_array_equal(getattr(whitened, name), getattr(plain, name))
    np.testing.assert_array_equal(
        whitened.inverse_transform(whitened.transform(curved)), whitened.reconstruct(curved)
    )


def test_a_component_without_variance_is_not_whitened():
    rows = np.random.default_rng(0).normal(size=(60, 2)) @ [[1, 2, 0, 1], [0, 1, 1, -1]]
    model = Autoencoder(3, whiten=True, noise=0.1, **LINEAR).fit(rows)
    np.testing.assert_allclose(model.transform(rows).std(axis=0, ddof=1), [1, 1, 0], atol=1e-9)


def test_a_weight_of_two_is_a_repeated_row(curved):
    parameters = {"hidden_layer_sizes": (6,), "early_stopping": False}
    weight = np.random.default_rng(0).integers(1, 4, len(curved))
    model = Autoencoder(3, random_state=0, **parameters)
    weighted = copy.deepcopy(model.fit(curved, sample_weight=weight))
    repeated = model.fit(np.repeat(curved, weight, axis=0))
    for name in ("explained_variance_", "explained_variance_ratio_", "n_samples_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-6)


def test_shares_of_large_tables_are_estimated_from_training_rows(curved, monkeypatch):
    """Validation rows of the user, which are unlike the others, are not among them."""
    parameters = {"hidden_layer_sizes": (9, 6), "max_epochs": 5, "random_state": 0}
    model = Autoencoder(3, **parameters).fit(curved, X_val=curved + 100)
    monkeypatch.setattr("skae.fitting.components.SHARE_COST", 1)
    sampled = Autoencoder(3, **parameters).fit(curved, X_val=curved + 100)
    expected = model.explained_variance_ratio_
    np.testing.assert_allclose(sampled.explained_variance_ratio_, expected, rtol=1e-9)


# ------------------------------------------------------------------------------ kept axes


@pytest.mark.parametrize("kind", UNORDERED)
def test_tied_weights_and_modules_keep_their_axes(curved, kind):
    model = fit(curved, **UNORDERED[kind])
    Z = model.transform(curved)
    assert correlations(Z) > 1e-4
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(model.explained_variance_, Z.var(axis=0, ddof=1), rtol=1e-8)
    with pytest.raises(ValueError, match=r"whiten=True.*tied.*module"):
        fit(curved, whiten=True, **UNORDERED[kind])


def test_a_fit_that_resumes_keeps_the_axes(curved):
    first = fit(curved, hidden_layer_sizes=(9, 6), warm_start=True)
    Z, offset = first.transform(curved), first._fitted.components.offset
    again = copy.deepcopy(first).set_params(max_epochs=0).fit(curved)
    np.testing.assert_array_equal(again.transform(curved), Z)
    longer = copy.deepcopy(first).set_params(max_epochs=20).fit(curved)
    np.testing.assert_array_equal(longer._fitted.components.offset, offset)
    assert correlations(longer.transform(curved)) > 1e-4
    whitened = copy.deepcopy(first).set_params(max_epochs=0, whiten=True).fit(curved)
    np.testing.assert_allclose(whitened.transform(curved).std(axis=0, ddof=1), 1)
    grown = copy.deepcopy(first).set_params(max_epochs=0, n_components=4, whiten=True).fit(curved)
    np.testing.assert_allclose(grown.transform(curved).std(axis=0, ddof=1), 1)
    larger = copy.deepcopy(first).set_params(max_epochs=0, n_components=4).fit(curved)
    np.testing.assert_allclose(larger.transform(curved)[:, :3], Z, atol=1e-12)


def test_partial_fit_keeps_the_axes_and_has_the_units_of_rows(curved):
    streamed = Autoencoder(2, hidden_layer_sizes=(), learning_rate=1e-300, random_state=0)
    streamed.partial_fit(curved)
    Z = PCA(2).fit_transform(curved)
    np.testing.assert_allclose(streamed.transform(curved), Z, atol=1e-6)
    np.testing.assert_allclose(streamed.explained_variance_, Z.var(axis=0, ddof=1), rtol=1e-6)
    with pytest.raises(ValueError, match="whiten=True is not supported by partial_fit"):
        Autoencoder(2, whiten=True).partial_fit(curved)
    streamed.set_params(whiten=True, warm_start=True)
    for method in (streamed.fit, streamed.partial_fit):
        with pytest.raises(ValueError, match="whiten=True is not supported if training resumes"):
            method(curved)
    model = fit(curved, whiten=True)
    # The network is that of PCA, but it is not replaced by that of the rows of both calls.
    assert not model.best_epoch_
    units = model._fitted.components
    model.set_params(learning_rate=1e-300).partial_fit(curved[:5])
    np.testing.assert_array_equal(model._fitted.components.scale, units.scale)


def test_whitening_can_be_switched_on_after_loading(curved, tmp_path):
    model = fit(curved, hidden_layer_sizes=(9, 6))
    model.save(tmp_path / "model")
    loaded = skae.load(tmp_path / "model").set_params(whiten=True, learning_rate=1e-300)
    loaded.partial_fit(curved[:5])
    np.testing.assert_allclose(loaded.transform(curved).std(axis=0, ddof=1), 1)


def test_a_frozen_autoencoder_keeps_its_codes(curved):
    model = fit(curved, whiten=True)
    y = np.arange(len(curved)) % 2
    frozen = AutoencoderClassifier(FrozenEstimator(model), fine_tune=False).fit(curved, y)
    np.testing.assert_array_equal(frozen.transform(curved), model.transform(curved))


# ------------------------------------------------------------------------- longer than rows


def test_a_code_that_can_copy_rows_is_warned_about_once(curved):
    parameters = {"n_components": 7, "max_epochs": 1}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(curved, **parameters)
    assert [str(w.message)[:14] for w in caught] == ["n_components=7"]
    for estimator in (
        Autoencoder(**parameters, corruption="masking"),
        DenoisingAutoencoder(**parameters),
        ContractiveAutoencoder(**parameters),
        skae.SparseAutoencoder(**parameters),
        skae.WassersteinAutoencoder(**parameters),
        Autoencoder(6, max_epochs=1),
    ):
        estimator.fit(curved)
