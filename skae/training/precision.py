"""Choice of the dtype of a fit, and checks that it can represent the data."""

import numpy as np
import torch

from skae.nn.pca import Moments
from skae.table.rows import Floats
from skae.table.schema import Schema

FLOAT64_ROWS = 256
"""With `precision="auto"`, float64 tables of at most this many distinct rows are trained in
float64, which costs little time for them."""

FLOAT32_OFFSET = 1e3
"""With `precision="auto"`, a float64 table is trained in float64 if the absolute mean of a column
exceeds this many standard deviations. Centering such a column in float32 would lose at least three
of its seven digits."""

FLOAT32_RATIO = 1e3
"""With `precision="auto"`, a table of any dtype is trained in float64 if the global scale exceeds
this many standard deviations of a column. In float32, the rounding errors of the other columns
would hide the noise of this column."""

MAX_VALUE = {torch.float64: 1e150, torch.float32: 1e18}
"""Largest absolute value of cells in each dtype, such that sums of squares do not overflow."""


def required_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype that `precision` or the device requires, or None if the table decides.

    With `precision="bfloat16"`, the network is stored in float32. Devices of type mps have no
    float64.
    """
    if device.type == "mps":
        return torch.float32
    return {"auto": None, "float64": torch.float64}.get(precision, torch.float32)


def choose_dtype(
    precision: str,
    table_dtype: np.dtype,
    n_rows: int,
    moments: Moments,
    largest: Floats,
    device: torch.device,
) -> torch.dtype:
    """Choose the dtype of a network.

    "auto" is float64 for float64 tables of few rows, and for float64 tables with a column whose
    mean is large relative to its standard deviation. For tables of any dtype, it is float64 if sums
    of squares would overflow in float32, or if the global scale is too small for float32.
    Otherwise, it is float32.

    Parameters
    ----------
    precision : {"auto", "float32", "float64", "bfloat16"}
        The parameter of the estimator.
    table_dtype : dtype
        Dtype of the cells of the table.
    n_rows : int
        Number of distinct rows.
    moments : Moments
        Means, variances and global scale of the columns.
    largest : ndarray of shape (n_columns,)
        Largest absolute value of each column.
    device : torch.device
        Device of the network.

    Returns
    -------
    dtype : torch.dtype
    """
    required = required_dtype(precision, device)
    if required is not None:
        return required
    deviation = moments.variance.sqrt()
    has_offset = (moments.center.abs() > FLOAT32_OFFSET * deviation) & (deviation > 0)
    prefers_float64 = n_rows <= FLOAT64_ROWS or bool(has_offset.any())
    is_narrow = (moments.scale > FLOAT32_RATIO * deviation) & (deviation > 0)
    limit = MAX_VALUE[torch.float32]
    exceeds_float32 = (
        largest.max() > limit or float(moments.scale.min()) * limit < 1 or bool(is_narrow.any())
    )
    needs_float64 = (table_dtype == np.float64 and prefers_float64) or exceeds_float32
    return torch.float64 if needs_float64 else torch.float32


def or_float64(dtype: torch.dtype) -> str:
    """Return the end of advice on a number that `dtype` cannot represent.

    It mentions the parameter `precision` unless the dtype is float64 already.
    """
    return "" if dtype == torch.float64 else " or set precision='float64'"


def check_overflow(largest: Floats, name: str, schema: Schema, dtype: torch.dtype) -> None:
    """Raise ValueError if sums of the squares of a column would overflow in `dtype`.

    `largest` holds the largest absolute value of each column, and `name` is the name of the table.
    """
    too_large = np.flatnonzero(largest > MAX_VALUE[dtype])
    if len(too_large):
        raise ValueError(
            f"Column {schema.column_label(too_large[0])} of {name} must not exceed "
            f"{MAX_VALUE[dtype]:g} in absolute value, since sums of squares would overflow, got "
            f"{largest[too_large[0]]:g}. Divide the column by its largest value"
            f"{or_float64(dtype)}."
        )


def check_scale(moments: Moments, schema: Schema, dtype: torch.dtype) -> None:
    """Raise ValueError if the global scale, or the scale of a column, is too small for `dtype`."""
    limit = MAX_VALUE[dtype]
    if float(moments.scale.min()) * limit < 1:
        # Numbers come before categories, whose scales are never small.
        at = moments.scale.argmin() if moments.scale.ndim else moments.variance.argmax()
        column = schema.column_label(int(at))
        kind = "a variance" if moments.scale.ndim else "the largest variance of all columns"
        raise ValueError(
            f"Column {column} of X has {kind}, but it is too small "
            f"for {str(dtype).removeprefix('torch.')}: standard deviations must be at least about "
            f"{1 / limit:g}. Scale the columns of X{or_float64(dtype)}."
        )


def check_noise(noise: str | float, scale: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError if the ratio of the squared global scale to a known noise is extreme."""
    if isinstance(noise, str):
        return
    # A power would raise an OverflowError.
    limit, variance = MAX_VALUE[dtype], float(scale.max()) * float(scale.max())
    least = float(scale.min()) * float(scale.min())
    if not (0.1 / limit**2 < least / noise and variance / noise < 10 * limit**2):
        raise ValueError(
            f"noise={noise!r} differs too much from the mean variance of the columns, "
            f"{variance:g}. Scale the columns of X or change noise."
        )
