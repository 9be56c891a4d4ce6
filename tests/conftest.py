"""Settings made before SciPy or scikit-learn is imported, and data that tests share."""

import inspect
import os
from collections import defaultdict
from zlib import crc32

os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Tables of tests are small: a second thread would mostly wait, and pytest-xdist uses all cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits

CASES = 3
ONE_IN = 4
"""By default, a test with many cases runs `CASES` of them, or one of `ONE_IN` if these are more.
The other cases are slow tests. Names decide, so that the choice is the same in each run. The option
`-k` of pytest chooses among all cases."""


def pytest_addoption(parser):
    parser.addoption(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="run one test of N: those whose name has a CRC-32 that N divides",
    )


def estimator_of(item):
    """Name of the first of skae's estimators among a test's parameters, or None."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    for value in parameters:
        kind = value if inspect.isclass(value) else type(value)
        if issubclass(kind, BaseEstimator) and kind.__module__.startswith("skae."):
            return kind.__name__
    return None


def mark_most_cases_as_slow(items):
    """Mark most cases of the tests with many cases as slow."""
    cases = defaultdict(list)
    for item in items:
        chosen = any(map(item.get_closest_marker, ("slow", "every_case")))
        if hasattr(item, "callspec") and not chosen:
            cases[item.parent.nodeid, item.originalname].append(item)
    for of_test in cases.values():
        of_test.sort(key=lambda item: crc32(item.nodeid.encode()))
        for item in of_test[max(CASES, len(of_test) // ONE_IN) :]:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist and `-m` read the marks
def pytest_collection_modifyitems(config, items):
    """Keep the tests of an estimator on one worker, where they share fits; choose one of N."""
    if not config.getoption("keyword"):
        mark_most_cases_as_slow(items)
    for item in items:
        name = estimator_of(item)
        if name and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(name))
    n = config.getoption("--one-in")
    chosen = [item for item in items if crc32(item.nodeid.encode()) % n == 0]
    left_out = set(items) - set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = chosen


@pytest.fixture(scope="session")
def digits():
    """Digits as float64 rows in [0, 16]."""
    return load_digits().data.astype(np.float64)


@pytest.fixture
def curved():
    """120 rows of 6 columns around a curved surface of two dimensions."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 2))
    X = np.tanh(z @ rng.normal(size=(2, 8))) @ rng.normal(size=(8, 6))
    return X + 0.05 * rng.normal(size=X.shape)


@pytest.fixture
def kept_axes(monkeypatch):
    """No fit rotates the codes, so that weights are those that training has found."""
    monkeypatch.setattr("skae.fitting.components.can_rotate", lambda network: False)


@pytest.fixture(autouse=True)
def same_thread_count():
    """No test leaves the process with another number of torch threads."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
