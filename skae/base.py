"""What scikit-learn sees of every autoencoder: parameters, validation, methods, state. No maths."""

import copy
import math
import pickle
import secrets
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from skae._compat.sklearn import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    check_feature_names,
    check_sample_weight,
    fit_context,
    fit_task,
    has_callbacks,
    validate_parameters,
)
from skae.density.density import Density
from skae.density.laplace import Laplace
from skae.nn.batch import Batch
from skae.nn.bodies.architectures import (
    WIDTHS,
    make_architecture,
    takes_gaps,
)
from skae.nn.bodies.body import make_bodies
from skae.nn.bodies.layers import ACTIVATIONS
from skae.nn.bodies.modules import ModulePair
from skae.nn.corruption import CORRUPTIONS, ColumnFacts, Corruption, Named
from skae.nn.draws import Draws
from skae.nn.growth import grow
from skae.nn.inputs import Inputs
from skae.nn.latent import Latent
from skae.nn.likelihoods import LIKELIHOODS, make_likelihood
from skae.nn.likelihoods.base import Likelihood
from skae.nn.linear import DistinctRows, Moments, components_for_share, moments, of_present_cells
from skae.nn.network import AuxiliaryLoss, Network
from skae.parameters import Declared
from skae.state import Saved
from skae.table.rows import hash_rows, merged
from skae.table.sequences import as_table, check_ends, filled, full_shape
from skae.training.batches import Batches
from skae.training.checkpoint import Checkpoint, EpochContexts
from skae.training.layerwise import pretrain
from skae.training.loop import Net, to_arrays, to_tensors
from skae.training.plan import Plan
from skae.training.split import hold_out, shuffled
from skae.training.threads import choose_device, one_thread

Floats = NDArray[np.floating]

MatrixLike = Any
"""What scikit-learn's validation accepts: arrays, data frames of any library, lists."""

FLOAT64_CELLS = 2**18
"""Tables of at most so many float64 cells train in float64 under `precision="auto"`."""

FLOAT32_OFFSET = 1e4
"""Column means beyond so many standard deviations would cost float32 its last four digits."""

LARGEST = {torch.float64: 1e150, torch.float32: 1e18}
"""Largest value whose square leaves room for sums."""

SMALLEST_SUM = 1e-300
"""Weights with a smaller sum could not be divided by it."""

ROWS_THAT_CHOOSE = 100
"""Held-out rows from which on they choose the best epoch under `early_stopping="auto"`."""

FULL_BATCH = 256
SELDOM_SHARE = 0.2
"""Share of the rows shown that those with seldom facts should have."""

CHUNK = 2048
"""Rows that inference handles at once: larger blocks leave the processor's cache."""

DENSITY_ROWS = 2048


