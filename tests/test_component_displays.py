"""Displays of components show the numbers of the metrics."""

import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from skae import (
    AttributionDisplay,
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderOutlierDetector,
    BiplotDisplay,
    ComponentImportanceDisplay,
    ConditionalVariationalAutoencoder,
)
from skae.metrics import component_importance, feature_attribution, loadings

WINE, GRAPE = load_wine(return_X_y=True, as_frame=True)
QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}
DRAW = {
    "biplot": BiplotDisplay.from_estimator,
    "attribution": AttributionDisplay.from_estimator,
    "importance": ComponentImportanceDisplay.from_estimator,
}


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def wine():
    """A pipeline and the table as its autoencoder sees it."""
    pipeline = make_pipeline(StandardScaler(), Autoencoder(3, **QUICK)).fit(WINE)
    return pipeline, pipeline[0].transform(WINE)


@pytest.fixture(scope="module")
def images(digits):
    return Autoencoder(10, feature_shape=(1, 8, -1), **QUICK).fit(digits[:300])


def offsets(artist):
    return np.asarray(artist.get_offsets())


def arrows(display):
    return np.column_stack([display.arrows_.U, display.arrows_.V])


def shortened(names):
    return [name if len(name) <= 20 else f"{name[:19]}…" for name in names]


def texts(labels):
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
@pytest.mark.parametrize("over", [AutoencoderClassifier, AutoencoderOutlierDetector])
def test_estimators_over_an_autoencoder(over, draw):
    model = over(Autoencoder(2, **QUICK)).fit(WINE, GRAPE)
    display = draw(model, WINE)
    expected = draw(model.autoencoder_, model.preprocess(WINE))
    for name in ("codes", "loadings", "attributions", "importance", "pca_importance"):
        if hasattr(display, name):
            np.testing.assert_array_equal(getattr(display, name), getattr(expected, name))
    if hasattr(display, "feature_names"):
        assert list(display.feature_names) == list(WINE.columns)


@pytest.mark.parametrize("options", [{}, {"row": 3}], ids=["all", "row"])
@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_give_the_numbers_of_arrays(library, draw, options):
    X = WINE if library == "pandas" else pytest.importorskip("polars").from_pandas(WINE)
    options = {} if draw is DRAW["importance"] else options
    display = draw(Autoencoder(2, **QUICK).fit(X), X, **options)
    expected = draw(Autoencoder(2, **QUICK).fit(WINE.to_numpy()), WINE.to_numpy(), **options)
    for name in ("codes", "loadings", "attributions", "importance", "pca_importance"):
        if hasattr(expected, name):
            np.testing.assert_allclose(getattr(display, name), getattr(expected, name))


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_sequences_of_several_lengths(draw):
    X = np.sin(np.arange(12) + np.arange(30)[:, None]).repeat(2, axis=1)
    X[:10, 16:] = np.nan
    model = Autoencoder(2, architecture="recurrent", feature_shape=(-1, 2), max_epochs=1).fit(X)
    display = draw(model, X, **{"with_pca": False} if draw is DRAW["importance"] else {})
    assert display.ax_.figure is display.figure_


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_conditions_that_are_strings(draw):
    X = WINE.iloc[:, :4].assign(grape=np.array(["a", "b", "c"])[GRAPE])
    model = ConditionalVariationalAutoencoder(2, condition=["grape"], **QUICK).fit(X)
    options = {"with_pca": False} if draw is DRAW["importance"] else {}
    display = draw(model, X, **options)
    if draw is DRAW["biplot"]:
        assert texts(display.texts_)[-1] == "grape"
        np.testing.assert_array_equal(display.loadings[4], [0, 0])
    if draw is DRAW["attribution"]:
        np.testing.assert_array_equal(display.attributions[:, 4], [0, 0])


# ------------------------------------------------------------------------------------- biplot


