"""Pictures hold what models say, and wrong use is told."""

import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

import skae
from skae import (
    AttributionDisplay,
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderOutlierDetector,
    AutoencoderRegressor,
    BiplotDisplay,
    ComponentImportanceDisplay,
    ComponentsPathDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    OutlierExplanationDisplay,
    ReconstructionDisplay,
    TraversalDisplay,
    inspection,
)
from skae.inspection.display import Display

WINE, GRAPE = load_wine(return_X_y=True, as_frame=True)
QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}


def small(n_components=2, **parameters):
    return Autoencoder(n_components, **{**QUICK, **parameters})


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def wine():
    """A pipeline and the table as its autoencoder sees it."""
    pipeline = make_pipeline(StandardScaler(), small(3)).fit(WINE)
    return pipeline, pipeline[0].transform(WINE)


@pytest.fixture(scope="module")
def images(digits):
    return small(6, feature_shape=(1, 8, -1)).fit(digits[:300])


@pytest.fixture(scope="module")
def detector():
    return AutoencoderOutlierDetector(small(2), random_state=0).fit(WINE)


def texts(labels):
    return [label.get_text() for label in labels]


def offsets(scatter):
    return np.asarray(scatter.get_offsets())


def ydata(lines):
    return np.array([line.get_ydata() for line in np.ravel(lines)])


def path(**columns):
    results = pd.DataFrame(
        {
            "train_error": [3.0, 2.0, 1.0],
            "test_error": [3.5, 2.5, 2.0],
            "test_nats": [-9.0, -7.0, -7.5],
            "test_nats_se": [0.5, 0.4, 0.3],
            **columns,
        },
        index=pd.Index([2, 4, 8], name="n_components"),
    )
    return SimpleNamespace(
        param_name="n_components", results=results, suggested=4, error="squared error"
    )


PCA_COLUMNS = {"pca_test_error": [4.0, 3.0, 2.5], "pca_test_nats": [-9.5, -8.0, -8.0]}


# ------------------------------------------------------------------------------ all displays


MODULES = [
    import_module(f"skae.inspection.{module.name}")
    for module in pkgutil.iter_modules(inspection.__path__)
]
DISPLAYS = {
    name: thing
    for module in MODULES
    for name, thing in vars(module).items()
    if inspect.isclass(thing) and issubclass(thing, Display) and not inspect.isabstract(thing)
}


def test_all_displays_are_listed():
    listed = [name for module in MODULES for name in getattr(module, "__all__", ())]
    listed = [name for name in listed if name.endswith("Display")]
    assert sorted(listed) == sorted(DISPLAYS)
    assert {name: vars(skae)[name] for name in listed} == DISPLAYS
    assert {name for name in skae.__all__ if name.endswith("Display")} == set(DISPLAYS)


def test_import_does_not_import_matplotlib():
    names = ", ".join(module.__name__ for module in MODULES)
    code = f"import {names}, sys; print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "False"


def documented(thing, title):
    """The entries of a section of a docstring, by name."""
    sections = re.split(r"^(\w+)\n-+\n", inspect.getdoc(thing), flags=re.MULTILINE)
    assert sections.count(title) == 1
    entries = re.split(r"\n(?=\S)", sections[sections.index(title) + 1].strip())
    names = [re.match(r"\w+", entry)[0] for entry in entries]
    assert len(set(names)) == len(names)
    return dict(zip(names, entries, strict=True))


@pytest.mark.parametrize("display", DISPLAYS.values(), ids=DISPLAYS)
def test_every_parameter_is_documented_once_in_order(display):
    for call in (display, display.from_estimator, display.from_predictions):
        parameters = inspect.signature(call).parameters
        entries = documented(call, "Parameters")
        assert list(entries) == list(parameters)
        assert all(re.search(r"^    \S", entry, re.MULTILINE) for entry in entries.values())
        has_default = {name for name, p in parameters.items() if p.default is not p.empty}
        assert {name for name, entry in entries.items() if "default=" in entry} == has_default
    for method in (display.from_estimator, display.from_predictions):
        text = f"display : {display.__name__}\n    The display, after plotting."
        assert documented(method, "Returns") == {"display": text}
    assert {"ax_", "figure_"} <= documented(display, "Attributes").keys()


