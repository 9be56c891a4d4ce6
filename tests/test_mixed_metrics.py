"""Metrics and displays on tables as they are."""

import inspect
import numbers
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib import pyplot as plt
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.manifold import trustworthiness as trustworthiness_of_codes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from test_mixed import COMPLETE, HIDDEN, LINEAR, PANDAS, POLARS, QUICK, N, trained

import skae
from skae import (
    AttributionDisplay,
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderImputer,
    AutoencoderOutlierDetector,
    BiplotDisplay,
    ConditionalVariationalAutoencoder,
    FairAutoencoder,
    LatentSpaceDisplay,
    ReconstructionDisplay,
    TraversalDisplay,
    VariationalAutoencoder,
    metrics,
)
from skae.inspection.cells import comparable_cells

K = 3
N_CELLS = {"pandas": 15, "polars": 13}
"""Number of cells of the tables, in which each level of a category has a cell."""

METRICS = {name: getattr(metrics, name) for name in metrics.__all__}
SHAPES = dict.fromkeys(METRICS, lambda d, n_cells: ()) | {
    "feature_attribution": lambda d, n_cells: (K, d),
    "loadings": lambda d, n_cells: (n_cells, K),
    "component_importance": lambda d, n_cells: (K,),
}
"""Documented shapes for d columns that have `n_cells` cells."""

DISPLAYS = {name: getattr(skae, name) for name in skae.__all__ if name.endswith("Display")}
TABLES = {"pandas": PANDAS, "polars": POLARS}
SKILL = np.where(HIDDEN[:, 0] > 0, "high", "low")


@pytest.fixture(scope="module")
def models():
    make = partial(VariationalAutoencoder, K, **QUICK)
    return {name: make().fit(table) for name, table in TABLES.items()}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def numbers_in(result):
    """The numbers that a metric or a display returns, without names of rows."""
    if isinstance(result, pl.DataFrame):
        result = result.select(pl.selectors.numeric())
    return np.asarray(result, dtype=np.float64)


def shown_numbers(display):
    """All arrays of numbers that a display holds, by name."""
    found = vars(display)
    found = found | found.get("reconstructions", {}) | (codes_of(found))
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    }


def codes_of(found):
    return found["codes"] if isinstance(found.get("codes"), dict) else {}


# -------------------------------------------------------------------------------- every function


@pytest.mark.every_case
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_reads_tables_as_they_are(name, table, models):
    X, model, metric = TABLES[table], models[table], METRICS[name]
    parameters = inspect.signature(metric).parameters
    arguments = {
        "estimator": model,
        "X": X,
        "y": SKILL,
        "samples": model.sample(N, random_state=0),
    }
    required = {key: value for key, value in arguments.items() if key in parameters}
    result = metric(**required)
    found = numbers_in(result)
    expected = SHAPES[name](X.shape[1], N_CELLS[table])
    if table == "polars" and name == "component_importance":
        expected = (*expected, 1)
    assert found.shape == expected
    assert np.isfinite(found).all()
    assert isinstance(result, numbers.Real | pd.Series | type(X))


@pytest.mark.every_case
@pytest.mark.filterwarnings("ignore:The suggested n_components=2:UserWarning")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", DISPLAYS)
def test_every_display_reads_tables_as_they_are(name, table, models):
    X, model, options = TABLES[table], models[table], {}
    if name == "OutlierExplanationDisplay":
        model = AutoencoderOutlierDetector(Autoencoder(2, **QUICK)).fit(X)
    if name == "ComponentsPathDisplay":
        model, options = Autoencoder(**QUICK), {"param_range": [1, 2], "cv": 2}
    make = DISPLAYS[name].from_estimator
    parameters = inspect.signature(make).parameters
    if "with_pca" in parameters:
        options["with_pca"] = True
    display = make(model, **({"X": X} if "X" in parameters else {}), **options)
    display.figure_.canvas.draw()
    for key, values in shown_numbers(display).items():
        # Missing cells are gaps between the original cells.
        assert key == "X" or np.isfinite(values).all(), key


