"""Transformer that returns the hidden units of any autoencoder as features."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags

from skae._compat.sklearn import fit_context
from skae.base import BaseAutoencoder, MatrixLike
from skae.files import check_numbers
from skae.fitting.prepare import draw_seed
from skae.table.blocks import NUMBERS
from skae.table.rows import Rows
from skae.table.selection import DistinctRows
from skae.tasks.meta_estimator import DENSITY_ROWS, AutoencoderMetaEstimator, Training
from skae.tasks.robust_statistics import Floats, mean_and_deviation
from skae.tasks.units import ScaledTask, Units
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
    center, scale : ndarray of shape (n_units,)
        Means and standard deviations of the hidden units in the training rows.
    """

    center: Floats
    scale: Floats

    def _check_state(self) -> None:
        super()._check_state()
        n_units = len(self.unit_names)
        check_numbers(self.center, (n_units,), "the means of hidden units")
        check_numbers(self.scale, (n_units,), "the scales of hidden units", positive=True)

    @property
    def unit_names(self) -> list[str]:
        """Names of the hidden units. Without hidden layers, the codes replace them."""
        widths = self.autoencoder._hidden_widths
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

    def features(self, X: NDArray[np.floating], with_columns: bool) -> Floats:
        """Compute the features of rows (n, n_columns) in the user's units.

        `with_columns` is whether they contain the inputs of the encoder.
        """
        activations = self.autoencoder._activations(self.to_rows(X))
        inputs, units = np.split(activations, [-len(self.center)], axis=1)
        standard = ((units - self.center) / self.scale).clip(-REACH, REACH)
        units = (TOTAL_VARIANCE / len(self.center)) ** 0.5 * standard
        if not with_columns:
            return units
        columns = [j for j, _ in self.input_columns(np.arange(self.schema.n_columns))]
        return np.hstack([inputs[:, np.argsort(columns, kind="stable")], units])


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
          activation "tanh". It has as many components as X has columns, up to 32. It reconstructs
          rows in which 15 % of the cells are swapped with those of other rows. Training takes about
          1,500 steps of 128 rows each, or one epoch if that is longer.

    passthrough : bool, default=True
        Whether the features contain the inputs of the encoder beside the hidden units. With False,
        `transform` returns the hidden units only.

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
    Columns whose likelihood restricts their cells, such as "bernoulli", keep their units.

    The inputs of the encoder are the standardized columns. Categories are one-hot encoded and
    centered. A missing cell is 0, the mean of its column. A further input for each column with
    missing cells in `fit` tells which cells are missing. Columns of a condition are no inputs.

    Hidden units are standardized by their moments in the training rows, and clipped at 4 standard
    deviations. They are then multiplied by a constant, so that the sum of their variances is 4. A
    linear model with a penalty thus shrinks the coefficients of many hidden units more than those
    of columns. The hidden units of a recurrent encoder are the states after the last step. If the
    encoder has no hidden layers, or is a torch module of the user, its codes replace them.

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

    passthrough: bool = True
    random_state: int | RandomState | None = None

    _parameter_constraints: ClassVar = {
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
            if `sample_weight` or a parameter is invalid, if training cannot resume because X has
            other columns than in the previous fit, or if the objective becomes NaN or infinite
            during training.
        TypeError
            If X is sparse, if `autoencoder` is a FrozenEstimator of another estimator than an
            autoencoder of skae, or if it is a `FairAutoencoder`, whose hidden units depend on the
            sensitive columns.
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
        autoencoder = data.autoencoder or _default_autoencoder(data.read.rows)
        if not autoencoder._encoder_uses_conditions:
            raise TypeError(
                f"autoencoder must not be a {type(autoencoder).__name__}: only its codes are "
                "independent of the sensitive columns, and its hidden units are not. Use the "
                "autoencoder itself as the transformer."
            )
        seed = draw_seed(self.random_state)
        rows = DistinctRows.merge(data.read.rows.values, data.weight, seed)
        schema, inputs = data.read.schema, Units.identity(rows.n_columns)
        if data.resumed is not None:
            # The network was trained in these units.
            inputs = data.resumed.inputs
        elif self._trains_autoencoder():
            epsilon = float(np.finfo(rows.table.dtype).eps)
            is_scaled = schema.has_likelihood(NUMBERS)
            units = Units.from_rows(rows, rows.share, epsilon, is_scaled)
            inputs = replace(units, reach=np.where(is_scaled, REACH, np.inf))
        none = np.zeros(0)
        model = FittedFeatures(autoencoder, schema, inputs, center=none, scale=none)
        if self._trains_autoencoder():
            autoencoder.set_params(random_state=seed)
            with training(autoencoder):
                model.fit_autoencoder(rows, DENSITY_ROWS)
        # The rows are sorted by their hashes, so that the first of them are a random sample.
        sample = rows.take(slice(MOMENT_ROWS))
        activations = autoencoder._activations(model.to_rows(sample.table[sample.index]))
        hidden = activations[:, -len(model.unit_names) :].astype(np.float64)
        center, scale = mean_and_deviation(hidden, sample.share)
        return replace(model, center=center, scale=scale)

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
            its layers, in float32 if `X` is, and in float64 otherwise.

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
        return fitted.features(values, self.passthrough).astype(values.dtype, copy=False)

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
            inputs for missing cells begin with ``missingindicator_``.

        Raises
        ------
        NotFittedError
            If the transformer is not fitted.
        ValueError
            If `input_features` are not the columns of `fit`, or if two features have the same name.
        """
        fitted = self._read_fitted()
        columns = fitted.input_columns(super().get_feature_names_out(input_features))
        columns = sorted(columns, key=lambda pair: pair[0]) if self.passthrough else []
        names = [name for _, name in columns] + fitted.unit_names
        repeated = next((name for name in fitted.unit_names if names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(
                f"Two features would have the name {repeated!r}. Rename the column of X."
            )
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _default_autoencoder(rows: Rows) -> BaseAutoencoder:
    """Return the default autoencoder for training rows."""
    return DenoisingAutoencoder(
        min(rows.n_modelled, MAX_COMPONENTS),
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
        precision="float32",
    )
