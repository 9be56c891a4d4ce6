"""Same seed, same bits: in any thread or process; nothing global is read, moved or left changed."""

import os
import pickle
import random
import signal
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from test_common import configured, core, public_estimators, train

import skae.fitting.fit
import skae.fitting.stream
from skae import Autoencoder, ConditionalVariationalAutoencoder
from skae.base import BaseAutoencoder
from skae.nn.step import replay as step

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 5)) + 0.1 * RNG.normal(size=(60, 5))


def tiny(seed=0, **parameters):
    defaults = {
        "hidden_layer_sizes": (6,),
        "max_epochs": 4,
        "batch_size": 16,
        "dropout": 0.2,
    }
    return Autoencoder(2, random_state=seed, **(defaults | parameters))


def answers(autoencoder):
    """Everything a fitted model says, as one vector."""
    return np.concatenate(
        [
            autoencoder.transform(X).ravel(),
            autoencoder.reconstruct(X).ravel(),
            autoencoder.score_samples(X),
            autoencoder.sample(3, random_state=0).ravel(),
            autoencoder.loss_curve_,
            autoencoder.validation_curve_,
        ]
    )


def fit_and_answer(seed):
    return answers(tiny(seed).fit(X))


def test_refits_have_the_same_bits():
    autoencoder = tiny().fit(X)
    first = answers(autoencoder)
    np.testing.assert_array_equal(first, answers(autoencoder))
    np.testing.assert_array_equal(first, answers(autoencoder.fit(X)))
    np.testing.assert_array_equal(first, fit_and_answer(0))
    assert not np.array_equal(first, fit_and_answer(1))


def test_without_a_seed_fits_differ():
    first, second = (
        tiny(None).fit(X).module_.encoder.residual.layers[0].weight.detach() for _ in range(2)
    )
    assert not np.array_equal(first, second)


def test_a_random_state_object_moves_on():
    a, b = (np.random.RandomState(0) for _ in range(2))

    def weights(state):
        return tiny(state).fit(X).module_.encoder.residual.layers[0].weight.detach().numpy()

    first, second = weights(a), weights(a)
    for expected in (first, second):
        np.testing.assert_array_equal(expected, weights(b))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("estimator_class", "precision"),
    [
        (Autoencoder, "float32"),
        *((c, "float64") for c in public_estimators()),
        *(
            pytest.param(c, "float32", marks=pytest.mark.slow)
            for c in public_estimators()
            if c is not Autoencoder
        ),
    ],
)
def test_every_estimator_trains_to_the_same_weights_with_and_without_traces(
    estimator_class, precision, monkeypatch
):
    parameters = {"hidden_layer_sizes": (6,), "max_epochs": 3, "batch_size": 8, "dropout": 0.2}
    parameters |= {"n_components": 2, "precision": precision, "random_state": 0}
    known = estimator_class().get_params()
    parameters |= {name: [0] for name in ("condition", "sensitive") if name in known}
    estimator = configured(estimator_class, **parameters)
    traces = []
    trace = step.Step._trace

    def note(self, batch):
        traces.append(trace(self, batch))
        return traces[-1]

    monkeypatch.setattr(step.Step, "_trace", note)
    weights = []
    for pays_after in (0, 10**9):
        monkeypatch.setattr(step, "TRACE_PAYS_AFTER", pays_after)
        fitted = core(train(estimator, X))
        weights.append([tensor.numpy() for tensor in fitted.module_.state_dict().values()])
        assert all(epoch["event_trace_failures"] == [] for epoch in fitted.history_)
    assert len(traces) == 2  # of a full batch and of the last, smaller one
    assert all(replay is not None for replay in traces)
    for traced, plain in zip(*weights, strict=True):
        np.testing.assert_array_equal(traced, plain)


@pytest.mark.slow
def test_forty_fits_in_eight_threads():
    seeds = [i % 5 for i in range(40)]
    expected = [fit_and_answer(seed) for seed in range(5)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(fit_and_answer, seeds))
    wrong = [
        seed for seed, got in zip(seeds, results, strict=True)
        if not np.array_equal(got, expected[seed])
    ]  # fmt: skip
    assert wrong == []