@dataclass
class RowFacts:
    """What a fit is told of rows beside their cells: the one way to train for more than the rows.

    The tables reach `Latent.bound` and the term, which a caller keeps and reads after the fit.

    Attributes
    ----------
    tables : tuple of ndarray of shape (n_samples, m)
        The facts, numbers.
    known : ndarray of shape (n_samples,)
        Rows of which there are any. Where they are a minority, none of them is held out, and they
        are shown often, with less weight each.
    term : AuxiliaryLoss or None
        What training charges beside the autoencoder's own objective.
    attributes : dict
        Fitted attributes that facts decide.
    density_rows : int
        Rows that the density is learnt from: it may be a by-product.
    """

    tables: tuple[Floats, ...]
    known: NDArray[np.bool_]
    term: AuxiliaryLoss | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    density_rows: int = DENSITY_ROWS


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
        How to spoil the rows that the encoder sees while training; the loss stays on the clean
        rows. "gaussian" adds normal noise, "masking" sets cells to 0 or to the value nearest to it
        that their column takes, "salt_and_pepper" to their column's smallest or largest value,
        "swap" to their column's value in another, different row. Columns' deviations and ranges
        are those of the rows given to the call. Three are for images: "grayscale" sets all channels
        to their mean, "downsampling" makes one pixel of two by two and enlarges what is left,
        "block" blanks a square at a random place. A callable `f(x, generator) -> x` is given rows
        (a tensor of shape (n, n_features), in the user's units) and a `torch.Generator`, from which
        its randomness should come. Nothing is spoilt outside training.

    corruption_level : float, default=0.3
        Share of cells that a named corruption spoils; for "gaussian", the noise's standard
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
        by name spoils what each layer sees, rows or codes: a stacked denoising autoencoder.

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
        Improvement in nats per row that `n_iter_no_change` asks for. Where held-out rows do not
        choose the epoch, a fit that improves the training objective by less keeps its start.

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

    net_ : skorch.NeuralNet
        skorch's net around it.

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

    n_components: int | float | str = "auto"
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

    _density: ClassVar[type[Density]] = Laplace
    """How `score_samples` integrates the code out."""

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
    _encoder_sees_given: ClassVar[bool] = True
    _doc_link_module = "skae"
    _doc_link_template = (
        "https://skae.readthedocs.io/en/stable/generated/skae.{estimator_name}.html"
    )

    @abstractmethod
    def _make_latent(self, n_components: int) -> Latent:
        """The variant: its code of `n_components` numbers."""

    def _auto_components(self, n_features: int) -> int:
        """Size of the code under `n_components="auto"`."""
        return max(1, round(n_features**0.5))

    @property
    def _n_modelled(self) -> int:
        """Cells of a row that are modelled; given ones, if there are any, follow in tables."""
        return self.n_features_in_

    @property
    def _n_given(self) -> int:
        """Cells that are given, as networks take them."""
        return 0

    def _modelled(self, X: MatrixLike) -> MatrixLike:
        """The modelled columns of a user's table."""
        return X

    def _place(self, cells: Floats, told: Floats | None = None) -> Floats:
        """Modelled cells as rows of the user's columns, given ones filled in or 0."""
        return cells

    def _column(self, j: int) -> int:
        """Which of the user's columns a column of a table is."""
        return j

    # ------------------------------------------------------------------ fitting

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
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
        with torch.inference_mode(False), torch.enable_grad(), one_thread:
            return self._fit(X, y, sample_weight, X_corrupted, going_on=self.warm_start)

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
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
        with torch.inference_mode(False), torch.enable_grad(), one_thread:
            return self._fit(X, y, sample_weight, X_corrupted, going_on=True, one_pass=True)

    def _facts(self, y: MatrixLike, weight: Floats, counts: NDArray[np.bool_]) -> RowFacts:
        """What targets tell of the rows that count, whose weights are given; by default nothing."""
        return RowFacts((), np.zeros(len(weight), dtype=bool))

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def _fit_to(
        self, X: MatrixLike, facts: RowFacts, sample_weight: MatrixLike | None, going_on: bool
    ) -> Self:
        """`fit` for estimators over an autoencoder, which know more of rows than their cells."""
        with torch.inference_mode(False), torch.enable_grad(), one_thread:
            return self._fit(X, None, sample_weight, None, going_on, facts=facts)

    def _fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        X_corrupted: MatrixLike | None,
        going_on: bool,
        one_pass: bool = False,
        facts: RowFacts | None = None,
    ) -> Self:
        """Train on rows and on facts about them: those given, or what targets tell."""
        callbacks = list(self.callbacks or [])
        strangers = [c for c in callbacks if not hasattr(c, "on_train_begin")]
        if strangers:
            raise TypeError(f"callbacks must be skorch callbacks, got {strangers[0]!r}.")
        resumable = any(isinstance(c, Checkpoint) for c in callbacks)
        if resumable and self.random_state is None:
            raise ValueError(
                "A fit with a Checkpoint needs a random_state, an integer: without one, the fit "
                "that is started again would be another fit."
            )
        going_on = going_on and hasattr(self, "net_")
        epochs = 1 if one_pass else self.max_epochs
        context = fit_task(self, epochs)
        context.call_on_fit_task_begin(estimator=self, X=X)
        # All is built on a new object; this one changes in a single step, at the end.
        new = type(self)(**self.get_params(deep=False))
        if going_on:
            new._adopt(self)
        X, weight, spoilt, counts = new._read_training_rows(
            X, sample_weight, X_corrupted, not going_on
        )
        facts = facts or new._facts(y, weight, counts)
        new.__dict__.update(facts.attributes)
        seldom = facts.known & (weight @ facts.known < 0.5 * weight.sum())
        seed = draw_seed(self.random_state)
        hashes = hash_rows(X, seed)
        # Equal rows become one of their summed weight, so that draws do not tell them apart.
        pairs = [hash_rows(table, seed) for table in (spoilt, *facts.tables) if table is not None]
        index, total = merged(weight, hashes, *pairs)
        hashes = hashes[index]
        held_out = np.zeros(len(index), dtype=bool)
        if self.early_stopping is not False and not one_pass:
            held_out = hold_out(hashes, self.validation_fraction)
            held_out &= ~np.isin(hashes, hashes[seldom[index]])
        some = shuffled(hashes, DENSITY_ROWS)
        has_gaps = new._takes_gaps(now=True)
        full = filled(X, index, total) if has_gaps else X
        if not going_on:
            net = new._new_net(X, full, index, total, some, seed)
        elif one_pass or not new._grows():
            net = new._net_to_go_on(self.net_)
        else:
            # Nothing but the size of the code may be another.
            copy.copy(new).set_params(n_components=self.n_components_)._net_to_go_on(self.net_)
            net = new._new_net(X, full, index, total, some, seed, self.module_)

        share = np.zeros(len(X))
        share[index] = total
        for side in (index[held_out], index[~held_out]):
            share[side] /= share[side].mean() if len(side) else 1.0
        trained = index[~held_out]
        batch_size = self._choose_batch_size(len(trained))
        times = np.ones(len(X), dtype=np.intp)
        times[trained] = _times_shown(seldom[trained], batch_size)
        shown = share / times
        shown[trained] *= times[trained].mean()
        network: Network = net.module_
        table = Batch(
            x=_tensor(X if spoilt is None else spoilt, network),
            weight=_tensor(shown, network),
            observed=~_tensor(X, network).isnan() if has_gaps else None,
            clean=None if spoilt is None else _tensor(X, network),
            targets=_tensor(facts.tables[0], network) if facts.tables else None,
            target_weight=_tensor(facts.tables[1], network) if facts.tables else None,
        )
        corrupt = None if spoilt is not None else self.corruption
        if isinstance(corrupt, str):
            shape = new._shape(now=True)
            cells = _as_tensor(full[:, : new._n_modelled])
            columns = ColumnFacts(cells, _as_tensor(share), table.x, shape)
            corrupt = Named(corrupt, self.corruption_level, columns)

        def rows(which: NDArray[np.intp]) -> Batches:
            numbers = torch.from_numpy(np.repeat(which, times[which])).to(table.x.device)
            return Batches(table, numbers, corrupt, new._n_given)

        train, valid = rows(trained), rows(index[held_out]) if held_out.any() else None
        if facts.term is not None:
            new._add_term(facts.term, net, train)
        plan = Plan(
            learning_rate=self.learning_rate,
            max_epochs=epochs,
            batch_size=batch_size,
            weight_decay=self.weight_decay / total[~held_out].sum(),
            one_cycle=not one_pass,
            restore_best=network.latent.has_yardstick
            and (self.early_stopping is True or held_out.sum() >= ROWS_THAT_CHOOSE),
            patience=self.n_iter_no_change,
            tol=self.tol,
            autocast=self.precision == "bfloat16",
            verbose=int(self.verbose),
            callbacks=callbacks,
            anew=not going_on,
            signature=self._signature() if resumable else "",
        )
        seen = total.sum() + (self._seen_ if going_on and one_pass else 0.0)

        def learnt(net: Net, best_epoch: int) -> dict[str, Any]:
            if net.module_.auxiliary is not None:
                net.module_.auxiliary = None
                net.forget_momentum()
            network = _with_float64(net.module_.eval())
            few = some[: facts.density_rows]
            batch = new._batch(X[index[few]], network, total[few])
            unseen = torch.from_numpy(held_out[few]).to(batch.x.device)
            density = self._density.estimate(network, batch, unseen)
            if not density.is_finite():
                raise ValueError(
                    "Training broke down: codes or errors have no finite variance. Lower "
                    f"learning_rate (now {self.learning_rate}) or scale the columns of X."
                )
            if going_on and one_pass:
                density = self._density_.blend(density, total.sum() / seen)
            return new._fitted_attributes(net, density, best_epoch) | {"_seen_": seen}

        if has_callbacks(self):
            plan.contexts = EpochContexts(
                context,
                self,
                X,
                lambda net: learnt(net.duplicate(copy.deepcopy(net.module_)), len(net.history)),
            )
        best_epoch = new._train(net, train, valid, plan, pretraining=not going_on)
        if not (one_pass or self.warm_start):
            net.forget_momentum()
        new.__dict__.update(learnt(net, best_epoch))
        new._complain(X[index[some]], total[some])
        old = type(self)()
        old._adopt(self)
        self._adopt(new)
        try:
            context.call_on_fit_task_end(estimator=self, X=X)
        except BaseException:
            self._adopt(old)
            raise
        return self

    def _add_term(self, term: AuxiliaryLoss, net: Net, train: Batches) -> None:
        """Let a net that has not begun to train do so for an auxiliary loss, too."""
        network: Network = net.module_
        network.auxiliary = term.to(network.like)
        chunks = [*train.chunks()]
        with torch.no_grad():
            codes = torch.cat([network.encode(batch).mean for batch in chunks])
        tensors = zip(*[batch.tensors() for batch in chunks], strict=True)
        term.start(codes, chunks[0].with_tensors([torch.cat(parts) for parts in tensors]))
        net.forget_momentum()

    def _train(
        self, net: Net, train: Batches, valid: Batches | None, plan: Plan, pretraining: bool
    ) -> int:
        """Train a net in place; returns the epoch that was kept."""
        try:
            before = start = net.evaluate(train)
            if self.layerwise_epochs and pretraining:
                shallow = Plan(
                    learning_rate=self.learning_rate,
                    max_epochs=self.layerwise_epochs,
                    batch_size=plan.batch_size,
                    weight_decay=plan.weight_decay,
                )
                pretrain(net.module_, train, shallow, net.generator)
                start = net.evaluate(train)
            state = {name: t.clone() for name, t in net.module_.state_dict().items()}
            best_epoch, end = net.fit_rows(train, valid, plan)
            if not math.isfinite(end):
                raise FloatingPointError(f"the objective became {end}")
        except FloatingPointError as error:
            raise ValueError(
                f"Training broke down: {error}. Lower learning_rate (now {self.learning_rate}) or "
                "scale the columns of X."
            ) from None
        # Worse than both the start and predicting the columns' means, and by more than chance.
        baseline = net.module_.likelihood.baseline().item()
        if end > max(before, baseline) + self._n_modelled:
            warnings.warn(
                f"Training diverged: the objective rose from {before:.4g} to {end:.4g} nats per "
                f"row. Lower learning_rate (now {self.learning_rate}).",
                ConvergenceWarning,
                stacklevel=6,
            )
        chosen = valid is not None and plan.restore_best
        is_telling = net.module_.latent.has_yardstick
        if plan.one_cycle and not chosen and is_telling and end > start - self.tol:
            # At a solution, steps only add rounding errors.
            net.module_.load_state_dict(state)
            return 0
        return best_epoch

    def _complain(self, X: Floats, weight: Floats) -> None:
        """Warn of codes of training rows that are not what the user expects."""
        if not moments(_as_tensor(np.nan_to_num(X)), _as_tensor(weight)).variance.any():
            return
        network = self.module_
        with torch.no_grad():
            batch = self._batch(X, network, weight)
            complaint = network.latent.complaint(network.encode(batch), batch.weight)
        if complaint is not None:
            warnings.warn(complaint, ConvergenceWarning, stacklevel=6)

    def _signature(self) -> str:
        """The estimator and those of its parameters that decide what it learns from given rows."""
        parameters = self.get_params(deep=False)
        for name in ("callbacks", "random_state", "verbose", "device"):
            del parameters[name]
        # Their texts would not tell them from others.
        wordless = [
            name
            for name, value in parameters.items()
            if name in ("corruption", "architecture")
            or callable(value)
            or isinstance(value, np.ndarray)
        ]
        own = [parameters.pop(name) for name in wordless]
        try:
            objects = pickle.dumps(own)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                "With a Checkpoint, "
                + ", ".join(wordless)
                + " must be objects that pickle can store, such as a module's functions: another "
                "process could not tell them from others."
            ) from error
        return f"{type(self).__qualname__} {parameters} {objects!r}"

    def _read_training_rows(
        self,
        X: MatrixLike,
        sample_weight: MatrixLike | None,
        X_corrupted: MatrixLike | None,
        first: bool,
    ) -> tuple[Floats, Floats, Floats | None, NDArray[np.bool_]]:
        """Validated rows of positive weight, their weights, corrupted versions, and which count."""
        X = self._read_rows(X, reset=first, ensure_min_samples=2 if first else 1)
        weight = read_weight(sample_weight, X)
        spoilt = None
        if X_corrupted is not None:
            spoilt = self._read_cells(X_corrupted, first, dtype=X.dtype, input_name="X_corrupted")
            cells, told = np.split(X, [self._n_modelled], axis=1)
            if spoilt.shape != cells.shape:
                raise ValueError(
                    f"X_corrupted has shape {spoilt.shape}, but X has {cells.shape}: they go in "
                    "pairs."
                )
            self._refuse_overflow(_largest(spoilt), "X_corrupted", torch.float64)
            spoilt = _joined(spoilt, told)
        counts = weight > 0
        if not counts.all():
            X, weight = X[counts], weight[counts]
            spoilt = None if spoilt is None else spoilt[counts]
            if first:
                refuse_single_row(self, X)
        return X, weight, spoilt, counts

    def _read_rows(self, X: MatrixLike, reset: bool = False, **checks: Any) -> Floats:
        """Validated rows, within the likelihood's range; given cells follow modelled ones."""
        X = validate_data(
            self,
            self._as_table(X, reset),
            dtype=[np.float64, np.float32],
            reset=reset,
            ensure_all_finite=self._finiteness(reset),
            **checks,
        )
        return self._check_range(self._check_ends(X, reset), reset)

    def _read_cells(self, X: MatrixLike, now: bool, **checks: Any) -> Floats:
        """Modelled cells of rows that need not be within the likelihood's range."""
        check_feature_names(self, X, reset=False)
        checks["ensure_all_finite"] = self._finiteness(now)
        cells = check_array(self._modelled(self._as_table(X, now)), **checks)
        return self._check_ends(cells, now)

    def _check_range(self, X: Floats, now: bool) -> Floats:
        """Modelled cells that are within the likelihood's range."""
        likelihood = str(self._told("likelihood", now))
        low, high = LIKELIHOODS[likelihood].support
        if np.isinf([low, high]).all():
            return X
        smallest, largest = np.nanmin(X), np.nanmax(X)
        if smallest < low or largest > high:
            wrong = "Negative values" if smallest < low else f"Values above {high:g}"
            raise ValueError(
                f"{wrong} in data passed to {type(self).__name__}: X ranges from {smallest:.6g} to "
                f"{largest:.6g}, but likelihood={likelihood!r} takes values in [{low:g}, "
                f"{high:g}]. Scale X, for instance with MinMaxScaler(clip=True), or use "
                "likelihood='gaussian'."
            )
        return X

    def _told(self, name: str, now: bool) -> Any:
        """A parameter as it is now, or as it was in the fit."""
        # Models of earlier releases do not know later parameters, which were at their defaults.
        return (
            getattr(self, name) if now else self._fit_params_.get(name, getattr(type(self), name))
        )

    def _takes_gaps(self, now: bool) -> bool:
        return takes_gaps(self._told("architecture", now))

    def _finiteness(self, now: bool) -> bool | str:
        """What scikit-learn's validation is to ask of cells."""
        return "allow-nan" if self._takes_gaps(now) else True

    def _as_table(self, X: MatrixLike, now: bool) -> MatrixLike:
        """Images and sequences as rows."""
        columns = None if now else getattr(self, "n_features_in_", None)
        return as_table(X, self._told("feature_shape", now), columns, self._takes_gaps(now))

    def _shape(self, now: bool, n_features: int | None = None) -> tuple[int, ...]:
        """The shape of a row, of so many cells or as many as those of the fit."""
        return full_shape(self._told("feature_shape", now), n_features or self._n_modelled)

    def _check_ends(self, X: Floats, now: bool) -> Floats:
        """Rows of which only the ends of sequences may be missing."""
        return check_ends(X, self._shape(now, X.shape[1])[0]) if self._takes_gaps(now) else X

    def _choose_batch_size(self, n: int) -> int:
        if self.batch_size != "auto":
            return min(int(self.batch_size), n)
        if n <= FULL_BATCH:
            return n
        return int(np.clip(2 ** round(np.log2(n / 64)), 64, 256))

    def _new_net(
        self,
        X: Floats,
        full: Floats,
        index: NDArray[np.intp],
        weight: Floats,
        some: NDArray[np.intp],
        seed: int,
        shorter: Network | None = None,
    ) -> Net:
        """A net at its start: built, initialised from the data, not trained.

        Distinct rows are those at `index`, with these weights; `some` of them, none held out, stand
        for all. `full` are all rows with what is missing in them filled in. Where there is a
        network with a `shorter` code, the start is that one's end.
        """
        device = choose_device(self.device)
        largest = _largest(full)
        self._refuse_overflow(largest, "X", torch.float64)
        d = self._n_modelled
        cells, told = _as_tensor(full).tensor_split([d], dim=1)
        numbers, w = torch.from_numpy(index), _as_tensor(weight)
        x = DistinctRows(cells, numbers)
        at = moments(x, w)
        if full is not X:
            at = of_present_cells(at, torch.from_numpy(weight @ ~np.isnan(X[index, :d])) / w.sum())
        dtype = self._choose_dtype(X, at, largest)
        if device.type == "mps" and dtype == torch.float64:
            dtype = torch.float32
        self._refuse_overflow(largest, "X", dtype)
        self._refuse_extreme_scales(at, dtype)
        generator = torch.Generator().manual_seed(seed)
        if self.n_components == "auto":
            k = self._auto_components(d)
        elif isinstance(self.n_components, Integral):
            k = int(self.n_components)
        else:
            k = components_for_share(x, w, at, float(self.n_components), generator)
        try:
            network = self._build(d, k).to(dtype)
        except (RuntimeError, TypeError, OverflowError) as error:
            raise ValueError(
                f"A network with n_components={k} and hidden_layer_sizes={self.hidden_layer_sizes} "
                f"for {d} columns does not fit into memory."
            ) from error
        network.start(x, w, at, generator, DistinctRows(told, numbers))
        batch = self._batch(X[index[some]], network, weight[some])
        if shorter is not None:
            grow(network, copy.deepcopy(shorter).to(network.like), batch, generator)
        network.start_latent(batch, generator)
        network = network.to(device)
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(seed)
        return Net.over(network, generator)

    def _refuse_overflow(self, largest: Floats, name: str, dtype: torch.dtype) -> None:
        """Raise ValueError where a table's columns hold values too large to square."""
        too_large = np.flatnonzero(largest > LARGEST[dtype])
        if len(too_large):
            raise ValueError(
                f"Column {self._column(too_large[0])} of {name} has values beyond "
                f"{LARGEST[dtype]:g}, whose squares are too large to sum. Divide the column by its "
                "largest value"
                + ("." if dtype == torch.float64 else " or use precision='float64'.")
            )

    def _choose_dtype(self, X: Floats, at: Moments, largest: Floats) -> torch.dtype:
        if self.precision != "auto":
            return torch.float64 if self.precision == "float64" else torch.float32
        deviation = at.variance.sqrt()
        offset = (at.center.abs() > FLOAT32_OFFSET * deviation) & (deviation > 0)
        exact = X.size <= FLOAT64_CELLS or bool(offset.any())
        limit = LARGEST[torch.float32]
        beyond = largest.max() > limit or float(at.scale) * limit < 1
        return torch.float64 if (X.dtype == np.float64 and exact) or beyond else torch.float32

    def _refuse_extreme_scales(self, at: Moments, dtype: torch.dtype) -> None:
        """Raise ValueError where variances or their shares of the noise leave the number format."""
        limit = LARGEST[dtype]
        if float(at.scale) * limit < 1:
            column = self._column(int(at.variance.argmax()))
            raise ValueError(
                f"Column {column} of X varies by less than {1 / limit:g}, whose square is 0 in "
                "this precision. Scale the columns of X or use precision='float64'."
            )
        variance = float(at.scale**2)
        noise = variance if isinstance(self.noise, str) else float(self.noise)
        if not 0.1 / limit**2 < variance / noise < 10 * limit**2:
            raise ValueError(
                f"noise={self.noise!r} and the columns' mean variance of {variance:g} are too far "
                "apart to compute with."
            )

    def _build(self, n_features: int, n_components: int) -> Network:
        """The network for so many modelled cells that the parameters describe, weights not set."""
        architecture = make_architecture(
            self.architecture,
            n_features,
            None if self.feature_shape is None else full_shape(self.feature_shape, n_features),
            self.hidden_layer_sizes,
            self.activation,
            self.dropout,
        )
        latent = self._make_latent(n_components)
        for name, able in (
            ("tied_weights", architecture.can_tie),
            ("layerwise_epochs", architecture.has_layers),
        ):
            if getattr(self, name) and not able:
                raise ValueError(
                    f"architecture={self.architecture!r} cannot have {name}={getattr(self, name)}: "
                    "leave that parameter out."
                )
        if self._n_given and self.tied_weights:
            raise ValueError(
                "tied_weights=True is for decoders that see the code only, not what is given "
                "of rows: leave that parameter out."
            )
        likelihood = make_likelihood(self.likelihood, n_features, self.noise, latent.learns_noise)
        skip = architecture.likes_skip if self.linear_skip == "auto" else bool(self.linear_skip)
        encoder, decoder = make_bodies(
            architecture,
            latent.n_inputs,
            latent.n_outputs + self._n_given,
            skip and latent.is_linear,
            self.tied_weights,
        )
        inputs = Inputs(n_features, (1,) * self._n_given, self._encoder_sees_given)
        return Network(inputs, encoder, decoder, latent, likelihood, self.trim)

    def _grows(self) -> bool:
        """Whether the code is to have more components than it was fitted with."""
        return isinstance(self.n_components, Integral) and self.n_components > self.n_components_

    def _net_to_go_on(self, net: Net) -> Net:
        """A copy of a fitted net, its network built from the parameters as they are now."""
        k = self.n_components_
        try:
            if isinstance(self.n_components, Integral) and self.n_components != k:
                raise RuntimeError(f"n_components was {k}")
            if self._shape(now=True) != self._shape(now=False):
                raise RuntimeError(f"rows were of shape {self._shape(now=False)}")
            network = self._build(self._n_modelled, k).to(net.module_.like)
            return net.duplicate(network)
        except RuntimeError as error:
            now = self.get_params(deep=False)
            changed = [k for k, v in self._fit_params_.items() if repr(now[k]) != repr(v)]
            raise ValueError(
                "The parameters describe another network than the one that was fitted, so training "
                f"cannot go on from it. Of those that have changed ({', '.join(changed)}), restore "
                "what shapes the network, or fit anew with warm_start=False."
            ) from error

    def _fitted_attributes(self, net: Net, density: Density, best_epoch: int) -> dict[str, Any]:
        network: Network = net.module_
        history = net.history
        noise = density.likelihood.noise_variance.cpu().double().numpy()
        return {
            "n_components_": network.latent.n_components,
            "_n_features_out": network.latent.n_outputs,
            "noise_variance_": noise if self.noise == "diagonal" else float(noise[0]),
            "net_": net,
            "module_": network,
            "history_": history,
            "loss_curve_": [row["train_loss"] for row in history],
            "validation_curve_": [row["valid_loss"] for row in history if "valid_loss" in row],
            "n_iter_": len(history),
            "best_epoch_": best_epoch,
            "_density_": density,
            "_fit_params_": {
                name: value
                for name, value in self.get_params(deep=False).items()
                if name not in ("callbacks", "random_state", "verbose", "corruption")
                and not callable(value)
            },
        }

    # ---------------------------------------------------------------- inference

    def transform(self, X: MatrixLike) -> Floats:
        """Codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components_)
            Codes, in the dtype of `X`; never random.
        """
        return self._codes(X)

    def _codes(self, X: MatrixLike) -> Floats:
        """Codes as an array, whatever `set_output` asks of `transform`."""
        check_is_fitted(self)
        return self._map(lambda batch: self.module_.encode(batch).mean, self._read_rows(X))

    def inverse_transform(self, Z: MatrixLike) -> Floats:
        """Expected rows of codes.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components_)
            Codes.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_)
            Rows in the user's units.
        """
        return self._restored(self._read_codes(Z))

    def _read_codes(self, Z: MatrixLike) -> Floats:
        """Validated codes."""
        check_is_fitted(self)
        Z = check_array(Z, dtype=[np.float64, np.float32], input_name="Z")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, but this {type(self).__name__} has codes of "
                f"{self._n_features_out}."
            )
        return Z

    def _restored(self, codes: Floats) -> Floats:
        """Expected rows of codes that are followed by given cells, if there are any."""
        cells = self._map(self._decoded, codes, name="Z")
        return self._place(cells, codes[:, self._n_features_out :])

    def _decoded(self, codes: Batch) -> Tensor:
        z, given = codes.x.tensor_split([self._n_features_out], 1)
        blank = z.new_zeros(len(z), self._n_modelled)
        batch = Batch(torch.cat([blank, given], 1), codes.weight)
        return self.module_.likelihood.mean(self.module_.outputs(z, batch))

    def _complete_codes(self, X: MatrixLike) -> Floats:
        """Codes of rows, followed by what is given of these."""
        X = self._read_rows(X)
        codes = self._map(lambda batch: self.module_.encode(batch).mean, X)
        return _joined(codes, X[:, self._n_modelled :])

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
        check_is_fitted(self)
        module, X = self.module_, self._read_rows(X)
        cells = self._map(lambda batch: module.likelihood.mean(module.restored(batch)), X)
        return self._place(cells, X[:, self._n_modelled :])

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
        check_is_fitted(self)
        module = self.module_

        def error(batch: Batch) -> Tensor:
            rows = module.inputs.modelled(batch)
            cells = module.likelihood.deviance(rows, module.restored(batch))
            return cells if per_feature else cells.sum(-1)

        errors = self._map(error, self._read_rows(X), np.float64)
        return self._place(errors) if per_feature else errors

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
        check_is_fitted(self)
        X = self._read_rows(X)
        network = _with_float64(self.module_)
        answer = getattr(self._density_, question)
        return self._map(lambda batch: answer(network, batch, *arguments), X, np.float64, network)

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
        X : ndarray of shape (n_samples, n_features_in_)
            Rows in the user's units, whose density `score_samples` tells if `mean` is False.
        """
        return self._sample(n_samples, mean, random_state)

    def _sample(
        self,
        n_samples: int,
        mean: bool,
        random_state: int | RandomState | None,
        told: Callable[[int, Draws], Floats] | None = None,
    ) -> Floats:
        """Rows from the model, of given cells `told(n_samples, draws)` if there are any."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}.")
        network, density = _with_float64(self.module_), self._density_
        generator = torch.Generator(network.like.device).manual_seed(draw_seed(random_state))
        draws = Draws(generator, network.like.dtype)

        def draw(codes: Batch) -> Tensor:
            z, given = codes.x.tensor_split([self._n_features_out], 1)
            blank = z.new_zeros(len(z), self._n_modelled)
            out = network.outputs(z, Batch(torch.cat([blank, given], 1), codes.weight))
            return density.likelihood.mean(out) if mean else density.likelihood.sample(out, draws)

        try:
            codes = density.draw_codes(network, int(n_samples), draws).cpu().numpy()
        except (RuntimeError, TypeError, OverflowError) as error:
            raise ValueError(f"n_samples={n_samples} rows do not fit into memory.") from error
        given = codes[:, :0] if told is None else told(len(codes), draws)
        codes = _joined(codes, given)
        cells = self._map(draw, codes, network=network, name="the drawn codes")
        return self._place(cells, given)

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
        start, end = (self._complete_codes(self._as_rows(rows)) for rows in (A, B))
        if len(start) != len(end):
            raise ValueError(f"A has {len(start)} rows, but B has {len(end)}: they go in pairs.")
        share = np.linspace(0, 1, n_steps)[None, :, None]
        codes = (1 - share) * start[:, None] + share * end[:, None]
        # What is given cannot be blended: it is that of the end that is nearer.
        given = slice(self._n_features_out, None)
        codes[..., given] = np.where(share < 0.5, start[:, None, given], end[:, None, given])
        return self._restored(codes.reshape(-1, codes.shape[-1]))

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
        code = self._complete_codes(self._as_rows(x))
        if len(code) != 1:
            raise ValueError(f"x must be a single row, got {len(code)}.")
        if not isinstance(component, Integral) or not 0 <= component < self._n_features_out:
            raise ValueError(
                f"component must be an integer in [0, {self._n_features_out - 1}], got "
                f"{component!r}."
            )
        values = np.atleast_1d(np.asarray(values, dtype=code.dtype))
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(f"values must be a list of numbers, none of them NaN, got {values!r}.")
        codes = np.repeat(code, len(values), axis=0)
        codes[:, component] = values
        return self._restored(codes)

    def _as_rows(self, X: Any) -> Any:
        """A single row becomes a table of one row; tables stay as they are."""
        check_is_fitted(self)
        is_single = np.ndim(X) == 1 or np.shape(X) == self._shape(now=False)
        return np.asarray(X).reshape(1, -1) if is_single else X

    def _map(
        self,
        function: Callable[[Batch], Tensor],
        X: Floats,
        dtype: Any = None,
        network: Network | None = None,
        name: str = "X",
    ) -> Floats:
        """Apply a function of tensors to rows, chunk by chunk; results in the rows' dtype.

        The tensors are as `network` needs them, which is the fitted one if None. An error calls
        the rows' table by `name`.
        """
        like = network or self.module_
        with torch.inference_mode(False), torch.no_grad(), one_thread:
            chunks = [
                function(self._batch(X[i : i + CHUNK], like)).cpu().numpy()
                for i in range(0, len(X), CHUNK)
            ]
        result = np.concatenate(chunks).astype(dtype or X.dtype, copy=False)
        if not np.isfinite(result).all():
            row = np.argmin(np.isfinite(result.reshape(len(X), -1)).all(axis=1))
            column = int(np.nanargmax(np.abs(X[row])))
            which = self._column(column) if name == "X" else column
            raise ValueError(
                f"Column {which} of {name} holds {X[row, column]:g} in row {row}, too far from "
                "the training rows to compute with. Leave the row out, clip it, or fit with "
                "precision='float64'."
            )
        return result

    def _batch(self, X: Floats, network: Network, weight: Floats | None = None) -> Batch:
        x = _tensor(X, network)
        w = x.new_ones(len(x)) if weight is None else _tensor(weight, network)
        return Batch(x, w, observed=~x.isnan() if network.encoder.has_gaps else None)

    # -------------------------------------------------------------------- state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        likelihood = LIKELIHOODS.get(str(self.likelihood), Likelihood)
        tags.input_tags.positive_only = likelihood.support[0] == 0
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "net_" in state:
            net: Net = state.pop("net_")
            density: Density = state.pop("_density_")
            del state["module_"]
            del state["history_"]
            state["_arrays"] = {
                "dtype": str(net.dtype).removeprefix("torch."),
                "module": to_arrays(net.module_.state_dict()),
                "training": net.arrays(),
                "likelihood": to_arrays(density.likelihood.state_dict()),
                **to_arrays(density.tensors()),
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        arrays = state.pop("_arrays", None)
        super().__setstate__(state)
        if arrays is None:
            return
        # Parameters may have been set since the fit: the network is built from those of the fit.
        fitted = copy.copy(self).set_params(**self._fit_params_)
        try:
            device = choose_device(fitted.device)
        except ValueError:
            device = torch.device("cpu")
        validate_parameters(fitted)
        dtype = {"float32": torch.float32, "float64": torch.float64}[arrays["dtype"]]
        # No memory is used before the stored arrays are known to have the network's shapes.
        with torch.device("meta"):
            outline = fitted._build(self._n_modelled, self.n_components_).state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in outline.items()}
        if shapes != {name: array.shape for name, array in arrays["module"].items()}:
            raise ValueError("the arrays are not those of the network that the parameters describe")
        network = fitted._build(self._n_modelled, self.n_components_)
        network = network.to(device=device, dtype=dtype)
        network.load_state_dict(to_tensors(arrays["module"]))
        likelihood = copy.deepcopy(network.likelihood.fixed())
        likelihood.load_state_dict(to_tensors(arrays["likelihood"]))
        tensors = {
            name: torch.tensor(value).to(device)
            for name, value in arrays.items()
            if isinstance(value, np.ndarray)
        }
        self._density_ = self._density.restore(network, likelihood, tensors)
        if not self._density_.is_finite():
            raise ValueError("the moments of the codes are not those of this model")
        self.net_ = Net.over(network.eval(), torch.Generator(device))
        self.net_.load_arrays(arrays["training"])
        self.history_ = self.net_.history
        self.module_ = network


