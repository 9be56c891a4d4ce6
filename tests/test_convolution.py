"""Convolutional bodies: shapes, layers against torch's own, PCA at the start, densities."""

import math
import re

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from test_common import configured, public_estimators, train
from test_density import gaussian_by_quadrature

from skae import Autoencoder, DenoisingAutoencoder
from skae.nn.bodies.convolution import Convolution, Convolutional, Stage, Upsampling
from skae.table.sequences import full_shape

SHAPES = [
    *((1, 8, 8), (1, 28, 28), (3, 5, 7), (3, 9, 4), (2, 1, 13), (1, 1, 2), (4, 6, 1), (1, 64, 3)),
]

RNG = np.random.default_rng(0)
IMAGES = np.tanh(RNG.normal(size=(80, 3)) @ RNG.normal(size=(3, 40))).reshape(80, 2, 5, 4)
ROWS = IMAGES.reshape(80, -1)
CONV = {
    "architecture": "conv",
    "feature_shape": (2, 5, 4),
    "hidden_layer_sizes": (4, 6),
    "max_epochs": 3,
    "random_state": 0,
}


def drawn(layer):
    """A layer with weights drawn, none of them zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 3)
    return layer.double()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layers_are_torchs(shape):
    stage = Stage.of(shape, 5)
    down, up = drawn(Convolution(stage)), drawn(Upsampling(stage, is_last=False))
    large = torch.randn(4, *shape, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(
        large, down.weight, down.bias, stride=stage.stride, padding=stage.padding
    )
    small = down(large.flatten(1)).reshape(expected.shape)
    torch.testing.assert_close(small, expected)
    assert small.shape[2:] == tuple(-(-size // 2) for size in shape[1:])
    wide = torch.nn.functional.conv2d(small, up.weight, up.bias, padding=stage.padding)
    if stage.stride == (2, 2):
        wide = torch.nn.functional.pixel_shuffle(wide, 2)
        wide = wide[..., : shape[1], : shape[2]]
        torch.testing.assert_close(up(small.flatten(1)).reshape(large.shape), wide)


def test_start_weights_keep_the_spread_of_rows():
    layers = Convolutional((3, 16, 16), (8, 8), "silu", 0.0).encoder(4).layers
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        layer.reset(generator, 1.0)
        per_output = math.prod(layer.weight.shape[1:])
        assert layer.weight.std().item() == pytest.approx(per_output**-0.5, rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize("sizes", [(4, 6), ()])
def test_with_the_skip_training_starts_at_pca(sizes):
    model = Autoencoder(
        3, **CONV | {"hidden_layer_sizes": sizes, "max_epochs": 0, "linear_skip": True}
    ).fit(ROWS)
    pca = PCA(3).fit(ROWS)
    np.testing.assert_allclose(
        model.reconstruct(ROWS), pca.inverse_transform(pca.transform(ROWS)), atol=1e-10
    )
    np.testing.assert_allclose(
        model.set_params(early_stopping=False).fit(ROWS).score_samples(ROWS),
        pca.score_samples(ROWS),
        rtol=1e-9,
    )


def test_the_skip_is_for_series_by_default():
    image = Autoencoder(3, **CONV | {"max_epochs": 0}).fit(ROWS)
    series = Autoencoder(3, **CONV | {"max_epochs": 0, "feature_shape": (2, 1, 20)}).fit(ROWS)
    assert image.module_.encoder.skip is None
    assert series.module_.encoder.skip is not None


def test_arrays_of_images_are_rows():
    by_rows, by_images = (Autoencoder(3, **CONV).fit(X) for X in (ROWS, IMAGES))
    for method in ("transform", "reconstruct", "score_samples", "reconstruction_error"):
        for model in (by_rows, by_images):
            for X in (ROWS, IMAGES):
                np.testing.assert_array_equal(
                    getattr(model, method)(X), getattr(by_rows, method)(ROWS)
                )
    series = ROWS.reshape(80, 2, 20)
    shape = CONV | {"feature_shape": (2, 1, -1)}
    np.testing.assert_array_equal(
        Autoencoder(3, **shape).fit(series).transform(series),
        Autoencoder(3, **shape).fit(ROWS).transform(ROWS),
    )
    plain = Autoencoder(3, feature_shape=(2, 5, 4), max_epochs=1, random_state=0)
    np.testing.assert_array_equal(
        plain.fit_transform(IMAGES), plain.set_params(feature_shape=None).fit_transform(ROWS)
    )
    one = by_rows.interpolate(IMAGES[0], IMAGES[1], 3)
    np.testing.assert_array_equal(one, by_rows.interpolate(ROWS[:1], ROWS[1], 3))
    assert by_rows.traverse(IMAGES[0], 0, [0.0, 1.0]).shape == (2, 40)


def test_a_shape_left_open_is_that_of_the_fit():
    open_shape = Autoencoder(3, **CONV | {"feature_shape": (-1, 5, 4)}).fit(IMAGES)
    assert open_shape.traverse(IMAGES[0], 0, [0.0, 1.0]).shape == (2, 40)


def test_training_does_not_go_on_with_another_shape():
    model = Autoencoder(3, **CONV | {"feature_shape": (2, 4, 5)}).fit(ROWS)
    expected = model.transform(ROWS)
    with pytest.raises(ValueError, match="feature_shape"):
        model.set_params(feature_shape=(2, 5, 4)).partial_fit(ROWS)
    np.testing.assert_array_equal(model.transform(ROWS), expected)


def test_pairs_of_images_are_pairs_of_rows():
    corrupted = IMAGES + 0.1
    model = Autoencoder(3, **CONV)
    np.testing.assert_array_equal(
        model.fit(IMAGES, X_corrupted=corrupted).transform(ROWS),
        model.fit(ROWS, X_corrupted=corrupted.reshape(80, -1)).transform(ROWS),
    )


def test_the_density_is_the_integral():
    """Of a model with one code, over a grid of codes."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(200, 1))
    X = np.concatenate([t, t**2 / 2, np.sin(t), np.cos(t), -t, t / 2], axis=1)
    X += 0.1 * rng.normal(size=X.shape)
    model = Autoencoder(
        1,
        architecture="conv",
        feature_shape=(1, 2, 3),
        linear_skip=True,
        max_epochs=200,
        random_state=0,
    ).fit(X)
    error = model.score_samples(X) - gaussian_by_quadrature(model, X)
    assert abs(error.mean()) < 0.02