def fit_in_two_jobs(backend):
    """Whether fits in joblib's threads or processes have the same bits as here."""
    expected = [fit_and_answer(seed) for seed in range(4)]
    results = Parallel(n_jobs=2, backend=backend)(delayed(fit_and_answer)(i) for i in range(4))
    for got, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_two_threads():
    """Fits in processes of their own are in test_processes.py."""
    fit_in_two_jobs("threading")


def global_states():
    kind, keys, *rest = np.random.get_state()
    return (
        (kind, keys.tobytes(), *rest),
        random.getstate(),
        torch.get_rng_state().numpy().tobytes(),
    )


@pytest.mark.parametrize("seed", [0, None])
def test_global_generators_are_left_alone(seed):
    before = global_states()
    fitted = tiny(seed, layerwise_epochs=1).fit(X).partial_fit(X)
    fitted.transform(X)
    fitted.score_samples(X)
    fitted.sample(3)
    fitted.sample(3, random_state=0)
    assert global_states() == before


def test_global_generators_do_not_matter():
    results = []
    for seed in (0, 1):
        np.random.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        results.append(fit_and_answer(0))
    np.testing.assert_array_equal(*results)


def test_order_of_rows_does_not_decide_what_is_held_out():
    """Whole batches leave rows in their order, so all but rounding agrees."""
    order = np.random.default_rng(1).permutation(len(X))
    parameters = {"batch_size": "auto", "dropout": 0.0}
    a, b = tiny(**parameters).fit(X), tiny(**parameters).fit(X[order])
    np.testing.assert_allclose(a.transform(X), b.transform(X), atol=1e-5)
    np.testing.assert_allclose(a.score_samples(X), b.score_samples(X), atol=1e-3)


def in_forked_child(function, seconds):
    """Run a function in a forked child; its exit status, or None if it had to be killed."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        try:
            os._exit(0 if function() else 1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(2)
    return exit_status(pid, seconds)


def exit_status(pid, seconds):
    """The exit status of a child, or None if it had to be killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_can_predict_and_fit():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        square = torch.ones(600, 600)
        assert float((square @ square).sum()) > 0  # the parent's threads are running
        fitted = tiny().fit(X)
        expected, refit = answers(fitted), fit_and_answer(1)

        def child():
            assert np.array_equal(answers(fitted), expected)
            return np.array_equal(fit_and_answer(1), refit)

        assert in_forked_child(child, 60) == 0
    finally:
        torch.set_num_threads(before)


def fail(x, generator):
    raise RuntimeError("no")


def interrupt(x, generator):
    raise KeyboardInterrupt


@pytest.mark.parametrize("threads", [1, 2])
def test_thread_count_is_restored(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fitted = tiny().fit(X)
        assert torch.get_num_threads() == threads
        fitted.partial_fit(X)
        fitted.transform(X)
        fitted.score_samples(X)
        assert torch.get_num_threads() == threads
        for failing, error in ((fail, RuntimeError), (interrupt, KeyboardInterrupt)):
            with pytest.raises(error):
                tiny(corruption=failing).fit(X)
            assert torch.get_num_threads() == threads
        with pytest.raises(ValueError, match="NaN"):
            tiny().fit(np.full((5, 2), np.nan))
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(tiny(i % 3, corruption=[None, fail][i % 2]).fit, X)
                    for i in range(16)]  # fmt: skip
            failed = sum(job.exception() is not None for job in jobs)
        assert failed == 8
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_training_uses_one_thread():
    seen = []

    def note(x, generator):
        seen.append(torch.get_num_threads())
        return x

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny(corruption=note).fit(X)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


@pytest.mark.slow
def test_traces_at_once_leave_torch_as_it_was(monkeypatch):
    monkeypatch.setattr(step, "TRACE_PAYS_AFTER", 0)
    before = torch.nn.Module.__call__, torch.nn.Module.__getattr__
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: tiny(i, max_epochs=2).fit(X), range(8)))
    assert (torch.nn.Module.__call__, torch.nn.Module.__getattr__) == before


