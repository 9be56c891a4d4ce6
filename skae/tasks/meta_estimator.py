"""Base class of meta-estimators that contain an autoencoder and validate rows for it."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.callback import CallbackContext, CallbackSupportMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, get_tags

from skae._compat.sklearn import (
    BaseEstimator,
    check_feature_names,
    init_callback_context,
    validate_parameters,
)
from skae.base import BaseAutoencoder, MatrixLike
from skae.files import Stored
from skae.fitting.prepare import ReadRows, read_rows
from skae.parameters import Declared, short_repr
from skae.state import FittedAttribute, Saved
from skae.table.reading import holds_numbers, make_validator
from skae.table.rows import Rows
from skae.table.schema import Schema
from skae.table.weights import check_more_than_one_row, read_weight, rows_of_positive_weight
from skae.training.checkpoint import keeping_checkpoints
from skae.variants.autoencoder import Autoencoder

DENSITY_ROWS = 256
"""Maximum number of rows from which the density is estimated by tasks that train an autoencoder and
do not use the density. Few rows are enough."""


@dataclass(frozen=True)
class FittedTask(Stored):
    """Fitted model of a meta-estimator. It never changes, because every fit makes a new one.

    Attributes
    ----------
    autoencoder : BaseAutoencoder
        The fitted autoencoder.
    schema : Schema
        How tables of the user are read. Its error messages name the meta-estimator. Its cells are
        those of the autoencoder, except that the autoencoder may use other units.
    """

    autoencoder: BaseAutoencoder
    schema: Schema

    def _check_state(self) -> None:
        fitted = self.autoencoder._fitted
        if fitted is None or not fitted.schema.has_cells_of(self.schema):
            raise ValueError(
                f"the autoencoder is not fitted to the {self.schema.n_columns} columns of the "
                "schema"
            )

    @property
    def n_features_in(self) -> int:
        """Number of columns of the training rows."""
        return self.schema.n_columns

    @property
    def feature_names_in(self) -> NDArray[Any] | None:
        """Names of these columns, if all of them are strings."""
        return self.schema.names

    def to_autoencoder(self, X: MatrixLike, rows: Rows) -> Any:
        """Return the table that the autoencoder receives for a table, whose `rows` were read."""
        schema = self.autoencoder._fitted.schema
        return schema.arrange(rows.modelled) if schema.takes_arrays else X

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
    read : ReadRows
        The n rows of positive weight, and the schema that has read them. The error messages of the
        schema name the meta-estimator.
    weight : ndarray of shape (n,)
        Weights of these rows. There are at least two, or one in `partial_fit`.
    all_weights : ndarray of shape (n_samples,)
        Weights of all rows of the table.
    """

    autoencoder: BaseAutoencoder | None
    resumed: Any
    read: ReadRows
    weight: NDArray[np.float64]
    all_weights: NDArray[np.float64]

    def rows_for(self, autoencoder: BaseAutoencoder) -> ReadRows:
        """Return the rows with the schema of an autoencoder."""
        return self.read._replace(schema=schema_of(autoencoder, self.read.schema.for_arrays()))


