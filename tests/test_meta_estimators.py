"""What holds for all estimators over an autoencoder: refits, warm starts and callbacks."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_models import (
    ESTIMATORS,
    FRAME,
    META_ESTIMATORS,
    TaskCallback,
    Unchanged,
    X,
    assert_same,
    case_of,
    fitted,
    for_each,
    outputs,
    tiny,
)
from test_common import train

import skae
from skae.base import BaseAutoencoder
from skae.state import FittedAttribute

# ---------------------------------------------------------------------- one model at a time


def assert_answers_of_one_model(estimator_class, seconds):
    """Refit with two tables in turn while other threads ask: each answer is that of one fit."""
    estimator = fitted(estimator_class, FRAME)
    tables = [FRAME, 2.0 * FRAME[::-1] ** 3 + 1.0]
    expected = []
    for table in tables:
        train(estimator, table)
        expected.append(everything(estimator))
    stop, answers = threading.Event(), []

    def ask():
        while not stop.is_set():
            for question in QUESTIONS:
                if hasattr(estimator_class, question):
                    answers.append((question, read(estimator, question)))

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for table in tables:
                train(estimator, table)
        stop.set()
        for future in asking:
            future.result()
    assert answers
    for question, answer in answers:
        assert any(same(answer, model[question]) for model in expected), question


QUESTIONS = (
    *("transform", "score_samples", "decision_function", "predict", "predict_proba", "explain"),
    *("n_features_in_", "feature_names_in_", "classes_", "label_names_", "offset_"),
)
"""Methods of rows and attributes, of which each estimator has some."""


def read(estimator, question):
    value = getattr(estimator, question, None)
    return np.asarray(value(FRAME)) if callable(value) else np.asarray(value)


def everything(estimator):
    return {q: read(estimator, q) for q in QUESTIONS if hasattr(type(estimator), q)}


def same(first, second):
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


@for_each()
def test_each_answer_is_that_of_one_model(estimator_class):
    assert_answers_of_one_model(estimator_class, 0.3)


@pytest.mark.slow
@for_each(META_ESTIMATORS)
def test_each_answer_is_that_of_one_model_for_long(estimator_class):
    assert_answers_of_one_model(estimator_class, 7)


@for_each()
def test_a_fit_changes_one_attribute(estimator_class):
    """All others are computed from it, so that one assignment replaces them together."""
    estimator = tiny(estimator_class)
    before = set(vars(estimator))
    train(estimator, FRAME)
    assert set(vars(estimator)) - before == {"_fitted"}
    for name in dir(estimator_class):
        if isinstance(getattr(estimator_class, name), FittedAttribute):
            with pytest.raises(NotFittedError):
                getattr(clone(estimator), name)


# ---------------------------------------------------------------------------- warm starts

INNER = {"n_components": 2, "hidden_layer_sizes": (4,), "max_epochs": 3}


def over(estimator_class, autoencoder=None, **parameters):
    """An estimator over a small autoencoder."""
    autoencoder = autoencoder or skae.Autoencoder(**INNER, **parameters)
    return estimator_class(autoencoder, random_state=0)


def curve(estimator):
    return estimator.autoencoder_.loss_curve_


@for_each(META_ESTIMATORS)
def test_a_warm_start_resumes_training(estimator_class):
    warm = train(over(estimator_class, warm_start=True), X)
    first = curve(warm)
    train(warm, X)
    assert curve(warm)[:3] == first
    assert len(curve(warm)) == 6
    cold = train(train(over(estimator_class), X), X)
    assert len(curve(cold)) == 3


@for_each(META_ESTIMATORS)
def test_a_warm_start_without_training_keeps_the_network(estimator_class):
    warm = train(over(estimator_class, warm_start=True), X)
    before = {k: v.numpy() for k, v in warm.autoencoder_.module_.state_dict().items()}
    warm.set_params(autoencoder__max_epochs=0)
    train(warm, X[::-1] ** 3)
    after = warm.autoencoder_.module_.state_dict()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].numpy(), value, err_msg=name)


@for_each(META_ESTIMATORS)
def test_a_warm_start_may_add_components(estimator_class):
    warm = train(over(estimator_class, warm_start=True), X)
    before = warm.autoencoder_.module_.encoder.state_dict()
    warm.set_params(autoencoder__n_components=3, autoencoder__max_epochs=0)
    assert train(warm, X).autoencoder_.n_components_ == 3
    after = warm.autoencoder_.module_.encoder.state_dict()
    same_shape = [name for name in before if before[name].shape == after[name].shape]
    assert same_shape
    for name in same_shape:
        np.testing.assert_array_equal(after[name].numpy(), before[name].numpy(), err_msg=name)


@for_each(META_ESTIMATORS)
def test_a_resumed_copy_trains_as_the_original(estimator_class, tmp_path):
    warm = train(over(estimator_class, warm_start=True), FRAME)
    warm.save(tmp_path / "warm")
    again = skae.load(tmp_path / "warm")
    for estimator in (warm, again):
        train(estimator, FRAME)
    assert_same(outputs(again, FRAME), outputs(warm, FRAME))


@for_each(META_ESTIMATORS)
def test_a_warm_start_that_cannot_resume_is_refused(estimator_class):
    warm = train(over(estimator_class, warm_start=True), FRAME)
    with Unchanged(warm, FRAME):
        for table, message in (
            (FRAME[["a", "b"]], "feature names"),
            (FRAME[["b", "a", "c"]], "feature names"),
        ):
            with pytest.raises(ValueError, match=message):
                train(warm, table)
    nameless = train(over(estimator_class, warm_start=True), X)
    with pytest.raises(ValueError, match=f"{estimator_class.__name__} is expecting 3 features"):
        train(nameless, X[:, :2])
    other = skae.SparseAutoencoder(**INNER, warm_start=True)
    for changed, message in (
        ({"autoencoder__hidden_layer_sizes": (5,)}, "hidden_layer_sizes"),
        ({"autoencoder": other}, "is a SparseAutoencoder, but the previous fit trained a Auto"),
    ):
        with pytest.raises(ValueError, match=message):
            train(warm.set_params(**changed), FRAME)


CLASSES = np.arange(len(X)) % 3


@pytest.mark.parametrize(
    ("estimator_class", "before", "after", "message"),
    [
        case_of(skae.AutoencoderClassifier, CLASSES, CLASSES % 2, r"\[0, 1\].*\[0, 1, 2\]"),
        case_of(skae.AutoencoderClassifier, CLASSES, CLASSES + 1, r"\[1, 2, 3\].*\[0, 1, 2\]"),
        case_of(skae.AutoencoderClassifier, CLASSES, np.eye(3)[CLASSES], r"'y2'\].*\[0, 1, 2\]"),
        case_of(skae.AutoencoderRegressor, X[:, :2], X[:, 0], r"\['y0'\].*\['y0', 'y1'\]"),
    ],
)
def test_a_warm_start_with_other_targets_is_refused(estimator_class, before, after, message):
    warm = over(estimator_class, warm_start=True).fit(X, before)
    with Unchanged(warm), pytest.raises(ValueError, match=message + "(?s:.*)warm_start=False"):
        warm.fit(X, after)
    warm.set_params(autoencoder__warm_start=False).fit(X, after)


def test_a_resumed_detector_keeps_the_units_of_its_network():
    detector = over(skae.AutoencoderOutlierDetector, warm_start=True).fit(X)
    codes = detector.set_params(autoencoder__max_epochs=0).fit(X)._fitted.encode(X)
    moved = detector.fit(100 * X + 5)
    np.testing.assert_array_equal(moved._fitted.encode(X), codes)
    assert moved.explain(100 * X + 5)["deviation"].abs().median(axis=None) < 3


# ------------------------------------------------------------------------------ callbacks


class Epochs(TaskCallback):
    """Counts the epochs that it sees, at any depth."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.seen, self.stop_after = [], stop_after

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.seen.append(type(fitted_estimator))
            return len(self.seen) == self.stop_after
        return False


