"""A user's own pair of torch modules as an architecture."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from test_common import configured, public_estimators, train
from torch import nn

from skae import Autoencoder, Checkpoint, ContractiveAutoencoder, VariationalAutoencoder
from skae.nn.bodies.modules import ModuleBody, SeededRandomness

RNG = np.random.default_rng(0)
X = np.tanh(RNG.normal(size=(80, 3)) @ RNG.normal(size=(3, 30)))
SHORT = {"max_epochs": 3, "random_state": 0}


class Tables(BaseEstimator):
    """Rows in, rows out; an estimator, so that searches may set its parameters."""

    def __init__(self, width=8):
        self.width = width

    def encoder(self, n_out):
        return nn.Sequential(
            nn.Linear(30, self.width),
            nn.LayerNorm(self.width),
            nn.GELU(),
            nn.Linear(self.width, n_out),
        )

    def decoder(self, n_in):
        return nn.Sequential(nn.Linear(n_in, self.width), nn.GELU(), nn.Linear(self.width, 30))


class Images:
    """Images in, images out."""

    def encoder(self, n_out):
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, n_out))

    def decoder(self, n_in):
        return nn.Sequential(
            nn.Linear(n_in, 12), nn.ReLU(), nn.Unflatten(1, (4, 3, 1)), nn.ConvTranspose2d(4, 2, 3)
        )


OWN = pytest.mark.parametrize(
    "parameters",
    [
        {"architecture": Tables()},
        {"architecture": Images(), "feature_shape": (2, 5, 3)},
    ],
    ids=["rows", "images"],
)


def drawn():
    """Modules and parameters made in all the usual ways."""
    module = nn.Sequential(
        nn.Linear(3, 4), nn.Conv1d(1, 2, 3), nn.GRU(3, 3), nn.MultiheadAttention(4, 2)
    )
    module.embedding = nn.Embedding(4, 3)
    nn.init.orthogonal_(module[0].weight)
    module.normal = nn.Parameter(torch.randn(3))
    module.uniform = nn.Parameter(nn.init.trunc_normal_(torch.rand(3, 3)))
    module.register_buffer("order", torch.randperm(20))
    module.register_buffer("numbers", torch.randint(0, 1000, (5,)))
    return module.state_dict()


def test_seeded_draws_come_from_the_generator_alone():
    before = torch.get_rng_state()

    def with_seed(seed):
        with SeededRandomness(torch.Generator().manual_seed(seed)):
            return drawn()

    first, same, other = with_seed(0), with_seed(0), with_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in first.items():
        assert torch.equal(tensor, same[name])
        constant = "bias" in name and ("3." in name)
        assert constant or not torch.equal(tensor, other[name]), name


@OWN
def test_equal_seeds_give_equal_bits(parameters):
    before = torch.get_rng_state()
    model = Autoencoder(3, **SHORT, **parameters).fit(X)
    codes = model.transform(X)
    np.testing.assert_array_equal(clone(model).fit(X).transform(X), codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), codes)
    assert torch.equal(torch.get_rng_state(), before)
    other = clone(model).set_params(random_state=1).fit(X)
    assert not np.array_equal(other.transform(X), codes)


@OWN
def test_with_the_skip_training_starts_at_pca(parameters):
    model = Autoencoder(3, **SHORT | {"max_epochs": 0}, **parameters).fit(X)
    pca = PCA(3).fit(X)
    np.testing.assert_allclose(
        model.reconstruct(X), pca.inverse_transform(pca.transform(X)), atol=1e-10
    )


@OWN
@pytest.mark.parametrize("linear_skip", [True, False])
def test_modules_are_trained(parameters, linear_skip):
    parameters = {**SHORT, "max_epochs": 60, "linear_skip": linear_skip} | parameters
    model = Autoencoder(3, early_stopping=False, **parameters).fit(X)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    start = model.set_params(max_epochs=0).fit(X).module_.state_dict()
    trained = model.set_params(max_epochs=60).fit(X).module_.state_dict()
    moved = [name for name in start if not torch.equal(start[name], trained[name])]
    assert {"encoder.residual.gate", "decoder.residual.gate"} <= set(moved)
    assert any(".module." in name for name in moved)


@pytest.mark.parametrize("estimator_class", public_estimators(), ids=lambda c: c.__name__)
def test_every_estimator_takes_them(estimator_class):
    estimator = configured(estimator_class, n_components=3, architecture=Tables(), **SHORT)
    train(estimator, X)
    assert (
        np.isfinite(estimator.score_samples(X)).all()
        if hasattr(estimator, "score_samples")
        else np.isfinite(estimator.transform(X)).all()
    )


def test_several_codes_of_a_row_pass_at_once():
    model = VariationalAutoencoder(
        3, n_importance_samples=4, architecture=Images(), feature_shape=(2, 5, 3), **SHORT
    ).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    contractive = ContractiveAutoencoder(3, architecture=Tables(), **SHORT).fit(X)
    assert np.isfinite(contractive.score_samples(X)).all()


class Dropping(Tables):
    """With a layer that draws while it is trained."""

    def encoder(self, n_out):
        return nn.Sequential(nn.Dropout(0.3), super().encoder(n_out))


def test_what_modules_draw_is_seeded():
    before = torch.get_rng_state()
    # Without the skip, training improves on its start, so that its end is kept.
    parameters = SHORT | {"max_epochs": 50, "linear_skip": False}
    model = Autoencoder(3, architecture=Dropping(), batch_size=8, **parameters)
    codes = model.fit_transform(X)
    np.testing.assert_array_equal(clone(model).fit_transform(X), codes)
    np.testing.assert_array_equal(model.transform(X), codes)
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(
        clone(model).set_params(architecture=Tables()).fit_transform(X), codes
    )


class Keeping(Tables):
    """Makes one module only."""

    def encoder(self, n_out):
        if not hasattr(self, "made"):
            self.made = super().encoder(n_out)
        return self.made


def test_models_share_no_module():
    pair = Keeping()
    first = Autoencoder(3, architecture=pair, **SHORT).fit(X)
    codes = first.transform(X)
    Autoencoder(3, architecture=pair, **SHORT | {"random_state": 1}).fit(2 * X)
    np.testing.assert_array_equal(first.transform(X), codes)


def test_a_module_that_fails_while_it_is_trained_is_named():
    class Normalising(Tables):
        def encoder(self, n_out):
            return nn.Sequential(nn.BatchNorm1d(30), super().encoder(n_out))

    with pytest.raises(ValueError, match=r"architecture.encoder\(3\).*more than 1 value"):
        Autoencoder(3, architecture=Normalising(), batch_size=1, **SHORT).fit(X)


def test_a_grid_search_copies_the_pair():
    grid = [{"architecture": ["mlp"]}, {"architecture": [Tables()], "architecture__width": [4, 8]}]
    search = GridSearchCV(Autoencoder(3, linear_skip=False, **SHORT), grid, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def test_joblib_keeps_it_and_files_do_not(tmp_path):
    model = Autoencoder(3, architecture=Tables(), **SHORT).fit(X)
    joblib.dump(model, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    with pytest.raises(TypeError, match=r"architecture=.*Use pickle"):
        model.save(tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_a_checkpoint_knows_the_pair(tmp_path):
    model = Autoencoder(3, architecture=Tables(), callbacks=[Checkpoint(tmp_path)], **SHORT)
    np.testing.assert_array_equal(
        model.fit_transform(X), clone(model).set_params(callbacks=None).fit_transform(X)
    )

    class Local(Tables):
        """Out of pickle's reach."""

    with pytest.raises(ValueError, match=r"architecture.*picklable"):
        model.set_params(architecture=Local()).fit(X)


