"""Data frames whose library, labels or dtypes differ from those of the fit, or are unusual."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from test_mixed import PANDAS, N, is_missing, made

import skae
from skae import (
    AutoencoderClassifier,
    AutoencoderImputer,
    AutoencoderOutlierDetector,
    ConditionalVariationalAutoencoder,
)


def in_polars(frame):
    """The same table in polars."""
    cells = frame.astype(object).where(frame.notna(), None)
    return pl.DataFrame({name: pl.Series(name, cells[name].tolist()) for name in frame})


def texts(table):
    """The cells of a table as texts, whatever its library is, with None for missing ones."""
    if isinstance(table, pl.DataFrame):
        table = pd.DataFrame({name: pd.Series(table[name].to_list()) for name in table.columns})
    objects = table.astype(object)
    parts = objects.map(lambda cell: None if pd.isna(cell) else as_text(cell))
    return parts.to_numpy().tolist()


def as_text(cell):
    is_number = isinstance(cell, int | float | np.number) and not isinstance(cell, bool | np.bool_)
    if is_number and not isinstance(cell, pd.Timedelta):
        return f"{float(cell):.5g}"
    return str(pd.Timestamp(cell)) if hasattr(cell, "year") else str(cell)


OTHER = in_polars(PANDAS)
PAIRS = [
    pytest.param(PANDAS, OTHER, id="pandas then polars"),
    pytest.param(OTHER, PANDAS, id="polars then pandas"),
]


@pytest.mark.parametrize(("first", "later"), PAIRS)
def test_the_library_of_rows_may_differ_from_that_of_fit(first, later):
    model = made(skae.Autoencoder).fit(first)
    np.testing.assert_array_equal(model.transform(later), model.transform(first))
    back = model.reconstruct(later)
    assert type(back) is type(first)
    assert texts(back) == texts(model.reconstruct(first))
    imputer = AutoencoderImputer(made(skae.Autoencoder), random_state=0).fit(first)
    for fill in (
        model.impute,
        lambda X: model.impute(X, n_draws=1, random_state=0)[0],
        imputer.transform,
    ):
        completed = fill(later)
        assert type(completed) is type(later)
        assert texts(completed) == texts(fill(first))
        assert not is_missing(completed).any()


@pytest.mark.parametrize(("first", "later"), PAIRS)
def test_explanations_have_the_library_of_the_rows(first, later):
    detector = AutoencoderOutlierDetector(made(skae.Autoencoder), random_state=0).fit(first)
    found, same = detector.explain(later), detector.explain(first)
    for title in ("deviation", "expected", "share"):
        assert type(found[title]) is type(later)
        assert texts(found[title]) == texts(same[title])


def test_completed_columns_keep_the_dtypes_of_the_rows():
    model = made(skae.Autoencoder).fit(PANDAS)
    rows = PANDAS.astype({"age": "float64", "job": "category", "rooms": "Int32", "size": "str"})
    completed = model.impute(rows)
    pd.testing.assert_series_equal(completed.dtypes, rows.dtypes)
    known = rows.notna()
    pd.testing.assert_frame_equal(completed.where(known), rows)
    enum = pl.Enum(["clerk", "cook", "nurse", "pilot"])
    later = OTHER.with_columns(pl.col("job").cast(enum), pl.col("rooms").cast(pl.Int16))
    assert model.impute(later).schema == later.schema


def test_a_column_that_is_missing_in_all_rows_has_the_dtype_of_the_fit():
    model = made(skae.Autoencoder).fit(PANDAS)
    row = PANDAS[:1].assign(job=np.nan, since=np.nan)
    pd.testing.assert_series_equal(model.impute(row).dtypes, PANDAS.dtypes)
    assert len(model.impute(row)) == 1 < N
    empty = pl.DataFrame({name: [None] if name != "children" else [1] for name in PANDAS})
    completed = model.impute(empty)
    assert not is_missing(completed).any()
    assert completed["since"].dtype == pl.Datetime("us")
    assert completed["lasts"].dtype == pl.Duration("us")
    assert completed["job"].dtype == pl.String


# ---------------------------------------------------------------------------------- numeric frames

NUMBERS = pd.DataFrame(
    np.random.default_rng(0).normal(size=(N, 3)), columns=["a", "b", "c"]
).assign(b=lambda frame: (frame["b"] > 0).astype(float))


@pytest.mark.parametrize("X", [NUMBERS, NUMBERS.mask(NUMBERS > 2), pl.DataFrame(NUMBERS)])
@pytest.mark.parametrize(
    "task", [AutoencoderImputer, AutoencoderOutlierDetector, AutoencoderClassifier]
)
def test_tasks_pass_rows_without_names_to_likelihoods_by_columns(task, X):
    """Warnings are errors here, as scikit-learn warns about names that fit has not received."""
    fitted = made(skae.Autoencoder, likelihood={"bernoulli": ["b"]}).fit(X)
    options = {"fine_tune": False} if task is AutoencoderClassifier else {}
    y = np.arange(N) % 2
    model = task(FrozenEstimator(fitted), random_state=0, **options).fit(X, y)
    rows = model.preprocess(X)
    assert isinstance(rows, np.ndarray)
    for method in ("transform", "score_samples", "reconstruction_error"):
        expected = getattr(fitted, method)(X)
        np.testing.assert_array_equal(getattr(model.autoencoder_, method)(rows), expected)
    completed = model.autoencoder_.impute(rows)
    np.testing.assert_array_equal(completed, fitted.impute(X))


# -------------------------------------------------------------------------------- names of columns


@pytest.mark.parametrize("table", [NUMBERS, PANDAS[["age", "job", "smoker"]]])
@pytest.mark.parametrize("labels", [["a", "b", "a"], [0, 1, 0]])
def test_names_that_occur_twice_are_refused(table, labels):
    twice = table.set_axis(labels, axis=1)
    match = f"X must have unique column names, got {labels[0]!r} 2 times. Rename the columns"
    model = made(skae.Autoencoder)
    for X in (table, table.to_numpy(dtype=object)):
        model.fit(X)
        for method in (model.transform, model.score_samples, model.impute, model.partial_fit):
            with pytest.raises(ValueError, match=match):
                method(twice)
    with pytest.raises(ValueError, match=match.replace("X", "X_corrupted", 1)):
        model.fit(table, X_corrupted=twice)
    for other in (made(skae.Autoencoder), AutoencoderImputer(), AutoencoderOutlierDetector()):
        with pytest.raises(ValueError, match=match):
            other.fit(twice)


@pytest.mark.parametrize("names", [["age", "job", "smoker"], ["age", "children", "rooms"]])
def test_labels_of_several_levels_come_back(names, tmp_path):
    labels = pd.MultiIndex.from_tuples([("person", "age"), ("person", 1), ("house", "c")])
    table = PANDAS[names].set_axis(labels, axis=1)
    model = made(skae.Autoencoder).fit(table)
    np.testing.assert_array_equal(
        model.transform(table), made(skae.Autoencoder).fit(PANDAS[names]).transform(PANDAS[names])
    )
    model.save(tmp_path / "model")
    for again in (model, skae.load(tmp_path / "model")):
        for back in (again.reconstruct(table), again.sample(3), again.impute(table)):
            pd.testing.assert_index_equal(back.columns, labels)
    detector = AutoencoderOutlierDetector(made(skae.Autoencoder), random_state=0).fit(table)
    pd.testing.assert_index_equal(detector.explain(table)["expected"].columns, labels)
    own = made(ConditionalVariationalAutoencoder, condition=[1], n_components=1)
    drawn = own.fit(table).sample(2, condition=table[:2])
    pd.testing.assert_index_equal(drawn.columns, labels)


# -------------------------------------------------------------------------------------- the imputer


def imputer(X, **parameters):
    return AutoencoderImputer(made(skae.Autoencoder), random_state=0, **parameters).fit(X)


@pytest.mark.parametrize("labels", [[5, 7], pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])])
def test_indicators_of_other_labels_than_strings_are_named_as_by_scikit_learn(labels):
    X = pd.DataFrame({"a": [1.0, np.nan, 3.0, 4.0] * 9, "b": [1.0, 2.0, 3.0, 5.0] * 9})
    X.columns = labels
    completed = imputer(X, add_indicator=True).transform(X)
    expected = SimpleImputer(add_indicator=True).set_output(transform="pandas").fit_transform(X)
    assert list(completed.columns) == list(expected.columns) == ["x0", "x1", "missingindicator_x0"]
    np.testing.assert_array_equal(completed["missingindicator_x0"], X.isna().iloc[:, 0])
    pd.testing.assert_index_equal(imputer(X).transform(X).columns, X.columns)


@pytest.mark.parametrize("convert", [lambda frame: frame, in_polars])
def test_columns_named_like_an_indicator_are_refused(convert):
    X = convert(PANDAS[["age", "children"]].rename(columns={"children": "missingindicator_age"}))
    with pytest.raises(ValueError, match="a column 'missingindicator_age', but X has a column of"):
        imputer(X, add_indicator=True)
    model = imputer(X).set_params(add_indicator=True)
    for call in (lambda: model.transform(X), model.get_feature_names_out):
        with pytest.raises(ValueError, match="Rename it, or set add_indicator=False"):
            call()


@pytest.mark.parametrize("convert", [lambda frame: frame, in_polars, lambda f: f.to_numpy(object)])
def test_an_unseen_category_is_an_observed_cell_of_the_user(convert):
    table = PANDAS[["age", "job"]]
    new = table.copy()
    seen = new["job"].notna()
    new.loc[seen, "job"] = "pilot"
    model = imputer(convert(table), add_indicator=True)
    completed = np.array(texts(as_frame(model.transform(convert(new)))))
    is_missing_job = completed[:, -1] == "True"
    np.testing.assert_array_equal(is_missing_job, ~seen)
    np.testing.assert_array_equal(completed[:, 1] == "pilot", seen)
    frozen = FrozenEstimator(made(skae.Autoencoder).fit(convert(table)))
    complete = convert(new[seen])
    of_frozen = AutoencoderImputer(frozen, add_indicator=True).fit(complete)
    names = of_frozen.get_feature_names_out()
    assert f"missingindicator_{names[1]}" not in names


def as_frame(table):
    return pd.DataFrame(table) if isinstance(table, np.ndarray) else table


@pytest.mark.parametrize("dtype", [np.float64, np.float32, object])
def test_a_column_without_observed_cells_stays_missing_in_arrays_too(dtype):
    X = NUMBERS.mask(NUMBERS > 1).assign(empty=np.nan)
    array = X.to_numpy(dtype)
    model, of_frame = made(skae.Autoencoder).fit(array), made(skae.Autoencoder).fit(X)
    for method in ("reconstruct", "impute"):
        found = getattr(model, method)(array)
        np.testing.assert_array_equal(np.isnan(found.astype(float)).all(axis=0), [0, 0, 0, 1])
        if dtype is np.float64:
            np.testing.assert_array_equal(found, getattr(of_frame, method)(X))
    if dtype is not object:
        assert model.reconstruct(array).dtype == imputer(array).transform(array).dtype == dtype
    np.testing.assert_array_equal(
        np.isnan(imputer(array).transform(array).astype(float)), imputer(X).transform(X).isna()
    )
    assert np.isnan(model.sample(3)[:, -1].astype(float)).all()


def test_a_conditional_model_keeps_columns_without_observed_cells():
    X = NUMBERS.assign(empty=np.nan).astype(np.float32)
    model = made(ConditionalVariationalAutoencoder, condition=[1], n_components=1)
    for table in (X, X.to_numpy()):
        back = np.asarray(model.fit(table).reconstruct(table))
        assert back.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(back), np.isnan(X.to_numpy()))
