"""Base class of meta-estimators that contain an autoencoder and validate rows for it."""

from dataclasses import field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from skae.base import BaseAutoencoder, MatrixLike, thaw, validate_rows
from skae.fitting import check_more_than_one_row, read_weight
from skae.parameters import Declared
from skae.state import Saved


class AutoencoderMetaEstimator(Saved, Declared, BaseEstimator):
    """Base class of meta-estimators that train an autoencoder or use a fitted one."""

    autoencoder: BaseAutoencoder | FrozenEstimator | None = field(default=None, kw_only=False)

    _parameter_constraints: ClassVar = {"autoencoder": [BaseAutoencoder, FrozenEstimator, None]}

    _doc_link_module = "skae"
    _doc_link_template = BaseAutoencoder._doc_link_template

    _validation_options: ClassVar[dict[str, Any]] = {}
    """Keyword arguments that are passed to `validate_rows`, both in `fit` and afterwards."""

    def _read_training_rows(
        self, X: MatrixLike, sample_weight: MatrixLike | None
    ) -> tuple[BaseAutoencoder | None, NDArray[Any], NDArray[np.float64]]:
        """Validate the training data.

        Returns
        -------
        fitted : autoencoder or None
            A copy of the fitted autoencoder if `autoencoder` is a FrozenEstimator, otherwise None.
        X : ndarray of shape (n_samples, n_features)
            All rows, including those of weight 0.
        weight : ndarray of shape (n_samples,)
            Weights of the rows, at least 0. At least two of them are positive.
        """
        fitted = None
        if isinstance(self.autoencoder, FrozenEstimator):
            fitted = thaw(self.autoencoder, X)
        X = validate_rows(
            self, fitted or self.autoencoder, X, ensure_min_samples=2, **self._validation_options
        )
        weight = read_weight(sample_weight, X)
        check_more_than_one_row(self, int(np.count_nonzero(weight)))
        return fitted, X, weight

    def _read_rows(self, X: MatrixLike) -> NDArray[Any]:
        """Validate rows for a fitted meta-estimator."""
        check_is_fitted(self)
        return validate_rows(self, self.autoencoder_, X, reset=False, **self._validation_options)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if isinstance(self.autoencoder, BaseEstimator):
            tags.input_tags.positive_only = get_tags(self.autoencoder).input_tags.positive_only
        return tags