def test_what_a_display_documents_itself_is_kept():
    rows = documented(ReconstructionDisplay.from_estimator, "Parameters")
    assert rows["feature_shape"].rstrip().endswith("in the order of the columns.")
    assert "the user's units" in rows["X"]
    rows = documented(ReconstructionDisplay.from_predictions, "Parameters")
    assert "all of which are plotted" in rows["X"]
    of_class = documented(TraversalDisplay, "Parameters")["feature_shape"]
    assert rows["feature_shape"].split() == of_class.split()
    errors = documented(TraversalDisplay.from_estimator, "Raises")
    assert list(errors) == ["ValueError", "ImportError", "TypeError", "NotFittedError"]
    errors = documented(TraversalDisplay.from_predictions, "Raises")
    assert list(errors) == ["ValueError", "ImportError"]


@pytest.mark.parametrize("display", DISPLAYS.values(), ids=DISPLAYS)
def test_every_attribute_is_documented(display):
    drawn = re.findall(r"self\.([a-z_]+_)\b(?:: [^=]+)? = ", inspect.getsource(display))
    assert set(documented(display, "Attributes")) == {*drawn, "ax_", "figure_"}


def test_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"LossCurveDisplay\.plot requires matplotlib"):
        LossCurveDisplay.from_predictions([1.0])
    with pytest.raises(ImportError, match=r"ComponentsPathDisplay\.from_estimator requires"):
        ComponentsPathDisplay.from_estimator(small(), WINE)


DRAWN = {
    "loss": lambda ax, pipeline, _: LossCurveDisplay.from_estimator(pipeline, ax=ax),
    "codes": lambda ax, pipeline, _: LatentSpaceDisplay.from_estimator(pipeline, WINE, ax=ax),
    "rows": lambda ax, pipeline, _: ReconstructionDisplay.from_estimator(
        pipeline, WINE, n_rows=2, ax=ax
    ),
    "traversal": lambda ax, pipeline, _: TraversalDisplay.from_estimator(pipeline, WINE, ax=ax),
    "path": lambda ax, *_: ComponentsPathDisplay.from_predictions(path(), ax=ax),
    "outliers": lambda ax, _, detector: OutlierExplanationDisplay.from_estimator(
        detector, WINE, ax=ax
    ),
    "biplot": lambda ax, pipeline, _: BiplotDisplay.from_estimator(pipeline, WINE, ax=ax),
    "attribution": lambda ax, pipeline, _: AttributionDisplay.from_estimator(pipeline, WINE, ax=ax),
    "importance": lambda ax, pipeline, _: ComponentImportanceDisplay.from_estimator(
        pipeline, WINE, ax=ax
    ),
}
N_AXES = {
    "loss": 1,
    "codes": 2,
    "rows": 2,
    "traversal": 3,
    "path": 2,
    "outliers": 3,
    "biplot": 1,
    "attribution": 1,
    "importance": 1,
}


@pytest.mark.parametrize("name", DRAWN)
def test_axes_are_new_or_the_users(name, wine, detector):
    display = DRAWN[name](None, wine[0], detector)
    assert np.size(display.ax_) == N_AXES[name]
    assert {ax.figure for ax in np.ravel(display.ax_)} == {display.figure_}
    figure, axes = plt.subplots(1, N_AXES[name])
    display = DRAWN[name](axes, wine[0], detector)
    assert display.figure_ is figure
    assert list(np.ravel(display.ax_)) == list(np.ravel(axes))
    assert isinstance(display.ax_, np.ndarray) == (N_AXES[name] > 1)
    assert plt.get_fignums() == [1, 2]


@pytest.mark.parametrize("name", DRAWN)
def test_wrong_number_of_axes_is_told(name, wine, detector):
    _, axes = plt.subplots(1, 4)
    with pytest.raises(
        ValueError, match=rf"ax must be None or hold {N_AXES[name]} axes .*, got 4\."
    ):
        DRAWN[name](axes, wine[0], detector)


OF_ESTIMATORS = {
    "loss": LossCurveDisplay.from_estimator,
    "codes": lambda estimator: LatentSpaceDisplay.from_estimator(estimator, WINE),
    "rows": lambda estimator: ReconstructionDisplay.from_estimator(estimator, WINE),
    "traversal": lambda estimator: TraversalDisplay.from_estimator(estimator, WINE),
    "outliers": lambda estimator: OutlierExplanationDisplay.from_estimator(estimator, WINE),
    "biplot": lambda estimator: BiplotDisplay.from_estimator(estimator, WINE),
    "attribution": lambda estimator: AttributionDisplay.from_estimator(estimator, WINE),
    "importance": lambda estimator: ComponentImportanceDisplay.from_estimator(estimator, WINE),
}


