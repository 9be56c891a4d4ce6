"""Base class of all autoencoders: their shared parameters and public methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import field
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import Tags, check_array

from skae import derivatives, inference
from skae._compat.sklearn import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    check_parameters,
    fit_context,
    has_callbacks,
    init_callback_context,
    warn,
)
from skae.density.base import Density
from skae.density.laplace import Laplace
from skae.fitting.fit import Result, fit_table
from skae.fitting.prepare import FitData, ReadRows, draw_seed
from skae.fitting.stream import fit_stream
from skae.nn.bodies.architectures import WIDTHS
from skae.nn.bodies.layers import ACTIVATIONS
from skae.nn.bodies.modules import ModulePair
from skae.nn.corruption import CORRUPTIONS, Corruption
from skae.nn.latent import Latent
from skae.parameters import Declared, check_integer, short_repr
from skae.starting import restore
from skae.state import Fitted, FittedAttribute, Saved, TableInfo
from skae.table.blocks import ColumnKey
from skae.table.categories import Categories
from skae.table.cells import read_cells
from skae.table.containers import index_of
from skae.table.reading import MatrixLike
from skae.table.rows import Floats, Rows
from skae.table.sequences import row_shapes
from skae.table.targets import Targets
from skae.table.weights import read_weight
from skae.training.budget import Budget
from skae.training.callbacks import NamedCallbacks
from skae.training.checkpoint import EpochContexts, remove_when_complete
from skae.training.loop import as_history
from skae.training.threads import one_thread


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    Saved,
    Declared,
    NamedCallbacks,
    ABC,
):
    """Base class of all autoencoders.

    A subclass defines the latent, that is, how codes are computed and regularized. It adds the
    parameters of this latent and may add methods. The parameters and public methods that all
    autoencoders share are defined here.

    Parameters
    ----------
    n_components : int, float, "auto", "mle" or None, default="auto"
        Number of components of the code. It may exceed the number of columns. A float in (0, 1)
        selects as many components as PCA needs to explain that share of the variance. "auto" is
        the square root of the number of columns, rounded. This is only a starting point:
        `skae.components_path` compares several sizes on held-out rows. "mle" is the number that
        Minka's maximum likelihood estimate selects for PCA, as in `sklearn.decomposition.PCA`; it
        requires at least as many rows as columns. None is the smaller of the numbers of distinct
        rows and of columns, for which PCA explains all of the variance.

    hidden_layer_sizes : tuple of int or "auto", default="auto"
        Widths of the encoder's hidden layers. The decoder has the same widths in reverse order.
        A width is a number of units for `architecture="mlp"`, of channels for "conv" and of
        recurrent states for "recurrent". `()` gives a linear autoencoder. "auto" is (256, 128) for
        "mlp", (64,) for "recurrent" and (16, 32) for "conv", or fewer layers for images that are
        too small to be halved twice. "recurrent" needs at least one layer.

    activation : {"silu", "gelu", "relu", "elu", "tanh", "logistic"}, default="silu"
        Activation function of the hidden layers. Recurrent layers ignore it. The default is a
        smooth function, because `score_samples` differentiates the decoder if codes are
        deterministic. Units of the bounded functions "tanh" and "logistic" start with random
        biases, so that each of them distinguishes other rows.

    architecture : {"mlp", "conv", "recurrent"} or object, default="mlp"
        Architecture of the encoder and of the decoder.

        - "mlp" is a multilayer perceptron.
        - "conv" is a convolutional network for images and for series of a fixed length. Each
          convolution halves height and width, rounding up. A dense layer computes the code. The
          decoder has the same layers in reverse order.
        - "recurrent" is for sequences: gated recurrent units read a row, and others generate it.
          Rows may end with NaN, for sequences that are shorter than `feature_shape`. A list of
          sequences of different lengths, arrays of shape (time, channels), is accepted, too, if
          there is no condition.
        - A user-defined object has the methods `encoder(n_out)` and `decoder(n_in)`, or one of
          them, that return torch modules. The encoder maps rows, tensors of shape (n, n_features)
          or ``(n, *feature_shape)``, to (n, n_out). The decoder maps (n, n_in) to rows. If one
          method is absent, that network is the one of "mlp". The parameters `hidden_layer_sizes`,
          `activation` and `dropout` apply to this network only.

    feature_shape : tuple of int or None, default=None
        Shape of a row: (channels, height, width) for "conv" and (time, channels) for "recurrent".
        One entry may be -1; it is inferred from the number of columns. The rows of `X` are images
        or sequences flattened in C order. Arrays of shape ``(n_samples, *feature_shape)`` are
        accepted, too, if there is no condition. A condition consists of the columns that the
        parameter `condition` of `ConditionalVariationalAutoencoder`, or `sensitive` of
        `FairAutoencoder`, selects. These columns do not belong to the shape. A series for "conv" is
        an image of height 1. "conv" and "recurrent" require a `feature_shape`; None is for rows
        that are neither images nor sequences.

    linear_skip : bool or "auto", default="auto"
        Whether to add a linear map, initialized at PCA, to the encoder and to the decoder. Training
        then starts at the solution of PCA and learns what PCA does not explain. "auto" adds the
        maps except in two cases: `architecture="conv"` with images, which convolutions reconstruct
        better without the maps, and `architecture="recurrent"`, because sequences of different
        lengths have no principal axes.
        `SparseAutoencoder` and `SemiSupervisedVariationalAutoencoder` never add them.

    tied_weights : bool, default=False
        Whether the decoder uses the transposed weights of the encoder, which halves the number of
        weights. The initial codes then have the scale of PCA's codes, even in estimators whose
        initial codes otherwise have unit variance. Tied weights require `architecture="mlp"`. They
        are not available if there is a condition, or in `SemiSupervisedVariationalAutoencoder`.

    whiten : bool, default=False
        Whether `transform` divides each component of the code by its standard deviation over the
        training rows, as `sklearn.decomposition.PCA` does. Components are then uncorrelated and
        have unit variance. This requires components that `fit` orders, see `explained_variance_`:
        other estimators and networks raise a ValueError, and so does `partial_fit` unless it
        continues from a `fit`. A fit that resumes keeps the axes of the codes and the standard
        deviations of the earlier fit.

    likelihood : {"auto", "gaussian", "bernoulli"} or dict, default="auto"
        Distribution of a row given its code. "gaussian" trains with the squared error.
        "bernoulli" trains with the cross-entropy and requires all cells, except those of a
        condition, to be in [0, 1]. "auto" is "gaussian" for columns of numbers and dates, and a
        categorical distribution for all others: columns of strings, booleans, and of a categorical
        dtype. A dict selects columns by likelihood, for instance
        ``{"bernoulli": ["smoker"], "gaussian": make_column_selector("income")}``. Columns are
        selected as in `sklearn.compose.ColumnTransformer`. All other columns have that of "auto".

        If columns have different kinds or likelihoods, each column of numbers is standardized
        inside the network, and it has its own noise variance. Columns of different kinds then count
        in nats, so that they need no weights. Otherwise, all columns have one scale, as in
        `sklearn.decomposition.PCA`.

    categories : Categories or None, default=None
        How the levels of categorical columns are chosen; see `Categories`. With None, each category
        is a level, and a category that the first fit has not seen is a missing cell. A fit that
        resumes keeps the levels of the first fit.

    noise : {"isotropic", "diagonal"} or float, default="isotropic"
        Variance of the Gaussian likelihood; other likelihoods ignore it. "isotropic" is one
        variance for all columns, as in `sklearn.decomposition.PCA`. "diagonal" is one variance per
        column, as in `sklearn.decomposition.FactorAnalysis`. A float is a known variance, in the
        squared units of `X`. If columns have different kinds, each column of numbers has its own
        variance with "isotropic", too. This variance is at least 1/2500 of that of the column, so
        that the density stays bounded where many cells of a column are equal.

        An unknown variance is fixed at the mean variance of the columns during training and
        estimated afterwards, from the validation rows if there are any. One variance per column is
        averaged with that of the training rows, which has the weight of 10 validation rows and is
        first multiplied by a ratio that all columns have in common. `FairAutoencoder` averages
        nothing, and uses all rows if there are fewer than 30 validation rows. Variational,
        conditional and semi-supervised autoencoders train the variance together with the network
        instead. If there are at least 30 validation rows, they then multiply it by the mean ratio
        of the squared errors of these rows to the variance. The estimate is at least the variance
        of rounding errors. If codes reproduce all training rows, it is close to 0 unless validation
        rows are held out.

    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default=None
        How the rows that the encoder receives are corrupted during training. The loss compares
        reconstructions with the clean rows. Validation rows are corrupted once, before the first
        epoch. Methods such as `transform` do not corrupt rows. Columns of a condition are never
        corrupted.

        - "gaussian" adds normal noise.
        - "masking" sets cells to 0, or to the value nearest to 0 in the range of their column. If
          there are categories, cells are hidden as if they were missing instead.
        - "salt_and_pepper" sets cells to the smallest or the largest value of their column.
        - "swap" sets cells to the value of their column in a different row. "gaussian" and
          "salt_and_pepper" exchange categories in the same way.
        - "grayscale", for images, sets all channels to their mean.
        - "downsampling", for images, averages blocks of two by two pixels and enlarges the result.
        - "block", for images, masks a square at a random position in the same way as "masking".
        - A callable `f(x, generator) -> x` receives rows, a tensor of shape (n, n_features) in the
          user's units without the columns of a condition, and a `torch.Generator`, from which it
          should draw its random numbers.
        - None corrupts nothing.

        Standard deviations and ranges of columns are those of the rows passed to `fit`, or seen by
        `partial_fit`.

    corruption_level : float, default=0.3
        Strength of a corruption given by name. For "masking", "salt_and_pepper" and "swap", it is
        the probability with which each cell is replaced. For "gaussian", it is the standard
        deviation of the noise relative to that of the column, and it may exceed 1. For "block", it
        is the side of the square relative to the shorter side of the image, at most 1.
        "grayscale", "downsampling" and callables ignore it.

    dropout : float, default=0.0
        Share of hidden units that are set to zero, at random, in each training step. It is at least
        0 and less than 1.

    weight_decay : float, default=10.0
        Precision of a Gaussian prior on the weights of the network; its standard deviation is
        weight_decay**-0.5. Training finds the maximum a posteriori (MAP) network: the prior adds
        weight_decay / 2 * ||weights||^2 nats to the sum of the objective over the n training rows.
        The penalty per row is 1 / n of this, so that its influence vanishes as rows are added.
        Biases and the linear skip are not penalized. Deep networks for images may need larger
        values, up to 300.

    trim : float, default=0.0
        Share of rows, those with the largest loss in each batch, that training ignores. It is at
        least 0 and less than 1. Set it to the expected share of outliers if the training rows are
        contaminated.

    layerwise_epochs : int, default=0
        Epochs of greedy layer-wise pre-training for each hidden layer; 0 disables it. Each layer is
        first trained as a shallow autoencoder on the codes of the layer below it. All layers are
        trained together afterwards. If `corruption` is a callable or a corruption of images, it
        corrupts the input of the first layer only. The other corruptions corrupt the input of every
        layer, which makes a stacked denoising autoencoder. Pre-training requires
        `architecture="mlp"` or "conv". Fits that resume from a previous one have no pre-training.

    learning_rate : float, default=0.003
        Peak of the one-cycle schedule in `fit`, and the largest rate in `partial_fit`. The
        schedule rises during the first quarter of the steps and then falls to almost zero. If the
        loss becomes infinite or NaN, `fit` starts again with a third of this rate, once, and warns.
        The default was large enough to improve on PCA within two epochs on all data sets tried.

    max_epochs : int or "auto", default="auto"
        Number of passes over the training rows. "auto" is 100 passes, or fewer for large tables:
        about 4,000 steps in all. A table with more than 4,000 batches is passed over once, until
        4,000 steps are done. If at least 100 validation rows are held out, "auto" also ends
        training earlier where nothing is gained any more: where, after half of the schedule, the
        best objective on the validation rows has improved by at most 1 % of its total improvement
        during a fifth of the schedule. The learning rate then falls to almost zero within a tenth
        of the schedule. This requires a linear skip. A number is the number of passes, whatever the
        table is.

    batch_size : int or "auto", default="auto"
        Number of rows per training step. "auto" depends on the number of distinct training rows. If
        there are at most 256, it is their number, so that each step uses all rows. If there are
        more, it is 64, or 128 from about 5,800 rows, or 256 from about 11,600 rows. If at most half
        as many rows remain for the last step of an epoch, they join the step before.

    early_stopping : bool or "auto", default="auto"
        Whether to hold out rows and keep the weights of the epoch with the best objective on these
        validation rows. Epoch 0, the network before the first epoch and after any pre-training, is
        one of the candidates.

        With True, the validation rows select the epoch. With "auto", they select it only if there
        are at least 100 of them, because fewer would select it by chance. Fewer validation rows
        decide whether the weights of the last epoch or those of epoch 0 are kept, by the mean
        change of their losses and two of its standard errors. If the table has at most as many
        columns as training rows, the last epoch is kept unless the losses have risen by more than
        that. If it has more columns, for which training can easily overfit, the last epoch is kept
        only if the losses have fallen by more than that. The kept network is then trained further
        on all rows, including the validation rows, for a quarter of `max_epochs`, unless a callback
        or `n_iter_no_change` has stopped the training. These epochs are not part of `history_`.

        False trains on all rows and keeps the weights of the last epoch. Without a selection by
        validation rows, the weights of epoch 0 are kept if training improved the objective on the
        training rows by less than 1e-4 nats per row. Wherever the weights of epoch 0 are kept, the
        network is initialized again from all rows, including the validation rows. With
        `warm_start=True`, or if `fit` is passed validation rows, these rows are used in neither of
        these ways, because they may serve another fit. `FairAutoencoder` always keeps the weights
        of the last epoch, without further epochs on all rows, if it has sensitive columns.

        Validation rows also estimate the noise variance. Before they have served these two
        purposes, only the number of components depends on them, if it is a share of the variance.

        The content of the rows and `random_state` determine which rows are held out. The order of
        the rows has no influence. Equal rows are either all held out or all used for training.

    validation_fraction : float, default=0.1
        Share of the distinct rows that is held out, between 0 and 1. The number of held-out rows is
        rounded to an integer, which may be 0 for small tables. The parameter is ignored if
        `early_stopping=False`, or if `fit` is passed validation rows, `X_val`.

    n_iter_no_change : int or None, default=None
        Number of consecutive epochs without an improvement of the objective on validation rows by
        at least `tol` after which training stops. Only epochs in the second half of `max_epochs`
        count. None stops at the end of `max_epochs`, as does any value if no rows are held out.

    tol : float, default=1e-4
        Smallest improvement, in nats per row, that counts for `n_iter_no_change`.

    warm_start : bool, default=False
        Whether `fit` resumes from the weights of the previous fit, and from its optimizer state if
        that fit had `warm_start=True`, too. The learning rate follows the whole schedule again. If
        `n_components` has been increased since the previous fit, the previous components are kept,
        the new ones are initialized on the residuals of the previous model, and the optimizer
        starts anew. Other parameters may have changed, too, and their present values are used. If
        they require weights of other shapes, `fit` raises ValueError. With `precision="auto"`, the
        number format stays the same.

    callbacks : list of skorch callbacks or None, default=None
        Callbacks for skorch's training loop, or pairs of a name and a callback. The parameters of a
        named callback can be set, for example `callbacks__stop__patience` of
        ``("stop", EarlyStopping())``. A callback stops the training if its `on_epoch_end` returns
        True. Some callbacks of skorch, such as `LRScheduler`, raise a ValueError that names what to
        use instead; the page on callbacks in the user guide lists them. Callbacks of scikit-learn
        are set with `set_callbacks`.

    device : str, default="auto"
        Where to train and predict: the name of a torch device. "auto" is the first available of
        "cuda", "mps" and "cpu".

    precision : {"auto", "float32", "float64", "bfloat16"}, default="auto"
        Number format of the network. "auto" is float64 for float64 tables of at most 256 distinct
        rows, for which its precision costs little time; for float64 tables with a column whose
        absolute mean exceeds 1,000 times its standard deviation; for tables with a column whose
        standard deviation is less than a 1,000th of the root mean square of those of all columns;
        and for values whose squares float32 cannot represent. Otherwise, it is float32, which is
        faster.
        "bfloat16" trains in mixed precision and predicts in float32. Devices of type "mps" always
        use float32.

    random_state : int, RandomState instance or None, default=None
        Determines the held-out rows, the initial weights and all random draws. Pass an int for
        reproducible results: equal seeds give bitwise equal results. In a fit that resumes, the
        draws continue those of the previous fit.

    verbose : int or bool, default=0
        Level of verbosity: 1 prints one line per epoch.

    Attributes
    ----------
    n_components_ : int
        Number of components of the code. For `SemiSupervisedVariationalAutoencoder`, it does not
        include the probabilities of the classes.

    explained_variance_ : ndarray of shape (n_components,)
        Variance of each component of the codes of the training rows, before whitening. If the sum
        of the sample weights is at least 2, it has Bessel's correction, as in PCA.

        In `Autoencoder`, `DenoisingAutoencoder` and `ContractiveAutoencoder`, codes have the units
        of `X` and a mean of 0. At the end of `fit`, they are rotated such that components are
        uncorrelated on the training rows, and ordered by `explained_variance_ratio_`. The rotation
        is part of the encoder and of the decoder, so that reconstructions and densities do not
        change. For the solution of PCA, the components are those of PCA, up to signs.

        There is no rotation if weights are tied, if a network is a module of the user, in
        `partial_fit`, or in a fit that resumes from another one, as with `warm_start` or
        `FrozenEstimator`. All other autoencoders keep the axes of their codes, because these have a
        meaning: a prior or a penalty applies to each component.

    explained_variance_ratio_ : ndarray of shape (n_components,)
        Share of the variance of the training rows that is no longer explained if a component is
        set to its mean. For a linear autoencoder at PCA's solution, it is equal to the attribute of
        PCA. For nonlinear decoders, the shares do not add up to the explained variance exactly, and
        a share is negative if rows are reconstructed better without the component. Large tables
        are represented by a sample of rows. `skae.metrics.component_importance` computes the shares
        for any rows.

    singular_values_ : ndarray of shape (n_components,)
        Norms of the components of the centered codes of the training rows, as in PCA.

    components_ : ndarray of shape (n_components, n_features)
        Derivatives of the codes, before whitening, with respect to the rows. Defined only for
        linear autoencoders with deterministic codes: `hidden_layer_sizes=()` in the estimators
        whose components are ordered. Initially, they are the principal axes of PCA.

    mean_ : ndarray of shape (n_features,)
        Row whose code is 0. Defined like `components_`. Initially, it is the mean of the rows.

    n_samples_ : int or float
        Number of training rows: the sum of their sample weights. In `partial_fit`, it is the
        number of all rows seen.

    n_samples_seen_ : int or float
        The same number as `n_samples_`, by the name that it has in
        `sklearn.decomposition.IncrementalPCA`.

    noise_variance_ : float or ndarray of shape (n_modelled,)
        Variance of the Gaussian likelihood, in the squared units of `X`. If `noise="diagonal"`, or
        if columns have different kinds, it is an array with one number for each of the n_modelled
        columns, which are all columns except those of a condition. Otherwise, it is one number. The
        variance is 0 for other likelihoods, which have no noise.

    module_ : torch.nn.Module
        The trained network. Its parts are `inputs`, `encoder`, `latent`, `decoder` and
        `likelihood`. Calling it raises a TypeError: use `transform`, `inverse_transform` and
        `reconstruct`.

    history_ : skorch.history.History
        Numbers that skorch recorded at each epoch.

    loss_curve_ : list of float
        Mean training objective of each epoch, in nats per row, without the weight decay.

    validation_curve_ : list of float
        Objective on the validation rows after each epoch, in nats per row. Empty if no rows are
        held out.

    n_iter_ : int
        Number of epochs run, including those of the fits that were resumed.

    best_epoch_ : int
        Epoch whose weights were kept, counted from 1 in the latest fit; 0 is the network before the
        first epoch of that fit.

    start_epoch_ : int
        Number of epochs of the fits from which the latest fit resumed. It is 0 unless the fit
        resumed. Counted over all fits, the epoch whose weights were kept is
        ``start_epoch_ + best_epoch_``.

    n_features_in_ : int
        Number of columns seen during fit.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns seen during fit. Defined only if `X` was a data frame whose column
        names are all strings.
    """

    n_components: int | float | str | None = field(default="auto", kw_only=False)
    hidden_layer_sizes: tuple[int, ...] | str = "auto"
    activation: str = "silu"
    architecture: str | ModulePair = "mlp"
    feature_shape: tuple[int, ...] | None = None
    linear_skip: bool | str = "auto"
    tied_weights: bool = False
    whiten: bool = False
    likelihood: str | dict[str, ColumnKey] = "auto"
    categories: Categories | None = None
    noise: str | float = "isotropic"
    corruption: str | Corruption | None = None
    corruption_level: float = 0.3
    dropout: float = 0.0
    weight_decay: float = 10.0
    trim: float = 0.0
    layerwise_epochs: int = 0
    learning_rate: float = 3e-3
    max_epochs: int | str = "auto"
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
            StrOptions({"auto", "mle"}),
            None,
        ],
        "hidden_layer_sizes": [tuple, list, StrOptions({"auto"})],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "architecture": [StrOptions({*WIDTHS}), HasMethods("encoder"), HasMethods("decoder")],
        "feature_shape": [tuple, list, None],
        "linear_skip": ["boolean", StrOptions({"auto"})],
        "tied_weights": ["boolean"],
        "whiten": ["boolean"],
        "likelihood": [StrOptions({"auto", "gaussian", "bernoulli"}), dict],
        "categories": [Categories, None],
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
        "max_epochs": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
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

    _must_be_saved: ClassVar[tuple[str, ...]] = ("architecture",)
    _description: ClassVar[str] = "an autoencoder of skae"
    """What error messages call instances of this class and its subclasses."""
    _narrow_widths: ClassVar[tuple[int, ...]] = WIDTHS["mlp"]
    """Meaning of `hidden_layer_sizes="auto"` for multilayer perceptrons and narrow tables."""
    _predicts_hidden: ClassVar[bool] = False
    """Whether categories only count in the loss where "masking" hides them."""
    _encoder_uses_conditions: ClassVar[bool] = True
    """Whether the encoder receives the columns of conditions beside the modelled ones."""
    _density: ClassVar[type[Density]] = Laplace
    """The class that estimates the density of rows, for `score_samples` and `sample`."""
    _doc_link_module = "skae"
    _doc_link_template = (
        "https://skae.readthedocs.io/en/stable/generated/skae.{estimator_name}.html"
    )
    n_features_in_ = FittedAttribute(lambda fitted: fitted.schema.n_columns)
    feature_names_in_ = FittedAttribute(lambda fitted: fitted.feature_names)
    n_components_ = FittedAttribute(lambda fitted: fitted.network.latent.n_components)
    _n_features_out = FittedAttribute(lambda fitted: fitted.network.latent.n_outputs)
    n_samples_ = FittedAttribute(lambda fitted: fitted.n_samples)
    n_samples_seen_ = FittedAttribute(lambda fitted: fitted.n_samples)
    explained_variance_ = FittedAttribute(lambda fitted: fitted.components.known("variance"))
    explained_variance_ratio_ = FittedAttribute(lambda fitted: fitted.components.known("share"))
    singular_values_ = FittedAttribute(lambda fitted: fitted.singular_values)
    components_ = FittedAttribute(lambda fitted: inference.linear_map(fitted)[0])
    mean_ = FittedAttribute(lambda fitted: inference.linear_map(fitted)[1])
    noise_variance_ = FittedAttribute(lambda fitted: fitted.noise_variance)
    module_ = FittedAttribute(lambda fitted: fitted.network)
    history_ = FittedAttribute(lambda fitted: as_history(fitted.history))
    loss_curve_ = FittedAttribute(lambda fitted: fitted.curve("train_loss"))
    validation_curve_ = FittedAttribute(lambda fitted: fitted.curve("valid_loss"))
    n_iter_ = FittedAttribute(lambda fitted: fitted.n_epochs)
    best_epoch_ = FittedAttribute(lambda fitted: fitted.best_epoch)
    start_epoch_ = FittedAttribute(lambda fitted: fitted.start_epoch)

    # ------------------------------------------------------------------- hooks for subclasses

    @abstractmethod
    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        """Make the latent for codes with `n_components` components; `table` describes the rows."""

    def _auto_components(self, n_features: int) -> int:
        """Return the number of components that "auto" means for rows with `n_features` columns.

        `n_features` does not include the columns of a condition.
        """
        return max(1, round(n_features**0.5))

    def _n_epochs(self, n: int) -> int:
        """Return the number of epochs that `max_epochs` means for `n` distinct training rows."""
        return Budget.of(self.max_epochs, self.batch_size, n).max_epochs

    def _conditions(self) -> tuple[str, ColumnKey]:
        """Return the name and the value of the parameter that selects the columns of conditions.

        They are "" and None for estimators without conditions.
        """
        return "", None

    def _read_targets(self, y: Any, weight: Floats, learned: dict[str, Any]) -> Targets | None:
        """Validate `y` and return the targets of the rows with positive weight.

        Parameters
        ----------
        y : array-like or None
            Argument of the public method.
        weight : ndarray of shape (n_samples,)
            Sample weights of all rows.
        learned : dict
            What previous calls learned from their targets, such as the classes.

        Returns
        -------
        targets : Targets or None
            None if training uses no targets.
        """
        return None

    def _target_weight(self, total: float) -> float:
        """Return the weight of each target, given the weight of all rows."""
        return 1.0

    # -------------------------------------------------------------------------------- fitting

    def fit(
        self,
        X: MatrixLike,
        y: object = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
        sample_weight_val: MatrixLike | None = None,
    ) -> Self:
        """Train the autoencoder and estimate the density of rows.

        If the fit fails or is interrupted, a previously fitted model is left unchanged.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Training rows. With `architecture="mlp"` and without a `feature_shape`, columns may hold
            numbers, strings, booleans, categories and dates, and cells may be missing (NaN, None or
            NaT); see `likelihood`.
        y : array-like of shape (n_samples,), default=None
            Ignored by most autoencoders. `SemiSupervisedVariationalAutoencoder` requires the class
            of each row, or -1 if it is unknown. `FairAutoencoder` accepts targets that its codes
            should predict.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, which must not be negative: 2 is the same as repeating the row, 0 is
            the same as leaving it out. None gives all rows a weight of 1.
        X_corrupted : array-like of shape (n_samples, n_features), default=None
            Corrupted versions of the rows of `X`, in the same order. If they are passed, the
            encoder receives them in training and in validation, and `corruption` is ignored. The
            loss compares reconstructions with `X`. Values in the columns of a condition are
            ignored; those of `X` are used.
        X_val : array-like of shape (n_val, n_features), default=None
            Validation rows. With None, a share of the rows of `X` is held out, unless
            `early_stopping=False`. The rows of `X_val` serve the same purposes and replace these
            rows, but the network is never trained on them, so that all rows of `X` are training
            rows. They also count in the shares of the vectors of a codebook. In a `Pipeline`,
            ``transform_input=["X_val"]`` transforms `X_val` like `X`.
        y_val : array-like of shape (n_val,), default=None
            Targets of the rows of `X_val`. Required by autoencoders that use `y`.
        sample_weight_val : array-like of shape (n_val,), default=None
            Weights of the rows of `X_val`. None gives them a weight of 1.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            In any of these cases:

            - `X` has the wrong shape, infinite values, values that are too large or too small for
              the number format, or values outside the range of the likelihood.
            - `X` contains NaN, unless `architecture` is "mlp" or only the last steps of sequences
              are missing. In columns of a condition, only categories may be missing.
            - A fit that does not resume gets fewer than two rows with a positive weight.
            - `y`, `sample_weight`, `X_corrupted`, `X_val`, `y_val` or `sample_weight_val` is
              invalid.
            - `X_val` is passed together with `X_corrupted`, or with `early_stopping=False`.
            - Parameters are invalid or contradict each other.
            - With `warm_start=True`, `X` has other columns than in the previous fit, or the
              parameters describe a network that differs from the fitted one in more than a larger
              `n_components`.
            - `corruption` returns NaN or infinite values.
            - The objective or the estimated density becomes NaN or infinite.
        TypeError
            If `X` is sparse or only some of its column names are strings, if a callback is not a
            skorch callback, or if a `corruption` does not return a tensor of the shape and dtype of
            its input.

        Warns
        -----
        ConvergenceWarning
            If training diverges: the objective after the last epoch is worse, by more than one nat
            per column, than that of the initial network and that of a constant prediction. The
            constant is the mean row for the Gaussian likelihood and one half for the Bernoulli
            likelihood. The warning is also issued if fewer than half of the components of a
            variational code are active, or if the training rows use fewer than half of the vectors
            of a codebook. The same holds if training broke down and was repeated at a third of the
            learning rate, and if it did not improve on the initial network of a new model.
        UserWarning
            If the noise variance cannot be estimated, because codes reproduce the training rows,
            these rows do not vary along all axes, and no validation rows, or too few of them, are
            held out. The density of rows that vary along other axes is then extremely low. The
            warning is also issued if rows are images and `feature_shape` seems to have the channels
            as its last axis, and, during the fit, if `verbose` is 0 and the fit is expected to take
            more than a minute. A last reason is a column of categories of which most occur once.
        """
        data = FitData(X, y, sample_weight, X_corrupted, X_val, y_val, sample_weight_val)
        return self._train(data, self._fitted if self.warm_start else None)

    def partial_fit(
        self,
        X: MatrixLike,
        y: object = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
    ) -> Self:
        """Train on new rows, beside a sample of the rows seen before.

        The calls may have any size, down to one row, and the rows may come in any order, such as
        sorted by a column. The model describes all rows of the last call of `fit`, if any, and of
        all later calls of `partial_fit`. A row that comes again counts again.

        - The model keeps a sample of at most 2,048 of the distinct rows, with at most 2**20 cells.
          Hashes of the rows choose it, so that their order has no influence. If the sample and the
          new rows fit into one step, each step uses all of them. Otherwise, each new row is part of
          one step, whose other rows are drawn from the sample and the new rows. All rows have
          weights such that the expected gradient is that of all rows seen. In large calls, a new
          row is thus used several times. A pickle contains the sample. A file of `save` does not:
          after `skae.load`, a sample of later rows begins.
        - The learning rate rises during the first 50 steps, and it falls with the square root of
          the number of rows once training has passed over 4,096 rows, in all epochs together. The
          penalty of `weight_decay` is divided by the number of all rows seen. The momentum of the
          optimizer is kept.
        - Whenever the number of rows seen has grown by a quarter, or a parameter has changed, the
          model is estimated anew: the center and scale of the columns, to which the network is
          adapted so that it stays the same function of rows, the noise variance, and the
          distribution of codes. The network then starts anew, at PCA of the rows seen, if its
          objective is higher than that of such a start, or if it has been trained on fewer than 256
          rows. The first calls may therefore have fewer rows than components. Networks of other
          architectures than "mlp", and those with tied weights, keep the center and scale of their
          start, and start anew in the first calls only.
        - After `skae.load`, the model is estimated anew only when the later rows are as many as
          those before.

        The first call determines the levels of columns of conditions. Their centers and scales are
        those of the latest start. With `precision="auto"`, the first call determines the number
        format. If `n_components` is a share of the variance, the number of components is that of
        the latest start. No rows are held out, and there is no pre-training. `history_` contains
        the latest 100 epochs only, where a call is one epoch.

        Parameters may change between calls. Their present values are used, unless they require
        weights of other shapes. Weights of targets, such as `class_weight`, are an exception: a row
        keeps those of the call in which it came. The parameters `max_epochs`, `early_stopping`,
        `validation_fraction`, `n_iter_no_change`, `tol`, `warm_start` and `layerwise_epochs` are
        not used. `batch_size` is the number of new rows and rows of the sample per step; "auto" is
        256. Only the `random_state` of the first call is used.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,), default=None
            Ignored by most autoencoders. `FairAutoencoder` and
            `SemiSupervisedVariationalAutoencoder` use it as in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, as in `fit`.
        X_corrupted : array-like of shape (n_samples, n_features), default=None
            Corrupted versions of the rows, as in `fit`. All calls or none must have them.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`, or if a call after the first one has other columns, if only some of the
            calls have an `X_corrupted`, or if the parameters have changed since the last call so
            that they describe a different network. The first call may have a single row.
        TypeError
            As in `fit`.

        Warns
        -----
        ConvergenceWarning
            As in `fit`. The objective on all rows seen is estimated from 512 of the rows before and
            after the training of this call.
        UserWarning
            If the new rows are far from those seen before: the mean of a column differs by more
            than 10 standard deviations of the column, and by more than sqrt(n / m) for m new rows
            after n others. The warning names the column.
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
        data = FitData(X, y, sample_weight, X_corrupted, target_options=target_options)
        return self._train(data, self._fitted, fit_stream, 1)

    def _fit_rows(
        self,
        read: ReadRows,
        targets: Targets | None,
        sample_weight: Floats,
        resume: bool,
        density_rows: int | None = None,
    ) -> Self:
        """Fit to rows and targets that a meta-estimator has read.

        If `resume` is True, training resumes from the fitted model, if there is one. `density_rows`
        is the maximum number of rows from which the density is estimated.
        """
        data = FitData.of_task(read, targets, sample_weight, density_rows)
        return self._train(data, self._fitted if resume else None)

    def _partial_fit_rows(
        self, read: ReadRows, targets: Targets, sample_weight: Floats, density_rows: int
    ) -> Self:
        """Continue training with rows and targets that a meta-estimator has read."""
        data = FitData.of_task(read, targets, sample_weight, density_rows)
        return self._train(data, self._fitted, fit_stream, 1)

    @fit_context(prefer_skip_nested_validation=True)
    def _train(
        self,
        data: FitData,
        resume: Fitted | None,
        steps: Callable[..., Result] = fit_table,
        n_epochs: int | None = None,
    ) -> Self:
        """Fit a new model, then make it the fitted state in a single assignment.

        `resume` is the model from which training resumes, or None. `steps` are those of `fit` or of
        `partial_fit`, and `n_epochs` is their number of epochs. None is `max_epochs`.
        """
        if n_epochs is None and not isinstance(self.max_epochs, str):
            n_epochs = self.max_epochs
        context = init_callback_context(self, n_epochs)
        weight = data.sample_weight
        metadata = None if weight is None else {"sample_weight": weight}
        details = {"X": data.X, "y": data.y, "metadata": metadata}
        context.call_on_fit_task_begin(estimator=self, **details)

        def make_callback(model_of: Callable[[Any], Fitted]) -> EpochContexts | None:
            if not has_callbacks(self):
                return None
            return EpochContexts(context, self, details, lambda net: {"_fitted": model_of(net)})

        # The fit reads a copy, so that another thread that sets parameters meanwhile has no effect.
        unfitted = type(self)(**self.get_params(deep=False))
        with torch.inference_mode(False), torch.enable_grad():
            fitted, messages, remove_checkpoints = one_thread(steps)(
                unfitted, data, resume, make_callback
            )
        # The warnings come before the assignment: if the user turns them into errors, the fit
        # fails, and the previous model must stay.
        for message, category in messages:
            warn(message, category)
        end = partial(context.call_on_fit_task_end, estimator=self, reconstruction_attributes={})
        self._set_fitted(fitted, partial(end, **details))
        remove_when_complete(remove_checkpoints)
        return self

    # ------------------------------------------------------------------------------ inference

    def transform(self, X: MatrixLike) -> Floats:
        """Compute the codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, float32 if `X` is float32 and float64 otherwise. A row has the same code in every
            call. `SemiSupervisedVariationalAutoencoder` appends the probabilities of the classes.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows.
        TypeError
            If `X` is sparse.
        """
        fitted = self._read_fitted()
        return inference.codes(fitted.schema.read(X), fitted)

    def _encode(self, rows: Rows) -> Floats:
        """Compute the codes of rows that have been read."""
        return inference.codes(rows, self._read_fitted())

    def _activations(self, rows: Rows, decodes: bool) -> Floats:
        """Compute the inputs of the encoder and its hidden units for rows that have been read.

        `decodes` is whether the hidden units of the decoder follow.
        """
        return inference.activations(rows, self._read_fitted(), decodes)

    def _decode_for_rows(self, Z: Floats, rows: Rows) -> tuple[Floats, Floats]:
        """Decode codes, and compute the surprises of the cells of rows under the results."""
        return inference.decode_for_rows(Z, rows, self._read_fitted())

    def _log_prob(self, rows: Rows) -> Floats:
        """Compute the log-densities of rows that have been read."""
        return inference.evaluate_density("log_prob", rows, self._read_fitted())

    def _reconstruct(self, rows: Rows) -> Floats:
        """Compute the modelled cells of the reconstructions of rows that have been read."""
        return inference.reconstructed_cells(rows, self._read_fitted())

    def inverse_transform(self, X: MatrixLike) -> Floats:
        """Decode codes into rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, with the columns that `transform` returns.

        Returns
        -------
        X_original : ndarray or data frame of shape (n_samples, n_features)
            Expected row of each code under the likelihood, in the user's units. It is a data frame
            with the columns and dtypes of the first fit if that received one. For a category, it is
            the most probable level; whole numbers and dates are rounded, and they lie within the
            range of the first fit.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` contains NaN or infinite values, has the wrong number of columns, or is too far
            from the codes of training rows.
        TypeError
            If `X` is sparse.
        """
        fitted = self._read_fitted()
        return inference.decode(self._read_codes(X, fitted), None, fitted, index_of(X))

    def _read_codes(self, X: MatrixLike, fitted: Fitted, name: str = "X") -> Floats:
        """Validate codes and their number of components."""
        read = partial(check_array, dtype=[np.float64, np.float32], input_name=name)
        Z = read_cells(read, X, True)
        k = fitted.network.latent.n_outputs
        if Z.shape[1] != k:
            raise ValueError(
                f"{name} has {Z.shape[1]} columns, but the codes of this {type(self).__name__} "
                f"have {k} components. Pass codes of shape (n_samples, {k})."
            )
        return Z

    def reconstruct(self, X: MatrixLike, Z: MatrixLike | None = None) -> Floats:
        """Encode rows and decode their codes.

        The missing last steps of sequences are reconstructed, too. The columns of a condition are
        returned unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units.
        Z : array-like of shape (n_samples, n_components), default=None
            Codes to decode in place of those of the rows, under the conditions of the rows. None
            decodes the codes of the rows.

        Returns
        -------
        X_reconstructed : ndarray or data frame of shape (n_samples, n_features)
            Reconstructions of the rows, in the user's units; a data frame if the first fit received
            one.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows, or if `Z` is invalid, has another
            number of rows than `X`, or is too far from the codes of training rows.
        TypeError
            If `X` is sparse.
        """
        fitted = self._read_fitted()
        rows = fitted.schema.read(X)
        if Z is None:
            return inference.reconstructions(rows, fitted, index_of(X))
        codes = self._read_codes(Z, fitted, "Z")
        if len(codes) != len(rows):
            raise ValueError(
                f"Z must have a code for each of the {len(rows)} rows of X, got {len(codes)} codes."
            )
        return inference.decode(codes, rows.conditions, fitted, index_of(X))

    def impute(
        self,
        X: MatrixLike,
        n_draws: int | None = None,
        random_state: int | RandomState | None = None,
    ) -> Any:
        """Fill the missing cells of rows.

        Observed cells are returned unchanged, and so are categories that the first fit has not
        seen. A column that had no observed cell in the first fit stays missing.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units, with missing cells.
        n_draws : int, default=None
            Number of completed tables. In each of them, the code of a row is drawn from its
            posterior given the observed cells, and missing cells are drawn from the likelihood
            given this code. The spread of the tables shows how uncertain missing cells are. None
            returns one table with the expected numbers and the most probable categories, given the
            most probable code.
        random_state : int, RandomState instance or None, default=None
            Determines the draws. Pass an int for reproducible results.

        Returns
        -------
        X_completed : array or data frame of shape (n_samples, n_features), or list of them
            The completed table or, with `n_draws`, a list of completed tables. If `X` is a data
            frame, they are data frames of the same library.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows, or if `n_draws` is not a positive
            integer.
        TypeError
            If `X` is sparse.

        Examples
        --------
        >>> import numpy as np
        >>> from skae import Autoencoder
        >>> x = np.linspace(0, 1, 50)
        >>> X = np.column_stack([x, 2 * x, 3 * x])
        >>> X[10, 1] = np.nan
        >>> model = Autoencoder(1, hidden_layer_sizes=(), max_epochs=0, random_state=0).fit(X)
        >>> float(model.impute(X)[10, 1].round(2)), float((2 * x[10]).round(2))
        (0.41, 0.41)
        """
        fitted = self._read_fitted()
        rows = fitted.schema.read(X)
        if n_draws is None:
            cells = inference.completed(rows, fitted)
            return fitted.schema.complete(X, cells, rows.conditions)
        check_integer(n_draws, "n_draws", 1)
        seed = self._draw_seed(random_state, "impute")
        tables = inference.completed_draws(rows, int(n_draws), seed, fitted)
        return [fitted.schema.complete(X, cells, rows.conditions) for cells in tables]

    def encoder_jacobian(self, X: MatrixLike) -> Floats:
        """Compute the derivatives of the codes of rows with respect to their cells.

        `skae.metrics.feature_attribution` summarizes them over rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units.

        Returns
        -------
        jacobian : ndarray of shape (n_samples, n_components, n_features)
            Change of each component per unit of each column. It is 0 for missing cells and for the
            columns of a condition. For vectors of a codebook, it is that of the vectors for which
            the nearest ones are selected.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows, or if columns hold categories.
        TypeError
            If `X` is sparse.

        Examples
        --------
        The derivatives of a linear autoencoder are the same for all rows.

        >>> from sklearn.datasets import load_iris
        >>> from skae import Autoencoder
        >>> X = load_iris().data
        >>> linear = Autoencoder(2, hidden_layer_sizes=(), random_state=0).fit(X)
        >>> bool(abs(linear.encoder_jacobian(X) - linear.components_).max() < 1e-9)
        True
        """
        fitted = self._read_fitted()
        return derivatives.encoder_jacobian(fitted.schema.read(X), fitted)

    def decoder_jacobian(self, X: MatrixLike) -> Floats:
        """Compute the derivatives of decoded rows with respect to their codes.

        `skae.metrics.loadings` summarizes them over rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units, whose codes are decoded under their conditions.

        Returns
        -------
        jacobian : ndarray of shape (n_samples, n_features, n_components)
            Change of each column of the expected row per unit of each component, at the code of
            each row. It is 0 for the columns of a condition.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows, or if columns hold categories.
        TypeError
            If `X` is sparse.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skae import Autoencoder
        >>> X = load_iris().data
        >>> autoencoder = Autoencoder(2, max_epochs=5, random_state=0).fit(X)
        >>> autoencoder.decoder_jacobian(X[:3]).shape
        (3, 4, 2)
        """
        fitted = self._read_fitted()
        return derivatives.decoder_jacobian(fitted.schema.read(X), fitted)

    def integrated_gradients(self, X: MatrixLike) -> Floats:
        """Attribute the code of each row to its cells.

        The attribution of a component to a cell is the mean derivative along the straight line from
        the mean row to the row, times the difference between the cell and the mean of its column
        [1]_. The mean is that of 16 Gauss-Legendre points. The attributions of a row add up to the
        difference between its code and the code of the mean row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units. The mean row is that of these rows. For each row, it has the
            same missing cells and the same condition as the row.

        Returns
        -------
        attributions : ndarray of shape (n_samples, n_components, n_features)
            Attributions, in the units of the codes. They are 0 for missing cells and for the
            columns of a condition.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows, or if columns hold categories.
        TypeError
            If `X` is sparse.

        Notes
        -----
        A small error of the integral remains, which is larger for activations with kinks, such as
        "relu". Discrete codes differ from the smooth ones whose derivatives are used. These rests
        are distributed over the cells in proportion to the absolute attributions. If codes contain
        noise, as those of `FairAutoencoder`, the code of the mean row has the noise of the row.

        References
        ----------
        .. [1] M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep networks",
           ICML 2017.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skae import Autoencoder
        >>> X = load_iris().data
        >>> autoencoder = Autoencoder(2, max_epochs=5, random_state=0).fit(X)
        >>> change = autoencoder.transform(X) - autoencoder.transform(X.mean(axis=0)[None])
        >>> bool(abs(autoencoder.integrated_gradients(X).sum(axis=2) - change).max() < 1e-9)
        True
        """
        fitted = self._read_fitted()
        return derivatives.integrated_gradients(fitted.schema.read(X), fitted)

    def reconstruction_error(self, X: MatrixLike, per_feature: bool = False) -> Floats:
        """Compute the error between rows and their reconstructions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units.
        per_feature : bool, default=False
            Whether to return the error of each cell. If False, the errors of each row are summed.

        Returns
        -------
        error : ndarray of shape (n_samples,) or (n_samples, n_features)
            Squared error, in the squared units of `X`. If columns have different kinds, it is in
            squared standard deviations of the column. For the Bernoulli and the categorical
            likelihood, it is the deviance in nats: twice the difference between the log-likelihood
            of a perfect reconstruction and that of this reconstruction. The error of a missing cell
            is NaN, and it does not count in the sum. That of the columns of a condition is 0.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows.
        TypeError
            If `X` is sparse.
        """
        fitted = self._read_fitted()
        return inference.errors(fitted.schema.read(X), fitted, per_feature)

    def score_samples(self, X: MatrixLike) -> Floats:
        """Compute the log-density of rows under the fitted model.

        The density of a row is an integral over all codes. If codes are continuous and
        deterministic, Laplace's method approximates the integral, and importance sampling with 256
        codes per row corrects it for tables with categories. If codes are random, importance
        sampling with 20 or 100 codes per row estimates a lower bound of the log-density; the class
        documents which. The random numbers depend on the row only, so that a row has the same
        result in every call. If there are finitely many codes, the density is an exact sum over
        them.

        The noise variance, unless it is known or trained, and the distribution of codes, unless the
        model fixes it, are estimated after training. The estimate uses at most 2,048 rows. With
        `noise="diagonal"`, it uses fewer if the number of columns times that of components exceeds
        16,384 in float64, or 32,768 in float32. An estimated normal distribution covers at most 64
        principal axes of the codes, those of largest variance.

        With the Gaussian likelihood, the log-density can be compared with `PCA.score_samples` and
        `FactorAnalysis.score_samples`. For `Autoencoder` with `noise="isotropic"`, it is equal to
        `PCA.score_samples` if the network is the solution of PCA and neither held-out rows nor
        these limits restrict the estimate.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            Log-density of the observed cells of each row, in nats. For the Bernoulli and the
            categorical likelihood, it is a log-probability, which is not normalized for Bernoulli
            cells between 0 and 1. If columns have different kinds, it is the logarithm of a density
            of numbers times a probability of categories.
            Unusual rows have low values.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid or too far from the training rows, or if a vector-quantized
            autoencoder has more than 65,536 codes.
        TypeError
            If `X` is sparse.
        """
        return self._evaluate_density("log_prob", X)

    def _evaluate_density(self, method: str, X: MatrixLike, *arguments: object) -> Floats:
        """Call a method of the fitted density for rows."""
        fitted = self._read_fitted()
        return inference.evaluate_density(method, fitted.schema.read(X), fitted, *arguments)

    def score(
        self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None
    ) -> float:
        """Compute the mean log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, in the user's units.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean. None gives all rows the same weight.

        Returns
        -------
        score : float
            Mean of `score_samples`, in nats per row. Higher is better. With the Gaussian likelihood
            it can be compared with `PCA.score` and `FactorAnalysis.score`.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            As in `score_samples`, or if `sample_weight` is invalid.
        TypeError
            If `X` is sparse.
        """
        log_prob = self.score_samples(X)
        return float(np.average(log_prob, weights=read_weight(sample_weight, log_prob[:, None])))

    def get_covariance(self) -> Floats:
        """Compute the covariance of rows under a linear model.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
            Covariance of the rows that `sample` draws, in the squared units of `X`. For PCA's
            solution, it is that of `sklearn.decomposition.PCA.get_covariance` if the noise variance
            is estimated from all rows, as with `early_stopping=False`, and there are more rows than
            columns.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If the model is not linear, see `components_`. The covariance of rows from `sample`
            estimates that of other models.
        """
        return inference.linear_covariance(self._read_fitted())

    def get_precision(self) -> Floats:
        """Compute the inverse of the covariance of rows under a linear model.

        Returns
        -------
        precision : ndarray of shape (n_features, n_features)
            Inverse of `get_covariance`.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If the model is not linear, see `components_`, or if the covariance is singular up to
            rounding errors.
        """
        return inference.linear_precision(self._read_fitted())

    def sample(
        self,
        n_samples: int = 1,
        mean: bool = False,
        random_state: int | RandomState | None = None,
    ) -> Floats:
        """Draw random rows from the fitted model.

        For each row, a code is drawn from the distribution of codes, and the row is drawn from the
        likelihood given this code.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        mean : bool, default=False
            Whether to return the expected row of each drawn code instead of a draw from the
            likelihood.
        random_state : int, RandomState instance or None, default=None
            Determines the draws. Pass an int for reproducible results. None gives different rows in
            each call, whatever the `random_state` of the estimator.

        Returns
        -------
        X : ndarray or data frame of shape (n_samples, n_features)
            Rows, in the user's units; a data frame if the first fit received one. With
            `mean=False`, `score_samples` computes or approximates the log-density of the
            distribution that they are drawn from.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `n_samples` is not a positive integer, if the rows do not fit into memory, or if
            `random_state` is invalid.
        """
        return self._sample(n_samples, mean, random_state, None)

    def _sample(
        self,
        n_samples: int,
        mean: bool,
        random_state: int | RandomState | None,
        condition: Any,
    ) -> NDArray[Any]:
        """Draw rows, as in `sample`, under a condition.

        If `condition` is None, it is drawn from the conditions of training rows, if there are any.
        """
        fitted = self._read_fitted()
        check_integer(n_samples, "n_samples", 1)
        seed, cells = self._draw_seed(random_state, "sample"), None
        if condition is not None:
            cells = fitted.schema.read_conditions(condition, int(n_samples))
        return inference.draw_rows(int(n_samples), mean, seed, cells, fitted)

    def _draw_seed(self, random_state: int | RandomState | None, method: str) -> int:
        """Validate the argument `random_state` of a method, and draw a seed from it."""
        owner = f"{type(self).__name__}.{method}"
        check_parameters(self._parameter_constraints, {"random_state": random_state}, owner)
        return draw_seed(random_state)

    def interpolate(self, A: MatrixLike, B: MatrixLike, n_steps: int = 10) -> Floats:
        """Decode codes on the straight lines between the codes of `A` and of `B`.

        If the model has a condition, each step has the condition of the nearer end. The midpoint
        has that of `B`.

        Parameters
        ----------
        A, B : array-like of shape (n_pairs, n_features) or (n_features,)
            Rows at the start and at the end of each line, in the user's units.
        n_steps : int, default=10
            Number of equally spaced steps per pair, including the reconstructions of both ends. At
            least 2.

        Returns
        -------
        X : ndarray or data frame of shape (n_pairs * n_steps, n_features)
            Decoded rows, in the user's units: all steps of the first pair, then all steps of the
            second pair, and so on.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `A` or `B` is invalid or too far from the training rows, if they have different
            numbers of rows, or if `n_steps` is not an integer of at least 2.
        TypeError
            If `A` or `B` is sparse.
        """
        check_integer(n_steps, "n_steps", 2)
        fitted = self._read_fitted()
        first, last = (fitted.schema.read(_as_table(rows, fitted)) for rows in (A, B))
        if len(first) != len(last):
            raise ValueError(
                f"A and B must have the same number of rows, got {len(first)} and {len(last)}."
            )
        start, end = (inference.codes(rows, fitted)[:, None] for rows in (first, last))
        share = np.linspace(0, 1, n_steps)[None, :, None]
        Z = (1 - share) * start + share * end
        # Categories cannot be interpolated, so each step has the conditions of the nearer end.
        ends = first.conditions[:, None], last.conditions[:, None]
        conditions = np.where(share < 0.5, *ends).reshape(
            len(first) * n_steps, len(fitted.schema.conditions)
        )
        return inference.decode(Z.reshape(-1, Z.shape[-1]), conditions, fitted)

    def traverse(self, x: MatrixLike, component: int, values: MatrixLike) -> Floats:
        """Decode the code of a row with one of its components set to each of several values.

        If the model has a condition, all decoded rows have the condition of `x`.

        Parameters
        ----------
        x : array-like of shape (n_features,) or (1, n_features)
            Row, in the user's units.
        component : int
            Index of the component to change, starting at 0.
        values : array-like of shape (n_values,)
            Values that the component is set to.

        Returns
        -------
        X : ndarray or data frame of shape (n_values, n_features)
            Decoded row for each value, in the user's units.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `x` is invalid or not a single row, if the code has no component with index
            `component`, if `values` is not a non-empty list of finite numbers, or if a value is too
            far from the codes of training rows.
        TypeError
            If `x` is sparse.
        """
        fitted = self._read_fitted()
        row = fitted.schema.read(_as_table(x, fitted))
        code = inference.codes(row, fitted)
        if len(code) != 1:
            raise ValueError(f"x must be a single row, got {len(code)} rows.")
        check_integer(component, "component", 0, code.shape[1] - 1)
        try:
            grid = np.atleast_1d(np.asarray(values, dtype=code.dtype))
        except (ValueError, TypeError):
            grid = np.zeros(0)
        if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all():
            raise ValueError(
                f"values must be a non-empty list of finite numbers, got {short_repr(values)}."
            )
        Z = np.repeat(code, len(grid), axis=0)
        Z[:, component] = grid
        return inference.decode(Z, np.repeat(row.conditions, len(grid), axis=0), fitted)

    # ---------------------------------------------------------------- for metrics and displays

    @property
    def _models_numbers(self) -> bool:
        """Whether all modelled columns are numbers of the same kind."""
        schema = self._read_fitted().schema
        return schema.holds_numbers and not schema.is_mixed

    @property
    def _reads_numbers(self) -> bool:
        """Whether all columns are numbers, and modelled columns are numbers of the same kind."""
        conditions = self._read_fitted().schema.conditions
        return self._models_numbers and not any(column.holds_texts for column in conditions)

    @property
    def _encoded_columns(self) -> list[tuple[int, str]]:
        """Index in X and name of each encoded column."""
        return self._read_fitted().schema.encoded_columns

    def _standardized_cells(self, X: MatrixLike) -> derivatives.StandardizedCells:
        """Return the encoded and standardized cells of rows."""
        fitted = self._read_fitted()
        return derivatives.StandardizedCells(fitted.schema.read(X), fitted)

    # ---------------------------------------------------------------------------------- state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.positive_only = self.likelihood == "bernoulli"
        is_table = self.architecture == "mlp" and self.feature_shape is None
        # Conditions that are numbers must be observed.
        tags.input_tags.allow_nan = is_table and self._conditions()[1] is None
        tags.input_tags.string = is_table and self.likelihood == "auto"
        tags.input_tags.categorical = tags.input_tags.string
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        fitted = state.get("_fitted")
        return state if fitted is None else state | {"_fitted": fitted.tree()}

    def _attributes(self) -> dict[str, Any]:
        state = super()._attributes()
        if "_fitted" in state:
            tree = state["_fitted"]
            # The sample consists of training rows, which files do not contain.
            state["_fitted"] = tree | {"seen": tree["seen"].without_rows()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        tree = state.pop("_fitted", None)
        super().__setstate__(state)
        if tree is not None:
            # The network is rebuilt from the parameters of the fit, because the present ones may
            # differ from them and may be invalid.
            as_fitted = type(self)(architecture=self.architecture)
            self._fitted = restore(as_fitted.set_params(**tree["parameters"]), tree)


def _as_table(X: Any, fitted: Fitted) -> Any:
    """Return a single row as a table of one row, and a table unchanged.

    A single row is a vector or an array of shape `feature_shape`.
    """
    if hasattr(X, "columns"):
        return X
    has_equal_rows = len({*(row_shapes(X) or ())}) <= 1
    is_single = has_equal_rows and (np.ndim(X) == 1 or np.shape(X) == fitted.schema.feature_shape)
    return np.asarray(X).reshape(1, -1) if is_single else X
