"""The steps of a fit, from the table of the user to a fitted model."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from skae.density.base import Density
from skae.fitting.components import find_components
from skae.fitting.prepare import FitData, PreparedFit, prepare_fit
from skae.nn.corruption import ColumnStatistics, NamedCorruption
from skae.nn.network import AuxiliaryLoss, Network
from skae.nn.pca import DistinctRows
from skae.starting import components_of_resumed, new_net, resumed_net
from skae.state import Fitted
from skae.table.components import Components
from skae.table.conditions import SeenConditions
from skae.table.rows import Rows
from skae.table.seen import Seen
from skae.table.sequences import fill_with_means
from skae.table.targets import Targets, rare_rows
from skae.training.batches import Batches
from skae.training.budget import Budget, choose_batch_size
from skae.training.callbacks import check_skorch_callbacks
from skae.training.checkpoint import has_checkpoint, signature
from skae.training.epochs import Outcome
from skae.training.layerwise import pretrain
from skae.training.loop import DivergenceError, Net
from skae.training.messages import (
    Message,
    about_codes,
    about_levels,
    about_noise,
    about_shape,
    about_size,
    about_training,
)
from skae.training.plan import Plan
from skae.training.split import n_repeats
from skae.training.tensors import as_tensor, make_batch, tensor, to_float64_device

MIN_VALIDATION_ROWS = 100
"""Smallest number of validation rows that select the best epoch if `early_stopping="auto"`. Fewer
rows would select it by chance."""

MIN_IMPROVEMENT = 1e-4
"""Improvement of the training objective, in nats per row, below which `fit` keeps the weights from
the start of training, because steps at a solution only add rounding errors. The weights are not
kept if validation rows select the epoch, if their losses have clearly fallen, or if the latent's
`ranks_epochs` is False."""

MANY_COLUMNS = 0.5
"""Ratio of columns to distinct rows above which each row is held out once to estimate the noise of
an initial network, if there are few validation rows."""

FINAL_SHARE = 0.25
"""Number of epochs on all rows that follow a training with too few validation rows to select the
best epoch, as a share of `max_epochs`."""

HIDDEN_SHARES = (0.05, 0.3)
"""Smallest and largest share of cells that training hides from the encoder if cells are missing."""

SECOND_PACE = 1 / 3
"""Factor on the learning rate of a training that is repeated because it has broken down."""

MakeCallback = Callable[[Callable[[Net], Fitted]], Any]
"""Function that returns a skorch callback or None. Its argument is a function that returns the
fitted model of a net during training."""

Result = tuple[Fitted, list[Message], Callable[[], None]]
"""The trained model, warnings to issue, and a function that removes the checkpoints of the fit. To
be called when the estimator has its new model."""


def fit_table(
    estimator: BaseEstimator,
    data: FitData,
    resume: Fitted | None,
    make_callback: MakeCallback,
) -> Result:
    """Train a model.

    Parameters
    ----------
    estimator : BaseAutoencoder
        Estimator whose parameters and hooks are read. It is not changed.
    data : FitData
        Arguments of the public method.
    resume : Fitted or None
        Model from which training resumes. None starts with a new model.
    make_callback : callable
        See `MakeCallback`.

    Returns
    -------
    result : Result

    Raises
    ------
    ValueError, TypeError
        If the data or the parameters are invalid, or if training fails. NetworkMismatchError and
        DivergenceError are ValueErrors.
    """
    check_callbacks(estimator)
    prepared = prepare_fit(estimator, data, resume)

    def train(pace: float, make_callback: MakeCallback) -> Result:
        return fit_prepared(estimator, replace(prepared, pace=pace), make_callback)

    return train_again_if_needed(estimator, train, make_callback)


def train_again_if_needed(
    estimator: BaseEstimator,
    train: Callable[[float, MakeCallback], Result],
    make_callback: MakeCallback,
) -> Result:
    """Train a model, and repeat this once at a lower learning rate if training breaks down.

    `train` trains a model. Its arguments are a factor on the learning rate and `make_callback`.
    """
    try:
        return train(1.0, make_callback)
    except DivergenceError as error:
        rate = SECOND_PACE * estimator.learning_rate
        text = (
            f"Training broke down with learning_rate={estimator.learning_rate}: {error}. It "
            f"was repeated with learning_rate={rate:.3g}. Set a lower learning_rate or scale the "
            "columns of X, so that training need not be repeated."
        )
    try:
        # The number of epochs that scikit-learn's callbacks expect does not allow a repetition.
        fitted, messages, remove_checkpoints = train(SECOND_PACE, lambda _: None)
    except DivergenceError as error:
        raise DivergenceError(
            f"Training failed: {error}, also with a third of the learning rate. Lower "
            f"learning_rate (now {estimator.learning_rate}) or scale the columns of X."
        ) from None
    return fitted, [(text, ConvergenceWarning), *messages], remove_checkpoints


def fit_prepared(
    estimator: BaseEstimator, prepared: PreparedFit, make_callback: MakeCallback
) -> Result:
    """Train a model on prepared data, as `fit_table`."""
    net, train, valid, plan = start_net(estimator, prepared)
    begun = prepared

    def fitted_of(net: Net) -> Fitted:
        copied = net.duplicate(copy.deepcopy(net.module_))
        components = order_components(estimator, begun, copied)
        return make_fitted(estimator, begun, copied, net.epochs_done, components)

    plan.contexts = make_callback(fitted_of)
    with removing_useless_checkpoints(net):
        best_epoch, messages = train_net(net, train, valid, plan)
        prepared, noise = use_all_rows(estimator, prepared, net, plan, best_epoch)
        components = order_components(estimator, prepared, net)
        net.notify("on_train_end", X=train, y=None)
        if not estimator.warm_start:
            net.reset_optimizer()
        fitted = make_fitted(estimator, prepared, net, best_epoch, components, noise)
    if prepared.resume is None:
        messages += about_parameters(estimator, prepared, net.module_)
    batch = prepared.representatives(net.module_)
    n_validation = int(begun.split.held_out.sum())
    likelihood, n_rows = fitted.density.likelihood, len(begun.split.index) - n_validation
    is_validated = n_validation >= estimator._density.min_validation_rows
    messages += about_codes(net.module_, batch)
    messages += about_noise(net.module_, likelihood, batch, n_rows, is_validated)
    return fitted, messages, net.remove_checkpoints


@contextmanager
def removing_useless_checkpoints(net: Net) -> Iterator[None]:
    """Remove the checkpoints of a training that breaks down in this context.

    To resume from them, just before the failure, would only repeat it.
    """
    try:
        yield
    except DivergenceError:
        net.remove_checkpoints()
        raise


def check_callbacks(estimator: BaseEstimator) -> None:
    """Raise TypeError or ValueError if the callbacks of an autoencoder are invalid."""
    check_skorch_callbacks(estimator.callbacks)
    if has_checkpoint(estimator.callbacks) and estimator.random_state is None:
        raise ValueError(
            "random_state must be set when callbacks contain a Checkpoint, got None. Pass an "
            "integer, so that a restarted fit draws the same random numbers."
        )


def start_net(
    estimator: BaseEstimator, prepared: PreparedFit
) -> tuple[Net, Batches, Batches | None, Plan]:
    """Initialize a net and pre-train it, if the parameters say so.

    Returns
    -------
    net : Net
        The net before its first epoch.
    train, valid : Batches
        Batches of the training rows, and of the validation rows, or None if there are none.
    plan : Plan
        Plan of the training.
    """
    net = make_net(estimator, prepared)
    train, valid = make_batches(estimator, prepared, net.module_)
    start_auxiliary_loss(net, prepared.targets, train)
    plan = make_plan(estimator, prepared, net.module_)
    if plan.layerwise_epochs:
        plan.loss_before = net.evaluate(train)
        pretrain(net.module_, train, plan, net.generator)
    return net, train, valid, plan


def make_net(estimator: BaseEstimator, prepared: PreparedFit) -> Net:
    """Make an initial net: a new one, a copy of a fitted one, or a fitted one with a larger code.

    Raises NetworkMismatchError if the parameters describe a network that differs from the fitted
    one in more than a larger code.
    """
    resume, parts = prepared.resume, (prepared.schema, prepared.rows, prepared.split)
    if resume is None:
        return new_net(estimator, *parts, prepared.learned, None, prepared.seed)
    k = resume.network.latent.n_components
    if (components_of_resumed(estimator, resume) or 0) <= k:
        return resumed_net(estimator, resume)
    # Resuming with the old size of the code raises if another parameter of the network has changed.
    resumed_net(copy.copy(estimator).set_params(n_components=k), resume)
    return new_net(estimator, *parts, prepared.learned, resume.network, prepared.seed)


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
        x = tensor(prepared.corrupted.values, network)
        table = table._replace(x=x, clean=table.x)
        if not network.inputs.keeps_missing and bool(x.isnan().any()):
            known = ~x.isnan()
            table = table._replace(
                visible=known if table.observed is None else known & table.observed
            )
    if targets is not None:
        factor = estimator._target_weight(float(split.weight.sum()))
        values = tensor(targets.standardized, network)
        observed = tensor(factor * targets.observed, network)
        table = table._replace(targets=values, target_weight=observed)
    corrupt = None if prepared.corrupted is not None else estimator.corruption
    hidden, predicted = _hidden_share(rows, network), None
    has_categories = any(rows.modelled_levels)
    if corrupt == "masking" and has_categories:
        # No category is a blank, so that cells are hidden instead.
        hidden = 1 - (1 - hidden) * (1 - min(1.0, estimator.corruption_level))
        corrupt = None
        if estimator._predicts_hidden:
            levels = [*rows.modelled_levels, *([0] * len(rows.n_levels))]
            predicted = torch.tensor([n > 0 for n in levels], device=table.x.device)
    elif isinstance(corrupt, str):
        part = split.training_part()
        full = as_tensor(fill_with_means(rows.values, part.index, part.weight))
        distinct = DistinctRows(full[:, : rows.n_modelled], as_tensor(part.index))
        shape = prepared.schema.feature_shape
        options = shape, rows.modelled_levels
        columns = ColumnStatistics(distinct, as_tensor(part.weight), table.x, *options)
        corrupt = NamedCorruption(corrupt, estimator.corruption_level, columns)
    width = network.inputs.n_outputs + network.inputs.n_conditions

    def batches(indices: NDArray[np.intp]) -> Batches:
        index = torch.from_numpy(np.repeat(indices, repeats[indices])).to(table.x.device)
        return Batches(table, index, corrupt, len(rows.n_levels), width, hidden, predicted)

    return batches(trained), batches(split.validation) if split.held_out.any() else None


def _hidden_share(rows: Rows, network: Network) -> float:
    """Return the share of cells that training hides from the encoder, beside missing ones.

    If rows have missing cells, it is their share, within `HIDDEN_SHARES`. The encoder then learns
    to compute codes from the remaining cells, with losses that know the hidden ones. Stochastic
    codes need no hidden cells, which would only raise their trained noise: their objective is a
    bound of the log-density of the observed cells.
    """
    if network.inputs.keeps_missing or network.latent.learns_noise:
        return 0.0
    missing = float(np.isnan(rows.modelled).mean()) if rows.may_have_missing else 0.0
    return float(np.clip(missing, *HIDDEN_SHARES)) if missing else 0.0


def start_auxiliary_loss(
    net: Net, targets: Targets | None, train: Batches, anew: bool = True
) -> None:
    """Add the auxiliary loss of the targets to a net, and initialize the loss from its codes.

    If `anew` is False, the loss continues from the previous training if it is known.
    """
    if targets is None or targets.loss is None:
        return
    network: Network = net.module_
    loss: AuxiliaryLoss = copy.deepcopy(targets.loss).to(network.like)
    network.auxiliary = loss
    if not anew and loss.resume(network.like, targets.units):
        net.rebuild_optimizer()
        return
    chunks = [*train.chunks()]
    with torch.no_grad():
        codes = torch.cat([network.encode(batch).mean for batch in chunks])
    tensors = zip(*[batch.tensors() for batch in chunks], strict=True)
    loss.start(codes, chunks[0].with_tensors([torch.cat(parts) for parts in tensors]))
    net.rebuild_optimizer()


def make_plan(estimator: BaseEstimator, prepared: PreparedFit, network: Network) -> Plan:
    """Make the plan of a training from the parameters of an autoencoder."""
    split, is_new = prepared.split, prepared.resume is None
    selects = estimator.early_stopping is True or split.held_out.sum() >= MIN_VALIDATION_ROWS
    n, has_skip = len(split.training), network.encoder.skip is not None
    return Plan(
        learning_rate=prepared.pace * estimator.learning_rate,
        budget=Budget.of(estimator.max_epochs, estimator.batch_size, n, has_skip),
        weight_decay=float(estimator.weight_decay / split.weight[~split.held_out].sum()),
        layerwise_epochs=estimator.layerwise_epochs if is_new else 0,
        restore_best=network.latent.ranks_epochs and selects,
        patience=estimator.n_iter_no_change,
        tol=estimator.tol,
        autocast=estimator.precision == "bfloat16",
        verbose=int(estimator.verbose),
        callbacks=list(estimator.callbacks or []),
        from_start=is_new,
        signature=signature(estimator) if has_checkpoint(estimator.callbacks) else "",
    )


def train_net(
    net: Net, train: Batches, valid: Batches | None, plan: Plan
) -> tuple[int, list[Message]]:
    """Train a net in place. Return the epoch whose weights were kept, and warnings to issue.

    Raises DivergenceError if the objective becomes infinite or NaN.
    """
    network: Network = net.module_
    start = net.evaluate(train)
    may_keep_start = network.latent.ranks_epochs
    is_wide = network.inputs.n_outputs > len(train)

    def returns_to_start(outcome: Outcome) -> bool:
        is_no_better = outcome.loss > start - MIN_IMPROVEMENT and not outcome.is_better
        return may_keep_start and (is_no_better or outcome.is_worse(is_wide))

    outcome = net.fit_rows(train, valid, plan, returns_to_start)
    before = start if plan.loss_before is None else plan.loss_before
    if outcome.first_loss is not None:
        before += max(0.0, outcome.first_loss - start)
    return outcome.epoch, about_training(network, plan, train, outcome, before)


def use_all_rows(
    estimator: BaseEstimator, prepared: PreparedFit, net: Net, plan: Plan, best_epoch: int
) -> tuple[PreparedFit, Tensor | None]:
    """Let a trained net use the validation rows, too, once they have served their purpose.

    If the weights before the first epoch were kept, the net is initialized again from all rows. If
    validation rows are too few to select an epoch, the net is trained further on all rows. The
    noise variance is that of rows which the net had not used before this step. Validation rows that
    the user has chosen are not used, nor are any if `warm_start` is True. A training that was
    stopped early is not resumed.

    Returns
    -------
    prepared : PreparedFit
        The fit, in which no rows are held out if the net has used all rows.
    noise : Tensor of shape (n_columns,) or None
        Noise variance. None if the density estimates it.
    """
    split, n_epochs = prepared.split, int(plan.budget.max_epochs * FINAL_SHARE)
    may_train = net.module_.latent.ranks_epochs and not (plan.restore_best or net.stopped_early)
    # The next fit may hold out the same rows if it resumes.
    may_use_all = split.held_out.any() and not (split.is_given or estimator.warm_start)
    if not may_use_all or (best_epoch and not (may_train and n_epochs)):
        return prepared, None
    everything = replace(prepared, split=split.joined())
    if best_epoch:
        noise = held_out_noise(estimator, prepared, net)
        train = make_batches(estimator, everything, net.module_)[0]
        further = make_plan(estimator, everything, net.module_).resumed(n_epochs)
        net.fit_further(train, further)
    else:
        noise = noise_of_start(estimator, prepared, plan)
        started = start_net(estimator, everything)[0]
        net.module_.load_state_dict(started.module_.state_dict())
    likelihood = net.module_.likelihood
    if likelihood.is_trained:
        noise = noise * likelihood.fixed().noise_variance
    return everything, noise


def held_out_noise(estimator: BaseEstimator, prepared: PreparedFit, net: Net) -> Tensor:
    """Estimate the noise variance (n_columns,) from validation rows.

    If the noise is trained, it is relative to that of the network.
    """
    noise = estimate_density(estimator, prepared, net).likelihood.noise_variance
    likelihood = net.module_.likelihood
    if not likelihood.is_trained:
        return noise
    trained = likelihood.fixed().noise_variance
    # Columns without noise have a variance of 0.
    return noise / torch.where(trained > 0, trained, 1.0)


def noise_of_start(estimator: BaseEstimator, prepared: PreparedFit, plan: Plan) -> Tensor:
    """Estimate the noise of networks that are initialized but not trained, as `held_out_noise`.

    If there are few validation rows and many columns, each row is held out once, and the estimates
    are averaged. The errors of few rows differ much from those of other rows, and axes of a table
    with many columns fit its rows better than others. Pre-training takes too long for this.
    """
    split, noise, total = prepared.split, torch.zeros(()), 0.0
    few = split.held_out.sum() < MIN_VALIDATION_ROWS and not plan.layerwise_epochs
    uses_folds = few and prepared.rows.n_modelled > MANY_COLUMNS * len(split.index)
    for fold in split.folds() if uses_folds else [split]:
        part = replace(prepared, split=fold)
        found = held_out_noise(estimator, part, start_net(estimator, part)[0])
        weight = float(fold.weight[fold.held_out].sum())
        total += weight
        noise = noise + (found - noise) * (weight / total)
    return noise


# --------------------------------------------------------------------------------- model


def estimate_density(
    estimator: BaseEstimator, prepared: PreparedFit, net: Net, noise: Tensor | None = None
) -> Density:
    """Estimate the density of a trained net from a sample of the rows.

    If `noise` is None, the noise variance is estimated, too. Raises DivergenceError if the density
    is not finite.
    """
    split = prepared.split
    network = to_float64_device(net.module_.eval())
    batch = prepared.representatives(network)
    positions = split.representatives[: len(batch.x)]
    held_out = torch.from_numpy(split.held_out[positions]).to(batch.x.device)
    likelihood = network.likelihood if noise is None else network.likelihood.known(noise)
    try:
        density = estimator._density.estimate(network, likelihood, batch, held_out)
        is_finite = density.is_finite()
    except torch.linalg.LinAlgError:
        is_finite = False
    if not is_finite:
        raise DivergenceError(
            "the variance of the codes or of the reconstruction errors is not finite"
        )
    return density


def about_parameters(
    estimator: BaseEstimator, prepared: PreparedFit, network: Network
) -> list[Message]:
    """Return warnings about parameters that do not suit the rows of a new model."""
    shape = prepared.schema.feature_shape
    is_corrupted = estimator.corruption is not None or prepared.corrupted is not None
    messages = about_shape(estimator.architecture, estimator.corruption, shape)
    messages += about_levels(prepared.schema.columns, len(prepared.split.index))
    return messages + about_size(network, is_corrupted)


def order_components(estimator: BaseEstimator, prepared: PreparedFit, net: Net) -> Components:
    """Describe the components of a trained net, and order them if it is a new one."""
    kept = None if prepared.resume is None else prepared.resume.components
    return find_components(prepared, net, estimator.whiten, kept)


def make_fitted(
    estimator: BaseEstimator,
    prepared: PreparedFit,
    net: Net,
    best_epoch: int,
    components: Components,
    noise: Tensor | None = None,
) -> Fitted:
    """Estimate the density of a trained net, unless `noise` is its noise, and return the model.

    The auxiliary loss of the net is discarded. Raises ValueError if the density is not finite.
    """
    if net.module_.auxiliary is not None:
        net.module_.auxiliary = None
        net.reset_optimizer()
    density = estimate_density(estimator, prepared, net, noise)
    # Validation rows that the user has chosen are not among the rows of the model.
    split, rows, resume = prepared.split, prepared.rows, prepared.resume
    split = split.training_part() if split.is_given else split
    # A start that was kept because training did not improve it is as good as a trained network.
    n_passed = float(max(1, best_epoch) * len(split.index))
    n_passed += 0 if resume is None else resume.seen.n_passed
    seen = Seen.all_at_once(prepared.seed, prepared.table, split.index, split.weight, n_passed)
    conditions = None if resume is None else resume.conditions
    if rows.n_levels:
        own = rows.take(split.index)
        conditions = SeenConditions.from_rows(own, split.weight, conditions)
    parts = density, components, seen, conditions
    return fitted_model(estimator, prepared, net, *parts, best_epoch)


def fitted_model(
    estimator: BaseEstimator,
    prepared: PreparedFit,
    net: Net,
    density: Density,
    components: Components,
    seen: Seen,
    conditions: SeenConditions | None,
    best_epoch: int,
) -> Fitted:
    """Return the model of a trained net."""
    not_kept = ("callbacks", "random_state", "verbose", "corruption")
    parameters = estimator.get_params(deep=False)
    if isinstance(estimator.likelihood, dict):
        # The columns themselves, since a selection may be a function.
        parameters["likelihood"] = prepared.schema.selected_likelihoods
    return Fitted(
        parameters={k: v for k, v in parameters.items() if k not in not_kept and not callable(v)},
        schema=prepared.schema,
        network=net.module_,
        density=density,
        training=net.arrays(),
        best_epoch=best_epoch,
        seen=seen,
        conditions=conditions,
        learned=prepared.learned,
        components=components,
        start_epoch=net.history[net.first_epoch - 1]["epoch"] if net.first_epoch else 0,
    )