def read_rows(
    estimator: BaseEstimator,
    autoencoder: object,
    X: MatrixLike,
    now: bool = False,
    with_gaps: bool = False,
    **checks: object,
) -> NDArray[Any]:
    """Validated rows of an estimator over an autoencoder, which says what shape they have.

    It does so as its parameters are `now`, or as it was fitted. Ends of sequences may be missing
    `with_gaps` only.
    """
    if not isinstance(autoencoder, BaseAutoencoder):
        rows: NDArray[Any] = validate_data(estimator, X, **checks)
        return rows
    if with_gaps:
        checks["ensure_all_finite"] = autoencoder._finiteness(now)
    rows = validate_data(estimator, autoencoder._as_table(X, now), **checks)
    return autoencoder._check_ends(rows, now) if with_gaps else rows


def thawed(holder: FrozenEstimator, X: MatrixLike) -> BaseAutoencoder:
    """A copy of the fitted autoencoder in a FrozenEstimator, for rows like X but without names.

    Raises TypeError where it holds something else.
    """
    given = holder.estimator
    if not isinstance(given, BaseAutoencoder):
        raise TypeError(f"autoencoder must hold an autoencoder of skae, got {holder!r}.")
    check_is_fitted(given)
    check_feature_names(given, X, reset=False)
    given = copy.deepcopy(given)
    given.__dict__.pop("feature_names_in_", None)
    return given


