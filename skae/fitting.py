"""The steps of a fit, from the table of the user to a fitted model."""

import copy
import math
import pickle
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_consistent_length, check_random_state

from skae._compat.sklearn import check_sample_weight, safe_indexing
from skae.nn.batch import Batch
from skae.nn.corruption import ColumnStatistics, NamedCorruption
from skae.nn.network import AuxiliaryLoss, Network
from skae.nn.pca import column_moments
from skae.starting import new_net, resumed_net, row_shape, support
from skae.state import Fitted
from skae.table.conditions import SeenConditions
from skae.table.rows import Floats, Rows, hash_rows, max_abs_values
from skae.table.schema import MatrixLike, Schema, as_container
from skae.table.sequences import fill_with_means
from skae.table.targets import Targets
from skae.training.batches import Batches
from skae.training.checkpoint import Checkpoint
from skae.training.layerwise import pretrain
from skae.training.loop import Net
from skae.training.plan import Plan
from skae.training.precision import check_overflow
from skae.training.split import Split, n_repeats
from skae.training.tensors import as_tensor, make_batch, tensor, to_float64_device

MIN_WEIGHT_SUM = 1e-300
"""Smallest sum of sample weights. Dividing by a smaller sum could overflow."""

MIN_VALIDATION_ROWS = 100
"""Smallest number of validation rows that select the best epoch if `early_stopping="auto"`. Fewer
rows would select it by chance."""

MIN_IMPROVEMENT = 1e-4
"""Improvement of the training objective, in nats per row, below which `fit` keeps the weights from
the start of training, because steps at a solution only add rounding errors. The weights are not
kept if validation rows select the epoch or if the latent's `ranks_epochs` is False."""

FULL_BATCH_ROWS = 256
"""Largest number of distinct training rows that `batch_size="auto"` uses all in each step."""


@dataclass(frozen=True)
class FitData:
    """Arguments of a fit, before validation.

    Attributes
    ----------
    X, y, sample_weight, X_corrupted : array-like or None
        Arguments of the public method.
    targets : Targets or None
        Targets that a meta-estimator has read. If it is None, the autoencoder reads them from `y`.
    target_options : dict
        Keyword arguments of the autoencoder's `_read_targets`.
    """

    X: MatrixLike
    y: MatrixLike
    sample_weight: MatrixLike | None
    X_corrupted: MatrixLike | None
    targets: Targets | None = None
    target_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedFit:
    """Validated data of a fit.

    Attributes
    ----------
    schema : Schema
        How the table is read and written.
    rows : Rows
        The n rows of the table with positive weight, including the validation rows.
    weight : ndarray of shape (n,)
        Sample weights of the rows.
    corrupted : Rows or None
        Corrupted versions of the rows, which the encoder receives, if the user passed any.
    targets : Targets or None
        Targets of the rows, if the estimator uses targets.
    split : Split
        The distinct rows, and which of them are held out.
    resume : Fitted or None
        Model from which training resumes. None starts with a new model.
    one_pass : bool
        Whether to pass over the rows once, at a constant learning rate, as `partial_fit` does.
    seed : int
        Seed of the split and of all random numbers for a new network. If training resumes with a
        network of the same size, its random numbers continue those of the previous fit.
    """

    schema: Schema
    rows: Rows
    weight: Floats
    corrupted: Rows | None
    targets: Targets | None
    split: Split
    resume: Fitted | None
    one_pass: bool
    seed: int

    @property
    def learned(self) -> dict[str, Any]:
        """What was learned from targets, such as their classes, in this fit or the resumed one."""
        if self.resume is not None:
            return self.resume.learned
        return {} if self.targets is None else self.targets.learned

    def batch(self, positions: NDArray[np.intp], network: Network) -> Batch:
        """Return the distinct rows at positions in `split.index` as a batch, without targets."""
        index = self.split.index[positions]
        return make_batch(self.rows.take(index), network, self.split.weight[positions])


Message = tuple[str, type[Warning]]
"""Text and category of a warning, which the public method issues when the fit is complete."""


