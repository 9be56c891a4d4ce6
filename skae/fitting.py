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

from skae._compat.sklearn import check_sample_weight, safe_indexing, validate_parameters
from skae.density.registry import DENSITIES
from skae.nn.bodies.architectures import make_architecture
from skae.nn.bodies.body import make_bodies
from skae.nn.corruption import ColumnFacts, Named
from skae.nn.growth import grow
from skae.nn.inputs import Inputs
from skae.nn.likelihoods.gaussian import LIKELIHOODS, make_likelihood
from skae.nn.linear import DistinctRows, components_for_share, moments, of_present_cells
from skae.nn.network import AuxiliaryLoss, Network
from skae.state import Fitted, NetworkMismatchError
from skae.table.columns import Support
from skae.table.rows import Floats, Rows, hash_rows, largest_sizes
from skae.table.schema import MatrixLike, Schema, SeenConditions, as_container
from skae.table.sequences import RowShape, filled
from skae.table.targets import Targets
from skae.training.batches import Batches
from skae.training.checkpoint import Checkpoint
from skae.training.layerwise import pretrain
from skae.training.loop import Net, to_tensors
from skae.training.plan import Plan
from skae.training.precision import choose_dtype, refuse_extreme_scales, refuse_overflow
from skae.training.split import DENSITY_ROWS, Split, times_shown
from skae.training.tensors import as_tensor, batch_of, tensor, with_float64
from skae.training.threads import choose_device

SMALLEST_SUM = 1e-300
"""Weights with a smaller sum could not be divided by it."""

ROWS_THAT_CHOOSE = 100
"""Validation rows from which on they choose the best epoch under `early_stopping="auto"`."""

FULL_BATCH = 256
"""Training rows up to which `batch_size="auto"` takes all of them at each step."""


@dataclass
class Data:
    """What a fit is given.

    Attributes
    ----------
    X, y, sample_weight, X_corrupted : array-like or None
        As the user gives them.
    targets : Targets or None
        What an estimator over the autoencoder knows of the rows; None leaves `y` to the
        autoencoder.
    target_options : dict
        What its `_read_targets` takes beside `y`.
    """

    X: MatrixLike
    y: MatrixLike
    sample_weight: MatrixLike | None
    X_corrupted: MatrixLike | None
    targets: Targets | None = None
    target_options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """The training rows that count.

    Attributes
    ----------
    schema : Schema
    rows : Rows
    weight : ndarray of shape (n,)
        Positive weights.
    corrupted : Rows or None
        What the encoder sees of them while training.
    counts : ndarray of bool
        Which of the user's rows they are.
    """

    schema: Schema
    rows: Rows
    weight: Floats
    corrupted: Rows | None
    counts: NDArray[np.bool_]


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
        Given what makes a model of a net in training, returns a skorch callback or None.
    """
    refuse_invalid_callbacks(options)
    table = read_table(options, data, resume)
    targets = data.targets or options._read_targets(
        data.y, table.weight, table.counts, resume, **data.target_options
    )
    seed = draw_seed(options.random_state)
    split = split_table(options, table, targets, one_pass, seed)
    net = make_net(options, table, targets, split, resume, one_pass, seed)
    train, valid = make_batches(options, table, targets, split, net.module_)
    start_auxiliary_loss(net, targets, train)
    plan = make_plan(options, split, net.module_, resume, one_pass)

    def model(net: Net, best_epoch: int) -> Fitted:
        return make_fitted(options, table, targets, split, net, best_epoch, resume, one_pass)

    plan.contexts = watch(
        lambda net: model(net.duplicate(copy.deepcopy(net.module_)), len(net.history))
    )
    best_epoch, messages = train_net(options, net, train, valid, plan)
    if not (one_pass or options.warm_start):
        net.forget_momentum()
    fitted = model(net, best_epoch)
    return fitted, messages + warnings_of_codes(table, split, fitted)


def refuse_invalid_callbacks(options: Any) -> None:
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


def read_table(options: Any, data: Data, resume: Fitted | None) -> Table:
    """The training rows of positive weight; rows of no weight decide nothing."""
    X, X_corrupted = data.X, data.X_corrupted
    weight, counts = None, None
    if data.sample_weight is not None:
        weight = read_weight(data.sample_weight, X)
        counts = weight > 0
        if not counts.all():
            some = np.flatnonzero(counts)
            if resume is None:
                refuse_single_row(options, len(some))
            X, weight = safe_indexing(as_container(X), some), weight[some]
            if X_corrupted is not None:
                X_corrupted = as_container(X_corrupted)
                check_consistent_length(X_corrupted, counts)
                X_corrupted = safe_indexing(X_corrupted, some)
    if resume is None:
        support = Support(options.likelihood, *LIKELIHOODS[options.likelihood].support)
        shape, owner = row_shape(options), type(options).__name__
        schema, rows = Schema.infer(X, options._role(), support, shape, owner)
    else:
        schema = resume.schema
        schema.refuse_other_columns(X, options._role()[1])
        rows = schema.read(X)
    weight = np.ones(len(rows)) if weight is None else weight
    counts = np.ones(len(rows), dtype=bool) if counts is None else counts
    corrupted = None if X_corrupted is None else schema.read_corrupted(X_corrupted, rows)
    if corrupted is not None:
        largest = largest_sizes(corrupted.modelled)
        refuse_overflow(largest, "X_corrupted", schema, torch.float64)
    return Table(schema, rows, weight, corrupted, counts)


def row_shape(options: Any) -> RowShape:
    """What a row is to an autoencoder's parameters."""
    return RowShape(options.feature_shape, options.architecture == "recurrent")


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