@pytest.mark.parametrize("autoencoder_class", [ConditionalVariationalAutoencoder, FairAutoencoder])
def test_columns_of_conditions_have_no_cells(autoencoder_class):
    model = trained(autoencoder_class, PANDAS)
    shares = metrics.feature_attribution(model, PANDAS)
    assert (shares["group"] == 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    names = metrics.loadings(model, PANDAS).index
    assert not any(name.startswith("group") for name in names)
    assert np.isfinite(metrics.explained_variance_ratio(model, PANDAS))
    assert np.isfinite(metrics.component_importance(model, PANDAS)).all()
    assert 0 <= metrics.trustworthiness(model, PANDAS) <= 1


def test_estimators_that_contain_an_autoencoder():
    classifier = AutoencoderClassifier(Autoencoder(K, **QUICK)).fit(PANDAS, SKILL)
    inner, rows = classifier.autoencoder_, classifier.preprocess(PANDAS)
    piped = make_pipeline(FunctionTransformer(), Autoencoder(K, **QUICK)).fit(PANDAS)
    for whole, part, X in ((classifier, inner, rows), (piped, piped[-1], PANDAS)):
        for name in ("trustworthiness", "loadings", "component_importance", "feature_attribution"):
            np.testing.assert_array_equal(METRICS[name](whole, PANDAS), METRICS[name](part, X))
    expected = metrics.explained_variance_ratio(piped[-1], PANDAS)
    assert metrics.explained_variance_ratio(piped, PANDAS) == expected


def test_arrays_of_objects():
    X = PANDAS[["age", "job", "children"]].to_numpy(dtype=object)
    model = Autoencoder(2, **QUICK).fit(X)
    found = metrics.loadings(model, X)
    assert found.shape == (5, 2)
    assert isinstance(found, np.ndarray)
    assert metrics.feature_attribution(model, X).shape == (2, 3)
    display = BiplotDisplay.from_estimator(model, X)
    names = {text.get_text() for text in display.texts_}
    assert names == {"x0", "x1_clerk", "x1_cook", "x1_nurse", "x2"}


def test_derivatives_by_categories_are_refused(models):
    model = models["pandas"]
    for refused in (
        partial(metrics.feature_attribution, model, PANDAS, per_row=True),
        partial(AttributionDisplay.from_estimator, model, PANDAS, row=0),
        partial(model.encoder_jacobian, PANDAS),
        partial(model.decoder_jacobian, PANDAS),
    ):
        with pytest.raises(ValueError, match="columns of X hold categories"):
            refused()


def test_other_estimators_need_numbers():
    encoder = make_column_transformer((OneHotEncoder(), ["job"]), sparse_threshold=0)
    model = make_pipeline(encoder, PCA(1)).fit(COMPLETE)
    with pytest.raises(ValueError, match=r"X must contain numbers, unless .* Encode"):
        metrics.trustworthiness(model, COMPLETE)
    model = make_pipeline(OneHotEncoder(sparse_output=False), PCA(1)).fit(COMPLETE[["job"]])
    with pytest.raises(ValueError, match="reconstructions must contain numbers, unless"):
        metrics.explained_variance_ratio(model, COMPLETE[["job"]])
    assert metrics.active_units(model, COMPLETE[["job"]]) == 1


# ---------------------------------------------------------------- numbers with their own scales

SCALES = np.array([1, 1e3, 60, 1e-2])
NUMBERS = HIDDEN @ np.random.default_rng(4).normal(size=(2, 4))
NUMBERS = NUMBERS + np.random.default_rng(5).normal(scale=0.4, size=NUMBERS.shape)
STANDARD = StandardScaler().fit_transform(NUMBERS)


@pytest.fixture(scope="module")
def numbers_and_durations():
    """A table of complete numbers that has two kinds of columns, and a linear model of it."""
    X = pd.DataFrame(NUMBERS * SCALES, columns=["a", "b", "c", "d"])
    X["c"] = pd.to_timedelta(X["c"], "s")
    return X, Autoencoder(2, **LINEAR).fit(X)


def test_numbers_of_several_kinds_are_standardized(numbers_and_durations):
    X, model = numbers_and_durations
    pca = PCA(2).fit(STANDARD)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    explained = metrics.explained_variance_ratio(model, X)
    close(explained, pca.explained_variance_ratio_.sum())
    close(metrics.component_importance(model, X), pca.explained_variance_ratio_)
    close(metrics.feature_attribution(model, X), pca.components_**2)
    own = pca.components_.T * np.sqrt(pca.explained_variance_)
    found = metrics.loadings(model, X)
    assert list(found.index) == list("abcd")
    close(found.abs(), abs(own))
    expected = trustworthiness_of_codes(STANDARD, pca.transform(STANDARD))
    close(metrics.trustworthiness(model, X), expected)


def test_displays_show_standardized_numbers(numbers_and_durations):
    X, model = numbers_and_durations
    pca = PCA(2).fit(STANDARD)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    display = LatentSpaceDisplay.from_estimator(model, X)
    close(abs(display.codes["PCA"]), abs(pca.transform(STANDARD)))
    display = ReconstructionDisplay.from_estimator(model, X, n_rows=4, with_pca=True)
    close(display.X, STANDARD[:4])
    expected = pca.inverse_transform(pca.transform(STANDARD[:4]))
    for shown in display.reconstructions.values():
        close(shown, expected)
    display = TraversalDisplay.from_estimator(model, X, row=3, components=0)
    code = pca.transform(STANDARD[[3]])
    # The lines are parallel to the first principal axis, and pass through that of the row.
    change = np.diff(display.rows[0], axis=0)
    close(change @ pca.components_[1], np.zeros(len(change)))
    close(display.rows[0] @ pca.components_[1], np.full(7, code[0, 1]))


def test_dates_alone_are_compared():
    days = pd.to_timedelta(NUMBERS.ravel(), "D").to_numpy().reshape(NUMBERS.shape)
    X = pd.DataFrame(np.datetime64("2020-01-01") + days)
    model, pca = Autoencoder(2, **LINEAR).fit(X), PCA(2).fit(NUMBERS)
    np.testing.assert_allclose(
        metrics.component_importance(model, X), pca.explained_variance_ratio_, rtol=1e-5
    )
    expected = trustworthiness_of_codes(NUMBERS, pca.transform(NUMBERS))
    assert metrics.trustworthiness(model, X) == pytest.approx(expected)


# ------------------------------------------------------------------------------------ categories


def test_pca_of_categories_is_correspondence_analysis():
    X = COMPLETE[["job", "size", "smoker"]].astype({"smoker": str}).reset_index(drop=True)
    model = Autoencoder(2, **LINEAR).fit(X)
    indicators = pd.get_dummies(X, dtype=float)
    share = indicators.mean()
    standard = ((indicators - share) / np.sqrt(share)).to_numpy()
    expected = PCA(2, random_state=0).fit_transform(standard)
    display = LatentSpaceDisplay.from_estimator(model, X)
    distances = [
        np.linalg.norm(codes[:, None] - codes, axis=2) for codes in (display.codes["PCA"], expected)
    ]
    np.testing.assert_allclose(*distances, atol=1e-6)
    # The model starts there.
    expected = trustworthiness_of_codes(standard, model.transform(X))
    assert metrics.trustworthiness(model, X) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("decoded", [False, True])
def test_levels_are_probabilities(decoded):
    model = Autoencoder(2, **QUICK | {"early_stopping": False}).fit(PANDAS)
    table = comparable_cells(model, COMPLETE)
    cells = table.decode(model.transform(COMPLETE)) if decoded else table.rows
    for name in ("job", "size", "smoker"):
        own = [label.startswith(name) for label in table.names]
        column = PANDAS[name].dropna().astype(str)
        values = [label.removeprefix(f"{name}_") for label in np.array(table.names)[own]]
        share = np.array([(column == value).mean() for value in values])
        probabilities = cells[:, own] * np.sqrt(share) + share
        assert probabilities.min() > -1e-6
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        observed = probabilities.argmax(axis=1) == [values.index(str(x)) for x in COMPLETE[name]]
        assert decoded or observed.all()


def test_more_probable_observed_levels_explain_more():
    X = COMPLETE[["job", "size", "smoker"]]
    scores = [
        metrics.explained_variance_ratio(Autoencoder(k, **LINEAR).fit(X), X) for k in (1, 2, 4)
    ]
    assert (np.diff(scores) > 0).all()
    assert scores[0] > 0
    assert scores[-1] < 1


@pytest.fixture(scope="module")
def smooth():
    options = QUICK | {"precision": "float64", "activation": "tanh"}
    return Autoencoder(2, **options).fit(PANDAS)


def test_derivatives_of_standardized_cells_by_codes(smooth):
    rows, step = PANDAS.iloc[:40], 1e-5
    table, codes = comparable_cells(smooth, rows), smooth.transform(rows)
    jacobian = table.decoder_jacobian(rows)
    for j, change in enumerate(np.eye(2) * step):
        slope = (table.decode(codes + change) - table.decode(codes - change)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, j], slope, rtol=1e-4, atol=1e-7)


