"""The cells in which rows are compared, and how they depend on codes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Cells(NamedTuple):
    """Cells of rows in units in which columns can be compared, and how they depend on codes.

    If all modelled columns are numbers, they are the cells of the user. In all other tables, they
    are those that the autoencoder's network reads: categories are one-hot encoded, and each encoded
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
    decode: Callable[[Floats], Any]
    encoder_jacobian: Callable[[Any], Floats]
    decoder_jacobian: Callable[[Any], Floats]
    columns: NDArray[np.intp]
    names: Any


def reads_numbers(estimator: Any) -> bool:
    """Return whether rows of an estimator are compared in the units of the user.

    This is so unless it is or contains an autoencoder that reads columns of several kinds.
    """
    return getattr(getattr(estimator, "autoencoder_", estimator), "_reads_numbers", True)


def comparable_cells(autoencoder: Any, X: Any, names: Any = None) -> Cells:
    """Return the cells of rows in which an autoencoder compares columns.

    `names` are those of the columns of X, or None.
    """
    if reads_numbers(autoencoder):
        return Cells(
            X,
            partial(autoencoder.reconstruct, X),
            autoencoder.encoder_jacobian,
            autoencoder.decoder_jacobian,
            np.arange(autoencoder.n_features_in_),
            names,
        )
    columns, encoded_names = zip(*autoencoder._encoded_columns, strict=True)
    order = np.argsort(columns, kind="stable")
    return Cells(
        autoencoder._standardized_rows(X)[:, order],
        lambda codes: autoencoder._standardized_decodings(X, np.asarray(codes))[:, order],
        lambda rows: autoencoder._standardized_encoder_jacobian(rows)[:, :, order],
        lambda rows: autoencoder._standardized_decoder_jacobian(rows)[:, order],
        np.array(columns)[order],
        np.array(encoded_names)[order],
    )