def refuse_single_row(estimator: object, n: int) -> None:
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


def split_table(
    options: Any, table: Table, targets: Targets | None, one_pass: bool, seed: int
) -> Split:
    """Distinct rows, and which of them are held out."""
    others = [] if table.corrupted is None else [table.corrupted.hash(seed)]
    if targets is not None:
        others += [hash_rows(values, seed) for values in (targets.values, targets.observed)]
    holds_out = options.early_stopping is not False and not one_pass
    fraction = options.validation_fraction if holds_out else 0.0
    return Split.of(table.rows, table.weight, others, seldom(table, targets), fraction, seed)


def seldom(table: Table, targets: Targets | None) -> NDArray[np.bool_]:
    """Rows with targets, where these are a minority: none of them is held out."""
    if targets is None:
        return np.zeros(len(table.rows), dtype=bool)
    known, weight = targets.some, table.weight
    return known & (weight @ known < 0.5 * weight.sum())


# ------------------------------------------------------------------------------- network


def build_network(
    options: Any, schema: Schema, learned: dict[str, Any], n_components: int
) -> Network:
    """The network that parameters describe, weights not set."""
    d, n_conditions = len(schema.modelled), len(schema.conditions)
    architecture = make_architecture(
        options.architecture,
        d,
        None if options.feature_shape is None else RowShape(options.feature_shape, False).full(d),
        options.hidden_layer_sizes,
        options.activation,
        options.dropout,
    )
    latent = options._latent(n_components, schema, learned)
    for name, able in (
        ("tied_weights", architecture.can_tie),
        ("layerwise_epochs", architecture.has_layers),
    ):
        if getattr(options, name) and not able:
            raise ValueError(
                f"architecture={options.architecture!r} cannot have "
                f"{name}={getattr(options, name)}: leave that parameter out."
            )
    if n_conditions and options.tied_weights:
        raise ValueError(
            "tied_weights=True is for decoders that see the code only, not conditions of rows: "
            "leave that parameter out."
        )
    inputs = Inputs(d, schema.n_levels, options._encoder_sees_conditions)
    likelihood = make_likelihood(
        options.likelihood, d, options.noise, latent.learns_noise, architecture.takes_gaps
    )
    has_skip = architecture.likes_skip if options.linear_skip == "auto" else options.linear_skip
    encoder, decoder = make_bodies(
        architecture,
        latent.n_inputs,
        latent.n_outputs + inputs.n_conditions,
        bool(has_skip) and latent.is_linear,
        options.tied_weights,
    )
    return Network(inputs, encoder, decoder, latent, likelihood, options.trim)


