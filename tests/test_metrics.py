"""Metrics against what they claim to be, and as scorers of scikit-learn's searches."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.manifold import trustworthiness as trustworthiness_of_codes
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skae import (
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderOutlierDetector,
    ConditionalVariationalAutoencoder,
    VariationalAutoencoder,
    metrics,
)
from skae.metrics import (
    active_units,
    code_stability,
    explained_variance_ratio,
    neg_two_sample_auc,
    probe_score,
    trustworthiness,
    two_sample_auc,
)

IRIS, SPECIES = load_iris(return_X_y=True)

SCORERS = {
    "explained_variance_ratio": explained_variance_ratio,
    "active_units": active_units,
    "trustworthiness": trustworthiness,
    "probe_score": probe_score,
    "code_stability": partial(code_stability, n_repeats=2),
    # A forest for each candidate and fold would take long.
    "neg_two_sample_auc": partial(neg_two_sample_auc, classifier=LogisticRegression(max_iter=1000)),
}
"""All that a search can ask of an estimator that has codes and draws rows."""

OF_PCA = [name for name in SCORERS if name != "neg_two_sample_auc"]


def tiny(n_components=2, **parameters):
    options = {"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0, **parameters}
    return Autoencoder(n_components, **options)


def tiny_vae(n_components=2, **parameters):
    options = {"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0, **parameters}
    return VariationalAutoencoder(n_components, **options)


class Fixed(TransformerMixin, BaseEstimator):
    """Codes that are given, row by row; rows' first column says which."""

    def __init__(self, codes, random_state=None):
        self.codes, self.random_state = codes, random_state

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return self.codes[X[:, 0].astype(int)]


class Varying(Fixed):
    """Such codes, changed by a function of the codes and a generator that the seed decides."""

    def __init__(self, codes, change, random_state=None):
        super().__init__(codes, random_state)
        self.change = change

    def transform(self, X):
        rng = np.random.default_rng(self.random_state)
        return self.change(self.codes, rng)[X[:, 0].astype(int)]


INDEX = np.arange(400.0)[:, None]
CODES = np.random.default_rng(0).normal(size=(400, 3))


# ------------------------------------------------------------ explained variance


@pytest.mark.parametrize("k", [1, 8, 40])
def test_of_pca_it_is_the_ratio_that_pca_tells(digits, k):
    pca = PCA(k).fit(digits)
    expected = pca.explained_variance_ratio_.sum()
    assert abs(explained_variance_ratio(pca, digits) - expected) < 1e-10
    far = PCA(k).fit(digits + 1e6)
    assert abs(explained_variance_ratio(far, digits + 1e6) - expected) < 1e-6


def test_held_out_rows_are_explained_the_better_the_more_components(digits):
    scores = [
        cross_val_score(PCA(k), digits, scoring=explained_variance_ratio).mean()
        for k in (1, 4, 16, 64)
    ]
    assert (np.diff(scores) > 0).all()
    assert scores[-1] == pytest.approx(1)


def test_an_autoencoder_is_judged_by_what_it_reconstructs():
    fitted = tiny().fit(IRIS)
    restored = fitted.reconstruct(IRIS)
    expected = r2_score(IRIS, restored, multioutput="variance_weighted")
    assert explained_variance_ratio(fitted, IRIS) == pytest.approx(expected, abs=1e-12)
    piped = make_pipeline(StandardScaler(), tiny()).fit(IRIS)
    restored = piped.inverse_transform(piped.transform(IRIS))
    expected = r2_score(IRIS, restored, multioutput="variance_weighted")
    assert explained_variance_ratio(piped, IRIS) == pytest.approx(expected, abs=1e-12)


def test_reconstructions_may_know_what_codes_do_not():
    X = np.column_stack([IRIS, SPECIES])
    given = ConditionalVariationalAutoencoder(
        2, condition=-1, hidden_layer_sizes=(8,), max_epochs=2, random_state=0
    ).fit(X)
    assert 0.5 < explained_variance_ratio(given, X) <= 1


