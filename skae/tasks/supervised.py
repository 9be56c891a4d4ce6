"""Base of classifiers and regressors on codes that are trained for both rows and targets."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import RandomState
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import Tags
from torch import Tensor

from skae._compat.sklearn import Interval, fit_context
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.files import check_numbers
from skae.fitting.prepare import ReadRows, draw_seed
from skae.parameters import short_repr
from skae.state import FittedAttribute
from skae.table.blocks import NUMBERS
from skae.table.rows import Rows, group_equal_rows, hash_rows, merge_equal_rows
from skae.table.seen import Seen
from skae.table.selection import DistinctRows, Selection
from skae.table.targets import (
    Targets,
    column_names,
    targets_of_positive_weight,
)
from skae.table.weights import read_weight
from skae.tasks.meta_estimator import (
    DENSITY_ROWS,
    AutoencoderMetaEstimator,
    Training,
    TrainingRows,
    check_uses_no_targets,
)
from skae.tasks.propagation import MIN_ROWS, Propagation
from skae.tasks.units import ScaledTask, Units
from skae.training.budget import FULL_BATCH_ROWS
from skae.training.heads import Family, Head, fit_linear_map
from skae.training.threads import one_thread
from skae.variants.autoencoder import Autoencoder

MIN_EPOCHS, MIN_STEPS = 20, 200
"""Minimum numbers of epochs and of optimizer steps of the default autoencoder."""

BATCH_SIZE = 128
"""Rows per batch of the default autoencoder for tables of more than `FULL_BATCH_ROWS` rows."""


@dataclass(frozen=True)
class FittedSupervised(ScaledTask):
    """Fitted model of a supervised meta-estimator.

    Attributes
    ----------
    maps : list of ndarray
        Coefficients (n_components, n_outputs) and intercepts (n_outputs,) of one linear map after
        the other. That of `fit` or `partial_fit` is the first.
    label_names : list of str or None
        Names of the outputs. None for a classifier of a single column of classes.
    """

    maps: list[Floats]
    label_names: list[str] | None

    def _check_state(self) -> None:
        super()._check_state()
        k = self.autoencoder.n_components_
        for coef, intercept in zip(self.maps[::2], self.maps[1::2], strict=True):
            check_numbers(intercept, intercept.shape[:1], "the intercepts of a map")
            check_numbers(coef, (k, len(intercept)), "the coefficients of a map")
        if any(part.dtype != np.float64 for part in self.maps):
            raise ValueError("the coefficients and intercepts of maps must be in float64")
        n_outputs = sum(map(len, self.maps[1::2]))
        if not n_outputs or n_outputs != self._n_outputs():
            raise ValueError(f"the maps have {n_outputs} outputs instead of {self._n_outputs()}")

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Any:
        # Models from files of earlier versions received rows in the user's units.
        if state.get("inputs") is None:
            state = state | {"inputs": Units.identity(state["schema"].n_columns)}
        return super()._from_stored_state(state)

    def _n_outputs(self) -> int:
        """Return the number of columns of all maps together."""
        return len(self.label_names or [])

    @property
    def outputs(self) -> list[Any] | None:
        """The names of the outputs, or the classes if the targets are a column of classes."""
        return self.label_names

    def encode(self, rows: Rows) -> Floats:
        """Compute the codes of rows that have been read, in the user's units."""
        if not self.inputs.is_single_precision:
            return self.autoencoder._encode(rows)
        codes = self.autoencoder._encode(self.to_rows(rows.values))
        return codes.astype(rows.values.dtype, copy=False)


ReadTargets = tuple[Family, Targets, dict[str, Any]]
"""Family of the targets of `fit`, the targets, and fields of the fitted model."""


