"""Attributions, loadings and importance: identities with PCA and with differences of codes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_models import ESTIMATORS, META_ESTIMATORS, X, fitted, fitted_once, for_each
from test_common import core

import skae
from skae import Autoencoder, AutoencoderOutlierDetector, ConditionalVariationalAutoencoder
from skae.inspection import attribution
from skae.metrics import (
    component_importance,
    explained_variance_ratio,
    feature_attribution,
    loadings,
)

TABLES = {
    "iris": load_iris().data,
    "wine": load_wine().data,
    "cancer": StandardScaler().fit_transform(load_breast_cancer().data)[:250],
}
NAMES = ["a", "b", "c"]
METRICS = [feature_attribution, loadings, component_importance]


def start(k, rows):
    """A linear autoencoder that is PCA."""
    return Autoencoder(k, hidden_layer_sizes=(), max_epochs=0, early_stopping=False).fit(rows)


def inputs(estimator, rows):
    """The autoencoder in an estimator, and the rows that it receives."""
    return core(estimator), estimator.preprocess(rows) if estimator is not core(estimator) else rows


def derivative(function, Z, width=1e-4):
    """Central differences of a function of rows, with the derivatives as the last axis."""
    steps = width * np.eye(Z.shape[1])
    return np.stack([(function(Z + h) - function(Z - h)) / (2 * width) for h in steps], axis=-1)


# ------------------------------------------------------------------------------------- PCA


@pytest.mark.every_case
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("k", [1, 3])
def test_those_of_the_start_are_pcas(table, k):
    rows = TABLES[table]
    model, pca = start(k, rows), PCA(k).fit(rows)
    np.testing.assert_allclose(feature_attribution(model, rows), pca.components_**2, atol=1e-9)
    expected = pca.components_.T * np.sqrt(pca.explained_variance_)
    atol = 1e-9 * abs(expected).max()
    np.testing.assert_allclose(loadings(model, rows), expected, atol=atol)
    for estimator in (model, pca):
        shares = component_importance(estimator, rows)
        np.testing.assert_allclose(shares, pca.explained_variance_ratio_, rtol=1e-9)
    of_rows = (rows - pca.mean_)[:, None] * pca.components_
    got = feature_attribution(model, rows, per_row=True)
    np.testing.assert_allclose(got, of_rows, atol=1e-9 * abs(of_rows).max())


def test_loadings_of_standardized_columns_are_correlations():
    rows = TABLES["cancer"]
    model = start(2, (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1))
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    both = np.corrcoef(rows.T, model.transform(rows).T)
    np.testing.assert_allclose(loadings(model, rows), both[:30, 30:], atol=1e-9)


def test_fewer_rows_than_columns_have_the_same_shares():
    """The square root of the covariance comes from the rows, not from the columns."""
    rows = np.random.default_rng(0).normal(size=(12, 20))
    model = start(3, rows)
    np.testing.assert_allclose(
        feature_attribution(model, rows), PCA(3).fit(rows).components_ ** 2, atol=1e-9
    )


def test_chunks_change_nothing(monkeypatch):
    model, rows = start(3, TABLES["wine"]), TABLES["wine"]
    expected = feature_attribution(model, rows), loadings(model, rows)
    monkeypatch.setattr(attribution, "CHUNK_CELLS", 13 * 3 * 50)
    np.testing.assert_allclose(feature_attribution(model, rows), expected[0], rtol=1e-12)
    np.testing.assert_allclose(loadings(model, rows), expected[1], rtol=1e-12)


def test_a_constant_column_has_no_share(curved):
    rows = np.insert(curved, 2, 7.0, axis=1)
    model = Autoencoder(2, max_epochs=5, random_state=0).fit(rows)
    assert (model.encoder_jacobian(rows)[..., 2] != 0).any()
    shares = feature_attribution(model, rows)
    assert (shares[:, 2] == 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)


# ---------------------------------------------------------------------------- derivatives


KINDS = {
    "mlp": (Autoencoder, {"hidden_layer_sizes": (9,)}),
    "conv": (Autoencoder, {"architecture": "conv", "feature_shape": (1, 2, 3)}),
    "recurrent": (Autoencoder, {"architecture": "recurrent", "feature_shape": (3, 2)}),
    "bernoulli": (skae.VariationalAutoencoder, {"likelihood": "bernoulli"}),
    "sparse": (skae.SparseAutoencoder, {"sparsity": "kl"}),
    "whitened": (Autoencoder, {"whiten": True, "hidden_layer_sizes": (9,)}),
}


@pytest.fixture
def unit(curved):
    """The rows of `curved`, rescaled to [.1, .9]."""
    return 0.1 + 0.8 * (curved - curved.min(axis=0)) / np.ptp(curved, axis=0)


@pytest.mark.every_case
@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_are_derivatives(unit, kind):
    estimator_class, parameters = KINDS[kind]
    options = {"n_components": 3, "max_epochs": 5, "precision": "float64", "random_state": 0}
    model = estimator_class(**options, **parameters).fit(unit)
    rows = unit[:7]
    expected = derivative(model.transform, rows)
    np.testing.assert_allclose(model.encoder_jacobian(rows), expected, atol=1e-5)
    expected = derivative(model.inverse_transform, model.transform(rows))
    np.testing.assert_allclose(model.decoder_jacobian(rows), expected, atol=1e-5)


@for_each([c for c in ESTIMATORS if c is not skae.VectorQuantizedAutoencoder])
def test_the_rest_of_the_integral_is_small_for_continuous_codes(estimator_class, monkeypatch):
    """Before it is distributed. The codes of sparse autoencoders have kinks."""
    model = fitted_once(estimator_class)
    autoencoder, rows = inputs(model, X)
    expected = autoencoder.integrated_gradients(rows).sum(axis=2)
    monkeypatch.setattr("skae.derivatives._completed", lambda parts, total, observed: parts)
    added = autoencoder.integrated_gradients(rows).sum(axis=2)
    tolerance = 0.05 if estimator_class is skae.SparseAutoencoder else 1e-4
    np.testing.assert_allclose(added, expected, atol=tolerance * abs(expected).max())


def test_fair_codes_have_the_noise_of_the_row(curved, monkeypatch):
    """The noise of the code of the mean row would be a part of its attributions otherwise."""
    rows = np.column_stack([curved, curved[:, 0] > 0])
    fair = skae.FairAutoencoder(2, sensitive=-1, max_epochs=3, random_state=0).fit(rows)
    expected = fair.integrated_gradients(rows).sum(axis=2)
    monkeypatch.setattr("skae.derivatives._completed", lambda parts, total, observed: parts)
    added = fair.integrated_gradients(rows).sum(axis=2)
    np.testing.assert_allclose(added, expected, atol=1e-3 * abs(expected).max())


def test_the_importance_under_a_numeric_condition_is_that_of_the_modelled_columns(curved):
    condition = 50 * np.random.default_rng(0).normal(size=len(curved))
    rows = np.column_stack([curved, condition])
    model = ConditionalVariationalAutoencoder(2, condition=[6], max_epochs=5, random_state=0)
    shares = component_importance(model.fit(rows), rows)
    np.testing.assert_allclose(shares, model.explained_variance_ratio_, rtol=1e-4)
    assert (feature_attribution(model, rows)[:, 6] == 0).all()


def test_columns_may_have_the_title_of_the_components():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(dict(zip(["component", "feature", "x"], X.T, strict=True)))
    model = fitted(Autoencoder, frame)
    shares = feature_attribution(model, frame)
    assert shares.columns == ["component_", "component", "feature", "x"]
    np.testing.assert_allclose(shares.to_numpy()[:, 1:].astype(float).sum(axis=1), 1)


def test_names_of_columns_that_are_numbers_are_kept():
    frame = pd.DataFrame(X, columns=[10, 20, 30])
    model = Autoencoder(2, max_epochs=1, random_state=0).fit(frame)
    assert list(feature_attribution(model, frame).columns) == [10, 20, 30]


def test_the_rest_of_the_integral_is_tiny_for_smooth_activations(unit, monkeypatch):
    """Before it is distributed, for a smooth activation."""
    model = Autoencoder(3, max_epochs=20, precision="float64", random_state=0).fit(unit)
    monkeypatch.setattr("skae.derivatives._completed", lambda parts, total, observed: parts)
    change = model.transform(unit) - model.transform(unit.mean(axis=0)[None])
    added = model.integrated_gradients(unit).sum(axis=2)
    np.testing.assert_allclose(added, change, atol=1e-6 * abs(change).max())


@pytest.fixture
def conditional(curved):
    """A fitted model of six columns under a condition of strings, and its table."""
    table = pd.DataFrame(curved, columns=list("abcdef"))
    table.insert(2, "kind", np.where(curved[:, 0] > 0, "high", "low"))
    model = ConditionalVariationalAutoencoder(
        2, condition="kind", hidden_layer_sizes=(8,), max_epochs=5, random_state=0
    )
    return model.fit(table), table


def test_conditions_have_no_attributions(conditional):
    model, table = conditional
    assert (model.encoder_jacobian(table)[..., 2] == 0).all()
    assert (model.decoder_jacobian(table)[:, 2] == 0).all()
    shares = feature_attribution(model, table)
    assert list(shares.columns) == list(table.columns)
    assert (shares["kind"] == 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # The baseline of a row has the condition of the row.
    mean = table.assign(**table.drop(columns="kind").mean())
    change = model.transform(table) - model.transform(mean)
    added = model.integrated_gradients(table).sum(axis=2)
    np.testing.assert_allclose(added, change, atol=1e-6 * abs(change).max())


def test_reconstruct_decodes_other_codes_under_the_conditions_of_rows(conditional):
    model, table = conditional
    Z = model.transform(table)
    pd.testing.assert_frame_equal(model.reconstruct(table, Z), model.reconstruct(table))
    other = model.reconstruct(table, Z[::-1])
    assert list(other["kind"]) == list(table["kind"])
    rows = model.inverse_transform(Z[::-1], table["kind"].to_numpy())
    pd.testing.assert_frame_equal(other, rows)
    with pytest.raises(
        ValueError, match="Z must have a code for each of the 120 rows of X, got 3 codes"
    ):
        model.reconstruct(table, Z[:3])
    with pytest.raises(ValueError, match="Z has 1 columns, but the codes"):
        model.reconstruct(table, Z[:, :1])


def test_missing_steps_have_no_attributions():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6))
    rows[:10, 4:] = np.nan
    options = {"architecture": "recurrent", "feature_shape": (3, 2), "hidden_layer_sizes": (4,)}
    model = Autoencoder(2, max_epochs=3, random_state=0, **options).fit(rows)
    assert (model.encoder_jacobian(rows)[:10, :, 4:] == 0).all()
    parts = model.integrated_gradients(rows)
    assert (parts[:10, :, 4:] == 0).all()
    mean = np.where(np.isnan(rows), np.nan, np.nanmean(rows, axis=0))
    change = model.transform(rows) - model.transform(mean)
    np.testing.assert_allclose(parts.sum(axis=2), change, atol=1e-9)
    np.testing.assert_allclose(feature_attribution(model, rows).sum(axis=1), 1)
    sequences = [row[~np.isnan(row)].reshape(-1, 2) for row in rows]
    for metric in METRICS:
        np.testing.assert_allclose(metric(model, sequences), metric(model, rows), atol=1e-9)


# --------------------------------------------------------------------------- all estimators


@for_each(ESTIMATORS)
def test_shares_sum_to_one_and_rows_add_up(estimator_class):
    model = fitted_once(estimator_class)
    autoencoder, rows = inputs(model, X)
    shares = feature_attribution(model, X)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    parts = feature_attribution(model, X, per_row=True)
    change = autoencoder.transform(rows) - autoencoder.transform(rows.mean(axis=0)[None])
    np.testing.assert_allclose(parts.sum(axis=2), change, atol=1e-5 * (1 + abs(change).max()))
    k = autoencoder.transform(rows).shape[1]
    assert shares.shape == (k, 3)
    assert loadings(model, X).shape == (3, k)
    importance = component_importance(model, X)
    np.testing.assert_allclose(importance, autoencoder.explained_variance_ratio_, atol=1e-5)


@for_each(ESTIMATORS)
def test_components_are_ordered_by_importance(estimator_class):
    model = fitted_once(estimator_class)
    if core(model).module_.latent.has_free_axes:
        assert (np.diff(component_importance(model, X)) <= 1e-6).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("estimator_class", [Autoencoder, *META_ESTIMATORS])
def test_frames_are_returned_for_frames(library, estimator_class):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(dict(zip(NAMES, X.T, strict=True)))
    model = fitted(estimator_class, frame)
    components = ["autoencoder0", "autoencoder1"]
    results = [metric(model, frame) for metric in METRICS]
    arrays = [metric(fitted_once(estimator_class), X) for metric in METRICS]
    of_rows = feature_attribution(model, frame, per_row=True)
    if library == "pandas":
        shares, of_columns, importance = results
        assert list(shares.index) == list(importance.index) == list(of_columns) == components
        assert list(shares.columns) == list(of_columns.index) == NAMES
        assert list(of_rows.columns) == [(c, name) for c in components for name in NAMES]
        cells = [result.to_numpy() for result in results]
    else:
        titles = ["component", *NAMES], ["feature", *components], ["component", "importance"]
        assert [result.columns for result in results] == [*titles]
        assert list(results[0]["component"]) == list(results[2]["component"]) == components
        assert {c: table.columns for c, table in of_rows.items()} == dict.fromkeys(
            components, NAMES
        )
        cells = [result.to_numpy()[:, 1:].astype(float) for result in results]
        cells[2] = cells[2][:, 0]
    for got, expected in zip(cells, arrays, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_a_pipeline_has_the_columns_of_its_autoencoder():
    frame = load_wine(as_frame=True).data
    pipeline = make_pipeline(StandardScaler(), Autoencoder(2, max_epochs=3, random_state=0))
    scaled = StandardScaler().fit_transform(frame)
    model = Autoencoder(2, max_epochs=3, random_state=0).fit(scaled)
    pipeline.fit(frame)
    for metric in METRICS:
        got = metric(pipeline, frame)
        np.testing.assert_allclose(got, metric(model, scaled), atol=1e-6)
    assert list(feature_attribution(pipeline, frame).columns) == list(frame.columns)
    of_pca = make_pipeline(StandardScaler(), PCA(2)).fit(frame)
    shares = component_importance(of_pca, frame)
    assert list(shares.index) == ["pca0", "pca1"]
    np.testing.assert_allclose(shares, of_pca[-1].explained_variance_ratio_)
    fewer = make_pipeline(PCA(4), Autoencoder(2, max_epochs=1, random_state=0)).fit(frame)
    assert list(feature_attribution(fewer, frame, per_row=True).columns.levels[1]) == [
        f"pca{j}" for j in range(4)
    ]


def test_the_detector_passes_robust_units_to_its_autoencoder():
    rows = TABLES["wine"].copy()
    rows[0, 0] = 1e6
    detector = AutoencoderOutlierDetector(random_state=0).fit(rows)
    scaled = detector.preprocess(rows)
    assert abs(scaled).max() < 100
    np.testing.assert_allclose(np.median(scaled, axis=0), 0, atol=0.1)
    ratio = explained_variance_ratio(detector.autoencoder_, scaled)
    assert component_importance(detector, rows).sum() == pytest.approx(ratio, abs=0.2)


@for_each(META_ESTIMATORS)
def test_preprocess_of_an_unfitted_estimator_is_refused(estimator_class):
    with pytest.raises(NotFittedError):
        estimator_class().preprocess(X)


def planted(seed):
    """Standardized columns that depend on three independent causes, and the cause of each."""
    rng = np.random.default_rng(seed)
    causes, groups = rng.normal(size=(1500, 3)), np.repeat([0, 1, 2], 4)
    slope, shift, size = rng.normal(size=(3, 3, 12))
    rows = (size * np.tanh(slope * causes[:, None, groups] + shift)).sum(axis=1)
    rows = rows / rows.std(axis=0) + 0.1 * rng.normal(size=rows.shape)
    return StandardScaler().fit_transform(rows), groups


@pytest.mark.slow
def test_attributions_find_planted_causes():
    found = []
    for seed in range(5):
        rows, groups = planted(seed)
        model = Autoencoder(3, random_state=0).fit(rows)
        found.append(adjusted_rand_score(groups, feature_attribution(model, rows).argmax(axis=0)))
    assert np.median(found) > 0.9


# -------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_arguments_are_refused(metric):
    with pytest.raises(TypeError, match=r"estimator must"):
        metric(
            StandardScaler().fit(X) if metric is not component_importance else NotFittedError(), X
        )
    with pytest.raises(NotFittedError):
        metric(Autoencoder(2), X)
    model = fitted_once(Autoencoder)
    with pytest.raises(ValueError, match="X has 2 features"):
        metric(model, X[:, :2])
    with pytest.raises(ValueError, match="infinity"):
        metric(model, np.full_like(X, np.inf))


def test_rows_that_are_too_few_are_refused():
    model = fitted_once(Autoencoder)
    with pytest.raises(ValueError, match="X must contain two different rows, got 3 equal ones"):
        feature_attribution(model, X[[0, 0, 0]])
    with pytest.raises(ValueError, match="X must contain at least two rows, got 1"):
        loadings(model, X[:1])