def test_weights_are_those_of_repeated_rows():
    pca, weight = PCA(1).fit(IRIS), np.arange(150) % 3
    weighted = explained_variance_ratio(pca, IRIS, sample_weight=weight)
    repeated = explained_variance_ratio(pca, np.repeat(IRIS, weight, axis=0))
    assert weighted == pytest.approx(repeated, abs=1e-12)
    assert weighted != explained_variance_ratio(pca, IRIS)


def test_a_search_with_weights_weighs_held_out_rows():
    weight = np.arange(1, 151.0)
    grid = {"max_epochs": [1]}
    search = GridSearchCV(tiny(), grid, scoring=explained_variance_ratio, cv=2, refit=False)
    weighted, plain = (
        search.fit(IRIS, **fit).cv_results_["mean_test_score"]
        for fit in ({"sample_weight": weight}, {})
    )
    assert weighted != plain


def test_equal_rows_are_explained_if_they_are_restored_exactly():
    same = np.full((7, 3), 0.1)
    exact = FunctionTransformer(inverse_func=None).fit(same)
    assert explained_variance_ratio(exact, same) == 1.0
    off = FunctionTransformer(inverse_func=lambda rows: rows + 1).fit(same)
    assert explained_variance_ratio(off, same) == 0.0


def test_missing_steps_are_left_out():
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.normal(size=(40, 6, 2)), axis=1)
    X[::2, 4:] = np.nan
    recurrent = Autoencoder(
        2,
        architecture="recurrent",
        feature_shape=(6, 2),
        hidden_layer_sizes=(8,),
        max_epochs=2,
        random_state=0,
    ).fit(X)
    rows = X.reshape(40, 12)
    seen = ~np.isnan(rows)
    lost = (rows - recurrent.reconstruct(X))[seen] ** 2
    total = (rows - np.nanmean(rows, axis=0))[seen] ** 2
    expected = 1 - lost.sum() / total.sum()
    assert explained_variance_ratio(recurrent, X) == pytest.approx(expected, abs=1e-12)
    assert explained_variance_ratio(recurrent, rows) == pytest.approx(expected, abs=1e-12)
    assert np.isfinite(explained_variance_ratio(recurrent, X[::2]))
    assert 0.5 < trustworthiness(recurrent, X) <= 1
    assert active_units(recurrent, X) <= 2
    assert code_stability(recurrent, X, n_repeats=2) > 0
    assert -1 <= neg_two_sample_auc(recurrent, X) <= 0


# ------------------------------------------------------------------ active units


def test_active_units_are_counted_in_the_unit_of_the_largest_variance():
    scaled = Fixed(CODES * [1e3, 200, 10])
    variance = scaled.codes.var(axis=0)
    for threshold in (0.0, 0.01, 0.5):
        expected = (variance / variance.max() > threshold).sum()
        assert active_units(scaled, INDEX, threshold=threshold) == expected
    assert active_units(Fixed(np.ones((400, 3))), INDEX) == 0


@pytest.fixture(scope="module")
def collapsed():
    """A variational autoencoder that gave up all 8 components, and its rows."""
    X = load_digits().data[:600]
    with pytest.warns(UserWarning, match="Posterior collapse"):
        return tiny_vae(8, beta=20.0, max_epochs=20, learning_rate=0.03).fit(X), X


def test_a_large_beta_leaves_fewer_units_active(collapsed):
    vae, X = collapsed
    assert active_units(vae, X) < 4
    assert active_units(tiny_vae(8, beta=0.1).fit(X), X) == 8


def test_codes_with_a_posterior_have_the_priors_unit(collapsed):
    vae, X = collapsed
    # Components that have collapsed alike are not active for being no worse than others.
    variance = vae.transform(X).var(axis=0)
    assert (variance > 0.01 * variance.max()).all()
    assert active_units(vae, X) == (variance > 0.01).sum()
    piped = Pipeline([("same", FunctionTransformer()), ("inner", Pipeline([("vae", vae)]))])
    assert active_units(piped, X) == active_units(vae, X)
    assert active_units(vae, X, threshold=variance.min() / 2) == 8


