"""Private names of scikit-learn: what its own estimators are made with and others need, too."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import sklearn
from sklearn.base import BaseEstimator
from sklearn.base import _fit_context as fit_context
from sklearn.utils import _safe_indexing as safe_indexing

# `ColumnTransformer` selects columns with it: names, numbers, slices, masks, callables.
from sklearn.utils._indexing import _get_column_indices as column_indices

# The message that tells a user of displays to install matplotlib.
from sklearn.utils._optional_dependencies import check_matplotlib_support

# The constraints behind `InvalidParameterError`.
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)

# Robust detectors need percentiles of weighted rows; numpy's cannot interpolate weighted ones.
from sklearn.utils.stats import _weighted_percentile as weighted_percentile
from sklearn.utils.validation import _check_feature_names as check_feature_names
from sklearn.utils.validation import _check_sample_weight as check_sample_weight


def validate_parameters(estimator: BaseEstimator) -> None:
    """Raise InvalidParameterError where a parameter breaks its constraint."""
    estimator._validate_params()


def fit_task(estimator: Any, n_subtasks: int) -> Any:
    """The context by which a fit of so many epochs tells scikit-learn's callbacks of itself."""
    return estimator._init_callback_context(max_subtasks=n_subtasks)


def has_callbacks(estimator: object) -> bool:
    """Whether the user has set callbacks of scikit-learn's."""
    return bool(getattr(estimator, "_skl_callbacks", None))


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the user's line that led here, past the package and scikit-learn's wrappers."""
    own = Path(sklearn.__file__).parent, Path(__file__).parents[1]
    folders = tuple(f"{folder}{os.sep}" for folder in own)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(folders):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
