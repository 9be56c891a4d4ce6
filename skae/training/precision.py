"""The number format of a fit, and values that it cannot hold."""

import numpy as np
import torch

from skae.nn.pca import Moments
from skae.table.rows import Floats
from skae.table.schema import Schema

FLOAT64_CELLS = 2**18
"""Tables of at most so many float64 cells train in float64 under `precision="auto"`."""

FLOAT32_OFFSET = 1e4
"""Column means beyond so many standard deviations would cost float32 its last four digits."""

LARGEST = {torch.float64: 1e150, torch.float32: 1e18}
"""Largest value whose square leaves room for sums."""


def choose_dtype(
    precision: str,
    table_dtype: np.dtype,
    n_cells: int,
    moments: Moments,
    largest: Floats,
    device: torch.device,
) -> torch.dtype:
    """The dtype of a network for a table of a dtype, a size, moments and largest values."""
    dtype = torch.float64 if precision == "float64" else torch.float32
    if precision == "auto":
        deviation = moments.variance.sqrt()
        offset = (moments.center.abs() > FLOAT32_OFFSET * deviation) & (deviation > 0)
        exact = n_cells <= FLOAT64_CELLS or bool(offset.any())
        limit = LARGEST[torch.float32]
        beyond = largest.max() > limit or float(moments.scale) * limit < 1
        dtype = torch.float64 if (table_dtype == np.float64 and exact) or beyond else torch.float32
    return torch.float32 if device.type == "mps" else dtype


def check_overflow(largest: Floats, name: str, schema: Schema, dtype: torch.dtype) -> None:
    """Raise ValueError where columns of a table hold values too large to square."""
    too_large = np.flatnonzero(largest > LARGEST[dtype])
    if len(too_large):
        raise ValueError(
            f"Column {schema.number(too_large[0])} of {name} has values beyond "
            f"{LARGEST[dtype]:g}, whose squares are too large to sum. Divide the column by its "
            "largest value" + ("." if dtype == torch.float64 else " or use precision='float64'.")
        )


def check_scales(moments: Moments, noise: str | float, schema: Schema, dtype: torch.dtype) -> None:
    """Raise ValueError where variances or their shares of the noise leave the number format."""
    limit = LARGEST[dtype]
    if float(moments.scale) * limit < 1:
        column = schema.number(int(moments.variance.argmax()))
        raise ValueError(
            f"Column {column} of X varies by less than {1 / limit:g}, whose square is 0 in "
            "this precision. Scale the columns of X or use precision='float64'."
        )
    variance = float(moments.scale**2)
    known = variance if isinstance(noise, str) else float(noise)
    if not 0.1 / limit**2 < variance / known < 10 * limit**2:
        raise ValueError(
            f"noise={noise!r} and the columns' mean variance of {variance:g} are too far "
            "apart to compute with."
        )
