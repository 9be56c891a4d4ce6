"""The imputer, the detector, the classifier and the regressor on tables as they are."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from test_mixed import COMPLETE, HIDDEN, PANDAS, POLARS, TABLES, N, dtypes, is_missing

import skae
from skae import (
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderFeatures,
    AutoencoderImputer,
    AutoencoderOutlierDetector,
    AutoencoderRegressor,
    OutlierExplanationDisplay,
)
from skae.tasks.outlier_scores import SCORES

QUICK = Autoencoder(2, hidden_layer_sizes=(8,), max_epochs=4)
TARGETS = {
    AutoencoderClassifier: np.where(HIDDEN.sum(axis=1) > 0, "yes", "no"),
    AutoencoderRegressor: HIDDEN.sum(axis=1),
    AutoencoderFeatures: None,
    AutoencoderImputer: None,
    AutoencoderOutlierDetector: None,
}
TASKS = list(TARGETS)


def trained(task, table=PANDAS, autoencoder=QUICK, **parameters):
    estimator = task(autoencoder, random_state=0, **parameters)
    y = TARGETS[task]
    return estimator.fit(table, None if y is None else y[: len(table)])


def outputs(model, table):
    """Results of a model for rows, with one entry per row."""
    if hasattr(model, "score_samples"):
        return model.score_samples(table)
    found = model.transform(table)
    if isinstance(found, pl.DataFrame):
        return pd.DataFrame(found.to_dict(as_series=False)).to_numpy()
    return np.asarray(found)


def equal(a, b):
    return np.array_equal(pd.DataFrame(a).astype(str), pd.DataFrame(b).astype(str))


# ------------------------------------------------------------------------------------ every task


@pytest.mark.every_case
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_reads_tables_as_they_are(task, table, tmp_path):
    model = trained(task, table)
    assert model.n_features_in_ == table.shape[1]
    assert list(model.feature_names_in_) == list(table.columns)
    found = outputs(model, table)
    assert len(found) == N
    assert not pd.isna(found).any()
    model.save(tmp_path / "model.skae")
    assert equal(outputs(skae.load(tmp_path / "model.skae"), table), found)
    # A task passes rows to its autoencoder as the documentation says.
    codes = model.autoencoder_.transform(model.preprocess(table))
    assert np.asarray(codes).shape == (N, 2)


@pytest.mark.parametrize("task", TASKS)
def test_reordered_and_absent_columns_are_named(task):
    model = trained(task)
    with pytest.raises(ValueError, match="same order"):
        outputs(model, PANDAS[PANDAS.columns[::-1]])
    with pytest.raises(ValueError, match=f"(?s){task.__name__}|missing.*job"):
        outputs(model, PANDAS.drop(columns="job"))


@pytest.mark.parametrize("task", TASKS)
def test_an_unseen_category_is_a_missing_cell(task):
    model = trained(task)
    unseen, missing = PANDAS.copy(), PANDAS.copy()
    unseen.loc[1003, "job"], missing.loc[1003, "job"] = "pilot", None
    rows = [outputs(model, table) for table in (unseen, missing)]
    if task is AutoencoderImputer:
        rows = [np.delete(part, PANDAS.columns.get_loc("job"), axis=1) for part in rows]
    assert equal(*rows)


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_weight_0_are_left_out(task):
    rare = PANDAS.copy()
    rare.loc[1000, "job"] = "pilot"
    weight = np.ones(N)
    weight[0] = 0
    y = TARGETS[task]
    weighted = task(QUICK, random_state=0).fit(rare, y, sample_weight=weight)
    dropped = task(QUICK, random_state=0).fit(rare[1:], None if y is None else y[1:])
    assert equal(outputs(weighted, PANDAS), outputs(dropped, PANDAS))


@pytest.mark.parametrize("task", TASKS)
def test_the_default_autoencoder_takes_tables_as_they_are(task):
    model = trained(task, PANDAS[:60], None)
    assert len(outputs(model, PANDAS)) == N


@pytest.mark.parametrize("task", TASKS)
def test_a_frozen_autoencoder_reads_the_table(task):
    fitted = clone(QUICK).set_params(random_state=0).fit(PANDAS)
    options = {"fine_tune": False} if task in (AutoencoderClassifier, AutoencoderRegressor) else {}
    model = trained(task, PANDAS, FrozenEstimator(fitted), **options)
    np.testing.assert_array_equal(model.autoencoder_.transform(PANDAS), fitted.transform(PANDAS))
    with pytest.raises(ValueError, match="feature names"):
        trained(task, PANDAS.rename(columns={"job": "work"}), FrozenEstimator(fitted), **options)


@pytest.mark.parametrize(
    "task", [AutoencoderClassifier, AutoencoderRegressor, AutoencoderOutlierDetector]
)
def test_partial_fit_takes_rows_as_they_are(task):
    y = TARGETS[task]
    model = task(QUICK, random_state=0)
    for rows in np.split(np.arange(N), 2):
        model.partial_fit(PANDAS.iloc[rows], None if y is None else y[rows])
    assert np.isfinite(outputs(model, PANDAS)).all()


def test_frames_of_numbers_give_the_results_of_arrays():
    """A table without categories and missing cells has the same results in every container."""
    X = HIDDEN @ np.random.default_rng(0).normal(size=(2, 4))
    frame = pd.DataFrame(X, columns=list("abcd"))
    for task in set(TASKS) - {AutoencoderImputer}:
        as_array, as_frame = trained(task, X), trained(task, frame)
        np.testing.assert_allclose(outputs(as_array, X), outputs(as_frame, frame), rtol=1e-9)
        assert isinstance(as_frame.preprocess(frame), np.ndarray)


# --------------------------------------------------------------------------------------- imputer


@pytest.mark.parametrize("table", TABLES)
def test_observed_cells_are_unchanged(table):
    completed = trained(AutoencoderImputer, table).transform(table)
    assert type(completed) is type(table)
    assert dtypes(completed) == dtypes(table)
    assert not is_missing(completed).any()
    known = ~is_missing(table)
    for j, name in enumerate(table.columns):
        before, after = (np.asarray(part[name])[known[:, j]] for part in (table, completed))
        np.testing.assert_array_equal(before, after)


def test_missing_cells_are_those_of_the_reconstruction():
    model = trained(AutoencoderImputer)
    rebuilt, completed = model.autoencoder_.reconstruct(PANDAS), model.transform(PANDAS)
    for name in ("age", "rooms", "job"):
        gaps = PANDAS[name].isna()
        assert completed[name][gaps].tolist() == rebuilt[name][gaps].tolist()


def test_complete_tables_are_returned_as_they_are():
    completed = trained(AutoencoderImputer).transform(COMPLETE)
    pd.testing.assert_frame_equal(completed, COMPLETE)


@pytest.mark.parametrize("table", TABLES)
def test_indicators_say_which_cells_were_missing(table):
    model = trained(AutoencoderImputer, table, add_indicator=True)
    completed = model.transform(table)
    gaps = is_missing(table)
    with_gaps = [name for name, any_ in zip(table.columns, gaps.any(axis=0), strict=True) if any_]
    flags = [f"missingindicator_{name}" for name in with_gaps]
    assert list(completed.columns) == [*table.columns, *flags]
    assert list(model.get_feature_names_out()) == list(completed.columns)
    for name, flag in zip(with_gaps, flags, strict=True):
        j = list(table.columns).index(name)
        assert np.asarray(completed[flag]).tolist() == gaps[:, j].tolist()


def test_later_tables_may_have_other_categories():
    size = pd.Categorical(["S", "M", "S", None] * 20)
    table = pd.DataFrame({"x": np.arange(80.0), "size": size})
    imputer = AutoencoderImputer(Autoencoder(1, max_epochs=2), random_state=0).fit(table)
    later = pd.DataFrame({"x": [0.0, 1.0], "size": pd.Categorical(["M", None])})
    completed = imputer.transform(later)
    assert completed["size"][0] == "M"
    assert completed["size"][1] in ("S", "M")


def test_categories_are_predicted_from_other_columns():
    rng = np.random.default_rng(0)
    kind = rng.integers(6, size=600)
    X = pd.DataFrame(
        {"kind": np.array(list("abcdef"))[kind], "same": np.array(list("uvwxyz"))[kind]}
    )
    X["other"] = rng.choice(list("pq"), 600)
    hidden = rng.random(X.shape) < [0.0, 0.2, 0.2]
    filled = AutoencoderImputer(random_state=0).fit_transform(X.mask(hidden))
    assert (filled["same"] == X["same"])[hidden[:, 1]].mean() > 0.98


def test_cells_of_columns_without_observed_cells_in_the_fit_stay():
    X = np.random.default_rng(0).normal(size=(60, 4))
    empty = X.copy()
    empty[:, 2] = np.nan
    imputer = AutoencoderImputer(QUICK).fit(empty)
    np.testing.assert_array_equal(imputer.transform(X), X)
    np.testing.assert_array_equal(imputer.transform(empty), empty)


def test_indicators_are_those_of_the_rows_of_the_imputer():
    X = HIDDEN.copy()
    fitted = clone(QUICK).fit(X)
    X[::5, 1] = np.nan
    imputer = AutoencoderImputer(FrozenEstimator(fitted), add_indicator=True).fit(X)
    assert list(imputer.get_feature_names_out()) == ["x0", "x1", "missingindicator_x1"]
    imputer.fit(X, sample_weight=~np.isnan(X[:, 1]))
    assert list(imputer.get_feature_names_out()) == ["x0", "x1"]


def test_indicators_of_arrays_are_numbers():
    X = HIDDEN.copy()
    X[::5, 1] = np.nan
    completed = trained(AutoencoderImputer, X, add_indicator=True).transform(X)
    assert completed.dtype == X.dtype
    np.testing.assert_array_equal(completed[:, 2], np.isnan(X[:, 1]))
    assert not np.isnan(completed).any()


def test_the_imputer_is_a_step_of_a_pipeline():
    X = np.column_stack([HIDDEN, HIDDEN[:, 0] ** 2])
    y = X[:, 2].copy()
    X[::4, 2] = np.nan
    scores = {
        type(step).__name__: cross_val_score(make_pipeline(step, LinearRegression()), X, y).mean()
        for step in (AutoencoderImputer(random_state=0), SimpleImputer())
    }
    assert scores["AutoencoderImputer"] > scores["SimpleImputer"] + 0.1


def test_the_imputer_works_on_some_columns():
    columns = make_column_transformer((AutoencoderImputer(QUICK), ["age", "rooms"]))
    assert columns.set_output(transform="pandas").fit_transform(PANDAS).shape == (N, 2)


# -------------------------------------------------------------------------------------- detector


def passengers(seed, n=2000):
    """A table with three mad cells, which are the first cells of ages and fares in `rows`."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.gamma(6, 5, n),
            "fare": rng.lognormal(3, 1, n),
            "sibsp": rng.poisson(0.5, n),
            "sex": rng.choice(["m", "f"], n, p=[0.6, 0.4]),
            "port": rng.choice(["S", "C", "Q"], n, p=[0.7, 0.2, 0.1]),
            "class": rng.choice(["1", "2", "3"], n, p=[0.25, 0.2, 0.55]),
        }
    )
    rows = rng.choice(n, 3, replace=False)
    for row, (name, value) in zip(
        rows, [("age", 400.0), ("fare", 5000.0), ("age", -40.0)], strict=True
    ):
        frame.loc[row, name] = value
    return frame, rows


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_mad_cell_beside_categories_is_found_and_named(seed):
    frame, rows = passengers(seed)
    detector = AutoencoderOutlierDetector(random_state=0).fit(frame)
    rank = detector.score_samples(frame).argsort().argsort()[rows]
    assert (rank[:2] < 5).all()
    assert rank[2] < 40
    explanation = detector.explain(frame.iloc[rows])
    assert explanation["share"].idxmax(axis=1).tolist() == ["age", "fare", "age"]
    assert explanation["expected"]["age"].between(10, 60).all()
    assert set(explanation["expected"]["sex"]) <= {"m", "f"}


