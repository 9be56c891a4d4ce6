"""Dtypes of the columns of data frames, as files can hold them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self
from zoneinfo import ZoneInfo

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from skae.files import Stored
from skae.table.kinds import NANOSECONDS, Describe, as_levels, type_of_objects

OBJECTS: dict[str, Callable[[Any], Any]] = {
    "integer": int,
    "decimal": lambda number: Decimal(repr(float(number))),
    "date": lambda time: pd.Timestamp(time).date(),
    "datetime": lambda time: pd.Timestamp(time).to_pydatetime(),
    "timedelta": lambda time: pd.Timedelta(time).to_pytimedelta(),
}
"""Functions that make the objects of a column from its values, by the type that pandas infers."""

FRAME_DTYPES = {
    *("Boolean", "Categorical", "Date", "Datetime", "Decimal", "Duration", "Enum", "Object"),
    *("Float32", "Float64", "Int8", "Int16", "Int32", "Int64", "Int128", "String", "UInt8"),
    *("UInt16", "UInt32", "UInt64", "UInt128", "Unknown"),
}
"""Names in narwhals of the dtypes of columns that can be modelled."""


@dataclass(frozen=True)
class PandasDtype(Stored):
    """Dtype of a column of pandas.

    Attributes
    ----------
    name : str
        Name of the dtype, such as "Int64", "category" or "datetime64[ns, Europe/Paris]".
    objects : str
        Type of the values in a column of objects, as pandas infers it, or "".
    categories : ndarray or None
        Declared categories of a categorical column, in their order.
    ordered : bool
        Whether these categories are ordered.
    """

    name: str
    objects: str = ""
    categories: NDArray[Any] | None = None
    ordered: bool = False

    @classmethod
    def of(cls, series: pd.Series, describe: Describe) -> Self:
        """Make the dtype of a Series of pandas."""
        dtype = series.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            categories = as_levels(pd.Series(dtype.categories), describe)
            return cls("category", "", categories, bool(dtype.ordered))
        if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
            return cls(f"string[{dtype.storage}]")
        is_described = _is_dtype(str(dtype)) and not types.is_object_dtype(dtype)
        if isinstance(dtype, pd.DatetimeTZDtype) and not is_described:
            # The name of a time zone that is an object of Python does not describe it.
            return cls(f"datetime64[{dtype.unit}, UTC]")
        if is_described:
            return cls(str(dtype))
        return cls("object", type_of_objects(series.to_numpy(dtype=object)))

    def _check_state(self) -> None:
        if not _is_dtype(self.name):
            raise ValueError(f"a column of pandas cannot have the dtype {self.name!r}")
        _check_categories(self.categories, self.name == "category")

    def write(self, values: NDArray[Any]) -> pd.Series:
        """Convert values to a Series of this dtype.

        Missing cells are None, NaN or NaT. If the dtype has no missing cells, the Series has the
        dtype that pandas chooses for such values.
        """
        if self.categories is not None:
            return pd.Series(self._write_categories(values))
        if self.name == "object":
            return pd.Series(self._write_objects(values), dtype=object)
        dtype = types.pandas_dtype(self.name)
        if values.dtype.kind in "mM":
            return _write_times(pd.Series(values), dtype)
        native = dtype.subtype if isinstance(dtype, pd.SparseDtype) else dtype
        if values.dtype.kind in "iuf" and types.is_numeric_dtype(dtype):
            values = _clip(values, getattr(native, "numpy_dtype", native))
        can_be_missing = types.is_extension_array_dtype(native) or native.kind == "f"
        if not can_be_missing and pd.isna(values).any():
            return pd.Series(values)
        return pd.Series(values).astype(dtype)

    def _write_categories(self, values: NDArray[Any]) -> pd.Categorical:
        """Make a categorical column, whose last category may be that of infrequent values."""
        categories = pd.Index(self.categories)
        found = pd.unique(values[~pd.isna(values)])
        surplus = [value for value in found if value not in categories]
        return pd.Categorical(values, [*categories, *surplus], self.ordered)

    def _write_objects(self, values: NDArray[Any]) -> NDArray[np.object_]:
        """Make the objects of a column, in which missing cells are None."""
        make = OBJECTS.get(self.objects.removesuffix("64"))
        missing = pd.isna(values)
        written = np.empty(len(values), dtype=object)
        present = values[~missing]
        written[~missing] = present if make is None else [make(value) for value in present]
        return written


@dataclass(frozen=True)
class FrameDtype(Stored):
    """Dtype of a column of polars, or of another library that narwhals supports.

    Attributes
    ----------
    name : str
        Name of the dtype in narwhals, such as "Int64" or "Datetime".
    unit : str
        Unit of dates with a time and of durations, or "".
    time_zone : str or None
        Time zone of dates with a time.
    categories : ndarray or None
        Categories of an Enum, in their order.
    """

    name: str
    unit: str = ""
    time_zone: str | None = None
    categories: NDArray[Any] | None = None

    @classmethod
    def of(cls, series: nw.Series) -> Self:
        """Make the dtype of a Series of narwhals."""
        dtype = series.dtype
        name = type(dtype).__name__
        if isinstance(dtype, nw.Enum):
            return cls(name, categories=np.array(dtype.categories, dtype=object))
        if isinstance(dtype, nw.Datetime):
            return cls(name, dtype.time_unit, dtype.time_zone)
        return cls(name, dtype.time_unit if isinstance(dtype, nw.Duration) else "")

    def _check_state(self) -> None:
        has_unit = self.name in ("Datetime", "Duration")
        if self.name not in FRAME_DTYPES or (self.unit in NANOSECONDS) != has_unit:
            raise ValueError(f"a column cannot have the dtype {self.name!r} of unit {self.unit!r}")
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ValueError, OSError, LookupError) as error:
                raise ValueError(f"there is no time zone {self.time_zone!r}") from error
        _check_categories(self.categories, self.name == "Enum")

    def write(self, values: NDArray[Any], name: str, library: Any) -> nw.Series:
        """Convert values to a Series of this dtype, in which missing cells are null."""
        if values.dtype.kind in "mM":
            return self._write_times(values, name, library)
        missing = pd.isna(values)
        present: Any = values[~missing]
        dtype = self._build()
        if dtype is not None and dtype.is_decimal():
            # The values decide about the number of digits.
            present, dtype = [Decimal(repr(float(value))) for value in present], None
        elif dtype is not None and dtype.is_numeric():
            kind = self.name.lower().replace("int128", "int64")
            present = _clip(present, np.dtype(kind)).astype(kind)
        elif self.categories is not None:
            known = self.categories.tolist()
            dtype = nw.Enum([*known, *(v for v in pd.unique(present) if v not in known)])
        if dtype is not None and present.dtype != object and not missing.any():
            return nw.new_series(name, present, backend=library).cast(dtype)
        column = _with_missing(present, missing).tolist()
        return nw.new_series(name, column, dtype, backend=library)

    def _write_times(self, values: NDArray[Any], name: str, library: Any) -> nw.Series:
        """Make a Series of dates or of durations."""
        unit = self.unit or ("D" if self.name == "Date" else "us")
        kind = "datetime64" if values.dtype.kind == "M" else "timedelta64"
        dtype = replace(self, time_zone=None)._build()
        series = nw.new_series(name, values.astype(f"{kind}[{unit}]"), dtype, backend=library)
        if self.time_zone is None:
            return series
        return series.dt.replace_time_zone("UTC").dt.convert_time_zone(self.time_zone)

    def _build(self) -> Any:
        """Make the dtype of narwhals, or None if values decide about it."""
        if self.name == "Datetime":
            return nw.Datetime(self.unit, self.time_zone)  # type: ignore[arg-type]
        if self.name == "Duration":
            return nw.Duration(self.unit)  # type: ignore[arg-type]
        return None if self.name in ("Enum", "Unknown") else getattr(nw, self.name)()


def _is_dtype(name: str) -> bool:
    """Return whether pandas has a dtype of this name, whose values a column can hold."""
    if name == "category":
        return True
    try:
        dtype = types.pandas_dtype(name)
    except (TypeError, ValueError, LookupError, ImportError, NotImplementedError):
        return False
    return (
        types.is_object_dtype(dtype)
        or isinstance(dtype, pd.StringDtype)
        or types.is_bool_dtype(dtype)
        or (types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype))
        or dtype.kind in "mM"
    )


def _check_categories(categories: NDArray[Any] | None, are_declared: bool) -> None:
    """Raise ValueError unless declared categories are distinct values, and others None."""
    if (categories is not None) != are_declared:
        raise ValueError("only dtypes of categories have categories")
    if categories is not None and (categories.ndim != 1 or not pd.Index(categories).is_unique):
        raise ValueError(f"the categories of a dtype must be distinct, got {categories!r}")


def _clip(values: NDArray[Any], dtype: Any) -> NDArray[np.float64]:
    """Change numbers to the nearest ones that a dtype can hold. NaN is not changed."""
    numbers = values.astype(np.float64)
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return np.clip(numbers, -limit, limit)
    limits = np.iinfo(dtype)
    # The largest integer of 64 bits is not a float, and its nearest float is too large.
    high = np.float64(limits.max)
    high = high if int(high) <= limits.max else np.nextafter(high, 0)
    return np.clip(np.rint(numbers), float(limits.min), high)


def _write_times(series: pd.Series, dtype: Any) -> pd.Series:
    """Convert a Series of dates without a time zone, or of durations, to a dtype."""
    if isinstance(dtype, pd.DatetimeTZDtype):
        utc = series.astype(f"datetime64[{dtype.unit}]").dt.tz_localize("UTC")
        return utc.dt.tz_convert(dtype.tz)
    return series.astype(dtype)


def _with_missing(objects: Any, missing: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Place the objects of observed cells in a column in which the missing cells are None."""
    column = np.empty(len(missing), dtype=object)
    column[~missing] = objects
    return column