@pytest.mark.parametrize("draw", OF_ESTIMATORS.values(), ids=OF_ESTIMATORS)
def test_estimators_without_an_autoencoder_are_refused(draw):
    message = "must be an autoencoder of skae, an estimator that contains one, or a Pipeline"
    with pytest.raises(TypeError, match=f"{message} that ends with either, got PCA"):
        draw(PCA().fit(WINE))
    with pytest.raises(TypeError, match="got LogisticRegression"):
        draw(make_pipeline(small(), LogisticRegression()))


@pytest.mark.parametrize("draw", OF_ESTIMATORS.values(), ids=OF_ESTIMATORS)
@pytest.mark.parametrize("over", [AutoencoderOutlierDetector, make_pipeline])
def test_estimators_that_are_not_fitted_are_refused(draw, over):
    with pytest.raises(NotFittedError):
        draw(over(AutoencoderOutlierDetector() if over is make_pipeline else small()))


@pytest.mark.parametrize("name", ["codes", "rows", "traversal"])
def test_what_detectors_receive_is_drawn(name, detector):
    """In the robust units in which they pass rows to their autoencoder."""
    display = OF_ESTIMATORS[name](detector)
    if name == "codes":
        codes = detector.autoencoder_.transform(detector.preprocess(WINE))
        np.testing.assert_array_equal(display.codes["Autoencoder"], codes)


# -------------------------------------------------------------------------------- loss curves


def test_loss_curve_is_that_of_the_fit(wine):
    autoencoder = wine[0][-1]
    display = LossCurveDisplay.from_estimator(wine[0])
    np.testing.assert_array_equal(
        ydata(display.lines_), [autoencoder.loss_curve_, autoencoder.validation_curve_]
    )
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [1, 2, 3])
    assert set(display.best_epoch_line_.get_xdata()) == {autoencoder.best_epoch_}
    assert display.best_epoch_line_.get_linestyle() == ":"
    assert display.ax_.get_xlabel() == "epoch"
    assert display.ax_.get_ylabel() == "nats per row"
    assert texts(display.ax_.get_legend().get_texts()) == [
        "training rows",
        "validation rows",
        f"epoch kept: {autoencoder.best_epoch_}",
    ]


def test_without_held_out_rows_there_is_one_curve():
    autoencoder = small(early_stopping=False).fit(WINE)
    assert len(LossCurveDisplay.from_estimator(autoencoder).lines_) == 1


def test_curves_may_come_without_an_epoch():
    display = LossCurveDisplay.from_predictions([3.0, 2.0])
    assert display.best_epoch_line_ is None
    np.testing.assert_array_equal(ydata(display.lines_), [[3, 2]])


def test_epoch_0_is_the_start():
    display = LossCurveDisplay.from_predictions([3.0, 4.0], [5.0, 6.0], 0)
    assert set(display.best_epoch_line_.get_xdata()) == {0}


@pytest.mark.parametrize(
    "over", [AutoencoderClassifier, AutoencoderRegressor, AutoencoderOutlierDetector]
)
def test_loss_curve_of_an_estimator_over_an_autoencoder(over):
    model = over(small()).fit(WINE, GRAPE)
    display = LossCurveDisplay.from_estimator(model)
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), model.autoencoder_.loss_curve_)


# -------------------------------------------------------------------------------------- codes


def test_codes_of_two_are_drawn_as_they_are():
    autoencoder = small().fit(WINE)
    display = LatentSpaceDisplay.from_estimator(autoencoder, WINE, GRAPE)
    ours, pca = display.scatters_
    np.testing.assert_array_equal(offsets(ours), autoencoder.transform(WINE))
    np.testing.assert_allclose(offsets(pca), PCA(2).fit_transform(WINE), atol=1e-6)
    assert [ax.get_title() for ax in display.ax_] == [
        "Autoencoder (n_components=2)",
        "PCA (n_components=2)",
    ]
    assert display.ax_[0].get_xlabel() == "component 0"
    assert display.ax_[0].get_ylabel() == "component 1"


def test_long_codes_are_drawn_along_their_principal_axes(wine):
    pipeline, X = wine
    display = LatentSpaceDisplay.from_estimator(pipeline, WINE)
    codes = pipeline.transform(WINE)
    np.testing.assert_allclose(offsets(display.scatters_[0]), PCA(2).fit_transform(codes))
    np.testing.assert_allclose(offsets(display.scatters_[1]), PCA(2).fit_transform(X), atol=1e-9)
    np.testing.assert_array_equal(display.codes["Autoencoder"], codes)
    assert display.ax_[0].get_xlabel() == "first principal axis of 3 components"
    assert display.ax_[0].get_ylabel() == "second principal axis of 3 components"


