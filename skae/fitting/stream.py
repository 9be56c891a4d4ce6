"""The steps of `partial_fit`: one pass over new rows beside a sample of all rows that were seen."""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skae.fitting.fit import (
    MIN_IMPROVEMENT,
    MakeCallback,
    Result,
    check_callbacks,
    estimate_density,
    fitted_model,
    make_batches,
    make_plan,
    start_auxiliary_loss,
    train_again_if_needed,
)
from skae.fitting.prepare import FitData, PreparedFit, draw_seed, read_table
from skae.nn.units import change_units
from skae.starting import new_net, resumed_net
from skae.state import Fitted
from skae.table.conditions import SeenConditions
from skae.table.seen import ColumnMoments, Joined, Sample, Seen
from skae.training.batches import Batches
from skae.training.budget import Budget
from skae.training.loop import DivergenceError, Net
from skae.training.messages import Message, about_codes, about_distance, about_shape, about_training
from skae.training.rehearsal import Rehearsal, StreamPlan
from skae.training.rehearsal import step_sizes as sizes_of_steps
from skae.training.split import Split

START_ROWS = 256.0
"""Number of rows that training passes over before a network is kept. Until then, each estimation of
the model starts anew from all rows that were seen."""

HISTORY = 100
"""Largest number of epochs in the history of a model that `partial_fit` has trained."""


class Stream(NamedTuple):
    """Validated data of a call of `partial_fit`.

    Attributes
    ----------
    fit : PreparedFit
        The sample and the new rows, with weights that represent all rows that were seen.
    before : Seen
        What the model had seen before.
    joined : Joined
        The distinct rows of the sample and the new rows.
    new : Sample
        The new rows.
    is_due : bool
        Whether the units and the density of the model are estimated anew, and its start is compared
        with that from the present rows.
    """

    fit: PreparedFit
    before: Seen
    joined: Joined
    new: Sample
    is_due: bool


def fit_stream(
    estimator: BaseEstimator, data: FitData, resume: Fitted | None, make_callback: MakeCallback
) -> Result:
    """Train a model in one pass over new rows. `fit_table` documents the arguments."""
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
    fit = stream.fit
    net, everything, n_passed = stream_net(estimator, stream)
    train = make_rehearsal(estimator, stream, everything)
    plan = make_stream_plan(estimator, stream, net, n_passed)
    plan.contexts = make_callback(
        lambda net: make_stream_fitted(
            estimator, stream, net.duplicate(copy.deepcopy(net.module_)), n_passed
        )
    )
    try:
        messages = about_distance(stream.before.moments, stream.new, fit.schema.column_label)
        messages += train_stream(net, train, plan)
        net.notify("on_train_end", X=train, y=None)
        fitted = make_stream_fitted(estimator, stream, net, n_passed)
    except DivergenceError:
        # To resume just before the failure would only repeat it.
        net.remove_checkpoints()
        raise
    if fit.resume is None:
        shape = fit.schema.feature_shape
        messages += about_shape(estimator.architecture, estimator.corruption, shape)
    if stream.is_due:
        messages += about_codes(net.module_, fit.batch(fit.split.representatives, net.module_))
    return fitted, messages, net.remove_checkpoints


def read_stream(estimator: BaseEstimator, data: FitData, resume: Fitted | None) -> Stream:
    """Validate the arguments, and join the new rows with the sample of those seen before."""
    schema, rows, weight, corrupted, targets, _ = read_table(estimator, data, resume, 1)
    if resume is None:
        before = Seen.nothing(draw_seed(estimator.random_state), rows.n_modelled)
    else:
        before = resume.seen
    new = Sample.hashed(rows, weight, corrupted, targets, before.seed)
    joined = before.join(new)
    table, index = joined.table, joined.places
    if targets is not None and table.targets is not None:
        targets = replace(targets, values=table.targets.values, observed=table.targets.observed)
    split = Split(index, joined.weight, np.zeros(len(index), dtype=np.bool_), joined.chosen)
    parts = table.rows, table.weight, table.corrupted, targets, split
    prepared = PreparedFit(schema, *parts, resume, before.seed)
    added = float(weight.sum())
    is_due = before.weight + added >= before.due or has_changed(estimator, resume)
    return Stream(prepared, before, joined, new, is_due and before.represents_most(added))


def has_changed(estimator: BaseEstimator, resume: Fitted | None) -> bool:
    """Return whether parameters have changed since a model was fitted."""
    now = estimator.get_params(deep=False)
    known = {} if resume is None else resume.parameters
    return any(repr(now[name]) != repr(value) for name, value in known.items())


