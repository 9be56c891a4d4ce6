"""One fit as a short list of named steps, from a user's table to a fitted model."""

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
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_consistent_length, check_random_state

from skae._compat.sklearn import check_sample_weight, safe_indexing
from skae.nn.batch import Batch
from skae.nn.corruption import ColumnStatistics, NamedCorruption
from skae.nn.network import AuxiliaryLoss, Network
from skae.nn.pca import column_moments
from skae.starting import new_net, resumed_net, row_shape, support
from skae.state import Fitted
from skae.table.rows import Floats, Rows, hash_rows, largest_sizes
from skae.table.schema import MatrixLike, Schema, SeenConditions, as_container
from skae.table.sequences import filled
from skae.table.targets import Targets
from skae.training.batches import Batches
from skae.training.checkpoint import Checkpoint
from skae.training.layerwise import pretrain
from skae.training.loop import Net
from skae.training.plan import Plan
from skae.training.precision import check_overflow
from skae.training.split import Split, n_repeats
from skae.training.tensors import as_tensor, batch_of, tensor, with_float64

SMALLEST_SUM = 1e-300
"""Weights with a smaller sum could not be divided by it."""

ROWS_THAT_CHOOSE = 100
"""Validation rows from which on they choose the best epoch under `early_stopping="auto"`."""

LEAST_GAIN = 1e-4
"""Nats per row by which training must improve its objective, where validation rows do not judge it.
At a solution, steps only add rounding errors: the start is kept."""

FULL_BATCH = 256
"""Training rows up to which `batch_size="auto"` takes all of them at each step."""


@dataclass(frozen=True)
class Data:
    """What the user, or an estimator over the autoencoder, gives a fit.

    Attributes
    ----------
    X, y, sample_weight, X_corrupted : array-like or None
    targets : Targets or None
        Where an estimator over the autoencoder has read `y` itself.
    target_options : dict
        What the autoencoder's `_read_targets` takes beside `y`.
    """

    X: MatrixLike
    y: MatrixLike
    sample_weight: MatrixLike | None
    X_corrupted: MatrixLike | None
    targets: Targets | None = None
    target_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What a fit has to do.

    Attributes
    ----------
    schema : Schema
    rows : Rows
        The training rows that count.
    weight : ndarray of shape (n,)
        Their weights, all positive.
    corrupted : Rows or None
        What the encoder sees of them while training.
    targets : Targets or None
    split : Split
    resume : Fitted or None
        The model from which training goes on.
    one_pass : bool
        Whether to pass once over the rows at a constant rate.
    seed : int
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
        """What was learned from targets, such as their classes, in this fit or in the first."""
        if self.resume is not None:
            return self.resume.learned
        return {} if self.targets is None else self.targets.learned

    def batch(self, some: NDArray[np.intp], network: Network) -> Batch:
        """Distinct rows at some positions, as a network takes them."""
        index = self.split.index[some]
        return batch_of(self.rows.take(index), network, self.split.weight[some])


Message = tuple[str, type[Warning]]
"""A warning that the public method is to raise."""


def fit(
    options: Any,
    data: Data,
    resume: Fitted | None,
    one_pass: bool,
    watch: Callable[[Callable[[Net], Fitted]], Any],
) -> tuple[Fitted, list[Message]]:
    """Train a model, and say what the user should be warned of.

    Parameters
    ----------
    options : autoencoder
        Its parameters and hooks are read; it is not changed.
    data : Data
    resume : Fitted or None
        The model from which training goes on.
    one_pass : bool
        Whether to pass once over the rows at a constant rate, as `partial_fit` does.
    watch : callable
        Called with a function from the net in training to a fitted model; returns a skorch
        callback or None.
    """
    check_callbacks(options)
    task = read_task(options, data, resume, one_pass)
    net = make_net(options, task)
    train, valid = make_batches(options, task, net.module_)
    start_auxiliary_loss(net, task.targets, train)
    plan = make_plan(options, task, net.module_)
    plan.contexts = watch(
        lambda net: make_fitted(
            options, task, net.duplicate(copy.deepcopy(net.module_)), len(net.history)
        )
    )
    best_epoch, messages = train_net(net, train, valid, plan)
    if not (one_pass or options.warm_start):
        net.reset_optimizer()
    fitted = make_fitted(options, task, net, best_epoch)
    return fitted, messages + warnings_of_codes(task, fitted)