def test_codes_of_one_are_drawn_against_the_row():
    display = LatentSpaceDisplay.from_predictions([[0.5], [0.2], [0.9]], name="mine")
    np.testing.assert_array_equal(offsets(display.scatters_[0]), [[0, 0.5], [1, 0.2], [2, 0.9]])
    assert display.ax_.get_title() == "mine (n_components=1)"
    assert display.ax_.get_xlabel() == "row"
    assert display.ax_.get_ylabel() == "component 0"


def test_classes_have_a_legend():
    names = load_wine().target_names[GRAPE]
    display = LatentSpaceDisplay.from_predictions(WINE.iloc[:, :2], names)
    legend = display.ax_.get_legend()
    assert texts(legend.get_texts()) == ["class_0", "class_1", "class_2"]
    display.figure_.canvas.draw()
    shown = [to_rgba(handle.get_color()) for handle in legend.legend_handles]
    np.testing.assert_array_equal(display.scatters_[0].get_facecolors(), np.array(shown)[GRAPE])
    assert len(set(shown)) == 3


def test_many_classes_have_a_legend():
    names = [f"class {i:02}" for i in range(25)]
    display = LatentSpaceDisplay.from_predictions(WINE.iloc[:25, :2], names)
    assert texts(display.ax_.get_legend().get_texts()) == names


@pytest.mark.parametrize("y", [WINE["hue"], np.arange(len(WINE))], ids=["real", "whole"])
def test_numbers_have_a_colour_bar(wine, y):
    display = LatentSpaceDisplay.from_estimator(wine[0], WINE, y)
    assert display.ax_[1].get_legend() is None
    assert len(display.figure_.axes) == 3
    for scatter in display.scatters_:
        np.testing.assert_array_equal(scatter.get_array(), y)


def test_without_y_there_is_one_colour(wine):
    display = LatentSpaceDisplay.from_estimator(wine[0], WINE, with_pca=False)
    assert len(display.scatters_[0].get_facecolors()) == 1
    assert display.ax_.get_legend() is None
    assert len(display.figure_.axes) == 1


