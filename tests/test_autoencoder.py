"""What `Autoencoder` promises: identities with PCA, the training options, the methods."""

import inspect
import os
import pickle
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import sklearn
import torch
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils._param_validation import InvalidParameterError
from skorch.callbacks import Callback, EarlyStopping
from small_models import AUTOENCODERS, TaskCallback, for_each
from test_common import train

import skae
from skae import Autoencoder
from skae.fitting.prepare import draw_seed
from skae.nn.batch import Batch
from skae.nn.bodies.layers import ACTIVATIONS
from skae.nn.draws import Draws, derive_seed
from skae.nn.objective import trimmed_mean
from skae.table.rows import hash_rows, merge_equal_rows
from skae.training.budget import Budget
from skae.training.plan import Plan

FROZEN = {"learning_rate": 1e-300, "early_stopping": False, "random_state": 0}
"""Trains without moving: what is recorded is the objective at the start."""


def small(**parameters):
    """A fast autoencoder with two code components."""
    defaults = {
        "n_components": 2,
        "hidden_layer_sizes": (16,),
        "max_epochs": 10,
        "random_state": 0,
    }
    return Autoencoder(**(defaults | parameters))


def state(autoencoder):
    return {k: v.clone() for k, v in autoencoder.module_.state_dict().items()}


def assert_same_bits(a, b, X):
    """Two fitted autoencoders agree in every weight and every answer."""
    for name, value in state(a).items():
        assert torch.equal(value, state(b)[name]), name
    np.testing.assert_array_equal(a.transform(X), b.transform(X))
    np.testing.assert_array_equal(a.reconstruct(X), b.reconstruct(X))
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


# ------------------------------------------------------------------------- PCA


def assert_is_pca(autoencoder, X, k):
    """Error within 0.2 % of PCA's, decoder's subspace within 3 degrees of PCA's."""
    pca = PCA(k, svd_solver="full").fit(X)
    pca_error = ((pca.inverse_transform(pca.transform(X)) - X) ** 2).sum()
    assert autoencoder.reconstruction_error(X).sum() <= 1.002 * pca_error
    axes = autoencoder.inverse_transform(np.eye(k)) - autoencoder.inverse_transform(
        np.zeros((1, k))
    )
    assert np.rad2deg(subspace_angles(axes.T, pca.components_.T)).max() <= 3


@pytest.mark.parametrize("k", [2, 8])
def test_linear_autoencoder_stays_pca(digits, k):
    linear = Autoencoder(k, hidden_layer_sizes=(), early_stopping=False, random_state=0)
    some = digits[::3]
    assert_is_pca(linear.fit(some), some, k)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 8, 16])
def test_linear_autoencoder_finds_pca_from_a_random_start(digits, k):
    linear = Autoencoder(
        k,
        hidden_layer_sizes=(),
        linear_skip=False,
        max_epochs=1000,
        learning_rate=1e-2,
        early_stopping=False,
        random_state=0,
    )
    some = digits[::3]
    assert_is_pca(linear.fit(some), some, k)