def test_layers_can_be_trained_one_by_one():
    plain, layerwise = (
        Autoencoder(3, **CONV | {"layerwise_epochs": epochs, "max_epochs": 1}).fit(ROWS)
        for epochs in (0, 20)
    )
    assert layerwise.loss_curve_[0] < plain.loss_curve_[0]


@pytest.mark.parametrize("estimator_class", public_estimators(), ids=lambda c: c.__name__)
def test_every_estimator_takes_images(estimator_class):
    estimator = configured(estimator_class, n_components=3, **CONV)
    method = "transform" if hasattr(estimator, "transform") else "score_samples"
    by_rows = getattr(train(estimator, ROWS), method)(ROWS)
    by_images = getattr(train(estimator, IMAGES), method)(IMAGES)
    np.testing.assert_array_equal(by_images, by_rows)
    assert np.isfinite(by_rows).all()


@pytest.mark.parametrize(
    ("parameters", "X", "message"),
    [
        (
            {"feature_shape": (2, 5, 5)},
            ROWS,
            r"feature_shape=\(2, 5, 5\) requires 50 columns, .*40 columns",
        ),
        (
            {"feature_shape": (3, -1, 5)},
            ROWS,
            r"feature_shape=\(3, -1, 5\) requires a multiple of 15 .*40",
        ),
        ({"feature_shape": (8, 5)}, ROWS, r"needs feature_shape=\(channels, height, width\)"),
        ({"feature_shape": None}, ROWS, r"needs feature_shape=\(channels, height, width\)"),
        ({"feature_shape": None}, IMAGES, r"dim 4.*Set feature_shape"),
        ({"feature_shape": (2, -1, -1)}, ROWS, "feature_shape must hold positive integers"),
        ({"feature_shape": (2, 5.0, 4)}, ROWS, "feature_shape must hold positive integers"),
        ({"feature_shape": (0, 5, 4)}, ROWS, "feature_shape must hold positive integers"),
        (
            {},
            np.moveaxis(IMAGES, 1, -1),
            r"feature_shape=\(2, 5, 4\), got rows of shape \(5, 4, 2\).*np.moveaxis\(X, -1, 1\)",
        ),
        ({"hidden_layer_sizes": (4,) * 4}, ROWS, "too small for the 4 stages.* halved 3 times"),
        ({"tied_weights": True}, ROWS, "tied_weights"),
    ],
)
def test_wrong_shapes_are_one_clear_sentence(parameters, X, message):
    with pytest.raises(ValueError, match=message) as error:
        Autoencoder(3, **CONV | parameters).fit(X)
    assert "\n" not in str(error.value)


LAST_AXIS = [(5, 4, 3), (4, 4, 1), (-1, 5, 4)]
FIRST_AXIS = [(3, 5, 4), (1, 4, 4), (3, 4, 3), (20, 5, 2)]


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [(shape, {"architecture": "conv"}) for shape in (*LAST_AXIS, *FIRST_AXIS)]
    + [(shape, {"corruption": "downsampling"}) for shape in (LAST_AXIS[0], FIRST_AXIS[0])],
    ids=str,
)
def test_channels_on_the_last_axis_cause_a_warning(shape, parameters, recwarn):
    """With the remedy, which turns the images into those of the other order of the axes."""
    sizes = [abs(size) * 16 if size == -1 else size for size in shape]
    images = RNG.normal(size=(12, *sizes))
    parameters = {"hidden_layer_sizes": (4,), "max_epochs": 0} | parameters
    model = DenoisingAutoencoder(2, feature_shape=shape, **parameters).fit(images.reshape(12, -1))
    assert len(recwarn) == (shape in LAST_AXIS)
    if shape in LAST_AXIS:
        text = str(recwarn.pop(UserWarning).message)
        proposed, remedy = re.search(r"set feature_shape=(\(.*?\)) and pass (.*)\.$", text).groups()
        moved = eval(remedy, {"np": np, "X": images.reshape(12, -1)})
        np.testing.assert_array_equal(moved, np.moveaxis(images, -1, 1))
        model.set_params(feature_shape=eval(proposed)).fit(moved)
        assert not recwarn


@pytest.mark.filterwarnings("ignore:Posterior collapse")
@pytest.mark.parametrize("estimator_class", public_estimators(), ids=lambda c: c.__name__)
def test_every_estimator_warns_of_channels_on_the_last_axis(estimator_class):
    parameters = CONV | {"feature_shape": (5, 4, 3), "max_epochs": 0, "n_components": 2}
    images = RNG.normal(size=(20, 5, 4, 3))
    with pytest.warns(
        UserWarning, match=r"feature_shape=\(5, 4, 3\).*set feature_shape=\(3, 5, 4\)"
    ):
        train(configured(estimator_class, **parameters), images)


def test_one_number_of_a_shape_may_be_left_open():
    assert full_shape((3, -1, 5), 60) == (3, 4, 5)
    assert full_shape((3, 4, 5), 60) == (3, 4, 5)
