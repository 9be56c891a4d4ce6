"""Data frames whose library, labels or dtypes differ from those of the fit, or are unusual."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from test_mixed import PANDAS, N, is_missing, made

import skae
from skae import AutoencoderImputer, AutoencoderOutlierDetector


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
