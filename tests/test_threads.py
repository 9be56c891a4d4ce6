"""Counts of threads, locks and caches stay whole in every thread and in every forked child."""

import linecache
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from small_models import (
    X,
    assert_same,
    expected_outputs,
    fitted,
    for_each,
    outputs,
    outputs_of_new_fit,
    tiny,
)
from test_common import train
from test_determinism import exit_status, in_forked_child
from torch.utils._python_dispatch import TorchDispatchMode

import skae
import skae.fitting.fit
from skae.nn.bodies.layers import Chain, Residual
from skae.nn.step import replay
from skae.training import threads

FORKS = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]


def forks(test):
    for mark in FORKS:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def two_threads():
    """Torch uses two threads, and those of the main thread are running."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    use_torchs_threads()
    yield
    torch.set_num_threads(before)


def use_torchs_threads():
    """Compute what hangs in a child that has a count of two but none of its parent's threads."""
    square = torch.ones(600, 600)
    assert float((square @ square).sum()) > 0


def in_new_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def counts():
    """The count of this thread, and of one that starts now."""
    return torch.get_num_threads(), in_new_thread(torch.get_num_threads)


class Pause:
    """Holds one thread up at a place until another has been there, or for some seconds."""

    def __init__(self, seconds=60):
        self.reached, self.over, self.seconds = threading.Event(), threading.Event(), seconds

    def __call__(self):
        if not self.reached.is_set():
            self.reached.set()
            self.over.wait(self.seconds)

    @contextmanager
    def of(self, function, *args):
        """Run a function in a new thread, and the block while it is held up."""
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(function, *args)
            try:
                assert self.reached.wait(60)
                yield job
            finally:
                self.over.set()
            job.result()

    def before(self, function):
        def paused(*args, **kwargs):
            self()
            return function(*args, **kwargs)

        return paused

    def after(self, function):
        def paused(*args, **kwargs):
            result = function(*args, **kwargs)
            self()
            return result

        return paused


# --------------------------------------------------------------------------- counts of threads


class Counts(TorchDispatchMode):
    """Notes the operations that may use several threads."""

    def __init__(self):
        super().__init__()
        self.operations = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if torch.get_num_threads() > 1:
            self.operations.add(str(operation))
        return operation(*args, **(kwargs or {}))


COPIES = {"detach", "lift_fresh", "_to_copy", "empty", "view", "alias", "select", "clone"}
"""Operations without arithmetic."""


@for_each()
def test_every_operation_uses_one_thread(estimator_class):
    estimator = tiny(estimator_class)
    with Counts() as counts:
        outputs(train(estimator, X), X)
    found = {name.split(".")[1] for name in counts.operations}
    assert found <= COPIES


@for_each()
def test_calls_that_overlap_change_no_count(estimator_class, monkeypatch):
    """Neither of their own threads nor of others, and a count that is set meanwhile stays."""
    estimator, pause = fitted(estimator_class), Pause()
    monkeypatch.setattr(skae.fitting.fit, "make_net", pause.before(skae.fitting.fit.make_net))
    count_after = []

    def fit():
        train(tiny(estimator_class), X)
        count_after.append(torch.get_num_threads())

    with pause.of(fit):
        assert counts() == (2, 2)
        outputs(estimator, X)
        assert counts() == (2, 2)
        torch.set_num_threads(3)
        outputs(estimator, X)
        assert counts() == (3, 3)
    assert count_after == [2]
    assert counts() == (3, 3)
    outputs(estimator, X)
    assert counts() == (3, 3)


def test_threads_may_have_different_counts():
    model = fitted(skae.Autoencoder)

    def with_own_count(count):
        torch.get_num_threads()  # before it, torch does not keep the count of a new thread
        torch.set_num_threads(count)
        barrier.wait()
        for _ in range(5):
            model.transform(X)
        return torch.get_num_threads()

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(with_own_count, (1, 2, 3, 4))) == [1, 2, 3, 4]
    torch.set_num_threads(2)


def test_one_thread_at_a_time_changes_a_count(monkeypatch):
    """A thread that starts while another changes its count does not see the count of that one."""
    model, pause = fitted(skae.Autoencoder), Pause(0.5)
    monkeypatch.setattr(torch, "set_num_threads", pause.after(torch.set_num_threads))

    def count_after_call():
        model.transform(X)
        return torch.get_num_threads()

    with pause.of(count_after_call) as first:
        assert in_new_thread(count_after_call) == 2
    assert first.result() == 2
    assert counts() == (2, 2)


def at_line(number, act):
    """Trace function that acts at one event of the code that changes counts; and the events.

    The end of a `with` statement is no such event: Python calls no signal handler between the end
    of its block and the release of its lock.
    """
    events = []

    def trace(frame, event, argument):
        if frame.f_code.co_filename != threads.__file__:
            return None
        source = linecache.getline(threads.__file__, frame.f_lineno)
        place = frame, frame.f_lineno
        if event == "line" and source.strip().startswith("with ") and place in events:
            return trace
        events.append(place)
        if len(events) == number:
            act()
        return trace

    return trace, events