class NoModule(Tables):
    def encoder(self, n_out):
        return 3


class WrongInput(Tables):
    def encoder(self, n_out):
        return nn.Linear(7, n_out)


class WrongOutput(Tables):
    def decoder(self, n_in):
        return nn.Linear(n_in, 7)


class Turned(Tables):
    def decoder(self, n_in):
        class Turn(nn.Module):
            def forward(self, z):
                return z.new_zeros(30, len(z))

        return Turn()


class Broken(Tables):
    def decoder(self, n_in):
        raise RuntimeError("no decoder today")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (NoModule(), r"architecture.encoder\(3\) must return a torch module, not 3"),
        (WrongInput(), r"architecture.encoder\(3\) must .* shape \(n, 30\) to \(n, 3\)"),
        (WrongOutput(), r"architecture.decoder\(3\) must .* shape \(n, 3\) to \(n, 30\)"),
        (Turned(), r"architecture.decoder\(3\) must .* for two rows it returns shape \(30, 2\)"),
        (Broken(), r"architecture.decoder\(3\) failed: no decoder today"),
        (Tables, r"architecture.encoder\(3\) failed"),
    ],
)
def test_what_does_not_fit_is_named(pair, message):
    fitted = Autoencoder(3, **SHORT).fit(X)
    codes = fitted.transform(X)
    with pytest.raises(ValueError, match=message):
        fitted.set_params(architecture=pair).fit(X)
    np.testing.assert_array_equal(fitted.transform(X), codes)


@pytest.mark.parametrize("name", ["tied_weights", "layerwise_epochs"])
def test_what_needs_layers_is_refused(name):
    with pytest.raises(ValueError, match=name):
        Autoencoder(3, architecture=Tables(), **SHORT, **{name: True}).fit(X)


class EncoderOnly:
    """An encoder without a decoder."""

    encoder = Tables(8).encoder


class DecoderOnly:
    """A decoder without an encoder."""

    decoder = Tables(8).decoder


@pytest.mark.parametrize(
    ("own", "module", "default"),
    [(EncoderOnly(), "encoder", "decoder"), (DecoderOnly(), "decoder", "encoder")],
    ids=["encoder", "decoder"],
)
@pytest.mark.parametrize("estimator_class", [Autoencoder, VariationalAutoencoder])
def test_the_other_network_is_that_of_mlp(estimator_class, own, module, default):
    parameters = {"hidden_layer_sizes": (6,), "activation": "tanh", **SHORT}
    model = estimator_class(2, architecture=own, **parameters).fit(X)
    usual = estimator_class(2, **parameters).fit(X)
    assert type(getattr(model.module_, module).residual) is ModuleBody
    other = getattr(model.module_, default).state_dict()
    expected = getattr(usual.module_, default).state_dict()
    assert {name: t.shape for name, t in other.items()} == {
        name: t.shape for name, t in expected.items()
    }
    assert model.reconstruct(X).shape == X.shape
    assert np.isfinite(model.score_samples(X)).all()
    same = pickle.loads(pickle.dumps(model)).transform(X)
    np.testing.assert_array_equal(same, model.transform(X))


def test_an_object_without_modules_is_refused():
    with pytest.raises(ValueError, match="'architecture' parameter of Autoencoder must be"):
        Autoencoder(2, architecture=object()).fit(X)
