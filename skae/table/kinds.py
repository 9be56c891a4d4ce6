"""Kinds of columns, and the values of a column as numbers, points in time or categories."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from skae.parameters import short_repr
from skae.table.containers import is_frame

Describe = Callable[[], str]
"""Function that returns the label of a column for an error message."""

KINDS = ("number", "category", "date", "duration")
"""Kinds of columns."""

KIND_OF_OBJECTS = {
    "empty": "number",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "string": "category",
    "boolean": "category",
    "date": "date",
    "datetime": "date",
    "datetime64": "date",
    "timedelta": "duration",
    "timedelta64": "duration",
}
"""Kind of a column of Python objects, by the type that pandas infers."""

NUMBERS = (int, float, Decimal, np.integer, np.floating)
"""Types of numbers, which a column of objects may mix."""

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Number of nanoseconds in each unit of times that pandas has, from the coarsest to the finest."""

WIDE_DTYPES = (nw.Decimal, nw.Int128, nw.UInt128)
"""Dtypes of numbers that arrays contain as objects."""

MISSING_DTYPES = {"String": "str", "Categorical": "str", "Enum": "str", "Boolean": "boolean"}
"""Dtype in pandas of a column of another library without observed cells, by its dtype there."""

TIME_STEPS = (0.0, 86400.0, 3600.0, 60.0, 1.0, 1e-3, 1e-6, 1e-9)
"""Steps of dates and durations, in seconds. 0 is for columns without an observed cell."""