def test_codes_of_other_rows_than_y_are_refused(wine):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LatentSpaceDisplay.from_estimator(wine[0], WINE, GRAPE[:-1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LatentSpaceDisplay.from_predictions(np.zeros((3, 2)), pca_codes=np.zeros((4, 2)))


@pytest.mark.parametrize("over", [AutoencoderClassifier, AutoencoderRegressor])
def test_codes_of_an_estimator_over_an_autoencoder(over):
    model = over(small()).fit(WINE, GRAPE)
    for estimator in (model, FrozenEstimator(model)):
        display = LatentSpaceDisplay.from_estimator(estimator, WINE, GRAPE)
        np.testing.assert_array_equal(offsets(display.scatters_[0]), model.transform(WINE))


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_codes_may_come_as_frames(container):
    pipeline = make_pipeline(StandardScaler(), small()).set_output(transform=container).fit(WINE)
    display = LatentSpaceDisplay.from_estimator(pipeline, WINE, GRAPE)
    np.testing.assert_array_equal(offsets(display.scatters_[0]), pipeline.transform(WINE))
    rows = ReconstructionDisplay.from_estimator(pipeline, WINE, n_rows=2)
    assert texts(rows.ax_[1].get_xticklabels()) == list(WINE.columns)
    TraversalDisplay.from_estimator(pipeline, WINE)


def test_pipelines_of_one_step_are_taken():
    pipeline = make_pipeline(small()).fit(WINE)
    display = LatentSpaceDisplay.from_estimator(pipeline, WINE)
    np.testing.assert_array_equal(offsets(display.scatters_[0]), pipeline.transform(WINE))


# ---------------------------------------------------------------------------- reconstructions


def test_images_are_drawn_as_such(images, digits):
    X = digits[:300]
    display = ReconstructionDisplay.from_estimator(images, X, n_rows=4, with_pca=True)
    pca = PCA(6).fit(X)
    rows = [X[:4], images.reconstruct(X[:4]), pca.inverse_transform(pca.transform(X[:4]))]
    shown = np.array([[image.get_array() for image in line] for line in display.images_])
    np.testing.assert_allclose(shown, np.reshape(rows, (3, 4, 8, 8)), atol=1e-9)
    assert {image.get_clim() for image in display.images_.flat} == {(0, 16)}
    labels = [ax.get_ylabel() for ax in display.ax_[:, 0]]
    assert labels == ["original", "Autoencoder(6)", "PCA(6)"]
    assert [ax.get_title() for ax in display.ax_[0]] == ["row 0", "row 1", "row 2", "row 3"]
    assert not hasattr(display, "lines_")


def test_shape_of_images_may_be_given(digits):
    autoencoder = small().fit(digits[:100])
    shown = ReconstructionDisplay.from_estimator(autoencoder, digits[:3], feature_shape=(8, 8))
    assert shown.images_.shape == (2, 3)
    assert not hasattr(ReconstructionDisplay.from_estimator(autoencoder, digits[:3]), "images_")


def test_rows_may_come_as_images(images, digits):
    cubes = digits[:300].reshape(-1, 1, 8, 8)
    display = ReconstructionDisplay.from_estimator(images, cubes, n_rows=2, with_pca=True)
    np.testing.assert_array_equal(display.X, digits[:2])
    TraversalDisplay.from_estimator(images, cubes)


def test_colours_run_from_the_smallest_to_the_largest_value():
    X = np.linspace(-1, 3, 2 * 48).reshape(2, 48)
    display = ReconstructionDisplay.from_predictions(X, 2 * X, feature_shape=(3, 4, 4))
    expected = np.moveaxis(X.reshape(2, 3, 4, 4), 1, -1)
    np.testing.assert_allclose(display.images_[0, 1].get_array(), (expected[1] + 1) / 4)
    np.testing.assert_allclose(
        display.images_[1, 0].get_array(), np.clip((2 * expected[0] + 1) / 4, 0, 1)
    )


@pytest.mark.parametrize("shape", [None, (2, 1, 6), (1, 12), (12, 1), (2, 2, 3), (-1,)])
def test_rows_that_are_no_images_are_lines(shape):
    X = np.random.default_rng(0).normal(size=(3, 12))
    X[1, 7:] = np.nan
    restored = X + 1
    display = ReconstructionDisplay.from_predictions(X, restored, feature_shape=shape)
    np.testing.assert_array_equal(ydata(display.lines_[:, 0]), X)
    np.testing.assert_array_equal(ydata(display.lines_[:, 1]), restored)
    assert display.lines_[0, 0].get_linestyle() == "None"
    assert display.lines_[0, 0].get_marker() == "o"
    assert display.ax_[-1].get_xlabel() == "column"
    assert texts(display.ax_[0].get_legend().get_texts()) == ["original", "reconstruction"]


def test_rows_of_tables_are_drawn_as_the_autoencoder_sees_them(wine):
    pipeline, X = wine
    display = ReconstructionDisplay.from_estimator(pipeline, WINE, n_rows=3, with_pca=True)
    np.testing.assert_array_equal(ydata(display.lines_[:, 0]), X[:3])
    np.testing.assert_array_equal(ydata(display.lines_[:, 1]), pipeline[-1].reconstruct(X[:3]))
    pca = PCA(3).fit(X)
    expected = pca.inverse_transform(pca.transform(X[:3]))
    np.testing.assert_allclose(ydata(display.lines_[:, 2]), expected, atol=1e-9)
    assert texts(display.ax_[-1].get_xticklabels()) == list(WINE.columns)
    assert texts(display.ax_[0].get_xticklabels()) == [""] * 13
    assert [ax.get_title(loc="left") for ax in display.ax_] == ["row 0", "row 1", "row 2"]


def test_steps_that_cannot_name_columns_leave_them_without_names():
    pipeline = make_pipeline(FunctionTransformer(np.log), small()).fit(WINE.to_numpy())
    display = ReconstructionDisplay.from_estimator(pipeline, WINE.to_numpy(), n_rows=1)
    assert display.feature_names is None
    assert display.ax_.get_xlabel() == "column"


def test_many_columns_are_not_named():
    X, names = np.zeros((1, 31)), [f"c{j}" for j in range(31)]
    display = ReconstructionDisplay.from_predictions(X, X, feature_names=names)
    assert display.ax_.get_xlabel() == "column"
    display = ReconstructionDisplay.from_predictions(X[:, 1:], X[:, 1:], feature_names=names[1:])
    assert texts(display.ax_.get_xticklabels()) == names[1:]


def test_rows_of_an_estimator_over_an_autoencoder():
    model = AutoencoderClassifier(small()).fit(WINE, GRAPE)
    display = ReconstructionDisplay.from_estimator(model, WINE, n_rows=2)
    expected = model.autoencoder_.reconstruct(model.preprocess(WINE)[:2])
    np.testing.assert_array_equal(display.reconstructions["Autoencoder(2)"], expected)
    assert texts(display.ax_[-1].get_xticklabels()) == list(WINE.columns)


def test_sequences_of_several_lengths():
    X = np.sin(np.arange(12) + np.arange(30)[:, None]).repeat(2, axis=1)
    X[:10, 16:] = np.nan
    model = small(architecture="recurrent", feature_shape=(-1, 2), max_epochs=1).fit(X)
    display = ReconstructionDisplay.from_estimator(model, X, n_rows=2)
    np.testing.assert_array_equal(ydata(display.lines_[:, 0]), X[:2])
    TraversalDisplay.from_estimator(model, X, row=1)
    # PCA receives the means of missing steps.
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    display = LatentSpaceDisplay.from_estimator(model, X)
    np.testing.assert_allclose(display.codes["PCA"], PCA(2, random_state=0).fit_transform(filled))
    display = ReconstructionDisplay.from_estimator(model, X, with_pca=True)
    assert np.isfinite(display.reconstructions["PCA(2)"]).all()


@pytest.mark.filterwarnings("ignore:n_components=20 exceeds:UserWarning")
def test_pca_has_no_more_components_than_there_are():
    model = small(20).fit(WINE)
    display = ReconstructionDisplay.from_estimator(model, WINE, n_rows=1, with_pca=True)
    assert list(display.reconstructions) == ["Autoencoder(20)", "PCA(13)"]


def test_wrong_rows_are_refused(wine):
    X = np.zeros((2, 12))
    draw = ReconstructionDisplay.from_predictions
    with pytest.raises(ValueError, match=r"the shape of X, \(2, 12\), got \(1, 12\)"):
        draw(X, X[:1])
    for shape in ((5, 5), (-1, -1, 3), (5, -1)):
        with pytest.raises(ValueError, match="must fit rows with 12 columns, got"):
            draw(X, X, feature_shape=shape)
    with pytest.raises(
        ValueError, match="feature_names must have 12 names, one for each column, got 2"
    ):
        draw(X, X, feature_names=["a", "b"])
    with pytest.raises(ValueError, match="n_rows must be an integer of at least 1, got 0"):
        ReconstructionDisplay.from_estimator(wine[0], WINE, n_rows=0)
    with pytest.raises(ValueError, match=r"n_rows must be an integer of at least 1, got 2\.5"):
        ReconstructionDisplay.from_estimator(wine[0], WINE, n_rows=2.5)


# ---------------------------------------------------------------------------------- traversal


def test_traversal_of_images(images, digits):
    X = digits[:300]
    display = TraversalDisplay.from_estimator(images, X, row=7, components=[4, 1], n_values=3)
    codes = images.transform(X)
    values = np.linspace(*np.percentile(codes[:, [4, 1]], [5, 95], axis=0), 3, axis=1)
    np.testing.assert_allclose(display.values, values)
    expected = [images.traverse(X[7], j, at) for j, at in zip([4, 1], values, strict=True)]
    shown = np.array([[image.get_array() for image in line] for line in display.images_])
    np.testing.assert_allclose(shown, np.reshape(expected, (2, 3, 8, 8)), atol=1e-9)
    limits = {image.get_clim() for image in display.images_.flat}
    assert limits == {tuple(np.percentile(expected, [2, 98]))}
    assert [ax.get_ylabel() for ax in display.ax_[:, 0]] == ["component 4", "component 1"]
    assert display.ax_[1, 2].get_title() == f"{values[1, 2]:.2g}"


def test_components_of_largest_variance_come_first(images, digits):
    display = TraversalDisplay.from_estimator(images, digits[:300])
    variance = images.transform(digits[:300]).var(axis=0)
    assert display.images_.shape == (5, 7)
    np.testing.assert_array_equal(display.components, variance.argsort()[::-1][:5])


def test_traversal_of_tables(wine):
    pipeline, X = wine
    display = TraversalDisplay.from_estimator(pipeline, WINE, row=5, components=2)
    expected = pipeline[-1].traverse(X[5], 2, display.values[0])
    np.testing.assert_array_equal(ydata(display.lines_), expected)
    assert display.ax_.get_title(loc="left").startswith("component 2 from -")
    assert texts(display.ax_.get_xticklabels()) == list(WINE.columns)
    brightness = [sum(to_rgba(line.get_color())[:3]) for line in display.lines_[0]]
    assert brightness == sorted(brightness)


def test_traversal_of_one_row_is_centered_at_its_code(wine):
    pipeline, X = wine
    autoencoder = pipeline[-1]
    alone = TraversalDisplay.from_estimator(pipeline, WINE[5:6])
    code = pipeline.transform(WINE[5:6])[0, alone.components]
    np.testing.assert_allclose(alone.values[:, 3], code)
    np.testing.assert_allclose(alone.values.mean(axis=1), code)
    drawn = autoencoder.transform(autoencoder.sample(256, random_state=0))
    spread = drawn.std(axis=0)[alone.components]
    assert (np.diff(spread) <= 0).all()
    np.testing.assert_allclose(np.ptp(alone.values, axis=1), 2 * 1.645 * spread)
    assert (np.ptp(ydata(alone.lines_).reshape(3, 7, 13), axis=1).max(axis=1) > 0.1).all()
    # The codes of training rows have about the same range.
    among = TraversalDisplay.from_estimator(pipeline, WINE, row=5, components=alone.components)
    ratio = np.ptp(alone.values, axis=1) / np.ptp(among.values, axis=1)
    assert ((ratio > 0.5) & (ratio < 2)).all()
    np.testing.assert_allclose(ydata(alone.lines_[:, 3]), [autoencoder.reconstruct(X[5:6])[0]] * 3)


def test_components_whose_codes_coincide_are_changed_around_the_row(wine):
    class HalfConstant(Autoencoder):
        """Component 1 of the code is the first column, and component 0 is the second one."""

        def transform(self, X):
            return np.asarray(X)[:, 1::-1].astype(float)

    X = WINE.to_numpy()
    model = HalfConstant(2, **QUICK).fit(X)
    X = X.copy()
    X[:, 0] = 13
    display = TraversalDisplay.from_estimator(model, X, row=4, n_values=5)
    np.testing.assert_array_equal(display.components, [0, 1])
    np.testing.assert_allclose(display.values[0, [0, -1]], np.percentile(X[:, 1], [5, 95]))
    spread = 1.645 * model.sample(256, random_state=0)[:, 0].std()
    np.testing.assert_allclose(display.values[1], np.linspace(13 - spread, 13 + spread, 5))


@pytest.mark.parametrize("columns", [["hue", "malic_acid"], ["hue", "malic_acid", "grape"]])
def test_traversal_of_one_row_of_a_data_frame(columns):
    X = WINE.assign(grape=np.array(["a", "b", "c"])[GRAPE])[columns]
    model = skae.ConditionalVariationalAutoencoder(2, condition=columns[2:] or None, **QUICK)
    display = TraversalDisplay.from_estimator(model.fit(X), X[:1])
    assert display.rows.shape == (2, 7, 2)
    assert (np.ptp(display.values, axis=1) > 0).all()


def test_traversal_of_an_estimator_over_an_autoencoder():
    X, y = load_diabetes(return_X_y=True)
    model = AutoencoderRegressor(small()).fit(X, y)
    display = TraversalDisplay.from_estimator(model, X)
    assert display.lines_.shape == (2, 7)


def test_given_traversals_count_their_components():
    rows, values = np.zeros((2, 3, 4)), np.arange(6.0).reshape(2, 3)
    display = TraversalDisplay.from_predictions(rows, values, feature_names=list("abcd"))
    assert display.ax_[1].get_title(loc="left") == "component 1 from 3 (dark) to 5 (light)"
    assert texts(display.ax_[1].get_xticklabels()) == list("abcd")
    named = TraversalDisplay.from_predictions(rows, values, components=[7, 9], feature_shape=(2, 2))
    assert [ax.get_ylabel() for ax in named.ax_[:, 0]] == ["component 7", "component 9"]


@pytest.mark.parametrize("components", [3, [-1], [], [0.0], ["a"], [True]])
def test_wrong_components_are_refused(wine, components):
    with pytest.raises(ValueError, match=r"components must be integers in \[0, 2\], got"):
        TraversalDisplay.from_estimator(wine[0], WINE, components=components)


def test_wrong_traversals_are_refused(wine):
    with pytest.raises(ValueError, match=r"row must be an integer in \[0, 177\], got 178"):
        TraversalDisplay.from_estimator(wine[0], WINE, row=178)
    with pytest.raises(ValueError, match="n_values must be an integer of at least 2, got 1"):
        TraversalDisplay.from_estimator(wine[0], WINE, n_values=1)
    for rows in (np.zeros((2, 4)), np.zeros((2, 4, 5))):
        with pytest.raises(ValueError, match=r"\(n_components, n_values\), got"):
            TraversalDisplay.from_predictions(rows, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        TraversalDisplay.from_predictions(np.zeros((2, 3, 4)), np.zeros((2, 3)), components=[1])


# -------------------------------------------------------------------------------------- paths


def test_path_is_drawn_beside_pca():
    given = path(**PCA_COLUMNS)
    display = ComponentsPathDisplay.from_predictions(given)
    assert set(display.lines_) == set(given.results.columns) - {"test_nats_se"}
    for column, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), given.results[column])
        assert line.axes is display.ax_[int(column.endswith("nats"))]
    bars = display.errorbar_.lines[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(bar[:, 1]) / 2 for bar in bars], [0.5, 0.4, 0.3])
    for ax, line in zip(display.ax_, display.suggested_lines_, strict=True):
        assert texts(ax.get_xticklabels()) == ["2", "4", "8"]
        assert set(line.get_xdata()) == {ax.get_xticks()[1]}
        assert line.get_label() == "suggested: 4"
        assert ax.get_xlabel() == "n_components"


