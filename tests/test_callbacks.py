"""Callbacks of skorch: each one works or is refused by name, and stopping differs from Ctrl-C."""

import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
import skorch.callbacks
import torch
from contracts import named_checks
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from small_models import (
    AUTOENCODERS,
    META_ESTIMATORS,
    TaskCallback,
    Unchanged,
    X,
    assert_same,
    case_of,
    fitted,
    fitted_once,
    for_each,
    for_each_kind,
    outputs,
    set_parameters,
    tiny,
)
from test_checkpoint import EpochsRun
from test_common import core, train
from test_determinism import in_forked_child

import skae
from skae import Autoencoder, Checkpoint
from skae.fitting import fit as fitting
from skae.training.callbacks import REFUSED

KINDS = {
    name: kind
    for name in skorch.callbacks.__all__
    if isinstance(kind := getattr(skorch.callbacks, name), type)
    and issubclass(kind, skorch.callbacks.Callback)
}
"""The callbacks of skorch by name, without schedules of torch that it exports beside them."""

Base = skorch.callbacks.Callback
EarlyStopping = skorch.callbacks.EarlyStopping

PAGE = Path(__file__).parents[1] / "docs" / "callbacks.rst"

CURVED = {
    "linear_skip": False,
    "learning_rate": 0.01,
    "max_epochs": 3,
    "batch_size": 10,
    "random_state": 1,
}
"""Parameters with which each epoch has several steps and improves the validation loss."""


def small(*callbacks, **parameters):
    parameters = CURVED | {"early_stopping": True} | parameters
    return tiny(Autoencoder, callbacks=[*callbacks], **parameters)


def weights(model):
    return {name: t.numpy() for name, t in model.module_.state_dict().items()}


class Stop(Base):
    """Ends the training after two epochs by what it returns or raises."""

    def __init__(self, answer=True):
        self.answer = answer

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            return self.answer() if callable(self.answer) else self.answer
        return None


class ForwardsTo(Base):
    """Calls a function at the end of each epoch."""

    def __init__(self, function):
        self.function = function

    def on_epoch_end(self, net, **kwargs):
        self.function()


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


def press_ctrl_c(*args):
    signal.raise_signal(signal.SIGINT)


# ------------------------------------------------------------------------- stopping and Ctrl-C


@for_each_kind()
def test_a_callback_that_returns_true_stops_the_training(estimator_class):
    model = tiny(estimator_class, max_epochs=5)
    assert core(train(set_parameters(model, callbacks=[Stop()]), X)).n_iter_ == 2


@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_stopped_training_is_one_of_fewer_epochs(answer):
    """Nothing else differs if the rate is constant and no rows are held out."""
    stopped = small(Stop(answer), max_epochs=4, early_stopping=False).fit(X)
    assert stopped.n_iter_ == 2
    assert stopped.loss_curve_ == small(max_epochs=4, early_stopping=False).fit(X).loss_curve_[:2]


@pytest.mark.parametrize("answer", [False, None, 1, "stop", np.ones(1, dtype=bool)], ids=repr)
def test_other_answers_do_not_stop_the_training(answer):
    assert_same(weights(small(Stop(answer)).fit(X)), weights(small().fit(X)))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("failing", [raise_keyboard_interrupt, press_ctrl_c])
@for_each([Autoencoder, *META_ESTIMATORS])
def test_ctrl_c_in_a_callback_ends_the_fit_with_keyboard_interrupt(
    estimator_class, failing, method
):
    model = fitted(estimator_class)
    if not hasattr(model, method):
        method = "fit"
    set_parameters(model, callbacks=[ForwardsTo(failing)], max_epochs=5)
    with Unchanged(model), pytest.raises(KeyboardInterrupt):
        train(model, X, method)


def test_a_signal_while_a_callback_waits():
    """As a user presses Ctrl-C during a slow callback."""
    model = fitted(Autoencoder)

    def wait():
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Event().wait(30)

    model.set_params(callbacks=[ForwardsTo(wait)])
    with Unchanged(model), pytest.raises(KeyboardInterrupt):
        model.fit(X)


class StopsEarlier(EarlyStopping):
    """A user's version of skorch's callback."""

    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)


@pytest.mark.parametrize("kind", [EarlyStopping, StopsEarlier])
def test_ctrl_c_while_early_stopping_runs(kind):
    """Its own KeyboardInterrupt stops the training, and that of a user interrupts the fit."""
    stopping = {"learning_rate": 1e-300, "max_epochs": 9, "verbose": 1}
    stop = kind(patience=2, sink=lambda text: None)
    assert small(stop, **stopping).fit(X).n_iter_ == 3
    model = small(kind(patience=2, sink=press_ctrl_c), **stopping)
    with Unchanged(model), pytest.raises(KeyboardInterrupt):
        model.fit(X)


