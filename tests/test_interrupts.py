"""Errors of the user's code and Ctrl-C arrive as they are and leave every estimator as it was.

tests/test_determinism.py interrupts each step of a fit; here the user's own objects fail.
"""

import signal

import pytest
from skorch.callbacks import Callback
from small_models import (
    AUTOENCODERS,
    N,
    TaskCallback,
    Unchanged,
    X,
    assert_same,
    crossed,
    expected_outputs,
    fitted,
    outputs,
    plain_parameters,
    set_parameters,
    takes,
    unfitted_and_fitted,
)
from test_common import train

import skae


class Failure(Exception):
    """Raised by an object of the user; it must arrive as it is."""


def fail():
    raise Failure("of the user")


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


FAILURES = [
    pytest.param(fail, Failure, id="error"),
    pytest.param(press_ctrl_c, KeyboardInterrupt, id="Ctrl-C"),
]


class FailingTable:
    """Fails while it is read."""

    def __init__(self, failing):
        self.failing = failing

    def __array__(self, dtype=None, copy=None):
        self.failing()
        return X

    def __len__(self):
        return N


class FailingCallback(Callback):
    """A skorch callback that fails at one of its methods, as do its copies."""

    def __init__(self, **hooks):
        vars(self).update(hooks)

    @classmethod
    def at(cls, hook, failing):
        return cls(**{hook: lambda *args, **kwargs: failing()})

    def initialize(self):
        return self


class FailingTask(TaskCallback):
    """A scikit-learn callback that fails at the beginning or the end of the fit or an epoch."""

    max_propagation_depth = None

    def __init__(self, hook, task, failing):
        self.hook, self.task, self.failing = hook, task, failing

    def _at(self, hook, context):
        if hook == self.hook and (context.task_name == "epoch") == (self.task == "epoch"):
            self.failing()

    def on_fit_task_begin(self, estimator, context):
        self._at("begin", context)

    def on_fit_task_end(self, estimator, context):
        self._at("end", context)


HOOKS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_grad_computed",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
]


def failures(*cases):
    """Each case with each kind of failure."""
    return [
        pytest.param(*case, *failure.values, id="-".join([*map(str, case), failure.id]))
        for case in cases
        for failure in FAILURES
    ]


def assert_a_failure_changes_nothing(estimator_class, prepare, failing, error):
    """Let an unfitted and a fitted estimator fail; both can then be fitted as before."""
    for estimator in unfitted_and_fitted(estimator_class):
        rows, undo = prepare(estimator, failing)
        with Unchanged(estimator), pytest.raises(error):
            train(estimator, rows)
        undo()
        assert_same(outputs(train(estimator, X), X), expected_outputs(estimator_class))


EXHAUSTIVE = (skae.Autoencoder, skae.AutoencoderClassifier)
"""Estimators that meet every failure by default: one autoencoder and one over an autoencoder."""


@pytest.mark.parametrize(
    ("estimator_class", "failing", "error"), crossed(failures(()), always=EXHAUSTIVE, whole=False)
)
def test_a_failure_while_rows_are_read(estimator_class, failing, error):
    def prepare(estimator, failing):
        return FailingTable(failing), lambda: None

    assert_a_failure_changes_nothing(estimator_class, prepare, failing, error)


def has_corruption(estimator_class, *values):
    return takes(estimator_class, ["corruption"])


@pytest.mark.parametrize(
    ("estimator_class", "call", "failing", "error"),
    crossed(failures((1,), (2,), (3,)), always=EXHAUSTIVE, applies=has_corruption),
)
def test_a_failure_in_a_corruption(estimator_class, call, failing, error):
    def prepare(estimator, failing):
        calls, before = [], plain_parameters(estimator).get("corruption")

        def corrupt(x, generator):
            calls.append(x)
            if len(calls) == call:
                failing()
            return x

        set_parameters(estimator, corruption=corrupt)
        return X, lambda: set_parameters(estimator, corruption=before)

    assert_a_failure_changes_nothing(estimator_class, prepare, failing, error)


@pytest.mark.parametrize(
    ("estimator_class", "hook", "failing", "error"),
    crossed(failures(*((hook,) for hook in HOOKS)), always=EXHAUSTIVE, others=1),
)
def test_a_failure_in_a_callback(estimator_class, hook, failing, error):
    def prepare(estimator, failing):
        set_parameters(estimator, callbacks=[FailingCallback.at(hook, failing)])
        return X, lambda: set_parameters(estimator, callbacks=None)

    assert_a_failure_changes_nothing(estimator_class, prepare, failing, error)


TASKS = failures(*((hook, task) for hook in ("begin", "end") for task in ("fit", "epoch")))


@pytest.mark.parametrize(
    ("estimator_class", "hook", "task", "failing", "error"),
    crossed(TASKS, always=EXHAUSTIVE, others=1),
)
def test_a_failure_in_a_scikit_learn_callback(estimator_class, hook, task, failing, error):
    for estimator in unfitted_and_fitted(estimator_class):
        estimator.set_callbacks(FailingTask(hook, task, failing))
        with Unchanged(estimator), pytest.raises(error):
            train(estimator, X)


RESUMING = [pytest.param(False, id="cold"), pytest.param(True, id="warm")]


@pytest.mark.parametrize(
    ("estimator_class", "warm_start"), crossed(RESUMING, AUTOENCODERS, others=1)
)
def test_training_resumes_after_a_failure_as_if_there_had_been_none(estimator_class, warm_start):
    """Neither weights nor momentum nor history have moved."""
    models = [fitted(estimator_class, warm_start=warm_start) for _ in range(2)]
    for model in models:
        train(model, X, "partial_fit")
    failing = models[0].set_params(callbacks=[FailingCallback.at("on_train_end", fail)])
    for method in ("partial_fit", "fit"):
        with Unchanged(failing), pytest.raises(Failure):
            train(failing, X, method)
    failing.set_params(callbacks=None)
    for method in ("partial_fit", "fit", "partial_fit"):
        first, second = (outputs(train(model, X, method), X) for model in models)
        assert_same(first, second)