def test_the_autoencoder_of_a_classifier_tells_the_unit():
    classifier = AutoencoderClassifier(tiny_vae(3), random_state=0).fit(IRIS, SPECIES)
    variance = classifier.transform(IRIS).var(axis=0)
    between = (variance.max() + variance.max() ** 2) / 2
    expected = (variance > between).sum()
    assert active_units(classifier, IRIS, threshold=between) == expected


# --------------------------------------------------------------- trustworthiness


@pytest.mark.parametrize("n_neighbors", [1, 5, 30])
@pytest.mark.parametrize("noise", [0.0, 0.3, 10.0])
def test_trustworthiness_is_scikit_learns(n_neighbors, noise):
    codes = CODES[:, :2] + noise * np.random.default_rng(1).normal(size=(400, 2))
    between = FunctionTransformer(lambda rows: codes).fit(CODES)
    got = trustworthiness(between, CODES, n_neighbors=n_neighbors)
    assert abs(got - trustworthiness_of_codes(CODES, codes, n_neighbors=n_neighbors)) < 1e-12


def test_duplicates_change_little(digits):
    X = np.repeat(digits[:200], 2, axis=0)
    pca = PCA(2).fit(X)
    expected = trustworthiness_of_codes(X, pca.transform(X))
    assert trustworthiness(pca, X) == pytest.approx(expected, abs=0.002)


def test_distances_are_held_in_parts(digits):
    pca, asked = PCA(4).fit(digits), []

    def chunks(*arguments, **options):
        for part in sklearn.metrics.pairwise_distances_chunked(*arguments, **options):
            asked.append(len(part))
            yield part

    whole = trustworthiness(pca, digits)
    with pytest.MonkeyPatch.context() as patch, sklearn.config_context(working_memory=1):
        patch.setattr(metrics, "pairwise_distances_chunked", chunks)
        parts = trustworthiness(pca, digits)
    assert parts == pytest.approx(whole, abs=1e-12)
    assert max(asked) * len(digits) * 8 <= 2**20
    assert sum(asked) == len(digits)


def test_codes_that_are_noise_have_no_neighbours(digits):
    X = digits[:500]
    noise = FunctionTransformer(lambda X: np.random.default_rng(0).normal(size=(len(X), 2))).fit(X)
    bad, good = (trustworthiness(fitted, X) for fitted in (noise, PCA(8).fit(X)))
    assert bad < 0.6
    assert good > 0.95


class Broken(TransformerMixin, BaseEstimator):
    """Restores nothing that could be used."""

    def __init__(self, restored):
        self.restored = restored

    def fit(self, X, y=None):
        return self

    def reconstruct(self, X):
        return np.full((len(X), self.restored[0]), self.restored[1])


@pytest.mark.parametrize(
    ("restored", "message"),
    [
        ((1, 0.0), "must return reconstructions of shape"),
        ((3, np.nan), "contain NaN where X does not"),
    ],
)
def test_broken_reconstructions_are_no_score(restored, message):
    with pytest.raises(ValueError, match=message):
        explained_variance_ratio(Broken(restored), np.eye(3))


def test_too_few_rows_have_no_stability():
    with pytest.raises(ValueError, match="X must have at least 9 rows"):
        code_stability(PCA(1), np.random.default_rng(0).normal(size=(8, 2)))
    assert code_stability(PCA(1), np.random.default_rng(0).normal(size=(9, 2))) > 0.99


# ------------------------------------------------------------------------ probes