# -------------------------------------------------------------- checkpoints of complete trainings


class Failure(Exception):
    """Raised after the last epoch."""


class Task(TaskCallback):
    """A callback of scikit-learn that calls a function at the end of the outermost fit."""

    max_propagation_depth = 0

    def __init__(self, function):
        self.function = function

    def on_fit_task_end(self, estimator, context):
        if context.parent is None:
            self.function()


def fail(*args, **kwargs):
    raise Failure


def with_checkpoint(estimator_class, folder):
    callbacks = [Checkpoint(folder), EpochsRun()]
    model = tiny(estimator_class, random_state=0)
    return set_parameters(model, callbacks=callbacks, **{"max_epochs": 3})


def assert_resumes_without_epochs(estimator_class, folder):
    assert list(folder.iterdir())
    again = train(with_checkpoint(estimator_class, folder), X)
    assert core(again).callbacks[1].epochs == 0
    assert_same(outputs(again, X), outputs(train(with_checkpoint(estimator_class, folder), X), X))
    assert not list(folder.iterdir())


STEPS = ["use_all_rows", "make_fitted", "about_codes"]
"""Steps of a fit after its training."""


@pytest.mark.parametrize(
    ("estimator_class", "step"),
    [case_of(Autoencoder, step, label=step) for step in STEPS]
    + [case_of(c, "make_fitted", label="make_fitted") for c in META_ESTIMATORS],
)
def test_a_failure_after_the_last_epoch_keeps_the_checkpoint(
    estimator_class, step, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(fitting, step, fail)
        with pytest.raises(Failure):
            train(with_checkpoint(estimator_class, tmp_path), X)
    assert_resumes_without_epochs(estimator_class, tmp_path)


@for_each([Autoencoder, *META_ESTIMATORS])
def test_a_failure_at_the_end_of_the_fit_keeps_the_checkpoint(estimator_class, tmp_path):
    """The autoencoder in a meta-estimator has its model by then."""
    model = with_checkpoint(estimator_class, tmp_path).set_callbacks(Task(fail))
    with pytest.raises(Failure):
        train(model, X)
    assert_resumes_without_epochs(estimator_class, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@for_each([Autoencoder, *META_ESTIMATORS])
def test_a_process_that_is_killed_after_the_last_epoch_keeps_the_checkpoint(
    estimator_class, tmp_path
):
    model = with_checkpoint(estimator_class, tmp_path)
    model.set_callbacks(Task(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert in_forked_child(lambda: train(model, X), 60) == -signal.SIGKILL
    assert_resumes_without_epochs(estimator_class, tmp_path)


def test_a_complete_fit_after_a_failed_one_removes_its_own_checkpoint_only(tmp_path):
    others = with_checkpoint(Autoencoder, tmp_path).set_callbacks(Task(fail))
    with pytest.raises(Failure):
        others.fit(2 * X)
    with_checkpoint(Autoencoder, tmp_path).fit(X)
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------- callbacks that work


def check_Callback(folder):
    assert_same(weights(small(Base()).fit(X)), weights(small().fit(X)))


def check_Checkpoint(folder):
    messages = []
    callback = skorch.callbacks.Checkpoint(dirname=folder, sink=messages.append)
    model = small(callback).fit(X)
    saved = torch.load(folder / "params.pt", weights_only=True)
    assert model.best_epoch_ > 0
    assert_same({name: t.numpy() for name, t in saved.items()}, weights(model))
    assert len(torch.load(folder / "optimizer.pt", weights_only=True)["state"])
    assert model.history_[:, "event_cp"] == model.history_[:, "valid_loss_best"]
    assert not [message for message in messages if "Unable" in message]


def check_EarlyStopping(folder):
    stop = EarlyStopping(patience=3, sink=lambda text: None)
    model = small(stop, learning_rate=1e-300, max_epochs=20).fit(X)
    assert model.n_iter_ == 4
    # Without validation rows, the training loss is a criterion.
    stop = EarlyStopping("train_loss", patience=2, threshold=1.0, sink=lambda text: None)
    assert small(stop, early_stopping=False, max_epochs=20).fit(X).n_iter_ < 20


def check_EpochTimer(folder):
    timer = skorch.callbacks.EpochTimer()
    durations = small(timer).fit(X).history_[:, "dur"]
    assert timer.epoch_start_time_ is not None
    assert all(duration >= 0 for duration in durations)


def check_GradientNormClipping(folder):
    clip = skorch.callbacks.GradientNormClipping
    assert_same(weights(small(clip(1e9)).fit(X)), weights(small().fit(X)))
    # The rate is so small that the weights stay those of the start.
    start = weights(small(learning_rate=1e-300).partial_fit(X))
    options = {"weight_decay": 0.0, "early_stopping": False}
    stopped = small(clip(1e-30), **options).partial_fit(X)
    for name, value in weights(stopped).items():
        np.testing.assert_allclose(value, start[name], atol=1e-9, err_msg=name)
    moved = weights(small(**options).partial_fit(X))
    assert not np.allclose(moved["encoder.residual.layers.0.weight"], value_of_layer(start))


def value_of_layer(state):
    return state["encoder.residual.layers.0.weight"]


def check_Initializer(folder):
    zero = skorch.callbacks.Initializer("encoder.residual.layers.0.w*", fn=torch.nn.init.zeros_)
    options = {"weight_decay": 0.0, "learning_rate": 1e-300}
    model = small(zero, **options).partial_fit(X)
    assert np.abs(value_of_layer(weights(model))).max() < 1e-200
    assert np.abs(value_of_layer(weights(small(**options).partial_fit(X)))).min() > 1e-9


def check_MlflowLogger(folder):
    run, client = MagicMock(), MagicMock()
    logger = skorch.callbacks.MlflowLogger(run, client, log_on_batch_end=True)
    model = small(logger).fit(X)
    logged = {}
    for call in client.log_metric.call_args_list:
        logged.setdefault(call.args[1], []).append(call.args[2])
    assert logged["train_loss_epoch"] == model.loss_curve_
    assert logged["valid_loss_epoch"] == model.validation_curve_
    assert len(logged["train_loss_batch"]) == sum(model.history_[:, "train_batch_count"])
    names = {Path(call.args[1]).name for call in client.log_artifact.call_args_list}
    assert {"params.pth", "optimizer.pth", "history.json"} <= names
    client.set_terminated.assert_called_once()


class Series(dict):
    """Nested series of numbers, as in a run of Neptune."""

    def __missing__(self, key):
        self[key] = Series()
        return self[key]

    def append(self, value):
        self.setdefault("values", []).append(value)

    def stop(self):
        self["stopped"] = True


def check_NeptuneLogger(folder):
    types, handlers = ModuleType("neptune.types"), ModuleType("neptune.handler")
    types.File, handlers.Handler = MagicMock(), type("Handler", (), {})
    modules = {"neptune": ModuleType("neptune"), types.__name__: types, handlers.__name__: handlers}
    run = Series()
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        model = small(skorch.callbacks.NeptuneLogger(run, log_on_batch_end=True)).fit(X)
    training = run["training"]
    assert training["train"]["epoch"]["loss"]["values"] == model.loss_curve_
    assert training["validation"]["epoch"]["loss"]["values"] == model.validation_curve_
    assert training["config/lr"] == CURVED["learning_rate"]
    assert training["config/epochs"] == CURVED["max_epochs"]
    assert training["config/batch_size"] == CURVED["batch_size"]
    assert run["stopped"]


def check_ParamMapper(folder):
    seen = []

    def clip(p):
        seen.append(p)
        with torch.no_grad():
            p.clamp_(-0.01, 0.01)

    mapper = skorch.callbacks.ParamMapper("decoder.*", fn=clip, at=lambda net: True)
    model = small(mapper).partial_fit(X)
    decoder = dict(model.module_.decoder.named_parameters())
    assert len(seen) == len(decoder)
    # One pass of a few steps moves a weight by little more than as many learning rates.
    assert all(p.abs().max() < 0.01 + 5 * CURVED["learning_rate"] for p in decoder.values())


def check_PassthroughScoring(folder):
    scoring = skorch.callbacks.PassthroughScoring("train_loss", on_train=True)
    history = small(scoring).fit(X).history_
    np.testing.assert_allclose(history[:, "train_loss"], small().fit(X).loss_curve_)
    lowest = np.minimum.accumulate(history[:, "train_loss"])
    assert history[:, "train_loss_best"] == [True, *(np.diff(lowest) < 0)]


def check_PrintLog(folder):
    lines = []
    small(skorch.callbacks.PrintLog(sink=lines.append)).fit(X)
    assert lines[0].split()[:3] == ["epoch", "traced_shapes", "train_loss"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]


def check_ProgressBar(folder):
    bar = skorch.callbacks.ProgressBar(detect_notebook=False)
    model = small(bar).fit(X)
    assert bar.pbar_.n == bar.pbar_.total == model.history_[-1, "train_batch_count"] + 1


def check_SacredLogger(folder):
    experiment = MagicMock()
    model = small(skorch.callbacks.SacredLogger(experiment)).fit(X)
    calls = [call.args for call in experiment.log_scalar.call_args_list]
    assert [value for key, value, _ in calls if key == "train_loss"] == model.loss_curve_
    assert [epoch for key, _, epoch in calls if key == "valid_loss"] == [1, 2, 3]


def check_TensorBoard(folder):
    writer = MagicMock()
    model = small(skorch.callbacks.TensorBoard(writer)).fit(X)
    calls = [call.kwargs for call in writer.add_scalar.call_args_list]
    values = [c["scalar_value"] for c in calls if c["tag"] == "Loss/train_loss"]
    assert values == model.loss_curve_
    assert all(isinstance(call["scalar_value"], (int, float)) for call in calls)
    writer.close.assert_called_once()


def check_TrainEndCheckpoint(folder):
    messages = []
    callback = skorch.callbacks.TrainEndCheckpoint(dirname=folder, sink=messages.append)
    model = small(callback, early_stopping="auto").fit(X)
    saved = torch.load(folder / "train_end_params.pt", weights_only=True)
    assert_same({name: t.numpy() for name, t in saved.items()}, weights(model))
    assert not [message for message in messages if "Unable" in message]


def check_WandbLogger(folder):
    run = MagicMock(dir=folder)
    model = small(skorch.callbacks.WandbLogger(run)).fit(X)
    run.watch.assert_called_once()
    logged = [call.args[0]["train_loss"] for call in run.log.call_args_list]
    assert logged == model.loss_curve_
    saved = torch.load(folder / "best_model.pth", weights_only=True)
    assert_same({name: t.numpy() for name, t in saved.items()}, weights(model))


WORKING = named_checks(globals())


def test_each_callback_of_skorch_works_or_is_refused():
    assert KINDS.keys() == WORKING.keys() | REFUSED.keys()
    assert not WORKING.keys() & REFUSED.keys()


# The files of some callbacks contain weights of epochs, before codes are rotated.
@pytest.mark.usefixtures("kept_axes")
@pytest.mark.parametrize("name", WORKING)
def test_a_callback_works(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WORKING[name](tmp_path)


def test_the_page_lists_the_callbacks():
    """In two tables: those that work, and those that are refused, with the same advice."""
    works, refused = re.split(r"\nCallbacks that are refused\n-+\n", PAGE.read_text())
    assert set(re.findall(r"^   \* - ``(\w+)``", works, re.MULTILINE)) == WORKING.keys()
    assert set(re.findall(r"^   \* - ``(\w+)``", refused, re.MULTILINE)) == REFUSED.keys()


# -------------------------------------------------------------------- callbacks that are refused


def instance(name):
    arguments = {
        "BatchScoring": ["r2"],
        "EpochScoring": ["r2"],
        "Freezer": ["encoder.*"],
        "Unfreezer": ["encoder.*"],
        "LoadInitState": [skorch.callbacks.Checkpoint()],
    }
    return KINDS[name](*arguments.get(name, []))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("form", ["instance", "class", "subclass", "named"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_callback_is_refused_by_name(name, form, method):
    forms = {
        "instance": instance(name),
        "class": KINDS[name],
        "subclass": type("Own", (KINDS[name],), {}),
        "named": ("own", instance(name)),
    }
    model = fitted(Autoencoder).set_params(callbacks=[Base(), forms[form]])
    with Unchanged(model), pytest.raises(ValueError, match=rf"skorch's {name}\b") as refusal:
        getattr(model, method)(X)
    assert REFUSED[name] in str(refusal.value)


@for_each(META_ESTIMATORS)
def test_a_callback_in_a_meta_estimator_is_refused_by_name(estimator_class):
    model = set_parameters(fitted(estimator_class), callbacks=[instance("LRScheduler")])
    with Unchanged(model), pytest.raises(ValueError, match=r"LRScheduler.*learning_rate"):
        train(model, X)


@pytest.mark.parametrize("name", ["Checkpoint", "EarlyStopping"])
def test_restoring_weights_is_refused(name):
    model = small(KINDS[name](load_best=True))
    with pytest.raises(ValueError, match=f"{name}.*load_best=True.*early_stopping=True"):
        model.fit(X)


class Meddles(Base):
    """Changes what a fit does not let a callback change."""

    def __init__(self, change):
        self.change = change

    def on_batch_begin(self, net, **kwargs):
        self.change(net)


def change_rate(net):
    net.optimizer_.param_groups[0]["lr"] = 1.0


def freeze(net):
    net.module_.encoder.residual.layers[0].weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "message"),
    [(change_rate, "learning rate.*learning_rate"), (freeze, r"encoder\.residual.*all weights")],
)
def test_a_change_without_effect_is_refused(change, message):
    model = fitted(Autoencoder).set_params(callbacks=[Meddles(change)])
    with Unchanged(model), pytest.raises(ValueError, match=message):
        model.fit(X)


# ------------------------------------------------------------------------------ named callbacks


def named(estimator_class=Autoencoder, **parameters):
    stop = EarlyStopping(patience=2, sink=print)
    parameters = {"learning_rate": 1e-300, "max_epochs": 8, "early_stopping": True} | parameters
    model = tiny(estimator_class, **parameters)
    return set_parameters(model, callbacks=[EpochsRun(), ("stop", stop)])


def prefix(estimator):
    return "" if isinstance(estimator, skae.base.BaseAutoencoder) else "autoencoder__"


@for_each()
def test_parameters_of_named_callbacks(estimator_class):
    model = named(estimator_class)
    key = f"{prefix(model)}callbacks__stop"
    parameters = model.get_params()
    assert parameters[key].patience == parameters[f"{key}__patience"] == 2
    assert key not in model.get_params(deep=False)
    model.set_params(**{f"{key}__patience": 4})
    assert model.get_params()[f"{key}__patience"] == 4
    copied = clone(model).set_params(**{f"{key}__patience": 1})
    assert model.get_params()[f"{key}__patience"] == 4
    assert copied.get_params()[f"{key}__patience"] == 1


@for_each([Autoencoder, *META_ESTIMATORS])
def test_the_present_parameters_of_named_callbacks_are_used(estimator_class):
    model = named(estimator_class)
    for patience in (2, 4, 1):
        model.set_params(**{f"{prefix(model)}callbacks__stop__patience": patience})
        n_iter = core(train(model, X)).n_iter_
        # The targets of meta-estimators train a loss of their own.
        assert n_iter == patience + 1 or estimator_class in META_ESTIMATORS
    model.set_params(**{f"{prefix(model)}callbacks__stop": None})
    assert core(train(model, X)).n_iter_ == 8


def test_a_named_callback_can_be_replaced():
    model = named().set_params(
        callbacks__stop=EarlyStopping(patience=5), callbacks__stop__patience=3
    )
    assert model.fit(X).n_iter_ == 4
    model.set_params(callbacks=[("other", EarlyStopping())], callbacks__other__patience=1)
    assert model.fit(X).n_iter_ == 2


def test_a_grid_search_over_named_callbacks():
    search = GridSearchCV(named(), {"callbacks__stop__patience": [1, 3]}, cv=2, refit=False)
    losses = []
    search.set_params(scoring=lambda model, X, y=None: losses.append(model.n_iter_) or 0.0)
    search.fit(X)
    assert losses == [2, 2, 4, 4]


@pytest.mark.parametrize(
    "parameter", ["callbacks__none", "callbacks__none__patience", "callbacks__stop__none"]
)
def test_unknown_names_of_callbacks_are_refused(parameter):
    with pytest.raises(ValueError, match=r"Invalid parameter.*none"):
        named().set_params(**{parameter: 1})


@pytest.mark.parametrize("names", [("a", "a"), ("a__b", "c")])
def test_names_that_cannot_be_parameters_are_refused(names):
    model = small(*[(name, Base()) for name in names])
    with pytest.raises(ValueError, match="unique"):
        model.fit(X)


# ------------------------------------------------------------------------ calling the network


@for_each(AUTOENCODERS)
def test_calling_the_network_says_what_to_call_instead(estimator_class):
    module = fitted_once(estimator_class).module_
    for arguments in [(), (torch.tensor(X),), (torch.tensor(X), torch.ones(len(X))), (X,)]:
        with pytest.raises(TypeError, match="transform, inverse_transform and reconstruct"):
            module(*arguments)
    documentation = re.sub(r"\s+", " ", estimator_class.__doc__)
    assert "Calling it raises a TypeError: use `transform`" in documentation
