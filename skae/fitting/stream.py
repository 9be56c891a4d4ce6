"""The steps of `partial_fit`: training on new rows beside a sample of all rows that were seen."""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skae.fitting.components import find_components
from skae.fitting.fit import (
    MIN_IMPROVEMENT,
    MakeCallback,
    Result,
    about_parameters,
    check_callbacks,
    estimate_density,
    fitted_model,
    make_batches,
    make_plan,
    removing_useless_checkpoints,
    start_auxiliary_loss,
    train_again_if_needed,
)
from skae.fitting.prepare import FitData, PreparedFit, draw_seed, read_table
from skae.nn.units import can_change_units, change_units
from skae.starting import new_net, resumed_net
from skae.state import Fitted
from skae.table.components import Components
from skae.table.conditions import SeenConditions
from skae.table.rows import Rows
from skae.table.seen import Joined, Sample, Seen
from skae.training.batches import Batches
from skae.training.budget import Budget
from skae.training.loop import Net
from skae.training.messages import (
    Message,
    about_codes,
    about_distance,
    about_training,
)
from skae.training.rehearsal import Rehearsal, StreamPlan, step_sizes
from skae.training.split import Split

START_ROWS = 256.0
"""Number of rows that training passes over before a network is kept. Until then, each estimation of
the model starts anew from all rows that were seen."""

HISTORY = 100
"""Largest number of epochs in the history of a model that `partial_fit` has trained."""


IRRELEVANT = {
    "architecture",
    "categories",
    "early_stopping",
    "layerwise_epochs",
    "likelihood",
    "max_epochs",
    "n_iter_no_change",
    "tol",
    "validation_fraction",
    "warm_start",
}
"""Parameters that `partial_fit` does not use, and those whose network or schema cannot change."""


class Stream(NamedTuple):
    """Validated data of a call of `partial_fit`.

    Attributes
    ----------
    fit : PreparedFit
        The sample and the new rows, with weights that represent all rows that were seen.
    before : Seen
        What the model had seen before.
    new : Sample
        The new rows.
    joined : Joined
        The distinct rows of the sample and the new rows.
    is_due : bool
        Whether the units and the density of the model are estimated anew, and its start is compared
        with that from the present rows.
    step_sizes : tuple of (int, int)
        Numbers of new rows and of other rows per step.
    """

    fit: PreparedFit
    before: Seen
    new: Sample
    joined: Joined
    is_due: bool
    step_sizes: tuple[int, int]


def fit_stream(
    estimator: BaseEstimator, data: FitData, resume: Fitted | None, make_callback: MakeCallback
) -> Result:
    """Train a model on new rows and a sample. `fit_table` documents the arguments."""
    check_callbacks(estimator)
    stream = read_stream(estimator, data, resume)

    def train(pace: float, make_callback: MakeCallback) -> Result:
        slower = stream._replace(fit=replace(stream.fit, pace=pace))
        return fit_read_stream(estimator, slower, make_callback)

    return train_again_if_needed(estimator, train, make_callback)


def fit_read_stream(
    estimator: BaseEstimator, stream: Stream, make_callback: MakeCallback
) -> Result:
    """Train a model on validated rows, as `fit_stream`."""
    fit, joined = stream.fit, stream.joined
    net, everything, n_passed, kept = stream_net(estimator, stream)
    train = make_rehearsal(stream, everything)
    plan = make_stream_plan(estimator, stream, net, n_passed)
    plan.contexts = make_callback(
        lambda net: make_stream_fitted(
            estimator, stream, net.duplicate(copy.deepcopy(net.module_)), n_passed, kept
        )
    )
    label = fit.schema.column_label
    new_moments = joined.new_moments.without(fit.schema.is_category[: fit.rows.n_modelled])
    messages = about_distance(stream.before.moments, new_moments, label)
    with removing_useless_checkpoints(net):
        messages += train_stream(net, train, plan)
        net.notify("on_train_end", X=train, y=None)
        fitted = make_stream_fitted(estimator, stream, net, n_passed, kept)
    if fit.resume is None:
        messages += about_parameters(estimator, fit, net.module_)
    if stream.is_due:
        messages += about_codes(net.module_, fit.representatives(net.module_))
    return fitted, messages, net.remove_checkpoints