def test_an_unexpected_category_is_found_and_named():
    crew = HIDDEN[:, 0] > 0
    names = {"kind": "crew", "deck": "low", "paid": "no", "meal": "late"}
    frame = pd.DataFrame({key: np.where(crew, name, "other") for key, name in names.items()})
    frame.loc[7, "deck"] = "low" if frame.loc[7, "deck"] == "other" else "other"
    detector = AutoencoderOutlierDetector(Autoencoder(1), random_state=0).fit(frame)
    assert detector.score_samples(frame).argmin() == 7
    explanation = detector.explain(frame.loc[[7]])
    assert explanation["share"].idxmax(axis=1).item() == "deck"
    assert explanation["expected"]["deck"].item() != frame.loc[7, "deck"]


@pytest.mark.parametrize("criterion", SCORES)
def test_missing_cells_alone_do_not_make_a_row_odd(criterion):
    """Rows with many missing cells are compared with others that have the same missing cells."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(800, 6))
    many = rng.random(800) < 0.3
    X[np.ix_(many, [1, 3, 4])] = np.nan
    X[5, 0] = 1e12  # A single gross error does not hide what is expected of the others.
    detector = AutoencoderOutlierDetector(criterion=criterion, random_state=0).fit(X)
    assert abs(roc_auc_score(many, detector.score_samples(X)) - 0.5) < 0.1


@pytest.mark.parametrize("has_gaps", [False, True])
def test_densities_of_rows_with_missing_cells_do_not_depend_on_units(has_gaps):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(200, 4))
    gaps = X.copy()
    gaps[::3, 0], gaps[1::3, 2] = np.nan, np.nan
    scores = []
    for factor in (1, 1000):
        unit = np.array([factor, 1, 1, 1])
        detector = AutoencoderOutlierDetector(QUICK, criterion="density", random_state=0)
        detector.fit((gaps if has_gaps else X) * unit)
        scores.append(detector.score_samples(gaps * unit))
    difference = scores[0] - scores[1]
    np.testing.assert_allclose(difference, np.log(1000), rtol=1e-3)


def test_false_alarms_do_not_depend_on_the_number_of_missing_cells():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 6))

    def rows(n):
        X = rng.normal(size=(n, 3)) @ mixing + 0.5 * rng.normal(size=(n, 6))
        return pd.DataFrame(X, columns=list("abcdef")).assign(g=rng.choice(["x", "y"], n))

    detector = AutoencoderOutlierDetector(calibration_fraction=0.3, random_state=0).fit(rows(1000))
    for n_missing in (0, 2, 4):
        table = rows(1000)
        table.iloc[:, :n_missing] = np.nan
        assert 0.01 < (detector.p_values(table) <= 0.05).mean() < 0.12


@pytest.mark.parametrize("n_columns", [2, 3, 5])
def test_tables_in_which_most_rows_are_equal_have_outliers(n_columns):
    rng = np.random.default_rng(1)
    names = [f"c{j}" for j in range(n_columns)]
    table = pd.DataFrame(
        {name: rng.choice(["x", "y", "z"], 600, p=[0.9, 0.07, 0.03]) for name in names}
    )
    detector = AutoencoderOutlierDetector(random_state=0).fit(table)
    usual, rare = (pd.DataFrame([[level] * n_columns], columns=names) for level in "xz")
    assert detector.predict(usual) == 1
    assert detector.predict(rare) == -1
    assert (detector.predict(table) == -1).mean() <= 0.1


def test_a_row_without_observed_cells_is_usual():
    detector = trained(AutoencoderOutlierDetector)
    blank = PANDAS[:1].copy()
    for name in blank:
        blank[name] = pd.Series([None], blank.index, dtype=object)
    # Numbers and categories of unknown dtypes are read as missing cells.
    assert detector.score_samples(blank) == 0


@pytest.mark.parametrize("table", TABLES)
def test_explanations_are_in_the_terms_of_the_user(table):
    detector = trained(AutoencoderOutlierDetector, table)
    explanation = detector.explain(table)
    gaps = is_missing(table)
    np.testing.assert_array_equal(np.isnan(np.asarray(explanation["deviation"])), gaps)
    share = np.asarray(explanation["share"])
    assert not share[gaps].any()
    alone = detector.explain(table[:1])["share"]
    np.testing.assert_allclose(np.asarray(alone), share[:1])
    np.testing.assert_allclose(share.sum(axis=1), 1)
    expected = explanation["expected"]
    assert dtypes(expected) == dtypes(table)
    for name in ("job", "size"):
        assert set(expected[name]) <= set(table[name])


@pytest.mark.parametrize("table", TABLES)
def test_explanations_of_tables_as_they_are_can_be_drawn(table):
    detector = trained(AutoencoderOutlierDetector, table)
    display = OutlierExplanationDisplay.from_estimator(detector, table, n_rows=2)
    texts = [text.get_text() for ax in np.ravel(display.ax_) for text in ax.texts]
    assert any(text.endswith(("cook", "clerk", "nurse")) for text in texts)
    plt.close("all")


@pytest.mark.parametrize(
    "names", [["age", "since"], ["since", "lasts"]], ids=lambda names: "-".join(names)
)
def test_numbers_and_dates_without_categories(names, tmp_path):
    detector = trained(AutoencoderOutlierDetector, PANDAS[names])
    scores = detector.score_samples(PANDAS[names])
    assert np.isfinite(scores).all()
    assert dtypes(detector.explain(PANDAS[names])["expected"]) == dtypes(PANDAS[names])
    detector.save(tmp_path / "detector.skae")
    loaded = skae.load(tmp_path / "detector.skae")
    np.testing.assert_array_equal(loaded.score_samples(PANDAS[names]), scores)


def test_scores_do_not_depend_on_the_units_of_numbers():
    other = PANDAS.assign(age=PANDAS["age"].astype(float) * 365 + 7)
    table = PANDAS.astype({"age": float})
    scores = [trained(AutoencoderOutlierDetector, t).score_samples(t) for t in (table, other)]
    np.testing.assert_allclose(*scores, rtol=1e-3)


# ------------------------------------------------------------------------- classifier, regressor


def test_categories_and_missing_cells_predict_targets():
    for task, least in ((AutoencoderClassifier, 0.8), (AutoencoderRegressor, 0.6)):
        autoencoder = Autoencoder(4, hidden_layer_sizes=(32,), max_epochs=60)
        model = task(autoencoder, random_state=0).fit(PANDAS[:120], TARGETS[task][:120])
        assert model.score(PANDAS[120:], TARGETS[task][120:]) > least


def test_added_labels_read_tables_as_they_are():
    y = np.column_stack([HIDDEN[:, 0] > 0, HIDDEN[:, 1] > 0]).astype(int)
    model = AutoencoderClassifier(QUICK, random_state=0).fit(POLARS, y)
    model.add_label(POLARS, (HIDDEN.sum(axis=1) > 0).astype(int))
    assert model.predict(POLARS).shape == (N, 3)
