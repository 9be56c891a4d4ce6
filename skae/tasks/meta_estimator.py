"""Base class of meta-estimators that contain an autoencoder and validate rows for it."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.callback import CallbackContext, CallbackSupportMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, get_tags

from skae._compat.sklearn import BaseEstimator, init_callback_context
from skae.base import BaseAutoencoder, MatrixLike, thaw, validate_rows
from skae.files import Stored
from skae.parameters import Declared
from skae.state import FittedAttribute, Saved
from skae.table.schema import make_validator
from skae.table.weights import check_more_than_one_row, read_weight
from skae.training.checkpoint import keeping_checkpoints


@dataclass(frozen=True)
class FittedTask(Stored):
    """Fitted model of a meta-estimator. It never changes, because every fit makes a new one.

    Attributes
    ----------
    autoencoder : BaseAutoencoder
        The fitted autoencoder.
    n_features_in : int
        Number of columns of the training rows.
    feature_names_in : ndarray of shape (n_features_in,) or None
        Names of these columns, if all of them are strings.
    """

    autoencoder: BaseAutoencoder
    n_features_in: int
    feature_names_in: NDArray[Any] | None

    def _check_state(self) -> None:
        fitted, names = self.autoencoder._fitted, self.feature_names_in
        if fitted is None or fitted.schema.n_columns != self.n_features_in:
            raise ValueError(f"the autoencoder is not fitted to {self.n_features_in} columns")
        if names is not None and (
            names.shape != (self.n_features_in,) or not all(isinstance(n, str) for n in names)
        ):
            raise ValueError(f"there must be {self.n_features_in} names of columns, got {names!r}")

    def to_autoencoder(self, X: NDArray[Any]) -> NDArray[Any]:
        """Convert validated rows to those that the autoencoder receives."""
        return X

    def defined(self, name: str) -> Any:
        """Return the value of a field, or raise AttributeError if it is None."""
        value = getattr(self, name)
        if value is None:
            raise AttributeError(f"{name}_ is not defined for the data that fit received.")
        return value


Training = Callable[[BaseAutoencoder], AbstractContextManager[None]]
"""Function that returns the context in which a meta-estimator trains an autoencoder. In this
context, the callbacks of the meta-estimator follow the epochs."""


@dataclass(frozen=True)
class TrainingRows:
    """Validated training data of a meta-estimator, and the autoencoder to train or to use.

    Attributes
    ----------
    autoencoder : autoencoder or None
        If the parameter `autoencoder` is a FrozenEstimator, a copy of the fitted autoencoder in it.
        Otherwise, a clone of the parameter, which contains the model of the previous fit if
        training resumes from it. None if the parameter is None.
    resumed : FittedTask or None
        The model of the previous fit if training resumes from it.
    columns : dict
        The fields `n_features_in` and `feature_names_in` of the new model.
    X : ndarray of shape (n, n_features)
        All rows, including those of weight 0.
    weight : ndarray of shape (n,)
        Weights of the rows, at least 0. At least two of them are positive, or one in `partial_fit`.
    """

    autoencoder: BaseAutoencoder | None
    resumed: Any
    columns: dict[str, Any]
    X: NDArray[Any]
    weight: NDArray[np.float64]


class AutoencoderMetaEstimator(CallbackSupportMixin, Saved, Declared, BaseEstimator):
    """Base class of meta-estimators that train an autoencoder or use a fitted one.

    The fitted state is one attribute, `_fitted`. In a file, each of its fields that is not None is
    an attribute: the field `offset` is `offset_` if the class has a public attribute of this name,
    and `_offset_` otherwise.
    """

    autoencoder: BaseAutoencoder | FrozenEstimator | None = field(default=None, kw_only=False)

    _parameter_constraints: ClassVar = {"autoencoder": [BaseAutoencoder, FrozenEstimator, None]}

    _doc_link_module = "skae"
    _doc_link_template = BaseAutoencoder._doc_link_template

    _fitted_class: ClassVar[Any]
    """Class of the fitted model, a subclass of `FittedTask`."""

    _validation_options: ClassVar[dict[str, Any]] = {}
    """Keyword arguments that are passed to `validate_rows`, both in `fit` and afterwards."""

    autoencoder_ = FittedAttribute(lambda fitted: fitted.autoencoder)
    n_features_in_ = FittedAttribute(lambda fitted: fitted.n_features_in)
    feature_names_in_ = FittedAttribute(lambda fitted: fitted.defined("feature_names_in"))

    # ------------------------------------------------------------------ fitting

    @abstractmethod
    def _fit_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: Any,
        training: Training,
    ) -> FittedTask:
        """Fit a model and return it. The estimator itself is not fitted and does not change.

        `previous` is the model of the previous fit, or None.
        """

    def _fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        step: str = "_fit_model",
        **options: Any,
    ) -> Self:
        """Fit a new model, then make it the fitted state in a single assignment.

        `step` is the name of the method that fits the model, `_fit_model` or one with the same
        arguments, to which `options` are passed.
        """
        context = init_callback_context(self, int(self._trains_autoencoder()))
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        details = {"X": X, "y": y, "metadata": metadata}
        context.call_on_fit_task_begin(estimator=self, **details)
        # The fit reads a copy, so that another thread that sets parameters meanwhile has no effect.
        unfitted = type(self)(**self.get_params(deep=False))
        training = partial(self._training, context)
        with keeping_checkpoints():
            fit_model = getattr(unfitted, step)
            fitted = fit_model(X, y, sample_weight, self._fitted, training, **options)
            end = partial(context.call_on_fit_task_end, reconstruction_attributes={}, **details)
            self._set_fitted(fitted, partial(end, estimator=self))
        return self

    def _has_own_autoencoder(self) -> bool:
        """Return whether `autoencoder` is an unfitted autoencoder, whose parameters are used."""
        return isinstance(self.autoencoder, BaseAutoencoder)

    def _trains_autoencoder(self) -> bool:
        """Return whether `fit` trains the autoencoder."""
        return not isinstance(self.autoencoder, FrozenEstimator)

    @contextmanager
    def _training(self, context: CallbackContext, autoencoder: BaseAutoencoder) -> Iterator[None]:
        task = context.subcontext(task_name="fit-autoencoder")
        with task.propagate_callback_context(autoencoder):
            task.call_on_fit_task_begin(estimator=self)
            yield
            task.call_on_fit_task_end(estimator=self)

    def _read_training_rows(
        self,
        X: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedTask | None,
        continues: bool = False,
    ) -> TrainingRows:
        """Validate the training data, and copy the autoencoder.

        `previous` is the model of the previous fit, or None. `continues` is whether the rows
        follow those of that fit, as in `partial_fit`. They must then have the same columns, and may
        be a single row.
        """
        autoencoder, resumed = self._copy_autoencoder(X, previous, continues)
        known = previous if continues else resumed
        validator = _make_validator(self, known)
        options = {"reset": known is None, "ensure_min_samples": 1 if continues else 2}
        X = validate_rows(validator, autoencoder, X, **self._validation_options | options)
        weight = read_weight(sample_weight, X)
        if not continues:
            check_more_than_one_row(self, int(np.count_nonzero(weight)))
        columns = {
            "n_features_in": validator.n_features_in_,
            "feature_names_in": getattr(validator, "feature_names_in_", None),
        }
        return TrainingRows(autoencoder, resumed, columns, X, weight)

    def _copy_autoencoder(
        self, X: MatrixLike, previous: FittedTask | None, continues: bool = False
    ) -> tuple[BaseAutoencoder | None, FittedTask | None]:
        """Return a copy of the autoencoder, and the previous model if training resumes from it.

        Training resumes if `continues` is True, or if the autoencoder is not frozen and its
        `warm_start` is True. The copy then contains the autoencoder's part of the previous model.
        """
        if continues and previous is not None and not self._has_own_autoencoder():
            return copy.deepcopy(previous.autoencoder), previous
        if isinstance(self.autoencoder, FrozenEstimator):
            return thaw(self.autoencoder, X), None
        if self.autoencoder is None:
            return None, None
        copied = clone(self.autoencoder)
        if previous is None or not (continues or copied.warm_start):
            return copied, None
        if type(copied) is not type(previous.autoencoder):
            raise ValueError(
                f"autoencoder is a {type(copied).__name__}, but the previous fit trained a "
                f"{type(previous.autoencoder).__name__}, so that training cannot resume. Call fit "
                "with warm_start=False of the autoencoder to start from scratch."
            )
        copied._fitted = previous.autoencoder._fitted
        return copied, previous

    # ---------------------------------------------------------------- inference

    def _read_rows(self, X: MatrixLike, fitted: Any) -> NDArray[Any]:
        """Validate rows for a fitted model."""
        validator, options = _make_validator(self, fitted), self._validation_options
        return validate_rows(validator, fitted.autoencoder, X, reset=False, **options)

    def preprocess(self, X: MatrixLike) -> NDArray[Any]:
        """Convert rows to those that the autoencoder in `autoencoder_` receives.

        The methods of `autoencoder_` accept the result. `AutoencoderOutlierDetector` trains its
        autoencoder in robust units of the columns, in which extreme cells are clipped, unless its
        likelihood restricts the range of cells. The other estimators do not change rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        X_preprocessed : ndarray of shape (n_samples, n_features)
            Rows for the autoencoder, without column names.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If `X` is invalid.
        TypeError
            If `X` is sparse.
        """
        fitted = self._read_fitted()
        return fitted.to_autoencoder(self._read_rows(X, fitted))

    # -------------------------------------------------------------------- state

    @classmethod
    def _stored_names(cls) -> dict[str, str]:
        """Return the name in files of each field of the fitted model."""
        names = [field.name for field in fields(cls._fitted_class)]
        return {n: f"{n}_" if hasattr(cls, f"{n}_") else f"_{n}_" for n in names}

    def _attributes(self) -> dict[str, Any]:
        attributes = super()._attributes()
        fitted = attributes.pop("_fitted", None)
        stored = {key: getattr(fitted, n, None) for n, key in self._stored_names().items()}
        return attributes | {key: value for key, value in stored.items() if value is not None}

    def _is_valid_name(self, key: str) -> bool:
        return key in self._stored_names().values() or super()._is_valid_name(key)

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Self:
        names = cls._stored_names()
        is_learned = {k: isinstance(getattr(cls, k, None), FittedAttribute) for k in state}
        rest = {k: v for k, v in state.items() if not is_learned[k] and k not in names.values()}
        estimator = super()._from_stored_state(rest)
        if any(key in state for key in names.values()):
            parts = {n: state.get(key) for n, key in names.items()}
            estimator._fitted = cls._fitted_class._from_stored_state(parts)
        return estimator

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if isinstance(self.autoencoder, BaseEstimator):
            tags.input_tags.positive_only = get_tags(self.autoencoder).input_tags.positive_only
        return tags


def _make_validator(estimator: AutoencoderMetaEstimator, fitted: FittedTask | None) -> Any:
    """Make the validator of a meta-estimator, with the columns of a model unless it is None."""
    columns = () if fitted is None else (fitted.n_features_in, fitted.feature_names_in)
    return make_validator(type(estimator).__name__, *columns)
