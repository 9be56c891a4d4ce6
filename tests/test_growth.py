"""A longer code goes on from a shorter one, by `warm_start` with more components."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.utils import get_tags
from test_common import public_estimators
from torch import nn

import skae
from skae.base import BaseAutoencoder

X, Y = load_digits(return_X_y=True)
X, Y = X[:200] / 16, Y[:200]
SHORT = {"hidden_layer_sizes": (16,), "max_epochs": 3, "random_state": 0, "warm_start": True}
AUTOENCODERS = [c for c in public_estimators() if issubclass(c, BaseAutoencoder)]


class Normalized:
    """A pair of modules with numbers that are not weights."""

    def encoder(self, n_out):
        return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, n_out))

    def decoder(self, n_in):
        return nn.Sequential(nn.Linear(n_in, 8), nn.SiLU(), nn.Linear(8, 64))


KINDS = [
    {},
    {"architecture": "conv", "feature_shape": (1, 8, 8), "hidden_layer_sizes": (4,)},
    {"architecture": "recurrent", "feature_shape": (8, 8)},
    {"likelihood": "bernoulli"},
    {"noise": "diagonal"},
    {"tied_weights": True},
    {"linear_skip": False},
    {"hidden_layer_sizes": ()},
    {"posterior_covariance": "full"},
]


def fitted(estimator_class, n_components, **parameters):
    estimator = estimator_class(n_components=n_components, **(SHORT | parameters))
    return train(estimator)


def train(estimator):
    return estimator.fit(X, Y if get_tags(estimator).target_tags.required else None)


def cases():
    """Every autoencoder at its defaults, and a deterministic and a noisy code in every network."""
    for estimator_class in AUTOENCODERS:
        whole = estimator_class in (skae.Autoencoder, skae.VariationalAutoencoder)
        for kind in KINDS if whole else KINDS[:1]:
            if set(kind) <= set(estimator_class().get_params()):
                label = "-".join([estimator_class.__name__, *map(str, kind.values())])
                yield pytest.param(estimator_class, kind, id=label)


@pytest.mark.filterwarnings("ignore:(Posterior collapse|Only .* of n_codes|Training diverged)")
@pytest.mark.parametrize(("estimator_class", "kind"), list(cases()))
def test_every_autoencoder_can_grow(estimator_class, kind):
    longer = fitted(estimator_class, 2, **kind)
    before = longer.reconstruction_error(X).mean()
    train(longer.set_params(n_components=4, max_epochs=8))
    assert longer.n_components_ == 4
    assert longer.transform(X).shape == (200, longer._n_features_out)
    assert np.isfinite(longer.score_samples(X)).all()
    assert longer.reconstruction_error(X).mean() < 1.05 * before
    assert longer.n_iter_ == 8


@pytest.mark.parametrize("kind", KINDS[:5], ids=lambda kind: "-".join(map(str, kind.values())))
def test_old_components_stay_what_they_were(kind):
    short = fitted(skae.Autoencoder, 2, **kind)
    longer = train(copy.deepcopy(short).set_params(n_components=5, max_epochs=0))
    np.testing.assert_allclose(longer.transform(X)[:, :2], short.transform(X), rtol=1e-10)
    codes = np.random.default_rng(0).normal(size=(9, 2))
    silent = np.hstack([codes, np.zeros((9, 3))])
    if kind.get("architecture") != "recurrent":  # whose steps see components beside the code
        np.testing.assert_allclose(
            longer.inverse_transform(silent), short.inverse_transform(codes), rtol=1e-9, atol=1e-12
        )


def test_a_linear_code_grows_to_pca():
    """What is left of rows has the next principal axis."""
    grown = train(fitted(skae.Autoencoder, 3, hidden_layer_sizes=()).set_params(n_components=4))
    whole = fitted(skae.Autoencoder, 4, hidden_layer_sizes=())
    errors = [model.reconstruction_error(X).mean() for model in (grown, whole)]
    np.testing.assert_allclose(*errors, rtol=2e-3)


def test_growing_goes_on_from_what_was_learnt():
    longer = fitted(skae.Autoencoder, 4, max_epochs=30)
    grown = train(copy.deepcopy(longer).set_params(n_components=5, max_epochs=2))
    cold = fitted(skae.Autoencoder, 5, max_epochs=2)
    assert grown.score(X) > cold.score(X) + 1
    assert grown.loss_curve_[0] < cold.loss_curve_[0]


def test_growing_after_pickling_gives_the_same_bits():
    short = fitted(skae.Autoencoder, 2)
    again = pickle.loads(pickle.dumps(short))
    codes = [train(m.set_params(n_components=3)).transform(X) for m in (short, again)]
    np.testing.assert_array_equal(*codes)


def test_a_grown_fit_that_fails_leaves_the_shorter_model():
    short = fitted(skae.Autoencoder, 2)
    codes = short.transform(X)
    with pytest.raises(ValueError, match="Training failed"):
        train(short.set_params(n_components=3, learning_rate=1e300))
    np.testing.assert_array_equal(short.transform(X), codes)
    assert short.n_components_ == 2


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("fit", {"n_components": 2}),
        ("partial_fit", {"n_components": 4}),
        ("fit", {"n_components": 4, "hidden_layer_sizes": (8,)}),
        ("fit", {"n_components": 4, "hidden_layer_sizes": (2,)}),
        ("fit", {"n_components": 4, "hidden_layer_sizes": (16, 8)}),
        ("fit", {"n_components": 4, "hidden_layer_sizes": ()}),
        ("fit", {"n_components": 4, "linear_skip": False}),
        ("fit", {"n_components": 4, "tied_weights": True}),
        ("fit", {"n_components": 4, "posterior_covariance": "full"}),
    ],
)
def test_other_networks_are_refused(method, change):
    model = fitted(skae.VariationalAutoencoder, 3)
    with pytest.raises(ValueError, match="describe a different network"):
        getattr(model.set_params(**change), method)(X)


def test_other_codebooks_are_refused():
    model = fitted(skae.VectorQuantizedAutoencoder, 2, n_codes=8)
    with pytest.raises(ValueError, match=r"describe a different network.*n_codes"):
        train(model.set_params(n_components=4, n_codes=4))


def test_buffers_of_own_modules_go_on_too():
    model = fitted(skae.Autoencoder, 2, architecture=Normalized(), hidden_layer_sizes="auto")
    longer = train(copy.deepcopy(model).set_params(n_components=3, max_epochs=0))
    np.testing.assert_allclose(longer.transform(X)[:, :2], model.transform(X), rtol=1e-10)
