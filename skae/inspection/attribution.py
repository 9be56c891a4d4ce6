"""What the components of codes mean, as arrays: shares of columns, loadings and importance."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skae._compat.sklearn import safe_indexing
from skae.inspection.cells import comparable_cells
from skae.table.sequences import as_padded, fill_with_means

Floats = NDArray[np.float64]

CHUNK_CELLS = 2**22
"""Largest number of derivatives that are in memory at once, unless one row has more."""


def attribution_shares(autoencoder: Any, rows: Any) -> Floats:
    """Compute the share (k, n_features) of each column in the variance of each component.

    `skae.metrics.feature_attribution` documents the shares. Raises ValueError if all rows are
    equal.
    """
    table = comparable_cells(autoencoder, rows)
    derive = partial(_chunks, table.encoder_jacobian, rows, autoencoder, len(table.columns))
    # Codes have no derivatives with respect to the columns of a condition.
    used = np.zeros(len(table.columns), dtype=np.bool_)
    for jacobian in derive():
        used |= (jacobian != 0).any(axis=(0, 1))
    cells = numbers(table.rows, len(used))
    cells = fill_with_means(cells, np.arange(len(cells)), np.ones(len(cells)))
    varies = np.ptp(cells, axis=0) > 0
    if not varies.any():
        raise ValueError(f"X must contain two different rows, got {len(cells)} equal ones.")
    used &= varies
    axes, deviations = _principal_axes(cells[:, used])
    total: Floats = np.zeros((jacobian.shape[1], len(used)))
    for jacobian in derive():
        # The product of the derivatives and the symmetric square root of the covariance.
        products = (jacobian[..., used] @ axes * deviations) @ axes.T
        total[:, used] += (products**2).sum(axis=0)
    whole = total.sum(axis=1, keepdims=True)
    equal = np.tile(varies / varies.sum(), (len(total), 1))
    shares = np.divide(total, whole, out=equal, where=whole > 0)
    of_columns = np.zeros((len(shares), autoencoder.n_features_in_))
    np.add.at(of_columns.T, table.columns, shares.T)
    return of_columns


def mean_loadings(autoencoder: Any, rows: Any) -> Floats:
    """Compute the loadings (n_cells, k) of components, as `skae.metrics.loadings` documents them.

    The cells are those of `comparable_cells`. Raises ValueError if there is a single row.
    """
    codes = np.asarray(autoencoder.transform(rows), dtype=np.float64)
    if len(codes) < 2:
        raise ValueError("X must contain at least two rows, got 1.")
    table = comparable_cells(autoencoder, rows)
    chunks = _chunks(table.decoder_jacobian, rows, autoencoder, len(table.columns))
    mean = sum(jacobian.sum(axis=0) for jacobian in chunks) / len(codes)
    loadings: Floats = mean * codes.std(axis=0, ddof=1)
    return loadings


def importance(codes: Floats, decode: Callable[[Floats], Any], rows: Any) -> Floats:
    """Compute the share (k,) of the variance of rows that each component of codes explains.

    `skae.metrics.component_importance` documents the shares. `decode` reconstructs rows from codes
    (n, k).
    """
    full, weight = numbers(decode(codes)), np.ones(len(codes))
    cells = modelled_cells(codes, decode, rows)
    explained = explained_variance(cells, full, weight)
    shares = np.empty(codes.shape[1])
    for j, component in enumerate(codes.T):
        without = codes.copy()
        without[:, j] = component.mean()
        shares[j] = explained - explained_variance(cells, numbers(decode(without)), weight)
    return shares


def modelled_cells(codes: Floats, decode: Callable[[Floats], Any], rows: Any) -> Floats:
    """Return the numbers of rows (n, d), with NaN in columns that `decode` copies.

    These are the columns of a condition, which have the cells of the rows for any code.
    """
    mean = np.tile(codes.mean(axis=0), (len(codes), 1))
    constant = numbers(decode(mean.astype(codes.dtype)))
    cells = numbers(rows, constant.shape[1])
    cells[:, ((cells == constant) | np.isnan(cells)).all(axis=0)] = np.nan
    return cells


def explained_variance(rows: Floats, reconstructed: Floats, row_weight: Floats) -> float:
    """Compute the share of the variance of rows (n, d) that reconstructions explain.

    Missing cells are ignored. `skae.metrics.explained_variance_ratio` documents the share.
    """
    # Both tables are shifted by the smallest cell of each column. The cells of a constant column
    # are then exactly 0, and so is their variance.
    smallest = np.fmin.reduce(rows)
    rows, reconstructed = rows - smallest, reconstructed - smallest
    missing = np.isnan(rows)
    weight = np.where(missing, 0.0, row_weight[:, None])
    rows, errors = np.where(missing, 0.0, rows), np.where(missing, 0.0, rows - reconstructed)
    column_weight = weight.sum(axis=0)
    center = (weight * rows).sum(axis=0) / np.where(column_weight > 0, column_weight, 1.0)
    unexplained, total = (weight * errors**2).sum(), (weight * (rows - center) ** 2).sum()
    return float(1 - unexplained / total) if total else float(unexplained == 0)


def numbers(rows: Any, n_columns: int = 0) -> Floats:
    """Convert rows or sequences to a table of numbers, with at least `n_columns` columns.

    Texts are NaN.
    """
    cells = np.asarray(as_padded(rows, n_columns))
    cells = cells.reshape(len(cells), -1)
    if cells.dtype.kind == "O":
        cells = pd.DataFrame(cells).apply(pd.to_numeric, errors="coerce").to_numpy()
    return cells.astype(np.float64)


def _principal_axes(cells: Floats) -> tuple[Floats, Floats]:
    """Compute the principal axes (d, r) of rows, and the standard deviations (r,) along them."""
    n, d = cells.shape
    centered = cells - cells.mean(axis=0)
    if n < d:
        _, lengths, axes = np.linalg.svd(centered, full_matrices=False)
        return axes.T, lengths / np.sqrt(n)
    values, axes = np.linalg.eigh(centered.T @ centered / n)
    return axes, np.sqrt(values.clip(0))


def _chunks(
    function: Callable[[Any], Floats], rows: Any, autoencoder: Any, n_cells: int
) -> Iterator[Floats]:
    """Apply a function that computes derivatives to chunks of rows."""
    width = len(autoencoder.get_feature_names_out()) * n_cells
    n = rows.shape[0] if hasattr(rows, "shape") else len(rows)
    for chunk in gen_batches(n, max(1, CHUNK_CELLS // width)):
        yield function(safe_indexing(rows, chunk))
