"""Callbacks of scikit-learn: what they receive, and what `fitted_estimator` can do."""

import copy
import pickle

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from small_models import (
    AUTOENCODERS,
    FRAME,
    META_ESTIMATORS,
    N,
    X,
    assert_same,
    crossed,
    fitted,
    for_each,
    for_each_kind,
    outputs,
    tiny,
)
from test_common import core, train

import skae
from skae import Autoencoder

Y = np.arange(N) % 2
WEIGHT = 1.0 + np.arange(N) % 3

IMPROVING = {"linear_skip": False, "learning_rate": 0.03, "early_stopping": False}
"""Parameters with which each epoch improves the objective, so that a fit ends at its last epoch."""


class Recorder:
    """Keeps what its methods receive; it can be pickled, and its copies start empty."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.calls = []

    def __getstate__(self):
        return {"stop_after": self.stop_after, "calls": []}

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name, {}))

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.task_name, {}))

    def on_fit_task_begin(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.record("begin", estimator, context, X, y, metadata, fitted_estimator)

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.record("end", estimator, context, X, y, metadata, fitted_estimator)
        ends = [name for hook, name, _ in self.calls if (hook, name) == ("end", "epoch")]
        return len(ends) == self.stop_after

    def record(self, hook, estimator, context, X, y, metadata, fitted_estimator):
        received = {
            "estimator": estimator,
            "context": context,
            "X": X,
            "y": y,
            "metadata": metadata,
            "fitted_estimator": fitted_estimator,
        }
        self.calls.append((hook, context.task_name, received))

    def select(self, hook, task):
        return [received for h, name, received in self.calls if (h, name) == (hook, task)]


class Propagated(Recorder):
    """Follows the estimators within an estimator, too."""

    max_propagation_depth = None


def recorded(estimator_class, rows=X, **parameters):
    """A recorder of a fit, with targets where the estimator requires them, and the estimator."""
    recorder = Propagated()
    estimator = tiny(estimator_class, **parameters).set_callbacks(recorder)
    return recorder, train(estimator, rows)


# ----------------------------------------------------------------------- what callbacks receive


@for_each_kind(AUTOENCODERS)
def test_the_tasks_are_the_fit_and_its_epochs(estimator_class):
    recorder, estimator = recorded(estimator_class, max_epochs=3)
    epoch = [("begin", "epoch"), ("end", "epoch")]
    expected = [("setup", "fit"), ("begin", "fit"), *epoch * 3, ("end", "fit"), ("teardown", "fit")]
    assert [(hook, task) for hook, task, _ in recorder.calls] == expected
    contexts = [received["context"] for received in recorder.select("begin", "epoch")]
    assert [context.task_id for context in contexts] == [0, 1, 2]
    assert {context.parent.max_subtasks for context in contexts} == {3}
    assert not [name for name in vars(estimator) if name.startswith("_callback")]


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    "weight", [pytest.param(None, id="plain", marks=pytest.mark.slow), pytest.param(WEIGHT, id="w")]
)
@for_each([Autoencoder, *META_ESTIMATORS])
def test_all_tasks_have_the_arguments_of_the_fit(estimator_class, weight, method):
    recorder, estimator = Recorder(), fitted(estimator_class)
    if not hasattr(estimator, method):
        method = "fit"
    getattr(estimator.set_callbacks(recorder), method)(X, Y, sample_weight=weight)
    received = [r for hook, _, r in recorder.calls if hook in ("begin", "end")]
    assert received
    for arguments in received:
        if arguments["context"].task_name != "fit-autoencoder":
            assert arguments["X"] is X
            assert arguments["y"] is Y
            assert (arguments["metadata"] or {}).get("sample_weight") is weight
        assert arguments["estimator"] is estimator


def test_logistic_regression_is_the_model():
    """The same hooks have the same arguments, except for the begin of an epoch."""

    def received(estimator):
        recorder = Recorder()
        estimator.set_callbacks(recorder).fit(X, Y, sample_weight=WEIGHT)
        return {
            (hook, task == "fit"): {name: value is not None for name, value in arguments.items()}
            for hook, task, arguments in reversed(recorder.calls)
            if hook in ("begin", "end")
        }

    assert received(tiny(Autoencoder)) == received(LogisticRegression())


@pytest.mark.parametrize("callback", [None, Recorder, object()], ids=["None", "class", "object"])
@for_each([Autoencoder, *META_ESTIMATORS])
def test_other_objects_are_refused(estimator_class, callback):
    with pytest.raises(TypeError, match="FitCallback"):
        tiny(estimator_class).set_callbacks(callback)


@for_each([Autoencoder, *META_ESTIMATORS])
def test_callbacks_can_be_removed(estimator_class):
    estimator, recorder = tiny(estimator_class), Recorder()
    train(estimator.set_callbacks(recorder).set_callbacks(), X)
    assert recorder.calls == []


# ---------------------------------------------------------------------------- stopping, failing


class Failing(Recorder):
    """Fails in one of its methods."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def setup(self, estimator, context):
        super().setup(estimator, context)
        self.fail_at("setup")

    def teardown(self, estimator, context):
        super().teardown(estimator, context)
        self.fail_at("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.fail_at("begin")

    def on_fit_task_end(self, estimator, context):
        self.fail_at("end")

    def fail_at(self, place):
        if place == self.at:
            raise ArithmeticError(place)


@pytest.mark.parametrize("place", ["setup", "begin", "end", "teardown"])
@for_each([Autoencoder, *META_ESTIMATORS])
def test_teardown_follows_each_setup(estimator_class, place):
    callback, later = Failing(place), Recorder()
    with pytest.raises(ArithmeticError, match=place):
        train(tiny(estimator_class).set_callbacks(callback, later), X)
    for recorder in (callback, later):
        counts = [len(recorder.select(hook, "fit")) for hook in ("setup", "teardown")]
        assert counts == ([0, 0] if place == "setup" and recorder is later else [1, 1])


@for_each_kind()
def test_a_callback_stops_the_training(estimator_class):
    recorder = Propagated(stop_after=2)
    estimator = tiny(estimator_class, max_epochs=5).set_callbacks(recorder)
    assert core(train(estimator, X)).n_iter_ == len(recorder.select("end", "epoch")) == 2


@for_each([Autoencoder, *META_ESTIMATORS])
def test_callbacks_change_no_bit(estimator_class):
    _, watched = recorded(estimator_class)
    assert_same(outputs(watched, X), outputs(train(tiny(estimator_class), X), X))


# ----------------------------------------------------------------------------- fitted_estimator


def by_copy(estimator, folder):
    return copy.copy(estimator)


def by_deepcopy(estimator, folder):
    return copy.deepcopy(estimator)


def by_pickle(estimator, folder):
    return pickle.loads(pickle.dumps(estimator))


def by_file(estimator, folder):
    """A file contains no callbacks, of which a warning informs the user."""
    with pytest.warns(UserWarning, match="without these attributes.*: _skl_callbacks"):
        estimator.save(folder / "model.safetensors")
    return skae.load(folder / "model.safetensors")


COPIES = [pytest.param(way, id=way.__name__) for way in (by_copy, by_deepcopy, by_pickle, by_file)]


def answers(model):
    return {"codes": model.transform(X), "density": model.score_samples(X)}


class InUse(Propagated):
    """Uses each `fitted_estimator` while the fit runs."""

    def __init__(self, use):
        super().__init__()
        self.use, self.results = use, []

    def __getstate__(self):
        return super().__getstate__() | {"use": None, "results": []}

    def record(self, hook, estimator, context, X, y, metadata, fitted_estimator):
        if fitted_estimator is not None:
            self.results.append((context.task_name, self.use(fitted_estimator)))


@pytest.mark.parametrize(("estimator_class", "way"), crossed(COPIES, AUTOENCODERS, others=0))
def test_the_fitted_estimator_can_be_copied(estimator_class, way, tmp_path):
    def use(model):
        return way(model, tmp_path), answers(model)

    callback = InUse(use)
    final = train(tiny(estimator_class).set_callbacks(callback), X)
    tasks = [task for task, _ in callback.results]
    assert tasks == ["epoch"] * 4 + ["fit"]
    # Copies keep their models while the training goes on, and they have no callback at work.
    for _, (again, before) in callback.results:
        assert_same(answers(again), before)
        assert not [name for name in vars(again) if name.startswith(("_callback", "_parent"))]
    assert_same(callback.results[-1][1][1], answers(final))


@for_each(AUTOENCODERS)
def test_the_fitted_estimator_is_a_fitted_one(estimator_class):
    """It has all fitted attributes, names of columns, and the parameters of the estimator."""

    def use(model):
        names = [name for name in dir(type(model)) if name.endswith("_") and name[0] != "_"]
        names = [name for name in names if hasattr(model, name)]
        return {name: getattr(model, name) for name in names}, model.get_params()

    callback = InUse(use)
    final = train(tiny(estimator_class).set_callbacks(callback), FRAME)
    for task, (attributes, parameters) in callback.results:
        assert parameters == final.get_params()
        assert attributes["n_features_in_"] == 3
        assert list(attributes["feature_names_in_"]) == ["a", "b", "c"]
        assert attributes["n_components_"] == final.n_components_
        assert np.isfinite(attributes["noise_variance_"]).all()
        assert task == "fit" or attributes["n_iter_"] in (0, 1, 2)
    assert [attributes["n_iter_"] for _, (attributes, _) in callback.results] == [0, 1, 1, 2, 2]


@for_each(META_ESTIMATORS)
def test_the_fitted_estimator_of_a_meta_estimator(estimator_class):
    """Its epochs have autoencoders, and its fit has the meta-estimator."""
    recorder, final = recorded(estimator_class)
    models = recorder.select("end", "epoch")
    assert {type(received["fitted_estimator"]) for received in models} == {Autoencoder}
    for received in models:
        again = pickle.loads(pickle.dumps(received["fitted_estimator"]))
        assert_same(outputs(again, X), outputs(received["fitted_estimator"], X))
    (end,) = [r for r in recorder.select("end", "fit") if r["context"].parent is None]
    again = pickle.loads(pickle.dumps(end["fitted_estimator"]))
    assert_same(outputs(again, X), outputs(final, X))


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_the_fitted_estimator_is_that_of_a_fit_that_ends_here(n_epochs):
    recorder = Recorder()
    tiny(Autoencoder, max_epochs=4, **IMPROVING).set_callbacks(recorder).fit(X)
    stopped = tiny(Autoencoder, max_epochs=4, **IMPROVING).set_callbacks(Recorder(n_epochs)).fit(X)
    assert stopped.n_iter_ == n_epochs
    model = recorder.select("end", "epoch")[n_epochs - 1]["fitted_estimator"]
    assert_same(outputs(model, X), outputs(stopped, X))
    begin = recorder.select("begin", "epoch")[n_epochs]["fitted_estimator"]
    assert_same(outputs(begin, X), outputs(stopped, X))


def test_the_fitted_estimator_can_be_fitted_and_resumed():
    recorder, _ = recorded(Autoencoder, max_epochs=2)
    model = recorder.select("end", "epoch")[0]["fitted_estimator"].set_callbacks()
    again = pickle.loads(pickle.dumps(model))
    assert_same(outputs(model.partial_fit(X), X), outputs(again.partial_fit(X), X))
    assert_same(outputs(clone(model).fit(X), X), outputs(tiny(Autoencoder).fit(X), X))


class Pickling(Propagated):
    """Pickles the estimator, as scikit-learn does to send messages from another process."""

    def record(self, hook, estimator, context, X, y, metadata, fitted_estimator):
        copied = pickle.loads(pickle.dumps(estimator))
        self.calls.append((hook, context.task_name, {"estimator": copied}))


@for_each([Autoencoder, *META_ESTIMATORS])
def test_the_estimator_can_be_pickled_while_a_fit_runs(estimator_class):
    recorder = Pickling()
    train(tiny(estimator_class).set_callbacks(recorder), X)
    copies = [received["estimator"] for hook, _, received in recorder.calls if hook == "end"]
    assert len(copies) >= 3
    assert_same(outputs(train(copies[1], X), X), outputs(train(clone(copies[1]), X), X))


# ------------------------------------------------------------------------------- ScoringMonitor


def log_density(model, X, y=None, sample_weight=None):
    """A scorer of ScoringMonitor, whose results are a dict."""
    return {"log_density": np.average(model.score_samples(X), weights=sample_weight)}


@for_each_kind(AUTOENCODERS)
def test_a_scoring_monitor_scores_each_epoch(estimator_class):
    monitor = ScoringMonitor(scoring=log_density)
    scores = InUse(lambda model: log_density(model, X)["log_density"])
    model = tiny(estimator_class, max_epochs=3).set_callbacks(monitor, scores).fit(X, Y)
    log = monitor.get_logs().data
    assert [row["task_name"] for row in log] == ["fit", "epoch", "epoch", "epoch"]
    assert [row["task_id"] for row in log[1:]] == [0, 1, 2]
    ends = [score for task, score in scores.results if task == "epoch"][1::2]
    assert [row["log_density"] for row in log[1:]] == ends
    assert log[0]["log_density"] == log_density(model, X)["log_density"]


def test_a_scoring_monitor_passes_sample_weights():
    logs = []
    for weight in (None, WEIGHT):
        monitor = ScoringMonitor(scoring=log_density)
        model = tiny(Autoencoder).set_callbacks(monitor).fit(X, Y, sample_weight=weight)
        logs.append([row["log_density"] for row in monitor.get_logs().data])
        assert logs[-1][0] == log_density(model, X, Y, weight)["log_density"]
    assert logs[0] != logs[1]


@pytest.mark.parametrize(
    ("estimator_class", "scoring"),
    [(skae.AutoencoderClassifier, "accuracy"), (skae.AutoencoderRegressor, "r2")],
)
def test_a_scoring_monitor_scores_a_supervised_estimator(estimator_class, scoring):
    monitor = ScoringMonitor(scoring=scoring)
    model = tiny(estimator_class).set_callbacks(monitor).fit(X, Y, sample_weight=WEIGHT)
    (row,) = monitor.get_logs().data
    assert row["task_name"] == "fit"
    assert row[scoring] == model.score(X, Y, sample_weight=WEIGHT)


def test_logs_of_several_fits():
    monitor = ScoringMonitor(scoring=log_density)
    estimator = tiny(Autoencoder).set_callbacks(monitor)
    estimator.fit(X, Y)
    estimator.partial_fit(X, Y)
    first, second = monitor.get_logs(select="all")
    assert (len(first.data), len(second.data)) == (1 + 2, 1 + 1)
    restored = pickle.loads(pickle.dumps(estimator)).fit(X, Y)
    logs = restored._skl_callbacks[0].get_logs(select="all")
    assert [log.data for log in logs] == [first.data, second.data, first.data]
    assert len(monitor.get_logs(select="all")) == 2


def assert_a_search_logs_all_fits(backend):
    monitor = ScoringMonitor(scoring=log_density)
    model = tiny(Autoencoder, max_epochs=2).set_callbacks(monitor)
    search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2, n_jobs=2)
    with parallel_config(backend=backend):
        search.fit(X, Y)
    log = monitor.get_logs()
    assert log.estimator_name == "GridSearchCV"
    names = [row["task_name"] for row in log.data]
    assert (names.count("epoch"), len(names)) == (5 * 2, 5 * (1 + 2))
    assert all(np.isfinite(row["log_density"]) for row in log.data)
    best = log_density(search.best_estimator_, X)["log_density"]
    assert best in {row["log_density"] for row in log.data}