@pytest.mark.parametrize("load", [load_wine, load_iris, load_breast_cancer])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"hidden_layer_sizes": ()},
        {"tied_weights": True},
        {"activation": "logistic"},
    ],
    ids=str,
)
def test_untrained_is_pca(load, k, parameters):
    """Codes up to sign, reconstructions and densities are PCA's before the first step."""
    X = load().data
    pca = PCA(k, svd_solver="full").fit(X)
    start = Autoencoder(k, max_epochs=0, early_stopping=False, random_state=0, **parameters).fit(X)
    expected = pca.inverse_transform(pca.transform(X))
    np.testing.assert_allclose(start.reconstruct(X), expected, rtol=0, atol=1e-9 * abs(X).max())
    np.testing.assert_allclose(start.score_samples(X), pca.score_samples(X), rtol=1e-6)
    assert start.score(X) == pytest.approx(pca.score(X), rel=1e-6)
    assert start.noise_variance_ == pytest.approx(pca.noise_variance_, rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("tied_weights", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_start_is_a_trap(curved, activation, tied_weights):
    """PCA is where training starts, not where it stays for want of a gradient."""
    pca = PCA(2).fit(curved)
    trained = small(
        activation=activation,
        tied_weights=tied_weights,
        hidden_layer_sizes=(32, 16),
        weight_decay=0.0,
        learning_rate=1e-2,
        max_epochs=300,
        early_stopping=False,
    ).fit(curved)
    error, start = (
        ((curved - restored) ** 2).sum()
        for restored in (trained.reconstruct(curved), pca.inverse_transform(pca.transform(curved)))
    )
    assert error < 0.2 * start


@pytest.mark.filterwarnings("ignore:n_components=10 exceeds:UserWarning")
def test_untrained_overcomplete_is_the_identity(curved):
    start = small(n_components=10, max_epochs=0).fit(curved)
    assert start.n_components_ == 10
    np.testing.assert_allclose(start.reconstruct(curved), curved, atol=1e-9)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_share_of_variance_counts_components_as_pca(digits, share):
    some = digits[:150]
    fitted = Autoencoder(share, hidden_layer_sizes=(), max_epochs=0, random_state=0).fit(some)
    assert fitted.n_components_ == PCA(share, svd_solver="full").fit(some).n_components_


@pytest.mark.parametrize(("d", "k"), [(1, 1), (2, 1), (6, 2), (13, 4), (64, 8)])
def test_auto_is_the_rounded_root_of_the_columns(d, k):
    X = np.random.default_rng(0).normal(size=(20, d))
    assert Autoencoder(max_epochs=0).fit(X).n_components_ == k


def test_beats_pca_on_rows_it_has_not_seen(digits):
    train, test = digits[::2], digits[1::2]
    pca = PCA(8).fit(train)
    pca_error = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).sum(axis=1).mean()
    autoencoder = Autoencoder(8, max_epochs=30, random_state=0).fit(train)
    assert autoencoder.reconstruction_error(test).mean() < 0.8 * pca_error
    assert autoencoder.score(test) > pca.score(test)


# --------------------------------------------------------------------- methods


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_rows(curved, dtype):
    X = curved.astype(dtype)
    fitted = small().fit(X)
    Z = fitted.transform(X)
    assert Z.dtype == dtype
    assert fitted.inverse_transform(Z).dtype == dtype
    assert fitted.reconstruct(X).dtype == dtype
    assert fitted.reconstruction_error(X).dtype == np.float64
    assert fitted.score_samples(X).dtype == np.float64


def test_methods_agree_with_each_other(curved):
    fitted = small().fit(curved)
    again = fitted.reconstruct(curved)
    codes = fitted.transform(curved)
    np.testing.assert_allclose(fitted.inverse_transform(codes), again, rtol=1e-12)
    cells = fitted.reconstruction_error(curved, per_feature=True)
    np.testing.assert_allclose(cells, (curved - again) ** 2, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(fitted.reconstruction_error(curved), cells.sum(axis=1))
    assert fitted.score(curved) == pytest.approx(fitted.score_samples(curved).mean())
    weight = np.arange(len(curved))
    weighted = np.average(fitted.score_samples(curved), weights=weight)
    assert fitted.score(curved, sample_weight=weight) == pytest.approx(weighted)


def test_fit_transform_is_fit_then_transform(curved):
    np.testing.assert_array_equal(
        small().fit_transform(curved), small().fit(curved).transform(curved)
    )


def test_rows_do_not_depend_on_their_batch(curved):
    fitted = small().fit(curved)
    for method in (fitted.transform, fitted.reconstruct, fitted.score_samples):
        alone = np.concatenate([method(curved[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(method(curved)[:20], alone, rtol=1e-10, atol=1e-12)


def test_bernoulli_error_is_the_deviance():
    X = (np.random.default_rng(0).random((80, 5)) < 0.4).astype(float)
    fitted = small(likelihood="bernoulli").fit(X)
    p = fitted.reconstruct(X)
    assert ((p > 0) & (p < 1)).all()
    deviance = -2 * (X * np.log(p) + (1 - X) * np.log1p(-p))
    np.testing.assert_allclose(
        fitted.reconstruction_error(X, per_feature=True),
        deviance,
        rtol=1e-8,
        atol=1e-12,
    )
    assert set(np.unique(fitted.sample(50, random_state=0))) == {0.0, 1.0}
    assert fitted.noise_variance_ == 0


def test_linear_density_is_that_of_a_normal_distribution(curved):
    """Rows and draws of an untrained linear model follow PCA's normal distribution."""
    linear = small(hidden_layer_sizes=(), max_epochs=0, early_stopping=False).fit(curved)
    pca = PCA(2).fit(curved)
    normal = multivariate_normal(pca.mean_, pca.get_covariance())
    np.testing.assert_allclose(linear.score_samples(curved), normal.logpdf(curved), rtol=1e-8)
    n = 40_000
    drawn = linear.sample(n, random_state=0)
    covariance = pca.get_covariance()
    five_errors = 5 / np.sqrt(n)
    spread = np.sqrt(np.diag(covariance))
    assert (abs(drawn.mean(axis=0) - pca.mean_) < five_errors * spread).all()
    limit = five_errors * np.sqrt(np.outer(spread, spread) ** 2 + covariance**2)
    assert (abs(np.cov(drawn.T) - covariance) < limit).all()
    # The mean of minus log-density over draws is the distribution's entropy.
    entropy_error = linear.score(drawn) + normal.entropy()
    assert abs(entropy_error) < 5 * np.sqrt(curved.shape[1] / 2 / n)


def test_mean_samples_lie_on_the_decoder(curved):
    linear = small(hidden_layer_sizes=(), max_epochs=0).fit(curved)
    drawn = linear.sample(50, mean=True, random_state=0)
    np.testing.assert_allclose(linear.reconstruct(drawn), drawn, atol=1e-9)
    assert not np.allclose(linear.sample(50, random_state=0), drawn)


def test_samples_follow_their_seed(curved):
    fitted = small().fit(curved)
    np.testing.assert_array_equal(
        fitted.sample(5, random_state=1), fitted.sample(5, random_state=1)
    )
    assert not np.array_equal(fitted.sample(5, random_state=1), fitted.sample(5, random_state=2))
    assert not np.array_equal(fitted.sample(5), fitted.sample(5))
    state = np.random.RandomState(0)
    assert not np.array_equal(
        fitted.sample(5, random_state=state), fitted.sample(5, random_state=state)
    )
    with pytest.raises(ValueError, match="n_samples"):
        fitted.sample(0)


@for_each(AUTOENCODERS)
def test_samples_are_not_made_of_the_numbers_of_the_fit(estimator_class, monkeypatch):
    """A fit and a sample with the same `random_state` draw unrelated numbers."""
    streams, drawn = [], []

    class RecordedGenerator(torch.Generator):
        """Keeps the first normal numbers of each seed."""

        def manual_seed(self, seed):
            super().manual_seed(seed)
            streams.append(torch.randn(4000, generator=self, dtype=torch.float64))
            return super().manual_seed(seed)

    class RecordedDraws(Draws):
        """Keeps all normal numbers that are drawn."""

        def draw(self, kind, shape):
            result = super().draw(kind, shape)
            if kind == "randn":
                drawn.append(result.flatten())
            return result

    X = np.random.default_rng(0).normal(size=(60, 5))
    parameters = {"hidden_layer_sizes": (24,), "max_epochs": 1, "precision": "float64"}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "Generator", RecordedGenerator)
        model = train(estimator_class(2, random_state=0, **parameters), X)
    monkeypatch.setattr(skae.inference, "Draws", RecordedDraws)
    model.sample(200, random_state=0)
    numbers = torch.cat(drawn)
    assert len(numbers) >= 200
    if hasattr(model, "posterior_predictive"):
        drawn.clear()
        model.posterior_predictive(X, 3, random_state=0)
        predictive = torch.cat(drawn)
        assert not torch.isin(predictive, numbers).any()
        numbers = torch.cat([numbers, predictive])
    assert streams
    assert not any(torch.isin(numbers, stream).any() for stream in streams)
    # The initial weights are multiples of normal numbers, and one epoch hardly changes them.
    for p in model.module_.parameters():
        n = min(p.numel(), len(numbers))
        if n >= 100 and p.std() > 0:
            pair = torch.stack([p.detach().flatten()[:n], numbers[:n]])
            assert abs(torch.corrcoef(pair)[0, 1]) < 5 / n**0.5


PURPOSES = ("sample", "training", "evaluation", "posterior_predictive", "")


def test_each_purpose_has_its_own_seeds():
    sources = [0, 1, 2**31 - 2, b"", b"0", np.arange(3).tobytes()]
    seeds = {pair: derive_seed(*pair) for pair in product(sources, PURPOSES)}
    assert len(set(seeds.values())) == len(seeds)
    assert not set(seeds.values()) & {0, 1, 2**31 - 2}
    assert seeds == {pair: derive_seed(*pair) for pair in seeds}
    for seed in seeds.values():
        assert 0 <= seed < 2**32
        torch.Generator().manual_seed(seed)


def test_seeds_are_the_same_in_other_processes():
    """Python's own hashes of texts differ between processes."""
    calls = "derive_seed(5, 'sample'), derive_seed(b'5', 'training')"
    code = f"import hashlib\n{inspect.getsource(derive_seed)}\nprint({calls}, sep=', ')"
    expected = f"({derive_seed(5, 'sample')}, {derive_seed(b'5', 'training')})"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-S", "-c", code]
        found = subprocess.run(
            command, env=environment, capture_output=True, check=True, text=True
        ).stdout
        assert found.strip() == expected.strip("()")


def test_interpolation_ends_at_the_reconstructions(curved):
    fitted = small().fit(curved)
    A, B = curved[:3], curved[3:6]
    path = fitted.interpolate(A, B, n_steps=5).reshape(3, 5, -1)
    np.testing.assert_allclose(path[:, 0], fitted.reconstruct(A), atol=1e-12)
    np.testing.assert_allclose(path[:, -1], fitted.reconstruct(B), atol=1e-12)
    middle = (fitted.transform(A) + fitted.transform(B)) / 2
    np.testing.assert_allclose(path[:, 2], fitted.inverse_transform(middle), atol=1e-12)
    np.testing.assert_allclose(fitted.interpolate(curved[0], curved[3], 5), path[0], atol=1e-12)
    with pytest.raises(ValueError, match="same number of rows, got 3 and 2"):
        fitted.interpolate(A, B[:2])
    with pytest.raises(ValueError, match="n_steps"):
        fitted.interpolate(A, B, n_steps=1)


def test_traversal_sets_one_component(curved):
    fitted = small().fit(curved)
    values = [-1.0, 0.0, 2.5]
    codes = np.repeat(fitted.transform(curved[:1]), 3, axis=0)
    codes[:, 1] = values
    expected = fitted.inverse_transform(codes)
    np.testing.assert_array_equal(fitted.traverse(curved[0], 1, values), expected)
    np.testing.assert_array_equal(fitted.traverse(curved[:1], 1, values), expected)
    with pytest.raises(ValueError, match="component"):
        fitted.traverse(curved[0], 2, values)
    with pytest.raises(ValueError, match="single row"):
        fitted.traverse(curved[:2], 0, values)


def test_codes_of_another_size_are_refused(curved):
    with pytest.raises(ValueError, match="3 columns"):
        small().fit(curved).inverse_transform(np.zeros((2, 3)))


@pytest.mark.parametrize(
    "call",
    [
        lambda a, X: a.transform(X),
        lambda a, X: a.inverse_transform(X[:, :2]),
        lambda a, X: a.reconstruct(X),
        lambda a, X: a.reconstruction_error(X),
        lambda a, X: a.score_samples(X),
        lambda a, X: a.sample(),
        lambda a, X: a.interpolate(X, X),
        lambda a, X: a.traverse(X[0], 0, [1.0]),
    ],
)
def test_unfitted_says_so(call, curved):
    with pytest.raises(NotFittedError):
        call(small(), curved)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_and_names(library, curved):
    frames = pytest.importorskip(library)
    names = [f"x{i}" for i in range(curved.shape[1])]
    frame = frames.DataFrame(dict(zip(names, curved.T, strict=True)))
    fitted = small().set_output(transform=library).fit(frame)
    codes = fitted.transform(frame)
    assert isinstance(codes, frames.DataFrame)
    assert list(codes.columns) == ["autoencoder0", "autoencoder1"]
    assert list(fitted.get_feature_names_out()) == ["autoencoder0", "autoencoder1"]
    assert list(fitted.feature_names_in_) == names
    assert fitted.n_features_in_ == curved.shape[1]


def test_html_repr_links_to_the_documentation(curved):
    link = "https://skae.readthedocs.io/en/stable/generated/skae.Autoencoder.html"
    assert link in estimator_html_repr(Autoencoder())
    assert link in small().fit(curved)._repr_html_()


# -------------------------------------------------------- pipelines, searches


def test_grid_search_mixes_methods_without_scoring(curved):
    """PCA, FactorAnalysis and autoencoders are compared by their own densities."""
    pipeline = Pipeline([("scale", StandardScaler()), ("reduce", PCA())])
    untrained = small(max_epochs=0, early_stopping=False)
    search = GridSearchCV(
        pipeline,
        {
            "reduce": [PCA(), FactorAnalysis(), untrained, small()],
            "reduce__n_components": [1, 2],
        },
        cv=2,
        error_score="raise",
    ).fit(curved)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    pca, _, start, _ = scores.reshape(4, 2)
    np.testing.assert_allclose(start, pca, rtol=1e-6)


def test_sample_weights_are_routed(curved):
    weight = np.random.default_rng(0).integers(0, 3, len(curved)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        autoencoder = (
            small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        )
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, autoencoder)
        routed = clone(pipeline).fit(curved, sample_weight=weight)
        scaled = StandardScaler().fit_transform(curved)
        direct = small().fit(scaled, sample_weight=weight)
        np.testing.assert_array_equal(routed.transform(curved), direct.transform(scaled))
        assert routed.score(curved, sample_weight=weight) == pytest.approx(
            np.average(direct.score_samples(scaled), weights=weight)
        )
        scores = cross_validate(
            pipeline,
            curved,
            params={"sample_weight": weight},
            error_score="raise",
            cv=2,
        )["test_score"]
        assert np.isfinite(scores).all()
        unweighted = cross_validate(pipeline, curved, error_score="raise", cv=2)["test_score"]
        assert (scores != unweighted).all()
        search = GridSearchCV(
            pipeline, {"autoencoder__n_components": [1, 2]}, error_score="raise", cv=2
        ).fit(curved, sample_weight=weight)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# --------------------------------------------------------- weights and trimming


@pytest.mark.parametrize("parameters", [{}, {"trim": 0.2}, {"noise": "diagonal"}], ids=str)
def test_a_weight_is_a_repetition(curved, parameters):
    weight = np.random.default_rng(1).integers(0, 4, len(curved))
    weighted = small(**parameters).fit(curved, sample_weight=weight)
    repeated = small(**parameters).fit(np.repeat(curved, weight, axis=0))
    for method in ("transform", "reconstruct", "score_samples"):
        np.testing.assert_allclose(
            getattr(weighted, method)(curved), getattr(repeated, method)(curved), rtol=1e-6,
            atol=1e-8,
        )  # fmt: skip


def test_scaling_all_weights_changes_nothing_without_a_prior(curved):
    a = small(weight_decay=0.0).fit(curved, sample_weight=np.full(len(curved), 7.0))
    b = small(weight_decay=0.0).fit(curved)
    np.testing.assert_allclose(a.transform(curved), b.transform(curved))


def test_trimmed_mean_drops_the_worst():
    losses = torch.tensor([5.0, 1.0, 100.0, 3.0, 2.0])
    kept = trimmed_mean(losses, torch.ones(5), 0.2)
    assert float(kept) == pytest.approx((5 + 1 + 3 + 2) / 4)
    weight = torch.tensor([1.0, 2.0, 1.0, 1.0, 3.0])
    repeated = losses.repeat_interleave(weight.long())
    for trim in (0.0, 0.1, 0.3, 0.7):
        expected = trimmed_mean(repeated, torch.ones(8), trim)
        got = trimmed_mean(losses, weight / weight.mean(), trim)
        assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_trimming_protects_from_outliers(curved):
    """With a fifth of the rows corrupted, clean rows are restored better if the loss is trimmed."""
    rng = np.random.default_rng(2)
    corrupted = np.concatenate([curved, rng.normal(0, 12, size=(24, curved.shape[1]))])
    parameters = {"max_epochs": 200, "learning_rate": 1e-2, "early_stopping": False}
    with_trim, without = (
        small(trim=trim, **parameters).fit(corrupted).reconstruction_error(curved).mean()
        for trim in (0.2, 0.0)
    )
    assert with_trim < 0.8 * without


# ------------------------------------------------------------- training options


@pytest.mark.usefixtures("kept_axes")
def test_weight_decay_is_a_gaussian_prior(curved):
    """Steps use the gradient of [minus log-likelihood + decay / 2 |weights|^2] / n."""
    decay, n = 50.0, len(curved)
    parameters = {"linear_skip": False, "weight_decay": decay}
    start = small(max_epochs=0, early_stopping=False, **parameters).fit(curved).module_
    # The weights do not move, so that all steps have the same gradient.
    stepped = small(learning_rate=1e-300, **parameters).partial_fit(curved)
    x = torch.tensor(curved)
    nats = start.losses(None, Batch(x, torch.ones(len(x)))).sum()
    prior = sum((p**2).sum() for name, p in start.named_parameters() if name.endswith("weight"))
    ((nats + decay / 2 * prior) / n).backward()
    beta = torch.optim.Adam([x.requires_grad_()]).param_groups[0]["betas"][0]
    states = stepped._fitted.training["optimizer"]
    for p, momentum in zip(start.parameters(), states, strict=True):
        expected = (1 - beta ** float(momentum["step"])) * p.grad.numpy()
        np.testing.assert_allclose(momentum["exp_avg"], expected, rtol=1e-9, atol=1e-12)


def test_weight_decay_spares_the_linear_skip(curved):
    """An infinite prior precision leaves PCA."""
    decayed = small(weight_decay=1e12, early_stopping=False, max_epochs=1, learning_rate=1e-9)
    penalized = {id(p) for p in decayed.fit(curved).module_.penalized()}
    for name, p in decayed.module_.named_parameters():
        assert (id(p) in penalized) == ("residual" in name and name.endswith("weight"))


def test_dropout_acts_in_training_only(curved):
    parameters = {"linear_skip": False, "max_epochs": 3}
    plain, dropped = (small(dropout=p, **parameters).fit(curved) for p in (0.0, 0.5))
    assert plain.loss_curve_[0] != dropped.loss_curve_[0]
    np.testing.assert_array_equal(dropped.transform(curved), dropped.transform(curved))
    without = small(dropout=0.0, **parameters).fit(curved)
    without.module_.load_state_dict(dropped.module_.state_dict())
    x = torch.tensor(curved)
    assert torch.equal(dropped.module_.encoder(x), without.module_.encoder(x))


def test_corruption_is_for_training_and_the_loss_for_clean_rows(curved):
    calls = []

    def corrupt(x, generator):
        assert isinstance(generator, torch.Generator)
        calls.append(x.clone())
        return torch.zeros_like(x)

    fitted = Autoencoder(2, corruption=corrupt, max_epochs=1, **FROZEN).fit(curved)
    # One batch, and the objective before and after it.
    assert len(calls) == 3
    for seen in calls:
        np.testing.assert_array_equal(np.unique(seen, axis=0), np.unique(curved, axis=0))
    fitted.transform(curved)
    fitted.score_samples(curved)
    fitted.reconstruct(curved)
    fitted.sample(3)
    assert len(calls) == 3
    x = torch.tensor(curved)
    batch = Batch(torch.zeros_like(x), torch.ones(len(x)), clean=x)
    expected = fitted.module_.losses(None, batch).mean().item()
    assert fitted.loss_curve_[0] == pytest.approx(expected)


def test_a_corruption_may_work_in_place(curved):
    def fit(corrupt):
        return Autoencoder(2, corruption=corrupt, max_epochs=3, random_state=0).fit(curved)

    new, same = fit(lambda x, generator: x * 0.5), fit(lambda x, generator: x.mul_(0.5))
    assert new.loss_curve_ == same.loss_curve_


@pytest.mark.parametrize("rate", [1e20, 1e30, 1e300])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_single_step_that_breaks_down_is_noticed(curved, rate, method):
    broken = Autoencoder(2, precision="float32", max_epochs=1, learning_rate=rate, random_state=0)
    with pytest.raises(ValueError, match="learning_rate"):
        getattr(broken, method)(curved)


def test_corruption_draws_from_the_fits_generator(curved):
    def blur(x, generator):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x + 0.3 * noise

    fits = [small(corruption=blur).fit(curved) for _ in range(2)]
    assert_same_bits(*fits, curved)
    assert fits[0].loss_curve_ != small().fit(curved).loss_curve_


def test_pairs_of_clean_and_corrupted_rows(curved):
    corrupted = curved + np.random.default_rng(0).normal(size=curved.shape)
    fitted = Autoencoder(2, max_epochs=1, **FROZEN).fit(curved, X_corrupted=corrupted)
    x = torch.tensor(corrupted)
    batch = Batch(x, torch.ones(len(x)), clean=torch.tensor(curved))
    expected = fitted.module_.losses(None, batch).mean()
    assert fitted.loss_curve_[0] == pytest.approx(expected.item())
    # Clean rows decide the centre: the pairs change the training only.
    np.testing.assert_allclose(fitted.module_.inputs.center, curved.mean(axis=0))
    masked = Autoencoder(2, max_epochs=1, corruption="masking", **FROZEN)
    assert masked.fit(curved, X_corrupted=corrupted).loss_curve_ == fitted.loss_curve_
    assert_same_bits(small().fit(curved, X_corrupted=curved), small().fit(curved), curved)
    with pytest.raises(ValueError, match="X_corrupted"):
        small().fit(curved, X_corrupted=corrupted[:5])


@pytest.mark.usefixtures("kept_axes")
@pytest.mark.parametrize("corruption", [None, "masking", "gaussian"])
@pytest.mark.parametrize("batch_size", ["auto", 32])
def test_layerwise_training_is_one_shallow_autoencoder_after_another(
    curved, batch_size, corruption
):
    """Each of which denoises what it sees, rows or codes, where there is a corruption."""
    epochs = 3
    parameters = {
        "hidden_layer_sizes": (12, 9),
        "activation": "tanh",
        "linear_skip": False,
        "weight_decay": 0.0,
        "batch_size": batch_size,
        "max_epochs": 0,
        "early_stopping": False,
        "corruption": corruption,
    }
    trained = small(layerwise_epochs=epochs, **parameters).fit(curved).module_
    start = small(**parameters).fit(curved)
    network, generator = start.module_, torch.Generator()
    generator.set_state(torch.tensor(start._fitted.training["generator"]))
    size = len(curved) if batch_size == "auto" else batch_size
    plan = Plan(start.learning_rate, Budget(epochs, size))
    # Rows are trained on in an order that their content decides.
    hashes = hash_rows(curved, draw_seed(start.random_state))
    x = torch.tensor(curved[merge_equal_rows(np.ones(len(curved)), hashes)[0]])

    def scaled(x):
        return (x - network.inputs.center) / network.inputs.scale

    for i in range(2):
        down = network.encoder.residual.layers[i]
        up = network.decoder.residual.layers[-1 - i]
        low, high, deviation = x.amin(0), x.amax(0), x.std(0, correction=0)
        optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], eps=1e-5)
        steps, done = epochs * -(-len(x) // size), 0
        for _ in range(epochs):
            order = torch.randperm(len(x), generator=generator)
            order = order if size < len(x) else torch.arange(len(x))
            for clean in x[order].split(size):
                corrupted = clean
                if corruption == "masking":
                    blank = torch.rand(clean.shape, generator=generator, dtype=x.dtype) < 0.3
                    nothing = torch.zeros_like(low).clamp(low, high)
                    corrupted = torch.where(blank, nothing, clean)
                elif corruption == "gaussian":
                    noise = torch.randn(clean.shape, generator=generator, dtype=x.dtype)
                    corrupted = clean + 0.3 * deviation * noise
                out = up(torch.tanh(down(scaled(corrupted))))
                out = out if i == 0 else torch.tanh(out)
                optimizer.zero_grad()
                (0.5 * ((out - scaled(clean)) ** 2).sum(1).mean()).backward()
                optimizer.param_groups[0]["lr"] = plan.rate(done / steps)
                optimizer.step()
                done += 1
        x = torch.tanh(down(scaled(x))).detach()

        def scaled(codes):
            return codes

    for (name, got), expected in zip(trained.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10, msg=name)


def test_layerwise_training_corrupts_no_codes_by_a_callable(curved):
    """What the user's own corruption knows to corrupt is rows."""
    seen = []

    def corruption(x, generator):
        seen.append(x.shape[1])
        return x

    small(layerwise_epochs=2, max_epochs=1, hidden_layer_sizes=(12, 9), corruption=corruption).fit(
        curved
    )
    assert set(seen) == {curved.shape[1]}


def test_layerwise_training_leaves_pca_where_there_is_a_skip(curved):
    """Hidden layers are pre-trained; the start is still PCA."""
    pca = PCA(2).fit(curved)
    start = small(max_epochs=0, layerwise_epochs=5, early_stopping=False).fit(curved)
    np.testing.assert_allclose(
        start.reconstruct(curved),
        pca.inverse_transform(pca.transform(curved)),
        atol=1e-9,
    )
    plain = small(max_epochs=0, early_stopping=False).fit(curved)
    first = [a.module_.encoder.residual.layers[0].weight for a in (start, plain)]
    assert not torch.equal(*first)


@pytest.mark.parametrize("batch_size", ["auto", 32])
def test_partial_fit_goes_on_after_pickling(curved, batch_size):
    """Twenty calls, and ten calls, a pickle and ten calls, give the same bits."""
    parameters = {"batch_size": batch_size, "dropout": 0.2, "linear_skip": False}
    whole, half = (small(**parameters) for _ in range(2))
    for _ in range(20):
        whole.partial_fit(curved)
    for _ in range(10):
        half.partial_fit(curved)
    half = pickle.loads(pickle.dumps(half))
    for _ in range(10):
        half.partial_fit(curved)
    assert_same_bits(whole, half, curved)
    assert whole.loss_curve_ == half.loss_curve_
    assert whole.n_iter_ == 20
    assert whole.validation_curve_ == []
    assert whole.loss_curve_[-1] < whole.loss_curve_[0]


def test_warm_start_goes_on_after_pickling(curved):
    whole = small(warm_start=True).fit(curved)
    pickled = pickle.loads(pickle.dumps(whole))
    for autoencoder in (whole, pickled):
        autoencoder.fit(curved)
    assert_same_bits(whole, pickled, curved)
    assert whole.loss_curve_ == pickled.loss_curve_
    cold = small().fit(curved).fit(curved)
    assert_same_bits(cold, small().fit(curved), curved)
    assert not torch.equal(whole.module_.encoder.skip.weight, cold.module_.encoder.skip.weight)


def test_warm_start_refuses_another_shape(curved):
    fitted = small(warm_start=True).fit(curved)
    with pytest.raises(ValueError, match="n_components"):
        fitted.set_params(n_components=1).fit(curved)


def test_partial_fit_refuses_other_columns(curved):
    with pytest.raises(ValueError, match="features"):
        small().partial_fit(curved).partial_fit(curved[:, :3])


def test_a_pickle_predicts_the_same_bits(curved):
    fitted = small().fit(curved)
    again = pickle.loads(pickle.dumps(fitted))
    assert_same_bits(fitted, again, curved)
    np.testing.assert_array_equal(fitted.sample(9, random_state=0), again.sample(9, random_state=0))
    assert again.validation_curve_ == fitted.validation_curve_
    assert list(again.history_) == list(fitted.history_)


# -------------------------------------------------------------- early stopping


class Recorder(Callback):
    """Keeps what skorch's loop tells it."""

    def __init__(self):
        self.events = []
        self.states = []
        self.held_out = None

    def on_train_begin(self, net, **kwargs):
        self.events.append("train_begin")

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.events.append("epoch_begin")
        self.held_out = None if dataset_valid is None else dataset_valid.take(dataset_valid.index).x

    def on_batch_begin(self, net, **kwargs):
        self.events.append("batch_begin")

    def on_grad_computed(self, net, named_parameters=None, **kwargs):
        assert all(p.grad is not None for _, p in named_parameters)
        self.events.append("grad_computed")

    def on_batch_end(self, net, **kwargs):
        self.events.append("batch_end")

    def on_epoch_end(self, net, **kwargs):
        self.events.append("epoch_end")
        self.states.append({k: v.clone() for k, v in net.module_.state_dict().items()})

    def on_train_end(self, net, **kwargs):
        self.events.append("train_end")


@pytest.mark.usefixtures("kept_axes")
def test_the_best_epoch_is_restored(curved):
    recorder = Recorder()
    # A rate that is too high at its peak: the best epoch is not the last one.
    fitted = small(
        learning_rate=0.2,
        max_epochs=40,
        callbacks=[recorder],
        linear_skip=False,
        early_stopping=True,
    )
    fitted.fit(curved)
    assert len(fitted.validation_curve_) == fitted.n_iter_ == len(fitted.loss_curve_) == 40
    assert fitted.best_epoch_ == 1 + int(np.argmin(fitted.validation_curve_))
    for name, value in recorder.states[fitted.best_epoch_ - 1].items():
        assert torch.equal(value, fitted.module_.state_dict()[name])
    rows = recorder.held_out
    now = fitted.module_.losses(None, Batch(rows, torch.ones(len(rows)))).mean().item()
    assert now == pytest.approx(min(fitted.validation_curve_))


def test_few_held_out_rows_do_not_choose_the_epoch_by_themselves(curved):
    """Under "auto" a dozen rows tell the noise; a hundred choose the epoch, too."""
    auto = small(max_epochs=40, learning_rate=1e-2).fit(curved)
    assert len(auto.validation_curve_) == 40
    assert auto.best_epoch_ == 40
    # Overfits at once: nothing but noise is there to learn.
    many = np.random.default_rng(0).normal(size=(1100, 4))
    fitted = small(max_epochs=5, learning_rate=0.1).fit(many)
    losses = fitted.validation_curve_
    assert fitted.best_epoch_ in (0, 1 + int(np.argmin(losses)))


def test_a_fit_that_improves_nothing_keeps_its_start(curved):
    """At a solution, steps would only add rounding errors."""
    kept = small(hidden_layer_sizes=(), early_stopping=False).fit(curved)
    assert kept.best_epoch_ == 0
    assert small(early_stopping=False).fit(curved).best_epoch_ > 0


@pytest.mark.filterwarnings("ignore:Training diverged")
@pytest.mark.parametrize("learning_rate", [1e-300, 10.0])
def test_epoch_zero_may_be_the_best(curved, learning_rate):
    fitted = small(learning_rate=learning_rate, early_stopping=True).fit(curved)
    assert fitted.best_epoch_ == 0
    pca = PCA(2).fit(curved)
    np.testing.assert_allclose(
        fitted.reconstruct(curved),
        pca.inverse_transform(pca.transform(curved)),
        atol=1e-9,
    )


def test_held_out_rows_do_not_depend_on_order(curved):
    order = np.random.default_rng(0).permutation(len(curved))
    held_out = []
    for X in (curved, curved[order], np.repeat(curved, 2, axis=0)):
        recorder = Recorder()
        small(callbacks=[recorder], max_epochs=1).fit(X)
        held_out.append(recorder.held_out.numpy())
    plain, shuffled, doubled = ({row.tobytes() for row in rows} for rows in held_out)
    assert len(plain) == round(0.1 * len(curved))
    assert plain == shuffled == doubled


def test_repeating_rows_is_weighting_them(curved):
    """To the bit, in mini-batches, too, and with all that is drawn while training."""
    rng = np.random.default_rng(0)
    times = rng.integers(0, 4, len(curved))
    repeated = rng.permutation(np.repeat(curved, times, axis=0))
    parameters = {"batch_size": 16, "dropout": 0.3, "corruption": "swap"}
    weighted = small(**parameters).fit(curved, sample_weight=times)
    plain = small(**parameters).fit(repeated)
    assert weighted.loss_curve_ == plain.loss_curve_
    assert_same_bits(weighted, plain, curved)


def test_without_early_stopping_nothing_is_held_out(curved):
    recorder = Recorder()
    fitted = small(early_stopping=False, callbacks=[recorder]).fit(curved)
    assert recorder.held_out is None
    assert fitted.validation_curve_ == []
    assert fitted.best_epoch_ == fitted.n_iter_ == 10


def test_patience_counts_in_the_second_half(curved):
    fitted = small(learning_rate=1e-300, max_epochs=40, n_iter_no_change=3).fit(curved)
    assert fitted.n_iter_ == 23


# ------------------------------------------------------------------- callbacks


def test_skorch_callbacks_are_told(curved):
    recorder = Recorder()
    small(batch_size=60, early_stopping=False, max_epochs=2, callbacks=[recorder]).fit(curved)
    batch = ["batch_begin", "grad_computed", "batch_end"]
    epoch = ["epoch_begin", *batch, *batch, "epoch_end"]
    assert recorder.events == ["train_begin", *epoch, *epoch, "train_end"]


def test_listening_callbacks_change_no_bit(curved):
    assert_same_bits(small(callbacks=[Recorder()]).fit(curved), small().fit(curved), curved)


def test_skorch_early_stopping_ends_the_fit(curved):
    stop = EarlyStopping(patience=3, sink=lambda text: None)
    fitted = small(learning_rate=1e-300, max_epochs=50, callbacks=[stop]).fit(curved)
    assert fitted.n_iter_ < 10
    assert np.isfinite(fitted.score(curved))


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt, RuntimeError("a fault")], ids=["interrupt", "error"]
)
def test_an_interrupted_refit_leaves_the_old_model_whole(curved, failure):
    fitted = small().fit(curved)
    before = {name: id(value) for name, value in vars(fitted).items()}
    old = pickle.loads(pickle.dumps(fitted))
    calls = []

    def interrupt(x, generator):
        calls.append(x)
        if len(calls) == 4:
            raise failure
        return x

    fitted.set_params(corruption=interrupt)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        fitted.fit(curved[:, :4] * 3)
    assert len(calls) == 4
    fitted.set_params(corruption=None)
    changed = {n for n, v in vars(fitted).items() if before.get(n) != id(v)}
    assert not {name for name in changed if name.endswith("_") or name == "_fitted"}
    assert_same_bits(fitted, old, curved)
    fitted.set_params(corruption=interrupt, warm_start=True)
    calls.clear()
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        fitted.fit(curved)
    assert_same_bits(fitted, old, curved)


class StopAfter(TaskCallback):
    """A scikit-learn callback that keeps the unfinished estimators and ends the fit."""

    def __init__(self, epochs):
        self.epochs = epochs
        self.scores = []

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        if context.task_name == "epoch":
            self.scores.append(fitted_estimator.score(X))
        return len(self.scores) == self.epochs


def test_a_scikit_learn_callback_may_stop_the_fit(curved):
    callback = StopAfter(4)
    model = small(early_stopping=False, learning_rate=0.003)
    fitted = model.set_callbacks(callback).fit(curved)
    assert fitted.n_iter_ == len(callback.scores) == 4
    assert callback.scores[-1] == pytest.approx(fitted.score(curved))
    assert len(set(callback.scores)) == 4


def test_scikit_learn_callbacks_change_no_bit(curved):
    watched = small().set_callbacks(StopAfter(99)).fit(curved)
    assert_same_bits(watched, small().fit(curved), curved)


def finished_bars(text):
    return re.search(r"100%", text) and not re.search(r"\b[0-9]{1,2}%", text)


def test_progress_bar(curved, capsys):
    pytest.importorskip("rich")
    small().set_callbacks(ProgressBar()).fit(curved)
    out = capsys.readouterr().out
    assert re.search(r"Autoencoder - fit", out)
    assert finished_bars(out)


def test_progress_bar_nests_in_pipelines_and_searches(curved, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "200")
    pipeline = make_pipeline(StandardScaler(), small(max_epochs=2))
    search = GridSearchCV(pipeline, {"autoencoder__n_components": [1, 2]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(curved)
    out = capsys.readouterr().out
    assert re.search(r"GridSearchCV - fit", out)
    assert re.search(r"Autoencoder - fit", out)
    assert finished_bars(out)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_verbose_prints_a_line_an_epoch(curved, capsys, early_stopping):
    small(verbose=1, max_epochs=5, early_stopping=early_stopping).fit(curved)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [int(s.split()[0]) for s in lines if s.strip()[:1].isdigit()] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert len(lines) == 5 + 2  # and the head of the table


def test_silent_by_default(curved, capsys):
    small(layerwise_epochs=1).fit(curved).partial_fit(curved).score(curved)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize("bad", [-0.1, 1.5])
def test_bernoulli_names_its_range(bad):
    X = np.random.default_rng(0).random((30, 4))
    fitted = small(likelihood="bernoulli").fit(X)
    outside = X.copy()
    outside[3, 2] = bad
    for method in (
        fitted.transform,
        fitted.score_samples,
        small(likelihood="bernoulli").fit,
    ):
        with pytest.raises(ValueError, match="bernoulli") as error:
            method(outside)
        assert f"{bad:g}" in str(error.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_components": 0},
        {"n_components": 1.0},
        {"n_components": 2.5},
        {"n_components": "many"},
        {"activation": "sine"},
        {"architecture": "transformer"},
        {"likelihood": "poisson"},
        {"noise": 0.0},
        {"noise": "full"},
        {"corruption": 0.3},
        {"dropout": 1.0},
        {"weight_decay": -1.0},
        {"trim": 1.0},
        {"layerwise_epochs": -1},
        {"learning_rate": 0.0},
        {"max_epochs": -1},
        {"batch_size": 0},
        {"validation_fraction": 1.0},
        {"n_iter_no_change": 0},
        {"precision": "float16"},
        {"hidden_layer_sizes": 5},
    ],
    ids=str,
)
def test_invalid_parameters_are_named(curved, parameters):
    with pytest.raises(InvalidParameterError, match=f"'{next(iter(parameters))}'"):
        Autoencoder(**parameters).fit(curved)


@pytest.mark.parametrize("sizes", [(0,), (8, -1), (2.5,), ("a",)])
def test_invalid_layer_sizes_are_named(curved, sizes):
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        Autoencoder(hidden_layer_sizes=sizes).fit(curved)


def test_an_absent_device_is_named(curved):
    with pytest.raises(ValueError, match="device"):
        Autoencoder(device="no-such-device").fit(curved)


def test_a_breakdown_names_the_learning_rate(curved):
    fitted = small().fit(curved)
    old = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(ValueError, match="learning_rate"):
        fitted.set_params(learning_rate=1e200, early_stopping=False).fit(curved)
    assert_same_bits(fitted, old, curved)


def test_a_divergence_warns(curved):
    with pytest.warns(ConvergenceWarning, match="learning_rate"):
        small(learning_rate=10.0).fit(curved)


def fit(estimator, X):
    return estimator.fit(X)


def partial_fit(estimator, X):
    return estimator.partial_fit(X)


def fit_in_a_pipeline(estimator, X):
    return make_pipeline(MaxAbsScaler(), estimator).fit(X)


RNG = np.random.default_rng(0)
LINE = np.outer(RNG.normal(size=120), np.arange(1, 6)) + 0.01 * RNG.normal(size=(120, 5))
"""Rows that a single component reconstructs."""

CROWDED = np.outer(10.0 ** -np.arange(120), np.arange(1, 6))
"""Rows of which all but a few are so close to each other that they share codes."""


@pytest.mark.parametrize("train", [fit, partial_fit, fit_in_a_pipeline])
@pytest.mark.parametrize(
    ("estimator", "X", "message"),
    [
        pytest.param(small(learning_rate=10.0), LINE, "Training diverged", id="divergence"),
        pytest.param(
            skae.VariationalAutoencoder(4, tied_weights=True, max_epochs=1, random_state=0),
            LINE,
            "Posterior collapse",
            id="collapse",
        ),
        pytest.param(
            skae.VectorQuantizedAutoencoder(2, n_codes=64, max_epochs=1, random_state=0),
            CROWDED,
            "Only .* of n_codes=64",
            id="unused codes",
        ),
    ],
)
def test_warnings_name_the_users_line(estimator, X, message, train):
    """Not a line of skae or scikit-learn, however many of theirs are between."""
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        train(clone(estimator), X)
    said = [w for w in caught if w.category is ConvergenceWarning]
    assert {(w.filename, w.lineno) for w in said} == {(__file__, line_of(train))}


def line_of(function):
    """The line after the first one of a function."""
    return function.__code__.co_firstlineno + 1


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_precisions(curved, precision):
    fitted = small(precision=precision, early_stopping=True).fit(curved)
    assert fitted.module_.inputs.center.dtype == (
        torch.float64 if precision == "float64" else torch.float32
    )
    pca = PCA(2).fit(curved)
    pca_error = ((pca.inverse_transform(pca.transform(curved)) - curved) ** 2).sum(axis=1)
    assert fitted.reconstruction_error(curved).mean() <= 1.02 * pca_error.mean()


def test_values_whose_squares_overflow_are_named():
    """Not a linear algebra error of the start."""
    X = np.random.default_rng(0).normal(size=(30, 3)) * [1.0, 1e300, 1.0]
    with pytest.raises(ValueError, match="Column 1 of X"):
        small().fit(X)
