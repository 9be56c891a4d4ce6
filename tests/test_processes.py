"""Settings of torch, threads and processes change no bit of what estimators compute."""

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from small_models import (
    AUTOENCODERS,
    ESTIMATORS,
    X,
    assert_same,
    assert_valid_outputs,
    case_of,
    crossed,
    expected_outputs,
    fitted,
    for_each,
    outputs,
    outputs_of_new_fit,
    tiny,
)
from test_common import train
from test_determinism import fit_in_two_jobs, in_forked_child

import skae

# ------------------------------------------------------------------------------ settings of torch


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "numpy raises": lambda: np.errstate(all="raise"),
}


def assert_settings_change_no_bit(estimator_class, *settings):
    """Fit, predict, unpickle and copy under settings, and go on without them."""
    expected = expected_outputs(estimator_class)
    outside = fitted(estimator_class)
    pickled = pickle.dumps(outside)
    with ExitStack() as stack:
        for setting in settings:
            stack.enter_context(SETTINGS[setting]())
        inside = train(tiny(estimator_class), X)
        unpickled = pickle.loads(pickled)
        computed = [outputs(estimator, X) for estimator in (inside, outside, unpickled)]
        copied = copy.deepcopy(inside)
    for actual in computed:
        assert_same(actual, expected)
    for estimator in (inside, outside, unpickled, copied):
        assert_same(outputs(estimator, X), expected)
        assert_same(outputs(train(estimator, X), X), expected)
    if hasattr(estimator_class, "partial_fit"):
        assert_valid_outputs(train(inside, X, "partial_fit"), X, *X.shape)
        assert_valid_outputs(train(copied, X, "partial_fit"), X, *X.shape)


@for_each()
def test_settings_of_torch_change_no_bit(estimator_class):
    together = ("default float16", "inference_mode", "autocast", "numpy raises")
    assert_settings_change_no_bit(estimator_class, *together)


@pytest.mark.parametrize(
    ("estimator_class", "setting"),
    crossed([pytest.param(setting, id=setting) for setting in SETTINGS], others=0),
)
def test_a_setting_of_torch_changes_no_bit(estimator_class, setting):
    assert_settings_change_no_bit(estimator_class, setting)


# ------------------------------------------------------------------ threads and processes


@pytest.fixture
def two_threads():
    """Torch's own threads are running when processes are forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    square = torch.ones(600, 600)
    assert float((square @ square).sum()) > 0
    yield
    torch.set_num_threads(before)


@for_each()
@pytest.mark.usefixtures("two_threads")
def test_predict_from_eight_threads(estimator_class):
    estimator = fitted(estimator_class)
    with ThreadPoolExecutor(8) as pool:
        computed = list(pool.map(lambda _: outputs(estimator, X), range(16)))
    for actual in computed:
        assert_same(actual, expected_outputs(estimator_class))
    assert torch.get_num_threads() == 2


@for_each()
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("two_threads")
def test_predict_from_a_forked_child(estimator_class):
    estimator, expected = fitted(estimator_class), expected_outputs(estimator_class)

    def child():
        assert_same(outputs(estimator, X), expected)
        assert_same(outputs(train(estimator, X), X), expected)
        return True

    assert in_forked_child(child, 30) == 0


IN_JOBS = [c for c in ESTIMATORS if c not in AUTOENCODERS or c is skae.Autoencoder]
"""Estimators that are run in jobs: processes treat all autoencoders in the same way."""


def assert_same_in_jobs(estimator_class, backend):
    estimator = fitted(estimator_class)
    parallel = Parallel(n_jobs=2, backend=backend, timeout=60)
    predicted = parallel(delayed(outputs)(estimator, X) for _ in range(4))
    refitted = parallel(delayed(outputs_of_new_fit)(estimator_class) for _ in range(2))
    for actual in (*predicted, *refitted):
        assert_same(actual, expected_outputs(estimator_class))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("estimator_class", "backend"),
    [
        case_of(estimator_class, backend, label=backend)
        for estimator_class in IN_JOBS
        for backend in ("threading", "multiprocessing")
    ],
)
@pytest.mark.usefixtures("two_threads")
def test_jobs(estimator_class, backend):
    assert_same_in_jobs(estimator_class, backend)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_jobs_in_new_processes():
    """One test for all estimators, as new processes take seconds to start."""
    fit_in_two_jobs("loky")
    for estimator_class in IN_JOBS:
        assert_same_in_jobs(estimator_class, "loky")