@pytest.mark.parametrize("columns", [{}, dict.fromkeys(PCA_COLUMNS, np.nan)], ids=["none", "nan"])
def test_path_without_pca(columns):
    display = ComponentsPathDisplay.from_predictions(path(**columns))
    assert set(display.lines_) == {"train_error", "test_error", "test_nats"}


def test_other_things_are_no_paths():
    with pytest.raises(TypeError, match=r"a result of skae\.components_path, got list"):
        ComponentsPathDisplay.from_predictions([1, 2])


# ----------------------------------------------------------------------------------- outliers


def test_explanations_of_the_strangest_rows(detector):
    X = WINE.set_axis([f"bottle {i}" for i in range(len(WINE))])
    display = OutlierExplanationDisplay.from_estimator(detector, X, n_rows=2, n_features=4)
    strangest = detector.score_samples(X).argsort()[:2]
    titles = [ax.get_title(loc="left") for ax in display.ax_]
    assert titles == [f"row bottle {i}" for i in strangest]
    for place, (ax, bars) in enumerate(zip(display.ax_, display.bars_, strict=True)):
        why = detector.explain(X.iloc[strangest]).iloc[place]
        largest = why["share"].sort_values(ascending=False)[:4]
        np.testing.assert_allclose([bar.get_width() for bar in bars], largest)
        assert texts(ax.get_yticklabels()) == list(largest.index)
        name = largest.index[0]
        said = f"{why['deviation'][name]:+.1f} sd, expected {why['expected'][name]:.4g}"
        assert ax.texts[0].get_text() == said
        assert ax.yaxis_inverted()


