"""Recurrent bodies: torch's GRU, and sequences of different lengths, whose ends are missing."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from test_common import configured, public_estimators, train
from test_density import grid_of_codes, mixture, prior_of_codes

import skae
from skae import Autoencoder, DenoisingAutoencoder, VariationalAutoencoder
from skae.metrics import explained_variance_ratio
from skae.model_selection import components_path
from skae.nn.batch import Batch
from skae.nn.bodies.recurrent import GRU
from skae.nn.step.replay import Step
from skae.training.batches import Batches
from skae.variants.conditioned import ConditionedAutoencoder

STEPS, CHANNELS = 6, 2
RNG = np.random.default_rng(0)
PHASE = RNG.uniform(0, 6, (90, 1))
WAVES = np.stack([np.sin(PHASE + np.arange(STEPS)), np.cos(PHASE - np.arange(STEPS))], axis=2)
WAVES += 0.1 * RNG.normal(size=WAVES.shape)
LENGTH = RNG.integers(1, STEPS + 1, 90)
SEEN = np.arange(STEPS) < LENGTH[:, None]
RAGGED = np.where(SEEN[..., None], WAVES, np.nan)
ROWS = RAGGED.reshape(90, -1)
SEQUENCES = [wave[:n] for wave, n in zip(WAVES, LENGTH, strict=True)]
"""The observed steps of each row, arrays of shape (time, channels)."""

RNN = {
    "architecture": "recurrent",
    "feature_shape": (STEPS, CHANNELS),
    "hidden_layer_sizes": (8,),
    "max_epochs": 3,
    "random_state": 0,
}


CONDITIONED = [c for c in public_estimators() if issubclass(c, ConditionedAutoencoder)]


@pytest.fixture(scope="module")
def trained():
    return Autoencoder(2, **RNN | {"max_epochs": 60, "learning_rate": 0.01}).fit(ROWS)


def test_the_layer_is_torchs():
    ours, theirs = GRU(3, 5).double(), torch.nn.GRU(3, 5, batch_first=True).double()
    for layer in (ours.of_input, ours.of_state):
        layer.reset(torch.Generator().manual_seed(0), 1.0)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.of_input.weight)
        theirs.weight_hh_l0.copy_(ours.of_state.weight)
        for bias in (ours.of_input.bias, ours.of_state.bias):
            bias.copy_(torch.randn(15))
        theirs.bias_ih_l0.copy_(ours.of_input.bias)
        theirs.bias_hh_l0.copy_(ours.of_state.bias)
    x, state = torch.randn(4, 7, 3).double(), torch.randn(4, 5).double()
    torch.testing.assert_close(ours(x), theirs(x)[0])
    torch.testing.assert_close(ours(x, state), theirs(x, state[None])[0])


def test_padded_and_cut_sequences_have_the_same_code(trained):
    for length in range(1, STEPS + 1):
        cut = WAVES[:, :length]
        padded = np.full_like(WAVES, np.nan)
        padded[:, :length] = cut
        codes = trained.transform(padded.reshape(90, -1))
        np.testing.assert_array_equal(trained.transform(padded), codes)
        np.testing.assert_array_equal(trained.transform(cut), codes)
        network = trained.module_
        center = network.inputs.center.reshape(STEPS, CHANNELS)[:length]
        bare = (torch.from_numpy(cut) - center) / network.inputs.scale
        with torch.no_grad():
            alone = network.encoder(bare.reshape(90, -1))
        units = trained._fitted.components
        alone = (alone.numpy() - units.offset) * units.scale
        np.testing.assert_allclose(alone, codes, atol=1e-12)


def test_what_comes_back_has_full_length(trained):
    back = trained.reconstruct(RAGGED)
    assert back.shape == (90, STEPS * CHANNELS)
    assert np.isfinite(back).all()
    np.testing.assert_array_equal(trained.inverse_transform(trained.transform(RAGGED)), back)
    error = trained.reconstruction_error(RAGGED, per_feature=True)
    np.testing.assert_allclose(error, (ROWS - back) ** 2)
    np.testing.assert_allclose(trained.reconstruction_error(RAGGED), np.nansum(error, axis=1))


@pytest.mark.parametrize("estimator_class", [Autoencoder, VariationalAutoencoder])
def test_steps_that_few_rows_reach_have_a_usual_noise(estimator_class):
    """None of those rows may be held out, and none of them may reach the last step."""
    X = np.where(np.arange(STEPS)[None, :, None] < 3, WAVES, np.nan)
    X[:4, 3:5] = WAVES[:4, 3:5]
    for seed in range(3):
        parameters = RNN | {"noise": "diagonal", "random_state": seed, "max_epochs": 20}
        model = estimator_class(2, **parameters).fit(X)
        assert model.noise_variance_.min() > 0.1 * np.median(model.noise_variance_)
        assert model.score_samples(X[:4]).min() > -100


def test_the_loss_is_on_steps_that_are_there(trained):
    network = trained.module_
    x = torch.from_numpy(ROWS)
    with torch.no_grad():
        batch = Batch(x, torch.ones(90), observed=~x.isnan())
        losses = network.losses(None, batch)
        out = network.decoder(network.encode(batch).z)
        full = torch.where(x.isnan(), network.likelihood.mean(out), x)
        noise = network.likelihood.noise_variance
        left = 0.5 * (2 * torch.pi * noise).log() * x.isnan()
        exact = 0.5 * ((full - network.likelihood.mean(out)) ** 2 / noise).sum(-1)
        exact = exact + 0.5 * (2 * torch.pi * noise).log().sum() - left.sum(-1)
    torch.testing.assert_close(losses, exact)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_the_density_is_that_of_steps_that_are_there(noise):
    """The integral over a grid of codes, of a model with one code."""
    model = Autoencoder(
        1, **RNN | {"max_epochs": 150, "learning_rate": 0.01, "noise": noise, "linear_skip": True}
    ).fit(ROWS)
    z, log_mass = grid_of_codes(model)
    rows = model.inverse_transform(z)
    variance = np.broadcast_to(model.noise_variance_, ROWS.shape[1])
    cells = (ROWS[:, None] - rows) ** 2 / variance + np.log(2 * np.pi * variance)
    exact = mixture(-0.5 * np.nansum(cells, axis=-1), log_mass)
    error = model.score_samples(ROWS) - exact
    assert abs(np.median(error)) < 0.05
    assert np.quantile(abs(error), 0.9) < 0.5


def test_a_linear_skip_alone_gives_the_marginal_density():
    """Where the networks are silent, rows are normal: a short one's density is its marginal's."""
    model = Autoencoder(2, **RNN | {"max_epochs": 0, "linear_skip": True}).fit(ROWS)
    (prior_mean, prior_covariance), network = prior_of_codes(model), model.module_
    V = (network.decoder.skip.weight * network.inputs.scale).detach().numpy()
    V = V / model._fitted.components.scale
    covariance = V @ prior_covariance @ V.T + model.noise_variance_ * np.eye(len(V))
    mean = model.inverse_transform(prior_mean[None])[0]
    for row, score in zip(ROWS[:20], model.score_samples(ROWS[:20]), strict=True):
        there = ~np.isnan(row)
        exact = multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(
            row[there]
        )
        assert score == pytest.approx(exact, rel=1e-6)


def test_importance_samples_are_of_steps_that_are_there():
    """Waves that differ in height only, whose codes are nearly normal however short they are."""
    rng = np.random.default_rng(0)
    height = rng.normal(size=(120, 1))
    X = height * np.cos(np.arange(12)) + 0.2 * rng.normal(size=(120, 12))
    X[np.arange(12) >= rng.integers(2, 7, (120, 1)) * 2] = np.nan
    parameters = RNN | {"max_epochs": 20, "linear_skip": True, "batch_size": 40}
    model = VariationalAutoencoder(1, **parameters).fit(X)
    z = np.linspace(-6, 6, 2001)
    rows = model.inverse_transform(z[:, None])
    cells = (X[:, None] - rows) ** 2 / model.noise_variance_
    cells += np.log(2 * np.pi * model.noise_variance_)
    log_mass = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) + np.log(z[1] - z[0])
    error = model.score_samples(X) - mixture(-0.5 * np.nansum(cells, axis=-1), log_mass)
    assert abs(error.mean()) < 0.1
    # A code that does not depend on the rows would pass, too. This one is the height of the wave.
    assert abs(np.corrcoef(model.transform(X)[:, 0], height[:, 0])[0, 1]) > 0.9


@pytest.mark.parametrize("estimator_class", public_estimators(), ids=lambda c: c.__name__)
def test_every_estimator_takes_sequences_of_different_lengths(estimator_class, tmp_path):
    if estimator_class is skae.AutoencoderOutlierDetector:
        pytest.skip("wants whole sequences")
    estimator = train(configured(estimator_class, n_components=2, **RNN), ROWS)
    names = [
        *("transform", "reconstruct", "reconstruction_error", "score_samples", "predict"),
        *("predict_proba", "decision_function", "explain"),
    ]
    said = {m: np.asarray(getattr(estimator, m)(ROWS)) for m in names if hasattr(estimator, m)}
    estimator.save(tmp_path / "model")
    for again in (
        pickle.loads(pickle.dumps(estimator)),
        skae.load(tmp_path / "model"),
        train(configured(estimator_class, n_components=2, **RNN), RAGGED),
        train(configured(estimator_class, n_components=2, **RNN), SEQUENCES),
    ):
        for method, answer in said.items():
            assert np.isfinite(answer).all() or answer.dtype.kind in "OU"
            for rows in (ROWS, SEQUENCES):
                np.testing.assert_array_equal(np.asarray(getattr(again, method)(rows)), answer)


def as_objects(sequences):
    array = np.empty(len(sequences), dtype=object)
    array[:] = sequences
    return array


LISTS = {
    "tuple": tuple,
    "array of objects": as_objects,
    "nested lists": lambda sequences: [sequence.tolist() for sequence in sequences],
    "lists of steps": lambda sequences: [list(sequence) for sequence in sequences],
    "cells": lambda sequences: [sequence.ravel() for sequence in sequences],
    "lists of cells": lambda sequences: [sequence.ravel().tolist() for sequence in sequences],
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_sequences_equal_padded_arrays(trained, kind):
    sequences = LISTS[kind](SEQUENCES)
    np.testing.assert_array_equal(trained.transform(sequences), trained.transform(ROWS))
    for n in (1, 5):  # all of them may be shorter than those of the fit, and of equal length
        short = LISTS[kind]([wave[:n] for wave in WAVES])
        np.testing.assert_array_equal(trained.transform(short), trained.transform(WAVES[:, :n]))


@pytest.mark.parametrize("feature_shape", [(-1, CHANNELS), (STEPS, -1)])
def test_lists_of_sequences_determine_an_open_shape(feature_shape):
    parameters = RNN | {"feature_shape": feature_shape}
    expected = Autoencoder(2, **RNN).fit(ROWS).transform(ROWS)
    codes = Autoencoder(2, **parameters).fit(SEQUENCES).transform(SEQUENCES)
    np.testing.assert_array_equal(codes, expected)


def test_lists_of_single_precision_stay_in_single_precision():
    sequences = [sequence.astype(np.float32) for sequence in SEQUENCES]
    model = Autoencoder(2, **RNN | {"max_epochs": 0}).fit(sequences)
    assert model.transform(sequences).dtype == np.float32


def test_metrics_and_paths_take_lists_of_sequences(trained):
    expected = explained_variance_ratio(trained, ROWS)
    assert explained_variance_ratio(trained, SEQUENCES) == expected
    short = Autoencoder(**RNN | {"max_epochs": 1})
    by_list, by_rows = (
        components_path(short, X, param_range=[1, 2], random_state=0).results["test_nats"]
        for X in (SEQUENCES, ROWS)
    )
    np.testing.assert_array_equal(by_list, by_rows)


INVALID_LISTS = {
    "too long": (np.zeros((STEPS + 1, 2)), r"Row 3 of X.*shape \(time, 2\) and at most 6 steps"),
    "channels": (np.zeros((2, 3)), r"Row 3 of X.*shape \(time, 2\).*got the shape \(2, 3\)"),
    "odd cells": ([1.0, 2.0, 3.0], r"Row 3 of X.*shape \(time, 2\).*got the shape \(3,\)"),
    "a number": (3.0, r"Row 3 of X.*shape \(time, 2\).*got the shape \(\)"),
    "None": (None, r"Row 3 of X.*shape \(time, 2\).*got the shape \(\)"),
    "3-D": (np.zeros((1, 2, 2)), r"Row 3 of X.*shape \(time, 2\).*got the shape \(1, 2, 2\)"),
    "empty": (np.zeros((0, 2)), r"Row 3 of X.*first step must be observed"),
    "NaN": ([[1.0, np.nan], [1.0, 2.0]], "Row 3 of X contains NaN before its end"),
    "text": ([["u", "v"]], "Row 3 of X must hold one number per channel.*'u'"),
    "unequal steps": ([[1.0, 2.0], [3.0]], r"All steps.*row 3 of X.*shapes \(2,\) and \(1,\)"),
}


@pytest.mark.parametrize("kind", INVALID_LISTS)
def test_invalid_lists_of_sequences_are_refused(trained, kind):
    row, message = INVALID_LISTS[kind]
    sequences = [*SEQUENCES[:3], row, *SEQUENCES[3:]]
    for method in (Autoencoder(2, **RNN).fit, trained.transform, trained.score_samples):
        with pytest.raises(ValueError, match=message) as error:
            method(sequences)
        assert "inhomogeneous" not in str(error.value)


LISTS_OF_OTHERS = {
    "sequences": SEQUENCES,
    "unequal rows": [[1.0, 2.0], [1.0]],
    "a number": [[1.0, 2.0], 3.0],
    "equal rows of unequal parts": [[[1.0, 2.0], [3.0]]] * 3,
    "unequal images": [np.zeros((1, 4, 4)), np.zeros((1, 4, 5))],
}


@pytest.mark.parametrize("kind", LISTS_OF_OTHERS)
@pytest.mark.parametrize("estimator_class", public_estimators(), ids=lambda c: c.__name__)
def test_other_architectures_refuse_lists_of_unequal_rows(estimator_class, kind):
    """The error says what is wrong and, if there are rows of different lengths, what to do."""
    estimator = configured(estimator_class, n_components=2, max_epochs=1)
    match = "parts of the same row have different lengths"
    if "parts" not in kind:
        match = "All rows of X must have the same length.*'recurrent' and feature_shape=.*padded"
    with pytest.raises(ValueError, match=match):
        train(estimator, LISTS_OF_OTHERS[kind])


@pytest.mark.parametrize("estimator_class", CONDITIONED, ids=lambda c: c.__name__)
def test_conditions_need_sequences_of_equal_length(estimator_class):
    parameters = RNN | {estimator_class._condition_parameter: [0], "feature_shape": (-1, 1)}
    with pytest.raises(ValueError, match="All rows of X must have the same length"):
        estimator_class(2, **parameters).fit(LISTS["cells"](SEQUENCES))


def test_which_nan_it_is_does_not_matter():
    other = ROWS.copy()
    other.view(np.uint64)[np.isnan(other)] += 1
    assert np.isnan(other).any()
    np.testing.assert_array_equal(
        *(Autoencoder(2, **RNN).fit(X).transform(ROWS) for X in (ROWS, other))
    )


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt_and_pepper", "swap"])
def test_corruption_leaves_lengths_as_they_are(corruption, monkeypatch):
    seen = []
    corrupt = Batches._corrupt_batch

    def noted(self, batch, generator):
        corrupted = corrupt(self, batch, generator)
        seen.append((batch.x, corrupted.x))
        return corrupted

    monkeypatch.setattr(Batches, "_corrupt_batch", noted)
    DenoisingAutoencoder(2, **RNN | {"corruption": corruption, "batch_size": 30}).fit(ROWS)
    assert any(not torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in seen)
    assert all(torch.equal(x.isnan(), y.isnan()) for x, y in seen)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((3, 2), "Row 3 of X contains NaN before its end"),
        ((4, slice(None)), "Row 4 of X contains NaN before its end"),
        ((5, -1, 0), "Row 5 of X contains NaN before its end"),
        ((6, 0), "Row 6 of X contains NaN before its end"),
    ],
)
def test_gaps_are_refused(trained, place, message):
    X = WAVES.copy()
    X[place] = np.nan
    for method in (Autoencoder(2, **RNN).fit, trained.transform, trained.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(X)


def test_short_sequences_may_be_whole_numbers(trained):
    counts = np.arange(24).reshape(3, 4, CHANNELS) % 3
    np.testing.assert_array_equal(
        trained.transform(counts), trained.transform(counts.astype(float))
    )
    with pytest.raises(ValueError, match="0 sample"):
        trained.transform(np.zeros((0, STEPS, CHANNELS)))


def test_a_head_counts_the_users_rows():
    X, y, weight = WAVES.copy(), np.arange(90) % 2, np.ones(90)
    X[7, 2], weight[:5] = np.nan, 0.0
    head = skae.AutoencoderClassifier(Autoencoder(2, **RNN))
    with pytest.raises(ValueError, match="Row 7 of X"):
        head.fit(X, y, sample_weight=weight)


@pytest.mark.parametrize("X", [WAVES, RAGGED, SEQUENCES], ids=["whole", "table", "list"])
def test_a_detector_takes_sequences_of_any_length(X):
    detector = skae.AutoencoderOutlierDetector(Autoencoder(2, **RNN), random_state=0)
    assert np.isfinite(detector.fit(X).score_samples(X)).all()
    assert np.isfinite(detector.score_samples(WAVES)).all()


def test_other_architectures_refuse_nan():
    for architecture in ("mlp", "conv"):
        parameters = {"architecture": architecture, "feature_shape": (1, STEPS, CHANNELS)}
        with pytest.raises(ValueError, match="contains NaN"):
            Autoencoder(2, **RNN | parameters | {"hidden_layer_sizes": (4,)}).fit(ROWS)


@pytest.mark.parametrize(
    ("parameters", "X", "message"),
    [
        ({"feature_shape": None}, ROWS, r"needs feature_shape=\(time, channels\)"),
        ({"feature_shape": (STEPS, CHANNELS, 1)}, ROWS, r"needs feature_shape=\(time, channels\)"),
        (
            {"feature_shape": (STEPS, 3)},
            ROWS,
            r"feature_shape=\(6, 3\) requires 18 columns, .*12 columns",
        ),
        ({"hidden_layer_sizes": ()}, ROWS, "at least one hidden layer"),
        ({"tied_weights": True}, ROWS, "tied_weights"),
        ({"layerwise_epochs": 2}, ROWS, "layerwise_epochs"),
        (
            {},
            np.concatenate([WAVES, WAVES], axis=1),
            r"feature_shape=\(6, 2\) requires 12 columns, .*24",
        ),
        ({}, WAVES[:, :, :1], r"feature_shape=\(6, 2\) requires 12 columns, .*6"),
    ],
)
def test_wrong_shapes_are_one_clear_sentence(parameters, X, message):
    with pytest.raises(ValueError, match=message) as error:
        Autoencoder(2, **RNN | parameters).fit(X)
    assert "\n" not in str(error.value)


def test_a_variational_one_uses_its_code():
    """Though its decoder could write the mean sequence without: its noise starts small."""
    steps = {"max_epochs": 80, "learning_rate": 0.01, "batch_size": 30}
    model = VariationalAutoencoder(2, **RNN | {"hidden_layer_sizes": (32,)} | steps)
    error = model.fit(WAVES).reconstruction_error(WAVES)
    assert error.sum() < 0.5 * ((WAVES - WAVES.mean(axis=0)) ** 2).sum()


def test_loops_over_time_are_not_traced(trained):
    """A trace of them costs more than it saves."""
    network = trained.module_
    assert not Step(network, list(network.parameters()), None).may_trace
    plain = Autoencoder(2, max_epochs=1).fit(WAVES.reshape(90, -1)).module_
    assert Step(plain, list(plain.parameters()), None).may_trace
