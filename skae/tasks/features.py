"""Transformer that returns the hidden units of any autoencoder as features."""

from dataclasses import dataclass, replace
from math import ceil
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags

from skae._compat.sklearn import Interval, fit_context
from skae.base import BaseAutoencoder, MatrixLike
from skae.files import check_numbers
from skae.fitting.prepare import draw_seed
from skae.table.blocks import NUMBERS
from skae.table.rows import Rows
from skae.table.selection import DistinctRows
from skae.tasks.meta_estimator import (
    DENSITY_ROWS,
    AutoencoderMetaEstimator,
    Training,
    check_uses_no_targets,
)
from skae.tasks.robust_statistics import Floats, mean_and_deviation
from skae.tasks.units import ScaledTask, Units
from skae.training.budget import FULL_BATCH_ROWS
from skae.training.threads import one_thread
from skae.variants.denoising import DenoisingAutoencoder

REACH = 4.0
"""Number of standard deviations at which columns and hidden units are clipped, so that no single
number dominates a linear model."""

TOTAL_VARIANCE = 4.0
"""Sum of the variances of all hidden units in the training rows.

The variance of each column of numbers is 1. A penalized linear model therefore prefers a column to
a hidden unit, and uses hidden units where many of them agree.
"""

MOMENT_ROWS = 2**13
"""Largest number of training rows from which the moments of hidden units are estimated."""

MAX_COMPONENTS = 32
"""Largest number of components of the default autoencoder, which limits the time of a fit."""

BATCH_SIZE, STEPS = 128, 1500
"""Rows per batch and least number of optimizer steps of the default autoencoder."""