def test_derivatives_of_codes_by_standardized_cells(smooth):
    rows, step = PANDAS.iloc[:40], 1e-3
    tables = [rows.assign(age=rows["age"] + sign * step) for sign in (1, -1)]
    change = np.subtract(*map(smooth.transform, tables))
    width = np.subtract(*(comparable_cells(smooth, table).rows[:, 0] for table in tables))
    jacobian = comparable_cells(smooth, rows).encoder_jacobian(rows)[:, :, 0]
    known = rows["age"].notna().to_numpy()
    expected = change[known] / width[known, None]
    np.testing.assert_allclose(jacobian[known], expected, rtol=1e-3, atol=1e-6)
    assert not jacobian[~known].any()


def test_codes_of_a_linear_encoder_change_with_levels():
    X = COMPLETE
    model = Autoencoder(2, **LINEAR).fit(X)
    table = comparable_cells(model, X)
    jacobian = table.encoder_jacobian(X)
    expected = np.einsum("nkc,nc->nk", jacobian, table.rows - table.rows[:1])
    codes = model.transform(X)
    np.testing.assert_allclose(codes - codes[:1], expected, atol=1e-6)


# ---------------------------------------------------------------------- missing cells and texts


def test_pca_gets_the_means_of_missing_numbers():
    X = NUMBERS.copy()
    X[::5, 1] = np.nan
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    model = Autoencoder(2, **QUICK).fit(X)
    display = LatentSpaceDisplay.from_estimator(model, X)
    np.testing.assert_allclose(
        display.codes["PCA"], PCA(2, random_state=0).fit_transform(filled), atol=1e-9
    )
    display = ReconstructionDisplay.from_estimator(model, X, n_rows=3, with_pca=True)
    np.testing.assert_array_equal(display.X, X[:3])
    assert np.isfinite(display.reconstructions["PCA(2)"]).all()