def read_stream(estimator: BaseEstimator, data: FitData, resume: Fitted | None) -> Stream:
    """Validate the arguments, and join the new rows with the sample of those seen before."""
    schema, rows, weight, corrupted, targets, _ = read_table(estimator, data, resume, 1)
    if resume is None and estimator.whiten:
        raise ValueError(
            "whiten=True is not supported by partial_fit unless fit was called before, because "
            "only fit makes components uncorrelated. Set whiten=False, or call fit."
        )
    if resume is None:
        before = Seen.nothing(draw_seed(estimator.random_state), rows.n_modelled)
    else:
        before = resume.seen
    check_corrupted(before, corrupted)
    new = Sample.hashed(rows, weight, corrupted, targets, before.seed)
    joined = before.join(new)
    table, seen, index = joined.table, joined.seen, joined.places
    if table.targets is not None:
        targets = replace(
            targets or table.targets,
            values=table.targets.values,
            observed=table.targets.observed,
            units=seen.target_units,
        )
    held_out = np.zeros(len(index), dtype=np.bool_)
    split = Split(index, joined.weight, held_out, joined.chosen, seen.sample_weight)
    parts = table.rows, table.weight, table.corrupted, targets, split, table.hashes
    prepared = PreparedFit(schema, *parts, resume, before.seed, data.density_rows)
    is_due = seen.weight >= before.due or has_changed(estimator, resume)
    sizes = step_sizes(estimator.batch_size, len(index), int(joined.is_new.sum()), seen.weight)
    # A model must not be estimated from the sample alone if it represents too little of what was
    # seen, as after loading a file.
    is_due &= seen.represents_most and seen.represents_most_targets
    return Stream(prepared, before, new, joined, is_due, sizes)


def check_corrupted(before: Seen, corrupted: Rows | None) -> None:
    """Raise ValueError if only some of the calls have corrupted versions of their rows."""
    if before.sample is None or (before.sample.corrupted is None) == (corrupted is None):
        return
    done = "was not" if before.sample.corrupted is None else "was"
    raise ValueError(
        f"X_corrupted must be passed to all calls or to none, but it {done} passed for the rows "
        "seen before. Set the parameter corruption, so that rows are corrupted in training."
    )


def has_changed(estimator: BaseEstimator, resume: Fitted | None) -> bool:
    """Return whether parameters that `partial_fit` uses have changed since a model was fitted."""
    now = estimator.get_params(deep=False)
    known = {} if resume is None else resume.parameters
    return any(repr(now[name]) != repr(known[name]) for name in known.keys() - IRRELEVANT)


def stream_net(
    estimator: BaseEstimator, stream: Stream
) -> tuple[Net, Batches, float, Components | None]:
    """Return the net to train, all rows, and the number of rows that the net has passed over.

    The components of its codes follow, or None if the net is a new one.

    It is a new net until training has passed over `START_ROWS` rows, and whenever a new net has a
    lower objective than the trained one. Both are compared, in the same units, only if the model is
    estimated anew.
    """
    fit, n_passed, moments = stream.fit, stream.before.n_passed, stream.joined.seen.moments
    if fit.resume is None:
        return *started_net(estimator, stream), 0.0, None
    units = torch.from_numpy(moments.mean), torch.tensor(moments.scale, dtype=torch.float64)
    net = resumed_net(estimator, fit.resume)
    del net.history[: 1 - HISTORY]
    if stream.is_due:
        change_units(net.module_, *units)
    everything = start_on_all_rows(estimator, stream, net, stream.is_due)
    is_started = n_passed < START_ROWS
    may_start = is_started or (net.module_.latent.ranks_epochs and can_change_units(net.module_))
    # The components of a new net would not be ordered, as whitening requires.
    if not (stream.is_due and may_start) or estimator.whiten:
        return net, everything, n_passed, fit.resume.components
    new, rows = started_net(estimator, stream)
    change_units(new.module_, *units)
    if not is_started:
        # Rounding errors do not decide between networks that are equally good.
        is_better = new.evaluate(rows) < net.evaluate(everything) - MIN_IMPROVEMENT
        if not is_better:
            return net, everything, n_passed, fit.resume.components
    new.generator.set_state(net.generator.get_state())
    new.history = net.history
    return new, rows, n_passed if is_started else 0.0, None