def traced(trace, function, *args):
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return function(*args)
    finally:
        sys.settrace(before)


def n_events(function, *args):
    trace, events = at_line(None, None)
    traced(trace, function, *args)
    return len(events)


def interrupt():
    raise KeyboardInterrupt


def test_ctrl_c_at_any_line_restores_the_counts():
    model = fitted(skae.Autoencoder)
    expected = model.transform(X)
    total = n_events(model.transform, X)
    assert total > 20
    for number in range(1, total + 1):
        trace, _ = at_line(number, interrupt)
        with pytest.raises(KeyboardInterrupt):
            traced(trace, model.transform, X)
        assert counts() == (2, 2), number
        np.testing.assert_array_equal(model.transform(X), expected)
    assert counts() == (2, 2)


@threads.one_thread
def count_for(work):
    before = torch.get_num_threads()
    with threads.threads_for(work):
        count = torch.get_num_threads()
    assert torch.get_num_threads() == before == 1
    return count


def test_the_size_of_a_step_decides_how_many_threads_it_gets():
    unit = threads.WORK_PER_THREAD
    assert [count_for(unit * n - 1) for n in (1, 2, 3)] == [1, 1, 2]
    assert count_for(100 * unit) == 2
    torch.set_num_threads(1)
    assert count_for(100 * unit) == 1


def test_ctrl_c_in_a_large_step_restores_the_counts():
    work = 2 * threads.WORK_PER_THREAD
    for number in range(1, n_events(count_for, work) + 1):
        trace, _ = at_line(number, interrupt)
        with pytest.raises(KeyboardInterrupt):
            traced(trace, count_for, work)
        assert counts() == (2, 2), number