def test_conditions_that_are_texts_are_left_out():
    texts = pd.DataFrame(NUMBERS, columns=list("abcd")).assign(skill=SKILL)
    model = ConditionalVariationalAutoencoder(2, condition=["skill"], **QUICK).fit(texts)
    own = list("abcd")
    errors = (texts[own] - model.reconstruct(texts)[own]) ** 2
    expected = 1 - errors.to_numpy().sum() / ((NUMBERS - NUMBERS.mean(axis=0)) ** 2).sum()
    found = metrics.explained_variance_ratio(model, texts)
    assert found == pytest.approx(expected, abs=1e-6)
    expected = trustworthiness_of_codes(NUMBERS, model.transform(texts))
    assert metrics.trustworthiness(model, texts) == pytest.approx(expected, abs=1e-6)
    display = LatentSpaceDisplay.from_estimator(model, texts)
    assert display.codes["PCA"].shape == (N, 2)


# ----------------------------------------------------------------------------------- two samples


@pytest.mark.parametrize("table", TABLES)
def test_boosted_trees_tell_apart_what_differs(table):
    X = TABLES[table]
    take = X.iloc.__getitem__ if table == "pandas" else X.__getitem__
    order = np.random.default_rng(0).permutation(N)
    first, second = take(order[: N // 2].tolist()), take(order[N // 2 :].tolist())
    assert 0.3 < metrics.two_sample_auc(first, second) < 0.7
    assert metrics.two_sample_auc(X, X) < 0.4


def test_differences_of_each_kind_are_found():
    X = PANDAS
    other = {
        "age": X["age"] + 100,
        "job": X["job"].where(X["job"].isna(), "nurse"),
        "smoker": ~X["smoker"] & ~X["group"],
        "since": X["since"] + pd.Timedelta(1000, "D"),
        "lasts": X["lasts"] * 0,
        "children": X["children"].astype(float).where(np.arange(N) % 2 == 0),
    }
    for name, values in other.items():
        assert metrics.two_sample_auc(X, X.assign(**{name: values})) > 0.6, name
    unseen = X.assign(smoker=X["smoker"].astype(str), job="astronaut")
    assert metrics.two_sample_auc(X.assign(smoker=X["smoker"].astype(str)), unseen) > 0.99


def test_another_classifier_gets_categories():
    seen = []

    class Watched(HistGradientBoostingClassifier):
        def fit(self, X, y):
            seen.append(X)
            return super().fit(X, y)

    result = metrics.two_sample_auc(PANDAS, PANDAS[::-1], classifier=Watched(random_state=0))
    assert result == metrics.two_sample_auc(PANDAS, PANDAS[::-1], random_state=0)
    kinds = [isinstance(dtype, pd.CategoricalDtype) for dtype in seen[0].dtypes]
    assert kinds == [name in ("job", "smoker", "size", "group") for name in PANDAS.columns]
    assert [*seen[0].columns] == [*PANDAS.columns]


def test_many_categories_and_few_cells():
    rows = np.arange(600)
    X = pd.DataFrame({"id": rows.astype(str), "x": np.nan, "y": np.where(rows < 2, 1.0, np.nan)})
    assert 0 <= metrics.two_sample_auc(X, X[::-1]) <= 1
    assert metrics.two_sample_auc(X, X.assign(x=1.0)) > 0.99


def test_two_tables_must_have_the_same_columns(models):
    with pytest.raises(ValueError, match="columns of X: samples has 8 columns, but X has 9"):
        metrics.two_sample_auc(PANDAS, PANDAS.drop(columns="job"))
    with pytest.raises(ValueError, match="in the same order"):
        metrics.two_sample_auc(PANDAS, PANDAS[PANDAS.columns[::-1]])
    with pytest.raises(ValueError, match="at least 5 rows each"):
        metrics.neg_two_sample_auc(models["pandas"], PANDAS[:4])
    with pytest.raises(ValueError, match=r"samples must have the kinds .* which column 'job' has"):
        metrics.two_sample_auc(PANDAS, PANDAS.assign(job=1))
    with pytest.raises(ValueError, match=r"samples must have the kinds .* which column 'age' has"):
        metrics.two_sample_auc(PANDAS, PANDAS.assign(age="x"))


@pytest.mark.parametrize("name", ["active_units", "trustworthiness"])
def test_an_imputer_has_no_codes(name):
    imputer = AutoencoderImputer(Autoencoder(K, **QUICK)).fit(PANDAS)
    with pytest.raises(ValueError, match="must return codes"):
        METRICS[name](imputer, PANDAS)
