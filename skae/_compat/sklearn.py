"""Private functions and classes of scikit-learn that estimators need."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import sklearn
from sklearn.base import BaseEstimator
from sklearn.base import _fit_context as fit_context
from sklearn.utils import _safe_indexing as safe_indexing

# Selects columns as `ColumnTransformer` does: by name, number, slice, mask or callable.
from sklearn.utils._indexing import _get_column_indices as column_indices

# Raises an ImportError that asks users of displays to install matplotlib.
from sklearn.utils._optional_dependencies import check_matplotlib_support

# Constraints of parameters. Violations raise `InvalidParameterError`.
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)

# Computes percentiles of weighted rows by interpolation, which numpy does not support.
from sklearn.utils.stats import _weighted_percentile as weighted_percentile
from sklearn.utils.validation import _check_feature_names as check_feature_names
from sklearn.utils.validation import _check_sample_weight as check_sample_weight


def validate_parameters(estimator: BaseEstimator) -> None:
    """Raise InvalidParameterError if a parameter violates its constraint."""
    estimator._validate_params()


def init_callback_context(estimator: Any, n_subtasks: int) -> Any:
    """Create the context in which the callbacks of scikit-learn follow a fit with subtasks."""
    return estimator._init_callback_context(max_subtasks=n_subtasks)


def has_callbacks(estimator: object) -> bool:
    """Return whether an estimator has callbacks of scikit-learn."""
    return bool(getattr(estimator, "_skl_callbacks", None))


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning that points to the line of the user, outside skae and scikit-learn."""
    packages = Path(sklearn.__file__).parent, Path(__file__).parents[1]
    folders = tuple(f"{package}{os.sep}" for package in packages)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(folders):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
