"""The cells in which rows are compared, and how they depend on codes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Cells(NamedTuple):
    """Cells of rows, and how they depend on codes.

    If all modelled columns are numbers, they may be the cells of the user. They are otherwise those
    that the network of the autoencoder reads: categories are one-hot encoded, and each encoded
    column is centered and divided by its scale. Missing cells are NaN.

    Attributes
    ----------
    rows : array-like of shape (n_samples, n_cells)
        The cells.
    decode : callable
        Maps codes of the rows to their expected cells. Levels have their probabilities.
    encoder_jacobian : callable
        Maps rows of the user to the derivatives (n, n_components, n_cells) of their codes.
    decoder_jacobian : callable
        Maps rows of the user to the derivatives (n, n_cells, n_components) of their expected cells.
    columns : ndarray of shape (n_cells,)
        Indices of the columns of X that the cells belong to.
    names : sequence of str or None
        Names of the cells, or None if they are unknown.
    """

    rows: Any
    decode: Callable[[Any], Any]
    encoder_jacobian: Callable[[Any], Floats]
    decoder_jacobian: Callable[[Any], Floats]
    columns: NDArray[np.intp]
    names: Any


def reads_numbers(estimator: Any) -> bool:
    """Return whether the rows of an estimator are numbers, which have the units of the user.

    This is so unless it is or contains an autoencoder that reads texts or columns of several kinds.
    """
    return getattr(getattr(estimator, "autoencoder_", estimator), "_reads_numbers", True)


def standardized_cells(autoencoder: Any, X: Any) -> Cells:
    """Return the cells of rows that the network of an autoencoder reads."""
    cells, read = autoencoder._standardized_cells(X), autoencoder._standardized_cells
    columns, names = zip(*autoencoder._encoded_columns, strict=True)
    order = np.argsort(columns, kind="stable")
    return Cells(
        cells.values()[:, order],
        lambda codes: cells.decode(np.asarray(codes))[:, order],
        lambda rows: read(rows).encoder_jacobian()[:, :, order],
        lambda rows: read(rows).decoder_jacobian()[:, order],
        np.array(columns)[order],
        [names[i] for i in order],
    )


def comparable_cells(autoencoder: Any, X: Any, names: Any = None) -> Cells:
    """Return cells of rows whose units are comparable. `names` are those of the columns of X."""
    if not autoencoder._models_numbers:
        return standardized_cells(autoencoder, X)
    return Cells(
        X,
        partial(autoencoder.reconstruct, X),
        autoencoder.encoder_jacobian,
        autoencoder.decoder_jacobian,
        np.arange(autoencoder.n_features_in_),
        names,
    )