def check_callbacks(options: Any) -> None:
    """Raise TypeError or ValueError where callbacks cannot be used."""
    callbacks = list(options.callbacks or [])
    invalid = [c for c in callbacks if not hasattr(c, "on_train_begin")]
    if invalid:
        raise TypeError(f"callbacks must be skorch callbacks, got {invalid[0]!r}.")
    if has_checkpoint(options) and options.random_state is None:
        raise ValueError(
            "A fit with a Checkpoint needs a random_state, an integer: without one, the fit "
            "that is started again would be another fit."
        )


def has_checkpoint(options: Any) -> bool:
    """Whether a fit can be resumed by another process."""
    return any(isinstance(c, Checkpoint) for c in options.callbacks or [])


# ------------------------------------------------------------------------------- reading


def read_task(options: Any, data: Data, resume: Fitted | None, one_pass: bool) -> Task:
    """Read the user's table; rows of no weight decide nothing."""
    X, X_corrupted, all_weights = data.X, data.X_corrupted, None
    if data.sample_weight is not None and options._conditions()[1] is not None:
        # Before they are read: rows of no weight decide no category.
        all_weights = read_weight(data.sample_weight, X)
        X, X_corrupted = rows_of_positive_weight(X, X_corrupted, all_weights)
    schema, rows = read_rows(options, X, resume)
    if all_weights is None:
        all_weights = read_weight(data.sample_weight, rows.values)
    corrupted, weight = None, all_weights[all_weights > 0]
    if X_corrupted is not None:
        corrupted = schema.read_corrupted(X_corrupted, rows)
        largest = largest_sizes(corrupted.modelled)
        check_overflow(largest, "X_corrupted", schema, torch.float64)
    if len(weight) < len(rows):
        rows = rows.take(all_weights > 0)
        corrupted = None if corrupted is None else corrupted.take(all_weights > 0)
    if resume is None:
        check_more_than_one_row(options, len(rows))
    learned = {} if resume is None else resume.learned
    targets = data.targets or options._read_targets(
        data.y, all_weights, learned, **data.target_options
    )
    seed = draw_seed(options.random_state)
    hashes = [] if corrupted is None else [corrupted.hash(seed)]
    if targets is not None:
        hashes += [hash_rows(values, seed) for values in (targets.values, targets.observed)]
    holds_out = options.early_stopping is not False and not one_pass
    fraction = options.validation_fraction if holds_out else 0.0
    split = Split.of(rows, weight, hashes, rare_rows(targets, weight), fraction, seed)
    return Task(schema, rows, weight, corrupted, targets, split, resume, one_pass, seed)


def rows_of_positive_weight(
    X: MatrixLike, X_corrupted: MatrixLike | None, weight: Floats
) -> tuple[MatrixLike, MatrixLike | None]:
    """Rows of positive weight of tables that are not read yet."""
    if weight.all():
        return X, X_corrupted
    some = np.flatnonzero(weight)
    if X_corrupted is not None:
        X_corrupted = as_container(X_corrupted)
        check_consistent_length(X_corrupted, weight)
        X_corrupted = safe_indexing(X_corrupted, some)
    return safe_indexing(as_container(X), some), X_corrupted


def read_rows(options: Any, X: MatrixLike, resume: Fitted | None) -> tuple[Schema, Rows]:
    """The schema of a table, that of the first fit where training goes on, and its rows."""
    conditions = options._conditions()
    if resume is not None:
        resume.schema.check_same_columns(X, conditions[1])
        return resume.schema, resume.schema.read(X)
    owner = type(options).__name__
    return Schema.infer(X, conditions, support(options), row_shape(options), owner)


def read_weight(sample_weight: MatrixLike | None, X: MatrixLike) -> NDArray[np.float64]:
    """Validated weights of rows, float64."""
    weight: NDArray[np.float64] = check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not SMALLEST_SUM < total < np.inf:
        raise ValueError(f"sample_weight sums to {total:g}: scale it to a mean of about 1.")
    return weight


def check_more_than_one_row(estimator: object, n: int) -> None:
    """Raise ValueError where fewer than two rows are left to learn from."""
    if n < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs at least 2 rows with a positive sample_weight, got "
            f"n_samples = {n}."
        )


