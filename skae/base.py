"""What scikit-learn sees of every autoencoder: parameters and methods, with no algorithm."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import field, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from skae import inference
from skae._compat.sklearn import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    check_feature_names,
    fit_context,
    fit_task,
    has_callbacks,
    warn,
)
from skae.density.base import Density
from skae.density.laplace import Laplace
from skae.fitting import Data, draw_seed, fit, read_weight
from skae.nn.bodies.architectures import WIDTHS
from skae.nn.bodies.layers import ACTIVATIONS
from skae.nn.bodies.modules import ModulePair
from skae.nn.corruption import CORRUPTIONS, Corruption
from skae.nn.latent import Latent
from skae.nn.likelihoods import LIKELIHOODS
from skae.nn.likelihoods.base import Likelihood
from skae.parameters import Declared
from skae.starting import restore, row_shape
from skae.state import Fitted, FittedAttribute, Known, Saved
from skae.table.rows import Floats
from skae.table.schema import ColumnKey, MatrixLike
from skae.table.targets import Targets
from skae.training.checkpoint import EpochContexts
from skae.training.loop import as_history
from skae.training.threads import one_thread


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    Saved,
    Declared,
    BaseEstimator,
    ABC,
):
    """Base of all autoencoders; a subclass states its latent and that latent's parameters.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Size of the code. A float in (0, 1) takes as many components as PCA needs for that share
        of the variance; "auto" is the rounded square root of the number of columns. It may exceed
        the number of columns.

    hidden_layer_sizes : tuple of int or "auto", default="auto"
        Widths of the encoder's hidden layers, which the decoder mirrors: units, for "conv"
        channels, for "recurrent" states. `()` is a linear autoencoder. "auto" is (256, 128), for
        "conv" (16, 32) as far as images can be halved so often, for "recurrent" (64,).

    activation : {"silu", "gelu", "relu", "elu", "tanh", "logistic"}, default="silu"
        Nonlinearity of the hidden layers; recurrent ones have their own.

    architecture : {"mlp", "conv", "recurrent"} or object, default="mlp"
        Kind of encoder and decoder. "mlp" is a multilayer perceptron. "conv" is for images and for
        series of a fixed length: convolutions, each of which halves height and width, rounding up,
        then a dense layer, and in reverse order for the decoder. "recurrent" is for sequences:
        gated recurrent units read them, others write them; rows that end with NaN are sequences
        shorter than `feature_shape`. An object of your own has methods `encoder(n_out)` and
        `decoder(n_in)`, which return torch modules: from rows, tensors of shape (n, n_features) or
        ``(n, *feature_shape)``, to (n, n_out); and from (n, n_in) to rows. `hidden_layer_sizes`,
        `activation` and `dropout` are not for them.

    feature_shape : tuple of int or None, default=None
        Shape of a row: (channels, height, width) for "conv", (time, channels) for "recurrent". One
        number may be -1, for what the number of columns leaves. Rows of X are flattened images or
        sequences, in C order; arrays of shape ``(n_samples, *feature_shape)`` are taken, too. A
        series is an image of height 1.

    linear_skip : bool or "auto", default="auto"
        Add a linear map, started at PCA, to encoder and decoder. Training then starts at PCA's
        solution and learns what PCA leaves. "auto" does so, but for images and for "recurrent":
        convolutions of images learn more without it, and sequences that differ in length have no
        principal axes. Sparse codes do without.

    tied_weights : bool, default=False
        Whether the decoder multiplies with the encoder's transposed weights. Training then starts
        at PCA's codes as they are, whatever scale the model wants them to have.

    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        Distribution of a row given its code. Gaussian is squared error; Bernoulli is
        cross-entropy and takes columns in [0, 1].

    noise : {"isotropic", "diagonal"} or float, default="isotropic"
        Gaussian noise: one variance for all columns as in PCA, one for each column as in
        FactorAnalysis, or the known variance in squared user's units. A noise that is not known is
        trained with the network where codes are distributions, and held-out rows tell by which
        factor it is too small; where codes are numbers, it is estimated after the network, which
        trains as with PCA's.

    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default=None
        How to corrupt the rows that the encoder sees while training; the loss stays on the clean
        rows. "gaussian" adds normal noise, "masking" sets cells to 0 or to the value nearest to it
        that their column takes, "salt_and_pepper" to their column's smallest or largest value,
        "swap" to their column's value in another, different row. Columns' deviations and ranges
        are those of the rows given to the call. Three are for images: "grayscale" sets all channels
        to their mean, "downsampling" makes one pixel of two by two and enlarges what is left,
        "block" blanks a square at a random place. A callable `f(x, generator) -> x` is given rows
        (a tensor of shape (n, n_features), in the user's units) and a `torch.Generator`, from which
        its randomness should come. Nothing is corrupted outside training.

    corruption_level : float, default=0.3
        Share of cells that a named corruption changes; for "gaussian", the noise's standard
        deviation in those of the columns; for "block", its side as a share of the image's shorter
        one. "grayscale" and "downsampling" have no level.

    dropout : float, default=0.0
        Share of hidden units silenced at each step of training.

    weight_decay : float, default=10.0
        Precision of a Gaussian prior on the hidden layers' weights, whose standard deviation is
        thus weight_decay**-0.5: the objective of all n rows gains weight_decay / 2 * ||weights||^2
        nats, that of the mean row 1 / n of it, and the trained network is the maximum a posteriori
        (MAP) one. It matters for small tables and fades as rows are added. Biases and the linear
        skip have no prior.

    trim : float, default=0.0
        Share of rows, the worst of each batch, that the loss ignores: for contaminated data.

    layerwise_epochs : int, default=0
        Epochs of greedy pre-training per hidden layer: each is trained as a shallow autoencoder on
        the codes of the layer below before all layers are trained together. A `corruption` given
        by name corrupts what each layer sees, rows or codes: a stacked denoising autoencoder.

    learning_rate : float, default=0.003
        Peak of the one-cycle schedule of `fit`, constant rate of `partial_fit`.

    max_epochs : int, default=100
        Passes over the training rows.

    batch_size : int or "auto", default="auto"
        Rows per step. "auto" is all rows up to 256, beyond that 64 to 256 as the table grows.

    early_stopping : bool or "auto", default="auto"
        Whether to hold out rows and keep the weights of the epoch that does best on them, epoch 0
        (PCA, with `linear_skip`) included. "auto" holds out rows, which tell the noise that is
        estimated after the network, but lets them choose the epoch only if they are at least 100:
        fewer choose by luck, and the last epoch is kept. Which rows are held out depends on their
        content and `random_state`, not on their order; duplicates stay on one side.

    validation_fraction : float, default=0.1
        Share of distinct rows that are held out.

    n_iter_no_change : int or None, default=None
        Stop when the held-out objective has not improved by `tol` for so many epochs of the
        schedule's second half. None runs the whole schedule.

    tol : float, default=1e-4
        Improvement in nats per row that `n_iter_no_change` asks for.

    warm_start : bool, default=False
        Let `fit` go on from the weights and the optimiser's state of the last fit. Where
        `n_components` was raised meanwhile, the new components start on what the others leave.

    callbacks : list of skorch callbacks or None, default=None
        Called by skorch's training loop. For scikit-learn's callbacks see `set_callbacks`.

    device : str, default="auto"
        Where to train and predict: a torch device, or the first of cuda, mps and cpu.

    precision : {"auto", "float32", "float64", "bfloat16"}, default="auto"
        Number format of the network. "auto" is float64 for float64 tables of up to 262,144 cells
        or whose columns' means are far larger than their spread, and for values whose squares
        float32 cannot hold, else float32. "bfloat16" trains in mixed precision and predicts in
        float32.

    random_state : int, RandomState instance or None, default=None
        Decides the held-out rows, the initial weights and all draws. Equal seeds give equal bits.

    verbose : int, default=0
        1 prints one line an epoch.

    Attributes
    ----------
    n_components_ : int
        Size of the code.

    noise_variance_ : float or ndarray of shape (n_features,)
        Gaussian noise of the density, one number unless `noise="diagonal"`; NaN for likelihoods
        without noise.

    module_ : torch.nn.Module
        The trained network.

    history_ : skorch.history.History
        What skorch recorded at each epoch.

    loss_curve_ : list of float
        Mean training objective of each epoch, nats per row.

    validation_curve_ : list of float
        Held-out objective after each epoch, nats per row; empty without held-out rows.

    n_iter_ : int
        Epochs run.

    best_epoch_ : int
        Epoch whose weights were kept; 0 is the start.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (n_features,)
        Their names, where all are strings.
    """

    n_components: int | float | str = field(default="auto", kw_only=False)
    hidden_layer_sizes: tuple[int, ...] | str = "auto"
    activation: str = "silu"
    architecture: str | ModulePair = "mlp"
    feature_shape: tuple[int, ...] | None = None
    linear_skip: bool | str = "auto"
    tied_weights: bool = False
    likelihood: str = "gaussian"
    noise: str | float = "isotropic"
    corruption: str | Corruption | None = None
    corruption_level: float = 0.3
    dropout: float = 0.0
    weight_decay: float = 10.0
    trim: float = 0.0
    layerwise_epochs: int = 0
    learning_rate: float = 3e-3
    max_epochs: int = 100
    batch_size: int | str = "auto"
    early_stopping: bool | str = "auto"
    validation_fraction: float = 0.1
    n_iter_no_change: int | None = None
    tol: float = 1e-4
    warm_start: bool = False
    callbacks: list[Any] | None = None
    device: str = "auto"
    precision: str = "auto"
    random_state: int | RandomState | None = None
    verbose: int = 0

    _parameter_constraints: ClassVar[dict[str, list[object]]] = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"auto"}),
        ],
        "hidden_layer_sizes": [tuple, list, StrOptions({"auto"})],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "architecture": [StrOptions({*WIDTHS}), HasMethods(["encoder", "decoder"])],
        "feature_shape": [tuple, list, None],
        "linear_skip": ["boolean", StrOptions({"auto"})],
        "tied_weights": ["boolean"],
        "likelihood": [StrOptions(set(LIKELIHOODS))],
        "noise": [
            StrOptions({"isotropic", "diagonal"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "corruption": [StrOptions(set(CORRUPTIONS)), callable, None],
        "corruption_level": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "trim": [Interval(Real, 0, 1, closed="left")],
        "layerwise_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "callbacks": [list, tuple, None],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "float64", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _indispensable: ClassVar[tuple[str, ...]] = ("architecture",)
    _encoder_sees_conditions: ClassVar[bool] = True
    _density: ClassVar[type[Density]] = Laplace
    """How `score_samples` integrates the code out."""
    _doc_link_module = "skae"
    _doc_link_template = (
        "https://skae.readthedocs.io/en/stable/generated/skae.{estimator_name}.html"
    )
    # The whole fitted state: replaced in one assignment, read once at the top of each method.
    _fitted = None  # type: Fitted | None

    n_features_in_ = FittedAttribute(lambda fitted: fitted.schema.n_columns)
    feature_names_in_ = FittedAttribute(lambda fitted: fitted.feature_names)
    n_components_ = FittedAttribute(lambda fitted: fitted.network.latent.n_components)
    _n_features_out = FittedAttribute(lambda fitted: fitted.network.latent.n_outputs)
    noise_variance_ = FittedAttribute(lambda fitted: fitted.noise_variance)
    module_ = FittedAttribute(lambda fitted: fitted.network)
    history_ = FittedAttribute(lambda fitted: as_history(fitted.history))
    loss_curve_ = FittedAttribute(lambda fitted: fitted.curve("train_loss"))
    validation_curve_ = FittedAttribute(lambda fitted: fitted.curve("valid_loss"))
    n_iter_ = FittedAttribute(lambda fitted: len(fitted.history))
    best_epoch_ = FittedAttribute(lambda fitted: fitted.best_epoch)

    # -------------------------------------------------------------------- what variants answer

    @abstractmethod
    def _make_latent(self, n_components: int, known: Known) -> Latent:
        """The variant: its code of `n_components` numbers, for a table of which this is known."""

    def _auto_components(self, n_features: int) -> int:
        """Size of the code under `n_components="auto"`."""
        return max(1, round(n_features**0.5))

    def _conditions(self) -> tuple[str, ColumnKey]:
        """The name of the parameter that selects the columns of conditions, and its value."""
        return "", None

    def _read_targets(self, y: Any, weight: Floats, learned: dict[str, Any]) -> Targets | None:
        """What `y` says of rows of positive weight; `learned` is what earlier calls have said."""
        return None

    # -------------------------------------------------------------------------------- fitting

    def fit(
        self,
        X: MatrixLike,
        y: object = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
    ) -> Self:
        """Train the autoencoder, then estimate its density.

        A fit that fails or is interrupted leaves an earlier model as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; a weight of 2 is a row given twice, 0 a row left out.
        X_corrupted : array-like of shape (n_samples, n_features), default=None
            What the encoder sees of each row while training, in place of what `corruption` makes;
            the loss stays on `X`.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            Where X cannot be used (NaN, infinite, wrong shape, outside the likelihood's range) or
            training breaks down.
        TypeError
            Where X is sparse, or callbacks or what a corruption returns are of the wrong kind.
        """
        data = Data(X, y, sample_weight, X_corrupted)
        return self._train(data, self._fitted if self.warm_start else None)

    def partial_fit(
        self,
        X: MatrixLike,
        y: object = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
    ) -> Self:
        """Train for one pass over `X` at a constant rate; go on from where the last call ended.

        The first call decides centre, scale, size of the code and precision. No rows are held out,
        and the optimiser's state is kept between calls. What is estimated after the network, noise
        and the distribution of codes, is a running average over the rows of all calls.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.
        X_corrupted : array-like of shape (n_samples, n_features), default=None
            What the encoder sees of each row while training, in place of what `corruption` makes.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            As `fit`, and where the parameters now describe another network.
        """
        return self._partial_fit(X, y, sample_weight, X_corrupted)

    def _partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        X_corrupted: MatrixLike | None,
        **target_options: Any,
    ) -> Self:
        data = Data(X, y, sample_weight, X_corrupted, target_options=target_options)
        return self._train(data, self._fitted, one_pass=True)

    def _fit_targets(
        self, X: MatrixLike, targets: Targets, sample_weight: MatrixLike | None, resume: bool
    ) -> Self:
        """`fit` for estimators over an autoencoder, which know targets of the rows."""
        data = Data(X, None, sample_weight, None, targets)
        return self._train(data, self._fitted if resume else None)

    @fit_context(prefer_skip_nested_validation=True)
    def _train(self, data: Data, resume: Fitted | None, one_pass: bool = False) -> Self:
        """Fit a new model, then take it over in one assignment."""
        before, epochs = self._fitted, 1 if one_pass else self.max_epochs
        context = fit_task(self, epochs)
        context.call_on_fit_task_begin(estimator=self, X=data.X)

        def watch(model: Callable[[Any], Fitted]) -> EpochContexts | None:
            if not has_callbacks(self):
                return None
            return EpochContexts(context, self, data.X, lambda net: {"_fitted": model(net)})

        # Parameters that another thread sets meanwhile are not those of this fit.
        options = type(self)(**self.get_params(deep=False))
        with torch.inference_mode(False), torch.enable_grad(), one_thread:
            fitted, messages = fit(options, data, resume, one_pass, watch)
        # Where the user has warnings raised, such a fit fails, too.
        for message, category in messages:
            warn(message, category)
        self._fitted = fitted
        try:
            context.call_on_fit_task_end(estimator=self, X=data.X)
        except BaseException:
            if before is None:
                del self._fitted
            else:
                self._fitted = before
            raise
        return self

    # ------------------------------------------------------------------------------ inference

    def transform(self, X: MatrixLike) -> Floats:
        """Codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, in the dtype of `X`; never random.
        """
        fitted = self._read_fitted()
        return inference.codes(fitted.schema.read(X), fitted)

    def inverse_transform(self, Z: MatrixLike) -> Floats:
        """Expected rows of codes.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows in the user's units.
        """
        fitted = self._read_fitted()
        return inference.decode(self._read_codes(Z, fitted), None, fitted)

    def _read_codes(self, Z: MatrixLike, fitted: Fitted) -> Floats:
        """Validated codes."""
        Z = check_array(Z, dtype=[np.float64, np.float32], input_name="Z")
        k = fitted.network.latent.n_outputs
        if Z.shape[1] != k:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, but this {type(self).__name__} has codes of {k}."
            )
        return Z

    def reconstruct(self, X: MatrixLike) -> Floats:
        """Rows as they come back from their codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            What is left of them, in the user's units.
        """
        fitted = self._read_fitted()
        return inference.reconstructions(fitted.schema.read(X), fitted)

    def reconstruction_error(self, X: MatrixLike, per_feature: bool = False) -> Floats:
        """How far rows are from their reconstructions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        per_feature : bool, default=False
            Return the error of each cell instead of its sum over the row.

        Returns
        -------
        error : ndarray of shape (n_samples,) or (n_samples, n_features)
            Squared error in squared user's units; for the Bernoulli likelihood the deviance, twice
            the nats lost against a perfect reconstruction.
        """
        fitted = self._read_fitted()
        return inference.errors(fitted.schema.read(X), fitted, per_feature)

    def score_samples(self, X: MatrixLike) -> Floats:
        """Log-density of rows, in nats: higher is more normal.

        The density of the model that a fit leaves, the code integrated out: by Laplace's method
        where codes are numbers without noise, which at PCA's solution is `PCA.score_samples`; by
        importance sampling, the same at every call, where codes are distributions; exactly where
        there are finitely many. It is on the scale of `PCA.score_samples` always.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            Natural logarithm of the density (Bernoulli: of the mass).
        """
        return self._ask_density("log_prob", X)

    def _ask_density(self, question: str, X: MatrixLike, *arguments: object) -> Floats:
        """What a method of the density says of rows."""
        fitted = self._read_fitted()
        return inference.ask_density(question, fitted.schema.read(X), fitted, *arguments)

    def score(
        self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None
    ) -> float:
        """Mean log-density of rows, in nats per row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.

        Returns
        -------
        score : float
            Higher is better; comparable with `PCA.score` and `FactorAnalysis.score`.
        """
        log_prob = self.score_samples(X)
        return float(np.average(log_prob, weights=read_weight(sample_weight, log_prob[:, None])))

    def sample(
        self,
        n_samples: int = 1,
        mean: bool = False,
        random_state: int | RandomState | None = None,
    ) -> Floats:
        """Draw rows from the model: a code from its distribution, a row from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        mean : bool, default=False
            Return the expected rows of the drawn codes, without the likelihood's noise.
        random_state : int, RandomState instance or None, default=None
            Decides the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Rows in the user's units, whose density `score_samples` tells if `mean` is False.
        """
        return self._sample(n_samples, mean, random_state, None)

    def _sample(
        self,
        n_samples: int,
        mean: bool,
        random_state: int | RandomState | None,
        condition: Any,
    ) -> NDArray[Any]:
        """Rows from the model, under a condition that the user states or those of training rows."""
        fitted = self._read_fitted()
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}.")
        cells = None
        if condition is not None:
            cells = fitted.schema.read_conditions(condition, int(n_samples))
        return inference.draw_rows(int(n_samples), mean, draw_seed(random_state), cells, fitted)

    def interpolate(self, A: MatrixLike, B: MatrixLike, n_steps: int = 10) -> Floats:
        """Rows on straight lines between the codes of `A` and `B`.

        Parameters
        ----------
        A, B : array-like of shape (n_pairs, n_features) or (n_features,)
            First and last rows.
        n_steps : int, default=10
            Rows per pair, the reconstructions of both ends included; at least 2.

        Returns
        -------
        X : ndarray of shape (n_pairs * n_steps, n_features)
            The steps of the first pair, then those of the second, and so on.
        """
        if not isinstance(n_steps, Integral) or n_steps < 2:
            raise ValueError(f"n_steps must be an integer of at least 2, got {n_steps!r}.")
        fitted = self._read_fitted()
        first, last = (fitted.schema.read(_as_rows(rows, fitted)) for rows in (A, B))
        if len(first) != len(last):
            raise ValueError(f"A has {len(first)} rows, but B has {len(last)}: they go in pairs.")
        start, end = (inference.codes(rows, fitted)[:, None] for rows in (first, last))
        share = np.linspace(0, 1, n_steps)[None, :, None]
        Z = (1 - share) * start + share * end
        # Conditions cannot be blended: they are those of the end that is nearer.
        ends = first.conditions[:, None], last.conditions[:, None]
        conditions = np.where(share < 0.5, *ends).reshape(
            len(first) * n_steps, len(fitted.schema.conditions)
        )
        return inference.decode(Z.reshape(-1, Z.shape[-1]), conditions, fitted)

    def traverse(self, x: MatrixLike, component: int, values: MatrixLike) -> Floats:
        """Rows that one row turns into as one component of its code takes given values.

        Parameters
        ----------
        x : array-like of shape (n_features,) or (1, n_features)
            The row.
        component : int
            Which component of the code, from 0.
        values : array-like of shape (n_values,)
            What it is set to.

        Returns
        -------
        X : ndarray of shape (n_values, n_features)
        """
        fitted = self._read_fitted()
        row = fitted.schema.read(_as_rows(x, fitted))
        code = inference.codes(row, fitted)
        if len(code) != 1:
            raise ValueError(f"x must be a single row, got {len(code)}.")
        k = code.shape[1]
        if not isinstance(component, Integral) or not 0 <= component < k:
            raise ValueError(f"component must be an integer in [0, {k - 1}], got {component!r}.")
        values = np.atleast_1d(np.asarray(values, dtype=code.dtype))
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(f"values must be a list of numbers, none of them NaN, got {values!r}.")
        Z = np.repeat(code, len(values), axis=0)
        Z[:, component] = values
        return inference.decode(Z, np.repeat(row.conditions, len(values), axis=0), fitted)

    # ---------------------------------------------------------------------------------- state

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    def _read_fitted(self) -> Fitted:
        """The fitted state; a method reads it once, so that a refit meanwhile changes nothing."""
        fitted = self._fitted
        if fitted is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )
        return fitted

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        likelihood = LIKELIHOODS.get(str(self.likelihood), Likelihood)
        tags.input_tags.positive_only = likelihood.support[0] == 0
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        fitted = state.get("_fitted")
        return state if fitted is None else state | {"_fitted": fitted.tree()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        tree = state.pop("_fitted", None)
        super().__setstate__(state)
        if tree is not None:
            # Parameters may have been set since the fit: the network is that of those of the fit.
            options = type(self)(**self.get_params(deep=False))
            self._fitted = restore(options.set_params(**tree["parameters"]), tree)


def _as_rows(X: Any, fitted: Fitted) -> Any:
    """A single row becomes a table of one row; tables stay as they are."""
    is_single = np.ndim(X) == 1 or np.shape(X) == fitted.schema.feature_shape
    return np.asarray(X).reshape(1, -1) if is_single else X


def validated_rows(
    estimator: BaseEstimator,
    autoencoder: object,
    X: MatrixLike,
    may_miss: bool = False,
    **checks: object,
) -> NDArray[Any]:
    """Validated rows of an estimator over an autoencoder, fitted or not, which knows their shape.

    Ends of sequences may be missing only where `may_miss`.
    """
    if not isinstance(autoencoder, BaseAutoencoder):
        rows: NDArray[Any] = validate_data(estimator, X, **checks)
        return rows
    fitted = autoencoder._fitted
    shape = row_shape(autoencoder) if fitted is None else fitted.schema.shape
    if may_miss:
        checks["ensure_all_finite"] = shape.finiteness
    X = shape.as_table(X, None if fitted is None else fitted.schema.n_columns)
    rows = validate_data(estimator, X, **checks)
    return shape.check_ends(rows) if may_miss else rows


def thawed(holder: FrozenEstimator, X: MatrixLike) -> BaseAutoencoder:
    """A copy of the fitted autoencoder in a FrozenEstimator, for rows like X but without names.

    Raises TypeError where it holds something else.
    """
    frozen = holder.estimator
    if not isinstance(frozen, BaseAutoencoder):
        raise TypeError(f"autoencoder must hold an autoencoder of skae, got {holder!r}.")
    check_is_fitted(frozen)
    check_feature_names(frozen, X, reset=False)
    copied = copy.deepcopy(frozen)
    fitted = copied._read_fitted()
    copied._fitted = replace(fitted, schema=fitted.schema.without_names())
    return copied