@dataclass(frozen=True)
class Times:
    """Points in time since the epoch, or durations.

    Attributes
    ----------
    seconds : ndarray of shape (n,), int64
        Whole seconds, rounded down.
    nanoseconds : ndarray of shape (n,), int64
        The rest, at least 0 and below 10 ** 9.
    missing : ndarray of shape (n,), bool
        The missing cells, whose numbers are 0.
    """

    seconds: NDArray[np.int64]
    nanoseconds: NDArray[np.int64]
    missing: NDArray[np.bool_]

    def earliest(self) -> int:
        """Return the earliest time in nanoseconds, or 0 if all are missing."""
        if self.missing.all():
            return 0
        first = int(self.seconds[~self.missing].min())
        is_first = ~self.missing & (self.seconds == first)
        return first * 10**9 + int(self.nanoseconds[is_first].min())

    def since(self, origin: int) -> NDArray[np.float64]:
        """Return the times in seconds since an origin in nanoseconds, with NaN for missing ones."""
        seconds = self.seconds - origin // 10**9
        nanoseconds = self.nanoseconds - origin % 10**9
        # Both parts get the same sign, so that nothing cancels in their sum.
        carry = np.where(seconds * np.sign(nanoseconds) < 0, np.sign(nanoseconds), 0)
        cells = (seconds + carry) + (nanoseconds - carry * 10**9) / 1e9
        cells[self.missing] = np.nan
        return cells

    def step(self, origin: int) -> float:
        """Return the coarsest of `TIME_STEPS` of which all times since an origin are multiples."""
        if self.missing.all():
            return 0.0
        seconds = (self.seconds - origin // 10**9)[~self.missing]
        nanoseconds = (self.nanoseconds - origin % 10**9)[~self.missing]
        if nanoseconds.any():
            steps = [step for step in TIME_STEPS if 0 < step < 1]
            return next(step for step in steps if not (nanoseconds % round(step * 1e9)).any())
        return next(step for step in TIME_STEPS[1:] if not (seconds % int(step)).any())


def as_series(X: Any, position: int) -> pd.Series:
    """Return a column of a data frame or of an array as a Series of pandas.

    The dtypes of other libraries become those of pandas that hold the same values. Categories and
    texts become objects.
    """
    if isinstance(X, pd.DataFrame):
        return X.iloc[:, position]
    if not is_frame(X):
        cells = X[:, position]
        # Without a dtype, pandas would convert objects to texts.
        return pd.Series(cells, dtype=object if cells.dtype.kind in "OSUT" else None)
    series: nw.Series = nw.from_native(X, eager_only=True)[:, position]
    dtype = series.dtype
    is_native = dtype.is_numeric() and not isinstance(dtype, WIDE_DTYPES)
    if is_native and dtype.is_integer() and series.null_count():
        missing = series.is_null().to_numpy()
        return pd.Series(pd.arrays.IntegerArray(series.fill_null(0).to_numpy(), missing))
    if is_native or isinstance(dtype, nw.Date | nw.Datetime | nw.Duration):
        return pd.Series(series.to_numpy())
    # Objects that are all missing have no kind, but the dtype of the column has one.
    is_observed = series.null_count() < len(series)
    name = object if is_observed else MISSING_DTYPES.get(type(dtype).__name__, object)
    return pd.Series(series.to_list(), dtype=name)


def kind_of(series: pd.Series, describe: Describe) -> str:
    """Return the kind of a column.

    Raises TypeError if its values have different types, or a type that has no kind.
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or types.is_bool_dtype(dtype):
        return "category"
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return "number"
    if types.is_datetime64_any_dtype(dtype):
        return "date"
    if types.is_timedelta64_dtype(dtype):
        return "duration"
    values = series.to_numpy(dtype=object)
    found = type_of_objects(values)
    if found in KIND_OF_OBJECTS:
        return KIND_OF_OBJECTS[found]
    kinds = {type(value) for value in values[~pd.isna(values)]}
    if all(issubclass(kind, NUMBERS) and kind is not bool for kind in kinds):
        return "number"
    names = " and ".join(sorted({kind.__name__ for kind in kinds}))
    raise TypeError(
        f"In column {describe()}, each argument must be a string, a number, a boolean, a date or a "
        f"duration, and all rows must have the same type, got {names}. Convert the column to one "
        "of these types, for instance with astype(str), or drop it."
    )


def type_of_objects(values: NDArray[np.object_]) -> str:
    """Return the type of the objects of a column, as pandas infers it from those not missing."""
    found = str(types.infer_dtype(values, skipna=True))
    if found in KIND_OF_OBJECTS:
        return found
    # pandas skips NaT among times only.
    return str(types.infer_dtype(values[~pd.isna(values)]))


def is_whole(series: pd.Series) -> bool:
    """Return whether the dtype of a column, or the type of its objects, is an integer."""
    if series.dtype == object:
        return type_of_objects(series.to_numpy()) == "integer"
    return bool(types.is_integer_dtype(series.dtype))


def read_numbers(series: pd.Series, describe: Describe) -> NDArray[np.float64]:
    """Convert a column to numbers, in which missing cells are NaN.

    Raises ValueError or TypeError if a value is infinite or is not a number.
    """
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        # The values are copied, since missing cells are overwritten.
        numbers = np.array(series.to_numpy(dtype=np.float64, na_value=np.nan))
        missing = np.isnan(numbers)
    else:
        values = series.to_numpy(dtype=object)
        missing = pd.isna(values)
        numbers = np.empty(len(values))
        try:
            numbers[~missing] = values[~missing].astype(np.float64)
        except (ValueError, TypeError, OverflowError):
            _raise_no_number(values, describe)
            raise
        missing = missing | np.isnan(numbers)
    # NaN has many bit patterns, but equal rows must have equal bits.
    numbers[missing] = np.nan
    infinite = np.isinf(numbers)
    if infinite.any():
        raise ValueError(_infinite_cell(describe(), int(infinite.argmax())))
    return numbers


def _infinite_cell(column: str, row: int) -> str:
    """Return the message of the error about an infinite cell."""
    return (
        f"Column {column} contains infinity in row {row}, or a value that is too large for "
        "float64. Replace this value or drop the row."
    )


def _raise_no_number(values: NDArray[np.object_], describe: Describe) -> None:
    """Raise an error that names the first value that cannot be converted to a float."""
    for row in np.flatnonzero(~pd.isna(values)):
        try:
            values[row : row + 1].astype(np.float64)
        except OverflowError:
            raise ValueError(_infinite_cell(describe(), int(row))) from None
        except (ValueError, TypeError) as error:
            raise type(error)(
                f"In column {describe()}, each argument must be a number or the string of a "
                f"number, as in the first fit, got {short_repr(values[row])} in row {row}. Replace "
                "this value."
            ) from None


def read_times(series: pd.Series, kind: str, describe: Describe) -> Times:
    """Convert a column to times of a kind, "date" or "duration".

    Dates without a time zone are in UTC. Raises TypeError if a value has another type.
    """
    missing = series.isna().to_numpy()
    empty = np.zeros(len(series), np.int64)
    if missing.all():
        return Times(empty, empty, missing)
    name = "dates" if kind == "date" else "durations"
    if kind_or_none(series) != kind:
        row = int(missing.argmin())
        raise TypeError(
            f"Column {describe()} must hold {name}, as in the first fit, got "
            f"{short_repr(series.iloc[row])} in row {row}. Convert the column, for instance with "
            f"pandas.to_{'datetime' if kind == 'date' else 'timedelta'}."
        )
    if not isinstance(series.dtype, np.dtype | pd.DatetimeTZDtype) or series.dtype == object:
        values = series.astype(object)
        series = pd.to_datetime(values, utc=True) if kind == "date" else pd.to_timedelta(values)
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert(None)
    times = np.asarray(series)
    per_second = 10**9 // NANOSECONDS[np.datetime_data(times.dtype)[0]]
    numbers = np.where(missing, 0, times.astype(np.int64))
    seconds, rest = np.divmod(numbers, per_second)
    return Times(seconds, rest * (10**9 // per_second), missing)


def kind_or_none(series: pd.Series) -> str | None:
    """Return the kind of a column, or None if its values have no common kind."""
    try:
        return kind_of(series, str)
    except TypeError:
        return None


def read_categories(series: pd.Series, describe: Describe) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Find the distinct values of a column.

    Returns
    -------
    codes : ndarray of shape (n,), int
        Index of the value of each row, and -1 for missing cells.
    values : ndarray of shape (n_values,)
        The values, in any order: texts as objects, booleans or numbers.

    Raises
    ------
    TypeError
        If the values have different types, or are not texts, booleans or numbers.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes = np.asarray(series.cat.codes, np.intp)
        counts = np.bincount(codes + 1, minlength=len(series.cat.categories) + 1)[1:]
        found = series.cat.categories[counts > 0]
        codes = np.append(np.cumsum(counts > 0) - 1, -1)[codes]
    else:
        codes, found = pd.factorize(series)
    return codes.astype(np.intp), as_levels(pd.Series(found), describe)


def as_levels(values: pd.Series, describe: Describe) -> NDArray[Any]:
    """Convert distinct values to an array: of objects for texts, of booleans or of numbers.

    Raises TypeError if they have different types, or are not texts, booleans or numbers.
    """
    if not len(values):
        return np.empty(0, dtype=object)
    kind = kind_of(values, describe)
    if kind in ("date", "duration") or isinstance(values.dtype, pd.CategoricalDtype):
        raise TypeError(
            f"The categories of column {describe()} must be strings, numbers or booleans, got "
            f"{short_repr(values.iloc[0])}. Convert the column, for instance with astype(str)."
        )
    if kind == "number":
        is_native = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iuf"
        return values.to_numpy() if is_native else values.to_numpy(dtype=np.float64)
    array = values.to_numpy(dtype=object)
    if isinstance(array[0], bool | np.bool_):
        return array.astype(bool)
    # Subclasses of texts, such as those of numpy, become texts.
    return np.array([str(value) for value in array], dtype=object)


def write_times(cells: NDArray[np.floating], step: float, origin: int, dtype: str) -> NDArray[Any]:
    """Convert finite or NaN cells, in seconds since an origin in nanoseconds, to times of numpy.

    `step` is in seconds, and 0 is a nanosecond. `dtype` is "datetime64" or "timedelta64". The unit
    is the coarsest one in which all multiples of the step can be written.
    """
    step = step or 1e-9
    whole = round(step * 1e9)
    unit, size = next(
        (unit, n) for unit, n in NANOSECONDS.items() if whole % n == 0 and origin % n == 0
    )
    missing = np.isnan(cells)
    counts = np.rint(np.where(missing, 0, cells) / step)
    limit = 2**62 // (whole // size)
    numbers = np.clip(counts, -limit, limit).astype(np.int64) * (whole // size)
    times = (numbers + origin // size).astype(f"{dtype}[{unit}]")
    times[missing] = "NaT"
    return times
