"""Columns of all dtypes: reading, writing, categories, errors and files."""

import copy
import datetime as dt
import pickle
from dataclasses import fields, replace
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils._param_validation import InvalidParameterError

from skae import files
from skae.table.categories import Categories
from skae.table.columns import Column
from skae.table.dtypes import FrameDtype, PandasDtype
from skae.table.frames import is_plain, library_of, make_frame

NAN = np.nan


def objects(*values):
    """Make an array of objects, without a conversion of any of them."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def dates(*texts, unit="ns", zone=None):
    values = pd.Series(np.array(texts, dtype=f"datetime64[{unit}]"))
    return values if zone is None else values.dt.tz_localize("UTC").dt.tz_convert(zone)


def durations(*numbers, unit="ns"):
    return pd.Series(np.array(numbers, dtype=f"timedelta64[{unit}]"))


def series(values, dtype=object):
    return pd.Series(values, dtype=dtype)


PANDAS = {
    "int64": series([3, 1, 2], "int64"),
    "int8": series([-128, 127, 0], "int8"),
    "uint16": series([65535, 0, 7], "uint16"),
    "float64": series([1.5, NAN, -2], "float64"),
    "float32": series([0.1, NAN, -2], "float32"),
    "float16": series([0.1, NAN, -2], "float16"),
    "sparse": series([0.0, NAN, 2], pd.SparseDtype("float64")),
    "sparse int64": series([0, 0, 2], pd.SparseDtype("int64", 0)),
    "bool": series([True, False, True], "bool"),
    "Int64": series([1, None, 3], "Int64"),
    "UInt8": series([1, None, 255], "UInt8"),
    "Float32": series([0.1, None, 3], "Float32"),
    "Float64": series([0.1, None, 3], "Float64"),
    "boolean": series([True, None, False], "boolean"),
    "str": series(["b", None, "a"], "str"),
    "string": series(["b", None, "a"], "string"),
    "texts": series(objects("b", None, "a")),
    "booleans": series(objects(True, None, False)),
    "integers": series(objects(3, None, 1)),
    "numbers": series(objects(3.5, None, 1)),
    "decimals": series(objects(Decimal("0.1"), None, Decimal("3"))),
    "days": series(objects(dt.date(2020, 1, 1), None, dt.date(1500, 3, 1))),
    "datetimes": series(objects(dt.datetime(2020, 1, 1, 7), None, dt.datetime(1999, 3, 1))),
    "timedeltas": series(objects(dt.timedelta(1), None, dt.timedelta(0, 5))),
    "category": series(["z", None, "a"], pd.CategoricalDtype(["z", "q", "a"])),
    "ordered": series([3, None, 1], pd.CategoricalDtype([5, 3, 1], ordered=True)),
    "floats": series([0.5, 0.25, None], pd.CategoricalDtype([0.5, 0.25, 7.0])),
    "flags": series([True, None, False], "category"),
    "datetime64[ns]": dates("2020-01-05T10:11:12.123456789", "NaT", "2020-01-05T10:11:13"),
    "datetime64[us]": dates("2020-01-05T10:11:12.123456", "NaT", "1900-01-01", unit="us"),
    "datetime64[s]": dates("2020-01-05", "NaT", "0900-01-01", unit="s"),
    "Paris": dates("2020-01-05T10:11", "NaT", "2019-07-01", zone="Europe/Paris"),
    "offset": dates("2020-01-05T10:11", "NaT", "2019-07-01", zone="UTC+00:15"),
    "timedelta64[ns]": durations(10**15 + 1, "NaT", -5),
    "timedelta64[s]": durations(7, "NaT", -86400, unit="s"),
    "no float64": series([NAN] * 3, "float64"),
    "no Int64": series([None] * 3, "Int64"),
    "no str": series([None] * 3, "str"),
    "no objects": series([None] * 3),
    "no category": series([None] * 3, pd.CategoricalDtype(["a"])),
    "no date": dates("NaT", "NaT", "NaT"),
    "no duration": durations("NaT", "NaT", "NaT"),
}  # fmt: skip

MOMENTS = [dt.datetime(2020, 7, 1, 7, 8, 9), None, dt.datetime(1999, 3, 1)]
SPANS = [dt.timedelta(1), None, dt.timedelta(-2, 5)]

POLARS = {
    "Int64": pl.Series([3, 1, 2], dtype=pl.Int64),
    "Int32": pl.Series([3, None, 1], dtype=pl.Int32),
    "UInt8": pl.Series([255, None, 0], dtype=pl.UInt8),
    "Int128": pl.Series([3, None, 1], dtype=pl.Int128),
    "UInt64": pl.Series([3, 1, 2], dtype=pl.UInt64),
    "Float64": pl.Series([1.5, None, -2]),
    "Float32": pl.Series([0.1, None, -2], dtype=pl.Float32),
    "Decimal": pl.Series([Decimal("0.1"), None, Decimal("3.5")]),
    "Boolean": pl.Series([True, None, False]),
    "flags": pl.Series([True, False, False]),
    "String": pl.Series(["b", None, "a"]),
    "Categorical": pl.Series(["b", None, "a"], dtype=pl.Categorical),
    "Enum": pl.Series(["x", None, "z"], dtype=pl.Enum(["z", "q", "x"])),
    "Date": pl.Series([dt.date(2020, 1, 1), None, dt.date(1500, 3, 1)]),
    "Datetime": pl.Series([dt.datetime(2020, 1, 1, 7, 8, 9, 10), None, dt.datetime(1999, 3, 1)]),
    "ns": pl.Series(MOMENTS, dtype=pl.Datetime("ns")),
    "ms": pl.Series([*MOMENTS[:2], dt.datetime(1500, 1, 1)], dtype=pl.Datetime("ms")),
    "Paris": pl.Series(MOMENTS, dtype=pl.Datetime("us", "Europe/Paris")),
    "Duration": pl.Series(SPANS),
    "Duration ms": pl.Series(SPANS, dtype=pl.Duration("ms")),
    "Null": pl.Series([None] * 3),
    "no Int64": pl.Series([None] * 3, dtype=pl.Int64),
    "no String": pl.Series([None] * 3, dtype=pl.String),
    "no Date": pl.Series([None] * 3, dtype=pl.Date),
    "no Duration": pl.Series([None] * 3, dtype=pl.Duration),
}  # fmt: skip

COLUMNS = {f"pandas {name}": pd.DataFrame({"a": column}) for name, column in PANDAS.items()} | {
    f"polars {name}": pl.DataFrame({"a": column}) for name, column in POLARS.items()
}


def infer(X, **kwargs):
    """Make all columns of a table."""
    names = X.columns if hasattr(X, "columns") else range(X.shape[1])
    return [Column.infer(X, j, str(name), **kwargs) for j, name in enumerate(names)]


def encode(columns, X):
    return np.column_stack([column.encode(X, column.index) for column in columns])


def column_of(values, dtype=None, categories=None, name="job"):
    X = pd.DataFrame({name: pd.Series(values, dtype=dtype)})
    return Column.infer(X, 0, name, categories)


def encode_values(column, values, dtype=None):
    return column.encode(pd.DataFrame({"any": pd.Series(values, dtype=dtype)}), 0)


def assert_equal(actual, expected):
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(actual, expected)
    else:
        polars.testing.assert_frame_equal(actual, expected)


@pytest.mark.every_case
@pytest.mark.parametrize("X", COLUMNS.values(), ids=COLUMNS)
def test_written_columns_equal_the_columns_that_were_read(X):
    [column] = infer(X)
    assert_equal(make_frame(library_of(X), [column], encode([column], X)), X)


@pytest.mark.every_case
@pytest.mark.parametrize("X", COLUMNS.values(), ids=COLUMNS)
def test_files_contain_columns(X, tmp_path):
    [column] = infer(X, categories=Categories(max_categories=1))
    files.write(tmp_path / "column", "column", column)
    _, read = files.read(tmp_path / "column", "column")
    assert type(read) is Column
    for one in (read, pickle.loads(pickle.dumps(column))):
        assert repr(one) == repr(column)
        cells = encode([column], X)
        np.testing.assert_array_equal(encode([one], X), cells)
        frame = make_frame(library_of(X), [column], cells)
        assert_equal(make_frame(library_of(X), [one], cells), frame)


@pytest.mark.every_case
@pytest.mark.parametrize("X", COLUMNS.values(), ids=COLUMNS)
def test_a_missing_cell_can_be_written_in_any_column(X):
    [column] = infer(X)
    cells = np.array([[NAN], [0.0 if column.n_levels or not column.is_category else NAN]])
    frame = make_frame(library_of(X), [column], cells)
    assert frame.shape == (2, 1)
    found = pd.isna(frame.iloc[0, 0]) if library_of(X) == "pandas" else frame["a"].is_null()[0]
    assert found


NUMBERS = {name: X for name, X in COLUMNS.items() if not infer(X)[0].is_category}


@pytest.mark.every_case
@pytest.mark.parametrize("X", NUMBERS.values(), ids=NUMBERS)
def test_any_number_can_be_written_in_any_column_of_numbers(X):
    """Cells that a model makes are neither whole nor in the range of the dtype."""
    [column] = infer(X)
    cells = np.array([[-1e12], [0.3], [1e12]])
    frame = make_frame(library_of(X), [column], cells)
    if library_of(X) == "polars":
        assert frame.schema["a"] == X.schema["a"] or X.schema["a"] == pl.Null
    else:
        assert frame["a"].dtype == X["a"].dtype
    if np.isfinite(column.low) and column.step:
        back = column.encode(frame, 0)
        np.testing.assert_allclose(back[[0, 2]], [column.low, column.high], rtol=1e-15)
        np.testing.assert_allclose(back / column.step, np.rint(back / column.step), rtol=1e-15)


def test_a_whole_table_with_an_index_and_labels_of_any_type():
    X = pd.concat(PANDAS.values(), axis=1)
    X.columns = [*range(5), *["twice"] * 2, *map(str, range(X.shape[1] - 7))]
    X.index = pd.Index(["u", "v", "w"], name="row")
    columns = infer(X)
    cells = encode(columns, X)
    assert_equal(make_frame("pandas", columns, cells, X.index), X)
    # The order of the columns is that of the user's table.
    assert_equal(make_frame("pandas", columns[::-1], cells[:, ::-1], X.index), X)
    P = pl.DataFrame(POLARS)
    assert_equal(make_frame("polars", infer(P), encode(infer(P), P)), P)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["str", "Int64", "Paris", "flags", "timedelta64[s]", "category"])
def test_the_order_of_rows_does_not_matter(name, seed):
    X = pd.DataFrame({"a": pd.concat([PANDAS[name]] * 3, ignore_index=True)})
    order = np.random.default_rng(seed).permutation(len(X))
    [column], [other] = infer(X), infer(X.iloc[order])
    assert repr(column) == repr(other)
    np.testing.assert_array_equal(other.encode(X, 0)[order], column.encode(X.iloc[order], 0))


def test_levels_are_sorted():
    X = pd.DataFrame({"a": ["c", "a", "b", "a"], "b": pd.Categorical([3, 10, 1, 3], [10, 3, 2, 1])})
    a, b = infer(X)
    assert a.levels.tolist() == ["a", "b", "c"]
    assert b.levels.tolist() == [1, 3, 10]
    assert a.encode(X, 0).tolist() == [2, 0, 1, 0]
    assert b.encode(X, 1).tolist() == [1, 2, 0, 1]
    assert (a.n_levels, a.is_category, a.kind) == (3, True, "category")


@pytest.mark.parametrize(
    "missing", [None, NAN, pd.NA, pd.NaT, -NAN, Decimal("NaN")], ids=lambda value: str(type(value))
)
def test_missing_cells_have_the_same_bits(missing):
    for values in (objects("a", missing), objects(1.5, missing), objects(True, missing)):
        cells = column_of(values, object).encode(pd.DataFrame({"a": values}, dtype=object), 0)
        assert cells.dtype == np.float64
        assert cells[1:].tobytes() == np.array([NAN]).tobytes()


def test_payloads_of_nan_are_not_kept():
    X = np.array([[0x7FF8000000000123], [0xFFF8000000000000]], np.uint64).view(np.float64)
    cells = Column.infer(X, 0, "0").encode(X, 0)
    assert cells.tobytes() == np.array([NAN, NAN]).tobytes()
    assert X.view(np.uint64)[0, 0] == 0x7FF8000000000123


def test_arrays_of_objects_have_the_cells_of_data_frames():
    X = pd.DataFrame({name: PANDAS[name] for name in ("texts", "booleans", "integers", "days")})
    array = X.to_numpy(dtype=object)
    columns = infer(array)
    np.testing.assert_array_equal(encode(columns, array), encode(infer(X), X))
    assert [column.kind for column in columns] == ["category", "category", "number", "date"]
    assert [column.step for column in columns] == [0, 0, 1, 86400]
    assert [column.dtype for column in columns] == [None] * 4


def test_polars_and_pandas_have_the_same_cells():
    X = pl.DataFrame(POLARS).select("Int64", "Float64", "Boolean", "String", "Datetime", "Duration")
    Y = pd.DataFrame({name: pd.Series(X[name].to_list()) for name in X.columns})
    columns = infer(X)
    np.testing.assert_array_equal(encode(columns, X), encode(infer(Y), Y))
    # A model reads data frames of any library.
    np.testing.assert_array_equal(encode(columns, Y), encode(columns, X))


def test_columns_of_native_arrays_are_continuous():
    column = Column.infer(np.arange(6).reshape(3, 2), 1, "1")
    assert (column.step, column.low, column.high) == (0, 1, 5)
    np.testing.assert_array_equal(column.decode(np.array([7.5, NAN])), [7.5, NAN])


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (["2020-01-01", "2021-01-01"], 86400),
        (["2020-01-01T09:30", "2021-01-01T09:30"], 86400),
        (["2020-01-01T09", "2021-01-01T10"], 3600),
        (["2020-01-01T09:30", "2021-01-01T10"], 60),
        (["2020-01-01T09:30:07", "2021-01-01T10"], 1),
        (["2020-01-01T09:30:07.5", "2021-01-01T10"], 1e-3),
        (["2020-01-01T09:30:07.00002", "2021-01-01T10"], 1e-6),
        (["2020-01-01T09:30:07.000000003", "2020-01-01T10"], 1e-9),
    ],
)
def test_dates_have_the_coarsest_step(times, step):
    values = np.array(times, "datetime64[ns]")
    for sign in (1, -1):
        stamps = np.datetime64(0, "ns") + sign * (values - np.datetime64(0, "ns"))
        [column] = infer(pd.DataFrame({"a": stamps}))
        assert column.step == step
        assert column.origin == int(stamps.min().astype(np.int64))
        assert (column.low, column.high) == (0, np.ptp(stamps) / np.timedelta64(1, "s"))
        middle = column.decode(np.array([column.high / 3]))
        offset = (middle - stamps.min()).astype("timedelta64[ns]").astype(np.int64)
        assert (offset % round(step * 1e9) == 0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "parameters",
    [
        {"min_frequency": 5},
        {"min_frequency": 0.1},
        {"max_categories": 4},
        {"max_categories": 1},
        {"min_frequency": 4, "max_categories": 3},
        {"min_frequency": 0.999},
        {"min_frequency": 1},
    ],
    ids=str,
)
def test_infrequent_categories_are_those_of_one_hot_encoder(parameters, seed):
    rng = np.random.default_rng(seed)
    texts = rng.choice(list("abcdefghij"), 60, p=np.arange(1, 11) / 55).astype(object)
    numbers = np.array([ord(text) for text in texts])
    for values, dtype in ((texts, "str"), (numbers, "category")):
        column = column_of(values, dtype, Categories(**parameters))
        [expected] = OneHotEncoder(**parameters).fit(values[:, None]).infrequent_categories_
        np.testing.assert_array_equal(column.infrequent, expected)
        kept = np.setdiff1d(values, [] if expected is None else expected)
        np.testing.assert_array_equal(column.levels, kept)
        assert column.n_levels == len(kept) + (expected is not None)
        cells = encode_values(column, values, dtype)
        rare = np.isin(values, [] if expected is None else expected)
        assert (cells[rare] == len(kept)).all()
        np.testing.assert_array_equal(column.decode(cells[~rare]), values[~rare])


def test_missing_cells_are_not_a_category():
    values = ["a"] * 3 + ["b"] + [None] * 20
    column = column_of(values, "str", Categories(min_frequency=0.25, max_categories=3))
    assert (column.levels.tolist(), column.infrequent) == (["a", "b"], None)


def test_the_infrequent_level_is_written_and_read():
    rare = Categories(max_categories=2)
    column = column_of(["a", "a", "b", "c"], "str", rare)
    assert column.decode(np.array([0.0, 1.0, NAN])).tolist() == ["a", "infrequent", None]
    assert encode_values(column, ["b", "c", "infrequent", "a"]).tolist() == [1, 1, 1, 0]
    # The text differs from all levels.
    column = column_of(["infrequent"] * 2 + ["b", "c"], "str", rare)
    assert column.decode(np.array([0.0, 1.0])).tolist() == ["infrequent", "infrequent_"]
    # Categories that are not texts have no name for several of them.
    column = column_of([1, 1, 2, 3], "category", rare)
    np.testing.assert_array_equal(column.decode(np.array([0.0, 1.0])), [1, NAN])
    column = column_of([1, 1, 2], "category", rare)
    assert column.decode(np.array([0.0, 1.0])).tolist() == [1, 2]
    column = column_of([True, False], bool, Categories(max_categories=1))
    assert column.decode(np.array([0.0])).tolist() == [None]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_declared_categories_get_an_infrequent_one_where_it_is_needed(library):
    values = ["x", "x", "y", "z"]
    if library == "pandas":
        X = pd.DataFrame({"a": pd.Categorical(values, ["z", "y", "x"], ordered=True)})
    else:
        X = pl.DataFrame({"a": pl.Series(values, dtype=pl.Enum(["z", "y", "x"]))})
    columns = infer(X, categories=Categories(max_categories=2))
    frame = make_frame(library, columns, encode(columns, X))
    assert list(frame["a"]) == ["x", "x", "infrequent", "infrequent"]
    categories = frame["a"].cat.categories if library == "pandas" else frame.schema["a"].categories
    assert list(categories) == ["z", "y", "x", "infrequent"]
    assert_equal(make_frame(library, columns, encode(columns, X[:2])), X[:2])


def test_unknown_categories_are_missing_or_errors():
    column = column_of(["a", "b"], "str")
    np.testing.assert_array_equal(encode_values(column, ["b", "c", None]), [1, NAN, NAN])
    column = column_of(["a", "b", None], "str", Categories(handle_unknown="error"))
    np.testing.assert_array_equal(encode_values(column, ["b", None]), [1, NAN])
    message = (
        r"^Column 'job' must hold categories of the first fit \('a', 'b'\), got 'c' in row 2\.$"
    )
    with pytest.raises(ValueError, match=message):
        encode_values(column, ["b", None, "c"])


def test_categories_of_a_column_without_any_are_missing():
    for categories in (Categories(), Categories(handle_unknown="error")):
        column = column_of([None, None], "str", categories)
        assert (column.n_levels, column.is_category) == (0, True)
        np.testing.assert_array_equal(encode_values(column, ["a", None]), [NAN, NAN])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (objects("a", 1), "int and str"),
        (objects(True, 1.5), "bool and float"),
        (objects([1], [2]), "list"),
        (objects({"a": 1}, None), "dict"),
        (objects(1j, None), "complex"),
        (objects(dt.time(1), None), "time"),
        (objects(b"a", None), "bytes"),
        (objects(dt.date(2020, 1, 1), "2020"), "date and str"),
        (np.array([1j, 2]), "complex"),
        (pd.period_range("2020", periods=2).array, "Period"),
        (pd.cut([1, 2], 2).astype(object), "Interval"),
    ],
)
def test_columns_without_a_kind_are_refused(values, names):
    X = pd.DataFrame({"first": [0, 1], "odd": values})
    message = (
        r"^In column 1 \('odd'\) of X, each argument must be a string, a number, a boolean, a date "
        r"or a duration, and all rows must have the same type, "
        rf"got {names}\. Convert .*astype\(str\)"
    )
    with pytest.raises(TypeError, match=message):
        Column.infer(X, 1, "odd")


@pytest.mark.parametrize("values", [pd.cut([1, 2], 2), pd.Categorical(dates("2020", "2021"))])
def test_categories_without_a_kind_are_refused(values):
    with pytest.raises(TypeError, match=r"column 0 \('a'\) of X.*astype\(str\)"):
        infer(pd.DataFrame({"a": values}))


X_OF_FIT = pd.DataFrame(
    {
        "age": [20.5, 30],
        "job": ["clerk", "cook"],
        "born": dates("2000-01-01", "2001-01-01"),
        "stay": durations(1, 2, unit="s"),
        "level": pd.Categorical([1, 2]),
    }
)


@pytest.mark.every_case
@pytest.mark.parametrize(
    ("index", "values", "error", "message"),
    [
        (0, [1, np.inf], ValueError, "Column {} contains infinity in row 1"),
        (0, objects(None, -np.inf), ValueError, "Column {} contains infinity in row 1"),
        (0, objects(1, 10**400), ValueError, "Column {} contains infinity in row 1"),
        (0, objects(None, "old"), ValueError, "In column {}, .* number, .* got 'old' in row 1"),
        (0, objects(1, [2]), (TypeError, ValueError), r"In column {}, .*, got \[2\] in row 1"),
        (0, objects(1, {}), TypeError, r"In column {}, .*, got \{{\}} in row 1"),
        (0, dates("NaT", "2020"), TypeError, "In column {}, .*, got Timestamp.* in row 1"),
        (1, [NAN, 3], TypeError, "In column {}, .* must be a string, as .*, got 3 in row 1"),
        (1, objects("cook", 3), TypeError, "In column {}, .* same type, got int and str"),
        (2, [None, "2000"], TypeError, "Column {} must hold dates.*'2000' in row 1.*to_datetime"),
        (2, [1, 2], TypeError, "Column {} must hold dates, .*1.* in row 0"),
        (2, durations(1, 2), TypeError, "Column {} must hold dates, .* in row 0"),
        (3, dates("2000", "2001"), TypeError, r"Column {} must hold durations, .*\.to_timedelta"),
        (4, ["1", "2"], TypeError, "In column {}, .* must be a number or a boolean, .*'1' in row"),
    ],
)
def test_values_of_another_type_are_errors(index, values, error, message):
    column = infer(X_OF_FIT)[index]
    label = rf"{index} \('{column.name}'\) of X"
    with pytest.raises(error, match=f"^{message.format(label)}"):
        column.encode(pd.DataFrame({"any": values}), 0)


def test_infinity_is_an_error_at_the_fit():
    with pytest.raises(ValueError, match=r"^Column 1 of X contains infinity in row 0"):
        Column.infer(np.array([[0, np.inf], [0, 1]]), 1, "1")


def test_values_of_related_types_are_read():
    age, job, born, stay, level = infer(X_OF_FIT)
    np.testing.assert_array_equal(encode_values(age, ["1.5", None]), [1.5, NAN])
    np.testing.assert_array_equal(encode_values(age, [True, False]), [1, 0])
    np.testing.assert_array_equal(encode_values(age, ["2", "3"], "category"), [2, 3])
    np.testing.assert_array_equal(encode_values(level, [2.0, 1.0]), [1, 0])
    np.testing.assert_array_equal(encode_values(job, ["cook", "clerk"], "category"), [1, 0])
    day = [dt.date(2000, 1, 2), dt.datetime(2000, 1, 1, 0, 0, 1)]
    assert encode_values(born, day[:1], object).tolist() == [86400]
    assert encode_values(born, day[1:], object).tolist() == [1]
    zoned = dates("2000-01-01T01", zone="Asia/Tokyo")
    assert encode_values(born, zoned).tolist() == [3600]
    assert encode_values(stay, [dt.timedelta(0, 5)], object).tolist() == [5]
    for column in (age, job, born, stay, level):
        for values in ([NAN] * 2, objects(None, None), [pd.NaT] * 2, [pd.NA] * 2):
            assert np.isnan(encode_values(column, values)).all()


def test_cells_that_a_dtype_cannot_hold_are_clipped():
    for name in ("int64", "uint64", "Int64", "UInt64"):
        high = np.iinfo(name.lower()).max
        X = pd.DataFrame({"a": pd.Series([0, high], dtype=name)})
        [column] = infer(X)
        frame = make_frame("pandas", [column], encode([column], X))
        assert frame["a"].dtype == name
        assert 0 <= high - int(frame["a"][1]) < 2048


def test_missing_cells_of_a_dtype_without_them():
    X = pd.DataFrame({"i": [1, 2], "b": [True, False]})
    frame = make_frame("pandas", infer(X), np.array([[1, NAN], [NAN, 1]]))
    expected = pd.DataFrame({"i": [1.0, NAN], "b": objects(None, True)})
    pd.testing.assert_frame_equal(frame, expected)


NATIVE = pd.DataFrame({"a": [1, 2], "b": np.array([1, 2], "f"), "c": np.array([1, 2], "u1")})
TABLES = {
    "floats": (np.ones((2, 2)), True, ""),
    "booleans": (np.ones((2, 2), bool), True, ""),
    "objects": (np.ones((2, 2), object), False, ""),
    "texts": (np.array([["a"]]), False, ""),
    "dates": (np.array([["2020"]], "datetime64[D]"), False, ""),
    "list": ([[1, 2]], True, ""),
    "native": (NATIVE, True, "pandas"),
    "bool": (NATIVE.assign(d=True), False, "pandas"),
    "Int64": (NATIVE.astype({"a": "Int64"}), False, "pandas"),
    "str": (NATIVE.assign(d="a"), False, "pandas"),
    "object": (NATIVE.astype({"a": object}), False, "pandas"),
    "category": (NATIVE.astype({"a": "category"}), False, "pandas"),
    "date": (NATIVE.assign(d=dates("2020", "2021")), False, "pandas"),
    "sparse": (NATIVE.astype({"a": pd.SparseDtype("float64")}), True, "pandas"),
    "twice": (NATIVE.set_axis(["a", "a", "b"], axis=1), True, "pandas"),
    "polars": (pl.DataFrame({"a": [1, None], "b": [0.5, 2]}), True, "polars"),
    "polars bool": (pl.DataFrame({"a": [1, 2], "b": [True, False]}), False, "polars"),
    "polars text": (pl.DataFrame({"a": ["a"]}), False, "polars"),
    "polars decimal": (pl.DataFrame({"a": [Decimal("1.5")]}), False, "polars"),
    "polars date": (pl.DataFrame({"a": [dt.date(2020, 1, 1)]}), False, "polars"),
}  # fmt: skip


@pytest.mark.every_case
@pytest.mark.parametrize(("X", "plain", "library"), TABLES.values(), ids=TABLES)
def test_plain_tables_and_libraries(X, plain, library):
    assert is_plain(X) is plain
    assert library_of(X) == library


def test_categories_are_a_nested_parameter():
    class Owner(BaseEstimator):
        def __init__(self, categories=None):
            self.categories = categories

    owner = clone(Owner(Categories(min_frequency=3))).set_params(categories__max_categories=5)
    assert owner.get_params()["categories__min_frequency"] == 3
    assert repr(owner.categories) == "Categories(max_categories=5, min_frequency=3)"
    assert repr(copy.deepcopy(owner.categories)) == repr(owner.categories)


@pytest.mark.parametrize(
    "parameters",
    [
        {"min_frequency": 0},
        {"min_frequency": 1.0},
        {"min_frequency": 0.0},
        {"min_frequency": True},
        {"min_frequency": "rare"},
        {"max_categories": 0},
        {"max_categories": 2.5},
        {"handle_unknown": "ignore"},
        {"handle_unknown": None},
    ],
    ids=str,
)
def test_invalid_parameters_of_categories(parameters, tmp_path):
    categories = Categories(**parameters)
    [name] = parameters
    for values, dtype in ((["a"], "str"), ([1.5], None)):
        with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of Categories must"):
            column_of(values, dtype, categories)
    files.write(tmp_path / "file", "categories", categories)
    with pytest.raises(ValueError, match=f"'{name}' parameter of Categories must"):
        files.read(tmp_path / "file", "categories")


def test_files_contain_categories(tmp_path):
    categories = Categories(min_frequency=0.1, max_categories=7, handle_unknown="error")
    files.write(tmp_path / "file", "categories", categories)
    assert repr(files.read(tmp_path / "file", "categories")[1]) == repr(categories)
    with pytest.raises(ValueError, match="fields of a Categories are"):
        Categories._from_stored_state({"min_frequency": 1})


def test_columns_of_earlier_files():
    levels = np.array(["a", "b"], dtype=object)
    column = Column._from_stored_state({"index": 3, "name": "sex", "levels": levels})
    assert (column.kind, column.handle_unknown, column.label) == ("category", "error", "sex")
    assert (column.n_levels, column.dtype, column.infrequent) == (2, None, None)
    with pytest.raises(ValueError, match="Column 'sex' must hold categories"):
        encode_values(column, ["a", "c"])
    column = Column._from_stored_state({"index": 3, "name": "age", "levels": None})
    assert (column.kind, column.n_levels, column.step) == ("number", 0, 0)
    assert column.decode(np.array([0.5])).tolist() == [0.5]


def strings(*values):
    return np.array(values, dtype=object)


CATEGORY = Column(0, "a", strings("b", "c"), kind="category", infrequent=strings("a"))
NUMBER = Column(0, "a", None, low=0.0, high=9.0, step=1.0)
DATE = Column(0, "a", None, kind="date", low=0.0, high=86400.0, step=86400.0, origin=-(10**20))

FORGED = {
    "a kind": (NUMBER, {"kind": "colour"}, "kind 'colour'"),
    "a number with levels": (NUMBER, {"levels": np.arange(2)}, "contradicts levels"),
    "a category without levels": (CATEGORY, {"levels": None}, "must be other|contradicts levels"),
    "a date as category": (DATE, {"kind": "category"}, "contradicts levels"),
    "levels in no order": (CATEGORY, {"levels": strings("c", "b")}, "sorted distinct"),
    "levels of no dimension": (CATEGORY, {"levels": np.array(1)}, "sorted distinct"),
    "levels of bytes": (CATEGORY, {"levels": objects(b"b")}, "sorted distinct"),
    "NaN as level": (CATEGORY, {"levels": np.array([NAN]), "infrequent": None}, "sorted distinct"),
    "no known level": (
        CATEGORY,
        {"levels": strings(), "infrequent": None, "handle_unknown": "error"},
        "sorted distinct",
    ),
    "rare levels in no order": (CATEGORY, {"infrequent": strings("z", "a")}, "sorted distinct"),
    "no rare levels": (CATEGORY, {"infrequent": strings()}, "must be other levels"),
    "rare levels twice": (CATEGORY, {"infrequent": strings("a", "b")}, "must be other levels"),
    "rare numbers": (CATEGORY, {"infrequent": np.arange(2)}, "must be other levels"),
    "rare flags": (
        CATEGORY,
        {"levels": np.array([2.0, 3.0]), "infrequent": np.array([True])},
        "must be other levels",
    ),
    "rare levels of a number": (NUMBER, {"infrequent": strings("a")}, "infrequent levels"),
    "unknown handling": (CATEGORY, {"handle_unknown": "print"}, "handle_unknown of a Column"),
    "a range upside down": (NUMBER, {"low": 10.0}, "range"),
    "a range of NaN": (NUMBER, {"low": NAN}, "range"),
    "half a range": (NUMBER, {"high": np.inf}, "range"),
    "a range at infinity": (NUMBER, {"low": np.inf, "high": np.inf}, "range"),
    "a step of numbers": (NUMBER, {"step": 0.5}, "step"),
    "a step of categories": (CATEGORY, {"step": 1.0}, "step"),
    "a step of dates": (DATE, {"step": 7.0}, "step"),
    "a step of NaN": (DATE, {"step": NAN}, "step"),
    "an origin of numbers": (NUMBER, {"origin": 1}, "origin 1"),
    "an origin too early": (DATE, {"origin": -(10**40)}, "origin"),
    "an origin as text": (DATE, {"origin": "1970"}, "origin of a Column cannot be"),
    "dtype as text": (NUMBER, {"dtype": "int64"}, "dtype of a Column cannot be"),
    "label as a number": (NUMBER, {"label": 0.5}, "label of a Column cannot be"),
}


@pytest.mark.every_case
@pytest.mark.parametrize(("column", "change", "message"), FORGED.values(), ids=FORGED)
def test_forged_columns_are_refused(column, change, message):
    state = {field.name: getattr(column, field.name) for field in fields(column)}
    assert repr(Column._from_stored_state(state)) == repr(column)
    with pytest.raises(ValueError, match=message):
        Column._from_stored_state(state | change)


FORGED_DTYPES = {
    "unknown": (PandasDtype("int64"), {"name": "colour"}, "dtype 'colour'"),
    "structure": (PandasDtype("int64"), {"name": "i8,f8"}, "dtype 'i8,f8'"),
    "complex": (PandasDtype("int64"), {"name": "complex128"}, "dtype 'complex128'"),
    "zone": (PandasDtype("int64"), {"name": "datetime64[ns, ../zone]"}, "dtype 'datetime64"),
    "no categories": (PandasDtype("int64"), {"name": "category"}, "have categories"),
    "categories": (PandasDtype("int64"), {"categories": strings("a")}, "have categories"),
    "twice": (
        PandasDtype("category", categories=strings("a")),
        {"categories": strings("a", "a")},
        "must be distinct",
    ),
    "narwhals": (FrameDtype("Int64"), {"name": "colour"}, "dtype 'colour'"),
    "function": (FrameDtype("Int64"), {"name": "from_native"}, "dtype 'from_native'"),
    "nested": (FrameDtype("Int64"), {"name": "List"}, "dtype 'List'"),
    "unit": (FrameDtype("Duration", "ns"), {"unit": "weeks"}, "of unit 'weeks'"),
    "surplus unit": (FrameDtype("Int64"), {"unit": "ns"}, "of unit 'ns'"),
    "time zone": (FrameDtype("Datetime", "ns", "UTC"), {"time_zone": "../zone"}, "no time zone"),
    "enum": (FrameDtype("Int64"), {"name": "Enum"}, "have categories"),
}


@pytest.mark.every_case
@pytest.mark.parametrize(("dtype", "change", "message"), FORGED_DTYPES.values(), ids=FORGED_DTYPES)
def test_forged_dtypes_are_refused(dtype, change, message):
    state = {field.name: getattr(dtype, field.name) for field in fields(dtype)}
    assert repr(type(dtype)._from_stored_state(state)) == repr(dtype)
    with pytest.raises(ValueError, match=message):
        type(dtype)._from_stored_state(state | change)


def test_a_condition_of_whole_numbers_is_categorical():
    X = pd.DataFrame({"a": [1, 2, 1], "b": [0.5, 1, 2]})
    a, b = (Column.of_condition(X, j, name) for j, name in enumerate(X))
    assert (a.kind, a.levels.tolist(), a.handle_unknown) == ("category", [1, 2], "error")
    assert (b.kind, b.levels) == ("number", None)
    # Files do not contain the values of numeric conditions.
    assert (b.low, b.high) == (-np.inf, np.inf)
    cells = np.column_stack([a.encode_condition(X, 0), b.encode_condition(X, 1)])
    assert_equal(make_frame("pandas", [a, b], cells), X)
    assert a.classes(cells[:, 0]).tolist() == [1, 2, 1]
    assert b.classes(cells[:, 1]).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="Column 'a' contains NaN in row 0"):
        a.encode_condition(pd.DataFrame({"a": [NAN]}), 0)
    other = replace(a, name="c")
    with pytest.raises(ValueError, match=r"Column 'c' must hold categories.*, got 7 in row 0"):
        other.encode_condition(pd.DataFrame({"a": [7]}), 0)