def make_net(
    options: Any,
    table: Table,
    targets: Targets | None,
    split: Split,
    resume: Fitted | None,
    one_pass: bool,
    seed: int,
) -> Net:
    """A net at its start: a new one, a copy of a fitted one, or one with more components."""
    if resume is None:
        learned = {} if targets is None else targets.learned
        return new_net(options, table, learned, split, None, seed)
    k = resume.network.latent.n_components
    grows = isinstance(options.n_components, Integral) and int(options.n_components) > k
    if one_pass or not grows:
        return resumed_net(options, resume)
    # Nothing but the size of the code may be another.
    resumed_net(copy.copy(options).set_params(n_components=k), resume)
    return new_net(options, table, resume.learned, split, resume.network, seed)


def new_net(
    options: Any,
    table: Table,
    learned: dict[str, Any],
    split: Split,
    shorter: Network | None,
    seed: int,
) -> Net:
    """A network that is built and initialized from the data, but not trained.

    Where there is a network with a `shorter` code, the start is that one's end.
    """
    device, schema, rows = choose_device(options.device), table.schema, table.rows
    full = filled(rows.values, split.index, split.weight)
    largest = largest_sizes(full)
    refuse_overflow(largest, "X", schema, torch.float64)
    d = rows.n_modelled
    cells, conditions = as_tensor(full).tensor_split([d], dim=1)
    numbers, weight = torch.from_numpy(split.index), as_tensor(split.weight)
    x = DistinctRows(cells, numbers)
    at = moments(x, weight)
    if full is not rows.values:
        observed = split.weight @ ~np.isnan(rows.modelled[split.index])
        at = of_present_cells(at, torch.from_numpy(observed) / weight.sum())
    n_cells = len(rows) * (d + sum(max(1, n) for n in schema.n_levels))
    dtype = choose_dtype(options.precision, rows.values.dtype, n_cells, at, largest, device)
    refuse_overflow(largest, "X", schema, dtype)
    refuse_extreme_scales(at, options.noise, schema, dtype)
    generator = torch.Generator().manual_seed(seed)
    if options.n_components == "auto":
        k = options._auto_components(d)
    elif isinstance(options.n_components, Integral):
        k = int(options.n_components)
    else:
        k = components_for_share(x, weight, at, float(options.n_components), generator)
    try:
        network = build_network(options, schema, learned, k).to(dtype)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"A network with n_components={k} and hidden_layer_sizes={options.hidden_layer_sizes} "
            f"for {d} columns does not fit into memory."
        ) from error
    network.start(x, weight, at, generator, DistinctRows(conditions, numbers))
    batch = batch_of(rows.take(split.index[split.some]), network, split.weight[split.some])
    if shorter is not None:
        grow(network, copy.deepcopy(shorter).to(network.like), batch, generator)
    network.start_latent(batch, generator)
    if device.type != "cpu":
        generator = torch.Generator(device).manual_seed(seed)
    return Net.over(network.to(device), generator)


def resumed_net(options: Any, resume: Fitted) -> Net:
    """A copy of a fitted net, its network built from the parameters as they are now."""
    k, schema = resume.network.latent.n_components, resume.schema
    try:
        if isinstance(options.n_components, Integral) and options.n_components != k:
            raise RuntimeError(f"n_components was {k}")
        if row_shape(options).full(len(schema.modelled)) != schema.feature_shape:
            raise RuntimeError(f"rows were of shape {schema.feature_shape}")
        network = build_network(options, schema, resume.learned, k).to(resume.network.like)
        network.load_state_dict(resume.network.state_dict())
    except RuntimeError as error:
        now = options.get_params(deep=False)
        changed = [k for k, v in resume.parameters.items() if repr(now[k]) != repr(v)]
        raise NetworkMismatchError(
            "The parameters describe another network than the one that was fitted, so training "
            f"cannot go on from it. Of those that have changed ({', '.join(changed)}), restore "
            "what shapes the network, or fit anew with warm_start=False."
        ) from error
    net = Net.over(network, torch.Generator(network.like.device))
    net.load_arrays(resume.training)
    return net


