"""Private functions and classes of scikit-learn that estimators need."""

import os
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sklearn
import sklearn.base
from sklearn.base import _fit_context as fit_context

# Minka's estimate of the number of principal axes, given all variances.
from sklearn.decomposition._pca import _infer_dimension
from sklearn.utils import _safe_indexing as safe_indexing

# Selects columns as `ColumnTransformer` does: by name, number, slice, mask or callable.
from sklearn.utils._indexing import _get_column_indices as column_indices

# Raises an ImportError that asks users of displays to install matplotlib.
from sklearn.utils._optional_dependencies import check_matplotlib_support

# Constraints of parameters. Violations raise `InvalidParameterError`.
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    RealNotInt,
    StrOptions,
    _InstancesOf,
    make_constraint,
)

# Computes percentiles of weighted rows by interpolation, which numpy does not support.
from sklearn.utils.stats import _weighted_percentile as weighted_percentile
from sklearn.utils.validation import _check_feature_names as check_feature_names
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

from skae.parameters import short_repr


def infer_dimension(variances: Any, n_samples: float) -> int:
    """Return the number of components that PCA selects with `n_components="mle"`."""
    return int(_infer_dimension(variances, n_samples))


class BaseEstimator(sklearn.base.BaseEstimator):
    """scikit-learn's base class of estimators, with the checks of `check_parameters`."""

    def _validate_params(self) -> None:
        """Raise InvalidParameterError if a parameter violates its constraint."""
        parameters = self.get_params(deep=False)
        check_parameters(self._parameter_constraints, parameters, type(self).__name__)


def validate_parameters(estimator: BaseEstimator) -> None:
    """Raise InvalidParameterError if a parameter violates its constraint."""
    estimator._validate_params()


def check_parameters(
    constraints: dict[str, list[Any]], parameters: dict[str, Any], owner: str
) -> None:
    """Raise InvalidParameterError if a parameter satisfies none of its constraints.

    In contrast to scikit-learn's function, it refuses booleans in place of numbers. Its message
    lists options in alphabetical order, names classes without their modules and shortens long
    values.

    Parameters
    ----------
    constraints : dict of list
        Constraints of each parameter, in the format of scikit-learn's parameter validation.
    parameters : dict
        Values of the parameters.
    owner : str
        Name of the estimator or function, for the error message.
    """
    for name, value in parameters.items():
        permitted = [make_constraint(constraint) for constraint in constraints[name]]
        if not any(_is_satisfied(constraint, value) for constraint in permitted):
            raise InvalidParameterError(
                f"The {name!r} parameter of {owner} must be {_describe(permitted)}. Got "
                f"{short_repr(value)} instead."
            )


def _is_satisfied(constraint: Any, value: Any) -> bool:
    """Return whether a value satisfies a constraint. A boolean is not a number."""
    if hasattr(constraint, "_constraints"):
        return any(_is_satisfied(part, value) for part in constraint._constraints)
    is_boolean = isinstance(constraint, Interval) and isinstance(value, bool)
    return bool(constraint.is_satisfied_by(value)) and not is_boolean


def _describe(constraints: list[Any]) -> str:
    """Describe alternative constraints."""
    texts = []
    for constraint in constraints:
        if hasattr(constraint, "_constraints"):
            texts.append(_describe(constraint._constraints))
        elif isinstance(constraint, Options):
            texts.append(f"a str among {{{', '.join(map(repr, sorted(constraint.options)))}}}")
        elif isinstance(constraint, _InstancesOf):
            text = f"an instance of {constraint.type.__name__!r}"
            texts.append(getattr(constraint.type, "_description", text))
        else:
            texts.append(str(constraint))
    *others, last = dict.fromkeys(texts)
    return f"{', '.join(others)} or {last}" if others else last


def init_callback_context(estimator: Any, n_subtasks: int | None) -> Any:
    """Create the context in which the callbacks of scikit-learn follow a fit with subtasks.

    None means that the number of subtasks is not known yet.
    """
    return estimator._init_callback_context(max_subtasks=n_subtasks)


def without_callback_contexts(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator without what it has for callbacks while a fit runs."""
    running = ("_callback_fit_ctx", "_skl_callbacks_to_teardown", "_parent_callback_ctx")
    return {name: value for name, value in state.items() if name not in running}


def has_callbacks(estimator: object) -> bool:
    """Return whether an estimator has callbacks of scikit-learn."""
    return bool(getattr(estimator, "_skl_callbacks", None))


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning that points to the line of the user, outside of skae and its packages."""
    skorch = find_spec("skorch")
    packages = [Path(sklearn.__file__).parent, Path(__file__).parents[1]]
    packages += [Path(skorch.origin).parent] if skorch and skorch.origin else []
    folders = tuple(f"{package}{os.sep}" for package in packages)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(folders):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