def draw_seed(random_state: int | RandomState | None) -> int:
    """A seed from a `random_state`; no global generator is read, the system gives one instead."""
    if random_state is None:
        return secrets.randbelow(2**31)
    return int(check_random_state(random_state).randint(2**31 - 1))


def rare_rows(targets: Targets | None, weight: Floats) -> NDArray[np.bool_]:
    """Rows with targets, where these are a minority: none of them is held out."""
    known = np.zeros(len(weight), dtype=bool) if targets is None else targets.any_observed
    return known & (weight @ known < 0.5 * weight.sum())


# ------------------------------------------------------------------------------ training


def make_net(options: Any, task: Task) -> Net:
    """A net at its start: a new one, a copy of a fitted one, or one with more components."""
    parts = task.schema, task.rows, task.split
    if task.resume is None:
        return new_net(options, *parts, task.learned, None, task.seed)
    shorter = task.resume.network
    k = shorter.latent.n_components
    grows = isinstance(options.n_components, Integral) and int(options.n_components) > k
    if task.one_pass or not grows:
        return resumed_net(options, task.resume)
    # Nothing but the size of the code may be another.
    resumed_net(copy.copy(options).set_params(n_components=k), task.resume)
    return new_net(options, *parts, task.learned, shorter, task.seed)


def choose_batch_size(batch_size: int | str, n: int) -> int:
    """Rows of a step for `n` training rows."""
    if batch_size != "auto":
        return min(int(batch_size), n)
    if n <= FULL_BATCH:
        return n
    return int(np.clip(2 ** round(np.log2(n / 64)), 64, 256))


def make_batches(options: Any, task: Task, network: Network) -> tuple[Batches, Batches | None]:
    """Training rows and, where some are held out, validation rows."""
    rows, split, targets = task.rows, task.split, task.targets
    share, trained = split.shares(len(rows)), split.trained
    times = np.ones(len(rows), dtype=np.intp)
    batch_size = choose_batch_size(options.batch_size, len(trained))
    times[trained] = n_repeats(rare_rows(targets, task.weight)[trained], batch_size)
    shown = share / times
    shown[trained] *= times[trained].mean()
    table = batch_of(rows, network, shown)
    if task.corrupted is not None:
        table = table._replace(x=tensor(task.corrupted.values, network), clean=table.x)
    if targets is not None:
        values, observed = (tensor(part, network) for part in (targets.values, targets.observed))
        table = table._replace(targets=values, target_weight=observed)
    corrupt = None if task.corrupted is not None else options.corruption
    if isinstance(corrupt, str):
        full = filled(rows.values, split.index, split.weight)[:, : rows.n_modelled]
        shape = task.schema.feature_shape
        columns = ColumnStatistics(as_tensor(full), as_tensor(share), table.x, shape)
        corrupt = NamedCorruption(corrupt, options.corruption_level, columns)
    width = network.inputs.n_outputs + network.inputs.n_conditions

    def batches(which: NDArray[np.intp]) -> Batches:
        numbers = torch.from_numpy(np.repeat(which, times[which])).to(table.x.device)
        return Batches(table, numbers, corrupt, len(rows.n_levels), width)

    return batches(trained), batches(split.validation) if split.held_out.any() else None


def start_auxiliary_loss(net: Net, targets: Targets | None, train: Batches) -> None:
    """Let a net that has not begun to train do so for its targets, too."""
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


def make_plan(options: Any, task: Task, network: Network) -> Plan:
    """How to train."""
    split, is_new = task.split, task.resume is None
    chooses = options.early_stopping is True or split.held_out.sum() >= ROWS_THAT_CHOOSE
    return Plan(
        learning_rate=options.learning_rate,
        max_epochs=1 if task.one_pass else options.max_epochs,
        batch_size=choose_batch_size(options.batch_size, len(split.trained)),
        weight_decay=options.weight_decay / split.weight[~split.held_out].sum(),
        layerwise_epochs=options.layerwise_epochs if is_new else 0,
        one_cycle=not task.one_pass,
        restore_best=network.latent.ranks_epochs and chooses,
        patience=options.n_iter_no_change,
        tol=options.tol,
        autocast=options.precision == "bfloat16",
        verbose=int(options.verbose),
        callbacks=list(options.callbacks or []),
        from_start=is_new,
        signature=signature(options) if has_checkpoint(options) else "",
    )