def fit(
    estimator: BaseEstimator,
    data: FitData,
    resume: Fitted | None,
    one_pass: bool,
    make_callback: Callable[[Callable[[Net], Fitted]], Any],
) -> tuple[Fitted, list[Message]]:
    """Train a model.

    Parameters
    ----------
    estimator : BaseAutoencoder
        Estimator whose parameters and hooks are read. It is not changed.
    data : FitData
        Arguments of the public method.
    resume : Fitted or None
        Model from which training resumes. None starts with a new model.
    one_pass : bool
        Whether to pass over the rows once, at a constant learning rate, as `partial_fit` does.
    make_callback : callable
        Function that returns a skorch callback or None. Its argument is a function that returns the
        fitted model of a net during training.

    Returns
    -------
    fitted : Fitted
        The trained model.
    messages : list of Message
        Warnings to issue.

    Raises
    ------
    ValueError, TypeError
        If the data or the parameters are invalid, or if training fails. NetworkMismatchError is a
        ValueError.
    """
    check_callbacks(estimator)
    prepared = prepare_fit(estimator, data, resume, one_pass)
    net = make_net(estimator, prepared)
    train, valid = make_batches(estimator, prepared, net.module_)
    start_auxiliary_loss(net, prepared.targets, train)
    plan = make_plan(estimator, prepared, net.module_)
    plan.contexts = make_callback(
        lambda net: make_fitted(
            estimator, prepared, net.duplicate(copy.deepcopy(net.module_)), len(net.history)
        )
    )
    best_epoch, messages = train_net(net, train, valid, plan)
    if not (one_pass or estimator.warm_start):
        net.reset_optimizer()
    fitted = make_fitted(estimator, prepared, net, best_epoch)
    return fitted, messages + code_warnings(prepared, fitted)


def check_callbacks(estimator: BaseEstimator) -> None:
    """Raise TypeError or ValueError if the callbacks of an autoencoder are invalid."""
    callbacks = list(estimator.callbacks or [])
    invalid = [c for c in callbacks if not hasattr(c, "on_train_begin")]
    if invalid:
        raise TypeError(f"callbacks must be skorch callbacks, got {invalid[0]!r}.")
    if has_checkpoint(estimator) and estimator.random_state is None:
        raise ValueError(
            "random_state must be set when callbacks contain a Checkpoint, got None. Pass an "
            "integer, so that a restarted fit draws the same random numbers."
        )


def has_checkpoint(estimator: BaseEstimator) -> bool:
    """Return whether the callbacks contain a Checkpoint, so that another process can resume."""
    return any(isinstance(c, Checkpoint) for c in estimator.callbacks or [])


# ---------------------------------------------------------------------------- preparation


def prepare_fit(
    estimator: BaseEstimator, data: FitData, resume: Fitted | None, one_pass: bool
) -> PreparedFit:
    """Validate the arguments of a fit and drop the rows of weight 0."""
    X, X_corrupted, all_weights = data.X, data.X_corrupted, None
    if data.sample_weight is not None and estimator._conditions()[1] is not None:
        # Rows of weight 0 are dropped before the table is read, because their categories must not
        # become levels of the conditions.
        all_weights = read_weight(data.sample_weight, X)
        X, X_corrupted = rows_of_positive_weight(X, X_corrupted, all_weights)
    schema, rows = read_rows(estimator, X, resume)
    if all_weights is None:
        all_weights = read_weight(data.sample_weight, rows.values)
    corrupted, weight = None, all_weights[all_weights > 0]
    if X_corrupted is not None:
        corrupted = schema.read_corrupted(X_corrupted, rows)
        largest = max_abs_values(corrupted.modelled)
        check_overflow(largest, "X_corrupted", schema, torch.float64)
    if len(weight) < len(rows):
        rows = rows.take(all_weights > 0)
        corrupted = None if corrupted is None else corrupted.take(all_weights > 0)
    if resume is None:
        check_more_than_one_row(estimator, len(rows))
    learned = {} if resume is None else resume.learned
    targets = data.targets or estimator._read_targets(
        data.y, all_weights, learned, **data.target_options
    )
    seed = draw_seed(estimator.random_state)
    hashes = [] if corrupted is None else [corrupted.hash(seed)]
    if targets is not None:
        hashes += [hash_rows(values, seed) for values in (targets.values, targets.observed)]
    holds_out = estimator.early_stopping is not False and not one_pass
    fraction = estimator.validation_fraction if holds_out else 0.0
    split = Split.from_rows(rows, weight, hashes, rare_rows(targets, weight), fraction, seed)
    return PreparedFit(schema, rows, weight, corrupted, targets, split, resume, one_pass, seed)