def test_the_probe_fits_the_target(digits):
    digits, y = digits[:600], load_digits().target[:600]
    pca = PCA(8).fit(digits)
    codes = pca.transform(digits)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    assert probe_score(pca, digits, y) == cross_val_score(linear, codes, y, cv=folds).mean()
    names = np.array(list("abcdefghij"))[y]
    assert probe_score(pca, digits, names) == pytest.approx(probe_score(pca, digits, y))
    X, y = load_diabetes(return_X_y=True)
    pca = PCA(4).fit(X)
    assert 0.2 < probe_score(pca, X, y + 0.5) < 0.6
    assert probe_score(pca, X, y) == pytest.approx(probe_score(pca, X, y + 0.5))
    order = X[:, 0].argsort()
    assert 0.2 < probe_score(pca, X[order], y[order]) < 0.6
    assert 0.2 < probe_score(pca, X, np.column_stack([y, -y]) + 0.5, cv=3) < 0.6


def test_any_probe_is_cloned_and_the_estimator_kept(digits):
    y = load_digits().target
    dummy, fitted = DummyClassifier(), PCA(2).fit(digits)
    before = fitted.components_.copy()
    assert probe_score(fitted, digits, y, probe=dummy) < 0.2
    assert not hasattr(dummy, "classes_")
    np.testing.assert_array_equal(fitted.components_, before)
    whole = load_diabetes()
    pca = PCA(4).fit(whole.data)
    assert 0.2 < probe_score(pca, whole.data, whole.target, probe=LinearRegression()) < 0.6


# --------------------------------------------------------------------- stability


def rotate(codes, rng):
    return 7 * codes @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 5