def test_rows_of_arrays_are_numbered(detector):
    X = WINE.to_numpy()
    model = AutoencoderOutlierDetector(small(2), random_state=0).fit(X)
    display = OutlierExplanationDisplay.from_estimator(model, X, n_rows=1, n_features=99)
    assert display.ax_.get_title(loc="left") == f"row {model.score_samples(X).argmin()}"
    assert len(display.bars_[0]) == 13
    assert set(texts(display.ax_.get_yticklabels())) == {f"x{j}" for j in range(13)}


def test_detectors_in_pipelines_name_columns():
    pipeline = make_pipeline(StandardScaler(), AutoencoderOutlierDetector(small(), random_state=0))
    display = OutlierExplanationDisplay.from_estimator(pipeline.fit(WINE), WINE, n_features=13)
    assert set(texts(display.ax_[0].get_yticklabels())) == set(WINE.columns)


def test_given_explanations_are_taken_from_the_first(detector):
    why = detector.explain(WINE.iloc[3:9])
    display = OutlierExplanationDisplay.from_predictions(why, n_rows=2)
    assert [ax.get_title(loc="left") for ax in display.ax_] == ["row 3", "row 4"]


def test_wrong_explanations_are_refused(detector, wine):
    with pytest.raises(TypeError, match="must be an AutoencoderOutlierDetector, got Autoencoder"):
        OutlierExplanationDisplay.from_estimator(wine[0], WINE)
    for wrong in (WINE, WINE.to_numpy()):
        with pytest.raises(ValueError, match="explanation must be a result of"):
            OutlierExplanationDisplay.from_predictions(wrong)
    for name in ("n_rows", "n_features"):
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got 0"):
            OutlierExplanationDisplay.from_estimator(detector, WINE, **{name: 0})
    with pytest.raises(ValueError, match="n_rows must be an integer of at least 1, got 0"):
        OutlierExplanationDisplay.from_predictions(detector.explain(WINE), n_rows=0)