@for_each(META_ESTIMATORS)
def test_callbacks_follow_the_epochs(estimator_class):
    callback = Epochs()
    plain, watched = over(estimator_class), over(estimator_class).set_callbacks(callback)
    train(watched, X)
    assert callback.seen == [skae.Autoencoder] * 3
    assert_same(outputs(watched, X), outputs(train(plain, X), X))
    early = train(over(estimator_class).set_callbacks(Epochs(stop_after=2)), X)
    assert early.autoencoder_.n_iter_ == 2


@for_each(META_ESTIMATORS)
def test_callbacks_without_any_training(estimator_class):
    frozen = FrozenEstimator(skae.Autoencoder(**INNER).fit(X))
    estimator = estimator_class(frozen, random_state=0)
    if "fine_tune" in estimator.get_params():
        estimator.set_params(fine_tune=False)
    callback = Epochs()
    train(estimator.set_callbacks(callback), X)
    assert callback.seen == []


@for_each(META_ESTIMATORS)
def test_a_progress_bar_shows_epochs(estimator_class, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "200")
    train(over(estimator_class).set_callbacks(ProgressBar()), X)
    out = capsys.readouterr().out
    assert f"{estimator_class.__name__} - fit" in out
    assert "Autoencoder" in out.replace(estimator_class.__name__, "")
    assert "100%" in out


@for_each(META_ESTIMATORS)
def test_callbacks_of_pipelines_and_searches_follow_the_epochs(estimator_class):
    pipeline = make_pipeline(StandardScaler(), over(estimator_class))
    callback = Epochs()
    name = estimator_class.__name__.lower()
    search = GridSearchCV(
        pipeline,
        {f"{name}__autoencoder__max_epochs": [1, 2]},
        cv=2,
        scoring=lambda estimator, X, y=None: 0.0,
    )
    search.set_callbacks(callback).fit(X, CLASSES)
    assert len(callback.seen) == 2 * (1 + 2) + search.best_estimator_[-1].autoencoder_.n_iter_


@for_each(META_ESTIMATORS)
def test_parameters_of_the_autoencoder_are_those_of_any_nested_estimator(estimator_class):
    estimator = over(estimator_class)
    estimator.set_params(autoencoder__max_epochs=1, autoencoder__callbacks=[])
    assert estimator.get_params()["autoencoder__max_epochs"] == 1
    assert len(curve(train(estimator, X))) == 1


def test_estimators_over_an_autoencoder_are_discovered():
    assert set(META_ESTIMATORS) == {
        c
        for c in ESTIMATORS
        if "autoencoder" in c().get_params() and not issubclass(c, BaseAutoencoder)
    }