# ------------------------------------------------------- one model, replaced as a whole

TABLE = np.column_stack([X, np.arange(60) % 3])
QUESTIONS = {
    "transform": lambda model: model.transform(TABLE),
    "reconstruct": lambda model: model.reconstruct(TABLE),
    "score_samples": lambda model: model.score_samples(TABLE),
    "sample": lambda model: model.sample(4, random_state=0),
    "interpolate": lambda model: model.interpolate(TABLE[:3], TABLE[3:6], 3),
    "pickle": lambda model: pickle.loads(pickle.dumps(model)).transform(TABLE),
}
CALLED = threading.Event()


class WaitsForACall(Callback):
    """Holds each fit up until another thread has called a method."""

    def on_epoch_end(self, net, **kwargs):
        CALLED.clear()
        assert CALLED.wait(60)


@pytest.mark.filterwarnings("ignore:Posterior collapse")
@pytest.mark.parametrize("warm_start", [False, True], ids=["anew", "warm"])
@pytest.mark.parametrize(
    ("estimator_class", "parameters"),
    [(Autoencoder, {}), (ConditionalVariationalAutoencoder, {"condition": -1})],
    ids=["Autoencoder", "Conditional"],
)
def test_a_call_during_a_refit_meets_the_old_or_the_new_model(
    estimator_class, parameters, warm_start
):
    """Never parts of both, whatever a model is asked while `fit` is called again and again."""
    sizes = [2, 3, 4, 5, 6, 7] if warm_start else [2, 5] * 5
    defaults = {"hidden_layer_sizes": (6,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
    plain = estimator_class(**defaults, **parameters, warm_start=warm_start)
    expected = {}
    for k in sizes:
        plain.set_params(n_components=k).fit(TABLE)
        expected[k] = {name: ask(plain) for name, ask in QUESTIONS.items()}
    model = estimator_class(sizes[0], **defaults, **parameters, warm_start=warm_start).fit(TABLE)
    model.set_params(callbacks=[WaitsForACall()])
    met = {name: [] for name in QUESTIONS}

    def refit():
        for k in sizes[1:]:
            model.set_params(n_components=k).fit(TABLE)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(refit)
        while not job.done():
            for name, ask in QUESTIONS.items():
                met[name].append(ask(model))
                CALLED.set()
        job.result()
    found = []
    for name, answers_met in met.items():
        models = [
            [k for k in expected if np.array_equal(answer, expected[k][name])]
            for answer in answers_met
        ]
        assert all(models), name
        found.extend(k for ks in models for k in ks)
        if warm_start:
            assert [ks[0] for ks in models] == sorted(ks[0] for ks in models)
    assert {*sizes[:-1]} <= {*found}
    assert {answer.shape for answer in met["transform"]} <= {(60, k) for k in sizes}
    assert model.transform(TABLE).shape == (60, sizes[-1])


SCIKIT_LEARNS = ("_callback_", "_skl_")
"""How names begin of what scikit-learn keeps on an estimator for its callbacks while a fit runs."""


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_assigns_the_model_and_nothing_else(method, monkeypatch):
    model = tiny().fit(X)
    before, attributes, assigned = model._fitted, vars(model), []
    kept = {name: value for name, value in attributes.items() if name != "_fitted"}

    def note(self, name, value):
        if self is model:
            assigned.append(name)
        object.__setattr__(self, name, value)

    monkeypatch.setattr(Autoencoder, "__setattr__", note, raising=False)
    getattr(model, method)(X)
    own = [name for name in assigned if not name.startswith(SCIKIT_LEARNS)]
    assert own == ["_fitted"]
    assert vars(model) is attributes
    assert attributes.pop("_fitted") is not before
    assert attributes == kept


class Interrupting(Callback):
    """Interrupts a fit at the `at`-th call of any of its hooks."""

    may_stop = False

    def __init__(self, at):
        self.at = at

    def initialize(self):
        self.calls = 0
        return self

    def _count(self, net, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt

    on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = _count
    on_batch_begin = on_batch_end = on_grad_computed = _count


AUTOENCODERS = [c for c in public_estimators() if issubclass(c, BaseAutoencoder)]


@pytest.fixture
def fitted(request):
    """An autoencoder of a kind, fitted."""
    parameters = {"hidden_layer_sizes": (6,), "max_epochs": 3, "batch_size": 16}
    estimator = request.param(n_components=2, random_state=0, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(estimator, X)


def codes_and_losses(model):
    return [model.transform(X), model.reconstruct(X), model.score_samples(X), model.loss_curve_]


def assert_left_as_it_was(model, before, expected):
    assert model._fitted is before
    for got, wanted in zip(codes_and_losses(model), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


REFITS = pytest.mark.parametrize(
    ("method", "parameters"),
    [("fit", {}), ("fit", {"warm_start": True}), ("partial_fit", {})],
    ids=["fit", "warm", "partial"],
)


@pytest.mark.filterwarnings("ignore:(Posterior collapse|Only .* of n_codes)")
@REFITS
@pytest.mark.parametrize("fitted", AUTOENCODERS, indirect=True, ids=lambda c: c.__name__)
def test_an_interrupt_anywhere_in_training_leaves_the_model(fitted, method, parameters):
    before, expected = fitted._fitted, codes_and_losses(fitted)
    watching = Interrupting(None)
    clone = pickle.loads(pickle.dumps(fitted)).set_params(callbacks=[watching], **parameters)
    train(clone, X, method)
    places = np.random.default_rng(0).choice(np.arange(2, watching.calls), 4, replace=False)
    for at in (1, *places.tolist(), watching.calls):
        fitted.set_params(callbacks=[Interrupting(at)], **parameters)
        with pytest.raises(KeyboardInterrupt):
            train(fitted, X, method)
        assert_left_as_it_was(fitted, before, expected)
    train(fitted.set_params(callbacks=None), X, method)
    assert fitted._fitted is not before


STEPS = [
    "prepare_fit",
    "make_net",
    "make_batches",
    "start_auxiliary_loss",
    "make_plan",
    "train_net",
    "make_fitted",
    "about_codes",
]

STREAM_STEPS = [
    "read_stream",
    "stream_net",
    "make_rehearsal",
    "make_stream_plan",
    "train_stream",
    "make_stream_fitted",
    "about_codes",
]

EACH_STEP = [
    pytest.param(module, name, *refit, id=f"{name}-{label}")
    for module, names, refit, label in [
        (skae.fitting.fit, STEPS, ("fit", {}), "fit"),
        (skae.fitting.fit, STEPS, ("fit", {"warm_start": True}), "warm"),
        (skae.fitting.stream, STREAM_STEPS, ("partial_fit", {}), "partial"),
    ]
    for name in names
]


@pytest.mark.filterwarnings("ignore:(Posterior collapse|Only .* of n_codes)")
@pytest.mark.parametrize(("module", "name", "method", "parameters"), EACH_STEP)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "fitted",
    [Autoencoder, skae.SemiSupervisedVariationalAutoencoder],
    indirect=True,
    ids=lambda c: c.__name__,
)
def test_an_interrupt_of_any_step_leaves_the_model(
    fitted, module, name, when, method, parameters, monkeypatch
):
    before, expected = fitted._fitted, codes_and_losses(fitted)
    do = getattr(module, name)

    def interrupted(*args):
        if when == "after":
            do(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(fitted.set_params(**parameters), X, method)
    assert_left_as_it_was(fitted, before, expected)


@pytest.mark.parametrize("fitted", [Autoencoder], indirect=True)
def test_a_warning_that_is_raised_leaves_the_model(fitted, monkeypatch):
    before, expected = fitted._fitted, codes_and_losses(fitted)
    message = "codes are of no use", ConvergenceWarning
    monkeypatch.setattr(skae.fitting.fit, "about_codes", lambda *_: [message])
    with pytest.raises(ConvergenceWarning, match="of no use"):
        fitted.fit(X)
    assert_left_as_it_was(fitted, before, expected)
    with pytest.warns(ConvergenceWarning, match="of no use") as caught:
        fitted.fit(X)
    assert caught[0].filename == __file__
    assert fitted._fitted is not before