def rows_of_positive_weight(
    X: MatrixLike, X_corrupted: MatrixLike | None, weight: Floats
) -> tuple[MatrixLike, MatrixLike | None]:
    """Return the rows of positive weight of tables that have not been validated."""
    if weight.all():
        return X, X_corrupted
    positive = np.flatnonzero(weight)
    if X_corrupted is not None:
        X_corrupted = as_container(X_corrupted)
        check_consistent_length(X_corrupted, weight)
        X_corrupted = safe_indexing(X_corrupted, positive)
    return safe_indexing(as_container(X), positive), X_corrupted


def read_rows(
    estimator: BaseEstimator, X: MatrixLike, resume: Fitted | None
) -> tuple[Schema, Rows]:
    """Return the schema of a table and its rows. A resumed model determines the schema."""
    conditions = estimator._conditions()
    if resume is not None:
        resume.schema.check_same_columns(X, conditions[1])
        return resume.schema, resume.schema.read(X)
    owner = type(estimator).__name__
    return Schema.infer(X, conditions, support(estimator), row_shape(estimator), owner)


def read_weight(sample_weight: MatrixLike | None, X: MatrixLike) -> NDArray[np.float64]:
    """Validate the weights of the rows of `X`, and return them as a float64 array (n_samples,).

    `sample_weight` contains one weight for each row. A number is the weight of every row, and None
    is a weight of 1. Raises ValueError if the number of weights is not that of the rows, if a
    weight is negative or not finite, or if the sum of the weights is at most `MIN_WEIGHT_SUM` or
    not finite.
    """
    weight: NDArray[np.float64] = check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not MIN_WEIGHT_SUM < total < np.inf:
        raise ValueError(
            f"sample_weight must have a positive and finite sum, got a sum of {total:g}. Scale it "
            "to a mean of about 1."
        )
    return weight


def check_more_than_one_row(estimator: object, n: int) -> None:
    """Raise ValueError if fewer than two rows have a positive weight."""
    if n < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs at least 2 rows with a positive sample_weight, got "
            f"n_samples = {n}."
        )


def draw_seed(random_state: int | RandomState | None) -> int:
    """Draw a seed from a `random_state`. None gives a different seed in each call."""
    if random_state is None:
        # numpy's global generator is never used: that would change the user's random numbers.
        return secrets.randbelow(2**31)
    return int(check_random_state(random_state).randint(2**31 - 1))


def rare_rows(targets: Targets | None, weight: Floats) -> NDArray[np.bool_]:
    """Mark the rows with known targets if they have less than half of the total weight.

    Otherwise, no row is marked. None of the marked rows is held out.
    """
    known = np.zeros(len(weight), dtype=bool) if targets is None else targets.any_observed
    return known & (weight @ known < 0.5 * weight.sum())


# ------------------------------------------------------------------------------ training


def make_net(estimator: BaseEstimator, prepared: PreparedFit) -> Net:
    """Make an initial net: a new one, a copy of a fitted one, or a fitted one with a larger code.

    Raises NetworkMismatchError if the parameters describe a network that differs from the fitted
    one in more than a larger code.
    """
    resume, parts = prepared.resume, (prepared.schema, prepared.rows, prepared.split)
    if resume is None:
        return new_net(estimator, *parts, prepared.learned, None, prepared.seed)
    k = resume.network.latent.n_components
    grows = isinstance(estimator.n_components, Integral) and int(estimator.n_components) > k
    if prepared.one_pass or not grows:
        return resumed_net(estimator, resume)
    # Resuming with the old size of the code raises if another parameter of the network has changed.
    resumed_net(copy.copy(estimator).set_params(n_components=k), resume)
    return new_net(estimator, *parts, prepared.learned, resume.network, prepared.seed)


def choose_batch_size(batch_size: int | str, n: int) -> int:
    """Return the number of rows per step for `n` distinct training rows.

    "auto" is all rows up to `FULL_BATCH_ROWS`. For more rows, it is the power of 2 that is closest
    to n / 64 on a logarithmic scale, and at least 64 and at most 256.
    """
    if batch_size != "auto":
        return min(int(batch_size), n)
    if n <= FULL_BATCH_ROWS:
        return n
    return int(np.clip(2 ** round(np.log2(n / 64)), 64, 256))