CHANGES = {
    "nothing": (lambda codes, rng: codes, 1, 1),
    "rotated, scaled and moved": (rotate, 1 - 1e-12, 1),
    "permuted": (lambda codes, rng: codes[:, rng.permutation(3)], 1 - 1e-12, 1),
    "noisy": (lambda codes, rng: codes + 0.3 * rng.normal(size=codes.shape), 0.7, 0.95),
    "others": (lambda codes, rng: rng.normal(size=codes.shape), 0, 0.1),
    "constant": (lambda codes, rng: np.full(codes.shape, 0.1), 0, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_stability_is_what_seeds_leave_in_common(change):
    changed, least, most = CHANGES[change]
    got = code_stability(Varying(CODES, changed), INDEX)
    assert least <= got <= most


def test_of_seeds_nested_ones_change_too():
    estimator = Varying(CODES, CHANGES["others"][0], random_state=3)
    piped = Pipeline([("same", FunctionTransformer()), ("inner", Pipeline([("one", estimator)]))])
    assert code_stability(piped, INDEX) < 0.1
    assert code_stability(piped, INDEX, over="folds") == pytest.approx(1)
    assert estimator.random_state == 3


def test_codes_are_of_rows_that_no_clone_was_trained_on():
    seen = []

    class Watched(Fixed):
        def fit(self, X, y=None):
            seen.append(("fit", set(X[:, 0])))
            np.testing.assert_array_equal(X[:, 0], y)
            return self

        def transform(self, X):
            seen.append(("transform", set(X[:, 0])))
            return super().transform(X)

    code_stability(Watched(CODES), INDEX, INDEX[:, 0], over="folds")
    fits = [rows for method, rows in seen if method == "fit"]
    held = [rows for method, rows in seen if method == "transform"]
    assert [len(rows) for rows in fits] == [200] * 3
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 100
    assert not held[0] & set.union(*fits)
    assert not set.intersection(*fits)


def test_pca_is_stable():
    assert code_stability(PCA(2), IRIS) == pytest.approx(1)
    assert 0.99 < code_stability(PCA(2), IRIS, over="folds", n_repeats=4) <= 1


def test_an_autoencoder_is_trained_anew_and_stays_as_it_is():
    fitted = tiny(linear_skip=False).fit(IRIS)
    before = fitted.transform(IRIS)
    first, second = (code_stability(fitted, IRIS, n_repeats=2) for _ in range(2))
    assert 0 < first == second < 1
    np.testing.assert_array_equal(fitted.transform(IRIS), before)


# ------------------------------------------------------------------- two samples


def test_rows_of_one_kind_cannot_be_told_apart(digits):
    order = np.random.default_rng(0).permutation(1797)
    first, second = digits[order[:300]], digits[order[300:750]]
    assert 0.4 < two_sample_auc(first, second) < 0.6
    assert two_sample_auc(first, second + 3 * digits.std()) > 0.95
    assert 0.4 < two_sample_auc(first, second, classifier=LogisticRegression(C=1e-4)) < 0.6


def test_draws_that_repeat_rows_are_told_from_their_doubles():
    assert two_sample_auc(IRIS, IRIS) < 0.4


def test_the_scorer_draws_as_many_rows():
    fitted = tiny_vae().fit(IRIS)
    rng = np.random.RandomState(0)
    samples = fitted.sample(len(IRIS), random_state=rng)
    expected = -two_sample_auc(IRIS, samples, random_state=rng)
    assert neg_two_sample_auc(fitted, IRIS) == expected


def test_any_estimator_that_draws_rows_will_do():
    fast = {"classifier": LogisticRegression(max_iter=1000)}
    assert neg_two_sample_auc(KernelDensity(bandwidth=0.2).fit(IRIS), IRIS, **fast) > -0.6


def test_a_pipelines_draws_are_in_units_of_its_input():
    plain = make_pipeline(tiny_vae()).fit(IRIS)
    fast = {"classifier": LogisticRegression(max_iter=1000)}
    same = neg_two_sample_auc(plain[-1], IRIS, **fast)
    assert neg_two_sample_auc(plain, IRIS, **fast) == same
    nested = make_pipeline(FunctionTransformer(), make_pipeline(StandardScaler(), tiny_vae()))
    far = IRIS * 1000 + 5000
    assert neg_two_sample_auc(nested.fit(far), far, **fast) > -0.9


# --------------------------------------------------------------- as scikit-learn


def test_all_are_listed():
    of_components = "component_importance", "feature_attribution", "loadings"
    assert sorted(metrics.__all__) == sorted([*SCORERS, "two_sample_auc", *of_components])


@pytest.mark.parametrize("name", SCORERS)
def test_each_is_a_scorer(name):
    for estimator in (tiny(), make_pipeline(StandardScaler(), tiny_vae())):
        scores = cross_val_score(estimator, IRIS, SPECIES, scoring=SCORERS[name], cv=2)
        assert scores.shape == (2,)
        assert np.isfinite(scores).all()
    search = GridSearchCV(tiny(), {"n_components": [1, 2]}, scoring=SCORERS[name], cv=2)
    search.fit(IRIS, SPECIES)
    expected = SCORERS[name](search.best_estimator_, IRIS, SPECIES)
    assert search.score(IRIS, SPECIES) == expected
    assert isinstance(expected, float)


@pytest.mark.parametrize("routing", [False, True])
def test_a_search_compares_pca_and_autoencoders_by_all(routing):
    grid = [{"code": [PCA()], "code__n_components": [1, 3]}, {"code": [tiny(), tiny_vae()]}]
    scoring = {name: SCORERS[name] for name in OF_PCA}
    model = Pipeline([("scale", StandardScaler()), ("code", PCA())])
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(model, grid, scoring=scoring, refit=False, cv=2)
        search.fit(IRIS, SPECIES)
        single = GridSearchCV(model, grid, scoring=explained_variance_ratio, cv=2)
        single.fit(IRIS, SPECIES)
    for name in OF_PCA:
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    explained = search.cv_results_["mean_test_explained_variance_ratio"]
    np.testing.assert_array_equal(single.cv_results_["mean_test_score"], explained)
    assert explained[0] < explained[1]
    assert single.best_params_["code__n_components"] == 3


def test_scores_without_a_target():
    without = {name: scorer for name, scorer in SCORERS.items() if name != "probe_score"}
    scores = cross_validate(tiny(), IRIS, scoring=without, cv=2)
    assert all(np.isfinite(scores[f"test_{name}"]).all() for name in without)


@pytest.mark.parametrize("name", SCORERS)
def test_tables_of_any_kind_give_the_same(name, curved):
    scorer, y = SCORERS[name], (curved[:, 0] > 0).astype(int)
    frame, series = pd.DataFrame(curved, columns=list("abcdef")), pd.Series(y)
    models = [tiny_vae(), make_pipeline(FunctionTransformer(), tiny_vae())]
    for model in [*models, PCA(2)] if name in OF_PCA else models:
        expected = scorer(model.fit(curved), curved, y)
        for output in ("default", "pandas"):
            fitted = model.set_output(transform=output).fit(frame)
            assert scorer(fitted, frame, series) == pytest.approx(expected, abs=1e-9)


def test_images_are_rows(digits):
    images, y = digits[:100].reshape(-1, 8, 8), load_digits().target[:100]
    options = {"architecture": "conv", "feature_shape": (1, 8, 8), "hidden_layer_sizes": (4,)}
    fitted = tiny(**options).fit(images)
    for scorer in SCORERS.values():
        assert scorer(fitted, images, y) == pytest.approx(scorer(fitted, digits[:100], y))


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"code_stability"}))
def test_an_estimator_must_be_fitted(name):
    for estimator in (tiny(), make_pipeline(tiny()), make_pipeline(StandardScaler(), tiny())):
        with pytest.raises(NotFittedError):
            SCORERS[name](estimator, IRIS, SPECIES)