# ------------------------------------------------------------------------------ training


def choose_batch_size(batch_size: int | str, n: int) -> int:
    """Rows of a step for `n` training rows."""
    if batch_size != "auto":
        return min(int(batch_size), n)
    if n <= FULL_BATCH:
        return n
    return int(np.clip(2 ** round(np.log2(n / 64)), 64, 256))


def make_batches(
    options: Any, table: Table, targets: Targets | None, split: Split, network: Network
) -> tuple[Batches, Batches | None]:
    """Training rows and, where some are held out, validation rows."""
    rows, trained = table.rows, split.trained
    share = split.shares(len(rows))
    times = np.ones(len(rows), dtype=np.intp)
    batch_size = choose_batch_size(options.batch_size, len(trained))
    times[trained] = times_shown(seldom(table, targets)[trained], batch_size)
    shown = share / times
    shown[trained] *= times[trained].mean()
    whole = batch_of(rows, network, shown)
    if table.corrupted is not None:
        whole = whole._replace(x=tensor(table.corrupted.values, network), clean=whole.x)
    if targets is not None:
        whole = whole._replace(
            targets=tensor(targets.values, network),
            target_weight=tensor(targets.observed, network),
        )
    corrupt = None if table.corrupted is not None else options.corruption
    if isinstance(corrupt, str):
        full = filled(rows.values, split.index, split.weight)[:, : rows.n_modelled]
        shape = table.schema.feature_shape
        columns = ColumnFacts(as_tensor(full), as_tensor(share), whole.x, shape)
        corrupt = Named(corrupt, options.corruption_level, columns)
    inputs = network.inputs
    width = inputs.n_outputs + inputs.n_conditions

    def batches(which: NDArray[np.intp]) -> Batches:
        numbers = torch.from_numpy(np.repeat(which, times[which])).to(whole.x.device)
        return Batches(whole, numbers, corrupt, len(rows.n_levels), width)

    valid = batches(split.validation) if split.held_out.any() else None
    return batches(trained), valid


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
    net.forget_momentum()


def make_plan(
    options: Any, split: Split, network: Network, resume: Fitted | None, one_pass: bool
) -> Plan:
    """How to train."""
    chooses = options.early_stopping is True or split.held_out.sum() >= ROWS_THAT_CHOOSE
    return Plan(
        learning_rate=options.learning_rate,
        max_epochs=1 if one_pass else options.max_epochs,
        batch_size=choose_batch_size(options.batch_size, len(split.trained)),
        weight_decay=options.weight_decay / split.weight[~split.held_out].sum(),
        layerwise_epochs=options.layerwise_epochs if resume is None else 0,
        one_cycle=not one_pass,
        restore_best=network.latent.ranks_epochs and chooses,
        patience=options.n_iter_no_change,
        tol=options.tol,
        autocast=options.precision == "bfloat16",
        verbose=int(options.verbose),
        callbacks=list(options.callbacks or []),
        anew=resume is None,
        signature=signature(options) if has_checkpoint(options) else "",
    )


