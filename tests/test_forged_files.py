"""Files that someone has edited, with a right checksum, are refused or do no harm.

An error other than ValueError, of which NotFittedError is a kind, is neither raised by `load` nor
by the use of what it returns.
"""

import copy
from zlib import crc32

import numpy as np
import pytest
from forged_files import edited_files, use
from small_models import AUTOENCODERS, META_ESTIMATORS, X, tiny
from test_common import train

import skae
from skae.variants.conditioned import ConditionedAutoencoder

BODIES = {
    "conv": {"architecture": "conv", "feature_shape": (1, 1, -1)},
    "recurrent": {"architecture": "recurrent", "feature_shape": (-1, 1)},
    "tied": {"tied_weights": True, "linear_skip": False},
    "float32": {"precision": "float32", "noise": "diagonal"},
}

TABLE = np.column_stack([X, np.arange(len(X)) % 3, np.linspace(0, 1, len(X))])
"""The usual rows with a category and a number."""


NAMES = np.array(["a", "b", "c"])[np.arange(len(X)) % 3]


def detector(criterion):
    """A detector with calibration rows."""
    return tiny(skae.AutoencoderOutlierDetector, criterion=criterion, calibration_fraction=0.2).fit(
        X
    )


def with_conditions(estimator_class):
    return tiny(estimator_class, **{estimator_class._condition_parameter: [3, 4]}).fit(TABLE)


MODELS = {
    **{
        c.__name__: lambda c=c: (train(tiny(c, warm_start=True), X), X) for c in AUTOENCODERS
    },
    **{
        f"{c.__name__} with conditions": lambda c=c: (with_conditions(c), TABLE)
        for c in AUTOENCODERS
        if issubclass(c, ConditionedAutoencoder)
    },
    **{c.__name__: lambda c=c: (train(tiny(c), X), X) for c in META_ESTIMATORS},
    **{
        f"detector by {criterion}": lambda criterion=criterion: (detector(criterion), X)
        for criterion in ("reconstruction", "density", "neighbors")
    },
    "labels": lambda: (tiny(skae.AutoencoderClassifier).fit(X, (X > 0).astype(float)), X),
    "three classes": lambda: (tiny(skae.AutoencoderClassifier).fit(X, NAMES), X),
    "three targets": lambda: (tiny(skae.AutoencoderRegressor).fit(X, X), X),
    **{
        name: lambda parameters=parameters: (tiny(skae.Autoencoder, **parameters).fit(X), X)
        for name, parameters in BODIES.items()
    },
}  # fmt: skip
"""Functions that make a small fitted model and rows for it."""

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("name", MODELS),
]


def assert_harmless(path, edits, rows, tmp_path):
    """Assert that `load` refuses edited files or gives estimators that work; count the former."""
    n_refused = 0
    for edit in edits:
        try:
            model = skae.load(path)
        except ValueError:
            n_refused += 1
        else:
            assert use(model, rows, tmp_path) == [], edit
    return n_refused


@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_files_with_random_edits_are_refused_or_do_no_harm(name, n, tmp_path):
    model, rows = MODELS[name]()
    path = tmp_path / "model"
    model.save(path)
    # Else the test would prove nothing.
    assert use(copy.deepcopy(model), rows, tmp_path) == []
    edits = edited_files(path, n, seed=crc32(name.encode()))
    assert n / 4 < assert_harmless(path, edits, rows, tmp_path)