def test_biplot_shows_codes_and_loadings(wine):
    pipeline, X = wine
    display = BiplotDisplay.from_estimator(pipeline, WINE, components=(2, 0), n_arrows=6)
    codes = pipeline.transform(WINE)[:, [2, 0]]
    np.testing.assert_array_equal(offsets(display.scatter_), codes)
    columns = loadings(pipeline[-1], X)[:, [2, 0]]
    np.testing.assert_array_equal(display.loadings, columns)
    lengths = np.linalg.norm(columns, axis=1)
    longest = (-lengths).argsort()[:6]
    assert texts(display.texts_) == shortened(WINE.columns[longest])
    np.testing.assert_allclose(offsets(display.arrows_), np.tile(codes.mean(axis=0), (6, 1)))
    # All arrows have the same scale, in standard deviations of the components.
    standardized = arrows(display) / codes.std(axis=0, ddof=1)
    np.testing.assert_allclose(
        standardized / standardized[0, 0], columns[longest] / columns[longest][0, 0]
    )
    distances = np.linalg.norm((codes - codes.mean(axis=0)) / codes.std(axis=0, ddof=1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(standardized[0]), np.percentile(distances, 95))
    assert display.ax_.get_xlabel() == "component 2"
    assert display.ax_.get_ylabel() == "component 0"


def test_biplot_of_a_row_starts_at_its_code(wine):
    pipeline, X = wine
    display = BiplotDisplay.from_estimator(pipeline, WINE, GRAPE, row=7, n_arrows=99)
    codes = pipeline.transform(WINE)
    np.testing.assert_allclose(offsets(display.arrows_), np.tile(codes[7, :2], (13, 1)))
    local = pipeline[-1].decoder_jacobian(X[7:8])[0] * codes.std(axis=0, ddof=1)
    np.testing.assert_allclose(display.loadings, local[:, :2])
    assert sorted(texts(display.texts_)) == sorted(shortened(WINE.columns))
    assert texts(display.ax_.get_legend().get_texts()) == ["0", "1", "2"]
    assert display.ax_.get_title().endswith("at row 7")


def test_biplot_of_pca_reconstructs_standardized_rows():
    """Gabriel's identity: a cell is the product of the row's dot and the column's arrow."""
    X = StandardScaler().fit_transform(WINE)
    pca = PCA(2).fit(X)
    codes, columns = pca.transform(X), pca.components_.T * np.sqrt(pca.explained_variance_)
    display = BiplotDisplay.from_predictions(codes * [100, 1], columns, n_arrows=13)
    scale = display.codes.std(axis=0, ddof=1)
    products = offsets(display.scatter_) / scale @ (arrows(display) / scale).T
    order = [int(name[1:]) for name in texts(display.texts_)]
    expected = pca.inverse_transform(codes)[:, order]
    factor = products[0, 0] / expected[0, 0]
    np.testing.assert_allclose(products, factor * expected, atol=1e-9)


@pytest.mark.parametrize("n_arrows", [1, 13])
def test_names_of_arrows_are_apart_and_within_the_axes(wine, n_arrows):
    display = BiplotDisplay.from_estimator(wine[0], WINE, n_arrows=n_arrows)
    display.figure_.canvas.draw()
    boxes = []
    for text in display.texts_:
        text.arrow_patch.set_visible(False)
        boxes.append(matplotlib.text.Text.get_window_extent(text))
    for i, box in enumerate(boxes):
        assert display.ax_.bbox.x0 < box.x0
        assert box.x1 < display.ax_.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_wrong_biplots_are_refused(wine):
    pipeline, _ = wine
    for components in (0, (0, 1, 2), (1, 1)):
        with pytest.raises(ValueError, match="components must be two different integers, got"):
            BiplotDisplay.from_estimator(pipeline, WINE, components=components)
    with pytest.raises(ValueError, match=r"components must be integers in \[0, 2\], got \(0, 3\)"):
        BiplotDisplay.from_estimator(pipeline, WINE, components=(0, 3))
    with pytest.raises(ValueError, match=r"row must be an integer in \[0, 177\], got 178"):
        BiplotDisplay.from_estimator(pipeline, WINE, row=178)
    with pytest.raises(ValueError, match="n_arrows must be an integer of at least 1, got 0"):
        BiplotDisplay.from_estimator(pipeline, WINE, n_arrows=0)
    codes = np.arange(6.0).reshape(3, 2)
    draw = BiplotDisplay.from_predictions
    with pytest.raises(
        ValueError, match="must have 2 columns, one for each component, got 2 and 3"
    ):
        draw(codes, np.ones((4, 3)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        draw(codes, np.ones((4, 2)), y=[1, 2])
    with pytest.raises(ValueError, match="component 5 of the codes must vary"):
        draw(codes * [1, 0], np.ones((4, 2)), components=(3, 5))
    with pytest.raises(ValueError, match="components must be two different"):
        draw(codes, np.ones((4, 2)), components=(3,))
    with pytest.raises(ValueError, match="feature_names must have 4 names"):
        draw(codes, np.ones((4, 2)), feature_names=["a"])
    with pytest.raises(ValueError, match=r"row must be an integer in \[0, 2\], got 3"):
        draw(codes, np.ones((4, 2)), row=3)


# -------------------------------------------------------------------------------- attribution


def test_attributions_of_tables(wine):
    pipeline, X = wine
    display = AttributionDisplay.from_estimator(pipeline, WINE)
    shares = feature_attribution(pipeline[-1], X)
    np.testing.assert_array_equal(display.image_.get_array(), shares)
    assert display.image_.get_clim() == (0, shares.max())
    assert texts(display.ax_.get_xticklabels()) == list(WINE.columns)
    assert texts(display.ax_.get_yticklabels()) == ["component 0", "component 1", "component 2"]
    assert display.figure_.axes[1].get_ylabel() == "share of variance"
    assert not hasattr(display, "images_")


def test_attributions_of_a_row_have_signs(wine):
    pipeline, X = wine
    display = AttributionDisplay.from_estimator(pipeline, WINE, row=9)
    shown = display.image_.get_array()
    codes = pipeline[-1].transform(np.vstack([X[9], X.mean(axis=0)]))
    np.testing.assert_allclose(shown.sum(axis=1), codes[0] - codes[1], atol=1e-5)
    low, high = display.image_.get_clim()
    assert high == -low == np.abs(shown).max()
    assert display.figure_.axes[1].get_ylabel() == "contribution in row 9"


def test_attributions_of_images(images, digits):
    X = digits[:300]
    display = AttributionDisplay.from_estimator(images, X)
    assert display.images_.shape == display.ax_.shape == (2, 8)
    shares = feature_attribution(images, X)
    shown = [image.get_array() for image in display.images_.flat]
    np.testing.assert_array_equal(shown[:10], shares.reshape(10, 8, 8))
    assert all(image.mask.all() for image in shown[10:])
    assert {image.get_clim() for image in display.images_.flat} == {(0, shares.max())}
    assert [ax.get_title() for ax in display.ax_.flat][8:11] == ["component 8", "component 9", ""]
    assert not hasattr(display, "image_")


def test_attributions_of_channels_are_added():
    table = np.random.default_rng(0).normal(size=(2, 48))
    display = AttributionDisplay.from_predictions(table, row=0, feature_shape=(3, 4, 4))
    shown = [image.get_array() for image in display.images_.flat]
    np.testing.assert_allclose(shown, table.reshape(2, 3, 4, 4).sum(axis=1))
    limit = np.abs(shown).max()
    assert display.images_[0, 0].get_clim() == (-limit, limit)


def test_many_columns_are_not_named():
    names = [f"c{j}" for j in range(31)]
    display = AttributionDisplay.from_predictions(np.ones((2, 31)), feature_names=names)
    assert display.ax_.get_xlabel() == "column"


def test_wrong_attributions_are_refused(wine):
    with pytest.raises(ValueError, match=r"row must be an integer in \[0, 177\], got 178"):
        AttributionDisplay.from_estimator(wine[0], WINE, row=178)
    draw = AttributionDisplay.from_predictions
    with pytest.raises(ValueError, match="feature_shape must fit rows with 4 columns"):
        draw(np.ones((2, 4)), feature_shape=(3, 3))
    with pytest.raises(ValueError, match="feature_names must have 4 names"):
        draw(np.ones((2, 4)), feature_names=["a"])
    with pytest.raises(ValueError, match="NaN"):
        draw([[np.nan, 1]])


# --------------------------------------------------------------------------------- importance


def test_importance_stands_beside_pca(wine):
    pipeline, X = wine
    display = ComponentImportanceDisplay.from_estimator(pipeline, WINE)
    shown = [bar.get_height() for bar in display.bars_]
    np.testing.assert_array_equal(shown, component_importance(pipeline[-1], X))
    ratio = PCA(3).fit(X).explained_variance_ratio_
    np.testing.assert_allclose(display.pca_line_.get_ydata(), ratio)
    np.testing.assert_array_equal(display.pca_line_.get_xdata(), [0, 1, 2])
    centers = [bar.get_x() + bar.get_width() / 2 for bar in display.bars_]
    np.testing.assert_allclose(centers, [0, 1, 2])
    assert texts(display.ax_.get_legend().get_texts()) == ["PCA", "autoencoder"]
    assert display.ax_.get_yscale() == "linear"


def test_importance_without_pca(wine):
    display = ComponentImportanceDisplay.from_estimator(wine[0], WINE, with_pca=False)
    assert display.pca_line_ is None
    assert display.ax_.get_legend() is None


@pytest.mark.filterwarnings("ignore:n_components=20 exceeds:UserWarning")
def test_importance_of_more_components_than_columns():
    model = Autoencoder(20, **QUICK).fit(WINE)
    display = ComponentImportanceDisplay.from_estimator(model, WINE)
    assert len(display.bars_) == 20
    assert len(display.pca_line_.get_ydata()) == 13


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([[0.1, 0.2]], "should be a 1d array"),
        ([np.nan, 0.1], "NaN"),
        (["a"], "Convert your data to numeric"),
    ],
)
def test_wrong_importances_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ComponentImportanceDisplay.from_predictions(wrong)
    with pytest.raises(ValueError, match=message):
        ComponentImportanceDisplay.from_predictions([0.1], wrong)