def test_stability_needs_no_fitted_estimator():
    assert code_stability(tiny(), IRIS, n_repeats=2) > 0


def test_what_an_estimator_cannot_do_is_said():
    detector = AutoencoderOutlierDetector(tiny(), random_state=0).fit(IRIS)
    for scorer in (active_units, trustworthiness, probe_score, code_stability):
        with pytest.raises(TypeError, match="method 'transform', but AutoencoderOutlierDetector"):
            scorer(detector, IRIS, SPECIES)
    classifier = AutoencoderClassifier(tiny(), random_state=0).fit(IRIS, SPECIES)
    with pytest.raises(TypeError, match="'inverse_transform', but AutoencoderClassifier has none"):
        explained_variance_ratio(classifier, IRIS)
    pca = PCA().fit(IRIS)
    for estimator in (pca, make_pipeline(StandardScaler(), pca).fit(IRIS)):
        with pytest.raises(TypeError, match="must have a method 'sample', but PCA has none"):
            neg_two_sample_auc(estimator, IRIS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(active_units, threshold=-1), "'threshold' parameter of active_units must be"),
        (partial(trustworthiness, n_neighbors=0), "'n_neighbors' parameter"),
        (partial(trustworthiness, n_neighbors=75), "less than n_samples / 2"),
        (partial(code_stability, over="rows"), "'over' parameter of code_stability must be"),
        (partial(code_stability, n_repeats=1), "'n_repeats' parameter of code_stability"),
        (partial(code_stability, random_state="a"), "'random_state' parameter"),
        (partial(explained_variance_ratio, sample_weight=[1, 2]), "sample_weight"),
        (probe_score, "requires y, the targets"),
        (
            partial(probe_score, y=np.eye(3, dtype=int)[SPECIES]),
            "probe must be a classifier or a regressor",
        ),
        (partial(probe_score, y=SPECIES, probe="linear"), "'probe' parameter"),
    ],
)
def test_bad_parameters_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(PCA(2).fit(IRIS), IRIS)


@pytest.mark.parametrize(
    ("X", "samples", "options", "message"),
    [
        (IRIS, IRIS[:, :3], {}, "samples has 3 columns, but X has 4"),
        (IRIS, IRIS[:4], {}, "at least 5 rows each, one for each fold, got 150 and 4"),
        (IRIS[0], IRIS, {}, "Expected 2D array"),
        (IRIS, [["a"] * 4] * 9, {}, "must be a number"),
        (IRIS, IRIS, {"classifier": "forest"}, "'classifier' parameter"),
        (IRIS, IRIS, {"random_state": "a"}, "'random_state' parameter"),
    ],
)
def test_two_samples_are_checked(X, samples, options, message):
    with pytest.raises(ValueError, match=message):
        two_sample_auc(X, samples, **options)