def schema_of(autoencoder: BaseAutoencoder, schema: Schema) -> Schema:
    """Return the schema of a fitted autoencoder.

    If it is not fitted, return `schema`, with error messages that name the autoencoder.
    """
    if autoencoder._fitted is not None:
        return autoencoder._fitted.schema
    return replace(schema, owner=type(autoencoder).__name__)


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
        context = init_callback_context(self, self._n_trainings())
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

    def _n_trainings(self) -> int | None:
        """Return how often `fit` trains an autoencoder, or None if this depends on the data."""
        return int(self._trains_autoencoder())

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
        autoencoder, resumed = self._copy_autoencoder(previous, continues)
        known = previous if continues else resumed
        all_weights = None
        has_conditions = autoencoder is not None and autoencoder._conditions()[1] is not None
        if sample_weight is not None and (has_conditions or not holds_numbers(X)):
            # The categories of rows of weight 0 must not become levels.
            all_weights = read_weight(sample_weight, X)
            X, _ = rows_of_positive_weight(X, None, all_weights)
        if known is None:
            schema, rows = self._read_new(autoencoder, X, 1 if continues else 2)
        else:
            if autoencoder is not None:
                known.schema.check_same_columns(X, autoencoder._conditions()[1])
            schema, rows = known.schema, known.schema.read(X)
        if all_weights is None:
            all_weights = read_weight(sample_weight, rows.values)
        weight = all_weights[all_weights > 0]
        if not continues:
            check_more_than_one_row(self, len(weight))
        if len(weight) < len(rows):
            rows = rows.take(all_weights > 0)
        read = ReadRows(schema, rows)
        return TrainingRows(autoencoder, resumed, read, weight, all_weights)

    def _read_new(
        self, autoencoder: BaseAutoencoder | None, X: MatrixLike, min_rows: int
    ) -> ReadRows:
        """Read the table of a first fit. A frozen autoencoder determines its schema."""
        owner = type(self).__name__
        if autoencoder is None:
            autoencoder = Autoencoder()
        if autoencoder._fitted is None:
            validate_parameters(autoencoder)
            return read_rows(autoencoder, X, None, min_rows, owner)
        schema = replace(autoencoder._fitted.schema, owner=owner)
        rows, validator = schema.read(X), make_validator(owner)
        check_feature_names(validator, X, reset=True)
        arrays = autoencoder._fitted.schema.for_arrays()
        autoencoder._fitted = replace(autoencoder._fitted, schema=arrays)
        return ReadRows(replace(schema, names=getattr(validator, "feature_names_in_", None)), rows)

    def _copy_autoencoder(
        self, previous: FittedTask | None, continues: bool = False
    ) -> tuple[BaseAutoencoder | None, FittedTask | None]:
        """Return a copy of the autoencoder, and the previous model if training resumes from it.

        Training resumes if `continues` is True, or if the autoencoder is not frozen and its
        `warm_start` is True. The copy then contains the autoencoder's part of the previous model.
        """
        if continues and previous is not None and not self._has_own_autoencoder():
            return copy.deepcopy(previous.autoencoder), previous
        if isinstance(self.autoencoder, FrozenEstimator):
            return _thaw(self.autoencoder), None
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

    def preprocess(self, X: MatrixLike) -> Any:
        """Convert rows to those that the autoencoder in `autoencoder_` receives.

        The methods of `autoencoder_` accept the result. All meta-estimators but
        `AutoencoderImputer` train their autoencoders in robust units of the columns, in which
        extreme cells are clipped, unless the likelihood restricts the range of cells. Autoencoders
        that were fitted before receive rows in the user's units.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        X_preprocessed : ndarray or data frame of shape (n_samples, n_features)
            Rows for the autoencoder: a data frame if the first fit received one with categories or
            dates, and an array without column names otherwise.

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
        return fitted.to_autoencoder(X, fitted.schema.read(X))

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
            if parts["schema"] is None:
                parts["schema"] = cls._schema_of_earlier_files(state)
            estimator._fitted = cls._fitted_class._from_stored_state(parts)
        return estimator

    @classmethod
    def _schema_of_earlier_files(cls, state: dict[str, Any]) -> Schema:
        """Return the schema of a model from a file of format 4 or earlier."""
        autoencoder = state.get("autoencoder_")
        if not isinstance(autoencoder, BaseAutoencoder) or autoencoder._fitted is None:
            raise ValueError("the file contains no fitted autoencoder")
        schema, names = autoencoder._fitted.schema, state.get("feature_names_in_")
        if state.get("n_features_in_") != schema.n_columns:
            raise ValueError(f"the autoencoder is not fitted to {state.get('n_features_in_')}")
        return replace(schema, owner=cls.__name__, names=names)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        autoencoder = Autoencoder() if self.autoencoder is None else self.autoencoder
        if isinstance(autoencoder, BaseEstimator):
            tags.input_tags = get_tags(autoencoder).input_tags
        return tags


def _thaw(frozen: FrozenEstimator) -> BaseAutoencoder:
    """Copy the fitted autoencoder in a FrozenEstimator.

    Raises TypeError if it does not contain an autoencoder of skae, and NotFittedError if that is
    not fitted.
    """
    if not isinstance(frozen.estimator, BaseAutoencoder):
        raise TypeError(
            f"autoencoder must contain an autoencoder of skae, got {short_repr(frozen)}."
        )
    # Another thread may refit the original meanwhile, so that only the copy is read.
    copied = copy.deepcopy(frozen.estimator)
    copied._read_fitted()
    return copied


def check_uses_no_targets(autoencoder: BaseAutoencoder) -> None:
    """Raise TypeError if an autoencoder requires targets itself."""
    if get_tags(autoencoder).target_tags.required:
        raise TypeError(
            f"autoencoder must not require y, got the classifier {short_repr(autoencoder)}."
        )