def make_batches(
    estimator: BaseEstimator, prepared: PreparedFit, network: Network
) -> tuple[Batches, Batches | None]:
    """Return batches of the training rows, and of the validation rows if there are any."""
    rows, split, targets = prepared.rows, prepared.split, prepared.targets
    share, trained = split.normalized_weight(len(rows)), split.training
    repeats = np.ones(len(rows), dtype=np.intp)
    batch_size = choose_batch_size(estimator.batch_size, len(trained))
    repeats[trained] = n_repeats(rare_rows(targets, prepared.weight)[trained], batch_size)
    weight = share / repeats
    weight[trained] *= repeats[trained].mean()
    table = make_batch(rows, network, weight)
    if prepared.corrupted is not None:
        table = table._replace(x=tensor(prepared.corrupted.values, network), clean=table.x)
    if targets is not None:
        values, observed = (tensor(part, network) for part in (targets.values, targets.observed))
        table = table._replace(targets=values, target_weight=observed)
    corrupt = None if prepared.corrupted is not None else estimator.corruption
    if isinstance(corrupt, str):
        full = fill_with_means(rows.values, split.index, split.weight)[:, : rows.n_modelled]
        shape = prepared.schema.feature_shape
        columns = ColumnStatistics(as_tensor(full), as_tensor(share), table.x, shape)
        corrupt = NamedCorruption(corrupt, estimator.corruption_level, columns)
    width = network.inputs.n_outputs + network.inputs.n_conditions

    def batches(indices: NDArray[np.intp]) -> Batches:
        index = torch.from_numpy(np.repeat(indices, repeats[indices])).to(table.x.device)
        return Batches(table, index, corrupt, len(rows.n_levels), width)

    return batches(trained), batches(split.validation) if split.held_out.any() else None


def start_auxiliary_loss(net: Net, targets: Targets | None, train: Batches) -> None:
    """Add the auxiliary loss of the targets to a net, and initialize the loss from its codes."""
    loss: AuxiliaryLoss | None = None if targets is None else targets.loss
    if loss is None:
        return
    network: Network = net.module_
    network.auxiliary = loss.to(network.like)
    chunks = [*train.chunks()]
    with torch.no_grad():
        codes = torch.cat([network.encode(batch).mean for batch in chunks])
    tensors = zip(*[batch.tensors() for batch in chunks], strict=True)
    loss.start(codes, chunks[0].with_tensors([torch.cat(parts) for parts in tensors]))
    net.reset_optimizer()


def make_plan(estimator: BaseEstimator, prepared: PreparedFit, network: Network) -> Plan:
    """Make the plan of a training from the parameters of an autoencoder."""
    split, is_new = prepared.split, prepared.resume is None
    selects = estimator.early_stopping is True or split.held_out.sum() >= MIN_VALIDATION_ROWS
    return Plan(
        learning_rate=estimator.learning_rate,
        max_epochs=1 if prepared.one_pass else estimator.max_epochs,
        batch_size=choose_batch_size(estimator.batch_size, len(split.training)),
        weight_decay=estimator.weight_decay / split.weight[~split.held_out].sum(),
        layerwise_epochs=estimator.layerwise_epochs if is_new else 0,
        one_cycle=not prepared.one_pass,
        restore_best=network.latent.ranks_epochs and selects,
        patience=estimator.n_iter_no_change,
        tol=estimator.tol,
        autocast=estimator.precision == "bfloat16",
        verbose=int(estimator.verbose),
        callbacks=list(estimator.callbacks or []),
        from_start=is_new,
        signature=signature(estimator) if has_checkpoint(estimator) else "",
    )


def train_net(
    net: Net, train: Batches, valid: Batches | None, plan: Plan
) -> tuple[int, list[Message]]:
    """Train a net in place. Return the epoch whose weights were kept, and warnings to issue.

    Raises ValueError if the objective becomes infinite or NaN.
    """
    network: Network = net.module_
    try:
        initial = start = net.evaluate(train)
        if plan.layerwise_epochs:
            pretrain(network, train, plan, net.generator)
            start = net.evaluate(train)
        state = {name: t.clone() for name, t in network.state_dict().items()}
        best_epoch, end = net.fit_rows(train, valid, plan)
        if not math.isfinite(end):
            raise FloatingPointError(f"the objective became {end}")
    except FloatingPointError as error:
        raise ValueError(
            f"Training failed: {error}. Lower learning_rate (now {plan.learning_rate}) or "
            "scale the columns of X."
        ) from None
    messages: list[Message] = []
    # The final objective is larger than that of the initial network and than the baseline of the
    # likelihood. The margin, one nat per cell, excludes differences by chance.
    if end > max(initial, network.likelihood.baseline().item()) + network.inputs.n_outputs:
        text = (
            f"Training diverged: the objective rose from {initial:.4g} to {end:.4g} nats per "
            f"row. Lower learning_rate (now {plan.learning_rate})."
        )
        messages.append((text, ConvergenceWarning))
    is_selected = valid is not None and plan.restore_best
    may_keep_start = plan.one_cycle and not is_selected and network.latent.ranks_epochs
    if may_keep_start and end > start - MIN_IMPROVEMENT:
        network.load_state_dict(state)
        return 0, messages
    return best_epoch, messages