def test_steps_on_two_threads_have_the_same_results(monkeypatch):
    class Watch(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            used.add(torch.get_num_threads())

    used, codes = set(), []
    for unit in (threads.WORK_PER_THREAD, 1):
        monkeypatch.setattr(threads, "WORK_PER_THREAD", unit)
        model = tiny(skae.Autoencoder).set_params(callbacks=[Watch()])
        codes.append(model.fit(X).transform(X))
    assert used == {1, 2}
    np.testing.assert_allclose(*codes, rtol=1e-6, atol=1e-6)
    assert counts() == (2, 2)


# ------------------------------------------------------------------------------ forked children


def child_is_usable(model, expected):
    """A child of a fork predicts and fits, in one thread, and keeps a count that is set there."""
    assert torch.get_num_threads() == 1
    use_torchs_threads()
    assert_same(outputs(model, X), expected)
    assert_same(outputs_of_new_fit(type(model)), expected)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    model.transform(X)
    return counts() == (2, 2)


@forks
def test_fork_while_another_thread_changes_a_count(monkeypatch):
    model, expected = fitted(skae.Autoencoder), expected_outputs(skae.Autoencoder)
    pause = Pause(0.5)
    monkeypatch.setattr(torch, "set_num_threads", pause.after(torch.set_num_threads))
    with pause.of(model.transform, X):
        assert in_forked_child(lambda: child_is_usable(model, expected), 30) == 0


@forks
@for_each()
def test_fork_while_another_thread_fits(estimator_class, monkeypatch):
    model, expected = fitted(estimator_class), expected_outputs(estimator_class)
    pause = Pause()
    monkeypatch.setattr(skae.fitting.fit, "make_net", pause.before(skae.fitting.fit.make_net))

    def child():
        assert_same(outputs(model, X), expected)
        torch.set_num_threads(2)
        outputs(model, X)
        return counts() == (2, 2)

    with pause.of(train, tiny(estimator_class), X):
        assert in_forked_child(child, 30) == 0


PLACES = {
    "trace": (replay, "make_fx"),
    "forward mode": (torch.func, "vmap"),
    "inverse of a covariance": (torch, "cholesky_inverse"),
}
"""Functions with which a fit changes the state of torch, or computes what an object keeps."""


def fitted_through(place, monkeypatch):
    """A model whose fit calls the function of a place, and its outputs."""
    monkeypatch.setattr(replay, "TRACE_PAYS_AFTER", 0)
    if place == "forward mode":
        monkeypatch.setattr(Chain, "linearize", Residual.linearize)
    model = train(tiny(skae.Autoencoder), X)
    return model, outputs(model, X)


@forks
@pytest.mark.parametrize("place", PLACES)
def test_fork_while_another_thread_is_at_a_place(place, monkeypatch):
    model, expected = fitted_through(place, monkeypatch)
    pause, (owner, name) = Pause(0.5), PLACES[place]
    monkeypatch.setattr(owner, name, pause.before(getattr(owner, name)))
    with pause.of(outputs_of_new_fit, skae.Autoencoder) as other:
        assert in_forked_child(lambda: child_is_usable(model, expected), 60) == 0
    assert_same(other.result(), expected)


class Forking:
    """Forks when it is called for the first time. The child goes on like the parent."""

    pid = None

    def __call__(self, *args):
        if self.pid is None:
            self.pid = os.fork()

    def check(self, function, child, seconds=60):
        """Call a function that forks; whether parent and child end, and `child` is true there."""
        try:
            function()
            if self.pid == 0:
                os._exit(0 if child() else 1)
        except BaseException:
            traceback.print_exc()
            if self.pid != 0:
                raise
        finally:
            if self.pid == 0:
                os._exit(2)
        return exit_status(self.pid, seconds) == 0


@forks
def test_fork_within_a_fit():
    """The child, too, ends the fit, and goes on without torch's threads."""
    fork = Forking()

    def corruption(x, generator):
        fork()
        return x

    model = tiny(skae.Autoencoder, corruption=corruption)
    plain, expected = fitted(skae.Autoencoder), expected_outputs(skae.Autoencoder)
    assert fork.check(lambda: model.fit(X), lambda: child_is_usable(plain, expected))
    assert counts() == (2, 2)


@forks
def test_fork_at_any_line_that_changes_a_count(monkeypatch):
    """As a signal handler does whose child returns."""
    monkeypatch.setattr(threads, "PATIENCE", 0.05)
    model = fitted(skae.Autoencoder)
    expected = model.transform(X)

    def child():
        use_torchs_threads()
        np.testing.assert_array_equal(model.transform(X), expected)
        return torch.get_num_threads() == 1

    for number in range(1, n_events(model.transform, X) + 1):
        fork = Forking()
        trace, _ = at_line(number, fork)
        assert fork.check(lambda trace=trace: traced(trace, model.transform, X), child), number
        assert counts() == (2, 2)


def signalling(function, arrived):
    """A function that first sends a signal to this process, once."""

    def wrapped(*args, **kwargs):
        if not arrived:
            arrived.append(True)
            signal.raise_signal(signal.SIGUSR1)
        return function(*args, **kwargs)

    return wrapped


def let_a_signal_arrive_at(place, monkeypatch, arrived):
    """Within the function that is traced or differentiated, or before the inverse."""
    owner, name = PLACES[place]
    function = getattr(owner, name)
    if name == "cholesky_inverse":
        replacement = signalling(function, arrived)
    else:

        def replacement(inner, **options):
            return function(signalling(inner, arrived), **options)

    monkeypatch.setattr(owner, name, replacement)


@forks
@pytest.mark.parametrize("act", ["fork", "fit"])
@pytest.mark.parametrize("place", PLACES)
def test_signal_handler_at_a_place(place, act, monkeypatch):
    """It may fork, predict and fit. The fit that it interrupts then ends as usual."""
    model, expected = fitted_through(place, monkeypatch)
    fork, arrived = Forking(), []

    def handle(*args):
        if act == "fork":
            fork()
        if act == "fit" or fork.pid == 0:
            assert_same(outputs(model, X), expected)
            assert_same(outputs_of_new_fit(skae.Autoencoder), expected)

    def interrupted_fit():
        new = train(tiny(skae.Autoencoder), X)
        assert arrived
        assert all(epoch["event_trace_failures"] == [] for epoch in new.history_)
        assert_same(outputs(new, X), expected)
        return True

    def scenario():
        signal.signal(signal.SIGUSR1, handle)
        let_a_signal_arrive_at(place, monkeypatch, arrived)
        if act == "fit":
            return interrupted_fit()
        return fork.check(interrupted_fit, lambda: True)

    assert in_forked_child(scenario, 60) == 0


N_FORKS = [pytest.param(15, id="15"), pytest.param(300, id="300", marks=pytest.mark.slow)]


@forks
@pytest.mark.parametrize("n_forks", N_FORKS)
def test_children_that_are_forked_under_load_end(n_forks):
    model, expected = fitted(skae.Autoencoder), expected_outputs(skae.Autoencoder)
    stop, seen = threading.Event(), set()

    def work(call):
        while not stop.is_set():
            assert_same(call(), expected)
            seen.add(torch.get_num_threads())

    calls = [lambda: outputs(model, X), lambda: outputs_of_new_fit(skae.Autoencoder)] * 2
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(work, call) for call in calls]
            try:
                statuses = [
                    in_forked_child(lambda: child_is_usable(model, expected), 60)
                    for _ in range(n_forks)
                ]
            finally:
                stop.set()
            for job in jobs:
                job.result()
    finally:
        sys.setswitchinterval(interval)
    assert statuses == [0] * n_forks
    assert seen == {2}
    assert counts() == (2, 2)