def test_a_search_in_threads():
    assert_a_search_logs_all_fits("threading")


@pytest.mark.slow
def test_a_search_in_processes():
    """New processes, which send their scores to this one."""
    assert_a_search_logs_all_fits("loky")


# ---------------------------------------------------------------------------------- ProgressBar


@pytest.mark.parametrize("is_fitted", [False, True], ids=["unfitted", "fitted"])
@for_each([Autoencoder, *META_ESTIMATORS])
def test_an_estimator_with_callbacks_can_be_pickled(estimator_class, is_fitted, capsys):
    pytest.importorskip("rich")
    estimator = tiny(estimator_class).set_callbacks(ProgressBar(), Recorder())
    if is_fitted:
        train(estimator, X)
    again = pickle.loads(pickle.dumps(estimator))
    assert [type(callback) for callback in again._skl_callbacks] == [ProgressBar, Recorder]
    capsys.readouterr()
    assert_same(outputs(train(again, X), X), outputs(train(tiny(estimator_class), X), X))
    assert f"{estimator_class.__name__} - fit" in capsys.readouterr().out
    assert again._skl_callbacks[1].select("end", "fit")


@for_each([Autoencoder, *META_ESTIMATORS])
def test_saved_files_contain_no_callbacks(estimator_class, tmp_path):
    estimator = fitted(estimator_class).set_callbacks(Recorder())
    again = by_file(estimator, tmp_path)
    assert not hasattr(again, "_skl_callbacks")
    assert_same(outputs(again, X), outputs(estimator, X))