class SupervisedMetaEstimator(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, AutoencoderMetaEstimator, ABC
):
    """Base class of supervised meta-estimators on the codes of an autoencoder.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        The autoencoder to train. It must not require `y` itself.

        - An unfitted autoencoder is cloned, and the clone is trained with a seed drawn from the
          `random_state` of this estimator. It receives numbers in robust units (see Notes). If its
          `warm_start` is True, training resumes from the autoencoder of the previous `fit`, whose
          columns and classes or targets must be the same.
        - A fitted autoencoder in `sklearn.frozen.FrozenEstimator` is pre-trained. It is copied,
          and training starts from the copy. It receives rows in the user's units. With
          `fine_tune=False`, the copy is used without further training. The original stays
          unchanged, and its `warm_start` has no effect.
        - None uses a denoising `Autoencoder` whose number of components is twice the square root of
          the number of columns, rounded. It is trained on all rows with 30 % of the cells masked,
          for 20 epochs or about 200 steps, whichever is longer. Its `precision` is "float32" for
          more than 256 distinct rows, and "auto" otherwise.

    label_weight : float, default=10.0
        Weight of the targets' loss in the objective. It must be positive. Large values shape the
        codes for the targets, and small values shape them for the rows. The default lies in the
        middle of the range from 1 to 100, in which predictions rarely differ much, because the
        linear map is refitted to the final codes. It has no effect with `fine_tune=False`.

    reconstruction_weight : float, default=1.0
        Weight of the autoencoder's own objective, at least 0. With 0, the encoder is trained by the
        targets alone, as an ordinary neural network is. Rows without targets then add nothing to
        the objective but their estimated targets. The default leaves the autoencoder's objective
        unchanged. It has no effect with `fine_tune=False`.

    fine_tune : bool, default=True
        Whether the targets train the encoder. If False, the autoencoder is trained without targets.
        If it is a FrozenEstimator, it is not trained at all. The default is True because codes that
        are trained without targets may lose the information that predicts the targets.

    propagate : bool, default=True
        Whether `fit` estimates a missing target from the rows in which it is known, if these are at
        most 30 % of the rows (see Notes). With `fine_tune=True`, the autoencoder is then trained
        twice. With False, a missing target contributes no loss.

    random_state : int, RandomState instance or None, default=None
        Seed of the training: it determines the initial weights, the validation rows and all random
        draws. Pass an int for reproducible results.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The trained autoencoder, or a copy of the pre-trained one if it was not trained further.

    n_components_ : int
        Number of components of the codes.

    label_names_ : list of str
        Names of the outputs. Those of `fit` are the column names of `y` if it was a pandas
        DataFrame, and "y0", "y1" and so on otherwise. Those of `add_label` follow. A classifier has
        this attribute only if `fit` received a `y` of several columns.

    n_features_in_ : int
        Number of columns seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of columns seen during `fit`. Defined only if all names are strings.
    """

    label_weight: float = 10.0
    reconstruction_weight: float = 1.0
    fine_tune: bool = True
    propagate: bool = True
    random_state: int | RandomState | None = None

    _parameter_constraints: ClassVar = {
        "label_weight": [Interval(Real, 0, None, closed="neither")],
        "reconstruction_weight": [Interval(Real, 0, None, closed="left")],
        "fine_tune": ["boolean"],
        "propagate": ["boolean"],
        "random_state": ["random_state"],
    }

    n_components_ = FittedAttribute(lambda fitted: fitted.autoencoder.n_components_)
    _n_features_out = FittedAttribute(lambda fitted: fitted.autoencoder._n_features_out)
    label_names_ = FittedAttribute(lambda fitted: fitted.defined("label_names"))

    @abstractmethod
    def _read_targets(self, y: MatrixLike, weight: Floats) -> ReadTargets:
        """Read the targets of `fit`."""

    @abstractmethod
    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        """Read the target of `add_label`."""

    def _output_names(self, names: list[str]) -> dict[str, Any]:
        """Return the fields of the fitted model that depend on the names of the outputs."""
        return {"label_names": names}

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> Self:
        """Train the autoencoder, and then fit the linear map from its codes to the targets.

        The targets take part in the training of the autoencoder if `fine_tune=True`. A fit that
        fails or is interrupted leaves an earlier fit unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. A number or a label that is missing is NaN, and a class that is missing is -1.
            The row of a missing target still trains the autoencoder.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. A weight of 2 is equivalent to repeating a row, and a weight of 0 is
            equivalent to leaving it out. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is invalid (infinite values, wrong shape, fewer than two rows), if y is None or
            invalid, if `sample_weight` or a parameter is invalid, if training cannot resume because
            X has other columns or y has other classes or columns than in the previous fit, or if
            the objective becomes NaN or infinite during training.
        TypeError
            If X is sparse, if `autoencoder` itself requires y, or if it is a FrozenEstimator of
            another estimator than an autoencoder of skae.
        NotFittedError
            If `autoencoder` is a FrozenEstimator of an unfitted autoencoder.

        Warns
        -----
        ConvergenceWarning
            If the training of the autoencoder issues it; see the `fit` of the autoencoder.
        DataConversionWarning
            If a classifier receives a `y` of shape (n_samples, 1) instead of (n_samples,).
        """
        return self._fit(X, y, sample_weight)

    def _fit_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedSupervised | None,
        training: Training,
    ) -> FittedSupervised:
        data = self._read_training_rows(X, sample_weight, previous)
        y, weight = targets_of_positive_weight(y, data.all_weights, self)
        family, targets, outputs = self._read_targets(y, weight)
        seed = draw_seed(self.random_state)
        distinct = _distinct_rows(data.read.rows, targets if self.fine_tune else None)
        autoencoder = data.autoencoder or _default_autoencoder(distinct)
        check_uses_no_targets(autoencoder)
        inputs = ScaledTask.choose_inputs(data, lambda: self._robust_units(data, seed))
        model: FittedSupervised = self._fitted_class(
            autoencoder=autoencoder, schema=data.read.schema, inputs=inputs, maps=[], **outputs
        )
        if data.resumed is not None and model.outputs != data.resumed.outputs:
            raise ValueError(
                f"y has the classes or columns {model.outputs}, but those of the previous fit are "
                f"{data.resumed.outputs}, so that training cannot resume. Set the autoencoder's "
                "warm_start=False to fit from scratch."
            )
        autoencoder.set_params(random_state=seed)
        read = self._read_for(model, data)

        def encode(autoencoder: BaseAutoencoder, targets: Targets) -> Floats:
            if self._trains_autoencoder():
                with training(autoencoder):
                    self._train(autoencoder, read, family, targets, weight)
            return autoencoder._encode(read.rows)

        propagation = self._propagation(model, data, family, targets, seed)
        if propagation is None:
            codes = encode(autoencoder, targets)
        elif self.fine_tune:
            # The codes of a network that is trained with first estimates yield better ones.
            codes = encode(copy.deepcopy(autoencoder), propagation.complete().likely)
            completed = propagation.complete(codes)
            codes, targets = encode(autoencoder, completed.likely), completed.expected
        else:
            codes = encode(autoencoder, targets)
            targets = propagation.complete(codes).expected
        if not self.fine_tune:
            autoencoder._fitted = autoencoder._fitted.without_targets()
        maps = fit_linear_map(family, codes.astype(np.float64), targets, weight)
        return replace(model, maps=[*maps])

    @staticmethod
    def _robust_units(data: TrainingRows, seed: int) -> Units:
        rows = DistinctRows.merge(data.read.rows.values, data.weight, seed)
        return Units.for_targets(rows, data.read.schema.has_likelihood(NUMBERS))

    def _propagation(
        self,
        model: FittedSupervised,
        data: TrainingRows,
        family: Family,
        targets: Targets,
        seed: int,
    ) -> Propagation | None:
        """Prepare the estimation of missing targets. None if none are estimated."""
        if not (self.propagate and Propagation.is_rare(targets, data.weight).any()):
            return None
        rows, units = data.read.rows, model.inputs
        if not units.is_single_precision:
            # Distances of rows would depend on the user's units.
            units = self._robust_units(data, seed)
        groups = group_equal_rows(Selection.all(rows.values).hash_ranks(seed))
        if len(groups[0]) < MIN_ROWS:
            return None
        return Propagation(family, rows, units, *groups, targets, data.weight)

    def _stream_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedSupervised | None,
        training: Training,
        classes: MatrixLike | None = None,
    ) -> FittedSupervised:
        """Continue the training of a model on new rows, and refit the linear map."""
        if not self.fine_tune:
            raise ValueError(
                "partial_fit trains the encoder, which fine_tune=False excludes. Set "
                "fine_tune=True, or use the autoencoder's own partial_fit."
            )
        if previous is not None and len(previous.maps) > 2:
            raise ValueError(
                "partial_fit would change the codes, but the labels of add_label belong to the "
                "present codes. Call partial_fit before add_label."
            )
        if previous is not None and not previous.autoencoder._fitted.seen.labeled:
            raise ValueError(
                "partial_fit continues from rows with their targets, which a fit with "
                "fine_tune=False and files of earlier versions do not keep. Call fit first."
            )
        data = self._read_training_rows(X, sample_weight, previous, True)
        y, weight = targets_of_positive_weight(y, data.all_weights, self)
        family, targets, outputs = self._read_stream(y, weight, previous, classes)
        if previous is None and not targets.any_observed.any():
            raise ValueError("y of the first call must contain a known target.")
        autoencoder = data.autoencoder or _default_autoencoder(data.read.rows)
        check_uses_no_targets(autoencoder)
        if self.autoencoder is None:
            # Batch size and precision of the default suit the rows of a fit, in robust units.
            autoencoder.set_params(batch_size="auto", precision="auto")
        before = autoencoder._fitted
        if previous is None and before is not None:
            before = autoencoder._fitted = before.without_targets()
        known = None if previous is None else (previous.maps[0], previous.maps[1])
        of_network = None
        if previous is not None:
            components = previous.autoencoder._fitted.components
            of_network = components.map_of_network(previous.maps[0], previous.maps[1])
        autoencoder.set_params(random_state=draw_seed(self.random_state))
        head = Head(family, self.label_weight, self.reconstruction_weight, of_network)
        # The first rows of a stream may not show the units of later ones.
        inputs = Units.identity(data.read.schema.n_columns)
        if previous is not None:
            inputs = previous.inputs
        model: FittedSupervised = self._fitted_class(
            autoencoder=autoencoder, schema=data.read.schema, inputs=inputs, maps=[], **outputs
        )
        rows = self._read_for(model, data)
        with training(autoencoder):
            with_loss = replace(targets, loss=head)
            autoencoder._partial_fit_rows(rows, with_loss, weight, DENSITY_ROWS)
        earlier = None if before is None else before.seen
        maps = _refit(family, autoencoder, earlier, rows.rows, targets, weight) or known
        assert maps is not None
        return replace(model, maps=[*maps])

    @staticmethod
    def _read_for(model: FittedSupervised, data: TrainingRows) -> ReadRows:
        """Return the rows that the autoencoder of a model receives."""
        if not model.inputs.is_single_precision:
            return data.rows_for(model.autoencoder)
        return model.read_scaled(Selection.all(data.read.rows.values))

    @abstractmethod
    def _read_stream(
        self,
        y: MatrixLike,
        weight: Floats,
        previous: Any,
        classes: MatrixLike | None,
    ) -> ReadTargets:
        """Read the targets of `partial_fit`, which are those of the first call."""

    def _train(
        self,
        autoencoder: BaseAutoencoder,
        read: ReadRows,
        family: Family,
        targets: Targets,
        weight: Floats,
    ) -> None:
        """Train the autoencoder, or resume its training if it is fitted."""
        if not self.fine_tune:
            autoencoder._fit_rows(read, None, weight, resume=True)
            return
        head = Head(family, self.label_weight, self.reconstruction_weight)
        with_loss = replace(targets, loss=head)
        autoencoder._fit_rows(read, with_loss, weight, True, DENSITY_ROWS)

    def _trains_autoencoder(self) -> bool:
        return self.fine_tune or super()._trains_autoencoder()

    def _n_trainings(self) -> int | None:
        # Missing targets are estimated after a first training.
        return None if self.fine_tune and self.propagate else super()._n_trainings()

    def add_label(
        self,
        X: MatrixLike,
        y: MatrixLike,
        name: str | None = None,
        sample_weight: MatrixLike | None = None,
    ) -> Self:
        """Add an output that is predicted from the existing codes.

        The autoencoder and the other outputs stay unchanged, bit for bit. The linear map from
        codes to the new target is the solution of a convex problem.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units. They need not be the rows that `fit` received.
        y : array-like of shape (n_samples,)
            Targets of the rows. A regressor needs numbers, and a classifier needs labels of 0 and
            1, both of which must occur. A missing target is NaN. A classifier also accepts -1 for a
            missing label.
        name : str, default=None
            Name of the output in `label_names_`. None uses "y" followed by a number: the number of
            outputs so far, or the next larger number whose name is not used yet.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The estimator. Its predictions have one more column. If a regressor was fitted to a
            vector, its predictions become a matrix.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is invalid, if `name` already exists or is not a string, or
            if a classifier was fitted to a y of a single column.
        TypeError
            If X is sparse.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._read_fitted()
        names = fitted.label_names
        if names is None:
            raise ValueError(
                "add_label requires a multilabel classifier, but this classifier was fitted to a "
                "y of a single column. Fit it to a y of several columns of 0 and 1, or fit another "
                "classifier."
            )
        rows = fitted.schema.read(X)
        weight = read_weight(sample_weight, rows.values)
        rows, (y, weight) = rows.take(weight > 0), targets_of_positive_weight(y, weight, self)
        if name is None:
            name = next(n for n in (f"y{j}" for j in count(len(names))) if n not in names)
        if not isinstance(name, str) or name in names:
            raise ValueError(
                f"name must be a string that is not in {names}, got {short_repr(name)}."
            )
        family, targets = self._read_added_label(y, weight)
        added = fit_linear_map(family, fitted.encode(rows).astype(np.float64), targets, weight)
        outputs = self._output_names([*names, name])
        self._fitted = replace(fitted, maps=[*fitted.maps, *added], **outputs)
        return self

    def transform(self, X: MatrixLike) -> Floats:
        """Compute the codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, in float32 if `X` is, and in float64 otherwise.
        """
        fitted = self._read_fitted()
        return fitted.encode(fitted.schema.read(X))

    @one_thread
    def _outputs(
        self,
        X: MatrixLike,
        fitted: FittedSupervised,
        link: Callable[[Tensor], Tensor] = torch.positive,
    ) -> Floats:
        """Compute the codes of rows, and apply the linear maps and a link function to them.

        The link function receives the outputs of one map, of shape (n_samples, n_outputs). Returns
        the results for all maps side by side, of shape (n_samples, n_columns).
        """
        encoded = fitted.encode(fitted.schema.read(X))
        codes = torch.from_numpy(encoded.astype(np.float64, copy=False))
        # Each map is applied on its own. If one matrix product computed all outputs, the last bits
        # of existing outputs could change when `add_label` adds a map.
        maps = [torch.from_numpy(part) for part in fitted.maps]
        pairs = zip(maps[::2], maps[1::2], strict=True)
        return np.hstack([link(codes @ coef + intercept).numpy() for coef, intercept in pairs])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def names_in_stream(y: MatrixLike, previous: FittedSupervised | None) -> list[str]:
    """Return the names of the columns of `y`. Raises ValueError if they are not those before."""
    names = column_names(y)
    if previous is None:
        return names
    known = previous.label_names or []
    if len(names) != len(known) or (hasattr(y, "columns") and names != known):
        raise ValueError(
            f"y must have the same columns as in the first call, {short_repr(known)}, in the same "
            f"order, got {short_repr(names)}."
        )
    return known


def _refit(
    family: Family,
    autoencoder: BaseAutoencoder,
    before: Seen | None,
    rows: Rows,
    targets: Targets,
    weight: Floats,
) -> tuple[Floats, Floats] | None:
    """Fit a linear map to new rows and to the sample of the rows that were seen before.

    Return None if the sample and the new rows do not represent most targets.
    """
    seen, codes = autoencoder._fitted.seen, autoencoder._encode(rows)
    if not seen.represents_most_targets:
        return None
    if before is not None and before.sample is not None:
        sample = before.sample
        codes = np.concatenate([autoencoder._encode(sample.rows), codes])
        targets = (sample.targets or targets.missing(len(sample))).append(targets)
        weight = np.append(before.sample_weight, weight)
    targets = replace(targets, units=seen.target_units)
    return fit_linear_map(family, codes.astype(np.float64), targets, weight)


def _distinct_rows(rows: Rows, targets: Targets | None) -> Rows:
    """Return the distinct rows, or one row for each distinct pair of a row and its targets."""
    tables = [] if targets is None else [targets.values, targets.observed]
    hashes = [rows.hash(0), *(hash_rows(table, 0) for table in tables)]
    return rows.take(merge_equal_rows(np.ones(len(rows)), *hashes)[0])


def _default_autoencoder(rows: Rows) -> Autoencoder:
    """Return the default autoencoder for rows: 30 % of the cells are masked.

    The rows are those on which the autoencoder is trained, which are distinct.
    """
    n, n_features = rows.values.shape
    is_small = n <= FULL_BATCH_ROWS
    batch_size = n if is_small else BATCH_SIZE
    return Autoencoder(
        round(2 * n_features**0.5),
        hidden_layer_sizes=(256, 128),
        linear_skip=False,
        corruption="masking",
        corruption_level=0.3,
        learning_rate=5e-3,
        weight_decay=0.0,
        max_epochs=max(MIN_EPOCHS, ceil(MIN_STEPS * batch_size / n)),
        batch_size=batch_size,
        early_stopping=False,
        # float32 halves the time of training.
        precision="auto" if is_small else "float32",
    )