def draw_seed(random_state: int | RandomState | None) -> int:
    """A seed from a `random_state`; no global generator is read, the system gives one instead."""
    if random_state is None:
        return secrets.randbelow(2**31)
    return int(check_random_state(random_state).randint(2**31 - 1))


def read_weight(sample_weight: MatrixLike | None, X: Floats) -> NDArray[np.float64]:
    """Validated weights of rows, float64."""
    weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not SMALLEST_SUM < total < np.inf:
        raise ValueError(f"sample_weight sums to {total:g}: scale it to a mean of about 1.")
    return weight


def refuse_single_row(estimator: object, X: Floats) -> None:
    """Raise ValueError where fewer than two rows are left to learn from."""
    if len(X) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs at least 2 rows with a positive sample_weight, got "
            f"n_samples = {len(X)}."
        )


def _joined(cells: Floats, told: Floats) -> Floats:
    """Modelled cells, or codes, followed by given cells; without any, no copy."""
    return np.hstack([cells, told.astype(cells.dtype)]) if told.shape[1] else cells


def _largest(X: Floats) -> Floats:
    """Largest absolute value of each column."""
    return np.maximum(X.max(axis=0), -X.min(axis=0)).astype(np.float64)


def _times_shown(seldom: NDArray[np.bool_], batch_size: int) -> NDArray[np.intp]:
    """How often an epoch shows each row: so that seldom ones are a `SELDOM_SHARE` of each batch.

    Shown once each, with large weights, they would make steps erratic. A full batch has them all.
    """
    rare = seldom.sum()
    if not rare or batch_size >= len(seldom):
        return np.ones(len(seldom), dtype=np.intp)
    common = (len(seldom) - rare) * SELDOM_SHARE / (1 - SELDOM_SHARE)
    return np.where(seldom, max(1, int(common / rare)), 1)


class _Writable:
    """Presents an array as writable, since torch warns of others though nothing here writes."""

    def __init__(self, array: Floats) -> None:
        self.array = array
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def _as_tensor(rows: NDArray[Any]) -> Tensor:
    """An array as a tensor that shares its memory where torch can, whatever its flags."""
    if any(stride < 0 for stride in rows.strides):
        rows = rows.copy()
    return torch.from_numpy(rows if rows.flags.writeable else np.asarray(_Writable(rows)))


def _tensor(rows: NDArray[Any], network: Network) -> Tensor:
    """Rows as a tensor where the network is and as it counts."""
    return _as_tensor(rows).to(network.like)


def _with_float64(network: Network) -> Network:
    """The network where densities can be computed: mps has no float64, the processor has."""
    return copy.deepcopy(network).cpu() if network.like.device.type == "mps" else network