def train_net(
    net: Net, train: Batches, valid: Batches | None, plan: Plan
) -> tuple[int, list[Message]]:
    """Train a net in place; returns the epoch that was kept, and what to warn of."""
    network: Network = net.module_
    try:
        before = start = net.evaluate(train)
        if plan.layerwise_epochs:
            pretrain(network, train, plan, net.generator)
            start = net.evaluate(train)
        state = {name: t.clone() for name, t in network.state_dict().items()}
        best_epoch, end = net.fit_rows(train, valid, plan)
        if not math.isfinite(end):
            raise FloatingPointError(f"the objective became {end}")
    except FloatingPointError as error:
        raise ValueError(
            f"Training broke down: {error}. Lower learning_rate (now {plan.learning_rate}) or "
            "scale the columns of X."
        ) from None
    messages: list[Message] = []
    # Worse than both the start and predicting the columns' means, and by more than chance.
    if end > max(before, network.likelihood.baseline().item()) + network.inputs.n_outputs:
        text = (
            f"Training diverged: the objective rose from {before:.4g} to {end:.4g} nats per "
            f"row. Lower learning_rate (now {plan.learning_rate})."
        )
        messages.append((text, ConvergenceWarning))
    chosen = valid is not None and plan.restore_best
    may_keep = plan.one_cycle and not chosen and network.latent.ranks_epochs
    if may_keep and end > start - LEAST_GAIN:
        network.load_state_dict(state)
        return 0, messages
    return best_epoch, messages


def signature(options: Any) -> str:
    """The estimator and those of its parameters that decide what it learns from the same rows."""
    parameters = options.get_params(deep=False)
    for name in ("callbacks", "random_state", "verbose", "device"):
        del parameters[name]
    # The texts of these would not tell them from others.
    objects = [
        name
        for name, value in parameters.items()
        if name in ("corruption", "architecture")
        or callable(value)
        or isinstance(value, np.ndarray)
    ]
    own = [parameters.pop(name) for name in objects]
    try:
        content = pickle.dumps(own)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "With a Checkpoint, "
            + ", ".join(objects)
            + " must be objects that pickle can store, such as a module's functions: another "
            "process could not tell them from others."
        ) from error
    return f"{type(options).__qualname__} {parameters} {content!r}"


# --------------------------------------------------------------------------------- model


def make_fitted(options: Any, task: Task, net: Net, best_epoch: int) -> Fitted:
    """The model of a trained net: its density is estimated here."""
    if net.module_.auxiliary is not None:
        net.module_.auxiliary = None
        net.reset_optimizer()
    split, targets, resume = task.split, task.targets, task.resume
    network = with_float64(net.module_.eval())
    few = split.representatives[: None if targets is None else targets.density_rows]
    batch = task.batch(few, network)
    held_out = torch.from_numpy(split.held_out[few]).to(batch.x.device)
    density = options._density.estimate(network, batch, held_out)
    if not density.is_finite():
        raise ValueError(
            "Training broke down: codes or errors have no finite variance. Lower "
            f"learning_rate (now {options.learning_rate}) or scale the columns of X."
        )
    rows_seen, conditions = split.weight.sum(), None if resume is None else resume.conditions
    if resume is not None and task.one_pass:
        rows_seen += resume.rows_seen
        density = resume.density.blend(density, split.weight.sum() / rows_seen)
    if task.rows.n_levels:
        conditions = SeenConditions.of(task.rows, task.weight, conditions)
    without = ("callbacks", "random_state", "verbose", "corruption")
    parameters = options.get_params(deep=False).items()
    return Fitted(
        parameters={k: v for k, v in parameters if k not in without and not callable(v)},
        schema=task.schema,
        network=net.module_,
        density=density,
        training=net.arrays(),
        best_epoch=best_epoch,
        rows_seen=float(rows_seen),
        conditions=conditions,
        learned=task.learned,
    )


def warnings_of_codes(task: Task, fitted: Fitted) -> list[Message]:
    """What the user should know of the codes of training rows."""
    network = fitted.network
    batch = task.batch(task.split.representatives, network)
    # Not all devices have float64.
    x, weight = batch.x.nan_to_num().cpu().double(), batch.weight.cpu().double()
    if not column_moments(x, weight).variance.any():
        return []
    with torch.no_grad():
        text = network.latent.warning(network.encode(batch), batch.weight)
    return [] if text is None else [(text, ConvergenceWarning)]