def train_net(
    options: Any, net: Net, train: Batches, valid: Batches | None, plan: Plan
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
    d = network.inputs.n_outputs
    if end > max(before, d * network.likelihood.ignorance().item()) + d:
        text = (
            f"Training diverged: the objective rose from {before:.4g} to {end:.4g} nats per "
            f"row. Lower learning_rate (now {plan.learning_rate})."
        )
        messages.append((text, ConvergenceWarning))
    chosen = valid is not None and plan.restore_best
    may_keep = plan.one_cycle and not chosen and network.latent.ranks_epochs
    if may_keep and end > start - plan.tol:
        # At a solution, steps only add rounding errors.
        network.load_state_dict(state)
        return 0, messages
    return best_epoch, messages


def signature(options: Any) -> str:
    """The estimator and those of its parameters that decide what it learns from given rows."""
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


def make_fitted(
    options: Any,
    table: Table,
    targets: Targets | None,
    split: Split,
    net: Net,
    best_epoch: int,
    resume: Fitted | None,
    one_pass: bool,
) -> Fitted:
    """The model of a trained net: its density is estimated here."""
    if net.module_.auxiliary is not None:
        net.module_.auxiliary = None
        net.forget_momentum()
    network = with_float64(net.module_.eval())
    few = split.some[: DENSITY_ROWS if targets is None else targets.density_rows]
    batch = batch_of(table.rows.take(split.index[few]), network, split.weight[few])
    held_out = torch.from_numpy(split.held_out[few]).to(batch.x.device)
    density = DENSITIES[network.latent.density].estimate(network, batch, held_out)
    if not density.is_finite():
        raise ValueError(
            "Training broke down: codes or errors have no finite variance. Lower "
            f"learning_rate (now {options.learning_rate}) or scale the columns of X."
        )
    rows_seen, conditions = split.weight.sum(), None
    learned = {} if targets is None else targets.learned
    if resume is not None:
        conditions, learned = resume.conditions, resume.learned
        if one_pass:
            rows_seen += resume.rows_seen
            density = resume.density.blend(density, split.weight.sum() / rows_seen)
    if table.rows.n_levels:
        conditions = SeenConditions.of(table.rows, table.weight, conditions)
    return Fitted(
        parameters={
            name: value
            for name, value in options.get_params(deep=False).items()
            if name not in ("callbacks", "random_state", "verbose", "corruption")
            and not callable(value)
        },
        schema=table.schema,
        network=net.module_,
        density=density,
        training=net.arrays(),
        best_epoch=best_epoch,
        rows_seen=float(rows_seen),
        conditions=conditions,
        learned=learned,
    )


def warnings_of_codes(table: Table, split: Split, fitted: Fitted) -> list[Message]:
    """What the user should know of the codes of training rows."""
    rows, weight = table.rows.take(split.index[split.some]), split.weight[split.some]
    x = as_tensor(np.nan_to_num(rows.values))
    if not moments(x, as_tensor(weight)).variance.any():
        return []
    network = fitted.network
    batch = batch_of(rows, network, weight)
    with torch.no_grad():
        text = network.latent.warning(network.encode(batch), batch.weight)
    return [] if text is None else [(text, ConvergenceWarning)]


def restore(options: Any, tree: dict[str, Any]) -> Fitted:
    """The model that `Fitted.tree` describes, for an autoencoder with the parameters of its fit.

    Raises ValueError where the tree is not one of a model.
    """
    tree = dict(tree)
    try:
        device = choose_device(options.device)
    except ValueError:
        device = torch.device("cpu")
    validate_parameters(options)
    dtype = {"float32": torch.float32, "float64": torch.float64}[tree.pop("dtype")]
    module, k = tree.pop("module"), tree.pop("n_components")
    parts = options, tree["schema"], tree["learned"], k
    # No memory is used before the stored arrays are known to have the network's shapes.
    with torch.device("meta"):
        outline = build_network(*parts).state_dict()
    shapes = {name: tuple(values.shape) for name, values in outline.items()}
    if shapes != {name: values.shape for name, values in module.items()}:
        raise ValueError("the arrays are not those of the network that the parameters describe")
    network = build_network(*parts).to(device=device, dtype=dtype)
    network.load_state_dict(to_tensors(module))
    likelihood = copy.deepcopy(network.likelihood.fixed())
    likelihood.load_state_dict(to_tensors(tree.pop("likelihood")))
    tensors = {name: values.to(device) for name, values in to_tensors(tree.pop("density")).items()}
    density = DENSITIES[network.latent.density].restore(network, likelihood, tensors)
    if not density.is_finite():
        raise ValueError("the moments of the codes are not those of this model")
    return Fitted(network=network.eval(), density=density, **tree)