@dataclass(frozen=True)
class FittedFeatures(ScaledTask):
    """Fitted model of a transformer.

    Attributes
    ----------
    with_inputs : bool
        Whether the features contain the inputs of the encoder.
    center, scale : ndarray of shape (n_units,)
        Means and standard deviations of the hidden units in the training rows.
    axes : ndarray of shape (n_units, n_features) or None
        Directions that map standardized units to principal components. None if the features are
        the units of the encoder themselves. Otherwise, the units of the decoder follow those of
        the encoder.
    """

    with_inputs: bool
    center: Floats
    scale: Floats
    axes: Floats | None = None

    def _check_state(self) -> None:
        super()._check_state()
        n_units = len(self.unit_names)
        check_numbers(self.center, (n_units,), "the means of hidden units")
        check_numbers(self.scale, (n_units,), "the scales of hidden units", positive=True)
        if self.axes is not None:
            check_numbers(self.axes, (n_units, self.axes.shape[-1]), "the principal axes")

    @property
    @one_thread
    def unit_names(self) -> list[str]:
        """Names of the hidden units. Without hidden layers, the codes replace them."""
        network = self.autoencoder.module_
        parts = [(network.encoder, network.inputs.n_outputs)]
        if self.axes is not None:
            parts.append((network.decoder, network.latent.n_outputs + network.inputs.n_conditions))
        widths = [
            units.shape[-1]
            for body, n_in in parts
            for units in body.hidden(network.like.new_zeros(1, n_in))
        ]
        if not widths:
            return [*self.autoencoder.get_feature_names_out()]
        return [f"hidden{layer}_{i}" for layer, width in enumerate(widths) for i in range(width)]

    def input_columns(self, names: NDArray[Any]) -> list[tuple[int, str]]:
        """Return the index in X and the name of each number that the encoder receives.

        `names` are those of the columns of X.
        """
        flagged = self.schema.modelled[self.autoencoder.module_.inputs.missing.tolist()]
        flags = [(j, f"missingindicator_{names[j]}") for j in flagged.tolist()]
        return replace(self.schema, names=names).encoded_columns + flags

    def activations(self, X: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Compute the inputs of the encoder and the hidden units for rows in the user's units."""
        n_inputs = self.autoencoder.module_.inputs.n_outputs
        activations = self.autoencoder._activations(self.to_rows(X), self.axes is not None)
        inputs, units = np.split(activations.astype(np.float64), [n_inputs], axis=1)
        return inputs, units

    def standardize(self, units: Floats) -> Floats:
        """Standardize hidden units (n, n_units), and clip them."""
        standard: Floats = ((units - self.center) / self.scale).clip(-REACH, REACH)
        return standard

    def with_moments(self, rows: DistinctRows) -> Self:
        """Return the model with the moments and the principal axes of the units of rows."""
        # The rows are sorted by their hashes, so that the first of them are a random sample.
        sample = rows.take(slice(MOMENT_ROWS))
        units = self.activations(sample.table[sample.index])[1]
        center, scale = mean_and_deviation(units, sample.share)
        model = replace(self, center=center, scale=scale)
        if self.axes is None:
            return model
        return replace(model, axes=_principal_axes(model, units, sample.share))

    def features(self, X: NDArray[np.floating]) -> Floats:
        """Compute the features of rows (n, n_columns) in the user's units."""
        inputs, units = self.activations(X)
        standard = self.standardize(units)
        if self.axes is not None:
            return standard @ self.axes
        units = (TOTAL_VARIANCE / len(self.center)) ** 0.5 * standard
        if not self.with_inputs:
            return units
        columns = [j for j, _ in self.input_columns(np.arange(self.schema.n_columns))]
        ordered = inputs[:, np.argsort(columns, kind="stable")].clip(-REACH, REACH)
        return np.hstack([ordered, units])


class AutoencoderFeatures(OneToOneFeatureMixin, TransformerMixin, AutoencoderMetaEstimator):
    """Transformer whose features are the columns and the hidden units of an autoencoder.

    An autoencoder is trained without targets, and the hidden units of its encoder become features
    of a linear model, which can then fit nonlinear functions of the columns. The features are
    bounded, and no further scaling is necessary: ``make_pipeline(AutoencoderFeatures(),
    LogisticRegression())`` is a complete model.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        The autoencoder. It must be able to fit rows without `y`.

        - An unfitted autoencoder is cloned, and the clone is trained with a seed drawn from the
          `random_state` of this estimator. It receives numbers in robust units (see Notes). If its
          `warm_start` is True, training resumes from the autoencoder of the previous `fit`.
        - A fitted autoencoder in `sklearn.frozen.FrozenEstimator` is used without further training.
          It receives rows in the user's units.
        - None uses a `DenoisingAutoencoder` with hidden layers of 256 and 256 units with the
          activation "tanh". It has `n_features` components or, if that is None, as many as X has
          columns, up to 32. It reconstructs rows in which 15 % of the cells are swapped with those
          of other rows. Training takes about 1,500 steps of 128 rows each, or one epoch if that is
          longer.

    n_features : int or None, default=None
        Number of features, if they shall replace the columns instead of joining them, as in PCA.
        They are then the leading principal components of all hidden units, those of the decoder
        included, and the default autoencoder has as many components. None returns the units of the
        encoder themselves.

    passthrough : bool, default=True
        Whether the features contain the inputs of the encoder beside the hidden units. With False,
        `transform` returns the hidden units only. It has no effect if `n_features` is an int.

    random_state : int, RandomState instance or None, default=None
        Seed of the autoencoder's training. Pass an int for reproducible results.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The fitted autoencoder.

    n_features_in_ : int
        Number of columns seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of columns seen during `fit`. Defined only if all names are strings.

    See Also
    --------
    AutoencoderClassifier : Classifier on codes that are trained with the classes.
    AutoencoderRegressor : Regressor on codes that are trained with the targets.
    sklearn.kernel_approximation.Nystroem : Features that approximate a kernel, without training.
    sklearn.neural_network.MLPClassifier : Neural network whose hidden units are trained with the
        classes.

    Notes
    -----
    The user guide shows on which tables such features improve linear models, and on which they do
    not.

    Robust units are those of :class:`AutoencoderOutlierDetector`: the median of a column is 0, and
    the standard deviation of its cells, without far cells, is 1. Here, cells beyond 4 are clipped.
    If a column is skewed and a linear model needs its largest cells, transform it before, for
    example by `sklearn.preprocessing.PowerTransformer`. Columns that are constant in `fit` are 0.
    Columns whose likelihood restricts their cells, such as "bernoulli", keep their units. Training
    that resumes keeps the units of the first fit.

    The inputs of the encoder are the standardized columns, clipped at 4. Categories are one-hot
    encoded and centered. A missing cell is 0, the mean of its column. A further input for each
    column with missing cells in `fit` tells which cells are missing. Columns of a condition are no
    inputs.

    Hidden units are standardized by their moments in the training rows, and clipped at 4 standard
    deviations. They are then multiplied by a constant, so that the sum of their variances is 4. A
    linear model with a penalty thus shrinks the coefficients of many hidden units more than those
    of columns. The hidden units of a recurrent encoder are the states after the last step. If the
    encoder has no hidden layers, or is a torch module of the user, its codes replace them.

    If `n_features` is an int, the features are principal components of standardized and clipped
    hidden units. Their mean variance is 1.

    The default autoencoder is a denoising autoencoder [1]_. Its units with bounded activations
    start with random biases, so that they are already useful features of rows, as in networks with
    random hidden units [2]_. Training adapts them to the dependencies between columns.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol, "Extracting and composing robust
       features with denoising autoencoders", ICML 2008.
    .. [2] W. F. Schmidt, M. A. Kraaijveld and R. P. W. Duin, "Feedforward neural networks with
       random weights", ICPR 1992.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import RidgeCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from skae import AutoencoderFeatures
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(600, 3))
    >>> y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
    >>> model = make_pipeline(AutoencoderFeatures(random_state=0), RidgeCV())
    >>> bool(model.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9)
    True
    >>> RidgeCV().fit(X[:400], y[:400]).score(X[400:], y[400:]) < 0.2
    True
    """

    n_features: int | None = None
    passthrough: bool = True
    random_state: int | RandomState | None = None

    _parameter_constraints: ClassVar = {
        "n_features": [Interval(Integral, 1, None, closed="left"), None],
        "passthrough": ["boolean"],
        "random_state": ["random_state"],
    }

    _fitted_class: ClassVar = FittedFeatures

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None) -> Self:
        """Fit the autoencoder.

        A fit that fails or is interrupted leaves an earlier fit unchanged.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Training rows, in the user's units. The autoencoder determines whether columns may be
            categories and whether cells may be missing.
        y : None
            Ignored, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. A weight of 2 is equivalent to repeating a row, and a weight of 0 is
            equivalent to leaving it out. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        ValueError
            If X is invalid (infinite values, wrong shape, fewer than two rows, no observed cell),
            if `sample_weight` or a parameter is invalid, if `n_features` exceeds the number of
            distinct rows or of hidden units, if training cannot resume because X has other columns
            than in the previous fit, or if the objective becomes NaN or infinite during training.
        TypeError
            If X is sparse, if `autoencoder` is a FrozenEstimator of another estimator than an
            autoencoder of skae, if it requires `y`, or if it is a `FairAutoencoder`, whose hidden
            units depend on the sensitive columns.
        NotFittedError
            If `autoencoder` is a FrozenEstimator of an unfitted autoencoder.

        Warns
        -----
        ConvergenceWarning
            If the training of the autoencoder issues it; see the `fit` of the autoencoder.
        """
        return self._fit(X, y, sample_weight)

    def _fit_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedFeatures | None,
        training: Training,
    ) -> FittedFeatures:
        data = self._read_training_rows(X, sample_weight, previous)
        autoencoder = data.autoencoder or _default_autoencoder(data.read.rows, self.n_features)
        check_uses_no_targets(autoencoder)
        if not autoencoder._encoder_uses_conditions:
            raise TypeError(
                f"autoencoder must not be a {type(autoencoder).__name__}: only its codes are "
                "independent of the sensitive columns, and its hidden units are not. Use the "
                "autoencoder itself as the transformer."
            )
        seed = draw_seed(self.random_state)
        rows = DistinctRows.merge(data.read.rows.values, data.weight, seed)
        if self.n_features is not None:
            _check_n_features(self.n_features, len(rows), "distinct training rows")
        schema = data.read.schema

        def robust() -> Units:
            epsilon = float(np.finfo(rows.table.dtype).eps)
            is_scaled = schema.has_likelihood(NUMBERS)
            return Units.from_rows(rows, rows.share, epsilon, is_scaled).clipped(REACH)

        inputs = FittedFeatures.choose_inputs(data, robust)
        axes = None if self.n_features is None else np.zeros((0, self.n_features))
        none = np.zeros(0)
        parts = autoencoder, schema, inputs, self.passthrough
        model = FittedFeatures(*parts, center=none, scale=none, axes=axes)
        if self._trains_autoencoder():
            autoencoder.set_params(random_state=seed)
            with training(autoencoder):
                model.fit_autoencoder(rows, DENSITY_ROWS)
        return model.with_moments(rows)

    def transform(self, X: MatrixLike) -> Floats:
        """Compute the features of rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Rows, in the user's units.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            The inputs of the encoder, unless `passthrough=False`, followed by the hidden units of
            its layers, or `n_features` principal components of hidden units. They are in float32
            if `X` is, and in float64 otherwise.

        Raises
        ------
        NotFittedError
            If the transformer is not fitted.
        ValueError
            If X is invalid (infinite values, wrong shape).
        TypeError
            If X is sparse.
        """
        fitted = self._read_fitted()
        values = fitted.schema.read(X).values
        return fitted.features(values).astype(values.dtype, copy=False)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the features.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X, or None for those of `fit`, which are "x0", "x1" and so on if
            X had no names.

        Returns
        -------
        names : ndarray of str
            The names of the inputs, unless `passthrough=False`, followed by those of the hidden
            units: "hidden0_2" is the third unit of the first layer. The inputs are the columns. A
            category is named after its column and itself, as by `OneHotEncoder`, and the names of
            inputs for missing cells begin with ``missingindicator_``. Principal components are
            "autoencoderfeatures0" and so on.

        Raises
        ------
        NotFittedError
            If the transformer is not fitted.
        ValueError
            If `input_features` are not the columns of `fit`, or if two features have the same name.
        """
        fitted, names = self._read_fitted(), super().get_feature_names_out(input_features)
        if fitted.axes is not None:
            prefix = type(self).__name__.lower()
            return np.asarray([f"{prefix}{i}" for i in range(fitted.axes.shape[1])], dtype=object)
        columns = fitted.input_columns(names)
        columns = sorted(columns, key=lambda pair: pair[0]) if fitted.with_inputs else []
        labels = [name for _, name in columns] + fitted.unit_names
        distinct, counts = np.unique(labels, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"Two features would have the name {str(distinct[counts.argmax()])!r}. Rename the "
                "column of X."
            )
        return np.asarray(labels, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _check_n_features(n_features: int, limit: int, things: str) -> None:
    """Raise ValueError if there are fewer `things`, of which there are `limit`, than features."""
    if n_features > limit:
        raise ValueError(
            f"n_features={n_features} must be at most {limit}, the number of {things}."
        )


def _principal_axes(model: FittedFeatures, units: Floats, weight: Floats) -> Floats:
    """Return the axes of the leading principal components of hidden units (n, n_units).

    The mean variance of the components is 1.
    """
    assert model.axes is not None
    n_components, standard = model.axes.shape[1], model.standardize(units)
    _check_n_features(n_components, standard.shape[1], "hidden units")
    centered = standard - np.average(standard, axis=0, weights=weight)
    covariance = (centered.T * weight) @ centered / weight.sum()
    variance, axes = np.linalg.eigh(covariance)
    axes, total = axes[:, ::-1][:, :n_components], variance[-n_components:].sum()
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    scaled: Floats = signs * axes * (n_components / total if total > 0 else 1.0) ** 0.5
    return scaled


def _default_autoencoder(rows: Rows, n_components: int | None) -> BaseAutoencoder:
    """Return the default autoencoder for training rows."""
    return DenoisingAutoencoder(
        n_components or min(rows.n_modelled, MAX_COMPONENTS),
        hidden_layer_sizes=(256, 256),
        activation="tanh",
        linear_skip=False,
        corruption="swap",
        corruption_level=0.15,
        # Noise protects the units from overfitting. Weight decay would make them linear.
        weight_decay=0.0,
        learning_rate=5e-3,
        batch_size=BATCH_SIZE,
        max_epochs=max(1, ceil(STEPS / ceil(len(rows) / BATCH_SIZE))),
        early_stopping=False,
        # float32 halves the time of training.
        precision="auto" if len(rows) <= FULL_BATCH_ROWS else "float32",
    )