def started_net(estimator: BaseEstimator, stream: Stream) -> tuple[Net, Batches]:
    """Return a new net that is initialized from all rows, and these rows."""
    fit = stream.fit
    if fit.resume is not None and estimator.precision == "auto":
        dtype = str(fit.resume.network.like.dtype).removeprefix("torch.")
        estimator = copy.copy(estimator).set_params(precision=dtype)
    net = new_net(estimator, fit.schema, fit.rows, fit.split, fit.learned, None, fit.seed)
    net.module_.raise_noise()
    return net, start_on_all_rows(estimator, stream, net)


def start_on_all_rows(
    estimator: BaseEstimator, stream: Stream, net: Net, anew: bool = True
) -> Batches:
    """Start the auxiliary loss of a net, if there is one. Return all rows.

    If `anew` is False, the loss continues from the previous training if it is known.
    """
    everything = make_batches(estimator, stream.fit, net.module_)[0]
    start_auxiliary_loss(net, stream.fit.targets, everything, anew)
    return everything


def make_rehearsal(stream: Stream, everything: Batches) -> Rehearsal:
    """Return batches of the new rows and of the sample."""
    index = torch.from_numpy(stream.fit.split.index).to(everything.index.device)
    table = everything.take(index)
    # Rows with rare labels are repeated in `everything`, each time with a part of their weight.
    weight = table.weight * torch.bincount(everything.index)[index]
    table = table._replace(weight=weight / weight.sum())
    is_new = torch.from_numpy(stream.joined.is_new).to(table.x.device)
    return Rehearsal(
        table,
        is_new.nonzero()[:, 0],
        everything.corrupt,
        everything.n_conditions,
        everything.width,
        everything.hidden_share,
        everything.predicted,
        is_new,
        stream.step_sizes[1],
    )


def make_stream_plan(
    estimator: BaseEstimator, stream: Stream, net: Net, n_passed: float
) -> StreamPlan:
    """Make the plan of the training on the new rows."""
    plan = make_plan(estimator, stream.fit, net.module_)
    options = vars(plan) | {
        "budget": Budget(1, stream.step_sizes[0]),
        "layerwise_epochs": 0,
        "from_start": False,
    }
    n_new = int(stream.joined.is_new.sum())
    return StreamPlan(**options, n_passed=n_passed, n_new=n_new, steps_before=net.n_optimizer_steps)


def train_stream(net: Net, train: Rehearsal, plan: StreamPlan) -> list[Message]:
    """Train a net in place, and return warnings.

    Raises DivergenceError if the objective becomes infinite or NaN.
    """
    checked = train.checked()
    before = net.evaluate(checked)
    outcome = net.fit_rows(train, None, plan)
    outcome = replace(outcome, loss=net.evaluate(checked))
    return about_training(net.module_, plan, train, outcome, before)


def make_stream_fitted(
    estimator: BaseEstimator,
    stream: Stream,
    net: Net,
    n_passed: float,
    kept: Components | None,
) -> Fitted:
    """Return the model of a trained net, whose density is estimated if it is due."""
    fit, new, joined = stream.fit, stream.new, stream.joined
    if net.module_.auxiliary is not None:
        net.module_.auxiliary = None
        net.rebuild_optimizer()
    if stream.is_due or kept is None:
        components = find_components(fit, net, estimator.whiten, kept, orders=False)
    else:
        components = replace(kept, is_whitened=estimator.whiten)
    if stream.is_due or fit.resume is None:
        density = estimate_density(estimator, fit, net)
    else:
        density = fit.resume.density
        net.module_.eval()
    seen = joined.seen.passed(n_passed + float(joined.is_new.sum()), stream.is_due)
    conditions = None if fit.resume is None else fit.resume.conditions
    if new.rows.n_levels:
        conditions = SeenConditions.from_rows(new.rows, new.weight, conditions)
    parts = density, components, seen, conditions
    return fitted_model(estimator, fit, net, *parts, 1)