def signature(estimator: BaseEstimator) -> str:
    """Return a text that identifies an autoencoder and the parameters that determine its result.

    Checkpoints use it to recognize the fit to which they belong. It does not contain
    `random_state`: `Net.fingerprint` adds the state of the random generator. Raises ValueError if
    a parameter cannot be pickled.
    """
    parameters = estimator.get_params(deep=False)
    for name in ("callbacks", "random_state", "verbose", "device"):
        del parameters[name]
    # The repr of these values does not identify them, so their pickles are used.
    names = [
        name
        for name, value in parameters.items()
        if name in ("corruption", "architecture")
        or callable(value)
        or isinstance(value, np.ndarray)
    ]
    values = [parameters.pop(name) for name in names]
    try:
        content = pickle.dumps(values)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{', '.join(names)} must be picklable when callbacks contain a Checkpoint, so that "
            "another process can recognize the fit. Use functions and classes that are defined in "
            "a module."
        ) from error
    return f"{type(estimator).__qualname__} {parameters} {content!r}"


# --------------------------------------------------------------------------------- model


def make_fitted(
    estimator: BaseEstimator, prepared: PreparedFit, net: Net, best_epoch: int
) -> Fitted:
    """Estimate the density of a trained net and return the fitted model.

    The auxiliary loss of the net is discarded. Raises ValueError if the density is not finite.
    """
    if net.module_.auxiliary is not None:
        net.module_.auxiliary = None
        net.reset_optimizer()
    split, targets, resume = prepared.split, prepared.targets, prepared.resume
    network = to_float64_device(net.module_.eval())
    positions = split.representatives[: None if targets is None else targets.density_rows]
    batch = prepared.batch(positions, network)
    held_out = torch.from_numpy(split.held_out[positions]).to(batch.x.device)
    density = estimator._density.estimate(network, batch, held_out)
    if not density.is_finite():
        raise ValueError(
            "Training failed: the variance of the codes or of the reconstruction errors is not "
            f"finite. Lower learning_rate (now {estimator.learning_rate}) or scale the columns of "
            "X."
        )
    rows_seen, conditions = split.weight.sum(), None if resume is None else resume.conditions
    if resume is not None and prepared.one_pass:
        rows_seen += resume.rows_seen
        density = resume.density.blend(density, split.weight.sum() / rows_seen)
    if prepared.rows.n_levels:
        conditions = SeenConditions.from_rows(prepared.rows, prepared.weight, conditions)
    not_kept = ("callbacks", "random_state", "verbose", "corruption")
    parameters = estimator.get_params(deep=False).items()
    return Fitted(
        parameters={k: v for k, v in parameters if k not in not_kept and not callable(v)},
        schema=prepared.schema,
        network=net.module_,
        density=density,
        training=net.arrays(),
        best_epoch=best_epoch,
        rows_seen=float(rows_seen),
        conditions=conditions,
        learned=prepared.learned,
    )


def code_warnings(prepared: PreparedFit, fitted: Fitted) -> list[Message]:
    """Return a list with the latent's warning about the codes of a sample of rows, if it has one.

    The list is empty if all rows of the sample are equal.
    """
    network = fitted.network
    batch = prepared.batch(prepared.split.representatives, network)
    # Some devices do not support float64.
    x, weight = batch.x.nan_to_num().cpu().double(), batch.weight.cpu().double()
    if not column_moments(x, weight).variance.any():
        return []
    with torch.no_grad():
        text = network.latent.warning(network.encode(batch), batch.weight)
    return [] if text is None else [(text, ConvergenceWarning)]