def stream_net(estimator: BaseEstimator, stream: Stream) -> tuple[Net, Batches, float]:
    """Return the net to train, all rows, and the number of rows that the net has passed over.

    It is a new net until training has passed over `START_ROWS` rows, and whenever a new net has a
    lower objective than the trained one. Both are compared only if the model is estimated anew.
    """
    fit, n_passed = stream.fit, stream.before.n_passed
    if fit.resume is None:
        return *started_net(estimator, stream), 0.0
    net = resumed_net(estimator, fit.resume)
    del net.history[: 1 - HISTORY]
    everything = start_on_all_rows(estimator, stream, net, stream.is_due)
    if not stream.is_due:
        return net, everything, n_passed
    is_started = n_passed < START_ROWS
    if is_started or net.module_.latent.ranks_epochs:
        new, rows = started_net(estimator, stream)
        # Rounding errors do not decide between networks that are equally good.
        limit = net.evaluate(everything) - MIN_IMPROVEMENT
        if is_started or new.evaluate(rows) < limit:
            new.generator.set_state(net.generator.get_state())
            new.history = net.history
            return new, rows, n_passed if is_started else 0.0
    moments = stream.before.moments.joined(
        ColumnMoments.from_rows(stream.new.rows.modelled, stream.new.weight)
    )
    center = torch.from_numpy(moments.mean).to(net.module_.like.device)
    change_units(net.module_, center, center.new_tensor(moments.scale))
    return net, everything, n_passed


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


def make_rehearsal(estimator: BaseEstimator, stream: Stream, everything: Batches) -> Rehearsal:
    """Return batches of the new rows and of the sample."""
    index = torch.from_numpy(stream.fit.split.index).to(everything.index.device)
    table = everything.take(index)
    # Rows with rare labels are repeated in `everything`, each time with a part of their weight.
    weight = table.weight * torch.bincount(everything.index)[index]
    table = table._replace(weight=weight / weight.sum())
    is_new = torch.from_numpy(stream.joined.is_new).to(table.x.device)
    n_rehearsed = step_sizes(estimator, stream)[1]
    options = everything.corrupt, everything.n_conditions, everything.width
    return Rehearsal(table, is_new.nonzero()[:, 0], *options, is_new, n_rehearsed)


def step_sizes(estimator: BaseEstimator, stream: Stream) -> tuple[int, int]:
    """Return the numbers of new rows and of other rows per step."""
    split, n_new = stream.fit.split, int(stream.joined.is_new.sum())
    total = float(split.weight.sum())
    return sizes_of_steps(estimator.batch_size, len(split.index), n_new, total)


def make_stream_plan(
    estimator: BaseEstimator, stream: Stream, net: Net, n_passed: float
) -> StreamPlan:
    """Make the plan of the pass over the new rows."""
    plan = make_plan(estimator, stream.fit, net.module_)
    options = vars(plan) | {
        "budget": Budget(1, step_sizes(estimator, stream)[0]),
        "layerwise_epochs": 0,
        "from_start": False,
    }
    n_new = int(stream.joined.is_new.sum())
    return StreamPlan(**options, n_passed=n_passed, n_new=n_new, steps_before=net.n_optimizer_steps)


def train_stream(net: Net, train: Rehearsal, plan: StreamPlan) -> list[Message]:
    """Train a net in place, and return warnings.

    Raises DivergenceError if the objective becomes infinite or NaN.
    """
    before = net.evaluate(train)
    outcome = net.fit_rows(train, None, plan)
    return about_training(net.module_, plan, train, outcome, before)


def make_stream_fitted(
    estimator: BaseEstimator, stream: Stream, net: Net, n_passed: float
) -> Fitted:
    """Return the model of a trained net, whose density is estimated if it is due."""
    fit, new = stream.fit, stream.new
    if net.module_.auxiliary is not None:
        net.module_.auxiliary = None
        net.rebuild_optimizer()
    if stream.is_due or fit.resume is None:
        density = estimate_density(estimator, fit, net)
    else:
        density = fit.resume.density
        net.module_.eval()
    n_passed += float(stream.joined.is_new.sum())
    seen = stream.before.after(stream.joined, new, n_passed, stream.is_due)
    conditions = None if fit.resume is None else fit.resume.conditions
    if new.rows.n_levels:
        conditions = SeenConditions.from_rows(new.rows, new.weight, conditions)
    return fitted_model(estimator, fit, net, density, seen, conditions, 1)
