"""Settings made before SciPy or scikit-learn is imported, and data that tests share."""

import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits


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


@pytest.fixture(autouse=True)
def same_thread_count():
    """No test leaves the process with another number of torch threads."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
